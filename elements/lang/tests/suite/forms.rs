//! Values that outlive the expression that made them: lists and texts kept for a call, texts in maps; sets and
//! digests.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use crate::common::{Mock, errors, one, run};
use crate::shop::{compile, encode, text};
use abi::{Entry, Status, Verdict};
use prost_reflect::Value;

/// A header of the call after its request has been through `E`.
fn header(element: &str, headers: &[(&str, &str)], name: &str) -> Option<String> {
    let (compiled, mut mock) = one("E", element);
    for (name, value) in headers {
        mock = mock.header(name, value);
    }
    assert_eq!(run(&compiled, Entry::Request, &mut mock).0, Verdict::Forward, "{element}");
    mock.request_header(name)
}

#[test]
fn a_list_as_call_parameter_stays_for_the_call() {
    let element = "element E(of: call => list<string>, also: call => list<string>? = None) {
        request { call.metadata[\"k\"] = \"changed\"  if \"b\" in of { call.metadata[\"seen\"] = \"{len(of)}\" } }
        response {
            for tag in of { log(info, tag: tag) }
            log(info, last: of[2], also: len(also ?? []))
        }
    }";
    let (compiled, mock) = one("E(call.metadata.all(\"k\"))", element);
    let mut mock = mock.header("k", "a").header("k", "b").header("k", "c");
    assert_eq!(run(&compiled, Entry::Request, &mut mock).0, Verdict::Forward);
    assert_eq!(mock.request_header("seen").unwrap(), "3");
    run(&compiled, Entry::Response, &mut mock);
    let told = ["a", "b", "c"].map(|tag| format!("Info 0 [(\"tag\", Text(\"{tag}\"))]")).to_vec();
    let last = "Info 0 [(\"last\", Text(\"c\")), (\"also\", Uint(0))]".to_owned();
    assert_eq!(mock.logs, [told, vec![last]].concat());
    // Endpoints are a list too, and one that is not stored.
    let element = "element E(of: call => list<Endpoint>) { response { log(info, n: len(of), at: of[1]) } }";
    let (compiled, mut mock) = one("E(healthy(call.destination.endpoints))", element);
    mock.endpoints[0].healthy = false;
    run(&compiled, Entry::Request, &mut mock);
    mock.endpoints[0].healthy = true;
    run(&compiled, Entry::Response, &mut mock);
    assert_eq!(mock.logs, ["Info 0 [(\"n\", Uint(1)), (\"at\", Text(\"none\"))]"]);
}

#[test]
fn a_list_of_the_request_is_kept_for_the_response() {
    let element = "element E { response {
        let tags = call.request.payload.tags else { log(warn, lost: 1) return }
        for tag in tags { log(info, tag: tag) }
    } }";
    let compiled = compile("catalog.shop.Catalog/Get: E", element).unwrap();
    let judge = |tags: Vec<Value>| {
        let mut mock = Mock::new(1);
        (mock.service, mock.method) = ("shop.Catalog".into(), "Get".into());
        mock.words = vec![0; compiled.program.chains[0].plan().call_words];
        mock.payload = Some(encode("shop.GetRequest", &[("tags", Value::List(tags))]));
        run(&compiled, Entry::Request, &mut mock);
        mock.payload = None;
        run(&compiled, Entry::Response, &mut mock);
        mock.logs.join(" ")
    };
    assert_eq!(
        judge(vec![text("x"), text("y")]),
        "Info 0 [(\"tag\", Text(\"x\"))] Info 0 [(\"tag\", Text(\"y\"))]"
    );
    assert_eq!(judge(vec![]), "");
    assert_eq!(judge(vec![text(&"x".repeat(5000))]), "Warn 0 [(\"lost\", Uint(1))]");
}

#[test]
fn a_text_is_state_of_a_call() {
    let element = "element E {
        state call who: string = call.metadata[\"who\"] ?? \"nobody\"
        state call why: string?
        state call all: bytes = call.metadata[\"raw-bin\"] ?? call.metadata[\"raw-bin\"] ?? call.metadata[\"r-bin\"]
        request { }
    }";
    assert!(errors(&crate::common::app("E", element)).contains("expected bytes, found bytes?"));
    let element = "element E {
        state call who: string = call.metadata[\"who\"] ?? \"nobody\"
        state call why: string?
        request {
            let before = who
            who = \"{who} and {call.method}\"
            if call.metadata[\"why\"] != None { why = call.metadata[\"why\"] }
            call.metadata[\"x\"] = \"{before}, {who}\"
        }
        request message { who = \"{who}.\" }
        response { log(info, who: who, why: why)  why = None  log(info, why: why) }
    }";
    let (compiled, mock) = one("E", element);
    let mut mock = mock.header("who", "ann").header("why", "because");
    run(&compiled, Entry::Request, &mut mock);
    assert_eq!(mock.request_header("x").unwrap(), "ann, ann and List");
    for _ in 0..3 {
        run(&compiled, Entry::RequestMessage, &mut mock);
    }
    run(&compiled, Entry::Response, &mut mock);
    let last = "Info 0 [(\"who\", Text(\"ann and List...\")), (\"why\", Text(\"because\"))]";
    assert_eq!(mock.logs, [last, "Info 0 [(\"why\", None)]"]);
    // What is longer is cut at a character.
    let (compiled, mock) = one("E", element);
    let mut mock = mock.header("who", &"ä".repeat(600));
    run(&compiled, Entry::Request, &mut mock);
    run(&compiled, Entry::Response, &mut mock);
    assert!(mock.logs[0].contains(&format!("Text(\"{}\")", "ä".repeat(512))), "{:?}", mock.logs);
}

#[test]
fn a_map_keeps_texts_and_services() {
    let element = "element E {
        state node last: map<string, string>[max 2, evict]
        state node went: map<string, Service>[max 10, evict]
        request {
            let user = call.metadata[\"user\"] ?? \"\"
            call.metadata[\"before\"] = last[user]
            call.destination = went[user] ?? call.destination
            last[user] = call.metadata[\"say\"]
            went[user] = canary
        }
    }";
    let (compiled, mock) = one("E", element);
    let say = |user: &str, say: Option<&str>| {
        let mut mock = mock.clone().header("user", user);
        if let Some(say) = say {
            mock = mock.header("say", say);
        }
        run(&compiled, Entry::Request, &mut mock);
        (mock.request_header("before"), mock.destination)
    };
    assert_eq!(say("a", Some("one")), (None, 1));
    assert_eq!(say("a", Some("two")), (Some("one".into()), 2));
    assert_eq!(say("b", Some(&"ü".repeat(300))), (None, 1));
    assert_eq!(say("b", None), (Some("ü".repeat(128)), 2), "at most 256 bytes");
    assert_eq!(say("b", Some("")), (None, 2), "None removes");
    assert_eq!(say("b", Some("x")), (Some(String::new()), 2), "empty is not absent");
    say("c", Some("third"));
    assert_eq!(say("a", None).0, None, "the least recently used has gone");
}

#[test]
fn a_set_has_each_item_once() {
    let element = "element E(of: set<string>, at: call => set<string> = call.metadata.all(\"k\")) {
        request { call.metadata[\"n\"] = \"{len(of)} {len(at)} {at[1]} {\"b\" in of}\" }
    }";
    let (compiled, mock) = one("E([\"a\", \"b\", \"a\", \"b\"])", element);
    let mut mock = mock.header("k", "x").header("k", "x").header("k", "y").header("k", "x");
    run(&compiled, Entry::Request, &mut mock);
    assert_eq!(mock.request_header("n").unwrap(), "2 2 y true");
}

#[test]
fn a_digest_is_sha_256() {
    // FIPS 180-4's own example, and the empty text.
    let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    let none = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let element = "element E { request {
        call.metadata[\"x\"] = digest(call.metadata[\"k\"] ?? \"\")
        call.metadata[\"y\"] = digest(\"abc\")
        if digest(call.metadata[\"k\"] ?? \"\") in [\"no\"] { reject(ABORTED, \"\") }
    } }";
    assert_eq!(header(element, &[("k", "abc")], "x").unwrap(), abc);
    assert_eq!(header(element, &[], "x").unwrap(), none);
    assert_eq!(header(element, &[], "y").unwrap(), abc);
}

#[test]
fn every_value_of_binary_metadata_is_listed() {
    let element = "element E { request {
        let parts = call.metadata.all(\"token-bin\")
        call.metadata[\"n\"] = \"{len(parts)}\"
        for part in parts { log(info, part: base64(part)) }
        if any(parts, p => p == (call.metadata[\"deny-bin\"] ?? parts[9] ?? p)) { reject(ABORTED, \"denied\") }
    } }";
    let (compiled, mock) = one("E", element);
    let call = |deny: &str| {
        let mut mock =
            mock.clone().header("token-bin", "YQ,Yg").header("token-bin", "Yw==").header("token-bin", "*");
        mock = mock.header("deny-bin", deny);
        let verdict = run(&compiled, Entry::Request, &mut mock).0;
        (mock.request_header("n"), mock.logs.len(), verdict)
    };
    let (n, parts, verdict) = call("Zg==");
    assert_eq!((n.as_deref(), parts, verdict), (Some("3"), 3, Verdict::Forward));
    let Verdict::Reject(reject) = call("Yw").2 else { panic!("let through") };
    assert_eq!(reject.status, Status::ABORTED);
}
