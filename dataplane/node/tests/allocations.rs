//! A warm shard allocates nothing per call: sockets, HTTP/2, the seed chain and the way back, over real
//! connections. Backend and client run on threads of their own; only the shard's thread is counted.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use abi::Addr;
use io::{Backend, ListenerSpec, Listeners, Placement, Sockets};
use pktgen::{Echo, EchoLive, EchoOptions, Live, Load, LoadConfig, Pace, Target};
use shard::{
    AccessRecord, AccessWhen, ElementRecord, Instant, Limits, Listener, ListenerId, Log, Notice, Protocol,
    Setup, Shard, Transport,
};

/// A log that takes everything and keeps a count.
struct Counted(Arc<std::sync::atomic::AtomicU64>);

impl Log for Counted {
    fn access(&mut self, _: u16, _: &AccessRecord<'_>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
    fn element(&mut self, _: &ElementRecord<'_>) {}
    fn notice(&mut self, _: &Notice<'_>) {}
    fn flush(&mut self, _: Instant) {}
}

fn any_port() -> ListenerSpec {
    ListenerSpec { id: ListenerId(0), addr: Addr::Ip(([127, 0, 0, 1], 0).into()) }
}

fn config(backend: Backend) -> io::Config {
    io::Config { backend, ..io::Config::default() }
}

fn listening(name: &str) -> Listener {
    Listener { name: name.into(), unix_path: None, destination: None, protocol: Protocol::H2 }
}

/// What the chain does with messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// Nothing: no caller asks for gzip.
    Plain,
    /// Answers are packed.
    Packed,
    /// They are sealed and opened.
    Sealed,
}

/// The seed chain; or two in a row, sealed between, where the shard is both nodes and calls itself.
fn application(echo: &Addr, wire: &Addr, kind: Kind) -> String {
    if kind != Kind::Sealed {
        return format!(
            "service frontend\nservice catalog {{ endpoints: [\"{echo}\"] }}\n\
             frontend -> catalog: LoadBalancing - Logging - Compression - FaultInjection(0.1)\n"
        );
    }
    format!(
        "service frontend {{ from: [\"listen:pods\"] }}\nservice near {{ from: [\"listen:wire\"] }}\n\
         service catalog {{ endpoints: [\"{wire}\"] }}\nservice inner {{ endpoints: [\"{echo}\"] }}\n\
         frontend -> catalog: LoadBalancing - Logging - Encryption(\"k\")\n\
         near -> inner: Decryption(\"k\") - LoadBalancing\n"
    )
}

/// The queue, with one named key.
fn queue() -> offload::Cpu {
    let file = std::env::temp_dir().join(format!("towpath-allocations-{}.keys", std::process::id()));
    std::fs::write(&file, "1 00112233445566778899aabbccddeeff\n").unwrap();
    let named = [("k".to_owned(), offload::Source::File(file.clone()))];
    let (keys, _) = offload::Keys::open(named, offload::SealOptions::with_clock(|| 0)).unwrap();
    std::fs::remove_file(&file).unwrap();
    offload::Cpu::new(&Arc::new(keys), || {}).unwrap()
}

/// Calls counted, and what the shard's thread allocated meanwhile.
fn run(backend: Backend, message_bytes: u32, kind: Kind) -> (u64, u64) {
    let stop = Arc::new(AtomicBool::new(false));
    let echo_at = Listeners::bind(&[any_port()]).unwrap();
    let echo_addr = echo_at.local_addrs()[0].1.clone();
    let echo_stop = stop.clone();
    let echo = std::thread::spawn(move || {
        let sockets = Sockets::open(&config(backend), &echo_at, 0, Placement::new(1)).unwrap();
        Echo::new(sockets, EchoOptions::default()).run(&echo_stop, &EchoLive::default());
    });

    let listeners = Listeners::bind(&[any_port(), ListenerSpec { id: ListenerId(1), ..any_port() }]).unwrap();
    let to = listeners.local_addrs()[0].1.clone();
    let wire = listeners.local_addrs()[1].1.clone();
    let load_stop = stop.clone();
    let load = std::thread::spawn(move || {
        let sockets = Sockets::open(&config(backend), &Listeners::none(), 0, Placement::new(1)).unwrap();
        let load = LoadConfig {
            to: vec![Target { addr: to, authority: "catalog".into() }],
            method: "/shop.Catalog/List".into(),
            conns: 4,
            pace: Pace::Closed { streams: 16 },
            message_bytes,
            headers: if kind == Kind::Packed {
                vec![("grpc-accept-encoding".into(), "gzip".into())]
            } else {
                Vec::new()
            },
            warm_up: Duration::ZERO,
            run: Duration::from_secs(60),
            ..LoadConfig::default()
        };
        Load::new(sockets, load, Arc::new(Live::new())).unwrap().run(&load_stop);
    });

    let source = application(&echo_addr, &wire, kind);
    let mut compiled =
        lang::compile("seed.adn", &source, &lang::NoFiles, &lang::Overrides::default()).unwrap();
    compiled.link(&mut lang::state::Store::new(1), &mut jit::Jit::new());
    let program = compiled.program;
    let logged = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let mut sockets = Sockets::open(&config(backend), &listeners, 0, Placement::new(1)).unwrap();
    let setup = Setup {
        shard: 0,
        sinks: vec![1; program.sinks.len()],
        program: Arc::new(program),
        ports: Vec::new(),
        listeners: vec![
            listening("pods"),
            Listener { destination: (kind == Kind::Sealed).then(|| "inner".into()), ..listening("wire") },
        ],
        limits: Limits::DEFAULT,
        seed: 7,
        clock: || Instant(0),
        access: AccessWhen::Never,
    };
    let mut shard = Shard::new(setup, queue(), Box::new(Counted(logged.clone())));
    let mut turn_until = |calls: u64| {
        while logged.load(Ordering::Relaxed) < calls {
            let turn = shard.turn(sockets.now(), &mut sockets);
            if !turn.did_work {
                sockets.wait(turn.until);
            }
        }
    };
    // Warm-up: connections, HPACK tables, buffers of the size this load needs.
    turn_until(30_000);
    let before = logged.load(Ordering::Relaxed);
    let counts = allocation_counter::measure(|| turn_until(before + 10_000));
    let calls = logged.load(Ordering::Relaxed) - before;
    let packed =
        shard.snapshot().counters.iter().find(|(name, ..)| *name == "messages_compressed").unwrap().2;
    assert_eq!(packed > calls / 2, kind == Kind::Packed, "{packed} messages packed");
    stop.store(true, Ordering::Relaxed);
    load.join().unwrap();
    echo.join().unwrap();
    (calls, counts.count_total)
}

#[test]
fn a_warm_shard_allocates_nothing_per_call() {
    let made = allocation_counter::measure(|| drop(std::hint::black_box(vec![0_u8; 10])));
    assert_eq!(made.count_total, 1, "the counter counts");
    for backend in [Backend::Uring, Backend::Epoll] {
        for (message_bytes, kind) in [
            (32, Kind::Plain),
            (1024, Kind::Plain),
            (2048, Kind::Packed),
            (32, Kind::Sealed),
            (1024, Kind::Sealed),
        ] {
            let (calls, allocations) = run(backend, message_bytes, kind);
            println!("{backend:?}, {message_bytes} B, {kind:?}: {allocations} allocations in {calls} calls");
            // A slot used for the first time, or a burst larger than any before, grows a list once; per call
            // there is nothing.
            assert!(
                allocations * 100 <= calls,
                "{backend:?}, {message_bytes} B, {kind:?}: {allocations} in {calls} calls"
            );
        }
    }
}
