//! `towpath run`: the control thread. Signals, admin questions, reloads, the drain.
//!
//! ```text
//!   signals ──┐
//!   admin ────┼─► events ─► control thread ─► commands ─► shards
//!   shards ───┘ (ready, drained: their own channel)
//! ```
//! The control thread alone knows every shard; it may wait, shards may not.

use std::fmt::Write as _;
use std::hash::{BuildHasher, Hasher};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use shard::AccessWhen;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;

use crate::admin::{self, Answer, Ask, Question};
use crate::app::{self, App};
use crate::cli::{AdminAddr, Run};
use crate::config::{AdminSocket, Config, Listen, LogTo, limits_text};
use crate::failure::{Failure, Outcome};
use crate::log::Target;
use crate::machine;
use crate::metrics;
use crate::node::{Code, Node, Plan};
use crate::notify::{READY, STOPPING, notify};
use crate::privileges::{self, Touched};
use crate::reload;
use crate::status;
use crate::watch::Watch;

/// Events that wait for the control thread.
const EVENTS_MAX: usize = 64;
/// How often a drain looks for its end between events.
const DRAIN_LOOK: Duration = Duration::from_millis(20);
/// How often to look, after a reload, whether the last call of an earlier program has ended.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// What the control thread waits for.
enum Event {
    Signal(i32),
    Question(Question),
    /// A file of the application is another.
    Changed,
}

/// Runs until a signal ends it.
///
/// # Errors
/// Whatever keeps the node from beginning.
pub(crate) fn run(args: &Run) -> Outcome<()> {
    let mut config = app::config(args.config.as_deref())?;
    apply(args, &mut config)?;
    privileges::check(&config.security)?;
    let app = App::new(&args.app, &args.set, &config);
    let (compiled, files) = app.compile_and_list();
    let compiled = compiled?;
    if !compiled.notes.is_empty() {
        // One line each: `check` draws them.
        eprint!("{}", compiled.notes);
    }

    let events = sync_channel(EVENTS_MAX);
    catch_signals(events.0.clone())?;
    let cores = machine::choose_cores(config.cores.as_deref(), &io::available_cores(), config.poll)?;
    let tcp = config.admin.map(admin::bind_tcp).transpose().map_err(Failure::line)?;
    let unix = match &config.socket {
        AdminSocket::Off => None,
        AdminSocket::Path(path) => Some(admin::bind_unix(path, false)),
        AdminSocket::Default => Some(admin::bind_unix(&admin::socket_default(), true)),
    };
    let unix = unix.transpose().map_err(Failure::line)?;
    let socket_file = unix.as_ref().map(|(_, path)| RemoveAtEnd(path.clone()));
    let mut report = probe(config.backend.kernel())?;
    if config.force_baseline {
        report = report.baseline();
    }
    let touched = touched(&config, &files).by(&compiled.program);
    let node = Node::start(plan(&config, cores), compiled, Vec::new())?;
    // Everything is open: threads begun from here on have no more than this leaves.
    let socket = unix.as_ref().map(|(_, path)| path.as_path());
    let privileges = privileges::give_up(&config.security, touched, socket)?;

    let mut line = ready_line(&node, &report, &config);
    let forward = forward_to(events.0.clone());
    let watch = if config.watch { Some(Watch::start(files, told_to(events.0))?) } else { None };
    if let Some(listener) = tcp {
        let _ = write!(line, ", admin {}", listener.local_addr().map(|a| a.to_string()).unwrap_or_default());
        admin::serve_tcp(listener, forward.clone()).map_err(|e| Failure::line(format!("admin: {e}")))?;
    }
    if let Some((listener, path)) = unix {
        let _ = write!(line, ", socket {}", path.display());
        admin::serve_unix(listener, forward, node.captures())
            .map_err(|e| Failure::line(format!("admin: {e}")))?;
    }
    eprintln!("{line}{privileges}");
    notify(READY);
    Control { node, config, app, watch, is_draining: false, socket_file }.serve(&events.1);
    Ok(())
}

/// What the node goes on touching, its program aside.
fn touched(config: &Config, files: &[PathBuf]) -> Touched {
    let log = match &config.log_to {
        LogTo::Path(path) => vec![PathBuf::from(path)],
        LogTo::Stdout | LogTo::Off => Vec::new(),
    };
    let af_xdp = config.ports.iter().filter_map(|port| match &port.device {
        io::DeviceSpec::Dpdk { device, .. } if device.starts_with("net_af_xdp") => {
            Some(PathBuf::from(device))
        }
        _ => None,
    });
    let reads = files.iter().cloned().chain(config.offload.key_files()).collect();
    Touched { reads, logs: log, endpoints: Vec::new(), af_xdp: af_xdp.collect() }
}

/// The command line over the file.
fn apply(args: &Run, config: &mut Config) -> Outcome<()> {
    if !args.listen.is_empty() {
        config.listen = args.listen.iter().cloned().map(Listen::at).collect();
    }
    if let Some(backend) = args.backend {
        config.backend = backend;
    }
    if let Some(cores) = &args.cores {
        config.cores = Some(cores.0.clone());
    }
    config.watch |= args.watch;
    for addr in &args.admin {
        match addr {
            AdminAddr::Tcp(addr) => config.admin = Some(*addr),
            AdminAddr::Unix(path) => config.socket = AdminSocket::Path(path.clone()),
            AdminAddr::Off => (config.admin, config.socket) = (None, AdminSocket::Off),
        }
    }
    Ok(())
}

fn plan(config: &Config, cores: Vec<usize>) -> Plan {
    let is_off = config.log_to == LogTo::Off;
    Plan {
        cores,
        io: io_config(config),
        listen: config.listen.clone(),
        ports: config.ports.clone(),
        backend: config.backend,
        dpdk_memory: config.dpdk_memory,
        offload: config.offload.clone(),
        limits: config.limits,
        access: if is_off { AccessWhen::Never } else { config.log_when },
        log: match &config.log_to {
            LogTo::Stdout => Target::Stdout,
            LogTo::Path(path) => Target::Path(path.clone()),
            LogTo::Off => Target::Off,
        },
        seed: seed(),
        code: config.code,
    }
}

fn io_config(config: &Config) -> io::Config {
    io::Config {
        backend: config.backend.kernel(),
        poll: config.poll,
        force_baseline: config.force_baseline,
        limits: io::Limits {
            conns_max: config.limits.connections_max,
            tx_bytes_max: config.limits.tx_bytes_max as usize,
            connect_timeout: Duration::from_nanos(config.limits.connect_timeout_ns),
            ..io::Limits::default()
        },
    }
}

/// A number nobody can guess: what the standard library seeds its hashers with.
pub(crate) fn seed() -> u64 {
    std::hash::RandomState::new().build_hasher().finish()
}

/// `towpath ready: backend uring (…), cores 0,1, listening A,B`.
fn ready_line(node: &Node, report: &io::Report, config: &Config) -> String {
    let addrs: Vec<String> = node.addrs().iter().map(ToString::to_string).collect();
    let code = node.code_refusal().map(|why| format!(", chains interpreted: {why}")).unwrap_or_default();
    let busy = if config.poll == io::Poll::Busy { " (100 % busy by choice: poll = \"busy\")" } else { "" };
    let ports: String = node.ports().map(|(name, line)| format!(", port {name} ({line})")).collect();
    format!(
        "towpath ready: {}{code}, cores {}{busy}, listening {}{ports}",
        carriers(config, node.port_specs(), &backend_text(report, config.backend.kernel(), node.backend())),
        node.cores().iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
        addrs.join(",")
    )
}

/// What carries listeners, and why: ports that are theirs, and sockets for what is on none.
fn carriers(config: &Config, ports: &[io::PortSpec], sockets: &str) -> String {
    let taken = ports.iter().filter(|port| !port.listeners.is_empty());
    let taken: Vec<String> = taken
        .map(|port| {
            let backend = match port.device {
                io::DeviceSpec::Xdp { .. } => "xdp",
                io::DeviceSpec::Dpdk { .. } => "dpdk",
            };
            let is_named = config.listen.iter().any(|one| one.port.as_ref() == Some(&port.name));
            let why = if is_named { "a listener names it" } else { "it has a listener's address" };
            format!("{backend} on port {} ({why})", port.name)
        })
        .collect();
    if taken.is_empty() {
        return sockets.to_owned();
    }
    let sockets = sockets.strip_prefix("backend ").unwrap_or(sockets);
    format!("backend {}; sockets for what is on no port: {sockets}", taken.join(", "))
}

/// What was taken and why; `taken` is what the sockets say they became.
fn backend_text(report: &io::Report, asked: io::Backend, taken: io::Backend) -> String {
    match (asked, taken) {
        (io::Backend::Epoll, _) => "backend epoll (as asked)".to_owned(),
        // The probe promised more than the shards got (memlock, descriptors): say what is true.
        (io::Backend::Auto, io::Backend::Epoll) if report.refusal.is_none() => {
            format!("backend epoll (kernel {}; io_uring could not be opened)", report.kernel)
        }
        _ => report.line(asked),
    }
}

/// Tries what the kernel offers.
///
/// # Errors
/// One line when io_uring is asked for and refused.
pub(crate) fn probe(asked: io::Backend) -> Outcome<io::Report> {
    let report = io::probe();
    if asked == io::Backend::Uring && report.refusal.is_some() {
        return Err(Failure::line(report.line(asked)));
    }
    Ok(report)
}

fn catch_signals(events: SyncSender<Event>) -> Outcome<()> {
    let failed = |e: std::io::Error| Failure::line(format!("cannot catch signals: {e}"));
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP, SIGUSR1]).map_err(failed)?;
    let run = move || {
        for signal in signals.forever() {
            if events.send(Event::Signal(signal)).is_err() {
                return;
            }
        }
    };
    std::thread::Builder::new().name("signals".into()).stack_size(128 << 10).spawn(run).map_err(failed)?;
    Ok(())
}

fn forward_to(events: SyncSender<Event>) -> admin::Forward {
    Arc::new(move |question| events.try_send(Event::Question(question)).is_ok())
}

/// Tells the control thread that a file has changed; false once it has ended.
fn told_to(events: SyncSender<Event>) -> impl Fn() -> bool {
    move || events.send(Event::Changed).is_ok()
}

/// Removes the admin socket when the node ends.
struct RemoveAtEnd(PathBuf);

impl Drop for RemoveAtEnd {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

struct Control {
    node: Node,
    config: Config,
    app: App,
    watch: Option<Watch>,
    is_draining: bool,
    socket_file: Option<RemoveAtEnd>,
}

impl Control {
    fn serve(mut self, events: &Receiver<Event>) {
        loop {
            let event = if self.is_draining {
                if self.node.is_drained(DRAIN_LOOK) {
                    eprintln!("towpath: drained");
                    return;
                }
                events.try_recv().ok()
            } else if self.node.has_old_code() {
                let event = events.recv_timeout(SWEEP_EVERY).ok();
                if event.is_none() {
                    self.node.sweep();
                }
                event
            } else {
                events.recv().ok()
            };
            match event {
                Some(Event::Signal(SIGTERM | SIGINT)) if self.is_draining => {
                    eprintln!("towpath: stopped at once, by a second signal");
                    drop(self.socket_file);
                    std::process::exit(0);
                }
                Some(Event::Signal(SIGTERM | SIGINT)) => {
                    let text = crate::value::show_ns(self.config.limits.drain_ns);
                    eprintln!(
                        "towpath: draining: calls under way may finish for {text}; a second signal stops at once"
                    );
                    notify(STOPPING);
                    self.is_draining = true;
                    self.node.drain();
                }
                Some(Event::Signal(SIGHUP)) => {
                    self.node.reopen_logs();
                    eprint!("{}", self.reload().unwrap_or_else(|refused| refused));
                }
                Some(Event::Changed) if self.is_draining => {}
                Some(Event::Changed) => {
                    eprintln!("towpath: a file of {} has changed", self.app.path.display());
                    eprint!("{}", self.reload().unwrap_or_else(|refused| refused));
                }
                Some(Event::Signal(_)) => self.node.reopen_logs(),
                Some(Event::Question(question)) => {
                    let answer = self.answer(question.ask);
                    // Whoever asked may have gone.
                    let _ = question.reply.try_send(answer);
                }
                None => {}
            }
        }
    }

    fn answer(&mut self, ask: Ask) -> Answer {
        match ask {
            Ask::Metrics => Answer::ok(metrics::encode(&self.node.figures())),
            Ask::Ready if self.is_draining => Answer { code: 503, body: "draining\n".into() },
            Ask::Ready => {
                let running = reload::generations(self.node.generation(), &self.node.generations());
                Answer::ok(format!("ready, {running}\n{}\n", self.node.origin().text()))
            }
            Ask::Config => Answer::ok(self.config_text()),
            Ask::Explain => {
                let generation = self.node.generation();
                let placement = self.node.jobs().placement_text();
                Answer::ok(format!("generation {generation}\n{}{placement}", self.node.report().text()))
            }
            Ask::Status => {
                let figures = self.node.figures();
                let placement = self.node.jobs().placement_text();
                Answer::ok(status::text(&figures, self.node.origin(), self.is_draining) + &placement)
            }
            Ask::StatusJson => {
                let figures = self.node.figures();
                Answer::ok(status::json(&figures, self.node.origin(), self.is_draining))
            }
            Ask::Reload => match self.reload() {
                Ok(done) => Answer::ok(done),
                Err(refused) => Answer { code: 409, body: refused },
            },
        }
    }

    /// Compiles the application and reads the named keys again, and has the shards take both over; else nothing
    /// changes.
    fn reload(&mut self) -> Result<String, String> {
        let stays = format!("towpath: reload refused, generation {} stays\n", self.node.generation());
        if self.is_draining {
            return Err(format!("towpath: the node drains\n{stays}"));
        }
        let (compiled, files) = self.app.compile_and_list();
        if let Some(watch) = &self.watch {
            watch.set(files);
        }
        let compiled = compiled.map_err(|failure| format!("{failure}{stays}"))?;
        self.node.check(&compiled).map_err(|failure| format!("{failure}\n{stays}"))?;
        let warnings = self.node.reload_keys().map_err(|why| format!("towpath: {why}\n{stays}"))?;
        for warning in warnings {
            eprintln!("towpath: [keys]: {warning}");
        }
        let summary = app::summary(&compiled);
        let done = self.node.adopt(compiled).map_err(|why| format!("towpath: {why}\n{stays}"))?;
        let keys: Vec<&str> = self.node.key_names().collect();
        Ok(reload::text(self.node.generation(), &summary, &keys, &done))
    }

    /// The settings in force, as a `node.toml` has them.
    fn config_text(&self) -> String {
        let c = &self.config;
        let mut out = String::new();
        let poll = format!("{:?}", c.poll).to_lowercase();
        let backend = format!("{:?}", self.node.backend()).to_lowercase();
        let _ = writeln!(
            out,
            "[shards]\ncores = {:?}\npoll = \"{poll}\"\nbackend = \"{backend}\"",
            self.node.cores()
        );
        for (listen, addr) in c.listen.iter().zip(self.node.addrs()) {
            let protocol = format!("{:?}", listen.protocol).to_lowercase();
            let _ = writeln!(out, "[[listen]]\naddress = \"{addr}\"\nprotocol = \"{protocol}\"");
            if !listen.name.is_empty() {
                let _ = writeln!(out, "name = {:?}", listen.name);
            }
            if let Some(destination) = &listen.destination {
                let _ = writeln!(out, "destination = {destination:?}");
            }
        }
        let (to, when) = match &c.log_to {
            LogTo::Stdout => ("stdout", c.log_when),
            LogTo::Path(path) => (path.as_str(), c.log_when),
            LogTo::Off => ("off", AccessWhen::Never),
        };
        let when = format!("{when:?}").to_lowercase();
        let code = match c.code {
            Code::Auto => "auto",
            Code::Interpret => "interpret",
        };
        let _ = writeln!(
            out,
            "[access_log]\nto = {to:?}\nwhen = \"{when}\"\n[chains]\ncode = \"{code}\"\n{}[limits]\n{}",
            c.offload.text(),
            limits_text(&c.limits)
        );
        out
    }
}
