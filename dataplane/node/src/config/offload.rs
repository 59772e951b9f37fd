//! `[offload]` and `[keys]`: where jobs of chains run, and the node's named keys.

use std::path::PathBuf;
use std::sync::Arc;

use lang::Compiled;
use offload::{Keys, SealOptions, Source};
use toml::Spanned;
use toml::de::DeValue;

use super::reader::Reader;
use crate::clock;
use crate::failure::{Failure, Outcome, is_coloured};
use crate::value::duration_ns;

/// What `node.toml` says of jobs and keys.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Offload {
    /// `[keys]`: name and where the key is kept.
    pub(crate) keys: Vec<(String, Source)>,
    /// `[offload] call_age_max`: how far the time in a sealed call may be from our clock.
    pub(crate) call_age_max_s: u32,
}

impl Default for Offload {
    fn default() -> Self {
        Self { keys: Vec::new(), call_age_max_s: SealOptions::AGE_MAX_S }
    }
}

impl Offload {
    /// Refuses an application that names other keys.
    ///
    /// # Errors
    /// Each place where it does, drawn.
    pub(crate) fn check_keys(&self, compiled: &Compiled) -> Outcome<()> {
        let missing = compiled.keys_missing(Some(&|name| self.keys.iter().any(|(known, _)| known == name)));
        if missing.is_empty() { Ok(()) } else { Err(Failure::drawn(missing.render(is_coloured()))) }
    }

    /// The files they are in.
    pub(crate) fn key_files(&self) -> impl Iterator<Item = PathBuf> {
        self.keys.iter().filter_map(|(_, source)| match source {
            Source::File(path) => Some(path.clone()),
            Source::Env(_) => None,
        })
    }

    /// Reads the named keys; warnings go to standard error.
    ///
    /// # Errors
    /// One line with the file and line that is wrong.
    pub(crate) fn open_keys(&self) -> Outcome<Arc<Keys>> {
        let options =
            SealOptions { age_max_s: self.call_age_max_s, ..SealOptions::with_clock(clock::wall_s) };
        let opened = Keys::open(self.keys.iter().cloned(), options);
        let (keys, warnings) = opened.map_err(|error| Failure::line(format!("[keys]: {error}")))?;
        for warning in warnings {
            eprintln!("towpath: [keys]: {warning}");
        }
        Ok(Arc::new(keys))
    }
}

/// Reads `[offload]`.
pub(super) fn read(r: &mut Reader, value: &Spanned<DeValue<'_>>, c: &mut Offload) {
    r.table(value, "[offload]", &["compression", "crypto", "call_age_max"], |r, key, value| match key {
        "call_age_max" => {
            let seconds = r.parsed(value, duration_ns).map(|ns| ns / 1_000_000_000);
            match seconds.map(u32::try_from) {
                Some(Ok(seconds @ 1..=3600)) => c.call_age_max_s = seconds,
                Some(_) => r.problem(value.span(), "not between 1 s and 1 h", "expected, say, \"60s\""),
                None => {}
            }
        }
        _ => {
            if r.string(value).is_some_and(|to| to != "cpu") {
                r.later(value.span(), "an offload queue on a device", "use \"cpu\"");
            }
        }
    });
}

/// Reads `[keys]`.
pub(super) fn keys(r: &mut Reader, value: &Spanned<DeValue<'_>>, c: &mut Offload) {
    let DeValue::Table(table) = value.get_ref() else {
        r.problem(value.span(), "[keys] is a table", "expected NAME = \"PATH\" or NAME = \"env:VARIABLE\"");
        return;
    };
    for (name, value) in table {
        let Some(at) = r.string(value) else { continue };
        let source = match at.strip_prefix("env:") {
            Some(variable) => Source::Env(variable.to_owned()),
            None => Source::File(at.into()),
        };
        c.keys.push((name.get_ref().to_string(), source));
    }
}
