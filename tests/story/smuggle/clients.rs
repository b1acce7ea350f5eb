//! The table of what a hostile client may send.

use super::table::{BROKEN, ID, MESSAGE_BYTES, Row, TWICE, UNSURE, nested, passed, raw, refused};

const PING: &str = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
const HUGE: &str = "beyond what a double can hold";

/// A call whose `arguments` are this text.
fn call(arguments: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"note","arguments":{arguments}}}}}"#
    )
}

/// A ping with this id.
fn with_id(id: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"ping"}}"#)
}

/// What a hostile client may send.
pub fn table() -> Vec<Row> {
    let at = Some;
    let mut rows = vec![
        // Keys twice.
        refused(
            "method twice",
            r#"{"jsonrpc":"2.0","id":1,"method":"ping","method":"tools/call"}"#,
            TWICE,
            at("/method"),
        ),
        refused("id twice", r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}"#, TWICE, at("/id")),
        refused(
            "params twice",
            r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":{},"params":{}}"#,
            TWICE,
            at("/params"),
        ),
        refused(
            "name twice",
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","name":"b"}}"#,
            TWICE,
            at("/params/name"),
        ),
        refused(
            "arguments twice",
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","arguments":{},"arguments":{"x":1}}}"#,
            TWICE,
            at("/params/arguments"),
        ),
        refused("an argument twice", call(r#"{"a":1,"a":2}"#), TWICE, at("/params/arguments/a")),
        refused(
            "a key twice, deep",
            call(r#"{"a":[{"b":0},{"c/d":1,"c/d":2}]}"#),
            TWICE,
            at("/params/arguments/a/1/c~1d"),
        ),
        refused(
            "a key twice by escapes",
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"n\u0061me":"a","name":"b"}}"#,
            TWICE,
            at("/params/name"),
        ),
        refused(
            "method twice by escapes",
            r#"{"jsonrpc":"2.0","id":1,"method":"ping","\u006dethod":"tools/call"}"#,
            TWICE,
            at("/method"),
        ),
        refused(
            "a key twice among many",
            call(&format!(
                "{{{},\"k3\":0}}",
                (0..40).map(|k| format!("\"k{k}\":{k}")).collect::<Vec<_>>().join(",")
            )),
            TWICE,
            at("/params/arguments/k3"),
        ),
        passed("a key once in each of two objects", call(r#"{"a":{"x":1},"b":{"x":2}}"#)),
        passed(
            "escaped keys, each once",
            r#"{"jsonrpc":"2.0","id":1,"\u006dethod":"tools/call","params":{"n\u0061me":"note","arguments":{}}}"#,
        ),
        // Keys that lax servers fold.
        refused(
            "Method beside method",
            r#"{"jsonrpc":"2.0","id":1,"method":"ping","Method":"tools/call"}"#,
            UNSURE,
            at("/Method"),
        ),
        refused(
            "METHOD alone",
            r#"{"jsonrpc":"2.0","id":1,"METHOD":"tools/call"}"#,
            UNSURE,
            at("/METHOD"),
        ),
        refused("Id", r#"{"jsonrpc":"2.0","id":1,"Id":2,"method":"ping"}"#, UNSURE, at("/Id")),
        refused(
            "a Kelvin sign is no k, but folds to one",
            r#"{"jsonrpc":"2.0","id":1,"method":"ping","\u212a":1,"k":2}"#,
            UNSURE,
            at("/k"),
        ),
        refused(
            "Name",
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","Name":"b"}}"#,
            UNSURE,
            at("/params/Name"),
        ),
        refused(
            "Arguments",
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","Arguments":{}}}"#,
            UNSURE,
            at("/params/Arguments"),
        ),
        refused(
            "arguments that differ by case",
            call(r#"{"sql":1,"SQL":2}"#),
            UNSURE,
            at("/params/arguments/SQL"),
        ),
        refused(
            "a NUL behind a key",
            r#"{"jsonrpc":"2.0","id":1,"method":"ping","method\u0000":"tools/call"}"#,
            UNSURE,
            at("/method\0"),
        ),
        refused(
            "a NUL within a key",
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","na\u0000me":"b"}}"#,
            UNSURE,
            at("/params/na\0me"),
        ),
        refused(
            "a blank behind a key",
            r#"{"jsonrpc":"2.0","id":1,"method":"ping","params ":{}}"#,
            UNSURE,
            at("/params "),
        ),
        refused(
            "a byte order mark in a key",
            "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\",\"\u{feff}params\":{}}",
            UNSURE,
            at("/\u{feff}params"),
        ),
        passed("keys that differ by case where nobody folds", call(r#"{"a":{"b":1,"B":2}}"#)),
        // What stands at the top.
        refused("a byte order mark", format!("\u{feff}{PING}"), "one JSON object", None),
        refused("a text", r#""ping""#, "one JSON object", None),
        refused("null", "null", "one JSON object", None),
        refused("nothing", "", "one JSON object", None),
        refused("blanks", " \t ", "one JSON object", None),
        refused("a batch", format!("[{PING}]"), "batches", None),
        refused(
            "a struct as an array",
            r#"["2.0",1,"tools/call",{"name":"note"}]"#,
            "batches",
            None,
        ),
        refused("arrays in arrays", format!("[[{PING}]]"), "batches", None),
        refused("text behind the message", format!("{PING} x"), "text follows", at("")),
        refused("two messages", format!("{PING}{PING}"), "text follows", at("")),
        refused("a NUL behind the message", format!("{PING}\0"), "text follows", at("")),
        refused("two messages on two lines", format!("{PING}\n{PING}"), "text follows", at("")),
        passed("blanks around the message", format!(" {PING}\t ")),
        // The envelope.
        refused(
            "another protocol",
            r#"{"jsonrpc":"1.0","id":1,"method":"ping"}"#,
            "\"jsonrpc\"",
            at("/jsonrpc"),
        ),
        refused("no protocol", r#"{"id":1,"method":"ping"}"#, "\"jsonrpc\"", at("")),
        refused(
            "a method that is none",
            r#"{"jsonrpc":"2.0","id":1,"method":["tools/call"]}"#,
            "\"method\"",
            at("/method"),
        ),
        refused(
            "a method that is null",
            r#"{"jsonrpc":"2.0","id":1,"method":null,"result":{}}"#,
            "\"method\"",
            at("/method"),
        ),
        refused(
            "a method with a NUL",
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call\u0000"}"#,
            "\"method\"",
            at("/method"),
        ),
        refused(
            "a method by another case",
            r#"{"jsonrpc":"2.0","id":1,"method":"Tools/Call","params":{"name":"note"}}"#,
            "by case",
            at("/method"),
        ),
        refused(
            "request and response",
            r#"{"jsonrpc":"2.0","id":1,"method":"ping","result":{}}"#,
            "cannot stand beside",
            at("/method"),
        ),
        refused("neither", r#"{"jsonrpc":"2.0","id":1}"#, "exactly one", at("")),
        refused(
            "params that are a text",
            r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":"x"}"#,
            "\"params\"",
            at("/params"),
        ),
        refused(
            "a call by position",
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":["note",{}]}"#,
            "params.name",
            None,
        ),
        passed(
            "unknown members",
            r#"{"jsonrpc":"2.0","id":1,"method":"ping","x-new":{"a":[null]},"params":{"_meta":{"y":1}}}"#,
        ),
        // Numbers.
        refused("infinity by exponent", call(r#"{"n":1e400}"#), HUGE, at("/params/arguments/n")),
        refused(
            "infinity by digits",
            call(&format!("{{\"n\":[0,{}]}}", "9".repeat(400))),
            HUGE,
            at("/params/arguments/n/1"),
        ),
        refused("a leading zero", call(r#"{"n":01}"#), BROKEN, at("/params/arguments/n")),
        refused("a plus", call(r#"{"n":+1}"#), BROKEN, at("/params/arguments/n")),
        refused("NaN", call(r#"{"n":NaN}"#), BROKEN, at("/params/arguments/n")),
        refused("hexadecimal", call(r#"{"n":0x10}"#), BROKEN, at("/params/arguments/n")),
        passed(
            "numbers that doubles round",
            call(
                r#"{"a":9007199254740993,"b":123456789012345678901234567890,"c":1.50,"d":1e-400,"e":-0}"#,
            ),
        ),
        refused("an infinite id", with_id("1e400"), HUGE, at("/id")),
        passed("a long id", with_id("123456789012345678901234567890")),
        passed("an id that is a text", with_id(r#""\u0061""#)),
        // Strings.
        refused(
            "the first half of a pair",
            call(r#"{"s":"\ud800"}"#),
            BROKEN,
            at("/params/arguments/s"),
        ),
        refused(
            "the second half of a pair",
            call(r#"{"s":"\udc00"}"#),
            BROKEN,
            at("/params/arguments/s"),
        ),
        refused(
            "a pair with a stranger",
            call(r#"{"s":"\ud800\u0041"}"#),
            BROKEN,
            at("/params/arguments/s"),
        ),
        refused("half a pair in a key", call(r#"{"\ud800":1}"#), BROKEN, at("/params/arguments")),
        refused(
            "a control character",
            call("{\"s\":\"a\u{1}b\"}"),
            BROKEN,
            at("/params/arguments/s"),
        ),
        refused(
            "an escape that is none",
            call(r#"{"s":"\x41"}"#),
            BROKEN,
            at("/params/arguments/s"),
        ),
        refused(
            "bytes that are no text",
            raw(r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":{"s":""#, b"\xff", "\"}}"),
            "not UTF-8",
            None,
        ),
        refused(
            "a slash the long way",
            raw(r#"{"jsonrpc":"2.0","id":1,"method":"tools"#, b"\xc0\xaf", "call\"}"),
            "not UTF-8",
            None,
        ),
        refused(
            "a surrogate in UTF-8",
            raw(
                r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":{"s":""#,
                b"\xed\xa0\x80",
                "\"}}",
            ),
            "not UTF-8",
            None,
        ),
        passed(
            "a pair and odd characters",
            call("{\"s\":\"\\ud83d\\ude00 \\u0000 \u{2028} \u{202e} \u{200b}\"}"),
        ),
        // Syntax that some parsers take.
        refused("a comma at the end", call(r#"{"a":1,}"#), BROKEN, at("/params/arguments/a")),
        refused("a comment", call(r#"{"a":1/* x */}"#), BROKEN, at("/params/arguments/a")),
        refused("single quotes", call("{'a':1}"), BROKEN, at("/params/arguments")),
        refused(
            "an end too early",
            r#"{"jsonrpc":"2.0","id":1,"method":"ping""#,
            BROKEN,
            at("/method"),
        ),
        // Size.
        refused("very deep", call(&nested(5000)), "nested deeper", None),
        refused("one too deep", call(&nested(99)), "nested deeper", None),
        passed("as deep as may be", call(&nested(98))),
        refused(
            "far too large",
            call(&format!("{{\"s\":\"{}\"}}", "x".repeat(MESSAGE_BYTES))),
            "65536 bytes",
            None,
        ),
    ];
    for id in ["null", "1.0", "1e3", "true", "{}", "[1]", "-0"] {
        let bytes = with_id(id);
        rows.push(Row { bytes: bytes.into(), ..refused("an id that is none", "", ID, at("/id")) });
    }
    rows
}
