//! Scenario: hostile callers and a hostile backend beside honest callers. In fair weather the honest
//! calls must end as if nobody else were there, whatever the hostile ones do.

use std::sync::Arc;

use shard::{Limits, ListenerId};

use crate::calls::{App, adoption, draw_rule, seat_callers, setup};
use crate::chain::Passages;
use crate::check;
use crate::check_calls::{self, Terms};
use crate::client::{Client, Manner};
use crate::hostile::{Hostile, Trick};
use crate::net::{Backend, Net};
use crate::peer::Peer;
use crate::plan::{FaultPlan, MS, SECOND, Weather};
use crate::plan_call::{CallPlan, Cancel, Kind, Mix};
use crate::relay::{backend_addr, caller_addr};
use crate::rng::Rng;
use crate::scenario::Outcome;
use crate::server::{Leave, Server, ServerManner};
use crate::trace::Trace;
use crate::world::{Make, World};

/// What the abusers of a run do, besides tricks of the protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Abuse {
    /// Opens and resets calls.
    RapidCancel,
    /// Never gives window back and never leaves by itself.
    Hoard,
    /// Begins messages and does not end them.
    Starve,
    /// Opens calls and drops the whole connection.
    Churn,
    /// Asks for deadlines that cannot be met.
    Hurry,
    /// Calls the hostile backend.
    BadCompany,
    /// Breaks the protocol.
    Trick,
}

fn abuser(world: &mut World, rng: &mut Rng, abuse: Abuse, at: usize, bytes_max: usize, is_strict: bool) {
    // One after another, so that the first few use up their caller's budget.
    let in_ns = if is_strict { at as u64 * 40 * MS } else { rng.below(20 * MS) };
    let start = world.net.now + in_ns;
    let link = world.net.arrive(in_ns, ListenerId(0), caller_addr(2, at));
    if abuse == Abuse::Trick {
        let trick = Trick::draw(rng);
        let authority = if rng.chance(500) { "catalog" } else { "evil" };
        return world.seat(link, Box::new(Hostile::new(rng, trick, true, authority)), start, true);
    }
    let mut manner = Manner::draw(rng, &["catalog".into(), "evil".into()]);
    manner.is_abuse = true;
    manner.abort_after_ns = Some(rng.pick(&[20 * MS, SECOND, 10 * SECOND]));
    let mix = Mix { bytes_max, ..Mix::PLAIN };
    let mut todo = Vec::new();
    let calls = if is_strict { 15 } else { rng.skewed(200) };
    for _ in 0..calls {
        let mut plan = CallPlan::draw(rng, &mix);
        match abuse {
            Abuse::RapidCancel => {
                plan.cancel = if rng.chance(800) { Cancel::AtOnce } else { Cancel::AfterNs(50_000) }
            }
            Abuse::Hoard => {
                plan.kind = Kind::ServerStream;
                plan.response = vec![bytes_max; 8];
                manner.hoards = true;
            }
            Abuse::Starve => {
                plan.request = vec![bytes_max; 3];
                plan.gap_ns = 100 * SECOND;
            }
            Abuse::Churn => {
                plan.server_delay_ns = SECOND;
                manner.abort_after_ns = Some(12 * MS);
            }
            Abuse::Hurry => {
                plan.server_delay_ns = SECOND;
                plan.deadline_ns = Some(rng.between(1, 3) * MS);
            }
            Abuse::BadCompany => plan.to = 1,
            Abuse::Trick => {}
        }
        let call = world.ledger.call(plan);
        world.ledger.calls[call].is_abuse = true;
        let spread = if is_strict { 3 * MS } else { 50 * MS };
        todo.push((start + rng.below(spread), call));
    }
    todo.sort_unstable();
    world.seat(link, Box::new(Client::new(manner, todo)), start, true);
}

/// Runs one seed.
pub(crate) fn run(seed: u64, trace: Trace, make: Make) -> Result<Outcome, String> {
    let mut rng = Rng::new(seed);
    let weather = if rng.chance(250) { Weather::Foul } else { Weather::Fair };
    let foul = weather == Weather::Foul;
    let mut plan = FaultPlan::draw(&mut rng, weather);
    // Tiny steps have their own scenario; here there is much to do.
    plan.chunk_bytes_max = plan.chunk_bytes_max.max(1460);
    plan.capacity_bytes_min = plan.capacity_bytes_min.max(16_384);
    let conns = rng.size(1, 3);
    let calls = rng.skewed(20);
    let bytes_max = (plan.bytes_max() / (conns * calls)).clamp(8, 1 << 18);
    let mix = Mix { cancel: 0, ..Mix::draw(&mut rng, bytes_max) };
    // The honest endpoints protect themselves from resets: nobody may make the shard break their patience.
    let is_strict = !foul && rng.chance(300);
    let mix = if is_strict { Mix { deadline: 0, early: 0, failure: 0, server_reset: 0, ..mix } } else { mix };
    let mut limits = Limits::DEFAULT;
    limits.caller_resets_per_second = 20;
    limits.stream_window_bytes = rng.pick(&[16 << 10, 64 << 10]);
    limits.stream_idle_ns = 20 * SECOND;
    limits.message_bytes_max = 4 << 20;
    let app = App {
        endpoints: (0..u16::try_from(rng.size(1, 3)).unwrap_or(1)).map(backend_addr).collect(),
        evil: vec![backend_addr(100)],
        compress: rng.chance(300).then_some(abi::Encoding::Gzip),
        min_bytes: 100,
        picks: rng.chance(700),
        rule: rng.chance(400).then(|| draw_rule(&mut rng)),
        is_compiled: seed.is_multiple_of(2),
        gates: None,
    };
    let mix = if app.rule.is_some() { Mix { reject: 0, delay: 0, ..mix } } else { mix };
    let passages = Arc::new(Passages::default());
    let setup = setup(app.program(&passages)?, limits, rng.word());
    let mut net = Net::new(rng.fork(2), plan, trace);
    let all = app.endpoints.iter().chain(&app.evil);
    net.backends = all.map(|addr| Backend { addr: addr.clone(), down: Vec::new() }).collect();
    let evil_at = app.endpoints.len();
    let advertises = rng.chance(500);
    let birth = Box::new(move |backend: usize, _, rng: &mut Rng, _: &mut _| {
        if backend == evil_at {
            let trick = Trick::draw(rng);
            return Box::new(Hostile::new(rng, trick, false, "")) as Box<dyn Peer>;
        }
        let mut manner = ServerManner::draw(rng, &[Leave::Never], advertises, 1024);
        manner.config.stream_window_bytes = manner.config.stream_window_bytes.max(16_384);
        if is_strict {
            manner.resets_max = 60;
        }
        Box::new(Server::new(manner))
    });
    let mut world = World::new(net, setup, birth, make);
    seat_callers(&mut world, &mut rng, &mix, conns, calls, foul, false);
    let kinds = if is_strict {
        vec![Abuse::RapidCancel, Abuse::Churn, Abuse::Hurry]
    } else {
        vec![Abuse::RapidCancel, Abuse::Hoard, Abuse::Starve, Abuse::BadCompany, Abuse::Trick, Abuse::Trick]
    };
    for at in 0..if is_strict { 20 } else { rng.skewed(12) } {
        let abuse = rng.pick(&kinds);
        abuser(&mut world, &mut rng, abuse, at, bytes_max, is_strict);
    }
    if rng.chance(200) {
        let at = world.net.now + rng.below(100 * MS);
        world.change(at, 0, adoption(app.program(&passages)?));
    }
    let terms = Terms {
        is_fair: !foul,
        drains: false,
        message_bytes_max: limits.message_bytes_max as usize,
        is_tight: false,
        streams_max: limits.streams_max,
        fault: app.fault(),
        waits: false,
        logs: app.logs(),
        // A slow link full of a hoarder's bytes is slow for all who share it, but not for ever.
        small_ns_max: 30 * SECOND,
        retry_bytes_max: limits.retry_bytes_max.into(),
        recodes: app.compresses(),
        is_sealed: false,
        breaches: &[],
        far_drains: false,
    };
    let end = world.net.now + 400 * SECOND;
    world.run_callers(end)?;
    world.run_for(60 * SECOND)?;
    check_calls::all(&world, &terms, &passages)?;
    check::quiet(&mut world)?;
    Ok(Outcome::of(&world))
}
