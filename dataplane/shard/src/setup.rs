//! What a shard is given at its start.

use alloc::{string::String, sync::Arc, vec::Vec};

use abi::Program;
use wire::Instant;

use crate::Limits;

/// Everything a shard knows of the node.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Which shard this is, from 0.
    pub shard: u16,
    /// The application.
    pub program: Arc<Program>,
    /// For each of `program.sinks`, the number [`crate::Log::access`] is called with.
    pub sinks: Vec<u16>,
    /// The listeners; a [`crate::ListenerId`] is a place in this list.
    pub listeners: Vec<Listener>,
    /// Names of the raw ports; [`crate::Via::Port`] is a place in this list.
    pub ports: Vec<String>,
    /// Bounds of everything.
    pub limits: Limits,
    /// What `random()` and every choice of the shard derive from.
    pub seed: u64,
    /// A clock for timing the elements of sampled calls; no decision depends on it.
    pub clock: fn() -> Instant,
    /// Which calls go to the node's own access log (sink 0) besides what elements ask for.
    pub access: AccessWhen,
}

/// A listener's settings.
#[derive(Clone, Debug)]
pub struct Listener {
    /// What `from: ["listen:NAME"]` means; empty if it has none.
    pub name: String,
    /// Its unix socket's path, for `from: ["unix:PATH"]`.
    pub unix_path: Option<String>,
    /// The service its calls go to whatever their authority says.
    pub destination: Option<String>,
    /// What it expects.
    pub protocol: Protocol,
}

/// What a listener's connections speak.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Protocol {
    /// HTTP/2 with prior knowledge.
    H2,
    /// Anything: relayed as bytes.
    Tcp,
    /// HTTP/2 if the first bytes are its preface, else bytes.
    Auto,
}

/// When the node's own access log has a line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AccessWhen {
    /// Never.
    Never,
    /// For calls that did not end with OK.
    Failures,
    /// For every call.
    Always,
}
