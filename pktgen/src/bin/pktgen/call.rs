//! `pktgen call`: one thread drives the load, this one draws the live line.

use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use io::{Config, Limits, ListenerSpec, Listeners, Placement, PortSeats, Ports, Transports};
use pktgen::stats::Snapshot;
use pktgen::summary::{grouped, span};
use pktgen::{Echo, EchoOptions, Hold, Live, Load, LoadConfig, Pace, Phase, Summary, Target, report};
use shard::ListenerId;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use crate::cli::CallArgs;
use crate::port::PortArgs;

const TICK: Duration = Duration::from_millis(200);
/// How long peers may take to learn that their connections are closed.
pub(crate) const LINGER: Duration = Duration::from_secs(1);

pub(crate) fn run(args: &CallArgs) -> Result<ExitCode, String> {
    let config = config_of(args);
    config.check().map_err(|e| e.to_string())?;
    let stop = stop_flag()?;
    let live = Arc::new(Live::new());
    let mut ports = crate::port::open(args.backend, &args.port, &[], args.poll.poll(), 1)?;
    let mut backend = Backend::open(args)?;
    let (send, done) = channel();
    let thread = {
        let (live, stop, config) = (Arc::clone(&live), Arc::clone(&stop), config.clone());
        let (sockets, core, seats) = (config_of_sockets(args), args.core, ports.take(0));
        let echo = backend.as_mut().map(|backend| (Arc::clone(&backend.listeners), backend.ports.take(0)));
        std::thread::Builder::new()
            .name("load".to_owned())
            .spawn(move || {
                // Nobody to tell only if the main thread is gone, and with it the process.
                let _ = send.send(drive(&sockets, seats, echo, core, config, live, &stop));
            })
            .map_err(|e| format!("no thread: {e}"))?
    };
    let outcome = if std::io::stderr().is_terminal() && !args.quiet {
        watch(&done, &live, &config)
    } else {
        done.recv().map_err(|_| RecvTimeoutError::Disconnected)
    };
    if thread.join().is_err() {
        return Err("the load's thread ended early".to_owned());
    }
    let summary = outcome.map_err(|e| e.to_string())??;
    give(args, &summary)
}

/// Set by the first SIGINT or SIGTERM; the second ends the process.
pub(crate) fn stop_flag() -> Result<Arc<AtomicBool>, String> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        flag::register_conditional_shutdown(signal, 130, Arc::clone(&stop))
            .and_then(|_| flag::register(signal, Arc::clone(&stop)))
            .map_err(|e| format!("signal {signal}: {e}"))?;
    }
    Ok(stop)
}

fn config_of(args: &CallArgs) -> LoadConfig {
    let authority = |addr: &abi::Addr| match (&args.authority, addr) {
        (Some(name), _) => name.clone(),
        (None, abi::Addr::Ip(addr)) => addr.to_string(),
        (None, abi::Addr::Unix(_)) => "localhost".to_owned(),
    };
    LoadConfig {
        to: args.to.iter().map(|a| Target { addr: a.clone(), authority: authority(a) }).collect(),
        method: args.method.clone(),
        headers: args.header.clone(),
        conns: args.conns,
        pace: match args.rate {
            Some(calls_per_s) => Pace::Open { calls_per_s },
            None => Pace::Closed { streams: args.streams },
        },
        message_bytes: args.size,
        warm_up: args.warm_up,
        run: args.run_for,
        calls_max: args.count,
        timeout: args.timeout,
        patience: args.wait,
        drain: args.drain,
        hold: match (args.idle, args.stall) {
            (true, _) => Hold::Idle,
            (_, true) => Hold::Stall,
            _ => Hold::No,
        },
    }
}

fn config_of_sockets(args: &CallArgs) -> Config {
    let limits = Limits { tx_bytes_max: 1 << 20, ..Limits::default() };
    Config { backend: args.backend.backend(), poll: args.poll.poll(), limits, ..Config::default() }
}

/// The load's thread.
fn drive(
    sockets: &Config,
    ports: PortSeats,
    echo: Option<(Arc<Listeners>, PortSeats)>,
    core: Option<usize>,
    config: LoadConfig,
    live: Arc<Live>,
    stop: &AtomicBool,
) -> Result<Summary, String> {
    if let Some(core) = core
        && !io::pin(core)
    {
        return Err(format!("core {core} is not ours to use; `nproc` and the affinity mask say which are"));
    }
    let refused = |e: std::io::Error| format!("the backend could not be opened: {e}; try --backend epoll");
    let opened =
        Transports::open(sockets, &Listeners::none(), 0, Placement::new(1), ports).map_err(refused)?;
    let mut load = Load::new(opened, config, live).map_err(|e| e.to_string())?;
    let Some((listeners, ports)) = echo else {
        let summary = load.run(stop);
        load.close().wind_up(LINGER);
        return Ok(summary);
    };
    let opened = Transports::open(sockets, &listeners, 0, Placement::new(1), ports).map_err(refused)?;
    let mut echo = Echo::new(opened, EchoOptions::default());
    let summary = load.run_with(&mut echo, stop);
    load.close().wind_up(LINGER);
    echo.close().wind_up(LINGER);
    Ok(summary)
}

/// What `--echo` answers with.
struct Backend {
    listeners: Arc<Listeners>,
    ports: Ports,
}

impl Backend {
    fn open(args: &CallArgs) -> Result<Option<Self>, String> {
        let Some(addr) = &args.echo else { return Ok(None) };
        let id = ListenerId(0);
        let port = PortArgs {
            device: args.echo_device.clone(),
            address: args.echo_address,
            gateway: None,
            mtu: args.port.mtu,
        };
        let listen = [(id, addr.clone())];
        let ports = crate::port::open(args.backend, &port, &listen, args.poll.poll(), 1)?;
        let spec = ListenerSpec { id, addr: addr.clone() };
        let on_sockets = if args.backend.is_raw() { &[][..] } else { core::slice::from_ref(&spec) };
        let listeners = Arc::new(Listeners::bind(on_sockets).map_err(|e| e.to_string())?);
        Ok(Some(Self { listeners, ports }))
    }
}

/// Draws the live line until the load is over.
fn watch(
    done: &Receiver<Result<Summary, String>>,
    live: &Live,
    config: &LoadConfig,
) -> Result<Result<Summary, String>, RecvTimeoutError> {
    let length = config.run.as_millis().max(1);
    let bar = ProgressBar::new(u64::try_from(length).unwrap_or(u64::MAX));
    if let Ok(style) = ProgressStyle::with_template("{bar:24.cyan/dim} {msg}") {
        bar.set_style(style.progress_chars("━━─"));
    }
    let mut before: Option<Snapshot> = None;
    let outcome = loop {
        match done.recv_timeout(TICK) {
            Err(RecvTimeoutError::Timeout) => {}
            other => break other,
        }
        let seen = live.snapshot();
        bar.set_position(seen.elapsed_ns / 1_000_000);
        bar.set_message(live_line(&seen, before.as_ref()));
        before = Some(seen);
    };
    bar.finish_and_clear();
    outcome
}

fn live_line(seen: &Snapshot, before: Option<&Snapshot>) -> String {
    let word = match seen.phase {
        Phase::Connecting => return "connecting".to_owned(),
        Phase::WarmUp => return format!("warm-up · {} calls", grouped(seen.uncounted_calls)),
        Phase::Draining => "last answers · ",
        Phase::Measuring | Phase::Done => "",
    };
    let recent = before.map(|b| (seen.calls() - b.calls(), seen.latency.since(&b.latency)));
    let (calls, latency) = recent.unwrap_or((0, seen.latency.clone()));
    let rate = u128::from(calls) * 1000 / TICK.as_millis();
    format!(
        "{word}{} calls · {}/s · p50 {} p99 {} · {} failed · {} in flight",
        grouped(seen.calls()),
        grouped(u64::try_from(rate).unwrap_or(u64::MAX)),
        span(latency.quantile_ns(0.5)),
        span(latency.quantile_ns(0.99)),
        grouped(seen.failed()),
        grouped(seen.in_flight)
    )
}

/// Writes what was asked for; the exit code says whether any call succeeded.
fn give(args: &CallArgs, summary: &Summary) -> Result<ExitCode, String> {
    let has_begun = summary.seen.elapsed_ns > 0 || summary.seen.uncounted_calls > 0;
    if !has_begun && !summary.troubles.is_empty() {
        let list: Vec<&str> = summary.troubles.iter().map(|(what, _)| what.as_str()).collect();
        return Err(list.join("\npktgen: "));
    }
    let as_json = args.json.as_deref();
    if as_json == Some(Path::new("-")) {
        println!("{:#}", summary.json());
    } else {
        print!("{}", summary.text());
    }
    if let Some(path) = as_json.filter(|p| *p != Path::new("-")) {
        write(path, &format!("{:#}\n", summary.json()))?;
    }
    if let Some(path) = &args.report {
        write(path, &report::html(summary))?;
    }
    if summary.is_failure() {
        eprintln!("pktgen: no call succeeded");
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    std::fs::write(path, text).map_err(|e| format!("{}: {e}", path.display()))
}
