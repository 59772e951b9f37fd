//! The frequent instructions, each a function of its own: the same functions of [`Run`] that the
//! interpreter's step calls, without the way through it.

use abi::{EndpointIdx, Num, ServiceIdx, Side, SinkIdx, Text};
use lang::vm::Draws;
use lang::vm::code::EpNum;

use super::Frame;

/// A `T?` as two words, in two registers.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pair {
    is_there: u64,
    value: u64,
}

impl From<Option<u64>> for Pair {
    fn from(of: Option<u64>) -> Self {
        Self { is_there: u64::from(of.is_some()), value: of.unwrap_or(0) }
    }
}

/// Numbers for what instructions name; what has none is left to the step.
pub(crate) trait Numbered: Copy + PartialEq + 'static {
    /// By number.
    const ALL: &'static [Self];

    /// Its number.
    fn number(self) -> Option<u64> {
        Self::ALL.iter().position(|it| *it == self).map(|at| at as u64)
    }

    /// The one of this number.
    fn of(number: u64) -> Option<Self> {
        Self::ALL.get(usize::try_from(number).ok()?).copied()
    }
}

impl Numbered for Num {
    const ALL: &'static [Self] =
        &[Self::Id, Self::Attempt, Self::Size, Self::LatencyNs, Self::NowNs, Self::Status];
}

impl Numbered for Text {
    const ALL: &'static [Self] = &[
        Self::Source,
        Self::Service,
        Self::Method,
        Self::Authority,
        Self::PeerIdentity,
        Self::Message,
        Self::Flag,
    ];
}

impl Numbered for Side {
    const ALL: &'static [Self] = &[Self::Request, Self::Response, Self::Trailers];

    #[inline]
    fn of(number: u64) -> Option<Self> {
        match number {
            0 => Some(Self::Request),
            1 => Some(Self::Response),
            2 => Some(Self::Trailers),
            _ => None,
        }
    }
}

impl Numbered for EpNum {
    const ALL: &'static [Self] = &[Self::Healthy, Self::Inflight, Self::Latency, Self::Weight];
}

fn optional(is_there: u64, value: u64) -> Option<u64> {
    (is_there != 0).then_some(value)
}

fn endpoint(word: u64) -> EndpointIdx {
    EndpointIdx(u16::try_from(word).unwrap_or(u16::MAX))
}

/// What machine code made of a number of 16 bits.
#[expect(clippy::cast_possible_truncation, reason = "it was one")]
fn short(word: u64) -> u16 {
    word as u16
}

macro_rules! callbacks {
    ($($name:ident($run:ident $(, $arg:ident)*) $(-> $ret:ty)? $body:block)*) => {$(
        /// One instruction.
        ///
        /// # Safety
        /// Called by machine code alone, with the frame it got.
        pub(crate) unsafe extern "C" fn $name(frame: *mut Frame<'_> $(, $arg: u64)*) $(-> $ret)? {
            // SAFETY: machine code passes on the pointer that `Machine::run` gave it, and that waits meanwhile.
            let $run = unsafe { &mut (*frame).run };
            $body
        }
    )*};
}

callbacks! {
    num(run, field) -> u64 { Num::of(field).map_or(0, |f| run.call.num(f)) }
    now(run) -> u64 { run.call.num(Num::NowNs) }
    text(run, field) -> u64 { Text::of(field).map_or(0, |f| run.copy_text(f)) }
    deadline(run) -> Pair { run.call.deadline_ns().into() }
    destination(run) -> u64 { u64::from(run.call.destination().0) }
    chosen(run) -> Pair { run.call.endpoint().map(|e| u64::from(e.0)).into() }
    endpoint_number(run, field, of) -> u64 { EpNum::of(field).map_or(0, |f| run.endpoint_number(f, of)) }

    meta(run, side, key) -> Pair { Side::of(side).and_then(|s| run.metadata(s, key)).into() }
    meta_is(run, side, key, b) -> u64 { u64::from(Side::of(side).is_some_and(|s| run.meta_is(s, key, b))) }
    meta_in(run, side, key, list) -> u64 {
        u64::from(Side::of(side).is_some_and(|s| run.meta_in(s, key, list)))
    }
    text_is(run, field, b) -> u64 { u64::from(Text::of(field).is_some_and(|f| run.text_is(f, b))) }
    text_in(run, field, list) -> u64 { u64::from(Text::of(field).is_some_and(|f| run.text_in(f, list))) }
    text_among(run, a, list) -> u64 { u64::from(run.is_in(a, list)) }
    texts_equal(run, a, b) -> u64 { u64::from(run.bytes(a) == run.bytes(b)) }

    slot(run, site, slot) -> Pair { run.slot(short(site), short(slot)).into() }
    slot_list(run, site, slot) -> u64 { run.slot_list(short(site), short(slot)) }

    healthy(run, list) -> u64 { run.healthy(list) }
    sample(run, list, n) -> u64 { run.sample(list, n) }
    nth(run, list, at) -> Pair { run.nth(list, usize::try_from(at).unwrap_or(usize::MAX)).into() }
    random(run) -> u64 { run.draw() }

    load_word(run, word) -> u64 {
        let at = usize::try_from(word).unwrap_or(usize::MAX);
        run.call.words().get(at).copied().unwrap_or(0)
    }
    store_word(run, word, value) {
        let at = usize::try_from(word).unwrap_or(usize::MAX);
        if let Some(slot) = run.call.words().get_mut(at) {
            *slot = value;
        }
    }

    passed(run) -> u64 { u64::from(run.call.passed()) }
    set_passed(run, elements) { run.call.set_passed(short(elements)); }
    access_log(run, sink) { run.call.access_log(SinkIdx(short(sink))); }
    set_meta(run, side, key, is_there, value) {
        if let Some(side) = Side::of(side) {
            run.set_metadata(side, key, optional(is_there, value));
        }
    }
    set_endpoint(run, is_there, value) { run.call.set_endpoint(optional(is_there, value).map(endpoint)); }
    set_destination(run, service) {
        run.call.set_destination(ServiceIdx(u16::try_from(service).unwrap_or(u16::MAX)));
    }
    set_deadline(run, at) { run.call.set_deadline_ns(at); }
}

/// The next item of a list; its place grows.
///
/// # Safety
/// Called by machine code alone, with the frame it got and a word of its own stack frame.
pub(crate) unsafe extern "C" fn next(frame: *mut Frame<'_>, list: u64, place: *mut u64) -> Pair {
    // SAFETY: as for every callback.
    let run = unsafe { &mut (*frame).run };
    // SAFETY: by the caller's promise, and nothing else uses that word meanwhile.
    let place = unsafe { &mut *place };
    run.next(list, place).into()
}

/// What an element's draws begin with, as machine code writes it in one go.
pub(crate) fn draws_word(element: u32, first: u32) -> u64 {
    const { assert!(size_of::<Draws>() == 8) };
    let Draws { element, count } = Draws { element, count: first };
    let [e, c] = [element.to_ne_bytes(), count.to_ne_bytes()];
    u64::from_ne_bytes([e[0], e[1], e[2], e[3], c[0], c[1], c[2], c[3]])
}
