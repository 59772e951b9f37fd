//! One named key in its generations: a file or environment variable of lines `ID KEY [open-only]`.
//!
//! Every line opens; the last line that is not `open-only` seals. A key is 16 or 32 bytes (AES-128-GCM,
//! AES-256-GCM), as hex or base64. `#` begins a comment. Invariant: key bytes are wiped when they are given
//! up, and nothing here prints them.

use core::fmt;
use std::io::{self, Read};
use std::path::PathBuf;

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use zeroize::Zeroizing;

/// The largest file that is read.
const FILE_BYTES_MAX: u64 = 64 << 10;
/// Keys one name may have.
const KEYS_MAX: usize = 64;
/// The word after a key that does not seal.
const OPEN_ONLY: &str = "open-only";
/// Base64 with or without its padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Where a named key is kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Source {
    /// A file.
    File(PathBuf),
    /// An environment variable.
    Env(String),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Env(name) => write!(f, "${name}"),
        }
    }
}

/// What is wrong with a named key, and where.
#[derive(Debug)]
pub struct KeyError {
    /// File or variable.
    pub source: Source,
    /// From 1; 0 if it is not one line's fault.
    pub line: usize,
    /// What.
    pub fault: KeyFault,
}

/// What can be wrong with a named key. Says no more of a key than its length.
#[derive(Debug)]
pub enum KeyFault {
    /// The file cannot be read.
    Unreadable(io::Error),
    /// The variable is not set.
    Unset,
    /// Longer than any keyring.
    TooLong,
    /// Not UTF-8.
    NotText,
    /// The line does not begin with a number below 2^32.
    NotAnId,
    /// Nothing follows the id.
    NoKey,
    /// Neither hex nor base64.
    NotHexOrBase64,
    /// A key of so many bytes.
    Length(usize),
    /// Something other than `open-only` follows the key.
    TrailingWord,
    /// This id has been used above.
    Twice(u32),
    /// More keys than one name may have.
    TooMany,
    /// No line seals.
    NoneSeals,
    /// The system gives no random numbers.
    NoRandom,
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.source)?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        f.write_str(": ")?;
        match &self.fault {
            KeyFault::Unreadable(error) => write!(f, "cannot be read: {error}"),
            KeyFault::Unset => f.write_str("this environment variable is not set"),
            KeyFault::TooLong => write!(f, "longer than a keyring of {KEYS_MAX} keys; is it the right file?"),
            KeyFault::NotText => f.write_str("not UTF-8; expected lines `ID KEY [open-only]`"),
            KeyFault::NotAnId => {
                f.write_str("expected a key id, 0 to 4294967295, as in `1 00112233445566778899aabbccddeeff`")
            }
            KeyFault::NoKey => f.write_str("expected a key after the id, as hex or base64"),
            KeyFault::NotHexOrBase64 => f.write_str("the key is neither hex nor base64"),
            KeyFault::Length(bytes) => write!(
                f,
                "a key of {bytes} bytes; expected 16 (AES-128-GCM) or 32 (AES-256-GCM); make one with \
                 `openssl rand -hex 32`"
            ),
            KeyFault::TrailingWord => write!(f, "expected `{OPEN_ONLY}` or nothing after the key"),
            KeyFault::Twice(id) => write!(f, "id {id} stands above already; give the new key another id"),
            KeyFault::TooMany => {
                write!(f, "more than {KEYS_MAX} keys; drop those nobody seals with any more")
            }
            KeyFault::NoneSeals => {
                write!(f, "no key seals: expected at least one line without `{OPEN_ONLY}`")
            }
            KeyFault::NoRandom => f.write_str("the system gives no random numbers"),
        }
    }
}

impl core::error::Error for KeyError {}

/// A key as its owner wrote it down. Nothing is ever sealed with it; others are derived from it.
pub(crate) struct NamedKey {
    pub(crate) id: u32,
    bytes: Zeroizing<Vec<u8>>,
}

impl NamedKey {
    /// 16 or 32.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl fmt::Debug for NamedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NamedKey({}, {} bit)", self.id, self.bytes.len() * 8)
    }
}

/// All keys of one name.
#[derive(Debug)]
pub(crate) struct Keyring {
    keys: Vec<NamedKey>,
    sealing: usize,
}

impl Keyring {
    /// The key that seals.
    pub(crate) fn sealing(&self) -> Option<&NamedKey> {
        self.keys.get(self.sealing)
    }

    /// The key with this id.
    pub(crate) fn find(&self, id: u32) -> Option<&NamedKey> {
        self.keys.iter().find(|key| key.id == id)
    }

    /// One key, which seals.
    #[cfg(any(test, feature = "dpdk"))]
    pub(crate) fn of(id: u32, bytes: &[u8]) -> Self {
        Self { keys: vec![NamedKey { id, bytes: Zeroizing::new(bytes.to_vec()) }], sealing: 0 }
    }

    /// Reads a source; the second is a warning.
    pub(crate) fn read(source: &Source) -> Result<(Self, Option<String>), KeyError> {
        let (text, warning) =
            load(source).map_err(|fault| KeyError { source: source.clone(), line: 0, fault })?;
        let ring =
            Self::parse(&text).map_err(|(line, fault)| KeyError { source: source.clone(), line, fault })?;
        Ok((ring, warning))
    }

    /// Reads the text of one.
    pub(crate) fn parse(text: &str) -> Result<Self, (usize, KeyFault)> {
        let mut ring = Self { keys: Vec::new(), sealing: usize::MAX };
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.split_once('#').map_or(line, |(before, _)| before);
            let mut words = line.split_whitespace();
            let Some(id) = words.next() else { continue };
            let (key, seals) = parse_line(id, words).map_err(|fault| (number, fault))?;
            if ring.find(key.id).is_some() {
                return Err((number, KeyFault::Twice(key.id)));
            }
            if ring.keys.len() == KEYS_MAX {
                return Err((number, KeyFault::TooMany));
            }
            if seals {
                ring.sealing = ring.keys.len();
            }
            ring.keys.push(key);
        }
        if ring.sealing().is_none() { Err((0, KeyFault::NoneSeals)) } else { Ok(ring) }
    }
}

fn parse_line<'a>(id: &str, mut words: impl Iterator<Item = &'a str>) -> Result<(NamedKey, bool), KeyFault> {
    let id = id.parse().map_err(|_| KeyFault::NotAnId)?;
    let bytes = key_bytes(words.next().ok_or(KeyFault::NoKey)?)?;
    let seals = match words.next() {
        None => true,
        Some(OPEN_ONLY) => false,
        Some(_) => return Err(KeyFault::TrailingWord),
    };
    if words.next().is_some() {
        return Err(KeyFault::TrailingWord);
    }
    Ok((NamedKey { id, bytes }, seals))
}

/// Hex first: what is hex of a right length is base64 of a wrong one.
fn key_bytes(text: &str) -> Result<Zeroizing<Vec<u8>>, KeyFault> {
    let is_hex = text.len().is_multiple_of(2) && text.bytes().all(|b| b.is_ascii_hexdigit());
    let bytes = if is_hex && matches!(text.len(), 32 | 64) {
        let pairs = text.as_bytes().chunks_exact(2).filter_map(|pair| core::str::from_utf8(pair).ok());
        Zeroizing::new(pairs.filter_map(|pair| u8::from_str_radix(pair, 16).ok()).collect())
    } else {
        let mut bytes = Zeroizing::new(vec![0; base64::decoded_len_estimate(text.len())]);
        match BASE64.decode_slice(text, &mut bytes) {
            Ok(len) => bytes.truncate(len),
            Err(_) if is_hex => return Err(KeyFault::Length(text.len() / 2)),
            Err(_) => return Err(KeyFault::NotHexOrBase64),
        }
        if is_hex && !matches!(bytes.len(), 16 | 32) {
            return Err(KeyFault::Length(text.len() / 2));
        }
        bytes
    };
    if matches!(bytes.len(), 16 | 32) { Ok(bytes) } else { Err(KeyFault::Length(bytes.len())) }
}

fn load(source: &Source) -> Result<(Zeroizing<String>, Option<String>), KeyFault> {
    match source {
        Source::File(path) => {
            let mut file = std::fs::File::open(path).map_err(KeyFault::Unreadable)?;
            let about = file.metadata().map_err(KeyFault::Unreadable)?;
            // Reserved at once: a buffer that grows would leave copies behind.
            let room = usize::try_from(about.len().min(FILE_BYTES_MAX) + 1).unwrap_or(0);
            let mut bytes = Zeroizing::new(Vec::with_capacity(room));
            file.by_ref().take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(KeyFault::Unreadable)?;
            if bytes.len() as u64 > FILE_BYTES_MAX {
                return Err(KeyFault::TooLong);
            }
            let text = core::str::from_utf8(&bytes).map_err(|_| KeyFault::NotText)?;
            Ok((Zeroizing::new(text.to_owned()), warning(source, &about)))
        }
        Source::Env(name) => {
            #[expect(clippy::disallowed_methods, reason = "node.toml names the variable")]
            let value = std::env::var(name);
            match value {
                Ok(text) => Ok((Zeroizing::new(text), None)),
                Err(std::env::VarError::NotPresent) => Err(KeyFault::Unset),
                Err(std::env::VarError::NotUnicode(_)) => Err(KeyFault::NotText),
            }
        }
    }
}

/// A key that others may read is no secret.
fn warning(source: &Source, about: &std::fs::Metadata) -> Option<String> {
    use std::os::unix::fs::PermissionsExt;
    let mode = about.permissions().mode() & 0o777;
    (mode & 0o077 != 0)
        .then(|| format!("{source}: others than its owner may read it (mode {mode:o}); chmod 600 {source}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "000102030405060708090a0b0c0d0e0f";

    #[test]
    fn hex_and_base64_of_both_lengths_give_the_same_key() {
        let long: String = HEX.repeat(2);
        let text = format!("7 {HEX}\n# all\n\n 8 AAECAwQFBgcICQoLDA0ODw== open-only # old\n9 {long}\n");
        let ring = Keyring::parse(&text).unwrap();
        assert_eq!(ring.find(7).unwrap().bytes(), ring.find(8).unwrap().bytes());
        assert_eq!(ring.find(8).unwrap().bytes(), (0..16).collect::<Vec<u8>>());
        assert_eq!(ring.find(9).unwrap().bytes().len(), 32);
        assert_eq!(ring.sealing().unwrap().id, 9);
        let text = format!("7 {HEX}\n8 AAECAwQFBgcICQoLDA0ODw open-only");
        assert_eq!(Keyring::parse(&text).unwrap().sealing().unwrap().id, 7, "an open-only key never seals");
        assert_eq!(format!("{:?}", ring.sealing().unwrap()), "NamedKey(9, 256 bit)");
    }

    #[test]
    fn every_fault_names_its_line_and_never_the_key() {
        for (text, line, says) in [
            ("", 0, "no key seals"),
            ("1 000102030405060708090a0b0c0d0e0f open-only", 0, "without `open-only`"),
            ("# a\none 000102030405060708090a0b0c0d0e0f", 2, "expected a key id"),
            ("4294967296 000102030405060708090a0b0c0d0e0f", 1, "0 to 4294967295"),
            ("5", 1, "expected a key after the id"),
            ("5 000102030405060708090a0b0c0d0e", 1, "a key of 15 bytes; expected 16"),
            ("5 000102030405060708090a0b0c0d0e0f00010203", 1, "a key of 20 bytes"),
            ("5 AAECAwQFBgcICQoLDA0ODxAREhMUFRYX", 1, "a key of 24 bytes"),
            ("5 s3cret-s3cret!", 1, "neither hex nor base64"),
            ("5 000102030405060708090a0b0c0d0e0f openonly", 1, "expected `open-only` or nothing"),
            ("5 000102030405060708090a0b0c0d0e0f open-only x", 1, "expected `open-only` or nothing"),
            (
                "5 000102030405060708090a0b0c0d0e0f\n5 000102030405060708090a0b0c0d0e0f",
                2,
                "id 5 stands above",
            ),
        ] {
            let (at, fault) = Keyring::parse(text).unwrap_err();
            assert_eq!(at, line, "{text}");
            let error = KeyError { source: Source::File("/k".into()), line, fault }.to_string();
            assert!(error.contains(says), "{error}");
            assert!(line == 0 || error.starts_with(&format!("/k:{line}: ")), "{error}");
            // The hint shows an example of its own; nothing of the line's key may stand there.
            assert!(
                !error.contains("0a0b0c") && !error.contains("AAEC") && !error.contains("s3cret"),
                "{error}"
            );
        }
        let many: String = (0..65).map(|id| format!("{id} {HEX}\n")).collect();
        assert!(matches!(Keyring::parse(&many), Err((65, KeyFault::TooMany))));
    }
}
