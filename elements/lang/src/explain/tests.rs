//! Explanations say what is so, of programs whose answer is known.

use super::{Report, parse_call};
use crate::{NoFiles, Overrides, compile};

const SHOP: &str = "\
service frontend { from: [\"uid:1\"] }
service admin { from: [\"uid:2\"] }
service catalog { endpoints: [\"127.0.0.1:1\", \"127.0.0.1:2\"] }
frontend -> catalog: Block(call.metadata[\"x-user\"]) - Logging - Slow - FaultInjection(10%) - LoadBalancing
* -> catalog: LoadBalancing
frontend -> catalog.shop.Catalog/*: Tag - Logging
every admin -> *: FaultInjection(1%, delay: 1s)
element Block(by: call => string?, list: list<string> = [\"evil\"], open: bool = false, note: call => string? = call.metadata[\"n\"]) {
    request {
        if open { call.metadata[\"x-open\"] = note }
        if by in list { reject(PERMISSION_DENIED, \"blocked\") }
        if by != \"good\" && call.method == \"M\" { reject(PERMISSION_DENIED, \"not good\") }
    }
    response { if call.status == OK { call.trailers[\"x\"] = \"y\" } }
}
element Slow { request { if call.metadata[\"x-slow\"] == \"1\" { delay(1s) } call.metadata[\"x-was\"] = \"slow\" } }
element Tag { request { call.metadata[\"x-was\"] = \"tagged\" } }
";

fn compiled() -> crate::Compiled {
    compile("shop.adn", SHOP, &NoFiles, &Overrides::default()).unwrap_or_else(|e| panic!("{e}"))
}

fn has(text: &str, lines: &[&str]) {
    for line in lines {
        let found = text.lines().any(|l| l.split_whitespace().eq(line.split_whitespace()));
        assert!(found, "missing: {line}\n{text}");
    }
}

#[test]
fn rules_say_what_they_cover_and_who_wins() {
    let compiled = compiled();
    let text = Report::of(&compiled).text();
    has(
        &text,
        &[
            "frontend -> catalog (shop.adn:4)",
            "calls every method of catalog, called by frontend, but for health checks and reflection",
            "wins over `* -> catalog` (shop.adn:5): it names the caller",
            "yields to `frontend -> catalog.shop.Catalog/*` (shop.adn:6): it names the gRPC service",
            "stands left of each rule that serves such calls; it cannot be overridden",
            "1 FaultInjection(1%, delay: 1s) (by an `every` rule, shop.adn:7)",
        ],
    );
}

#[test]
fn elements_say_what_they_read_write_and_let_pass() {
    let compiled = compiled();
    let text = Report::of(&compiled).text();
    has(
        &text,
        &[
            "with list = [\"evil\"], open = false",
            "once a call by = call.metadata[\"x-user\"]",
            "never evaluated note = call.metadata[\"n\"]: nothing that is left reads it",
            "request reads metadata[\"x-user\"], method",
            "passes when call.metadata[\"x-user\"] is absent",
            "decided: `open` is false because open = false (line 10)",
            "response reads status",
            "writes trailers[\"x\"]",
            "rejects with UNAVAILABLE \"fault injected\" with a chance of 10 % (line 25)",
            "decided: `delay > 0s` is true because delay = 1s (line 25)",
            "waits 1s with a chance of 1 % (line 25)",
            "request headers only: forwarded before the first message byte",
        ],
    );
    // `!=` holds for an absent value: only the first of both rejects lets it pass.
    assert_eq!(text.matches("passes when").count(), 1, "{text}");
    assert!(text.contains("; may be suspended in 1 place"), "{text}");
    assert!(text.contains("pick: element 5,"), "{text}");
}

#[test]
fn neighbours_say_why_they_stay() {
    let compiled = compiled();
    let text = Report::of(&compiled).text();
    for line in [
        "1 and 2 stay as they are: calls that Block rejects are not seen by Logging, and its `request` writes an \
         access-log line to stdout",
        "2 and 3 could be swapped: neither sees what the other does",
        "3 and 4 stay as they are: Slow may wait, and FaultInjection may reject: calls would wait in vain, or no longer",
        "4 and 5 could be swapped: neither sees what the other does",
    ] {
        assert!(text.contains(line), "missing: {line}\n{text}");
    }
}

#[test]
fn a_call_is_taken_through_the_rule_it_meets() {
    let compiled = compiled();
    let report = Report::of(&compiled);
    let mut call = parse_call("frontend -> catalog.shop.Carts/M").unwrap();
    call.headers = vec![("x-user".into(), "evil".into())];
    let text = report.call(&call).unwrap();
    has(
        &text,
        &[
            "served by `frontend -> catalog` (shop.adn:4)",
            "`* -> catalog` (shop.adn:5) is less specific: the winner wins because it names the caller",
            "`frontend -> catalog.shop.Catalog/*` (shop.adn:6) does not: it is for methods of shop.Catalog",
            "`every admin -> *` (shop.adn:7) does not: it is for calls from admin",
            "verdict PERMISSION_DENIED \"blocked\", flag UAEX: rejected by 1 Block, line 11 of its file",
        ],
    );
    assert!(!text.contains("Logging"), "what is not reached is not told\n{text}");

    call.headers = vec![("x-user".into(), "good".into()), ("x-slow".into(), "1".into())];
    call.seed = 3;
    let text = report.call(&call).unwrap();
    let at = |what: &str| text.find(what).unwrap_or_else(|| panic!("missing: {what}\n{text}"));
    assert!(at("1 Block") < at("2 Logging") && at("waits 1s") < at("metadata[\"x-was\"] = \"slow\""));
    assert!(at("(10 % of such calls are rejected with UNAVAILABLE)") < at("endpoint = 127.0.0.1:"));
    assert!(at("verdict   forward to catalog at 127.0.0.1:") < at("trailers[\"x\"] = \"y\""));
    assert_eq!(text, report.call(&call).unwrap(), "the same seed draws the same");
}

#[test]
fn a_call_nobody_covers_and_one_nobody_knows() {
    let compiled = compiled();
    let report = Report::of(&compiled);
    let mut call = parse_call("frontend -> admin.shop.Catalog/M").unwrap();
    let text = report.call(&call).unwrap();
    assert!(text.contains("verdict   UNIMPLEMENTED, flag NR: no rule covers it"), "{text}");
    call.destination = "catalogue".into();
    let error = report.call(&call).unwrap_err();
    assert!(error.contains("no service `catalogue`") && error.contains("did you mean `catalog`?"), "{error}");
    for wrong in ["frontend", "a -> b", "a -> b.c", "-> b.c/d", "a -> .c/d"] {
        assert!(parse_call(wrong).unwrap_err().contains("expected 'frontend -> "), "{wrong}");
    }
    let quoted = parse_call("* -> \"product-page\".shop.Page/Get").unwrap();
    assert_eq!((quoted.source, quoted.destination.as_str()), (None, "product-page"));
}

#[test]
fn state_is_told_with_its_types() {
    let app = "service a\nservice b { endpoints: [\"127.0.0.1:1\"] }\na -> b: X - CircuitBreaker\n\
               element X { state node last: duration? = None  state shard n: uint = 0\n\
               request { n += 1  if n > 5 && last == None { last = 1s } } }";
    let compiled = compile("x", app, &NoFiles, &Overrides::default()).unwrap_or_else(|e| panic!("{e}"));
    let report = Report::of(&compiled);
    let text = report.text();
    for line in
        ["a -> b: X: node last: duration?; a reload", "a -> b: CircuitBreaker: node open: bool; a reload"]
    {
        assert!(text.contains(line), "missing: {line}\n{text}");
    }
    assert!(report.json().contains("\"shape\":\"node open: bool\""));
    assert!(!report.json().contains("\"shape\":\"\""));
}

#[test]
fn json_has_the_same_facts() {
    let compiled = compiled();
    let json = Report::of(&compiled).json();
    for part in [
        "\"rule\":\"frontend -> catalog\"",
        "\"passes_when_absent\":[\"call.metadata[\\\"x-user\\\"]\"]",
        "\"chance\":0.1",
        "\"decided\":[{\"what\":\"open\",\"is\":\"false\",\"because\":[\"open = false\"],\"line\":10}]",
        "\"swappable\":true",
        "\"waits_for_message\":false",
        "\"reason\":\"it names the caller\"",
    ] {
        assert!(json.contains(part), "missing: {part}\n{json}");
    }
    let depth = json.bytes().fold((0_i32, false, false), |(depth, quoted, escaped), b| match b {
        _ if escaped => (depth, quoted, false),
        b'\\' if quoted => (depth, quoted, true),
        b'"' => (depth, !quoted, false),
        b'{' | b'[' if !quoted => (depth + 1, quoted, false),
        b'}' | b']' if !quoted => (depth - 1, quoted, false),
        _ => (depth, quoted, false),
    });
    assert_eq!(depth, (0, false, false));
}
