//! The one thread that writes: sinks, reopening, giving buffers back.
//!
//! Each buffer wakes it. A nap between looks would save shards that system call, and was tried: where a shard
//! shares its core with others, the scheduler then let these run first, and a p99 of 0.4 ms became 8 ms.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::known::Known;
use super::line::WallClock;
use super::{BUFFERS_MAX, LogCounters, Oldest, ShardLog};

/// How long an ending node waits for its last lines to be written: this often, this long.
const END_LOOKS: u32 = 1000;
const END_LOOK: Duration = Duration::from_millis(2);

/// Where lines go.
pub(crate) enum Target {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// A file, appended to.
    Path(String),
    /// Whatever takes bytes (the demo's memory).
    Other(Box<dyn Write + Send>),
    /// Nowhere.
    Off,
}

/// A full buffer of whole lines.
pub(super) struct Chunk {
    pub(super) shard: u16,
    pub(super) sink: u16,
    pub(super) bytes: Vec<u8>,
}

/// What the writer is told.
pub(super) enum Message {
    Chunk(Chunk),
    Add(u16, Sink),
    Reopen,
    End,
}

/// An open target.
pub(super) struct Sink {
    target: Target,
    file: Option<File>,
    has_complained: bool,
}

/// The writer's handle, kept by the control thread.
pub(crate) struct Writer {
    to: SyncSender<Message>,
    thread: Option<JoinHandle<()>>,
    counters: Vec<Arc<LogCounters>>,
    sinks: Vec<String>,
}

impl Writer {
    /// Starts the writer for this many shards and gives each its log. Sink 0 is `node`, sink 1 standard error.
    ///
    /// # Errors
    /// One line when the file cannot be opened or no thread can be made.
    pub(crate) fn start(shards: u16, node: Target) -> Result<(Self, Vec<ShardLog>), String> {
        // Room for every buffer of every shard, and for the control thread's messages.
        let (to, from) = sync_channel(usize::from(shards) * BUFFERS_MAX + 64);
        let has_node_log = !matches!(node, Target::Off);
        let mut backs = Vec::new();
        let mut logs = Vec::new();
        let mut counters = Vec::new();
        for shard in 0..shards {
            let (give, back) = sync_channel(BUFFERS_MAX);
            let counted = Arc::new(LogCounters::default());
            counters.push(counted.clone());
            backs.push((give, counted.clone()));
            logs.push(ShardLog {
                shard,
                filling: Vec::new(),
                oldest: Arc::new(Oldest::none()),
                made: 0,
                out: to.clone(),
                back,
                clock: WallClock::new(),
                known: Known::default(),
                counters: counted,
                notices: Vec::new(),
                has_node_log,
            });
        }
        let sinks = vec![Sink::open(node)?, Sink::open(Target::Stderr)?];
        let thread = thread::Builder::new()
            .name("log".into())
            .stack_size(128 << 10)
            .spawn(move || run(&from, sinks, &backs))
            .map_err(|e| format!("cannot start the log's thread: {e}"))?;
        let names = vec![String::new(), String::new()];
        Ok((Self { to, thread: Some(thread), counters, sinks: names }, logs))
    }

    /// The number of a sink that a program names (`stdout` or a path), opened if it is new.
    ///
    /// # Errors
    /// One line when the file cannot be opened.
    pub(crate) fn sink(&mut self, name: &str) -> Result<u16, String> {
        if let Some(at) = self.sinks.iter().skip(2).position(|s| s == name) {
            return u16::try_from(at + 2).map_err(|e| e.to_string());
        }
        let target = match name {
            "stdout" | "" => Target::Stdout,
            "stderr" => Target::Stderr,
            "off" => Target::Off,
            path => Target::Path(path.to_owned()),
        };
        self.add(name, target)
    }

    /// Adds a sink under a name, whatever it writes to.
    ///
    /// # Errors
    /// One line when it cannot be opened.
    pub(crate) fn add(&mut self, name: &str, target: Target) -> Result<u16, String> {
        let number = u16::try_from(self.sinks.len()).map_err(|_| "too many log files".to_owned())?;
        let sink = Sink::open(target)?;
        self.to.send(Message::Add(number, sink)).map_err(|_| "the log's thread has ended".to_owned())?;
        self.sinks.push(name.to_owned());
        Ok(number)
    }

    /// Opens all files again, after they were moved away.
    pub(crate) fn reopen(&self) {
        let _ = self.to.send(Message::Reopen);
    }

    /// Lines of all shards handed over, dropped, failed; notices muted.
    pub(crate) fn read(&self) -> [u64; 4] {
        let mut sum = [0; 4];
        for counters in &self.counters {
            for (total, one) in sum.iter_mut().zip(counters.read()) {
                *total += one;
            }
        }
        sum
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Everything handed over before this is written first: the channel keeps its order. A sink that
        // takes nothing (a pipe nobody reads) must not keep the node from ending.
        let mut end = Some(Message::End);
        for _ in 0..END_LOOKS {
            if let Some(message) = end.take() {
                end = match self.to.try_send(message) {
                    Err(TrySendError::Full(message)) => Some(message),
                    Ok(()) | Err(TrySendError::Disconnected(_)) => None,
                };
            }
            if self.thread.as_ref().is_none_or(JoinHandle::is_finished) {
                return;
            }
            crate::clock::sleep(END_LOOK);
        }
    }
}

impl Sink {
    fn open(target: Target) -> Result<Self, String> {
        let mut sink = Self { target, file: None, has_complained: false };
        sink.reopen().map_err(|e| {
            let path = if let Target::Path(path) = &sink.target { path.as_str() } else { "?" };
            format!(
                "cannot write the access log {path}: {e}; choose a path this user may write, or \"stdout\""
            )
        })?;
        Ok(sink)
    }

    fn reopen(&mut self) -> io::Result<()> {
        if let Target::Path(path) = &self.target {
            self.file = Some(OpenOptions::new().create(true).append(true).open(path)?);
        }
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.target {
            Target::Stdout => io::stdout().lock().write_all(bytes).and_then(|()| io::stdout().flush()),
            Target::Stderr => io::stderr().lock().write_all(bytes),
            Target::Path(_) => match &mut self.file {
                Some(file) => file.write_all(bytes),
                None => Err(io::ErrorKind::NotFound.into()),
            },
            Target::Other(to) => to.write_all(bytes),
            Target::Off => Ok(()),
        }
    }
}

/// Where each shard's buffers go back to, and where its lost lines are counted.
type Back = (SyncSender<Vec<u8>>, Arc<LogCounters>);

fn run(from: &Receiver<Message>, mut sinks: Vec<Sink>, backs: &[Back]) {
    while let Ok(message) = from.recv() {
        match message {
            Message::Chunk(chunk) => {
                let Some((back, counters)) = backs.get(usize::from(chunk.shard)) else { continue };
                if let Some(sink) = sinks.get_mut(usize::from(chunk.sink)) {
                    let result = sink.write(&chunk.bytes);
                    if note(sink, &result) {
                        let lines = chunk.bytes.iter().filter(|b| **b == b'\n').count() as u64;
                        super::add(&counters.failed, lines);
                    }
                }
                let _ = back.try_send(chunk.bytes);
            }
            Message::Add(number, sink) => {
                debug_assert_eq!(usize::from(number), sinks.len());
                sinks.push(sink);
            }
            Message::Reopen => {
                for sink in &mut sinks {
                    let result = sink.reopen();
                    note(sink, &result);
                }
            }
            Message::End => return,
        }
    }
}

/// True if nothing could be written; says so once until it works again.
fn note(sink: &mut Sink, result: &io::Result<()>) -> bool {
    let Err(error) = result else {
        sink.has_complained = false;
        return false;
    };
    if !sink.has_complained && !matches!(sink.target, Target::Stderr) {
        sink.has_complained = true;
        let name = if let Target::Path(path) = &sink.target { path.as_str() } else { "standard output" };
        let _ = writeln!(io::stderr(), "towpath: access log {name}: {error}; its lines are lost and counted");
    }
    true
}
