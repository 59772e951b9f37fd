//! Two transports joined in memory, with a clock that only tests move: the load and the backend in one
//! thread, the same every time.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use abi::Addr;
use shard::{Burst, ConnId, Event, ListenerId, Peer, Transport, Via, Why};
use wire::Instant;

/// Bytes one direction holds before `tx` takes no more.
const PIPE_BYTES: usize = 20_000;
/// The most one `Data` event carries: odd, so that frames are cut anywhere.
const CHUNK_BYTES: usize = 1_237;

#[derive(Debug, Default)]
struct Side {
    /// On the way to this side.
    bytes: VecDeque<u8>,
    events: VecDeque<Event<Vec<u8>>>,
    is_paused: bool,
    wants_room: bool,
}

#[derive(Debug, Default)]
struct World {
    now_ns: u64,
    /// Client's side, server's side.
    conns: Vec<Option<[Side; 2]>>,
    refuses: bool,
}

/// One end of the world: 0 connects, 1 listens.
#[derive(Clone, Debug)]
pub(crate) struct Pipe {
    side: usize,
    world: Rc<RefCell<World>>,
}

/// What a test does to the world.
#[derive(Clone, Debug)]
pub(crate) struct Hand(Rc<RefCell<World>>);

/// The client's end, the server's end, and the hand.
pub(crate) fn pair() -> (Pipe, Pipe, Hand) {
    let world = Rc::new(RefCell::new(World::default()));
    let pipe = |side| Pipe { side, world: Rc::clone(&world) };
    (pipe(0), pipe(1), Hand(Rc::clone(&world)))
}

impl Hand {
    pub(crate) fn pass(&self, time: Duration) {
        self.0.borrow_mut().now_ns += u64::try_from(time.as_nanos()).unwrap();
    }

    pub(crate) fn refuse(&self, refuses: bool) {
        self.0.borrow_mut().refuses = refuses;
    }

    /// Breaks every connection, both ends hearing of it.
    pub(crate) fn break_all(&self) {
        let mut world = self.0.borrow_mut();
        for (i, conn) in world.conns.iter_mut().enumerate() {
            for side in conn.iter_mut().flatten() {
                side.bytes.clear();
                side.events.clear();
                side.events.push_back(Event::Reset(id(i), Why::Reset));
            }
        }
    }

    /// Puts bytes on the way to the client, as a peer of another protocol would.
    pub(crate) fn say_to_clients(&self, bytes: &[u8]) {
        for [client, _] in self.0.borrow_mut().conns.iter_mut().flatten() {
            client.bytes.extend(bytes);
        }
    }
}

fn id(index: usize) -> ConnId {
    ConnId { index: u32::try_from(index).unwrap(), generation: 0 }
}

impl Pipe {
    fn with<R>(&self, conn: ConnId, act: impl FnOnce(&mut Side, &mut Side) -> R) -> Option<R> {
        let mut world = self.world.borrow_mut();
        let [client, server] = world.conns.get_mut(conn.index as usize)?.as_mut()?;
        Some(if self.side == 0 { act(client, server) } else { act(server, client) })
    }
}

impl Transport for Pipe {
    type Rx = Vec<u8>;

    fn rx_burst(&mut self, out: &mut Burst<Event<Vec<u8>>>) {
        let mut world = self.world.borrow_mut();
        for (i, conn) in world.conns.iter_mut().enumerate() {
            let Some(sides) = conn else { continue };
            let [client, server] = sides;
            let (mine, other) = if self.side == 0 { (client, server) } else { (server, client) };
            while out.room() > 0
                && let Some(event) = mine.events.pop_front()
            {
                out.push(event).unwrap();
            }
            while out.room() > 0 && !mine.bytes.is_empty() && !mine.is_paused {
                let len = mine.bytes.len().min(CHUNK_BYTES);
                out.push(Event::Data(id(i), mine.bytes.drain(..len).collect())).unwrap();
                if std::mem::take(&mut other.wants_room) {
                    other.events.push_back(Event::Writable(id(i)));
                }
            }
        }
    }

    fn bytes<'a>(&'a self, rx: &'a Vec<u8>) -> &'a [u8] {
        rx
    }

    fn tx(&mut self, conn: ConnId, slices: &[&[u8]]) -> usize {
        self.with(conn, |mine, other| {
            let mut taken = 0;
            for slice in slices {
                let len = slice.len().min(PIPE_BYTES.saturating_sub(other.bytes.len()));
                other.bytes.extend(&slice[..len]);
                taken += len;
                mine.wants_room |= len < slice.len();
            }
            taken
        })
        .unwrap_or_else(|| slices.iter().map(|s| s.len()).sum())
    }

    fn pause_rx(&mut self, conn: ConnId) {
        self.with(conn, |mine, _| mine.is_paused = true);
    }

    fn resume_rx(&mut self, conn: ConnId) {
        self.with(conn, |mine, _| mine.is_paused = false);
    }

    fn connect(&mut self, _: &Addr, _: Via) -> ConnId {
        let mut world = self.world.borrow_mut();
        let new = id(world.conns.len());
        let mut sides = [Side::default(), Side::default()];
        if world.refuses {
            sides[0].events.push_back(Event::Failed(new, Why::Refused));
        } else {
            sides[0].events.push_back(Event::Connected(new));
            sides[1].events.push_back(Event::Accepted(new, ListenerId(0), Peer::default()));
        }
        world.conns.push(Some(sides));
        new
    }

    fn half_close(&mut self, conn: ConnId) {
        self.with(conn, |_, other| other.events.push_back(Event::Eof(conn)));
    }

    fn close(&mut self, conn: ConnId) {
        self.with(conn, |mine, other| {
            mine.events.clear();
            mine.bytes.clear();
            other.events.push_back(Event::Eof(conn));
        });
    }

    fn reset(&mut self, conn: ConnId) {
        self.with(conn, |_, other| other.events.push_back(Event::Reset(conn, Why::Reset)));
    }

    fn flush(&mut self) {}

    fn wait(&mut self, _: Option<Instant>) {}

    fn now(&self) -> Instant {
        Instant(self.world.borrow().now_ns)
    }

    fn stop_accepting(&mut self) {}
}
