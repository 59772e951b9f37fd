//! Against the standards' own vectors, and against another implementation.

use std::io::Write as _;
use std::process::{Command, Stdio};

use super::super::keys::{hkdf, raw};
use super::*;

pub(crate) fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn rfc5869_appendix_a_hkdf_with_sha256() {
    let long: Vec<u8> = (0..=0x4f).collect();
    let salt: Vec<u8> = (0x60..=0xaf).collect();
    let info: Vec<u8> = (0xb0..=0xff).collect();
    type Case<'a> = (&'a [u8], &'a [u8], &'a [u8], &'a str);
    let cases: [Case<'_>; 3] = [
        (
            &[0x0b; 22],
            &unhex("000102030405060708090a0b0c"),
            &unhex("f0f1f2f3f4f5f6f7f8f9"),
            "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865",
        ),
        (
            &long,
            &salt,
            &info,
            "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c59045a99cac7827271cb41c65e590e09\
             da3275600c2f09b8367793a9aca3db71cc30c58179ec3e87c14c01d5c1f3434f1d87",
        ),
        (
            &[0x0b; 22],
            &[],
            &[],
            "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8",
        ),
    ];
    for (secret, salt, info, expected) in cases {
        let expected = unhex(expected);
        let mut out = vec![0; expected.len()];
        hkdf(salt, secret, info, &mut out).unwrap();
        assert_eq!(out, expected);
    }
}

/// Key, nonce, text, associated data, ciphertext, tag: test cases 4, 16, 1, 13, 2, 14, 3 and 15 of McGrew and Viega, then two of
/// `gcmEncryptExtIV128.rsp` of NIST's CAVP.
pub(crate) const GCM: &[[&str; 6]] = &include!("gcm.in");

#[test]
fn nist_gcm_vectors_both_ways() {
    for [key, iv, text, aad, sealed, tag] in GCM.iter().map(|case| case.map(unhex)) {
        let cipher = raw(&key).unwrap();
        let nonce = || Nonce::try_assume_unique_for_key(&iv).unwrap();
        let mut bytes = text.clone();
        let seen = cipher.seal_in_place_separate_tag(nonce(), Aad::from(&aad), &mut bytes).unwrap();
        assert_eq!((&bytes, seen.as_ref()), (&sealed, &tag[..]));
        bytes.extend_from_slice(&tag);
        assert_eq!(cipher.open_in_place(nonce(), Aad::from(&aad), &mut bytes.clone()).unwrap(), text);
        *bytes.last_mut().unwrap() ^= 1;
        assert!(cipher.open_in_place(nonce(), Aad::from(&aad), &mut bytes).is_err());
    }
}

#[test]
fn python_opens_what_we_seal_and_seals_what_we_open() {
    let has = Command::new("python3").args(["-c", "import cryptography"]).stderr(Stdio::null()).status();
    if !has.is_ok_and(|status| status.success()) {
        eprintln!("skipped: no python3 with the package `cryptography`");
        return;
    }
    let script = include_str!("peer.py");
    let mut peer = Command::new("python3")
        .args(["-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = Vec::new();
    let mut input = peer.stdin.take().unwrap();
    let mut nodes: Vec<_> = [OLD, NEW].map(|text| (text, node(text), node(text))).into_iter().collect();
    for (text, (_, near), _) in &mut nodes {
        let (id, key) = text.split_once(' ').unwrap();
        for (len, index, is_request) in [(0, 0, true), (1, 7, false), (100, u32::MAX, true), (5000, 0, true)]
        {
            let plain: Vec<u8> = (0..len).map(|at| (at % 251) as u8).collect();
            let seal = Seal { is_request, is_final: len == 1, ..request(near.tag(), index) };
            let envelope = sealed(near, seal, &plain);
            let tail =
                [&[u8::from(is_request)], &seal.tag.0[..], &seal.purpose, &index.to_be_bytes()].concat();
            writeln!(input, "{key} {id} {} {}", hex(&tail), hex(&envelope)).unwrap();
            said.push((seal, plain));
        }
    }
    drop(input);
    let output = peer.wait_with_output().unwrap();
    assert!(output.status.success());
    let answers = String::from_utf8(output.stdout).unwrap();
    assert_eq!(answers.lines().count(), said.len());
    for (at, (line, (seal, plain))) in answers.lines().zip(&said).enumerate() {
        let (seen, envelope) = line.split_once(' ').unwrap();
        assert_eq!(unhex(seen.trim_start_matches('-')), *plain);
        let (_, _, (_, far)) = &mut nodes[at / 4];
        let blank = Seal { is_final: false, ..*seal };
        assert_eq!(opened(far, blank, &unhex(envelope)), Ok((plain.clone(), *seal)));
    }
}
