//! The boundaries of a chain: which elements see the messages of a direction plain.
//!
//! Each direction is walked in the order its handlers run, request left to right, response right to left.
//! Messages are opened at most once and then sealed at most once; whoever reads them stands between the two.

use std::rc::Rc;

use abi::Boundary;

use crate::ast::HandlerKind;
use crate::diag::Diagnostic;
use crate::hir::{Const, Effect, HBlock, HExpr, HKind, HPlace, HStmt, Root, State, boundary_name};
use crate::schema::Direction;
use crate::source::Span;

use super::build::ParamAt;
use super::visit::{self, Node};
use super::{Layout, Link, Registry, handler};

/// Bytes of a key's name.
pub(crate) const KEY_NAME_MAX: usize = 64;

/// What a direction meets on its way.
enum Event {
    Mark(Mark),
    /// Reads or writes a message, or its size: the place, and what.
    Use(Span, String),
}

#[derive(Clone)]
struct Mark {
    opens: bool,
    key: HExpr,
    span: Span,
    link: usize,
}

/// Finds and checks the boundaries of both directions.
pub(super) fn of(
    links: &[Link],
    layouts: &[Layout],
    registry: &mut Registry,
    errors: &mut Vec<Diagnostic>,
) -> (Boundary, Boundary) {
    let towards = [Direction::Request, Direction::Response];
    if !towards.iter().any(|d| links.iter().any(|link| has_mark(link, *d))) {
        return Default::default();
    }
    let errors_before = errors.len();
    let [request, response] = &towards.map(|direction| Way::walk(links, direction, errors));
    // The answer is sealed with what the request said of itself.
    let pairs = [(&response.seals, &request.opens, "opened"), (&response.opens, &request.seals, "sealed")];
    for (answer, asked, wanted) in pairs {
        if let (Some(mark), None, true) = (answer, asked, errors.len() == errors_before) {
            let error = Diagnostic::error(mark.span, "the answer is sealed under the call its request names")
                .label(format!("expected that this chain's requests are {wanted}, too"));
            errors.push(error.help(format!("write `{}(…)` in `request`", boundary_name(!mark.opens))));
        }
    }
    let mut key = |mark: &Option<Mark>| {
        let mark = mark.as_ref()?;
        let (name, span) = named(mark, links.get(mark.link)?, layouts.get(mark.link)?)?;
        if !is_key_name(&name) {
            errors.push(
                Diagnostic::error(span, "this is no name for a key")
                    .label(format!("expected letters, digits, `_`, `.`, `-`, at most {KEY_NAME_MAX}")),
            );
        }
        Some(registry.key(&name, span))
    };
    let [request, response] =
        [request, response].map(|way| Boundary { opens: key(&way.opens), seals: key(&way.seals) });
    (request, response)
}

/// The key a boundary names, and where it is named: in the element, or as the argument of its link.
fn named(mark: &Mark, link: &Link, layout: &Layout) -> Option<(Rc<str>, Span)> {
    match &mark.key.kind {
        HKind::Const(Const::Str(name)) => Some((name.clone(), mark.key.span)),
        HKind::Param(at) => match layout.params.get(usize::from(*at))? {
            ParamAt::Const(Const::Str(name)) => {
                Some((name.clone(), link.args.get(usize::from(*at)).map_or(link.span, |arg| arg.span)))
            }
            _ => None,
        },
        _ => None,
    }
}

/// Names of keys are names in `node.toml`.
pub(crate) fn is_key_name(text: &str) -> bool {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
    !text.is_empty() && text.len() <= KEY_NAME_MAX && text.bytes().all(fits)
}

fn handler_kind(direction: Direction) -> (HandlerKind, HandlerKind) {
    match direction {
        Direction::Request => (HandlerKind::Request, HandlerKind::RequestMessage),
        Direction::Response => (HandlerKind::Response, HandlerKind::ResponseMessage),
    }
}

fn mark_of(stmt: &HStmt) -> Option<(bool, &HExpr, Span)> {
    match stmt {
        HStmt::Expr(HExpr { kind: HKind::Effect(Effect::Boundary { opens, key }), span, .. }) => {
            Some((*opens, key, *span))
        }
        _ => None,
    }
}

fn has_mark(link: &Link, direction: Direction) -> bool {
    handler(link, handler_kind(direction).0).is_some_and(|b| b.stmts.iter().any(|s| mark_of(s).is_some()))
}

/// One direction.
struct Way {
    opens: Option<Mark>,
    seals: Option<Mark>,
}

impl Way {
    fn walk(links: &[Link], direction: Direction, errors: &mut Vec<Diagnostic>) -> Self {
        let mut events = Vec::new();
        let places: Vec<usize> = match direction {
            Direction::Request => (0..links.len()).collect(),
            Direction::Response => (0..links.len()).rev().collect(),
        };
        for at in places {
            if let Some(link) = links.get(at) {
                meet(link, at, direction, &mut events);
                if has_mark(link, direction) {
                    unconditional(link, errors);
                }
            }
        }
        let mut way = Self { opens: None, seals: None };
        for event in &events {
            if let Event::Mark(mark) = event {
                way.add(mark, errors);
            }
        }
        way.check_uses(&events, errors);
        way
    }

    fn add(&mut self, mark: &Mark, errors: &mut Vec<Diagnostic>) {
        let (before, what) = match (mark.opens, &self.opens, &self.seals) {
            (true, None, None) => {
                self.opens = Some(mark.clone());
                return;
            }
            (false, _, None) => {
                self.seals = Some(mark.clone());
                return;
            }
            (true, _, Some(seals)) => (seals, "messages are opened on the node that seals them"),
            (true, Some(opens), None) => (opens, "messages are opened twice"),
            (false, _, Some(seals)) => (seals, "messages are sealed twice"),
        };
        errors.push(
            Diagnostic::error(mark.span, what)
                .label("expected one `decrypt`, then one `encrypt`, in each direction of a chain")
                .also(before.span, "the first one"),
        );
    }

    /// Whoever uses a message stands behind the opening and before the sealing.
    fn check_uses(&self, events: &[Event], errors: &mut Vec<Diagnostic>) {
        let mut is_opened = self.opens.is_none();
        let mut is_sealed = false;
        for event in events {
            let (mark, side) = match event {
                Event::Mark(mark) if mark.opens => {
                    is_opened = true;
                    continue;
                }
                Event::Mark(_) => {
                    is_sealed = true;
                    continue;
                }
                Event::Use(..) if is_sealed => (&self.seals, "behind"),
                Event::Use(..) if !is_opened => (&self.opens, "before"),
                Event::Use(..) => continue,
            };
            let (Event::Use(span, what), Some(mark)) = (event, mark) else { continue };
            let name = boundary_name(mark.opens);
            errors.push(
                Diagnostic::error(*span, format!("`{what}` is sealed here: this runs {side} `{name}`"))
                    .label("no element beyond the boundary sees the message")
                    .also(mark.span, format!("the `{name}`"))
                    .help("`request` runs from left to right, `response` from right to left"),
            );
        }
    }
}

/// A link with a boundary holds for every call.
fn unconditional(link: &Link, errors: &mut Vec<Diagnostic>) {
    let (span, word) = match &link.when {
        Some(when) => (when.span, "when"),
        None if link.dry => (link.span, "dry"),
        None => return,
    };
    errors.push(
        Diagnostic::error(
            span,
            format!("{} seals or opens messages: it takes no `{word}`", link.element.name),
        )
        .label("the node at the other end could not know which messages are sealed")
        .help("choose by rules which calls it is for"),
    );
}

/// What a direction meets at one link: its arguments, its handler, its message handler.
fn meet(link: &Link, at: usize, direction: Direction, events: &mut Vec<Event>) {
    let (whole, each) = handler_kind(direction);
    if direction == Direction::Request {
        let values = link.args.iter().chain(&link.when);
        for e in values.chain(link.element.states.iter().filter_map(State::value)) {
            visit::expr(e, &mut |node| events.extend(message_use(&node, direction, true)));
        }
        // What the response keeps of the request is taken as the request comes to the element.
        for kind in [HandlerKind::Response, HandlerKind::ResponseMessage] {
            let mut kept = Vec::new();
            if let Some(body) = handler(link, kind) {
                visit::kept(body, &mut kept);
            }
            events.extend(kept.into_iter().map(|(path, e)| Event::Use(e.span, path.text())));
        }
    }
    let mut body = |body: &HBlock| {
        for stmt in &body.stmts {
            if let Some((opens, key, at_stmt)) = mark_of(stmt) {
                // What a user wrote: the link, if the element is not the user's.
                let span = if link.element.is_std { link.span } else { at_stmt };
                events.push(Event::Mark(Mark { opens, key: key.clone(), span, link: at }));
            } else {
                visit::stmt(stmt, &mut |node| events.extend(message_use(&node, direction, false)));
            }
        }
    };
    handler(link, whole).into_iter().chain(handler(link, each)).for_each(&mut body);
}

/// A node reads or writes the message at hand. An argument is read in the request, wherever it is used.
fn message_use(node: &Node<'_>, direction: Direction, is_argument: bool) -> Option<Event> {
    let found = |span: Span, what: &str| Some(Event::Use(span, what.to_owned()));
    match node {
        Node::Expr(HExpr { kind: HKind::Payload(path), span, .. }) => match &path.root {
            Root::Call(of) if *of == direction || is_argument => found(*span, &path.text()),
            _ => None,
        },
        Node::Expr(HExpr { kind: HKind::WholePayload, span, .. }) => found(*span, "call.payload"),
        Node::Expr(HExpr { kind: HKind::Num(abi::Num::Size), span, .. }) => found(*span, "call.size"),
        Node::Stmt(HStmt::Assign(HPlace::Payload(written, _), value)) => {
            found(value.span, &written.path.text())
        }
        Node::Stmt(HStmt::Assign(HPlace::WholePayload, value)) => found(value.span, "call.payload"),
        _ => None,
    }
}
