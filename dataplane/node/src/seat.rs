//! A shard's thread: opens its sockets, pins itself, turns until it has drained.
//!
//! Commands come through a bounded channel and are looked at between turns; a [`io::Waker`] ends a wait.
//! Invariant: nothing here waits but `Transport::wait`.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, TryRecvError, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use abi::Program;
use shard::{Instant, Setup, Shard, Snapshot, Transport};

use crate::jobs::JobSeat;
use crate::log::ShardLog;

/// How long a drained shard goes on for connections that are closed and not sent yet.
const LINGER: Duration = Duration::from_secs(1);
/// How often it looks.
const LINGER_STEP: Duration = Duration::from_millis(5);
/// Commands that wait for a turn to end.
const COMMANDS_MAX: usize = 16;

/// What a shard is told.
pub(crate) enum Command {
    /// Send a copy of all you count.
    Snapshot(SyncSender<(Snapshot, Vec<io::PortSnapshot>)>),
    /// Take over this program; the second is the number of each of its log sinks.
    Adopt(Arc<Program>, Vec<u16>, SyncSender<Adopted>),
    /// Say how many programs your calls are in.
    Alive(SyncSender<usize>),
    /// Finish what is under way and end.
    Drain,
}

/// A shard has taken a program over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Adopted {
    /// The generation it runs.
    pub(crate) generation: u64,
    /// Calls of the oldest generation that it ended for that.
    pub(crate) ended: u64,
}

/// What a shard says.
pub(crate) enum Said {
    /// It turns.
    Ready {
        /// Which.
        shard: usize,
        /// Its sockets' backend.
        backend: io::Backend,
        /// Ends its wait.
        waker: io::Waker,
        /// What its sockets count.
        counters: Arc<io::Counters>,
    },
    /// It could not begin: one line.
    Failed(String),
    /// It has drained and ended.
    Drained,
}

/// All a shard begins with.
pub(crate) struct Boot {
    /// Which shard.
    pub(crate) shard: usize,
    /// Where.
    pub(crate) core: usize,
    /// How its sockets work.
    pub(crate) io: io::Config,
    /// The node's listeners.
    pub(crate) listeners: Arc<io::Listeners>,
    /// Its queue of each raw port.
    pub(crate) ports: io::PortSeats,
    /// The shards' common table.
    pub(crate) placement: Arc<io::Placement>,
    /// Where its jobs run.
    pub(crate) jobs: JobSeat,
    /// What it runs.
    pub(crate) setup: Setup,
    /// Its end of the log.
    pub(crate) log: ShardLog,
}

/// A running shard, as the control thread sees it.
pub(crate) struct Seat {
    /// Its core.
    pub(crate) core: usize,
    /// Commands to it.
    pub(crate) commands: SyncSender<Command>,
    /// Set when it is ready.
    pub(crate) waker: Option<io::Waker>,
    /// Set when it is ready.
    pub(crate) counters: Option<Arc<io::Counters>>,
    /// The generation it runs, as far as it has said.
    pub(crate) generation: u64,
    /// What it will say when it has taken the next one over.
    adopting: Option<Receiver<Adopted>>,
    thread: Option<JoinHandle<()>>,
}

impl Seat {
    /// Starts the thread; it says how it went through `say`.
    ///
    /// # Errors
    /// One line when no thread can be made.
    pub(crate) fn start(boot: Boot, say: Sender<Said>) -> Result<Self, String> {
        let (commands, inbox) = sync_channel(COMMANDS_MAX);
        let core = boot.core;
        let thread = thread::Builder::new()
            .name(format!("shard-{}", boot.shard))
            .spawn(move || {
                let last = match run(boot, &inbox, &say) {
                    Ok(()) => Said::Drained,
                    Err(why) => Said::Failed(why),
                };
                // Nobody listens when the process is ending.
                let _ = say.send(last);
            })
            .map_err(|e| format!("cannot start a thread for core {core}: {e}"))?;
        Ok(Self {
            core,
            commands,
            waker: None,
            counters: None,
            generation: 1,
            adopting: None,
            thread: Some(thread),
        })
    }

    /// Sends a command and wakes the shard; false if it takes none.
    pub(crate) fn tell(&self, command: Command) -> bool {
        let is_sent = self.commands.try_send(command).is_ok();
        if let Some(waker) = &self.waker {
            waker.wake();
        }
        is_sent
    }

    /// The same, and waits for room: for commands that must not be lost.
    pub(crate) fn insist(&self, command: Command) {
        if let Some(waker) = &self.waker {
            waker.wake();
        }
        // Only a shard that has ended refuses.
        if self.commands.send(command).is_ok()
            && let Some(waker) = &self.waker
        {
            waker.wake();
        }
    }

    /// Has the shard take a program over at the end of its turn; [`Self::adopted`] tells when it has.
    pub(crate) fn adopt(&mut self, program: Arc<Program>, sinks: Vec<u16>) {
        let (reply, answer) = sync_channel(1);
        self.insist(Command::Adopt(program, sinks, reply));
        self.adopting = Some(answer);
    }

    /// Waits at most so long for the shard to have taken over what it was told to; calls it ended for that.
    pub(crate) fn adopted(&mut self, wait: Duration) -> u64 {
        let Some(done) = self.adopting.as_ref().and_then(|a| a.recv_timeout(wait).ok()) else { return 0 };
        self.adopting = None;
        self.generation = done.generation;
        done.ended
    }

    /// How many programs the shard's calls are in; `None` if it does not say in time.
    pub(crate) fn alive(&self, wait: Duration) -> Option<usize> {
        let (reply, answer) = sync_channel(1);
        if self.tell(Command::Alive(reply)) { answer.recv_timeout(wait).ok() } else { None }
    }

    /// Waits for the thread's end.
    pub(crate) fn join(&mut self) {
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(boot: Boot, inbox: &Receiver<Command>, say: &Sender<Said>) -> Result<(), String> {
    let core = boot.core;
    let opened = io::Transports::open(&boot.io, &boot.listeners, boot.shard, boot.placement, boot.ports);
    let mut transport = opened.map_err(|e| {
        format!("core {core}: cannot open sockets: {e}; `towpath doctor` says what is missing")
    })?;
    drop(boot.listeners);
    let waker = transport.waker();
    let from_helper = waker.clone();
    // Before pinning: the helper must not inherit the shard's core.
    let offload = boot.jobs.queue(move || from_helper.wake()).map_err(|why| format!("core {core}: {why}"))?;
    if !io::pin(core) {
        return Err(format!(
            "core {core}: the kernel refuses to pin a thread to it; choose others with --cores"
        ));
    }
    let log_wait = boot.log.oldest();
    let mut shard = Shard::new(boot.setup, offload, Box::new(boot.log));
    let (backend, counters) = (transport.backend(), transport.counters());
    let _ = say.send(Said::Ready { shard: boot.shard, backend, waker, counters });

    let mut is_draining = false;
    let mut linger_until = None;
    loop {
        let now = transport.now();
        let turn = shard.turn(now, &mut transport);
        for (port, is_up) in transport.link_changes() {
            // A port's link is the same for all shards.
            if boot.shard == 0 {
                eprintln!("towpath: port {port}: the link is {}", if is_up { "up" } else { "down" });
            }
        }
        loop {
            match inbox.try_recv() {
                Ok(Command::Snapshot(reply)) => drop(reply.try_send((shard.snapshot(), transport.ports()))),
                Ok(Command::Alive(reply)) => drop(reply.try_send(shard.generations_alive())),
                Ok(Command::Adopt(program, sinks, reply)) => {
                    let ended = shard.adopt(program, sinks);
                    // The control thread may have stopped waiting.
                    let _ = reply.try_send(Adopted { generation: shard.generation(), ended });
                }
                Ok(Command::Drain) => {
                    is_draining = true;
                    shard.drain(now, &mut transport);
                }
                Err(TryRecvError::Empty) => break,
                // The control thread has ended without a word: so does the node.
                Err(TryRecvError::Disconnected) => return Ok(()),
            }
        }
        if is_draining && shard.is_drained() {
            // Closed connections go on sending what was accepted: the last answers of a drain.
            let end = *linger_until.get_or_insert(now.after(LINGER));
            let is_sent = transport.conns_open() <= shard.connections();
            if is_sent || now >= end {
                return Ok(());
            }
            transport.wait(Some(now.after(LINGER_STEP)));
        } else if !turn.did_work {
            transport.wait(sooner(turn.until, log_wait.due()));
        }
    }
}

fn sooner(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
