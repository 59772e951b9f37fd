//! Byte code as text, for golden files and for people.

use std::fmt::Write;

use abi::Entry;

use super::Image;
use super::code::{Code, Op, Where, is_const_list, slice_parts};

impl Image {
    /// The listing of every entry that has code.
    pub fn listing(&self) -> String {
        let mut out = String::new();
        let names: Vec<&str> = self.plan.elements.iter().map(|e| e.text.as_str()).collect();
        // Writing to a String does not fail.
        let _ = writeln!(out, "chain {}", names.join(" - "));
        if self.plan.call_words > 0 {
            let _ = writeln!(out, "  words {}", self.plan.call_words);
        }
        let entries = [
            ("request", Entry::Request),
            ("pick", Entry::Pick),
            ("request message", Entry::RequestMessage),
            ("response message", Entry::ResponseMessage),
            ("response", Entry::Response),
        ];
        for (name, entry) in entries {
            if let Some(code) = self.code(entry) {
                self.entry(&mut out, name, code);
            }
        }
        out
    }

    fn entry(&self, out: &mut String, name: &str, code: &Code) {
        let scratch = if code.scratch { ", scratch" } else { "" };
        let _ = writeln!(out, "{name}: {} registers{scratch}", code.regs);
        for (at, op) in code.ops.iter().enumerate() {
            let _ = write!(out, "  {at:3} {op:?}");
            self.remark(out, op);
            out.push('\n');
        }
        for (at, segment) in code.segments.iter().enumerate() {
            let _ = writeln!(out, "  segment {} at {} keeps {}", at + 1, segment.pc, segment.live);
        }
    }

    fn remark(&self, out: &mut String, op: &Op) {
        let _ = match op {
            Op::Const { k, .. } => {
                let word = self.shared.consts.get(usize::from(*k)).copied().unwrap_or(0);
                let (place, at, _) = slice_parts(word);
                match place {
                    _ if is_const_list(word) => {
                        write!(out, "  // {:?}", self.shared.list(at))
                    }
                    Where::Consts => write!(out, "  // {:?}", self.shared.text(at)),
                    _ => write!(out, "  // {word:#x} = {:e}", f64::from_bits(word)),
                }
            }
            Op::Reject { site, .. } | Op::Would { site } => match self.shared.rejects.get(usize::from(*site))
            {
                Some(site) => write!(out, "  // line {} of element {}", site.line, site.element),
                None => Ok(()),
            },
            Op::Log { site } => match self.shared.logs.get(usize::from(*site)) {
                Some(site) => {
                    let fields: Vec<String> =
                        site.fields.iter().map(|f| format!("{}: r{}", f.name, f.reg)).collect();
                    write!(out, "  // {:?} {}", site.level, fields.join(", "))
                }
                None => Ok(()),
            },
            _ => Ok(()),
        };
    }
}
