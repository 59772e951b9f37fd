//! A stand-in for the shard, to test the simulator itself: the smallest relay that is right, and each way to
//! get it wrong.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;

use shard::{Burst, ConnId, Event, Log, Setup, Snapshot, Transport, Turn, Via};

use abi::{Addr, Program};
use wire::Instant;

use crate::net::Net;
use crate::offload::SimOffload;
use crate::plan::SECOND;
use crate::transport::SimRx;
use crate::world::Core;

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Bug {
    #[default]
    None,
    /// Drops what `tx` did not take.
    ForgetsRest,
    /// Never passes an end on.
    SwallowsEof,
    /// Keeps a receive buffer for ever.
    Leaks,
    /// Does not tell one side that the other was reset.
    IgnoresReset,
    /// Says it has work when it has none.
    Spins,
    /// Uses the slot's number without its generation.
    MixesGenerations,
    /// Resumes reading before the other side has taken what was read.
    NeverPauses,
    /// Repeats what was cut short.
    Repeats,
}

thread_local! {
    pub(crate) static BUG: Cell<Bug> = const { Cell::new(Bug::None) };
}

#[derive(Default)]
struct Side {
    other: Option<ConnId>,
    waiting: Vec<u8>,
    is_up: bool,
    eof_seen: bool,
    eof_passed: bool,
}

/// The smallest relay: one backend, a buffer a side, reading paused while the other side's is not empty.
struct Mini {
    to: Addr,
    sides: BTreeMap<(u32, u32), Side>,
    connecting: Vec<(u64, ConnId)>,
    leaked: Vec<SimRx>,
    is_draining: bool,
    bug: Bug,
}

fn key(conn: ConnId) -> (u32, u32) {
    let generation = if BUG.get() == Bug::MixesGenerations { 0 } else { conn.generation };
    (conn.index, generation)
}

impl Mini {
    fn push(&mut self, net: &mut Net, conn: ConnId) {
        let bug = self.bug;
        let Some(side) = self.sides.get_mut(&key(conn)).filter(|s| s.is_up) else { return };
        if !side.waiting.is_empty() {
            let taken = net.tx(conn, &[&side.waiting]);
            match bug {
                Bug::ForgetsRest => side.waiting.clear(),
                Bug::Repeats if taken < side.waiting.len() => drop(side.waiting.drain(..taken / 2)),
                _ => drop(side.waiting.drain(..taken)),
            }
        }
        let is_empty = side.waiting.is_empty();
        let Some(other) = side.other else { return };
        let from = self.sides.get(&key(other));
        let ended = from.is_some_and(|s| s.eof_seen && !s.eof_passed);
        if is_empty && from.is_some() {
            net.resume_rx(other);
        }
        if is_empty && ended && bug != Bug::SwallowsEof {
            net.half_close(conn);
            if let Some(from) = self.sides.get_mut(&key(other)) {
                from.eof_passed = true;
            }
        }
        let both = [conn, other].iter().all(|c| self.sides.get(&key(*c)).is_some_and(|s| s.eof_passed));
        if both {
            for c in [conn, other] {
                net.close(c);
                self.sides.remove(&key(c));
            }
        }
    }

    fn gone(&mut self, net: &mut Net, conn: ConnId) {
        if let Some(other) = self.sides.remove(&key(conn)).and_then(|s| s.other)
            && self.bug != Bug::IgnoresReset
        {
            self.sides.remove(&key(other));
            net.reset(other);
        }
    }
}

impl Core for Mini {
    fn turn(&mut self, now: Instant, net: &mut Net) -> Turn {
        let mut burst = Burst::new();
        net.rx_burst(&mut burst);
        let did_work = !burst.is_empty();
        for event in burst.drain() {
            match event {
                Event::Accepted(conn, ..) => {
                    let other = net.connect(&self.to, Via::Route);
                    self.connecting.push((now.0 + 2 * SECOND, other));
                    let side = |other, is_up| Side { other: Some(other), is_up, ..Side::default() };
                    self.sides.insert(key(conn), side(other, true));
                    self.sides.insert(key(other), side(conn, false));
                }
                Event::Connected(conn) => {
                    if let Some(side) = self.sides.get_mut(&key(conn)) {
                        side.is_up = true;
                    }
                    self.push(net, conn);
                }
                Event::Data(conn, rx) => {
                    if let Some(other) = self.sides.get(&key(conn)).and_then(|s| s.other) {
                        if let Some(side) = self.sides.get_mut(&key(other)) {
                            side.waiting.extend_from_slice(net.bytes(&rx));
                        }
                        if self.bug != Bug::NeverPauses {
                            net.pause_rx(conn);
                        }
                        self.push(net, other);
                    }
                    if self.bug == Bug::Leaks && self.leaked.is_empty() {
                        self.leaked.push(rx);
                    }
                }
                Event::Eof(conn) => {
                    if let Some(side) = self.sides.get_mut(&key(conn)) {
                        side.eof_seen = true;
                        if let Some(other) = side.other {
                            self.push(net, other);
                        }
                    }
                }
                Event::Writable(conn) => self.push(net, conn),
                Event::Reset(conn, _) | Event::Failed(conn, _) => self.gone(net, conn),
            }
        }
        if self.is_draining && !self.sides.is_empty() {
            for (index, generation) in core::mem::take(&mut self.sides).into_keys() {
                net.reset(ConnId { index, generation });
            }
        }
        self.connecting.retain(|(_, conn)| self.sides.get(&key(*conn)).is_some_and(|s| !s.is_up));
        while let Some((due, conn)) = self.connecting.first().copied()
            && due <= now.0
        {
            self.connecting.remove(0);
            net.close(conn);
            self.gone(net, conn);
        }
        net.flush();
        let until = self.connecting.first().map(|(due, _)| Instant(*due));
        Turn { did_work: did_work || self.bug == Bug::Spins, until }
    }

    fn drain(&mut self, _now: Instant, net: &mut Net) {
        net.stop_accepting();
        self.is_draining = true;
    }

    fn is_drained(&self) -> bool {
        self.is_draining && self.sides.is_empty()
    }

    fn adopt(&mut self, _program: Arc<Program>, _sinks: Vec<u16>) {}

    fn snapshot(&self) -> Snapshot {
        Snapshot::default()
    }
}

pub(crate) fn mini(setup: Setup, _offload: SimOffload, _log: Box<dyn Log>) -> Box<dyn Core> {
    let to = setup.program.services[1].endpoints[0].addr.clone();
    Box::new(Mini {
        to,
        sides: BTreeMap::new(),
        connecting: Vec::new(),
        leaked: Vec::new(),
        is_draining: false,
        bug: BUG.get(),
    })
}
