//! Messages made in the language, `Item { sku: "a" }`, and the proto's types by name.

use prost_reflect::{DescriptorPool, FieldDescriptor, Kind, MessageDescriptor};

use crate::ast::{Expr, ExprKind, Ident};
use crate::diag::Diagnostic;
use crate::hir::{Func, HExpr, HKind, Made, Pairs};
use crate::source::Span;
use crate::ty::Ty;

use super::Checker;
use super::payload::kind_ty;

/// Names that one error lists.
const NAMED_MAX: usize = 6;

/// `name` is the full name, or the last part of it.
fn is_named(full: &str, name: &str) -> bool {
    full.strip_suffix(name).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

fn messages(pool: &DescriptorPool) -> impl Iterator<Item = MessageDescriptor> + '_ {
    pool.all_messages().filter(|m| !m.is_map_entry())
}

impl Checker<'_> {
    /// The message or enumeration that a type's name means.
    pub(super) fn proto_ty(&mut self, name: &str, span: Span) -> Option<Ty> {
        let pool = self.pool?;
        let mut found: Vec<(String, Ty)> = messages(pool)
            .filter(|m| is_named(m.full_name(), name))
            .map(|m| (m.full_name().to_owned(), Ty::Message(m)))
            .chain(
                pool.all_enums()
                    .filter(|e| is_named(e.full_name(), name))
                    .map(|e| (e.full_name().to_owned(), Ty::ProtoEnum(e))),
            )
            .collect();
        if let Some(whole) = found.iter().position(|(full, _)| full == name) {
            return Some(found.swap_remove(whole).1);
        }
        if found.len() > 1 {
            self.ambiguous(name, found.into_iter().map(|(full, _)| full).collect(), span);
            return Some(Ty::Error);
        }
        found.pop().map(|(_, ty)| ty)
    }

    /// The names of the protos' types.
    pub(super) fn proto_names(&self) -> Vec<String> {
        let Some(pool) = self.pool else { return Vec::new() };
        messages(pool)
            .map(|m| m.name().to_owned())
            .chain(pool.all_enums().map(|e| e.name().to_owned()))
            .collect()
    }

    fn ambiguous(&mut self, name: &str, mut full: Vec<String>, span: Span) {
        full.truncate(NAMED_MAX);
        let error = Diagnostic::error(span, format!("`{name}` means several types of the proto"));
        self.error(error.label(full.join(", ")).help("write the whole name of a parameter's type"));
    }

    fn made_of(&mut self, name: &Ident, want: Option<&Ty>) -> Option<MessageDescriptor> {
        if let Some(Ty::Message(wanted)) = want.map(Ty::bare)
            && is_named(wanted.full_name(), &name.text)
        {
            return Some(wanted.clone());
        }
        let pool = self.pool?;
        let mut found: Vec<MessageDescriptor> =
            messages(pool).filter(|m| is_named(m.full_name(), &name.text)).collect();
        if found.len() > 1 {
            let full = found.iter().map(|m| m.full_name().to_owned()).collect();
            self.ambiguous(&name.text, full, name.span);
            return None;
        }
        if found.is_empty() {
            let known: Vec<String> = messages(pool).map(|m| m.name().to_owned()).collect();
            let error = Diagnostic::error(name.span, format!("no proto has a message `{}`", name.text));
            self.error(if known.is_empty() {
                error.help("name its proto: `proto \"x.proto\"`")
            } else {
                error.nearest(&name.text, known.iter().map(String::as_str))
            });
        }
        found.pop()
    }

    /// `Item { sku: "a", count: 2 }`.
    pub(super) fn made(
        &mut self,
        name: &Ident,
        fields: &[(Ident, Expr)],
        span: Span,
        want: Option<&Ty>,
    ) -> HExpr {
        self.mark_payload();
        let Some(message) = self.made_of(name, want) else {
            for (_, value) in fields {
                self.expr(value, Some(&Ty::Error));
            }
            return super::func::error_at(span);
        };
        let mut made: Vec<(FieldDescriptor, Made)> = Vec::new();
        for (name, value) in fields {
            let Some(field) = message.get_field_by_name(&name.text).filter(|f| !f.is_group()) else {
                let known: Vec<String> = message.fields().map(|f| f.name().to_owned()).collect();
                let error = Diagnostic::error(
                    name.span,
                    format!("{} has no field `{}`", message.full_name(), name.text),
                )
                .nearest(&name.text, known.iter().map(String::as_str));
                self.error(error);
                self.expr(value, Some(&Ty::Error));
                continue;
            };
            let rival = made.iter().find(|(other, _)| {
                *other == field
                    || field.containing_oneof().is_some()
                        && other.containing_oneof() == field.containing_oneof()
            });
            if let Some((other, _)) = rival {
                let text = match other.name() == field.name() {
                    true => format!("`{}` stands twice", field.name()),
                    false => format!("`{}` and `{}` are members of one oneof", other.name(), field.name()),
                };
                self.error(Diagnostic::error(name.span, text).label("the second one"));
                continue;
            }
            let value = self.made_field(&field, value);
            made.push((field, value));
        }
        HExpr { kind: HKind::Made(made), ty: Ty::Message(message), span }
    }

    fn made_field(&mut self, field: &FieldDescriptor, value: &Expr) -> Made {
        if let (true, Kind::Message(entry)) = (field.is_map(), field.kind()) {
            return Made::Entries(self.entries(&entry, value));
        }
        let item = kind_ty(&field.kind());
        let want = if field.is_list() { Ty::List(Box::new(item)) } else { item.opt() };
        let value = self.expr(value, Some(&want));
        Made::Value(self.coerce(value, &want))
    }

    /// The entries of a map of a message, as they are written.
    pub(super) fn entries(&mut self, entry: &MessageDescriptor, value: &Expr) -> Pairs {
        let key_ty = kind_ty(&entry.map_entry_key_field().kind());
        let value_ty = kind_ty(&entry.map_entry_value_field().kind());
        let ExprKind::Map(entries) = &*value.kind else {
            let ty = Ty::Map(Box::new(key_ty), Box::new(value_ty));
            let value = self.expr(value, Some(&ty));
            let value = self.map_value(value);
            return Pairs::Of(Box::new(self.coerce(value, &ty)));
        };
        let mut side = |e: &Expr, ty: &Ty| {
            let value = self.expr(e, Some(ty));
            self.coerce(value, ty)
        };
        Pairs::Listed(entries.iter().map(|(k, v)| (side(k, &key_ty), side(v, &value_ty))).collect())
    }

    /// A map that is a value; a state's is none.
    fn map_value(&mut self, map: HExpr) -> HExpr {
        if !matches!((&map.ty, &map.kind), (Ty::Map(..), HKind::State(_))) {
            return map;
        }
        let error =
            Diagnostic::error(map.span, "a map of state is no value").label("expected a map or a list");
        self.wrong(error.help("it is read and written by key, `m[k]`"))
    }

    /// What is looked through: a list, or the keys of a map.
    pub(super) fn listed(&mut self, of: HExpr) -> HExpr {
        let of = self.map_value(of);
        let Ty::Map(key, _) = &of.ty else { return of };
        let (ty, span) = (Ty::List(key.clone()), of.span);
        HExpr { kind: HKind::Call(Func::Keys, vec![of]), ty, span }
    }
}
