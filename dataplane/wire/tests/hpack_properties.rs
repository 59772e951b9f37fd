//! Properties of HPACK over random lists, table sizes and bytes, and agreement with another implementation.

use proptest::collection::vec;
use proptest::prelude::*;
use towpath_wire::hpack::{HpackDecoder, HpackEncoder, HpackError};
use towpath_wire::{Headers, Token};

const LIST_MAX: usize = 64 * 1024;

type Fields = Vec<(Vec<u8>, Vec<u8>, bool)>;

/// One step of a connection: the peer's table size, perhaps, then a list.
type Step = (Option<usize>, Fields);

fn list(fields: &Fields) -> Headers {
    let mut out = Headers::new();
    for (name, value, never) in fields {
        out.push_field(Token::of(name), name, value, *never);
    }
    out
}

/// Names that the encoder knows, and others.
fn name() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => prop::sample::select(vec![
            ":path", ":authority", ":status", ":method", ":scheme", "te", "content-type", "user-agent",
            "grpc-timeout", "grpc-status", "grpc-message", "grpc-encoding", "grpc-accept-encoding",
            "accept-encoding", "authorization", "cookie", "x-request-id", "transfer-encoding",
        ])
        .prop_map(|n| n.as_bytes().to_vec()),
        1 => vec(any::<u8>(), 0..40),
    ]
}

/// Few distinct values, so that they repeat, and now and then any bytes at all.
fn value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => (0..12_usize).prop_map(|i| {
            let all = ["", "0", "200", "GET", "POST", "/", "/p.S/M", "trailers", "application/grpc", "catalog:80"];
            all.get(i).map_or_else(|| b"v".repeat(i * 60), |v| v.as_bytes().to_vec())
        }),
        2 => vec(any::<u8>(), 0..60),
        1 => (0..5000_usize).prop_map(|len| vec![b'~'; len]),
    ]
}

fn fields() -> impl Strategy<Value = Fields> {
    vec((name(), value(), prop::bool::weighted(0.05)), 0..14)
}

fn table_bytes() -> impl Strategy<Value = Option<usize>> {
    prop::option::weighted(
        0.15,
        prop::sample::select(vec![0, 1, 32, 33, 64, 100, 200, 500, 1000, 4095, 4096, 4097, 1 << 16]),
    )
}

/// Lists come from a few, so that blocks repeat too.
fn steps() -> impl Strategy<Value = Vec<Step>> {
    vec(fields(), 1..5).prop_flat_map(|lists| vec((table_bytes(), prop::sample::select(lists)), 1..40))
}

/// Encodes and decodes a connection's lists, and gives the blocks.
fn run(steps: &[Step]) -> Result<Vec<Vec<u8>>, TestCaseError> {
    let (mut encoder, mut decoder) = (HpackEncoder::new(), HpackDecoder::new(1 << 16));
    let mut out = Headers::new();
    let mut blocks = Vec::new();
    for (table_bytes, fields) in steps {
        if let Some(bytes) = table_bytes {
            encoder.set_table_bytes_max(*bytes);
            decoder.set_table_bytes_max(*bytes);
        }
        let list = list(fields);
        let mut block = Vec::new();
        encoder.encode(&list, &mut block);
        prop_assert_eq!(decoder.decode(&block, usize::MAX, &mut out), Ok(()));
        prop_assert_eq!(out.len(), list.len());
        for ((got, got_name, got_value), (sent, sent_name, sent_value)) in out.iter().zip(&list) {
            prop_assert_eq!((got_name, got_value, got.token), (sent_name, sent_value, sent.token));
            prop_assert!(got.never_indexed || !sent.never_indexed);
        }
        blocks.push(block);
    }
    prop_assert!(encoder.capacity_bytes() < 20 * 1024, "{}", encoder.capacity_bytes());
    Ok(blocks)
}

/// What another implementation makes of a connection's blocks, up to the first it refuses.
fn reference(blocks: &[Vec<u8>]) -> Vec<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut decoder = fluke_hpack::Decoder::new();
    blocks.iter().map_while(|block| decoder.decode(block).ok()).collect()
}

fn decode_all(blocks: &[Vec<u8>]) -> Vec<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut decoder = HpackDecoder::default();
    let mut out = Headers::new();
    blocks
        .iter()
        .map_while(|block| {
            decoder.decode(block, usize::MAX, &mut out).ok()?;
            Some(out.iter().map(|(_, name, value)| (name.to_vec(), value.to_vec())).collect())
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_encoded_is_what_is_decoded(steps in steps()) {
        run(&steps)?;
    }

    #[test]
    fn a_memo_changes_nothing_but_the_time(steps in steps()) {
        // The same blocks, each decoded by a decoder that remembers and one that never does.
        let (mut keeps, mut forgets) = (HpackDecoder::new(1 << 16), HpackDecoder::new(1 << 16));
        let (mut kept, mut fresh) = (Headers::new(), Headers::new());
        for ((table_bytes, _), block) in steps.iter().zip(run(&steps)?) {
            if let Some(bytes) = table_bytes {
                keeps.set_table_bytes_max(*bytes);
                forgets.set_table_bytes_max(*bytes);
            }
            forgets.trim();
            prop_assert_eq!(keeps.decode(&block, LIST_MAX, &mut kept), forgets.decode(&block, LIST_MAX, &mut fresh));
            prop_assert_eq!(&kept, &fresh);
        }
    }

    #[test]
    fn our_blocks_mean_the_same_to_another_implementation(steps in steps()) {
        let lists: Vec<_> = steps.into_iter().map(|(_, fields)| (None, fields)).collect();
        let blocks = run(&lists)?;
        prop_assert_eq!(reference(&blocks), decode_all(&blocks));
    }

    #[test]
    fn any_bytes_end_in_a_list_or_an_error(
        blocks in vec(vec(any::<u8>(), 0..200), 1..12),
        list_max in prop::sample::select(vec![0, 31, 32, 100, 1000, LIST_MAX]),
    ) {
        let mut decoder = HpackDecoder::default();
        let mut out = Headers::new();
        for block in &blocks {
            match decoder.decode(block, list_max, &mut out) {
                Ok(()) => prop_assert!(out.list_size() <= list_max),
                Err(HpackError::TooLarge) => prop_assert!(out.is_empty()),
                Err(_) => {
                    prop_assert!(out.is_empty());
                    break;
                }
            }
            prop_assert!(decoder.capacity_bytes() < 20 * 1024);
            prop_assert!(out.capacity_bytes() < 4 * (LIST_MAX + 8192));
        }
    }

    #[test]
    fn a_limit_changes_what_is_given_and_not_what_is_kept(steps in steps(), limit in 0..600_usize) {
        let (mut bounded, mut free) = (HpackDecoder::new(1 << 16), HpackDecoder::new(1 << 16));
        let (mut few, mut all) = (Headers::new(), Headers::new());
        for ((table_bytes, _), block) in steps.iter().zip(run(&steps)?) {
            if let Some(bytes) = table_bytes {
                bounded.set_table_bytes_max(*bytes);
                free.set_table_bytes_max(*bytes);
            }
            prop_assert_eq!(free.decode(&block, usize::MAX, &mut all), Ok(()));
            match bounded.decode(&block, limit, &mut few) {
                Ok(()) => prop_assert_eq!(&few, &all),
                Err(error) => {
                    prop_assert_eq!(error, HpackError::TooLarge);
                    prop_assert!(all.list_size() > limit);
                }
            }
        }
    }
}
