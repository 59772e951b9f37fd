//! Who plays in the demo: backends and a client, each on a thread of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use abi::Addr;
use pktgen::{Echo, EchoLive, EchoOptions, Live, Load, LoadConfig, Pace, Phase, Summary, Target};
use shard::ListenerId;

use crate::failure::{Failure, Outcome};

/// How long each backend holds an answer back: long enough to stand out from a busy machine's noise.
pub(super) const LATENCIES: [Duration; 3] =
    [Duration::from_millis(1), Duration::from_millis(1), Duration::from_millis(3)];
/// What the client calls.
const METHOD: &str = "/shop.Catalog/List";
/// Bytes of a request's message, and so of its answer.
pub(super) const MESSAGE_BYTES: u32 = 2048;
pub(super) const CONNS: u32 = 4;
pub(super) const STREAMS: u32 = 8;

/// The application, with the backends that have just been started.
pub(super) fn application(backends: &[Addr]) -> String {
    let list: Vec<String> = backends.iter().map(|addr| format!("\"{addr}\"")).collect();
    format!(
        "service frontend\nservice catalog {{ endpoints: [{}] }}\n\nfrontend -> catalog: LoadBalancing - Logging - \
         Compression - FaultInjection(0.1)\n",
        list.join(", ")
    )
}

/// The three backends.
pub(super) struct Backends {
    stop: Arc<AtomicBool>,
    addrs: Vec<Addr>,
    threads: Vec<JoinHandle<()>>,
}

impl Backends {
    /// Starts them on ports the kernel chooses.
    pub(super) fn start(config: io::Config) -> Outcome<Self> {
        let mut this = Self { stop: Arc::default(), addrs: Vec::new(), threads: Vec::new() };
        for latency in LATENCIES {
            let spec = io::ListenerSpec { id: ListenerId(0), addr: Addr::Ip(([127, 0, 0, 1], 0).into()) };
            let listeners = io::Listeners::bind(&[spec]).map_err(|e| Failure::line(e.to_string()))?;
            this.addrs.extend(listeners.local_addrs().iter().map(|(_, addr)| addr.clone()));
            let stop = this.stop.clone();
            let (say, said) = sync_channel(1);
            let run = move || match io::Sockets::open(&config, &listeners, 0, io::Placement::new(1)) {
                Ok(sockets) => {
                    let _ = say.send(Ok(()));
                    let options = EchoOptions { latency, ..EchoOptions::default() };
                    Echo::new(sockets, options).run(&stop, &EchoLive::default());
                }
                Err(e) => drop(say.send(Err(e.to_string()))),
            };
            this.threads.push(spawn("backend", run)?);
            opened(&said)?;
        }
        Ok(this)
    }

    pub(super) fn addrs(&self) -> Vec<Addr> {
        self.addrs.clone()
    }
}

impl Drop for Backends {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// The client: a gRPC caller that takes gzip, and knows nothing of Towpath.
pub(super) struct Client {
    live: Arc<Live>,
    done: Receiver<Summary>,
}

impl Client {
    /// Starts calling.
    pub(super) fn start(config: io::Config, to: Addr, run: Duration, stop: Arc<AtomicBool>) -> Outcome<Self> {
        let live = Arc::new(Live::new());
        let load = LoadConfig {
            to: vec![Target { addr: to, authority: "catalog".into() }],
            method: METHOD.into(),
            headers: vec![("grpc-accept-encoding".into(), "gzip".into())],
            conns: CONNS,
            pace: Pace::Closed { streams: STREAMS },
            message_bytes: MESSAGE_BYTES,
            // Everything counts, so that the figures of client and node agree.
            warm_up: Duration::ZERO,
            run,
            ..LoadConfig::default()
        };
        let (say, said) = sync_channel(1);
        let (finish, done) = channel();
        let for_thread = live.clone();
        let body = move || {
            let opened = io::Sockets::open(&config, &io::Listeners::none(), 0, io::Placement::new(1))
                .map_err(|e| e.to_string())
                .and_then(|sockets| Load::new(sockets, load, for_thread).map_err(|e| e.to_string()));
            match opened {
                Ok(mut load) => {
                    let _ = say.send(Ok(()));
                    let _ = finish.send(load.run(&stop));
                }
                Err(why) => drop(say.send(Err(why))),
            }
        };
        spawn("client", body)?;
        opened(&said)?;
        Ok(Self { live, done })
    }

    /// Its figures so far.
    pub(super) fn live(&self) -> pktgen::stats::Snapshot {
        self.live.snapshot()
    }

    pub(super) fn is_done(&self) -> bool {
        self.live.phase() == Phase::Done
    }

    /// Waits for the last answers.
    pub(super) fn finish(self) -> Outcome<Summary> {
        self.done.recv().map_err(|_| Failure::line("the demo's client ended without a word"))
    }
}

fn opened(said: &Receiver<Result<(), String>>) -> Outcome<()> {
    match said.recv() {
        Ok(Ok(())) => Ok(()),
        Ok(Err(why)) => {
            Err(Failure::line(format!("cannot open sockets: {why}; `towpath doctor` says what is missing")))
        }
        Err(_) => Err(Failure::line("a thread of the demo ended without a word")),
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Outcome<JoinHandle<()>> {
    thread::Builder::new()
        .name(name.into())
        .spawn(run)
        .map_err(|e| Failure::line(format!("cannot start a thread: {e}")))
}
