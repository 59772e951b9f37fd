//! Messages, by what elements see of them.

mod common;

use std::path::Path;

use abi::{Entry, Status, Unreadable, Verdict};
use common::{Mock, run};
use prost_reflect::prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage};
use towpath_lang::{self as lang, Compiled, Loader, Overrides, SourceText};

/// The files of `tests/protos`.
struct Protos;

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

fn pool() -> DescriptorPool {
    protox::compile(["shop.proto"], [Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/protos")])
        .map(|set| DescriptorPool::from_file_descriptor_set(set).unwrap())
        .unwrap()
}

fn app(rule: &str, rest: &str) -> String {
    format!(
        "proto \"shop.proto\"\nservice frontend\nservice catalog {{ endpoints: [\"127.0.0.1:1\"] }}\nfrontend -> {rule}\n{rest}\n"
    )
}

fn compile(rule: &str, rest: &str) -> Result<Compiled, String> {
    let source = app(rule, rest);
    let mut compiled =
        lang::compile("app.adn", &source, &Protos, &Overrides::default()).map_err(|e| e.to_string())?;
    compiled.link(&mut lang::state::Store::new(1), &mut lang::Interpreter);
    Ok(compiled)
}

/// A chain on `shop.Catalog/Get`, and a call with this message of its type, in protobuf's JSON-like text.
fn get(element: &str, message: &[u8]) -> (Compiled, Mock) {
    let compiled =
        compile("catalog.shop.Catalog/Get: E", element).unwrap_or_else(|e| panic!("{e}\n{element}"));
    let mut mock = Mock::new(1);
    (mock.service, mock.method) = ("shop.Catalog".into(), "Get".into());
    mock.payload = Some(message.to_vec());
    mock.words = vec![0; compiled.program.chains[0].plan().call_words];
    (compiled, mock)
}

/// A `GetRequest` by field and value.
fn message(fields: &[(&str, prost_reflect::Value)]) -> Vec<u8> {
    encode("shop.GetRequest", fields)
}

fn encode(name: &str, fields: &[(&str, prost_reflect::Value)]) -> Vec<u8> {
    made(name, fields).encode_to_vec()
}

fn made(name: &str, fields: &[(&str, prost_reflect::Value)]) -> DynamicMessage {
    let mut message = DynamicMessage::new(pool().get_message_by_name(name).unwrap());
    for (field, value) in fields {
        message.set_field_by_name(field, value.clone());
    }
    message
}

fn text(text: &str) -> prost_reflect::Value {
    prost_reflect::Value::String(text.to_owned())
}

fn user(id: &str) -> prost_reflect::Value {
    prost_reflect::Value::Message(made("common.User", &[("id", text(id))]))
}

/// The header `x` after `request` set it to `value` of the message.
fn reads(value: &str, message: &[u8]) -> String {
    let element = format!("element E {{ request {{ call.metadata[\"x\"] = \"{{{value}}}\" }} }}");
    let (compiled, mut mock) = get(&element, message);
    assert_eq!(run(&compiled, Entry::Request, &mut mock).0, Verdict::Forward, "{value}");
    mock.request_header("x").unwrap()
}

#[test]
fn fields_are_read_with_the_presence_of_the_proto() {
    use prost_reflect::Value;
    let empty = message(&[]);
    let item = |sku: &str, count: u64| {
        Value::Message(made("shop.Item", &[("sku", text(sku)), ("count", Value::U64(count))]))
    };
    let full = message(&[
        ("id", text("a1")),
        ("user", user("mallory")),
        ("tier", Value::EnumNumber(1)),
        ("limit", Value::U32(0)),
        ("tags", Value::List(vec![text("x"), text("why")])),
        ("sizes", Value::List(vec![Value::I32(-5), Value::I32(7)])),
        (
            "labels",
            Value::Map([(prost_reflect::MapKey::String("k".into()), text("v"))].into_iter().collect()),
        ),
        ("parts", Value::Map([(prost_reflect::MapKey::I32(-3), item("part", 2))].into_iter().collect())),
        ("items", Value::List(vec![item("one", 1), item("two", 2)])),
        ("blob", Value::Bytes(vec![0xff, 0, 1].into())),
        ("price", Value::F64(0.25)),
        ("delta", Value::I64(-9)),
    ]);
    for (value, of_empty, of_full) in [
        ("call.payload.id", "", "a1"),
        ("call.payload.user.id", "none", "mallory"),
        ("call.payload.user.age", "none", "0"),
        ("call.payload.user == None", "true", "false"),
        ("call.payload.tier", "FREE", "GOLD"),
        ("call.payload.tier == GOLD", "false", "true"),
        ("call.payload.tier in [GOLD, BANNED]", "false", "true"),
        ("call.payload.limit", "none", "0"),
        ("len(call.payload.tags)", "0", "2"),
        ("call.payload.tags[1]", "none", "why"),
        ("call.payload.sizes[0]", "none", "-5"),
        ("call.payload.labels[\\\"k\\\"]", "none", "v"),
        ("call.payload.labels[\\\"K\\\"]", "none", "none"),
        ("call.payload.parts[-3].count", "none", "2"),
        ("call.payload.parts[3].count", "none", "none"),
        ("call.payload.items[1].sku", "none", "two"),
        ("any(call.payload.items, i => i.sku == \\\"two\\\")", "false", "true"),
        ("len(filter(call.payload.items, i => i.count > 1))", "0", "1"),
        ("base64(call.payload.blob)", "", "/wAB"),
        ("len(call.payload.blob)", "0", "3"),
        ("call.payload.price * 2", "0", "0.5"),
        ("call.payload.delta - 1", "-1", "-10"),
        ("call.payload.name", "none", "none"),
        ("call.payload.at.seconds", "none", "none"),
        ("len(call.payload)", "0", &full.len().to_string()),
        ("call.size", "0", &full.len().to_string()),
    ] {
        let value = value.replace("\\\"", "\"");
        assert_eq!(reads(&value, &empty), of_empty, "{value}");
        assert_eq!(reads(&value, &full), of_full, "{value}");
    }
}

#[test]
fn a_message_in_parts_is_one_message() {
    let parts = |parts: &[Vec<u8>]| parts.concat();
    let bare = |id: &str, name: &str| {
        prost_reflect::Value::Message(made("common.User", &[("id", text(id)), ("name", text(name))]))
    };
    // The last value wins, sub-messages merge.
    let twice = parts(&[
        message(&[("id", text("a")), ("user", bare("u", "first"))]),
        message(&[("id", text("b")), ("user", bare("", "last"))]),
    ]);
    assert_eq!(reads("call.payload.id", &twice), "b");
    assert_eq!(reads("call.payload.user.id", &twice), "u");
    assert_eq!(reads("call.payload.user.name", &twice), "last");
    // The same through a value of a message.
    let element = "element E { request { let u = call.payload.user else return  call.metadata[\"x\"] = \"{u.id} {u.name}\" } }";
    let (compiled, mut mock) = get(element, &twice);
    run(&compiled, Entry::Request, &mut mock);
    assert_eq!(mock.request_header("x").as_deref(), Some("u last"));
    // The last member of a oneof is the only one.
    let oneof = parts(&[message(&[("owner", bare("o", "n"))]), message(&[("name", text("x"))])]);
    assert_eq!(
        (reads("call.payload.owner.id", &oneof), reads("call.payload.name", &oneof)),
        ("none".into(), "x".into())
    );
    let back = parts(&[oneof, message(&[("owner", bare("", "m"))])]);
    assert_eq!(
        (reads("call.payload.owner.id", &back), reads("call.payload.name", &back)),
        (String::new(), "none".into())
    );
}

#[test]
fn what_cannot_be_read_ends_the_call_before_any_handler() {
    let element = "element E { request { count(\"ran\")  if call.payload.user.id == \"mallory\" { reject(PERMISSION_DENIED, \"no\") } } }";
    for broken in [&b"\x0a\x05ab"[..], b"\x0a\x01\xff", b"\x00\x01", b"\x0f", b"\x12\x02\x0a\x05", b"\x0c"] {
        let (compiled, mut mock) = get(element, broken);
        assert_eq!(
            run(&compiled, Entry::Request, &mut mock).0,
            Verdict::Unreadable(Unreadable::Malformed),
            "{broken:?}"
        );
        assert!(mock.counts.is_empty() && mock.passed == 0);
    }
    let (compiled, mut mock) = get(element, b"");
    mock.payload = None;
    assert_eq!(run(&compiled, Entry::Request, &mut mock).0, Verdict::Unreadable(Unreadable::NotOne));
    let (compiled, mut mock) = get(element, &message(&[("user", user("mallory"))]));
    assert!(compiled.program.chains[0].plan().request_payload);
    let Verdict::Reject(reject) = run(&compiled, Entry::Request, &mut mock).0 else { panic!("let through") };
    assert_eq!(reject.status, Status::PERMISSION_DENIED);
}

#[test]
fn one_element_serves_methods_whose_fields_have_other_numbers() {
    let element = "element E { request { call.metadata[\"x\"] = call.payload.user.id } }";
    let source = "proto \"shop.proto\"\nservice frontend\nservice catalog { endpoints: [\"127.0.0.1:1\"] }\nfrontend -> catalog.shop.Catalog/*: E\nfrontend -> catalog.shop.Catalog/Upload: Null\nelement Null { request { count(\"null\") } }\n";
    let mut compiled =
        lang::compile("app.adn", &format!("{source}{element}"), &Protos, &Overrides::default())
            .unwrap_or_else(|e| panic!("{e}"));
    compiled.link(&mut lang::state::Store::new(1), &mut lang::Interpreter);
    let chain = compiled
        .program
        .routes
        .iter()
        .find(|r| matches!(r.method, abi::MethodMatch::Service(_)))
        .unwrap()
        .chain;
    let call = |method: &str, message: Vec<u8>| {
        let mut mock = Mock::new(1);
        (mock.service, mock.method) = ("shop.Catalog".into(), method.into());
        mock.payload = Some(message);
        let verdict = compiled.program.chains[chain as usize].run(Entry::Request, 0, &mut mock);
        (verdict, mock.request_header("x"))
    };
    assert_eq!(call("Get", message(&[("user", user("g"))])), (Verdict::Forward, Some("g".into())));
    assert_eq!(
        call("List", encode("shop.ListRequest", &[("user", user("l"))])),
        (Verdict::Forward, Some("l".into()))
    );
    assert_eq!(
        call("Watch", encode("shop.ListRequest", &[("user", user("w"))])),
        (Verdict::Forward, Some("w".into()))
    );
    assert_eq!(call("Other", vec![]), (Verdict::Unreadable(Unreadable::UnknownMethod), None));
}

#[test]
fn what_the_methods_do_not_have_is_told_with_the_method() {
    let uses = |path: &str| format!("element E {{ request {{ call.metadata[\"x\"] = \"{{{path}}}\" }} }}");
    let error = |rule: &str, element: &str| compile(rule, element).map(|_| ()).expect_err(element);
    for (rule, path, parts) in [
        (
            "catalog.shop.Catalog/Get: E",
            "call.payload.usr.id",
            &["shop.GetRequest has no field `usr`", "did you mean `user`?", "app.adn:5:"][..],
        ),
        ("catalog.shop.Catalog/Get: E", "call.payload.user.idd", &["common.User has no field `idd`", "`id`"]),
        (
            "catalog.shop.Catalog/*: E",
            "call.payload.page",
            &["shop.Catalog/Upload streams its requests", "request message"],
        ),
        (
            "catalog.shop.Catalog/Gett: E",
            "call.payload.id",
            &["shop.Catalog/Gett", "did you mean `shop.Catalog/Get`?"],
        ),
        ("catalog.shop.Catalog/Get: E", "call.payload.tier == GLOD", &["`GLOD` is no shop.Tier", "`GOLD`"]),
        ("catalog.shop.Catalog/Get: E", "call.payload.id.x", &["string has no field `x`"]),
        ("catalog.shop.Catalog/Upload: E", "call.size", &["shop.Catalog/Upload streams its requests"]),
    ] {
        let text = error(rule, &uses(path));
        assert!(parts.iter().all(|p| text.contains(p)), "{path}: {text}");
    }
    let two = "element E { request { call.metadata[\"x\"] = \"{call.payload.limit}\" } }";
    let source = format!(
        "proto \"shop.proto\"\nservice frontend\nservice catalog {{ endpoints: [\"127.0.0.1:1\"] }}\nfrontend -> catalog: E\nfrontend -> catalog.shop.Catalog/Upload: Logging\n{two}"
    );
    let text = lang::compile("app.adn", &source, &Protos, &Overrides::default()).unwrap_err().to_string();
    for part in [
        "shop.ListRequest has no field `limit`",
        "shop.Catalog/List, shop.Catalog/Watch",
        "payload?.limit",
        "in the chain of every method",
    ] {
        assert!(text.contains(part), "{text}");
    }
    // With `?.` those methods have none of it.
    let lenient = source.replace("payload.limit", "payload?.limit");
    assert!(lang::compile("app.adn", &lenient, &Protos, &Overrides::default()).is_ok());
}
