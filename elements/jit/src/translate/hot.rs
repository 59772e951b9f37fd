//! The frequent instructions: calls of [`crate::callback::hot`], or no call at all.

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, MemFlags, Value, types};
use lang::vm::code::{ALL_ENDPOINTS, Reg, StrBin};
use lang::vm::{Op, first_draw};

use super::Body;
use crate::callback::FRAME_DRAWS;
use crate::callback::hot::{self, Numbered};

/// Bits of a draw that a float has room for, and what makes it 0 to 1.
const UNIT_SHIFT: i64 = 11;
const UNIT: f64 = (1_u64 << 53) as f64;

impl Body<'_> {
    /// Makes an instruction, if it is one of these.
    pub(super) fn hot(&mut self, at: usize, op: &Op) -> Option<()> {
        self.reading(op)
            .or_else(|| self.comparing(op))
            .or_else(|| self.writing(op))
            .or_else(|| self.choosing(at, op))
    }

    /// A number as a word for a callback.
    fn number(&mut self, of: impl Numbered) -> Option<Value> {
        let number = of.number()?;
        Some(self.word(number))
    }

    fn get(&mut self, d: Reg, callback: *const (), words: &[Value]) {
        let [value, _] = self.call(callback, words, 1);
        self.set(d, value);
    }

    fn get_pair(&mut self, d: Reg, callback: *const (), words: &[Value]) {
        let [is_there, value] = self.call(callback, words, 2);
        self.set(d, is_there);
        self.set(d.wrapping_add(1), value);
    }

    fn tell(&mut self, callback: *const (), words: &[Value]) {
        self.call(callback, words, 0);
    }

    /// A word as a float from 0 to 1.
    fn unit(&mut self, word: Value) -> Value {
        let high = self.b.ins().ushr_imm(word, UNIT_SHIFT);
        // It has 53 bits: signed or not is the same.
        let float = self.b.ins().fcvt_from_sint(types::F64, high);
        let per = self.b.ins().f64const(1.0 / UNIT);
        let unit = self.b.ins().fmul(float, per);
        self.b.ins().bitcast(types::I64, MemFlags::new(), unit)
    }

    fn reading(&mut self, op: &Op) -> Option<()> {
        match *op {
            Op::Num { d, field: abi::Num::NowNs } => self.get(d, hot::now as *const (), &[]),
            Op::Num { d, field } => {
                let field = self.number(field)?;
                self.get(d, hot::num as *const (), &[field]);
            }
            Op::Text { d, field } => {
                let field = self.number(field)?;
                self.get(d, hot::text as *const (), &[field]);
            }
            Op::Deadline { d } => self.get_pair(d, hot::deadline as *const (), &[]),
            Op::Destination { d } => self.get(d, hot::destination as *const (), &[]),
            Op::Endpoint { d } => self.get_pair(d, hot::chosen as *const (), &[]),
            Op::EpNum { field, d, a } => {
                let (field, a) = (self.number(field)?, self.r(a));
                self.get(d, hot::endpoint_number as *const (), &[field, a]);
            }
            Op::Meta { side, d, key } => {
                let (side, key) = (self.number(side)?, self.r(key));
                self.get_pair(d, hot::meta as *const (), &[side, key]);
            }
            Op::Slot { d, site, slot } => {
                let (site, slot) = (self.word(u64::from(site)), self.word(u64::from(slot)));
                self.get_pair(d, hot::slot as *const (), &[site, slot]);
            }
            Op::SlotList { d, site, slot } => {
                let (site, slot) = (self.word(u64::from(site)), self.word(u64::from(slot)));
                self.get(d, hot::slot_list as *const (), &[site, slot]);
            }
            Op::LoadWord { d, word } => {
                let word = self.word(u64::from(word));
                self.get(d, hot::load_word as *const (), &[word]);
            }
            Op::StoreWord { a, word } => {
                let (word, a) = (self.word(u64::from(word)), self.r(a));
                self.tell(hot::store_word as *const (), &[word, a]);
            }
            Op::Begin { element } => {
                let draws = self.word(hot::draws_word(element, first_draw(self.entry)?));
                self.b.ins().store(MemFlags::new().with_notrap(), draws, self.frame, FRAME_DRAWS);
            }
            Op::Random { d } => {
                let [draw, _] = self.call(hot::random as *const (), &[], 1);
                let unit = self.unit(draw);
                self.set(d, unit);
            }
            Op::Share { d, a } => {
                let a = self.r(a);
                let unit = self.unit(a);
                self.set(d, unit);
            }
            _ => return None,
        }
        Some(())
    }

    fn comparing(&mut self, op: &Op) -> Option<()> {
        match *op {
            Op::MetaIs { side, d, key, b } => {
                let (side, key, b) = (self.number(side)?, self.r(key), self.r(b));
                self.get(d, hot::meta_is as *const (), &[side, key, b]);
            }
            Op::MetaIn { side, d, key, list } => {
                let (side, key, list) = (self.number(side)?, self.r(key), self.r(list));
                self.get(d, hot::meta_in as *const (), &[side, key, list]);
            }
            Op::TextIs { field, d, b } => {
                let (field, b) = (self.number(field)?, self.r(b));
                self.get(d, hot::text_is as *const (), &[field, b]);
            }
            Op::TextIn { field, d, list } => {
                let (field, list) = (self.number(field)?, self.r(list));
                self.get(d, hot::text_in as *const (), &[field, list]);
            }
            Op::StrIn { d, a, list } => {
                let (a, list) = (self.r(a), self.r(list));
                self.get(d, hot::text_among as *const (), &[a, list]);
            }
            Op::StrBin { op: StrBin::Eq, d, a, b } => {
                let (a, b) = (self.r(a), self.r(b));
                self.get(d, hot::texts_equal as *const (), &[a, b]);
            }
            _ => return None,
        }
        Some(())
    }

    fn writing(&mut self, op: &Op) -> Option<()> {
        match *op {
            Op::Passed { elements } => {
                let elements = self.word(u64::from(elements));
                self.tell(hot::set_passed as *const (), &[elements]);
            }
            Op::AccessLog { sink } => {
                let sink = self.word(u64::from(sink));
                self.tell(hot::access_log as *const (), &[sink]);
            }
            Op::SetMeta { side, key, a } => {
                let (side, key) = (self.number(side)?, self.r(key));
                let (is_there, value) = (self.r(a), self.r(a.wrapping_add(1)));
                self.tell(hot::set_meta as *const (), &[side, key, is_there, value]);
            }
            Op::SetEndpoint { a } => {
                let (is_there, value) = (self.r(a), self.r(a.wrapping_add(1)));
                self.tell(hot::set_endpoint as *const (), &[is_there, value]);
            }
            Op::SetDestination { a } => {
                let a = self.r(a);
                self.tell(hot::set_destination as *const (), &[a]);
            }
            Op::SetDeadline { a } => {
                let a = self.r(a);
                self.tell(hot::set_deadline as *const (), &[a]);
            }
            _ => return None,
        }
        Some(())
    }

    fn choosing(&mut self, at: usize, op: &Op) -> Option<()> {
        match *op {
            Op::UnlessPassed { element, to } => {
                let [passed, _] = self.call(hot::passed as *const (), &[], 1);
                let element = i64::from(element);
                let has = self.b.ins().icmp_imm(IntCC::UnsignedGreaterThan, passed, element);
                self.branch(at, has, to, false);
            }
            Op::Endpoints { d } => {
                let all = self.word(ALL_ENDPOINTS);
                self.set(d, all);
            }
            Op::Healthy { d, a } => {
                let a = self.r(a);
                self.get(d, hot::healthy as *const (), &[a]);
            }
            Op::Sample { d, a, b } => {
                let (a, b) = (self.r(a), self.r(b));
                self.get(d, hot::sample as *const (), &[a, b]);
            }
            Op::Nth { d, a, b } => {
                let (a, b) = (self.r(a), self.r(b));
                self.get_pair(d, hot::nth as *const (), &[a, b]);
            }
            Op::Next { d, list, i, to } => {
                let (list, place, before) = (self.r(list), self.r(i), self.r(d));
                self.b.ins().stack_store(place, self.spilled, Self::offset(i));
                let slot = self.b.ins().stack_addr(types::I64, self.spilled, Self::offset(i));
                let [is_there, item] = self.call(hot::next as *const (), &[list, slot], 2);
                self.reload(i);
                // Past the end the item stays what it was.
                let item = self.b.ins().select(is_there, item, before);
                self.set(d, item);
                self.branch(at, is_there, to, false);
            }
            _ => return None,
        }
        Some(())
    }
}
