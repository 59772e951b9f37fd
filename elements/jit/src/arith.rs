//! Arithmetic on words, in machine code: what `lang`'s `arith` says, for those operators that are worth it.

use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::{InstBuilder, InstructionData, MemFlags, Opcode, Value, ValueDef, types};
use cranelift_frontend::FunctionBuilder;
use lang::vm::code::{Bin, Un};

const MAX: i64 = i64::MAX;
const MIN: i64 = i64::MIN;

/// The instructions of one operator.
pub(crate) struct Arith<'a, 'f>(pub(crate) &'a mut FunctionBuilder<'f>);

impl Arith<'_, '_> {
    fn word(&mut self, n: i64) -> Value {
        self.0.ins().iconst(types::I64, n)
    }

    fn is(&mut self, cc: IntCC, a: Value, b: Value) -> Value {
        self.0.ins().icmp(cc, a, b)
    }

    fn select(&mut self, cond: Value, yes: Value, no: Value) -> Value {
        self.0.ins().select(cond, yes, no)
    }

    /// A condition as a word.
    fn truth(&mut self, cond: Value) -> Value {
        self.0.ins().uextend(types::I64, cond)
    }

    fn float(&mut self, word: Value) -> Value {
        // A float that was only just made a word is that float.
        if let ValueDef::Result(inst, _) = self.0.func.dfg.value_def(word)
            && let InstructionData::LoadNoOffset { opcode: Opcode::Bitcast, arg, .. } =
                self.0.func.dfg.insts[inst]
            && self.0.func.dfg.value_type(arg) == types::F64
        {
            return arg;
        }
        self.0.ins().bitcast(types::F64, MemFlags::new(), word)
    }

    fn bits(&mut self, float: Value) -> Value {
        self.0.ins().bitcast(types::I64, MemFlags::new(), float)
    }

    fn compare(&mut self, cc: IntCC, a: Value, b: Value) -> Value {
        let cond = self.is(cc, a, b);
        self.truth(cond)
    }

    fn compare_floats(&mut self, cc: FloatCC, a: Value, b: Value) -> Value {
        let (a, b) = (self.float(a), self.float(b));
        let cond = self.0.ins().fcmp(cc, a, b);
        self.truth(cond)
    }

    fn either(&mut self, cc: IntCC, a: Value, b: Value) -> Value {
        let cond = self.is(cc, a, b);
        self.select(cond, a, b)
    }

    /// The largest of the sign of `a`: what an overflow saturates to.
    fn extreme(&mut self, a: Value) -> Value {
        let sign = self.0.ins().sshr_imm(a, 63);
        self.0.ins().bxor_imm(sign, MAX)
    }

    fn add_signed(&mut self, a: Value, b: Value) -> Value {
        let (sum, is_over) = self.0.ins().sadd_overflow(a, b);
        let extreme = self.extreme(a);
        self.select(is_over, extreme, sum)
    }

    fn sub_signed(&mut self, a: Value, b: Value) -> Value {
        let difference = self.0.ins().isub(a, b);
        // It overflows where the signs differ and the result's is not that of `a`.
        let (signs, changed) = (self.0.ins().bxor(a, b), self.0.ins().bxor(a, difference));
        let both = self.0.ins().band(signs, changed);
        let zero = self.word(0);
        let is_over = self.is(IntCC::SignedLessThan, both, zero);
        let extreme = self.extreme(a);
        self.select(is_over, extreme, difference)
    }

    fn mul_signed(&mut self, a: Value, b: Value) -> Value {
        let low = self.0.ins().imul(a, b);
        let high = self.0.ins().smulhi(a, b);
        let sign = self.0.ins().sshr_imm(low, 63);
        let is_over = self.is(IntCC::NotEqual, high, sign);
        let signs = self.0.ins().bxor(a, b);
        let extreme = self.extreme(signs);
        self.select(is_over, extreme, low)
    }

    fn add_unsigned(&mut self, a: Value, b: Value) -> Value {
        let (sum, is_over) = self.0.ins().uadd_overflow(a, b);
        let all = self.word(-1);
        self.select(is_over, all, sum)
    }

    fn sub_unsigned(&mut self, a: Value, b: Value) -> Value {
        let difference = self.0.ins().isub(a, b);
        let is_under = self.is(IntCC::UnsignedLessThan, a, b);
        let zero = self.word(0);
        self.select(is_under, zero, difference)
    }

    fn mul_unsigned(&mut self, a: Value, b: Value) -> Value {
        let (low, high) = (self.0.ins().imul(a, b), self.0.ins().umulhi(a, b));
        let (zero, all) = (self.word(0), self.word(-1));
        let is_over = self.is(IntCC::NotEqual, high, zero);
        self.select(is_over, all, low)
    }

    fn negate(&mut self, a: Value) -> Value {
        let (negated, min, max) = (self.0.ins().ineg(a), self.word(MIN), self.word(MAX));
        let is_min = self.is(IntCC::Equal, a, min);
        self.select(is_min, max, negated)
    }

    /// A divisor that never traps: 1 where `b` is 0 or -1. With it, whether `b` was 0 and whether -1.
    fn divisor(&mut self, b: Value) -> (Value, Value, Value) {
        let (zero, one, minus_one) = (self.word(0), self.word(1), self.word(-1));
        let is_zero = self.is(IntCC::Equal, b, zero);
        let is_minus_one = self.is(IntCC::Equal, b, minus_one);
        let safe = self.select(is_zero, one, b);
        let safe = self.select(is_minus_one, one, safe);
        (safe, is_zero, is_minus_one)
    }

    fn div_signed(&mut self, a: Value, b: Value) -> Value {
        let (safe, is_zero, is_minus_one) = self.divisor(b);
        let quotient = self.0.ins().sdiv(a, safe);
        let negated = self.negate(a);
        let quotient = self.select(is_minus_one, negated, quotient);
        let zero = self.word(0);
        self.select(is_zero, zero, quotient)
    }

    fn rem_signed(&mut self, a: Value, b: Value) -> Value {
        let (safe, is_zero, is_minus_one) = self.divisor(b);
        let rest = self.0.ins().srem(a, safe);
        let zero = self.word(0);
        let rest = self.select(is_minus_one, zero, rest);
        self.select(is_zero, zero, rest)
    }

    fn div_unsigned(&mut self, a: Value, b: Value, wants_rest: bool) -> Value {
        let (zero, one) = (self.word(0), self.word(1));
        let is_zero = self.is(IntCC::Equal, b, zero);
        let safe = self.select(is_zero, one, b);
        let result = if wants_rest { self.0.ins().urem(a, safe) } else { self.0.ins().udiv(a, safe) };
        self.select(is_zero, zero, result)
    }

    /// Instant plus duration.
    fn move_instant(&mut self, at: Value, by: Value) -> Value {
        let (sum, has_carried) = self.0.ins().uadd_overflow(at, by);
        let (zero, all) = (self.word(0), self.word(-1));
        // Forwards a carry is an overflow; backwards there is one unless it went below nothing.
        let forwards = self.select(has_carried, all, sum);
        let backwards = self.select(has_carried, sum, zero);
        let is_backwards = self.is(IntCC::SignedLessThan, by, zero);
        self.select(is_backwards, backwards, forwards)
    }

    fn between_instants(&mut self, a: Value, b: Value) -> Value {
        let difference = self.0.ins().isub(a, b);
        let (zero, max, min) = (self.word(0), self.word(MAX), self.word(MIN));
        let is_negative = self.is(IntCC::SignedLessThan, difference, zero);
        let later = self.select(is_negative, max, difference);
        let earlier = self.select(is_negative, difference, min);
        let is_later = self.is(IntCC::UnsignedGreaterThanOrEqual, a, b);
        self.select(is_later, later, earlier)
    }

    fn duration_times(&mut self, a: Value, b: Value, divides: bool) -> Value {
        let ns = self.0.ins().fcvt_from_sint(types::F64, a);
        let by = self.float(b);
        let result = if divides { self.0.ins().fdiv(ns, by) } else { self.0.ins().fmul(ns, by) };
        let word = self.0.ins().fcvt_to_sint_sat(types::I64, result);
        if !divides {
            return word;
        }
        let nothing = self.0.ins().f64const(0.0);
        let is_nothing = self.0.ins().fcmp(FloatCC::Equal, by, nothing);
        let zero = self.word(0);
        self.select(is_nothing, zero, word)
    }

    fn durations(&mut self, a: Value, b: Value) -> Value {
        let (x, y) = (self.0.ins().fcvt_from_sint(types::F64, a), self.0.ins().fcvt_from_sint(types::F64, b));
        let quotient = self.0.ins().fdiv(x, y);
        let bits = self.bits(quotient);
        let zero = self.word(0);
        let is_zero = self.is(IntCC::Equal, b, zero);
        self.select(is_zero, zero, bits)
    }

    fn floats(&mut self, op: Bin, a: Value, b: Value) -> Value {
        let (a, b) = (self.float(a), self.float(b));
        let result = match op {
            Bin::AddF => self.0.ins().fadd(a, b),
            Bin::SubF => self.0.ins().fsub(a, b),
            Bin::MulF => self.0.ins().fmul(a, b),
            _ => self.0.ins().fdiv(a, b),
        };
        self.bits(result)
    }

    /// `op` of two words; `None` where the interpreter's function is called.
    pub(crate) fn bin(&mut self, op: Bin, a: Value, b: Value) -> Option<Value> {
        Some(match op {
            Bin::AddI => self.add_signed(a, b),
            Bin::SubI => self.sub_signed(a, b),
            Bin::MulI => self.mul_signed(a, b),
            Bin::DivI => self.div_signed(a, b),
            Bin::RemI => self.rem_signed(a, b),
            Bin::LtI => self.compare(IntCC::SignedLessThan, a, b),
            Bin::LeI => self.compare(IntCC::SignedLessThanOrEqual, a, b),
            Bin::MinI => self.either(IntCC::SignedLessThan, a, b),
            Bin::MaxI => self.either(IntCC::SignedGreaterThan, a, b),
            Bin::AddU => self.add_unsigned(a, b),
            Bin::SubU => self.sub_unsigned(a, b),
            Bin::MulU => self.mul_unsigned(a, b),
            Bin::DivU => self.div_unsigned(a, b, false),
            Bin::RemU => self.div_unsigned(a, b, true),
            Bin::LtU => self.compare(IntCC::UnsignedLessThan, a, b),
            Bin::LeU => self.compare(IntCC::UnsignedLessThanOrEqual, a, b),
            Bin::MinU => self.either(IntCC::UnsignedLessThan, a, b),
            Bin::MaxU => self.either(IntCC::UnsignedGreaterThan, a, b),
            Bin::AddF | Bin::SubF | Bin::MulF | Bin::DivF => self.floats(op, a, b),
            Bin::LtF => self.compare_floats(FloatCC::LessThan, a, b),
            Bin::LeF => self.compare_floats(FloatCC::LessThanOrEqual, a, b),
            Bin::EqF => self.compare_floats(FloatCC::Equal, a, b),
            Bin::Eq => self.compare(IntCC::Equal, a, b),
            Bin::MulDF => self.duration_times(a, b, false),
            Bin::DivDF => self.duration_times(a, b, true),
            Bin::DivDD => self.durations(a, b),
            Bin::AddTD => self.move_instant(a, b),
            Bin::SubTD => {
                let back = self.negate(b);
                self.move_instant(a, back)
            }
            Bin::SubTT => self.between_instants(a, b),
            // The remainder of floats, and which of two floats is less when one is none, are functions.
            _ => return None,
        })
    }

    /// `op` of a word; `None` as above.
    pub(crate) fn un(&mut self, op: Un, a: Value) -> Option<Value> {
        Some(match op {
            Un::Not => {
                let zero = self.word(0);
                self.compare(IntCC::Equal, a, zero)
            }
            Un::NegI => self.negate(a),
            Un::NegF => self.0.ins().bxor_imm(a, MIN),
            Un::AbsF => self.0.ins().band_imm(a, MAX),
            Un::AbsI => {
                let (zero, negated) = (self.word(0), self.negate(a));
                let is_negative = self.is(IntCC::SignedLessThan, a, zero);
                self.select(is_negative, negated, a)
            }
            Un::IntToFloat => {
                let float = self.0.ins().fcvt_from_sint(types::F64, a);
                self.bits(float)
            }
            Un::UintToFloat => {
                let float = self.0.ins().fcvt_from_uint(types::F64, a);
                self.bits(float)
            }
            _ => return None,
        })
    }
}
