//! Scenario: gRPC calls through two nodes that seal messages between them, in fair and foul weather: wires between
//! them that break, programs that change, keys that are rotated, a drain of either node; and somebody on the wire.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use abi::{Addr, Program, Status};
use shard::{ListenerId, Setup};

use crate::calls::{adoption, draw_limits, seat_callers, setup};
use crate::chain::Passages;
use crate::check;
use crate::check_calls::{self, Terms};
use crate::check_seals;
use crate::client::{Client, Manner};
use crate::join;
use crate::net::{Backend, Net};
use crate::node::Deed;
use crate::peer::Peer;
use crate::plan::{FaultPlan, MS, SECOND, Weather};
use crate::plan_call::{CallPlan, Mix};
use crate::relay::{backend_addr, caller_addr};
use crate::rng::Rng;
use crate::scenario::Outcome;
use crate::seals::{KEYS, Keys};
use crate::server::{Leave, Server, ServerManner};
use crate::trace::Trace;
use crate::world::{Birth, Make, World};

/// The service that the far node has.
const FAR: &str = "inner";
/// The callers' node, and the servers'.
const NODES: [usize; 2] = [0, 1];
/// Of each: servers, and addresses of the far node.
const SERVERS_MAX: usize = 3;

/// What both nodes are made for.
struct App {
    /// Where the far node listens.
    wires: Vec<Addr>,
    endpoints: Vec<Addr>,
    is_compiled: bool,
    /// Elements may want the one message of a side before they have their say.
    reads_whole: bool,
}

impl App {
    /// A node's program; each has parts that are drawn.
    fn program(&self, rng: &mut Rng, node: usize) -> Result<Arc<Program>, String> {
        let source = if node == 0 { self.near(rng) } else { self.far(rng) };
        let compiled = lang::compile("sim.adn", &source, &lang::NoFiles, &lang::Overrides::default());
        let mut compiled = compiled.map_err(|e| format!("{source}{e:?}"))?;
        let mut jit = if self.is_compiled { jit::Jit::new() } else { jit::Jit::interpreting() };
        compiled.link(&mut lang::state::Store::seeded(1, 0), &mut jit);
        Ok(Arc::new(compiled.program))
    }

    fn near(&self, rng: &mut Rng) -> String {
        let zip = rng.pick(&["", "Compression(gzip, 100) - ", "Compression(deflate, min: 0) - "]);
        let each = self.reader(rng).map_or(String::new(), |element| format!("{element} - "));
        let unary = self.unary();
        let (wires, other) = (list(&self.wires), other(rng, "frontend", "LoadBalancing - Encryption"));
        format!(
            "service frontend {{ from: [\"10.1.0.0/16\"] }}\nservice catalog {{ endpoints: [{wires}]{unary} }}\n\
             {other}frontend -> catalog: LoadBalancing - Logging - {each}{zip}Encryption(\"k\")\n{READERS}"
        )
    }

    fn far(&self, rng: &mut Rng) -> String {
        let unary = self.unary();
        let (listed, other) = (list(&self.endpoints), other(rng, "near", "LoadBalancing - Decryption"));
        let zip = rng.pick(&["", "", " - Compression(min: 100)", " - Plain"]);
        let each = self.reader(rng).map_or(String::new(), |element| format!(" - {element}"));
        format!(
            "service near {{ from: [\"10.3.0.0/16\"] }}\nservice {FAR} {{ endpoints: [{listed}]{unary} }}\n\
             {other}near -> {FAR}: Decryption(\"k\"){each}{zip} - LoadBalancing\n\
             element Plain {{ request {{ decompress() }} }}\n{READERS}"
        )
    }

    fn unary(&self) -> &'static str {
        if self.reads_whole { ", unary: true" } else { "" }
    }

    /// An element that sees messages, if there is one.
    fn reader(&self, rng: &mut Rng) -> Option<&'static str> {
        if self.reads_whole { rng.pick(&[None, Some("Whole")]) } else { rng.pick(&[None, Some("Each")]) }
    }
}

/// Sometimes a rule with another key, before the one that has calls: a key's number is its program's own.
fn other(rng: &mut Rng, from: &str, chain: &str) -> String {
    let key = KEYS[1];
    let rule =
        format!("service other {{ endpoints: [\"10.9.0.9:1\"] }}\n{from} -> other: {chain}(\"{key}\")\n");
    if rng.chance(500) { rule } else { String::new() }
}

const READERS: &str = "element Each { request message { observe(\"to\", call.size) } \
                       response message { observe(\"back\", call.size) } }\n\
                       element Whole { request { observe(\"to\", call.size) } \
                       response { observe(\"back\", call.size) } }\n";

fn list(addrs: &[Addr]) -> String {
    addrs.iter().map(|a| format!("\"{a}\"")).collect::<Vec<_>>().join(", ")
}

/// What happens to the nodes beside their calls.
#[derive(Clone, Copy, Debug, Default)]
struct Trouble {
    /// A node drains while calls run.
    near_drains: bool,
    far_drains: bool,
    /// The old key goes although messages sealed with it may be under way.
    is_hasty: bool,
    /// Somebody on the wire harms envelopes and sends calls again.
    is_meddled: bool,
}

impl Trouble {
    /// Draws it, and has it happen.
    fn draw(rng: &mut Rng, world: &mut World, app: &mut App, foul: bool) -> Result<Self, String> {
        let mut trouble = Self::default();
        // While calls run: most take less than some ms, and come within as many, or within half a second.
        let (from, within) = (world.net.now, rng.pick(&[MS, 10 * MS, 100 * MS]));
        let at = |rng: &mut Rng| from + rng.below(within);
        if rng.chance(400) {
            for _ in 0..rng.size(1, 4) {
                for of in [&mut app.endpoints, &mut app.wires] {
                    if of.len() > 1 && rng.chance(300) {
                        of.remove(rng.size(0, of.len() - 1));
                    }
                }
                let (at, node) = (at(rng), rng.pick(&NODES));
                world.change(at, node, adoption(app.program(rng, node)?));
            }
        }
        if rng.chance(400) {
            trouble.is_hasty = foul && rng.chance(300);
            rotate(rng, world, within, trouble.is_hasty);
        }
        if rng.chance(200) {
            trouble.is_meddled = true;
            let permille = rng.pick(&[20, 200]);
            world.nodes.iter().for_each(|node| node.offload.meddler.borrow_mut().permille = permille);
        }
        if rng.chance(100) {
            trouble.near_drains = true;
            world.change(at(rng), 0, Deed::Drain);
        } else if rng.chance(100) {
            trouble.far_drains = true;
            let at = at(rng);
            world.change(at, 1, Deed::Drain);
            // Nobody listens there from then on.
            let wires = world.net.backends.iter_mut().skip(SERVERS_MAX);
            wires.for_each(|wire| wire.down.push((at, u64::MAX)));
        }
        Ok(trouble)
    }
}

/// From key 1 to key 2 as `docs/offload.md` has it: first every node opens with the new one, then each seals with it.
/// In haste, the old one goes before its last message has been opened.
fn rotate(rng: &mut Rng, world: &mut World, within: u64, is_hasty: bool) {
    let from = world.net.now;
    let mut times = [0; 6].map(|_| from + rng.below(within));
    times.sort_unstable();
    let steps = [(1, vec![1, 2]), (2, vec![1, 2]), (2, vec![2])];
    let steps = steps.into_iter().take(if is_hasty { 3 } else { 2 });
    for (times, (seals, opens)) in times.as_chunks::<2>().0.iter().zip(steps) {
        let first = rng.pick(&NODES);
        for (at, node) in times.iter().zip([first, 1 - first]) {
            world.change(*at, node, Deed::Keys(Keys { seals, opens: opens.clone() }));
        }
    }
}

/// Runs one seed.
pub(crate) fn run(seed: u64, trace: Trace, make: Make) -> Result<Outcome, String> {
    let mut rng = Rng::new(seed ^ 0x5ea1);
    let weather = if rng.chance(400) { Weather::Fair } else { Weather::Foul };
    let foul = weather == Weather::Foul;
    let mut plan = FaultPlan::draw(&mut rng, weather);
    if foul {
        // A wire that is not there keeps calls from all that may happen on it.
        plan.refuse_permille = rng.pick(&[0, 0, 0, 100]);
        plan.lost_permille = rng.pick(&[0, 0, 0, 50]);
    }
    let (conns, calls) = (rng.size(1, 4), rng.skewed(30));
    let budget = plan.bytes_max() / (conns * calls);
    let reads_whole = rng.chance(200);
    let unary = if reads_whole { 900 } else { 0 };
    let mix = Mix { reject: 0, delay: 0, unary, ..Mix::draw(&mut rng, (budget / 4).clamp(8, 1 << 18)) };
    let (limits, is_tight) = draw_limits(&mut rng, 150);
    let all = [0, 1, 2, 200, 201, 202].map(backend_addr);
    let [endpoints, wires] = [0, SERVERS_MAX].map(|from| all[from..from + rng.size(1, SERVERS_MAX)].to_vec());
    let mut app = App { wires, endpoints, is_compiled: seed.is_multiple_of(2), reads_whole };
    let setups = NODES.map(|node| {
        let mut setup = setup(app.program(&mut rng, node)?, limits, rng.word());
        setup.listeners[0].destination = (node == 1).then(|| FAR.into());
        Ok::<Setup, String>(setup)
    });
    let mut net = Net::new(rng.fork(2), plan, trace);
    net.backends = all.map(|addr| Backend { addr, down: Vec::new() }).into();
    let arrivals = Rc::default();
    let birth = birth(&mut rng, Rc::clone(&arrivals), foul);
    let [near, far] = setups;
    let mut world = World::new(net, near?, birth, make);
    world.join(far?, make);
    world.arrivals = arrivals;
    seat_callers(&mut world, &mut rng, &mix, conns, calls, foul, is_tight);
    bend_plans(&mut world, &mut rng, reads_whole);
    if rng.chance(200) {
        seat_intruder(&mut world, &mut rng, &mix);
    }
    let trouble = Trouble::draw(&mut rng, &mut world, &mut app, foul)?;
    let terms = Terms {
        is_fair: !foul,
        drains: trouble.near_drains,
        message_bytes_max: limits.message_bytes_max as usize,
        is_tight,
        streams_max: limits.streams_max,
        fault: None,
        waits: reads_whole,
        logs: true,
        small_ns_max: if is_tight { u64::MAX } else { 10 * SECOND },
        retry_bytes_max: limits.retry_bytes_max.into(),
        recodes: true,
        is_sealed: true,
        breaches: check_seals::breaches(trouble.is_hasty, trouble.is_meddled),
        far_drains: trouble.far_drains,
    };
    let end = world.net.now + 400 * SECOND;
    let told = |what| format!("{trouble:?} {weather:?} tight {is_tight}: {what}");
    world.run_callers(end).map_err(told)?;
    world.run_for(5 * SECOND).map_err(told)?;
    check_calls::all(&world, &terms, &Passages::default()).map_err(told)?;
    check_seals::all(&world, trouble.is_hasty).map_err(told)?;
    lines(&world).map_err(told)?;
    world.hang_up();
    world.run_for(5 * SECOND).map_err(told)?;
    check::quiet(&mut world).map_err(told)?;
    Ok(Outcome::of(&world))
}

/// What calls do besides, where nodes seal them.
fn bend_plans(world: &mut World, rng: &mut Rng, reads_whole: bool) {
    for call in &mut world.ledger.calls {
        // Here it is what calls end with over their seals.
        if call.plan.status == Status::UNAUTHENTICATED {
            call.plan.status = Status::PERMISSION_DENIED;
        }
        call.plan.names_itself = rng.chance(100);
        if !reads_whole && rng.chance(100) {
            (call.plan.waits, call.plan.early) = (true, Some(0));
        }
    }
}

/// Somebody calls the far node as if he were the near one, and seals nothing.
fn seat_intruder(world: &mut World, rng: &mut Rng, mix: &Mix) {
    let in_ns = rng.below(20 * MS);
    let start = world.net.now + in_ns;
    let mut todo = Vec::new();
    for _ in 0..rng.size(1, 5) {
        let mut plan = CallPlan::draw(rng, mix);
        plan.names_itself = rng.chance(500);
        let call = world.ledger.call(plan);
        world.ledger.calls[call].is_abuse = true;
        todo.push((start, call));
    }
    let manner = Manner { is_abuse: true, ..Manner::draw(rng, &[FAR.into()]) };
    let link = world.net.arrive_at(1, in_ns, ListenerId(0), caller_addr(3, 0));
    world.seat(link, Box::new(Client::new(manner, todo)), start, true);
}

type Arrivals = Rc<RefCell<Vec<Box<dyn Peer>>>>;

/// Servers; and wires to the far node, of which some are cut, and some lead elsewhere.
fn birth(rng: &mut Rng, arrivals: Arrivals, foul: bool) -> Birth {
    let leaves = match rng.below(5) {
        0 => vec![Leave::Drain(rng.size(1, 10))],
        1 if foul => {
            vec![Leave::Never, Leave::Drain(3), Leave::Away(rng.size(1, 10)), Leave::Reset(rng.size(1, 10))]
        }
        _ => vec![Leave::Never],
    };
    let (advertises, streams_max) = (rng.chance(500), rng.pick(&[1, 2, 10, 100, 1024]));
    let cuts = if foul { rng.pick(&[0, 0, 300, 700]) } else { 0 };
    let refusals = if foul { rng.pick(&[0, 0, 300]) } else { 0 };
    Box::new(move |backend, _, rng, _| {
        if backend >= SERVERS_MAX && rng.chance(refusals) {
            // Another node, with too much to do: what was sealed for it goes elsewhere.
            let manner = ServerManner::draw(rng, &[Leave::Never], false, 100);
            return Box::new(Server::new(ServerManner { refuses: true, ..manner }));
        }
        if backend >= SERVERS_MAX {
            let cut_after = rng.chance(cuts).then(|| 500 + rng.skewed(100_000));
            let (near, far) = join::pair(cut_after);
            arrivals.borrow_mut().push(Box::new(far));
            return Box::new(near);
        }
        Box::new(Server::new(ServerManner::draw(rng, &leaves, advertises, streams_max)))
    })
}

/// Every call that ended has a line at each node.
fn lines(world: &World) -> Result<(), String> {
    let lines = world.lines.borrow();
    for (at, node) in world.nodes.iter().enumerate() {
        let written = lines.iter().filter(|line| line.node == at).count() as u64;
        let ended = node.count("calls_ended");
        if written != ended {
            return Err(format!("node {at}: {ended} calls ended, {written} lines"));
        }
    }
    Ok(())
}
