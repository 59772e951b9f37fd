//! The floor: what moving bytes costs before anybody looks at them.
//!
//! An echo server and a relay on one core, client and backend on another, over each backend and over a plain
//! epoll loop; messages per second, round trip, CPU time of the measured thread and its system calls per
//! message.
//!
//!     cargo run --release -p towpath-io --features uring --example floor -- [seconds] [filter]

#![allow(clippy::unwrap_used, clippy::panic, reason = "a measurement that cannot go on stops")]

use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;

use abi::Addr;
use mio::unix::SourceFd;
use mio::{Events, Interest, Token};
use rustix::time::{ClockId, clock_gettime};
use shard::{Burst, ConnId, Event, ListenerId, Transport, Via};
use towpath_io::{Backend, Config, ListenerSpec, Listeners, Placement, Poll, Sockets, pin};

/// Bytes of a message.
const MESSAGE: usize = 64;

/// The measured server.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Server {
    Plain,
    Ours(Backend, Poll, bool),
}

/// What the client does.
#[derive(Clone, Copy, Debug)]
struct Load {
    conns: usize,
    /// Outstanding messages per connection.
    depth: usize,
    /// Open loop, messages a second over all connections; 0: closed loop.
    rate: u64,
}

/// What the measured thread used.
#[derive(Default)]
struct Usage {
    cpu_ns: u64,
    syscalls: u64,
    spins: (u64, u64),
    blocks: u64,
}

fn clock(id: ClockId) -> u64 {
    let t = clock_gettime(id);
    u64::try_from(t.tv_sec).unwrap() * 1_000_000_000 + u64::try_from(t.tv_nsec).unwrap()
}

fn main() {
    let mut args = std::env::args().skip(1);
    let seconds: u64 = args.next().map_or(2, |arg| arg.parse().unwrap());
    let filter = args.next().unwrap_or_default();
    let servers = [
        ("plain epoll", Server::Plain),
        ("epoll", Server::Ours(Backend::Epoll, Poll::Adaptive, false)),
        ("epoll block", Server::Ours(Backend::Epoll, Poll::Block, false)),
        ("uring", Server::Ours(Backend::Uring, Poll::Adaptive, false)),
        ("uring 6.1", Server::Ours(Backend::Uring, Poll::Adaptive, true)),
        ("uring block", Server::Ours(Backend::Uring, Poll::Block, false)),
        ("uring busy", Server::Ours(Backend::Uring, Poll::Busy, false)),
    ];
    let loads = [(1, 1, 0), (16, 1, 0), (1, 64, 0), (16, 8, 0), (1, 4096, 0), (1, 1, 5000), (4, 1, 5000)];
    println!(
        "{:<7}{:<13}{:<14}{:>10}{:>10}{:>10}{:>9}{:>8}  spun/paid/blocked",
        "", "server", "load", "msg/s", "p50 us", "CPU us", "sys/msg", "core"
    );
    for relay in [false, true] {
        for (conns, depth, rate) in loads {
            for (name, server) in servers {
                let kind = if relay { "relay" } else { "echo" };
                let shape =
                    if rate > 0 { format!("{conns} at {rate}/s") } else { format!("{conns} x {depth}") };
                let label = format!("{kind} {name} {shape}");
                if !label.contains(&filter) || (relay && server == Server::Plain) {
                    continue;
                }
                let load = Load { conns, depth, rate };
                let (messages, p50, elapsed, used) = run(server, relay, load, Duration::from_secs(seconds));
                let each = |n: u64| n as f64 / messages as f64;
                println!(
                    "{kind:<7}{name:<13}{shape:<14}{:>10.0}{:>10.1}{:>10.2}{:>9.3}{:>7.0}%  {:.2}/{:.2}/{:.2}",
                    messages as f64 / elapsed,
                    p50 as f64 / 1000.0,
                    each(used.cpu_ns) / 1000.0,
                    each(used.syscalls),
                    used.cpu_ns as f64 / 1e7 / elapsed,
                    each(used.spins.0),
                    each(used.spins.1),
                    each(used.blocks),
                );
            }
        }
    }
}

fn run(server: Server, relay: bool, load: Load, time: Duration) -> (u64, u64, f64, Usage) {
    let stop = Arc::new(AtomicBool::new(false));
    let measure = Arc::new(AtomicBool::new(false));
    let backend = relay.then(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let stop = Arc::clone(&stop);
        (
            addr,
            thread::spawn(move || {
                pin(1);
                plain_echo(&listener, &stop, &AtomicBool::new(false))
            }),
        )
    });
    let (tell, told) = mpsc::channel();
    let target = backend.as_ref().map(|b| b.0);
    let (flag, on) = (Arc::clone(&stop), Arc::clone(&measure));
    let in_flight = if load.rate > 0 { 1 } else { u32::try_from(load.conns * load.depth).unwrap() };
    let measured = thread::spawn(move || {
        pin(0);
        match server {
            Server::Plain => {
                let listener = TcpListener::bind("127.0.0.1:0").unwrap();
                tell.send(listener.local_addr().unwrap()).unwrap();
                plain_echo(&listener, &flag, &on)
            }
            Server::Ours(backend, poll, force_baseline) => {
                let config = Config { backend, poll, force_baseline, ..Config::default() };
                ours(&config, target, &flag, &on, &tell, in_flight)
            }
        }
    });
    let addr = told.recv().unwrap();
    let client = thread::spawn(move || {
        pin(1);
        drive(addr, load, time, &measure)
    });
    let (messages, p50, elapsed) = client.join().unwrap();
    stop.store(true, Ordering::Relaxed);
    let used = measured.join().unwrap();
    if let Some((_, thread)) = backend {
        thread.join().unwrap();
    }
    (messages, p50, elapsed, used)
}

/// Echo or relay over a transport.
fn ours(
    config: &Config,
    target: Option<SocketAddr>,
    stop: &AtomicBool,
    measure: &AtomicBool,
    tell: &mpsc::Sender<SocketAddr>,
    in_flight: u32,
) -> Usage {
    let any = Addr::Ip(SocketAddr::from(([127, 0, 0, 1], 0)));
    let listeners = Listeners::bind(&[ListenerSpec { id: ListenerId(0), addr: any }]).unwrap();
    let mut io = Sockets::open(config, &listeners, 0, Placement::new(1)).unwrap();
    let Addr::Ip(addr) = listeners.local_addrs()[0].1 else { panic!("not an address") };
    tell.send(addr).unwrap();
    let mut peers: BTreeMap<ConnId2, ConnId> = BTreeMap::new();
    let mut burst = Burst::new();
    let counters = io.counters();
    let mut start = None;
    while !stop.load(Ordering::Relaxed) {
        if start.is_none() && measure.load(Ordering::Relaxed) {
            start = Some((clock(ClockId::ThreadCPUTime), counters.snapshot()));
        }
        io.rx_burst(&mut burst);
        let idle = burst.is_empty();
        for event in burst.drain() {
            match event {
                Event::Accepted(id, ..) => {
                    let peer = target.map_or(id, |to| io.connect(&Addr::Ip(to), Via::Route));
                    peers.insert(key(id), peer);
                    peers.insert(key(peer), id);
                }
                Event::Data(id, rx) => {
                    // Cut only when the client has gone already.
                    io.tx(peers[&key(id)], &[&rx]);
                }
                _ => {}
            }
        }
        io.publish_load(in_flight);
        io.flush();
        if idle {
            let soon = io.now().after(Duration::from_millis(50));
            io.wait(Some(soon));
        }
    }
    let (cpu, before) = start.unwrap();
    let now = counters.snapshot();
    Usage {
        cpu_ns: clock(ClockId::ThreadCPUTime) - cpu,
        syscalls: now.syscalls() - before.syscalls(),
        spins: (now.spins - before.spins, now.spins_paid - before.spins_paid),
        blocks: now.blocks - before.blocks,
    }
}

type ConnId2 = (u32, u32);

fn key(id: ConnId) -> ConnId2 {
    (id.index, id.generation)
}

/// The loop everybody writes: wait, and for each readable socket one read and one write.
fn plain_echo(listener: &TcpListener, stop: &AtomicBool, measure: &AtomicBool) -> Usage {
    let mut poll = mio::Poll::new().unwrap();
    listener.set_nonblocking(true).unwrap();
    let registry = poll.registry().try_clone().unwrap();
    registry.register(&mut SourceFd(&listener.as_raw_fd()), Token(usize::MAX), Interest::READABLE).unwrap();
    let mut conns: Vec<TcpStream> = Vec::new();
    let mut events = Events::with_capacity(256);
    let mut space = vec![0; 64 * 1024];
    let (mut syscalls, mut start) = (0, None);
    while !stop.load(Ordering::Relaxed) {
        if start.is_none() && measure.load(Ordering::Relaxed) {
            start = Some(clock(ClockId::ThreadCPUTime));
            syscalls = 0;
        }
        poll.poll(&mut events, Some(Duration::from_millis(50))).unwrap();
        syscalls += 1;
        for event in &events {
            if event.token() == Token(usize::MAX) {
                while let Ok((conn, _)) = listener.accept() {
                    conn.set_nonblocking(true).unwrap();
                    conn.set_nodelay(true).unwrap();
                    let token = Token(conns.len());
                    registry.register(&mut SourceFd(&conn.as_raw_fd()), token, Interest::READABLE).unwrap();
                    conns.push(conn);
                }
                continue;
            }
            let conn = &mut conns[event.token().0];
            loop {
                syscalls += 1;
                match conn.read(&mut space) {
                    Ok(0) => break,
                    Ok(n) => {
                        syscalls += 1;
                        write_all(conn, &space[..n]);
                        if n < space.len() {
                            break;
                        }
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(_) => break,
                }
            }
        }
    }
    let cpu_ns = clock(ClockId::ThreadCPUTime) - start.unwrap_or(0);
    Usage { cpu_ns, syscalls, ..Usage::default() }
}

/// The client: messages carry the time they were sent.
fn drive(addr: SocketAddr, load: Load, time: Duration, measure: &AtomicBool) -> (u64, u64, f64) {
    let mut poll = mio::Poll::new().unwrap();
    let mut conns = Vec::new();
    for at in 0..load.conns {
        let conn = TcpStream::connect(addr).unwrap();
        conn.set_nodelay(true).unwrap();
        conn.set_nonblocking(true).unwrap();
        poll.registry().register(&mut SourceFd(&conn.as_raw_fd()), Token(at), Interest::READABLE).unwrap();
        conns.push((conn, Vec::new()));
    }
    let warm = 300_000_000;
    let began = clock(ClockId::Monotonic);
    let (from, to) = (began + warm, began + warm + u64::try_from(time.as_nanos()).unwrap());
    let mut times = Vec::with_capacity(4 << 20);
    let mut messages = 0;
    let message = |now: u64| {
        let mut bytes = [0; MESSAGE];
        bytes[..8].copy_from_slice(&now.to_ne_bytes());
        bytes
    };
    if load.rate == 0 {
        for (conn, _) in &mut conns {
            write_all(conn, &message(began).repeat(load.depth));
        }
    }
    let gap = 1_000_000_000u64.checked_div(load.rate).unwrap_or(0);
    let (mut due, mut turn) = (began, 0);
    let mut events = Events::with_capacity(256);
    let mut space = vec![0; 64 * 1024];
    loop {
        let mut now = clock(ClockId::Monotonic);
        if now >= from {
            measure.store(true, Ordering::Relaxed);
        }
        if now >= to {
            break;
        }
        // The open loop spins, so that it is on time.
        while load.rate > 0 && due <= now {
            conns[turn % load.conns].0.write_all(&message(due)).unwrap();
            turn += 1;
            due += gap;
            now = clock(ClockId::Monotonic);
        }
        let timeout = if load.rate > 0 { Duration::ZERO } else { Duration::from_millis(50) };
        poll.poll(&mut events, Some(timeout)).unwrap();
        for event in &events {
            let (conn, rest) = &mut conns[event.token().0];
            while let Ok(n) = conn.read(&mut space) {
                rest.extend_from_slice(&space[..n]);
                if n < space.len() {
                    break;
                }
            }
            now = clock(ClockId::Monotonic);
            let whole = rest.len() / MESSAGE;
            for sent in rest.chunks_exact(MESSAGE) {
                let sent = u64::from_ne_bytes(sent[..8].try_into().unwrap());
                if now >= from {
                    messages += 1;
                    if times.len() < times.capacity() {
                        times.push(now.saturating_sub(sent));
                    }
                }
            }
            rest.drain(..whole * MESSAGE);
            if load.rate == 0 && whole > 0 {
                write_all(conn, &message(now).repeat(whole));
            }
        }
        if load.rate > 0 && events.is_empty() {
            thread::yield_now();
        }
    }
    times.sort_unstable();
    (messages, times.get(times.len() / 2).copied().unwrap_or(0), time.as_secs_f64())
}

/// Writes to a socket that does not block; whoever reads is not this thread.
fn write_all(conn: &mut TcpStream, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        match conn.write(bytes) {
            Ok(n) => bytes = &bytes[n..],
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    }
}
