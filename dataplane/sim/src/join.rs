//! The wire between two nodes: what the shard sends to an endpoint comes back to it as a caller's connection,
//! as if another node had it.

use std::cell::RefCell;
use std::rc::Rc;

use crate::ledger::Ledger;
use crate::net::LinkId;
use crate::peer::{End, Peer, PeerIo, Wake};

/// One side of a wire.
#[derive(Clone, Debug, Default)]
struct Side {
    link: Option<LinkId>,
    /// Bytes for it.
    bytes: Vec<u8>,
    /// What it did to its end.
    end: Option<End>,
}

/// Both sides, and what still passes.
#[derive(Debug, Default)]
struct Wire {
    sides: [Side; 2],
    /// Bytes, of both directions together; then both ends see the other's end of stream. `None`: all.
    left: Option<usize>,
}

/// One end of a wire, which passes on whatever comes at the other.
#[derive(Debug)]
pub(crate) struct Joint {
    wire: Rc<RefCell<Wire>>,
    at: usize,
    has_finished: bool,
}

/// Both ends of a new wire, which is cut in an orderly way after so many bytes.
pub(crate) fn pair(cut_after: Option<usize>) -> (Joint, Joint) {
    let wire = Rc::new(RefCell::new(Wire { left: cut_after, ..Wire::default() }));
    let end = |at| Joint { wire: Rc::clone(&wire), at, has_finished: false };
    (end(0), end(1))
}

impl Peer for Joint {
    fn wake(&mut self, io: &mut PeerIo<'_>, ledger: &mut Ledger) -> Wake {
        let mut wire = self.wire.borrow_mut();
        let Wire { sides: [near, far], left } = &mut *wire;
        let (own, other) = if self.at == 0 { (near, far) } else { (far, near) };
        own.link = Some(io.link());
        let mut came = io.read(usize::MAX);
        let mut has_news = !came.is_empty();
        if let Some(left) = left {
            came.truncate(*left);
            *left -= came.len();
            if *left == 0 && has_news {
                own.end.get_or_insert(End::Eof);
                other.end.get_or_insert(End::Eof);
            }
        }
        other.bytes.extend_from_slice(&came);
        let taken = io.write(&own.bytes);
        own.bytes.drain(..taken);
        let end = if ledger.is_over { End::Eof } else { io.end() };
        if end != End::Open && own.end.is_none() {
            own.end = Some(end);
            has_news = true;
        }
        if has_news && let Some(link) = other.link {
            io.tell(link);
        }
        if own.end == Some(End::Reset) {
            return Wake::Done;
        }
        match other.end {
            Some(End::Reset) => {
                io.reset();
                return Wake::Done;
            }
            Some(_) if own.bytes.is_empty() && !self.has_finished => {
                io.finish();
                self.has_finished = true;
            }
            _ => {}
        }
        if self.has_finished && own.end.is_some() {
            return Wake::Done;
        }
        // The other end is woken in the next step.
        if has_news { Wake::At(io.now() + 1) } else { Wake::OnNews }
    }
}
