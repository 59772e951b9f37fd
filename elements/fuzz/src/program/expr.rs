//! Expressions of a wanted type.

use super::{Cell, Handler, Maker, T};
use crate::call::{KEYS, METHODS, TEXTS};

const STATUSES: [&str; 5] = ["OK", "UNAVAILABLE", "INTERNAL", "DEADLINE_EXCEEDED", "CANCELLED"];
const INTS: [&str; 8] = ["0", "1", "2", "7", "100", "4294967295", "4294967296", "9223372036854775807"];
const FLOATS: [&str; 8] = ["0.0", "1.5", "0.1", "2.0", "1e300", "1e-300", "3.999", "0.5"];
const DURATIONS: [&str; 6] = ["0s", "1ns", "5ms", "1s", "90m", "100us"];

fn quoted(text: &str) -> String {
    format!("{text:?}")
}

impl Maker<'_> {
    /// A value known when compiling.
    pub(crate) fn constant(&mut self, ty: T) -> String {
        match ty {
            T::Bool => self.rng.pick(&["true", "false"]).to_owned(),
            T::Int => format!("{}{}", self.rng.pick(&["", "-"]), self.rng.pick(&INTS)),
            T::Uint => self.rng.pick(&INTS).to_owned(),
            T::Float => self.rng.pick(&FLOATS).to_owned(),
            T::Str => quoted(self.rng.pick(&TEXTS)),
            T::Duration => self.rng.pick(&DURATIONS).to_owned(),
            T::Status => self.rng.pick(&STATUSES).to_owned(),
            T::OptStr | T::OptInt => {
                let inner = if ty == T::OptStr { T::Str } else { T::Int };
                if self.rng.once_in(2) { "None".to_owned() } else { self.constant(inner) }
            }
            T::OptEndpoint => "None".to_owned(),
            T::ListStr => {
                let items: Vec<String> = (0..self.rng.below(4)).map(|_| self.constant(T::Str)).collect();
                format!("[{}]", items.join(", "))
            }
        }
    }

    fn named(&mut self, ty: T) -> Option<String> {
        let fitting: Vec<&str> = self.names.iter().filter(|n| n.ty == ty).map(|n| n.name.as_str()).collect();
        if fitting.is_empty() { None } else { Some(self.rng.pick(&fitting).to_owned()) }
    }

    fn cell(&mut self, is_it: impl Fn(&Cell) -> Option<&String>) -> Option<String> {
        let found: Vec<&str> = self.cells.iter().filter_map(&is_it).map(String::as_str).collect();
        if found.is_empty() { None } else { Some(self.rng.pick(&found).to_owned()) }
    }

    /// An expression of this type, at most `depth` deep.
    pub(crate) fn expr(&mut self, ty: T, depth: usize) -> String {
        if self.rng.once_in(3)
            && let Some(name) = self.named(ty)
        {
            return name;
        }
        if depth == 0 {
            return self.leaf(ty);
        }
        if self.has_map && self.rng.once_in(5) {
            let text = self.leaf(T::Str);
            match ty {
                T::Uint => return "len(pl)".to_owned(),
                T::Bool => return format!("({text} in pl)"),
                T::OptStr => return format!("pl[{text}]"),
                T::ListStr => return format!("filter(pl, k => k < {text})"),
                _ => {}
            }
        }
        let d = depth - 1;
        if self.rng.once_in(8) && ty != T::ListStr {
            let cond = self.expr(T::Bool, d);
            return format!("(if {cond} {{ {} }} else {{ {} }})", self.firm(ty, d), self.firm(ty, d));
        }
        match ty {
            T::Bool => self.truth(d),
            T::Int => self.int(d),
            T::Uint => self.uint(d),
            T::Float => self.float(d),
            T::Str => self.text(d),
            T::Duration => self.duration(d),
            T::Status if self.rng.once_in(3) => format!("status({} % 20)", self.expr(T::Int, d)),
            T::Status => self.leaf(ty),
            T::OptStr | T::OptInt | T::OptEndpoint | T::ListStr => self.maybe(ty, d),
        }
    }

    /// The same, of which the type can be told without looking around.
    fn firm(&mut self, ty: T, depth: usize) -> String {
        match ty {
            T::Int => format!("({} + {})", self.leaf(T::Int), self.expr(T::Int, depth)),
            T::OptInt => format!("parse_int({})", self.expr(T::Str, depth)),
            T::OptStr => self.header(),
            T::OptEndpoint => "call.endpoint".to_owned(),
            _ => self.expr(ty, depth),
        }
    }

    /// A field of the message at hand.
    fn field(&mut self, ty: T) -> Option<String> {
        if !self.has_proto || !self.rng.once_in(2) {
            return None;
        }
        let fields: &[&str] = match ty {
            T::Bool => &["flag"],
            T::Int => &["n"],
            T::Uint => &["count", "count", "labels"],
            T::Float => &["x"],
            T::Str => &["name"],
            T::OptStr => &["note", "sub.name", "sub.sub.name", "sub.note", "labels[\"a\"]", "subs[0].name"],
            T::OptInt => &["sub.n", "subs[1].n"],
            T::ListStr => &["tags", "tags.limit(66)"],
            T::Duration | T::Status | T::OptEndpoint => return None,
        };
        if self.has_message && self.rng.once_in(4) {
            match ty {
                T::OptStr => return Some(format!("pm.{}", self.rng.pick(&["name", "note", "sub.name"]))),
                T::OptInt => return Some("pm.n".to_owned()),
                _ => {}
            }
        }
        if ty == T::OptStr && self.rng.once_in(4) {
            let key = self.named(T::Str).unwrap_or_else(|| "call.method".to_owned());
            return Some(match self.rng.below(3) {
                0 => format!("call.payload.labels.limit(66)[{key}]"),
                1 => format!("call.payload.subs[len({key})].name"),
                _ => format!("call.payload.labels[{key}]"),
            });
        }
        let field = self.rng.pick(fields);
        if ty == T::OptStr && self.rng.once_in(6) {
            return Some(self.rng.pick(&["call.payload?.nowhere.deep", "call.payload?.note"]).to_owned());
        }
        if field == "labels" {
            return Some("len(call.payload.labels)".to_owned());
        }
        Some(format!("call.payload.{field}"))
    }

    fn leaf(&mut self, ty: T) -> String {
        if let Some(field) = self.field(ty) {
            return field;
        }
        match ty {
            T::Uint if self.has_proto && self.rng.once_in(4) => "call.size".to_owned(),
            T::Int => self.named(T::Int).unwrap_or_else(|| "(parse_int(\"-7\") ?? 3)".to_owned()),
            T::Uint => match self.rng.below(3) {
                0 => "call.id".to_owned(),
                1 => "call.attempt".to_owned(),
                _ => format!("len({})", quoted(self.rng.pick(&TEXTS))),
            },
            T::Status if self.handler == Handler::Response && self.rng.once_in(2) => "call.status".to_owned(),
            T::Str if self.rng.once_in(3) => {
                self.rng.pick(&["call.method", "call.service", "call.authority"]).to_owned()
            }
            T::Duration if self.handler == Handler::Response && self.rng.once_in(3) => {
                "call.latency".to_owned()
            }
            T::OptStr => self.header(),
            T::OptInt => format!("parse_int({})", quoted(self.rng.pick(&TEXTS))),
            T::OptEndpoint => "call.endpoint".to_owned(),
            _ => self.constant(ty),
        }
    }

    fn header(&mut self) -> String {
        let key = self.rng.pick(&KEYS[..5]);
        match (self.handler, self.rng.below(3)) {
            (Handler::Response, 0) => format!("call.trailers[\"{key}\"]"),
            (Handler::Response, 1) => format!("call.request.metadata[\"{key}\"]"),
            _ => format!("call.metadata[\"{key}\"]"),
        }
    }

    fn truth(&mut self, d: usize) -> String {
        match self.rng.below(18) {
            14 => format!("matches({}, \"^[a-c]+|[0-9]$\")", self.expr(T::Str, d)),
            15 => format!("any({}, s => s == {})", self.list(d), self.leaf(T::Str)),
            16 => format!("chance(0.4, {})", self.expr(T::Str, d)),
            17 if self.has_proto => format!("call.payload.tier {} GOLD", self.rng.pick(&["==", "!="])),
            0 => format!("!({})", self.expr(T::Bool, d)),
            1 => format!("({} && {})", self.expr(T::Bool, d), self.expr(T::Bool, d)),
            2 => format!("({} || {})", self.expr(T::Bool, d), self.expr(T::Bool, d)),
            3 | 4 => {
                let ty = [T::Int, T::Uint, T::Float, T::Duration, T::Str][self.rng.below(5)];
                let op = self.rng.pick(&["<", "<=", ">", ">="]);
                format!("({} {op} {})", self.firm(ty, d), self.expr(ty, d))
            }
            5 | 6 => {
                let ty =
                    [T::Int, T::Uint, T::Float, T::Duration, T::Str, T::OptStr, T::OptInt, T::OptEndpoint]
                        [self.rng.below(8)];
                let op = self.rng.pick(&["==", "!="]);
                let right = if self.rng.once_in(4) && matches!(ty, T::OptStr | T::OptInt | T::OptEndpoint) {
                    "None".to_owned()
                } else {
                    self.expr(ty, d)
                };
                format!("({} {op} {right})", self.firm(ty, d))
            }
            7 => format!("({} in {})", self.expr(T::OptStr, d), self.expr(T::ListStr, d)),
            8 => {
                let f = self.rng.pick(&["contains", "starts_with", "ends_with"]);
                format!("{f}({}, {})", self.expr(T::Str, d), self.expr(T::Str, d))
            }
            9 => format!("in_cidr(call.peer.ip ?? {}, \"10.0.0.0/8\")", quoted(self.rng.pick(&TEXTS))),
            10 if !self.handler.is_message() => {
                format!("chance(clamp({}, 0.0, 1.0))", self.expr(T::Float, d))
            }
            11 => {
                let f = self.rng.pick(&["any", "all"]);
                format!(
                    "{f}(call.destination.endpoints, e => e.{})",
                    self.rng.pick(&["healthy", "inflight > 2", "weight == 1"])
                )
            }
            12 => match self.cell(|c| if let Cell::Bucket(n) = c { Some(n) } else { None }) {
                Some(name) => format!("{name}.take()"),
                None => self.leaf(T::Bool),
            },
            13 => match self.cell(|c| if let Cell::MapBucket(n) = c { Some(n) } else { None }) {
                Some(name) => format!("{name}[{}].take()", self.expr(T::Str, d)),
                None => self.leaf(T::Bool),
            },
            _ => self.leaf(T::Bool),
        }
    }

    /// A list of texts of which the type is plain.
    fn list(&mut self, d: usize) -> String {
        match self.named(T::ListStr) {
            Some(name) if self.rng.once_in(2) => name,
            _ => format!("split({}, \"{}\")", self.expr(T::Str, d), self.rng.pick(&[",", " ", ""])),
        }
    }

    fn int(&mut self, d: usize) -> String {
        match self.rng.below(8) {
            0..=2 => {
                let op = self.rng.pick(&["+", "-", "*", "/", " % "]);
                format!("({} {op} {})", self.firm(T::Int, d), self.expr(T::Int, d))
            }
            3 => format!("(parse_int({}) ?? {})", self.expr(T::Str, d), self.expr(T::Int, d)),
            4 => format!("floor({})", self.expr(T::Float, d)),
            5 => format!("abs({})", self.firm(T::Int, d)),
            6 => {
                let f = self.rng.pick(&["min", "max"]);
                format!("{f}({}, {})", self.firm(T::Int, d), self.expr(T::Int, d))
            }
            _ => {
                format!("clamp({}, {}, {})", self.firm(T::Int, d), self.expr(T::Int, d), self.expr(T::Int, d))
            }
        }
    }

    fn uint(&mut self, d: usize) -> String {
        match self.rng.below(8) {
            0 | 1 => {
                let op = self.rng.pick(&["+", "-", "*", "/", " % "]);
                format!("({} {op} {})", self.leaf(T::Uint), self.expr(T::Uint, d))
            }
            2 => format!("hash({})", self.expr(T::Str, d)),
            3 => format!("len({})", self.expr(T::Str, d)),
            4 => format!("len({})", self.expr(T::ListStr, d)),
            5 => "len(call.destination.endpoints)".to_owned(),
            6 => match self.cell(|c| if let Cell::MapUint(n) = c { Some(n) } else { None }) {
                Some(name) => format!("({name}[{}] ?? {})", self.expr(T::Str, d), self.leaf(T::Uint)),
                None => self.leaf(T::Uint),
            },
            _ => self.leaf(T::Uint),
        }
    }

    fn float(&mut self, d: usize) -> String {
        match self.rng.below(9) {
            0..=2 => {
                let op = self.rng.pick(&["+", "-", "*", "/"]);
                format!("({} {op} {})", self.expr(T::Float, d), self.expr(T::Float, d))
            }
            3 => "random()".to_owned(),
            4 => format!("({} / {})", self.expr(T::Duration, d), self.expr(T::Duration, d)),
            5 => format!("(0.5 + {})", self.firm(T::Int, d)),
            6 => match self.cell(|c| if let Cell::Window(n) = c { Some(n) } else { None }) {
                Some(name) => format!("{name}.{}", self.rng.pick(&["mean", "sum", "max"])),
                None => self.leaf(T::Float),
            },
            7 => {
                let f = self.rng.pick(&["min", "max"]);
                format!("{f}({}, {})", self.expr(T::Float, d), self.expr(T::Float, d))
            }
            _ => self.leaf(T::Float),
        }
    }

    fn text(&mut self, d: usize) -> String {
        match self.rng.below(13) {
            9 => format!("digest({})", self.expr(T::Str, d)),
            10 => format!("({}[{}] ?? {})", self.list(d), self.rng.below(4), self.leaf(T::Str)),
            11 => match self.cell(|c| if let Cell::MapStr(n) = c { Some(n) } else { None }) {
                Some(name) => format!("({name}[{}] ?? {})", self.expr(T::Str, d), self.leaf(T::Str)),
                None => self.leaf(T::Str),
            },
            12 => {
                let arms: Vec<String> = (0..3).map(|n| format!("{n} => {}", self.constant(T::Str))).collect();
                format!(
                    "(match {} {{ {} _ => {} }})",
                    self.leaf(T::Uint),
                    arms.join(" "),
                    self.expr(T::Str, d)
                )
            }
            0 => format!("lower({})", self.expr(T::Str, d)),
            1 => format!("trim({})", self.expr(T::Str, d)),
            2 => format!("prefix({}, {})", self.expr(T::Str, d), self.rng.below(9)),
            3 => format!("mask({}, keep: {})", self.expr(T::Str, d), self.rng.below(5)),
            4 => format!("base64({})", self.expr(T::Str, d)),
            5 => format!("({} ?? {})", self.expr(T::OptStr, d), self.expr(T::Str, d)),
            6 | 7 => {
                let ty = [
                    T::Int,
                    T::Uint,
                    T::Float,
                    T::Str,
                    T::Duration,
                    T::Status,
                    T::Bool,
                    T::OptStr,
                    T::OptInt,
                ][self.rng.below(9)];
                // A quote within a text's braces needs a name: what is made here may hold one.
                match self.named(ty) {
                    Some(name) => {
                        format!("\"<{{{name}}}{}>\"", self.rng.pick(&["", "-{call.method}", "é{call.id}"]))
                    }
                    None => "\"m {call.method}\"".to_owned(),
                }
            }
            _ => {
                let arms: Vec<String> =
                    METHODS.iter().map(|m| format!("\"{m}\" => {}", self.constant(T::Str))).collect();
                format!("(match call.method {{ {} _ => {} }})", arms.join(" "), self.expr(T::Str, d))
            }
        }
    }

    fn duration(&mut self, d: usize) -> String {
        match self.rng.below(5) {
            0 => format!("({} + {})", self.expr(T::Duration, d), self.expr(T::Duration, d)),
            1 => format!("({} - {})", self.expr(T::Duration, d), self.expr(T::Duration, d)),
            2 => format!("({} * {})", self.expr(T::Duration, d), self.expr(T::Float, d)),
            3 => format!("abs({})", self.expr(T::Duration, d)),
            _ => self.leaf(T::Duration),
        }
    }

    fn maybe(&mut self, ty: T, d: usize) -> String {
        match ty {
            T::OptInt => format!("parse_int({})", self.expr(T::Str, d)),
            T::OptEndpoint => match self.rng.below(6) {
                4 => {
                    let list =
                        self.rng.pick(&["healthy(call.destination.endpoints)", "call.destination.endpoints"]);
                    format!("maglev({list}, {})", self.expr(T::Str, d))
                }
                0 => "least(call.destination.endpoints, e => e.latency)".to_owned(),
                1 => "least(sample(call.destination.endpoints, 2), e => e.inflight)".to_owned(),
                2 => format!("ring(call.destination.endpoints, {})", self.expr(T::Str, d)),
                3 => match self.cell(|c| if let Cell::MapEndpoint(n) = c { Some(n) } else { None }) {
                    Some(name) => format!("{name}[{}]", self.expr(T::Str, d)),
                    None => "next(healthy(call.destination.endpoints))".to_owned(),
                },
                _ => "call.endpoint".to_owned(),
            },
            T::ListStr => match self.rng.below(6) {
                3 => format!("split({}, \",\")", self.expr(T::Str, d)),
                4 => format!("filter({}, s => s < {})", self.list(d), self.leaf(T::Str)),
                5 => format!("call.metadata.all(\"{}\").limit(2)", self.rng.pick(&KEYS[..5])),
                0 => format!("call.metadata.all(\"{}\")", self.rng.pick(&KEYS[..5])),
                1 => format!("[{}, {}]", self.expr(T::Str, d), self.expr(T::Str, d)),
                _ => self.constant(T::ListStr),
            },
            _ => self.header(),
        }
    }
}
