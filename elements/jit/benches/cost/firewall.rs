//! What a firewall on a field of a message adds to the five elements. The message has 1 KiB.

use std::sync::Arc;

use abi::Chain;
use lang::state::Store;
use lang::{Backend, Loader, Overrides, SourceText};
use wire::proto::{Wire, put_key, put_varint};

use super::{FIVE, Slim};

const PROTO: &str = r#"
    syntax = "proto3";
    package shop;
    service Catalog { rpc List(Request) returns (Request); }
    message User { string id = 1; string name = 2; }
    message Request { string id = 1; User user = 2; repeated uint32 sizes = 3; string text = 4; bytes blob = 5; }
"#;

/// The fields that a message may be long by.
pub(crate) const LONG: [(&str, u32); 2] = [("a long text", 4), ("long bytes", 5)];

struct Proto;

impl Loader for Proto {
    fn read(&self, _from: &str, path: &str) -> Result<SourceText, String> {
        Ok(SourceText { name: path.to_owned(), text: PROTO.to_owned() })
    }

    fn resolve(&self, host_port: &str) -> Result<Vec<std::net::SocketAddr>, String> {
        Err(host_port.to_owned())
    }
}

/// The five elements for the one method, and the firewall behind them if it is wanted.
pub(crate) fn chain(has_firewall: bool, backend: &mut dyn Backend) -> Arc<dyn Chain> {
    let last = if has_firewall {
        "- Logging - Firewall(call.payload.user.id, deny: [\"mallory\"])"
    } else {
        "- Logging"
    };
    let source = FIVE.replace("-> catalog:", "-> catalog.shop.Catalog/List:").replace("- Logging", last);
    let source = format!("proto \"shop.proto\"\n{source}");
    let mut compiled = lang::compile("firewall.adn", &source, &Proto, &Overrides::default())
        .unwrap_or_else(|e| panic!("{e}"));
    compiled.link(&mut Store::new(1), backend);
    compiled.program.chains[0].clone()
}

fn put(to: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    put_key(to, number, Wire::Len);
    put_varint(to, bytes.len() as u64);
    to.extend_from_slice(bytes);
}

/// A call with a message of 1 KiB from this user, most of it in field `number`.
pub(crate) fn call(user_id: &str, number: u32) -> Slim {
    let (mut user, mut message) = (Vec::new(), Vec::new());
    put(&mut user, 1, user_id.as_bytes());
    put(&mut user, 2, b"Anna Example");
    put(&mut message, 1, b"0d9f2c1e");
    put(&mut message, 2, &user);
    put(&mut message, 3, &[1, 2, 3, 4, 100, 5]);
    let rest = 1024 - 3 - message.len();
    put(&mut message, number, &vec![b'x'; rest]);
    Slim { payload: message, ..Slim::new() }
}
