//! Writing a field of a message: the field is encoded anew, all else stays byte for byte and in order.

use wire::proto::{DEPTH_MAX, Malformed, Reader, Wire, put_key, put_length_before, put_varint};

use super::message::{Key, Kind};

/// Where a write goes, by method.
#[derive(Clone, Debug, Default)]
pub struct Write {
    /// Service, method, and the field there; in order. A method that is not here keeps its message.
    pub methods: Vec<(String, String, Target)>,
    /// Only calls of the one method come here.
    pub is_exact: bool,
    /// How the message is read, once it has changed.
    pub reading: u16,
}

/// A field, from the outermost message on.
#[derive(Clone, Debug)]
pub struct Target {
    /// The fields on the way, the last one included.
    pub steps: Vec<Step>,
    /// What its values are.
    pub kind: Kind,
    /// It takes any number of them.
    pub is_list: bool,
    /// A list goes into one field.
    pub is_packed: bool,
    /// Its default is not written.
    pub is_implicit: bool,
    /// Of a map, only the entry with this key.
    pub key: Option<Key>,
    /// What is written is encoded already: all entries of a map.
    pub is_raw: bool,
}

/// One field on the way.
#[derive(Clone, Debug)]
pub struct Step {
    /// Its number.
    pub number: u32,
    /// Members of its oneof, which go when it comes.
    pub rivals: Vec<u32>,
}

impl Write {
    /// The field in a method.
    pub(crate) fn target(&self, service: &str, method: &str) -> Option<&Target> {
        if let (true, [(.., target)]) = (self.is_exact, self.methods.as_slice()) {
            return Some(target);
        }
        let at = self
            .methods
            .binary_search_by(|(s, m, _)| (s.as_str(), m.as_str()).cmp(&(service, method)))
            .ok()?;
        self.methods.get(at).map(|(.., target)| target)
    }
}

impl Target {
    /// Appends the field with one value; `bytes` if the values are texts or messages.
    pub(crate) fn encode(&self, word: u64, bytes: &[u8], to: &mut Vec<u8>) {
        let number = self.steps.last().map_or(0, |s| s.number);
        let is_default = if self.kind.is_scalar() { word == 0 } else { bytes.is_empty() };
        if self.is_implicit && is_default {
            return;
        }
        if let Some(key) = &self.key {
            self.encode_entry(key, number, word, bytes, to);
            return;
        }
        put_key(to, number, self.kind.wire());
        if self.kind.is_scalar() {
            self.put(word, to);
        } else {
            put_varint(to, bytes.len() as u64);
            to.extend_from_slice(bytes);
        }
    }

    /// Appends the entry of a map.
    fn encode_entry(&self, key: &Key, number: u32, word: u64, bytes: &[u8], to: &mut Vec<u8>) {
        put_key(to, number, Wire::Len);
        let from = to.len();
        let of = |number, kind| Self::plain(number, kind);
        match key {
            Key::Word(kind, key) => of(1, *kind).encode(*key, &[], to),
            Key::Text(key) => of(1, Kind::String).encode(0, key.as_bytes(), to),
        }
        of(2, self.kind).encode(word, bytes, to);
        put_length_before(to, from);
    }

    /// A field of its own, always written.
    pub(crate) fn plain(number: u32, kind: Kind) -> Self {
        let steps = vec![Step { number, rivals: Vec::new() }];
        let (is_list, is_packed, is_implicit, key, is_raw) = (false, false, false, None, false);
        Self { steps, kind, is_list, is_packed, is_implicit, key, is_raw }
    }

    /// Appends the field with many words.
    pub(crate) fn encode_packed(&self, words: impl Iterator<Item = u64>, to: &mut Vec<u8>) {
        let mut words = words.peekable();
        if words.peek().is_none() {
            return;
        }
        put_key(to, self.steps.last().map_or(0, |s| s.number), Wire::Len);
        let from = to.len();
        words.for_each(|word| self.put(word, to));
        put_length_before(to, from);
    }

    /// A word of the language as a value of the field; what does not fit is the nearest that does.
    #[expect(clippy::cast_possible_truncation, reason = "a float of the proto has 32 bits")]
    fn put(&self, word: u64, to: &mut Vec<u8>) {
        let int32 = || {
            i32::try_from(word.cast_signed()).unwrap_or(if word.cast_signed() < 0 {
                i32::MIN
            } else {
                i32::MAX
            })
        };
        let uint32 = || u32::try_from(word).unwrap_or(u32::MAX);
        match self.kind {
            Kind::Bool => put_varint(to, u64::from(word != 0)),
            Kind::Int32 => put_varint(to, i64::from(int32()).cast_unsigned()),
            Kind::Uint32 => put_varint(to, u64::from(uint32())),
            Kind::Sint32 => {
                let n = int32();
                put_varint(to, u64::from((n << 1 ^ n >> 31).cast_unsigned()));
            }
            Kind::Sint64 => {
                let n = word.cast_signed();
                put_varint(to, (n << 1 ^ n >> 63).cast_unsigned());
            }
            Kind::Fixed32 => to.extend_from_slice(&uint32().to_le_bytes()),
            Kind::Sfixed32 => to.extend_from_slice(&int32().to_le_bytes()),
            Kind::Float => to.extend_from_slice(&(f64::from_bits(word) as f32).to_le_bytes()),
            Kind::Fixed64 | Kind::Sfixed64 | Kind::Double => to.extend_from_slice(&word.to_le_bytes()),
            _ => put_varint(to, word),
        }
    }

    /// Appends `message` with the field replaced by `field`, which is it encoded; nothing takes it away.
    pub(crate) fn rewrite(&self, message: &[u8], field: &[u8], to: &mut Vec<u8>) -> Result<(), Malformed> {
        self.level(message, &self.steps, field, to)
    }

    fn level(&self, message: &[u8], steps: &[Step], field: &[u8], to: &mut Vec<u8>) -> Result<(), Malformed> {
        let Some((step, rest)) = steps.split_first() else { return Ok(()) };
        let is_last = rest.is_empty();
        let inner = if is_last { Inner::None } else { inner(message, step.number)? };
        let mut is_placed = false;
        let mut reader = Reader::new(message);
        while !reader.is_done() {
            let from = reader.at();
            let (number, wire) = reader.key()?;
            reader.skip(number, wire, DEPTH_MAX)?;
            let is_own = number == step.number
                && if let (true, Some(key)) = (is_last, &self.key) {
                    let mut entry = Reader::new(message.get(from..).unwrap_or(&[]));
                    entry.key()?;
                    wire == Wire::Len && key.is_of(entry.slice()?.1)
                } else if is_last {
                    wire == self.kind.wire() || (self.is_list && wire == Wire::Len)
                } else {
                    wire == Wire::Len
                };
            if is_own {
                if !is_placed {
                    self.place(&inner, step, rest, field, to)?;
                    is_placed = true;
                }
            } else if !step.rivals.contains(&number) || field.is_empty() {
                to.extend_from_slice(message.get(from..reader.at()).unwrap_or(&[]));
            }
        }
        if !is_placed && !field.is_empty() {
            self.place(&inner, step, rest, field, to)?;
        }
        Ok(())
    }

    fn place(
        &self,
        inner: &Inner<'_>,
        step: &Step,
        rest: &[Step],
        field: &[u8],
        to: &mut Vec<u8>,
    ) -> Result<(), Malformed> {
        if rest.is_empty() {
            to.extend_from_slice(field);
            return Ok(());
        }
        put_key(to, step.number, Wire::Len);
        let from = to.len();
        self.level(inner.bytes(), rest, field, to)?;
        put_length_before(to, from);
        Ok(())
    }
}

/// What a message field has in all its parts together.
enum Inner<'m> {
    None,
    One(&'m [u8]),
    Many(Vec<u8>),
}

impl Inner<'_> {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::None => &[],
            Self::One(bytes) => bytes,
            Self::Many(bytes) => bytes,
        }
    }
}

fn inner(message: &[u8], number: u32) -> Result<Inner<'_>, Malformed> {
    let mut found = Inner::None;
    let mut reader = Reader::new(message);
    while !reader.is_done() {
        let (at, wire) = reader.key()?;
        if at != number || wire != Wire::Len {
            reader.skip(at, wire, DEPTH_MAX)?;
            continue;
        }
        let (_, part) = reader.slice()?;
        found = match found {
            Inner::None => Inner::One(part),
            Inner::One(first) => Inner::Many([first, part].concat()),
            Inner::Many(mut all) => {
                all.extend_from_slice(part);
                Inner::Many(all)
            }
        };
    }
    Ok(found)
}
