//! Arithmetic on words, total: integers and durations saturate and divided by nothing are nothing; floats
//! are IEEE; conversions saturate.
//!
//! The compiler folds constants with the same functions the interpreter runs.

use super::code::{Bin, Un};

fn i(word: u64) -> i64 {
    word.cast_signed()
}

fn f(word: u64) -> f64 {
    f64::from_bits(word)
}

/// A float to the nearest integer that there is; NaN is 0.
#[expect(clippy::cast_possible_truncation, reason = "`as` saturates, which is the language's rule")]
fn to_int(x: f64) -> i64 {
    x as i64
}

/// `op` of two words.
#[inline]
pub(crate) fn bin(op: Bin, a: u64, b: u64) -> u64 {
    match op {
        Bin::AddI => i(a).saturating_add(i(b)).cast_unsigned(),
        Bin::SubI => i(a).saturating_sub(i(b)).cast_unsigned(),
        Bin::MulI => i(a).saturating_mul(i(b)).cast_unsigned(),
        Bin::DivI if b == 0 => 0,
        Bin::DivI => i(a).saturating_div(i(b)).cast_unsigned(),
        Bin::RemI => i(a).checked_rem(i(b)).unwrap_or(0).cast_unsigned(),
        Bin::LtI => u64::from(i(a) < i(b)),
        Bin::LeI => u64::from(i(a) <= i(b)),
        Bin::MinI => i(a).min(i(b)).cast_unsigned(),
        Bin::MaxI => i(a).max(i(b)).cast_unsigned(),
        Bin::AddU => a.saturating_add(b),
        Bin::SubU => a.saturating_sub(b),
        Bin::MulU => a.saturating_mul(b),
        Bin::DivU => a.checked_div(b).unwrap_or(0),
        Bin::RemU => a.checked_rem(b).unwrap_or(0),
        Bin::LtU => u64::from(a < b),
        Bin::LeU => u64::from(a <= b),
        Bin::MinU => a.min(b),
        Bin::MaxU => a.max(b),
        Bin::AddF => (f(a) + f(b)).to_bits(),
        Bin::SubF => (f(a) - f(b)).to_bits(),
        Bin::MulF => (f(a) * f(b)).to_bits(),
        Bin::DivF => (f(a) / f(b)).to_bits(),
        Bin::RemF => (f(a) % f(b)).to_bits(),
        Bin::LtF => u64::from(f(a) < f(b)),
        Bin::LeF => u64::from(f(a) <= f(b)),
        Bin::EqF => u64::from(f(a) == f(b)),
        Bin::MinF => f(a).min(f(b)).to_bits(),
        Bin::MaxF => f(a).max(f(b)).to_bits(),
        Bin::Eq => u64::from(a == b),
        Bin::MulDF => to_int(i(a) as f64 * f(b)).cast_unsigned(),
        Bin::DivDF if f(b) == 0.0 => 0,
        Bin::DivDF => to_int(i(a) as f64 / f(b)).cast_unsigned(),
        Bin::DivDD if b == 0 => 0,
        Bin::DivDD => (i(a) as f64 / i(b) as f64).to_bits(),
        Bin::MulRD => (f(a) * (i(b) as f64 / 1e9)).to_bits(),
        Bin::AddTD => a.saturating_add_signed(i(b)),
        Bin::SubTD => a.saturating_add_signed(i(b).saturating_neg()),
        Bin::SubTT => i64::try_from(i128::from(a) - i128::from(b))
            .unwrap_or(if a > b { i64::MAX } else { i64::MIN })
            .cast_unsigned(),
    }
}

/// `op` of a word.
#[inline]
pub(crate) fn un(op: Un, a: u64) -> u64 {
    match op {
        Un::Not => u64::from(a == 0),
        Un::NegI => i(a).saturating_neg().cast_unsigned(),
        Un::NegF => (-f(a)).to_bits(),
        Un::AbsI => i(a).saturating_abs().cast_unsigned(),
        Un::AbsF => f(a).abs().to_bits(),
        Un::IntToFloat => (i(a) as f64).to_bits(),
        Un::UintToFloat => (a as f64).to_bits(),
        Un::Floor => to_int(f(a).floor()).cast_unsigned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_saturate_and_division_by_nothing_is_nothing() {
        let max = i64::MAX.cast_unsigned();
        let min = i64::MIN.cast_unsigned();
        let minus_one = (-1_i64).cast_unsigned();
        assert_eq!(bin(Bin::AddI, max, 1), max);
        assert_eq!(bin(Bin::DivI, min, minus_one), max);
        assert_eq!(bin(Bin::RemI, min, minus_one), 0);
        assert_eq!(bin(Bin::DivI, 7, 0), 0);
        assert_eq!(bin(Bin::RemU, 7, 0), 0);
        assert_eq!(bin(Bin::SubU, 1, 2), 0);
        assert_eq!(bin(Bin::AddU, u64::MAX, 1), u64::MAX);
        assert_eq!(un(Un::NegI, min), max);
    }

    #[test]
    fn floats_are_ieee() {
        let (one, zero, nan) = (1.0_f64.to_bits(), 0.0_f64.to_bits(), f64::NAN.to_bits());
        assert_eq!(f64::from_bits(bin(Bin::DivF, one, zero)), f64::INFINITY);
        assert_eq!(bin(Bin::DivDF, 1000, zero), 0);
        assert_eq!(bin(Bin::LtF, nan, one), 0);
        assert_eq!(bin(Bin::LeF, one, nan), 0);
        assert_eq!(bin(Bin::EqF, nan, nan), 0);
        assert_eq!(un(Un::Floor, f64::INFINITY.to_bits()), i64::MAX.cast_unsigned());
        assert_eq!(un(Un::Floor, (-1.5_f64).to_bits()).cast_signed(), -2);
    }

    #[test]
    fn instants_and_durations() {
        assert_eq!(bin(Bin::SubTT, 5, 7).cast_signed(), -2);
        assert_eq!(bin(Bin::SubTD, 5, 7), 0);
        assert_eq!(bin(Bin::AddTD, u64::MAX, 7), u64::MAX);
        assert_eq!(bin(Bin::MulDF, 1000, 1.5_f64.to_bits()), 1500);
        assert_eq!(f64::from_bits(bin(Bin::DivDD, 3000, 2000)), 1.5);
    }
}
