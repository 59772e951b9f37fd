//! Which registers an instruction reads and writes: what machine code keeps up to date around a
//! [`super::Run::step`].

use super::code::{Code, Op, Reg, Shared};

/// The registers of one instruction, told one by one.
pub trait Operands {
    /// Its value is needed.
    fn read(&mut self, reg: Reg);
    /// It gets a value.
    fn write(&mut self, reg: Reg);
}

/// The registers of one instruction, in lists.
#[derive(Debug, Default)]
pub struct Touched {
    /// Whose values are needed.
    pub reads: Vec<Reg>,
    /// Those that get a value.
    pub writes: Vec<Reg>,
}

impl Operands for Touched {
    fn read(&mut self, reg: Reg) {
        self.reads.push(reg);
    }

    fn write(&mut self, reg: Reg) {
        self.writes.push(reg);
    }
}

/// Both registers of a `T?`.
fn both(reg: Reg) -> [Reg; 2] {
    [reg, reg.wrapping_add(1)]
}

impl Op {
    /// Tells `to` the registers it reads, then those it writes. A suspension reads all that are alive.
    pub fn operands(&self, shared: &Shared, code: &Code, to: &mut dyn Operands) {
        self.reads(shared, code, &mut |reg| to.read(reg));
        self.writes(&mut |reg| to.write(reg));
    }

    /// The same in lists.
    pub fn touched(&self, shared: &Shared, code: &Code) -> Touched {
        let mut touched = Touched::default();
        self.operands(shared, code, &mut touched);
        touched
    }

    /// Where it may jump: the one place where instructions that jump are told from those that do not.
    pub fn target(&self) -> Option<u32> {
        let mut copy = *self;
        copy.target_mut().copied()
    }

    /// The same, to be pointed somewhere.
    pub(crate) fn target_mut(&mut self) -> Option<&mut u32> {
        match self {
            Self::Jump { to }
            | Self::JumpIf { to, .. }
            | Self::JumpUnless { to, .. }
            | Self::Next { to, .. }
            | Self::UnlessPassed { to, .. }
            | Self::SwapScalars { to, .. } => Some(to),
            _ => None,
        }
    }

    fn reads(&self, shared: &Shared, code: &Code, read: &mut dyn FnMut(Reg)) {
        match *self {
            Self::Const { .. }
            | Self::Small { .. }
            | Self::Jump { .. }
            | Self::Num { .. }
            | Self::Text { .. }
            | Self::Source { .. }
            | Self::PeerIp { .. }
            | Self::Deadline { .. }
            | Self::Destination { .. }
            | Self::Endpoint { .. }
            | Self::Endpoints { .. }
            | Self::List { .. }
            | Self::Random { .. }
            | Self::TextStart
            | Self::MessageStart
            | Self::MessageEnd { .. }
            | Self::TextEnd { .. }
            | Self::LoadWord { .. }
            | Self::LoadText { .. }
            | Self::LoadScalars { .. }
            | Self::StepStart
            | Self::LoadState { .. }
            | Self::Keep
            | Self::Decode { .. }
            | Self::Slot { .. }
            | Self::SlotList { .. }
            | Self::Payload { .. }
            | Self::KeepSlot { .. }
            | Self::CountMessage { .. }
            | Self::Begin { .. }
            | Self::Passed { .. }
            | Self::UnlessPassed { .. }
            | Self::Mark { .. }
            | Self::Would { .. }
            | Self::Decompress
            | Self::AccessLog { .. }
            | Self::SetFlag { .. }
            | Self::End => {}
            Self::Move { a, .. }
            | Self::BinSmall { a, .. }
            | Self::Un { a, .. }
            | Self::JumpIf { a, .. }
            | Self::JumpUnless { a, .. }
            | Self::EpNum { a, .. }
            | Self::EpZone { a, .. }
            | Self::Healthy { a, .. }
            | Self::Turn { a, .. }
            | Self::Len { a, .. }
            | Self::StrLen { a, .. }
            | Self::Hash { a, .. }
            | Self::Share { a, .. }
            | Self::ParseInt { a, .. }
            | Self::Matches { a, .. }
            | Self::TextPart { a, .. }
            | Self::Inside { a, .. }
            | Self::InsideList { a, .. }
            | Self::SetPayload { a, .. }
            | Self::StoreWord { a, .. }
            | Self::StoreText { a, .. }
            | Self::KeepList { a, .. }
            | Self::PackList { a, .. }
            | Self::UnpackList { a, .. }
            | Self::Distinct { a, .. }
            | Self::Keys { a, .. }
            | Self::StoreState { a, .. }
            | Self::Byte { a, .. }
            | Self::Count { a, .. }
            | Self::Observe { a, .. }
            | Self::SetDestination { a }
            | Self::SetDeadline { a } => read(a),
            Self::StrFn { op, a, b, .. } => {
                read(a);
                if op.counts() {
                    read(b);
                }
            }
            Self::Bin { a, b, .. }
            | Self::Sample { a, b, .. }
            | Self::Nth { a, b, .. }
            | Self::StrBin { a, b, .. }
            | Self::StrIn { a, list: b, .. }
            | Self::EpLabel { a, key: b, .. }
            | Self::EpReport { a, key: b, .. }
            | Self::Quantile { a, b, .. }
            | Self::Split { a, b, .. }
            | Self::Ring { a, key: b, .. }
            | Self::Maglev { a, key: b, .. }
            | Self::Push { list: a, a: b }
            | Self::FindPair { map: a, key: b, .. }
            | Self::FindEntry { list: a, key: b, .. }
            | Self::Next { list: a, i: b, .. }
            | Self::SetByte { d: a, a: b, .. }
            | Self::MapChange { key: a, a: b, .. }
            | Self::Reject { status: a, text: b, .. } => {
                read(a);
                read(b);
            }
            Self::PutPair { map, key, a, .. } => {
                read(map);
                read(key);
                read(a);
            }
            Self::SwapScalars { old, new, .. } => {
                both(old).into_iter().chain(both(new)).for_each(&mut *read);
            }
            Self::Cell { op, a, .. } => {
                if op.takes() {
                    read(a);
                }
            }
            Self::MapCell { op, a, key, .. } => {
                read(key);
                if op.takes() {
                    read(a);
                }
            }
            Self::Meta { key, .. }
            | Self::MetaAll { key, .. }
            | Self::MetaBin { key, .. }
            | Self::MapGet { key, .. } => read(key),
            Self::MetaIs { key, b, .. } | Self::MetaIn { key, list: b, .. } => {
                read(key);
                read(b);
            }
            Self::TextIs { b, .. } | Self::TextIn { list: b, .. } => read(b),
            Self::ByWeight { a, key, .. } => {
                read(a);
                both(key).into_iter().for_each(&mut *read);
            }
            Self::ByTable { key, .. } => {
                both(key).into_iter().for_each(&mut *read);
            }
            Self::Compress { min, .. } => read(min),
            Self::SetMeta { key, a, .. } | Self::MapSet { key, a, .. } => {
                read(key);
                both(a).into_iter().for_each(&mut *read);
            }
            Self::MessageField { a, site } => {
                read(a);
                if shared.fields.get(usize::from(site)).is_some_and(|f| !f.is_list) {
                    read(a.wrapping_add(1));
                }
            }
            Self::MessageEntry { key, a, .. } => {
                read(key);
                read(a);
            }
            Self::SetEndpoint { a } => both(a).into_iter().for_each(&mut *read),
            Self::SetField { a, picks, count, .. } => {
                both(a).into_iter().for_each(&mut *read);
                (picks..).take(count.into()).for_each(&mut *read);
            }
            Self::SetStatus { status, text } => {
                read(status);
                both(text).into_iter().for_each(&mut *read);
            }
            Self::Delay { a, segment } => {
                read(a);
                let at = usize::from(segment).wrapping_sub(1);
                let live = code.segments.get(at).map_or(0, |s| s.live);
                (0..live).filter_map(|r| Reg::try_from(r).ok()).for_each(read);
            }
            Self::Log { site } | Self::CountLabels { site, .. } => {
                if let Self::CountLabels { a, .. } = *self {
                    read(a);
                }
                let fields = shared.logs.get(usize::from(site)).map_or(&[][..], |s| &s.fields);
                for field in fields {
                    read(field.reg);
                    if field.optional {
                        read(field.reg.wrapping_add(1));
                    }
                }
            }
        }
    }

    fn writes(&self, write: &mut dyn FnMut(Reg)) {
        match *self {
            Self::Const { d, .. }
            | Self::Small { d, .. }
            | Self::Move { d, .. }
            | Self::Bin { d, .. }
            | Self::BinSmall { d, .. }
            | Self::Un { d, .. }
            | Self::Num { d, .. }
            | Self::Text { d, .. }
            | Self::Destination { d }
            | Self::MetaAll { d, .. }
            | Self::MetaIs { d, .. }
            | Self::MetaIn { d, .. }
            | Self::TextIs { d, .. }
            | Self::TextIn { d, .. }
            | Self::EpNum { d, .. }
            | Self::EpZone { d, .. }
            | Self::Endpoints { d }
            | Self::Healthy { d, .. }
            | Self::Sample { d, .. }
            | Self::ByTable { d, .. }
            | Self::List { d }
            | Self::Push { list: d, .. }
            | Self::PutPair { map: d, .. }
            | Self::Keys { d, .. }
            | Self::Len { d, .. }
            | Self::StrLen { d, .. }
            | Self::Random { d }
            | Self::Hash { d, .. }
            | Self::Share { d, .. }
            | Self::StrBin { d, .. }
            | Self::StrIn { d, .. }
            | Self::StrFn { d, .. }
            | Self::TextEnd { d }
            | Self::MessageEnd { d }
            | Self::Quantile { d, .. }
            | Self::Split { d, .. }
            | Self::Matches { d, .. }
            | Self::SlotList { d, .. }
            | Self::InsideList { d, .. }
            | Self::Payload { d }
            | Self::Byte { d, .. }
            | Self::SetByte { d, .. }
            | Self::LoadState { d, .. }
            | Self::PackList { d, .. }
            | Self::UnpackList { d, .. }
            | Self::Distinct { d, .. }
            | Self::LoadText { d, .. }
            | Self::LoadWord { d, .. } => write(d),
            Self::Cell { op, d, .. } | Self::MapCell { op, d, .. } => {
                if op.gives() {
                    write(d);
                }
            }
            Self::Source { d }
            | Self::PeerIp { d }
            | Self::Deadline { d }
            | Self::Endpoint { d }
            | Self::Meta { d, .. }
            | Self::EpLabel { d, .. }
            | Self::EpReport { d, .. }
            | Self::Turn { d, .. }
            | Self::Ring { d, .. }
            | Self::Maglev { d, .. }
            | Self::ByWeight { d, .. }
            | Self::Nth { d, .. }
            | Self::Slot { d, .. }
            | Self::Inside { d, .. }
            | Self::FindEntry { d, .. }
            | Self::FindPair { d, .. }
            | Self::MetaBin { d, .. }
            | Self::LoadScalars { d, .. }
            | Self::MapGet { d, .. }
            | Self::ParseInt { d, .. } => {
                both(d).into_iter().for_each(&mut *write);
            }
            Self::Next { d, i, .. } => {
                write(d);
                write(i);
            }
            Self::Jump { .. }
            | Self::JumpIf { .. }
            | Self::JumpUnless { .. }
            | Self::TextStart
            | Self::MessageStart
            | Self::MessageField { .. }
            | Self::MessageEntry { .. }
            | Self::TextPart { .. }
            | Self::StepStart
            | Self::SwapScalars { .. }
            | Self::StoreState { .. }
            | Self::MapSet { .. }
            | Self::MapChange { .. }
            | Self::StoreWord { .. }
            | Self::StoreText { .. }
            | Self::KeepList { .. }
            | Self::Keep
            | Self::Decode { .. }
            | Self::KeepSlot { .. }
            | Self::CountMessage { .. }
            | Self::Begin { .. }
            | Self::Passed { .. }
            | Self::UnlessPassed { .. }
            | Self::Mark { .. }
            | Self::Reject { .. }
            | Self::Would { .. }
            | Self::Delay { .. }
            | Self::AccessLog { .. }
            | Self::Compress { .. }
            | Self::Decompress
            | Self::Log { .. }
            | Self::Count { .. }
            | Self::CountLabels { .. }
            | Self::Observe { .. }
            | Self::SetMeta { .. }
            | Self::SetField { .. }
            | Self::SetPayload { .. }
            | Self::SetEndpoint { .. }
            | Self::SetDestination { .. }
            | Self::SetDeadline { .. }
            | Self::SetStatus { .. }
            | Self::SetFlag { .. }
            | Self::End => {}
        }
    }
}
