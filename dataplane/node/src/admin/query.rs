//! The part of a path behind `?`: names and values, percent-encoded (RFC 3986, section 2.1).

use std::fmt::Write;

/// Writes pairs behind a path.
pub(super) fn encode<'a>(path: &str, pairs: impl IntoIterator<Item = (&'a str, String)>) -> String {
    let mut out = path.to_owned();
    for (at, (name, value)) in pairs.into_iter().enumerate() {
        out.push(if at == 0 { '?' } else { '&' });
        out.push_str(name);
        out.push('=');
        for byte in value.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                out.push(char::from(byte));
            } else {
                // A `String` takes whatever is written.
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
    out
}

/// The value of a name, if the path has one that is text.
pub(super) fn value(path: &str, name: &str) -> Option<String> {
    let (_, query) = path.split_once('?')?;
    let encoded = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))?;
    let (mut bytes, mut rest) = (Vec::new(), encoded.as_bytes());
    while let Some((&first, behind)) = rest.split_first() {
        let (byte, behind) = match (first, behind) {
            (b'%', [high, low, behind @ ..]) => {
                let digits = [*high, *low];
                (u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?, behind)
            }
            _ => (first, behind),
        };
        bytes.push(byte);
        rest = behind;
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_comes_back() {
        let filter = "(tcp and port 80) or host fd00::2/é%&=";
        let path = encode("/capture", [("port", "fabric".to_owned()), ("filter", filter.to_owned())]);
        assert!(path.is_ascii() && !path.contains(' '), "{path}");
        assert_eq!(value(&path, "port").as_deref(), Some("fabric"));
        assert_eq!(value(&path, "filter").as_deref(), Some(filter));
        assert_eq!(
            (value(&path, "por"), value("/capture", "port"), value("/x?a=%ff", "a")),
            (None, None, None)
        );
    }
}
