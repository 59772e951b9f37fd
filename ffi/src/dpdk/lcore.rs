//! The calling thread as an lcore: it gets caches of its own in every pool.

use core::cell::Cell;
use core::marker::PhantomData;

use super::{Eal, Error, log, raw};

thread_local! {
    /// How many `Lcore`s this thread holds.
    static HELD: Cell<u32> = const { Cell::new(0) };
}

/// This thread is registered as long as it holds one.
#[derive(Debug)]
pub struct Lcore {
    /// Registration belongs to a thread: this must stay on it.
    thread: PhantomData<*const ()>,
}

impl Lcore {
    /// Registers the calling thread, or joins the registration it has.
    pub fn enter(_: Eal) -> Result<Self, Error> {
        let held = HELD.get();
        if held == 0 {
            log::begin();
            // SAFETY: the EAL runs, and this thread is neither its own nor registered.
            let result = unsafe { raw::rte_thread_register() };
            if result < 0 {
                return Err(Error::last("EAL", "register the thread as an lcore")
                    .with_hint("at most 127 shards and load threads of one process can use DPDK"));
            }
        }
        HELD.set(held + 1);
        Ok(Self { thread: PhantomData })
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        // SAFETY: reads a thread-local variable.
        unsafe { raw::towpath_lcore_id() }
    }
}

impl Drop for Lcore {
    fn drop(&mut self) {
        // A thread that ends may drop this after its thread-locals: then it stays registered, which only
        // costs the number.
        let left = HELD.try_with(|held| {
            held.set(held.get() - 1);
            held.get()
        });
        if left == Ok(0) {
            // SAFETY: registered by `enter` on this thread.
            unsafe { raw::rte_thread_unregister() };
        }
    }
}
