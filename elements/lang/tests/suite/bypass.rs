//! Nothing gets past a rule by being long: what a chain cannot see whole ends the call.

use crate::common::{Mock, one, run};
use crate::shop::{encode, text};
use abi::{Entry, Status, Unreadable, Verdict};
use prost_reflect::Value;

const DENY_ITEM: &str = "element Deny {
    request { for item in call.payload.items { if item.sku == \"bad\" { reject(PERMISSION_DENIED, item.sku) } } }
}
element Many {
    request { for item in call.payload.items.limit(200) { if item.sku == \"bad\" { reject(PERMISSION_DENIED, item.sku) } } }
}";

fn items(good: usize) -> Vec<u8> {
    let item = |sku: &str| Value::Message(crate::shop::made("shop.Item", &[("sku", text(sku))]));
    let list = (0..good).map(|_| item("good")).chain([item("bad")]).collect();
    encode("shop.GetRequest", &[("items", Value::List(list))])
}

#[test]
fn a_list_of_a_message_that_is_too_long_ends_the_call() {
    for (element, fits) in [("Deny", 63), ("Many", 199)] {
        let rule = format!("catalog.shop.Catalog/Get: {element}");
        let compiled = crate::shop::compile(&rule, DENY_ITEM).unwrap_or_else(|e| panic!("{e}"));
        let judge = |message: Vec<u8>| {
            let mut mock = Mock::new(1);
            (mock.service, mock.method) = ("shop.Catalog".into(), "Get".into());
            mock.payload = Some(message);
            run(&compiled, Entry::Request, &mut mock).0
        };
        let Verdict::Reject(reject) = judge(items(fits)) else { panic!("{element} let it through") };
        assert_eq!(reject.status, Status::PERMISSION_DENIED);
        assert_eq!(judge(items(fits + 1)), Verdict::Unreadable(Unreadable::ListTooLong), "{element}");
    }
}

#[test]
fn a_list_within_a_message_that_is_a_value_is_no_way_round() {
    let element = "element Deny { request {
        for item in call.payload.items { for note in item.notes { if note == \"bad\" { reject(ABORTED, note) } } }
    } }";
    let compiled =
        crate::shop::compile("catalog.shop.Catalog/Get: Deny", element).unwrap_or_else(|e| panic!("{e}"));
    let notes = Value::List((0..64).map(|_| text("x")).chain([text("bad")]).collect());
    let item = Value::Message(crate::shop::made("shop.Item", &[("notes", notes)]));
    let mut mock = Mock::new(1);
    (mock.service, mock.method) = ("shop.Catalog".into(), "Get".into());
    mock.payload = Some(encode("shop.GetRequest", &[("items", Value::List(vec![item]))]));
    let verdict = run(&compiled, Entry::Request, &mut mock).0;
    assert_eq!(verdict, Verdict::Unreadable(Unreadable::TextTooLong));
}

/// One header fills a chain's memory, so that the next reads as nothing.
#[test]
fn headers_that_fill_the_memory_end_the_call() {
    let rule = "Firewall(call.metadata[\"a\"]) - Firewall(call.metadata[\"b\"], deny: [\"mallory\"])";
    for (len, refused) in [(1000, "PermissionDenied"), (64 << 10, "too long"), (100 << 10, "too long")] {
        let (compiled, mock) = one(rule, "");
        let mut mock = mock.header("a", &"x".repeat(len)).header("b", "mallory");
        let says = match run(&compiled, Entry::Request, &mut mock).0 {
            Verdict::Reject(reject) if reject.status == Status::PERMISSION_DENIED => "PermissionDenied",
            Verdict::Unreadable(Unreadable::TextTooLong) => "too long",
            _ => "through",
        };
        assert_eq!(says, refused, "{len}");
    }
}

#[test]
fn more_values_of_a_header_than_are_seen_end_the_call() {
    let through = |element: &str, values: usize| {
        let (compiled, mut mock) = one("E", element);
        for _ in 1..values {
            mock = mock.header("k", "x");
        }
        let mut mock = mock.header("k", "bad");
        run(&compiled, Entry::Request, &mut mock).0 == Verdict::Forward
    };
    let all = "element E { request { if \"bad\" in call.metadata.all(\"k\") { reject(ABORTED, \"no\") } } }";
    let joined = "element E { request { if contains(call.metadata[\"k\"] ?? \"\", \"bad\") { reject(ABORTED, \"no\") } } }";
    let parts = "element E { request { if \"bad\" in split(call.metadata[\"k\"] ?? \"\", \",\") { reject(ABORTED, \"no\") } } }";
    let more = "element E { request { if \"bad\" in call.metadata.all(\"k\").limit(100) { reject(ABORTED, \"no\") } } }";
    for element in [all, joined, parts, more] {
        for values in [1, 2, 64, 65, 100, 101, 500] {
            assert!(!through(element, values), "{values}: {element}");
        }
    }
    // Sixty-four that are allowed, and one that is not.
    let listed = vec!["x"; 64].join(",");
    let allow = format!(
        "element E {{ request {{ if call.metadata[\"k\"] != \"{listed}\" {{ reject(ABORTED, \"no\") }} }} }}"
    );
    assert!(!through(&allow, 65));
}

#[test]
fn an_answer_that_cannot_be_judged_fails() {
    let element = "element E { response { if contains(call.metadata[\"a\"] ?? \"\", \"secret\") { reject(ABORTED, \"leak\") } } }";
    let (compiled, mut mock) = one("E", element);
    assert_eq!(run(&compiled, Entry::Request, &mut mock).0, Verdict::Forward);
    mock.response.push(("a".into(), [vec![b'x'; 70_000], b"secret".to_vec()].concat()));
    assert_eq!(run(&compiled, Entry::Response, &mut mock).0, Verdict::Forward);
    assert_eq!(mock.status, u64::from(Status::RESOURCE_EXHAUSTED.code()));
}
