//! Interpreter and machine code side by side: the same calls through both, every effect compared.
//!
//! [`agree`] takes an image and calls; a generator of random programs needs nothing else.
#![allow(dead_code, reason = "each test uses a part")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a helper that fails fails its test")]

#[path = "../../../lang/tests/common/mod.rs"]
pub(crate) mod lang_common;
mod recorder;

use std::fmt;
use std::sync::Arc;

use abi::{Chain, Entry, Suspend, Verdict};
use lang::state::Store;
use lang::vm::{Image, Interpreted};
pub(crate) use lang_common::Mock;
pub(crate) use recorder::Recorder;
use towpath_jit::Jit;

/// How often one entry may suspend before a call is taken to wait for ever.
const SUSPENSIONS_MAX: usize = 10_000;

/// Where interpreter and machine code do not agree.
#[derive(Debug)]
pub(crate) struct Difference {
    pub(crate) listing: String,
    pub(crate) call: usize,
    pub(crate) what: &'static str,
    pub(crate) interpreted: String,
    pub(crate) compiled: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { listing, call, what, interpreted, compiled } = self;
        write!(
            f,
            "{what} of call {call} differ:\n  interpreted {interpreted}\n  compiled    {compiled}\n{listing}"
        )
    }
}

/// One entry to its verdict, over all suspensions.
fn to_verdict(chain: &dyn Chain, entry: Entry, call: &mut Recorder) -> Verdict {
    let mut segment = 0;
    for _ in 0..SUSPENSIONS_MAX {
        let verdict = chain.run(entry, segment, call);
        match verdict {
            Verdict::Suspend(Suspend::Timer { segment: to, ns, .. }) => {
                call.says(format_args!("suspended for {ns} to {to}"));
                call.mock.now_ns = call.mock.now_ns.saturating_add(ns);
                segment = to;
            }
            Verdict::Suspend(Suspend::Job { segment: to, .. }) => segment = to,
            verdict => return verdict,
        }
    }
    Verdict::Forward
}

/// A whole passage: request, pick, one message each way, response.
fn passage(chain: &dyn Chain, mock: &Mock) -> Recorder {
    let mut call = Recorder::new(mock.clone());
    let words = chain.plan().call_words;
    call.mock.words = vec![0; words];
    for entry in [Entry::Request, Entry::Pick, Entry::RequestMessage, Entry::ResponseMessage, Entry::Response]
    {
        call.says(format_args!("{entry:?}"));
        let verdict = to_verdict(chain, entry, &mut call);
        call.says(format_args!("{verdict:?}"));
    }
    call
}

/// Runs `calls` one after the other through both, each with state of its own from nothing.
///
/// # Errors
/// The first difference: of what was done, in order, or of what is left in the call.
pub(crate) fn agree(jit: &mut Jit, image: &Arc<Image>, calls: &[Mock]) -> Result<(), Box<Difference>> {
    let images = [image.clone()];
    let bind = || Store::new(2).bind(&images).0.pop().unwrap_or_default();
    let interpreted = Interpreted::new(image.clone(), bind());
    let compiled = jit.try_chain(image, &bind()).unwrap_or_else(|e| panic!("{e}\n{}", image.listing()));
    for (at, mock) in calls.iter().enumerate() {
        let (one, other) = (passage(&interpreted, mock), passage(&*compiled, mock));
        let difference = |what, interpreted, compiled| {
            Err(Box::new(Difference { listing: image.listing(), call: at, what, interpreted, compiled }))
        };
        if let Some(place) = one.first_difference(&other) {
            return difference("effects", one.line(place), other.line(place));
        }
        if one.mock.words != other.mock.words {
            return difference("words", format!("{:?}", one.mock.words), format!("{:?}", other.mock.words));
        }
        let (one, other) = (one.mock.spill, other.mock.spill);
        if one.words != other.words || one.bytes != other.bytes {
            return difference("what is kept", format!("{one:?}"), format!("{other:?}"));
        }
    }
    Ok(())
}

/// Calls of many kinds: headers there and not, several values, bytes that are no text, sampled and not,
/// answers of every status, endpoints of many sorts.
pub(crate) fn calls(count: u64) -> Vec<Mock> {
    (0..count).map(call).collect()
}

fn call(n: u64) -> Mock {
    let pick =
        |salt: u64, of: u64| n.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left((salt % 61) as u32) % of;
    let names = ["x-tenant", "x-user", "x-env", "x-debug", "x-tenant-id", "x-session", "authorization", "x"];
    let values: [&[u8]; 10] = [
        b"acme",
        b"evil",
        b"worse",
        b"",
        b"anna-the-first",
        b"\xff\xfe bad",
        b"42",
        b"true",
        "\u{e9}t\u{e9}".as_bytes(),
        b"a,b",
    ];
    let mut mock = Mock::new(usize::try_from(pick(3, 6)).unwrap());
    mock.id = n;
    mock.destination = 1;
    mock.attempt = 1 + pick(5, 2);
    mock.sampled = pick(7, 3) == 0;
    mock.now_ns = 1_000_000_000 + pick(11, 1_000_000_000);
    mock.latency_ns = pick(13, 50_000_000);
    mock.status = pick(17, 17);
    mock.ip = (pick(19, 2) == 0).then(|| {
        let mut ip = [0; 16];
        ip[10..].copy_from_slice(&[0xff, 0xff, 10, 1, 2, 3]);
        ip
    });
    mock.deadline = (pick(23, 2) == 0).then(|| mock.now_ns + pick(29, 1_000_000_000));
    mock.payload = (pick(31, 2) == 0).then(|| vec![7; usize::try_from(pick(37, 2000)).unwrap()]);
    mock.method = ["List", "Get", "Export"][usize::try_from(pick(41, 3)).unwrap()].into();
    mock.passed = 0;
    for (at, endpoint) in (0_u64..).zip(&mut mock.endpoints) {
        endpoint.healthy = pick(43 + at, 4) != 0;
        endpoint.inflight = u32::try_from(pick(47 + at, 9)).unwrap();
        endpoint.latency_ns = pick(53 + at, 3_000_000);
        endpoint.weight = u32::try_from(pick(59 + at, 3)).unwrap();
    }
    for (at, name) in (0_u64..).zip(names) {
        for more in 0..pick(at * 7 + 1, 4) {
            let value = values[usize::try_from(pick(at * 5 + more * 3 + 2, 10)).unwrap()].to_vec();
            match pick(at + 31, 4) {
                0 => mock.response.push((name.into(), value)),
                1 => mock.trailers.push((name.into(), value)),
                _ => mock.request.push((name.into(), value)),
            }
        }
    }
    mock
}
