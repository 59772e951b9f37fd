//! What is written down of a call when it is over.

use alloc::vec::Vec;

use super::rig::Rig;
use crate::Limits;

/// The books of a few are closed after the answers of their turn, those of many on the way: nobody sees which.
#[test]
fn calls_are_logged_once_each_and_in_the_order_in_which_they_end() {
    let mut rig = Rig::new(Limits::DEFAULT, 100);
    let mut caller = rig.caller(1);
    rig.exchange(&mut caller);
    let mut endpoint = None;
    let mut ended = 0;
    for count in [1, 2, 4, 5, 11, 30] {
        rig.call(&mut caller, count);
        let endpoint = endpoint.get_or_insert_with(|| rig.accept().remove(0));
        rig.exchange(endpoint);
        rig.answer_at_once(endpoint, count);
        ended += u64::try_from(count).unwrap();
        assert_eq!(*rig.logged.borrow(), (0..ended).collect::<Vec<_>>(), "{count} at once");
        assert_eq!(rig.count("calls_ended"), ended);
    }
    rig.exchange(&mut caller);
    assert_eq!(u64::try_from(caller.answers.len()).unwrap(), ended);
}
