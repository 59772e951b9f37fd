//! Messages made in the language, and entries of maps, by what protobuf reads of what was written.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use crate::common::{Mock, run};
use crate::shop::{compile, encode, pool, text};
use abi::{Entry, Verdict};
use prost_reflect::DynamicMessage;

/// What `request` makes of a message of `Get`, as protobuf shows it.
fn written(body: &str, message: &[u8]) -> String {
    let element = format!("element E {{ request {{ {body} }} }}");
    let compiled =
        compile("catalog.shop.Catalog/Get: E", &element).unwrap_or_else(|e| panic!("{e}\n{element}"));
    let mut mock = Mock::new(1).header("k", "seen");
    (mock.service, mock.method) = ("shop.Catalog".into(), "Get".into());
    mock.words = vec![0; compiled.program.chains[0].plan().call_words];
    mock.payload = Some(message.to_vec());
    assert_eq!(run(&compiled, Entry::Request, &mut mock).0, Verdict::Forward, "{body}");
    let ty = pool().get_message_by_name("shop.GetRequest").unwrap();
    let bytes = mock.payload.unwrap();
    let message = DynamicMessage::decode(ty, bytes.as_slice()).unwrap_or_else(|e| panic!("{body}: {e}"));
    // The entries of a map have no order of their own.
    let shown = message.to_string();
    let Some((before, rest)) = shown.split_once("labels:[{") else { return shown };
    let (entries, after) = rest.split_once("}]").unwrap();
    let mut entries: Vec<&str> = entries.split("},{").collect();
    entries.sort_unstable();
    format!("{before}labels:[{{{}}}]{after}", entries.join("},{"))
}

fn errors(body: &str) -> String {
    let element = format!("element E {{ request {{ {body} }} }}");
    compile("catalog.shop.Catalog/Get: E", &element).err().unwrap_or_else(|| panic!("compiles: {body}"))
}

#[test]
fn messages_are_made() {
    for (body, expected) in [
        (
            "call.payload.user = User { id: \"a\", name: call.metadata[\"k\"] }",
            "user{id:\"a\",name:\"seen\"}",
        ),
        ("call.payload.user = User {}", "user{}"),
        ("call.payload.user = if call.attempt == 1 { User { id: \"x\" } } else { None }", "user{id:\"x\"}"),
        (
            "call.payload.items = [Item { sku: \"a\", count: 2, notes: [\"x\", \"y\"], inner: Item { sku: \"in\" } }, Item { }]",
            "items:[{sku:\"a\",count:2,inner{sku:\"in\"},notes:[\"x\",\"y\"]},{}]",
        ),
        (
            "call.payload = GetRequest { id: \"n\", tier: BANNED, sizes: [-1, 5], number: -7, price: 0.5, delta: -3 }",
            "id:\"n\",tier:BANNED,sizes:[-1,5],number:-7,price:0.5,delta:-3",
        ),
        ("call.payload = GetRequest { id: call.metadata[\"absent\"], limit: 0 }", "limit:0"),
        (
            "call.payload = GetRequest { labels: { \"a\": \"1\", call.method: \"2\", \"a\": \"3\" } }",
            "labels:[{key:\"Get\",value:\"2\"},{key:\"a\",value:\"3\"}]",
        ),
        (
            "call.payload = GetRequest { parts: { 5: Item { sku: \"p\" } } }",
            "parts:[{key:5,value{sku:\"p\"}}]",
        ),
        ("let u = User { id: \"made\" }  call.payload.id = u.id", "id:\"made\""),
        ("let u = call.payload.user ?? User { id: \"default\" }  call.payload.id = u.id", "id:\"default\""),
    ] {
        let shown = written(body, &[]).replace(' ', "");
        assert_eq!(shown, expected.replace(' ', ""), "{body}");
    }
}

#[test]
fn entries_of_a_map_are_written_one_by_one() {
    use prost_reflect::{MapKey, Value};
    let labels = [("a", "1"), ("b", "2")].map(|(k, v)| (MapKey::String(k.into()), text(v)));
    let message =
        encode("shop.GetRequest", &[("id", text("i")), ("labels", Value::Map(labels.into_iter().collect()))]);
    for (body, expected) in [
        (
            "call.payload.labels[\"a\"] = \"new\"",
            "labels:[{key:\"a\",value:\"new\"},{key:\"b\",value:\"2\"}]",
        ),
        ("call.payload.labels[\"b\"] = None", "labels:[{key:\"a\",value:\"1\"}]"),
        ("call.payload.labels[\"none\"] = None", "labels:[{key:\"a\",value:\"1\"},{key:\"b\",value:\"2\"}]"),
        (
            "call.payload.labels[\"c\"] = call.metadata[\"k\"]",
            "labels:[{key:\"a\",value:\"1\"},{key:\"b\",value:\"2\"},{key:\"c\",value:\"seen\"}]",
        ),
        ("call.payload.labels[\"a\"] = \"\"", "labels:[{key:\"a\",value:\"\"},{key:\"b\",value:\"2\"}]"),
        ("call.payload.labels = { \"only\": \"{call.payload.id}\" }", "labels:[{key:\"only\",value:\"i\"}]"),
        ("call.payload.labels = {}", ""),
        ("call.payload.labels = None", ""),
        (
            "call.payload.labels[\"a\"] = \"x\"  call.payload.labels[\"b\"] = call.payload.labels[\"a\"]",
            "labels:[{key:\"a\",value:\"x\"},{key:\"b\",value:\"x\"}]",
        ),
        (
            "call.payload.parts[-3] = Item { sku: \"p\" }",
            "labels:[{key:\"a\",value:\"1\"},{key:\"b\",value:\"2\"}],parts:[{key:-3,value{sku:\"p\"}}]",
        ),
    ] {
        let shown = written(body, &message).replace(' ', "");
        let expected = ["id:\"i\"", expected].join(",").trim_end_matches(',').to_owned();
        assert_eq!(shown, expected, "{body}");
    }
}

#[test]
fn items_of_a_list_are_written_where_they_stand() {
    use prost_reflect::Value;
    let item = |sku: &str| {
        let notes = Value::List(vec![text("n0"), text("n1")]);
        Value::Message(crate::shop::made("shop.Item", &[("sku", text(sku)), ("notes", notes)]))
    };
    let message = encode(
        "shop.GetRequest",
        &[
            ("tags", Value::List(vec![text("a"), text("b")])),
            ("sizes", Value::List([1, 2, 3].map(Value::I32).to_vec())),
            ("items", Value::List(vec![item("one"), item("two")])),
        ],
    );
    let (tags, sizes) = ("tags:[\"a\",\"b\"]", "sizes:[1,2,3]");
    let notes = "notes:[\"n0\",\"n1\"]";
    let one = format!("{{sku:\"one\",{notes}}}");
    let two = format!("{{sku:\"two\",{notes}}}");
    let items = format!("items:[{one},{two}]");
    let all = format!("{tags},{sizes},{items}");
    for (body, expected) in [
        ("call.payload.tags[0] = call.metadata[\"k\"]", format!("tags:[\"seen\",\"b\"],{sizes},{items}")),
        ("call.payload.tags[0] = \"\"", format!("tags:[\"\",\"b\"],{sizes},{items}")),
        ("call.payload.tags[1] = None", format!("tags:[\"a\"],{sizes},{items}")),
        ("call.payload.tags[2] = \"beyond\"", all.clone()),
        ("call.payload.tags[parse_int(\"-1\") ?? 0] = \"before\"", all.clone()),
        ("call.payload.tags = None  call.payload.sizes = None", items.clone()),
        ("call.payload.sizes[call.attempt] = 0", format!("{tags},sizes:[1,0,3],{items}")),
        ("call.payload.sizes[0] = call.payload.sizes[2]", format!("{tags},sizes:[3,2,3],{items}")),
        (
            "call.payload.items[1].sku = \"new\"",
            format!("{tags},{sizes},items:[{one},{{sku:\"new\",{notes}}}]"),
        ),
        (
            "call.payload.items[0].notes[1] = \"x\"",
            format!("{tags},{sizes},items:[{{sku:\"one\",notes:[\"n0\",\"x\"]}},{two}]"),
        ),
        ("call.payload.items[9].notes[1] = \"x\"", all.clone()),
        (
            "call.payload.items[0] = Item { sku: \"made\" }",
            format!("{tags},{sizes},items:[{{sku:\"made\"}},{two}]"),
        ),
        ("call.payload.items[0] = None", format!("{tags},{sizes},items:[{two}]")),
        ("call.payload.items[0] = call.payload.items[1]", format!("{tags},{sizes},items:[{two},{two}]")),
        (
            "call.payload.items[0].inner.inner.sku = \"deep\"",
            format!("{tags},{sizes},items:[{{sku:\"one\",inner{{inner{{sku:\"deep\"}}}},{notes}}},{two}]"),
        ),
        // What stands behind sees what was written.
        (
            "call.payload.tags[0] = \"w\"  call.payload.id = call.payload.tags[0] ?? \"\"",
            format!("id:\"w\",tags:[\"w\",\"b\"],{sizes},{items}"),
        ),
        ("if call.payload.items[5].sku == None { call.payload.items[5].sku = \"x\" }", all.clone()),
    ] {
        let shown = written(body, &message).replace(' ', "");
        assert_eq!(shown, expected, "{body}");
    }
    // A message that is on the way to an item that is not there is not made.
    assert_eq!(written("call.payload.items[0].sku = \"x\"", &[]), "");
}

#[test]
fn entries_of_a_map_have_keys_of_the_call() {
    use prost_reflect::{MapKey, Value};
    let labels = [("seen", "1"), ("b", "seen")].map(|(k, v)| (MapKey::String(k.into()), text(v)));
    let part = Value::Message(crate::shop::made("shop.Item", &[("sku", text("p"))]));
    let parts = [(MapKey::I32(1), part)].into_iter().collect();
    let message = encode(
        "shop.GetRequest",
        &[("labels", Value::Map(labels.into_iter().collect())), ("parts", Value::Map(parts))],
    );
    for (value, expected) in [
        ("call.payload.labels[call.metadata[\"k\"] ?? \"\"]", "1"),
        ("call.payload.labels[call.method]", "none"),
        ("call.payload.labels[call.payload.labels[\"b\"] ?? \"\"]", "1"),
        ("call.payload.parts[parse_int(\"1\") ?? 0].sku", "p"),
        ("call.payload.parts[parse_int(\"2\") ?? 0].sku", "none"),
        ("call.payload.parts[parse_int(\"4294967297\") ?? 0].sku", "none"),
        ("call.payload.parts[parse_int(\"1\") ?? 0].inner.sku", "none"),
        ("call.payload.labels.limit(3)[call.metadata[\"k\"] ?? \"\"]", "1"),
    ] {
        let shown = written(&format!("let x = {value}  call.payload.id = \"{{x}}\""), &message);
        assert!(shown.starts_with(&format!("id:\"{expected}\"")), "{value}: {shown}");
    }
    for (body, expected) in [
        (
            "call.payload.labels[call.metadata[\"k\"] ?? \"\"] = \"w\"",
            "{key:\"b\",value:\"seen\"},{key:\"seen\",value:\"w\"}",
        ),
        (
            "call.payload.labels[call.method] = \"w\"",
            "{key:\"Get\",value:\"w\"},{key:\"b\",value:\"seen\"},{key:\"seen\",value:\"1\"}",
        ),
        ("call.payload.labels[call.metadata[\"k\"] ?? \"\"] = None", "{key:\"b\",value:\"seen\"}"),
    ] {
        let shown = written(body, &message).replace(' ', "");
        assert!(shown.starts_with(&format!("labels:[{expected}]")), "{body}: {shown}");
    }
    let shown = written("call.payload.parts[parse_int(\"1\") ?? 0].count = 2", &message);
    assert!(shown.ends_with("parts:[{key:1,value{sku:\"p\",count:2}}]"), "{shown}");
    let shown = written("call.payload.parts[5].inner.sku = \"new\"", &[]);
    assert_eq!(shown, "parts:[{key:5,value{inner{sku:\"new\"}}}]");
}

/// A map that is looked through is a list: what is longer than it may be ends the call.
#[test]
fn a_map_is_seen_whole_or_not_at_all() {
    use prost_reflect::{MapKey, Value};
    let labels = |n: usize| {
        let entries = (0..n).map(|at| (MapKey::String(format!("k{at}")), text("v")));
        encode("shop.GetRequest", &[("labels", Value::Map(entries.collect()))])
    };
    let verdict = |body: &str, message: Vec<u8>| {
        let compiled =
            compile("catalog.shop.Catalog/Get: E", &format!("element E {{ request {{ {body} }} }}")).unwrap();
        let mut mock = Mock::new(1);
        (mock.service, mock.method, mock.payload) = ("shop.Catalog".into(), "Get".into(), Some(message));
        run(&compiled, Entry::Request, &mut mock).0
    };
    let body = "if call.payload.labels[call.method] == \"x\" { count(\"x\") }";
    assert_eq!(verdict(body, labels(64)), Verdict::Forward);
    assert_eq!(verdict(body, labels(65)), Verdict::Unreadable(abi::Unreadable::ListTooLong));
    let wide = body.replace("labels[", "labels.limit(200)[");
    assert_eq!(verdict(&wide, labels(200)), Verdict::Forward);
    // A constant key needs no list.
    assert_eq!(
        verdict("if call.payload.labels[\"x\"] == \"x\" { count(\"x\") }", labels(200)),
        Verdict::Forward
    );
}

#[test]
fn a_parameter_takes_any_message() {
    let element = "element Fill(with: message, also: call => message? = None) {
        request {
            if call.attempt == 1 { call.payload = with }
            let other = also else return
            call.metadata[\"x\"] = other.id
        }
    }";
    let passage = |link: &str, message: Vec<u8>| {
        let rule = format!("catalog.shop.Catalog/Get: {link}");
        let compiled = compile(&rule, element).unwrap_or_else(|e| panic!("{e}"));
        let mut mock = Mock::new(1);
        (mock.service, mock.method, mock.payload) = ("shop.Catalog".into(), "Get".into(), Some(message));
        mock.words = vec![0; compiled.program.chains[0].plan().call_words];
        assert_eq!(run(&compiled, Entry::Request, &mut mock).0, Verdict::Forward, "{link}");
        (mock.payload.clone().unwrap(), mock.request_header("x"))
    };
    let made = encode("shop.GetRequest", &[("id", text("m")), ("limit", prost_reflect::Value::U32(0))]);
    let user = prost_reflect::Value::Message(crate::shop::made("common.User", &[("id", text("ann"))]));
    let came = encode("shop.GetRequest", &[("id", text("came")), ("user", user)]);
    let link = "Fill(GetRequest { id: \"m\", limit: 0 })";
    assert_eq!(passage(link, came.clone()), (made.clone(), None));
    let link = "Fill(GetRequest { id: \"m\", limit: 0 }, also: call.payload.user)";
    assert_eq!(passage(link, came.clone()), (made.clone(), Some("ann".into())));
    assert_eq!(passage(link, Vec::new()), (made.clone(), None));
    // The whole message is a message too.
    let link = "Fill(GetRequest { id: \"m\", limit: 0 }, also: call.payload)";
    assert_eq!(passage(link, came), (made, Some("came".into())));
    for (link, expected) in [
        ("Fill(User { id: \"a\" })", "shop.Catalog/Get has a shop.GetRequest here"),
        ("Fill(5)", "expected message, found a number"),
        ("Fill(GetRequest {}, also: call.payload.items[0])", "shop.Item has no field `id`"),
        ("Fill(GetRequest {}, also: call.payload.id)", "expected message?, found string"),
    ] {
        let errors = compile(&format!("catalog.shop.Catalog/Get: {link}"), element).unwrap_err();
        assert!(errors.contains(expected), "{link}\n{errors}");
        assert_eq!(errors.lines().count(), 1, "{errors}");
    }
    let errors = compile(
        "catalog.shop.Catalog/*: E(call.payload?.user)",
        "element E(of: call => message?) { request message { } }",
    )
    .err();
    assert_eq!(errors, None);
}

/// A message that is read whole is checked whole: what cannot be decoded ends the call.
#[test]
fn a_message_that_is_an_argument_is_decoded_first() {
    let element = "element E(of: call => message) { request { call.metadata[\"x\"] = of.id } }";
    let compiled =
        compile("catalog.shop.Catalog/Get: E(call.payload)", element).unwrap_or_else(|e| panic!("{e}"));
    let mut mock = Mock::new(1);
    (mock.service, mock.method, mock.payload) =
        ("shop.Catalog".into(), "Get".into(), Some(vec![0x0a, 5, b'x']));
    let verdict = run(&compiled, Entry::Request, &mut mock).0;
    assert_eq!(verdict, Verdict::Unreadable(abi::Unreadable::Malformed));
}

#[test]
fn parameters_have_the_types_of_the_proto() {
    let element = "element E(tier: Tier = GOLD, of: call => common.User?, least: list<shop.Tier> = [FREE]) {
        request {
            if call.payload.tier in least { call.payload.tier = tier }
            call.metadata[\"x\"] = \"{tier} {len(least)}\"
        }
        response { match of { Some(user) => log(info, id: user.id)  None => log(info, id: \"none\") } }
    }";
    let compiled = compile("catalog.shop.Catalog/Get: E(tier: BANNED, of: call.payload.user)", element)
        .unwrap_or_else(|e| panic!("{e}"));
    let mut mock = Mock::new(1);
    (mock.service, mock.method) = ("shop.Catalog".into(), "Get".into());
    mock.words = vec![0; compiled.program.chains[0].plan().call_words];
    let user = prost_reflect::Value::Message(crate::shop::made("common.User", &[("id", text("ann"))]));
    mock.payload = Some(encode("shop.GetRequest", &[("user", user.clone())]));
    run(&compiled, Entry::Request, &mut mock);
    assert_eq!(mock.request_header("x").unwrap(), "BANNED 1");
    let tier = prost_reflect::Value::EnumNumber(-1);
    assert_eq!(mock.payload.take().unwrap(), encode("shop.GetRequest", &[("user", user), ("tier", tier)]));
    run(&compiled, Entry::Response, &mut mock);
    assert_eq!(mock.logs, ["Info 0 [(\"id\", Text(\"ann\"))]"]);
}

#[test]
fn what_is_no_such_message_is_told() {
    for (body, expected) in [
        ("call.payload.user = Usr { id: \"a\" }", "did you mean `User`?"),
        ("call.payload.user = Item { sku: \"a\" }", "expected common.User?, found shop.Item"),
        ("call.payload.user = User { idd: \"a\" }", "did you mean `id`?"),
        ("call.payload.user = User { id: 5 }", "expected string?, found a number"),
        ("call.payload = User { id: \"a\" }", "shop.Catalog/Get has a shop.GetRequest here"),
        (
            "call.payload = GetRequest { name: \"a\", number: 5 }",
            "`name` and `number` are members of one oneof",
        ),
        (
            "call.payload.labels = call.payload.parts",
            "expected map<string, string>, found map<int, shop.Item>",
        ),
    ] {
        let errors = errors(body);
        assert!(errors.contains(expected), "{body}\n{errors}");
        assert_eq!(errors.lines().count(), 1, "{errors}");
    }
}
