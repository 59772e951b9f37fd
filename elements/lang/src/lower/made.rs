//! Messages that are made, to instructions: their values first, then the fields one after the other.

use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};

use crate::hir::{HExpr, Made, Pairs};
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
    /// The same of a map that is a value.
    Map([Target; 3], Reg),
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
                    self.pairs(of_map(field.number(), &entry), entries)
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
    pub(super) fn entries(&mut self, entry: &MessageDescriptor, entries: &Pairs, number: u32) -> Val {
        let ready = self.pairs(of_map(number, entry), entries);
        self.assembled(vec![ready])
    }

    fn pairs(&mut self, targets: [Target; 3], entries: &Pairs) -> Ready {
        match entries {
            Pairs::Listed(items) => {
                let pair = |(key, value): &(HExpr, HExpr)| (self.scalar(key), self.scalar(value));
                Ready::Entries(targets, items.iter().map(pair).collect())
            }
            Pairs::Of(map) => Ready::Map(targets, self.scalar(map)),
        }
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
                Ready::Map(targets, list) => {
                    self.shared.fields.extend(targets);
                    let (i, key, a) = (self.alloc(1), self.alloc(1), self.alloc(1));
                    self.load(i, 0);
                    let back = self.here();
                    let done = self.emit(Op::Next { d: key, list, i, to: 0 });
                    let odd = self.emit(Op::Next { d: a, list, i, to: 0 });
                    self.emit(Op::MessageEntry { key, a, site });
                    self.emit(Op::Jump { to: back });
                    self.land(&[done, odd]);
                }
            }
        }
        self.one(|d| Op::MessageEnd { d })
    }
}
