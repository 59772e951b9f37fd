//! Scenario: gRPC calls through two nodes that seal messages between them. One shard is both: what it sends to
//! the far node comes back to it over a second listener.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use abi::{Addr, Program};
use shard::{Limits, Listener, Protocol};

use crate::calls::{CHAIN_SINK, seat_callers, setup};
use crate::chain::Passages;
use crate::check;
use crate::check_calls::{self, Terms};
use crate::join;
use crate::net::{Backend, Net};
use crate::peer::Peer;
use crate::plan::{FaultPlan, SECOND, Weather};
use crate::plan_call::Mix;
use crate::relay::backend_addr;
use crate::rng::Rng;
use crate::scenario::Outcome;
use crate::server::{Leave, Server, ServerManner};
use crate::trace::Trace;
use crate::world::{Make, World};

/// The service that the far node has.
pub(crate) const FAR: &str = "inner";

fn program(
    rng: &mut Rng,
    wire: &Addr,
    endpoints: &[Addr],
    is_compiled: bool,
) -> Result<Arc<Program>, String> {
    let listed = endpoints.iter().map(|a| format!("\"{a}\"")).collect::<Vec<_>>().join(", ");
    let zip = rng.pick(&["", "Compression(gzip, 100) - ", "Compression(deflate, min: 0) - "]);
    let far_zip = rng.pick(&["", "", " - Compression(min: 100)", " - Plain"]);
    let near = rng.pick(&["", "Each - "]);
    let far = rng.pick(&["", " - Each"]);
    let source = format!(
        "service frontend {{ from: [\"10.1.0.0/16\"] }}\nservice near {{ from: [\"10.3.0.0/16\"] }}\n\
         service catalog {{ endpoints: [\"{wire}\"] }}\nservice {FAR} {{ endpoints: [{listed}] }}\n\
         frontend -> catalog: LoadBalancing - Logging - {near}{zip}Encryption(\"k\")\n\
         near -> {FAR}: Decryption(\"k\"){far}{far_zip} - LoadBalancing\n\
         element Plain {{ request {{ decompress() }} }}\n\
         element Each {{ request message {{ observe(\"to\", call.size) }} response message {{ observe(\"back\", call.size) }} }}\n"
    );
    let compiled = lang::compile("sim.adn", &source, &lang::NoFiles, &lang::Overrides::default());
    let mut compiled = compiled.map_err(|e| format!("{source}{e:?}"))?;
    let mut jit = if is_compiled { jit::Jit::new() } else { jit::Jit::interpreting() };
    compiled.link(&mut lang::state::Store::seeded(1, 0), &mut jit);
    Ok(Arc::new(compiled.program))
}

/// Runs one seed.
pub(crate) fn run(seed: u64, trace: Trace, make: Make) -> Result<Outcome, String> {
    let mut rng = Rng::new(seed ^ 0x5ea1);
    let plan = FaultPlan::draw(&mut rng, Weather::Fair);
    let (conns, calls) = (rng.size(1, 4), rng.skewed(30));
    let budget = plan.bytes_max() / (conns * calls);
    let mix = Mix { reject: 0, delay: 0, ..Mix::draw(&mut rng, (budget / 4).clamp(8, 1 << 18)) };
    let mut limits = Limits::DEFAULT;
    limits.streams_max = rng.pick(&[3, 100, 1024]);
    limits.stream_window_bytes = rng.pick(&[1 << 10, 16 << 10, 64 << 10]);
    limits.tx_bytes_max = rng.pick(&[4 << 10, 64 << 10, 256 << 10]);
    limits.retry_bytes_max = rng.pick(&[100, 4 << 10, 64 << 10]);
    limits.message_bytes_max = rng.pick(&[1 << 10, 64 << 10, 4 << 20]);
    let endpoints: Vec<Addr> = (0..u16::try_from(rng.size(1, 3)).unwrap_or(1)).map(backend_addr).collect();
    let wire = backend_addr(200);
    let program = program(&mut rng, &wire, &endpoints, seed.is_multiple_of(2))?;
    let mut setup = setup(program, limits, rng.word());
    setup.listeners.push(Listener {
        name: "fabric".into(),
        unix_path: None,
        destination: Some(FAR.into()),
        protocol: Protocol::H2,
    });
    let mut net = Net::new(rng.fork(2), plan, trace);
    let places = endpoints.iter().chain([&wire]);
    net.backends = places.map(|addr| Backend { addr: addr.clone(), down: Vec::new() }).collect();
    let wire_at = endpoints.len();
    let leaves = if rng.chance(200) { vec![Leave::Drain(rng.size(1, 10))] } else { vec![Leave::Never] };
    let (advertises, streams_max) = (rng.chance(500), rng.pick(&[1, 2, 10, 100, 1024]));
    let arrivals = Rc::new(RefCell::new(Vec::new()));
    let arriving = Rc::clone(&arrivals);
    let birth = Box::new(move |backend: usize, _, rng: &mut Rng, _: &mut _| {
        if backend == wire_at {
            let (near, far) = join::pair();
            let far: Box<dyn Peer> = Box::new(far);
            arriving.borrow_mut().push(far);
            return Box::new(near) as Box<dyn Peer>;
        }
        Box::new(Server::new(ServerManner::draw(rng, &leaves, advertises, streams_max)))
    });
    let mut world = World::new(net, setup, birth, make);
    world.arrivals = arrivals;
    seat_callers(&mut world, &mut rng, &mix, conns, calls, false, false);
    let terms = Terms {
        is_fair: true,
        drains: false,
        message_bytes_max: limits.message_bytes_max as usize,
        is_tight: false,
        streams_max: limits.streams_max,
        fault: None,
        waits: false,
        logs: true,
        small_ns_max: 10 * SECOND,
        retry_bytes_max: limits.retry_bytes_max.into(),
        recodes: true,
        is_sealed: true,
    };
    let end = world.net.now + 400 * SECOND;
    world.run_callers(end)?;
    world.run_for(5 * SECOND)?;
    check_calls::all(&world, &terms, &Passages::default())?;
    seals(&world)?;
    world.hang_up();
    world.run_for(5 * SECOND)?;
    check::quiet(&mut world)?;
    Ok(Outcome::of(&world))
}

/// Nobody meddled: no seal was broken; and none was left out.
fn seals(world: &World) -> Result<(), String> {
    let counters = world.shard.snapshot().counters;
    let broken = counters.iter().find(|(name, _, value)| {
        (name.starts_with("calls_seal_") || *name == "calls_unsealed") && *value > 0
    });
    if let Some((name, _, value)) = broken {
        return Err(format!("{name} is {value}, and nobody broke a seal"));
    }
    let count = |wanted| counters.iter().find(|(n, ..)| *n == wanted).map_or(0, |(_, _, value)| *value);
    let (sealed, opened) = (count("messages_sealed"), count("messages_opened"));
    let arrived: usize = world.ledger.calls.iter().flat_map(|c| &c.attempts).map(|a| a.messages).sum();
    if opened > sealed || opened == 0 && arrived > 0 {
        return Err(format!("{sealed} messages sealed, {opened} opened, {arrived} at servers"));
    }
    let lines = world.lines.borrow();
    match lines.iter().find(|line| line.sink != CHAIN_SINK && line.destination != FAR) {
        Some(line) => Err(format!("a line of no chain: {line:?}")),
        None => Ok(()),
    }
}
