//! One caller does not hold all streams of an endpoint.

use alloc::vec::Vec;

use super::rig::{End, Rig};
use crate::Limits;

/// Two connections of two streams each, all held by the caller with host 1.
fn hogged() -> (Rig, End, Vec<End>) {
    let limits = Limits { endpoint_connections_max: 2, ..Limits::DEFAULT };
    let mut rig = Rig::new(limits, 2);
    let mut hog = rig.caller(1);
    rig.exchange(&mut hog);
    rig.call(&mut hog, 6);
    let mut endpoints = Vec::new();
    for _ in 0..4 {
        endpoints.extend(rig.accept());
        for end in &mut endpoints {
            rig.exchange(end);
        }
    }
    (rig, hog, endpoints)
}

#[test]
fn a_caller_alone_stays_within_the_connections_allowed() {
    let (mut rig, mut hog, endpoints) = hogged();
    assert_eq!(endpoints.iter().map(|e| e.requests.len()).collect::<Vec<_>>(), [2, 2]);
    rig.call(&mut hog, 5);
    assert!(rig.accept().is_empty());
    assert_eq!(rig.count("upstream_connects_fair"), 0);
}

#[test]
fn a_caller_that_finds_all_streams_held_gets_a_connection_of_its_own() {
    let (mut rig, mut hog, mut endpoints) = hogged();
    let mut other = rig.caller(2);
    rig.exchange(&mut other);
    rig.call(&mut other, 3);
    let mut own = rig.accept();
    assert_eq!(own.len(), 1, "one, however many of its calls wait");
    assert_eq!(rig.count("upstream_connects_fair"), 1);
    let own = &mut own[0];
    rig.exchange(own);
    assert_eq!(own.requests.len(), 2);
    rig.call(&mut hog, 5);
    rig.exchange(own);
    assert_eq!(own.requests.len(), 2, "nobody else's calls travel there");
    rig.answer(own);
    rig.exchange(own);
    rig.answer(own);
    rig.answer(own);
    rig.exchange(&mut other);
    assert_eq!(other.answers.len(), 3);

    // When the others have gone it is not needed any more.
    for end in &mut endpoints {
        while !end.requests.is_empty() {
            rig.answer(end);
            rig.exchange(end);
        }
    }
    rig.pass_seconds(3);
    rig.exchange(own);
    assert!(rig.is_closed(own));
    assert!(!rig.is_closed(&endpoints[0]));
}

#[test]
fn a_caller_with_its_share_waits_like_everybody() {
    let limits = Limits { endpoint_connections_max: 1, ..Limits::DEFAULT };
    let mut rig = Rig::new(limits, 4);
    let mut callers = [rig.caller(1), rig.caller(2)];
    let mut endpoint = None;
    for caller in &mut callers {
        rig.exchange(caller);
        rig.call(caller, 2);
        endpoint = endpoint.or(rig.accept().pop());
        rig.exchange(endpoint.as_mut().unwrap());
    }
    assert_eq!(endpoint.unwrap().requests.len(), 4);
    for caller in &mut callers {
        rig.call(caller, 1);
    }
    assert!(rig.accept().is_empty());
}

#[test]
fn a_caller_kept_by_itself_gets_a_connection_where_all_allowed_are_shared() {
    let limits = Limits { endpoint_connections_max: 1, caller_resets_per_second: 0, ..Limits::DEFAULT };
    let mut rig = Rig::new(limits, 4);
    let mut caller = rig.caller(1);
    rig.exchange(&mut caller);
    rig.call(&mut caller, 1);
    let mut shared = rig.accept().remove(0);
    rig.exchange(&mut shared);
    rig.cancel(&mut caller);
    assert_eq!(rig.count("callers_made_private"), 1);
    rig.call(&mut caller, 1);
    let mut own = rig.accept().pop().expect("a connection of its own");
    rig.exchange(&mut own);
    rig.answer(&mut own);
    rig.exchange(&mut caller);
    assert_eq!(caller.answers.len(), 1);
}

#[test]
fn calls_that_a_full_send_buffer_kept_waiting_go_when_it_has_emptied() {
    let limits = Limits { endpoint_connections_max: 1, tx_bytes_max: 64, ..Limits::DEFAULT };
    let mut rig = Rig::new(limits, 100);
    let mut caller = rig.caller(1);
    rig.exchange(&mut caller);
    rig.call(&mut caller, 1);
    let mut endpoint = rig.accept().remove(0);
    rig.exchange(&mut endpoint);
    rig.answer(&mut endpoint);
    rig.set_room(&endpoint, 0);
    rig.call(&mut caller, 20);
    rig.exchange(&mut endpoint);
    assert!(endpoint.requests.is_empty());
    rig.set_room(&endpoint, usize::MAX);
    rig.exchange(&mut endpoint);
    assert_eq!(endpoint.requests.len(), 20);
}
