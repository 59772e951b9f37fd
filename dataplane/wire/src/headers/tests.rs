use super::*;

fn list(fields: &[(&[u8], &[u8])]) -> Headers {
    let mut out = Headers::new();
    for (name, value) in fields {
        out.push(name, value);
    }
    out
}

const REQUEST: [(&[u8], &[u8]); 6] = [
    (b":path", b"/p.S/M"),
    (b"te", b"trailers"),
    (b"x", b"1"),
    (b"grpc-timeout", b"20m"),
    (b"x", b"22"),
    (b"empty", b""),
];

#[test]
fn a_field_is_sixteen_bytes() {
    assert_eq!(size_of::<Field>(), 16);
}

#[test]
fn empty_is_not_missing() {
    let list = list(&REQUEST);
    assert_eq!(list.get_name(b"empty", 0), Some(&b""[..]));
    assert_eq!(list.get_name(b"missing", 0), None);
    assert_eq!(list.get_name(b"x", 1), Some(&b"22"[..]));
    assert_eq!(list.get_name(b"x", 2), None);
    assert_eq!(list.get(Token::GrpcTimeout), Some(&b"20m"[..]));
    assert_eq!(list.get(Token::GrpcStatus), None);
    assert_eq!(list.list_size(), 6 * 32 + REQUEST.iter().map(|(n, v)| n.len() + v.len()).sum::<usize>());
}

#[test]
fn a_changed_list_equals_one_made_so() {
    for token in [Token::Path, Token::GrpcTimeout, Token::Other, Token::Te, Token::GrpcStatus] {
        let mut removed = list(&REQUEST);
        removed.remove(token);
        let left = REQUEST.iter().copied().filter(|(n, _)| Token::of(n) != token);
        assert_eq!(removed, list(&left.collect::<Vec<_>>()));
        for value in [&b""[..], b"20m", b"much longer than it was before"] {
            let mut changed = list(&REQUEST);
            changed.set(token, b"name", value);
            let mut expected: Vec<(&[u8], &[u8])> = Vec::new();
            let mut is_seen = false;
            for (n, v) in REQUEST {
                if Token::of(n) != token {
                    expected.push((n, v));
                } else if !is_seen {
                    is_seen = true;
                    expected.push((b"name", value));
                }
            }
            if !is_seen {
                expected.push((b"name", value));
            }
            let got: Vec<_> = changed.iter().map(|(_, n, v)| (n, v)).collect();
            assert_eq!(got, expected);
            assert_eq!(changed.list_size(), list(&expected).list_size());
        }
    }
}

#[test]
fn a_list_in_two_parts_is_the_list() {
    for cut in 0..=REQUEST.len() {
        let mut whole = list(&REQUEST[..cut]);
        whole.append(&list(&REQUEST[cut..]));
        assert_eq!(whole, list(&REQUEST));
        for token in [Token::Path, Token::Te, Token::Other, Token::GrpcTimeout, Token::TowpathCall] {
            assert_eq!(whole.has(token), whole.get(token).is_some());
        }
        whole.clear();
        assert_eq!(whole, Headers::new());
    }
}

#[test]
fn numbers_are_digits_only() {
    for (text, is) in [("0", 0), ("14", 14), ("200", 200), ("999999999999999999", 999_999_999_999_999_999)] {
        assert_eq!(decimal(text.as_bytes()), Some(is));
    }
    for text in ["", "+5", "-1", "2a", " 0", "1000000000000000000"] {
        assert_eq!(decimal(text.as_bytes()), None, "{text}");
    }
}

#[test]
fn set_in_place_keeps_equality_with_the_list_it_came_from() {
    let mut changed = list(&REQUEST);
    changed.set(Token::GrpcTimeout, b"grpc-timeout", b"1234567u");
    assert_ne!(changed, list(&REQUEST));
    assert!(!changed.is_same(&list(&REQUEST)));
    changed.set(Token::GrpcTimeout, b"grpc-timeout", b"20m");
    assert_eq!(changed, list(&REQUEST));
    assert!(changed.is_same(&list(&REQUEST)));
}

#[test]
fn the_same_bytes_cut_otherwise_are_another_list() {
    assert!(!list(&[(b"ab", b"c")]).is_same(&list(&[(b"a", b"bc")])));
    assert!(!list(&[(b"a", b"b"), (b"c", b"d")]).is_same(&list(&[(b"a", b"bcd")])));
    let (mut plain, mut never) = (Headers::new(), Headers::new());
    plain.push_field(Token::Other, b"a", b"b", false);
    never.push_field(Token::Other, b"a", b"b", true);
    assert!(!plain.is_same(&never));
}

#[test]
fn append_and_copy() {
    let (mut joined, second) = (list(&REQUEST), list(&REQUEST[2..4]));
    joined.append(&second);
    let both: Vec<_> = REQUEST.iter().chain(&REQUEST[2..4]).copied().collect();
    assert_eq!(joined, list(&both));
    joined.copy_from(&second);
    assert_eq!(joined, second);
    joined.clear();
    assert!(joined.is_empty() && joined.list_size() == 0);
}

#[test]
fn tokens_of_names_near_to_known_ones() {
    for name in [&b"tf"[..], b":paths", b":statut", b"grpc-statu", b"hosts", b"", b"user-agenu"] {
        assert_eq!(Token::of(name) == Token::UnknownPseudo, name.first() == Some(&b':'));
        assert!(matches!(Token::of(name), Token::Other | Token::UnknownPseudo));
    }
    for name in [&b"connection"[..], b"proxy-connection", b"keep-alive", b"upgrade", b"transfer-encoding"] {
        assert_eq!(Token::of(name), Token::ConnectionSpecific);
    }
    assert!(Token::of(b":protocol").is_pseudo() && Token::of(b":x").is_pseudo());
}
