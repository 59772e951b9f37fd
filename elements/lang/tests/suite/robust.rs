//! Any text ends in a result, in bounded time, without a panic; what compiles runs without one.

use std::time::{Duration, Instant};

use crate::common::Mock;
use abi::Entry;
use towpath_lang::{NoFiles, Overrides, compile};

const CORPUS: [&str; 8] = [
    include_str!("../golden/seed.adn"),
    include_str!("../golden/header.adn"),
    include_str!("../golden/picks.adn"),
    include_str!("../golden/rules.adn"),
    include_str!("../golden/mistakes.adn"),
    include_str!("../golden/unsupported.adn"),
    include_str!("../../../std/LoadBalancing.adn"),
    include_str!("../../../std/FaultInjection.adn"),
];

const PIECES: [&str; 40] = [
    "{",
    "}",
    "(",
    ")",
    "[",
    "]",
    "\"",
    "->",
    "-",
    "→",
    "=>",
    "==",
    "??",
    "?",
    ":",
    ",",
    ".",
    "é",
    "\u{0}",
    "\n",
    "call",
    "if ",
    "match ",
    "let ",
    "else ",
    "element ",
    "request ",
    "response ",
    "state call ",
    "every ",
    "None",
    "Some(x)",
    "1e999",
    "5ms",
    "10%",
    "99999999999999999999",
    "reject(OK, \"{x}\")",
    "call.endpoint = ",
    "delay(",
    "for x in ",
];

struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % n.max(1) as u64).unwrap_or(0)
    }
}

fn mutated(rng: &mut Rng) -> String {
    let file = CORPUS[rng.below(CORPUS.len()).min(rng.below(CORPUS.len()))];
    let mut chars: Vec<char> = file.chars().collect();
    for _ in 0..1 + rng.below(4) {
        let at = rng.below(chars.len());
        match rng.below(4) {
            0 => {
                let end = (at + 1 + rng.below(12)).min(chars.len());
                chars.drain(at..end);
            }
            1 => {
                let piece: Vec<char> = PIECES[rng.below(PIECES.len())].chars().collect();
                chars.splice(at..at, piece);
            }
            2 => {
                let end = (at + rng.below(60)).min(chars.len());
                let copy: Vec<char> = chars[at..end].to_vec();
                let to = rng.below(chars.len());
                chars.splice(to..to, copy);
            }
            _ => {
                let other = rng.below(chars.len());
                chars.swap(at, other);
            }
        }
        if chars.is_empty() {
            break;
        }
    }
    chars.into_iter().collect()
}

/// Compiles; if it compiles, runs every chain. Bounded by the number of delays a call may meet.
fn survive(text: &str) -> bool {
    let Ok(mut compiled) = compile("any.adn", text, &NoFiles, &Overrides::default()) else { return false };
    compiled.link(&mut towpath_lang::state::Store::new(1), &mut towpath_lang::Interpreter);
    for chain in &compiled.program.chains {
        let mut mock = Mock::new(3).header("x-user", "u").header("x-tenant", "T");
        mock.words = vec![0; chain.plan().call_words];
        mock.sampled = true;
        for entry in
            [Entry::Request, Entry::Pick, Entry::Response, Entry::ResponseHeaders, Entry::RequestMessage]
        {
            let mut segment = 0;
            for _ in 0..2000 {
                match chain.run(entry, segment, &mut mock) {
                    abi::Verdict::Suspend(abi::Suspend::Timer { segment: to, .. }) => segment = to,
                    _ => break,
                }
            }
            // A segment that never was is no way to break anything.
            chain.run(entry, 999, &mut mock);
        }
    }
    true
}

#[test]
fn mutated_programs_never_panic() {
    let mut rng = Rng(0x5eed_1234_5678_9abc);
    let mut compiled = 0;
    for round in 0..6000 {
        let text = mutated(&mut rng);
        let result = std::panic::catch_unwind(|| survive(&text));
        match result {
            Ok(ok) => compiled += u32::from(ok),
            Err(_) => panic!("round {round} panics on:\n{text}"),
        }
    }
    assert!(compiled > 20, "some still compile: {compiled}");
}

#[test]
fn random_bytes_never_panic() {
    let mut rng = Rng(42);
    for _ in 0..2000 {
        let len = rng.below(200);
        let text: String = (0..len)
            .map(|_| match rng.below(3) {
                0 => char::from(u8::try_from(rng.below(128)).unwrap()),
                1 => PIECES[rng.below(PIECES.len())].chars().next().unwrap(),
                _ => char::from_u32(u32::try_from(rng.below(0x3000)).unwrap()).unwrap_or('x'),
            })
            .collect();
        let pieces: String = (0..rng.below(60)).map(|_| PIECES[rng.below(PIECES.len())]).collect();
        survive(&text);
        survive(&pieces);
        survive(&format!(
            "service a\nservice b {{ endpoints: [\"127.0.0.1:1\"] }}\na -> b: X\nelement X {{ request {{ {pieces} }} }}"
        ));
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a test measures that it is bounded")]
fn large_files_are_bounded() {
    let mib = 1 << 20;
    let unit = "a -> b: Logging - FaultInjection(0.1)\n";
    let started = Instant::now();
    for text in [
        unit.repeat(mib / unit.len()),
        "(".repeat(mib),
        "\"{".repeat(mib / 2),
        "element X { request { if a { ".repeat(mib / 29),
        "x ".repeat(mib / 2),
        "service a\n".repeat(mib / 10),
        format!("element X {{ request {{ let x = 1{} }} }}", " + 1".repeat(mib / 4 - 20)),
        format!("a -> b: X\nelement X {{ request {{ {} }} }}", "count(\"x\") ".repeat(mib / 11 - 10)),
        format!("chain x = {}y", "y - ".repeat(mib / 4 - 10)),
    ] {
        assert!(!survive(&text));
    }
    let all = started.elapsed();
    assert!(all < Duration::from_secs(60), "{all:?}");
    let errors =
        compile("big.adn", &"x".repeat(towpath_lang::SOURCE_BYTES_MAX + 1), &NoFiles, &Overrides::default())
            .unwrap_err();
    assert!(errors.to_string().contains("expected at most 4194304"));
}

/// As deep as the grammar allows, in every direction: no pass overflows the 2 MiB of a test's stack.
#[test]
fn the_deepest_texts_compile() {
    let app = |body: &str| {
        format!(
            "service a\nservice b {{ endpoints: [\"127.0.0.1:1\"] }}\na -> b: X\nelement X {{ request {{ {body} }} }}"
        )
    };
    let (n, wide) = (28, 240);
    for body in [
        format!("{} count(\"x\") {}", "if call.attempt > 0 { ".repeat(n), "}".repeat(n)),
        format!("let x = call.attempt{}  observe(\"x\", x)", " + call.id".repeat(wide)),
        format!("let x = {}call.attempt{}  observe(\"x\", x)", "(1 + ".repeat(n - 4), ")".repeat(n - 4)),
        format!("if call.attempt > 0{} {{ count(\"x\") }}", " && call.id == 0".repeat(wide)),
        format!(
            "let x = call.metadata[\"k\"]{} ?? \"z\"  reject(ABORTED, x)",
            " ?? call.metadata[\"k\"]".repeat(wide)
        ),
        format!(
            "let x = {}1{}  observe(\"x\", x)",
            "match call.method { \"a\" => 2 _ => ".repeat(n - 8),
            " }".repeat(n - 8)
        ),
        format!("{} count(\"x\") {}", "for e in call.destination.endpoints { ".repeat(n), "}".repeat(n)),
        format!(
            "if call.attempt == 0 {{ count(\"x\") }} {}",
            "else if call.attempt == 7 { count(\"y\") } ".repeat(n)
        ),
    ] {
        let text = app(&body);
        let compiled = compile("deep.adn", &text, &NoFiles, &Overrides::default());
        assert!(
            compiled.is_ok(),
            "{}\n{}",
            &body[..80],
            compiled.err().map(|e| e.to_string()).unwrap_or_default()
        );
        if !body.starts_with("for") {
            survive(&text);
        }
    }
}

#[test]
fn chains_within_chains_are_bounded() {
    let services = "service a\nservice b { endpoints: [\"127.0.0.1:1\"] }\n";
    let doubling: String = (0..40).map(|n| format!("chain c{n} = c{} - c{}\n", n + 1, n + 1)).collect();
    let long: String = (0..20_000).map(|n| format!("chain c{n} = c{}\n", n + 1)).collect();
    let rules =
        |count: usize| -> String { (0..count).map(|n| format!("a -> b.p.S/M{n}: Logging\n")).collect() };
    for text in [
        format!("{services}{doubling}a -> b: c30"),
        format!("{services}{doubling}a -> b: c38"),
        format!("{services}{doubling}chain c40 = Logging\na -> b: c26"),
        format!("{services}{long}a -> b: c0"),
        format!("{services}{}", rules(33_000)),
    ] {
        assert!(!survive(&text));
    }
    assert!(survive(&format!("{services}{}", rules(10_000))));
}
