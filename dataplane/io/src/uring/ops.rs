//! What a completion says it completes: operation and slot, packed into its 64 bits.
//!
//! No generation is needed: a slot has at most one operation of a kind in flight and is not reused before its
//! last completion is in.

/// An operation of the ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Op {
    /// A cancellation's own completion, of no interest.
    Cancel = 0,
    /// Multishot accept; the index is the listener's place.
    Accept = 1,
    /// Multishot poll of the waker's eventfd.
    Wake = 2,
    Recv = 3,
    Send = 4,
    /// Poll until a connect has ended.
    Connect = 5,
    /// Poll for an error after the peer's end of stream, when no receive would notice.
    Watch = 6,
}

const INDEX_BITS: u32 = 32;

/// Packs them.
pub(super) fn user_data(op: Op, index: u32) -> u64 {
    (op as u64) << INDEX_BITS | u64::from(index)
}

/// Unpacks them; `None` for what we never packed.
#[expect(clippy::cast_possible_truncation, reason = "the index is the lower half")]
pub(super) fn unpack(data: u64) -> Option<(Op, u32)> {
    let op = match data >> INDEX_BITS {
        0 => Op::Cancel,
        1 => Op::Accept,
        2 => Op::Wake,
        3 => Op::Recv,
        4 => Op::Send,
        5 => Op::Connect,
        6 => Op::Watch,
        _ => return None,
    };
    Some((op, data as u32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packing_round_trips() {
        for op in [Op::Cancel, Op::Accept, Op::Wake, Op::Recv, Op::Send, Op::Connect, Op::Watch] {
            assert_eq!(unpack(user_data(op, u32::MAX)), Some((op, u32::MAX)));
            assert_eq!(unpack(user_data(op, 7)), Some((op, 7)));
        }
        assert_eq!(unpack(u64::MAX), None);
    }
}
