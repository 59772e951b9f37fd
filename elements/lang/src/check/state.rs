//! State: declarations, cells and their operations, maps.

use crate::ast::{self, Arg, Expr, ExprKind, Ident, Scope};
use crate::diag::Diagnostic;
use crate::hir::{CellInit, Const, HBin, HExpr, HKind, HPlace, HStmt, Init, MapOptions, State};
use crate::source::Span;
use crate::state::Full;
use crate::state::scalars::BYTES_MAX;
use crate::suggest::nearest;
use crate::ty::{Cell, Ty};
use crate::vm::code::CellOp;

use super::func::error_at;
use super::{Checker, Context, constant};

/// The kinds of cells, as they are written.
const CELLS: [(&str, Cell); 3] =
    [("counter", Cell::Counter), ("bucket", Cell::Bucket), ("window", Cell::Window)];

/// Bytes a scalar takes among those of its element.
pub(crate) fn scalar_bytes(ty: &Ty) -> usize {
    let value = match ty.bare() {
        Ty::Bool | Ty::Status | Ty::Enum(_) => 1,
        _ => 8,
    };
    value + usize::from(ty.is_opt())
}

/// What a call makes, if it is the making of a cell.
fn made(init: &Expr) -> Option<Cell> {
    let ExprKind::Call { of, .. } = &*init.kind else { return None };
    CELLS.iter().find(|(name, _)| of.as_name() == Some(*name)).map(|(_, cell)| *cell)
}

impl Checker<'_> {
    pub(super) fn state(&mut self, state: &ast::State) {
        let declared = state.ty.as_ref().map(|t| self.type_of(t));
        self.context = if state.scope == Scope::Call { Context::CallParam } else { Context::Constant };
        self.in_init = true;
        let cell = match &declared {
            Some(Ty::Cell(cell)) => Some(*cell),
            Some(_) => None,
            None => state.init.as_ref().and_then(made),
        };
        let (ty, init) = match (declared, cell) {
            (_, Some(cell)) => (Ty::Cell(cell), self.cell_init(cell, state).map(Init::Cell)),
            (Some(Ty::Map(key, value)), _) => {
                let init = self.map_init(state, &key, &value);
                (Ty::Map(key, value), init.map(Init::Map))
            }
            (declared, _) => {
                let init = self.scalar_init(state, declared.as_ref());
                let ty = declared.unwrap_or_else(|| init.ty.clone());
                self.scalar(state, &ty);
                (ty, Some(Init::Value(init)))
            }
        };
        let is_map = matches!(ty, Ty::Map(..));
        let options = if is_map { self.map_options(state) } else { MapOptions::default() };
        if let (Some((key, _)), false) = (state.options.first(), is_map) {
            self.error(Diagnostic::error(key.span, "only a map has options").label(format!("this is {ty}")));
        }
        self.in_init = false;
        let (ty, init) = match init {
            Some(init) => (ty, init),
            None => (Ty::Error, Init::Value(constant(Const::None, Ty::Error, state.name.span))),
        };
        let name = state.name.text.clone();
        self.states.push(State { name, scope: state.scope, ty, init, options, span: state.name.span });
    }

    fn scalar_init(&mut self, state: &ast::State, declared: Option<&Ty>) -> HExpr {
        let at = state.name.span;
        match (&state.init, declared) {
            (Some(init), _) => {
                let value = self.expr(init, declared);
                match declared {
                    Some(ty) => self.coerce(value, ty),
                    None => self.settle(value),
                }
            }
            (None, Some(ty @ Ty::Opt(_))) => constant(Const::None, ty.clone(), at),
            (None, Some(ty)) if ty.is_scalar() && *ty != Ty::Endpoint && *ty != Ty::Service => {
                constant(Const::Word(0), ty.clone(), at)
            }
            (None, Some(Ty::Str)) => constant(Const::Str("".into()), Ty::Str, at),
            (None, Some(Ty::Error)) => error_at(at),
            _ => self
                .wrong(Diagnostic::error(at, "this state has no first value").help("write `= …` after it")),
        }
    }

    /// A value that is state must fit into words.
    fn scalar(&mut self, state: &ast::State, ty: &Ty) {
        let at = state.name.span;
        if ty.is_error() {
            return;
        }
        let bare = ty.bare();
        if state.scope == Scope::Call {
            if !bare.is_scalar() && !matches!(bare, Ty::Str | Ty::Bytes) {
                let error = Diagnostic::error(at, format!("`state call` keeps no {ty}"));
                self.error(error.label("expected a number, a text, bytes, an Endpoint, a Status, …"));
            }
            return;
        }
        let scope = if state.scope == Scope::Node { "node" } else { "shard" };
        let error = match bare {
            Ty::Str | Ty::Bytes | Ty::List(_) => {
                Diagnostic::error(at, format!("`state {scope}` keeps no {ty}"))
                    .help("a map may: `map<string, string>[max 1, evict]`; or keep its `hash(…)`, a uint")
            }
            Ty::Endpoint | Ty::Service => Diagnostic::error(at, format!("`state {scope}` keeps no {ty}"))
                .help("a map may: `map<string, Endpoint>[max 1, evict]`"),
            bare if !bare.is_scalar() => Diagnostic::error(at, format!("`state {scope}` keeps no {ty}")),
            _ => return,
        };
        self.error(error.label("expected a number, a truth value, a duration, an instant or a Status"));
    }

    /// The `node` scalars of an element are read and changed as one: they must fit together.
    pub(super) fn fits(&mut self, element: &Ident) {
        let scalars: Vec<&State> =
            self.states.iter().filter(|s| s.is_node_scalar() && !s.ty.is_error()).collect();
        let (mut words, mut bytes) = (0, 0);
        for state in &scalars {
            let size = scalar_bytes(&state.ty);
            words += size / 8;
            bytes += size % 8;
        }
        let total = 8 * words + bytes;
        if total <= BYTES_MAX {
            return;
        }
        let Some(last) = scalars.last() else { return };
        let names: Vec<String> =
            scalars.iter().map(|s| format!("{} {} B", s.name, scalar_bytes(&s.ty))).collect();
        let error = Diagnostic::error(
            last.span,
            format!("the `node` state of `{}` is {total} bytes, more than {BYTES_MAX}", element.text),
        );
        self.error(
            error
                .label(names.join(", "))
                .help("it is read and changed in one atomic step: use `counter`, `window` or `bucket` for some, or `state shard`"),
        );
    }

    fn cell_init(&mut self, cell: Cell, state: &ast::State) -> Option<CellInit> {
        let Some(init) = &state.init else {
            if cell == Cell::Counter {
                return Some(CellInit::Counter);
            }
            let shape = if cell == Cell::Bucket { "bucket(rate, burst)" } else { "window(over)" };
            self.error(
                Diagnostic::error(state.name.span, "this state has no first value")
                    .help(format!("write `= {shape}` after it")),
            );
            return None;
        };
        let (ExprKind::Call { args, .. }, Some(found)) = (&*init.kind, made(init)) else {
            self.error(
                Diagnostic::error(init.span, format!("expected a {}", Ty::Cell(cell)))
                    .label("expected counter(), bucket(rate, burst) or window(over)"),
            );
            return None;
        };
        if found != cell {
            let text = format!("expected a {}, found a {}", Ty::Cell(cell), Ty::Cell(found));
            self.error(Diagnostic::error(init.span, text));
            return None;
        }
        match cell {
            Cell::Counter => {
                self.matched("counter", args, &[], 0, init.span)?;
                Some(CellInit::Counter)
            }
            Cell::Bucket => {
                let found = self.matched("bucket", args, &["rate", "burst"], 1, init.span)?;
                let mut found = found.into_iter();
                let rate = found.next()??;
                let rate = self.expr(rate, Some(&Ty::Rate));
                let rate = self.coerce(rate, &Ty::Rate);
                let burst = found.next().flatten().map(|e| {
                    let burst = self.expr(e, Some(&Ty::Float));
                    self.coerce(burst, &Ty::Float)
                });
                Some(CellInit::Bucket { rate, burst })
            }
            Cell::Window => {
                let found = self.matched("window", args, &["over"], 1, init.span)?;
                let over = found.first().copied()??;
                let over = self.expr(over, Some(&Ty::Duration));
                Some(CellInit::Window { over: self.coerce(over, &Ty::Duration) })
            }
        }
    }

    /// What a map begins with: nothing, or how each of its cells does.
    #[expect(clippy::option_option, reason = "None is an error told")]
    fn map_init(&mut self, state: &ast::State, key: &Ty, value: &Ty) -> Option<Option<CellInit>> {
        let at = state.ty.as_ref().map_or(state.name.span, |t| t.span);
        if state.scope == Scope::Call {
            self.error(
                Diagnostic::error(at, "a map is state of a shard or the node").label("one call has no map"),
            );
            return None;
        }
        if !(key.is_scalar() || matches!(key, Ty::Str | Ty::Error)) {
            self.error(
                Diagnostic::error(at, format!("{key} is no key"))
                    .label("expected a string, a number, an Endpoint or a Service"),
            );
            return None;
        }
        if let Ty::Cell(cell) = value {
            return self.cell_init(*cell, state).map(Some);
        }
        if let Some(init) = &state.init {
            self.error(Diagnostic::error(init.span, "a map begins empty").label("leave this away"));
        }
        match value {
            Ty::Error => Some(None),
            Ty::Str | Ty::Bytes => Some(None),
            value if value.is_scalar() => Some(None),
            value => {
                let error = Diagnostic::error(at, format!("a map keeps no {value}"));
                self.error(
                    error.label(
                        "expected a number, a string, bytes, an Endpoint, a Service, a Status or a cell",
                    ),
                );
                None
            }
        }
    }

    fn map_options(&mut self, state: &ast::State) -> MapOptions {
        let mut out = MapOptions::default();
        for (key, value) in &state.options {
            let full = match key.text.as_str() {
                "evict" => Some(Full::Evict),
                "refuse" => Some(Full::Refuse),
                "share" => Some(Full::Share),
                _ => None,
            };
            let is_new = match (key.text.as_str(), value, full) {
                ("max" | "max_bytes", Some(max), _) => {
                    out.is_bytes = key.text == "max_bytes";
                    let max = self.expr(max, Some(&Ty::Uint));
                    out.max.replace(self.coerce(max, &Ty::Uint)).is_none()
                }
                ("ttl", Some(ttl), _) => {
                    let ttl = self.expr(ttl, Some(&Ty::Duration));
                    out.ttl.replace(self.coerce(ttl, &Ty::Duration)).is_none()
                }
                (_, None, Some(full)) => out.full.replace(full).is_none(),
                (text, ..) => {
                    let known = ["max", "evict", "refuse", "share", "ttl"];
                    let error = Diagnostic::error(key.span, format!("`{text}` is no option of a map"))
                        .label("expected `max N`, `evict`, `refuse`, `share` or `ttl D`");
                    let near = nearest(text, known.into_iter()).filter(|near| *near != text);
                    self.error(match near {
                        Some(near) => error.help(format!("did you mean `{near}`?")),
                        None => error,
                    });
                    continue;
                }
            };
            if !is_new {
                self.error(Diagnostic::error(key.span, "this option is given twice"));
            }
        }
        let at = state.ty.as_ref().map_or(state.name.span, |t| t.span);
        let is_told = state.options.iter().any(|(key, _)| key.text.starts_with("max"));
        if out.max.is_none() && !is_told {
            let error = Diagnostic::error(at, "this map has no bound").label("expected `[max N, …]`");
            self.error(error.help("as in `map<string, uint>[max 10000, evict]`"));
        }
        if out.full.is_none() {
            self.error(
                Diagnostic::error(at, "what happens when this map is full?")
                    .label("expected `evict`, `refuse` or `share`")
                    .help("`evict`: the least recently used goes; `refuse`: further keys are dropped; `share`: they share one entry"),
            );
        }
        out
    }

    /// `m[k]`.
    pub(super) fn map_at(&mut self, of: HExpr, key: &Expr, key_ty: &Ty, value: &Ty, span: Span) -> HExpr {
        let key = self.expr(key, Some(key_ty));
        let key = self.coerce(key, key_ty);
        let HKind::State(map) = of.kind else {
            let ty = value.clone().opt();
            return HExpr { kind: HKind::Index(Box::new(of), Box::new(key)), ty, span };
        };
        let ty = if matches!(value, Ty::Cell(_)) { value.clone() } else { value.clone().opt() };
        HExpr { kind: HKind::MapAt { map, key: Box::new(key) }, ty, span }
    }

    /// `m[k] += n`.
    pub(super) fn map_by(
        &mut self,
        map: u16,
        key: HExpr,
        op: HBin,
        target: &HExpr,
        value: &Expr,
    ) -> Option<HStmt> {
        let ty = target.ty.bare().clone();
        let value = self.expr(value, Some(&ty));
        if !matches!(ty, Ty::Int | Ty::Uint | Ty::Float | Ty::Duration | Ty::Rate) {
            self.error(
                Diagnostic::error(target.span, format!("{ty} has no sum"))
                    .label("expected a map of numbers or durations"),
            );
            return None;
        }
        let value = self.coerce(value, &ty);
        Some(HStmt::Assign(HPlace::MapBy { map, key, op, ty }, value))
    }

    /// `cell.operation(…)`; without parentheses where it takes nothing.
    pub(super) fn cell_method(
        &mut self,
        of: HExpr,
        cell: Cell,
        name: &Ident,
        args: &[Arg],
        span: Span,
    ) -> HExpr {
        let known: &[&str] = match cell {
            Cell::Counter => &["add", "value"],
            Cell::Bucket => &["take", "reserve", "drain"],
            Cell::Window => &["add", "count", "sum", "mean", "max", "quantile", "clear"],
        };
        let (op, param, needed, ty) = match (cell, name.text.as_str()) {
            (Cell::Counter, "add") => (CellOp::AddUint, Some("n"), 0, Ty::Unit),
            (Cell::Counter, "value") => (CellOp::Value, None, 0, Ty::Uint),
            (Cell::Bucket, "take") => (CellOp::Take, Some("n"), 0, Ty::Bool),
            (Cell::Bucket, "reserve") => (CellOp::Reserve, Some("n"), 0, Ty::Duration),
            (Cell::Bucket, "drain") => (CellOp::Drain, None, 0, Ty::Unit),
            (Cell::Window, "add") => (CellOp::Add, Some("x"), 1, Ty::Unit),
            (Cell::Window, "count") => (CellOp::Count, None, 0, Ty::Uint),
            (Cell::Window, "sum") => (CellOp::Sum, None, 0, Ty::Float),
            (Cell::Window, "mean") => (CellOp::Mean, None, 0, Ty::Float),
            (Cell::Window, "max") => (CellOp::Max, None, 0, Ty::Float),
            (Cell::Window, "quantile") => (CellOp::Quantile, Some("q"), 1, Ty::Float),
            (Cell::Window, "clear") => (CellOp::Clear, None, 0, Ty::Unit),
            _ => {
                let error = Diagnostic::error(name.span, format!("a {} has no `{}`", of.ty, name.text))
                    .label(format!("expected {}", known.join(", ")))
                    .nearest(&name.text, known.iter().copied());
                return self.wrong(error);
            }
        };
        let names: Vec<&str> = param.into_iter().collect();
        let Some(found) = self.matched(&name.text, args, &names, needed, span) else { return error_at(span) };
        let written = found.first().copied().flatten();
        let (op, arg) = match (param, op) {
            (None, op) => (op, None),
            (Some(_), CellOp::AddUint) => {
                let value = written.map_or_else(
                    || constant(Const::Word(1), Ty::Uint, span),
                    |e| {
                        let value = self.expr(e, None);
                        self.settle(value)
                    },
                );
                let is_int = value.ty == Ty::Int;
                let value = self.coerce(value, if is_int { &Ty::Int } else { &Ty::Uint });
                (if is_int { CellOp::AddInt } else { op }, Some(value))
            }
            (Some(_), op) => {
                let one = || constant(Const::Word(1.0_f64.to_bits()), Ty::Float, span);
                let value = match written {
                    Some(e) => {
                        let value = self.expr(e, Some(&Ty::Float));
                        let value = self.coerce(value, &Ty::Float);
                        if op == CellOp::Quantile {
                            self.mark_share(&value);
                        }
                        value
                    }
                    None => one(),
                };
                (op, Some(value))
            }
        };
        let kind = HKind::Cell { of: Box::new(of), op, arg: arg.map(Box::new) };
        HExpr { kind, ty, span }
    }
}
