//! Further standard elements, by what they do to a call.

use crate::common::{Mock, one, passage, run};
use abi::{Entry, Status, Verdict};

#[test]
fn delay_makes_a_share_of_the_calls_wait_and_go_on() {
    let (compiled, mut mock) = one("Delay(200ms)", "");
    assert_eq!(run(&compiled, Entry::Request, &mut mock), (Verdict::Forward, vec![200_000_000]));
    let (compiled, mock) = one("Delay(1s, 25%)", "");
    let waits = |id| {
        let mut call = mock.clone();
        call.id = id;
        run(&compiled, Entry::Request, &mut call).1.len()
    };
    let waited: usize = (0..4000).map(waits).sum();
    assert!((850..1150).contains(&waited), "{waited} of 4000");
}

#[test]
fn timeout_only_brings_the_deadline_nearer() {
    let (compiled, mock) = one("Timeout(match call.method { \"Export\" => 60s  _ => 500ms })", "");
    let deadline = |method: &str, before: Option<u64>| {
        let mut call = mock.clone();
        (call.method, call.deadline) = (method.to_owned(), before);
        assert_eq!(passage(&compiled, &mut call), Verdict::Forward);
        call.deadline.map(|at| at - call.now_ns)
    };
    assert_eq!(deadline("List", None), Some(500_000_000));
    assert_eq!(deadline("Export", None), Some(60_000_000_000));
    assert_eq!(deadline("Export", Some(mock.now_ns + 7)), Some(7));
}

#[test]
fn null_is_nothing_to_run() {
    let (compiled, mut mock) = one("Null", "");
    assert_eq!(passage(&compiled, &mut mock), Verdict::Forward);
    let plan = compiled.program.chains[0].plan();
    assert!(!plan.pick && !plan.response && plan.call_words == 0 && plan.elements.len() == 1);
}

#[test]
fn metrics_count_by_method_and_outcome_and_observe_the_latency() {
    let counted = |rule: &str, change: fn(&mut Mock)| {
        let (compiled, mut mock) = one(rule, "");
        change(&mut mock);
        passage(&compiled, &mut mock);
        let metric = |at: u16| compiled.program.metrics[usize::from(at)].as_str();
        assert!(mock.counts.iter().all(|(at, by)| (metric(*at), *by) == ("calls", 1)));
        assert_eq!(mock.counts.len(), mock.labels.len());
        let observed = mock.observed.iter().map(|(at, x)| (metric(*at).to_owned(), *x));
        (mock.labels.clone(), observed.collect::<Vec<_>>())
    };
    let list = |status: &str| format!("[(\"method\", Text(\"List\")), (\"status\", Text({status:?}))]");
    let took = |seconds| vec![("latency_seconds".to_owned(), seconds)];
    assert_eq!(counted("Metrics", |call| call.latency_ns = 1_500_000_000), (vec![list("OK")], took(1.5)));
    let export = |call: &mut Mock| {
        (call.method, call.latency_ns) = ("Export".into(), 2_000_000);
        call.status = u64::from(Status::UNAVAILABLE.code());
    };
    let labels = list("UNAVAILABLE").replace("List", "Export");
    assert_eq!(counted("Metrics", export), (vec![labels], took(0.002)));
    // Who is rejected before it is not seen; who is rejected behind it counts.
    assert_eq!(counted("FaultInjection(100%) - Metrics", |_| {}), (vec![], vec![]));
    assert_eq!(counted("Metrics - FaultInjection(100%)", |_| {}).0.len(), 1);
}
