//! The one thread that writes: sinks, reopening, giving buffers back.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use super::line::WallClock;
use super::{BUFFERS_MAX, LogCounters, Oldest, ShardLog};

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
    counters: Arc<LogCounters>,
    sinks: Vec<String>,
}

impl Writer {
    /// Starts the writer for this many shards and gives each its log. Sink 0 is `node`, sink 1 standard error.
    ///
    /// # Errors
    /// One line when the file cannot be opened or no thread can be made.
    pub(crate) fn start(shards: u16, node: Target) -> Result<(Self, Vec<ShardLog>), String> {
        let counters = Arc::new(LogCounters::default());
        // Room for every buffer of every shard, and for the control thread's messages.
        let (to, from) = sync_channel(usize::from(shards) * BUFFERS_MAX + 64);
        let has_node_log = !matches!(node, Target::Off);
        let mut backs = Vec::new();
        let mut logs = Vec::new();
        for shard in 0..shards {
            let (give, back) = sync_channel(BUFFERS_MAX);
            backs.push(give);
            logs.push(ShardLog {
                shard,
                filling: Vec::new(),
                oldest: Arc::new(Oldest::none()),
                made: 0,
                out: to.clone(),
                back,
                clock: WallClock::new(),
                counters: counters.clone(),
                notices: Vec::new(),
                has_node_log,
            });
        }
        let sinks = vec![Sink::open(node)?, Sink::open(Target::Stderr)?];
        let for_thread = counters.clone();
        let thread = thread::Builder::new()
            .name("log".into())
            .stack_size(128 << 10)
            .spawn(move || run(&from, sinks, &backs, &for_thread))
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

    /// What became of the lines.
    pub(crate) fn counters(&self) -> &Arc<LogCounters> {
        &self.counters
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Everything handed over before this is written first: the channel keeps its order.
        let _ = self.to.send(Message::End);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
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

fn run(
    from: &Receiver<Message>,
    mut sinks: Vec<Sink>,
    backs: &[SyncSender<Vec<u8>>],
    counters: &LogCounters,
) {
    while let Ok(message) = from.recv() {
        match message {
            Message::Chunk(chunk) => {
                if let Some(sink) = sinks.get_mut(usize::from(chunk.sink)) {
                    let result = sink.write(&chunk.bytes);
                    note(sink, &result, &chunk.bytes, counters);
                }
                if let Some(back) = backs.get(usize::from(chunk.shard)) {
                    let _ = back.try_send(chunk.bytes);
                }
            }
            Message::Add(number, sink) => {
                debug_assert_eq!(usize::from(number), sinks.len());
                sinks.push(sink);
            }
            Message::Reopen => {
                for sink in &mut sinks {
                    let result = sink.reopen();
                    note(sink, &result, &[], counters);
                }
            }
            Message::End => return,
        }
    }
}

/// Counts what could not be written, and says so once until it works again.
fn note(sink: &mut Sink, result: &io::Result<()>, bytes: &[u8], counters: &LogCounters) {
    let Err(error) = result else {
        sink.has_complained = false;
        return;
    };
    let lines = bytes.iter().filter(|b| **b == b'\n').count() as u64;
    counters.failed.fetch_add(lines, Ordering::Relaxed);
    if !sink.has_complained && !matches!(sink.target, Target::Stderr) {
        sink.has_complained = true;
        let name = if let Target::Path(path) = &sink.target { path.as_str() } else { "standard output" };
        let _ = writeln!(io::stderr(), "towpath: access log {name}: {error}; its lines are lost and counted");
    }
}
