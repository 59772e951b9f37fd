//! `pktgen echo`: a thread per core, each with its own sockets.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Sender, channel};

use io::{Config, ListenerSpec, Listeners, Placement, PortSeats, Transports};
use pktgen::summary::{grouped, size};
use pktgen::{Echo, EchoLive, EchoOptions};
use shard::ListenerId;

use crate::call::{LINGER, stop_flag};
use crate::cli::{EchoArgs, backend_name};

/// Calls by method, as a thread counted them.
type Methods = Vec<(String, u64)>;

pub(crate) fn run(args: &EchoArgs) -> Result<ExitCode, String> {
    let listen: Vec<(ListenerId, abi::Addr)> = (0..).map(ListenerId).zip(args.listen.clone()).collect();
    let cores: Vec<Option<usize>> =
        if args.cores.is_empty() { vec![None] } else { args.cores.iter().copied().map(Some).collect() };
    let shards = u16::try_from(cores.len()).map_err(|_| "too many cores")?;
    let mut ports = crate::port::open(args.backend, &args.port, &listen, args.poll.poll(), shards)?;
    let on_sockets = if args.backend.is_raw() { &[][..] } else { &listen[..] };
    let specs: Vec<ListenerSpec> =
        on_sockets.iter().map(|(id, addr)| ListenerSpec { id: *id, addr: addr.clone() }).collect();
    let listeners = Arc::new(Listeners::bind(&specs).map_err(|e| e.to_string())?);
    let placement = Placement::new(cores.len());
    let stop = stop_flag()?;
    let (ready, opened) = channel();
    let mut threads = Vec::new();
    for (shard, core) in cores.into_iter().enumerate() {
        let (listeners, placement, stop) =
            (Arc::clone(&listeners), Arc::clone(&placement), Arc::clone(&stop));
        let (config, options, ready) = (config_of(args), options_of(args), ready.clone());
        let seats = ports.take(shard);
        let live = Arc::new(EchoLive::default());
        let figures = Arc::clone(&live);
        let body = move || {
            serve(&config, seats, options, shard, core, &listeners, placement, &ready, &stop, &figures)
        };
        let thread = std::thread::Builder::new()
            .name(format!("echo-{shard}"))
            .spawn(body)
            .map_err(|e| format!("no thread: {e}"))?;
        threads.push((thread, live));
    }
    drop(ready);
    let mut backend = None;
    for _ in &threads {
        let name = opened.recv().unwrap_or_else(|_| Err("a thread ended early".to_owned()))?;
        backend = Some(name);
    }
    let mut addrs: Vec<String> = listeners.local_addrs().iter().map(|(_, a)| a.to_string()).collect();
    if args.backend.is_raw() {
        addrs.extend(args.listen.iter().map(ToString::to_string));
    }
    eprintln!(
        "pktgen echo: ready on {} ({}, {} thread{})",
        addrs.join(", "),
        ports.lines().next().map(|(_, line)| line).or(backend).unwrap_or("none"),
        threads.len(),
        if threads.len() == 1 { "" } else { "s" }
    );
    let mut methods = Methods::new();
    let (mut calls, mut bytes, mut broken) = (0, 0, 0);
    for (thread, live) in threads {
        for (name, n) in thread.join().map_err(|_| "a thread ended early".to_owned())? {
            match methods.iter_mut().find(|(known, _)| *known == name) {
                Some((_, count)) => *count += n,
                None => methods.push((name, n)),
            }
        }
        calls += live.calls();
        bytes += live.body_bytes();
        broken += live.conn_errors();
    }
    methods.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
    println!("{:>14} calls, {} of request bodies", grouped(calls), size(bytes));
    for (name, n) in methods {
        println!("{:>14} {name}", grouped(n));
    }
    if broken > 0 {
        println!("{:>14} connections ended because the peer broke HTTP/2", grouped(broken));
    }
    Ok(ExitCode::SUCCESS)
}

fn config_of(args: &EchoArgs) -> Config {
    Config { backend: args.backend.backend(), poll: args.poll.poll(), ..Config::default() }
}

fn options_of(args: &EchoArgs) -> EchoOptions {
    EchoOptions {
        latency: args.latency,
        status: args.status,
        message: args.message.clone(),
        answer_bytes: args.answer,
        answer_method: args.answer_method.clone(),
        accept_encoding: args.accept_encoding.clone(),
    }
}

#[expect(clippy::too_many_arguments, reason = "a thread's start: everything it is given, once")]
fn serve(
    config: &Config,
    ports: PortSeats,
    options: EchoOptions,
    shard: usize,
    core: Option<usize>,
    listeners: &Listeners,
    placement: Arc<Placement>,
    ready: &Sender<Result<&'static str, String>>,
    stop: &AtomicBool,
    live: &EchoLive,
) -> Methods {
    let open = || {
        if let Some(core) = core
            && !io::pin(core)
        {
            return Err(format!("core {core} is not ours to use; the affinity mask says which are"));
        }
        Transports::open(config, listeners, shard, placement, ports)
            .map_err(|e| format!("the backend could not be opened: {e}; try --backend epoll"))
    };
    match open() {
        Ok(sockets) => {
            // The main thread hears it, or has ended already with another thread's error.
            let _ = ready.send(Ok(backend_name(sockets.backend())));
            let mut echo = Echo::new(sockets, options);
            echo.run(stop, live);
            echo.close().wind_up(LINGER);
            echo.methods()
        }
        Err(message) => {
            let _ = ready.send(Err(message));
            Methods::new()
        }
    }
}
