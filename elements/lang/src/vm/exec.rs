//! The loop over the instructions.

use abi::{
    CallView, Compress, EndpointIdx, Entry, Flag, Leaving, LogValue, Note, Num, Reject, ServiceIdx, SinkIdx,
    Spill, Status, Suspend, Text, Unreadable, Verdict,
};

use crate::state::Bound;

use super::arith;
use super::code::{
    ALL_ENDPOINTS, Code, EpNum, Fmt, LogField, LogSite, Op, Segment, Shared, StrBin, slice_word,
};
use super::compare::VALUES_MAX;
use super::place::{constant_place, is_constant};
use super::rewrite::PICKS_MAX;
use super::state::Atomic;
use super::text::{in_cidr, ip_of, unit, xxh64};
use super::texts::{bytes_of, push_text, text_of, write_bytes};

/// Bytes of text one passage may make; beyond it texts are cut.
const TEXT_BYTES_MAX: usize = 64 * 1024;
/// Memory for texts that stays with a call's slot.
const SCRATCH_BYTES_KEPT: usize = 4 * TEXT_BYTES_MAX;
/// Values of one `log`.
const LOG_FIELDS_MAX: usize = 16;

/// Runs `code` from `segment`.
pub(crate) fn run(
    shared: &Shared,
    state: &Bound,
    code: &Code,
    entry: Entry,
    segment: u16,
    call: &mut dyn CallView,
) -> Verdict {
    let run = Run::new(shared, state, entry, call);
    match code.regs {
        0..=16 => run.exec::<16>(code, segment),
        17..=32 => run.exec::<32>(code, segment),
        33..=64 => run.exec::<64>(code, segment),
        _ => run.exec::<256>(code, segment),
    }
}

/// What an instruction leads to.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Flow {
    /// The next one.
    Next,
    /// The one at this place.
    Jump(u32),
    /// The end of the run.
    End(Verdict),
}

/// Which numbers the element at hand draws.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Draws {
    /// What its draws are told apart by.
    pub element: u32,
    /// How many it has made, from [`first_draw`] on.
    pub count: u32,
}

/// The draws of one element in one entry.
const DRAWS_MAX: u32 = 0xffff;

/// Draws of different entries, attempts and messages are different draws: the number of the first, unless
/// it depends on the attempt.
pub fn first_draw(entry: Entry) -> Option<u32> {
    match entry {
        Entry::Request => Some(0),
        Entry::RequestMessage => Some(3 << 30),
        Entry::ResponseMessage => Some(3 << 30 | 1 << 29),
        Entry::Pick => None,
        Entry::ResponseHeaders | Entry::Response => Some(2 << 30),
    }
}

/// One run of one chain for one call: what instructions work on besides their registers.
pub struct Run<'a> {
    pub(super) shared: &'a Shared,
    /// What the chain's elements remember, by place in [`super::Image::states`].
    pub(super) state: &'a Bound,
    /// The call itself, for instructions that do no more than ask or tell it.
    pub call: &'a mut dyn CallView,
    /// The call's own memory, borrowed for the run.
    pub(super) scratch: Spill,
    pub(super) text_at: usize,
    /// Machine code writes it where an element begins.
    pub draws: Draws,
    entry: Entry,
    /// The atomic step at hand.
    pub(super) atomic: Atomic,
    /// Whether this call's elements are timed; machine code reads it.
    pub is_sampled: bool,
    /// What tells draws of one message from another's.
    pub(super) message: u32,
    /// Where texts of this run end. What is copied of a message is bounded by the message, and moves it.
    pub(super) text_max: usize,
    /// A text or a list was longer than a run holds. Whatever was decided was decided on a part, so it does
    /// not count: nothing gets past a rule by being long.
    pub(super) is_cut: bool,
}

fn idx(word: u64) -> EndpointIdx {
    EndpointIdx(u16::try_from(word).unwrap_or(u16::MAX))
}

impl<'a> Run<'a> {
    /// A run, to be begun with [`Self::begin`].
    #[inline]
    pub fn new(shared: &'a Shared, state: &'a Bound, entry: Entry, call: &'a mut dyn CallView) -> Self {
        Self {
            shared,
            state,
            call,
            scratch: Spill::default(),
            text_at: 0,
            draws: Draws::default(),
            entry,
            atomic: Atomic::default(),
            is_sampled: false,
            message: 0,
            text_max: TEXT_BYTES_MAX,
            is_cut: false,
        }
    }

    /// Makes ready for `code`, from its start or, if `segment` is not 0, from where it was suspended.
    #[inline]
    pub fn begin(&mut self, code: &Code, segment: u16) {
        if code.scratch {
            self.borrow(segment);
        }
        self.is_sampled = self.call.is_sampled();
    }

    /// Takes the call's memory: with what the passage keeps, and what a suspension left there.
    fn borrow(&mut self, segment: u16) {
        let kept = if self.shared.keeps { kept_bytes(self.call) } else { 0 };
        self.scratch = std::mem::take(self.call.spill());
        if segment == 0 {
            self.scratch.words.clear();
            self.scratch.bytes.truncate(kept);
        }
        self.text_max = self.scratch.bytes.len() + TEXT_BYTES_MAX;
    }

    /// There is nothing for [`Self::finish`] to do.
    #[inline]
    pub fn leaves_nothing(&self, code: &Code) -> bool {
        !self.is_cut && !code.scratch
    }

    /// Ends the run: its verdict, or that of a run that could not see all. Gives the call its memory back; what
    /// a suspension wrote there stays.
    #[inline]
    pub fn finish(&mut self, code: &Code, verdict: Verdict) -> Verdict {
        let verdict = if self.is_cut { self.cut_verdict(verdict) } else { verdict };
        if code.scratch {
            self.give_back(matches!(verdict, Verdict::Suspend(_)));
        }
        verdict
    }

    fn give_back(&mut self, is_suspended: bool) {
        if !is_suspended {
            let kept = if self.shared.keeps { kept_bytes(self.call) } else { 0 };
            self.scratch.words.clear();
            self.scratch.bytes.truncate(kept);
            if self.scratch.bytes.capacity() > SCRATCH_BYTES_KEPT {
                self.scratch.bytes.shrink_to(TEXT_BYTES_MAX);
            }
        }
        *self.call.spill() = std::mem::take(&mut self.scratch);
    }

    /// What becomes of a run that saw a part only. An outcome that stands already changes as by `reject`; a
    /// choice of endpoints lets nothing through that was not.
    #[cold]
    fn cut_verdict(&mut self, verdict: Verdict) -> Verdict {
        match (self.entry, verdict) {
            (_, Verdict::Reject(_) | Verdict::Unreadable(_)) | (Entry::Pick, _) => verdict,
            (Entry::Response, _) => {
                self.call.note(Note::TextCut);
                self.call
                    .set_status(Status::RESOURCE_EXHAUSTED, Some("the answer's texts are too long to judge"));
                Verdict::Forward
            }
            _ => Verdict::Unreadable(Unreadable::TextTooLong),
        }
    }

    /// The outcome is known: there may be no message, and the handlers run all the same.
    pub(super) fn is_response(&self) -> bool {
        self.entry == Entry::Response
    }

    fn exec<const N: usize>(mut self, code: &Code, segment: u16) -> Verdict {
        let mut regs = [0_u64; N];
        self.begin(code, segment);
        let mut at = self.enter(code, segment, &mut regs);
        let verdict = loop {
            let Some(op) = at.and_then(|at| code.ops.get(at)) else { break Verdict::Forward };
            at = match self.step(code, op, &mut regs) {
                Flow::Next => at.map(|at| at + 1),
                Flow::Jump(to) => usize::try_from(to).ok(),
                Flow::End(verdict) => break verdict,
            };
        };
        self.finish(code, verdict)
    }

    /// Where a run begins: at the start, or where it was suspended, with its registers as they were.
    pub fn enter(&mut self, code: &Code, segment: u16, regs: &mut [u64]) -> Option<usize> {
        let Some(at) = usize::from(segment).checked_sub(1) else { return Some(0) };
        let resume = *code.segments.get(at)?;
        self.unspill(regs, resume);
        Some(resume.pc as usize)
    }

    /// One instruction: what it means. Machine code comes here for all that it does not do by itself, so
    /// that both are the same.
    #[expect(clippy::too_many_lines, reason = "one arm per instruction")]
    pub fn step(&mut self, code: &Code, op: &Op, regs: &mut [u64]) -> Flow {
        // A register that is not there reads as 0; the builder makes none.
        macro_rules! r {
            ($r:expr) => {
                regs.get(usize::from($r)).copied().unwrap_or(0)
            };
        }
        macro_rules! set {
            ($d:expr, $value:expr) => {{
                let value: u64 = $value;
                if let Some(slot) = regs.get_mut(usize::from($d)) {
                    *slot = value;
                }
            }};
        }
        macro_rules! pair {
            ($d:expr, $value:expr) => {{
                let value: Option<u64> = $value;
                set!($d, u64::from(value.is_some()));
                set!($d.wrapping_add(1), value.unwrap_or(0));
            }};
        }
        match *op {
            Op::Const { d, k } => set!(d, self.shared.consts.get(usize::from(k)).copied().unwrap_or(0)),
            Op::Small { d, n } => set!(d, u64::from(n)),
            Op::Move { d, a } => set!(d, r!(a)),
            Op::Bin { op, d, a, b } => set!(d, arith::bin(op, r!(a), r!(b))),
            Op::BinSmall { op, d, a, n } => set!(d, arith::bin(op, r!(a), u64::from(n))),
            Op::Un { op, d, a } => set!(d, arith::un(op, r!(a))),
            Op::Jump { to } => return Flow::Jump(to),
            Op::JumpIf { a, to } if r!(a) != 0 => return Flow::Jump(to),
            Op::JumpUnless { a, to } if r!(a) == 0 => return Flow::Jump(to),
            Op::JumpIf { .. } | Op::JumpUnless { .. } => {}
            Op::Num { d, field } => set!(d, self.call.num(field)),
            Op::Text { d, field } => set!(d, self.copy_text(field)),
            Op::Source { d } => pair!(d, self.source()),
            Op::PeerIp { d } => pair!(d, self.peer_ip()),
            Op::Deadline { d } => pair!(d, self.call.deadline_ns()),
            Op::Destination { d } => set!(d, u64::from(self.call.destination().0)),
            Op::Endpoint { d } => pair!(d, self.call.endpoint().map(|e| u64::from(e.0))),
            Op::Meta { side, d, key } => pair!(d, self.metadata(side, r!(key))),
            Op::MetaAll { side, d, key, max, is_bin: false } => {
                set!(d, self.metadata_all(side, r!(key), max))
            }
            Op::MetaAll { side, d, key, max, .. } => set!(d, self.metadata_bytes_all(side, r!(key), max)),
            Op::MetaIs { side, d, key, b } => set!(d, u64::from(self.meta_is(side, r!(key), r!(b)))),
            Op::MetaIn { side, d, key, list } => set!(d, u64::from(self.meta_in(side, r!(key), r!(list)))),
            Op::TextIs { field, d, b } => set!(d, u64::from(self.text_is(field, r!(b)))),
            Op::TextIn { field, d, list } => set!(d, u64::from(self.text_in(field, r!(list)))),
            Op::EpNum { field, d, a } => set!(d, self.endpoint_number(field, r!(a))),
            Op::EpZone { d, a } => {
                let zone = self.endpoint_text(r!(a)).map_or("", |e| e.zone.as_str());
                set!(d, push_text(&mut self.scratch.bytes, zone.as_bytes(), self.text_max, &mut self.is_cut));
            }
            Op::EpReport { d, a, key } => {
                let load = self.call.endpoint_report(idx(r!(a)), self.text(r!(key)));
                pair!(d, load.map(f64::to_bits));
            }
            Op::Quantile { d, a, b } => set!(d, self.quantile(r!(a), r!(b))),
            Op::Split { d, a, b } => set!(d, self.split(r!(a), r!(b))),
            Op::Matches { d, a, pattern } => {
                let pattern = self.shared.patterns.get(usize::from(pattern));
                set!(d, u64::from(pattern.is_some_and(|p| p.is_in(self.text(r!(a))))));
            }
            Op::EpLabel { d, a, key } => pair!(d, self.label(r!(a), r!(key))),

            Op::Endpoints { d } => set!(d, ALL_ENDPOINTS),
            Op::Healthy { d, a } => set!(d, self.healthy(r!(a))),
            Op::Sample { d, a, b } => set!(d, self.sample(r!(a), r!(b))),
            Op::Turn { d, a } => pair!(d, self.turn(r!(a))),
            Op::Ring { d, a, key } => pair!(d, self.ring(r!(a), r!(key))),
            Op::Maglev { d, a, key } => pair!(d, self.maglev(r!(a), r!(key))),
            Op::ByWeight { d, a, key } => {
                let key = (r!(key) != 0).then_some(r!(key.wrapping_add(1)));
                pair!(d, self.by_weight(r!(a), key));
            }
            Op::ByTable { d, key, table } => {
                let key = (r!(key) != 0).then_some(r!(key.wrapping_add(1)));
                set!(d, self.by_table(table, key));
            }
            Op::List { d } => set!(d, slice_word(self.scratch.words.len(), 0, false)),
            Op::PutPair { map, key, a, of_texts } => {
                set!(map, self.put_pair(r!(map), [r!(key), r!(a)], of_texts));
            }
            Op::FindPair { d, map, key, of_texts } => pair!(d, self.find_pair(r!(map), r!(key), of_texts)),
            Op::Keys { d, a } => set!(d, self.keys(r!(a))),
            Op::Push { list, a } => set!(list, self.push(r!(list), r!(a))),
            Op::Len { d, a } => set!(d, self.len(r!(a)) as u64),
            Op::StrLen { d, a } => set!(d, r!(a) & 0xffff_ffff),
            Op::Nth { d, a, b } => {
                let at = usize::try_from(r!(b)).unwrap_or(usize::MAX);
                pair!(d, self.nth(r!(a), at));
            }
            Op::Next { d, list, i, to } => {
                let mut place = r!(i);
                let item = self.next(r!(list), &mut place);
                set!(i, place);
                match item {
                    Some(item) => set!(d, item),
                    None => return Flow::Jump(to),
                }
            }

            Op::Random { d } => set!(d, unit(self.draw()).to_bits()),
            Op::Hash { d, a } => set!(d, xxh64(self.bytes(r!(a)))),
            Op::Share { d, a } => set!(d, unit(r!(a)).to_bits()),
            Op::StrBin { op: StrBin::Eq, d, a, b } => {
                set!(d, u64::from(self.bytes(r!(a)) == self.bytes(r!(b))));
            }
            Op::StrBin { op, d, a, b } => {
                let (a, b) = (self.text(r!(a)), self.text(r!(b)));
                let holds = match op {
                    StrBin::Eq => a == b,
                    StrBin::Lt => a < b,
                    StrBin::Le => a <= b,
                    StrBin::Contains => a.contains(b),
                    StrBin::StartsWith => a.starts_with(b),
                    StrBin::EndsWith => a.ends_with(b),
                    StrBin::InCidr => in_cidr(a, b),
                };
                set!(d, u64::from(holds));
            }
            Op::StrIn { d, a, list } => set!(d, u64::from(self.is_in(r!(a), r!(list)))),
            Op::StrFn { op, d, a, b } => set!(d, self.str_fn(op, r!(a), r!(b))),
            Op::ParseInt { d, a } => {
                pair!(d, self.text(r!(a)).trim().parse::<i64>().ok().map(i64::cast_unsigned));
            }
            Op::TextStart => self.text_at = self.scratch.bytes.len(),
            Op::TextPart { fmt, a } => self.text_part(fmt, r!(a)),
            Op::TextEnd { d } => set!(d, self.text_end()),

            Op::LoadScalars { .. }
            | Op::StepStart
            | Op::SwapScalars { .. }
            | Op::Byte { .. }
            | Op::SetByte { .. }
            | Op::LoadState { .. }
            | Op::StoreState { .. }
            | Op::Cell { .. }
            | Op::MapCell { .. }
            | Op::MapGet { .. }
            | Op::MapSet { .. }
            | Op::MapChange { .. } => return self.state_step(op, regs),

            Op::LoadWord { d, word } => {
                set!(d, self.call.words().get(usize::from(word)).copied().unwrap_or(0));
            }
            Op::StoreWord { a, word } => {
                let value = r!(a);
                if let Some(slot) = self.call.words().get_mut(usize::from(word)) {
                    *slot = value;
                }
            }
            Op::Keep => {
                let kept = self.scratch.bytes.len() as u64;
                if let Some(slot) = self.call.words().first_mut() {
                    *slot = kept;
                }
            }

            Op::PackList { d, a } => set!(d, self.pack(r!(a))),
            Op::UnpackList { d, a } => set!(d, self.unpack(r!(a))),
            Op::Distinct { d, a, of_texts } => set!(d, self.distinct(r!(a), of_texts)),
            Op::KeepList { word, a } => self.keep_list(word, r!(a)),
            Op::LoadText { d, word } => set!(d, self.load_text(word)),
            Op::StoreText { a, word } => self.store_text(word, r!(a)),

            Op::Decode { site } => {
                if let Some(verdict) = self.decode(site) {
                    return Flow::End(verdict);
                }
            }
            Op::Slot { d, site, slot } => pair!(d, self.slot(site, slot)),
            Op::SlotList { d, site, slot } => set!(d, self.slot_list(site, slot)),
            Op::Inside { d, a, site } => pair!(d, self.inside(site, r!(a))),
            Op::InsideList { d, a, site } => set!(d, self.inside(site, r!(a)).unwrap_or(0)),
            Op::CountMessage { word } => self.count_message(word),
            Op::Payload { d } => match self.payload() {
                Ok(word) => set!(d, word),
                Err(verdict) => return Flow::End(verdict),
            },
            Op::MessageStart => self.text_at = self.scratch.bytes.len(),
            Op::MessageField { a, site } => self.message_field(site, [r!(a), r!(a.wrapping_add(1))]),
            Op::MessageEntry { key, a, site } => self.message_entry(site, r!(key), r!(a)),
            Op::MessageEnd { d } => set!(d, self.message_end()),
            Op::FindEntry { d, list, key, kind } => pair!(d, self.find_entry(r!(list), r!(key), kind)),
            Op::SetField { site, a, picks, count } => {
                let value = (r!(a) != 0).then_some(r!(a.wrapping_add(1)));
                let mut picked = [0; PICKS_MAX];
                let picked = picked.get_mut(..usize::from(count)).unwrap_or(&mut []);
                picked.iter_mut().zip(picks..).for_each(|(pick, reg)| *pick = r!(reg));
                if let Some(verdict) = self.set_field(site, value, picked) {
                    return Flow::End(verdict);
                }
            }
            Op::SetPayload { a, site } => {
                if let Some(verdict) = self.set_payload(r!(a), site) {
                    return Flow::End(verdict);
                }
            }
            Op::MetaBin { side, d, key } => pair!(d, self.metadata_bytes(side, r!(key))),
            Op::KeepSlot { site, slot, word, is_text } => self.keep(site, slot, word, is_text),

            Op::Begin { element } => {
                self.draws = Draws { element, count: self.first_draw() };
            }
            Op::Passed { elements } => self.call.set_passed(elements),
            Op::UnlessPassed { element, to } => {
                if self.call.passed() <= element {
                    return Flow::Jump(to);
                }
            }
            Op::Mark { element } => {
                if self.is_sampled {
                    self.call.mark(element);
                }
            }
            Op::Reject { status, text, site } => {
                return Flow::End(self.reject(r!(status), r!(text), site));
            }
            Op::Would { site } => {
                if let Some(site) = self.shared.rejects.get(usize::from(site)) {
                    let text = LogValue::Text(&site.text);
                    self.call.log(abi::Level::Info, site.element, &[("would", text)]);
                }
            }
            Op::Delay { a, segment } => {
                let ns = r!(a).cast_signed();
                if let (Some(to), true) = (code.segments.get(usize::from(segment).wrapping_sub(1)), ns > 0) {
                    self.spill(regs, *to);
                    let element = to.element;
                    let wait = Suspend::Timer { ns: ns.unsigned_abs(), segment, element };
                    return Flow::End(Verdict::Suspend(wait));
                }
            }
            Op::AccessLog { sink } => self.call.access_log(SinkIdx(sink)),
            Op::Compress { encoding, min } => {
                let min_bytes = u32::try_from(r!(min)).unwrap_or(u32::MAX);
                self.call.set_leaving(Leaving::Packed(Compress { encoding, min_bytes }));
            }
            Op::Decompress => self.call.set_leaving(Leaving::Plain),
            Op::Log { site } => {
                self.labelled(site, regs, |call, site, values| call.log(site.level, site.element, values));
            }
            Op::Count { metric, a } => self.call.count(metric, r!(a), &[]),
            Op::CountLabels { metric, a, site } => {
                let by = r!(a);
                self.labelled(site, regs, |call, _, labels| call.count(metric, by, labels));
            }
            Op::Observe { metric, a } => self.call.observe(metric, f64::from_bits(r!(a))),
            Op::SetMeta { side, key, a } => {
                let value = (r!(a) != 0).then_some(r!(a.wrapping_add(1)));
                self.set_metadata(side, r!(key), value);
            }
            Op::SetEndpoint { a } => {
                let to = (r!(a) != 0).then(|| idx(r!(a.wrapping_add(1))));
                self.call.set_endpoint(to);
            }
            Op::SetDestination { a } => {
                self.call.set_destination(ServiceIdx(u16::try_from(r!(a)).unwrap_or(u16::MAX)));
            }
            Op::SetDeadline { a } => self.call.set_deadline_ns(r!(a)),
            Op::SetStatus { status, text } => {
                let text = (r!(text) != 0).then_some(r!(text.wrapping_add(1)));
                let text = text.map(|t| text_of(self.shared, &self.scratch, t));
                self.call.set_status(status_of(r!(status)), text);
            }
            Op::SetFlag { site } => {
                if let Some(flag) = self.shared.flags.get(usize::from(site)) {
                    self.call.set_flag(*flag);
                }
            }
            Op::End => return Flow::End(Verdict::Forward),
        }
        Flow::Next
    }

    /// The text of a word.
    #[inline]
    pub(super) fn text(&self, word: u64) -> &str {
        text_of(self.shared, &self.scratch, word)
    }

    /// The bytes of a text, or of what is none.
    #[inline]
    pub fn bytes(&self, word: u64) -> &[u8] {
        bytes_of(self.shared, &self.scratch, word)
    }

    /// The next draw of this element.
    #[inline]
    pub fn draw(&mut self) -> u64 {
        let Draws { element, count } = self.draws;
        self.draws.count = count & !DRAWS_MAX | count.wrapping_add(1) & DRAWS_MAX;
        self.call.draw(element.wrapping_add(self.message), count)
    }

    fn first_draw(&self) -> u32 {
        first_draw(self.entry).unwrap_or_else(|| {
            let attempt = u32::try_from(self.call.num(Num::Attempt)).unwrap_or(0);
            1 << 30 | (attempt & 0x3ff) << 16
        })
    }

    fn spill(&mut self, regs: &[u64], to: Segment) {
        let live = regs.get(..usize::from(to.live)).unwrap_or(regs);
        self.scratch.words.extend_from_slice(live);
        self.scratch.words.push(
            u64::from(self.draws.count) << 32 | u64::from(self.draws.element.wrapping_add(self.message)),
        );
    }

    fn unspill(&mut self, regs: &mut [u64], from: Segment) {
        let draws = self.scratch.words.pop().unwrap_or(0);
        self.draws = Draws {
            element: u32::try_from(draws & 0xffff_ffff).unwrap_or(0),
            count: u32::try_from(draws >> 32).unwrap_or(0),
        };
        let at = self.scratch.words.len().saturating_sub(usize::from(from.live));
        for (to, word) in regs.iter_mut().zip(self.scratch.words.drain(at..)) {
            *to = word;
        }
    }

    fn reject(&mut self, status: u64, text: u64, site: u16) -> Verdict {
        let status = status_of(status);
        self.call.set_reject_text(text_of(self.shared, &self.scratch, text));
        let site = self.shared.rejects.get(usize::from(site));
        let flag = site.and_then(|s| s.flag).unwrap_or_else(|| flag_of(status));
        let (element, line) = site.map_or((0, 0), |s| (s.element, s.line));
        Verdict::Reject(Reject { status, flag, element, line })
    }

    /// A text field, as a text of the call's own memory.
    pub fn copy_text(&mut self, field: Text) -> u64 {
        push_text(&mut self.scratch.bytes, self.call.text(field).as_bytes(), self.text_max, &mut self.is_cut)
    }

    fn source(&mut self) -> Option<u64> {
        let name = self.call.text(Text::Source);
        let at = self.shared.services.iter().position(|s| s.name == name)?;
        Some(at as u64)
    }

    fn peer_ip(&mut self) -> Option<u64> {
        let ip = ip_of(self.call.peer_ip()?);
        let at = self.scratch.bytes.len();
        write_bytes(&mut self.scratch.bytes, format_args!("{ip}"));
        Some(slice_word(at, self.scratch.bytes.len() - at, false))
    }

    /// All values of a header, joined by commas.
    pub fn metadata(&mut self, side: abi::Side, key: u64) -> Option<u64> {
        let at = self.scratch.bytes.len();
        let mut nth = 0;
        loop {
            let key = text_of(self.shared, &self.scratch, key);
            let Some(value) = self.call.metadata(side, key, nth) else { break };
            if nth == VALUES_MAX {
                self.is_cut = true;
                break;
            }
            if nth > 0 {
                self.scratch.bytes.push(b',');
            }
            push_text(&mut self.scratch.bytes, value, self.text_max, &mut self.is_cut);
            nth += 1;
        }
        (nth > 0).then(|| slice_word(at, self.scratch.bytes.len() - at, false))
    }

    fn metadata_all(&mut self, side: abi::Side, key: u64, max: u16) -> u64 {
        let mut list = slice_word(self.scratch.words.len(), 0, false);
        for nth in 0.. {
            let key = text_of(self.shared, &self.scratch, key);
            let Some(value) = self.call.metadata(side, key, nth) else { break };
            if nth == usize::from(max) {
                self.is_cut = true;
                break;
            }
            let word = push_text(&mut self.scratch.bytes, value, self.text_max, &mut self.is_cut);
            list = self.push(list, word);
        }
        list
    }

    /// Replaces a header by a text, or removes it.
    #[inline]
    pub fn set_metadata(&mut self, side: abi::Side, key: u64, value: Option<u64>) {
        if !is_constant(key & value.unwrap_or(key)) {
            return self.set_made_metadata(side, key, value);
        }
        let key = self.shared.text(constant_place(key));
        let value = value.map(|v| self.shared.text(constant_place(v)).as_bytes());
        // A refused write is counted by the shard.
        self.call.set_metadata(side, key, value);
    }

    /// The same of texts that are not both constant.
    #[inline(never)]
    fn set_made_metadata(&mut self, side: abi::Side, key: u64, value: Option<u64>) {
        let key = text_of(self.shared, &self.scratch, key);
        let value = value.map(|v| bytes_of(self.shared, &self.scratch, v));
        self.call.set_metadata(side, key, value);
    }

    /// A number of an endpoint; 0 of one that is not there.
    pub fn endpoint_number(&self, field: EpNum, endpoint: u64) -> u64 {
        let stat = self.call.endpoint_stat(idx(endpoint));
        stat.map_or(0, |s| match field {
            EpNum::Healthy => u64::from(s.healthy),
            EpNum::Inflight => u64::from(s.inflight),
            EpNum::Latency => s.latency_ns.min(i64::MAX.cast_unsigned()),
            EpNum::Weight => u64::from(s.weight),
        })
    }

    pub(super) fn endpoint_text(&self, endpoint: u64) -> Option<&'a super::code::EndpointText> {
        let service = self.shared.services.get(usize::from(self.call.destination().0))?;
        service.endpoints.get(usize::try_from(endpoint).ok()?)
    }

    fn label(&mut self, endpoint: u64, key: u64) -> Option<u64> {
        let labels = &self.endpoint_text(endpoint)?.labels;
        let (_, value) = labels.iter().find(|(name, _)| name == self.text(key))?;
        Some(push_text(&mut self.scratch.bytes, value.as_bytes(), self.text_max, &mut self.is_cut))
    }

    /// Hands the named values of a site on.
    fn labelled(
        &mut self,
        site: u16,
        regs: &[u64],
        to: impl FnOnce(&mut dyn CallView, &LogSite, &[(&str, LogValue<'_>)]),
    ) {
        let Some(site) = self.shared.logs.get(usize::from(site)) else { return };
        let mut values = [("", LogValue::None); LOG_FIELDS_MAX];
        for (slot, field) in values.iter_mut().zip(&site.fields) {
            *slot = (field.name.as_str(), log_value(self.shared, &self.scratch, regs, field));
        }
        let values = values.get(..site.fields.len().min(LOG_FIELDS_MAX)).unwrap_or(&[]);
        to(self.call, site, values);
    }
}

fn kept_bytes(call: &mut dyn CallView) -> usize {
    call.words().first().and_then(|w| usize::try_from(*w).ok()).unwrap_or(0)
}

fn log_value<'t>(shared: &'t Shared, scratch: &'t Spill, regs: &[u64], field: &LogField) -> LogValue<'t> {
    let reg = |at: usize| regs.get(at).copied().unwrap_or(0);
    let at = usize::from(field.reg);
    let word = if field.optional {
        if reg(at) == 0 {
            return LogValue::None;
        }
        reg(at + 1)
    } else {
        reg(at)
    };
    match field.fmt {
        Fmt::Bool => LogValue::Bool(word != 0),
        Fmt::Int => LogValue::Int(word.cast_signed()),
        Fmt::Float => LogValue::Float(f64::from_bits(word)),
        Fmt::Str => LogValue::Text(text_of(shared, scratch, word)),
        _ => LogValue::Uint(word),
    }
}

fn status_of(word: u64) -> Status {
    Status::from_code(u8::try_from(word).unwrap_or(u8::MAX))
}

/// The flag of a reject of which nothing else is known.
fn flag_of(status: Status) -> Flag {
    match status {
        Status::RESOURCE_EXHAUSTED => Flag::RateLimited,
        Status::PERMISSION_DENIED | Status::UNAUTHENTICATED => Flag::Denied,
        Status::UNAVAILABLE => Flag::Overflow,
        _ => Flag::None,
    }
}
