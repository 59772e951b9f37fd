//! A small assembler for eBPF: as many instructions as a frame filter needs, and labels.
//!
//! Jumps go forward only, so no program can loop; the kernel's verifier checks the rest.

use super::bpf::Insn;

/// A register. `R1` holds the context at the start, `R1`–`R5` arguments of a call, `R0` its result; calls
/// leave `R6`–`R9` alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum Reg {
    R0,
    R1,
    R2,
    R3,
    R4,
    R5,
    R6,
    R7,
    R8,
}

/// Bytes of a load.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum Size {
    /// Four.
    Word = 0x00,
    /// Two.
    Half = 0x08,
    /// One.
    Byte = 0x10,
}

/// When a jump is taken; unsigned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum If {
    Equal = 0x10,
    Above = 0x20,
    NotEqual = 0x50,
    Below = 0xa0,
}

/// A place to jump to, set once by [`Asm::bind`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Label(usize);

// Classes, sources and operations as linux/bpf.h has them.
const LDX_MEM: u8 = 0x61;
const ALU64_IMM: u8 = 0x07;
const ALU64_REG: u8 = 0x0f;
const JMP_REG: u8 = 0x0d;
const JMP32_IMM: u8 = 0x06;
const ADD: u8 = 0x00;
const AND: u8 = 0x50;
const SHIFT_LEFT: u8 = 0x60;
const MOV: u8 = 0xb0;
const TO_BIG_ENDIAN: u8 = 0xdc;
const GOTO: u8 = 0x05;
const CALL: u8 = 0x85;
const EXIT: u8 = 0x95;
const LOAD_IMM64: u8 = 0x18;
/// In the source field of `LOAD_IMM64`: the value is a map's descriptor.
const PSEUDO_MAP_FD: u8 = 1;

/// A program being written.
#[derive(Debug, Default)]
pub(super) struct Asm {
    insns: Vec<Insn>,
    /// Where each label is.
    labels: Vec<Option<usize>>,
    /// Jumps to mend once their labels are known: (instruction, label).
    jumps: Vec<(usize, usize)>,
}

impl Asm {
    fn emit(&mut self, code: u8, dst: Reg, src: u8, offset: i16, imm: i32) {
        self.insns.push(Insn { code, registers: src << 4 | dst as u8, offset, imm });
    }

    /// A label, not bound yet.
    pub(super) fn label(&mut self) -> Label {
        self.labels.push(None);
        Label(self.labels.len() - 1)
    }

    /// The label is here.
    pub(super) fn bind(&mut self, label: Label) {
        assert!(self.labels[label.0].replace(self.insns.len()).is_none(), "a label bound twice");
    }

    /// `dst = *(src + offset)`.
    pub(super) fn load(&mut self, size: Size, dst: Reg, src: Reg, offset: i16) {
        self.emit(LDX_MEM | size as u8, dst, src as u8, offset, 0);
    }

    /// `dst = src`.
    pub(super) fn copy(&mut self, dst: Reg, src: Reg) {
        self.emit(ALU64_REG | MOV, dst, src as u8, 0, 0);
    }

    /// `dst = value`.
    pub(super) fn set(&mut self, dst: Reg, value: i32) {
        self.emit(ALU64_IMM | MOV, dst, 0, 0, value);
    }

    /// `dst += value`.
    pub(super) fn add(&mut self, dst: Reg, value: i32) {
        self.emit(ALU64_IMM | ADD, dst, 0, 0, value);
    }

    /// `dst += src`.
    pub(super) fn add_reg(&mut self, dst: Reg, src: Reg) {
        self.emit(ALU64_REG | ADD, dst, src as u8, 0, 0);
    }

    /// `dst &= mask`.
    pub(super) fn and(&mut self, dst: Reg, mask: i32) {
        self.emit(ALU64_IMM | AND, dst, 0, 0, mask);
    }

    /// `dst <<= bits`.
    pub(super) fn shift_left(&mut self, dst: Reg, bits: i32) {
        self.emit(ALU64_IMM | SHIFT_LEFT, dst, 0, 0, bits);
    }

    /// The two bytes loaded into `dst`, read in network order.
    pub(super) fn network_order(&mut self, dst: Reg) {
        self.emit(TO_BIG_ENDIAN, dst, 0, 0, 16);
    }

    /// Jumps if the lower 32 bits of `dst` compare so with `value`.
    pub(super) fn jump_if(&mut self, condition: If, dst: Reg, value: u32, to: Label) {
        self.jumps.push((self.insns.len(), to.0));
        self.emit(JMP32_IMM | condition as u8, dst, 0, 0, value.cast_signed());
    }

    /// Jumps if `dst` compares so with `src`, all 64 bits.
    pub(super) fn jump_if_reg(&mut self, condition: If, dst: Reg, src: Reg, to: Label) {
        self.jumps.push((self.insns.len(), to.0));
        self.emit(JMP_REG | condition as u8, dst, src as u8, 0, 0);
    }

    /// Jumps.
    pub(super) fn jump(&mut self, to: Label) {
        self.jumps.push((self.insns.len(), to.0));
        self.emit(GOTO, Reg::R0, 0, 0, 0);
    }

    /// `dst = map`, by its descriptor.
    pub(super) fn load_map(&mut self, dst: Reg, descriptor: i32) {
        self.emit(LOAD_IMM64, dst, PSEUDO_MAP_FD, 0, descriptor);
        self.emit(0, Reg::R0, 0, 0, 0);
    }

    /// Calls a function of the kernel by its number.
    pub(super) fn call(&mut self, function: i32) {
        self.emit(CALL, Reg::R0, 0, 0, function);
    }

    /// Returns `R0`.
    pub(super) fn exit(&mut self) {
        self.emit(EXIT, Reg::R0, 0, 0, 0);
    }

    /// The program; `None` if a jump is longer than an instruction can say.
    pub(super) fn finish(mut self) -> Option<Vec<Insn>> {
        for &(at, label) in &self.jumps {
            let distance = self.labels[label]?.checked_sub(at + 1)?;
            self.insns[at].offset = i16::try_from(distance).ok()?;
        }
        Some(self.insns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jumps_count_from_the_next_instruction() {
        let mut asm = Asm::default();
        let end = asm.label();
        asm.jump_if(If::Equal, Reg::R2, 0xffff_ffff, end);
        asm.set(Reg::R0, 1);
        asm.jump(end);
        asm.bind(end);
        asm.exit();
        let insns = asm.finish().unwrap();
        assert_eq!(insns[0], Insn { code: 0x16, registers: 2, offset: 2, imm: -1 });
        assert_eq!(insns[1], Insn { code: 0xb7, registers: 0, offset: 0, imm: 1 });
        assert_eq!(insns[2].offset, 0);
        assert_eq!(insns[3].code, 0x95);
    }

    #[test]
    fn a_label_never_bound_or_too_far_is_no_program() {
        let mut asm = Asm::default();
        let lost = asm.label();
        asm.jump(lost);
        assert!(asm.finish().is_none());
        let mut asm = Asm::default();
        let far = asm.label();
        asm.jump(far);
        (0..40_000).for_each(|_| asm.set(Reg::R0, 0));
        asm.bind(far);
        assert!(asm.finish().is_none());
    }
}
