//! A process that may not make memory executable: the interpreter serves.
//!
//! Alone in its file: what this asks of the kernel holds for the whole process and cannot be taken back.
#![allow(unsafe_code, reason = "one system call that nothing else offers")]

/// By the name that the language's own tests know it by.
extern crate lang as towpath_lang;

#[path = "../../lang/tests/common/mod.rs"]
mod lang_common;

use lang::{Backend, NoFiles, Overrides};
use towpath_jit::{Figures, Jit, Refusal};

/// `<linux/prctl.h>`, since Linux 6.3; what `MemoryDenyWriteExecute=` of systemd asks for.
const PR_SET_MDWE: libc::c_int = 65;
const PR_MDWE_REFUSE_EXEC_GAIN: libc::c_ulong = 1;

#[test]
fn without_executable_memory_chains_are_interpreted() {
    // SAFETY: no pointer is passed; the call changes what later mappings may be.
    let done = unsafe { libc::prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN, 0_u64, 0_u64, 0_u64) };
    if done != 0 {
        eprintln!("skipped: this kernel cannot refuse executable memory");
        return;
    }
    let mut jit = Jit::new();
    assert_eq!(jit.refusal(), Some(&Refusal::Memory("EACCES".to_owned())));
    assert_eq!(jit.refusal().unwrap().to_string(), "executable memory was refused (EACCES)");

    let source = lang_common::app("FaultInjection(1.0)", "");
    let mut compiled = lang::compile("test.adn", &source, &NoFiles, &Overrides::default()).unwrap();
    compiled.link(&mut lang::state::Store::new(1), &mut jit as &mut dyn Backend);
    let verdict = compiled.program.chains[0].run(abi::Entry::Request, 0, &mut lang_common::Mock::new(2));
    assert!(matches!(verdict, abi::Verdict::Reject(_)), "{verdict:?}");
    assert_eq!(jit.figures(), Figures { interpreted: 1, ..Figures::default() });
}
