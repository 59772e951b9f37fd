//! Scenario: the opaque relay. Byte streams through `Protocol::Tcp` listeners to one service.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use abi::{Addr, Endpoint, Program, Service};
use shard::{AccessWhen, Limits, Listener, ListenerId, Peer as PeerAddr, Protocol, Setup};

use wire::Instant;

use crate::check;
use crate::net::{Backend, Net};
use crate::opaque::{OpaquePeer, Size};
use crate::plan::{FaultPlan, MS, SECOND, Weather};
use crate::rng::Rng;
use crate::scenario::Outcome;
use crate::trace::Trace;
use crate::world::{Make, World};

/// An endpoint's address by number.
pub(crate) fn backend_addr(at: u16) -> Addr {
    Addr::Ip(SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 9, 0, 1)), 50_000 + at))
}

/// A caller's address by number.
pub(crate) fn caller_addr(net: u8, at: usize) -> PeerAddr {
    let ip = IpAddr::V4(Ipv4Addr::new(10, net, 0, 1));
    PeerAddr { addr: Some((ip, 20_000 + u16::try_from(at % 40_000).unwrap_or(0))), uid: None }
}

/// A service with `count` endpoints.
pub(crate) fn service(name: &str, endpoints: &[Addr]) -> Service {
    let endpoint =
        |addr: &Addr| Endpoint { addr: addr.clone(), weight: 1, zone: String::new(), labels: Vec::new() };
    Service {
        name: name.into(),
        hosts: vec![name.into()],
        from: Vec::new(),
        endpoints: endpoints.iter().map(endpoint).collect(),
        via: None,
        is_destination: !endpoints.is_empty(),
    }
}

fn setup(seed: u64, endpoints: &[Addr], limits: Limits, protocol: Protocol) -> Setup {
    let program = Program {
        file: "sim.adn".into(),
        services: vec![service("frontend", &[]), service("catalog", endpoints)],
        routes: abi::Routes::default(),
        chains: Vec::new(),
        sinks: Vec::new(),
        metrics: Vec::new(),
        keys: Vec::new(),
    };
    let listener =
        Listener { name: "relay".into(), unix_path: None, destination: Some("catalog".into()), protocol };
    Setup {
        shard: 0,
        program: Arc::new(program),
        sinks: Vec::new(),
        ports: Vec::new(),
        listeners: vec![listener],
        limits,
        seed,
        clock: || Instant(0),
        access: AccessWhen::Never,
    }
}

/// Runs one seed.
pub(crate) fn run(seed: u64, trace: Trace, make: Make) -> Result<Outcome, String> {
    let mut rng = Rng::new(seed);
    let weather = if rng.chance(500) { Weather::Fair } else { Weather::Foul };
    let mut plan = FaultPlan::draw(&mut rng, weather);
    let is_large = rng.chance(80);
    if is_large {
        plan.chunk_bytes_max = plan.chunk_bytes_max.max(16_384);
        plan.capacity_bytes_min = plan.capacity_bytes_min.max(65_536);
    }
    let bytes_max = if is_large { 4 << 20 } else { rng.skewed(plan.bytes_max()) };
    let size = Size { bytes_max, weather };
    let endpoints: Vec<Addr> = (0..u16::try_from(rng.size(1, 3)).unwrap_or(1)).map(backend_addr).collect();
    let mut limits = Limits::DEFAULT;
    limits.tx_bytes_max = rng.pick(&[4 << 10, 64 << 10, 256 << 10]);
    let protocol = rng.pick(&[Protocol::Tcp, Protocol::Tcp, Protocol::Auto]);
    let setup = setup(rng.word(), &endpoints, limits, protocol);
    let mut net = Net::new(rng.fork(2), plan, trace);
    net.backends = endpoints.iter().map(|addr| Backend { addr: addr.clone(), down: Vec::new() }).collect();
    if weather == Weather::Foul && rng.chance(300) {
        let from = net.now + rng.below(10 * MS);
        net.backends[0].down.push((from, from + rng.below(SECOND)));
    }
    let birth = Box::new(move |_: usize, link, rng: &mut Rng, ledger: &mut _| {
        let peer: Box<dyn crate::peer::Peer> = Box::new(OpaquePeer::new(rng, ledger, link, false, &size));
        peer
    });
    let mut world = World::new(net, setup, birth, make);
    let spread = rng.pick(&[0, 100_000, 20 * MS]);
    for at in 0..rng.size(1, if is_large { 4 } else { 24 }) {
        let in_ns = rng.below(spread);
        let link = world.net.arrive(in_ns, ListenerId(0), caller_addr(1, at));
        let peer = OpaquePeer::new(&mut rng, &mut world.ledger, link, true, &size);
        let wake_at = world.net.now + in_ns;
        world.seat(link, Box::new(peer), wake_at, true);
    }
    let end = world.net.now + 120 * SECOND;
    world.run_callers(end)?;
    // Whoever was lost without a word is noticed by then.
    world.run_for(100 * SECOND)?;
    check::relay(&world)?;
    check::quiet(&mut world)?;
    Ok(Outcome::of(&world))
}

#[cfg(test)]
mod tests;
