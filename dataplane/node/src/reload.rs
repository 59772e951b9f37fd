//! What a reload did, in words; and where the running program came from.

use std::fmt::Write;

use lang::state::StateReport;
use lang::{Diagnostics, Sources};

use crate::clock;
use crate::value::show_ns;

/// Keys named for each fate of state; beyond that they are counted.
const KEYS_MAX: usize = 20;

/// Where the program in force came from.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    /// The application's file, as the user named it.
    pub(crate) file: String,
    /// XXH64 of the texts of all its files, one after the other: `xxhsum` says the same of a single file.
    pub(crate) hash: u64,
    /// When it was compiled, UTC.
    pub(crate) time: String,
}

impl Origin {
    /// Of the program compiled just now.
    pub(crate) fn of(file: &str, notes: &Diagnostics) -> Self {
        let sources: &Sources = notes.sources();
        Self { file: file.to_owned(), hash: sources.digest(), time: clock::utc() }
    }

    /// `shop.adn (xxh64 01ab…, since 2026-11-21T12:00:00Z)`.
    pub(crate) fn text(&self) -> String {
        format!("{} (xxh64 {:016x}, since {})", self.file, self.hash, self.time)
    }
}

/// What happened when a node took a program over.
#[derive(Debug)]
pub(crate) struct Adoption {
    /// What became of elements' state.
    pub(crate) state: StateReport,
    /// Which generation each shard runs now.
    pub(crate) shards: Vec<u64>,
    /// How long it waited for older generations to end, nanoseconds.
    pub(crate) waited_ns: u64,
    /// Calls of the oldest generation that were ended for it.
    pub(crate) ended: u64,
}

/// `generation 3 on every shard`, or which shard runs what.
pub(crate) fn generations(wanted: u64, shards: &[u64]) -> String {
    if shards.iter().all(|g| *g == wanted) {
        return format!("generation {wanted} on every shard");
    }
    let each: Vec<String> = shards.iter().enumerate().map(|(at, g)| format!("shard {at} runs {g}")).collect();
    format!("generation {wanted}, not on every shard yet: {}", each.join(", "))
}

/// The lines of a reload that went well: what `towpath reload` prints and SIGHUP logs.
pub(crate) fn text(generation: u64, summary: &str, keys: &[&str], done: &Adoption) -> String {
    // Writing to a String does not fail, here and below.
    let mut out = format!("towpath: reloaded, {}: {summary}\n", generations(generation, &done.shards));
    if done.waited_ns > 0 {
        let _ = writeln!(
            out,
            "  waited   {}: {} generations were alive, held by long calls",
            show_ns(done.waited_ns),
            shard::GENERATIONS_MAX
        );
    }
    if done.ended > 0 {
        let _ = writeln!(out, "  ended    {} calls of the oldest generation, with UNAVAILABLE", done.ended);
    }
    if !keys.is_empty() {
        let _ = writeln!(out, "  keys     {}: read again", keys.join(", "));
    }
    let state = &done.state;
    let reset: Vec<String> = state.reset.iter().map(|(key, why)| format!("{key}: {why}")).collect();
    for (what, keys) in
        [("kept", &state.kept), ("reset", &reset), ("new", &state.added), ("dropped", &state.dropped)]
    {
        for key in keys.iter().take(KEYS_MAX) {
            let _ = writeln!(out, "  {what:9}{key}");
        }
        if keys.len() > KEYS_MAX {
            let _ = writeln!(out, "  {what:9}… and {} more", keys.len() - KEYS_MAX);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reload_says_what_became_of_state_and_calls() {
        let state = StateReport {
            kept: vec!["a -> b/RateLimit.admitted".into()],
            reset: vec![("a -> b/Cache.seen".into(), "was counter, is window".into())],
            added: (0..22).map(|n| format!("k{n}")).collect(),
            dropped: vec![],
        };
        let done = Adoption { state, shards: vec![3, 3], waited_ns: 2_000_000_000, ended: 4 };
        let said = text(3, "shop.adn: ok", &["fabric", "backup"], &done);
        for line in [
            "towpath: reloaded, generation 3 on every shard: shop.adn: ok",
            "  waited   2.00 s: 16 generations were alive, held by long calls",
            "  ended    4 calls of the oldest generation, with UNAVAILABLE",
            "  keys     fabric, backup: read again",
            "  kept     a -> b/RateLimit.admitted",
            "  reset    a -> b/Cache.seen: was counter, is window",
            "  new      k19",
            "  new      … and 2 more",
        ] {
            assert!(said.lines().any(|l| l == line), "missing: {line}\n{said}");
        }
        assert!(!said.contains("dropped"));
        assert_eq!(
            generations(3, &[3, 2]),
            "generation 3, not on every shard yet: shard 0 runs 3, shard 1 runs 2"
        );
    }
}
