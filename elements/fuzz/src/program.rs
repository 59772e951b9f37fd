//! Programs by chance: one to three elements with parameters, state and handlers, and a rule that uses them.
//!
//! Every expression is made for a type, from what is in scope. The language is not restated here: where its
//! rules go beyond types (what one atomic step may hold, say) a program now and then does not compile.

mod expr;
mod stmt;

use std::fmt::Write;
pub(crate) use stmt::TWINS_DIFFER;

use crate::rng::Rng;

/// Types that are generated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum T {
    Bool,
    Int,
    Uint,
    Float,
    Str,
    Duration,
    Status,
    OptStr,
    OptInt,
    OptEndpoint,
    ListStr,
}

pub(crate) const SCALARS: [T; 6] = [T::Bool, T::Int, T::Uint, T::Float, T::Duration, T::Status];
pub(crate) const LETS: [T; 10] = [
    T::Bool,
    T::Int,
    T::Uint,
    T::Float,
    T::Str,
    T::Duration,
    T::Status,
    T::OptStr,
    T::OptInt,
    T::OptEndpoint,
];

impl T {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bool => "bool",
            Self::Int => "int",
            Self::Uint => "uint",
            Self::Float => "float",
            Self::Str => "string",
            Self::Duration => "duration",
            Self::Status => "Status",
            Self::OptStr => "string?",
            Self::OptInt => "int?",
            Self::OptEndpoint => "Endpoint?",
            Self::ListStr => "list<string>",
        }
    }
}

/// Which handler is being made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Handler {
    Request,
    Response,
    RequestMessage,
    ResponseMessage,
}

impl Handler {
    fn text(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Response => "response",
            Self::RequestMessage => "request message",
            Self::ResponseMessage => "response message",
        }
    }

    pub(crate) fn is_message(self) -> bool {
        matches!(self, Self::RequestMessage | Self::ResponseMessage)
    }
}

/// What state an element has besides scalars.
#[derive(Clone, Debug)]
pub(crate) enum Cell {
    Counter(String),
    Bucket(String),
    Window(String),
    MapUint(String),
    MapBucket(String),
    MapEndpoint(String),
    MapStr(String),
}

/// A name in scope.
#[derive(Clone, Debug)]
pub(crate) struct Name {
    pub(crate) name: String,
    pub(crate) ty: T,
    pub(crate) can_assign: bool,
}

/// What an element is being made of.
pub(crate) struct Maker<'r> {
    pub(crate) rng: &'r mut Rng,
    pub(crate) names: Vec<Name>,
    pub(crate) cells: Vec<Cell>,
    pub(crate) handler: Handler,
    /// In the argument of a link: no element's names, no effects.
    pub(crate) fresh: usize,
    /// Statements that may still be made in this handler.
    pub(crate) budget: usize,
    /// Names of this block whose values stand twice.
    twins: Vec<String>,
    /// Scalars of `node` scope: only the first statement of a handler uses them.
    pub(crate) shared: Vec<Name>,
    /// Messages have a type: their fields may be read and written.
    pub(crate) has_proto: bool,
    /// The element has a parameter `pm` that is a message.
    pub(crate) has_message: bool,
    /// It has a parameter `pl`, a map.
    has_map: bool,
}

/// A program.
pub fn program(rng: &mut Rng) -> String {
    let has_proto = rng.once_in(2);
    let mut out = String::from(if has_proto { "proto \"fuzz.proto\"\n" } else { "" });
    out.push_str(
        "service frontend\n\
         service catalog { endpoints: [\"127.0.0.1:1\", { address: \"127.0.0.1:2\", weight: 3, zone: \"b\", \
         labels: { tier: \"gold\" } }, \"127.0.0.1:3\", \"127.0.0.1:4\"] }\n\
         service canary { endpoints: [\"127.0.0.1:9\"] }\n",
    );
    let mut links = Vec::new();
    let mut elements = String::new();
    for at in 0..1 + rng.below(3) {
        let link = element(rng, at, has_proto, &mut elements);
        links.push(link);
    }
    for standard in [
        "Split({ catalog: 3, canary: 1 }, by: call.metadata[\"x-tenant\"])",
        "Firewall(call.metadata[\"x-a\"], deny: [\"Acme\"], allow: [\"a\", \"b\"]) dry",
        "StickyRouting(call.metadata[\"x-b\"])",
        "LoadBalancing",
        "Logging",
        "Compression",
        "FaultInjection(0.3, delay: 2ms)",
    ] {
        if rng.once_in(4) {
            let place = rng.below(links.len() + 1);
            links.insert(place, standard.to_owned());
        }
    }
    // Writing to a String does not fail.
    let to = if has_proto { "catalog.shop.Catalog/*" } else { "catalog" };
    let _ = writeln!(out, "frontend -> {to}: {}", links.join(" - "));
    out + &elements
}

/// One element; returns the link that uses it.
fn element(rng: &mut Rng, at: usize, has_proto: bool, out: &mut String) -> String {
    let name = format!("E{at}");
    let mut maker = Maker {
        rng,
        names: Vec::new(),
        cells: Vec::new(),
        handler: Handler::Request,
        fresh: 0,
        budget: 0,
        twins: Vec::new(),
        shared: Vec::new(),
        has_proto,
        has_message: false,
        has_map: false,
    };
    let mut params = Vec::new();
    let mut args = Vec::new();
    let mut declared = Vec::new();
    // An int that is one, whatever stands beside it.
    params.push("pi: int = -5".to_owned());
    declared.push(Name { name: "pi".into(), ty: T::Int, can_assign: false });
    for n in 0..maker.rng.below(4) {
        let ty = if maker.rng.once_in(5) { T::ListStr } else { LETS[maker.rng.below(LETS.len() - 1)] };
        let is_call = ty == T::OptStr || maker.rng.once_in(3);
        let written = if ty == T::ListStr && maker.rng.once_in(3) { "set<string>" } else { ty.name() };
        let name = format!("p{n}");
        if is_call {
            let value = maker.expr(ty, 2);
            params.push(format!("{name}: call => {written}"));
            args.push(format!("{name}: {value}"));
        } else {
            let value = maker.constant(ty);
            params.push(format!("{name}: {written} = {value}"));
            if maker.rng.once_in(2) {
                args.push(format!("{name}: {}", maker.constant(ty)));
            }
        }
        declared.push(Name { name, ty, can_assign: false });
    }
    if has_proto && maker.rng.once_in(3) {
        params.push("pm: call => message?".to_owned());
        let made = format!("Sub {{ name: {}, n: -7 }}", maker.constant(T::Str));
        let given =
            maker.rng.pick(&["call.payload.sub", "call.payload.subs[1]", "call.payload.sub.sub", &made]);
        args.push(format!("pm: {given}"));
        maker.has_message = true;
    }
    if maker.rng.once_in(4) {
        params.push("pl: call => map<string, string>".to_owned());
        let (value, key) = (maker.expr(T::Str, 1), maker.expr(T::Str, 1));
        let is_field = has_proto && maker.rng.once_in(2);
        args.push(match is_field {
            true => "pl: call.payload.labels".to_owned(),
            false => format!("pl: {{ \"a\": {value}, {key}: \"b\" }}"),
        });
        maker.has_map = true;
    }
    maker.names = declared;
    let _ = writeln!(out, "element {name}({}) {{", params.join(", "));
    maker.states(out);
    let known = maker.names.len();
    let handlers = [Handler::Request, Handler::Response, Handler::RequestMessage, Handler::ResponseMessage];
    for (which, one_in) in handlers.into_iter().zip([1, 2, 4, 4]) {
        if maker.rng.below(one_in) > 0 {
            continue;
        }
        maker.handler = which;
        maker.budget = 3 + maker.rng.below(14);
        let mut body = String::new();
        maker.atomic(&mut body);
        maker.block(&mut body, 2, 3);
        maker.names.truncate(known);
        let _ = writeln!(out, "    {} {{\n{body}    }}", which.text());
    }
    out.push_str("}\n");
    (maker.has_message, maker.has_map) = (false, false);
    maker.names.clear();
    maker.cells.clear();
    maker.handler = Handler::Request;
    let when =
        if maker.rng.once_in(5) { format!(" when({})", maker.expr(T::Bool, 2)) } else { String::new() };
    let dry = if maker.rng.once_in(8) { " dry" } else { "" };
    let args = if args.is_empty() { String::new() } else { format!("({})", args.join(", ")) };
    format!("{name}{args}{when}{dry}")
}

impl Maker<'_> {
    fn states(&mut self, out: &mut String) {
        for n in 0..self.rng.below(4) {
            let is_text = self.rng.once_in(3);
            let ty = match self.rng.below(2) {
                0 if is_text => T::OptStr,
                _ if is_text => T::Str,
                _ => SCALARS[self.rng.below(SCALARS.len())],
            };
            let name = format!("s{n}");
            let scope = if is_text { "call" } else { self.rng.pick(&["call", "call", "shard", "node"]) };
            let init = if scope == "call" { self.expr(ty, 1) } else { self.constant(ty) };
            let _ = writeln!(out, "    state {scope} {name}: {} = {init}", ty.name());
            let name = Name { name, ty, can_assign: true };
            // Two of eight bytes are what one atomic step holds.
            if scope != "node" {
                self.names.push(name);
            } else if self.shared.len() < 2 {
                self.shared.push(name);
            }
        }
        let scope = self.rng.pick(&["shard", "node"]);
        for n in 0..self.rng.below(3) {
            let name = format!("c{n}");
            let size =
                self.rng.pick(&["max 2, evict", "max 3, refuse", "max 2, share", "max 100, evict, ttl 5ms"]);
            let (text, cell) = match self.rng.below(7) {
                6 => (format!("{name}: map<string, string>[{size}]"), Cell::MapStr(name)),
                0 => (format!("{name} = counter()"), Cell::Counter(name)),
                1 => (format!("{name} = bucket(100/s, burst: 3)"), Cell::Bucket(name)),
                2 => (format!("{name} = window(10ms)"), Cell::Window(name)),
                3 => (format!("{name}: map<string, uint>[{size}]"), Cell::MapUint(name)),
                4 => (
                    format!("{name}: map<string, bucket>[{size}] = bucket(50/s, burst: 2)"),
                    Cell::MapBucket(name),
                ),
                _ => (format!("{name}: map<string, Endpoint>[{size}]"), Cell::MapEndpoint(name)),
            };
            let _ = writeln!(out, "    state {scope} {text}");
            self.cells.push(cell);
        }
    }
}
