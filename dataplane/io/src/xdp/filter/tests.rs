//! The program against the rules in plain Rust, run by the kernel on frames made up here.

use super::*;
use crate::xdp::bpf::{SocketMap, load, verdict};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use std::os::fd::OwnedFd;

/// What a frame that would be taken gets here, where the queue has no socket.
const TAKEN: u32 = 3;

/// The rules' program in the kernel; `None`, after saying so, without the right to load one.
fn program(rules: &Rules) -> Option<(OwnedFd, SocketMap)> {
    let loaded = SocketMap::new(1).and_then(|map| {
        let insns = rules.assemble(map.descriptor(), TAKEN).unwrap();
        Ok((load(&insns)?, map))
    });
    match loaded {
        Ok(loaded) => Some(loaded),
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
            println!("SKIPPED: loading an XDP program needs root");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// What the table in the module's header says, written the other way round: from the frame's end.
fn takes(rules: &Rules, frame: &[u8]) -> bool {
    let half = |at: usize| frame.get(at..at + 2).map(|b| u16::from_be_bytes([b[0], b[1]]));
    let v4 = |at: usize| frame.get(at..at + 4).is_some_and(|b| rules.v4.iter().any(|a| a.octets() == b));
    let v6 = |at: usize| frame.get(at..at + 16).is_some_and(|b| rules.v6.iter().any(|a| a.octets() == b));
    let port = |at: usize, ports: &[RangeInclusive<u16>]| {
        half(at).is_some() && half(at + 2).is_some_and(|port| ports.iter().any(|range| range.contains(&port)))
    };
    match (half(12), &rules.ports) {
        (Some(ETHERTYPE_ARP), None) => v4(38),
        (Some(ETHERTYPE_IPV4), None) => frame.len() >= 34 && v4(30),
        (Some(ETHERTYPE_IPV6), None) => {
            let solicits = frame.len() >= 78 && frame[20] == 58 && frame[54] == 135 && v6(62);
            frame.len() >= 54 && (v6(38) || solicits)
        }
        (Some(ETHERTYPE_IPV4), Some(ports)) => {
            frame.len() >= 34
                && v4(30)
                && frame[23] == 6
                && half(20).is_some_and(|fragment| fragment & 0x3fff == 0)
                && frame[14] & 15 >= 5
                && port(14 + usize::from(frame[14] & 15) * 4, ports)
        }
        (Some(ETHERTYPE_IPV6), Some(ports)) => {
            frame.len() >= 54 && v6(38) && frame[20] == 6 && port(54, ports)
        }
        _ => false,
    }
}

fn rules(shared: bool) -> Rules {
    let addresses = ["10.7.0.2", "10.7.0.9", "fd00::2", "fe80::ff:fe00:1"].map(|a| a.parse().unwrap());
    Rules::new(&addresses, shared.then_some(&[80..=80, 15_001..=15_999, 0xff00..=0xffff]))
}

/// Frames near the edges of what is taken: most bytes are from few values that mean something.
fn frames() -> impl Strategy<Value = Vec<u8>> {
    let ethertype = prop_oneof![6 => Just(0x0800_u16), 6 => Just(0x86dd), 2 => Just(0x0806), 1 => Just(0x8100), 1 => any::<u16>()];
    let v4 = prop_oneof![Just([10_u8, 7, 0, 2]), Just([10, 7, 0, 9]), Just([10, 7, 0, 3]), any::<[u8; 4]>()];
    let v6 = prop_oneof![
        Just("fd00::2".parse::<Ipv6Addr>().unwrap()),
        Just("fe80::ff:fe00:1".parse().unwrap()),
        Just("ff02::1:ff00:2".parse().unwrap()),
        Just("fd00::3".parse().unwrap()),
    ];
    let protocol = prop_oneof![3 => Just(6_u8), 1 => Just(17), 2 => Just(58)];
    let port = prop_oneof![Just(80_u16), Just(79), 15_000_u16..16_001, any::<u16>()];
    let first = prop_oneof![3 => Just(0x45_u8), 1 => 0x40_u8..0x50];
    let fragment = prop_oneof![2 => Just(0_u16), 2 => Just(0x4000), 1 => Just(0x2000), 1 => any::<u16>()];
    let icmp = prop_oneof![Just(135_u8), Just(136)];
    let target = v6.clone();
    let len = prop_oneof![14_usize..130, Just(130)];
    (ethertype, (v4, v6, target), (protocol, first, fragment, icmp), port, len).prop_map(
        |(ethertype, (v4, v6, target), (protocol, first, fragment, icmp), port, len)| {
            let mut frame = vec![0_u8; 130];
            frame[12..14].copy_from_slice(&ethertype.to_be_bytes());
            if ethertype == ETHERTYPE_ARP {
                frame[38..42].copy_from_slice(&v4);
            } else if ethertype == ETHERTYPE_IPV4 {
                (frame[14], frame[23]) = (first, protocol);
                frame[20..22].copy_from_slice(&fragment.to_be_bytes());
                frame[30..34].copy_from_slice(&v4);
                let tcp = 14 + usize::from(first & 15) * 4;
                if tcp >= 34 {
                    frame[tcp + 2..tcp + 4].copy_from_slice(&port.to_be_bytes());
                }
            } else {
                frame[20] = protocol;
                frame[38..54].copy_from_slice(&v6.octets());
                frame[56..58].copy_from_slice(&port.to_be_bytes());
                if protocol == 58 {
                    frame[54] = icmp;
                    frame[62..78].copy_from_slice(&target.octets());
                }
            }
            frame.truncate(len);
            frame
        },
    )
}

#[test]
fn the_program_does_what_the_rules_say() {
    for rules in [rules(false), rules(true)] {
        let Some((program, _map)) = program(&rules) else { return };
        let (mut taken, mut passed) = (0, 0);
        let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(4000));
        for _ in 0..4000 {
            let frame = frames().new_tree(&mut runner).unwrap().current();
            let expected = if takes(&rules, &frame) { TAKEN } else { XDP_PASS };
            assert_eq!(verdict(&program, &frame).unwrap(), expected, "{rules:?}\n{frame:02x?}");
            if expected == TAKEN { taken += 1 } else { passed += 1 }
        }
        assert!(taken > 200 && passed > 200, "{taken} taken, {passed} passed: the frames are too much alike");
    }
}

#[test]
fn as_many_addresses_as_a_jump_can_pass() {
    let addresses = |count: u32| -> Vec<IpAddr> {
        (0..count).map(|at| IpAddr::V6(Ipv6Addr::from_bits(u128::from(at) << 64 | 0xfd))).collect()
    };
    let many = Rules::new(&addresses(100), None);
    let Some((program, _map)) = program(&many) else { return };
    let mut frame = vec![0_u8; 60];
    frame[12..14].copy_from_slice(&ETHERTYPE_IPV6.to_be_bytes());
    frame[38..54].copy_from_slice(&many.v6[99].octets());
    assert_eq!(verdict(&program, &frame).unwrap(), TAKEN);
    assert!(Rules::new(&addresses(5000), None).assemble(0, XDP_PASS).is_none());
}
