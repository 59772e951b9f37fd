//! Messages of any shape, read by a chain and by `prost-reflect`: what one calls malformed the other does,
//! and what both read is the same.
#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation, reason = "helpers of a test")]

use crate::common::{Mock, run};
use abi::{Entry, Unreadable, Verdict};
use proptest::prelude::*;
use prost_reflect::ReflectMessage;
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

struct Files;

impl Loader for Files {
    fn read(&self, _from: &str, path: &str) -> Result<SourceText, String> {
        Ok(SourceText { name: path.to_owned(), text: PROTO.to_owned() })
    }
    fn resolve(&self, host_port: &str) -> Result<Vec<std::net::SocketAddr>, String> {
        Err(host_port.to_owned())
    }
}

fn chain() -> Compiled {
    let reads: Vec<String> = READS
        .iter()
        .enumerate()
        .map(|(at, read)| format!("call.metadata[\"h{at}\"] = \"{{call.payload.{read}}}\""))
        .collect();
    let source = format!(
        "proto \"o.proto\"\nservice a\nservice b {{ endpoints: [\"127.0.0.1:1\"] }}\na -> b.o.S/M: E\nelement E {{ request {{ {}\nlet sub = call.payload.sub  match sub {{ Some(sub) => {{ call.metadata[\"v\"] = \"{{sub.s}} {{sub.sub.i}} {{sub.y.s}} {{sub.r[0]}}\" }} None => {{}} }} call.metadata[\"n\"] = \"{{len(call.payload.ri)}} {{len(call.payload.rsub)}} {{base64(call.payload.by)}} {{any(call.payload.rsub, e => e.sub.i == 7)}}\" }} }}",
        reads.join("\n")
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
        for (at, read) in READS.iter().enumerate() {
            assert_eq!(
                mock.request_header(&format!("h{at}")).unwrap(),
                expected(&message, read),
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
