//! The protos of `tests/protos`: chains over them, and messages of their types.
#![allow(dead_code, clippy::unwrap_used, reason = "helpers of tests, each of which uses a part")]

use std::path::Path;
use std::sync::LazyLock;

use prost_reflect::prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage};
use towpath_lang::{self as lang, Compiled, Loader, Overrides, SourceText};

/// The files of `tests/protos`.
pub(crate) struct Protos;

impl Loader for Protos {
    fn read(&self, _from: &str, path: &str) -> Result<SourceText, String> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/protos");
        let text = std::fs::read_to_string(folder.join(path)).map_err(|_| "no such file".to_owned())?;
        Ok(SourceText { name: path.to_owned(), text })
    }

    fn resolve(&self, host_port: &str) -> Result<Vec<std::net::SocketAddr>, String> {
        Err(host_port.to_owned())
    }
}

/// One pool: messages of two are never equal.
pub(crate) fn pool() -> DescriptorPool {
    static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/protos");
        DescriptorPool::from_file_descriptor_set(protox::compile(["shop.proto"], [folder]).unwrap()).unwrap()
    });
    POOL.clone()
}

pub(crate) fn app(rule: &str, rest: &str) -> String {
    format!(
        "proto \"shop.proto\"\nservice frontend\nservice catalog {{ endpoints: [\"127.0.0.1:1\"] }}\nfrontend -> {rule}\n{rest}\n"
    )
}

pub(crate) fn compile(rule: &str, rest: &str) -> Result<Compiled, String> {
    let source = app(rule, rest);
    let mut compiled =
        lang::compile("app.adn", &source, &Protos, &Overrides::default()).map_err(|e| e.to_string())?;
    compiled.link(&mut lang::state::Store::new(1), &mut lang::Interpreter);
    Ok(compiled)
}

pub(crate) fn encode(name: &str, fields: &[(&str, prost_reflect::Value)]) -> Vec<u8> {
    made(name, fields).encode_to_vec()
}

pub(crate) fn made(name: &str, fields: &[(&str, prost_reflect::Value)]) -> DynamicMessage {
    let mut message = DynamicMessage::new(pool().get_message_by_name(name).unwrap());
    for (field, value) in fields {
        message.set_field_by_name(field, value.clone());
    }
    message
}

pub(crate) fn text(text: &str) -> prost_reflect::Value {
    prost_reflect::Value::String(text.to_owned())
}
