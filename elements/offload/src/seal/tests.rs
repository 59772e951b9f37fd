//! Two nodes in one process: what one seals the other opens, and nothing else.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use abi::Encoding;
use proptest::prelude::*;

use super::*;

pub(crate) mod vectors;

const OLD: &str = "1 000102030405060708090a0b0c0d0e0f";
const NEW: &str = "2 1f1e1d1c1b1a191817161514131211100f0e0d0c0b0a09080706050403020100";

/// A keyring in a file of its own, which goes with it.
struct File(PathBuf);

impl File {
    fn new(text: &str) -> Self {
        use std::os::unix::fs::PermissionsExt;
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("towpath-keys-{}-{number}", std::process::id()));
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        Self(path)
    }

    fn write(&self, text: &str) {
        std::fs::write(&self.0, text).unwrap();
    }

    fn named(&self, name: &str) -> (String, Source) {
        (name.to_owned(), Source::File(self.0.clone()))
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn now() -> u32 {
    1_800_000_000
}

fn node(text: &str) -> (Arc<Keys>, Sealer) {
    let file = File::new(text);
    let (keys, warnings) = Keys::open([file.named("wire")], SealOptions::with_clock(now)).unwrap();
    assert!(warnings.is_empty(), "{warnings:?}");
    let keys = Arc::new(keys);
    let sealer = Sealer::new(keys.clone(), keys.count()).unwrap();
    (keys, sealer)
}

fn request(tag: CallTag, index: u32) -> Seal {
    Seal { ring: Ring(0), tag, purpose: [5; 16], is_request: true, index, is_final: false, encoding: None }
}

fn sealed(by: &mut Sealer, seal: Seal, text: &[u8]) -> Vec<u8> {
    let mut bytes = [&[0; HEADER_BYTES], text].concat();
    by.seal(&seal, &mut bytes).unwrap();
    bytes
}

fn opened(by: &mut Sealer, mut seal: Seal, envelope: &[u8]) -> Result<(Vec<u8>, Seal), JobError> {
    let mut bytes = envelope.to_vec();
    let result = by.open(&mut seal, &mut bytes);
    assert!(result.is_ok() || bytes.len() <= HEADER_BYTES, "nothing of what does not open is shown");
    result.map(|()| (bytes.split_off(HEADER_BYTES), seal))
}

#[test]
fn what_one_node_seals_the_other_opens_with_what_only_the_sealer_knew() {
    for key in [OLD, NEW] {
        let ((_, mut near), (keys, mut far)) = (node(key), node(key));
        assert_eq!((near.ring("wire"), near.ring("other")), (Some(Ring(0)), None));
        for (len, is_final, encoding) in [
            (0, true, None),
            (1, false, Some(Encoding::Gzip)),
            (70_000, true, Some(Encoding::Deflate)),
            (9, false, Some(Encoding::Zstd)),
        ] {
            let text = vec![0x5a; len];
            let tag = near.tag();
            let said = Seal { is_final, encoding, ..request(tag, 0) };
            let envelope = sealed(&mut near, said, &text);
            assert_eq!(envelope.len(), len + OVERHEAD_BYTES);
            let (got, seen) = opened(&mut far, request(tag, 0), &envelope).unwrap();
            assert!(got == text);
            assert_eq!(seen, said);
            // The answer is the far node's own, under the request's tag.
            let answer = Seal { is_request: false, ..said };
            let envelope = sealed(&mut far, answer, &text);
            let asked = Seal { is_request: false, ..request(tag, 0) };
            assert_eq!(opened(&mut near, asked, &envelope), Ok((text, answer)));
        }
        let seen = keys.snapshot();
        assert_eq!((seen.opened, seen.sealed, seen.derived, seen.senders), (4, 4, 1, 1));
        assert_eq!(seen.iter().map(|(.., count)| count).sum::<u64>(), 9, "and nothing else is counted");
    }
}

#[test]
fn equal_messages_look_different_and_no_nonce_comes_twice() {
    let (_, mut near) = node(OLD);
    let tag = near.tag();
    let all: Vec<_> = (0..100).map(|_| sealed(&mut near, request(tag, 0), b"the same")).collect();
    let mut heads: Vec<_> = all.iter().map(|envelope| envelope[..HEADER_BYTES].to_vec()).collect();
    let mut texts: Vec<_> = all.iter().map(|envelope| envelope[HEADER_BYTES..].to_vec()).collect();
    for list in [&mut heads, &mut texts] {
        list.sort();
        list.dedup();
        assert_eq!(list.len(), 100);
    }
    assert_ne!(near.tag(), near.tag());
}

#[test]
fn a_worn_key_gives_way_to_another_and_both_open() {
    let ((_, mut near), (keys, mut far)) = (node(OLD), node(OLD));
    near.next_counter = SEALS_MAX - 1;
    for index in 0..3 {
        let tag = near.tag();
        let envelope = sealed(&mut near, request(tag, index), b"text");
        assert!(opened(&mut far, request(tag, index), &envelope).is_ok());
    }
    assert_eq!(keys.snapshot().derived, 2, "the seats' keys differ");
    assert_eq!((near.next_counter, near.seat.shard, near.tagger.shard), (2, 1, 0));
    // No seat left: refused, not repeated.
    let taken = std::iter::from_fn(|| near.keys.seat()).count();
    assert_eq!(taken, (1 << 16) - 2);
    near.next_counter = SEALS_MAX;
    let tag = near.tag();
    assert_eq!(near.seal(&request(tag, 0), &mut vec![0; HEADER_BYTES]), Err(JobError::UnknownKey));
    assert_eq!(near.seal(&request(tag, 0), &mut vec![0; HEADER_BYTES]), Err(JobError::UnknownKey));
}

#[test]
fn what_is_refused_has_a_name_and_a_counter() {
    let ((_, mut near), (keys, mut far)) = (node(OLD), node(OLD));
    let (tag, other) = (near.tag(), near.tag());
    let envelope = sealed(&mut near, request(tag, 0), b"pay 1 pound");
    let seal = request(tag, 0);
    let forged = Err(JobError::Forged);
    assert_eq!(opened(&mut far, request(other, 0), &envelope), forged, "another call");
    assert_eq!(opened(&mut far, request(tag, 1), &envelope), forged, "another message of the call");
    assert_eq!(
        opened(&mut far, Seal { is_request: false, ..seal }, &envelope),
        forged,
        "the other direction"
    );
    assert_eq!(opened(&mut far, Seal { purpose: [6; 16], ..seal }, &envelope), forged, "another method");
    let mut bigger = envelope.clone();
    bigger.push(0);
    assert_eq!(opened(&mut far, seal, &bigger), forged, "something follows");
    for cut in 0..envelope.len() {
        let expected = if cut < OVERHEAD_BYTES { JobError::Corrupt } else { JobError::Forged };
        assert_eq!(opened(&mut far, seal, &envelope[..cut]), Err(expected), "{cut}");
    }
    let (_, mut stranger) = node(NEW);
    assert_eq!(opened(&mut stranger, seal, &envelope), Err(JobError::UnknownKey));
    let (_, mut impostor) = node(&NEW.replace("2 ", "1 "));
    assert_eq!(opened(&mut impostor, seal, &envelope), forged, "the same id, another key");
    assert_eq!(opened(&mut far, Seal { ring: Ring(1), ..seal }, &envelope), Err(JobError::UnknownKey));
    assert_eq!(keys.snapshot().derived, 0, "what does not open leaves no key behind");

    assert!(opened(&mut far, seal, &envelope).is_ok());
    assert_eq!(opened(&mut far, seal, &envelope), Err(JobError::Replayed));
    let late = TagParts { second: now() - 61, ..TagParts::parse(&near.tag()) }.emit();
    let envelope = sealed(&mut near, request(late, 0), b"x");
    assert_eq!(opened(&mut far, request(late, 0), &envelope), Err(JobError::Expired));
    let mut odd = envelope.clone();
    for (at, byte) in [(0, 2), (0, 0), (1, 0b1000), (1, 255)] {
        odd.copy_from_slice(&envelope);
        odd[at] = byte;
        assert_eq!(opened(&mut far, seal, &odd), Err(JobError::Corrupt), "{at} {byte}");
    }
    let seen = keys.snapshot();
    assert_eq!((seen.opened, seen.replayed, seen.expired, seen.unknown_key), (1, 1, 1, 1));
    assert_eq!((seen.forged, seen.malformed), (5 + 11, 48 + 4));
}

proptest! {
    #[test]
    fn no_changed_bit_opens(len in 0_usize..200, at in 0_usize..248, bit in 0..8_u8, index in 0..9_u32) {
        let ((_, mut near), (_, mut far)) = (node(OLD), node(OLD));
        let tag = near.tag();
        let mut envelope = sealed(&mut near, request(tag, index), &vec![7; len]);
        let at = at % envelope.len();
        envelope[at] ^= 1 << bit;
        let expected = match at {
            0 => JobError::Corrupt,
            // Bit 1 and 2 alone name an encoding that there is; a version or flag nobody knows is no envelope.
            1 if bit > 2 => JobError::Corrupt,
            2..6 => JobError::UnknownKey,
            _ => JobError::Forged,
        };
        prop_assert_eq!(opened(&mut far, request(tag, index), &envelope), Err(expected));
        envelope[at] ^= 1 << bit;
        prop_assert!(opened(&mut far, request(tag, index), &envelope).is_ok());
    }
}

#[test]
fn keys_rotate_while_calls_run_and_a_bad_file_changes_nothing() {
    let file = File::new(OLD);
    let open = |file: &File| {
        let keys = Keys::open([file.named("wire")], SealOptions::with_clock(now)).unwrap().0;
        let keys = Arc::new(keys);
        (keys.clone(), Sealer::new(keys.clone(), keys.count()).unwrap())
    };
    let ((keys, mut near), (far_keys, mut far)) = (open(&file), open(&file));
    let pass = |near: &mut Sealer, far: &mut Sealer| {
        near.refresh();
        far.refresh();
        let tag = near.tag();
        let envelope = sealed(near, request(tag, 0), b"text");
        (envelope[5], envelope[6..14].to_vec(), opened(far, request(tag, 0), &envelope).map(|_| ()))
    };
    assert_eq!((pass(&mut near, &mut far).0, pass(&mut near, &mut far).2), (1, Ok(())));
    // The receivers first learn the new key; then the senders seal with it; then the old one goes.
    file.write(&format!("{OLD}\n{NEW} open-only"));
    assert!(far_keys.reload().unwrap().is_empty());
    assert_eq!((pass(&mut near, &mut far).0, pass(&mut near, &mut far).2), (1, Ok(())));
    file.write(&format!("{OLD} open-only\n{NEW}"));
    keys.reload().unwrap();
    let (id, counter, result) = pass(&mut near, &mut far);
    assert_eq!((id, result), (2, Ok(())));
    assert_eq!(counter, 4_u64.to_be_bytes(), "counters go on: a key that comes back finds no nonce used");
    file.write(&format!("{OLD}\n{NEW} x"));
    assert_eq!(far_keys.reload().unwrap_err().line, 2);
    assert_eq!(pass(&mut near, &mut far).2, Ok(()), "a bad file changes nothing");
    file.write(OLD);
    far_keys.reload().unwrap();
    assert_eq!(pass(&mut near, &mut far).2, Err(JobError::UnknownKey), "what is dropped does not open");
    // The same id with another key: what was derived before does not stay.
    file.write(&NEW.replace("2 ", "1 "));
    keys.reload().unwrap();
    assert_eq!(pass(&mut near, &mut far).2, Err(JobError::Forged));
    far_keys.reload().unwrap();
    assert_eq!(pass(&mut near, &mut far).2, Ok(()));
}

#[test]
fn a_file_others_may_read_is_named_and_one_that_is_missing_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let file = File::new(OLD);
    std::fs::set_permissions(&file.0, std::fs::Permissions::from_mode(0o644)).unwrap();
    let (keys, warnings) = Keys::open([file.named("wire")], SealOptions::with_clock(now)).unwrap();
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].contains("mode 644") && warnings[0].contains("chmod 600"), "{warnings:?}");
    assert_eq!(format!("{keys:?}"), "[\"wire\"]");
    let gone = ("wire".to_owned(), Source::File("/nowhere/key".into()));
    let error = Keys::open([gone], SealOptions::with_clock(now)).unwrap_err().to_string();
    assert!(error.starts_with("/nowhere/key: cannot be read: No such file"), "{error}");
    let unset = ("wire".to_owned(), Source::Env("TOWPATH_NO_SUCH_KEY".into()));
    let error = Keys::open([unset], SealOptions::with_clock(now)).unwrap_err().to_string();
    assert_eq!(error, "$TOWPATH_NO_SUCH_KEY: this environment variable is not set");
}

#[test]
fn keys_of_many_senders_are_kept_within_bounds() {
    let ((_, mut near), (keys, mut far)) = (node(OLD), node(OLD));
    for _ in 0..far::FAR_MAX + 10 {
        near.next_counter = SEALS_MAX;
        let tag = near.tag();
        let envelope = sealed(&mut near, request(tag, 0), b"text");
        assert!(opened(&mut far, request(tag, 0), &envelope).is_ok());
    }
    let seen = keys.snapshot();
    assert_eq!((seen.derived, seen.evicted), (far::FAR_MAX as u64 + 10, 10));
}

#[test]
fn a_warm_sealer_allocates_nothing() {
    let ((_, mut near), (_, mut far)) = (node(NEW), node(NEW));
    let mut bytes = Vec::with_capacity(8192);
    let mut pass = |count: u32| {
        for _ in 0..count {
            let tag = near.tag();
            bytes.clear();
            bytes.resize(4096, 1);
            near.refresh();
            near.seal(&request(tag, 0), &mut bytes).unwrap();
            far.open(&mut request(tag, 0), &mut bytes).unwrap();
        }
    };
    pass(10);
    let seen = allocation_counter::measure(|| pass(1000));
    assert_eq!(seen.count_total, 0);
}
