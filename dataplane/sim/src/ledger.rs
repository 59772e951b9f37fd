//! What every peer did and saw, compared when a run ends and, for contents, as bytes arrive.

use crate::net::LinkId;

/// All that is known of a run, by whoever saw it.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) flows: Vec<Flow>,
    /// What no peer should have seen.
    pub(crate) problems: Vec<String>,
}

/// One end of a relayed byte stream.
#[derive(Debug)]
pub(crate) struct Flow {
    pub(crate) link: LinkId,
    pub(crate) is_client: bool,
    /// The flow at the other end of the relay, once its first bytes have come.
    pub(crate) partner: Option<usize>,
    pub(crate) sent: u64,
    pub(crate) received: u64,
    /// It sent all it had, and a FIN.
    pub(crate) finished: bool,
    pub(crate) saw_eof: bool,
    pub(crate) saw_reset: bool,
    /// It broke the connection by itself.
    pub(crate) aborted: bool,
    pub(crate) done: bool,
}

impl Ledger {
    pub(crate) fn problem(&mut self, what: String) {
        // One is enough to fail a run, and a broken run may find very many.
        if self.problems.len() < 20 {
            self.problems.push(what);
        }
    }

    /// Opens a flow.
    pub(crate) fn flow(&mut self, link: LinkId, is_client: bool) -> usize {
        self.flows.push(Flow {
            link,
            is_client,
            partner: None,
            sent: 0,
            received: 0,
            finished: false,
            saw_eof: false,
            saw_reset: false,
            aborted: false,
            done: false,
        });
        self.flows.len() - 1
    }
}
