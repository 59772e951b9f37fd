//! Elements: parameters, state, handlers; and the arguments of links.

use crate::ast::{self, Arg, TypeExpr};
use crate::diag::Diagnostic;
use crate::elsewhere;
use crate::hir::{Element, Func, HExpr, HKind, Handler, Param};
use crate::source::Span;
use crate::suggest::nearest;
use crate::ty::{Cell, ENUMS, EnumId, Ty};

use super::{Checker, Context};

pub(crate) const TYPES: [&str; 14] = [
    "bool", "int", "uint", "float", "string", "bytes", "duration", "instant", "rate", "Status", "Endpoint",
    "Service", "option", "message",
];

impl Checker<'_> {
    /// Checks an element; its errors are told, and it is marked as broken.
    pub(crate) fn element(mut self, element: &ast::Element, is_std: bool) -> Element {
        let errors_before = self.errors.len();
        for (at, param) in element.params.iter().enumerate() {
            let first = element.params.iter().take(at).find(|p| p.name.text == param.name.text);
            self.twice(&param.name, first.map(|p| p.name.span));
            self.param(param);
        }
        for (at, state) in element.states.iter().enumerate() {
            let first = element.states.iter().take(at).find(|s| s.name.text == state.name.text);
            let param = element.params.iter().find(|p| p.name.text == state.name.text);
            self.twice(&state.name, first.map(|s| s.name.span).or(param.map(|p| p.name.span)));
            self.state(state);
        }
        self.fits(&element.name);
        let mut handlers: Vec<Handler> = Vec::new();
        for handler in &element.handlers {
            if let Some(first) =
                element.handlers.iter().find(|h| h.kind == handler.kind && h.span != handler.span)
                && handlers.iter().any(|h| h.kind == handler.kind)
            {
                self.error(
                    Diagnostic::error(handler.span, "this handler stands twice")
                        .label("the second of its kind")
                        .also(first.span, "the first one"),
                );
                continue;
            }
            self.context = Context::Handler(handler.kind);
            self.locals = 0;
            let body = self.block(&handler.body, false, None);
            self.steps(&body);
            self.boundaries(&body);
            handlers.push(Handler { kind: handler.kind, body });
        }
        Element {
            name: element.name.text.clone(),
            is_std,
            params: self.params,
            states: self.states,
            handlers,
            broken: self.errors.len() > errors_before,
            uses_payload: false,
        }
    }

    fn twice(&mut self, name: &ast::Ident, first: Option<Span>) {
        let Some(first) = first else { return };
        let error = Diagnostic::error(name.span, format!("`{}` stands twice", name.text));
        self.error(error.label("the second one").also(first, "the first one"));
    }

    fn param(&mut self, param: &ast::Param) {
        let ty = self.type_of(&param.ty);
        if matches!(ty, Ty::Cell(_)) {
            self.error(Diagnostic::error(param.ty.span, format!("a parameter cannot be a {ty}")));
        }
        self.context = if param.is_call { Context::CallParam } else { Context::Constant };
        let default = param.default.as_ref().map(|default| {
            let value = self.expr(default, Some(&ty));
            let value = self.coerce(value, &ty);
            if is_set(&param.ty) { once(value) } else { value }
        });
        let name = param.name.text.clone();
        let is_set = is_set(&param.ty);
        self.params.push(Param { name, ty, is_call: param.is_call, is_set, default, is_share: false });
    }

    pub(super) fn type_of(&mut self, ty: &TypeExpr) -> Ty {
        let optional = ty.optional;
        let mut args: Vec<Ty> = ty.args.iter().map(|a| self.type_of(a)).collect();
        if ty.name != "option" && args.iter().any(|a| *a.bare() == Ty::AnyMessage) {
            self.error(
                Diagnostic::error(ty.span, "`message` stands by itself")
                    .label("expected `message`, `message?`, or a message of the proto"),
            );
            return Ty::Error;
        }
        let wanted = match ty.name.as_str() {
            "option" | "list" | "set" => 1,
            "map" => 2,
            _ => 0,
        };
        let is_foreign = wanted == 0 && !args.is_empty() && elsewhere::ty(&ty.name).is_some();
        if args.len() != wanted && !is_foreign {
            self.error(
                Diagnostic::error(
                    ty.span,
                    format!("`{}` takes {}, {} given", ty.name, counted(wanted, "type"), args.len()),
                )
                .label("expected as in list<string>, map<string, uint>"),
            );
            return Ty::Error;
        }
        let base = match ty.name.as_str() {
            "bool" => Ty::Bool,
            "int" => Ty::Int,
            "uint" => Ty::Uint,
            "float" => Ty::Float,
            "string" => Ty::Str,
            "bytes" => Ty::Bytes,
            "duration" => Ty::Duration,
            "instant" => Ty::Instant,
            "rate" => Ty::Rate,
            "Status" => Ty::Status,
            "Endpoint" => Ty::Endpoint,
            "Service" => Ty::Service,
            "counter" => Ty::Cell(Cell::Counter),
            "bucket" => Ty::Cell(Cell::Bucket),
            "window" => Ty::Cell(Cell::Window),
            "option" => args.pop().unwrap_or(Ty::Error).opt(),
            // A set is a list of different items.
            "list" | "set" => Ty::List(Box::new(args.pop().unwrap_or(Ty::Error))),
            "map" => {
                let value = args.pop().unwrap_or(Ty::Error);
                Ty::Map(Box::new(args.pop().unwrap_or(Ty::Error)), Box::new(value))
            }
            "message" => Ty::AnyMessage,
            "Answer" => {
                self.error(Diagnostic::unsupported(ty.span, "the type `Answer`"));
                return Ty::Error;
            }
            name => match ENUMS.iter().position(|e| e.name == name) {
                Some(at) => Ty::Enum(EnumId(u8::try_from(at).unwrap_or(0))),
                None => {
                    if let Some(ty) = self.proto_ty(name, ty.span) {
                        return if optional { ty.opt() } else { ty };
                    }
                    let types = self.proto_names();
                    let known = TYPES.into_iter().chain(["list", "map"]).chain(ENUMS.iter().map(|e| e.name));
                    let known = known.chain(types.iter().map(String::as_str));
                    let error = Diagnostic::error(ty.span, format!("unknown type `{name}`"));
                    self.error(match elsewhere::ty(name) {
                        Some(ty) => error.help(format!("did you mean `{ty}`?")),
                        None => error.nearest(name, known),
                    });
                    return Ty::Error;
                }
            },
        };
        if ty.optional { base.opt() } else { base }
    }

    /// The arguments of a link, by parameter: what was written, else the default.
    pub(crate) fn link_args(mut self, element: &Element, args: &[Arg], span: Span) -> Option<Vec<HExpr>> {
        let before = self.errors.len();
        let mut values: Vec<Option<HExpr>> = element.params.iter().map(|_| None).collect();
        let mut positional = 0;
        for arg in args {
            let at = match &arg.name {
                Some(name) => element.params.iter().position(|p| p.name == name.text),
                None => {
                    positional += 1;
                    Some(positional - 1)
                }
            };
            let Some((param, at)) = at.and_then(|at| Some((element.params.get(at)?, at))) else {
                self.unknown_param(element, arg);
                continue;
            };
            self.context = if param.is_call { Context::CallParam } else { Context::Constant };
            let value = self.expr(&arg.value, Some(&param.ty));
            let value = self.coerce(value, &param.ty);
            let value = if param.is_set { once(value) } else { value };
            if *value.ty.bare() == Ty::AnyMessage && !matches!(value.kind, HKind::Const(_)) {
                self.error(
                    Diagnostic::error(value.span, "this is another message in each method")
                        .label(format!("expected one type for `{}`", param.name))
                        .help("give the methods rules of their own"),
                );
            }
            match values.get_mut(at) {
                Some(slot) if slot.is_none() => *slot = Some(value),
                _ => self.error(
                    Diagnostic::error(arg.span(), format!("`{}` is given twice", param.name))
                        .label("the second value for it"),
                ),
            }
        }
        for (param, value) in element.params.iter().zip(&mut values) {
            if value.is_none() {
                *value = param.default.clone();
            }
            // Of a type that is wrong already, nobody knows what it needs.
            if value.is_none() && param.ty.is_error() {
                return None;
            }
            if value.is_none() {
                self.error(
                    Diagnostic::error(span, format!("`{}` needs `{}`", element.name, param.name))
                        .label(format!("expected `{}: {}`", param.name, param.ty)),
                );
            }
        }
        (self.errors.len() == before).then(|| values.into_iter().flatten().collect())
    }

    fn unknown_param(&mut self, element: &Element, arg: &Arg) {
        let known = || element.params.iter().map(|p| p.name.as_str());
        let list = known().collect::<Vec<_>>().join(", ");
        let expected = if list.is_empty() { "it takes none".to_owned() } else { format!("it takes: {list}") };
        let error = match &arg.name {
            Some(name) => {
                let error = Diagnostic::error(
                    name.span,
                    format!("`{}` has no parameter `{}`", element.name, name.text),
                );
                match nearest(&name.text, known()) {
                    Some(near) => error.help(format!("did you mean `{near}`?")),
                    None => error,
                }
            }
            None => Diagnostic::error(
                arg.span(),
                format!(
                    "`{}` takes {}, this is one too many",
                    element.name,
                    counted(element.params.len(), "parameter")
                ),
            ),
        };
        self.error(error.label(expected));
    }

    /// The condition of a link.
    pub(crate) fn when(mut self, expr: &ast::Expr) -> HExpr {
        self.context = Context::CallParam;
        let value = self.expr(expr, Some(&Ty::Bool));
        self.coerce(value, &Ty::Bool)
    }
}

fn is_set(ty: &TypeExpr) -> bool {
    ty.name == "set" || ty.name == "option" && ty.args.iter().any(is_set)
}

/// A set: of a list that is written, each item once.
fn once(list: HExpr) -> HExpr {
    if !matches!(list.ty, Ty::List(_)) {
        return list;
    }
    let (ty, span) = (list.ty.clone(), list.span);
    HExpr { kind: HKind::Call(Func::Distinct, vec![list]), ty, span }
}

/// `1 type`, `2 types`.
pub(super) fn counted(n: usize, what: &str) -> String {
    let plural = if n == 1 { "" } else { "s" };
    format!("{n} {what}{plural}")
}
