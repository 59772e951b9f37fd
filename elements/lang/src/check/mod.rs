//! Names and types: the parser's tree to the typed tree of `hir`.
//!
//! An element is checked once, with its parameters open. Errors are collected and the walk goes on with
//! [`Ty::Error`], which agrees with everything, so that one slip is told once.

mod boundary;
mod call;
mod element;
mod expr;
mod func;
mod message;
mod payload;
pub(crate) mod state;
pub(crate) mod step;
mod stmt;

use std::cell::Cell;

use prost_reflect::DescriptorPool;

#[cfg(test)]
pub(crate) use element::TYPES;
#[cfg(test)]
pub(crate) use func::{EFFECTS, FUNCS};

pub(crate) use expr::no_share;
pub(crate) use stmt::is_read_only;

use crate::ast::HandlerKind;
use crate::diag::Diagnostic;
use crate::hir::{Const, HExpr, HKind, LocalId, Param, State};
use crate::schema::Coverage;
use crate::source::Span;
use crate::ty::Ty;

/// Where an expression stands, which decides what it may name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Context {
    /// A value known when compiling: a parameter that is not a call-parameter, a default.
    Constant,
    /// A call-parameter or a `when`: `call` as `request` sees it.
    CallParam,
    Handler(HandlerKind),
}

struct Local {
    name: String,
    id: LocalId,
    ty: Ty,
}

/// Checks one element, or the arguments of one link.
pub(crate) struct Checker<'a> {
    services: &'a [String],
    errors: &'a mut Vec<Diagnostic>,
    context: Context,
    params: Vec<Param>,
    states: Vec<State>,
    /// The names in sight are those of a state's first value.
    in_init: bool,
    scopes: Vec<Vec<Local>>,
    locals: LocalId,
    /// The methods of the chain; None while the element is checked by itself.
    coverage: Option<&'a Coverage>,
    uses_payload: Option<&'a Cell<bool>>,
    /// The types of the link's arguments, which say what a `message` is.
    given: &'a [Ty],
    /// The types of the application's protos.
    pool: Option<&'a DescriptorPool>,
}

impl<'a> Checker<'a> {
    /// `services` are the names of the file's services, by index.
    pub(crate) fn new(services: &'a [String], errors: &'a mut Vec<Diagnostic>, context: Context) -> Self {
        Self {
            services,
            errors,
            context,
            params: Vec::new(),
            states: Vec::new(),
            in_init: false,
            scopes: Vec::new(),
            locals: 0,
            coverage: None,
            uses_payload: None,
            given: &[],
            pool: None,
        }
    }

    /// With the types of these protos.
    #[must_use]
    pub(crate) fn with_types(mut self, pool: &'a DescriptorPool) -> Self {
        self.pool = Some(pool);
        self
    }

    /// In a chain that covers these methods.
    #[must_use]
    pub(crate) fn covering(mut self, coverage: Option<&'a Coverage>) -> Self {
        self.coverage = coverage;
        self
    }

    /// With arguments of these types.
    #[must_use]
    pub(crate) fn given(mut self, types: &'a [Ty]) -> Self {
        self.given = types;
        self
    }

    /// Says in `uses` whether what is checked depends on the methods.
    #[must_use]
    pub(crate) fn noting(mut self, uses: &'a Cell<bool>) -> Self {
        self.uses_payload = Some(uses);
        self
    }

    fn mark_payload(&self) {
        if let Some(uses) = self.uses_payload {
            uses.set(true);
        }
    }

    fn error(&mut self, error: Diagnostic) {
        self.errors.push(error);
    }

    fn wrong(&mut self, error: Diagnostic) -> HExpr {
        let span = error.span;
        self.errors.push(error);
        HExpr { kind: HKind::Error, ty: Ty::Error, span }
    }

    fn bind(&mut self, name: &str, ty: Ty) -> LocalId {
        let id = self.locals;
        self.locals = self.locals.saturating_add(1);
        if let Some(scope) = self.scopes.last_mut() {
            scope.push(Local { name: name.to_owned(), id, ty });
        }
        id
    }

    fn local(&self, name: &str) -> Option<&Local> {
        self.scopes.iter().rev().flat_map(|s| s.iter().rev()).find(|l| l.name == name)
    }

    /// In request context: what a call-parameter sees.
    fn is_response(&self) -> bool {
        matches!(self.context, Context::Handler(HandlerKind::Response | HandlerKind::ResponseMessage))
    }

    fn has_call(&self) -> bool {
        self.context != Context::Constant
    }

    /// Makes `value` a `want`, or says why it is none.
    pub(crate) fn coerce(&mut self, value: HExpr, want: &Ty) -> HExpr {
        match self.try_coerce(value, want) {
            Ok(value) => value,
            Err(value) => {
                let error = Diagnostic::error(value.span, format!("expected {want}, found {}", value.ty))
                    .label(format!("this is {}", value.ty));
                let error = match hint(&value.ty, want) {
                    Some(hint) => error.help(hint),
                    None => error,
                };
                self.wrong(error)
            }
        }
    }

    fn try_coerce(&mut self, value: HExpr, want: &Ty) -> Result<HExpr, Box<HExpr>> {
        let span = value.span;
        if value.ty == *want || value.ty.is_error() || want.is_error() || value.ty == Ty::Never {
            return Ok(value);
        }
        if want.is_nothing() {
            return Ok(value);
        }
        let node = |kind| Ok(HExpr { kind, ty: want.clone(), span });
        match (&value.ty, want) {
            (_, Ty::Opt(_)) if value.ty == Ty::NoneLit || value.ty.is_nothing() => {
                node(HKind::Const(Const::None))
            }
            // A message keeps the type it has.
            (Ty::Message(_), Ty::AnyMessage) => Ok(value),
            (Ty::Opt(inner), Ty::Opt(any))
                if **any == Ty::AnyMessage && matches!(**inner, Ty::Message(_)) =>
            {
                Ok(value)
            }
            (_, Ty::Opt(inner)) if !value.ty.is_opt() => {
                let inner = self.try_coerce(value, inner)?;
                let ty = if *want.bare() == Ty::AnyMessage { inner.ty.clone().opt() } else { want.clone() };
                Ok(HExpr { kind: HKind::Wrap(Box::new(inner)), ty, span })
            }
            (Ty::Num, Ty::Int | Ty::Uint | Ty::Float) => Ok(self.number(value, want)),
            (Ty::Int | Ty::Uint, Ty::Float) => node(HKind::Widen(Box::new(value))),
            // Items of a type that is not known here: of a message.
            (Ty::List(_), Ty::List(item)) if item.is_error() => Ok(value),
            (Ty::List(_), Ty::List(item)) => match value.kind {
                HKind::List(items) => {
                    let items = items.into_iter().map(|i| self.coerce(i, item)).collect();
                    node(HKind::List(items))
                }
                _ => Err(Box::new(value)),
            },
            (Ty::Map(..), Ty::Map(key, of)) => match value.kind {
                HKind::Map(items) => {
                    let items =
                        items.into_iter().map(|(k, v)| (self.coerce(k, key), self.coerce(v, of))).collect();
                    node(HKind::Map(items))
                }
                _ => Err(Box::new(value)),
            },
            _ => Err(Box::new(value)),
        }
    }

    /// An integer literal, possibly behind a minus, as the number type its neighbours want.
    fn number(&mut self, value: HExpr, want: &Ty) -> HExpr {
        let span = value.span;
        let (negative, n) = match &value.kind {
            HKind::Const(Const::Word(n)) => (false, *n),
            HKind::Neg(inner) => match &inner.kind {
                HKind::Const(Const::Word(n)) => (true, *n),
                _ => return self.retype(value, want),
            },
            _ => return self.retype(value, want),
        };
        let word = match want {
            Ty::Float => (if negative { -(n as f64) } else { n as f64 }).to_bits(),
            Ty::Uint if negative && n > 0 => {
                let error = Diagnostic::error(span, "a uint is never negative");
                return self.wrong(error.label("expected 0 or more"));
            }
            Ty::Int => {
                let Ok(n) = i64::try_from(n) else {
                    return self.wrong(Diagnostic::error(span, "too large for an int"));
                };
                if negative { n.wrapping_neg().cast_unsigned() } else { n.cast_unsigned() }
            }
            _ => n,
        };
        HExpr { kind: HKind::Const(Const::Word(word)), ty: want.clone(), span }
    }

    /// A computation of integer literals: the same computation in another type.
    fn retype(&mut self, value: HExpr, want: &Ty) -> HExpr {
        let span = value.span;
        let mut again = |inner: Box<HExpr>| Box::new(self.coerce(*inner, want));
        let kind = match value.kind {
            HKind::Bin(op, left, right) => HKind::Bin(op, again(left), again(right)),
            HKind::Neg(inner) => HKind::Neg(again(inner)),
            other => other,
        };
        HExpr { kind, ty: want.clone(), span }
    }

    /// A literal that nothing has given a type: a uint, or an int if it is negative.
    fn settle(&mut self, value: HExpr) -> HExpr {
        match value.ty {
            Ty::Num => {
                let want = if is_negated(&value) { Ty::Int } else { Ty::Uint };
                self.coerce(value, &want)
            }
            _ => value,
        }
    }
}

/// A minus stands somewhere in a computation of literals.
fn is_negated(value: &HExpr) -> bool {
    match &value.kind {
        HKind::Neg(_) => true,
        HKind::Bin(_, left, right) => is_negated(left) || is_negated(right),
        _ => false,
    }
}

/// What to do about a type that does not fit.
fn hint(have: &Ty, want: &Ty) -> Option<String> {
    Some(match (have, want.bare()) {
        (Ty::Opt(inner), want) if **inner == *want || inner.is_error() => {
            "it may be absent: use `??`, `let … else` or `match`".to_owned()
        }
        (Ty::NoneLit, _) => "only a `T?` may be None".to_owned(),
        (Ty::Num | Ty::Float | Ty::Uint, Ty::Duration) => "write a unit, as in `5ms`".to_owned(),
        (Ty::Duration, Ty::Instant) => "`now() + …` is an instant".to_owned(),
        (Ty::Instant, Ty::Duration) => "the time to an instant is `… - now()`".to_owned(),
        (Ty::Num | Ty::Float | Ty::Uint, Ty::Rate) => "write a rate, as in `1000/s`".to_owned(),
        (Ty::Duration, Ty::Float | Ty::Int | Ty::Uint) => "divide by a duration: `x / 1ms`".to_owned(),
        (Ty::Rate, Ty::Float) => "a rate's number is `.per_second`".to_owned(),
        (Ty::Float, Ty::Int | Ty::Uint) => "`floor(x)` makes an int".to_owned(),
        (Ty::Str, Ty::Bool) => "compare it: `x == \"…\"`".to_owned(),
        (Ty::Bytes, Ty::Str) => "`base64(x)` makes a string".to_owned(),
        (_, Ty::Str) => "`\"{x}\"` makes a string".to_owned(),
        _ => return None,
    })
}

/// A const expression node.
pub(crate) fn constant(value: Const, ty: Ty, span: Span) -> HExpr {
    HExpr { kind: HKind::Const(value), ty, span }
}
