//! Tests of the gRPC peers against each other, with nothing but a byte relay between them.

use super::*;
use crate::ledger::{AttemptEnd, End};
use crate::mini::{BUG, Bug, mini};
use crate::plan_call::Cancel;
use wire::h2::Reason;

fn direct(seed: u64, prints: bool) -> Result<(), String> {
    BUG.set(Bug::None);
    let mut rng = Rng::new(seed);
    let plan = FaultPlan::draw(&mut rng, Weather::Fair);
    let calls = rng.skewed(20);
    let bytes_max = (plan.bytes_max() / calls / 4).max(8);
    let mix = Mix { refusal: 0, reject: 0, delay: 0, deadline: 0, ..Mix::draw(&mut rng, bytes_max) };
    let app = App {
        endpoints: vec![backend_addr(0)],
        evil: Vec::new(),
        compress: None,
        min_bytes: 0,
        picks: false,
        rule: None,
        is_compiled: false,
        gates: None,
    };
    let passages = Arc::new(Passages::default());
    let mut program = Arc::into_inner(app.program(&passages).unwrap()).unwrap();
    program.services.swap(1, 2);
    let setup = setup(Arc::new(program), Limits::DEFAULT, 1);
    let mut net = Net::new(rng.fork(2), plan, Trace::new(prints));
    net.backends = vec![Backend { addr: backend_addr(0), down: Vec::new() }];
    let streams_max = rng.pick(&[1, 5, 1024]);
    let birth = Box::new(move |_: usize, _, rng: &mut Rng, _: &mut _| {
        let manner = ServerManner::draw(rng, &[Leave::Never], true, streams_max);
        Box::new(Server::new(manner)) as Box<dyn Peer>
    });
    let mut world = World::new(net, setup, birth, mini);
    seat_callers(&mut world, &mut rng, &mix, 3, calls, false, false);
    let end = world.net.now + 300 * SECOND;
    world.run_callers(end)?;
    world.run_for(SECOND)?;
    for (number, call) in world.ledger.calls.iter().enumerate() {
        // Sent before the server's SETTINGS had come.
        if call.attempts.is_empty() && matches!(call.end, Some((_, End::Reset(Reason::REFUSED_STREAM)))) {
            continue;
        }
        let wanted = match (call.end, call.plan.server_reset) {
            (Some((_, End::Cancelled)), _) if call.plan.cancel != Cancel::Never => continue,
            (_, Some((_, reason))) => End::Reset(reason),
            _ => End::Status(call.plan.status),
        };
        if call.end.map(|(_, end)| end) != Some(wanted) {
            return Err(format!("call {number}: {:?} instead of {wanted:?}: {call:?}", call.end));
        }
        let attempt = &call.attempts[0];
        if wanted == End::Status(abi::Status::OK) && !matches!(attempt.end, Some((_, AttemptEnd::Answered))) {
            return Err(format!("call {number}: {call:?}"));
        }
        if matches!(wanted, End::Status(_)) && call.messages != call.plan.response.len() {
            return Err(format!("call {number}: {} messages: {call:?}", call.messages));
        }
    }
    Ok(())
}

#[test]
fn callers_and_servers_agree_over_a_byte_relay() {
    for seed in 0..150 {
        if let Err(what) = direct(seed, false) {
            panic!("seed {seed}: {what}");
        }
    }
}
