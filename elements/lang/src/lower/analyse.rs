//! What one link's element does, as facts for people: the typed tree with the link's arguments in it.
//!
//! Branches that the arguments decide are found as the byte code finds them, by folding, and what is dead is
//! not counted. Not here: how facts read (`explain`).

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use abi::{Num, Side, Text};

use crate::ast::{HandlerKind, Scope};
use crate::explain::facts::{
    ElementFacts, Exit, Folded, HandlerFacts, ParamFacts, ParamKind, StateFacts, Wait,
};
use crate::hir::{
    Const, Effect, EndpointField, Func, HArm, HBin, HBlock, HExpr, HKind, HPattern, HPlace, HStmt, Init,
    Path, Root, State,
};
use crate::schema::Coverage;
use crate::source::{Sources, Span};
use crate::ty::Ty;
use crate::vm::code::Shared;
use crate::vm::text::write_word;

use super::build::{Builder, ParamAt, Pools, Val};
use super::fold::fmt_of;
use super::visit::{self, Node};
use super::{Link, Registry};

/// The facts of one link.
pub(crate) fn element(
    link: &Link,
    coverage: &Coverage,
    services: &[abi::Service],
    sources: &Sources,
) -> ElementFacts {
    let (mut shared, mut pools, mut registry, mut errors) =
        (Shared::default(), Pools::default(), Registry::default(), Vec::new());
    let mut b =
        Builder::new(&mut shared, &mut pools, &mut registry, sources, services, &mut errors, coverage, link);
    b.params = link.args.iter().map(|arg| b.fold(arg).map_or(ParamAt::Unused, ParamAt::Const)).collect();
    let element = &link.element;
    let mut facts = ElementFacts {
        name: element.name.clone(),
        text: link.text.clone(),
        dry: link.dry,
        when: link.when.as_ref().map(|w| one_line(sources.text(w.span))),
        file: Arc::from(""),
        states: element.states.iter().map(state).collect(),
        ..ElementFacts::default()
    };
    let mut used = BTreeSet::new();
    for handler in &element.handlers {
        let mut walk = Walk {
            b: &mut b,
            link,
            kind: handler.kind,
            dead: HashSet::new(),
            reads: BTreeSet::new(),
            writes: BTreeSet::new(),
            used: BTreeSet::new(),
            out: HandlerFacts { kind: name_of(handler.kind), ..HandlerFacts::default() },
        };
        walk.handler(&handler.body);
        if handler.kind == HandlerKind::Request {
            if let Some(e) = &link.when {
                walk.visit_expr(e);
            }
            facts.only_chooses = visit::only_chooses(&handler.body) && !link.dry;
        }
        used.extend(std::mem::take(&mut walk.used));
        if !handler.body.stmts.is_empty() || handler.body.value.is_some() {
            facts.file = walk
                .b
                .sources
                .file(span_of(&handler.body).file)
                .map_or(facts.file, |f| Arc::from(f.name.as_str()));
        }
        let (reads, writes) = (walk.reads, walk.writes);
        facts.handlers.push(HandlerFacts {
            reads: reads.into_iter().collect(),
            writes: writes.into_iter().collect(),
            ..walk.out
        });
    }
    for first in element.states.iter().filter(|s| s.scope == Scope::Call).filter_map(State::value) {
        used.extend(at_request(&mut b, link, first, &mut facts));
    }
    call_params(&mut b, link, &used, &mut facts);
    facts
}

/// Call-parameters are read at the request, whichever handler uses them.
fn call_params(b: &mut Builder<'_>, link: &Link, used: &BTreeSet<u16>, facts: &mut ElementFacts) {
    for (at, (param, arg)) in (0_u16..).zip(link.element.params.iter().zip(&link.args)) {
        let is_used = used.contains(&at);
        let (value, kind) = match b.param(at) {
            Some(value) => (show(value, &param.ty, b), ParamKind::Constant),
            None if !param.is_call => (one_line(b.sources.text(arg.span)), ParamKind::Constant),
            None if is_used => (one_line(b.sources.text(arg.span)), ParamKind::PerCall),
            None => (one_line(b.sources.text(arg.span)), ParamKind::Unread),
        };
        if kind == ParamKind::PerCall {
            at_request(b, link, arg, facts);
        }
        facts.params.push(ParamFacts { name: param.name.clone(), value, kind });
    }
}

/// What an expression reads is read at the request, by an element that may have no handler for it; the call-parameters
/// in it.
fn at_request(b: &mut Builder<'_>, link: &Link, e: &HExpr, facts: &mut ElementFacts) -> BTreeSet<u16> {
    let mut walk = Walk {
        b,
        link,
        kind: HandlerKind::Request,
        dead: HashSet::new(),
        reads: BTreeSet::new(),
        writes: BTreeSet::new(),
        used: BTreeSet::new(),
        out: HandlerFacts::default(),
    };
    walk.visit_expr(e);
    let (reads, used) = (walk.reads, walk.used);
    if !facts.handlers.iter().any(HandlerFacts::is_request) && !reads.is_empty() {
        facts.handlers.insert(0, HandlerFacts { kind: "request", ..HandlerFacts::default() });
    }
    if let Some(request) = facts.handlers.iter_mut().find(|h| h.is_request()) {
        let all: BTreeSet<String> = request.reads.drain(..).chain(reads).collect();
        request.reads = all.into_iter().collect();
    }
    used
}

fn state(state: &crate::hir::State) -> StateFacts {
    let is_map = matches!(state.init, Init::Map(_));
    let has_cells = matches!(state.init, Init::Cell(_) | Init::Map(Some(_)));
    let (scope, atomic) = match state.scope {
        Scope::Call => ("call", "of one passage, seen by nobody else"),
        Scope::Shard => ("shard", "each shard has its own, and its handlers never interleave but at a delay"),
        Scope::Node if has_cells => ("node", "each operation is one atomic step, from any shard"),
        Scope::Node if is_map => {
            ("node", "own writes are seen at once, other shards' within a turn; the last wins")
        }
        Scope::Node => (
            "node",
            "a handler's reads and writes of its `node` values are one atomic step (compare and swap)",
        ),
    };
    let ty = state.ty.to_string();
    StateFacts { name: state.name.clone(), scope, ty, atomic }
}

/// The part of a message that a path means, as it is written less the `call.`.
fn message_part(path: &Path) -> String {
    let text = path.text();
    text.strip_prefix("call.").unwrap_or(&text).to_owned()
}

fn name_of(kind: HandlerKind) -> &'static str {
    match kind {
        HandlerKind::Request => "request",
        HandlerKind::Response => "response",
        HandlerKind::RequestMessage => "request message",
        HandlerKind::ResponseMessage => "response message",
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Some place within a block.
fn span_of(block: &HBlock) -> Span {
    let mut span = Span::default();
    visit::block(block, &mut |node| {
        if let (Node::Expr(e), true) = (node, span == Span::default()) {
            span = e.span;
        }
    });
    span
}

/// A constant as one would write it.
fn show(value: &Const, ty: &Ty, b: &Builder<'_>) -> String {
    let list = |items: &[Const], ty: &Ty| -> Vec<String> { items.iter().map(|i| show(i, ty, b)).collect() };
    match (value, ty.bare()) {
        (Const::None, _) => "None".to_owned(),
        (Const::Str(text), _) => format!("{text:?}"),
        (Const::List(items), Ty::List(item)) => format!("[{}]", list(items, item).join(", ")),
        (Const::List(items), ty) => format!("[{}]", list(items, ty).join(", ")),
        (Const::Map(items), Ty::Map(key, of)) => {
            let pairs = items.iter().map(|(k, v)| format!("{}: {}", show(k, key, b), show(v, of, b)));
            format!("{{ {} }}", pairs.collect::<Vec<_>>().join(", "))
        }
        (Const::Map(_), _) => "{ … }".to_owned(),
        (Const::Word(at), Ty::Service) => b.service_name(*at).unwrap_or("?").to_owned(),
        (Const::Word(word), ty) => {
            let mut out = String::new();
            write_word(&mut out, fmt_of(ty), *word);
            out
        }
    }
}

/// One handler, or one expression over the call.
struct Walk<'w, 'a> {
    b: &'w mut Builder<'a>,
    link: &'w Link,
    kind: HandlerKind,
    /// Nodes that are never reached, by address.
    dead: HashSet<usize>,
    reads: BTreeSet<String>,
    writes: BTreeSet<String>,
    /// Call-parameters that are read.
    used: BTreeSet<u16>,
    out: HandlerFacts,
}

/// What stands around a statement.
#[derive(Clone, Default)]
struct Around {
    /// It is not reached when one of these is absent.
    absent: Vec<String>,
    /// Chances that have to be met; `None` once something else decides too.
    chance: Option<f64>,
    is_conditional: bool,
}

fn address<T>(node: &T) -> usize {
    std::ptr::from_ref(node).addr()
}

impl Walk<'_, '_> {
    fn text(&self, span: Span) -> String {
        one_line(self.b.sources.text(span))
    }

    fn handler(&mut self, body: &HBlock) {
        self.b.locals.clear();
        self.prune(body);
        let mut nodes: Vec<Node<'_>> = Vec::new();
        visit::block(body, &mut |node| nodes.push(node));
        for node in nodes {
            self.node(&node);
        }
        self.exits(body, &Around::default());
    }

    fn visit_expr(&mut self, e: &HExpr) {
        let mut nodes: Vec<Node<'_>> = Vec::new();
        visit::expr(e, &mut |node| nodes.push(node));
        for node in nodes {
            self.node(&node);
        }
    }

    /// Finds what the arguments decide.
    fn prune(&mut self, body: &HBlock) {
        let assigned = visit::assigned(body);
        let mut nodes: Vec<Node<'_>> = Vec::new();
        visit::block(body, &mut |node| nodes.push(node));
        for node in nodes {
            match node {
                Node::Stmt(HStmt::Let(local, value)) if !assigned.contains(local) => {
                    if let Some(value) = self.b.fold(value) {
                        self.b.set_local(*local, Val::Const(value));
                    }
                }
                Node::Expr(e) if !self.dead.contains(&address(e)) => self.decide(e),
                _ => {}
            }
        }
    }

    fn decide(&mut self, e: &HExpr) {
        let truth = |b: &Builder<'_>, e: &HExpr| match b.fold(e) {
            Some(Const::Word(word)) => Some(word != 0),
            _ => None,
        };
        match &e.kind {
            HKind::If { cond, then, or_else } => {
                if let Some(holds) = truth(self.b, cond) {
                    self.bury(if holds { or_else } else { then });
                    self.folded(cond, self.text(cond.span), holds.to_string());
                }
            }
            HKind::Match { of, arms } => self.decide_match(of, arms),
            HKind::And(left, right) if truth(self.b, left) == Some(false) => self.bury_expr(right),
            HKind::Or(left, right) if truth(self.b, left) == Some(true) => self.bury_expr(right),
            HKind::Coalesce(left, right) if self.b.fold(left).is_some_and(|v| v != Const::None) => {
                self.bury_expr(right);
            }
            _ => {}
        }
    }

    fn decide_match(&mut self, of: &HExpr, arms: &[HArm]) {
        let Some(value) = self.b.fold(of) else { return };
        let taken = arms.iter().position(|arm| self.b.takes(&arm.pattern, &value, &of.ty));
        for (at, arm) in arms.iter().enumerate() {
            if Some(at) != taken {
                self.bury(&arm.body);
            }
        }
        let is = show(&value, &of.ty, self.b);
        self.folded(of, format!("match {}", self.text(of.span)), is);
    }

    fn folded(&mut self, cond: &HExpr, what: String, is: String) {
        let mut because: Vec<(String, String)> = Vec::new();
        visit::expr(cond, &mut |node| {
            if let Node::Expr(HExpr { kind: HKind::Param(at) | HKind::CallParam(at), .. }) = node
                && let (Some(param), Some(value)) =
                    (self.link.element.params.get(usize::from(*at)), self.b.param(*at))
            {
                let pair = (param.name.clone(), show(value, &param.ty, self.b));
                if !because.contains(&pair) {
                    because.push(pair);
                }
            }
        });
        let line = self.b.line(cond.span);
        self.out.folded.push(Folded { line, what, is, because });
    }

    fn bury(&mut self, block: &HBlock) {
        let dead = &mut self.dead;
        visit::block(block, &mut |node| {
            dead.insert(match node {
                Node::Expr(e) => address(e),
                Node::Stmt(s) => address(s),
            });
        });
    }

    fn bury_expr(&mut self, e: &HExpr) {
        let dead = &mut self.dead;
        visit::expr(e, &mut |node| {
            dead.insert(match node {
                Node::Expr(e) => address(e),
                Node::Stmt(s) => address(s),
            });
        });
    }

    /// The name of a header list, as it is written in this handler.
    fn header(&self, side: Side, key: &HExpr) -> String {
        let is_response = matches!(self.kind, HandlerKind::Response | HandlerKind::ResponseMessage);
        let list = match side {
            Side::Request if is_response => "request.metadata",
            Side::Request | Side::Response => "metadata",
            Side::Trailers => "trailers",
        };
        match self.b.fold(key) {
            Some(Const::Str(name)) => format!("{list}[{name:?}]"),
            _ => format!("{list}[…]"),
        }
    }

    fn node(&mut self, node: &Node<'_>) {
        match node {
            Node::Stmt(stmt) if !self.dead.contains(&address(*stmt)) => {
                if let HStmt::Assign(place, _) = stmt {
                    let what = match place {
                        HPlace::Meta { side, key } => self.header(*side, key),
                        HPlace::State(at) => self.state_name(*at),
                        HPlace::Map { map, .. } => self.state_name(*map),
                        HPlace::MapBy { map, .. } => {
                            let name = self.state_name(*map);
                            self.reads.insert(name.clone());
                            name
                        }
                        HPlace::Payload(written, _) => message_part(&written.path),
                        HPlace::WholePayload => "payload".to_owned(),
                        HPlace::Endpoint => "endpoint".to_owned(),
                        HPlace::Destination => "destination".to_owned(),
                        HPlace::Deadline => "deadline".to_owned(),
                        HPlace::Status => "status".to_owned(),
                        HPlace::Message => "message".to_owned(),
                        HPlace::Local(_) => return,
                    };
                    self.writes.insert(what);
                }
            }
            Node::Expr(e) if !self.dead.contains(&address(*e)) => {
                if let Some(what) = self.reads(e) {
                    self.reads.insert(what);
                }
                if visit::changes_cell(e)
                    && let HKind::Cell { of, .. } = &e.kind
                    && let HKind::State(at) | HKind::MapAt { map: at, .. } = &of.kind
                {
                    self.writes.insert(self.state_name(*at));
                }
                if let HKind::Effect(effect) = &e.kind {
                    self.effect(effect);
                }
            }
            _ => {}
        }
    }

    fn state_name(&self, at: u16) -> String {
        let name = self.link.element.states.get(usize::from(at)).map_or("?", |s| s.name.as_str());
        format!("state {name}")
    }

    /// What of the call or the world an expression reads by itself.
    fn reads(&mut self, e: &HExpr) -> Option<String> {
        let name = match &e.kind {
            HKind::CallParam(at) => {
                self.used.insert(*at);
                return None;
            }
            HKind::Meta { side, key } | HKind::MetaAll { side, key, .. } | HKind::MetaBin { side, key } => {
                return Some(self.header(*side, key));
            }
            HKind::State(at) | HKind::MapAt { map: at, .. } => return Some(self.state_name(*at)),
            HKind::Payload(path) if matches!(path.root, Root::Value(_)) => return None,
            HKind::Payload(path) => return Some(message_part(path)),
            HKind::WholePayload => "payload",
            HKind::Num(field) => match field {
                Num::Id => "id",
                Num::Attempt => "attempt",
                Num::Size => "size",
                Num::LatencyNs => "latency",
                Num::NowNs => "time",
                Num::Status => "status",
            },
            HKind::Text(field) => match field {
                Text::Source => "source",
                Text::Service => "service",
                Text::Method => "method",
                Text::Authority => "authority",
                Text::PeerIdentity => "peer.identity",
                Text::Message => "message",
                Text::Flag => "flag",
            },
            HKind::Source => "source",
            HKind::PeerIp => "peer.ip",
            HKind::Deadline => "deadline",
            HKind::Destination => "destination",
            HKind::Endpoint => "endpoint",
            HKind::Endpoints => "endpoints",
            HKind::Flag => "flag",
            HKind::EndpointField(field, _) => match field {
                EndpointField::Healthy => "endpoints' healthy",
                EndpointField::Inflight => "endpoints' inflight",
                EndpointField::Latency => "endpoints' latency",
                EndpointField::Weight => "endpoints' weight",
                EndpointField::Zone => "endpoints' zone",
            },
            HKind::EndpointLabel(..) => "endpoints' labels",
            HKind::Call(func, _) => match func {
                Func::Now => "time",
                Func::Random | Func::Chance | Func::Sample | Func::WeightedEndpoint | Func::WeightedMap => {
                    "chance"
                }
                Func::Healthy => "endpoints' healthy",
                _ => return None,
            },
            _ => return None,
        };
        Some(name.to_owned())
    }

    fn effect(&mut self, effect: &Effect) {
        let what = match effect {
            Effect::Reject { .. } => {
                if self.kind == HandlerKind::Response {
                    self.writes.extend(["status".to_owned(), "message".to_owned()]);
                }
                return;
            }
            Effect::Log { .. } => "logs a line".to_owned(),
            Effect::Count { name, .. } => format!("counts {name}"),
            Effect::Observe { name, .. } => format!("observes {name}"),
            Effect::AccessLog(to) => match self.b.fold(to) {
                Some(Const::Str(to)) => format!("writes an access-log line to {to}"),
                _ => "writes an access-log line".to_owned(),
            },
            Effect::Compress { encoding, .. } => match self.b.fold(encoding) {
                Some(value) => format!("compresses with {}", show(&value, &encoding.ty, self.b)),
                None => "compresses".to_owned(),
            },
            Effect::Decompress => "decompresses".to_owned(),
            Effect::Boundary { opens, key } => {
                let name = self.b.fold(key).map(|key| format!(" {}", show(&key, &Ty::Str, self.b)));
                let does = if *opens { "opens messages sealed" } else { "seals messages" };
                format!("{does} with key{}", name.unwrap_or_default())
            }
            _ => return,
        };
        if !self.out.does.contains(&what) {
            self.out.does.push(what);
        }
    }

    /// Walks the paths to every `reject` and `delay` that is left.
    fn exits(&mut self, block: &HBlock, around: &Around) {
        let mut around = around.clone();
        for stmt in &block.stmts {
            if self.dead.contains(&address(stmt)) {
                continue;
            }
            match stmt {
                HStmt::LetElse(_, value, or_else) => {
                    let within = Around { is_conditional: true, chance: None, ..around.clone() };
                    self.exits(or_else, &within);
                    let returns = !or_else.stmts.iter().any(|s| {
                        matches!(s, HStmt::Expr(HExpr { kind: HKind::Effect(Effect::Reject { .. }), .. }))
                    });
                    if returns {
                        around.absent.push(self.text(value.span));
                    }
                    around.is_conditional = true;
                    around.chance = None;
                }
                HStmt::Let(_, e) | HStmt::Assign(_, e) | HStmt::Expr(e) => self.exit_expr(e, &around),
                HStmt::For { body, .. } => {
                    let within = Around { is_conditional: true, chance: None, ..around.clone() };
                    self.exits(body, &within);
                }
                _ => {}
            }
        }
        if let Some(value) = &block.value {
            self.exit_expr(value, &around);
        }
    }

    fn exit_expr(&mut self, e: &HExpr, around: &Around) {
        if self.dead.contains(&address(e)) {
            return;
        }
        match &e.kind {
            HKind::If { cond, then, or_else } => {
                let (then_is, else_is) = (self.under(cond, true, around), self.under(cond, false, around));
                self.exits(then, &then_is);
                self.exits(or_else, &else_is);
            }
            HKind::Match { of, arms } => {
                let names_none = arms.iter().any(|a| matches!(a.pattern, HPattern::None));
                let is_known = self.b.fold(of).is_some();
                for arm in arms {
                    let mut within = around.clone();
                    if !is_known {
                        within = Around { is_conditional: true, chance: None, ..within };
                    }
                    let takes_none = match arm.pattern {
                        HPattern::None => true,
                        HPattern::Any => !names_none,
                        _ => false,
                    };
                    if !takes_none && self.may_be_absent(of) {
                        within.absent.push(self.called(of));
                    }
                    self.exits(&arm.body, &within);
                }
            }
            HKind::Effect(Effect::Reject { status, text }) => {
                let status = match self.b.fold(status) {
                    Some(value) => show(&value, &status.ty, self.b),
                    None => self.text(status.span),
                };
                let exit = Exit {
                    line: self.b.line(e.span),
                    status,
                    text: self.text(text.span),
                    chance: around.chance,
                    passes: around.absent.clone(),
                };
                self.out.rejects.push(exit);
            }
            HKind::Effect(Effect::Delay(time)) => {
                let time = match self.b.fold(time) {
                    Some(value) => show(&value, &time.ty, self.b),
                    None => self.text(time.span),
                };
                let line = self.b.line(e.span);
                self.out.delays.push(Wait { line, time, chance: around.chance });
            }
            _ => {}
        }
    }

    /// What stands around a branch: its condition on top of what is there.
    fn under(&mut self, cond: &HExpr, holds: bool, around: &Around) -> Around {
        if self.b.fold(cond).is_some() {
            return around.clone();
        }
        let share = self.share(cond).map(|p| if holds { p } else { 1.0 - p });
        let chance = match (share, around.chance, around.is_conditional) {
            (Some(p), Some(q), _) => Some(p * q),
            (Some(p), None, false) => Some(p),
            _ => None,
        };
        let mut absent = around.absent.clone();
        for one in self.keeps_out(cond, holds) {
            if !absent.contains(&one) {
                absent.push(one);
            }
        }
        Around { absent, chance, is_conditional: true }
    }

    /// The chance of `random() < share` and `chance(share)`.
    fn share(&self, cond: &HExpr) -> Option<f64> {
        let share = match &cond.kind {
            HKind::Bin(HBin::Lt, left, right)
                if matches!(left.kind, HKind::Call(Func::Random, _)) && right.ty == Ty::Float =>
            {
                right
            }
            HKind::Call(Func::Chance, args) => args.first()?,
            _ => return None,
        };
        match self.b.fold(share)? {
            Const::Word(word) => Some(f64::from_bits(word).clamp(0.0, 1.0)),
            _ => None,
        }
    }

    /// The argument that a call-parameter stands for.
    fn argument<'e>(&'e self, e: &'e HExpr) -> &'e HExpr {
        match &e.kind {
            HKind::CallParam(at) => self.link.args.get(usize::from(*at)).unwrap_or(e),
            _ => e,
        }
    }

    /// It is absent for some calls.
    fn may_be_absent(&self, e: &HExpr) -> bool {
        let of = self.argument(e);
        of.ty.is_opt() && self.b.fold(e).is_none() && !matches!(of.kind, HKind::Wrap(_))
    }

    /// As the link, or the element, writes it.
    fn called(&self, e: &HExpr) -> String {
        self.text(self.argument(e).span)
    }

    /// What keeps a call out of a branch by being absent: `==` and `in` are false then, `!=` is true.
    fn keeps_out(&self, cond: &HExpr, holds: bool) -> Vec<String> {
        let (absent, named) = (|e: &HExpr| self.may_be_absent(e), |e: &HExpr| self.called(e));
        match &cond.kind {
            HKind::Not(inner) => self.keeps_out(inner, !holds),
            HKind::And(a, b) if holds => {
                let mut out = self.keeps_out(a, true);
                out.extend(self.keeps_out(b, true));
                out
            }
            HKind::Or(a, b) if !holds => {
                let mut out = self.keeps_out(a, false);
                out.extend(self.keeps_out(b, false));
                out
            }
            HKind::And(a, b) | HKind::Or(a, b) => {
                let other = self.keeps_out(b, holds);
                self.keeps_out(a, holds).into_iter().filter(|one| other.contains(one)).collect()
            }
            HKind::In(item, _) if holds && absent(item) => vec![named(item)],
            HKind::Equal { left, right, negate } => {
                let is_none = |e: &HExpr| self.b.fold(e) == Some(Const::None);
                let (one, other) = if absent(left) { (left, right) } else { (right, left) };
                if !absent(one) || absent(other) {
                    return Vec::new();
                }
                // With the one absent the comparison says whether the other is None.
                let says = is_none(other) != *negate;
                if says == holds { Vec::new() } else { vec![named(one)] }
            }
            _ => Vec::new(),
        }
    }
}
