//! Chains: the typed elements of one rule's links to one [`Image`].
//!
//! Each entry is one flat program over all its elements. An element whose `request` only chooses
//! `call.endpoint` runs in the `Pick` entry, once per attempt, unless an element to its right chooses
//! in `request` itself: then the order of the chain decides, and both stand there.
//!
//! Words of the call: 0 says how much scratch stays (if call-parameters are texts), then for each link its
//! call-parameters, its states and whether its `when` held.

mod build;
mod expr;
mod fold;
mod stmt;
mod visit;

use std::rc::Rc;
use std::sync::Arc;

use abi::{ElementInfo, Plan};

use crate::ast::HandlerKind;
use crate::diag::Diagnostic;
use crate::hir::{Const, Element, HBlock, HExpr, HKind};
use crate::source::{Sources, Span};
use crate::ty::Ty;
use crate::vm::Image;
use crate::vm::code::{Code, EndpointText, Op, ServiceText, Shared};
use crate::vm::text::xxh64;

use build::{Builder, ParamAt, Pools, Slot, Val};

/// One link of a chain, resolved.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    pub(crate) element: Rc<Element>,
    /// By parameter.
    pub(crate) args: Vec<HExpr>,
    pub(crate) when: Option<HExpr>,
    pub(crate) dry: bool,
    /// As written, `FaultInjection(0.1)`.
    pub(crate) text: String,
    /// The line of the rule or chain it stands in.
    pub(crate) line: u32,
    pub(crate) span: Span,
}

/// What the chains of a program share: names with numbers.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    pub(crate) sinks: Vec<String>,
    pub(crate) metrics: Vec<String>,
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

    fn metric(&mut self, name: &str) -> u16 {
        Self::intern(&mut self.metrics, name)
    }
}

/// Where a link's things are in the call's words.
#[derive(Debug, Default)]
struct Layout {
    params: Vec<ParamAt>,
    states: Vec<Slot>,
    when: Option<u16>,
    is_pick: bool,
}

fn handler(link: &Link, kind: HandlerKind) -> Option<&HBlock> {
    link.element.handlers.iter().find(|h| h.kind == kind).map(|h| &h.body).filter(|b| !b.stmts.is_empty())
}

/// Compiles a chain.
pub(crate) fn chain(
    links: &[Link],
    services: &[abi::Service],
    registry: &mut Registry,
    sources: &Sources,
    errors: &mut Vec<Diagnostic>,
) -> Image {
    let mut image = Image::default();
    let Some(first) = links.first() else { return image };
    let mut pools = Pools::default();
    image.shared.services = registry.services.clone();
    let (layouts, words) = layouts(links, services, registry, sources, errors, &mut image.shared, &mut pools);

    let mut entries: [Code; 3] = Default::default();
    for (entry, slot) in entries.iter_mut().enumerate() {
        let b = Builder::new(&mut image.shared, &mut pools, registry, sources, services, errors, first);
        *slot = match entry {
            0 => request(b, links, &layouts),
            1 => pick(b, links, &layouts),
            _ => response(b, links, &layouts),
        };
    }
    let [request, pick, response] = entries.map(|mut code| {
        code.scratch = !code.ops.is_empty() && (image.shared.keeps || code.ops.iter().any(needs_scratch));
        code
    });
    image.plan = Plan {
        elements: links
            .iter()
            .map(|l| ElementInfo { name: l.element.name.clone(), text: l.text.clone(), line: l.line })
            .collect(),
        request: !request.ops.is_empty(),
        pick: !pick.ops.is_empty(),
        response: !response.ops.is_empty(),
        call_words: usize::from(words),
        ..Plan::default()
    };
    image.request = request;
    image.pick = pick;
    image.response = response;
    image
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
            | Op::Healthy { .. }
            | Op::Sample { .. }
            | Op::List { .. }
            | Op::StrFn { .. }
            | Op::TextStart
            | Op::Delay { .. }
    )
}

/// A program's services as texts see them.
pub(crate) fn service_texts(services: &[abi::Service]) -> Arc<[ServiceText]> {
    services
        .iter()
        .map(|service| ServiceText {
            name: service.name.clone(),
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

/// Gives every link its words.
fn layouts(
    links: &[Link],
    services: &[abi::Service],
    registry: &mut Registry,
    sources: &Sources,
    errors: &mut Vec<Diagnostic>,
    shared: &mut Shared,
    pools: &mut Pools,
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
        let mut layout = Layout::default();
        let used: Vec<u16> = link.element.handlers.iter().flat_map(|h| visit::call_params(&h.body)).collect();
        for (index, (param, arg)) in link.element.params.iter().zip(&link.args).enumerate() {
            let folded = Builder::new(shared, pools, registry, sources, services, errors, link).fold(arg);
            let is_used = u16::try_from(index).is_ok_and(|i| used.contains(&i));
            layout.params.push(match folded {
                Some(value) => ParamAt::Const(value),
                None if !param.is_call => {
                    errors.push(
                        Diagnostic::error(arg.span, format!("`{}` must be constant", param.name))
                            .label("expected a constant"),
                    );
                    ParamAt::Unused
                }
                None if is_used => {
                    if matches!(arg.ty.bare(), Ty::List(_) | Ty::Map(..)) {
                        errors.push(Diagnostic::unsupported(arg.span, "a list as call-parameter"));
                    }
                    keeps |= matches!(arg.ty.bare(), Ty::Str | Ty::Bytes);
                    ParamAt::Word(slot(&mut next, arg.ty.is_opt()))
                }
                None => ParamAt::Unused,
            });
        }
        for state in &link.element.states {
            layout.states.push(slot(&mut next, state.ty.is_opt()));
        }
        let request = handler(link, HandlerKind::Request);
        layout.is_pick = request.is_some_and(visit::only_chooses)
            && !later_chooses.get(at).copied().unwrap_or(false)
            && !link.dry;
        let elsewhere = layout.is_pick || handler(link, HandlerKind::Response).is_some();
        if link.when.is_some() && elsewhere {
            layout.when = Some(slot(&mut next, false).word);
        }
        layouts.push(layout);
    }
    shared.keeps = keeps;
    let words = if next == 1 && !keeps { 0 } else { next };
    (layouts, words)
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
        self.block(body);
        let returns = std::mem::take(&mut self.returns);
        self.land(&returns);
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

fn request<'a>(mut b: Builder<'a>, links: &'a [Link], layouts: &[Layout]) -> Code {
    for (at, (link, layout)) in links.iter().zip(layouts).enumerate() {
        b.enter(link, at, layout);
        let before = b.code.ops.len();
        let body = handler(link, HandlerKind::Request).filter(|_| !layout.is_pick);
        let draws = body.is_some_and(visit::block_draws)
            || link.args.iter().chain(&link.when).any(visit::draws)
            || link.element.states.iter().any(|s| visit::draws(&s.init));
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
        let mut keeps = false;
        for (arg, place) in link.args.iter().zip(&layout.params) {
            if let ParamAt::Word(slot) = place {
                b.in_argument = true;
                let value = b.expr(arg);
                b.in_argument = false;
                b.store_slot(*slot, &value);
                keeps |= matches!(arg.ty.bare(), Ty::Str | Ty::Bytes);
                b.next = 0;
            }
        }
        if keeps {
            b.emit(Op::Keep);
        }
        for (state, slot) in link.element.states.iter().zip(&layout.states) {
            let value = b.expr(&state.init);
            // Words are zero when a passage starts.
            if !matches!(value, Val::Const(Const::Word(0) | Const::None)) {
                b.store_slot(*slot, &value);
            }
            b.next = 0;
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
    b.code
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

fn response<'a>(mut b: Builder<'a>, links: &'a [Link], layouts: &[Layout]) -> Code {
    b.in_response = true;
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
    b.code
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
