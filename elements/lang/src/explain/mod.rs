//! `towpath explain`: what the compiler decided, and why.
//!
//! [`facts`] is what compiling leaves behind of a program's meaning; [`report`](Report) joins it with the
//! program and its byte code, once for people and once as JSON; [`call`] takes one imagined call through its
//! chain. Nothing here changes what runs.

mod call;
pub(crate) mod facts;
mod imagined;
mod json;
mod message;
mod model;
mod order;
mod routes;
#[cfg(test)]
mod tests;
mod text;

use std::sync::Arc;

use crate::diag::Diagnostics;
use crate::vm::Image;

pub use call::{Imagined, ParseError, parse_call};
pub use facts::Analysis;
pub use message::Protocols;

/// All that an explanation is made of.
#[derive(Clone, Copy, Debug)]
pub struct Report<'a> {
    /// The program.
    pub program: &'a abi::Program,
    /// The byte code of each chain.
    pub images: &'a [Arc<Image>],
    /// What compiling found out.
    pub analysis: &'a Analysis,
    /// What is worth knowing.
    pub notes: &'a Diagnostics,
}

impl<'a> Report<'a> {
    /// Of a program that has just been compiled.
    pub fn of(compiled: &'a crate::Compiled) -> Self {
        let crate::Compiled { program, images, analysis, notes, .. } = compiled;
        Self { program, images, analysis, notes }
    }

    /// For people.
    pub fn text(&self) -> String {
        text::render(self)
    }

    /// For programs: the same facts under stable names.
    pub fn json(&self) -> String {
        json::render(self).to_string()
    }

    /// Which rule one call meets and why, and what each element does to it.
    ///
    /// # Errors
    /// One line, when a service of the call is unknown.
    pub fn call(&self, call: &Imagined) -> Result<String, String> {
        call::render(self, call)
    }
}
