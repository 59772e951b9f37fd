//! Words of other languages, and what one writes for them here.

/// Functions.
const FUNCTIONS: [(&[&str], &str); 16] = [
    (&["sleep", "wait", "pause", "timeout"], "`delay(5ms)` makes the call wait"),
    (
        &["print", "println", "printf", "echo", "console", "info", "warn"],
        "`log(info, name: value)` writes a line",
    ),
    (
        &["abort", "deny", "fail", "throw", "error", "panic", "drop", "block", "assert", "respond"],
        "`reject(Status, \"text\")` ends the call",
    ),
    (
        &["metric", "increment", "inc", "incr", "emit"],
        "`count(\"name\")` counts, `observe(\"name\", x)` observes",
    ),
    (&["str", "to_string", "tostring", "format"], "`\"{x}\"` makes a string"),
    (&["int", "uint", "parse", "atoi", "to_int"], "`parse_int(text)` is an `int?`"),
    (&["float", "double", "to_float"], "an integer serves as a float; `parse_int(text)` reads one"),
    (&["size", "length", "strlen"], "`len(x)` is how long it is"),
    (&["substring", "substr", "slice", "left", "truncate"], "`prefix(text, n)` is its first n characters"),
    (
        &["lowercase", "to_lower", "tolower", "upper", "uppercase", "to_lowercase"],
        "`lower(text)` makes letters small",
    ),
    (&["rand", "rnd", "uniform"], "`random()` is a float from 0 to 1, `chance(10%)` a truth value"),
    (&["sha256", "sha1", "md5", "checksum"], "`digest(x)` is SHA-256, `hash(text)` a number"),
    (&["regex", "regexp", "re", "match_regex"], "`matches(text, \"regex\")` tells whether it does"),
    (
        &["exists", "isset", "is_some", "has", "is_none", "is_null", "defined"],
        "`x == None` and `x != None` tell",
    ),
    (
        &["unwrap", "unwrap_or", "or_else", "default", "get_or"],
        "`x ?? other` is x or, where it is absent, the other",
    ),
    (&["map", "for_each", "reduce", "sum", "fold"], "`for x in list { … }` visits each"),
];

/// Names.
const NAMES: [(&[&str], &str); 7] = [
    (&["null", "nil", "undefined", "nullptr", "none", "NULL"], "`None` is what is absent"),
    (&["True", "TRUE", "yes"], "did you mean `true`?"),
    (&["False", "FALSE", "no"], "did you mean `false`?"),
    (&["req", "ctx", "this", "self", "rpc", "context", "request", "response"], "did you mean `call`?"),
    (&["header", "headers"], "did you mean `call.metadata[\"name\"]`?"),
    (&["body", "msg"], "did you mean `call.payload`?"),
    (&["break", "continue"], "a `for` has neither: use `filter`, `any`, or an `if`"),
];

/// Fields of `call`.
const FIELDS: [(&[&str], &str); 10] = [
    (&["header", "headers", "md"], "did you mean `call.metadata[\"name\"]`?"),
    (
        &["path", "rpc", "operation", "function", "name"],
        "did you mean `call.method`? The service is `call.service`",
    ),
    (&["body", "data", "proto"], "did you mean `call.payload`?"),
    (&["ip", "address", "remote", "client"], "did you mean `call.peer.ip`?"),
    (&["code", "error", "result", "grpc_status"], "did you mean `call.status`, in `response`?"),
    (&["duration", "elapsed", "time"], "did you mean `call.latency`, in `response`?"),
    (&["host", "domain"], "did you mean `call.authority`?"),
    (&["caller", "from", "src"], "did you mean `call.source`?"),
    (&["to", "upstream", "dst", "target", "backend"], "did you mean `call.destination`, or `call.endpoint`?"),
    (&["timeout"], "did you mean `call.deadline`? It is an instant: `now() + 5s`"),
];

/// Types.
const TYPES: [(&[&str], &str); 8] = [
    (&["str", "text", "varchar", "char"], "string"),
    (&["i8", "i16", "i32", "i64", "int32", "int64", "long", "integer", "number", "sint64"], "int"),
    (&["u8", "u16", "u32", "u64", "usize", "uint32", "uint64", "unsigned"], "uint"),
    (&["f32", "f64", "double", "decimal", "percent"], "float"),
    (&["boolean"], "bool"),
    (&["time", "timestamp", "datetime", "date"], "instant"),
    (&["dict", "hashmap", "object", "hash"], "map"),
    (&["array", "vec", "vector", "slice"], "list"),
];

fn find(table: &[(&[&str], &'static str)], word: &str) -> Option<&'static str> {
    table.iter().find(|(words, _)| words.contains(&word)).map(|(_, hint)| *hint)
}

/// What to write for a function of another language.
pub(crate) fn function(name: &str) -> Option<&'static str> {
    find(&FUNCTIONS, name)
}

/// The same for a name.
pub(crate) fn name(name: &str) -> Option<&'static str> {
    find(&NAMES, name)
}

/// The same for a field of `call`.
pub(crate) fn field(name: &str) -> Option<&'static str> {
    find(&FIELDS, name)
}

/// The type that another language calls so.
pub(crate) fn ty(name: &str) -> Option<&'static str> {
    find(&TYPES, &name.to_ascii_lowercase())
}

/// What a statement begins with elsewhere: what is wrong, and what to do.
pub(crate) fn statement(word: &str) -> Option<(&'static str, &'static str)> {
    Some(match word {
        "while" | "loop" | "until" | "do" => (
            "every program ends: there is no such loop",
            "`for x in list { … }` visits each item; `state` remembers from one call to the next",
        ),
        "var" | "const" | "auto" | "val" | "local" => ("a name is bound by `let`", "did you mean `let`?"),
        "fn" | "func" | "def" | "function" | "lambda" => {
            ("an element has no functions of its own", "write it where it is used, or as another element")
        }
        "switch" | "case" | "when" => ("a choice is a `match`", "`match x { A => …  B => …  _ => … }`"),
        "try" | "catch" | "throw" | "raise" => (
            "there are no exceptions",
            "`reject(Status, \"text\")` ends the call; what may be absent takes `??`",
        ),
        "elif" | "elseif" | "elsif" => ("`else` and `if` are two words", "`else if condition { … }`"),
        "await" | "async" | "yield" => ("nothing is awaited by a word", "`delay(d)` waits by itself"),
        _ => return None,
    })
}

/// What stands where something else was expected: what to do about it.
pub(crate) fn found(text: &str, expected: &str) -> Option<&'static str> {
    Some(match text {
        ";" => "statements need no separator",
        "=" if expected.contains('{') => "`==` compares",
        "=" if expected.contains("argument") => "a parameter is named by a colon, as in `share: 10%`",
        "=>" => "a function of one item is an argument, as in `filter(list, e => …)`",
        "." if expected == "a field" => "`for` runs over lists",
        "and" => "did you mean `&&`?",
        "or" => "did you mean `||`?",
        "is" => "`==` compares",
        "not" => "did you mean `!`?",
        "then" => "the branch stands in braces: `if condition { … }`",
        "?" => "`if condition { a } else { b }` is a value",
        "as" => "integers widen to float by themselves; nothing else converts",
        _ => return None,
    })
}
