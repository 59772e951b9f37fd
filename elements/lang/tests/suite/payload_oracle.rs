//! Messages of any shape, read by a chain and by `prost-reflect`: what one calls malformed the other does,
//! and what both read is the same.
#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation, reason = "helpers of a test")]

use crate::common::{Mock, run};
use abi::{Entry, Unreadable, Verdict};
use proptest::prelude::*;
use prost_reflect::ReflectMessage;
use prost_reflect::prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, Value};
use towpath_lang::{self as lang, Compiled, Loader, Overrides, SourceText};
use wire::proto::{Reader, Wire, put_key, put_varint};

const PROTO: &str = r#"
syntax = "proto3";
package o;
service S { rpc M(All) returns (All); }
enum E { Z = 0; A = 1; B = -2; }
message Sub { string s = 1; int32 i = 2; Sub sub = 3; repeated string r = 4; oneof c { string x = 5; Sub y = 6; } }
message All {
  bool b = 1; int32 i32 = 2; int64 i64 = 3; uint32 u32 = 4; uint64 u64 = 5; sint32 s32 = 6; sint64 s64 = 7;
  fixed32 f32 = 8; fixed64 f64 = 9; sfixed32 sf32 = 10; sfixed64 sf64 = 11; float f = 12; double d = 13;
  string s = 14; bytes by = 15; E e = 16; Sub sub = 17; optional int32 oi = 18; optional string os = 19;
  repeated int32 ri = 20; repeated string rs = 21; repeated Sub rsub = 22; repeated double rd = 23;
  map<string, int32> ms = 24; map<int32, Sub> mi = 25;
  oneof c { string ca = 26; Sub cb = 27; uint32 cc = 28; }
  repeated int32 unpacked = 70 [packed = false];
}
"#;

/// What the chain reads, and the same of a message.
const READS: [&str; 33] = [
    "b",
    "i32",
    "i64",
    "u32",
    "u64",
    "s32",
    "s64",
    "f32",
    "f64",
    "sf32",
    "sf64",
    "f",
    "d",
    "s",
    "e",
    "oi",
    "os",
    "sub.s",
    "sub.i",
    "sub.sub.s",
    "sub.sub.sub.i",
    "sub.x",
    "sub.y.s",
    "ca",
    "cc",
    "cb.s",
    "cb.sub.i",
    "ri[0]",
    "rs[1]",
    "rd[2]",
    "ms[\"\"]",
    "mi[0].s",
    "unpacked[1]",
];

/// Entries of maps by keys that are known when the call is there, and the same by constants.
const OPEN: [(&str, &str); 4] = [
    ("ms[none]", "ms[\"\"]"),
    ("mi[zero].s", "mi[0].s"),
    ("mi[zero].sub.i", "mi[0].sub.i"),
    ("ms.limit(100)[none]", "ms[\"\"]"),
];

struct Files;

impl Loader for Files {
    fn read(&self, _from: &str, path: &str) -> Result<SourceText, String> {
        Ok(SourceText { name: path.to_owned(), text: PROTO.to_owned() })
    }
    fn resolve(&self, host_port: &str) -> Result<Vec<std::net::SocketAddr>, String> {
        Err(host_port.to_owned())
    }
}

/// Every read: as it is written, and by constants.
fn reads() -> impl Iterator<Item = (usize, &'static str, &'static str)> {
    READS.iter().map(|read| (*read, *read)).chain(OPEN).enumerate().map(|(at, (read, path))| (at, read, path))
}

fn chain() -> Compiled {
    let reads: Vec<String> = reads()
        .map(|(at, read, _)| format!("call.metadata[\"h{at}\"] = \"{{call.payload.{read}}}\""))
        .collect();
    compiled(&format!(
        "let none = lower(\"\")  let zero = parse_int(\"0\") ?? 1\n{}\nlet sub = call.payload.sub  match sub {{ Some(sub) => {{ call.metadata[\"v\"] = \"{{sub.s}} {{sub.sub.i}} {{sub.y.s}} {{sub.r[0]}}\" }} None => {{}} }} call.metadata[\"n\"] = \"{{len(call.payload.ri)}} {{len(call.payload.rsub)}} {{base64(call.payload.by)}} {{any(call.payload.rsub, e => e.sub.i == 7)}}\"",
        reads.join("\n")
    ))
}

/// A chain with this `request`.
fn compiled(request: &str) -> Compiled {
    let source = format!(
        "proto \"o.proto\"\nservice a\nservice b {{ endpoints: [\"127.0.0.1:1\"] }}\na -> b.o.S/M: E\nelement E {{ request {{ {request} }} }}"
    );
    let mut compiled =
        lang::compile("o.adn", &source, &Files, &Overrides::default()).unwrap_or_else(|e| panic!("{e}"));
    compiled.link(&mut lang::state::Store::new(1), &mut lang::Interpreter);
    compiled
}

fn pool() -> DescriptorPool {
    let file = protox::file::File::from_source("o.proto", PROTO).unwrap();
    struct One(protox::file::File);
    impl protox::file::FileResolver for One {
        fn open_file(&self, _name: &str) -> Result<protox::file::File, protox::Error> {
            Ok(self.0.clone())
        }
    }
    let mut compiler = protox::Compiler::with_file_resolver(One(file));
    compiler.open_file("o.proto").unwrap();
    compiler.descriptor_pool()
}

/// Bytes decide what message is made: the same bytes, the same message.
struct Dice<'b>(&'b [u8]);

impl Dice<'_> {
    fn next(&mut self) -> u64 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        u64::from(*first)
    }
}

/// Appends a few fields of this type, and some it does not have.
fn fields(dice: &mut Dice<'_>, ty: &MessageDescriptor, depth: u32, to: &mut Vec<u8>) {
    let known: Vec<_> = ty.fields().collect();
    for _ in 0..dice.next() % 8 {
        let pick = usize::try_from(dice.next()).unwrap() % (known.len() + 2);
        let Some(field) = known.get(pick) else {
            put_key(to, 500 + dice.next() as u32, Wire::Group);
            put_key(to, 1, Wire::Varint);
            put_varint(to, dice.next());
            let number = 500 + dice.next() as u32;
            put_key(to, number, Wire::EndGroup);
            continue;
        };
        let packs = field.is_list() && field.kind() != Kind::String && field.kind().as_message().is_none();
        if packs && dice.next().is_multiple_of(2) {
            put_key(to, field.number(), Wire::Len);
            let mut inner = Vec::new();
            for _ in 0..dice.next() % 5 {
                value(dice, &field.kind(), depth, &mut inner);
            }
            put_varint(to, inner.len() as u64);
            to.extend_from_slice(&inner);
            continue;
        }
        put_key(to, field.number(), wire_of(&field.kind()));
        value(dice, &field.kind(), depth, to);
    }
}

fn wire_of(kind: &Kind) -> Wire {
    match kind.wire_type() {
        prost_reflect::prost::encoding::WireType::Varint => Wire::Varint,
        prost_reflect::prost::encoding::WireType::SixtyFourBit => Wire::Fixed64,
        prost_reflect::prost::encoding::WireType::ThirtyTwoBit => Wire::Fixed32,
        _ => Wire::Len,
    }
}

fn value(dice: &mut Dice<'_>, kind: &Kind, depth: u32, to: &mut Vec<u8>) {
    match kind {
        Kind::Message(inner) => {
            let mut bytes = Vec::new();
            if depth > 0 {
                fields(dice, inner, depth - 1, &mut bytes);
            }
            put_varint(to, bytes.len() as u64);
            to.extend_from_slice(&bytes);
        }
        Kind::String | Kind::Bytes => {
            let text = ["", "a", "k", "é", "long enough to be seen"][dice.next() as usize % 5];
            put_varint(to, text.len() as u64);
            to.extend_from_slice(text.as_bytes());
        }
        _ => {
            let small = dice.next();
            let word =
                [small, small.wrapping_neg(), u64::MAX >> (small % 64), 7, 0][dice.next() as usize % 5];
            match wire_of(kind) {
                Wire::Fixed32 => to.extend_from_slice(&(word as u32).to_le_bytes()),
                Wire::Fixed64 => to.extend_from_slice(&word.to_le_bytes()),
                _ if small % 16 == 3 => to.extend_from_slice(&[0x85, 0x80, 0x00]),
                _ => put_varint(to, word),
            }
        }
    }
}

/// A known field stands there in another layout: parsers skip it, `prost` complains or reads on.
fn is_mislaid(ty: &MessageDescriptor, bytes: &[u8]) -> bool {
    let mut reader = Reader::new(bytes);
    while !reader.is_done() {
        let Ok((number, wire)) = reader.key() else { return false };
        let from = reader;
        let field = ty.get_field(number);
        if let Some(field) = &field {
            let packed = field.is_list() && wire == Wire::Len && wire_of(&field.kind()) != Wire::Len;
            if wire != wire_of(&field.kind()) && !packed {
                return true;
            }
        }
        let mut inner = from;
        if let (Some(Kind::Message(inner_ty)), Ok((_, part))) = (field.map(|f| f.kind()), inner.slice())
            && is_mislaid(&inner_ty, part)
        {
            return true;
        }
        if reader.skip(number, wire, 100).is_err() {
            return false;
        }
    }
    false
}

fn shown(value: &Value) -> String {
    match value {
        Value::Bool(x) => x.to_string(),
        Value::I32(x) => x.to_string(),
        Value::I64(x) => x.to_string(),
        Value::U32(x) => x.to_string(),
        Value::U64(x) => x.to_string(),
        Value::F32(x) => f64::from(*x).to_string(),
        Value::F64(x) => x.to_string(),
        Value::String(x) => x.clone(),
        Value::EnumNumber(x) => match x {
            0 => "Z".into(),
            1 => "A".into(),
            -2 => "B".into(),
            other => other.to_string(),
        },
        other => format!("{other:?}"),
    }
}

/// What a path is by `prost-reflect`, with the language's rules of presence.
fn expected(message: &DynamicMessage, path: &str) -> String {
    let (step, rest) = path.split_once('.').unwrap_or((path, ""));
    let (name, index) =
        step.split_once('[').map_or((step, None), |(n, i)| (n, Some(i.trim_end_matches(']'))));
    let field = message.descriptor().get_field_by_name(name).unwrap();
    let value = message.get_field(&field).into_owned();
    let value = match (index, &value) {
        (Some(at), Value::List(items)) => items.get(at.parse::<usize>().unwrap()).cloned(),
        (Some("\"\""), Value::Map(items)) => {
            items.get(&prost_reflect::MapKey::String(String::new())).cloned()
        }
        (Some(_), Value::Map(items)) => items.get(&prost_reflect::MapKey::I32(0)).cloned(),
        _ if field.supports_presence() && !message.has_field(&field) => None,
        _ => Some(value),
    };
    match value {
        None => "none".into(),
        Some(Value::Message(inner)) if !rest.is_empty() => expected(&inner, rest),
        Some(value) => shown(&value),
    }
}

thread_local! {
    static WORLD: (Compiled, MessageDescriptor) = (chain(), pool().get_message_by_name("o.All").unwrap());
}

fn agree(bytes: &[u8]) {
    WORLD.with(|(compiled, ty)| {
        if is_mislaid(ty, bytes) {
            return;
        }
        let theirs = DynamicMessage::decode(ty.clone(), bytes);
        let mut mock = Mock::new(1);
        (mock.service, mock.method) = ("o.S".into(), "M".into());
        mock.payload = Some(bytes.to_vec());
        let ours = run(compiled, Entry::Request, &mut mock).0;
        let Ok(message) = theirs else {
            assert_eq!(ours, Verdict::Unreadable(Unreadable::Malformed), "they cannot read it: {bytes:x?}");
            return;
        };
        let len = |field: FieldDescriptor| message.get_field(&field).as_list().map_or(0, <[Value]>::len);
        if ty.fields().any(|field| len(field) > 64) && ours != Verdict::Forward {
            assert_eq!(ours, Verdict::Unreadable(Unreadable::ListTooLong), "{bytes:x?}");
            return;
        }
        assert_eq!(ours, Verdict::Forward, "they read it: {bytes:x?}");
        for (at, read, path) in reads() {
            assert_eq!(
                mock.request_header(&format!("h{at}")).unwrap(),
                expected(&message, path),
                "{read} of {bytes:x?}"
            );
        }
        let sub = message.get_field_by_name("sub").unwrap().into_owned();
        if let (true, Value::Message(sub)) = (message.has_field_by_name("sub"), sub) {
            let parts = ["s", "sub.i", "y.s", "r[0]"].map(|p| expected(&sub, p));
            assert_eq!(mock.request_header("v").unwrap(), parts.join(" "), "{bytes:x?}");
        }
        let count = |name: &str| message.get_field_by_name(name).unwrap().as_list().unwrap().len();
        let head = format!("{} {} ", count("ri"), count("rsub"));
        assert!(mock.request_header("n").unwrap().starts_with(&head), "{bytes:x?}");
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn messages_read_the_same(dice in prop::collection::vec(any::<u8>(), 0..400)) {
        WORLD.with(|(_, ty)| {
            let mut bytes = Vec::new();
            let mut dice = Dice(&dice);
            fields(&mut dice, ty, 4, &mut bytes);
            fields(&mut dice, ty, 4, &mut bytes);
            agree(&bytes);
        });
    }

    #[test]
    fn broken_messages_are_broken_for_both(
        dice in prop::collection::vec(any::<u8>(), 0..300),
        flips in prop::collection::vec((any::<u16>(), any::<u8>()), 1..4),
        cut in any::<u16>(),
    ) {
        WORLD.with(|(_, ty)| {
            let mut bytes = Vec::new();
            fields(&mut Dice(&dice), ty, 4, &mut bytes);
            for (at, with) in flips {
                let len = bytes.len().max(1);
                if let Some(byte) = bytes.get_mut(usize::from(at) % len) {
                    *byte ^= with;
                }
            }
            if cut % 4 == 0 {
                bytes.truncate(usize::from(cut) % (bytes.len() + 1));
            }
            agree(&bytes);
        });
    }
}

/// What `request` writes, and the same for `prost-reflect`: where to, and the value.
const WRITES: [(&str, &str, Written); 24] = [
    ("rs[1] = \"w\"", "rs[1]", Written::Text("w")),
    ("rs[len(call.payload.rs) - 1] = \"\"", "rs[-1]", Written::Text("")),
    ("rs[0] = None", "rs[0]", Written::Nothing),
    ("ri[0] = 9", "ri[0]", Written::Int(9)),
    ("ri[2] = -70000", "ri[2]", Written::Int(-70000)),
    ("ri[1] = 0", "ri[1]", Written::Int(0)),
    ("ri[0] = None", "ri[0]", Written::Nothing),
    ("unpacked[1] = 5", "unpacked[1]", Written::Int(5)),
    ("unpacked[0] = None", "unpacked[0]", Written::Nothing),
    ("rsub[0].s = \"w\"", "rsub[0].s", Written::Text("w")),
    ("rsub[0].s = \"\"", "rsub[0].s", Written::Text("")),
    ("rsub[1].sub.i = 5", "rsub[1].sub.i", Written::Int(5)),
    ("rsub[0].r[1] = \"w\"", "rsub[0].r[1]", Written::Text("w")),
    ("rsub[0].y.s = \"w\"", "rsub[0].y.s", Written::Text("w")),
    ("rsub[0].x = None", "rsub[0].x", Written::Nothing),
    ("rsub[0] = None", "rsub[0]", Written::Nothing),
    ("sub.sub.r[0] = \"w\"", "sub.sub.r[0]", Written::Text("w")),
    ("mi[parse_int(\"0\") ?? 1].s = \"w\"", "mi[0].s", Written::Text("w")),
    ("mi[0].sub.i = 5", "mi[0].sub.i", Written::Int(5)),
    ("mi[7].r[0] = \"w\"", "mi[7].r[0]", Written::Text("w")),
    ("mi[0].x = None", "mi[0].x", Written::Nothing),
    ("mi[parse_int(\"0\") ?? 1] = None", "mi[0]", Written::Nothing),
    ("ms[lower(\"K\")] = 5", "ms[k]", Written::Int(5)),
    ("ms[lower(\"K\")] = None", "ms[k]", Written::Nothing),
];

/// A value to be written.
#[derive(Clone, Copy)]
enum Written {
    Text(&'static str),
    Int(i32),
    Nothing,
}

impl Written {
    fn value(self) -> Option<Value> {
        match self {
            Self::Text(text) => Some(Value::String(text.to_owned())),
            Self::Int(n) => Some(Value::I32(n)),
            Self::Nothing => None,
        }
    }
}

/// Writes by `prost-reflect`: true if anything was to be written.
fn write(message: &mut DynamicMessage, path: &str, value: Option<Value>) -> bool {
    let (step, rest) = path.split_once('.').unwrap_or((path, ""));
    let (name, index) =
        step.split_once('[').map_or((step, None), |(n, i)| (n, Some(i.trim_end_matches(']'))));
    let field = message.descriptor().get_field_by_name(name).unwrap();
    let mut held = message.get_field(&field).into_owned();
    let is_written = match (&mut held, index) {
        (Value::List(items), Some(at)) => {
            let at = at.parse().unwrap_or(items.len().wrapping_sub(1));
            match (items.get_mut(at), value) {
                (None, _) => false,
                (Some(Value::Message(inner)), value) if !rest.is_empty() => write(inner, rest, value),
                (Some(item), Some(value)) => {
                    *item = value;
                    true
                }
                (Some(_), None) => {
                    items.remove(at);
                    true
                }
            }
        }
        (Value::Map(entries), Some(key)) => {
            let text = || prost_reflect::MapKey::String(key.to_owned());
            let key = key.parse().map_or_else(|_| text(), prost_reflect::MapKey::I32);
            match (rest, value) {
                ("", Some(value)) => {
                    entries.insert(key, value);
                    true
                }
                ("", None) => entries.remove(&key).is_some(),
                (rest, value) => {
                    let entry = field.kind().as_message().unwrap().map_entry_value_field();
                    let mut inner = entries.get(&key).cloned().unwrap_or(Value::default_value(&entry.kind()));
                    let is_written = write(inner.as_message_mut().unwrap(), rest, value);
                    if is_written {
                        entries.insert(key, inner);
                    }
                    is_written
                }
            }
        }
        (Value::Message(inner), _) if !rest.is_empty() => write(inner, rest, value),
        (held, _) => match value {
            Some(value) => {
                *held = value;
                true
            }
            None => {
                let had = message.has_field(&field);
                message.clear_field(&field);
                return had;
            }
        },
    };
    if is_written {
        message.set_field(&field, held);
    }
    is_written
}

/// A message after one of [`WRITES`] is what `prost-reflect` makes of it.
fn writes_agree(chain: &Compiled, ty: &MessageDescriptor, bytes: &[u8], at: usize) {
    let (statement, path, value) = WRITES[at];
    let Ok(mut message) = DynamicMessage::decode(ty.clone(), bytes) else { return };
    // Of NaN nobody says whether it is the same.
    if is_mislaid(ty, bytes) || message != message.clone() {
        return;
    }
    let mut mock = Mock::new(1);
    (mock.service, mock.method) = ("o.S".into(), "M".into());
    mock.payload = Some(bytes.to_vec());
    assert_eq!(run(chain, Entry::Request, &mut mock).0, Verdict::Forward, "{statement} of {bytes:x?}");
    let ours = mock.payload.unwrap();
    write(&mut message, path, value.value());
    // What is at its default is not there, whether it came so or was made so.
    let plain = |message: DynamicMessage| {
        DynamicMessage::decode(ty.clone(), message.encode_to_vec().as_slice()).unwrap()
    };
    let ours = plain(DynamicMessage::decode(ty.clone(), ours.as_slice()).unwrap());
    let message = plain(message);
    // A type that holds itself has no end when it is shown for debugging.
    assert!(ours == message, "{statement} of {bytes:x?}: {ours}, expected {message}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn parts_are_written_the_same(dice in prop::collection::vec(any::<u8>(), 0..400)) {
        thread_local! {
            static CHAINS: Vec<Compiled> =
                WRITES.iter().map(|(statement, ..)| compiled(&format!("call.payload.{statement}"))).collect();
        }
        WORLD.with(|(_, ty)| {
            let mut bytes = Vec::new();
            let mut dice = Dice(&dice);
            let at = dice.next() as usize % WRITES.len();
            // Two messages one after the other are one: what is split is merged.
            fields(&mut dice, ty, 3, &mut bytes);
            fields(&mut dice, ty, 3, &mut bytes);
            CHAINS.with(|chains| writes_agree(&chains[at], ty, &bytes, at));
        });
    }
}

#[test]
fn nothing_nests_deeper_than_a_hundred() {
    for (depth, reads) in [(99, true), (100, true), (101, false), (5000, false)] {
        let mut bytes = Vec::new();
        for at in 0..depth {
            // `sub` is field 17 of the outermost message and field 3 of itself.
            let mut outer = Vec::new();
            put_key(&mut outer, if at + 1 == depth { 17 } else { 3 }, Wire::Len);
            put_varint(&mut outer, bytes.len() as u64);
            outer.extend_from_slice(&bytes);
            bytes = outer;
        }
        WORLD.with(|(_, ty)| assert_eq!(DynamicMessage::decode(ty.clone(), bytes.as_slice()).is_ok(), reads));
        agree(&bytes);
    }
}

#[test]
fn a_list_is_seen_whole_or_not_at_all() {
    for (items, sees) in [(64, Verdict::Forward), (65, Verdict::Unreadable(Unreadable::ListTooLong))] {
        let mut bytes = Vec::new();
        for at in 0..items {
            put_key(&mut bytes, 20, Wire::Varint);
            put_varint(&mut bytes, at);
        }
        agree(&bytes);
        let mut mock = Mock::new(1);
        (mock.service, mock.method, mock.payload) = ("o.S".into(), "M".into(), Some(bytes));
        WORLD.with(|(compiled, _)| assert_eq!(run(compiled, Entry::Request, &mut mock).0, sees));
    }
}
