//! The parser: what it makes of texts, that spacing means nothing, and that it is bounded.

use super::{DEPTH_MAX, parse};
use crate::ast::{Arg, Block, Expr, ExprKind, Item, Part, Pattern, Stmt, UnOp};

const CORPUS: &str = include_str!("../../tests/golden/header.adn");

/// The tree without its places.
fn shape(text: &str) -> String {
    let file = parse(text, 0);
    assert!(file.errors.is_empty(), "{:?}\n{text}", file.errors);
    let mut out = String::new();
    let debug = format!("{:?}", file.items);
    let mut rest = debug.as_str();
    while let Some(at) = rest.find("Span {") {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        rest = &rest[rest.find('}').unwrap() + 1..];
    }
    out.push_str(rest);
    out
}

/// Every token on a line of its own, or all on one line: the tree is the same.
#[test]
fn spacing_and_comments_mean_nothing() {
    let end = u32::try_from(CORPUS.len()).unwrap();
    let span = crate::source::Span { file: 0, start: 0, end };
    let lexed = crate::lex::lex(CORPUS, span);
    let tokens: Vec<&str> =
        lexed.tokens.iter().map(|t| &CORPUS[t.span.start as usize..t.span.end as usize]).collect();
    let expected = shape(CORPUS);
    for gap in [" ", "\n", " // a comment\n", "\t  \r\n"] {
        // A `?` before `=` is the only pair that would become another token if it stood alone.
        assert_eq!(shape(&tokens.join(gap)), expected, "gap {gap:?}");
    }
}

/// Writes an expression with all its parentheses.
fn print(e: &Expr) -> String {
    let list = |items: &[Expr]| items.iter().map(print).collect::<Vec<_>>().join(", ");
    match &*e.kind {
        ExprKind::Int(n) => format!("{n}"),
        ExprKind::Float(x) => format!("{x:?}"),
        ExprKind::Duration(ns) => format!("{ns}ns"),
        ExprKind::Rate(r) => format!("{r:?}/s"),
        ExprKind::Bool(b) => format!("{b}"),
        ExprKind::Str(s) => format!("\"{s}\""),
        ExprKind::Interp(parts) => {
            let part = |p: &Part| match p {
                Part::Text(t) => t.clone(),
                Part::Expr(e) => format!("{{{}}}", print(e)),
            };
            format!("\"{}\"", parts.iter().map(part).collect::<String>())
        }
        ExprKind::None => "None".into(),
        ExprKind::Name(n) => n.clone(),
        ExprKind::Field { of, name, .. } => format!("{}.{}", print(of), name.text),
        ExprKind::Index { of, key } => format!("{}[{}]", print(of), print(key)),
        ExprKind::Call { of, args } => {
            let arg = |a: &Arg| match &a.name {
                Some(n) => format!("{}: {}", n.text, print(&a.value)),
                None => print(&a.value),
            };
            format!("{}({})", print(of), args.iter().map(arg).collect::<Vec<_>>().join(", "))
        }
        ExprKind::Lambda { param, body } => format!("{} => {}", param.text, print(body)),
        ExprKind::Unary { op, of } => format!("({}{})", if *op == UnOp::Not { "!" } else { "-" }, print(of)),
        ExprKind::Binary { op, left, right } => format!("({} {} {})", print(left), op.text(), print(right)),
        ExprKind::If { cond, then, or_else } => {
            let or_else = or_else.as_ref().map_or(String::new(), |b| format!(" else {}", block(b)));
            format!("if {} {}{or_else}", print(cond), block(then))
        }
        ExprKind::Match { of, arms } => {
            let pattern = |p: &Pattern| match p {
                Pattern::Some(n) => format!("Some({})", n.text),
                Pattern::None(_) => "None".into(),
                Pattern::Any(_) => "_".into(),
                Pattern::Value(e) => print(e),
            };
            let arms: String =
                arms.iter().map(|a| format!("{} => {} ", pattern(&a.pattern), block(&a.body))).collect();
            format!("match {} {{ {arms}}}", print(of))
        }
        ExprKind::List(items) => format!("[{}]", list(items)),
        ExprKind::Map(items) => {
            let pairs: Vec<_> = items.iter().map(|(k, v)| format!("{}: {}", print(k), print(v))).collect();
            format!("{{ {} }}", pairs.join(", "))
        }
        other => panic!("{other:?}"),
    }
}

fn block(b: &Block) -> String {
    let stmt = |s: &Stmt| match s {
        Stmt::Expr(e) => print(e),
        Stmt::Return(_) => "return".into(),
        other => panic!("{other:?}"),
    };
    format!("{{ {} }}", b.stmts.iter().map(stmt).collect::<Vec<_>>().join(" "))
}

/// The condition of `A when(…)`.
fn condition(text: &str) -> Expr {
    let source = format!("a -> b: A when({text})");
    let file = parse(&source, 0);
    assert!(file.errors.is_empty(), "{:?}\n{source}", file.errors);
    match file.items.into_iter().next() {
        Some(Item::Rule(rule)) => rule.links[0].when.clone().unwrap(),
        other => panic!("{other:?}"),
    }
}

/// LANGUAGE.md "binds": printed with all parentheses and read again, an expression is itself.
#[test]
fn expressions_survive_printing() {
    for (text, expected) in [
        ("a + b * c - d", "((a + (b * c)) - d)"),
        ("!a && b || c", "(((!a) && b) || c)"),
        ("a ?? b + 1 < c == d", "(((a ?? (b + 1)) < c) == d)"),
        ("a in [1, 2] == true", "((a in [1, 2]) == true)"),
        ("-x * -3", "((-x) * (-3))"),
        ("a % 3 + 5%", "((a % 3) + 0.05)"),
        ("a - b - c", "((a - b) - c)"),
        ("least(xs, e => e.a / 1ms) ?? f(n: 1)", "(least(xs, e => (e.a / 1000000ns)) ?? f(n: 1))"),
        ("if a { b } else { c } + 1", "(if a { b } else { c } + 1)"),
        (
            "match x { \"a\" => 1  Some(y) => y  None => { 2 } _ => return }",
            "match x { \"a\" => { 1 } Some(y) => { y } None => { 2 } _ => { return } }",
        ),
        ("\"a{b + 1}c{\"d{e}\"}\"", "\"a{(b + 1)}c{\"d{e}\"}\""),
        ("call.metadata[\"k\"][0].x", "call.metadata[\"k\"][0].x"),
        ("{ a: 1, \"b\": 2 }", "{ a: 1, \"b\": 2 }"),
        ("if a { -1 } else { (b) }", "if a { (-1) } else { b }"),
        ("1/5s > 3/s", "(0.2/s > 3.0/s)"),
    ] {
        let once = print(&condition(text));
        assert_eq!(once, expected);
        assert_eq!(print(&condition(&once)), expected);
    }
}

#[test]
fn arrows_and_spaces_are_free() {
    let expected = shape("S1 -> S2: LoadBalancing - Logging - Compression - FaultInjection(0.1)");
    for text in [
        "S1->S2:LoadBalancing-Logging-Compression-FaultInjection(0.1)",
        "S1 → S2: LoadBalancing - Logging - Compression - FaultInjection(0.1)",
        "S1→S2:LoadBalancing-Logging-Compression-FaultInjection( 0.1 )",
        "S1 ->\n  S2 :\n LoadBalancing\n - Logging\n - Compression - FaultInjection(0.1)\n",
    ] {
        assert_eq!(shape(text), expected);
    }
}

#[test]
fn a_source_called_dry_is_no_flag() {
    let file = parse("a -> b: A\ndry -> b: A dry\nevery -> b: A", 0);
    assert!(file.errors.is_empty(), "{:?}", file.errors);
    assert_eq!(file.items.len(), 3);
}

#[test]
fn depth_is_bounded() {
    let n = 100_000;
    for text in [
        format!("a -> b: A({}1{})", "(".repeat(n), ")".repeat(n)),
        format!("a -> b: A({}1{})", "[".repeat(n), "]".repeat(n)),
        format!("a -> b: A(1{})", " + 1".repeat(n)),
        format!("a -> b: A(x{})", ".y".repeat(n)),
        format!("a -> b: A({}x)", "!".repeat(n)),
        format!("element A {{ request {{ {} {} }} }}", "if x {".repeat(n), "}".repeat(n)),
        format!("element A {{ request {{ if x {{ }} {} }} }}", "else if x { }".repeat(n)),
        format!("element A {{ request {{ {} {} }} }}", "match x { _ => ".repeat(n), "}".repeat(n)),
        format!("element A {{ request {{ let x = y{} }} }}", " else let z = x".repeat(n)),
        format!("element A(x: {}int{}) {{ }}", "list<".repeat(n), ">".repeat(n)),
        format!("a -> b: A({}1{})", "\"{".repeat(n), "}\"".repeat(n)),
    ] {
        let file = parse(&text, 0);
        assert!(!file.errors.is_empty(), "{}", &text[..60]);
    }
    let deep = usize::from(DEPTH_MAX) - 8;
    let fine = format!("a -> b: A({}1{})", "(".repeat(deep), ")".repeat(deep));
    assert!(parse(&fine, 0).errors.is_empty());
}

#[test]
fn errors_do_not_hide_each_other() {
    let file = parse(
        "service a {\nservice b\nelement X { request { let = 1\n let y = \n if { }\n count(\"x\") } }\na - b: X\nb -> c X\nc -> d: Y",
        0,
    );
    let lines: Vec<u32> = file.errors.iter().map(|e| e.span.start).collect();
    assert!(file.errors.len() >= 4, "{:?}", file.errors);
    assert!(lines.windows(2).all(|w| w[0] <= w[1]));
    assert!(matches!(file.items.last(), Some(Item::Rule(_))), "the last rule is read");
}
