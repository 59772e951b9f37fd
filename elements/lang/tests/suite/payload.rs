//! Messages, by what elements see of them.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of a test")]

use crate::common::{Mock, run};
use crate::shop::{Protos, compile, encode, made, pool, text};
use abi::{Entry, Status, Unreadable, Verdict};
use prost_reflect::prost::Message;
use prost_reflect::{DynamicMessage, ReflectMessage};
use towpath_lang::{self as lang, Compiled, Loader, Overrides, SourceText};

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
        ("call.payload.labels[\"k\"]", "none", "v"),
        ("call.payload.labels[\"K\"]", "none", "none"),
        ("call.payload.parts[-3].count", "none", "2"),
        ("call.payload.parts[3].count", "none", "none"),
        ("call.payload.items[1].sku", "none", "two"),
        ("any(call.payload.items, i => i.sku == \"two\")", "false", "true"),
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
        assert_eq!(reads(value, &empty), of_empty, "{value}");
        assert_eq!(reads(value, &full), of_full, "{value}");
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
    let source = "proto \"shop.proto\"\nservice frontend\nservice catalog { endpoints: [\"127.0.0.1:1\"] }\nfrontend -> catalog.shop.Catalog/*: E\nfrontend -> catalog.shop.Catalog/Upload: Nothing\nelement Nothing { request { count(\"null\") } }\n";
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

/// The message after `request` did this to it.
fn written(body: &str, message: &[u8]) -> Result<DynamicMessage, Verdict> {
    let (compiled, mut mock) = get(&format!("element E {{ request {{ {body} }} }}"), message);
    match run(&compiled, Entry::Request, &mut mock).0 {
        Verdict::Forward => {
            let ty = pool().get_message_by_name("shop.GetRequest").unwrap();
            Ok(DynamicMessage::decode(ty, mock.payload.unwrap().as_slice()).unwrap())
        }
        other => Err(other),
    }
}

#[test]
fn a_write_changes_the_field_and_nothing_else() {
    use prost_reflect::Value;
    // Field 999 is unknown, the user comes in two parts.
    let mut bytes = message(&[
        ("id", text("a")),
        ("user", user("u")),
        ("labels", Value::Map([(prost_reflect::MapKey::String("k".into()), text("v"))].into())),
    ]);
    bytes.extend_from_slice(&[0xba, 0x3e, 2, b'h', b'i']);
    bytes.extend_from_slice(&message(&[
        ("user", Value::Message(made("common.User", &[("age", Value::U32(7))]))),
        ("owner", user("o")),
    ]));
    let before =
        DynamicMessage::decode(pool().get_message_by_name("shop.GetRequest").unwrap(), bytes.as_slice())
            .unwrap();
    let with = |change: &dyn Fn(&mut DynamicMessage)| {
        let mut message = before.clone();
        change(&mut message);
        message
    };
    let set = |field: &'static str, value: Value| {
        with(&move |m: &mut DynamicMessage| m.set_field_by_name(field, value.clone()))
    };
    let user_with = |id: Option<&str>, name: &str, age: u32| {
        let mut user = made("common.User", &[("name", text(name)), ("age", Value::U32(age))]);
        if let Some(id) = id {
            user.set_field_by_name("id", text(id));
        }
        Value::Message(user)
    };
    for (body, after) in [
        ("call.payload.id = \"bee\"", set("id", text("bee"))),
        ("call.payload.id = \"\"", set("id", text(""))),
        ("call.payload.user.name = \"n\"", set("user", user_with(Some("u"), "n", 7))),
        ("call.payload.user.id = None", set("user", user_with(None, "", 7))),
        ("call.payload.user = None", with(&|m| m.clear_field_by_name("user"))),
        (
            "call.payload.user.age = (call.payload.user.age ?? 0) + 1",
            set("user", user_with(Some("u"), "", 8)),
        ),
        ("call.payload.delta -= 4", set("delta", Value::I64(-4))),
        ("call.payload.limit = 5000000000", set("limit", Value::U32(u32::MAX))),
        ("call.payload.price = 1.5", set("price", Value::F64(1.5))),
        ("call.payload.tier = BANNED", set("tier", Value::EnumNumber(-1))),
        (
            "call.payload.tags = [\"x\", \"{call.payload.id}\"]",
            set("tags", Value::List(vec![text("x"), text("a")])),
        ),
        ("call.payload.sizes = [1, -2]", set("sizes", Value::List(vec![Value::I32(1), Value::I32(-2)]))),
        ("call.payload.name = \"x\"", set("name", text("x"))),
        (
            "call.payload.at.seconds = 9",
            with(&|m| {
                let mut at =
                    DynamicMessage::new(pool().get_message_by_name("google.protobuf.Timestamp").unwrap());
                at.set_field_by_name("seconds", Value::I64(9));
                m.set_field_by_name("at", Value::Message(at));
            }),
        ),
        ("call.payload.at.nanos = None", before.clone()),
        ("call.payload = call.payload", before.clone()),
        // Later reads see it.
        ("call.payload.id = \"z\"  call.payload.user.name = call.payload.id", {
            let mut m = set("id", text("z"));
            m.set_field_by_name("user", user_with(Some("u"), "z", 7));
            m
        }),
        // A list that was read before a write stays as it was read.
        (
            "let tags = call.payload.tags  call.payload.tags = [\"p\", \"q\"]  let more = call.payload.tags  call.payload.tags = []  call.payload.id = \"{len(tags)}{more[1]}\"",
            set("id", text("0q")),
        ),
    ] {
        // A default that was set explicitly is not sent.
        let after = DynamicMessage::decode(after.descriptor(), after.encode_to_vec().as_slice()).unwrap();
        assert_eq!(written(body, &bytes).unwrap_or_else(|e| panic!("{body}: {e:?}")), after, "{body}");
    }
}

#[test]
fn elements_to_the_right_see_what_was_written() {
    let (compiled, mut mock) = {
        let rest = "element W { request { call.payload.user.id = \"new\" } }\nelement R { request { call.metadata[\"x\"] = call.payload.user.id } }";
        let compiled = compile("catalog.shop.Catalog/Get: W - R", rest).unwrap();
        let mut mock = Mock::new(1);
        (mock.service, mock.method) = ("shop.Catalog".into(), "Get".into());
        mock.payload = Some(message(&[]));
        (compiled, mock)
    };
    assert_eq!(run(&compiled, Entry::Request, &mut mock).0, Verdict::Forward);
    assert_eq!(mock.request_header("x").as_deref(), Some("new"));
    // A dry link writes nothing.
    let rest = "element W { request { call.payload.user.id = \"new\" } }";
    let compiled = compile("catalog.shop.Catalog/Get: W dry", rest).unwrap();
    mock.payload = Some(message(&[]));
    assert_eq!(run(&compiled, Entry::Request, &mut mock).0, Verdict::Forward);
    assert_eq!((mock.payload.as_deref(), mock.logs.len()), (Some(&b""[..]), 1));
}

#[test]
fn handlers_of_messages_run_for_each_in_the_onions_order() {
    let rest = "element A { state call n: uint = 0  request message { n += 1  count(\"a{1}\")  if n > 2 { reject(RESOURCE_EXHAUSTED, \"message {n} of {call.size} B\") } } response message { count(\"ra\") } }
        element B { request message { call.payload.sku = \"{call.payload.sku}!\"  delay(5ms) } response message { log(info, cursor: call.payload.cursor) } }";
    let rest = rest.replace("a{1}", "a");
    let compiled = compile("catalog.shop.Catalog/Upload: A - B when (call.attempt == 1)", &rest).unwrap();
    let plan = compiled.program.chains[0].plan();
    assert!(
        plan.request && plan.request_message && plan.request_message_payload && plan.response_message_payload
    );
    assert!(!plan.request_payload && !plan.response && !plan.response_payload);
    let mut mock = Mock::new(1);
    (mock.service, mock.method) = ("shop.Catalog".into(), "Upload".into());
    mock.words = vec![0; plan.call_words];
    assert_eq!(run(&compiled, Entry::Request, &mut mock).0, Verdict::Forward);
    for _ in 0..2 {
        mock.payload = Some(encode("shop.Item", &[("sku", text("s"))]));
        assert_eq!(run(&compiled, Entry::RequestMessage, &mut mock), (Verdict::Forward, vec![5_000_000]));
        assert_eq!(mock.payload.as_deref(), Some(encode("shop.Item", &[("sku", text("s!"))]).as_slice()));
    }
    assert_eq!(mock.passed, 2, "what messages meet changes nothing of who let the call through");
    mock.payload = Some(encode("shop.ListAnswer", &[("cursor", text("c"))]));
    assert_eq!(run(&compiled, Entry::ResponseMessage, &mut mock).0, Verdict::Forward);
    assert!(mock.logs[0].contains("Text(\"c\")"), "{:?}", mock.logs);
    assert_eq!(mock.counts.len(), 3);
    mock.payload = Some(vec![0x0a, 9]);
    assert_eq!(
        run(&compiled, Entry::RequestMessage, &mut mock).0,
        Verdict::Unreadable(Unreadable::Malformed)
    );
    mock.payload = Some(vec![0; 0]);
    let Verdict::Reject(reject) = run(&compiled, Entry::RequestMessage, &mut mock).0 else {
        panic!("let through")
    };
    assert_eq!(
        (reject.status, mock.reject_text.as_str(), mock.passed),
        (Status::RESOURCE_EXHAUSTED, "message 3 of 0 B", 2)
    );
    for wrong in [
        "call.endpoint = None",
        "call.destination = catalog",
        "call.metadata[\"a\"] = \"b\"",
        "call.deadline = now()",
        "compress(gzip, 1)",
    ] {
        let text = compile(
            "catalog.shop.Catalog/Upload: E",
            &format!("element E {{ request message {{ {wrong} }} }}"),
        )
        .map(|_| ())
        .unwrap_err();
        assert!(text.contains("app.adn:5:"), "{text}");
    }
}

#[test]
fn draws_of_each_message_are_its_own() {
    let compiled = compile(
        "catalog.shop.Catalog/Upload: E",
        "element E { request message { observe(\"d\", random()) } }",
    )
    .unwrap();
    let mut mock = Mock::new(1);
    mock.words = vec![0; compiled.program.chains[0].plan().call_words];
    for _ in 0..50 {
        mock.payload = Some(vec![]);
        run(&compiled, Entry::RequestMessage, &mut mock);
    }
    let mut draws: Vec<u64> = mock.observed.iter().map(|(_, x)| x.to_bits()).collect();
    draws.sort_unstable();
    draws.dedup();
    assert_eq!(draws.len(), 50);
}

#[test]
fn fields_of_the_request_are_kept_for_the_response() {
    let element = "element E(by: call => string? = None) { response { log(info, id: call.request.payload.user.id, limit: call.request.payload.limit, by: by) } }";
    let compiled = compile("catalog.shop.Catalog/Get: E(by: call.payload.id)", element).unwrap();
    let plan = compiled.program.chains[0].plan();
    assert!(plan.request_payload && !plan.response_payload);
    let said = |id: &str| {
        let mut mock = Mock::new(1);
        (mock.service, mock.method) = ("shop.Catalog".into(), "Get".into());
        mock.words = vec![0; plan.call_words];
        mock.payload =
            Some(message(&[("id", text("i")), ("user", user(id)), ("limit", prost_reflect::Value::U32(3))]));
        assert_eq!(run(&compiled, Entry::Request, &mut mock).0, Verdict::Forward);
        mock.payload = None;
        assert_eq!(run(&compiled, Entry::Response, &mut mock).0, Verdict::Forward);
        mock.logs.remove(0)
    };
    assert!(
        said("anna").contains("[(\"id\", Text(\"anna\")), (\"limit\", Uint(3)), (\"by\", Text(\"i\"))]"),
        "{}",
        said("anna")
    );
    let long = said(&"x".repeat(5000));
    assert!(long.contains("(\"id\", None), (\"limit\", Uint(3)), (\"by\", Text(\"i\"))"), "{long}");
}

#[test]
fn binary_metadata_is_bytes() {
    let element = "element E { request { call.metadata[\"x\"] = \"{len(call.metadata[\"k-bin\"] ?? call.payload.blob)}\"  call.metadata[\"b-bin\"] = call.payload.blob } }";
    let (compiled, mut mock) =
        get(element, &message(&[("blob", prost_reflect::Value::Bytes(vec![0xff, 0, 1, 2].into()))]));
    let plain = mock.clone();
    run(&compiled, Entry::Request, &mut mock);
    assert_eq!(
        (mock.request_header("x").unwrap().as_str(), mock.request_header("b-bin").unwrap().as_str()),
        ("4", "/wABAg==")
    );
    let mut mock = plain.header("k-bin", "AAE");
    run(&compiled, Entry::Request, &mut mock);
    assert_eq!(mock.request_header("x").as_deref(), Some("2"));
}

#[test]
fn what_is_wrong_with_a_proto_is_told_at_its_line() {
    struct Files(&'static [(&'static str, &'static str)]);
    impl Loader for Files {
        fn read(&self, _from: &str, path: &str) -> Result<SourceText, String> {
            let found = self.0.iter().find(|(name, _)| *name == path).ok_or("no such file")?;
            Ok(SourceText { name: path.to_owned(), text: found.1.to_owned() })
        }
        fn resolve(&self, host_port: &str) -> Result<Vec<std::net::SocketAddr>, String> {
            Err(host_port.to_owned())
        }
    }
    const GOOD: &str =
        "syntax = \"proto3\"; package p; import \"p/inner.proto\"; service S { rpc M(I) returns (I); }";
    const INNER: &str = "syntax = \"proto3\"; package p; message I { string a = 1; }";
    for (files, path, parts) in [
        (&[("a/p/x.proto", GOOD), ("a/p/inner.proto", INNER)][..], "a/p/x.proto", &[][..]),
        (
            &[("x.proto", GOOD)],
            "x.proto",
            &["app.adn:1:7", "the import \"p/inner.proto\" is not found", "tried p/inner.proto"],
        ),
        (&[("x.proto", "syntax = \"proto3\";\nmessage {")], "x.proto", &["x.proto:2:9"]),
        (&[("x.proto", "syntax = \"proto3\";\nmessage A { B b = 1; }")], "x.proto", &["x.proto:2:", "B"]),
        (&[], "x.proto", &["cannot read \"x.proto\"", "no such file"]),
    ] {
        let app = format!(
            "proto \"{path}\"\nservice a\nservice b {{ endpoints: [\"127.0.0.1:1\"] }}\na -> b: E\nelement E {{ request {{ call.metadata[\"x\"] = call.payload.a }} }}"
        );
        match lang::compile("app.adn", &app, &Files(files), &Overrides::default()) {
            Ok(_) => assert!(parts.is_empty(), "{path} {parts:?}"),
            Err(e) => assert!(!parts.is_empty() && parts.iter().all(|p| e.to_string().contains(p)), "{e}"),
        }
    }
}

/// A chain of standard elements alone on `shop.Catalog/METHOD`.
fn standard(method: &str, links: &str) -> (Compiled, Mock) {
    let compiled =
        compile(&format!("catalog.shop.Catalog/{method}: {links}"), "").unwrap_or_else(|e| panic!("{e}"));
    let mut mock = Mock::new(1);
    (mock.service, mock.method) = ("shop.Catalog".into(), method.into());
    mock.words = vec![0; compiled.program.chains[0].plan().call_words];
    (compiled, mock)
}

#[test]
fn a_firewall_judges_by_any_text() {
    let verdict = |link: &str, payload: Vec<u8>, team: Option<&str>| {
        let (compiled, mut mock) = standard("Get", link);
        mock.payload = Some(payload);
        if let Some(team) = team {
            mock = mock.header("x-team", team);
        }
        match run(&compiled, Entry::Request, &mut mock).0 {
            Verdict::Forward => "passes".to_owned(),
            Verdict::Reject(reject) => format!("{} {}", reject.status.name(), mock.reject_text),
            other => format!("{other:?}"),
        }
    };
    let by = |id: &str| message(&[("user", user(id))]);
    let denied = "PERMISSION_DENIED firewall: denied";
    for (link, payload, team, says) in [
        ("Firewall(call.payload.user.id, deny: [\"mallory\"])", by("mallory"), None, denied),
        ("Firewall(call.payload.user.id, deny: [\"mallory\"])", by("anna"), None, "passes"),
        ("Firewall(call.payload.user.id, deny: [\"mallory\"])", by(""), None, "passes"),
        ("Firewall(call.payload.user.id, deny: [\"mallory\"])", message(&[]), None, "passes"),
        (
            "Firewall(call.payload.user.id, deny: [\"mallory\"], absent: false)",
            message(&[]),
            None,
            "PERMISSION_DENIED firewall: nothing to judge by",
        ),
        ("Firewall(call.payload.user.id, deny: [\"mallory\"])", vec![0x12, 9], None, "Unreadable(Malformed)"),
        (
            "Firewall(call.payload.user.id, deny: [\"mallory\"])",
            [by("mallory"), by("anna")].concat(),
            None,
            "passes",
        ),
        (
            "Firewall(call.payload.user.id, deny: [\"mallory\"])",
            [by("anna"), by("mallory")].concat(),
            None,
            denied,
        ),
        ("Firewall(\"{call.payload.tier}\", allow: [\"GOLD\"])", message(&[]), None, denied),
        (
            "Firewall(call.metadata[\"x-team\"], allow: [\"web\"], status: UNAUTHENTICATED)",
            vec![],
            Some("ops"),
            "UNAUTHENTICATED firewall: denied",
        ),
        ("Firewall(call.metadata[\"x-team\"], allow: [\"web\"])", vec![], Some("web"), "passes"),
        ("Firewall(call.method, deny: [\"Get\"])", vec![], None, denied),
        ("Firewall(call.method, deny: [\"Get\"]) dry", vec![], None, "passes"),
    ] {
        assert_eq!(verdict(link, payload.clone(), team), says, "{link} {payload:?}");
    }
}

#[test]
fn a_mutation_sets_and_removes_headers() {
    let (compiled, mock) = standard(
        "Get",
        "Mutation(\"x-user\", to: call.payload.user.id) - Mutation(\"x-debug\") - Mutation(response: \"server\")",
    );
    let mut mock = mock.header("x-debug", "1").header("x-user", "forged");
    mock.payload = Some(message(&[("user", user("anna"))]));
    mock.response.push(("server".into(), b"s".to_vec()));
    assert_eq!(crate::common::passage(&compiled, &mut mock), Verdict::Forward);
    assert_eq!(
        (mock.request_header("x-user").as_deref(), mock.request_header("x-debug")),
        (Some("anna"), None)
    );
    assert!(mock.response.is_empty());
}

#[test]
fn bytes_are_limited_for_each_key() {
    let (compiled, mock) = standard("Upload", "BandwidthLimit(1KiB/s, by: call.metadata[\"x-tenant\"])");
    let send = |tenant: &str, len: usize| {
        let mut mock = mock.clone().header("x-tenant", tenant);
        assert_eq!(run(&compiled, Entry::Request, &mut mock).0, Verdict::Forward);
        mock.payload = Some(vec![0; len]);
        run(&compiled, Entry::RequestMessage, &mut mock).1
    };
    assert!(send("a", 1024).is_empty(), "a second's worth may go at once");
    assert_eq!(send("a", 512), [500_000_000]);
    assert!(send("b", 1000).is_empty(), "another key has a limit of its own");
}

#[test]
fn a_stream_is_limited_by_message_total_and_pace() {
    let (compiled, mut mock) = standard("Upload", "StreamLimit(each: 8, total: 14, pace: 10/s)");
    assert_eq!(run(&compiled, Entry::Request, &mut mock).0, Verdict::Forward);
    let send = |mock: &mut Mock, len: usize| {
        mock.payload = Some(vec![0; len]);
        run(&compiled, Entry::RequestMessage, mock)
    };
    for _ in 0..10 {
        assert_eq!(send(&mut mock, 8), (Verdict::Forward, vec![]), "ten may come at once");
    }
    assert_eq!(send(&mut mock, 8), (Verdict::Forward, vec![100_000_000]));
    assert_eq!(send(&mut mock, 8), (Verdict::Forward, vec![200_000_000]));
    mock.now_ns += 10_000_000_000;
    assert_eq!(send(&mut mock, 8), (Verdict::Forward, vec![]));
    let says = |(verdict, _): (Verdict, Vec<u64>), mock: &Mock| match verdict {
        Verdict::Reject(reject) => format!("{} {}", reject.status.name(), mock.reject_text),
        other => format!("{other:?}"),
    };
    let large = send(&mut mock, 9);
    assert_eq!(says(large, &mock), "RESOURCE_EXHAUSTED message 14, 9 B");
    let many = send(&mut mock, 1);
    assert_eq!(says(many, &mock), "RESOURCE_EXHAUSTED message 15, 1 B");
}

#[test]
fn a_call_without_an_answer_runs_its_response_all_the_same() {
    let element = "element E { response { count(\"done\")  call.payload.sku = \"x\"  log(info, sku: call.payload.sku, inner: call.payload.inner.sku, size: len(call.payload)) } }";
    let (compiled, mut mock) = get(element, &message(&[]));
    assert!(compiled.program.chains[0].plan().response_payload);
    run(&compiled, Entry::Request, &mut mock);
    mock.payload = None;
    assert_eq!(run(&compiled, Entry::Response, &mut mock).0, Verdict::Forward);
    assert_eq!(mock.counts.len(), 1);
    assert!(
        mock.logs[0].contains("(\"sku\", Text(\"\")), (\"inner\", None), (\"size\", Uint(0))"),
        "{:?}",
        mock.logs
    );
    mock.payload = Some(vec![0x0a, 9]);
    assert_eq!(run(&compiled, Entry::Response, &mut mock).0, Verdict::Unreadable(Unreadable::Malformed));
}

/// `payload?.x` is None in methods without `x`, in those that stream, and where no method has it; a write does
/// nothing, and nothing waits for a message of which nothing is read.
#[test]
fn a_lenient_field_is_none_where_it_is_not() {
    let element = "element E(by: call => string? = call.payload?.nowhere.deeper) {
        request {
            call.metadata[\"x\"] = \"{call.payload?.user.id} {call.payload?.nowhere} {by}\"
            call.payload?.user.id = \"changed\"
            call.payload?.nowhere = 5
            if call.payload?.nowhere == \"a\" || call.payload?.nowhere in [\"a\"] { reject(ABORTED, \"no\") }
            for x in call.payload?.nowhere { reject(ABORTED, \"{x}\") }
            if call.payload?.nowhere != None || by != None { reject(ABORTED, \"no\") }
        }
        response { log(info, sku: call.payload?.sku, id: call.request.payload?.user.id) }
    }";
    let compiled = compile("catalog.shop.Catalog/*: E", element).unwrap_or_else(|e| panic!("{e}"));
    let plan = compiled.program.chains[0].plan();
    for (method, request, response) in
        [("Get", true, true), ("List", true, false), ("Watch", true, false), ("Upload", false, false)]
    {
        assert_eq!(plan.holds_request(|| ("shop.Catalog", method)), request, "{method}");
        assert_eq!(plan.holds_response(|| ("shop.Catalog", method)), response, "{method}");
        let mut mock = Mock::new(1);
        (mock.service, mock.method) = ("shop.Catalog".into(), method.into());
        mock.words = vec![0; plan.call_words];
        mock.payload = request.then(|| encode("shop.ListRequest", &[("user", user("ann"))]));
        if method == "Get" {
            mock.payload = Some(message(&[("user", user("ann"))]));
        }
        assert_eq!(run(&compiled, Entry::Request, &mut mock).0, Verdict::Forward, "{method}");
        let seen = if request { "ann none none" } else { "none none none" };
        assert_eq!(mock.request_header("x").unwrap(), seen, "{method}");
        if method == "Get" {
            assert_eq!(mock.payload.unwrap(), message(&[("user", user("changed"))]));
        }
        mock.payload = response.then(|| encode("shop.Item", &[("sku", text("s1"))]));
        assert_eq!(run(&compiled, Entry::Response, &mut mock).0, Verdict::Forward, "{method}");
        let sku = if response { "Text(\"s1\")" } else { "None" };
        let id = if request { "Text(\"ann\")" } else { "None" };
        assert_eq!(mock.logs, [format!("Info 0 [(\"sku\", {sku}), (\"id\", {id})]")], "{method}");
    }
    let notes = compiled.notes.to_string();
    assert!(notes.contains("no method of shop.Catalog/* has `call.payload?.nowhere`"), "{notes}");
    // A field that must be there, and one that must not: the whole chain waits.
    let element = "element E { request { log(info, a: call.payload.user.id, b: call.payload?.page) } }";
    let errors = compile("catalog.shop.Catalog/*: E", element).err().unwrap();
    assert!(errors.contains("shop.Catalog/Upload streams its requests"), "{errors}");
}
