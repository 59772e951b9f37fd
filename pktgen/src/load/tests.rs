//! The load against the backend, joined in memory.

use super::*;
use crate::testing::{Hand, Pipe, pair};
use crate::{Echo, EchoOptions, Target};
use abi::{Addr, Status};

fn config() -> LoadConfig {
    let addr = Addr::Ip(([127, 0, 0, 1], 1).into());
    LoadConfig {
        to: vec![Target { addr, authority: "catalog".to_owned() }],
        method: "/p.S/M".to_owned(),
        warm_up: Duration::from_millis(10),
        run: Duration::from_millis(1000),
        drain: Duration::from_millis(100),
        ..LoadConfig::default()
    }
}

struct Scene {
    load: Load<Pipe>,
    echo: Echo<Pipe>,
    hand: Hand,
}

fn scene(config: LoadConfig, options: EchoOptions) -> Scene {
    let (client, server, hand) = pair();
    let load = Load::new(client, config, Arc::new(Live::new())).unwrap();
    Scene { load, echo: Echo::new(server, options), hand }
}

impl Scene {
    /// Lets both work, time passing by `step` a turn, until the load is done.
    fn run(&mut self, step: Duration) -> Summary {
        for _ in 0..200_000 {
            if self.load.is_done() {
                return self.load.summary();
            }
            self.load.turn();
            self.echo.turn();
            self.hand.pass(step);
        }
        panic!("the load did not end")
    }
}

#[test]
fn closed_loop_counts_every_call_once_and_leaves_the_warm_up_out() {
    let mut scene =
        scene(LoadConfig { conns: 3, pace: Pace::Closed { streams: 5 }, ..config() }, EchoOptions::default());
    let summary = scene.run(Duration::from_millis(1));
    let seen = &summary.seen;
    assert!(seen.ok() > 1000 && seen.failed() == 0, "{}", summary.text());
    assert!(seen.uncounted_calls > 0);
    assert_eq!(seen.elapsed_ns, 1_000_000_000);
    assert_eq!(seen.latency.count(), seen.calls());
    let answered = scene.echo.methods();
    assert_eq!(answered, [("/p.S/M".to_owned(), seen.calls() + seen.uncounted_calls)]);
    assert!(summary.samples.len() >= 9, "one in 100 ms");
    let sampled: f64 = summary.samples.iter().map(|s| s.calls_per_s * 0.1).sum();
    assert!((sampled - seen.calls() as f64).abs() < seen.calls() as f64 * 0.05);
}

#[test]
fn messages_larger_than_windows_and_pipes_arrive_whole() {
    let large =
        LoadConfig { warm_up: Duration::ZERO, message_bytes: 700_000, calls_max: Some(20), ..config() };
    let mut scene = scene(LoadConfig { pace: Pace::Closed { streams: 3 }, ..large }, EchoOptions::default());
    let summary = scene.run(Duration::from_micros(10));
    assert!(summary.seen.ok() >= 20 && summary.seen.failed() == 0, "{}", summary.text());
    assert!(summary.seen.rx_bytes > 18 * 700_000);
}

#[test]
fn open_loop_measures_from_the_time_a_call_was_due() {
    let mut scene =
        scene(LoadConfig { pace: Pace::Open { calls_per_s: 1000.0 }, ..config() }, EchoOptions::default());
    // The backend sleeps for 200 ms in the middle; 200 calls are due meanwhile.
    let mut turns = 0;
    while !scene.load.is_done() {
        scene.load.turn();
        if !(500..700).contains(&turns) {
            scene.echo.turn();
        }
        scene.hand.pass(Duration::from_millis(1));
        turns += 1;
        assert!(turns < 5000, "the load did not end");
    }
    let seen = scene.load.summary().seen;
    assert_eq!((seen.ok(), seen.failed()), (1000, 0), "as many as were due, no more, no fewer");
    assert!(seen.latency.max_ns() >= 199_000_000);
    let half_of_stall = seen.latency.quantile_ns(0.9);
    assert!((90_000_000..110_000_000).contains(&half_of_stall), "a tenth waited 100 ms: {half_of_stall}");
}

#[test]
fn what_was_due_and_never_answered_is_in_the_figures() {
    let mut scene = scene(
        LoadConfig { pace: Pace::Open { calls_per_s: 1000.0 }, ..config() },
        EchoOptions { latency: Duration::from_secs(3600), ..EchoOptions::default() },
    );
    let summary = scene.run(Duration::from_millis(1));
    let seen = &summary.seen;
    assert_eq!((seen.ok(), seen.unanswered + seen.unsent), (0, 1000), "{}", summary.text());
    assert!(seen.latency.quantile_ns(0.5) > 400_000_000, "they had waited since they were due");
    assert!(summary.is_failure());
}

#[test]
fn statuses_and_delays_of_the_backend_are_seen() {
    let options = EchoOptions {
        status: Status::UNAVAILABLE,
        message: "away: 50 %".to_owned(),
        latency: Duration::from_millis(20),
        ..EchoOptions::default()
    };
    let summary = scene(config(), options).run(Duration::from_millis(1));
    assert!(summary.seen.ok() == 0 && summary.seen.statuses[14] > 20, "{}", summary.text());
    assert!(summary.seen.latency.min_ns() >= 20_000_000);
    assert_eq!(summary.messages, [(Status::UNAVAILABLE, "away: 50 %".to_owned())]);
    assert!(summary.is_failure());
}

#[test]
fn a_large_answer_to_a_small_call() {
    let options = EchoOptions { answer_bytes: Some(3 << 20), ..EchoOptions::default() };
    let summary = scene(LoadConfig { warm_up: Duration::ZERO, calls_max: Some(3), ..config() }, options)
        .run(Duration::from_micros(100));
    assert!(summary.seen.ok() >= 3 && summary.seen.rx_bytes > 8 << 20, "{}", summary.text());
}

#[test]
fn deadlines_are_kept_by_the_load_itself() {
    let options = EchoOptions { latency: Duration::from_millis(500), ..EchoOptions::default() };
    let timeout = Some(Duration::from_millis(30));
    let summary = scene(LoadConfig { timeout, ..config() }, options).run(Duration::from_millis(1));
    assert!(summary.seen.statuses[4] >= 30 && summary.seen.ok() == 0, "{}", summary.text());
    assert!(summary.seen.latency.max_ns() <= 32_000_000);
}

#[test]
fn broken_connections_are_opened_again() {
    let mut scene = scene(LoadConfig { conns: 2, ..config() }, EchoOptions::default());
    for turn in 0..3000 {
        scene.load.turn();
        scene.echo.turn();
        scene.hand.pass(Duration::from_millis(1));
        if turn == 500 {
            scene.hand.break_all();
        }
    }
    let summary = scene.load.summary();
    assert!(scene.load.is_done());
    assert!(summary.seen.statuses[14] >= 1, "those under way");
    assert!(summary.seen.ok() > 500, "{}", summary.text());
    assert!(
        summary.troubles.iter().any(|(what, n)| what.contains("reset") && *n == 2),
        "{:?}",
        summary.troubles
    );
}

#[test]
fn nobody_to_call_ends_at_once_with_the_reason() {
    let mut scene = scene(config(), EchoOptions::default());
    scene.hand.refuse(true);
    let summary = scene.run(Duration::from_millis(1));
    assert!(summary.is_failure() && summary.seen.elapsed_ns == 0);
    assert_eq!(summary.troubles, [("127.0.0.1:1: connection refused: nobody listens there".to_owned(), 1)]);
}

#[test]
fn patience_waits_for_a_target_to_come_up() {
    let mut scene =
        scene(LoadConfig { patience: Duration::from_secs(5), ..config() }, EchoOptions::default());
    scene.hand.refuse(true);
    for _ in 0..1000 {
        scene.load.turn();
        scene.echo.turn();
        scene.hand.pass(Duration::from_millis(1));
    }
    assert!(!scene.load.is_done());
    scene.hand.refuse(false);
    assert!(scene.run(Duration::from_millis(1)).seen.ok() > 0);
}

#[test]
fn another_protocol_is_named() {
    let mut scene = scene(config(), EchoOptions::default());
    scene.load.turn();
    scene.load.turn();
    scene.hand.say_to_clients(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    for _ in 0..50 {
        scene.load.turn();
    }
    let troubles = scene.load.summary().troubles;
    assert!(troubles.iter().any(|(what, _)| what.contains("answered in HTTP/1.1")), "{troubles:?}");
}

#[test]
fn idle_connections_stay_silent_and_a_stalled_reader_stops_reading() {
    let mut idle = scene(LoadConfig { conns: 7, hold: Hold::Idle, ..config() }, EchoOptions::default());
    let summary = idle.run(Duration::from_millis(1));
    assert_eq!((summary.seen.calls(), idle.echo.methods().len()), (0, 0));
    assert!(!summary.is_failure());
    let stall = LoadConfig { hold: Hold::Stall, pace: Pace::Closed { streams: 4 }, ..config() };
    let options = EchoOptions { answer_bytes: Some(16 << 20), ..EchoOptions::default() };
    let mut stalled = scene(stall, options);
    let summary = stalled.run(Duration::from_millis(1));
    assert_eq!(stalled.echo.methods(), [("/p.S/M".to_owned(), 4)]);
    assert_eq!(summary.seen.calls(), 0);
}
