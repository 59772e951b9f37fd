//! Messages that are made, to instructions: their values first, then the fields one after the other.

use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};

use crate::hir::{HExpr, Made};
use crate::vm::code::{Op, Reg};
use crate::vm::message;
use crate::vm::rewrite::Target;

use super::build::{Builder, Val};
use super::payload::{kind_of, shape_of};

/// A field whose value is in its register.
enum Ready {
    Value(Target, Reg),
    /// The map's field, its keys' and its values', and the registers of each entry.
    Entries([Target; 3], Vec<(Reg, Reg)>),
}

/// How a map is written: itself, its keys and its values.
fn of_map(number: u32, entry: &MessageDescriptor) -> [Target; 3] {
    let (key, value) = (entry.map_entry_key_field(), entry.map_entry_value_field());
    [
        Target::plain(number, message::Kind::Message),
        Target::plain(1, kind_of(&key)),
        Target::plain(2, kind_of(&value)),
    ]
}

impl Builder<'_> {
    /// `Item { sku: "a" }`.
    pub(super) fn made(&mut self, fields: &[(FieldDescriptor, Made)]) -> Val {
        let mut ready = Vec::new();
        for (field, made) in fields {
            ready.push(match (made, field.kind()) {
                (Made::Entries(entries), Kind::Message(entry)) => {
                    Ready::Entries(of_map(field.number(), &entry), self.pairs(entries))
                }
                (Made::Value(value), _) => {
                    let made = self.expr(value);
                    let a = if field.is_list() { self.reg(&made) } else { self.pair(&made) };
                    Ready::Value(shape_of(field), a)
                }
                (Made::Entries(_), _) => continue,
            });
        }
        self.assembled(ready)
    }

    /// All entries of a map of a message, encoded.
    pub(super) fn entries(
        &mut self,
        entry: &MessageDescriptor,
        entries: &[(HExpr, HExpr)],
        number: u32,
    ) -> Val {
        let pairs = self.pairs(entries);
        self.assembled(vec![Ready::Entries(of_map(number, entry), pairs)])
    }

    fn pairs(&mut self, entries: &[(HExpr, HExpr)]) -> Vec<(Reg, Reg)> {
        entries.iter().map(|(key, value)| (self.scalar(key), self.scalar(value))).collect()
    }

    fn assembled(&mut self, ready: Vec<Ready>) -> Val {
        self.emit(Op::MessageStart);
        for field in ready {
            let site = u16::try_from(self.shared.fields.len()).unwrap_or(u16::MAX);
            match field {
                Ready::Value(target, a) => {
                    self.shared.fields.push(target);
                    self.emit(Op::MessageField { a, site });
                }
                Ready::Entries(targets, pairs) => {
                    self.shared.fields.extend(targets);
                    for (key, a) in pairs {
                        self.emit(Op::MessageEntry { key, a, site });
                    }
                }
            }
        }
        self.one(|d| Op::MessageEnd { d })
    }
}
