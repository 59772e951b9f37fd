//! What user-defined elements do, by what happens to a call.

use crate::common::{Mock, endpoint, one, passage, run};
use abi::{Entry, Flag, Status, Verdict};

fn reject_text(rule: &str, rest: &str, with: impl FnOnce(Mock) -> Mock) -> String {
    let (compiled, mock) = one(rule, rest);
    let mut mock = with(mock);
    match passage(&compiled, &mut mock) {
        Verdict::Reject(_) => mock.reject_text,
        other => format!("{other:?}"),
    }
}

/// The value of an expression, as text.
fn value_of(expr: &str, with: impl FnOnce(Mock) -> Mock) -> String {
    reject_text(
        "X",
        &format!("element X {{ request {{ let v = {expr}  reject(ABORTED, \"{{v}}\") }} }}"),
        with,
    )
}

#[test]
fn expressions_have_their_values() {
    let with = |m: Mock| {
        let mut m =
            m.header("a", "x").header("n", " 42 ").header("two", "1").header("two", "2").header("e", "");
        m.ip = Some([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 1, 2, 3]);
        m.deadline = Some(m.now_ns + 5_000_000);
        m
    };
    for (expr, expected) in [
        ("1 + 2 * 3 - 4 / 2", "5"),
        ("7 % 3", "1"),
        ("3 - 5", "0"),
        ("0 - 5 + call.attempt * 0", "0"),
        ("-3 - 5", "-8"),
        ("7 / (call.attempt - 1)", "0"),
        ("1.5 * call.attempt", "1.5"),
        ("1.0 / 0.0", "inf"),
        ("50% + 0.25", "0.75"),
        ("5ms * 3", "15ms"),
        ("1s / 4", "250ms"),
        ("10ms / 4ms", "2.5"),
        ("100/s * 2", "200/s"),
        ("(10/s).per_second", "10"),
        ("10/s * 500ms", "5"),
        ("64KiB", "65536"),
        ("call.deadline ?? now()", "1005000000ns"),
        ("(call.deadline ?? now()) - now()", "5ms"),
        ("call.method == \"List\"", "true"),
        ("call.service", "shop.Catalog"),
        ("call.source", "frontend"),
        ("call.source == service(\"frontend\")", "true"),
        ("call.destination", "catalog"),
        ("call.peer.ip", "10.1.2.3"),
        ("in_cidr(call.peer.ip ?? \"\", \"10.0.0.0/8\")", "true"),
        ("call.metadata[\"A\"]", "x"),
        ("call.metadata[\"zz\"]", "none"),
        ("call.metadata[\"zz\"] ?? \"d\"", "d"),
        ("call.metadata[\"two\"]", "1,2"),
        ("len(call.metadata.all(\"two\"))", "2"),
        ("call.metadata.all(\"two\")[1]", "2"),
        ("call.metadata.all(\"two\")[2]", "none"),
        ("call.metadata[\"e\"] == None", "false"),
        ("call.metadata[\"e\"] == \"\"", "true"),
        ("call.metadata[\"zz\"] == \"\"", "false"),
        ("call.metadata[\"zz\"] != \"\"", "true"),
        ("call.metadata[\"a\"] == call.metadata[\"zz\"]", "false"),
        ("call.metadata[\"y\"] == call.metadata[\"zz\"]", "true"),
        ("call.metadata[\"a\"] in [\"w\", \"x\"]", "true"),
        ("call.metadata[\"zz\"] in [\"w\", \"x\"]", "false"),
        ("-1 in filter([-1, 2], i => i < 2)", "true"),
        ("call.attempt in filter([1.0, 2.5], x => x < 2.0)", "true"),
        ("weighted({ canary: 5 })", "canary"),
        ("parse_int(call.metadata[\"n\"] ?? \"\") ?? -1", "42"),
        ("parse_int(\"x\") ?? -1", "-1"),
        ("lower(\"AbC\")", "abc"),
        ("trim(call.metadata[\"n\"] ?? \"\")", "42"),
        ("prefix(\"abcdef\", 3)", "abc"),
        ("mask(\"secret\", keep: 2)", "se****"),
        ("base64(\"foo\")", "Zm9v"),
        ("contains(call.service, \"Cat\")", "true"),
        ("starts_with(call.service, \"shop.\") && !ends_with(call.service, \"x\")", "true"),
        ("min(3, call.attempt)", "1"),
        ("max(2.5, 1)", "2.5"),
        ("clamp(17, 0, 10)", "10"),
        ("abs(-3)", "3"),
        ("floor(2.7)", "2"),
        ("if call.attempt == 1 { \"one\" } else { \"more\" }", "one"),
        ("match call.method { \"Get\" => 1  \"List\" => 2  _ => 3 }", "2"),
        (
            "match call.metadata[\"a\"] { \"q\" => \"q\"  Some(v) => \"some {v}\"  None => \"none\" }",
            "some x",
        ),
        ("match call.metadata[\"zz\"] { Some(v) => v  None => \"gone\" }", "gone"),
        ("UNAVAILABLE", "UNAVAILABLE"),
        ("\"a{1 + 1}b{call.method}{\"!\"}\"", "a2bList!"),
        ("\"\\{\\n\\}\"", "{\n}"),
        ("call.endpoint", "none"),
        ("len(call.destination.endpoints)", "2"),
        ("len(filter(call.destination.endpoints, e => e.zone == \"b\"))", "1"),
        (
            "any(call.destination.endpoints, e => e.weight > 2) && !all(call.destination.endpoints, e => e.healthy)",
            "false",
        ),
        ("least(call.destination.endpoints, e => 0.0 - e.weight)", "127.0.0.1:1"),
        (
            "least(filter(call.destination.endpoints, e => e.labels[\"tier\"] == \"gold\"), e => e.inflight)",
            "127.0.0.1:2",
        ),
        ("least(filter(call.destination.endpoints, e => false), e => 1)", "none"),
        ("quantile(call.destination.endpoints, 0.5, e => if e.zone == \"b\" { 3.0 } else { 1.0 })", "1"),
        ("quantile(call.destination.endpoints, 0.51, e => if e.zone == \"b\" { 3.0 } else { 1.0 })", "3"),
        ("quantile(call.destination.endpoints, 100%, e => e.report[\"cpu\"] ?? 9)", "9"),
        ("quantile(filter(call.destination.endpoints, e => false), 0.5, e => 1)", "0"),
        ("len(split(call.service, \".\"))", "2"),
        ("split(call.service, \".\")[1]", "Catalog"),
        ("split(\"a,,b,\", \",\")[1]", ""),
        ("len(split(\"a,,b,\", \",\"))", "4"),
        ("len(split(\"abc\", \"\"))", "1"),
        ("len(split(\"\", \",\"))", "1"),
        ("any(split(call.service, \".\"), p => p == \"Catalog\")", "true"),
        ("matches(call.service, \"^[a-z]+[.]Cat\")", "true"),
        ("matches(call.service, \"(?i)CATALOG$\")", "true"),
        ("matches(call.service, \"^Cat\")", "false"),
        ("matches(call.metadata[\"two\"] ?? \"\", \"^[0-9](,[0-9])*$\")", "true"),
        ("matches(\"\", \"x*\")", "true"),
    ] {
        assert_eq!(value_of(expr, with), expected, "{expr}");
    }
}

#[test]
fn metadata_is_read_written_and_removed() {
    let rest = r#"element X {
        request {
            call.metadata["X-Added"] = "id-{call.id}"
            call.metadata["old"] = None
            call.metadata["copy"] = call.metadata["here"]
            call.metadata["no"] = call.metadata["gone"]
        }
        response { call.metadata["served"] = call.request.metadata["here"] ?? "-"  call.status = NOT_FOUND  call.message = "m {call.message}" }
    }"#;
    let (compiled, mock) = one("X", rest);
    let mut mock = mock.header("old", "1").header("no", "1").header("here", "yes");
    mock.id = 7;
    mock.message = "was".into();
    assert_eq!(passage(&compiled, &mut mock), Verdict::Forward);
    assert_eq!(mock.request_header("x-added").as_deref(), Some("id-7"));
    assert_eq!(mock.request_header("copy").as_deref(), Some("yes"));
    assert_eq!((mock.request_header("old"), mock.request_header("no")), (None, None));
    assert_eq!(mock.response, [("served".to_owned(), b"yes".to_vec())]);
    assert_eq!((mock.status, mock.message.as_str()), (5, "m was"));
}

/// LANGUAGE.md "Handlers": the onion.
#[test]
fn responses_run_right_to_left_for_those_that_let_it_through() {
    let rest = r#"
        element A { request { count("a") } response { count("a_back") } }
        element B { request { count("b") } response { count("b_back") } }
        element No(share: float) { request { if random() < share { reject(PERMISSION_DENIED, "no") } } response { count("no_back") } }
        element C { request { count("c") } response { count("c_back") } }"#;
    let names = |share: &str| {
        let (compiled, mut mock) = one(&format!("A - B - No({share}) - C"), rest);
        let verdict = passage(&compiled, &mut mock);
        let names: Vec<String> =
            mock.counts.iter().map(|(m, _)| compiled.program.metrics[usize::from(*m)].clone()).collect();
        (verdict, names.join(" "))
    };
    let (verdict, all) = names("0");
    assert_eq!((verdict, all.as_str()), (Verdict::Forward, "a b c c_back no_back b_back a_back"));
    let (verdict, left) = names("1");
    assert_eq!(left, "a b b_back a_back");
    let Verdict::Reject(reject) = verdict else { panic!("{verdict:?}") };
    assert_eq!((reject.flag, reject.element, reject.status), (Flag::Denied, 2, Status::PERMISSION_DENIED));
}

#[test]
fn flags_follow_the_status() {
    for (status, flag) in [
        ("RESOURCE_EXHAUSTED", Flag::RateLimited),
        ("UNAUTHENTICATED", Flag::Denied),
        ("UNAVAILABLE", Flag::Overflow),
        ("NOT_FOUND", Flag::None),
    ] {
        let (compiled, mut mock) =
            one("X", &format!("element X {{ request {{ reject({status}, \"x\") }} }}"));
        let Verdict::Reject(reject) = passage(&compiled, &mut mock) else { panic!() };
        assert_eq!((reject.flag, reject.line), (flag, 5));
    }
}

#[test]
fn values_live_over_delays() {
    let rest = r#"element X(wait: call => duration) {
        state call seen: uint = 3
        request {
            let name = "n-{call.method}"
            let n = call.attempt + 41
            let list = call.metadata.all("two")
            seen += 1
            delay(wait)
            for item in list { delay(1ms)  log(info, item: item) }
            seen += 1
            reject(ABORTED, "{name} {n} {len(list)} {seen} {list[1]}")
        }
    }"#;
    let (compiled, mock) = one(
        "X(by_method)".replace("by_method", "if call.method == \"List\" { 2ms } else { 0s }").as_str(),
        rest,
    );
    let mut mock = mock.header("two", "a").header("two", "b");
    let (verdict, delays) = run(&compiled, Entry::Request, &mut mock);
    assert!(matches!(verdict, Verdict::Reject(_)));
    assert_eq!(delays, [2_000_000, 1_000_000, 1_000_000]);
    assert_eq!(mock.reject_text, "n-List 42 2 5 b");
    assert_eq!(mock.logs.len(), 2);
}

#[test]
fn a_call_parameter_is_taken_once_and_kept() {
    let rest = r#"
        element Keep(by: call => string?, n: call => uint = 1) {
            request { call.metadata["k"] = "changed" }
            response { let b = by else return  log(info, by: b, n: n) }
        }
        element Over { request { call.metadata["k"] = "again"  let junk = "{call.method}{call.method}"  log(debug, j: junk) } }"#;
    let (compiled, mock) = one("Keep(by: call.metadata[\"k\"], n: len(call.method)) - Over", rest);
    let mut mock = mock.header("k", "first");
    passage(&compiled, &mut mock);
    assert_eq!(mock.logs[1], "Info 0 [(\"by\", Text(\"first\")), (\"n\", Uint(4))]");
    let (compiled, mut mock) = one("Keep(by: call.metadata[\"k\"]) - Over", rest);
    passage(&compiled, &mut mock);
    assert_eq!(mock.logs.len(), 1, "absent: the response returns");
}

#[test]
fn when_holds_for_the_passage() {
    let rest = r#"element X { request { call.metadata["hit"] = "1" } response { count("back") } }
                  element Pin { request { call.endpoint = call.destination.endpoints[1] } }"#;
    let (compiled, mock) =
        one("X when(call.metadata[\"go\"] == \"yes\") - Pin when(call.metadata[\"go\"] == None)", rest);
    let mut hit = mock.clone().header("go", "yes");
    passage(&compiled, &mut hit);
    assert_eq!((hit.request_header("hit").is_some(), hit.counts.len(), hit.endpoint), (true, 1, None));
    let mut miss = mock;
    passage(&compiled, &mut miss);
    assert_eq!((miss.request_header("hit"), miss.counts.len(), miss.endpoint), (None, 0, Some(1)));
    assert_eq!(miss.passed, 2);
}

#[test]
fn dry_says_and_does_not() {
    let rest = r#"element X { request { call.metadata["k"] = "v"  delay(5s)  reject(UNAVAILABLE, "x") } }"#;
    let (compiled, mut mock) = one("X dry - Compression dry", rest);
    assert_eq!(run(&compiled, Entry::Request, &mut mock), (Verdict::Forward, vec![]));
    assert_eq!((mock.request.len(), crate::common::packed(mock.leaving), mock.passed), (0, None, 2));
    assert_eq!(mock.logs.len(), 4, "{:?}", mock.logs);
    assert!(mock.logs[2].contains("reject"));
    assert_eq!(compiled.program.metrics, ["would"]);
}

#[test]
fn destinations_deadlines_and_shares() {
    let rest = "";
    let rule = "Split({ catalog: 90, canary: 10 }) - Timeout(match call.method { \"List\" => 5s  \"Export\" => 60s  _ => 500ms })";
    let (compiled, mut mock) = one(rule, rest);
    let mut canary = 0;
    for id in 0..5000 {
        mock.id = id;
        passage(&compiled, &mut mock);
        canary += u32::from(mock.destination == 2);
    }
    assert!((400..600).contains(&canary), "{canary}");
    assert_eq!(mock.deadline, Some(mock.now_ns + 5_000_000_000));

    let (compiled, mut mock) = one(
        "Split({ catalog: 90, canary: 10 }, by: call.metadata[\"u\"], force: if call.method == \"Go\" { service(\"canary\") } else { None })",
        rest,
    );
    mock = mock.header("u", "anna");
    passage(&compiled, &mut mock);
    let first = mock.destination;
    for id in 0..50 {
        mock.id = id;
        passage(&compiled, &mut mock);
        assert_eq!(mock.destination, first, "the same key goes the same way");
    }
    mock.method = "Go".into();
    passage(&compiled, &mut mock);
    assert_eq!(mock.destination, 2);
}

#[test]
fn an_element_that_only_chooses_is_a_pick() {
    let rest = r#"
        element Near { request { let near = filter(call.destination.endpoints, e => e.zone == "b")  call.endpoint = least(near, e => e.inflight) } }
        element Pin { request { if call.method == "List" { call.endpoint = call.destination.endpoints[0] }  count("pin") } }"#;
    let (compiled, mut mock) = one("Near - LoadBalancing", rest);
    assert!(compiled.program.chains[0].plan().pick);
    passage(&compiled, &mut mock);
    assert_eq!(mock.endpoint, Some(1), "LoadBalancing respects it");
    // What stands to the right of a choice in `request` has the last word.
    let (compiled, mut mock) = one("Near - Pin", rest);
    assert!(!compiled.program.chains[0].plan().pick);
    passage(&compiled, &mut mock);
    assert_eq!(mock.endpoint, Some(0));
}

#[test]
fn counting_logging_observing() {
    let rest = r#"element X {
        state call began: instant = now()
        request { }
        response {
            count("calls")  count("bytes", 512)
            observe("seconds", (now() - began) / 1s)
            log(warn, status: call.status, method: call.method, none: call.request.metadata["zz"], ok: call.status == OK, took: now() - began, at: call.endpoint)
        }
    }"#;
    let (compiled, mut mock) = one("X", rest);
    run(&compiled, Entry::Request, &mut mock);
    mock.now_ns += 250_000_000;
    mock.endpoint = Some(1);
    run(&compiled, Entry::Response, &mut mock);
    assert_eq!(compiled.program.metrics, ["calls", "bytes", "seconds"]);
    assert_eq!(
        (mock.counts.as_slice(), mock.observed.as_slice()),
        ([(0, 1), (1, 512)].as_slice(), [(2, 0.25)].as_slice())
    );
    assert_eq!(
        mock.logs,
        [
            r#"Warn 0 [("status", Text("OK")), ("method", Text("List")), ("none", None), ("ok", Bool(true)), ("took", Text("250ms")), ("at", Text("127.0.0.1:2"))]"#
        ]
    );
}

#[test]
fn samples_are_different_and_even() {
    let rest = r#"element X { request {
        let s = sample(call.destination.endpoints, 3)
        reject(ABORTED, "{len(s)} {s[0]} {s[1]} {s[2]}")
    } }"#;
    let (compiled, mut mock) = one("X", rest);
    mock.endpoints = (0..2).map(endpoint).collect();
    passage(&compiled, &mut mock);
    assert!(mock.reject_text.starts_with("2 127"), "{}", mock.reject_text);
    let rest = "element X { request { for e in sample(call.destination.endpoints, 4) { count(\"hit\", 1)  log(info, w: e.weight) } } }";
    let (compiled, mut mock) = one("X", rest);
    mock.endpoints = (0..20).map(endpoint).collect();
    mock.endpoints.iter_mut().zip(0..).for_each(|(e, n)| e.weight = n);
    let mut seen = [0; 20];
    for id in 0..2000 {
        mock.id = id;
        mock.logs.clear();
        run(&compiled, Entry::Request, &mut mock);
        let mut logs = mock.logs.clone();
        logs.sort();
        logs.dedup();
        assert_eq!(logs.len(), 4, "no one twice");
        for line in &logs {
            let n: usize = line.split("Uint(").nth(1).unwrap().trim_end_matches([')', ']']).parse().unwrap();
            seen[n] += 1;
        }
    }
    assert!(seen.iter().all(|n| (300..520).contains(n)), "{seen:?}");
}

#[test]
fn bytes_that_are_no_text_do_no_harm() {
    let (compiled, mut mock) = one(
        "X",
        "element X { request { let v = call.metadata[\"k\"] ?? \"\"  reject(ABORTED, \"{prefix(v, 3)}|{mask(v, 1)}|{len(v)}\") } }",
    );
    mock.request.push(("k".into(), vec![0xff, b'a', 0xc3]));
    passage(&compiled, &mut mock);
    assert_eq!(mock.reject_text, "\u{fffd}a\u{fffd}|\u{fffd}**|7");
    mock.request[0].1 = vec![b'x'; 200_000];
    passage(&compiled, &mut mock);
    assert!(mock.reject_text.len() <= 1024);
}

/// Registers are used again, and instructions made away with, as long as nobody else needs what was in them.
#[test]
fn a_name_keeps_its_value() {
    for (body, expected) in [
        (
            "let v = call.method != \"x\"  let n = if v { 1 } else { 2 }  reject(ABORTED, \"{v} {n}\")",
            "true 1",
        ),
        ("let v = call.method != \"x\"  if !v { return }  reject(ABORTED, \"{v}\")", "true"),
        ("let v = call.method != \"x\"  if v { } else { return }  reject(ABORTED, \"{v}\")", "true"),
        ("let v = call.method != \"x\" && call.attempt == 1  if v && v { reject(ABORTED, \"{v}\") }", "true"),
        ("let w = call.attempt  let v = call.attempt + 1  w = v  reject(ABORTED, \"{v} {w}\")", "2 2"),
        ("let w = true  let v = call.method != \"x\"  w = v  reject(ABORTED, \"{v} {w}\")", "true true"),
        (
            "let w = call.attempt  let v = 1 + call.attempt  w = if v == 2 { v } else { 7 }  reject(ABORTED, \"{v} {w}\")",
            "2 2",
        ),
        (
            "let o = call.metadata[\"zz\"]  let v = o ?? call.method  let w = o ?? v  reject(ABORTED, \"{v} {w}\")",
            "List List",
        ),
        (
            "let o = call.metadata[\"a\"]  match o { Some(v) => { o = call.metadata[\"zz\"]  reject(ABORTED, \"{v}\") } None => { } }",
            "x",
        ),
        (
            "let o = call.metadata[\"a\"]  let v = o else return  o = call.metadata[\"zz\"]  reject(ABORTED, \"{v}\")",
            "x",
        ),
        ("let a = call.method  let b = a  a = \"z\"  reject(ABORTED, \"{a} {b}\")", "z List"),
        (
            "let o = call.metadata[\"a\"]  let v = o ?? \"y\"  o = call.metadata[\"zz\"]  reject(ABORTED, \"{v} {o}\")",
            "x none",
        ),
        (
            "let v = call.metadata[\"a\"] ?? \"\"  call.metadata[\"a\"] = \"longer\"  reject(ABORTED, \"{v}\")",
            "x",
        ),
        (
            "let v = call.metadata[\"a\"] else return  call.metadata[\"a\"] = None  reject(ABORTED, \"{v}\")",
            "x",
        ),
        (
            "let v = call.attempt  let w = if v == 1 { v = 5  v } else { 0 }  reject(ABORTED, \"{v} {w}\")",
            "5 5",
        ),
        (
            "let x = call.attempt  let y = x + (if x == 1 { x = 10  1 } else { 0 })  reject(ABORTED, \"{x} {y}\")",
            "10 2",
        ),
        (
            "let x = call.attempt  let y = max(x, if x == 1 { x = 10  1 } else { 0 })  reject(ABORTED, \"{x} {y}\")",
            "10 1",
        ),
        (
            "let l = [\"a\", call.method]  let n = 0  for v in l { l = []  n = n + 1 }  reject(ABORTED, \"{n} {len(l)}\")",
            "2 0",
        ),
        (
            "let x = call.attempt  let m = match x { 1 => { x = 3  x + 1 } _ => { 0 } }  reject(ABORTED, \"{x} {m}\")",
            "3 4",
        ),
        (
            "let s = call.method  let t = \"{s}{if s == \"List\" { s = \"z\"  \"!\" } else { \"\" }}{s}\"  reject(ABORTED, t)",
            "List!z",
        ),
    ] {
        let is = reject_text("X", &format!("element X {{ request {{ {body} }} }}"), |m| m.header("a", "x"));
        assert_eq!(is, expected, "{body}");
    }
}

/// What was read of a state or of the call is what it was, whatever is written there afterwards.
#[test]
fn what_was_read_stays_as_it_was() {
    let state = "state call s: string = call.method  state call o: string? = call.method  state call n: uint = 1\n\
         state shard t: uint = 1  state node u: uint = 1\n\
         state shard m: map<string, string>[max 4, evict]  state node k: map<string, string>[max 4, evict]";
    for (body, expected) in [
        ("let v = s  s = \"zzzz\"  reject(ABORTED, \"{v} {s}\")", "List zzzz"),
        ("let v = o ?? \"\"  o = \"zzzz\"  reject(ABORTED, \"{v} {o}\")", "List zzzz"),
        ("let v = o  o = None  reject(ABORTED, \"{v} {o}\")", "List none"),
        ("match o { Some(v) => { o = \"zzzz\"  reject(ABORTED, \"{v} {o}\") } None => { } }", "List zzzz"),
        ("let v = prefix(s, 2)  s = \"zzzz\"  reject(ABORTED, \"{v} {s}\")", "Li zzzz"),
        ("let v = split(s, \"i\")  s = \"zzzz\"  reject(ABORTED, \"{v[1]} {s}\")", "st zzzz"),
        ("let v = n  n = 7  reject(ABORTED, \"{v} {n}\")", "1 7"),
        ("let v = t  t = 7  reject(ABORTED, \"{v} {t}\")", "1 7"),
        ("let v = u  u = 7  reject(ABORTED, \"{v} {u}\")", "1 7"),
        (
            "m[\"a\"] = s  let v = m[\"a\"]  m[\"a\"] = \"zzzz\"  reject(ABORTED, \"{v} {m[\"a\"]}\")",
            "List zzzz",
        ),
        (
            "m[\"a\"] = s  let v = m[\"a\"]  m[\"a\"] = None  m[\"b\"] = \"zzzz\"  reject(ABORTED, \"{v}\")",
            "List",
        ),
        (
            "k[\"a\"] = s  let v = k[\"a\"]  k[\"a\"] = \"zzzz\"  reject(ABORTED, \"{v} {k[\"a\"]}\")",
            "List zzzz",
        ),
        ("let v = call.endpoint  call.endpoint = None  reject(ABORTED, \"{v == call.endpoint}\")", "true"),
        (
            "let v = call.deadline  call.deadline = now() + 1s  reject(ABORTED, \"{v == call.deadline}\")",
            "false",
        ),
        (
            "let v = call.destination  call.destination = service(\"catalog\")  reject(ABORTED, \"{v}\")",
            "catalog",
        ),
    ] {
        let is = reject_text("X", &format!("element X {{ {state}\nrequest {{ {body} }} }}"), |m| m);
        assert_eq!(is, expected, "{body}");
    }
}

#[test]
fn state_of_a_call_may_begin_with_a_call_parameter() {
    let element = "element X(p: call => string, n: call => uint, o: call => string?, m: call => map<string, string>) {\n\
         state call s: string = p  state call k: uint = n + 1  state call q: string? = o  state call r: string? = m[p]\n\
         response { log(info, s: s, k: k, q: q, r: r) } }";
    let rule = "X(p: call.method, n: call.attempt, o: call.metadata[\"a\"], m: { \"List\": call.service })";
    let (compiled, mock) = one(rule, element);
    let mut mock = mock.header("a", "x");
    assert_eq!(passage(&compiled, &mut mock), Verdict::Forward);
    let kept =
        r#"Info 0 [("s", Text("List")), ("k", Uint(2)), ("q", Text("x")), ("r", Text("shop.Catalog"))]"#;
    assert_eq!(mock.logs, [kept]);
}
