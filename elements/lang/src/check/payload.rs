//! Typed paths into messages: `call.payload.user.id`, `e.sku`, `call.request.payload.user`.
//!
//! What a path is depends on the methods of the chain an element stands in. An element is checked once by
//! itself, where every path is taken for granted, and once more for each set of methods it meets
//! ([`Coverage`]); the second time decides.

use std::rc::Rc;

use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};

use crate::ast::{Expr, HandlerKind, Ident};
use crate::diag::Diagnostic;
use crate::hir::{End, HExpr, HKind, HPlace, Leg, Path, Root, Written};
use crate::schema::{Coverage, Direction, Method};
use crate::source::Span;
use crate::ty::Ty;
use crate::vm::message::ITEMS_MAX;
use crate::vm::rewrite::PICKS_MAX;

use super::{Checker, Context};

/// Methods that one error names.
const NAMED_MAX: usize = 3;

impl Checker<'_> {
    /// The direction whose message `call.payload` is here, and whether that side must be unary.
    fn own_direction(&self) -> (Direction, bool) {
        match self.context {
            Context::Handler(HandlerKind::Response) => (Direction::Response, true),
            Context::Handler(HandlerKind::ResponseMessage) => (Direction::Response, false),
            Context::Handler(HandlerKind::RequestMessage) => (Direction::Request, false),
            _ => (Direction::Request, true),
        }
    }

    /// `call.payload`, or with `is_kept` `call.request.payload`.
    pub(super) fn payload(&mut self, is_kept: bool, span: Span) -> HExpr {
        let (direction, is_unary) = if is_kept { (Direction::Request, true) } else { self.own_direction() };
        self.mark_payload();
        let root = if is_kept { Root::Kept } else { Root::Call(direction) };
        let Some(coverage) = self.coverage else { return unknown(span) };
        let ends = coverage
            .methods
            .iter()
            .map(|m| {
                let streams = is_unary && m.streams(direction);
                let end = if streams { End::Nothing } else { End::Message(m.message(direction).clone()) };
                (Some(m.clone()), end)
            })
            .collect();
        let path = Path {
            root,
            needs_unary: is_unary,
            is_lenient: false,
            steps: Vec::new(),
            key: None,
            ends,
            is_optional: is_kept,
            items_max: ITEMS_MAX,
        };
        HExpr { kind: HKind::Payload(Box::new(path)), ty: Ty::Payload, span }
    }

    /// `call.payload` as a value: the bytes of the whole message, or where one is wanted the message.
    pub(super) fn whole_payload(&mut self, value: HExpr, want: Option<&Ty>) -> HExpr {
        let HKind::Payload(path) = &value.kind else { return value };
        if matches!(path.root, Root::Kept) {
            return self.wrong(
                Diagnostic::error(value.span, "the request's message is not kept whole")
                    .label("expected a field of it, as in `call.request.payload.user`"),
            );
        }
        let (direction, is_unary) = self.own_direction();
        if is_unary && !self.all_unary(direction, "call.payload", value.span) {
            return unknown(value.span);
        }
        let ty = match want.map(Ty::bare) {
            Some(Ty::Message(_) | Ty::AnyMessage) => match path.ends.split_first() {
                Some(((_, End::Message(first)), rest)) if rest.iter().all(|(_, end)| end.is(first)) => {
                    Ty::Message(first.clone())
                }
                Some(_) => Ty::AnyMessage,
                None => Ty::Bytes,
            },
            _ => Ty::Bytes,
        };
        HExpr { kind: HKind::WholePayload, ty, span: value.span }
    }

    /// `call.size`.
    pub(super) fn size(&mut self, span: Span) -> HExpr {
        let (direction, is_unary) = self.own_direction();
        let size = HExpr { kind: HKind::Num(abi::Num::Size), ty: Ty::Uint, span };
        if !is_unary {
            return size;
        }
        self.mark_payload();
        if self.all_unary(direction, "call.size", span) { size } else { unknown(span) }
    }

    /// Says so if not every method is known to be unary on this side.
    fn all_unary(&mut self, direction: Direction, what: &str, span: Span) -> bool {
        let Some(coverage) = self.coverage else { return true };
        let streaming: Vec<&Method> =
            coverage.methods.iter().filter(|m| m.streams(direction)).map(|m| &**m).collect();
        if !streaming.is_empty() {
            let error = streams_error(what, direction, &streaming, span);
            self.error(error);
            return false;
        }
        if coverage.methods.is_empty() && !coverage.is_unary {
            let error = unknown_methods(coverage, what, span);
            self.error(error);
            return false;
        }
        true
    }

    /// A field of a message: the next step of a path.
    pub(super) fn payload_field(&mut self, of: HExpr, name: &Ident, is_lenient: bool, span: Span) -> HExpr {
        let mut path = match of.kind {
            HKind::Payload(path) if path.key.is_none() => *path,
            kind => {
                let of = HExpr { kind, ..of };
                let Ty::Message(message) = of.ty.bare() else { return unknown(span) };
                let ends = vec![(None, End::Message(message.clone()))];
                let is_optional = of.ty.is_opt();
                let root = Root::Value(Box::new(of));
                Path {
                    root,
                    needs_unary: false,
                    is_lenient: false,
                    steps: Vec::new(),
                    key: None,
                    ends,
                    is_optional,
                    items_max: ITEMS_MAX,
                }
            }
        };
        if path.steps.is_empty() && !matches!(path.root, Root::Value(_)) {
            path.is_lenient = is_lenient;
            path.is_optional |= is_lenient;
            if let Some(error) = self.unusable(&path, span) {
                return self.wrong(error);
            }
        } else if is_lenient {
            return self.wrong(
                Diagnostic::error(name.span, "`?.` stands right after `payload` only")
                    .label("expected `.`: a field through an absent message is absent"),
            );
        }
        let mut missing: Vec<(String, MessageDescriptor)> = Vec::new();
        for (method, end) in &mut path.ends {
            let next = match &*end {
                End::Nothing => End::Nothing,
                End::Field(_) => End::Nothing,
                End::Message(message) => match message.get_field_by_name(&name.text) {
                    Some(field) => {
                        path.is_optional |= field.supports_presence() && !field.is_list() && !field.is_map();
                        match field.kind() {
                            Kind::Message(inner) if !field.is_list() && !field.is_map() => {
                                End::Message(inner)
                            }
                            _ => End::Field(field),
                        }
                    }
                    None => {
                        let named = method.as_ref().map_or(String::new(), |m| m.path());
                        missing.push((named, message.clone()));
                        End::Nothing
                    }
                },
            };
            *end = next;
        }
        path.steps.push(name.text.as_str().into());
        if !missing.is_empty() && !path.is_lenient {
            let error = missing_field(&path, name, &missing);
            return self.wrong(error);
        }
        if let Some(group) = path.ends.iter().find_map(|(_, end)| end.group()) {
            let what = format!("the group `{}`", group.name());
            return self.wrong(Diagnostic::unsupported(name.span, &what));
        }
        self.typed(path, span)
    }

    /// What makes a path useless from the start.
    fn unusable(&self, path: &Path, span: Span) -> Option<Diagnostic> {
        let coverage = self.coverage?;
        let direction = match &path.root {
            Root::Call(direction) => *direction,
            Root::Kept => Direction::Request,
            Root::Value(_) => return None,
        };
        let what = if matches!(path.root, Root::Kept) { "call.request.payload" } else { "call.payload" };
        if coverage.methods.is_empty() {
            return Some(unknown_methods(coverage, what, span));
        }
        let streaming: Vec<&Method> = coverage
            .methods
            .iter()
            .filter(|m| path.needs_unary && m.streams(direction))
            .map(|m| &**m)
            .collect();
        let is_useless = !path.is_lenient && !streaming.is_empty();
        is_useless.then(|| streams_error(what, direction, &streaming, span))
    }

    /// The path as an expression: its type must be the same in every method.
    fn typed(&mut self, path: Path, span: Span) -> HExpr {
        let mut first: Option<(&Option<Rc<Method>>, Ty)> = None;
        for (method, end) in &path.ends {
            let Some(ty) = end.ty() else { continue };
            match &first {
                None => first = Some((method, ty)),
                Some((_, known)) if *known == ty => {}
                // Messages of several types may be walked through, not held.
                Some((_, Ty::Message(_) | Ty::AnyMessage)) if matches!(ty, Ty::Message(_)) => {
                    first = Some((method, Ty::AnyMessage));
                }
                Some((other, known)) => {
                    let name = |m: &Option<Rc<Method>>| m.as_ref().map_or(String::new(), |m| m.path());
                    let error = Diagnostic::error(
                        span,
                        format!(
                            "`{}` is {known} in {} and {ty} in {}",
                            path.text(),
                            name(other),
                            name(method)
                        ),
                    )
                    .label("expected one type in every method of the chain")
                    .help("give the methods rules of their own");
                    return self.wrong(error);
                }
            }
        }
        // In no method: absent, whatever it would be.
        let Some((_, ty)) = first else {
            let (kind, ty) = (HKind::Payload(Box::new(path)), Ty::Opt(Box::new(Ty::Error)));
            return HExpr { kind, ty, span };
        };
        let ty = match ty {
            // What does not fit is not kept.
            all @ (Ty::List(_) | Ty::Map(..)) if matches!(path.root, Root::Kept) => all.opt(),
            list @ (Ty::List(_) | Ty::Map(..)) => list,
            other if path.is_optional => other.opt(),
            other => other,
        };
        HExpr { kind: HKind::Payload(Box::new(path)), ty, span }
    }

    /// A part of the message at hand as a place to write to.
    pub(super) fn payload_place(&mut self, target: &HExpr) -> Option<HPlace> {
        let error = |text: &str| Diagnostic::error(target.span, text);
        let wrong = match written(target) {
            Ok(written) if written.picks().count() > PICKS_MAX => {
                error("this is too deep").label(format!("expected at most {PICKS_MAX} lists and maps"))
            }
            Ok(written) => return Some(HPlace::Payload(Box::new(written), target.ty.clone())),
            Err(Some(Root::Kept)) => error("the request has left").label("read-only in `response`"),
            Err(_) => error("this message is a value")
                .label("cannot be assigned")
                .help("write the whole path, as in `call.payload.user.name = …`"),
        };
        self.error(wrong);
        None
    }

    /// A message for `call.payload = …`: it must be that of every method.
    pub(super) fn whole_message(&mut self, value: HExpr) -> HExpr {
        let Ty::Message(message) = &value.ty else { return self.coerce(value, &Ty::Bytes) };
        let (direction, _) = self.own_direction();
        let methods = self.coverage.map_or(&[][..], |c| &c.methods);
        let other = methods.iter().find(|m| m.message(direction) != message);
        if let Some(method) = other {
            let wanted = method.message(direction).full_name();
            let error = Diagnostic::error(value.span, format!("{} has a {wanted} here", method.path()))
                .label(format!("this is {}", message.full_name()));
            return self.wrong(error);
        }
        HExpr { ty: Ty::Bytes, ..value }
    }

    /// `call.payload.labels["k"]`.
    pub(super) fn payload_entry(&mut self, of: HExpr, key: &Expr, span: Span) -> HExpr {
        if of.ty.is_nothing() {
            return of;
        }
        let (HKind::Payload(path), Ty::Map(key_ty, value)) = (of.kind, of.ty.bare().clone()) else {
            return unknown(span);
        };
        let key = self.expr(key, Some(&key_ty));
        let key = self.coerce(key, &key_ty);
        let path = Path { key: Some(key), is_optional: true, ..*path };
        HExpr { kind: HKind::Payload(Box::new(path)), ty: value.opt(), span }
    }
}

/// The place within the message at hand that an expression names; else where it begins.
fn written(e: &HExpr) -> Result<Written, Option<&Root>> {
    match &e.kind {
        HKind::Payload(path) => {
            let mut written = match &path.root {
                Root::Call(_) => Written { path: Path { key: None, ..(**path).clone() }, legs: Vec::new() },
                Root::Value(of) => {
                    let mut written = written(of)?;
                    written.legs.extend(path.steps.iter().cloned().map(Leg::Field));
                    written
                }
                Root::Kept => return Err(Some(&path.root)),
            };
            written.legs.extend(path.key.iter().cloned().map(Leg::Pick));
            Ok(written)
        }
        HKind::Index(of, at) => {
            let mut written = written(of)?;
            written.legs.push(Leg::Pick((**at).clone()));
            Ok(written)
        }
        _ => Err(None),
    }
}

impl End {
    fn is(&self, message: &MessageDescriptor) -> bool {
        matches!(self, Self::Message(own) if own == message)
    }

    /// Its type; a message that is no longer there has none.
    fn ty(&self) -> Option<Ty> {
        match self {
            Self::Nothing => None,
            Self::Message(message) => Some(Ty::Message(message.clone())),
            Self::Field(field) if field.is_map() => {
                let Kind::Message(entry) = field.kind() else { return None };
                let value = kind_ty(&entry.map_entry_value_field().kind());
                Some(Ty::Map(Box::new(kind_ty(&entry.map_entry_key_field().kind())), Box::new(value)))
            }
            Self::Field(field) if field.is_list() => Some(Ty::List(Box::new(kind_ty(&field.kind())))),
            Self::Field(field) => Some(kind_ty(&field.kind())),
        }
    }

    fn group(&self) -> Option<&FieldDescriptor> {
        match self {
            Self::Field(field) if field.is_group() => Some(field),
            _ => None,
        }
    }
}

/// The language's type of a proto's.
pub(super) fn kind_ty(kind: &Kind) -> Ty {
    match kind {
        Kind::Double | Kind::Float => Ty::Float,
        Kind::Int32 | Kind::Int64 | Kind::Sint32 | Kind::Sint64 | Kind::Sfixed32 | Kind::Sfixed64 => Ty::Int,
        Kind::Uint32 | Kind::Uint64 | Kind::Fixed32 | Kind::Fixed64 => Ty::Uint,
        Kind::Bool => Ty::Bool,
        Kind::String => Ty::Str,
        Kind::Bytes => Ty::Bytes,
        Kind::Message(message) => Ty::Message(message.clone()),
        Kind::Enum(of) => Ty::ProtoEnum(of.clone()),
    }
}

fn unknown(span: Span) -> HExpr {
    HExpr { kind: HKind::Error, ty: Ty::Error, span }
}

fn listed(names: impl Iterator<Item = String>) -> String {
    let mut names: Vec<String> = names.collect();
    let more = names.len().saturating_sub(NAMED_MAX);
    names.truncate(NAMED_MAX);
    let list = names.join(", ");
    if more > 0 { format!("{list} and {more} more") } else { list }
}

fn streams_error(what: &str, direction: Direction, methods: &[&Method], span: Span) -> Diagnostic {
    let (side, handler) = match direction {
        Direction::Request => ("requests", "request message"),
        Direction::Response => ("answers", "response message"),
    };
    let list = listed(methods.iter().map(|m| m.path()));
    Diagnostic::error(span, format!("{list} streams its {side}"))
        .label(format!("`{what}` means the one message of a unary side"))
        .help(format!("use `{handler}`, or name the methods in the rule"))
}

fn unknown_methods(coverage: &Coverage, what: &str, span: Span) -> Diagnostic {
    let error = Diagnostic::error(span, format!("nothing says what the messages of {} are", coverage.named))
        .label(format!("`{what}` needs to know"));
    match &coverage.near {
        Some(near) => error.help(format!("the proto has no such method; did you mean `{near}`?")),
        None if what == "call.size" => error.help(
            "name their proto: `proto \"x.proto\"`, or say at the service that they are unary: `unary: true`",
        ),
        None => error.help("name their proto: `proto \"x.proto\"`"),
    }
}

fn missing_field(path: &Path, name: &Ident, missing: &[(String, MessageDescriptor)]) -> Diagnostic {
    let types = {
        let mut types: Vec<String> = missing.iter().map(|(_, m)| m.full_name().to_owned()).collect();
        types.sort();
        types.dedup();
        listed(types.into_iter())
    };
    let mut error = Diagnostic::error(name.span, format!("{types} has no field `{}`", name.text));
    if !matches!(path.root, Root::Value(_)) {
        error = error.label(format!("missing in {}", listed(missing.iter().map(|(m, _)| m.clone()))));
    }
    let known: Vec<String> = missing
        .iter()
        .flat_map(|(_, m)| m.fields().map(|f| f.name().to_owned()).collect::<Vec<_>>())
        .collect();
    let near = crate::suggest::nearest(&name.text, known.iter().map(String::as_str));
    let is_rooted = !matches!(path.root, Root::Value(_)) && path.ends.len() > 1;
    match near {
        Some(near) => error.help(format!("did you mean `{near}`?")),
        None if is_rooted => error.help(format!(
            "`payload?.{}` is None there; or name the methods in the rule; or read a field they all have",
            path.steps.join(".")
        )),
        None if known.is_empty() => error.help("the message has no fields"),
        None => error.help(format!("it has {}", listed(known.into_iter()))),
    }
}
