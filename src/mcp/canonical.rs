//! One text for one JSON value (RFC 8785), so that a hash stands for what is meant and not for how
//! it is spelt.

use serde_json::Value;

/// The canonical text of a JSON value.
///
/// RFC 8785 knows only IEEE doubles. Where a number would be changed by that (fractions, beyond
/// 53 bits), the value's own `text` stands in, marked as such: two spellings of one value then
/// count as two, which is safe; two values never count as one.
pub fn canonical(value: &Value, text: &str) -> String {
    let exact = exact(value).then(|| serde_json_canonicalizer::to_string(value).ok()).flatten();
    exact.map_or_else(|| format!("text:{text}"), |canonical| format!("json:{canonical}"))
}

fn exact(value: &Value) -> bool {
    const MAX_SAFE: i64 = 1 << 53;
    match value {
        Value::Number(number) => {
            number.as_i64().is_some_and(|n| (-MAX_SAFE..=MAX_SAFE).contains(&n))
        }
        Value::Array(items) => items.iter().all(exact),
        Value::Object(members) => members.values().all(exact),
        Value::Null | Value::Bool(_) | Value::String(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> String {
        canonical(&serde_json::from_str(text).unwrap(), text)
    }

    #[test]
    fn spelling_does_not_count_and_value_does() {
        assert_eq!(of(r#"{"b":1,"a":[true,"\u00e9"]}"#), of(r#"{ "a": [true, "é"], "b": 1 }"#));
        assert_ne!(of("[1,2]"), of("[2,1]"));
        assert_ne!(of("9007199254740993"), of("9007199254740992"));
        assert_ne!(of("123456789012345678901234567890"), of("123456789012345678901234567891"));
        // A text cannot pass for a canonical value.
        assert_ne!(of("\"json:1\""), of("1"));
    }
}
