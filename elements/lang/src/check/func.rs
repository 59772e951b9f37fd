//! Calls: functions, functions with a lambda, effects.

use crate::ast::{Arg, Expr, ExprKind, HandlerKind};
use crate::diag::Diagnostic;
use crate::elsewhere;
use crate::hir::{Const, Each, Effect, Func, HExpr, HKind, LocalId};
use crate::source::Span;
use crate::suggest::nearest;
use crate::ty::{ENCODING, LEVEL, Ty};
use crate::vm::message::ITEMS_MAX;
use crate::vm::text::is_range;

use super::{Checker, Context, constant};

/// The most items that `limit` allows.
const LIMIT_MAX: u16 = 1024;

/// Every function.
pub(crate) const FUNCS: [&str; 37] = [
    "matches",
    "now",
    "random",
    "chance",
    "hash",
    "min",
    "max",
    "abs",
    "clamp",
    "floor",
    "len",
    "lower",
    "trim",
    "prefix",
    "contains",
    "starts_with",
    "ends_with",
    "parse_int",
    "string",
    "mask",
    "in_cidr",
    "base64",
    "sample",
    "ring",
    "maglev",
    "healthy",
    "next",
    "weighted",
    "least",
    "filter",
    "any",
    "all",
    "service",
    "digest",
    "split",
    "quantile",
    "status",
];

/// Every effect.
pub(crate) const EFFECTS: [&str; 10] = [
    "reject",
    "delay",
    "log",
    "count",
    "observe",
    "access_log",
    "compress",
    "decompress",
    "encrypt",
    "decrypt",
];

/// Known and not done yet.
const LATER: [&str; 3] = ["answer", "retry", "mirror"];

/// Functions whose parameters have one type each: name, parameters, how many must be given, result.
struct Simple {
    name: &'static str,
    params: &'static [(&'static str, Ty)],
    needed: usize,
    func: Func,
}

const SIMPLE: [Simple; 17] = [
    Simple { name: "now", params: &[], needed: 0, func: Func::Now },
    Simple { name: "random", params: &[], needed: 0, func: Func::Random },
    Simple { name: "chance", params: &[("p", Ty::Float), ("key", Ty::Str)], needed: 1, func: Func::Chance },
    Simple { name: "hash", params: &[("text", Ty::Str)], needed: 1, func: Func::Hash },
    Simple { name: "floor", params: &[("x", Ty::Float)], needed: 1, func: Func::Floor },
    Simple { name: "lower", params: &[("text", Ty::Str)], needed: 1, func: Func::Lower },
    Simple { name: "trim", params: &[("text", Ty::Str)], needed: 1, func: Func::Trim },
    Simple { name: "prefix", params: &[("text", Ty::Str), ("n", Ty::Uint)], needed: 2, func: Func::Prefix },
    Simple {
        name: "contains",
        params: &[("text", Ty::Str), ("part", Ty::Str)],
        needed: 2,
        func: Func::Contains,
    },
    Simple {
        name: "starts_with",
        params: &[("text", Ty::Str), ("part", Ty::Str)],
        needed: 2,
        func: Func::StartsWith,
    },
    Simple {
        name: "ends_with",
        params: &[("text", Ty::Str), ("part", Ty::Str)],
        needed: 2,
        func: Func::EndsWith,
    },
    Simple { name: "parse_int", params: &[("text", Ty::Str)], needed: 1, func: Func::ParseInt },
    Simple { name: "status", params: &[("code", Ty::Int)], needed: 1, func: Func::Status },
    Simple { name: "mask", params: &[("text", Ty::Str), ("keep", Ty::Uint)], needed: 2, func: Func::Mask },
    Simple { name: "in_cidr", params: &[("ip", Ty::Str), ("range", Ty::Str)], needed: 2, func: Func::InCidr },
    Simple { name: "base64", params: &[("text", Ty::Str)], needed: 1, func: Func::Base64 },
    Simple { name: "digest", params: &[("text", Ty::Str)], needed: 1, func: Func::Digest },
];

fn result_of(func: Func) -> Ty {
    match func {
        Func::Now => Ty::Instant,
        Func::Random => Ty::Float,
        Func::Chance | Func::Contains | Func::StartsWith | Func::EndsWith | Func::InCidr => Ty::Bool,
        Func::Hash => Ty::Uint,
        Func::Floor => Ty::Int,
        Func::ParseInt => Ty::Int.opt(),
        Func::Status => Ty::Status,
        _ => Ty::Str,
    }
}

impl Checker<'_> {
    pub(super) fn call(&mut self, of: &Expr, args: &[Arg], span: Span, want: Option<&Ty>) -> HExpr {
        match &*of.kind {
            ExprKind::Name(name) => self.named_call(name, of.span, args, span, want),
            ExprKind::Field { of: receiver, name, .. } => self.method(receiver, name, args, span),
            _ => self
                .wrong(Diagnostic::error(of.span, "this is no function").label("expected a function's name")),
        }
    }

    fn method(&mut self, receiver: &Expr, name: &crate::ast::Ident, args: &[Arg], span: Span) -> HExpr {
        let receiver = self.expr(receiver, None);
        match (&receiver.ty, name.text.as_str(), args) {
            (Ty::Error, ..) => receiver,
            (Ty::Headers(side), "all", [key]) => {
                let side = side.side();
                let key = self.header_key(&key.value);
                let is_bin = super::expr::is_binary(&key);
                let item = if is_bin { Ty::Bytes } else { Ty::Str };
                let kind = HKind::MetaAll { side, key: Box::new(key), max: ITEMS_MAX, is_bin };
                HExpr { kind, ty: Ty::List(Box::new(item)), span }
            }
            (Ty::List(_), "limit", _) => self.limited(receiver, args, span),
            (Ty::Map(..), "limit", _) if matches!(receiver.kind, HKind::Payload(_)) => {
                self.limited(receiver, args, span)
            }
            (ty, "limit", _) if ty.is_nothing() => receiver,
            (Ty::Cell(cell), ..) => {
                let cell = *cell;
                self.cell_method(receiver, cell, name, args, span)
            }
            (ty, text, _) => {
                let error = Diagnostic::error(name.span, format!("{ty} has no function `{text}`"));
                let error = match elsewhere::function(text) {
                    _ if FUNCS.contains(&text) && args.is_empty() => error.help(format!("write `{text}(x)`")),
                    _ if FUNCS.contains(&text) => error.help(format!("write `{text}(x, …)`")),
                    Some(hint) => error.help(hint),
                    None => error,
                };
                for arg in args.iter().filter(|arg| !matches!(&*arg.value.kind, ExprKind::Lambda { .. })) {
                    self.expr(&arg.value, Some(&Ty::Error));
                }
                self.wrong(error)
            }
        }
    }

    /// `list.limit(n)`: how many items a list from outside may have.
    fn limited(&mut self, mut list: HExpr, args: &[Arg], span: Span) -> HExpr {
        let Some(found) = self.matched("limit", args, &["n"], 1, span) else { return error_at(span) };
        let Some(n) = found.first().copied().flatten() else { return error_at(span) };
        let max = match &*n.kind {
            ExprKind::Int(n) => u16::try_from(*n).ok().filter(|n| (1..=LIMIT_MAX).contains(n)),
            _ => None,
        };
        let Some(max) = max else {
            let error = Diagnostic::error(n.span, "this is no limit of a list");
            return self.wrong(error.label(format!("expected a number from 1 to {LIMIT_MAX}")));
        };
        match &mut list.kind {
            HKind::Payload(path) if path.key.is_none() => path.items_max = max,
            HKind::MetaAll { max: known, .. } => *known = max,
            _ => {
                let error = Diagnostic::error(list.span, "this list has a bound already")
                    .label("expected a list or map of a message, or metadata's `.all(…)`");
                return self.wrong(error);
            }
        }
        HExpr { span, ..list }
    }

    fn named_call(&mut self, name: &str, at: Span, args: &[Arg], span: Span, want: Option<&Ty>) -> HExpr {
        if LATER.contains(&name) {
            return self.wrong(Diagnostic::unsupported(at, &format!("`{name}(…)`")));
        }
        if EFFECTS.contains(&name) {
            return self.effect(name, at, args, span);
        }
        if let Some(simple) = SIMPLE.iter().find(|s| s.name == name) {
            let Some(values) = self.simple_args(simple, args, span) else {
                return HExpr { kind: HKind::Error, ty: result_of(simple.func), span };
            };
            match (simple.func, values.as_slice()) {
                (Func::Chance, [share, ..]) => self.mark_share(share),
                (Func::InCidr, [_, range]) => self.check_range(range),
                _ => {}
            }
            return HExpr { kind: HKind::Call(simple.func, values), ty: result_of(simple.func), span };
        }
        match name {
            "min" | "max" | "clamp" | "abs" => self.numeric(name, args, span),
            "len" => {
                let [text] = self.exprs(name, args, ["x"], span);
                let text = self.listed(text);
                if !matches!(text.ty, Ty::Str | Ty::Bytes | Ty::List(_) | Ty::Error) && !text.ty.is_nothing()
                {
                    let error = Diagnostic::error(
                        text.span,
                        format!("expected a string, bytes, a list or a map, found {}", text.ty),
                    );
                    let is_absent = text.ty.is_opt();
                    return self.wrong(if is_absent {
                        error.help("it may be absent: use `??`, `let … else` or `match`")
                    } else {
                        error
                    });
                }
                HExpr { kind: HKind::Call(Func::Len, vec![text]), ty: Ty::Uint, span }
            }
            "string" => {
                let [value] = self.exprs(name, args, ["x"], span);
                if !value.ty.bare().is_scalar() && !matches!(value.ty.bare(), Ty::Str | Ty::Error) {
                    return self.wrong(Diagnostic::error(value.span, format!("{} has no text", value.ty)));
                }
                HExpr { kind: HKind::Interp(vec![value]), ty: Ty::Str, span }
            }
            "sample" => {
                let [list, n] = self.exprs(name, args, ["list", "n"], span);
                let ty = self.list_ty(&list);
                let n = self.coerce(n, &Ty::Uint);
                HExpr { kind: HKind::Call(Func::Sample, vec![list, n]), ty, span }
            }
            "healthy" | "next" => {
                let [list] = self.exprs(name, args, ["list"], span);
                let list = self.endpoints(list);
                let (func, ty) = match name {
                    "healthy" => (Func::Healthy, Ty::List(Box::new(Ty::Endpoint))),
                    _ => (Func::Next, Ty::Endpoint.opt()),
                };
                HExpr { kind: HKind::Call(func, vec![list]), ty, span }
            }
            "ring" | "maglev" => {
                let [list, key] = self.exprs(name, args, ["list", "key"], span);
                let list = self.endpoints(list);
                let key = self.coerce(key, &Ty::Str);
                let func = if name == "ring" { Func::Ring } else { Func::Maglev };
                HExpr { kind: HKind::Call(func, vec![list, key]), ty: Ty::Endpoint.opt(), span }
            }
            "weighted" => self.weighted(args, span, want),
            "least" | "filter" | "any" | "all" => self.each(name, args, span),
            "quantile" => self.quantile(args, span),
            "split" => {
                let [text, by] = self.exprs(name, args, ["text", "by"], span);
                let (text, by) = (self.coerce(text, &Ty::Str), self.coerce(by, &Ty::Str));
                let ty = Ty::List(Box::new(Ty::Str));
                HExpr { kind: HKind::Call(Func::Split, vec![text, by]), ty, span }
            }
            "matches" => {
                let [text, pattern] = self.exprs(name, args, ["text", "pattern"], span);
                let values = vec![self.coerce(text, &Ty::Str), self.coerce(pattern, &Ty::Str)];
                HExpr { kind: HKind::Call(Func::Matches, values), ty: Ty::Bool, span }
            }
            "service" => self.service(args, span),
            _ => {
                let known = FUNCS.into_iter().chain(EFFECTS);
                let error = Diagnostic::error(at, format!("unknown function `{name}`"));
                let error = match elsewhere::function(name) {
                    Some(hint) => error.help(hint),
                    None => error.nearest(name, known),
                };
                for arg in args {
                    if !matches!(&*arg.value.kind, ExprKind::Lambda { .. }) {
                        self.expr(&arg.value, None);
                    }
                }
                self.wrong(error)
            }
        }
    }

    /// Arguments by position or name; None where an optional one is missing. Says what is wrong.
    pub(super) fn matched<'e>(
        &mut self,
        what: &str,
        args: &'e [Arg],
        names: &[&str],
        needed: usize,
        span: Span,
    ) -> Option<Vec<Option<&'e Expr>>> {
        let mut out: Vec<Option<&Expr>> = vec![None; names.len()];
        let mut positional = 0;
        let shape = || format!("expected `{what}({})`", names.join(", "));
        for arg in args {
            let at = match &arg.name {
                Some(name) => names.iter().position(|n| *n == name.text),
                None => {
                    positional += 1;
                    Some(positional - 1)
                }
            };
            match at.and_then(|at| out.get_mut(at)) {
                Some(slot) if slot.is_none() => *slot = Some(&arg.value),
                _ => {
                    let message = match &arg.name {
                        Some(name) => format!("`{what}` has no parameter `{}` left", name.text),
                        None => {
                            let takes = super::element::counted(names.len(), "value");
                            format!("`{what}` takes {takes}, this is one too many")
                        }
                    };
                    let error = Diagnostic::error(arg.span(), message).label(shape());
                    let near = arg.name.as_ref().and_then(|n| nearest(&n.text, names.iter().copied()));
                    self.error(match near {
                        Some(near) => error.help(format!("did you mean `{near}`?")),
                        None => error,
                    });
                    return None;
                }
            }
        }
        if let Some(missing) =
            out.iter().zip(names).take(needed).find_map(|(slot, name)| slot.is_none().then_some(name))
        {
            self.error(Diagnostic::error(span, format!("`{what}` needs `{missing}`")).label(shape()));
            return None;
        }
        Some(out)
    }

    fn simple_args(&mut self, simple: &Simple, args: &[Arg], span: Span) -> Option<Vec<HExpr>> {
        let names: Vec<&str> = simple.params.iter().map(|(n, _)| *n).collect();
        let found = self.matched(simple.name, args, &names, simple.needed, span)?;
        let mut out = Vec::new();
        for (slot, (_, ty)) in found.into_iter().zip(simple.params) {
            if let Some(e) = slot {
                let value = self.expr(e, Some(ty));
                let takes_bytes = matches!(simple.func, Func::Base64 | Func::Digest) && value.ty == Ty::Bytes;
                out.push(if takes_bytes { value } else { self.coerce(value, ty) });
            }
        }
        Some(out)
    }

    /// All of `names`, checked with no type wanted; an empty array stands for an error told.
    pub(super) fn exprs<const N: usize>(
        &mut self,
        what: &str,
        args: &[Arg],
        names: [&str; N],
        span: Span,
    ) -> [HExpr; N] {
        let found = self.matched(what, args, &names, N, span).unwrap_or_default();
        std::array::from_fn(|at| match found.get(at).copied().flatten() {
            Some(e) => self.expr(e, None),
            None => error_at(span),
        })
    }

    fn list_ty(&mut self, list: &HExpr) -> Ty {
        match &list.ty {
            Ty::List(_) | Ty::Error => list.ty.clone(),
            other if other.is_nothing() => Ty::Error,
            other => {
                self.error(Diagnostic::error(list.span, format!("expected a list, found {other}")));
                Ty::Error
            }
        }
    }

    fn endpoints(&mut self, list: HExpr) -> HExpr {
        self.coerce(list, &Ty::List(Box::new(Ty::Endpoint)))
    }

    fn numeric(&mut self, name: &str, args: &[Arg], span: Span) -> HExpr {
        let (names, func): (&[&str], Func) = match name {
            "abs" => (&["x"], Func::Abs),
            "clamp" => (&["x", "low", "high"], Func::Clamp),
            "min" => (&["a", "b"], Func::Min),
            _ => (&["a", "b"], Func::Max),
        };
        let Some(found) = self.matched(name, args, names, names.len(), span) else { return error_at(span) };
        let values: Vec<HExpr> = found.into_iter().flatten().map(|e| self.expr(e, None)).collect();
        // The type of all is that of the first that is more than a literal; a float among them wins.
        let literals = if values.iter().any(super::is_negated) { Ty::Int } else { Ty::Uint };
        let float = values.iter().map(|v| &v.ty).find(|t| **t == Ty::Float);
        let first = values.iter().map(|v| &v.ty).find(|t| **t != Ty::Num);
        let ty = float.or(first).cloned().unwrap_or(literals);
        if !ty.is_number() && !matches!(ty, Ty::Duration | Ty::Instant | Ty::Rate | Ty::Error) {
            let error = Diagnostic::error(span, format!("`{name}` needs numbers, this is {ty}"))
                .label("expected numbers, durations, instants or rates");
            return self.wrong(error);
        }
        let values = values.into_iter().map(|v| self.coerce(v, &ty)).collect();
        HExpr { kind: HKind::Call(func, values), ty, span }
    }

    fn weighted(&mut self, args: &[Arg], span: Span, want: Option<&Ty>) -> HExpr {
        let Some(found) = self.matched("weighted", args, &["of", "key"], 1, span) else {
            return error_at(span);
        };
        let mut found = found.into_iter();
        let Some(Some(of)) = found.next() else { return error_at(span) };
        // Names by themselves are services, where nothing else is wanted.
        let is_named = |(key, _): &(Expr, Expr)| matches!(&*key.kind, ExprKind::Name(_));
        let of_services = matches!(&*of.kind, ExprKind::Map(items) if items.iter().any(is_named));
        let key = want.map(|w| w.bare().clone()).or_else(|| of_services.then_some(Ty::Service));
        let want_map = key.map(|key| Ty::Map(Box::new(key), Box::new(Ty::Uint)));
        let of = self.expr(of, want_map.as_ref());
        let mut values = vec![];
        let (func, ty) = match &of.ty {
            Ty::Map(key, weight) if **weight == Ty::Uint => (Func::WeightedMap, (**key).clone()),
            Ty::List(item) if **item == Ty::Endpoint => (Func::WeightedEndpoint, Ty::Endpoint.opt()),
            Ty::Error => return of,
            other => {
                let error = Diagnostic::error(
                    of.span,
                    format!("expected a map of weights or a list of endpoints, found {other}"),
                );
                return self.wrong(error);
            }
        };
        values.push(of);
        if let Some(Some(key)) = found.next() {
            let want = Ty::Str.opt();
            let key = self.expr(key, Some(&want));
            values.push(self.coerce(key, &want));
        }
        HExpr { kind: HKind::Call(func, values), ty, span }
    }

    /// `quantile(list, q, e => x)`.
    fn quantile(&mut self, args: &[Arg], span: Span) -> HExpr {
        let Some(found) = self.matched("quantile", args, &["list", "q", "e => …"], 3, span) else {
            return error_at(span);
        };
        let [Some(list), Some(q), Some(lambda)] = found.as_slice() else { return error_at(span) };
        let list = self.expr(list, None);
        let ty = self.list_ty(&list);
        let q = self.expr(q, Some(&Ty::Float));
        let q = self.coerce(q, &Ty::Float);
        self.mark_share(&q);
        let Some((param, body)) = self.lambda("quantile", &ty, lambda) else { return error_at(span) };
        let body = self.coerce(body, &Ty::Float);
        let kind = HKind::Quantile { list: Box::new(list), q: Box::new(q), param, body: Box::new(body) };
        HExpr { kind, ty: Ty::Float, span }
    }

    /// A function of one item of a list of this type.
    fn lambda(&mut self, name: &str, list: &Ty, lambda: &Expr) -> Option<(LocalId, HExpr)> {
        let item = match list {
            Ty::List(item) => (**item).clone(),
            _ => Ty::Error,
        };
        let ExprKind::Lambda { param, body } = &*lambda.kind else {
            let error = Diagnostic::error(lambda.span, format!("`{name}` takes a function of one item"));
            self.error(error.label("expected `e => …`"));
            return None;
        };
        self.scopes.push(Vec::new());
        let local = self.bind(&param.text, item);
        let body = self.expr(body, None);
        self.scopes.pop();
        Some((local, body))
    }

    fn each(&mut self, name: &str, args: &[Arg], span: Span) -> HExpr {
        let Some(found) = self.matched(name, args, &["list", "e => …"], 2, span) else {
            return error_at(span);
        };
        let (Some(Some(list)), Some(Some(lambda))) = (found.first(), found.get(1)) else {
            return error_at(span);
        };
        let list = self.expr(list, None);
        let list = self.listed(list);
        let ty = self.list_ty(&list);
        let item = match &ty {
            Ty::List(item) => (**item).clone(),
            _ => Ty::Error,
        };
        let Some((local, body)) = self.lambda(name, &ty, lambda) else { return error_at(span) };
        let (what, body, result) = match name {
            "least" => (Each::Least, self.settle(body), item.opt()),
            "filter" => (Each::Filter, self.coerce(body, &Ty::Bool), ty),
            "any" => (Each::Any, self.coerce(body, &Ty::Bool), Ty::Bool),
            _ => (Each::All, self.coerce(body, &Ty::Bool), Ty::Bool),
        };
        let orders = body.ty.is_number()
            || matches!(body.ty, Ty::Duration | Ty::Instant | Ty::Rate | Ty::Bool | Ty::Error);
        if !orders {
            let error = Diagnostic::error(body.span, format!("{} has no order", body.ty))
                .label("expected a number or a duration");
            return self.wrong(error);
        }
        HExpr {
            kind: HKind::Each { what, list: Box::new(list), param: local, body: Box::new(body) },
            ty: result,
            span,
        }
    }

    /// A range that is known must be one: what cannot be read holds no address.
    fn check_range(&mut self, range: &HExpr) {
        if let HKind::Const(Const::Str(text)) = &range.kind
            && !is_range(text)
        {
            let error = Diagnostic::error(range.span, format!("\"{text}\" is no range of addresses"));
            self.error(error.label("expected one as in \"10.0.0.0/8\" or \"fd00::/8\""));
        }
    }

    fn service(&mut self, args: &[Arg], span: Span) -> HExpr {
        let [name] = self.exprs("service", args, ["name"], span);
        let HKind::Const(Const::Str(text)) = &name.kind else {
            let error = Diagnostic::error(name.span, "the service must be a constant")
                .label("expected a name in quotes");
            return self.wrong(error);
        };
        match self.services.iter().position(|s| **s == **text) {
            Some(at) => constant(Const::Word(at as u64), Ty::Service, span),
            None => {
                let error = Diagnostic::error(name.span, format!("unknown service `{text}`"))
                    .nearest(text, self.services.iter().map(String::as_str));
                self.wrong(error)
            }
        }
    }

    fn effect(&mut self, name: &str, at: Span, args: &[Arg], span: Span) -> HExpr {
        let Context::Handler(handler) = self.context else {
            let error =
                Diagnostic::error(at, format!("`{name}` does something: it stands in a handler only"))
                    .label("expected a value");
            return self.wrong(error);
        };
        let effect = match name {
            "reject" => {
                let Some(found) = self.matched(name, args, &["status", "text"], 2, span) else {
                    return never(span);
                };
                let mut values = found.into_iter().flatten();
                let (Some(status), Some(text)) = (values.next(), values.next()) else { return never(span) };
                let status = self.expr(status, Some(&Ty::Status));
                let status = self.coerce(status, &Ty::Status);
                if matches!(status.kind, HKind::Const(Const::Word(0))) {
                    self.error(
                        Diagnostic::error(status.span, "OK is no status to reject with")
                            .label("expected an error"),
                    );
                }
                let text = self.expr(text, Some(&Ty::Str));
                let text = self.coerce(text, &Ty::Str);
                let effect = Effect::Reject { status: Box::new(status), text: Box::new(text) };
                return HExpr { kind: HKind::Effect(effect), ty: Ty::Never, span };
            }
            "delay" => {
                let [time] = self.exprs(name, args, ["time"], span);
                Effect::Delay(Box::new(self.coerce(time, &Ty::Duration)))
            }
            "log" => return self.log(args, span),
            "count" => {
                // Names other than its own are labels.
                let is_own =
                    |arg: &&Arg| arg.name.as_ref().is_none_or(|n| matches!(n.text.as_str(), "name" | "n"));
                let own: Vec<Arg> = args.iter().filter(is_own).cloned().collect();
                let labels: Vec<Arg> = args.iter().filter(|arg| !is_own(arg)).cloned().collect();
                let labels = self.fields(&labels, "counted");
                let Some(found) = self.matched(name, &own, &["name", "n"], 1, span) else {
                    return error_at(span);
                };
                let Some(name) = self.constant_text(found.first().copied().flatten(), span) else {
                    return error_at(span);
                };
                let by = match found.get(1).copied().flatten() {
                    Some(n) => {
                        let n = self.expr(n, Some(&Ty::Uint));
                        self.coerce(n, &Ty::Uint)
                    }
                    None => constant(Const::Word(1), Ty::Uint, span),
                };
                Effect::Count { name, by: Box::new(by), labels }
            }
            "observe" => {
                let label =
                    |arg: &&Arg| arg.name.as_ref().is_some_and(|n| !matches!(n.text.as_str(), "name" | "x"));
                if let Some(label) = args.iter().find(label) {
                    let error = Diagnostic::error(label.span(), "what is observed has no labels");
                    return self.wrong(
                        error.label("expected `observe(name, x)`").help("`count(name, n, k: v)` has"),
                    );
                }
                let Some(found) = self.matched(name, args, &["name", "x"], 2, span) else {
                    return error_at(span);
                };
                let Some(name) = self.constant_text(found.first().copied().flatten(), span) else {
                    return error_at(span);
                };
                let Some(Some(x)) = found.get(1).copied() else { return error_at(span) };
                let x = self.expr(x, Some(&Ty::Float));
                Effect::Observe { name, value: Box::new(self.coerce(x, &Ty::Float)) }
            }
            "access_log" => {
                let [to] = self.exprs(name, args, ["to"], span);
                let to = self.coerce(to, &Ty::Str);
                if !matches!(to.kind, HKind::Const(_) | HKind::Param(_) | HKind::Error) {
                    self.error(
                        Diagnostic::error(to.span, "where a log goes must be constant")
                            .label("expected a string or a parameter"),
                    );
                }
                Effect::AccessLog(Box::new(to))
            }
            "encrypt" | "decrypt" => return self.boundary(name == "decrypt", at, args, span),
            _ => {
                if handler != HandlerKind::Request {
                    self.error(
                        Diagnostic::error(at, format!("`{name}` stands in `request` only"))
                            .label("it holds for both directions"),
                    );
                }
                if name == "decompress" {
                    let [] = self.exprs(name, args, [], span);
                    return HExpr { kind: HKind::Effect(Effect::Decompress), ty: Ty::Unit, span };
                }
                let Some(found) = self.matched(name, args, &["algorithm", "min"], 2, span) else {
                    return error_at(span);
                };
                let mut values = found.into_iter().flatten();
                let (Some(encoding), Some(min)) = (values.next(), values.next()) else {
                    return error_at(span);
                };
                let encoding = self.expr(encoding, Some(&Ty::Enum(ENCODING)));
                let encoding = self.coerce(encoding, &Ty::Enum(ENCODING));
                let min = self.expr(min, Some(&Ty::Uint));
                Effect::Compress { encoding: Box::new(encoding), min: Box::new(self.coerce(min, &Ty::Uint)) }
            }
        };
        HExpr { kind: HKind::Effect(effect), ty: Ty::Unit, span }
    }

    fn constant_text(&mut self, e: Option<&Expr>, span: Span) -> Option<String> {
        match e.map(|e| (&*e.kind, e.span)) {
            Some((ExprKind::Str(text), at)) => {
                let fits = !text.is_empty()
                    && text.len() <= 64
                    && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.:-".contains(&b));
                if !fits {
                    self.error(
                        Diagnostic::error(at, "this is no name for a metric")
                            .label("expected letters, digits, `_`, `.`, at most 64"),
                    );
                    return None;
                }
                Some(text.clone())
            }
            other => {
                let at = other.map_or(span, |(_, at)| at);
                self.error(Diagnostic::error(at, "the name must be a constant").label("expected a string"));
                None
            }
        }
    }

    /// Named values: of a line that is logged, of a count.
    fn fields(&mut self, args: &[Arg], done: &str) -> Vec<(String, HExpr)> {
        let mut fields = Vec::new();
        for arg in args {
            let Some(name) = &arg.name else {
                self.error(
                    Diagnostic::error(arg.span(), format!("what is {done} has a name"))
                        .label("expected `name: value`"),
                );
                continue;
            };
            let value = self.expr(&arg.value, None);
            let value = self.settle(value);
            if !value.ty.bare().is_scalar() && !matches!(value.ty.bare(), Ty::Str | Ty::Error) {
                self.error(Diagnostic::error(value.span, format!("{} cannot be {done}", value.ty)));
            }
            fields.push((name.text.clone(), value));
        }
        if let Some(arg) = args.get(16) {
            self.error(Diagnostic::error(arg.span(), "at most 16 values"));
        }
        fields
    }

    fn log(&mut self, args: &[Arg], span: Span) -> HExpr {
        let (level, rest) = match args.split_first() {
            Some((first, rest)) if first.name.is_none() => {
                let value = self.expr(&first.value, Some(&Ty::Enum(LEVEL)));
                (Some(self.coerce(value, &Ty::Enum(LEVEL))), rest)
            }
            _ => (None, args),
        };
        let fields = self.fields(rest, "logged");
        let Some(level) = level else {
            return self.wrong(
                Diagnostic::error(span, "`log` needs a level")
                    .label("expected debug, info, warn or error first"),
            );
        };
        HExpr { kind: HKind::Effect(Effect::Log { level: Box::new(level), fields }), ty: Ty::Unit, span }
    }
}

pub(super) fn error_at(span: Span) -> HExpr {
    HExpr { kind: HKind::Error, ty: Ty::Error, span }
}

fn never(span: Span) -> HExpr {
    HExpr { kind: HKind::Error, ty: Ty::Never, span }
}
