//! The standard elements, by what they do to a call.

use crate::common::{Mock, app, compiled, endpoint, one, passage, run};
use abi::{Encoding, Entry, Flag, Leaving, Status, Verdict};

const SEED: &str = "LoadBalancing - Logging - Compression - FaultInjection(0.1)";

fn pick(compiled: &towpath_lang::Compiled, mock: &mut Mock) -> Option<u16> {
    mock.endpoint = None;
    run(compiled, Entry::Pick, mock);
    mock.endpoint
}

#[test]
fn the_seed_chain_does_what_it_says() {
    for line in [
        "S1 -> S2: LoadBalancing - Logging - Compression - FaultInjection(0.1)",
        "S1→S2:LoadBalancing-Logging-Compression-FaultInjection(0.1)",
    ] {
        let source =
            format!("service S1\nservice S2 {{ endpoints: [\"127.0.0.1:1\", \"127.0.0.1:2\"] }}\n{line}\n");
        let compiled = compiled(&source);
        let plan = compiled.program.chains[0].plan();
        assert!(plan.request && plan.pick && !plan.response);
        assert_eq!(plan.elements.len(), 4);
        assert_eq!(plan.elements[3].text, "FaultInjection(0.1)");
        assert_eq!(compiled.program.sinks, ["stdout"]);
        let (mut rejected, mut per_endpoint) = (0, [0; 2]);
        for id in 0..10_000 {
            let mut mock = Mock::new(2);
            mock.id = id;
            mock.sampled = true;
            match passage(&compiled, &mut mock) {
                Verdict::Forward => {
                    assert_eq!(mock.passed, 4);
                    assert_eq!(mock.marks, [1, 2, 3, 0]);
                    per_endpoint[usize::from(mock.endpoint.unwrap())] += 1;
                }
                Verdict::Reject(reject) => {
                    rejected += 1;
                    assert_eq!((reject.status, reject.flag), (Status::UNAVAILABLE, Flag::FaultInjected));
                    assert_eq!((reject.element, mock.passed), (3, 3));
                    assert!(reject.line > 1);
                    assert_eq!(mock.reject_text, "fault injected");
                    assert_eq!(mock.endpoint, None);
                }
                other => panic!("nothing waits or is read here: {other:?}"),
            }
            assert_eq!(mock.sink, Some(0));
            let compress = crate::common::packed(mock.leaving).unwrap();
            assert_eq!((compress.encoding, compress.min_bytes), (Encoding::Gzip, 1024));
        }
        assert!((900..1100).contains(&rejected), "{rejected}");
        assert!(per_endpoint.iter().all(|n| *n > 4000), "{per_endpoint:?}");
    }
}

#[test]
fn p2c_prefers_less_latency_times_load() {
    let (compiled, mut mock) = one("LoadBalancing", "");
    mock.endpoints = (0..10).map(endpoint).collect();
    for (at, stat) in mock.endpoints.iter_mut().enumerate() {
        stat.latency_ns = 1_000_000;
        stat.inflight = if at == 3 { 100 } else { 1 };
    }
    let mut seen = [0; 10];
    for id in 0..20_000 {
        mock.id = id;
        seen[usize::from(pick(&compiled, &mut mock).unwrap())] += 1;
    }
    assert_eq!(seen[3], 0, "the busiest loses against any other");
    assert!(seen.iter().enumerate().all(|(at, n)| at == 3 || (1700..2800).contains(n)), "{seen:?}");
    // One without a latency is tried before those that are slow.
    mock.endpoints.iter_mut().for_each(|e| e.inflight = 1);
    mock.endpoints[5].latency_ns = 0;
    let mut new = 0;
    for id in 0..1000 {
        mock.id = id;
        new += u32::from(pick(&compiled, &mut mock) == Some(5));
    }
    assert!((120..300).contains(&new), "in the sample one time in five, and then taken: {new}");
}

#[test]
fn unhealthy_endpoints_are_passed_over_unless_all_are() {
    for policy in [
        "p2c",
        "round_robin",
        "least_request",
        "random",
        "weighted",
        "ring_hash, by: call.metadata[\"x-user\"]",
    ] {
        let (compiled, mut mock) = one(&format!("LoadBalancing({policy})"), "");
        mock = mock.header("x-user", "anna");
        mock.endpoints = (0..100).map(endpoint).collect();
        mock.endpoints.iter_mut().for_each(|e| e.healthy = false);
        mock.endpoints[77].healthy = true;
        run(&compiled, Entry::Request, &mut mock);
        for id in 0..50 {
            mock.id = id;
            assert_eq!(pick(&compiled, &mut mock), Some(77), "{policy}");
        }
        mock.endpoints[77].healthy = false;
        assert!(pick(&compiled, &mut mock).is_some(), "{policy}");
        mock.endpoints.clear();
        assert_eq!(pick(&compiled, &mut mock), None, "{policy}");
    }
}

#[test]
fn an_endpoint_that_is_set_stays() {
    let (compiled, mut mock) = one("LoadBalancing", "");
    mock.endpoint = Some(1);
    for id in 0..20 {
        mock.id = id;
        run(&compiled, Entry::Pick, &mut mock);
        assert_eq!(mock.endpoint, Some(1));
    }
}

#[test]
fn another_attempt_draws_again() {
    let (compiled, mut mock) = one("LoadBalancing(random)", "");
    mock.endpoints = (0..50).map(endpoint).collect();
    let first = pick(&compiled, &mut mock);
    assert_eq!(pick(&compiled, &mut mock), first, "the same attempt draws the same");
    mock.attempt = 2;
    let other: Vec<_> = (2..6)
        .map(|n| {
            mock.attempt = n;
            pick(&compiled, &mut mock)
        })
        .collect();
    assert!(other.iter().any(|e| *e != first));
}

#[test]
fn round_robin_goes_round_the_healthy() {
    let (compiled, mut mock) = one("LoadBalancing(round_robin)", "");
    mock.endpoints = (0..4).map(endpoint).collect();
    mock.endpoints[2].healthy = false;
    let picks: Vec<_> = (0..6).map(|_| pick(&compiled, &mut mock).unwrap()).collect();
    assert_eq!(picks, [0, 1, 3, 0, 1, 3]);
}

#[test]
fn least_request_counts_calls_and_random_does_not() {
    let (least, mut mock) = one("LoadBalancing(policy: least_request)", "");
    mock.endpoints[0].inflight = 9;
    let (random, _) = one("LoadBalancing(policy: random)", "");
    let mut chosen = [0; 2];
    for id in 0..1000 {
        mock.id = id;
        assert_eq!(pick(&least, &mut mock), Some(1));
        chosen[usize::from(pick(&random, &mut mock).unwrap())] += 1;
    }
    assert!(chosen.iter().all(|n| (400..600).contains(n)), "{chosen:?}");
}

#[test]
fn weighted_follows_the_weights() {
    let (compiled, mut mock) = one("LoadBalancing(policy: weighted)", "");
    mock.endpoints = (0..3).map(endpoint).collect();
    mock.endpoints[1].weight = 3;
    mock.endpoints[2].weight = 0;
    let mut seen = [0; 3];
    for id in 0..20_000 {
        mock.id = id;
        seen[usize::from(pick(&compiled, &mut mock).unwrap())] += 1;
    }
    assert!((4600..5400).contains(&seen[0]) && seen[2] == 0, "{seen:?}");
}

#[expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]
fn ring(endpoints: &[abi::EndpointStat], keys: u64) -> Vec<u64> {
    let (compiled, mut mock) = one("LoadBalancing(policy: ring_hash, by: call.metadata[\"x-user\"])", "");
    mock.endpoints = endpoints.to_vec();
    (0..keys)
        .map(|key| {
            mock.request.clear();
            mock = std::mem::take(&mut mock).header("x-user", &format!("user-{key}"));
            mock.id = key;
            mock.words.iter_mut().for_each(|w| *w = 0);
            run(&compiled, Entry::Request, &mut mock);
            endpoints[usize::from(pick(&compiled, &mut mock).unwrap())].hash
        })
        .collect()
}

#[test]
fn a_ring_moves_only_the_keys_of_what_goes() {
    let all: Vec<_> = (0..10).map(endpoint).collect();
    let keys = 5000;
    let before = ring(&all, keys);
    for e in &all {
        let n = before.iter().filter(|h| **h == e.hash).count();
        assert!((380..620).contains(&n), "an even share: {n}");
    }
    let mut fewer = all.clone();
    let gone = fewer.remove(4).hash;
    let after = ring(&fewer, keys);
    for (old, new) in before.iter().zip(&after) {
        assert!(old == new || *old == gone, "a key of another endpoint moved");
        assert_ne!(*new, gone);
    }
    let mut weighted = all.clone();
    weighted[0].weight = 3;
    let n = ring(&weighted, keys).iter().filter(|h| **h == all[0].hash).count();
    assert!((1050..1450).contains(&n), "three of twelve shares: {n}");
}

#[test]
fn a_ring_without_a_key_chooses_by_p2c() {
    let (compiled, mut mock) = one("LoadBalancing(policy: ring_hash, by: call.metadata[\"x-user\"])", "");
    mock.endpoints = (0..8).map(endpoint).collect();
    let mut seen = [0; 8];
    for id in 0..4000 {
        mock.id = id;
        run(&compiled, Entry::Request, &mut mock);
        seen[usize::from(pick(&compiled, &mut mock).unwrap())] += 1;
    }
    assert!(seen.iter().all(|n| *n > 300), "{seen:?}");
}

#[test]
fn logging_goes_where_it_is_told() {
    let source = app("Logging(to: \"/var/log/x.json\") - Logging", "");
    let compiled = compiled(&source);
    assert_eq!(compiled.program.sinks, ["/var/log/x.json", "stdout"]);
    let mut mock = Mock::new(1);
    passage(&compiled, &mut mock);
    assert_eq!(mock.sink, Some(1));
}

#[test]
fn compression_takes_both_algorithms() {
    for (text, encoding, min) in [
        ("Compression", Encoding::Gzip, 1024),
        ("Compression(deflate, 4KiB)", Encoding::Deflate, 4096),
        ("Compression(min: 0)", Encoding::Gzip, 0),
    ] {
        let (compiled, mut mock) = one(text, "");
        passage(&compiled, &mut mock);
        let made = crate::common::packed(mock.leaving).unwrap();
        assert_eq!((made.encoding, made.min_bytes), (encoding, min));
    }
}

#[test]
fn the_last_word_on_how_messages_leave_counts() {
    let plain = "element Plain { request { decompress() } }";
    for (chain, wanted) in
        [("Plain", Leaving::Plain), ("Compression - Plain", Leaving::Plain), ("Plain dry", Leaving::AsCame)]
    {
        let (compiled, mut mock) = one(chain, plain);
        passage(&compiled, &mut mock);
        assert_eq!(mock.leaving, wanted, "{chain}");
    }
    let (compiled, mut mock) = one("Plain - Compression", plain);
    passage(&compiled, &mut mock);
    assert!(crate::common::packed(mock.leaving).is_some());
}

#[test]
fn a_fault_is_a_status_or_a_delay() {
    let (compiled, mut mock) = one("Logging - FaultInjection(100%, RESOURCE_EXHAUSTED)", "");
    let Verdict::Reject(reject) = passage(&compiled, &mut mock) else { panic!("rejects all") };
    assert_eq!((reject.status, reject.flag), (Status::RESOURCE_EXHAUSTED, Flag::FaultInjected));

    let (compiled, mut mock) = one("Logging - FaultInjection(1, delay: 200ms) - Compression", "");
    let first = compiled.program.chains[0].run(Entry::Request, 0, &mut mock);
    let Verdict::Suspend(abi::Suspend::Timer { ns, segment, element }) = first else { panic!("{first:?}") };
    assert_eq!((ns, element), (200_000_000, 1));
    assert_eq!(
        (mock.passed, mock.flag, crate::common::packed(mock.leaving)),
        (1, Some(Flag::DelayInjected), None)
    );
    assert_eq!(compiled.program.chains[0].run(Entry::Request, segment, &mut mock), Verdict::Forward);
    assert_eq!(mock.passed, 3);
    assert!(crate::common::packed(mock.leaving).is_some());

    let (compiled, mut mock) = one("FaultInjection(0)", "");
    for id in 0..1000 {
        mock.id = id;
        assert_eq!(passage(&compiled, &mut mock), Verdict::Forward);
    }
}

#[test]
fn a_caller_asks_for_faults_as_of_envoy() {
    let passed = |share: &str, headers: &[(&str, &str)]| {
        let (compiled, mut mock) = one(&format!("FaultInjection({share}, headers: true)"), "");
        mock.request = headers
            .iter()
            .map(|(name, value)| (format!("x-envoy-fault-{name}"), value.as_bytes().to_vec()))
            .collect();
        let (verdict, delays) = run(&compiled, Entry::Request, &mut mock);
        match verdict {
            Verdict::Reject(reject) => (Some(reject.status), delays),
            _ => (None, delays),
        }
    };
    let abort = "abort-grpc-request";
    assert_eq!(passed("100%", &[]), (None, vec![]));
    assert_eq!(passed("100%", &[(abort, "8")]), (Some(Status::RESOURCE_EXHAUSTED), vec![]));
    assert_eq!(passed("100%", &[(abort, "99")]), (Some(Status::UNKNOWN), vec![]));
    assert_eq!(passed("100%", &[(abort, "no number")]), (None, vec![]));
    assert_eq!(passed("100%", &[("delay-request", "20")]), (None, vec![20_000_000]));
    assert_eq!(passed("100%", &[("delay-request", "20"), (abort, "14")]).1, vec![20_000_000]);
    // Neither the caller nor the link goes beyond the other.
    assert_eq!(passed("100%", &[(abort, "8"), ("abort-request-percentage", "0")]), (None, vec![]));
    assert_eq!(passed("0%", &[(abort, "8"), ("abort-request-percentage", "100")]), (None, vec![]));
}

#[test]
fn draws_repeat_and_do_not_depend_on_neighbours() {
    let verdicts = |rule: &str| -> Vec<bool> {
        let (compiled, mut mock) = one(rule, "");
        (0..500)
            .map(|id| {
                mock.id = id;
                passage(&compiled, &mut mock) == Verdict::Forward
            })
            .collect()
    };
    let alone = verdicts("FaultInjection(50%)");
    assert_eq!(alone, verdicts("FaultInjection(50%)"));
    assert_eq!(alone, verdicts(SEED.replace("0.1", "0.5").as_str()));
    let twice = verdicts("FaultInjection(50%) - FaultInjection(50%)");
    let through = twice.iter().filter(|v| **v).count();
    assert!((90..160).contains(&through), "two faults are two draws: {through}");
}

#[test]
fn boundaries_are_part_of_the_plan() {
    let plan = |chain: &str| {
        let source = format!(
            "service a\nservice b {{ endpoints: [\"127.0.0.1:1\"] unary: true }}\na -> b: {chain}\n\
             element Reads {{ request {{ log(info, s: call.size) }} response {{ log(info, s: call.size) }} }}\n\
             element OneWay {{ request {{ encrypt(\"x\") }} }}\n"
        );
        let compiled = compiled(&source);
        let plan = compiled.program.chains[0].plan();
        let name = |key: Option<abi::KeyIdx>| {
            key.map_or("-", |k| compiled.program.keys[usize::from(k.0)].as_str()).to_owned()
        };
        let (to, back) = (plan.request_boundary, plan.response_boundary);
        [to.opens, to.seals, back.opens, back.seals].map(name)
    };
    for (chain, wanted) in [
        ("Reads - Compression", ["-", "-", "-", "-"]),
        ("Reads - Encryption(\"k\") - LoadBalancing", ["-", "k", "k", "-"]),
        ("LoadBalancing - Decryption(key: \"k\") - Reads", ["k", "-", "-", "k"]),
        // A node in between opens what it reads, and seals it again.
        ("Decryption(\"k\") - Reads - Encryption(\"l\")", ["k", "l", "l", "k"]),
        ("Reads - OneWay", ["-", "x", "-", "-"]),
    ] {
        assert_eq!(plan(chain), wanted.map(str::to_owned), "{chain}");
    }
}

#[test]
fn keys_that_node_toml_lacks_are_told_by_their_line() {
    let compiled =
        compiled("service a\nservice b { endpoints: [\"127.0.0.1:1\"] }\na -> b: Encryption(\"fabric\")\n");
    let refused = compiled.keys_missing(Some(&|name| name == "other")).render(false);
    assert!(refused.contains("node.toml has no key `fabric`") && refused.contains(":3:20"), "{refused}");
    assert!(compiled.keys_missing(Some(&|name| name == "fabric")).is_empty());
    assert!(compiled.keys_missing(None).render(false).contains("must have the key `fabric`"));
}
