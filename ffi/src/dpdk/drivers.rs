//! Which drivers this process has loaded, and what their devices take: for errors and for `doctor`.
//!
//! DPDK exports no list. Every driver's shared object carries a line of JSON for `dpdk-pmdinfo`; the objects
//! are those mapped into this process.

use std::collections::BTreeSet;
use std::path::PathBuf;

/// One driver.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Driver {
    /// Its name; a device string begins with it: `net_memif0`.
    pub name: String,
    /// It drives hardware named by a PCI address.
    pub pci: bool,
    /// The parameters of its device strings, as it describes them.
    pub parameters: String,
}

const MARK: &[u8] = b"PMD_INFO_STRING= ";

/// The drivers loaded, by name. Empty before the EAL has started.
pub fn drivers() -> Vec<Driver> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let objects: BTreeSet<PathBuf> = maps
        .lines()
        .filter_map(|line| line.find('/').map(|at| &line[at..]))
        .filter(|path| ["librte_net_", "librte_crypto_", "librte_compress_"].iter().any(|p| path.contains(p)))
        .map(PathBuf::from)
        .collect();
    let found: BTreeSet<Driver> = objects
        .iter()
        .filter_map(|path| std::fs::read(path).ok())
        .flat_map(|bytes| describe(&bytes))
        .collect();
    found.into_iter().collect()
}

/// True for `3b:00.1` and `0000:3b:00.1`.
pub fn is_pci(device: &str) -> bool {
    let mut parts = device.rsplit(':');
    let hex = |text: &str, len: usize| text.len() == len && text.bytes().all(|b| b.is_ascii_hexdigit());
    let slot = parts.next().and_then(|text| text.split_once('.'));
    let bus = parts.next();
    let domain = parts.next();
    slot.is_some_and(|(device, function)| hex(device, 2) && hex(function, 1))
        && bus.is_some_and(|bus| hex(bus, 2))
        && domain.is_none_or(|domain| hex(domain, 4) || hex(domain, 8))
        && parts.next().is_none()
}

fn describe(object: &[u8]) -> Vec<Driver> {
    let mut found = Vec::new();
    let mut rest = object;
    while let Some(at) = find(rest) {
        rest = &rest[at + MARK.len()..];
        let end = rest.iter().position(|&byte| byte == 0).unwrap_or(rest.len());
        let line = String::from_utf8_lossy(&rest[..end]);
        if let Some(name) = field(&line, "name") {
            let parameters = field(&line, "params").unwrap_or_default();
            let pci = line.split_once("\"pci_ids\"").is_some_and(|(_, ids)| ids.contains("[["));
            found.push(Driver { name, pci, parameters });
        }
    }
    found
}

/// Where the mark begins. The objects are megabytes, hence libc's search.
fn find(bytes: &[u8]) -> Option<usize> {
    // SAFETY: both ranges are slices.
    let at = unsafe { libc::memmem(bytes.as_ptr().cast(), bytes.len(), MARK.as_ptr().cast(), MARK.len()) };
    (!at.is_null()).then(|| at.addr() - bytes.as_ptr().addr())
}

/// The string value of a key.
fn field(json: &str, key: &str) -> Option<String> {
    let (_, rest) = json.split_once(&format!("\"{key}\""))?;
    let value = rest.split('"').nth(1)?;
    Some(value.split_whitespace().collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_pmdinfo_reads() {
        let object =
            b"\x7fELF\0PMD_INFO_STRING= {\"name\" : \"net_x\", \"params\" : \"role=<a|b> id=<int>\", \
                       \"pci_ids\" : []}\0junk\0PMD_INFO_STRING= {\"name\" : \"net_y\", \"pci_ids\" : \
                       [[1, 2, 3, 4]]}\0";
        let found = describe(object);
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].name.as_str(), found[0].pci), ("net_x", false));
        assert_eq!(found[0].parameters, "role=<a|b> id=<int>");
        assert_eq!((found[1].name.as_str(), found[1].pci), ("net_y", true));
    }

    #[test]
    fn tells_pci_addresses_from_device_strings() {
        for yes in ["3b:00.1", "0000:3b:00.1", "00010000:03:1f.7"] {
            assert!(is_pci(yes), "{yes}");
        }
        for no in ["net_memif0", "net_tap0,iface=a:b.c", "3b:00", "xx:00.1", "0:0:3b:00.1", ""] {
            assert!(!is_pci(no), "{no}");
        }
    }
}
