//! A shard, a transport made of byte queues, and HTTP/2 peers that do what a test says.

use alloc::{boxed::Box, collections::BTreeMap, rc::Rc, string::ToString, sync::Arc, vec, vec::Vec};
use core::cell::RefCell;
use core::net::{IpAddr, Ipv4Addr, SocketAddr};

use abi::{Addr, CallView, Chain, Entry, MethodMatch, Plan, Program, Route, Routes, ServiceIdx, Verdict};
use wire::h2::{Config, H2Conn, H2Event, HeadersKind, Input, Reason, Role, StreamKey};
use wire::{Headers, Token};

use crate::{
    AccessRecord, AccessWhen, Burst, ConnId, Done, ElementRecord, Event, Instant, Job, Limits, Listener,
    ListenerId, Log, Notice, Offload, Peer, Protocol, Setup, Shard, Transport, Via,
};

/// Forwards every call.
struct Forwards(Plan);

impl Chain for Forwards {
    fn plan(&self) -> &Plan {
        &self.0
    }

    fn run(&self, _: Entry, _: u16, _: &mut dyn CallView) -> Verdict {
        Verdict::Forward
    }
}

/// Keeps the numbers of the calls it is told of.
struct Numbers(Rc<RefCell<Vec<u64>>>);

impl Log for Numbers {
    fn access(&mut self, _: u16, record: &AccessRecord<'_>) {
        self.0.borrow_mut().push(record.id);
    }
    fn element(&mut self, _: &ElementRecord<'_>) {}
    fn notice(&mut self, _: &Notice<'_>) {}
    fn flush(&mut self, _: Instant) {}
}

struct NoJobs;

impl Offload for NoJobs {
    fn submit(&mut self, _: &mut Burst<Box<Job>>) -> usize {
        0
    }
    fn poll(&mut self, _: &mut Burst<Done>) {}
    fn pending(&self) -> usize {
        0
    }
}

/// What the shard did with one connection.
#[derive(Default)]
struct Link {
    /// Bytes the shard sent that its peer has not read.
    sent: Vec<u8>,
    /// How many more it may send.
    room: usize,
    was_cut: bool,
    is_closed: bool,
}

#[derive(Default)]
struct Queues {
    now: u64,
    events: Vec<Event<Vec<u8>>>,
    links: BTreeMap<u32, Link>,
    connects: Vec<ConnId>,
}

impl Queues {
    fn link(&mut self) -> ConnId {
        let index = u32::try_from(self.links.len()).unwrap();
        self.links.insert(index, Link { room: usize::MAX, ..Link::default() });
        ConnId { index, generation: 0 }
    }

    fn at(&mut self, id: ConnId) -> &mut Link {
        self.links.get_mut(&id.index).unwrap()
    }
}

impl Transport for Queues {
    type Rx = Vec<u8>;

    fn rx_burst(&mut self, out: &mut Burst<Event<Vec<u8>>>) {
        let count = out.room().min(self.events.len());
        for event in self.events.drain(..count) {
            out.push(event).unwrap();
        }
    }

    fn bytes<'a>(&'a self, rx: &'a Vec<u8>) -> &'a [u8] {
        rx
    }

    fn tx(&mut self, conn: ConnId, slices: &[&[u8]]) -> usize {
        let link = self.at(conn);
        let mut taken = 0;
        for slice in slices {
            let part = &slice[..slice.len().min(link.room)];
            link.sent.extend_from_slice(part);
            link.room -= part.len();
            taken += part.len();
            link.was_cut |= part.len() < slice.len();
        }
        taken
    }

    fn pause_rx(&mut self, _: ConnId) {}
    fn resume_rx(&mut self, _: ConnId) {}

    fn connect(&mut self, _: &Addr, _: Via) -> ConnId {
        let id = self.link();
        self.connects.push(id);
        id
    }

    fn half_close(&mut self, _: ConnId) {}

    fn close(&mut self, conn: ConnId) {
        self.at(conn).is_closed = true;
    }

    fn reset(&mut self, conn: ConnId) {
        self.at(conn).is_closed = true;
    }

    fn flush(&mut self) {}
    fn wait(&mut self, _: Option<Instant>) {}

    fn now(&self) -> Instant {
        Instant(self.now)
    }

    fn stop_accepting(&mut self) {}
}

/// One end of a connection with the shard, and what came over it.
pub(super) struct End {
    id: ConnId,
    h2: H2Conn,
    /// Streams on which a request came or, at a caller, went.
    pub(super) requests: Vec<StreamKey>,
    /// `grpc-status` of each answer.
    pub(super) answers: Vec<Vec<u8>>,
}

/// A shard with one service of one endpoint. Callers are told apart by address.
pub(super) struct Rig {
    shard: Shard<Queues, NoJobs>,
    queues: Queues,
    /// Streams the endpoint allows on a connection.
    streams_max: u32,
    /// Calls of the access log.
    pub(super) logged: Rc<RefCell<Vec<u64>>>,
}

fn list(fields: &[(&str, &str)]) -> Headers {
    let mut list = Headers::default();
    for (name, value) in fields {
        list.push(name.as_bytes(), value.as_bytes());
    }
    list
}

impl Rig {
    pub(super) fn new(limits: Limits, streams_max: u32) -> Self {
        let addr = Addr::Ip(SocketAddr::from(([10, 0, 0, 1], 80)));
        let endpoint = abi::Endpoint { addr, weight: 1, zone: "".to_string(), labels: Vec::new() };
        let service = abi::Service {
            name: "catalog".to_string(),
            hosts: vec!["catalog".to_string()],
            from: Vec::new(),
            endpoints: vec![endpoint],
            via: None,
            is_destination: true,
        };
        let destination = Some(ServiceIdx(0));
        let route = Route { source: None, destination, method: MethodMatch::Any, chain: 0, line: 1 };
        let chain: Arc<dyn Chain> = Arc::new(Forwards(Plan::default()));
        let program = Program {
            file: "rig.adn".to_string(),
            services: vec![service],
            routes: Routes::new(vec![route]),
            chains: vec![chain],
            sinks: Vec::new(),
            metrics: Vec::new(),
            keys: Vec::new(),
        };
        let listener = Listener {
            name: "pods".to_string(),
            unix_path: None,
            destination: Some("catalog".to_string()),
            protocol: Protocol::H2,
        };
        let setup = Setup {
            shard: 0,
            program: Arc::new(program),
            sinks: Vec::new(),
            ports: Vec::new(),
            listeners: vec![listener],
            limits,
            seed: 1,
            clock: || Instant(0),
            access: AccessWhen::Always,
        };
        let logged = Rc::default();
        let shard = Shard::new(setup, NoJobs, Box::new(Numbers(Rc::clone(&logged))));
        Self { shard, queues: Queues { now: 1_000_000_000, ..Queues::default() }, streams_max, logged }
    }

    /// Turns until nothing is left to do, and a millisecond passes.
    pub(super) fn run(&mut self) {
        self.queues.now += 1_000_000;
        while self.shard.turn(Instant(self.queues.now), &mut self.queues).did_work {}
    }

    pub(super) fn pass_seconds(&mut self, count: u64) {
        for _ in 0..count {
            self.queues.now += 1_000_000_000;
            self.run();
        }
    }

    pub(super) fn drain(&mut self) {
        self.shard.drain(Instant(self.queues.now), &mut self.queues);
    }

    pub(super) fn count(&self, name: &str) -> u64 {
        let counters = self.shard.snapshot().counters;
        counters.iter().find(|(n, ..)| *n == name).unwrap().2
    }

    /// A caller's new connection.
    pub(super) fn caller(&mut self, host: u8) -> End {
        let id = self.queues.link();
        let peer = Peer { addr: Some((IpAddr::V4(Ipv4Addr::new(10, 1, 0, host)), 5000)), uid: None };
        self.queues.events.push(Event::Accepted(id, ListenerId(0), peer));
        self.end(id, Role::Client)
    }

    /// Connections the shard has begun since this was last asked, all accepted.
    pub(super) fn accept(&mut self) -> Vec<End> {
        let connects = core::mem::take(&mut self.queues.connects);
        connects
            .into_iter()
            .map(|id| {
                self.queues.events.push(Event::Connected(id));
                let mut end = self.end(id, Role::Server);
                self.exchange(&mut end);
                end
            })
            .collect()
    }

    fn end(&self, id: ConnId, role: Role) -> End {
        let config = Config { streams_max: self.streams_max, ..Config::default() };
        let h2 = H2Conn::new(role, &config, Instant(self.queues.now));
        End { id, h2, requests: Vec::new(), answers: Vec::new() }
    }

    /// Begins this many calls and ends their requests.
    pub(super) fn call(&mut self, caller: &mut End, count: usize) {
        for _ in 0..count {
            let stream = caller.h2.open(0).unwrap();
            let request = [
                (":method", "POST"),
                (":scheme", "http"),
                (":path", "/catalog.Catalog/Get"),
                (":authority", "catalog"),
                ("content-type", "application/grpc"),
                ("te", "trailers"),
            ];
            caller.h2.send_headers(stream, &list(&request), true);
            caller.requests.push(stream);
        }
        self.exchange(caller);
    }

    /// The caller gives its oldest call up.
    pub(super) fn cancel(&mut self, caller: &mut End) {
        let stream = caller.requests.remove(0);
        caller.h2.reset(stream, Reason::CANCEL);
        self.exchange(caller);
    }

    /// The endpoint answers its oldest request on this connection.
    pub(super) fn answer(&mut self, endpoint: &mut End) {
        self.answer_at_once(endpoint, 1);
    }

    /// The same with so many of them, in bytes that arrive together.
    pub(super) fn answer_at_once(&mut self, endpoint: &mut End, count: usize) {
        let answer = [(":status", "200"), ("content-type", "application/grpc"), ("grpc-status", "0")];
        for stream in endpoint.requests.drain(..count) {
            endpoint.h2.send_headers(stream, &list(&answer), true);
        }
        self.exchange(endpoint);
    }

    /// Both sides take what the other has sent.
    pub(super) fn exchange(&mut self, end: &mut End) {
        for _ in 0..4 {
            self.take(end);
            self.run();
        }
    }

    /// The peer reads what the shard has sent, and sends what it has to say.
    fn take(&mut self, end: &mut End) {
        let sent = core::mem::take(&mut self.queues.at(end.id).sent);
        let mut input = Input { bytes: &sent, at: 0 };
        while let Some(event) = end.h2.next(Instant(self.queues.now), &mut input).unwrap() {
            if let H2Event::Headers { stream, kind, .. } = event {
                if kind == HeadersKind::Request {
                    end.requests.push(stream);
                } else if let Some(status) = end.h2.headers().get(Token::GrpcStatus) {
                    end.answers.push(status.to_vec());
                }
            }
        }
        let said = end.h2.tx().to_vec();
        end.h2.tx_advance(said.len());
        if !said.is_empty() {
            self.queues.events.push(Event::Data(end.id, said));
        }
    }

    /// How many more bytes the shard can send to this peer.
    pub(super) fn set_room(&mut self, end: &End, room: usize) {
        let link = self.queues.at(end.id);
        link.room = room;
        if room > 0 && core::mem::take(&mut link.was_cut) {
            self.queues.events.push(Event::Writable(end.id));
        }
    }

    /// The peer sends no more.
    pub(super) fn finish(&mut self, end: &End) {
        self.queues.events.push(Event::Eof(end.id));
        self.run();
    }

    /// The shard has closed its side of this connection.
    pub(super) fn is_closed(&mut self, end: &End) -> bool {
        self.queues.at(end.id).is_closed
    }
}
