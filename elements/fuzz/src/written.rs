//! Registers are written before they are read: the interpreter and machine code agree on what an unwritten one holds,
//! so that comparing them does not show it.

use std::collections::BTreeSet;

use lang::vm::code::Reg;
use lang::vm::{Code, Image, Op, Touched};

/// A register that is read and that nothing before has written, by any way there. (By every way would be too much: the
/// value of a `T?` is not written where its presence is written as `false`.)
pub fn unwritten(image: &Image) -> Option<String> {
    image.entries().find_map(|(entry, code)| {
        let (at, reg) = first(image, code)?;
        Some(format!("{entry:?} {at} reads register {reg}, which nothing wrote:\n{}", image.listing()))
    })
}

fn first(image: &Image, code: &Code) -> Option<(usize, Reg)> {
    let touched: Vec<Touched> = (code.ops.iter())
        .map(|op| {
            let mut touched = op.touched(&image.shared, code);
            if let Op::Delay { a, .. } = op {
                // What it keeps is all below some register, needed or not.
                touched.reads = vec![*a];
            }
            touched
        })
        .collect();
    // By instruction: what may have been written before it.
    let mut before: Vec<Option<BTreeSet<Reg>>> = vec![None; code.ops.len() + 1];
    let mut open = vec![(0, BTreeSet::new())];
    while let Some((at, come)) = open.pop() {
        let known = before.get_mut(at)?;
        if known.as_ref().is_some_and(|known| known.is_superset(&come)) {
            continue;
        }
        let known = known.get_or_insert_default();
        known.extend(come);
        let (Some(op), Some(touched)) = (code.ops.get(at), touched.get(at)) else { continue };
        let mut after = known.clone();
        after.extend(&touched.writes);
        if matches!(op, Op::Mark { .. }) && !matches!(code.ops.get(at + 1), Some(Op::Reject { .. })) {
            // The next element begins with registers of its own.
            after.clear();
        }
        if let Some(to) = op.target() {
            open.push((to as usize, after.clone()));
        }
        if !matches!(op, Op::Jump { .. } | Op::End) {
            open.push((at + 1, after));
        }
    }
    (before.iter().zip(&touched).enumerate()).find_map(|(at, (before, touched))| {
        let before = before.as_ref()?;
        Some((at, *touched.reads.iter().find(|reg| !before.contains(reg))?))
    })
}
