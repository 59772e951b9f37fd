//! Services, rules and routes; what comes from outside the file.

#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::net::SocketAddr;

use abi::{Addr, ServiceIdx};
use towpath_lang::{Compiled, Loader, NoFiles, Overrides, SourceText, compile};

const APP: &str = r#"
service frontend { from: ["listen:pods", "10.0.0.0/8"] }
service admin    { from: "unix:/run/admin.sock" }
service catalog  { endpoints: ["127.0.0.1:1", { address: "unix:/x", weight: 5, zone: "z", labels: { a: "b" } }] hosts: ["Catalog.Local"] via: "fabric" }
service cart     { endpoints: ["[::1]:2"] }
frontend, admin -> catalog: Logging
frontend -> catalog.shop.Catalog/List: Compression
frontend -> catalog.shop.Catalog/*: LoadBalancing
* -> cart: Logging - Logging
admin -> *: Compression - Compression
frontend -> catalog.grpc.health.v1.Health/Check: Compression - Logging
every * -> *: Mark("all")
every frontend -> catalog.shop.Catalog/*: Mark("fc")
every admin -> *: Mark("admin")
element Mark(name: string) { request { call.metadata["m"] = "{call.metadata["m"] ?? ""}{name}" } }
"#;

fn chain_text(compiled: &Compiled, source: Option<&str>, to: &str, service: &str, method: &str) -> String {
    let program = &compiled.program;
    let at = |name: &str| program.service(name).unwrap();
    match program.routes.find(source.map(at), at(to), service, method) {
        Some(route) => {
            let plan = &compiled.images[route.chain as usize].plan;
            plan.elements.iter().map(|e| e.text.as_str()).collect::<Vec<_>>().join(" - ")
        }
        None => "none".into(),
    }
}

#[test]
fn the_most_specific_rule_serves_a_call() {
    let compiled = compile("app.adn", APP, &NoFiles, &Overrides::default()).unwrap();
    for (source, to, service, method, expected) in [
        (Some("frontend"), "catalog", "shop.Catalog", "List", "Mark(\"all\") - Mark(\"fc\") - Compression"),
        (Some("frontend"), "catalog", "shop.Catalog", "Get", "Mark(\"all\") - Mark(\"fc\") - LoadBalancing"),
        (Some("frontend"), "catalog", "shop.Other", "Get", "Mark(\"all\") - Logging"),
        (Some("admin"), "catalog", "shop.Catalog", "List", "Mark(\"all\") - Mark(\"admin\") - Logging"),
        (Some("admin"), "cart", "shop.Cart", "Get", "Mark(\"all\") - Mark(\"admin\") - Logging - Logging"),
        (None, "cart", "shop.Cart", "Get", "Mark(\"all\") - Logging - Logging"),
        (None, "catalog", "shop.Catalog", "List", "none"),
        (Some("frontend"), "catalog", "grpc.health.v1.Health", "Check", "Compression - Logging"),
        (Some("frontend"), "catalog", "grpc.health.v1.Health", "Watch", "none"),
    ] {
        assert_eq!(
            chain_text(&compiled, source, to, service, method),
            expected,
            "{source:?} {to} {service}/{method}"
        );
    }
}

#[test]
fn chains_of_the_same_rules_are_one() {
    let app = "service a { from: \"uid:1\" }\nservice b { from: \"uid:2\" }\nservice c { endpoints: [\"127.0.0.1:1\"] }\na, b -> c: Logging\na -> *: Logging";
    let compiled = compile("x", app, &NoFiles, &Overrides::default()).unwrap();
    assert_eq!((compiled.program.routes.len(), compiled.images.len()), (3, 2));
}

#[test]
fn services_are_read_whole() {
    let compiled = compile("app.adn", APP, &NoFiles, &Overrides::default()).unwrap();
    let catalog = &compiled.program.services[2];
    assert_eq!(catalog.hosts, ["catalog", "catalog.local"]);
    assert_eq!(catalog.via.as_deref(), Some("fabric"));
    let second = &catalog.endpoints[1];
    assert_eq!((second.addr.clone(), second.weight, second.zone.as_str()), (Addr::Unix("/x".into()), 5, "z"));
    assert_eq!(second.labels, [("a".to_owned(), "b".to_owned())]);
    assert_eq!(compiled.program.services[0].from.len(), 2);
    assert!(catalog.is_destination && !compiled.program.services[0].is_destination);
    let notes = compiled.notes.to_string();
    assert!(notes.contains("frontend is not authenticated") && !notes.contains("admin is not"), "{notes}");
}

#[test]
fn a_rule_for_a_method_that_no_proto_has_is_noted() {
    let notes = |rpc: &str| {
        let rule = format!("catalog.{rpc}: Logging");
        crate::shop::compile(&rule, "").unwrap().notes.to_string()
    };
    let note = notes("shop.Catalog/Gett");
    assert!(note.contains("no proto has shop.Catalog/Gett") && note.contains("`shop.Catalog/Get`"), "{note}");
    let note = notes("shop.Catalogue/*");
    assert!(note.contains("no proto has shop.Catalogue/*") && note.contains("`shop.Catalog`"), "{note}");
    assert!(notes("shop.Catalog/Purge").contains("no proto has shop.Catalog/Purge"));
    for known in ["shop.Catalog/Get", "shop.Catalog/*", "grpc.health.v1.Health/Check", "other.Thing/Do"] {
        assert!(!notes(known).contains("no proto has"), "{known}");
    }
}

#[test]
fn set_gives_endpoints_and_implies_services() {
    let addr = Addr::Ip("127.0.0.1:9".parse().unwrap());
    let set = |name: &str| Overrides { set: vec![(name.into(), vec![addr.clone()])], ..Overrides::default() };
    let seed = "service S1\nS1 -> S2: LoadBalancing - Logging - Compression - FaultInjection(0.1)";
    let compiled = compile("seed.adn", seed, &NoFiles, &set("S2")).unwrap();
    assert_eq!(compiled.program.service("S2"), Some(ServiceIdx(1)));
    assert_eq!(compiled.program.services[1].endpoints[0].addr, addr);
    let app = "service a\nservice b { endpoints: [\"127.0.0.1:1\", \"127.0.0.1:2\"] }\na -> b: Logging";
    assert_eq!(compile("x", app, &NoFiles, &set("b")).unwrap().program.services[1].endpoints.len(), 1);
    let wrong = compile("x", app, &NoFiles, &set("bb")).unwrap_err().to_string();
    assert!(wrong.contains("--set names the service `bb`") && wrong.contains("did you mean `b`"), "{wrong}");
    let empty =
        compile("x", "service a\nservice b\na -> b: Logging", &NoFiles, &Overrides::default()).unwrap_err();
    assert!(empty.to_string().contains("`b` is called and has no endpoints"));
}

#[test]
fn operators_add_every_rules_and_nothing_else() {
    let every = |text: &str| Overrides {
        every: vec![SourceText { name: "ops.adn".into(), text: text.into() }],
        ..Overrides::default()
    };
    let app =
        "service a\nservice b { endpoints: [\"127.0.0.1:1\"] }\na -> b: Logging\nevery a -> b: LoadBalancing";
    let compiled = compile("x", app, &NoFiles, &every("every a -> b: Compression")).unwrap();
    assert_eq!(chain_text(&compiled, Some("a"), "b", "s", "m"), "Compression - LoadBalancing - Logging");
    let wrong = compile("x", app, &NoFiles, &every("a -> b: Logging\nservice c")).unwrap_err().to_string();
    assert!(wrong.contains("ops.adn:1:1") && wrong.contains("ops.adn:2:9"), "{wrong}");
}

struct World;

impl Loader for World {
    fn read(&self, from: &str, path: &str) -> Result<SourceText, String> {
        let text = match path {
            "app.adn" => "",
            "lib.adn" => "use \"app.adn\"\nuse \"lib.adn\"\nelement Extra { request { count(\"x\") } }",
            "hosts.txt" => "# two\n127.0.0.1:5 weight=3 zone=a\n\nunix:/y # last\n",
            "bad.txt" => "127.0.0.1\n",
            _ => return Err(format!("no such file beside {from}")),
        };
        Ok(SourceText { name: path.into(), text: text.into() })
    }
    fn resolve(&self, host_port: &str) -> Result<Vec<SocketAddr>, String> {
        if host_port == "up:1" {
            Ok(vec!["10.0.0.1:1".parse().unwrap(), "10.0.0.2:1".parse().unwrap()])
        } else {
            Err("no such name".into())
        }
    }
}

#[test]
fn files_and_names_come_through_the_loader() {
    let app = |endpoints: &str| {
        format!("use \"lib.adn\"\nservice a\nservice b {{ endpoints: {endpoints} }}\na -> b: Extra")
    };
    let ok = |endpoints: &str| {
        compile("app.adn", &app(endpoints), &World, &Overrides::default()).unwrap().program.services[1]
            .endpoints
            .clone()
    };
    assert_eq!(ok("dns(\"up:1\")").len(), 2);
    let from_file = ok("file(\"hosts.txt\")");
    assert_eq!((from_file.len(), from_file[0].weight, from_file[0].zone.as_str()), (2, 3, "a"));
    for (endpoints, expected) in [
        ("dns(\"down:1\")", "cannot resolve down:1; no such name"),
        ("dns(\"down\")", "expected \"host:port\""),
        ("file(\"none\")", "cannot read \"none\"; no such file beside app.adn"),
        ("file(\"bad.txt\")", "bad.txt:1: `127.0.0.1` is no address"),
        ("fiel(\"bad.txt\")", "did you mean `file`?"),
    ] {
        let errors = compile("app.adn", &app(endpoints), &World, &Overrides::default()).unwrap_err();
        assert!(errors.to_string().contains(expected), "{errors}");
        assert_eq!(errors.len(), 1, "{errors}");
    }
    let missing =
        compile("app.adn", "use \"nothing\"", &World, &Overrides::default()).unwrap_err().to_string();
    assert!(missing.contains("cannot use \"nothing\""), "{missing}");
}

#[test]
fn rendering_shows_file_line_and_source() {
    let errors = compile(
        "shop.adn",
        "service a\nservice b { endpoints: [\"127.0.0.1:1\"] }\na -> b: FaultInjection(10)\n",
        &NoFiles,
        &Overrides::default(),
    )
    .unwrap_err();
    let plain = errors.render(false);
    for part in ["shop.adn:3:24", "a -> b: FaultInjection(10)", "share is 0..1; did you mean 10%?"] {
        assert!(plain.contains(part), "{plain}");
    }
    assert!(errors.render(true).contains("\u{1b}["));
}

#[test]
fn what_could_not_be_read_is_not_unknown_too() {
    let app = "service a\nservice b { endpoints [] }\nelement X { request { let } }\nelement Y { requst { } }\na -> b: X - Y - Logging";
    let errors = compile("x", app, &NoFiles, &Overrides::default()).unwrap_err();
    let lines: Vec<u32> = errors.iter().map(|e| errors.sources().place(e.span).0).collect();
    assert_eq!(lines, [2, 3, 4], "{errors}");
    let empty = compile("x", "service a", &NoFiles, &Overrides::default()).unwrap_err();
    assert!(empty.to_string().contains("this file has no rule"));
}

#[test]
fn a_chain_that_could_hold_up_a_turn_does_not_compile() {
    let loops = "for a in call.metadata.all(\"a\") { for b in call.metadata.all(\"b\") { for c in call.metadata.all(\"c\") { count(\"n\") } } }";
    let app = |body: &str| {
        format!(
            "service a\nservice b {{ endpoints: [\"127.0.0.1:1\"] }}\na -> b: X\nelement X {{ request {{ {body} }} }}"
        )
    };
    let errors = compile("x", &app(loops), &NoFiles, &Overrides::default()).unwrap_err().to_string();
    assert!(
        errors.contains("operations for one call") && errors.contains("chain_cost_max is 100000"),
        "{errors}"
    );
    let one = "for a in call.metadata.all(\"a\") { count(\"n\") }";
    assert!(compile("x", &app(one), &NoFiles, &Overrides::default()).is_ok());
    let narrow = Overrides { chain_cost_max: Some(50), ..Overrides::default() };
    assert!(compile("x", &app(one), &NoFiles, &narrow).is_err());
}

/// Two files with elements of one name, each under a name of its own.
#[test]
fn a_file_is_used_under_a_name() {
    struct Files;
    impl Loader for Files {
        fn read(&self, _from: &str, path: &str) -> Result<SourceText, String> {
            let guard = |status: &str| {
                format!(
                    "chain all = Guard(\"x\") - Null
                     element Guard(key: string) {{ request {{ if call.metadata[key] != None {{ reject({status}, \"no\") }} }} }}"
                )
            };
            let text = match path {
                "a.adn" => guard("ABORTED") + "\nuse \"c.adn\" as c\nchain deep = c.all - Guard(\"y\")",
                "b.adn" => guard("UNAVAILABLE") + "\nservice extra { endpoints: [\"127.0.0.1:7\"] }",
                "c.adn" => guard("INTERNAL"),
                "self.adn" => "use \"self.adn\" as me".to_owned(),
                _ => return Err("no such file".to_owned()),
            };
            Ok(SourceText { name: path.to_owned(), text })
        }
        fn resolve(&self, host_port: &str) -> Result<Vec<std::net::SocketAddr>, String> {
            Err(host_port.to_owned())
        }
    }
    let app = |rest: &str| {
        format!(
            "use \"a.adn\" as a\nuse \"b.adn\" as b\nservice f\nservice s {{ endpoints: [\"127.0.0.1:1\"] }}\n{rest}\n"
        )
    };
    let compile = |text: &str| compile("app.adn", text, &Files, &Overrides::default());
    let source = app("f -> s: a.Guard(\"k\") - b.all - a.deep - LoadBalancing\nf -> extra: LoadBalancing");
    let compiled = compile(&source).unwrap_or_else(|e| panic!("{e}"));
    let names: Vec<&str> = compiled.images[0].plan.elements.iter().map(|e| e.name.as_str()).collect();
    assert_eq!(names, ["a.Guard", "b.Guard", "Null", "a.c.Guard", "Null", "a.Guard", "LoadBalancing"]);
    for (rule, expected) in [
        ("f -> s: Guard(\"k\")", "unknown element `Guard`"),
        ("f -> s: a.Gard(\"k\")", "did you mean `a.Guard`?"),
        ("use \"self.adn\" as x\nf -> s: Null", "\"self.adn\" uses itself"),
    ] {
        let errors = compile(&app(rule)).unwrap_err().to_string();
        assert!(errors.contains(expected), "{errors}");
    }
}
