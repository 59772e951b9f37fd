//! Maps as values: those of messages, and those that are written.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of a test")]

use crate::common::{Mock, run};
use crate::shop::{compile, encode, pool, text};
use abi::{Entry, Unreadable, Verdict};
use prost_reflect::{DynamicMessage, MapKey, Value};
use towpath_lang::Compiled;

fn get(rule: &str, element: &str, message: &[u8]) -> (Compiled, Mock) {
    let compiled = compile(&format!("catalog.shop.Catalog/Get: {rule}"), element)
        .unwrap_or_else(|e| panic!("{e}\n{element}"));
    let mut mock = Mock::new(1);
    (mock.service, mock.method) = ("shop.Catalog".into(), "Get".into());
    mock.payload = Some(message.to_vec());
    mock.words = vec![0; compiled.program.chains[0].plan().call_words];
    (compiled, mock)
}

/// The header `x` after `request` did this.
fn said(body: &str, message: &[u8]) -> String {
    let (compiled, mut mock) = get("E", &format!("element E {{ request {{ {body} }} }}"), message);
    assert_eq!(run(&compiled, Entry::Request, &mut mock).0, Verdict::Forward, "{body}");
    mock.request_header("x").unwrap_or_default()
}

/// An entry of `labels`, with what there is of it.
fn label(key: Option<&str>, value: Option<&str>) -> Vec<u8> {
    let mut entry = Vec::new();
    for (tag, part) in [(0x0a, key), (0x12, value)] {
        if let Some(part) = part {
            entry.extend([tag, u8::try_from(part.len()).unwrap()]);
            entry.extend_from_slice(part.as_bytes());
        }
    }
    let mut field = vec![0x3a, u8::try_from(entry.len()).unwrap()];
    field.extend_from_slice(&entry);
    field
}

/// `k` twice, one without a key, one without a value.
fn labels() -> Vec<u8> {
    [(Some("k"), Some("old")), (None, Some("v")), (Some("empty"), None), (Some("k"), Some("new"))]
        .iter()
        .flat_map(|(key, value)| label(*key, *value))
        .collect()
}

fn parts() -> Vec<u8> {
    let item = |sku: &str| Value::Message(crate::shop::made("shop.Item", &[("sku", text(sku))]));
    let parts = Value::Map([(MapKey::I32(-1), item("minus")), (MapKey::I32(7), item("seven"))].into());
    encode("shop.GetRequest", &[("parts", parts)])
}

#[test]
fn a_map_of_a_message_is_a_value() {
    for (body, x) in [
        ("call.metadata[\"x\"] = \"{len(call.payload.labels)}\"", "3"),
        (
            "call.metadata[\"x\"] = \"{\"k\" in call.payload.labels}{\"z\" in call.payload.labels}\"",
            "truefalse",
        ),
        (
            "let m = call.payload.labels  for key in m { call.metadata[\"x\"] = \"{call.metadata[\"x\"] ?? \"\"}[{key}={m[key]}]\" }",
            "[k=new][=v][empty=]",
        ),
        (
            "let m = call.payload.labels  call.metadata[\"x\"] = \"{m[\"k\"]} {m[\"\"]} {m[\"empty\"]} {m[call.method]}\"",
            "new v  none",
        ),
        ("call.metadata[\"x\"] = \"{any(call.payload.labels, key => key == \"empty\")}\"", "true"),
        (
            "let o = { \"k\": \"other\" }  let m = if call.attempt == 1 { call.payload.labels } else { o }  call.metadata[\"x\"] = m[\"k\"]",
            "new",
        ),
        (
            "let o = { \"k\": \"other\" }  let m = if call.attempt == 2 { call.payload.labels } else { o }  call.metadata[\"x\"] = \"{m[\"k\"]} {len(m)}\"",
            "other 1",
        ),
        // What was read before a write stays.
        (
            "let m = call.payload.labels  call.payload.labels = None  let n = call.payload.labels  call.metadata[\"x\"] = \"{m[\"k\"]} {len(n)}\"",
            "new 0",
        ),
    ] {
        assert_eq!(said(body, &labels()), x, "{body}");
    }
    for (body, x) in [
        ("let m = call.payload.parts  call.metadata[\"x\"] = m[7].sku", "seven"),
        (
            "let m = call.payload.parts  call.metadata[\"x\"] = \"{m[-1].sku} {m[8].sku} {7 in m} {len(m)}\"",
            "minus none true 2",
        ),
        ("for key in call.payload.parts { if key > 0 { call.metadata[\"x\"] = \"{key}\" } }", "7"),
    ] {
        assert_eq!(said(body, &parts()), x, "{body}");
    }
    assert_eq!(
        said("call.metadata[\"x\"] = \"{len(call.payload.labels)}{len(call.payload.parts)}\"", &[]),
        "00"
    );
}

#[test]
fn a_map_that_is_written_is_one_too() {
    for (body, x) in [
        (
            "let m = { \"a\": call.method, \"b\": \"two\" }  call.metadata[\"x\"] = \"{m[\"a\"]} {m[\"b\"]} {len(m)}\"",
            "Get two 2",
        ),
        (
            "let m = { call.method: 1, \"Get\": 2 }  call.metadata[\"x\"] = \"{m[call.method]} {len(m)}\"",
            "2 1",
        ),
        ("let m = { 1: \"a\", 2: \"b\" }  for key in m { call.metadata[\"x\"] = \"{key}\" }", "2"),
        (
            "call.metadata[\"x\"] = \"{\"b\" in { \"a\": 1, \"b\": 2 }} {call.method in { \"a\": 1 }}\"",
            "true false",
        ),
    ] {
        assert_eq!(said(body, &[]), x, "{body}");
    }
}

/// The message after `request` did this to it.
fn written(body: &str, message: &[u8]) -> DynamicMessage {
    let (compiled, mut mock) = get(
        "E",
        &format!("element E(own: map<string, string> = {{ \"o\": \"p\" }}) {{ request {{ {body} }} }}"),
        message,
    );
    assert_eq!(run(&compiled, Entry::Request, &mut mock).0, Verdict::Forward, "{body}");
    let ty = pool().get_message_by_name("shop.GetRequest").unwrap();
    DynamicMessage::decode(ty, mock.payload.unwrap().as_slice()).unwrap()
}

#[test]
fn a_map_is_written_whole_from_any_map() {
    let all = [("k", "new"), ("", "v"), ("empty", "")];
    for (body, after) in [
        ("call.payload.labels = call.payload.labels", &all[..]),
        ("let m = call.payload.labels  call.payload.labels = {}  call.payload.labels = m", &all[..]),
        ("call.payload.labels = own", &[("o", "p")]),
        ("let m = { \"a\": call.method }  call.payload.labels = m", &[("a", "Get")]),
        ("call.payload.labels = None", &[]),
        ("call.payload = GetRequest { id: \"x\", labels: call.payload.labels }", &all[..]),
    ] {
        let labels = written(body, &labels()).get_field_by_name("labels").unwrap().into_owned();
        let wanted = after.iter().map(|(k, v)| (MapKey::String((*k).into()), text(v))).collect();
        assert_eq!(labels, Value::Map(wanted), "{body}");
    }
    let parts = parts();
    let after =
        written("let m = call.payload.parts  call.payload.id = \"x\"  call.payload.parts = m", &parts);
    let ty = pool().get_message_by_name("shop.GetRequest").unwrap();
    let before = DynamicMessage::decode(ty, parts.as_slice()).unwrap();
    assert_eq!(after.get_field_by_name("parts"), before.get_field_by_name("parts"));
}

#[test]
fn a_map_is_kept_for_the_call() {
    let element = "element E(of: call => map<string, string>) {
        request { delay(5ms)  call.metadata[\"x\"] = of[\"k\"] }
        response { call.trailers[\"y\"] = \"{of[\"k\"]} {len(of)}\"
            let kept = call.request.payload.labels else return
            call.trailers[\"z\"] = \"{kept[\"empty\"]}.{len(kept)} {call.request.payload.labels[\"k\"]}\" } }";
    let (compiled, mut mock) = get("E(call.payload.labels)", element, &labels());
    assert_eq!(run(&compiled, Entry::Request, &mut mock), (Verdict::Forward, vec![5_000_000]));
    run(&compiled, Entry::Response, &mut mock);
    assert_eq!(mock.request_header("x").as_deref(), Some("new"));
    let trailer = |name: &str| {
        mock.trailers.iter().find(|(n, _)| n == name).map(|(_, v)| String::from_utf8_lossy(v).into_owned())
    };
    assert_eq!(trailer("y").as_deref(), Some("new 3"));
    assert_eq!(trailer("z").as_deref(), Some(".3 new"));
}

#[test]
fn a_map_of_too_many_entries_is_not_judged_by_a_part() {
    let many: Vec<u8> = (0..200).flat_map(|n| label(Some(&format!("k{n}")), Some("v"))).collect();
    let body = |limit: &str| {
        format!(
            "element E {{ request {{ let m = call.payload.labels{limit}  call.metadata[\"x\"] = \"{{len(m)}} {{m[\"k199\"]}}\" }} }}"
        )
    };
    let (compiled, mut mock) = get("E", &body(""), &many);
    assert_eq!(run(&compiled, Entry::Request, &mut mock).0, Verdict::Unreadable(Unreadable::ListTooLong));
    let (compiled, mut mock) = get("E", &body(".limit(200)"), &many);
    assert_eq!(run(&compiled, Entry::Request, &mut mock).0, Verdict::Forward);
    assert_eq!(mock.request_header("x").as_deref(), Some("200 v"));
}
