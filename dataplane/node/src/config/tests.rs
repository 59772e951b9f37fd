use super::*;

fn refused(text: &str) -> String {
    match parse("node.toml", text) {
        Ok(config) => panic!("accepted: {config:?}"),
        Err(failure) => failure.to_string(),
    }
}

/// The example of DESIGN.md, and every other key.
const FULL: &str = r#"
every = ["/etc/towpath/every.adn"]
[shards]
cores = [0, 1]
poll = "block"
backend = "epoll"
force_baseline = true
[[listen]]
name = "pods"
address = "10.7.0.2:15001"
destination = "catalog"
protocol = "h2"
[[listen]]
address = "unix:/run/towpath/pods.sock"
protocol = "auto"
[[listen]]
address = "10.8.0.2:15001"
port = "fabric"
[[port]]
name = "fabric"
backend = "dpdk"
device = "net_memif0,role=client"
address = ["10.8.0.2/24", "fd08::2/64"]
gateway = "10.8.0.1"
route = [{ to = "10.9.0.0/16", via = "10.8.0.9" }]
promiscuous = true
mtu = 9000
[[port]]
name = "edge"
backend = "xdp"
device = "eth1"
address = "10.7.0.2/24"
mode = "skb"
source_ports = "40000-40999"
[dpdk]
memory = "512MiB"
[offload]
compression = "cpu"
crypto = "cpu"
call_age_max = "30s"
[keys]
wire = "/etc/towpath/wire.keys"
lab = "env:LAB_KEY"
[access_log]
to = "/var/log/towpath.json"
when = "always"
[admin]
address = "127.0.0.1:9902"
socket = "/run/other.sock"
[chains]
code = "interpret"
cost_max = 5000
[limits]
connections_max = 1000
message_bytes_max = "1MiB"
pool_bytes = 1048576
connect_timeout = "500ms"
drain_ns = 5000000000
"#;

#[test]
fn an_empty_file_is_the_default() {
    let config = parse("node.toml", "").unwrap();
    assert_eq!(config, Config::default());
    assert_eq!(config.listen[0].address.to_string(), "127.0.0.1:15001");
    assert_eq!(config.admin.unwrap().to_string(), "127.0.0.1:9901");
}

#[test]
fn every_key_of_the_design_is_read() {
    let c = parse("node.toml", FULL).unwrap();
    assert_eq!(c.cores, Some(vec![0, 1]));
    assert_eq!((c.poll, c.backend, c.force_baseline), (io::Poll::Block, Choice::Epoll, true));
    assert_eq!(c.listen.len(), 3);
    assert_eq!(c.listen[2].port.as_deref(), Some("fabric"));
    assert_eq!(c.listen[0].name, "pods");
    assert_eq!(c.listen[0].destination.as_deref(), Some("catalog"));
    assert_eq!(c.listen[0].line, 8);
    assert_eq!(c.listen[1].protocol, Protocol::Auto);
    assert_eq!(c.log_to, LogTo::Path("/var/log/towpath.json".into()));
    assert_eq!(c.log_when, AccessWhen::Always);
    assert_eq!(c.admin.unwrap().port(), 9902);
    assert_eq!(c.socket, AdminSocket::Path("/run/other.sock".into()));
    assert_eq!((c.code, c.chain_cost_max), (Code::Interpret, 5000));
    assert_eq!(c.limits.connections_max, 1000);
    assert_eq!(c.limits.message_bytes_max, 1 << 20);
    assert_eq!(c.limits.pool_bytes, 1 << 20);
    assert_eq!(c.limits.connect_timeout_ns, 500_000_000);
    assert_eq!(c.limits.drain_ns, 5_000_000_000);
    assert_eq!(c.every, ["/etc/towpath/every.adn"]);
    let keys: Vec<String> = c.offload.keys.iter().map(|(name, at)| format!("{name} {at}")).collect();
    assert_eq!(keys, ["lab $LAB_KEY", "wire /etc/towpath/wire.keys"]);
    assert_eq!(c.offload.call_age_max_s, 30);
}

#[test]
fn raw_ports_are_read_whole() {
    let c = parse("node.toml", FULL).unwrap();
    assert_eq!(c.dpdk_memory, io::DpdkMemory::Ordinary(512));
    let [fabric, edge] = &c.ports[..] else { panic!("{:?}", c.ports) };
    let device = "net_memif0,role=client".to_owned();
    assert_eq!(
        (fabric.name.as_str(), &fabric.device),
        ("fabric", &io::DeviceSpec::Dpdk { device, promiscuous: true, mtu: Some(9000) })
    );
    assert_eq!(fabric.addresses.len(), 2);
    let routes: Vec<String> =
        fabric.routes.iter().map(|r| format!("{}/{} {}", r.network, r.prefix_len, r.via)).collect();
    assert_eq!(routes, ["10.9.0.0/16 10.8.0.9", "0.0.0.0/0 10.8.0.1"]);
    assert_eq!((&fabric.shared, &edge.shared), (&None, &Some(40_000..=40_999)));
    assert_eq!(edge.device, io::DeviceSpec::Xdp { interface: "eth1".into(), mode: io::XdpMode::Skb });
}

#[test]
fn a_raw_port_that_is_not_whole_says_what_it_needs() {
    let text = refused("[[port]]\nname = \"a\"\nbackend = \"xdp\"\naddress = \"10.7.0.2\"\n");
    assert!(text.contains("no address with a prefix length") && text.contains("node.toml:4"), "{text}");
    let text = refused("[[port]]\nbackend = \"xdp\"\naddress = \"10.7.0.2/24\"\n");
    assert!(text.contains("needs a name") && text.contains("device = \"eth1\""), "{text}");
    let text = refused(
        "[[port]]\nname = \"a\"\nbackend = \"dpdk\"\ndevice = \"net_null0\"\naddress = \"10.7.0.2/24\"\nmode = \"skb\"\n",
    );
    assert!(text.contains("`mode` goes with backend = \"xdp\" only"), "{text}");
    let with = |line: &str| {
        refused(&format!(
            "[[port]]\nname = \"a\"\nbackend = \"xdp\"\ndevice = \"eth1\"\naddress = \"10.7.0.2/24\"\n{line}\n"
        ))
    };
    let text = with("mtu = 9000");
    assert!(text.contains("`mtu` goes with backend = \"dpdk\" only"), "{text}");
    let text = with("mtu = 90000");
    assert!(
        text.contains("no MTU: 90000") && text.contains("from 1280 on") && text.contains("node.toml:6"),
        "{text}"
    );
    let text = refused("[dpdk]\nmemory = \"lots\"\n");
    assert!(text.contains("hugepages") && text.contains("512MiB"), "{text}");
}

#[test]
fn an_unknown_key_is_shown_with_its_line_and_the_nearest() {
    let text = refused("[shards]\n\ncore = [0]\n");
    assert!(text.contains("unknown key `core` in [shards]"), "{text}");
    assert!(text.contains("node.toml:3"), "{text}");
    assert!(text.contains("did you mean `cores`?"), "{text}");
    assert!(text.contains("expected one of: cores, poll, backend, force_baseline"), "{text}");
}

#[test]
fn everything_wrong_is_shown_at_once_in_order() {
    let text = refused(
        "[shards]\npoll = \"bussy\"\n[limits]\nstreams_max = 70000\nconnect_timeout = 2\nbacklog = 1\n",
    );
    let places: Vec<usize> = [
        "\"bussy\"",
        "`streams_max` is 70000; it must be from 1 to 65536",
        "needs a unit",
        "unknown limit `backlog`",
    ]
    .iter()
    .map(|part| text.find(part).unwrap_or_else(|| panic!("{part} is not in {text}")))
    .collect();
    assert!(places.is_sorted(), "{text}");
    assert!(text.contains("did you mean \"busy\"?"), "{text}");
}

#[test]
fn jobs_have_a_place_or_the_line_says_which_there_are() {
    let text = "[offload]\ncompression = \"dpdk:compress_isal0\"\ncrypto = \"0000:3b:00.1\"\nplacement = \"pinned\"\n";
    let c = parse("node.toml", text).unwrap().offload;
    assert_eq!(c.devices(), [Some("compress_isal0"), Some("0000:3b:00.1")]);
    assert_eq!(c.choice, ::offload::Choice::Pinned);
    let said = c.text();
    let again = parse("node.toml", &said.replace("dpdk:0000", "0000")).unwrap().offload;
    assert_eq!(again, c, "{said}");
    for (value, expected) in
        [("isal", "\"dpdk:DEVICE\""), ("dpdk:", "PCI address"), ("gpu", "expected \"cpu\"")]
    {
        let said = refused(&format!("[offload]\ncompression = \"{value}\"\n"));
        assert!(said.contains(expected), "{said}");
    }
    let said = refused("[offload]\ncall_age_max = \"2h\"\n");
    assert!(said.contains("not between 1 s and 1 h"), "{said}");
}

#[test]
fn values_of_the_wrong_kind_say_what_was_expected() {
    for (text, expected) in [
        ("shards = 1", "[shards] is a table; found integer"),
        ("[listen]\naddress = \"x\"", "[[listen]], with two brackets"),
        ("[[listen]]\nname = \"a\"", "a listener needs an address"),
        ("[[listen]]\naddress = \":80\"", "did you mean 127.0.0.1:80"),
        ("[[listen]]\naddress = 80", "expected a text in quotes, found integer"),
        ("[[listen]]\naddress = \"1.1.1.1:1\"\nprotocol = \"tcp\"", "destination ="),
        ("[shards]\ncores = [0, 0]", "core 0 is named twice"),
        ("[shards]\ncores = [-1]", "not negative"),
        ("[shards]\ncores = \"all\"", "expected \"auto\""),
        ("[admin]\naddress = \"unix:/x\"", "a unix socket is `socket`"),
        ("[chains]\ncost_max = 0", "expected at least 1"),
        ("[chains]\ncost_max = \"5\"", "expected a whole number"),
        ("[limits]\nstreams_max = 0", "must be from 1"),
        ("[limits]\nmessage_bytes_max = \"1TiB\"", "no size"),
        ("[shards\ncores = 1", "not TOML"),
        ("[shards]\npoll = \"busy\"\npoll = \"busy\"", "duplicate key"),
    ] {
        let said = refused(text);
        assert!(said.contains(expected), "{text}\n{said}");
    }
}

#[test]
fn addresses_can_be_switched_off() {
    let c = parse("node.toml", "[admin]\naddress = \"off\"\nsocket = \"off\"\n[access_log]\nto = \"off\"\n")
        .unwrap();
    assert_eq!((c.admin, c.socket, c.log_to), (None, AdminSocket::Off, LogTo::Off));
}
