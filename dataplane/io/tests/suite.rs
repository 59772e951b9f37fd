//! What every backend promises, run on each: io_uring, io_uring with the Linux 6.1 set, and epoll.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod rig;

use core::time::Duration;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::thread;

use abi::Addr;
use shard::{ListenerId, Transport, Via, Why};
use towpath_io::{Backend, Config, ListenerSpec, Listeners, Placement};

use rig::{Rig, loopback, pattern};

/// Runs each test on each backend.
macro_rules! on_each_backend {
    ($($test:ident,)*) => {
        mod epoll {
            $(#[test]
            fn $test() {
                super::$test(&super::rig::config(towpath_io::Backend::Epoll, false));
            })*
        }
        #[cfg(feature = "uring")]
        mod uring {
            $(#[test]
            fn $test() {
                if !super::rig::skip(towpath_io::Backend::Uring) {
                    super::$test(&super::rig::config(towpath_io::Backend::Uring, false));
                }
            })*
        }
        #[cfg(feature = "uring")]
        mod uring_baseline {
            $(#[test]
            fn $test() {
                if !super::rig::skip(towpath_io::Backend::Uring) {
                    super::$test(&super::rig::config(towpath_io::Backend::Uring, true));
                }
            })*
        }
    };
}

on_each_backend! {
    echoes_messages_of_all_sizes,
    says_who_connected_and_through_which_listener,
    unix_sockets_carry_the_uid,
    a_stalled_reader_cuts_tx_and_gets_writable_once,
    a_large_transfer_in_and_out_keeps_every_byte,
    the_peers_end_of_stream_leaves_our_side_open,
    our_end_of_stream_follows_what_was_accepted,
    a_peers_reset_is_told_as_one,
    data_before_a_reset_is_told_first,
    a_reset_after_the_end_of_stream_is_noticed,
    our_reset_is_a_reset,
    connecting_to_nobody_is_refused,
    connecting_without_an_answer_times_out,
    what_is_sent_before_connected_arrives,
    a_paused_connection_gets_nothing_until_resumed,
    a_thousand_connections_are_served,
    under_load_sends_are_put_off_but_never_forgotten,
    without_buffers_nothing_is_lost,
    a_stale_id_does_nothing_to_the_slots_next_owner,
    closing_delivers_what_was_accepted,
    nothing_is_told_of_a_closed_connection,
    connections_over_the_limit_are_closed,
    a_waker_ends_a_wait,
    a_wait_keeps_its_time,
    two_shards_share_connections_by_load,
    shards_of_different_backends_share_a_listener,
    after_stop_accepting_connecting_is_refused_and_the_rest_goes_on,
    a_busy_shard_polls_by_itself,
}

fn abort(client: TcpStream) {
    rustix::net::sockopt::set_socket_linger(&client, Some(Duration::ZERO)).unwrap();
    drop(client);
}

fn echoes_messages_of_all_sizes(config: &Config) {
    let mut rig = Rig::new(config);
    rig.echo = true;
    let addr = rig.addr();
    let client = thread::spawn(move || {
        let mut client = TcpStream::connect(addr).unwrap();
        for len in [1, 2, 100, 4096, 16_383, 16_384, 16_385, 70_000] {
            let sent = pattern(len);
            client.write_all(&sent).unwrap();
            let mut back = vec![0; len];
            client.read_exact(&mut back).unwrap();
            assert_eq!(back, sent);
        }
    });
    rig.until("the client to finish", |_| client.is_finished());
    client.join().unwrap();
    let counters = rig.counters();
    assert_eq!(counters.rx_bytes, counters.tx_bytes);
    assert_eq!(counters.accepts, 1);
}

fn says_who_connected_and_through_which_listener(config: &Config) {
    let mut rig = Rig::new(config);
    let (client, _) = rig.accept();
    let (_, listener, peer) = rig.accepted[0];
    let local = client.local_addr().unwrap();
    assert_eq!(listener, ListenerId(7));
    assert_eq!((peer.addr, peer.uid), (Some((local.ip(), local.port())), None));
}

fn unix_sockets_carry_the_uid(config: &Config) {
    let name = format!("@towpath-test-{}-{:?}-{}", std::process::id(), config.backend, config.force_baseline);
    let mut rig = Rig::listening(config, Addr::Unix(name.clone()));
    rig.echo = true;
    let ours = rig.connect(&Addr::Unix(name));
    rig.until("an accept", |rig| !rig.accepted.is_empty());
    let (theirs, _, peer) = rig.accepted[0];
    assert_eq!((peer.addr, peer.uid), (None, Some(rustix::process::getuid().as_raw())));
    // Both ends are this rig's: send from the accepted one only, or the echo would never end.
    rig.echo = false;
    assert_eq!(rig.io.tx(theirs, &[b"over ", b"unix"]), 9);
    rig.until("the bytes", |rig| rig.log(ours).data == b"over unix");
    rig.io.close(theirs);
    rig.until("the end", |rig| rig.log(ours).eof);

    let missing = rig.io.connect(&Addr::Unix("/nonexistent/towpath.sock".into()), Via::Route);
    rig.until("the failure", |rig| rig.log(missing).failed == Some(Why::Unreachable));
    drop(UnixStream::pair().unwrap());
}

fn a_stalled_reader_cuts_tx_and_gets_writable_once(config: &Config) {
    let mut config = *config;
    config.limits.tx_bytes_max = 32 * 1024;
    let mut rig = Rig::new(&config);
    let (mut client, id) = rig.accept();
    let sent = pattern(1000);
    let mut total = 0;
    // Until kernel and transport are both full.
    let mut refused = 0;
    while refused < 20 {
        let n = rig.io.tx(id, &[&sent]);
        total += n;
        if n < sent.len() {
            refused += 1;
            rig.idle(Duration::from_millis(1));
            if rig.log(id).writable > 0 {
                rig.log(id).writable = 0;
                refused = 0;
            }
        }
        rig.io.flush();
        assert!(total < 64 << 20, "nothing pushes back");
    }
    assert!(rig.counters().tx_cut > 0);
    assert_eq!(rig.log(id).writable, 0, "writable while nothing had room");

    let reader = thread::spawn(move || {
        let mut left = total;
        let mut space = vec![0; 64 * 1024];
        while left > 0 {
            left -= client.read(&mut space).unwrap();
        }
        client
    });
    rig.until("room", |rig| rig.log(id).writable > 0);
    rig.until("the reader", |_| reader.is_finished());
    rig.idle(Duration::from_millis(20));
    assert_eq!(rig.log(id).writable, 1, "one for one cut");
    let client = reader.join().unwrap();
    assert_eq!(rig.io.tx(id, &[&sent]), sent.len());
    rig.idle(Duration::from_millis(20));
    assert_eq!(rig.log(id).writable, 1, "none without a cut");
    drop(client);
}

fn a_large_transfer_in_and_out_keeps_every_byte(config: &Config) {
    const LEN: usize = 8 << 20;
    let mut config = *config;
    config.limits.tx_bytes_max = 20_000;
    let mut rig = Rig::new(&config);
    rig.echo = true;
    let addr = rig.addr();
    let client = thread::spawn(move || {
        let mut client = TcpStream::connect(addr).unwrap();
        let mut writer = client.try_clone().unwrap();
        let sender = thread::spawn(move || {
            writer.write_all(&pattern(LEN)).unwrap();
            writer.shutdown(Shutdown::Write).unwrap();
        });
        let mut back = vec![0; LEN];
        client.read_exact(&mut back).unwrap();
        sender.join().unwrap();
        assert!(back == pattern(LEN));
    });
    rig.until("the client to finish", |_| client.is_finished());
    client.join().unwrap();
    assert!(rig.counters().tx_cut > 0);
}

fn the_peers_end_of_stream_leaves_our_side_open(config: &Config) {
    let mut rig = Rig::new(config);
    let (mut client, id) = rig.accept();
    client.write_all(b"last words").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    rig.until("the end", |rig| rig.log(id).eof);
    assert_eq!(rig.log(id).data, b"last words");
    assert_eq!(rig.io.tx(id, &[b"still here"]), 10);
    rig.io.flush();
    let mut back = [0; 10];
    client.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"still here");
    assert_eq!(rig.log(id).reset, None);
}

fn our_end_of_stream_follows_what_was_accepted(config: &Config) {
    let mut rig = Rig::new(config);
    let (mut client, id) = rig.accept();
    let sent = pattern(200_000);
    assert_eq!(rig.io.tx(id, &[&sent]), sent.len());
    rig.io.half_close(id);
    assert_eq!(rig.io.tx(id, &[b"too late"]), 0);
    let reader = thread::spawn(move || {
        let mut back = Vec::new();
        client.read_to_end(&mut back).unwrap();
        (client, back)
    });
    rig.until("the reader", |_| reader.is_finished());
    let (mut client, back) = reader.join().unwrap();
    assert!(back == sent);
    client.write_all(b"the other way").unwrap();
    rig.until("the bytes", |rig| rig.log(id).data == b"the other way");
    drop(client);
    rig.until("the end", |rig| rig.log(id).eof);
}

fn a_peers_reset_is_told_as_one(config: &Config) {
    let mut rig = Rig::new(config);
    let (client, id) = rig.accept();
    abort(client);
    rig.until("the reset", |rig| rig.log(id).reset == Some(Why::Reset));
    assert_eq!(rig.io.tx(id, &[b"x"]), 0, "the id means nothing any more");
    rig.until("the slot", |rig| rig.counters().conns_open == 0);
}

fn data_before_a_reset_is_told_first(config: &Config) {
    let mut rig = Rig::new(config);
    let (mut client, id) = rig.accept();
    // Both in the receive queue before the transport looks; a write of ours fails meanwhile.
    client.write_all(b"before").unwrap();
    abort(client);
    rig.io.tx(id, &[b"into the void"]);
    rig.until("the reset", |rig| rig.log(id).reset.is_some());
    assert_eq!(rig.log(id).data, b"before");
}

fn a_reset_after_the_end_of_stream_is_noticed(config: &Config) {
    let mut rig = Rig::new(config);
    let (client, id) = rig.accept();
    client.shutdown(Shutdown::Write).unwrap();
    rig.until("the end", |rig| rig.log(id).eof);
    abort(client);
    rig.until("the reset", |rig| rig.log(id).reset == Some(Why::Reset));
}

fn our_reset_is_a_reset(config: &Config) {
    let mut rig = Rig::new(config);
    let (mut client, id) = rig.accept();
    rig.io.tx(id, &[&pattern(100_000)]);
    rig.io.reset(id);
    rig.until("the slot", |rig| rig.counters().conns_open == 0);
    let error = client.read(&mut [0; 1]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert_eq!(rig.log(id).reset, None, "no event for what the shard did itself");
}

fn connecting_to_nobody_is_refused(config: &Config) {
    let mut rig = Rig::new(config);
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let id = rig.io.connect(&Addr::Ip(gone), Via::Route);
    assert!(rig.log(id).failed.is_none(), "never within the call");
    rig.until("the failure", |rig| rig.log(id).failed == Some(Why::Refused));
    rig.until("the slot", |rig| rig.counters().conns_open == 0);
    assert_eq!(rig.counters().connect_errors, 1);
}

fn connecting_without_an_answer_times_out(config: &Config) {
    let mut config = *config;
    config.limits.connect_timeout = Duration::from_millis(200);
    let mut rig = Rig::new(&config);
    // A listener whose queue is full drops what else comes.
    let full = TcpListener::bind("127.0.0.1:0").unwrap();
    rustix::net::listen(&full, 0).unwrap();
    let addr = Addr::Ip(full.local_addr().unwrap());
    let ids: Vec<_> = (0..4).map(|_| rig.io.connect(&addr, Via::Route)).collect();
    rig.until("a timeout", |rig| ids.iter().any(|&id| rig.log(id).failed == Some(Why::TimedOut)));
    // One given up by the shard itself is silent.
    let id = rig.io.connect(&addr, Via::Route);
    rig.turn();
    rig.io.close(id);
    rig.idle(Duration::from_millis(300));
    assert!(rig.log(id).failed.is_none() && !rig.log(id).connected);
}

fn what_is_sent_before_connected_arrives(config: &Config) {
    let mut rig = Rig::new(config);
    let to = Addr::Ip(rig.addr());
    let ours = rig.io.connect(&to, Via::Route);
    assert_eq!(rig.io.tx(ours, &[b"early"]), 5);
    rig.until("the accept", |rig| !rig.accepted.is_empty());
    let theirs = rig.accepted[0].0;
    rig.until("the bytes", |rig| rig.log(theirs).data == b"early");
    assert!(rig.log(ours).connected);
}

fn a_paused_connection_gets_nothing_until_resumed(config: &Config) {
    let mut rig = Rig::new(config);
    let (mut client, id) = rig.accept();
    for round in 0..50u32 {
        rig.io.pause_rx(id);
        rig.idle(Duration::from_millis(1));
        let before = rig.log(id).data.len();
        client.write_all(&round.to_be_bytes()).unwrap();
        rig.idle(Duration::from_millis(1));
        assert_eq!(rig.log(id).data.len(), before, "round {round}");
        if round % 2 == 0 {
            // Undone before the transport could act.
            rig.io.resume_rx(id);
            rig.io.pause_rx(id);
        }
        rig.io.resume_rx(id);
        rig.until("the bytes", |rig| rig.log(id).data.len() == before + 4);
    }
    rig.io.pause_rx(id);
    drop(client);
    rig.idle(Duration::from_millis(5));
    assert!(!rig.log(id).eof);
    rig.io.resume_rx(id);
    rig.until("the end", |rig| rig.log(id).eof);
    let expected: Vec<u8> = (0..50u32).flat_map(u32::to_be_bytes).collect();
    assert_eq!(rig.log(id).data, expected);
}

fn a_thousand_connections_are_served(config: &Config) {
    const CONNS: usize = 1000;
    let mut rig = Rig::new(config);
    rig.echo = true;
    let addr = rig.addr();
    let clients = thread::spawn(move || {
        let mut clients: Vec<TcpStream> = (0..CONNS).map(|_| TcpStream::connect(addr).unwrap()).collect();
        for round in 0..3 {
            for (at, client) in clients.iter_mut().enumerate() {
                client.write_all(format!("{round:04}{at:04}").as_bytes()).unwrap();
            }
            for (at, client) in clients.iter_mut().enumerate() {
                let mut back = [0; 8];
                client.read_exact(&mut back).unwrap();
                assert_eq!(back, format!("{round:04}{at:04}").as_bytes());
            }
        }
    });
    rig.until("the clients", |_| clients.is_finished());
    clients.join().unwrap();
    assert_eq!(rig.counters().accepts, 1000);
    rig.until("the ends", |rig| {
        let ids: Vec<_> = rig.accepted.iter().map(|a| a.0).collect();
        ids.into_iter().all(|id| rig.log(id).eof)
    });
    for id in rig.accepted.iter().map(|a| a.0).collect::<Vec<_>>() {
        rig.io.close(id);
    }
    rig.until("the slots", |rig| rig.counters().conns_open == 0);
}

fn under_load_sends_are_put_off_but_never_forgotten(config: &Config) {
    const CONNS: usize = 32;
    let mut rig = Rig::new(config);
    rig.echo = true;
    rig.load = 1000;
    let addr = rig.addr();
    let clients: Vec<_> = (0..CONNS)
        .map(|at| {
            thread::spawn(move || {
                let mut client = TcpStream::connect(addr).unwrap();
                for round in 0..200 {
                    let message = format!("{round:04}{at:04}");
                    client.write_all(message.as_bytes()).unwrap();
                    let mut back = [0; 8];
                    client.read_exact(&mut back).unwrap();
                    assert_eq!(back, message.as_bytes());
                }
            })
        })
        .collect();
    rig.until("the clients", |_| clients.iter().all(thread::JoinHandle::is_finished));
    for client in clients {
        client.join().unwrap();
    }
    // What is asked for while sends are put off: ends, closes, resets.
    rig.echo = false;
    let mut ends: Vec<_> = (0..CONNS).map(|_| rig.accept()).collect();
    for (at, (_, id)) in ends.iter().enumerate() {
        assert_eq!(rig.io.tx(*id, &[b"the last"]), 8);
        match at % 3 {
            0 => rig.io.half_close(*id),
            1 => rig.io.close(*id),
            _ => rig.io.reset(*id),
        }
    }
    rig.idle(Duration::from_millis(50));
    for (at, (client, _)) in ends.iter_mut().enumerate() {
        let mut back = Vec::new();
        let outcome = client.read_to_end(&mut back);
        if at % 3 == 2 {
            assert!(outcome.is_err());
        } else {
            assert_eq!((outcome.unwrap(), &back[..]), (8, &b"the last"[..]));
        }
    }
}

fn without_buffers_nothing_is_lost(config: &Config) {
    let mut config = *config;
    config.limits.rx_buffers = 8;
    config.limits.rx_buffer_bytes = 1024;
    let mut rig = Rig::new(&config);
    rig.hold = true;
    let mut clients: Vec<_> = (0..4).map(|_| rig.accept()).collect();
    let sent = pattern(30_000);
    for (client, _) in &mut clients {
        client.write_all(&sent).unwrap();
    }
    rig.until("the buffers to run out", |rig| rig.counters().rx_no_buffer > 0);
    rig.idle(Duration::from_millis(20));
    let told = rig.counters().rx_bytes;
    assert!(told <= 8 * 1024, "{told}");
    // Given back a few at a time: each must find its way to somebody.
    let ids: Vec<_> = clients.iter().map(|c| c.1).collect();
    rig.until("all bytes", |rig| {
        let some = rig.held.len().div_ceil(2);
        rig.held.drain(..some);
        ids.iter().all(|&id| rig.log(id).data.len() == sent.len())
    });
    for id in ids {
        assert!(rig.log(id).data == sent);
    }
}

fn a_stale_id_does_nothing_to_the_slots_next_owner(config: &Config) {
    let mut rig = Rig::new(config);
    let (_first, old) = rig.accept();
    rig.io.close(old);
    rig.until("the slot", |rig| rig.counters().conns_open == 0);
    let (mut second, new) = rig.accept();
    assert_eq!(old.index, new.index, "the slot is reused");
    assert_ne!(old, new);
    assert_eq!(rig.io.tx(old, &[b"not yours"]), 0);
    rig.io.pause_rx(old);
    rig.io.half_close(old);
    rig.io.reset(old);
    rig.io.close(old);
    second.write_all(b"ping").unwrap();
    rig.until("the bytes", |rig| rig.log(new).data == b"ping");
    assert_eq!(rig.io.tx(new, &[b"pong"]), 4);
    rig.io.flush();
    let mut back = [0; 4];
    second.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"pong");
}

fn closing_delivers_what_was_accepted(config: &Config) {
    let mut rig = Rig::new(config);
    let (mut client, id) = rig.accept();
    let sent = pattern(250_000);
    assert_eq!(rig.io.tx(id, &[&sent]), sent.len());
    rig.io.close(id);
    assert_eq!(rig.io.tx(id, &[b"x"]), 0);
    let reader = thread::spawn(move || {
        let mut back = Vec::new();
        client.read_to_end(&mut back).unwrap();
        back
    });
    rig.until("the reader", |_| reader.is_finished());
    assert!(reader.join().unwrap() == sent);
    rig.until("the slot", |rig| rig.counters().conns_open == 0);

    // A reader that never reads does not keep the slot for ever.
    let (client, id) = rig.accept();
    while rig.io.tx(id, &[&sent]) == sent.len() || rig.counters().tx_bytes < 500_000 {
        rig.idle(Duration::from_millis(10));
    }
    rig.io.close(id);
    rig.until("the slot", |rig| rig.counters().conns_open == 0);
    drop(client);
}

fn nothing_is_told_of_a_closed_connection(config: &Config) {
    let mut rig = Rig::new(config);
    for round in 0..20 {
        let (mut client, id) = rig.accept();
        client.write_all(b"something").unwrap();
        if round % 2 == 0 {
            client.shutdown(Shutdown::Write).unwrap();
        }
        rig.io.close(id);
        rig.until("the slot", |rig| rig.counters().conns_open == 0);
        drop(client);
        rig.idle(Duration::from_millis(1));
        let log = rig.log(id);
        assert!(log.data.is_empty() && !log.eof && log.reset.is_none(), "{log:?}");
    }
}

fn connections_over_the_limit_are_closed(config: &Config) {
    let mut config = *config;
    config.limits.conns_max = 2;
    let mut rig = Rig::new(&config);
    let (_one, id) = rig.accept();
    let (_two, _) = rig.accept();
    let mut three = TcpStream::connect(rig.addr()).unwrap();
    rig.until("the refusal", |rig| rig.counters().accepts_refused == 1);
    assert_eq!(three.read(&mut [0; 1]).unwrap_or(0), 0);
    let addr = Addr::Ip(rig.addr());
    let own = rig.io.connect(&addr, Via::Route);
    rig.until("the failure", |rig| rig.log(own).failed == Some(Why::Exhausted));
    rig.io.close(id);
    rig.until("room", |rig| rig.counters().conns_open == 1);
    rig.accept();
}

fn a_waker_ends_a_wait(config: &Config) {
    let mut rig = Rig::new(config);
    rig.idle(Duration::from_millis(5));
    let waker = rig.io.waker();
    // Before the wait.
    waker.wake();
    waker.wake();
    rig.io.wait(None);
    rig.turn();
    // During it, many times, from another thread.
    for _ in 0..100 {
        let waker = waker.clone();
        let ringer = thread::spawn(move || waker.wake());
        rig.io.wait(None);
        ringer.join().unwrap();
        while rig.turn() {}
    }
    // What it left behind does not end the next one at once for ever.
    for _ in 0..3 {
        rig.turn();
        let soon = rig.io.now().after(Duration::from_millis(2));
        rig.io.wait(Some(soon));
    }
    let before = rig.io.now();
    rig.io.wait(Some(before.after(Duration::from_millis(30))));
    assert!(rig.io.now().since_ns(before) >= 29_000_000);
}

fn a_wait_keeps_its_time(config: &Config) {
    let mut rig = Rig::new(config);
    rig.idle(Duration::from_millis(5));
    for ms in [0, 1, 10, 50] {
        let before = rig.io.now();
        rig.io.wait(Some(before.after(Duration::from_millis(ms))));
        let took = rig.io.now().since_ns(before);
        assert!(took >= ms * 1_000_000, "{ms} ms: {took} ns");
        assert!(took < ms * 1_000_000 + 500_000_000, "{ms} ms: {took} ns");
    }
    let past = rig.io.now();
    rig.io.wait(Some(past));
    // Short ones are short: at least one in many, on a machine that does other things, too.
    let shortest = (0..50).map(|_| {
        let before = rig.io.now();
        rig.io.wait(Some(before.after(Duration::from_micros(100))));
        rig.turn();
        rig.io.now().since_ns(before)
    });
    let shortest = shortest.min().unwrap();
    assert!((100_000..800_000).contains(&shortest), "{shortest} ns");
}

fn two_shards_share_connections_by_load(config: &Config) {
    let listeners = Listeners::bind(&[ListenerSpec { id: ListenerId(1), addr: loopback() }]).unwrap();
    let Addr::Ip(addr) = listeners.local_addrs()[0].1 else { panic!() };
    let view = std::sync::Arc::new(listeners);
    let placement = Placement::new(2);
    let (tell, told) = std::sync::mpsc::channel();
    let shards: Vec<_> = (0..2usize)
        .map(|shard| {
            let (placement, config, tell) = (placement.clone(), *config, tell.clone());
            let (opened, opens) = std::sync::mpsc::channel();
            let (stop, stopped) = std::sync::mpsc::channel::<()>();
            let view = view.clone();
            let thread = thread::spawn(move || {
                let mut rig = Rig::shard(&config, &view, shard, placement);
                rig.echo = true;
                // Shard 0 has plenty to do.
                rig.load = if shard == 0 { 100 } else { 1 };
                rig.turn();
                opened.send(()).unwrap();
                rig.until("the test's end", |_| stopped.try_recv().is_ok());
                tell.send((shard, rig.counters())).unwrap();
            });
            opens.recv().unwrap();
            (thread, stop)
        })
        .collect();
    let mut clients: Vec<_> = (0..20).map(|_| TcpStream::connect(addr).unwrap()).collect();
    for client in &mut clients {
        client.write_all(b"who is there").unwrap();
        client.read_exact(&mut [0; 12]).unwrap();
    }
    for (thread, stop) in shards {
        stop.send(()).unwrap();
        thread.join().unwrap();
    }
    let mut counters: Vec<_> = told.try_iter().collect();
    counters.sort_by_key(|c| c.0);
    assert_eq!(counters[0].1.accepts, 0, "{counters:?}");
    assert_eq!(counters[1].1.accepts, 20, "{counters:?}");
}

fn shards_of_different_backends_share_a_listener(config: &Config) {
    let listeners = Listeners::bind(&[ListenerSpec { id: ListenerId(1), addr: loopback() }]).unwrap();
    let Addr::Ip(addr) = listeners.local_addrs()[0].1 else { panic!() };
    let placement = Placement::new(2);
    let mut ours = Rig::shard(config, &listeners, 0, placement.clone());
    let epoll = Config { backend: Backend::Epoll, ..*config };
    let mut other = Rig::shard(&epoll, &listeners, 1, placement);
    (ours.echo, other.echo) = (true, true);
    let clients = thread::spawn(move || {
        for _ in 0..40 {
            let mut client = TcpStream::connect(addr).unwrap();
            client.write_all(b"anybody").unwrap();
            client.read_exact(&mut [0; 7]).unwrap();
        }
    });
    // Each sleeps while the other works.
    while !clients.is_finished() {
        ours.idle(Duration::from_millis(1));
        other.idle(Duration::from_millis(1));
    }
    clients.join().unwrap();
    assert_eq!(ours.counters().accepts + other.counters().accepts, 40);
    assert!(ours.counters().accepts > 0 && other.counters().accepts > 0);
    assert_eq!(ours.counters().accept_errors + other.counters().accept_errors, 0);
}

fn after_stop_accepting_connecting_is_refused_and_the_rest_goes_on(config: &Config) {
    let mut rig = Rig::new(config);
    rig.echo = true;
    let (mut client, _) = rig.accept();
    rig.io.stop_accepting();
    rig.io.stop_accepting();
    rig.turn();
    let error = TcpStream::connect(rig.addr()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    client.write_all(b"ping").unwrap();
    let reader = thread::spawn(move || {
        let mut back = [0; 4];
        client.read_exact(&mut back).unwrap();
        back
    });
    rig.until("the reader", |_| reader.is_finished());
    assert_eq!(&reader.join().unwrap(), b"ping");
}

fn a_busy_shard_polls_by_itself(config: &Config) {
    let mut rig = Rig::new(config);
    let (mut client, id) = rig.accept();
    client.write_all(b"look").unwrap();
    let end = rig.io.now().after(Duration::from_secs(10));
    // No `wait` at all.
    while rig.log(id).data.is_empty() && rig.io.now() < end {
        rig.turn();
    }
    assert_eq!(rig.log(id).data, b"look");
}
