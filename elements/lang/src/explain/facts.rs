//! What the compiler found out about an application, as data.

use std::sync::Arc;

use abi::{MethodMatch, ServiceIdx};

/// Everything [`super::Report`] says that the program and its images do not.
#[derive(Clone, Debug, Default)]
pub struct Analysis {
    /// In the order written.
    pub(crate) rules: Vec<RuleFacts>,
    /// As [`crate::Compiled::images`].
    pub(crate) chains: Vec<ChainFacts>,
    /// As the program's routes: which rule each is of.
    pub(crate) routes: Vec<u32>,
}

/// A rule.
#[derive(Clone, Debug)]
pub(crate) struct RuleFacts {
    /// Up to the colon, `frontend -> catalog`.
    pub(crate) text: String,
    pub(crate) file: Arc<str>,
    pub(crate) line: u32,
    pub(crate) every: bool,
    /// It stands in a file of the operator.
    pub(crate) operator: bool,
    /// `None` is any caller.
    pub(crate) sources: Vec<Option<ServiceIdx>>,
    pub(crate) destination: Option<ServiceIdx>,
    pub(crate) method: MethodMatch,
}

/// A chain.
#[derive(Clone, Debug, Default)]
pub(crate) struct ChainFacts {
    /// From left to right.
    pub(crate) links: Vec<LinkFacts>,
}

/// A link of a chain.
#[derive(Clone, Debug)]
pub(crate) struct LinkFacts {
    pub(crate) element: Arc<ElementFacts>,
    /// Which rule put it there.
    pub(crate) rule: u32,
    /// Where it stands.
    pub(crate) file: Arc<str>,
    pub(crate) line: u32,
}

/// An element with the arguments of one link.
#[derive(Clone, Debug, Default)]
pub(crate) struct ElementFacts {
    pub(crate) name: String,
    /// As written, `FaultInjection(0.1)`.
    pub(crate) text: String,
    pub(crate) dry: bool,
    /// The condition of its link, and what that reads.
    pub(crate) when: Option<String>,
    /// Where it is declared.
    pub(crate) file: Arc<str>,
    pub(crate) params: Vec<ParamFacts>,
    pub(crate) states: Vec<StateFacts>,
    pub(crate) handlers: Vec<HandlerFacts>,
    /// `request` does nothing but choose an endpoint.
    pub(crate) only_chooses: bool,
}

/// A parameter.
#[derive(Clone, Debug)]
pub(crate) struct ParamFacts {
    pub(crate) name: String,
    /// The constant, or the expression over the call.
    pub(crate) value: String,
    pub(crate) kind: ParamKind,
}

/// What became of a parameter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ParamKind {
    Constant,
    /// Taken once a call, at the request.
    PerCall,
    /// Nothing that is left reads it.
    Unread,
}

/// A state.
#[derive(Clone, Debug)]
pub(crate) struct StateFacts {
    pub(crate) name: String,
    pub(crate) scope: &'static str,
    pub(crate) ty: String,
    /// What happens when several touch it at once.
    pub(crate) atomic: &'static str,
}

/// A handler, as far as the link's arguments leave it.
#[derive(Clone, Debug, Default)]
pub(crate) struct HandlerFacts {
    /// `request`, `response message`, …
    pub(crate) kind: &'static str,
    pub(crate) reads: Vec<String>,
    pub(crate) writes: Vec<String>,
    /// Effects that end nothing: `logs a line`, `counts x`, …
    pub(crate) does: Vec<String>,
    pub(crate) rejects: Vec<Exit>,
    pub(crate) delays: Vec<Wait>,
    pub(crate) folded: Vec<Folded>,
}

impl HandlerFacts {
    pub(crate) fn is_request(&self) -> bool {
        self.kind == "request"
    }
}

/// A `reject`.
#[derive(Clone, Debug)]
pub(crate) struct Exit {
    pub(crate) line: u32,
    pub(crate) status: String,
    pub(crate) text: String,
    /// If chance alone decides: how likely.
    pub(crate) chance: Option<f64>,
    /// A call in which this is absent passes.
    pub(crate) passes: Vec<String>,
}

/// A `delay`.
#[derive(Clone, Debug)]
pub(crate) struct Wait {
    pub(crate) line: u32,
    pub(crate) time: String,
    pub(crate) chance: Option<f64>,
}

/// A branch that the link's arguments decided.
#[derive(Clone, Debug)]
pub(crate) struct Folded {
    pub(crate) line: u32,
    /// `delay > 0s` or `match policy`.
    pub(crate) what: String,
    /// `false`, or the arm.
    pub(crate) is: String,
    /// Parameters and their values.
    pub(crate) because: Vec<(String, String)>,
}
