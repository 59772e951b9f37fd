//! Last bytes reach a caller that has said its end.

use super::rig::Rig;
use crate::Limits;

/// A caller whose answers wait for room, and who sends no more.
fn answers_after_eof(is_draining: bool) -> (usize, bool) {
    let mut rig = Rig::new(Limits::DEFAULT, 100);
    let mut caller = rig.caller(1);
    rig.exchange(&mut caller);
    rig.call(&mut caller, 3);
    let mut endpoint = rig.accept().remove(0);
    rig.exchange(&mut endpoint);
    assert_eq!(endpoint.requests.len(), 3);
    if is_draining {
        rig.drain();
        rig.exchange(&mut caller);
    }
    rig.set_room(&caller, 0);
    for _ in 0..3 {
        rig.answer(&mut endpoint);
    }
    rig.finish(&caller);
    assert!(caller.answers.is_empty());
    rig.set_room(&caller, usize::MAX);
    rig.exchange(&mut caller);
    (caller.answers.len(), rig.is_closed(&caller))
}

#[test]
fn a_callers_eof_does_not_cost_it_the_answers_on_their_way() {
    assert_eq!(answers_after_eof(false), (3, true));
}

#[test]
fn nor_while_its_connection_drains() {
    assert_eq!(answers_after_eof(true), (3, true));
}

#[test]
fn calls_that_a_caller_left_by_eof_are_cancelled_and_the_connection_is_closed() {
    let mut rig = Rig::new(Limits::DEFAULT, 100);
    let mut caller = rig.caller(1);
    rig.exchange(&mut caller);
    rig.call(&mut caller, 3);
    let mut endpoint = rig.accept().remove(0);
    rig.exchange(&mut endpoint);
    rig.finish(&caller);
    assert!(rig.is_closed(&caller));
    assert_eq!(rig.count("calls_cancelled"), 3);
}

#[test]
fn a_drain_does_not_wait_for_callers_that_are_gone_without_a_word() {
    let mut rig = Rig::new(Limits::DEFAULT, 100);
    let (mut mute, mut busy) = (rig.caller(1), rig.caller(2));
    rig.exchange(&mut mute);
    rig.exchange(&mut busy);
    rig.call(&mut busy, 1);
    let mut endpoint = rig.accept().remove(0);
    rig.exchange(&mut endpoint);
    rig.drain();
    rig.pass_seconds(5);
    assert!(!rig.is_closed(&mute), "it may be slow");
    rig.pass_seconds(5);
    assert!(rig.is_closed(&mute), "it has said nothing for ten seconds");
    // One with a call under way is waited for, whatever it says.
    assert!(!rig.is_closed(&busy));
    rig.answer(&mut endpoint);
    rig.exchange(&mut busy);
    assert_eq!(busy.answers.len(), 1);
}
