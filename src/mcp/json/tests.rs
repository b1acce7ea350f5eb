//! The walker and the splicer against another parser, and against anything at all.

use super::*;
use proptest::prelude::*;
use serde_json::Value;

/// Rebuilds a value from tokens alone, so the walk is compared with another parser's result.
fn rebuild(text: &str, walker: &mut Walker<'_>) -> Result<Option<Value>, WalkError> {
    let Some(token) = walker.token()? else { return Ok(None) };
    let raw = &text[token.range.clone()];
    Ok(Some(match token.kind {
        Kind::Object => {
            let mut map = serde_json::Map::new();
            loop {
                let key = walker.token()?.unwrap();
                if key.kind == Kind::EndObject {
                    assert_eq!(key.depth, token.depth);
                    break Value::Object(map);
                }
                assert_eq!((key.kind, key.depth), (Kind::Key, token.depth + 1));
                let inner = &text[key.range.start + 1..key.range.end - 1];
                let name = unescape(inner).unwrap().text().to_owned();
                map.insert(name, rebuild(text, walker)?.unwrap());
            }
        }
        Kind::Array => {
            let mut items = Vec::new();
            while let Some(item) = rebuild(text, walker)? {
                items.push(item);
            }
            Value::Array(items)
        }
        Kind::EndArray => return Ok(None),
        Kind::String => {
            let inner = &text[token.range.start + 1..token.range.end - 1];
            assert_eq!(token.escaped, inner.contains('\\'));
            Value::String(unescape(inner).unwrap().text().to_owned())
        }
        Kind::Number | Kind::Bool | Kind::Null => serde_json::from_str(raw).unwrap(),
        Kind::Key | Kind::EndObject => unreachable!(),
    }))
}

fn walks(text: &str) -> Result<usize, WalkError> {
    let mut walker = Walker::new(text, 64);
    let mut count = 0;
    while walker.token()?.is_some() {
        count += 1;
    }
    Ok(count)
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-1e9..1e9f64).prop_map(Value::from),
        "\\PC*".prop_map(Value::from),
        "[\\x00-\\x1f\"\\\\é😀a-c]{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 48, 6, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            proptest::collection::btree_map("[\\PC\"\\\\]{0,6}", inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn walk_agrees_with_serde(value in any_json(), pretty: bool) {
        let text = if pretty {
            serde_json::to_string_pretty(&value).unwrap()
        } else {
            value.to_string()
        };
        let mut walker = Walker::new(&text, 64);
        prop_assert_eq!(rebuild(&text, &mut walker).unwrap(), Some(value));
        prop_assert_eq!(walker.token().unwrap(), None);
    }

    #[test]
    fn walk_accepts_what_serde_accepts(text in "[\\[\\]{}\",:0-9a-u\\\\ .+eE-]{0,14}") {
        // A number beyond f64 is grammatical and yet refused by serde_json.
        if !text.contains(['e', 'E']) {
            let serde = serde_json::from_str::<Value>(&text).is_ok();
            prop_assert_eq!(walks(&text).is_ok(), serde);
        }
    }

    #[test]
    fn anything_is_survived(text in "\\PC{0,40}", start in 0usize..50) {
        let whole = walks(&text);
        let mut walker = Walker::prefix(&text, start, 4);
        while let Ok(Some(_)) = walker.token() {}
        prop_assert!(whole.is_ok() || serde_json::from_str::<Value>(&text).is_err());
        drop(unescape(&text));
    }

    #[test]
    fn plain_text_ends_where_a_byte_by_byte_look_says(
        bytes in proptest::collection::vec(
            prop_oneof![4 => any::<u8>(), 8 => 0x20u8..0x80, 1 => Just(b'"'), 1 => Just(b'!')], 0..40,
        ),
        from in 0usize..42,
    ) {
        let from = from.min(bytes.len());
        let stop = |b: &u8| matches!(b, b'"' | b'\\') || *b < b' ';
        let expected = bytes[from..].iter().position(stop).map_or(bytes.len(), |at| from + at);
        prop_assert_eq!(plain_end(&bytes, from), expected);
    }

    #[test]
    fn escape_is_undone_by_unescape(text in any::<String>(), times in 1usize..20) {
        let text = text.repeat(times);
        let raw = escape(&text);
        let read = unescape(&raw).unwrap();
        prop_assert_eq!(read.text(), text.as_str());
        let serde: String = serde_json::from_str(&format!("\"{raw}\"")).unwrap();
        prop_assert_eq!(&serde, &text);
        // Any range of characters maps to the raw form of exactly those characters.
        let ends: Vec<usize> = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
        for pair in ends.windows(2) {
            let part = read.to_raw(&(pair[0]..pair[1]));
            let part = unescape(&raw[part]).unwrap();
            prop_assert_eq!(part.text(), &text[pair[0]..pair[1]]);
        }
    }

    #[test]
    fn splice_touches_only_its_ranges(
        text in "[a-z]{0,30}", cuts in proptest::collection::btree_set(0usize..30, 0..6)
    ) {
        prop_assert_eq!(splice(text.as_bytes(), &[]).unwrap(), text.as_bytes());
        let cuts: Vec<usize> = cuts.into_iter().filter(|at| *at <= text.len()).collect();
        let edits: Vec<_> =
            cuts.chunks_exact(2).map(|c| (c[0]..c[1], "##".to_owned())).collect();
        let out = String::from_utf8(splice(text.as_bytes(), &edits).unwrap()).unwrap();
        let mut kept = Vec::new();
        let mut at = 0;
        for (range, _) in &edits {
            kept.push(&text[at..range.start]);
            at = range.end;
        }
        kept.push(&text[at..]);
        prop_assert_eq!(out, kept.join("##"));
    }
}

#[test]
fn refuses_what_is_not_json() {
    for bad in [
        "",
        "{",
        "[1,]",
        "{\"a\":1,}",
        "{\"a\"}",
        "01",
        "1.",
        "-",
        "+1",
        "tru",
        "\"a",
        "\"\\x\"",
        "\"\\ud800\"",
        "\"\\ud800\\u0041\"",
        "\"\\udc00\"",
        "\"\n\"",
        "[1}",
        "1 2",
        "{1:2}",
        "nulll",
    ] {
        assert!(walks(bad).is_err(), "{bad:?} was accepted");
    }
    assert_eq!(walks(&"[".repeat(65)), Err(WalkError::TooDeep { at: 64, limit: 64 }));
    assert!(walks(&format!("{}{}", "[".repeat(64), "]".repeat(64))).is_ok());
}

#[test]
fn a_prefix_ends_where_its_value_ends() {
    let text = "see {\"a\":[1]} and more";
    let mut walker = Walker::prefix(text, 4, 9);
    while walker.token().unwrap().is_some() {}
    assert_eq!(&text[4..walker.offset()], "{\"a\":[1]}");
}

#[test]
fn bad_edits_are_refused() {
    let edit = |range: Range<usize>| (range, String::new());
    assert!(splice(b"abc", &[edit(2..3), edit(0..1)]).is_err());
    assert!(splice(b"abc", &[edit(0..2), edit(1..3)]).is_err());
    assert!(splice(b"abc", &[edit(1..9)]).is_err());
}
