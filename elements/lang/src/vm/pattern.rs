//! What `matches` looks for: a regular expression as a table of states, made when compiling. A text is read
//! once, byte by byte; nothing is allocated.

use std::fmt;
use std::sync::Arc;

use regex_automata::dfa::{Automaton, dense};
use regex_automata::util::syntax;
use regex_automata::{Input, MatchKind};

/// Bytes of the largest table.
const TABLE_BYTES_MAX: usize = 1 << 20;
/// Bytes of the longest expression.
const PATTERN_BYTES_MAX: usize = 1024;

/// A regular expression.
#[derive(Clone)]
pub struct Pattern(Arc<dense::DFA<Vec<u32>>>);

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pattern({} B)", self.0.memory_usage())
    }
}

impl Pattern {
    /// Reads an expression; the error is one sentence.
    pub(crate) fn new(text: &str) -> Result<Self, String> {
        if text.len() > PATTERN_BYTES_MAX {
            return Err(format!("expected at most {PATTERN_BYTES_MAX} bytes"));
        }
        // Classes are those of ASCII: `\w` is a letter, digit or `_`.
        let syntax = syntax::Config::new().unicode(false).utf8(false).nest_limit(50);
        let config = dense::Config::new()
            .match_kind(MatchKind::All)
            .dfa_size_limit(Some(TABLE_BYTES_MAX))
            .determinize_size_limit(Some(TABLE_BYTES_MAX));
        match dense::Builder::new().syntax(syntax).configure(config).build(text) {
            Ok(dfa) => Ok(Self(Arc::new(dfa))),
            Err(error) => {
                let mut why: &dyn std::error::Error = &error;
                while let Some(source) = why.source() {
                    why = source;
                }
                let text = why.to_string();
                Err(text.lines().last().unwrap_or("it is too large").trim_start_matches("error: ").to_owned())
            }
        }
    }

    /// It is somewhere in the text.
    pub(crate) fn is_in(&self, text: &str) -> bool {
        // A dense table reads every text; an error would say that it may not read a byte.
        matches!(self.0.try_search_fwd(&Input::new(text).earliest(true)), Ok(Some(_)))
    }
}
