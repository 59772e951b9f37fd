//! Chains: the typed elements of one rule's links to one [`Image`].
//!
//! Each entry is one flat program over all its elements. An element whose `request` only chooses
//! `call.endpoint` runs in the `Pick` entry, once per attempt, unless an element to its right chooses
//! in `request` itself: then the order of the chain decides, and both stand there.
//!
//! Words of the call: 0 says how much scratch stays (if call-parameters are texts), then for each link its
//! call-parameters, its states and whether its `when` held.

mod analyse;
mod boundary;
mod build;
mod cost;
mod expr;
mod fold;
mod func;
mod lookup;
mod made;
mod payload;
mod state;
mod step;
mod stmt;
pub(crate) mod visit;

use std::rc::Rc;
use std::sync::{Arc, OnceLock};

use abi::{ElementInfo, Entry, Plan};

use crate::ast::HandlerKind;
use crate::diag::Diagnostic;
use crate::hir::{Const, Element, HBlock, HExpr, HKind, Init, Path, State};
use crate::schema::{Coverage, Direction};
use crate::source::{Sources, Span};
use crate::ty::Ty;
use crate::vm::Image;
use crate::vm::code::{Code, EndpointText, Op, ServiceText, Shared};
use crate::vm::maglev::Table;
use crate::vm::text::xxh64;

use crate::state::StateDecl;

pub(crate) use analyse::element as analyse;
pub(crate) use boundary::{KEY_NAME_MAX, is_key_name};
use build::{Builder, ParamAt, Pools, Slot, Val};
pub(crate) use cost::{dearest_element, worst_case};
use payload::Held;
use state::{Places, StateAt};
use visit::Reads;

/// One link of a chain, resolved.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    pub(crate) element: Rc<Element>,
    /// By parameter.
    pub(crate) args: Vec<HExpr>,
    pub(crate) when: Option<HExpr>,
    pub(crate) dry: bool,
    /// Which element of which rule it is: what its state is known by.
    pub(crate) home: Rc<str>,
    /// As written, `FaultInjection(0.1)`.
    pub(crate) text: String,
    /// The line of the rule or chain it stands in.
    pub(crate) line: u32,
    pub(crate) span: Span,
    /// As parsed, if what it means depends on the methods of its chain.
    pub(crate) written: Option<Rc<crate::ast::Link>>,
}

/// What the chains of a program share: names with numbers.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    pub(crate) sinks: Vec<String>,
    pub(crate) metrics: Vec<String>,
    pub(crate) keys: Vec<String>,
    /// Where each of them is named first.
    pub(crate) key_spans: Vec<Span>,
    /// As texts see them.
    pub(crate) services: Arc<[ServiceText]>,
}

impl Registry {
    fn intern(list: &mut Vec<String>, name: &str) -> u16 {
        let at = list.iter().position(|n| n == name).unwrap_or_else(|| {
            list.push(name.to_owned());
            list.len() - 1
        });
        u16::try_from(at).unwrap_or(u16::MAX)
    }

    fn sink(&mut self, name: &str) -> u16 {
        Self::intern(&mut self.sinks, name)
    }

    fn key(&mut self, name: &str, span: Span) -> abi::KeyIdx {
        let at = Self::intern(&mut self.keys, name);
        if self.key_spans.len() < self.keys.len() {
            self.key_spans.push(span);
        }
        abi::KeyIdx(at)
    }

    fn metric(&mut self, name: &str) -> u16 {
        Self::intern(&mut self.metrics, name)
    }
}

/// Where a link's things are in the call's words.
#[derive(Debug, Default)]
struct Layout {
    params: Vec<ParamAt>,
    states: Vec<StateAt>,
    scalars: Option<u16>,
    when: Option<u16>,
    is_pick: bool,
}

fn handler(link: &Link, kind: HandlerKind) -> Option<&HBlock> {
    link.element.handlers.iter().find(|h| h.kind == kind).map(|h| &h.body).filter(|b| !b.stmts.is_empty())
}

/// Compiles a chain.
pub(crate) fn chain(
    links: &[Link],
    coverage: &Coverage,
    services: &[abi::Service],
    registry: &mut Registry,
    sources: &Sources,
    errors: &mut Vec<Diagnostic>,
) -> Image {
    let mut image = Image::default();
    let Some(first) = links.first() else { return image };
    let mut pools = Pools::default();
    let shared = &mut image.shared;
    shared.services = registry.services.clone();
    let (layouts, mut next) =
        layouts(links, services, registry, sources, errors, coverage, shared, &mut pools, &mut image.states);
    let keeps = kept_fields(links);
    let kept: Vec<(String, Slot)> =
        keeps.iter().map(|(path, _)| (path.name(), slot(&mut next, true))).collect();
    shared.keeps |= keeps.iter().any(|(_, e)| stays(e.ty.bare()));

    let mut plan = Plan::default();
    (plan.request_boundary, plan.response_boundary) = boundary::of(links, &layouts, registry, errors);
    let mut codes = Vec::new();
    for entry in ENTRIES {
        let mut b = Builder::new(shared, &mut pools, registry, sources, services, errors, coverage, first);
        b.kept.clone_from(&kept);
        let (mut code, held) = match entry {
            Entry::Request => request(b, links, &layouts, &keeps),
            Entry::Pick => (pick(b, links, &layouts), Held::No),
            Entry::RequestMessage => messages(b, links, &layouts, HandlerKind::RequestMessage, &mut next),
            Entry::ResponseMessage => messages(b, links, &layouts, HandlerKind::ResponseMessage, &mut next),
            _ => response(b, links, &layouts),
        };
        let (held, held_of) = held.parts();
        code.scratch = !code.ops.is_empty() && (shared.keeps || code.ops.iter().any(needs_scratch));
        plan.endpoint_reports |= code.ops.iter().any(|op| matches!(op, Op::EpReport { .. }));
        let runs = !code.ops.is_empty();
        match entry {
            Entry::Request => {
                (plan.request, plan.request_payload, plan.request_payload_of) = (runs, held, held_of);
            }
            Entry::Pick => plan.pick = runs,
            Entry::RequestMessage => (plan.request_message, plan.request_message_payload) = (runs, held),
            Entry::ResponseMessage => (plan.response_message, plan.response_message_payload) = (runs, held),
            _ => (plan.response, plan.response_payload, plan.response_payload_of) = (runs, held, held_of),
        }
        codes.push((entry, code));
    }
    plan.elements = links
        .iter()
        .map(|l| ElementInfo { name: l.element.name.clone(), text: l.text.clone(), line: l.line })
        .collect();
    plan.call_words = if next == 1 && !shared.keeps { 0 } else { usize::from(next) };
    image.plan = plan;
    for (entry, code) in codes {
        image.set_code(entry, code);
    }
    image
}

/// Every entry that has code of its own.
const ENTRIES: [Entry; 5] =
    [Entry::Request, Entry::Pick, Entry::RequestMessage, Entry::ResponseMessage, Entry::Response];

/// The fields of the request that handlers of the response read.
fn kept_fields(links: &[Link]) -> Vec<(&Path, &HExpr)> {
    let mut out = Vec::new();
    for link in links {
        for kind in [HandlerKind::Response, HandlerKind::ResponseMessage] {
            if let Some(body) = handler(link, kind) {
                visit::kept(body, &mut out);
            }
        }
    }
    out
}

fn needs_scratch(op: &Op) -> bool {
    matches!(
        op,
        Op::Text { .. }
            | Op::PeerIp { .. }
            | Op::Meta { .. }
            | Op::MetaAll { .. }
            | Op::EpZone { .. }
            | Op::EpLabel { .. }
            | Op::Split { .. }
            | Op::Healthy { .. }
            | Op::Sample { .. }
            | Op::List { .. }
            | Op::StrFn { .. }
            | Op::TextStart
            | Op::MessageStart
            | Op::PackList { .. }
            | Op::UnpackList { .. }
            | Op::Distinct { .. }
            | Op::Keys { .. }
            | Op::LoadText { .. }
            | Op::MapGet { .. }
            | Op::Delay { .. }
            | Op::Decode { .. }
            | Op::Payload { .. }
            | Op::MetaBin { .. }
            | Op::SetField { .. }
            | Op::Inside { .. }
            | Op::InsideList { .. }
    )
}

/// Makes the tables that an image chooses by, of every service of which there is a choice: a chain may send
/// its calls to any.
pub(crate) fn tables(image: &Image, services: &[abi::Service]) {
    if !image.entries().any(|(_, code)| code.ops.iter().any(|op| matches!(op, Op::Maglev { .. }))) {
        return;
    }
    for (known, service) in image.shared.services.iter().zip(services) {
        let weights = service.endpoints.iter().map(|e| e.weight);
        let names = known.endpoints.iter().map(|e| e.addr.as_str());
        if known.maglev.get().is_none()
            && let Some(table) = Table::new(names.zip(weights))
        {
            // Nobody else makes one: compiling is one thread's.
            let _ = known.maglev.set(table);
        }
    }
}

/// A program's services as texts see them.
pub(crate) fn service_texts(services: &[abi::Service]) -> Arc<[ServiceText]> {
    services
        .iter()
        .map(|service| ServiceText {
            name: service.name.clone(),
            maglev: OnceLock::new(),
            endpoints: service
                .endpoints
                .iter()
                .map(|e| EndpointText {
                    addr: e.addr.to_string(),
                    zone: e.zone.clone(),
                    labels: e.labels.clone(),
                })
                .collect(),
        })
        .collect()
}

/// Gives every link its words, and its state its places.
#[expect(clippy::too_many_arguments, reason = "everything a chain's entries share")]
fn layouts(
    links: &[Link],
    services: &[abi::Service],
    registry: &mut Registry,
    sources: &Sources,
    errors: &mut Vec<Diagnostic>,
    coverage: &Coverage,
    shared: &mut Shared,
    pools: &mut Pools,
    states: &mut Vec<StateDecl>,
) -> (Vec<Layout>, u16) {
    let mut layouts = Vec::new();
    let mut later_chooses = vec![false; links.len()];
    let mut chooses = false;
    for (at, link) in links.iter().enumerate().rev() {
        if let Some(slot) = later_chooses.get_mut(at) {
            *slot = chooses;
        }
        chooses |= handler(link, HandlerKind::Request)
            .is_some_and(|b| visit::writes_endpoint(b) && !visit::only_chooses(b));
    }
    let mut keeps = false;
    let mut next = 1_u16;
    for (at, link) in links.iter().enumerate() {
        let request = handler(link, HandlerKind::Request);
        let mut layout = Layout {
            is_pick: request.is_some_and(|b| visit::only_chooses(b) && !visit::block_reads(b).any())
                && !later_chooses.get(at).copied().unwrap_or(false)
                && !link.dry,
            ..Layout::default()
        };
        let used_in = |is_request: bool| -> Vec<u16> {
            let handlers = link.element.handlers.iter();
            let handlers = handlers.filter(|h| (h.kind == HandlerKind::Request) == is_request);
            handlers.flat_map(|h| visit::call_params(&h.body)).collect()
        };
        let (mut in_request, later) = (used_in(true), used_in(false));
        in_request
            .extend(link.element.states.iter().filter_map(State::value).flat_map(visit::call_params_of));
        for (index, (param, arg)) in link.element.params.iter().zip(&link.args).enumerate() {
            let folded =
                Builder::new(shared, pools, registry, sources, services, errors, coverage, link).fold(arg);
            let is_in = |uses: &[u16]| u16::try_from(index).is_ok_and(|i| uses.contains(&i));
            let is_kept = is_in(&later) || layout.is_pick && is_in(&in_request);
            layout.params.push(match folded {
                Some(value) => ParamAt::Const(value),
                None if arg.ty.is_error() => ParamAt::Unused,
                None if !param.is_call && visit::makes(arg) => ParamAt::Made(Rc::new(arg.clone())),
                None if !param.is_call => {
                    errors.push(
                        Diagnostic::error(arg.span, format!("`{}` must be constant", param.name))
                            .label("expected a constant"),
                    );
                    ParamAt::Unused
                }
                None if is_kept || is_in(&in_request) => {
                    keeps |= is_kept && stays(arg.ty.bare());
                    if is_kept {
                        ParamAt::Word(slot(&mut next, arg.ty.is_opt()))
                    } else {
                        ParamAt::Held(Val::Unit)
                    }
                }
                None => ParamAt::Unused,
            });
        }
        let mut b = Builder::new(shared, pools, registry, sources, services, errors, coverage, link);
        b.params.clone_from(&layout.params);
        let mut places = Places { decls: states, next: &mut next, scalars: None };
        layout.states = b.place_states(link, &mut places);
        layout.scalars = places.scalars;
        let elsewhere = layout.is_pick
            || [HandlerKind::Response, HandlerKind::RequestMessage, HandlerKind::ResponseMessage]
                .iter()
                .any(|kind| handler(link, *kind).is_some());
        if link.when.is_some() && elsewhere {
            layout.when = Some(slot(&mut next, false).word);
        }
        layouts.push(layout);
    }
    shared.keeps = keeps;
    (layouts, next)
}

/// Values of this type are in the call's memory, and must stay there.
fn stays(ty: &Ty) -> bool {
    payload::is_text(ty) || matches!(ty, Ty::List(_) | Ty::Map(..))
}

fn slot(next: &mut u16, optional: bool) -> Slot {
    let word = *next;
    *next = next.saturating_add(if optional { 2 } else { 1 });
    Slot { word, optional }
}

/// What draws of a link are told apart by: its name and which of that name it is.
fn draw_id(links: &[Link], at: usize) -> u32 {
    let name = links.get(at).map_or("", |l| l.element.name.as_str());
    let ordinal = links.iter().take(at).filter(|l| l.element.name == name).count();
    u32::try_from(xxh64(format!("{name}#{ordinal}").as_bytes()) >> 32).unwrap_or(0)
}

impl<'a> Builder<'a> {
    /// Turns to another link.
    fn enter(&mut self, link: &'a Link, at: usize, layout: &Layout) {
        self.link = link;
        self.at = u16::try_from(at).unwrap_or(u16::MAX);
        self.params.clone_from(&layout.params);
        self.states.clone_from(&layout.states);
        self.scalars = layout.scalars;
        self.locals.clear();
        self.returns.clear();
        self.next = 0;
    }

    /// A handler, its draws counted anew; returns land behind it.
    fn handler(&mut self, body: &HBlock, links: &[Link], begin: bool) {
        if begin {
            let element = draw_id(links, usize::from(self.at));
            self.emit(Op::Begin { element });
        }
        self.assigned = visit::assigned(body);
        self.assigned_within = visit::assigned_within(body);
        self.begin_handling(body);
        self.block(body);
        let returns = std::mem::take(&mut self.returns);
        self.land(&returns);
    }

    /// Evaluates a link's call-parameters: into registers that stay for the handler, or into the call's words
    /// where other handlers read them too.
    fn call_params(&mut self, link: &'a Link, layout: &Layout) {
        let mut keeps = false;
        for (index, (arg, place)) in link.args.iter().zip(&layout.params).enumerate() {
            if !matches!(place, ParamAt::Word(_) | ParamAt::Held(_)) {
                continue;
            }
            let mark = self.next;
            self.in_argument = true;
            let value = self.expr(arg);
            self.in_argument = false;
            if let ParamAt::Word(slot) = place {
                let value = self.packed(value, &arg.ty);
                self.store_slot(*slot, &value);
                keeps |= stays(arg.ty.bare());
                self.next = mark;
            } else if let Some(param) = self.params.get_mut(index) {
                *param = ParamAt::Held(value);
                // What made it is not to be taken back by its first use.
                self.here();
            }
        }
        if keeps {
            self.emit(Op::Keep);
        }
    }

    /// If the link's `when` was kept: jumps if it did not hold.
    fn unless_when(&mut self, layout: &Layout) -> Vec<usize> {
        let Some(word) = layout.when else { return Vec::new() };
        let a = self.alloc(1);
        self.emit(Op::LoadWord { d: a, word });
        self.next = 0;
        vec![self.emit(Op::JumpUnless { a, to: 0 })]
    }
}

/// What the request entry reads of its message.
fn request_reads(links: &[Link], layouts: &[Layout]) -> Reads {
    let mut reads = Reads::default();
    for (link, layout) in links.iter().zip(layouts) {
        if let Some(body) = handler(link, HandlerKind::Request).filter(|_| !layout.is_pick) {
            reads = reads.or(visit::block_reads(body));
        }
        let args = link.args.iter().zip(&layout.params);
        for (arg, _) in args.filter(|(_, at)| matches!(at, ParamAt::Word(_) | ParamAt::Held(_))) {
            reads = reads.and(arg);
        }
        reads = link.when.iter().fold(reads, Reads::and);
        reads = link.element.states.iter().filter_map(State::value).fold(reads, Reads::and);
    }
    reads
}

fn request<'a>(
    mut b: Builder<'a>,
    links: &'a [Link],
    layouts: &[Layout],
    keeps: &[(&Path, &HExpr)],
) -> (Code, Held) {
    let reads = request_reads(links, layouts);
    if reads.fields || !keeps.is_empty() {
        b.read_message(Direction::Request);
    }
    for ((path, e), (_, at)) in keeps.iter().zip(b.kept.clone()) {
        b.keep_path(path, e, at);
    }
    for (at, (link, layout)) in links.iter().zip(layouts).enumerate() {
        b.enter(link, at, layout);
        let before = b.code.ops.len();
        let body = handler(link, HandlerKind::Request).filter(|_| !layout.is_pick);
        let draws = body.is_some_and(visit::block_draws)
            || link.args.iter().chain(&link.when).any(visit::draws)
            || link.element.states.iter().any(|s| s.value().is_some_and(visit::draws));
        if draws {
            b.emit(Op::Begin { element: draw_id(links, at) });
        }
        let mut skip = Vec::new();
        if let Some(when) = &link.when
            && (body.is_some() || layout.when.is_some())
        {
            b.in_argument = true;
            let a = b.scalar(when);
            b.in_argument = false;
            if let Some(word) = layout.when {
                b.emit(Op::StoreWord { a, word });
            }
            skip.push(b.emit(Op::JumpUnless { a, to: 0 }));
            b.next = 0;
        }
        b.call_params(link, layout);
        let held = b.next;
        for (state, place) in link.element.states.iter().zip(&layout.states) {
            let (Init::Value(init), StateAt::Word(_) | StateAt::Text(_)) = (&state.init, place) else {
                continue;
            };
            let value = b.expr(init);
            // Words are zero when a passage starts.
            if !matches!(value, Val::Const(Const::Word(0) | Const::None)) {
                b.store_state_at(place, &value);
            }
            b.next = held;
        }
        if let Some(body) = body {
            b.handler(body, links, false);
        }
        if b.code.ops.len() > before {
            b.emit(Op::Mark { element: b.at });
        }
        b.land(&skip);
    }
    if !links.is_empty() {
        b.emit(Op::Passed { elements: u16::try_from(links.len()).unwrap_or(u16::MAX) });
        b.emit(Op::End);
    }
    let held = b.end_message().or_all(reads.whole || reads.size);
    (b.code, held)
}

/// The handlers of every message of one direction.
fn messages<'a>(
    mut b: Builder<'a>,
    links: &'a [Link],
    layouts: &[Layout],
    kind: HandlerKind,
    next: &mut u16,
) -> (Code, Held) {
    b.in_message = true;
    let direction =
        if kind == HandlerKind::RequestMessage { Direction::Request } else { Direction::Response };
    let bodies: Vec<(usize, &HBlock)> =
        links.iter().enumerate().filter_map(|(at, link)| Some((at, handler(link, kind)?))).collect();
    let reads = bodies.iter().fold(Reads::default(), |reads, (_, body)| reads.or(visit::block_reads(body)));
    if reads.fields {
        b.read_message(direction);
    }
    if bodies.iter().any(|(_, body)| visit::block_draws(body)) {
        // Each message draws numbers of its own.
        let word = slot(next, false).word;
        b.emit(Op::CountMessage { word });
    }
    let onion: Box<dyn Iterator<Item = &(usize, &HBlock)>> =
        if direction == Direction::Request { Box::new(bodies.iter()) } else { Box::new(bodies.iter().rev()) };
    for (at, body) in onion {
        let (Some(link), Some(layout)) = (links.get(*at), layouts.get(*at)) else { continue };
        b.enter(link, *at, layout);
        let skip = b.unless_when(layout);
        b.handler(body, links, visit::block_draws(body));
        b.emit(Op::Mark { element: b.at });
        b.land(&skip);
    }
    if !b.code.ops.is_empty() {
        b.emit(Op::End);
    }
    let held = b.end_message().or_all(reads.whole);
    (b.code, held)
}

fn pick<'a>(mut b: Builder<'a>, links: &'a [Link], layouts: &[Layout]) -> Code {
    for (at, (link, layout)) in links.iter().zip(layouts).enumerate() {
        let Some(body) = handler(link, HandlerKind::Request).filter(|_| layout.is_pick) else { continue };
        b.enter(link, at, layout);
        let skip = b.unless_when(layout);
        b.handler(body, links, visit::block_draws(body));
        b.emit(Op::Mark { element: b.at });
        b.land(&skip);
    }
    if !b.code.ops.is_empty() {
        b.emit(Op::End);
    }
    b.code
}

fn response<'a>(mut b: Builder<'a>, links: &'a [Link], layouts: &[Layout]) -> (Code, Held) {
    b.in_response = true;
    let bodies = links.iter().filter_map(|link| handler(link, HandlerKind::Response));
    let reads = bodies.fold(Reads::default(), |reads, body| reads.or(visit::block_reads(body)));
    if reads.fields {
        b.read_message(Direction::Response);
    }
    for (at, (link, layout)) in links.iter().zip(layouts).enumerate().rev() {
        let Some(body) = handler(link, HandlerKind::Response) else { continue };
        b.enter(link, at, layout);
        let element = b.at;
        let mut skip = vec![b.emit(Op::UnlessPassed { element, to: 0 })];
        skip.extend(b.unless_when(layout));
        b.handler(body, links, visit::block_draws(body));
        b.emit(Op::Mark { element });
        b.land(&skip);
    }
    if !b.code.ops.is_empty() {
        b.emit(Op::End);
    }
    let held = b.end_message().or_all(reads.whole || reads.size);
    (b.code, held)
}

/// The value of an argument, if it is constant: for checks on ranges.
pub(crate) fn constant_float(e: &HExpr) -> Option<f64> {
    match (&e.kind, &e.ty) {
        (HKind::Const(Const::Word(w)), Ty::Float) => Some(f64::from_bits(*w)),
        (HKind::Wrap(inner), _) => constant_float(inner),
        _ => None,
    }
}

/// An element's handler has such an effect somewhere.
pub(crate) fn has_effect(
    element: &Element,
    kind: HandlerKind,
    is_such: impl Fn(&crate::hir::Effect) -> bool,
) -> bool {
    let mut found = false;
    for handler in element.handlers.iter().filter(|h| h.kind == kind) {
        visit::block(&handler.body, &mut |node| {
            if let visit::Node::Expr(HExpr { kind: HKind::Effect(effect), .. }) = node {
                found |= is_such(effect);
            }
        });
    }
    found
}
