//! Byte code to machine code: one function per entry.
//!
//! Registers are variables of Cranelift's, which finds where they live. An instruction that is not done here
//! is a call of [`callback::step`]: the registers it reads are written to an array on the stack before, and
//! those it writes are read from there after. So every instruction there is, or will be, works; what is hot
//! is done in place.
//!
//! A function begins with a dispatch: segment 0 is the first instruction; segment n brings the registers back
//! and goes on behind its suspension; anything else is `Forward`.
//!
//! Invariant: the code holds addresses of this crate's functions and nothing else from outside: whatever
//! belongs to one chain comes through the frame.

use std::sync::Arc;

use abi::Entry;
use cranelift_codegen::Context;
use cranelift_codegen::control::ControlPlane;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{
    AbiParam, Block, BlockArg, Function, InstBuilder, MemFlags, SigRef, Signature, StackSlot, StackSlotData,
    StackSlotKind, UserFuncName, Value, types,
};
use cranelift_codegen::isa::{CallConv, TargetIsa};
use cranelift_codegen::settings::{self, Configurable};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext, Switch, Variable};
use lang::vm::code::Reg;
use lang::vm::{Code, Image, Op, Shared};

use crate::arith::Arith;
use crate::cache::{ENTRIES, Shape};
use crate::callback::{self, FRAME_CONSTS, FRAME_IS_SAMPLED, JUMP};
use crate::memory::{ChainCode, CodeMemory};

mod hot;

/// Makes machine code for this machine.
pub(crate) struct Translator {
    isa: Arc<dyn TargetIsa>,
    context: Context,
    builder: FunctionBuilderContext,
}

impl Translator {
    /// For the machine at hand; the error is its name, if nothing is known of it.
    pub(crate) fn new() -> Result<Self, String> {
        // Other machines need their instruction caches told of new code, which nobody has tried here.
        if !cfg!(all(target_arch = "x86_64", target_os = "linux")) {
            return Err(std::env::consts::ARCH.to_owned());
        }
        let mut flags = settings::builder();
        for (name, value) in [
            ("opt_level", "speed"),
            ("enable_verifier", "true"),
            ("unwind_info", "false"),
            ("probestack_strategy", "inline"),
        ] {
            flags.set(name, value).map_err(|e| e.to_string())?;
        }
        let isa = cranelift_native::builder().map_err(str::to_owned)?;
        let isa = isa.finish(settings::Flags::new(flags)).map_err(|e| e.to_string())?;
        Ok(Self { isa, context: Context::new(), builder: FunctionBuilderContext::new() })
    }

    /// All entries of an image.
    pub(crate) fn compile(&mut self, image: &Image, shape: Arc<Shape>) -> Result<ChainCode, String> {
        let mut bytes = Vec::new();
        let mut entries = [None; ENTRIES.len()];
        for (slot, entry) in entries.iter_mut().zip(ENTRIES) {
            let Some(code) = image.code(entry) else { continue };
            bytes.resize(bytes.len().next_multiple_of(16), 0xcc);
            *slot = Some(bytes.len());
            self.entry(entry, code, &image.shared, &mut bytes)?;
        }
        let memory = CodeMemory::new(&bytes).map_err(|e| e.to_string())?;
        Ok(ChainCode::new(memory, entries, shape))
    }

    /// Appends the function of one entry.
    fn entry(&mut self, entry: Entry, code: &Code, shared: &Shared, out: &mut Vec<u8>) -> Result<(), String> {
        self.context.clear();
        let call_conv = self.isa.default_call_conv();
        self.context.func =
            Function::with_name_signature(UserFuncName::default(), signature(call_conv, 2, 1));
        let builder = FunctionBuilder::new(&mut self.context.func, &mut self.builder);
        Body::new(builder, entry, code, shared, call_conv).translate();
        let compiled = self
            .context
            .compile(&*self.isa, &mut ControlPlane::default())
            .map_err(|e| format!("{:?}", e.inner))?;
        if !compiled.buffer.relocs().is_empty() {
            return Err("code that refers to something outside".to_owned());
        }
        out.extend_from_slice(compiled.code_buffer());
        Ok(())
    }
}

fn signature(call_conv: CallConv, params: usize, returns: usize) -> Signature {
    let mut signature = Signature::new(call_conv);
    let word = || AbiParam::new(types::I64);
    signature.params.extend((0..params).map(|_| word()));
    signature.returns.extend((0..returns).map(|_| word()));
    signature
}

/// The most words a callback takes besides the frame.
const WORDS_MAX: usize = 5;

/// One function in the making.
struct Body<'a> {
    b: FunctionBuilder<'a>,
    entry: Entry,
    code: &'a Code,
    shared: &'a Shared,
    regs: Vec<Variable>,
    /// Where registers stand while an instruction is done elsewhere.
    spilled: StackSlot,
    frame: Value,
    /// The block that begins at an instruction, where one does.
    blocks: Vec<Option<Block>>,
    /// Forward.
    end: Block,
    /// Leaves with the word it gets.
    leave: Block,
    /// By the number of words they take besides the frame, and of those they return.
    signatures: [[Option<SigRef>; 3]; WORDS_MAX + 1],
    call_conv: CallConv,
}

fn word(n: u64) -> i64 {
    n.cast_signed()
}

/// The address of a callback as a constant.
fn address(of: *const ()) -> i64 {
    of.addr() as i64
}

impl<'a> Body<'a> {
    fn new(
        mut b: FunctionBuilder<'a>,
        entry: Entry,
        code: &'a Code,
        shared: &'a Shared,
        call_conv: CallConv,
    ) -> Self {
        let regs = (0..code.regs).map(|_| b.declare_var(types::I64)).collect();
        let slot = StackSlotData::new(StackSlotKind::ExplicitSlot, 8 * u32::from(code.regs.max(1)), 3);
        let spilled = b.create_sized_stack_slot(slot);
        let blocks = begins(code).into_iter().map(|begins| begins.then(|| b.create_block())).collect();
        let (end, leave) = (b.create_block(), b.create_block());
        b.append_block_param(leave, types::I64);
        let frame = Value::from_u32(0);
        Self {
            b,
            entry,
            code,
            shared,
            regs,
            spilled,
            frame,
            blocks,
            end,
            leave,
            signatures: Default::default(),
            call_conv,
        }
    }

    fn translate(mut self) {
        self.prologue();
        for (at, op) in self.code.ops.iter().enumerate() {
            if let Some(block) = self.blocks.get(at).copied().flatten() {
                if !self.is_done() {
                    self.b.ins().jump(block, &[]);
                }
                self.b.switch_to_block(block);
            } else if self.is_done() {
                // Nothing comes here.
                continue;
            }
            self.op(at, op);
        }
        let end = self.end;
        if !self.is_done() {
            self.b.ins().jump(end, &[]);
        }
        self.b.switch_to_block(end);
        let forward = self.word(0);
        self.b.ins().return_(&[forward]);
        let leave = self.leave;
        self.b.switch_to_block(leave);
        let verdict = self.b.block_params(leave).first().copied().unwrap_or(forward);
        self.b.ins().return_(&[verdict]);
        self.b.seal_all_blocks();
        self.b.finalize();
    }

    /// True if the block at hand has its last instruction.
    fn is_done(&self) -> bool {
        let last = self.b.current_block().map(|block| self.b.func.layout.last_inst(block));
        match last {
            Some(Some(inst)) => self.b.func.dfg.insts[inst].opcode().is_terminator(),
            Some(None) => false,
            None => true,
        }
    }

    fn word(&mut self, n: u64) -> Value {
        self.b.ins().iconst(types::I64, word(n))
    }

    /// The block of an instruction, or the end.
    fn block_at(&self, at: u32) -> Block {
        usize::try_from(at).ok().and_then(|at| self.blocks.get(at).copied().flatten()).unwrap_or(self.end)
    }

    fn variable(&self, reg: Reg) -> Option<Variable> {
        self.regs.get(usize::from(reg)).copied()
    }

    fn r(&mut self, reg: Reg) -> Value {
        match self.variable(reg) {
            Some(variable) => self.b.use_var(variable),
            None => self.word(0),
        }
    }

    fn set(&mut self, reg: Reg, value: Value) {
        if let Some(variable) = self.variable(reg) {
            self.b.def_var(variable, value);
        }
    }

    fn offset(reg: Reg) -> i32 {
        8 * i32::from(reg)
    }

    /// From the segment asked for to its place.
    fn prologue(&mut self) {
        let block = self.b.create_block();
        self.b.append_block_params_for_function_params(block);
        self.b.switch_to_block(block);
        let params = self.b.block_params(block).to_vec();
        let [frame, segment] = params.as_slice() else { return };
        self.frame = *frame;
        let segment = *segment;
        let first = self.block_at(0);
        if self.code.segments.is_empty() {
            // Its only segment.
            let end = self.end;
            self.b.ins().brif(segment, end, &[], first, &[]);
            return;
        }
        let mut switch = Switch::new();
        let begin = self.b.create_block();
        switch.set_entry(0, begin);
        let resumed: Vec<Block> = self.code.segments.iter().map(|_| self.b.create_block()).collect();
        for (at, block) in (1_u128..).zip(&resumed) {
            switch.set_entry(at, *block);
        }
        let end = self.end;
        switch.emit(&mut self.b, segment, end);
        self.b.switch_to_block(begin);
        self.b.ins().jump(first, &[]);
        for (resume, block) in self.code.segments.iter().zip(resumed) {
            self.b.switch_to_block(block);
            let regs = self.b.ins().stack_addr(types::I64, self.spilled, 0);
            self.call(callback::resume as *const (), &[segment, regs], 0);
            for reg in (0..resume.live).filter_map(|r| Reg::try_from(r).ok()) {
                self.reload(reg);
            }
            let to = self.block_at(resume.pc);
            self.b.ins().jump(to, &[]);
        }
    }

    fn reload(&mut self, reg: Reg) {
        let value = self.b.ins().stack_load(types::I64, self.spilled, Self::offset(reg));
        self.set(reg, value);
    }

    /// Calls a callback with the frame and these words; its results, of which there are `returns`.
    fn call(&mut self, callback: *const (), words: &[Value], returns: usize) -> [Value; 2] {
        let known = self.signatures.get(words.len()).and_then(|by| by.get(returns).copied().flatten());
        let signature = known.unwrap_or_else(|| {
            let signature = signature(self.call_conv, words.len() + 1, returns);
            let made = self.b.import_signature(signature);
            if let Some(slot) = self.signatures.get_mut(words.len()).and_then(|by| by.get_mut(returns)) {
                *slot = Some(made);
            }
            made
        });
        let callee = self.b.ins().iconst(types::I64, address(callback));
        let args: Vec<Value> = std::iter::once(self.frame).chain(words.iter().copied()).collect();
        let call = self.b.ins().call_indirect(signature, callee, &args);
        match self.b.inst_results(call) {
            [one] => [*one; 2],
            [one, other] => [*one, *other],
            _ => [self.frame; 2],
        }
    }

    /// Goes on at the next instruction unless `cond`, or if it is not `cond`.
    fn branch(&mut self, at: usize, cond: Value, to: u32, jumps_if: bool) {
        let to = self.block_at(to);
        let next = u32::try_from(at + 1).map_or(self.end, |at| self.block_at(at));
        if jumps_if {
            self.b.ins().brif(cond, to, &[], next, &[]);
        } else {
            self.b.ins().brif(cond, next, &[], to, &[]);
        }
    }

    fn op(&mut self, at: usize, op: &Op) {
        match *op {
            Op::Const { d, k } if usize::from(k) < self.shared.consts.len() => {
                let flags = MemFlags::trusted().with_can_move().with_readonly();
                let consts = self.b.ins().load(types::I64, flags, self.frame, FRAME_CONSTS);
                let value = self.b.ins().load(types::I64, flags, consts, 8 * i32::from(k));
                self.set(d, value);
            }
            Op::Small { d, n } => {
                let value = self.word(u64::from(n));
                self.set(d, value);
            }
            Op::Move { d, a } => {
                let value = self.r(a);
                self.set(d, value);
            }
            Op::Bin { op: bin, d, a, b } => {
                let (a, b) = (self.r(a), self.r(b));
                match Arith(&mut self.b).bin(bin, a, b) {
                    Some(value) => self.set(d, value),
                    None => self.step(at, op),
                }
            }
            Op::BinSmall { op: bin, d, a, n } => {
                let (a, b) = (self.r(a), self.word(u64::from(n)));
                match Arith(&mut self.b).bin(bin, a, b) {
                    Some(value) => self.set(d, value),
                    None => self.step(at, op),
                }
            }
            Op::Un { op: un, d, a } => {
                let a = self.r(a);
                match Arith(&mut self.b).un(un, a) {
                    Some(value) => self.set(d, value),
                    None => self.step(at, op),
                }
            }
            Op::Jump { to } => {
                let to = self.block_at(to);
                self.b.ins().jump(to, &[]);
            }
            Op::JumpIf { a, to } => {
                let cond = self.r(a);
                self.branch(at, cond, to, true);
            }
            Op::JumpUnless { a, to } => {
                let cond = self.r(a);
                self.branch(at, cond, to, false);
            }
            Op::StrLen { d, a } => {
                let a = self.r(a);
                let len = self.b.ins().band_imm(a, 0xffff_ffff);
                self.set(d, len);
            }
            Op::Mark { .. } => self.mark(at, op),
            Op::End => {
                let end = self.end;
                self.b.ins().jump(end, &[]);
            }
            _ => {
                if self.hot(at, op).is_none() {
                    self.step(at, op);
                }
            }
        }
    }

    /// Nothing, for the calls that are not timed.
    fn mark(&mut self, at: usize, op: &Op) {
        let flags = MemFlags::trusted().with_can_move().with_readonly();
        let is_sampled = self.b.ins().load(types::I8, flags, self.frame, FRAME_IS_SAMPLED);
        let (marks, next) = (self.b.create_block(), self.b.create_block());
        self.b.ins().brif(is_sampled, marks, &[], next, &[]);
        self.b.set_cold_block(marks);
        self.b.switch_to_block(marks);
        self.step(at, op);
        self.b.ins().jump(next, &[]);
        self.b.switch_to_block(next);
    }

    /// An instruction as the interpreter does it.
    fn step(&mut self, at: usize, op: &Op) {
        let touched = op.touched(self.shared, self.code);
        // What is written is written down too: not every instruction writes in every case.
        for reg in touched.reads.iter().chain(&touched.writes) {
            let value = self.r(*reg);
            if self.variable(*reg).is_some() {
                self.b.ins().stack_store(value, self.spilled, Self::offset(*reg));
            }
        }
        let regs = self.b.ins().stack_addr(types::I64, self.spilled, 0);
        let place = self.word(at as u64);
        let [flow, _] = self.call(callback::step as *const (), &[place, regs], 1);
        for reg in &touched.writes {
            if self.variable(*reg).is_some() {
                self.reload(*reg);
            }
        }
        if may_end(op) {
            let on = self.b.create_block();
            let is_end = self.b.ins().icmp_imm(IntCC::UnsignedGreaterThan, flow, word(JUMP));
            self.b.ins().brif(is_end, self.leave, &[BlockArg::Value(flow)], on, &[]);
            self.b.switch_to_block(on);
        }
        if let Some(to) = op.target() {
            self.branch(at, flow, to, true);
        }
    }
}

/// True unless it is certain that a run does not end here.
fn may_end(op: &Op) -> bool {
    !matches!(op, Op::Bin { .. } | Op::BinSmall { .. } | Op::Un { .. } | Op::Mark { .. } | Op::Next { .. })
}

/// Which instructions begin a block: what is jumped to, what follows a jump, and where runs go on.
fn begins(code: &Code) -> Vec<bool> {
    let mut begins = vec![false; code.ops.len()];
    let mut mark = |at: usize| {
        if let Some(slot) = begins.get_mut(at) {
            *slot = true;
        }
    };
    mark(0);
    for (at, op) in code.ops.iter().enumerate() {
        if let Some(to) = op.target() {
            mark(usize::try_from(to).unwrap_or(usize::MAX));
            mark(at + 1);
        }
    }
    for segment in &code.segments {
        mark(segment.pc as usize);
    }
    begins
}
