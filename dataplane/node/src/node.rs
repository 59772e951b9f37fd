//! A running node: its shards, its log, its figures. What `run` and `demo` have in common.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel, sync_channel};
use std::time::Duration;

use abi::Addr;
use jit::Jit;
use lang::explain::{Analysis, Report};
use lang::state::Store;
use lang::vm::Image;
use lang::{Compiled, Diagnostics};
use shard::{AccessWhen, Instant, ListenerId, Setup};

use crate::admin::Captures;
use crate::backend::{Choice, check_via, place};
use crate::clock;
use crate::config::{Listen, Offload};
use crate::failure::{Failure, Outcome};
use crate::figures::{Figures, ShardFigures};
use crate::jobs::Jobs;
use crate::log::{Target, Writer};
use crate::machine;
use crate::reload::{Adoption, Origin};
use crate::seat::{Boot, Command, Said, Seat};

/// How long shards may take to begin.
const START_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a shard may take to copy its figures.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a shard may take to end its turn and take a program over.
const ADOPT_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a reload waits for the oldest of too many generations.
const ROOM_TIMEOUT: Duration = Duration::from_secs(2);
/// How often it looks.
const ROOM_LOOK: Duration = Duration::from_millis(20);

/// All a node begins with.
pub(crate) struct Plan {
    /// One shard each.
    pub(crate) cores: Vec<usize>,
    /// How sockets work.
    pub(crate) io: io::Config,
    /// Where to listen.
    pub(crate) listen: Vec<Listen>,
    /// Raw ports.
    pub(crate) ports: Vec<io::PortSpec>,
    /// What carries listeners that name no port.
    pub(crate) backend: Choice,
    /// Where DPDK's buffers live.
    pub(crate) dpdk_memory: io::DpdkMemory,
    /// Where jobs of chains run, and the named keys.
    pub(crate) offload: Offload,
    /// Bounds of each shard.
    pub(crate) limits: shard::Limits,
    /// Which calls the node's own log has.
    pub(crate) access: AccessWhen,
    /// Where that goes.
    pub(crate) log: Target,
    /// What draws derive from.
    pub(crate) seed: u64,
    /// Chains run as machine code, where the machine lets them.
    pub(crate) code: Code,
}

/// How chains run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Code {
    /// As machine code, where executable memory is to be had.
    #[default]
    Auto,
    /// By the interpreter.
    Interpret,
}

/// A running node.
pub(crate) struct Node {
    /// Kept to the end: unix sockets lose their paths with it.
    #[expect(dead_code, reason = "it is its life that counts")]
    listeners: Arc<io::Listeners>,
    /// Kept to the end: queues work as long as their port is open.
    ports: io::Ports,
    port_specs: Vec<io::PortSpec>,
    seats: Vec<Seat>,
    writer: Writer,
    offload: Offload,
    jobs: Jobs,
    said: Receiver<Said>,
    addrs: Vec<Addr>,
    backend: io::Backend,
    program: Arc<abi::Program>,
    images: Vec<Arc<Image>>,
    analysis: Analysis,
    notes: Diagnostics,
    origin: Origin,
    /// What elements remember, over all programs.
    store: Store,
    /// Makes chains run.
    jit: Jit,
    /// Earlier programs' code may still be held.
    has_old_code: bool,
    started: Instant,
    generation: u64,
    left: usize,
}

impl Node {
    /// Binds, starts the shards and waits until all turn. `sinks` are log sinks
    /// by name that are not files.
    ///
    /// # Errors
    /// One line that says what to do.
    pub(crate) fn start(mut plan: Plan, compiled: Compiled, sinks: Vec<(String, Target)>) -> Outcome<Self> {
        machine::raise_file_limit();
        check_listeners(&plan.listen, &compiled.program)?;
        check_loops(&plan.listen, &compiled.program)?;
        check_via(&compiled.program, &plan.ports)?;
        plan.offload.check_keys(&compiled)?;
        let kernel = place(&plan.listen, &mut plan.ports, plan.backend)?;
        let specs: Vec<io::ListenerSpec> = (0..)
            .map(ListenerId)
            .zip(&plan.listen)
            .filter(|(id, _)| kernel.contains(id))
            .map(|(id, listen)| io::ListenerSpec { id, addr: listen.address.clone() })
            .collect();
        let listeners = Arc::new(io::Listeners::bind(&specs).map_err(|e| Failure::line(e.to_string()))?);
        let addrs = addrs(&plan.listen, &listeners);
        let jobs = Jobs::open(&plan.offload, plan.dpdk_memory, &plan.ports, plan.cores.len())?;
        let ports = open_ports(&mut plan)?;

        let count = plan.cores.len();
        let shards = u16::try_from(count).map_err(|_| Failure::line("too many cores"))?;
        let (mut writer, logs) = Writer::start(shards, plan.log).map_err(Failure::line)?;
        for (name, target) in sinks {
            writer.add(&name, target).map_err(Failure::line)?;
        }
        let mut compiled = compiled;
        let mut store = Store::new(count);
        let mut jit = match plan.code {
            Code::Auto => Jit::new(),
            Code::Interpret => Jit::interpreting(),
        };
        compiled.link(&mut store, &mut jit);
        let Compiled { program, images, analysis, notes, .. } = compiled;
        let program = Arc::new(program);
        let sinks = sinks_of(&program, &mut writer).map_err(Failure::line)?;
        let placement = io::Placement::new(count);
        let (say, said) = channel();
        let mut node = Self {
            seats: Vec::new(),
            listeners: listeners.clone(),
            ports,
            port_specs: plan.ports.clone(),
            writer,
            offload: plan.offload.clone(),
            jobs,
            said,
            addrs: addrs.clone(),
            backend: plan.io.backend,
            program: program.clone(),
            images,
            analysis,
            origin: Origin::of(&program.file, &notes),
            notes,
            store,
            jit,
            has_old_code: false,
            started: clock::monotonic(),
            generation: 1,
            left: count,
        };
        for ((shard, core), log) in plan.cores.iter().enumerate().zip(logs) {
            let setup = Setup {
                shard: u16::try_from(shard).unwrap_or(u16::MAX),
                program: program.clone(),
                sinks: sinks.clone(),
                listeners: plan.listen.iter().zip(&addrs).map(|(l, addr)| listener(l, addr)).collect(),
                ports: plan.ports.iter().map(|port| port.name.clone()).collect(),
                limits: plan.limits,
                // Odd multiples of a large constant: no two shards draw the same numbers.
                seed: plan.seed ^ (shard as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15),
                clock: clock::monotonic,
                access: plan.access,
            };
            let boot = Boot {
                shard,
                core: *core,
                io: plan.io,
                listeners: listeners.clone(),
                ports: node.ports.take(shard),
                placement: placement.clone(),
                jobs: node.jobs.seat(),
                setup,
                log,
            };
            node.seats.push(Seat::start(boot, say.clone()).map_err(Failure::line)?);
        }
        node.await_ready()?;
        Ok(node)
    }

    fn await_ready(&mut self) -> Outcome<()> {
        let mut ready = 0;
        while ready < self.seats.len() {
            match self.said.recv_timeout(START_TIMEOUT) {
                Ok(Said::Ready { shard, backend, waker, counters }) => {
                    self.backend = backend;
                    if let Some(seat) = self.seats.get_mut(shard) {
                        seat.waker = Some(waker);
                        seat.counters = Some(counters);
                    }
                    ready += 1;
                }
                Ok(Said::Failed(why)) => return Err(Failure::line(why)),
                Ok(Said::Drained) | Err(_) => return Err(Failure::line("a shard did not begin")),
            }
        }
        Ok(())
    }

    /// Where it listens, with the ports the kernel chose.
    pub(crate) fn addrs(&self) -> Vec<Addr> {
        self.addrs.clone()
    }

    /// Name and description of each raw port.
    pub(crate) fn ports(&self) -> impl Iterator<Item = (&str, &str)> {
        self.ports.lines()
    }

    /// Its raw ports with their listeners.
    pub(crate) fn port_specs(&self) -> &[io::PortSpec] {
        &self.port_specs
    }

    /// The taps of its raw ports.
    pub(crate) fn captures(&self) -> Captures {
        let taps = self.ports.taps().map(|(name, taps)| (name.to_owned(), taps.to_vec()));
        Captures::new(taps.collect())
    }

    /// Refuses a program that this node cannot run.
    ///
    /// # Errors
    /// What it names and the node does not have.
    pub(crate) fn check(&self, compiled: &Compiled) -> Outcome<()> {
        check_via(&compiled.program, &self.port_specs)?;
        self.offload.check_keys(compiled)
    }

    /// What carries the bytes.
    pub(crate) fn backend(&self) -> io::Backend {
        self.backend
    }

    /// Why its chains are interpreted, if they are.
    pub(crate) fn code_refusal(&self) -> Option<&jit::Refusal> {
        self.jit.refusal()
    }

    /// Its cores.
    pub(crate) fn cores(&self) -> Vec<usize> {
        self.seats.iter().map(|s| s.core).collect()
    }

    /// What there is to say of its program.
    pub(crate) fn report(&self) -> Report<'_> {
        Report { program: &self.program, images: &self.images, analysis: &self.analysis, notes: &self.notes }
    }

    /// Where its program came from.
    pub(crate) fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Which generation each shard runs.
    pub(crate) fn generations(&mut self) -> Vec<u64> {
        self.seats
            .iter_mut()
            .map(|seat| {
                seat.adopted(Duration::ZERO);
                seat.generation
            })
            .collect()
    }

    /// Too many generations alive: gives the calls of the oldest a while to end by themselves.
    fn wait_for_room(&self) -> u64 {
        let begun = clock::monotonic();
        let is_full =
            |seat: &Seat| seat.alive(ADOPT_TIMEOUT).is_some_and(|alive| alive >= shard::GENERATIONS_MAX);
        while self.seats.iter().any(is_full) {
            let waited = clock::monotonic().since_ns(begun);
            if u128::from(waited) >= ROOM_TIMEOUT.as_nanos() {
                return waited;
            }
            clock::sleep(ROOM_LOOK);
        }
        // Asking alone takes a moment.
        Some(clock::monotonic().since_ns(begun))
            .filter(|ns| u128::from(*ns) >= ROOM_LOOK.as_nanos())
            .unwrap_or(0)
    }

    /// Code of earlier programs may still be held: [`Self::sweep`] it now and then.
    pub(crate) fn has_old_code(&self) -> bool {
        self.has_old_code
    }

    /// Frees the code of programs whose last call has ended. It asks nothing of the shards.
    pub(crate) fn sweep(&mut self) {
        self.has_old_code = self.jit.sweep();
    }

    /// How many programs it has taken over, the first included.
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// Reads the named keys again; warnings, a line each.
    ///
    /// # Errors
    /// One line; then nothing has changed.
    pub(crate) fn reload_keys(&self) -> Result<Vec<String>, String> {
        self.jobs.keys().reload().map_err(|error| format!("[keys]: {error}"))
    }

    /// Where jobs run, and the named keys.
    pub(crate) fn jobs(&self) -> &Jobs {
        &self.jobs
    }

    /// Their names.
    pub(crate) fn key_names(&self) -> impl Iterator<Item = &str> {
        self.jobs.keys().names()
    }

    /// The log's files are opened again.
    pub(crate) fn reopen_logs(&self) {
        self.writer.reopen();
    }

    /// Takes over another program at the shards' next turns, and waits for them.
    ///
    /// # Errors
    /// One line when a log file of it cannot be opened; then nothing has changed.
    pub(crate) fn adopt(&mut self, mut compiled: Compiled) -> Result<Adoption, String> {
        let sinks = sinks_of(&compiled.program, &mut self.writer)?;
        // Of the generations before, those that have ended; reloads may come without a pause.
        self.jit.sweep();
        self.jit.begin_program();
        self.has_old_code = true;
        let report = compiled.link(&mut self.store, &mut self.jit);
        let Compiled { program, images, analysis, notes, .. } = compiled;
        let program = Arc::new(program);
        let origin = Origin::of(&program.file, &notes);
        let waited_ns = self.wait_for_room();
        for seat in &mut self.seats {
            seat.adopt(program.clone(), sinks.clone());
        }
        let ended = self.seats.iter_mut().map(|seat| seat.adopted(ADOPT_TIMEOUT)).sum();
        self.program = program;
        self.images = images;
        self.analysis = analysis;
        self.notes = notes;
        self.origin = origin;
        self.generation += 1;
        Ok(Adoption { state: report, shards: self.generations(), waited_ns, ended })
    }

    /// What all shards count, copied between their turns.
    pub(crate) fn figures(&self) -> Figures {
        let replies: Vec<_> = self
            .seats
            .iter()
            .map(|seat| {
                let (reply, answer) = sync_channel(1);
                (seat, seat.tell(Command::Snapshot(reply)).then_some(answer))
            })
            .collect();
        let shards = replies
            .into_iter()
            .filter_map(|(seat, answer)| {
                let shard = answer?.recv_timeout(SNAPSHOT_TIMEOUT).ok()?;
                let (shard, ports) = shard;
                let sockets = seat.counters.as_ref().map(|c| c.snapshot()).unwrap_or_default();
                Some(ShardFigures { core: seat.core, shard, sockets, ports })
            })
            .collect();
        Figures {
            shards,
            log: self.writer.read(),
            queues: self.jobs.queues(),
            seals: self.jobs.seals(),
            uptime_ns: clock::monotonic().since_ns(self.started),
            resident_bytes: machine::resident_bytes(),
        }
    }

    /// Begins to drain: no new connections, calls under way finish.
    pub(crate) fn drain(&self) {
        for seat in &self.seats {
            seat.insist(Command::Drain);
        }
    }

    /// True once every shard has ended; looks for at most `wait`.
    pub(crate) fn is_drained(&mut self, wait: Duration) -> bool {
        while self.left > 0 {
            match self.said.recv_timeout(wait) {
                Ok(Said::Drained | Said::Failed(_)) => self.left -= 1,
                Ok(Said::Ready { .. }) => {}
                Err(RecvTimeoutError::Timeout) => return false,
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        for seat in &mut self.seats {
            seat.join();
        }
        true
    }
}

/// Opens the raw ports; the node has as many shards as all of them can serve.
fn open_ports(plan: &mut Plan) -> Outcome<io::Ports> {
    let wanted = plan.cores.len();
    let limits = io::NetLimits {
        conns_max: plan.limits.connections_max,
        connect_timeout: Duration::from_nanos(plan.limits.connect_timeout_ns),
        ..io::NetLimits::default()
    };
    let options = io::PortOptions {
        shards: u16::try_from(wanted).map_err(|_| Failure::line("too many cores"))?,
        poll: plan.io.poll,
        memory: plan.dpdk_memory,
        limits,
        seed: plan.seed,
    };
    let ports = io::Ports::open(&plan.ports, &options).map_err(|e| Failure::line(e.to_string()))?;
    if let Some(shards) = ports.shards() {
        plan.cores.truncate(shards);
    }
    let narrow: Vec<&str> = ports.narrow(wanted).collect();
    if !narrow.is_empty() {
        eprintln!(
            "towpath: {} of {wanted} cores used: port {} does not steer flows to more shards",
            plan.cores.len(),
            narrow.join(", ")
        );
    }
    Ok(ports)
}

/// Where each listener listens, with the ports the kernel chose.
fn addrs(listen: &[Listen], listeners: &io::Listeners) -> Vec<Addr> {
    let bound = listeners.local_addrs();
    let find = |id| bound.iter().find(|(known, _)| *known == id).map(|(_, addr)| addr.clone());
    (0..)
        .map(ListenerId)
        .zip(listen)
        .map(|(id, one)| find(id).unwrap_or_else(|| one.address.clone()))
        .collect()
}

/// A listener without a name goes by its address, in messages.
fn listener(listen: &Listen, addr: &Addr) -> shard::Listener {
    shard::Listener {
        name: if listen.name.is_empty() { addr.to_string() } else { listen.name.clone() },
        unix_path: match &listen.address {
            Addr::Unix(path) => Some(path.clone()),
            Addr::Ip(_) => None,
        },
        destination: listen.destination.clone(),
        protocol: listen.protocol,
    }
}

/// The number of each of a program's log sinks.
fn sinks_of(program: &abi::Program, writer: &mut Writer) -> Result<Vec<u16>, String> {
    program.sinks.iter().map(|name| writer.sink(name)).collect()
}

/// Refuses a listener for a service that the application does not have.
///
/// # Errors
/// One line with those it has.
pub(crate) fn check_listeners(listen: &[Listen], program: &abi::Program) -> Outcome<()> {
    for one in listen {
        let Some(wanted) = &one.destination else { continue };
        if program.service(wanted).is_none() {
            let names: Vec<&str> = program.services.iter().map(|s| s.name.as_str()).collect();
            let place = if one.line > 0 {
                format!("[[listen]] in line {}", one.line)
            } else {
                one.address.to_string()
            };
            let near = crate::value::nearest(wanted, names.iter().copied());
            let hint = near.map(|n| format!("; did you mean \"{n}\"?")).unwrap_or_default();
            return Err(Failure::line(format!(
                "{place}: destination \"{wanted}\" is no service of {} (known: {}){hint}",
                program.file,
                names.join(", ")
            )));
        }
    }
    Ok(())
}

/// An endpoint that is this node's own listener would send every call round until the limits end it.
pub(crate) fn check_loops(listen: &[Listen], program: &abi::Program) -> Outcome<()> {
    for service in &program.services {
        for endpoint in &service.endpoints {
            let is_own = |one: &&Listen| match (&one.address, &endpoint.addr) {
                (Addr::Ip(own), Addr::Ip(to)) => {
                    let covers = own.ip() == to.ip() || own.ip().is_unspecified() && to.ip().is_loopback();
                    own.port() != 0 && own.port() == to.port() && covers
                }
                (own, to) => own == to,
            };
            if let Some(one) = listen.iter().find(is_own) {
                return Err(Failure::line(format!(
                    "service {}: its endpoint {} is this node's own listener {}; calls would go round for ever. \
                     Give the server another port, or this node another --listen",
                    service.name, endpoint.addr, one.address
                )));
            }
        }
    }
    Ok(())
}
