//! Messages made in the language, and entries of maps, by what protobuf reads of what was written.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use crate::common::{Mock, run};
use crate::shop::{compile, encode, pool, text};
use abi::{Entry, Verdict};
use prost_reflect::DynamicMessage;

/// What `request` makes of a message of `Get`, as protobuf shows it.
fn written(body: &str, message: &[u8]) -> String {
    let element = format!("element E {{ request {{ {body} }} }}");
    let compiled =
        compile("catalog.shop.Catalog/Get: E", &element).unwrap_or_else(|e| panic!("{e}\n{element}"));
    let mut mock = Mock::new(1).header("k", "seen");
    (mock.service, mock.method) = ("shop.Catalog".into(), "Get".into());
    mock.words = vec![0; compiled.program.chains[0].plan().call_words];
    mock.payload = Some(message.to_vec());
    assert_eq!(run(&compiled, Entry::Request, &mut mock).0, Verdict::Forward, "{body}");
    let ty = pool().get_message_by_name("shop.GetRequest").unwrap();
    let bytes = mock.payload.unwrap();
    let message = DynamicMessage::decode(ty, bytes.as_slice()).unwrap_or_else(|e| panic!("{body}: {e}"));
    // The entries of a map have no order of their own.
    let shown = message.to_string();
    let Some((before, rest)) = shown.split_once("labels:[{") else { return shown };
    let (entries, after) = rest.split_once("}]").unwrap();
    let mut entries: Vec<&str> = entries.split("},{").collect();
    entries.sort_unstable();
    format!("{before}labels:[{{{}}}]{after}", entries.join("},{"))
}

fn errors(body: &str) -> String {
    let element = format!("element E {{ request {{ {body} }} }}");
    compile("catalog.shop.Catalog/Get: E", &element).err().unwrap_or_else(|| panic!("compiles: {body}"))
}

#[test]
fn messages_are_made() {
    for (body, expected) in [
        (
            "call.payload.user = User { id: \"a\", name: call.metadata[\"k\"] }",
            "user{id:\"a\",name:\"seen\"}",
        ),
        ("call.payload.user = User {}", "user{}"),
        ("call.payload.user = if call.attempt == 1 { User { id: \"x\" } } else { None }", "user{id:\"x\"}"),
        (
            "call.payload.items = [Item { sku: \"a\", count: 2, notes: [\"x\", \"y\"], inner: Item { sku: \"in\" } }, Item { }]",
            "items:[{sku:\"a\",count:2,inner{sku:\"in\"},notes:[\"x\",\"y\"]},{}]",
        ),
        (
            "call.payload = GetRequest { id: \"n\", tier: BANNED, sizes: [-1, 5], number: -7, price: 0.5, delta: -3 }",
            "id:\"n\",tier:BANNED,sizes:[-1,5],number:-7,price:0.5,delta:-3",
        ),
        ("call.payload = GetRequest { id: call.metadata[\"absent\"], limit: 0 }", "limit:0"),
        (
            "call.payload = GetRequest { labels: { \"a\": \"1\", call.method: \"2\", \"a\": \"3\" } }",
            "labels:[{key:\"Get\",value:\"2\"},{key:\"a\",value:\"3\"}]",
        ),
        (
            "call.payload = GetRequest { parts: { 5: Item { sku: \"p\" } } }",
            "parts:[{key:5,value{sku:\"p\"}}]",
        ),
        ("let u = User { id: \"made\" }  call.payload.id = u.id", "id:\"made\""),
        ("let u = call.payload.user ?? User { id: \"default\" }  call.payload.id = u.id", "id:\"default\""),
    ] {
        let shown = written(body, &[]).replace(' ', "");
        assert_eq!(shown, expected.replace(' ', ""), "{body}");
    }
}

#[test]
fn entries_of_a_map_are_written_one_by_one() {
    use prost_reflect::{MapKey, Value};
    let labels = [("a", "1"), ("b", "2")].map(|(k, v)| (MapKey::String(k.into()), text(v)));
    let message =
        encode("shop.GetRequest", &[("id", text("i")), ("labels", Value::Map(labels.into_iter().collect()))]);
    for (body, expected) in [
        (
            "call.payload.labels[\"a\"] = \"new\"",
            "labels:[{key:\"a\",value:\"new\"},{key:\"b\",value:\"2\"}]",
        ),
        ("call.payload.labels[\"b\"] = None", "labels:[{key:\"a\",value:\"1\"}]"),
        ("call.payload.labels[\"none\"] = None", "labels:[{key:\"a\",value:\"1\"},{key:\"b\",value:\"2\"}]"),
        (
            "call.payload.labels[\"c\"] = call.metadata[\"k\"]",
            "labels:[{key:\"a\",value:\"1\"},{key:\"b\",value:\"2\"},{key:\"c\",value:\"seen\"}]",
        ),
        ("call.payload.labels[\"a\"] = \"\"", "labels:[{key:\"a\",value:\"\"},{key:\"b\",value:\"2\"}]"),
        ("call.payload.labels = { \"only\": \"{call.payload.id}\" }", "labels:[{key:\"only\",value:\"i\"}]"),
        ("call.payload.labels = {}", ""),
        (
            "call.payload.labels[\"a\"] = \"x\"  call.payload.labels[\"b\"] = call.payload.labels[\"a\"]",
            "labels:[{key:\"a\",value:\"x\"},{key:\"b\",value:\"x\"}]",
        ),
        (
            "call.payload.parts[-3] = Item { sku: \"p\" }",
            "labels:[{key:\"a\",value:\"1\"},{key:\"b\",value:\"2\"}],parts:[{key:-3,value{sku:\"p\"}}]",
        ),
    ] {
        let shown = written(body, &message).replace(' ', "");
        let expected = ["id:\"i\"", expected].join(",").trim_end_matches(',').to_owned();
        assert_eq!(shown, expected, "{body}");
    }
}

#[test]
fn parameters_have_the_types_of_the_proto() {
    let element = "element E(tier: Tier = GOLD, of: call => common.User?, least: list<shop.Tier> = [FREE]) {
        request {
            if call.payload.tier in least { call.payload.tier = tier }
            call.metadata[\"x\"] = \"{tier} {len(least)}\"
        }
        response { match of { Some(user) => log(info, id: user.id)  None => log(info, id: \"none\") } }
    }";
    let compiled = compile("catalog.shop.Catalog/Get: E(tier: BANNED, of: call.payload.user)", element)
        .unwrap_or_else(|e| panic!("{e}"));
    let mut mock = Mock::new(1);
    (mock.service, mock.method) = ("shop.Catalog".into(), "Get".into());
    mock.words = vec![0; compiled.program.chains[0].plan().call_words];
    let user = prost_reflect::Value::Message(crate::shop::made("common.User", &[("id", text("ann"))]));
    mock.payload = Some(encode("shop.GetRequest", &[("user", user.clone())]));
    run(&compiled, Entry::Request, &mut mock);
    assert_eq!(mock.request_header("x").unwrap(), "BANNED 1");
    let tier = prost_reflect::Value::EnumNumber(-1);
    assert_eq!(mock.payload.take().unwrap(), encode("shop.GetRequest", &[("user", user), ("tier", tier)]));
    run(&compiled, Entry::Response, &mut mock);
    assert_eq!(mock.logs, ["Info 0 [(\"id\", Text(\"ann\"))]"]);
}

#[test]
fn what_is_no_such_message_is_told() {
    for (body, expected) in [
        ("call.payload.user = Usr { id: \"a\" }", "did you mean `User`?"),
        ("call.payload.user = Item { sku: \"a\" }", "expected common.User?, found shop.Item"),
        ("call.payload.user = User { idd: \"a\" }", "did you mean `id`?"),
        ("call.payload.user = User { id: 5 }", "expected string?, found a number"),
        ("call.payload = User { id: \"a\" }", "shop.Catalog/Get has a shop.GetRequest here"),
        (
            "call.payload = GetRequest { name: \"a\", number: 5 }",
            "`name` and `number` are members of one oneof",
        ),
        ("call.payload.labels = call.payload.labels", "a map of a message is written entry by entry"),
    ] {
        let errors = errors(body);
        assert!(errors.contains(expected), "{body}\n{errors}");
        assert_eq!(errors.lines().count(), 1, "{errors}");
    }
}
