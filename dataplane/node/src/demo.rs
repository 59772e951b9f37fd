//! `towpath demo`: three backends, the chain of the introduction and a load, all in this process.
//!
//! ```text
//!   load ──► shard (the chain) ──► catalog 1   answers after 1 ms
//!                              ├─► catalog 2   answers after 1 ms
//!                              └─► catalog 3   answers after 3 ms: balancing shows
//! ```
//! Nothing is simulated: every byte goes through the kernel's sockets. Needs neither root nor a free core.

mod scene;
mod show;

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use signal_hook::consts::{SIGINT, SIGTERM};

use crate::app;
use crate::backend::Choice;
use crate::cli::Demo;
use crate::clock;
use crate::config::Listen;
use crate::failure::{Failure, Outcome, print};
use crate::log::Target;
use crate::machine;
use crate::node::{Code, Node, Plan};
use crate::run::{probe, seed};
use scene::{Backends, Client};

/// How often the live figures change on a terminal, and how often a line is printed elsewhere.
const LOOK_TERMINAL: Duration = Duration::from_millis(200);
const LOOK_PIPE: Duration = Duration::from_secs(1);
/// How long the end may take.
const DRAIN: Duration = Duration::from_secs(3);
/// With fewer cores than threads, whoever waits had better not spin.
const SPIN_CORES_MIN: usize = 6;

/// Runs it.
///
/// # Errors
/// One line when this machine lets nobody listen or run threads.
pub(crate) fn demo(args: &Demo) -> Outcome<()> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // Without it, an interrupt shows no summary: no reason to refuse.
        let _ = signal_hook::flag::register(signal, stop.clone());
    }
    if matches!(args.backend, Choice::Xdp | Choice::Dpdk) {
        return Err(Failure::line(
            "the demo runs over the kernel's loopback: use auto, uring or epoll; scripts/lab.sh shows raw ports",
        ));
    }
    let asked = args.backend.kernel();
    let report = probe(asked)?;
    let available = io::available_cores();
    let is_roomy = available.count() >= SPIN_CORES_MIN;
    let io_config = io::Config {
        backend: asked,
        poll: if is_roomy { io::Poll::Adaptive } else { io::Poll::Block },
        ..io::Config::default()
    };

    let backends = Backends::start(io_config)?;
    let text = scene::application(&backends.addrs());
    let path = save(&text);
    let name = path.as_ref().map_or("demo.adn".to_owned(), |p| p.display().to_string());
    let compiled = app::compile(&name, &text, lang::Overrides::default())?;
    let rejected = Arc::new(OnceLock::new());
    let plan = Plan {
        cores: available.ids.iter().copied().take(1).collect(),
        io: io_config,
        listen: vec![Listen::at(abi::Addr::Ip(([127, 0, 0, 1], 0).into()))],
        ports: Vec::new(),
        backend: args.backend,
        dpdk_memory: io::DpdkMemory::default(),
        offload: crate::config::Offload::default(),
        limits: shard::Limits::DEFAULT,
        access: shard::AccessWhen::Never,
        log: Target::Off,
        seed: seed(),
        code: Code::Auto,
    };
    let sink = Target::Other(Box::new(FirstRejected(rejected.clone())));
    let mut node = Node::start(plan, compiled, vec![("stdout".into(), sink)])?;
    let addr = node.addrs().into_iter().next().ok_or_else(|| Failure::line("the demo listens nowhere"))?;

    print(&format!("{}\n", show::opening(&text, &backend_name(&report, node.backend()), &addr)));
    let client = Client::start(io_config, addr, args.duration, stop.clone())?;
    watch(&node, &client, &stop);
    let summary = client.finish()?;
    let figures = node.figures();
    // The shard, its compression helper and the log; everything else here is the play around them.
    let cpu_ns = machine::thread_cpu_ns(&["shard-0", "offload", "log"]);
    node.drain();
    node.is_drained(DRAIN);
    drop(node);
    drop(backends);
    print(&show::summary(&summary, &figures, cpu_ns, rejected.get().map(String::as_str), path.as_deref()));
    if summary.seen.ok() == 0 {
        return Err(Failure::line("no call came through; `towpath doctor` may say why"));
    }
    Ok(())
}

/// Shows the live figures until the load has ended.
fn watch(node: &Node, client: &Client, stop: &AtomicBool) {
    let mut out = std::io::stdout();
    let is_terminal = out.is_terminal();
    let look = if is_terminal { LOOK_TERMINAL } else { LOOK_PIPE };
    let mut last = show::Look::default();
    let mut lines = 0;
    let mut next = clock::monotonic();
    loop {
        next = next.after(look);
        while clock::monotonic() < next && !client.is_done() {
            clock::sleep(Duration::from_millis(20));
        }
        let is_over = client.is_done() || stop.load(Ordering::Relaxed);
        let now = show::Look::take(&client.live(), &node.figures());
        let text = if is_terminal { now.block(&last) } else { now.line(&last) };
        if lines > 0 && is_terminal {
            // Up to the block's first line, and clear what was there.
            let _ = write!(out, "\x1b[{lines}A\x1b[J");
        }
        if !(is_over && is_terminal) {
            let _ = out.write_all(text.as_bytes());
            lines = text.lines().count();
        }
        let _ = out.flush();
        last = now;
        if is_over {
            return;
        }
    }
}

/// Saves the application, so that the commands shown at the end work; nowhere if that cannot be.
fn save(text: &str) -> Option<PathBuf> {
    let path = std::env::temp_dir().join(format!("towpath-demo-{}.adn", rustix::process::getuid().as_raw()));
    // A file that is not ours (or a link) is not written through.
    if std::fs::symlink_metadata(&path).is_ok() {
        std::fs::remove_file(&path).ok()?;
    }
    std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&path)
        .ok()?
        .write_all(text.as_bytes())
        .ok()?;
    Some(path)
}

/// Keeps the access-log line of the first call that a fault was injected into.
struct FirstRejected(Arc<OnceLock<String>>);

impl Write for FirstRejected {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.0.get().is_none() {
            let text = String::from_utf8_lossy(bytes);
            if let Some(line) = text.lines().find(|line| line.contains("\"flag\":\"FI\"")) {
                let _ = self.0.set(line.to_owned());
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// What carries the bytes, in a few words.
fn backend_name(report: &io::Report, taken: io::Backend) -> String {
    match (taken, &report.refusal) {
        (io::Backend::Uring, _) => format!("io_uring (kernel {})", report.kernel),
        (_, Some(refusal)) => format!("epoll ({})", refusal.reason),
        (_, None) => "epoll".to_owned(),
    }
}

/// The machine's cores, for the summary.
fn cores_text() -> String {
    let cores = io::available_cores();
    format!("{} of {}", machine::show_cores(cores.ids.get(..1).unwrap_or_default()), cores.ids.len())
}
