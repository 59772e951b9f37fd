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

/// One end of a wire, which passes on whatever comes at the other.
#[derive(Debug)]
pub(crate) struct Joint {
    wire: Rc<RefCell<[Side; 2]>>,
    at: usize,
    has_finished: bool,
}

/// Both ends of a new wire.
pub(crate) fn pair() -> (Joint, Joint) {
    let wire = Rc::new(RefCell::new([Side::default(), Side::default()]));
    let end = |at| Joint { wire: Rc::clone(&wire), at, has_finished: false };
    (end(0), end(1))
}

impl Peer for Joint {
    fn wake(&mut self, io: &mut PeerIo<'_>, ledger: &mut Ledger) -> Wake {
        let mut wire = self.wire.borrow_mut();
        let [near, far] = &mut *wire;
        let (own, other) = if self.at == 0 { (near, far) } else { (far, near) };
        own.link = Some(io.link());
        let came = io.read(usize::MAX);
        let mut has_news = !came.is_empty();
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
