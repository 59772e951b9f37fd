//! What the compiler computes, the interpreter computes too: random expressions, once of constants only,
//! once of the same values hidden in the call. Both must say the same.

use crate::common::{Mock, one, passage};
use abi::Verdict;

struct Rng(u64);

impl Rng {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Bool,
    Uint,
    Int,
    Float,
    Duration,
    Str,
    OptStr,
}

const KINDS: [Kind; 7] =
    [Kind::Bool, Kind::Uint, Kind::Int, Kind::Float, Kind::Duration, Kind::Str, Kind::OptStr];

/// An expression with plain constants, and the same with hidden ones.
type Pair = (String, String);

fn leaf(rng: &mut Rng, kind: Kind) -> Pair {
    match kind {
        Kind::Bool => {
            let b = rng.below(2) == 0;
            (format!("{b}"), format!("(call.attempt == {})", if b { 1 } else { 2 }))
        }
        Kind::Uint => {
            let n = [0, 1, 2, 7, 1000, 4_294_967_296_u64][usize::try_from(rng.below(6)).unwrap_or(0)];
            // A bare literal would take the type of its neighbours.
            (format!("max({n}, 0)"), format!("({n} + call.id)"))
        }
        Kind::Int => {
            let n = rng.below(20);
            // `floor` makes an int of what is 0 here.
            (format!("floor({n}.0 - 10.0)"), format!("floor({n}.0 - 10.0 + call.id)"))
        }
        Kind::Float => {
            let x = ["0.0", "0.5", "2.25", "100.0"][usize::try_from(rng.below(4)).unwrap_or(0)];
            (x.to_owned(), format!("({x} + call.id)"))
        }
        Kind::Duration => {
            let x = ["0s", "5ms", "1s", "3us"][usize::try_from(rng.below(4)).unwrap_or(0)];
            (x.to_owned(), format!("({x} + 1s * call.id)"))
        }
        Kind::Str => {
            let x = ["a", "b", "ab"][usize::try_from(rng.below(3)).unwrap_or(0)];
            (format!("\"{x}\""), format!("(call.metadata[\"{x}\"] ?? \"?\")"))
        }
        Kind::OptStr => {
            let x = ["a", "b", "none"][usize::try_from(rng.below(3)).unwrap_or(0)];
            (format!("opt_{x}"), format!("call.metadata[\"{x}\"]"))
        }
    }
}

fn pick(rng: &mut Rng, list: &[&'static str]) -> &'static str {
    list[usize::try_from(rng.below(list.len() as u64)).unwrap_or(0)]
}

/// An expression of a kind, `depth` levels deep at most.
fn make(rng: &mut Rng, kind: Kind, depth: u32) -> Pair {
    if depth == 0 || rng.below(6) == 0 {
        return leaf(rng, kind);
    }
    let deeper = depth - 1;
    // What every kind has: choices.
    match rng.below(10) {
        0 => {
            let (c, a, b) = (make(rng, Kind::Bool, deeper), make(rng, kind, deeper), make(rng, kind, deeper));
            return join(|s| format!("(if {} {{ {} }} else {{ {} }})", s[0], s[1], s[2]), &[c, a, b]);
        }
        1 => {
            let (of, a, b, c) = (
                make(rng, Kind::Str, deeper),
                make(rng, kind, deeper),
                make(rng, kind, deeper),
                make(rng, kind, deeper),
            );
            return join(
                |s| {
                    format!(
                        "(match {} {{ \"a\" => {{ {} }} \"b\" => {{ {} }} _ => {{ {} }} }})",
                        s[0], s[1], s[2], s[3]
                    )
                },
                &[of, a, b, c],
            );
        }
        _ => {}
    }
    match kind {
        Kind::Bool => match rng.below(6) {
            0 => two(rng, Kind::Bool, deeper, &["&&", "||", "==", "!="]),
            1 => {
                let of = make(rng, Kind::Bool, deeper);
                join(|s| format!("(!{})", s[0]), &[of])
            }
            2 => {
                let of = make(rng, Kind::Str, deeper);
                let list = make(rng, Kind::Str, deeper);
                join(|s| format!("({} in [\"a\", {}])", s[0], s[1]), &[of, list])
            }
            3 => two(rng, Kind::OptStr, deeper, &["==", "!="]),
            _ => {
                let kind = KINDS[usize::try_from(rng.below(5)).unwrap_or(0)];
                let ops: &[&str] =
                    if kind == Kind::Bool { &["==", "!="] } else { &["<", "<=", ">", ">=", "==", "!="] };
                two(rng, kind, deeper, ops)
            }
        },
        Kind::Uint | Kind::Int | Kind::Float => match rng.below(5) {
            0 => {
                let (f, a, b) =
                    (pick(rng, &["min", "max"]), make(rng, kind, deeper), make(rng, kind, deeper));
                join(|s| format!("{f}({}, {})", s[0], s[1]), &[a, b])
            }
            1 if kind == Kind::Uint => {
                let of = make(rng, Kind::Str, deeper);
                join(|s| format!("len({})", s[0]), &[of])
            }
            1 if kind == Kind::Float => two(rng, Kind::Duration, deeper, &["/"]),
            _ => two(rng, kind, deeper, &["+", "-", "*", "/", "%"]),
        },
        Kind::Duration => match rng.below(3) {
            0 => {
                let (a, b) = (make(rng, kind, deeper), make(rng, Kind::Uint, deeper));
                let op = pick(rng, &["*", "/"]);
                join(|s| format!("({} {op} {})", s[0], s[1]), &[a, b])
            }
            _ => two(rng, kind, deeper, &["+", "-"]),
        },
        Kind::Str => match rng.below(3) {
            0 => {
                let (of, other) = (make(rng, Kind::OptStr, deeper), make(rng, Kind::Str, deeper));
                join(|s| format!("({} ?? {})", s[0], s[1]), &[of, other])
            }
            1 => {
                let of = make(rng, Kind::OptStr, deeper);
                let other = make(rng, Kind::Str, deeper);
                join(
                    |s| format!("(match {} {{ Some(v) => {{ \"{{v}}!\" }} None => {{ {} }} }})", s[0], s[1]),
                    &[of, other],
                )
            }
            _ => {
                let kind = KINDS[usize::try_from(rng.below(7)).unwrap_or(0)];
                // Texts within texts count eightfold towards the depth that is allowed.
                let of = leaf(rng, kind);
                join(|s| format!("\"<{{{}}}>\"", s[0]), &[of])
            }
        },
        Kind::OptStr => leaf(rng, kind),
    }
}

fn two(rng: &mut Rng, kind: Kind, depth: u32, ops: &[&'static str]) -> Pair {
    let (a, b) = (make(rng, kind, depth), make(rng, kind, depth));
    let op = pick(rng, ops);
    join(|s| format!("({} {op} {})", s[0], s[1]), &[a, b])
}

fn join(write: impl Fn(&[&str]) -> String, parts: &[Pair]) -> Pair {
    let plain: Vec<&str> = parts.iter().map(|p| p.0.as_str()).collect();
    let hidden: Vec<&str> = parts.iter().map(|p| p.1.as_str()).collect();
    (write(&plain), write(&hidden))
}

/// The value, as text; parameters stand for constants that are there or not.
fn value(expr: &str) -> String {
    let rest = format!(
        "element X(opt_a: string? = \"a\", opt_b: string? = \"b\", opt_none: string? = None) {{ request {{ let v = {expr}\n reject(ABORTED, \"{{v}}\") }} }}"
    );
    let (compiled, mock) = one("X", &rest);
    let mut mock: Mock = mock.header("a", "a").header("b", "b").header("ab", "ab");
    match passage(&compiled, &mut mock) {
        Verdict::Reject(_) => mock.reject_text,
        other => format!("{other:?}"),
    }
}

#[test]
fn hidden_constants_change_nothing() {
    let mut rng = Rng(0x0dd_ba11);
    for round in 0..3000 {
        let kind = KINDS[usize::try_from(rng.below(7)).unwrap_or(0)];
        let depth = 1 + u32::try_from(rng.below(4)).unwrap_or(0);
        let (plain, hidden) = make(&mut rng, kind, depth);
        assert_eq!(value(&plain), value(&hidden), "round {round}\n{plain}\n{hidden}");
    }
}
