//! State by what calls see of it: scopes, cells, maps, atomic steps, reloads.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of a test")]

use crate::common::{Mock, app, errors, linked, one, passage, run};
use abi::{Entry, Note, Status, Verdict};
use towpath_lang::state::Store;

const S: u64 = 1_000_000_000;
const MS: u64 = 1_000_000;

/// Verdicts, short: `.` goes on, a letter of the status else.
fn verdict(verdict: Verdict) -> char {
    match verdict {
        Verdict::Forward => '.',
        Verdict::Reject(r) if r.status == Status::RESOURCE_EXHAUSTED => 'R',
        Verdict::Reject(r) if r.status == Status::UNAVAILABLE => 'U',
        other => panic!("{other:?}"),
    }
}

const RATE_LIMIT: &str = r#"
    element Limit(rate: rate, burst: float? = None, by: call => string? = None) {
        state node admitted: map<string, bucket>[max 3, share, ttl 10m] = bucket(rate, burst ?? rate.per_second)
        request { if !admitted[by ?? ""].take() { reject(RESOURCE_EXHAUSTED, "rate limited to {rate}") } }
    }"#;

#[test]
fn a_rate_limit_holds_for_all_shards_together() {
    let source = app("Limit(1000/s)", RATE_LIMIT);
    let (compiled, _) = linked(&source, &mut Store::new(4));
    let mut admitted = [0_u32; 11];
    std::thread::scope(|scope| {
        let handles: Vec<_> = (0..4_u16)
            .map(|shard| {
                let compiled = &compiled;
                scope.spawn(move || {
                    let mut mine = [0_u32; 11];
                    let mut mock = Mock::new(2);
                    mock.shard = shard;
                    mock.words = vec![0; compiled.program.chains[0].plan().call_words];
                    for ask in 0..110_000_u64 {
                        // Ten thousand a second on each of the four.
                        mock.now_ns = S + ask * 100_000;
                        let (verdict, _) = run(compiled, Entry::Request, &mut mock);
                        mine[usize::try_from(ask / 10_000).unwrap()] +=
                            u32::from(verdict == Verdict::Forward);
                    }
                    mine
                })
            })
            .collect();
        for handle in handles {
            let mine = handle.join().unwrap();
            admitted.iter_mut().zip(mine).for_each(|(all, n)| *all += n);
        }
    });
    // Threads run apart by as much as the machine likes: their seconds are not the same, the sum is.
    let all: u32 = admitted.iter().sum();
    assert!((11_900..=12_001).contains(&all), "burst and eleven seconds: {all}");
}

#[test]
fn keys_have_limits_of_their_own_until_the_map_is_full() {
    let (compiled, mock) = one("Limit(1/s, 2, by: call.metadata[\"t\"])", RATE_LIMIT);
    let ask = |tenant: &str, at: u64| {
        let mut mock = mock.clone().header("t", tenant);
        mock.now_ns = at;
        let v = passage(&compiled, &mut mock);
        (verdict(v), mock.notes, mock.reject_text)
    };
    for tenant in ["a", "b", "c"] {
        assert_eq!([ask(tenant, S).0, ask(tenant, S).0, ask(tenant, S).0], ['.', '.', 'R'], "{tenant}");
    }
    assert_eq!(ask("a", S).2, "rate limited to 1/s");
    // The fourth and fifth share one entry.
    assert_eq!(ask("d", S), ('.', vec![Note::MapShared], String::new()));
    assert_eq!([ask("e", S).0, ask("d", S).0, ask("e", S).0], ['.', 'R', 'R']);
    assert_eq!([ask("a", 2 * S).0, ask("a", 2 * S).0], ['.', 'R'], "a token a second");
    // Unused for ten minutes they are gone, and others get entries of their own.
    let late = 700 * S;
    for _ in 0..40 {
        ask("z", late);
    }
    for tenant in ["d", "e"] {
        assert_eq!(ask(tenant, late).1, [], "{tenant} has its own");
    }
}

const BREAKER: &str = r#"
    element CircuitBreaker2(errors: float = 50%, calls: uint = 20, over: duration = 10s, rest: rate = 1/5s) {
        state node seen = window(over)  state node gate = bucket(rest, burst: 1)  state node open: bool = false  state call probe: bool = false
        request  { if open { probe = gate.take()  if !probe { reject(UNAVAILABLE, "circuit open") } } }
        response { let bad = call.status in [UNAVAILABLE, DEADLINE_EXCEEDED, INTERNAL, UNKNOWN]
                   seen.add(if bad { 1.0 } else { 0.0 })
                   if probe && !bad && call.status != CANCELLED { open = false  seen.clear() }
                   else if !open && seen.count >= calls && seen.mean >= errors { open = true  gate.drain() } }
    }"#;

#[test]
fn a_circuit_opens_probes_and_closes() {
    let (compiled, mock) = one("CircuitBreaker2", BREAKER);
    let pass = |at: u64, status: Status| {
        let mut mock = mock.clone();
        mock.now_ns = at;
        mock.words.fill(0);
        let (verdict, _) = run(&compiled, Entry::Request, &mut mock);
        if verdict == Verdict::Forward {
            mock.status = u64::from(status.code());
            run(&compiled, Entry::Response, &mut mock);
        }
        self::verdict(verdict)
    };
    for n in 0..20 {
        assert_eq!(pass(S + n, if n % 2 == 0 { Status::OK } else { Status::UNAVAILABLE }), '.');
    }
    assert_eq!(pass(S + 100, Status::OK), 'U', "half of twenty failed");
    assert_eq!(pass(S + 5 * S, Status::OK), 'U');
    assert_eq!(
        pass(S + 5 * S + 200, Status::INTERNAL),
        '.',
        "the first probe after five seconds, which fails"
    );
    assert_eq!(pass(S + 5 * S + 300, Status::OK), 'U', "one probe in five seconds");
    assert_eq!(pass(S + 10 * S + 400, Status::CANCELLED), '.', "a probe that says nothing");
    assert_eq!(pass(S + 15 * S + 500, Status::OK), '.');
    for n in 0..10 {
        assert_eq!(
            pass(S + 15 * S + 600 + n, Status::UNAVAILABLE),
            '.',
            "closed, and it begins to count anew"
        );
    }
}

const ADMISSION: &str = r#"
    element Admission(k: float = 2.0, over: duration = 2m) {
        state node asked = window(over)   state node accepted = window(over)
        request { let refuse = (asked.count - k * accepted.count) / (asked.count + 1)
                  asked.add(1)
                  if random() < refuse { reject(UNAVAILABLE, "admission control") } }
        response { if call.status == OK { accepted.add(1) } }
    }"#;

#[test]
fn windows_count_and_forget() {
    let (compiled, mut mock) = one("Admission", ADMISSION);
    let mut ask = |id: u64, at: u64, status: Status| {
        mock.id = id;
        mock.now_ns = at;
        let (v, _) = run(&compiled, Entry::Request, &mut mock);
        if v == Verdict::Forward {
            mock.status = u64::from(status.code());
            run(&compiled, Entry::Response, &mut mock);
        }
        verdict(v)
    };
    let fine = (0..1000).filter(|n| ask(*n, S + n * MS, Status::OK) == 'U').count();
    let down = (0..10_000).filter(|n| ask(*n + 1000, 2 * S + n * MS, Status::UNAVAILABLE) == 'U').count();
    let later = (0..100).filter(|n| ask(*n + 20_000, 200 * S + n * MS, Status::OK) == 'U').count();
    assert_eq!((fine, later), (0, 0));
    assert!((4500..9500).contains(&down), "more and more are refused: {down}");
}

#[test]
fn a_pinned_endpoint_is_found_until_it_is_gone() {
    let sticky = r#"
        element Sticky(by: call => string?, idle: duration = 10m) {
            state node pinned: map<string, Endpoint>[max 100000, evict, ttl idle]
            request  { let key = by else return  let e = pinned[key] else return  if e.healthy { call.endpoint = e } }
            response { let key = by else return  if call.status == OK { pinned[key] = call.endpoint } }
        }"#;
    let (compiled, mock) = one("Sticky(by: call.metadata[\"u\"])", sticky);
    let pass = |user: &str, at: u64, chosen: u16, with: &dyn Fn(&mut Mock)| {
        let mut mock = mock.clone().header("u", user);
        with(&mut mock);
        mock.now_ns = at;
        run(&compiled, Entry::Request, &mut mock);
        run(&compiled, Entry::Pick, &mut mock);
        let pinned = mock.endpoint;
        mock.endpoint = pinned.or(Some(chosen));
        run(&compiled, Entry::Response, &mut mock);
        pinned
    };
    let same = |_: &mut Mock| {};
    assert_eq!(pass("anna", S, 1, &same), None);
    assert_eq!(pass("anna", 2 * S, 0, &same), Some(1));
    assert_eq!(pass("bert", 2 * S, 0, &same), None);
    assert_eq!(pass("anna", 3 * S, 0, &|m| m.endpoints[1].healthy = false), None, "it is ill: chosen anew");
    assert_eq!(pass("anna", 4 * S, 1, &same), Some(0));
    // Another generation of endpoints: known by address, not by place.
    assert_eq!(pass("anna", 5 * S, 0, &|m| m.endpoints.reverse()), Some(1));
    assert_eq!(
        pass("anna", 6 * S, 1, &|m| {
            m.endpoints.remove(0);
        }),
        None,
        "it is gone"
    );
    assert_eq!(pass("bert", 700 * S, 1, &same), None, "unused for ten minutes");
}

#[test]
fn node_scalars_change_in_one_step_on_all_shards() {
    let rest = r#"element X { state node n: uint = 0  state node odd: bool = false  state node last: Status?
        request {
            if call.method == "show" { reject(ABORTED, "{n} {odd} {last}") }
            let before = n
            if (before % 2 == 1) != odd { count("torn") return }
            n = before + 1
            odd = !odd
            last = if odd { UNAVAILABLE } else { None }
        } }"#;
    let (compiled, _) = linked(&app("X", rest), &mut Store::new(4));
    let dropped: usize = std::thread::scope(|scope| {
        let handles: Vec<_> = (0..4)
            .map(|shard| {
                let compiled = &compiled;
                scope.spawn(move || {
                    let mut mock = Mock::new(1);
                    mock.shard = shard;
                    for _ in 0..20_000 {
                        run(compiled, Entry::Request, &mut mock);
                    }
                    assert!(mock.counts.is_empty(), "both scalars are of one moment");
                    assert!(mock.notes.iter().all(|n| *n == Note::StateConflict));
                    mock.notes.len()
                })
            })
            .collect();
        handles.into_iter().map(|h| h.join().unwrap()).sum()
    });
    let steps = 80_000 - dropped;
    let mut mock = Mock::new(1);
    mock.method = "show".into();
    run(&compiled, Entry::Request, &mut mock);
    let last = if steps % 2 == 1 { "true UNAVAILABLE" } else { "false none" };
    assert_eq!(mock.reject_text, format!("{steps} {last}"), "{dropped} dropped, told, and no other lost");
}

/// What an element tells of its state after some calls.
fn told(element: &str, calls: u64, shards: u16) -> String {
    let rule = "X";
    let source = app(rule, element);
    let (compiled, _) = linked(&source, &mut Store::new(usize::from(shards)));
    let mut mock = Mock::new(2);
    mock.words = vec![0; compiled.program.chains[0].plan().call_words];
    for id in 0..calls {
        mock.id = id;
        mock.shard = u16::try_from(id % u64::from(shards)).unwrap();
        mock.words.fill(0);
        passage(&compiled, &mut mock);
    }
    mock.method = "show".into();
    mock.words.fill(0);
    mock.shard = 0;
    passage(&compiled, &mut mock);
    mock.reject_text
}

#[test]
fn scopes_are_what_they_say() {
    let element = |scope: &str| {
        format!(
            "element X {{ state {scope} n: uint = 5  state {scope} maybe: Status?  request {{
                if call.method == \"show\" {{ reject(ABORTED, \"{{n}} {{maybe}}\") }}
                n += 1  maybe = if n % 2 == 0 {{ NOT_FOUND }} else {{ None }} }} }}"
        )
    };
    assert_eq!(told(&element("call"), 12, 4), "5 none");
    assert_eq!(told(&element("shard"), 12, 4), "8 NOT_FOUND");
    assert_eq!(told(&element("node"), 12, 4), "17 none");
}

#[test]
fn cells_live_in_every_scope() {
    for (scope, expected) in
        [("call", "1 true false 2 3"), ("shard", "4 true false 8 3"), ("node", "13 true false 26 3")]
    {
        let element = format!(
            "element X {{ state {scope} n: counter  state {scope} b = bucket(1/s, 1)  state {scope} w = window(1s)
            request {{ n.add  w.add(1)  w.add(3)
                if call.method == \"show\" {{ b.drain  let took = b.take()  let max = w.max  reject(ABORTED, \"{{n.value}} {{max == w.max()}} {{took}} {{w.count}} {{max}}\") }} }} }}"
        );
        assert_eq!(told(&element, 12, 4), expected, "{scope}");
    }
    let waits = told(
        "element X { state call b = bucket(10/s, burst: 2) request { let a = b.reserve(2) let b2 = b.reserve(1) let c = b.reserve(1) reject(ABORTED, \"{a} {b2} {c}\") } }",
        0,
        1,
    );
    assert_eq!(waits, "0s 100ms 200ms");
}

#[test]
fn maps_of_plain_values_hold_remove_and_add() {
    let element = r#"element X {
        state node m: map<string, uint>[max 100, evict]   state node f: map<Status, float>[max 4, refuse]
        state shard d: map<uint, duration>[max 4KiB, evict]   state node c: map<Service, counter>[max 8, refuse]
        request {
            m["n"] += 2   m["gone"] = 1   m["gone"] = None   m["m-{call.id % 3}"] = call.id
            f[OK] += 0.5   f[INTERNAL] -= 1.5   d[call.id % 2] = 3ms   c[call.destination].add(5)
            if call.method == "show" {
                reject(ABORTED, "{m["n"]} {m["gone"]} {m["m-1"]} {m["zz"] ?? 7} {f[OK]} {f[INTERNAL]} {d[1]} {c[service("canary")].value} {c[call.destination].value}") }
        } }"#;
    let text = told(element, 10, 1);
    assert_eq!(text, "22 none 7 7 5.5 -16.5 3ms 0 55");
}

#[test]
fn a_map_that_refuses_drops_and_says_so() {
    let (compiled, mut mock) = one(
        "X",
        "element X { state node m: map<uint, uint>[max 2, refuse] request { m[call.id] += 1  let v = m[call.id] else { reject(RESOURCE_EXHAUSTED, \"full\") } if v > 9 { return } } }",
    );
    let mut ask = |id: u64| {
        mock.id = id;
        mock.notes.clear();
        (verdict(passage(&compiled, &mut mock)), mock.notes.clone())
    };
    assert_eq!([ask(1), ask(2), ask(1)], [('.', vec![]), ('.', vec![]), ('.', vec![])]);
    assert_eq!(ask(3), ('R', vec![Note::MapFull]));
    assert_eq!(ask(2), ('.', vec![]));
}

#[test]
fn reads_after_the_step_and_after_a_delay() {
    let rest = r#"element X { state node n: uint = 0
        request { n += 1  let mine = n  delay(1ms)  let later = n  reject(ABORTED, "{mine} {later}") } }"#;
    let (compiled, mut first) = one("X", rest);
    let mut second = first.clone();
    let chain = &compiled.program.chains[0];
    let wait = |v| match v {
        Verdict::Suspend(abi::Suspend::Timer { segment, .. }) => segment,
        other => panic!("{other:?}"),
    };
    let segment = wait(chain.run(Entry::Request, 0, &mut first));
    wait(chain.run(Entry::Request, 0, &mut second));
    chain.run(Entry::Request, segment, &mut first);
    assert_eq!(first.reject_text, "1 2", "its own at once, the other's after the delay");
}

#[test]
fn every_way_through_a_step_takes_effect() {
    // `a`: changes on some ways, ends early on others.
    let rest = r#"element X { state node n: uint = 0  state node on: bool = false  state call k: uint = 0
        request {
            if call.method == "show" { reject(ABORTED, "{n} {on}") }
            let mode = call.id % 6
            let extra = 0
            extra += 1
            if mode == 0 { n += 1  return }
            n += 10
            k += 1
            if mode == 1 { n += 100 }
            if mode == 2 { on = !on  reject(UNAVAILABLE, "two {n}") }
            match mode { 3 => { n += 1000 }  4 => { n += 5000  count("four") }  _ => count("other") }
            count("done", extra + k)
        } }"#;
    let (compiled, mut mock) = one("X", rest);
    let mut counts = Vec::new();
    for id in 0..6 {
        mock.id = id;
        mock.counts.clear();
        mock.words.fill(0);
        let v = passage(&compiled, &mut mock);
        assert_eq!(v == Verdict::Forward, id != 2, "{id}");
        counts.push(
            mock.counts
                .iter()
                .map(|(m, n)| (compiled.program.metrics[usize::from(*m)].as_str(), *n))
                .collect::<Vec<_>>(),
        );
    }
    assert_eq!(mock.reject_text, "two 121");
    assert_eq!(
        counts,
        [
            vec![],
            vec![("other", 1), ("done", 2)],
            vec![],
            vec![("done", 2)],
            vec![("four", 1), ("done", 2)],
            vec![("other", 1), ("done", 2)]
        ]
    );
    mock.method = "show".into();
    passage(&compiled, &mut mock);
    assert_eq!(mock.reject_text, "6151 true");
}

#[test]
fn loops_change_state_in_one_step() {
    let rest = r#"element X { state node n: uint = 0 request {
        if call.method == "show" { reject(ABORTED, "{n}") }
        for e in call.destination.endpoints { n += e.weight  if n > 1000 { return } }
        count("x") } }"#;
    assert_eq!(told(rest, 10, 1), "20");
}

#[test]
fn what_would_happen_twice_is_refused() {
    let element = |state: &str, body: &str| {
        app(
            "X",
            &format!(
                "element X {{ state node open: bool = false  state node n: uint = 0 {state} request {{ {body} }} }}"
            ),
        )
    };
    for (state, body, expected) in [
        ("", "if open { log(info, x: 1) open = false }", "`log` stands within an atomic step"),
        ("", "let was = n  count(\"x\")  n = was + 1", "`count` stands within an atomic step"),
        ("", "n += 1  delay(1ms)  n += 1", "`delay` stands within an atomic step"),
        (
            "state node g = bucket(1/s)",
            "if !open && g.take() { open = true }",
            "a change of a cell stands within an atomic step",
        ),
        (
            "state node m: map<uint, uint>[max 5, evict]",
            "let k = n  m[k] = 1  n = k + 1",
            "a change of a map stands within",
        ),
        ("", "if open { call.metadata[\"a\"] = \"b\" } open = true", "a change of metadata stands within"),
        (
            "",
            "let e = next(call.destination.endpoints)  if e != None { n += 1 }  call.endpoint = next(call.destination.endpoints)  n += 1",
            "`next` stands within",
        ),
        ("", "let x = if open { n += 1  5 } else { 6 }  observe(\"x\", x)", "changed within a value"),
    ] {
        let told = errors(&element(state, body));
        assert!(told.contains(expected), "{body}\n{told}");
    }
    for (state, body) in [
        ("", "count(\"before\")  n += 1  count(\"after\")"),
        ("", "if n > 5 { count(\"full\") reject(UNAVAILABLE, \"x\") }  n += 1"),
        (
            "state node w = window(1s)",
            "w.add(1)  if w.count > n { n += 1  w.clear() } else { log(info, n: n) }",
        ),
        ("", "if call.id > 5 { log(info, x: 1)  open = true } else { n += 1  count(\"x\") }"),
        ("", "let r = random()  if r < 0.5 && random() < 0.5 { n += 1 }"),
    ] {
        let (compiled, _) = linked(&element(state, body), &mut Store::new(1));
        assert_eq!(compiled.images.len(), 1);
    }
}

#[test]
fn mistakes_in_state_say_what_to_do() {
    let element =
        |state: &str| app("X", &format!("element X(k: call => uint = 1) {{ {state} request {{ }} }}"));
    for (state, expected) in [
        (
            "state node a: uint = 0 state node b: uint = 0 state node c: bool = false",
            "is 17 bytes, more than 16; a 8 B, b 8 B, c 1 B; it is read and changed in one atomic step: use `counter`",
        ),
        ("state node name: string = \"\"", "`state node` keeps no string"),
        ("state shard e: Endpoint? = None", "a map may: `map<string, Endpoint>[max 1, evict]`"),
        ("state node m: map<string, uint>", "this map has no bound"),
        ("state node m: map<string, uint>[max 10]", "what happens when this map is full?"),
        ("state node m: map<string, uint>[max 10, evcit]", "did you mean `evict`?"),
        ("state node m: map<string, list<string>>[max 10, evict]", "a map keeps no list<string>"),
        ("state call m: map<string, uint>[max 10, evict]", "one call has no map"),
        ("state node m: map<string, uint>[max 0, evict]", "would hold 0 entries"),
        ("state node b: bucket", "write `= bucket(rate, burst)`"),
        ("state node w = window(0s)", "this window has no length"),
        ("state node n: uint = len(call.method)", "there is no call here"),
        ("state node n: uint[max 3] = 1", "only a map has options"),
        ("state node n: uint = 1 state node n: uint = 2", "`n` stands twice"),
        ("state node n: uint = 1 state call m: uint = n", "`n` is no first value of other state"),
        ("state node b = bucket(5)", "write a rate, as in `1000/s`"),
    ] {
        let told = errors(&element(state));
        assert!(told.contains(expected), "{state}\n{told}");
    }
    for (body, expected) in [
        ("gate.tak()", "did you mean `take`?"),
        ("gate = 5", "a bucket is not assigned"),
        ("let g = gate", "no value to keep"),
        ("m[1] = 5", "expected string"),
        ("let x = m[\"a\"] + 1", "may be absent"),
        ("m[\"a\"].take()", "has no"),
    ] {
        let told = errors(&app(
            "X",
            &format!(
                "element X {{ state node gate = bucket(1/s)  state node m: map<string, uint>[max 5, evict] request {{ {body} }} }}"
            ),
        ));
        assert!(told.contains(expected), "{body}\n{told}");
    }
}

#[test]
fn a_reload_keeps_what_is_the_same_and_says_what_is_not() {
    let element = |cap: u32, scalars: &str| {
        format!(
            "element X {{ state node m: map<string, uint>[max {cap}, evict]  {scalars}  state node c: counter
        request {{ m[\"k\"] += 1  n += 1  c.add  reject(ABORTED, \"{{m[\"k\"]}} {{n}} {{c.value}}\") }} }}"
        )
    };
    let one = element(10, "state node n: uint = 0");
    let mut store = Store::new(2);
    let mut says = |rule: &str, rest: &str| {
        let (compiled, report) = linked(&app(rule, rest), &mut store);
        let mut mock = Mock::new(2);
        passage(&compiled, &mut mock);
        (mock.reject_text, report)
    };
    let (text, report) = says("X", &one);
    assert_eq!(text, "1 1 1");
    assert_eq!(
        report.added,
        ["frontend -> catalog: X.n", "frontend -> catalog: X.m", "frontend -> catalog: X.c"]
    );
    let (text, report) = says("Compression - X", &one);
    assert_eq!(
        (text.as_str(), report.kept.len(), report.reset.len()),
        ("2 2 2", 3, 0),
        "whatever stands before it"
    );
    let (text, report) = says("X", &element(20, "state node more: bool = true state node n: uint = 7"));
    assert_eq!(text, "1 3 3", "another capacity begins anew");
    assert_eq!(report.kept, ["frontend -> catalog: X.n", "frontend -> catalog: X.c"]);
    assert_eq!(report.added, ["frontend -> catalog: X.more"]);
    let (key, why) = &report.reset[0];
    assert_eq!(key, "frontend -> catalog: X.m");
    assert_eq!(why, "was node map<string, uint>[max 10, evict], is node map<string, uint>[max 20, evict]");
    let (text, report) = says("X", &element(20, "state node n: int = 0"));
    assert_eq!(text, "2 1 4");
    assert_eq!(report.reset, [("frontend -> catalog: X.n".to_owned(), "was uint, is int".to_owned())]);
    assert_eq!(report.dropped, ["frontend -> catalog: X.more"]);
    let (_, report) = says("Compression", "");
    assert_eq!(report.dropped.len(), 3);
}

#[test]
fn a_rule_is_one_state_and_each_link_its_own() {
    let rest = "element N { state node n: uint = 0 request { n += 1  call.metadata[\"n\"] = \"{call.metadata[\"n\"] ?? \"\"}{n}\" } }";
    let source = format!(
        "service a {{ from: \"uid:1\" }}\nservice b {{ from: \"uid:2\" }}\nservice c {{ endpoints: [\"127.0.0.1:1\"] }}\nservice d {{ endpoints: [\"127.0.0.1:2\"] }}\nevery * -> *: N\na, b -> c: N - N\na -> d: Logging\n{rest}\n"
    );
    let (compiled, report) = linked(&source, &mut Store::new(1));
    assert_eq!(report.added, ["every * -> *: N.n", "a, b -> c: N.n", "a, b -> c: N#2.n"]);
    let call = |source: u16, to: u16| {
        let program = &compiled.program;
        let route =
            program.routes.find(Some(abi::ServiceIdx(source)), abi::ServiceIdx(to), "s", "m").unwrap();
        let mut mock = Mock::new(1);
        program.chains[route.chain as usize].run(Entry::Request, 0, &mut mock);
        mock.request_header("n").unwrap_or_default()
    };
    assert_eq!([call(0, 2), call(1, 2), call(0, 3)], ["111", "222", "3"]);
}
