//! `towpath explain --message`, and what `node.toml` says to it.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use support::{Folder, Towpath};

const ORDERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/orders.adn");
const PLACE: &str = "shop -> orders.orders.Orders/Place";

fn explain(app: &str, call: &str, message: &str) -> (i32, String, String) {
    let done = Towpath::run(&["explain", app, "--call", call, "-H", "x-tenant:acme", "--message", message]);
    (done.code, done.stdout, done.stderr)
}

#[test]
fn a_message_decides_what_becomes_of_the_call() {
    let passes = r#"{"buyer": {"id": "alice"}, "lines": [{"sku": "tea", "count": 2}], "discount": 0.5}"#;
    let (code, out, err) = explain(ORDERS, PLACE, passes);
    assert_eq!(code, 0, "{err}");
    for part in
        ["metadata[\"x-buyer\"] = \"alice\"", "the message is written anew", "verdict   forward to orders"]
    {
        assert!(out.contains(part), "{part} is not in {out}");
    }
    for (message, verdict) in [
        (passes.replace("alice", "mallory"), "verdict   PERMISSION_DENIED \"firewall: denied\""),
        (passes.replace("\"id\"", "\"name\""), "verdict   PERMISSION_DENIED"),
        (passes.replace(": 2", ": 101"), "verdict   INVALID_ARGUMENT \"at most 100 of one thing\""),
        ("{}".to_owned(), "verdict   PERMISSION_DENIED \"firewall: nothing to judge by\""),
    ] {
        let (code, out, err) = explain(ORDERS, PLACE, &message);
        assert!(code == 0 && out.contains(verdict), "{verdict}\n{out}{err}");
    }
    let none = Towpath::run(&["explain", ORDERS, "--call", PLACE]);
    assert!(none.stdout.contains("waits for the message, which --message imagines"), "{}", none.stdout);
}

#[test]
fn what_is_no_message_is_one_line_that_says_what_was_expected() {
    let folder = Folder::new("message");
    let plain = "service shop\nservice orders { endpoints: [\"127.0.0.1:1\"] }\nshop -> orders: Logging\n";
    let plain = folder.write("plain.adn", plain);
    for (app, call, message, parts) in [
        (
            ORDERS,
            PLACE,
            "{\"buyers\": 1}",
            ["no orders.Order: ", "buyers", "expected { buyer: orders.Buyer, lines: [orders.Line]"],
        ),
        (ORDERS, PLACE, "{\"lines\": 1}", ["no orders.Order: ", "line 1", "expected {"]),
        (ORDERS, PLACE, "{} {}", ["no orders.Order: ", "trailing", "expected {"]),
        (
            ORDERS,
            "shop -> orders.orders.Orders/Plac",
            "{}",
            ["knows the method", "orders.Orders/Plac", "did you mean `orders.Orders/Place`?"],
        ),
        (
            &plain,
            PLACE,
            "{}",
            ["plain.adn has no `proto` line", "plain.adn:3", "expected one, as in proto \""],
        ),
    ] {
        let (code, out, err) = explain(app, call, message);
        assert_eq!((code, out.as_str(), err.lines().count()), (1, "", 1), "{err}");
        for part in parts {
            assert!(err.contains(part), "{part} is not in {err}");
        }
    }
}

#[test]
fn an_operator_bounds_what_a_chain_may_take() {
    let folder = Folder::new("cost");
    let config = folder.write("node.toml", "[chains]\ncost_max = 10\n");
    for command in ["check", "explain"] {
        let done = Towpath::run(&[command, ORDERS, "--config", &config]);
        assert_eq!(done.code, 1, "{}", done.stdout);
        for part in ["operations for one call", "chain_cost_max is 10", "orders.adn:"] {
            assert!(done.stderr.contains(part), "{part} is not in {}", done.stderr);
        }
        assert_eq!(Towpath::run(&[command, ORDERS]).code, 0);
    }
}
