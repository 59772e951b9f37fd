//! `[offload]` and `[keys]`: where jobs of chains run, and the node's named keys.

use std::path::PathBuf;
use std::sync::Arc;

use lang::Compiled;
use offload::{Choice, Keys, SealOptions, Source};
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
    /// `[offload] compression`.
    pub(crate) compression: Place,
    /// `[offload] crypto`.
    pub(crate) crypto: Place,
    /// `[offload] placement`: which jobs a device takes.
    pub(crate) choice: Choice,
    /// `[offload] call_age_max`: how far the time in a sealed call may be from our clock.
    pub(crate) call_age_max_s: u32,
}

/// Who does a kind of work.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) enum Place {
    /// This CPU's own libraries.
    #[default]
    Cpu,
    /// A device of DPDK's, where it is the better one.
    Dpdk(String),
}

impl Place {
    fn read(text: &str) -> Result<Self, String> {
        // As in 3b:00.1 and 0000:3b:00.1.
        let is_pci = text.rsplit_once(':').is_some_and(|(bus, slot)| {
            let is_hex = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_hexdigit());
            bus.split(':').all(is_hex) && slot.split_once('.').is_some_and(|(d, f)| is_hex(d) && is_hex(f))
        });
        match text.strip_prefix("dpdk:") {
            Some(device) if !device.is_empty() => Ok(Self::Dpdk(device.to_owned())),
            None if text == "cpu" => Ok(Self::Cpu),
            None if is_pci => Ok(Self::Dpdk(text.to_owned())),
            _ => Err(format!(
                "\"{text}\" is no place for jobs: expected \"cpu\", \"dpdk:DEVICE\" (as in \"dpdk:compress_isal0\", \
                 \"dpdk:crypto_aesni_gcm0\") or a PCI address"
            )),
        }
    }

    fn device(&self) -> Option<&str> {
        match self {
            Self::Cpu => None,
            Self::Dpdk(device) => Some(device),
        }
    }

    fn text(&self) -> String {
        self.device().map_or_else(|| "cpu".to_owned(), |device| format!("dpdk:{device}"))
    }
}

impl Default for Offload {
    fn default() -> Self {
        Self {
            keys: Vec::new(),
            compression: Place::Cpu,
            crypto: Place::Cpu,
            choice: Choice::Measured,
            call_age_max_s: SealOptions::AGE_MAX_S,
        }
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

impl Offload {
    /// The devices for compression and for seals.
    pub(crate) fn devices(&self) -> [Option<&str>; 2] {
        [self.compression.device(), self.crypto.device()]
    }

    /// As `node.toml` has it. Keys by where they are kept.
    pub(crate) fn text(&self) -> String {
        let choice = CHOICES.iter().find(|(_, choice)| *choice == self.choice).map_or("", |(name, _)| name);
        let mut out = format!(
            "[offload]\ncompression = {:?}\ncrypto = {:?}\nplacement = {choice:?}\ncall_age_max = \"{}s\"\n",
            self.compression.text(),
            self.crypto.text(),
            self.call_age_max_s
        );
        if !self.keys.is_empty() {
            out.push_str("[keys]\n");
        }
        for (name, source) in &self.keys {
            let at = match source {
                Source::File(path) => path.display().to_string(),
                Source::Env(variable) => format!("env:{variable}"),
            };
            out.push_str(&format!("{name:?} = {at:?}\n"));
        }
        out
    }
}

const CHOICES: [(&str, Choice); 2] = [("measured", Choice::Measured), ("pinned", Choice::Pinned)];

/// Reads `[offload]`.
pub(super) fn read(r: &mut Reader, value: &Spanned<DeValue<'_>>, c: &mut Offload) {
    const KEYS: [&str; 4] = ["compression", "crypto", "placement", "call_age_max"];
    r.table(value, "[offload]", &KEYS, |r, key, value| match key {
        "compression" => c.compression = r.parsed(value, Place::read).unwrap_or_default(),
        "crypto" => c.crypto = r.parsed(value, Place::read).unwrap_or_default(),
        "placement" => c.choice = r.one_of(value, &CHOICES).unwrap_or_default(),
        _ => {
            let seconds = r.parsed(value, duration_ns).map(|ns| ns / 1_000_000_000);
            match seconds.map(u32::try_from) {
                Some(Ok(seconds @ 1..=3600)) => c.call_age_max_s = seconds,
                Some(_) => r.problem(value.span(), "not between 1 s and 1 h", "expected, say, \"60s\""),
                None => {}
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
