//! Where machine code and Rust call each other.
//!
//! Only pointers and 64-bit words cross, by the C calling convention. Machine code gets one pointer, to the
//! [`Frame`] of the run, and gives it back to every function of this module that it calls; of the frame it
//! reads and writes nothing itself but the fields at the `FRAME_*` offsets.
//!
//! No panic unwinds through machine code: every function here is `extern "C"`, which aborts instead.
#![allow(unsafe_code, reason = "the callbacks: STYLE.md, Unsafe")]

pub(crate) mod hot;

use std::ffi::c_void;
use std::mem::offset_of;
use std::sync::Arc;

use abi::{CallView, Chain, Entry, Plan, Verdict};
use lang::state::Bound;
use lang::vm::{Code, Flow, Image, Run};

use crate::cache::{ENTRIES, Shape};
use crate::memory::ChainCode;

/// One run of one entry, in the caller's stack frame.
#[repr(C)]
pub(crate) struct Frame<'a> {
    /// `Shared::consts`: the parameters of the chain.
    consts: *const u64,
    run: Run<'a>,
    code: &'a Code,
    /// As the run ends, if not by going on.
    verdict: Option<Verdict>,
}

const fn offset(of: usize) -> i32 {
    assert!(of < 4096);
    #[expect(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "asserted to be small")]
    let of = of as i32;
    of
}

/// Where machine code finds the constants.
pub(crate) const FRAME_CONSTS: i32 = offset(offset_of!(Frame<'_>, consts));
/// Where machine code finds whether elements are timed.
pub(crate) const FRAME_IS_SAMPLED: i32 = offset(offset_of!(Frame<'_>, run.is_sampled));

/// Where machine code writes whose draws are made, as an element begins.
pub(crate) const FRAME_DRAWS: i32 = offset(offset_of!(Frame<'_>, run.draws));

/// The next instruction follows.
pub(crate) const NEXT: u64 = 0;
/// The instruction jumps.
pub(crate) const JUMP: u64 = 1;

/// The machine code of an entry: frame and segment to 0 for `Forward`, else the verdict is in the frame.
type Enter = unsafe extern "C" fn(*mut Frame<'_>, u64) -> u64;

/// A chain that runs as machine code: code, parameters and state.
#[derive(Debug)]
pub(crate) struct Machine {
    image: Arc<Image>,
    state: Bound,
    /// The code of each entry, by its place in [`Entry`].
    enters: [Option<Enter>; ENTRIES.len() + 1],
    /// Keeps that code alive. It is of this image's shape: the same instructions, registers and segments,
    /// and as many constants.
    #[expect(dead_code, reason = "it is its life that counts")]
    code: Arc<ChainCode>,
}

impl Machine {
    /// Makes `image` run by `code`, which must be of its shape.
    pub(crate) fn new(image: Arc<Image>, state: Bound, code: Arc<ChainCode>) -> Self {
        assert!(*code.shape() == Shape::of(&image), "code of another shape");
        let mut enters = [None; ENTRIES.len() + 1];
        for entry in ENTRIES {
            // SAFETY: an entry of the chain's code is such a function, made by `translate`.
            let enter =
                code.entry(entry).map(|at| unsafe { std::mem::transmute::<*const c_void, Enter>(at) });
            enters[entry as usize] = enter;
        }
        Self { image, state, enters, code }
    }
}

impl Chain for Machine {
    fn plan(&self) -> &Plan {
        &self.image.plan
    }

    fn run(&self, entry: Entry, segment: u16, call: &mut dyn CallView) -> Verdict {
        let image = &*self.image;
        let Some(enter) = self.enters[entry as usize] else { return Verdict::Forward };
        let code = image.place(entry);
        let mut frame = Frame {
            consts: image.shared.consts.as_ptr(),
            run: Run::new(&image.shared, &self.state, entry, call),
            code,
            verdict: None,
        };
        frame.run.begin(code, segment);
        // SAFETY: the frame lives over the call and nothing else refers to it meanwhile. The code is alive
        // as long as `self`, and reads only constants that are there: it is of this image's shape.
        let has_verdict = unsafe { enter(&raw mut frame, u64::from(segment)) } != 0;
        if !has_verdict && frame.run.leaves_nothing(code) {
            return Verdict::Forward;
        }
        let verdict = frame.verdict.filter(|_| has_verdict).unwrap_or(Verdict::Forward);
        frame.run.finish(code, verdict)
    }
}

/// The registers of machine code as the interpreter has them.
///
/// # Safety
/// `regs` points to `code.regs` words of the calling machine code's stack frame, which nothing else uses
/// until the callback returns.
unsafe fn registers<'r>(code: &Code, regs: *mut u64) -> &'r mut [u64] {
    // SAFETY: by the caller's promise; any bytes are a word.
    unsafe { std::slice::from_raw_parts_mut(regs, usize::from(code.regs)) }
}

/// Does the instruction at `at` as the interpreter does, on registers that machine code has written down.
/// Returns [`NEXT`], [`JUMP`], or something else for the end of the run.
///
/// # Safety
/// Called by machine code alone, with the frame it got and registers as [`registers`] wants them.
pub(crate) unsafe extern "C" fn step(frame: *mut Frame<'_>, at: u64, regs: *mut u64) -> u64 {
    // SAFETY: machine code passes on the pointer that `enter` gave it, and `enter` waits meanwhile.
    let frame = unsafe { &mut *frame };
    let code = frame.code;
    // SAFETY: machine code's own array.
    let regs = unsafe { registers(code, regs) };
    let Some(op) = usize::try_from(at).ok().and_then(|at| code.ops.get(at)) else { return NEXT };
    match frame.run.step(code, op, regs) {
        Flow::Next => NEXT,
        Flow::Jump(_) => JUMP,
        Flow::End(verdict) => {
            frame.verdict = Some(verdict);
            JUMP + 1
        }
    }
}

/// Brings back the registers of a suspended run.
///
/// # Safety
/// As [`step`].
pub(crate) unsafe extern "C" fn resume(frame: *mut Frame<'_>, segment: u64, regs: *mut u64) {
    // SAFETY: as in `step`.
    let frame = unsafe { &mut *frame };
    // SAFETY: machine code's own array.
    let regs = unsafe { registers(frame.code, regs) };
    // Where to go on, machine code knows itself.
    let _ = frame.run.enter(frame.code, u16::try_from(segment).unwrap_or(0), regs);
}
