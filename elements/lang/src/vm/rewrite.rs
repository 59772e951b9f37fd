//! Writing a field of a message: the field is encoded anew, all else stays byte for byte and in order.

use wire::proto::{DEPTH_MAX, Malformed, Reader, Wire, put_key, put_length_before, put_varint};

use super::message::{KeyRef, Kind};

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
    /// What is written is encoded already: all entries of a map.
    pub is_raw: bool,
}

/// One field on the way.
#[derive(Clone, Debug)]
pub struct Step {
    /// Its number.
    pub number: u32,
    /// Members of its oneof, which go when it comes, as it goes when they come.
    pub rivals: Vec<(u32, Wire)>,
    /// Only one of its values is meant.
    pub pick: Option<Pick>,
}

/// Which of a field's values is meant: each write says it anew.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pick {
    /// The item at a place of a list whose items are this.
    Item(Kind),
    /// The entry of a map with a key of this kind.
    Entry(Kind),
}

/// Picks on one way into a message.
pub(crate) const PICKS_MAX: usize = 8;

/// What a write picks.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Picked<'k> {
    Item(u64),
    Entry(KeyRef<'k>),
}

/// What was found where the write goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// The message is another now.
    Written,
    /// There is no such item, or nothing to take away.
    Unchanged,
}

impl Outcome {
    fn or(self, other: Self) -> Self {
        if self == Self::Written { self } else { other }
    }
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
        let is_default = if self.kind.is_scalar() { word == 0 } else { bytes.is_empty() };
        if self.is_implicit && is_default {
            return;
        }
        // The value of an entry is its second field.
        let number = match self.steps.last() {
            Some(Step { pick: Some(Pick::Entry(_)), .. }) => 2,
            Some(step) => step.number,
            None => 0,
        };
        put_key(to, number, self.kind.wire());
        if self.kind.is_scalar() {
            self.kind.put(word, to);
        } else {
            put_varint(to, bytes.len() as u64);
            to.extend_from_slice(bytes);
        }
    }

    /// A field of its own, always written.
    pub(crate) fn plain(number: u32, kind: Kind) -> Self {
        let steps = vec![Step { number, rivals: Vec::new(), pick: None }];
        let (is_list, is_packed, is_implicit, is_raw) = (false, false, false, false);
        Self { steps, kind, is_list, is_packed, is_implicit, is_raw }
    }

    /// Appends the field with many words.
    pub(crate) fn encode_packed(&self, words: impl Iterator<Item = u64>, to: &mut Vec<u8>) {
        let mut words = words.peekable();
        if words.peek().is_none() {
            return;
        }
        put_key(to, self.steps.last().map_or(0, |s| s.number), Wire::Len);
        let from = to.len();
        words.for_each(|word| self.kind.put(word, to));
        put_length_before(to, from);
    }

    /// Appends `message` with the field replaced by `field`, which is it encoded; nothing takes it away.
    /// `picked` says which items and entries are meant on the way. True if something is another now.
    pub(crate) fn rewrite(
        &self,
        message: &[u8],
        picked: &[Picked<'_>],
        field: &[u8],
        to: &mut Vec<u8>,
    ) -> Result<bool, Malformed> {
        let way = Way { steps: &self.steps, picked };
        Ok(self.level(message, way, field, to)? == Outcome::Written)
    }

    fn level(
        &self,
        message: &[u8],
        way: Way<'_>,
        field: &[u8],
        to: &mut Vec<u8>,
    ) -> Result<Outcome, Malformed> {
        let Some((step, rest)) = way.steps.split_first() else { return Ok(Outcome::Unchanged) };
        match (step.pick, way.picked.split_first()) {
            (None, _) => self.field(message, step, Way { steps: rest, ..way }, field, to),
            (Some(Pick::Item(kind)), Some((Picked::Item(at), picked))) => {
                self.item(message, (step.number, kind, *at), Way { steps: rest, picked }, field, to)
            }
            (Some(Pick::Entry(_)), Some((Picked::Entry(key), picked))) => {
                self.entry(message, step.number, *key, Way { steps: rest, picked }, field, to)
            }
            _ => Ok(Outcome::Unchanged),
        }
    }

    /// A field that is one value, or all of its values.
    fn field(
        &self,
        message: &[u8],
        step: &Step,
        rest: Way<'_>,
        field: &[u8],
        to: &mut Vec<u8>,
    ) -> Result<Outcome, Malformed> {
        let is_last = rest.steps.is_empty();
        let inner = if is_last { Inner::None } else { inner(message, step.number, &step.rivals)? };
        let place = |to: &mut Vec<u8>| {
            if is_last {
                to.extend_from_slice(field);
                return Ok(Outcome::Written);
            }
            self.nested(step.number, inner.bytes(), rest, field, to)
        };
        let is_own = |number: u32, wire: Wire| {
            let fits = if is_last { self.kind.wire() } else { Wire::Len };
            number == step.number && (wire == fits || (is_last && self.is_list && wire == Wire::Len))
        };
        // Where the field is taken away, what it has driven out does not come back.
        let gone_until = match (step.rivals.as_slice(), field) {
            ([], _) => 0,
            (_, []) => last(message, is_own)?,
            _ => message.len(),
        };
        let (mut is_placed, mut outcome) = (false, Outcome::Unchanged);
        let mut reader = Reader::new(message);
        while !reader.is_done() {
            let from = reader.at();
            let (number, wire) = reader.key()?;
            reader.skip(number, wire, DEPTH_MAX)?;
            if is_own(number, wire) {
                if !is_placed {
                    outcome = place(to)?;
                    is_placed = true;
                }
            } else if from >= gone_until || !step.rivals.contains(&(number, wire)) {
                to.extend_from_slice(message.get(from..reader.at()).unwrap_or(&[]));
            }
        }
        if !is_placed && !field.is_empty() {
            outcome = place(to)?;
        }
        Ok(outcome)
    }

    /// A message field with what is changed within it.
    fn nested(
        &self,
        number: u32,
        message: &[u8],
        rest: Way<'_>,
        field: &[u8],
        to: &mut Vec<u8>,
    ) -> Result<Outcome, Malformed> {
        put_key(to, number, Wire::Len);
        let from = to.len();
        let outcome = self.level(message, rest, field, to)?;
        put_length_before(to, from);
        Ok(outcome)
    }

    /// The item at a place of a list, which is there or nothing happens.
    fn item(
        &self,
        message: &[u8],
        (own, kind, at): (u32, Kind, u64),
        rest: Way<'_>,
        field: &[u8],
        to: &mut Vec<u8>,
    ) -> Result<Outcome, Malformed> {
        let (mut place, mut outcome) = (0_u64, Outcome::Unchanged);
        let mut reader = Reader::new(message);
        while !reader.is_done() {
            let from = reader.at();
            let (number, wire) = reader.key()?;
            let value = reader.at();
            reader.skip(number, wire, DEPTH_MAX)?;
            let whole = message.get(from..reader.at()).unwrap_or(&[]);
            let is_packed = wire == Wire::Len && kind.is_scalar();
            if number == own && is_packed {
                let (_, values) = Reader::new(message.get(value..).unwrap_or(&[])).slice()?;
                outcome = outcome.or(packed(values, own, kind, &mut place, at, field, to)?);
            } else if number == own && wire == kind.wire() {
                if place != at {
                    to.extend_from_slice(whole);
                } else if rest.steps.is_empty() {
                    to.extend_from_slice(field);
                    outcome = Outcome::Written;
                } else {
                    let (_, item) = Reader::new(message.get(value..).unwrap_or(&[])).slice()?;
                    outcome = self.nested(own, item, rest, field, to)?;
                }
                place += 1;
            } else {
                to.extend_from_slice(whole);
            }
        }
        Ok(outcome)
    }

    /// The entry of a map, of which there is one afterwards, or none if it is taken away.
    fn entry(
        &self,
        message: &[u8],
        own: u32,
        key: KeyRef<'_>,
        rest: Way<'_>,
        field: &[u8],
        to: &mut Vec<u8>,
    ) -> Result<Outcome, Malformed> {
        let latest = latest(message, own, key)?;
        let is_wanted = !field.is_empty() || (latest.is_some() && !rest.steps.is_empty());
        let place = |to: &mut Vec<u8>| {
            if is_wanted { self.put_entry(own, key, latest, rest, field, to) } else { Ok(Outcome::Written) }
        };
        let mut outcome = None;
        let mut reader = Reader::new(message);
        while !reader.is_done() {
            let from = reader.at();
            let (number, wire) = reader.key()?;
            if number == own && wire == Wire::Len {
                let (_, entry) = reader.slice()?;
                if key.is_of(entry) {
                    if outcome.is_none() {
                        outcome = Some(place(to)?);
                    }
                    continue;
                }
            } else {
                reader.skip(number, wire, DEPTH_MAX)?;
            }
            to.extend_from_slice(message.get(from..reader.at()).unwrap_or(&[]));
        }
        match outcome {
            Some(outcome) => Ok(outcome),
            None if is_wanted => place(to),
            None => Ok(Outcome::Unchanged),
        }
    }

    /// The one entry of a key; `latest` is what it was.
    fn put_entry(
        &self,
        own: u32,
        key: KeyRef<'_>,
        latest: Option<&[u8]>,
        rest: Way<'_>,
        field: &[u8],
        to: &mut Vec<u8>,
    ) -> Result<Outcome, Malformed> {
        put_key(to, own, Wire::Len);
        let from = to.len();
        key.encode(to);
        let outcome = if rest.steps.is_empty() {
            to.extend_from_slice(field);
            Outcome::Written
        } else {
            let value = latest.map_or(Ok(Inner::None), |entry| inner(entry, 2, &[]))?;
            self.nested(2, value.bytes(), rest, field, to)?
        };
        put_length_before(to, from);
        Ok(outcome)
    }
}

/// The entry of a map that counts for a key: the last one.
fn latest<'m>(message: &'m [u8], own: u32, key: KeyRef<'_>) -> Result<Option<&'m [u8]>, Malformed> {
    let (mut reader, mut found) = (Reader::new(message), None);
    while !reader.is_done() {
        let (number, wire) = reader.key()?;
        if number != own || wire != Wire::Len {
            reader.skip(number, wire, DEPTH_MAX)?;
            continue;
        }
        let (_, entry) = reader.slice()?;
        if key.is_of(entry) {
            found = Some(entry);
        }
    }
    Ok(found)
}

impl Kind {
    /// A word of the language as a value of this kind; what does not fit is the nearest that does.
    #[expect(clippy::cast_possible_truncation, reason = "a float of the proto has 32 bits")]
    fn put(self, word: u64, to: &mut Vec<u8>) {
        let int32 = || {
            i32::try_from(word.cast_signed()).unwrap_or(if word.cast_signed() < 0 {
                i32::MIN
            } else {
                i32::MAX
            })
        };
        let uint32 = || u32::try_from(word).unwrap_or(u32::MAX);
        match self {
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
}

impl KeyRef<'_> {
    /// Appends it as the first field of an entry.
    fn encode(self, to: &mut Vec<u8>) {
        match self {
            Self::Word(kind, word) => {
                put_key(to, 1, kind.wire());
                kind.put(word, to);
            }
            Self::Text(text) => {
                put_key(to, 1, Wire::Len);
                put_varint(to, text.len() as u64);
                to.extend_from_slice(text);
            }
        }
    }
}

/// The steps that are left, and what they pick.
#[derive(Clone, Copy)]
struct Way<'w> {
    steps: &'w [Step],
    picked: &'w [Picked<'w>],
}

/// Values in one field, the one at a place replaced; `place` counts on behind them.
fn packed(
    values: &[u8],
    number: u32,
    kind: Kind,
    place: &mut u64,
    at: u64,
    field: &[u8],
    to: &mut Vec<u8>,
) -> Result<Outcome, Malformed> {
    let mut one = Reader::new(field);
    if !one.is_done() {
        one.key()?;
    }
    let before = to.len();
    put_key(to, number, Wire::Len);
    let (from, mut outcome) = (to.len(), Outcome::Unchanged);
    let mut reader = Reader::new(values);
    while !reader.is_done() {
        let begin = reader.at();
        kind.read(&mut reader)?;
        if *place == at {
            to.extend_from_slice(field.get(one.at()..).unwrap_or(&[]));
            outcome = Outcome::Written;
        } else {
            to.extend_from_slice(values.get(begin..reader.at()).unwrap_or(&[]));
        }
        *place += 1;
    }
    // A field of no values is none.
    if to.len() == from {
        to.truncate(before);
    } else {
        put_length_before(to, from);
    }
    Ok(outcome)
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

/// Where the last field that is such a one begins; 0 without one.
fn last(message: &[u8], is_such: impl Fn(u32, Wire) -> bool) -> Result<usize, Malformed> {
    let (mut reader, mut found) = (Reader::new(message), 0);
    while !reader.is_done() {
        let from = reader.at();
        let (number, wire) = reader.key()?;
        reader.skip(number, wire, DEPTH_MAX)?;
        if is_such(number, wire) {
            found = from;
        }
    }
    Ok(found)
}

/// What the field has, unless another member of its oneof has come later.
fn inner<'m>(message: &'m [u8], number: u32, rivals: &[(u32, Wire)]) -> Result<Inner<'m>, Malformed> {
    let mut found = Inner::None;
    let mut reader = Reader::new(message);
    while !reader.is_done() {
        let (at, wire) = reader.key()?;
        if at != number || wire != Wire::Len {
            reader.skip(at, wire, DEPTH_MAX)?;
            if rivals.contains(&(at, wire)) {
                found = Inner::None;
            }
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
