//! Statements.

use std::fmt::Write;

use super::{Cell, Handler, LETS, Maker, Name, T};
use crate::call::KEYS;

/// A name that is logged when a value is not what it was.
pub(crate) const TWINS_DIFFER: &str = "twins_differ";

impl Maker<'_> {
    /// What a handler does to state that all shards share, as its first statement: one atomic step.
    pub(crate) fn atomic(&mut self, out: &mut String) {
        let shared = self.shared.clone();
        for name in shared {
            let (n, ty) = (&name.name, name.ty);
            match self.rng.below(3) {
                0 => {
                    let value = self.constant(ty);
                    let _ = writeln!(out, "        if {n} != {value} {{ {n} = {} }}", self.constant(ty));
                }
                1 if matches!(ty, T::Uint | T::Float | T::Duration) => {
                    let _ = writeln!(out, "        {n} += {}", self.constant(ty));
                }
                _ => {
                    let _ = writeln!(out, "        let was_{n} = {n}");
                    self.names.push(Name { name: format!("was_{n}"), ty, can_assign: false });
                }
            }
        }
    }

    /// Statements of a block, each on its line.
    pub(crate) fn block(&mut self, out: &mut String, indent: usize, depth: usize) {
        let known = self.names.len();
        let outer = std::mem::take(&mut self.twins);
        let mut ends = false;
        for _ in 0..1 + self.rng.below(5) {
            if self.budget == 0 || ends {
                break;
            }
            self.budget -= 1;
            let mut line = String::new();
            ends = self.stmt(&mut line, indent, depth);
            let _ = writeln!(out, "{}{line}", "    ".repeat(indent));
        }
        for name in std::mem::replace(&mut self.twins, outer).into_iter().filter(|_| !ends) {
            let pad = "    ".repeat(indent);
            let _ =
                writeln!(out, "{pad}if {name} != twin_{name} {{ log(error, {TWINS_DIFFER}: \"{name}\") }}");
        }
        // The handler's own block keeps its names until it is done.
        if indent > 2 {
            self.names.truncate(known);
        }
    }

    fn inner(&mut self, indent: usize, depth: usize) -> String {
        let mut out = String::from("{\n");
        self.block(&mut out, indent + 1, depth);
        let _ = write!(out, "{}}}", "    ".repeat(indent));
        out
    }

    /// One statement; true if nothing may follow it.
    fn stmt(&mut self, out: &mut String, indent: usize, depth: usize) -> bool {
        let text = match self.rng.below(20) {
            0..=3 => self.binding(),
            4 if indent > 2 => return self.ending(out),
            5 | 6 => match self.assignment() {
                Some(text) => text,
                None => self.binding(),
            },
            7..=9 if depth > 0 => {
                let cond = self.expr(T::Bool, 2);
                let then = self.inner(indent, depth - 1);
                if self.rng.once_in(2) {
                    format!("if {cond} {then}")
                } else {
                    format!("if {cond} {then} else {}", self.inner(indent, depth - 1))
                }
            }
            10 if depth > 0 => {
                let list = self.expr(T::ListStr, 1);
                let name = self.name(T::Str, false);
                let body = self.inner(indent, depth - 1);
                self.names.pop();
                format!("for {name} in {list} {body}")
            }
            11 if depth > 0 => {
                let of = self.expr(T::OptStr, 1);
                let name = self.name(T::Str, false);
                let some = self.inner(indent, depth - 1);
                self.names.pop();
                format!("match {of} {{ Some({name}) => {some} None => {} }}", self.inner(indent, depth - 1))
            }
            12 => {
                let of = self.expr(T::OptStr, 1);
                let name = self.name(T::Str, false);
                format!("let {name} = {of} else return")
            }
            13 | 14 => self.effect(),
            15 => format!("delay({})", self.expr(T::Duration, 1)),
            16..=18 => self.write(),
            _ => self.cell_use(),
        };
        out.push_str(&text);
        false
    }

    fn name(&mut self, ty: T, can_assign: bool) -> String {
        let name = format!("v{}", self.fresh);
        self.fresh += 1;
        self.names.push(Name { name: name.clone(), ty, can_assign });
        name
    }

    fn binding(&mut self) -> String {
        let ty = LETS[self.rng.below(LETS.len())];
        // What a name is must be plain from its value.
        let value = match ty {
            T::Int => format!("(pi + {})", self.expr(T::Int, 2)),
            T::Uint => format!("(call.id + {})", self.expr(T::Uint, 2)),
            T::OptStr => format!("call.metadata[\"{}\"]", self.rng.pick(&KEYS[..5])),
            T::OptInt => format!("parse_int({})", self.expr(T::Str, 2)),
            T::OptEndpoint => "call.endpoint".to_owned(),
            _ => self.expr(ty, 2),
        };
        // The same value twice, if it is one: that nothing in between has changed either is told at the block's end.
        let draws = ["random", "chance", "sample", "weighted", "next(", "take(", "reserve("]
            .iter()
            .any(|word| value.contains(word));
        if !draws && !matches!(ty, T::Float) && self.rng.once_in(3) {
            let name = self.name(ty, false);
            self.twins.push(name.clone());
            let fits = |n: &&Name| n.can_assign && n.ty == ty;
            let other = self.names.iter().rev().find(fits).filter(|_| self.rng.once_in(2));
            let copy = other.map_or(String::new(), |other| format!("  {} = {name}", other.name));
            return format!("let twin_{name} = {value}  let {name} = {value}{copy}");
        }
        let name = self.name(ty, true);
        format!("let {name} = {value}")
    }

    fn assignment(&mut self) -> Option<String> {
        let can: Vec<(String, T)> =
            self.names.iter().filter(|n| n.can_assign).map(|n| (n.name.clone(), n.ty)).collect();
        if can.is_empty() {
            return None;
        }
        let (name, ty) = &can[self.rng.below(can.len())];
        let op = match ty {
            T::Int | T::Uint | T::Float | T::Duration => self.rng.pick(&["=", "+=", "-="]),
            _ => "=",
        };
        Some(format!("{name} {op} {}", self.expr(*ty, 2)))
    }

    fn ending(&mut self, out: &mut String) -> bool {
        if self.rng.once_in(2) {
            out.push_str("return");
        } else {
            let status = self.rng.pick(&["UNAVAILABLE", "ABORTED", "RESOURCE_EXHAUSTED"]);
            let _ = write!(out, "reject({status}, {})", self.expr(T::Str, 2));
        }
        true
    }

    fn effect(&mut self) -> String {
        match self.rng.below(5) {
            4 => format!(
                "count(\"labelled\", {}, k: {}, l: call.method)",
                self.leaf_uint(),
                self.expr(T::Str, 1)
            ),
            0 => {
                let ty =
                    [T::Int, T::Float, T::Str, T::OptStr, T::Duration, T::Status, T::Bool][self.rng.below(7)];
                format!("log({}, k: {})", self.rng.pick(&["debug", "info", "warn"]), self.expr(ty, 2))
            }
            1 => format!("count(\"m{}\", {})", self.rng.below(3), self.leaf_uint()),
            2 => format!("observe(\"o\", {})", self.expr(T::Float, 2)),
            _ => format!("count(\"plain{}\")", self.rng.below(2)),
        }
    }

    fn leaf_uint(&mut self) -> String {
        self.expr(T::Uint, 1)
    }

    fn write(&mut self) -> String {
        if self.has_proto && self.rng.once_in(6) {
            return self.made();
        }
        if self.has_proto && self.rng.once_in(3) {
            let (field, ty) = [
                ("name", T::Str),
                ("n", T::Int),
                ("flag", T::Bool),
                ("x", T::Float),
                ("sub.name", T::Str),
                ("sub.sub.n", T::Int),
                ("note", T::OptStr),
                ("count", T::Uint),
            ][self.rng.below(8)];
            return format!("call.payload.{field} = {}", self.expr(ty, 1));
        }
        let key = self.rng.pick(&KEYS[..5]);
        match (self.handler, self.rng.below(6)) {
            (Handler::Request, 0) => format!("call.endpoint = {}", self.expr(T::OptEndpoint, 1)),
            (Handler::Request, 1) => "call.destination = weighted({ catalog: 3, canary: 1 })".to_owned(),
            (Handler::Request, 2) => format!("call.deadline = now() + {}", self.expr(T::Duration, 1)),
            (Handler::Response, 0) => format!("call.status = {}", self.expr(T::Status, 1)),
            (Handler::Response, 1) => format!("call.message = {}", self.expr(T::Str, 1)),
            (Handler::Response, 2) => format!("call.trailers[\"{key}\"] = {}", self.expr(T::Str, 1)),
            (handler, _) if handler.is_message() => self.effect(),
            (_, 3) => format!("call.metadata[\"{key}\"] = None"),
            _ => format!("call.metadata[\"{key}\"] = {}", self.expr(T::Str, 2)),
        }
    }

    /// A write of what is made here.
    fn made(&mut self) -> String {
        let sub = |m: &mut Self| {
            let (name, n) = (m.expr(T::Str, 1), m.expr(T::Int, 1));
            format!("Sub {{ name: {name}, n: {n}, note: {} }}", m.expr(T::OptStr, 0))
        };
        match self.rng.below(12) {
            11 => {
                format!("call.payload.labels = {}", if self.has_map { "pl" } else { "call.payload.labels" })
            }
            7 => {
                let (at, value) = (self.leaf_uint(), self.expr(T::OptStr, 1));
                format!("call.payload.tags[{at} % 3] = {value}")
            }
            8 => format!("call.payload.numbers[{}] = {}", self.rng.below(3), self.expr(T::OptInt, 1)),
            9 => format!("call.payload.labels[{}] = {}", self.expr(T::Str, 1), self.expr(T::OptStr, 1)),
            10 => {
                let (field, ty) =
                    [("name", T::Str), ("n", T::Int), ("note", T::OptStr), ("sub.name", T::OptStr)]
                        [self.rng.below(4)];
                let at = self.rng.pick(&["0", "1", "len(call.payload.subs) - 1", "call.attempt"]);
                format!("call.payload.subs[{at}].{field} = {}", self.expr(ty, 1))
            }
            0 => format!("call.payload.labels[\"a\"] = {}", self.expr(T::OptStr, 1)),
            1 => format!(
                "call.payload.labels = {{ \"a\": {}, {}: \"b\" }}",
                self.expr(T::Str, 1),
                self.expr(T::Str, 1)
            ),
            2 => format!("call.payload.sub = {}", sub(self)),
            3 => format!("call.payload.subs = [{}, {}]", sub(self), sub(self)),
            4 => format!("call.payload.tags = {}", self.expr(T::ListStr, 1)),
            5 => format!("call.payload?.nowhere = {}", self.expr(T::Str, 1)),
            _ => {
                let (name, tags) = (self.expr(T::Str, 1), self.expr(T::ListStr, 1));
                format!(
                    "call.payload = Item {{ name: {name}, tags: {tags}, tier: GOLD, sub: {}, flag: {} }}",
                    sub(self),
                    self.expr(T::Bool, 1)
                )
            }
        }
    }

    fn cell_use(&mut self) -> String {
        if self.cells.is_empty() {
            return self.effect();
        }
        let cell = self.cells[self.rng.below(self.cells.len())].clone();
        match cell {
            Cell::Counter(name) => format!("{name}.add({})", self.rng.below(5)),
            Cell::Bucket(name) => match self.rng.below(3) {
                0 => format!("{name}.drain()"),
                1 => format!("delay({name}.reserve(1))"),
                _ => format!("if {name}.take() {{ count(\"taken\") }}"),
            },
            Cell::Window(name) => match self.rng.below(5) {
                0 => format!("{name}.clear()"),
                _ => format!("{name}.add({})", self.expr(T::Float, 1)),
            },
            Cell::MapUint(name) => {
                let key = self.expr(T::Str, 1);
                match self.rng.below(4) {
                    0 => format!("{name}[{key}] = None"),
                    _ => format!("{name}[{key}] = {}", self.expr(T::Uint, 1)),
                }
            }
            Cell::MapStr(name) => format!("{name}[{}] = {}", self.expr(T::Str, 1), self.expr(T::OptStr, 1)),
            Cell::MapBucket(name) => {
                format!("if !{name}[{}].take() {{ count(\"full\") }}", self.expr(T::Str, 1))
            }
            Cell::MapEndpoint(name) => {
                format!("{name}[{}] = {}", self.expr(T::Str, 1), self.expr(T::OptEndpoint, 0))
            }
        }
    }
}
