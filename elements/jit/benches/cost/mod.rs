//! One chain three ways: written by hand, compiled, interpreted; and the empty chain.
#![allow(clippy::panic, reason = "a measurement that cannot be made fails")]

pub(crate) mod firewall;
mod hand;
mod view;

use std::sync::Arc;

use abi::{Chain, Entry, Verdict};
use hand::Hand;
use lang::state::Store;
use lang::{Backend, Interpreter, NoFiles, Overrides};
use towpath_jit::Jit;
pub(crate) use view::Slim;

/// Five elements that look at headers only: a firewall, a change of metadata, a fault, a deadline, a log.
const FIVE: &str = r#"
    service frontend
    service catalog { endpoints: ["127.0.0.1:1"] }
    frontend -> catalog: Deny("x-tenant", ["evil", "worse", "mallory"]) - Stamp("x-env", "production")
        - FaultInjection(1%) - Limit(5s) - Logging
    element Deny(header: string, list: list<string>) {
        request { if call.metadata[header] in list { reject(PERMISSION_DENIED, "denied") } }
    }
    element Stamp(header: string, value: string) { request { call.metadata[header] = value } }
    element Limit(limit: duration) { request { call.deadline = now() + limit } }
"#;

/// Which way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Way {
    Hand,
    Compiled,
    Interpreted,
    Empty,
    /// Compiled, for calls of one method with a message of 1 KiB that nobody looks at.
    Closed,
    /// The same with a firewall on a field of it.
    Firewall,
    /// As [`Self::Closed`].
    ClosedInterpreted,
    /// As [`Self::Firewall`].
    FirewallInterpreted,
}

impl Way {
    pub(crate) const ALL: [Self; 8] = [
        Self::Hand,
        Self::Compiled,
        Self::Interpreted,
        Self::Empty,
        Self::Closed,
        Self::Firewall,
        Self::ClosedInterpreted,
        Self::FirewallInterpreted,
    ];
    /// Those that look at headers only, and do the same.
    pub(crate) const HEADERS: [Self; 3] = [Self::Hand, Self::Compiled, Self::Interpreted];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Hand => "by hand",
            Self::Compiled => "compiled",
            Self::Interpreted => "interpreted",
            Self::Empty => "empty",
            Self::Closed | Self::ClosedInterpreted => "without a firewall",
            Self::Firewall | Self::FirewallInterpreted => "with it",
        }
    }

    /// A call for its chain.
    pub(crate) fn call(self) -> Slim {
        match self {
            Self::Hand | Self::Compiled | Self::Interpreted | Self::Empty => Slim::new(),
            _ => firewall::call("u-12345678", firewall::LONG[0].1),
        }
    }

    pub(crate) fn chain(self) -> Arc<dyn Chain> {
        let mut jit = Jit::new();
        match self {
            Self::Hand => Arc::new(Hand::new(fault_draws())),
            Self::Compiled => linked(FIVE, &mut jit),
            Self::Interpreted => linked(FIVE, &mut Interpreter),
            Self::Empty => {
                linked("service a\nservice b { endpoints: [\"127.0.0.1:1\"] }\na -> b: Null", &mut jit)
            }
            Self::Closed => firewall::chain(false, &mut jit),
            Self::Firewall => firewall::chain(true, &mut jit),
            Self::ClosedInterpreted => firewall::chain(false, &mut Interpreter),
            Self::FirewallInterpreted => firewall::chain(true, &mut Interpreter),
        }
    }
}

/// What `FaultInjection`'s draws are told apart by, so that it draws the same numbers by hand.
fn fault_draws() -> u32 {
    let compiled = lang::compile("cost.adn", FIVE, &NoFiles, &Overrides::default());
    let images = compiled.unwrap_or_else(|e| panic!("{e}")).images;
    let begins = images[0].place(Entry::Request).ops.iter().find_map(|op| match op {
        lang::vm::Op::Begin { element } => Some(*element),
        _ => None,
    });
    begins.unwrap_or(0)
}

/// How long it takes to make machine code of the five elements, without anything compiled before.
pub(crate) fn compiles(jit: &mut Jit) {
    linked(FIVE, jit);
}

/// 10,000 rules of 50 shapes, each with numbers of its own.
pub(crate) fn many_rules() -> String {
    let mut source = String::from("service a\nservice b { endpoints: [\"127.0.0.1:1\"] }\n");
    let links =
        ["Logging", "Compression", "FaultInjection(0.1)", "FaultInjection(1%, delay: 5ms)", "LoadBalancing"];
    for rule in 0..10_000_usize {
        // A shape is which links there are, and how often the first stands there.
        let shape = rule % 50;
        let mut chain = vec![format!("FaultInjection(0.{rule:05})"); 1 + shape / 32];
        chain.extend((0..5).filter(|bit| shape >> bit & 1 == 1).map(|bit| links[bit].to_owned()));
        source += &format!("a -> b.p.S/M{rule}: {}\n", chain.join(" - "));
    }
    source
}

pub(crate) fn linked(source: &str, backend: &mut dyn Backend) -> Arc<dyn Chain> {
    let mut compiled =
        lang::compile("cost.adn", source, &NoFiles, &Overrides::default()).unwrap_or_else(|e| panic!("{e}"));
    compiled.link(&mut Store::new(1), backend);
    compiled.program.chains[0].clone()
}

/// One passage: request, pick and response, as far as the chain has them. What it did is in the call.
pub(crate) fn passage(chain: &dyn Chain, call: &mut Slim, id: u64) -> Verdict {
    call.id = id;
    call.deadline = None;
    let plan = chain.plan();
    let (request, pick, response) = (plan.request, plan.pick, plan.response);
    let verdict = if request { chain.run(Entry::Request, 0, call) } else { Verdict::Forward };
    if pick && verdict == Verdict::Forward {
        chain.run(Entry::Pick, 0, call);
    }
    if response && verdict == Verdict::Forward {
        chain.run(Entry::Response, 0, call);
    }
    verdict
}

/// All that a passage did, to be the same by each way.
pub(crate) fn done(chain: &dyn Chain, id: u64) -> String {
    let mut call = Slim::new();
    let verdict = passage(chain, &mut call, id);
    let verdict = match verdict {
        Verdict::Reject(reject) => format!("{:?} {:?} {}", reject.status, reject.flag, reject.element),
        other => format!("{other:?}"),
    };
    let Slim { request, deadline, passed, sinks, flag, rejected, .. } = call;
    format!("{verdict} {request:?} {deadline:?} {passed} {sinks} {flag:?} {rejected}")
}
