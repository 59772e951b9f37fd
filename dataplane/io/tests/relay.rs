//! The shard's opaque relay over each backend: bursts, linear handles, backpressure and waiting, as the node
//! uses them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod rig;

use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};

use abi::{Addr, Endpoint, Program, Service};
use shard::{
    AccessRecord, AccessWhen, Burst, Done, ElementRecord, Instant, Job, ListenerId, Log, Notice, Offload,
    Protocol, Setup, Shard, Transport,
};
use towpath_io::{Backend, Config, ListenerSpec, Listeners, Placement, Sockets};

use rig::{config, loopback, pattern, skip};

/// A relay has no jobs.
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

/// And no calls to log.
struct Silent;

impl Log for Silent {
    fn access(&mut self, _: u16, _: &AccessRecord<'_>) {}

    fn element(&mut self, _: &ElementRecord<'_>) {}

    fn notice(&mut self, _: &Notice<'_>) {}

    fn flush(&mut self, _: Instant) {}
}

/// A relay to one endpoint, on a thread of its own until it is dropped.
struct Relay {
    addr: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Relay {
    fn to(endpoint: SocketAddr, config: Config) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let (tell, told) = mpsc::channel();
        let thread = thread::spawn(move || {
            let listeners = Listeners::bind(&[ListenerSpec { id: ListenerId(0), addr: loopback() }]).unwrap();
            let mut io = Sockets::open(&config, &listeners, 0, Placement::new(1)).unwrap();
            tell.send(listeners.local_addrs()[0].1.clone()).unwrap();
            let mut shard = Shard::new(setup(endpoint), NoJobs, Box::new(Silent));
            while !stopped.load(Ordering::Relaxed) {
                let now = io.now();
                let turn = shard.turn(now, &mut io);
                if !turn.did_work {
                    let soon = io.now().after(Duration::from_millis(20));
                    io.wait(Some(turn.until.map_or(soon, |until| until.min(soon))));
                }
            }
        });
        let Addr::Ip(addr) = told.recv().unwrap() else { panic!("not an address") };
        Self { addr, stop, thread: Some(thread) }
    }

    fn connect(&self) -> TcpStream {
        let client = TcpStream::connect(self.addr).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        client.set_write_timeout(Some(Duration::from_secs(20))).unwrap();
        client
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let outcome = self.thread.take().unwrap().join();
        if !thread::panicking() {
            outcome.unwrap();
        }
    }
}

fn setup(endpoint: SocketAddr) -> Setup {
    let endpoint = Endpoint { addr: Addr::Ip(endpoint), weight: 1, zone: String::new(), labels: Vec::new() };
    let service = Service {
        name: "backend".into(),
        hosts: vec!["backend".into()],
        from: Vec::new(),
        endpoints: vec![endpoint],
        via: None,
        is_destination: true,
    };
    let program = Program {
        file: "relay.adn".into(),
        services: vec![service],
        routes: abi::Routes::default(),
        chains: Vec::new(),
        sinks: Vec::new(),
        metrics: Vec::new(),
        keys: Vec::new(),
    };
    let listener = shard::Listener {
        name: String::new(),
        unix_path: None,
        destination: Some("backend".into()),
        protocol: Protocol::Tcp,
    };
    Setup {
        shard: 0,
        program: Arc::new(program),
        sinks: Vec::new(),
        ports: Vec::new(),
        listeners: vec![listener],
        limits: shard::Limits::DEFAULT,
        seed: 1,
        clock: || Instant(0),
        access: AccessWhen::Never,
    }
}

fn on_each_backend(test: fn(Config)) {
    for (backend, baseline) in [(Backend::Epoll, false), (Backend::Uring, false), (Backend::Uring, true)] {
        if !skip(backend) {
            println!("{backend:?}, baseline {baseline}");
            test(config(backend, baseline));
        }
    }
}

/// A backend that sends everything back, and ends when its client has.
fn echo_backend() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || {
        for conn in listener.incoming() {
            let mut conn = conn.unwrap();
            thread::spawn(move || {
                let mut space = vec![0; 64 * 1024];
                while let Ok(n @ 1..) = conn.read(&mut space) {
                    conn.write_all(&space[..n]).unwrap();
                }
            });
        }
    });
    addr
}

#[test]
fn bytes_and_ends_pass_both_ways() {
    on_each_backend(|config| {
        let relay = Relay::to(echo_backend(), config);
        let clients: Vec<_> = (0..8)
            .map(|_| {
                let mut client = relay.connect();
                thread::spawn(move || {
                    let sent = pattern(3 << 20);
                    let mut writer = client.try_clone().unwrap();
                    let copy = sent.clone();
                    let sender = thread::spawn(move || {
                        writer.write_all(&copy).unwrap();
                        writer.shutdown(Shutdown::Write).unwrap();
                    });
                    let mut back = Vec::new();
                    client.read_to_end(&mut back).unwrap();
                    sender.join().unwrap();
                    assert!(back == sent);
                })
            })
            .collect();
        for client in clients {
            client.join().unwrap();
        }
    });
}

#[test]
fn a_stalled_reader_stops_its_sender_and_nobody_else() {
    on_each_backend(|config| {
        let relay = Relay::to(echo_backend(), config);
        let mut stalled = relay.connect();
        stalled.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
        let chunk = pattern(64 * 1024);
        let mut sent = 0usize;
        // Nothing is read: kernel buffers, the relay's bound, and then it must push back.
        while let Ok(n) = stalled.write(&chunk) {
            sent += n;
            assert!(sent < 256 << 20, "nothing pushes back");
        }
        let mut other = relay.connect();
        for _ in 0..100 {
            other.write_all(b"still served").unwrap();
            let mut back = [0; 12];
            other.read_exact(&mut back).unwrap();
        }
        let mut left = sent;
        let mut space = vec![0; 64 * 1024];
        while left > 0 {
            let n = stalled.read(&mut space).unwrap();
            assert!(n > 0, "{left} bytes lost");
            left -= n;
        }
    });
}

#[test]
fn an_endpoint_that_refuses_resets_the_caller() {
    on_each_backend(|config| {
        let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let relay = Relay::to(gone, config);
        let mut client = relay.connect();
        assert!(client.read(&mut [0; 1]).is_err());
    });
}
