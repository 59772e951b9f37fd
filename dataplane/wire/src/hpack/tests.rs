//! RFC 7541 through both ends: appendix C, hostile blocks, the memos, the policy.

mod appendix_c;

use alloc::vec;
use alloc::vec::Vec;

use super::*;
use crate::{Headers, Token};

const LIST_MAX: usize = 16 * 1024;

fn hex(text: &str) -> Vec<u8> {
    let digit = |b: u8| (b as char).to_digit(16).and_then(|d| u8::try_from(d).ok());
    let digits: Vec<u8> = text.bytes().filter_map(digit).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn list(fields: &[(&str, &str)]) -> Headers {
    let mut out = Headers::new();
    for (name, value) in fields {
        out.push(name.as_bytes(), value.as_bytes());
    }
    out
}

fn pairs(list: &Headers) -> Vec<(Vec<u8>, Vec<u8>)> {
    list.iter().map(|(_, name, value)| (name.to_vec(), value.to_vec())).collect()
}

#[track_caller]
fn decode(decoder: &mut HpackDecoder, block: &[u8]) -> Result<Headers, HpackError> {
    let mut out = Headers::new();
    decoder.decode(block, LIST_MAX, &mut out)?;
    for (field, name, _) in &out {
        assert_eq!(field.token, Token::of(name));
    }
    Ok(out)
}

fn size_update(bytes: usize) -> Vec<u8> {
    let mut out = Vec::new();
    integer::emit(bytes, 0x20, 0x1f, &mut out);
    out
}

#[test]
fn section_2_3_3_indices_beyond_the_tables_and_0_are_refused() {
    for block in ["80", "be", "ff00", "7e00", "7f0000", "0f2f00", "ff ffff ff7f"] {
        assert_eq!(decode(&mut HpackDecoder::default(), &hex(block)), Err(HpackError::Index), "{block}");
    }
    let mut decoder = HpackDecoder::default();
    decode(&mut decoder, &hex("4001 6101 62")).unwrap();
    assert_eq!(pairs(&decode(&mut decoder, &hex("be")).unwrap()), pairs(&list(&[("a", "b")])));
    assert_eq!(decode(&mut decoder, &hex("bf")), Err(HpackError::Index));
}

#[test]
fn every_block_cut_short_is_refused_and_says_so() {
    let whole =
        hex("4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf 040c 2f73 616d 706c 652f 7061 7468 1f09 0161");
    let ends = [20, 34];
    decode(&mut HpackDecoder::default(), &whole).unwrap();
    for len in 1..whole.len() {
        let result = decode(&mut HpackDecoder::default(), &whole[..len]);
        assert_eq!(result.is_ok(), ends.contains(&len), "{len}");
        assert!(result.is_ok() || result == Err(HpackError::Truncated), "{len} {result:?}");
    }
}

#[test]
fn section_5_1_an_endless_integer_is_refused() {
    for block in ["ff80 8080 8080 8080 01", "ffff ffff ffff ff01", "3fff ffff ffff 01", "007f ffff ffff 7f"] {
        assert_eq!(decode(&mut HpackDecoder::default(), &hex(block)), Err(HpackError::Integer), "{block}");
    }
    // A length of 4 GiB is no more than a block cut short.
    assert_eq!(decode(&mut HpackDecoder::default(), &hex("007f 80ff ffff 0f")), Err(HpackError::Truncated));
}

#[test]
fn section_5_2_a_wrong_huffman_string_is_refused_as_name_and_as_value() {
    for block in ["0081 ff 0161", "0001 6184 ffff ffff", "0001 6181 00", "4084 ffff fffc 0161"] {
        assert_eq!(decode(&mut HpackDecoder::default(), &hex(block)), Err(HpackError::Huffman), "{block}");
    }
}

#[test]
fn section_4_2_size_updates_stand_first_and_within_the_limit() {
    let mut decoder = HpackDecoder::default();
    assert_eq!(decode(&mut decoder, &hex("20 3fe1 1f 20 82")).unwrap().len(), 1);
    assert_eq!(decode(&mut decoder, &hex("82 20")), Err(HpackError::TableSize));
    assert_eq!(decode(&mut HpackDecoder::default(), &hex("3fe2 1f 82")), Err(HpackError::TableSize));
    let mut large = HpackDecoder::new(65_536);
    assert_eq!(decode(&mut large, &hex("3fe1 ff03 82")).unwrap().len(), 1);
    assert_eq!(decode(&mut large, &hex("3fe2 ff03 82")), Err(HpackError::TableSize));
}

#[test]
fn section_4_2_an_acknowledged_smaller_table_must_be_taken_up_by_the_next_block() {
    let mut decoder = HpackDecoder::new(100);
    // Before the acknowledgement the peer may use what every connection begins with.
    decode(&mut decoder, &hex("4001 6101 62 82")).unwrap();
    decoder.set_table_bytes_max(100);
    let (mut silent, mut silent_later) = (HpackDecoder::new(100), HpackDecoder::new(100));
    silent.set_table_bytes_max(100);
    assert_eq!(decode(&mut silent, &hex("82")), Err(HpackError::TableSize));
    assert_eq!(decode(&mut decoder, &[&size_update(100)[..], &hex("be")].concat()).unwrap().len(), 1);
    decode(&mut decoder, &hex("be")).unwrap();
    // Even if the block is one that is remembered.
    for _ in 0..3 {
        decode(&mut silent_later, &hex("82")).unwrap();
    }
    silent_later.set_table_bytes_max(100);
    assert_eq!(decode(&mut silent_later, &hex("82")), Err(HpackError::TableSize));
    // Down and up again between two blocks: the least comes first.
    decoder.set_table_bytes_max(10);
    decoder.set_table_bytes_max(4096);
    let both = [size_update(10), size_update(4096), hex("be")].concat();
    assert_eq!(decode(&mut decoder, &both), Err(HpackError::Index), "the entry is evicted");
}

#[test]
fn section_4_4_an_entry_larger_than_the_table_empties_it() {
    let mut decoder = HpackDecoder::default();
    decode(&mut decoder, &hex("4001 6101 62")).unwrap();
    let mut block = vec![0x40, 1, b'c'];
    integer::emit(4096, 0, 0x7f, &mut block);
    block.resize(block.len() + 4096, b'x');
    assert_eq!(decode(&mut decoder, &block).unwrap().get_name(b"c", 0).map(<[u8]>::len), Some(4096));
    assert_eq!(decode(&mut decoder, &hex("be")), Err(HpackError::Index));
}

#[test]
fn section_4_4_a_name_may_come_from_the_entry_that_its_own_insertion_evicts() {
    let mut decoder = HpackDecoder::default();
    decode(&mut decoder, &[&size_update(40)[..], &hex("4003 6162 6301 64")].concat()).unwrap();
    let replaced = decode(&mut decoder, &hex("7e02 6566")).unwrap();
    assert_eq!(pairs(&replaced), pairs(&list(&[("abc", "ef")])));
    assert_eq!(pairs(&decode(&mut decoder, &hex("be")).unwrap()), pairs(&list(&[("abc", "ef")])));
}

/// A block that puts one field of 4000 bytes into the table.
fn large_entry() -> Vec<u8> {
    let mut block = vec![0x40, 1, b'x'];
    integer::emit(4000, 0, 0x7f, &mut block);
    block.resize(block.len() + 4000, b'y');
    block
}

#[test]
fn a_bomb_of_references_is_too_large_and_takes_no_memory() {
    let mut decoder = HpackDecoder::default();
    let mut out = Headers::new();
    decoder.decode(&large_entry(), LIST_MAX, &mut out).unwrap();
    let held = decoder.capacity_bytes();
    let bomb = vec![0xbe; 60_000];
    assert_eq!(decoder.decode(&bomb, LIST_MAX, &mut out), Err(HpackError::TooLarge));
    assert!(out.is_empty());
    assert!(out.capacity_bytes() <= 4 * LIST_MAX, "{}", out.capacity_bytes());
    assert_eq!(decoder.capacity_bytes(), held);
    assert_eq!(decode(&mut decoder, &hex("be")).unwrap().bytes_len(), 4001);
}

#[test]
fn too_large_still_keeps_the_tables_alike() {
    let mut decoder = HpackDecoder::default();
    let mut block = large_entry();
    block.extend(hex("4001 6101 62 0001 6301 64 10 01 65 8127 82"));
    let mut out = Headers::new();
    assert_eq!(decoder.decode(&block, 1000, &mut out), Err(HpackError::TooLarge));
    assert!(out.is_empty());
    assert_eq!(pairs(&decode(&mut decoder, &hex("be")).unwrap()), pairs(&list(&[("a", "b")])));
    assert_eq!(decode(&mut decoder, &hex("bf")).unwrap().bytes_len(), 4001);
    // Beyond the limit wrong bytes are still wrong.
    block.push(0x80);
    assert_eq!(HpackDecoder::default().decode(&block, 1000, &mut out), Err(HpackError::Index));
}

#[test]
fn a_literal_larger_than_list_and_table_is_not_kept_while_it_is_read() {
    let mut text = Vec::new();
    huffman::encode(&vec![b'0'; 1_000_000], &mut text);
    let mut block = vec![0x40, 1, b'x'];
    integer::emit(text.len(), 0x80, 0x7f, &mut block);
    block.extend_from_slice(&text);
    block.extend(hex("4001 6101 62"));
    let mut decoder = HpackDecoder::default();
    let mut out = Headers::new();
    assert_eq!(decoder.decode(&block, 2000, &mut out), Err(HpackError::TooLarge));
    assert!(out.capacity_bytes() <= 3 * 4096, "{}", out.capacity_bytes());
    assert_eq!(pairs(&decode(&mut decoder, &hex("be")).unwrap()), pairs(&list(&[("a", "b")])));
}

#[test]
fn a_bomb_of_insertions_is_refused_before_it_costs_much() {
    // Each pair of bytes inserts a field with the name of 4000 bytes that the last one had.
    let mut block = vec![0x40];
    integer::emit(4000, 0, 0x7f, &mut block);
    block.resize(block.len() + 4000, b'n');
    block.push(0);
    for _ in 0..20_000 {
        block.extend([0x7e, 0]);
    }
    let mut out = Headers::new();
    assert_eq!(HpackDecoder::default().decode(&block, LIST_MAX, &mut out), Err(HpackError::Work));
}

#[test]
fn a_fresh_decoder_and_encoder_hold_nothing() {
    assert_eq!(HpackDecoder::default().capacity_bytes(), 0);
    assert_eq!(HpackEncoder::new().capacity_bytes(), 0);
    assert!(size_of::<HpackDecoder>() + size_of::<HpackEncoder>() <= 400);
}

#[test]
fn tables_stay_within_what_was_announced_whatever_the_peer_inserts() {
    let mut decoder = HpackDecoder::default();
    let mut out = Headers::new();
    for round in 0..5000_u32 {
        let mut block = vec![0x40, 2, b'a', b'b'];
        let len = (round * 37 % 300) as usize;
        integer::emit(len, 0, 0x7f, &mut block);
        block.resize(block.len() + len, b'v');
        decoder.decode(&block, LIST_MAX, &mut out).unwrap();
    }
    // One and a half times the bytes, an entry of 16 bytes for each 32 of overhead, doubled by its deque.
    assert!(decoder.capacity_bytes() <= 4096 * 3 / 2 + 4096, "{}", decoder.capacity_bytes());
}

fn grpc_request() -> Headers {
    list(&[
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/pkg.Service/Method"),
        (":authority", "catalog:8080"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        ("user-agent", "grpc-go/1.65.0"),
    ])
}

fn encode(encoder: &mut HpackEncoder, list: &Headers) -> Vec<u8> {
    let mut block = vec![0xaa];
    encoder.encode(list, &mut block);
    assert_eq!(block.remove(0), 0xaa, "appended");
    block
}

#[test]
fn the_third_call_is_one_byte_a_field_and_stays_so() {
    let (mut encoder, mut decoder) = (HpackEncoder::new(), HpackDecoder::default());
    let request = grpc_request();
    for call in 0..10 {
        let block = encode(&mut encoder, &request);
        assert_eq!(decode(&mut decoder, &block).unwrap(), request);
        assert_eq!(block.len() == request.len(), call >= 2, "{call}: {}", block.len());
    }
    // With a timeout that changes: its name is referred to as well.
    for call in 0..10 {
        let mut request = request.clone();
        request.push(b"grpc-timeout", alloc::format!("{}u", 100_000 + call * 777).as_bytes());
        let block = encode(&mut encoder, &request);
        assert_eq!(decode(&mut decoder, &block).unwrap(), request);
        assert_eq!(block.len() <= request.len() + 8, call > 0, "{call}: {}", block.len());
    }
}

#[test]
fn a_memo_is_used_only_while_the_table_is_the_same() {
    let mut decoder = HpackDecoder::default();
    decode(&mut decoder, &hex("4001 6101 62")).unwrap();
    for _ in 0..3 {
        assert_eq!(decode(&mut decoder, &hex("be")).unwrap().get_name(b"a", 0), Some(&b"b"[..]));
    }
    decode(&mut decoder, &hex("4001 6301 64")).unwrap();
    for _ in 0..3 {
        assert_eq!(decode(&mut decoder, &hex("be")).unwrap().get_name(b"c", 0), Some(&b"d"[..]));
    }
    // The size update alone changes what the same bytes mean.
    decode(&mut decoder, &hex("20 3fe1 1f")).unwrap();
    assert_eq!(decode(&mut decoder, &hex("be")), Err(HpackError::Index));
}

#[test]
fn a_memo_respects_a_smaller_limit() {
    let mut decoder = HpackDecoder::default();
    let mut out = Headers::new();
    for _ in 0..3 {
        decoder.decode(&hex("8286 84"), 1000, &mut out).unwrap();
    }
    assert_eq!(decoder.decode(&hex("8286 84"), 50, &mut out), Err(HpackError::TooLarge));
    assert!(out.is_empty());
    decoder.decode(&hex("8286 84"), 1000, &mut out).unwrap();
    assert_eq!(out.len(), 3);
}

#[test]
fn a_note_lives_as_long_as_its_block() {
    let mut decoder = HpackDecoder::default();
    decode(&mut decoder, &hex("8286 84")).unwrap();
    assert_eq!(decoder.note(), 0);
    decoder.set_note(7);
    decode(&mut decoder, &hex("8287 84")).unwrap();
    assert_eq!(decoder.note(), 0);
    decode(&mut decoder, &hex("8286 84")).unwrap();
    assert_eq!(decoder.note(), 7);
    for path in 0..8 {
        decode(&mut decoder, &[0x82, 0x04, 1, b'a' + path]).unwrap();
        assert_eq!(decoder.note(), 0);
    }
    decode(&mut decoder, &hex("8286 84")).unwrap();
    assert_eq!(decoder.note(), 0);
    // A block that changes the table has no place for a note.
    decode(&mut decoder, &hex("4001 6101 62")).unwrap();
    decoder.set_note(9);
    assert_eq!(decoder.note(), 0);
}

#[test]
fn memos_stay_small_and_trim_gives_them_back() {
    let (mut encoder, mut decoder) = (HpackEncoder::new(), HpackDecoder::default());
    let mut request = grpc_request();
    for i in 0..200_u32 {
        request.set(Token::Path, b":path", alloc::format!("/pkg.Service/Method{}", i / 4 % 7).as_bytes());
        let block = encode(&mut encoder, &request);
        assert_eq!(decode(&mut decoder, &block).unwrap(), request);
    }
    let held = encoder.capacity_bytes() + decoder.capacity_bytes();
    assert!(held <= 8 * 1024, "{held}");
    encoder.trim();
    decoder.trim();
    let held = encoder.capacity_bytes() + decoder.capacity_bytes();
    assert!(held <= 2 * 1024, "{held}");
    let block = encode(&mut encoder, &request);
    assert_eq!(block.len(), request.len(), "the table is still there");
    assert_eq!(decode(&mut decoder, &block).unwrap(), request);
}

#[test]
fn section_7_1_3_never_indexed_stays_so_and_credentials_become_so() {
    let mut request = Headers::new();
    request.push_field(Token::Path, b":path", b"/", true);
    request.push_field(Token::Other, b"x-secret", b"1", true);
    request.push(b"authorization", b"Bearer abcdefghijklmnopqrstuvwxyz");
    request.push(b"cookie", b"a=1");
    request.push(b"cookie", b"long=enough-to-be-no-guess");
    request.push(b"x-plain", b"1");
    let (mut encoder, mut decoder) = (HpackEncoder::new(), HpackDecoder::default());
    for _ in 0..4 {
        let got = decode(&mut decoder, &encode(&mut encoder, &request)).unwrap();
        assert_eq!(pairs(&got), pairs(&request));
        let never: Vec<bool> = got.iter().map(|(field, _, _)| field.never_indexed).collect();
        assert_eq!(never, [true, true, true, true, false, false]);
    }
    // And nothing of it is in the table.
    assert_eq!(decode(&mut decoder, &hex("be")), Err(HpackError::Index));
}

#[test]
fn only_the_policys_names_enter_the_table() {
    let fields = [
        ("x-request-id", "1"),
        ("x-user", "alice"),
        ("date", "Mon, 21 Oct 2013 20:13:21 GMT"),
        (":path", "/search?q=secret"),
        ("grpc-message", "alice was here"),
        ("grpc-status", "not a status"),
        ("content-length", "5"),
        ("host", "a"),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    ];
    let (mut encoder, mut decoder) = (HpackEncoder::new(), HpackDecoder::default());
    for _ in 0..5 {
        for field in fields {
            decode(&mut decoder, &encode(&mut encoder, &list(&[field]))).unwrap();
        }
    }
    assert_eq!(decode(&mut decoder, &hex("be")), Err(HpackError::Index));
}

#[test]
fn values_seen_once_do_not_push_out_what_is_repeated() {
    let (mut encoder, mut decoder) = (HpackEncoder::new(), HpackDecoder::default());
    let request = grpc_request();
    for _ in 0..3 {
        decode(&mut decoder, &encode(&mut encoder, &request)).unwrap();
    }
    for i in 0..2000 {
        let other = list(&[(":path", &alloc::format!("/one.Time/Path{i}")), (":authority", "catalog:8080")]);
        assert_eq!(decode(&mut decoder, &encode(&mut encoder, &other)).unwrap(), other);
    }
    assert_eq!(encode(&mut encoder, &request).len(), request.len());
    // Nor does one that would take half of the table.
    let long = alloc::format!("/{}", "p".repeat(2100));
    for _ in 0..5 {
        decode(&mut decoder, &encode(&mut encoder, &list(&[(":path", &long)]))).unwrap();
    }
    assert_eq!(encode(&mut encoder, &request).len(), request.len());
}

#[test]
fn section_4_2_the_encoder_announces_what_the_peer_allows() {
    let mut encoder = HpackEncoder::new();
    let (update, rest) = (|bytes| size_update(bytes), hex("82"));
    let get = list(&[(":method", "GET")]);
    // More than we use changes nothing.
    encoder.set_table_bytes_max(1 << 20);
    assert_eq!(encode(&mut encoder, &get), rest);
    encoder.set_table_bytes_max(100);
    assert_eq!(encode(&mut encoder, &get), [update(100), rest.clone()].concat());
    assert_eq!(encode(&mut encoder, &get), rest);
    // Down and up again: the least, then the last.
    encoder.set_table_bytes_max(50);
    encoder.set_table_bytes_max(0);
    encoder.set_table_bytes_max(5000);
    assert_eq!(encode(&mut encoder, &get), [update(0), update(4096), rest.clone()].concat());
    // There and back without a block between: the table was emptied all the same.
    encoder.set_table_bytes_max(0);
    encoder.set_table_bytes_max(4096);
    assert_eq!(encode(&mut encoder, &get), [update(0), update(4096), rest.clone()].concat());
    assert_eq!(encode(&mut encoder, &get), rest);
}

#[test]
fn a_peer_that_allows_no_table_gets_none() {
    let (mut encoder, mut decoder) = (HpackEncoder::new(), HpackDecoder::new(0));
    encoder.set_table_bytes_max(0);
    decoder.set_table_bytes_max(0);
    let request = grpc_request();
    for _ in 0..5 {
        assert_eq!(decode(&mut decoder, &encode(&mut encoder, &request)).unwrap(), request);
    }
    assert_eq!(decode(&mut decoder, &hex("be")), Err(HpackError::Index));
    encoder.set_table_bytes_max(4096);
    decoder.set_table_bytes_max(4096);
    for _ in 0..5 {
        assert_eq!(decode(&mut decoder, &encode(&mut encoder, &request)).unwrap(), request);
    }
    assert_eq!(encode(&mut encoder, &request).len(), request.len());
}
