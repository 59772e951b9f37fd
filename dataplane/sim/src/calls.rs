//! Scenario: gRPC calls of every kind through the shard, in fair and foul weather.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use abi::{Addr, Chain, Encoding, MethodMatch, Program, Route, Service, ServiceIdx, Source, Status};
use shard::{AccessWhen, Limits, Listener, ListenerId, Protocol, Setup};
use wire::Instant;

use crate::chain::{MockChain, Passages};
use crate::check;
use crate::check_calls::{self, Terms};
use crate::check_gate;
use crate::client::{Client, Manner};
use crate::gate::{GatePlan, Gates};
use crate::net::{Backend, Net};
use crate::node::Deed;
use crate::peer::Peer;
use crate::plan::{FaultPlan, MS, SECOND, Weather};
use crate::plan_call::{CallPlan, Mix};
use crate::relay::{backend_addr, caller_addr, service};
use crate::rng::Rng;
use crate::scenario::Outcome;
use crate::server::{Leave, Server, ServerManner};
use crate::trace::Trace;
use crate::world::{Make, World};

/// The sink the chain's log writes to, as `Log::access` is told.
pub(crate) const CHAIN_SINK: u16 = 7;

/// The application: honest callers from 10.1/16, hostile ones from 10.2/16, one honest destination and one
/// hostile one.
#[derive(Clone, Debug)]
pub(crate) struct App {
    pub(crate) endpoints: Vec<Addr>,
    pub(crate) evil: Vec<Addr>,
    pub(crate) compress: Option<Encoding>,
    pub(crate) min_bytes: u32,
    pub(crate) picks: bool,
    /// The rule's chain in the language, instead of the chain by hand.
    pub(crate) rule: Option<String>,
    /// That chain runs as machine code.
    pub(crate) is_compiled: bool,
    /// What the chain by hand sees of messages.
    pub(crate) gates: Option<Gates>,
}

/// The seed chain, or a part of it.
pub(crate) fn draw_rule(rng: &mut Rng) -> String {
    let policy = rng.pick(&["p2c", "round_robin", "least_request", "random", "weighted"]);
    let share = rng.pick(&["0.0", "0.1", "50%"]);
    let fault = match rng.below(3) {
        0 => format!("FaultInjection({share})"),
        1 => format!("FaultInjection({share}, RESOURCE_EXHAUSTED)"),
        _ => format!("FaultInjection({share}, UNAVAILABLE, {})", rng.pick(&["1us", "3ms", "200ms"])),
    };
    let zip = rng.pick(&["Compression", "Compression(gzip, 100)", "Compression(deflate, min: 0)"]);
    let balance = format!("LoadBalancing({policy})");
    let mut links: Vec<&str> = vec![&balance, "Logging", zip, &fault];
    if rng.chance(400) {
        links.remove(rng.size(0, 3));
    }
    links.join(" - ")
}

impl App {
    /// The same application in the language.
    fn source(&self, rule: &str) -> String {
        let list = |of: &[Addr]| of.iter().map(|a| format!("\"{a}\"")).collect::<Vec<_>>().join(", ");
        let (good, evil) = (list(&self.endpoints), list(&self.evil));
        format!(
            "service frontend {{ from: [\"10.1.0.0/16\"] }}\nservice mallory {{ from: [\"10.2.0.0/16\"] }}\n\
             service catalog {{ endpoints: [{good}] }}\nservice evil {{ endpoints: [{evil}] }}\n\
             chain both = {rule}\nfrontend, mallory -> catalog: both\nfrontend, mallory -> evil: both\n"
        )
    }

    /// Which status its elements end calls with by themselves.
    pub(crate) fn fault(&self) -> Option<Status> {
        let rule = self.rule.as_ref().filter(|r| r.contains("FaultInjection"))?;
        Some(if rule.contains("EXHAUSTED") { Status::RESOURCE_EXHAUSTED } else { Status::UNAVAILABLE })
    }

    /// Its elements write the access log.
    pub(crate) fn logs(&self) -> bool {
        self.rule.as_ref().is_none_or(|r| r.contains("Logging"))
    }

    /// Its elements compress.
    pub(crate) fn compresses(&self) -> bool {
        self.rule.as_ref().map_or(self.compress.is_some(), |r| r.contains("Compression"))
    }

    pub(crate) fn program(&self, passages: &Arc<Passages>) -> Result<Arc<Program>, String> {
        if let Some(rule) = &self.rule {
            let source = self.source(rule);
            let compiled = lang::compile("sim.adn", &source, &lang::NoFiles, &lang::Overrides::default());
            let mut compiled = compiled.map_err(|e| format!("{source}{e:?}"))?;
            let mut jit = if self.is_compiled { jit::Jit::new() } else { jit::Jit::interpreting() };
            compiled.link(&mut lang::state::Store::seeded(1, 0), &mut jit);
            return Ok(Arc::new(compiled.program));
        }
        let from = |second: u8, it: Service| Service {
            from: vec![Source::Cidr(IpAddr::V4(Ipv4Addr::new(10, second, 0, 0)), 16)],
            ..it
        };
        let chain: Arc<dyn Chain> = Arc::new(MockChain::new(
            Arc::clone(passages),
            self.compress,
            self.min_bytes,
            self.picks,
            self.gates,
        ));
        let route = |destination: u16| Route {
            source: None,
            destination: Some(ServiceIdx(destination)),
            method: MethodMatch::Any,
            chain: 0,
            line: 3,
        };
        Ok(Arc::new(Program {
            file: "sim.adn".into(),
            services: vec![
                from(1, service("frontend", &[])),
                from(2, service("mallory", &[])),
                service("catalog", &self.endpoints),
                service("evil", &self.evil),
            ],
            routes: abi::Routes::new(vec![route(2), route(3)]),
            chains: vec![chain],
            sinks: vec!["stdout".into()],
            metrics: Vec::new(),
            keys: Vec::new(),
        }))
    }
}

/// Limits, `tight` times in a thousand so small that calls are refused; and whether they are.
pub(crate) fn draw_limits(rng: &mut Rng, tight: u64) -> (Limits, bool) {
    let mut limits = Limits::DEFAULT;
    limits.streams_max = rng.pick(&[1, 3, 100, 1024]);
    limits.stream_window_bytes = rng.pick(&[1 << 10, 16 << 10, 64 << 10]);
    limits.tx_bytes_max = rng.pick(&[4 << 10, 64 << 10, 256 << 10]);
    limits.retry_bytes_max = rng.pick(&[100, 4 << 10, 64 << 10]);
    limits.endpoint_connections_max = rng.pick(&[1, 2, 8]);
    limits.message_bytes_max = rng.pick(&[1 << 10, 64 << 10, 4 << 20]);
    let is_tight = rng.chance(tight);
    if is_tight {
        limits.pool_bytes = rng.pick(&[64 << 10, 300 << 10, 2 << 20]);
        limits.caller_pool_bytes = limits.pool_bytes;
        limits.small_window_bytes = rng.pick(&[256, 4 << 10]);
        limits.queue_max = rng.pick(&[1, 5, 1024]);
        limits.calls_max = rng.pick(&[3, 20, 1000]);
        limits.connections_max = rng.pick(&[3, 10, 1000]);
        limits.stream_idle_ns = 60 * SECOND;
    }
    (limits, is_tight)
}

/// A listener for everybody.
pub(crate) fn setup(program: Arc<Program>, limits: Limits, seed: u64) -> Setup {
    let protocol = if seed.is_multiple_of(4) { Protocol::Auto } else { Protocol::H2 };
    Setup {
        shard: 0,
        sinks: vec![CHAIN_SINK; program.sinks.len()],
        program,
        ports: Vec::new(),
        listeners: vec![Listener { name: "pods".into(), unix_path: None, destination: None, protocol }],
        limits,
        seed,
        clock: || Instant(0),
        access: AccessWhen::Always,
    }
}

/// A change to this program.
pub(crate) fn adoption(program: Arc<Program>) -> Deed {
    let sinks = vec![CHAIN_SINK; program.sinks.len()];
    Deed::Adopt(program, sinks)
}

/// Callers and their calls.
pub(crate) fn seat_callers(
    world: &mut World,
    rng: &mut Rng,
    mix: &Mix,
    conns: usize,
    calls: usize,
    foul: bool,
    is_tight: bool,
) {
    let spread = rng.pick(&[0, 100_000, 20 * MS, 500 * MS]);
    for at in 0..conns {
        let in_ns = rng.below(spread);
        let mut manner = Manner::draw(rng, &["catalog".into(), "evil".into()]);
        manner.may_be_refused = is_tight;
        if foul && rng.chance(150) {
            manner.abort_after_ns = Some(rng.skewed(200_000_000) as u64);
        }
        let start = world.net.now + in_ns;
        let mut todo: Vec<(u64, usize)> = Vec::new();
        for _ in 0..rng.size(1, calls) {
            let mut plan = CallPlan::draw(rng, mix);
            if let Some(gates) = world.ledger.gates {
                plan.gate = GatePlan::draw(rng, gates, &plan);
            }
            todo.push((start + rng.below(spread), world.ledger.call(plan)));
        }
        todo.sort_unstable();
        let link = world.net.arrive(in_ns, ListenerId(0), caller_addr(1, at));
        world.seat(link, Box::new(Client::new(manner, todo)), start, true);
    }
}

/// Runs one seed.
pub(crate) fn run(seed: u64, trace: Trace, make: Make) -> Result<Outcome, String> {
    run_with(seed, trace, make, None)
}

/// Runs one seed with chains that see messages.
pub(crate) fn run_gated(seed: u64, trace: Trace, make: Make) -> Result<Outcome, String> {
    run_with(seed, trace, make, Some(Gates::draw(&mut Rng::new(seed ^ 0x6a7e))))
}

fn run_with(seed: u64, trace: Trace, make: Make, gates: Option<Gates>) -> Result<Outcome, String> {
    let mut rng = Rng::new(seed);
    let weather = if rng.chance(500) { Weather::Fair } else { Weather::Foul };
    let foul = weather == Weather::Foul;
    let plan = FaultPlan::draw(&mut rng, weather);
    let conns = rng.size(1, 6);
    let calls = rng.skewed(40);
    let budget = plan.bytes_max() * 2 / (conns * calls);
    let mix = Mix::draw(&mut rng, (budget / 4).clamp(8, 1 << 20));
    let unary = if gates.is_some_and(|g| g.payload != [false; 2]) { 800 } else { 0 };
    let mix = Mix { unary, ..mix };
    let (limits, is_tight) = draw_limits(&mut rng, 200);
    let app = App {
        endpoints: (0..u16::try_from(rng.size(1, 3)).unwrap_or(1)).map(backend_addr).collect(),
        evil: vec![backend_addr(100)],
        compress: rng.chance(500).then(|| rng.pick(&[Encoding::Gzip, Encoding::Deflate])),
        min_bytes: rng.pick(&[0, 100, 1024]),
        picks: rng.chance(700),
        is_compiled: seed.is_multiple_of(2),
        rule: rng.chance(400).then(|| draw_rule(&mut rng)).filter(|_| gates.is_none()),
        gates,
    };
    let mix = if app.rule.is_some() { Mix { reject: 0, delay: 0, ..mix } } else { mix };
    let passages = Arc::new(Passages::default());
    let setup = setup(app.program(&passages)?, limits, rng.word());
    let mut net = Net::new(rng.fork(2), plan, trace);
    net.backends =
        app.endpoints.iter().map(|addr| Backend { addr: addr.clone(), down: Vec::new() }).collect();
    if foul && rng.chance(300) {
        let from = net.now + rng.below(10 * MS);
        net.backends[0].down.push((from, from + rng.below(SECOND)));
    }
    let leaves: Vec<Leave> = match rng.below(4) {
        0 => vec![Leave::Never, Leave::Drain(rng.size(1, 10))],
        1 if foul => {
            vec![Leave::Never, Leave::Drain(3), Leave::Away(rng.size(1, 10)), Leave::Reset(rng.size(1, 10))]
        }
        _ => vec![Leave::Never],
    };
    let advertises = rng.chance(500);
    let streams_max = rng.pick(&[1, 2, 10, 100, 1024]);
    let birth = Box::new(move |_: usize, _, rng: &mut Rng, _: &mut _| {
        let peer: Box<dyn Peer> =
            Box::new(Server::new(ServerManner::draw(rng, &leaves, advertises, streams_max)));
        peer
    });
    let mut world = World::new(net, setup, birth, make);
    world.ledger.gates = gates;
    seat_callers(&mut world, &mut rng, &mix, conns, calls, foul, is_tight);
    if rng.chance(300) {
        for _ in 0..rng.size(1, 4) {
            let at = world.net.now + rng.below(100 * MS);
            // An endpoint goes or comes back: what it has is finished, the rest goes elsewhere.
            let mut next = app.clone();
            if next.endpoints.len() > 1 && rng.chance(600) {
                next.endpoints.remove(rng.size(0, next.endpoints.len() - 1));
            }
            world.change(at, 0, adoption(next.program(&passages)?));
        }
    }
    let drains = rng.chance(150);
    if drains {
        let at = world.net.now + rng.below(100 * MS);
        world.change(at, 0, Deed::Drain);
    }
    let terms = Terms {
        is_fair: !foul,
        drains,
        message_bytes_max: limits.message_bytes_max as usize,
        is_tight,
        streams_max: limits.streams_max,
        fault: app.fault(),
        waits: gates.is_some_and(|g| g.payload[0]),
        logs: app.logs(),
        small_ns_max: if is_tight { u64::MAX } else { 10 * SECOND },
        retry_bytes_max: limits.retry_bytes_max.into(),
        recodes: app.compresses(),
        is_sealed: false,
        breaches: &[],
        far_drains: false,
    };
    let end = world.net.now + 400 * SECOND;
    world.run_callers(end)?;
    world.run_for(5 * SECOND)?;
    check_calls::all(&world, &terms, &passages)?;
    if let Some(gates) = gates {
        check_gate::all(&world, gates, &passages.watch)?;
    }
    // Whoever was lost without a word is noticed by then.
    world.run_for(100 * SECOND)?;
    check::quiet(&mut world)?;
    Ok(Outcome::of(&world))
}

#[cfg(test)]
mod tests;
