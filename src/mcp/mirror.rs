//! Arguments of a tool that a request repeats as headers `Mcp-Param-…`, as the tool's schema
//! declares them with `x-mcp-header` (MCP 2026-07-28 `server/tools`,
//! `basic/transports/streamable-http`).
//!
//! A server would act on the body and something in between on the header, so whoever reads the body
//! compares the two. Pure.

use serde_json::Value;

use super::headers;

/// One argument that a request repeats.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirrored {
    /// The header's name, in lower case.
    pub header: String,
    /// The keys that lead to the argument inside `arguments`.
    path: Vec<String>,
    /// Whether it is an integer, which `7` and `7.0` both write.
    integer: bool,
}

/// A header that is not what the body says, by its name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the header {0} is not what the body says")]
pub struct Mismatch(pub String);

/// What a tool's definition declares. Nothing where it declares anything in a way that clients
/// must not follow: they then leave the tool alone.
pub fn declared(definition: &Value) -> Vec<Mirrored> {
    let mut found = Vec::new();
    let schema = definition.get("inputSchema").unwrap_or(&Value::Null);
    let sound = collect(schema, &mut Vec::new(), &mut found);
    let mut names: Vec<_> = found.iter().map(|mirrored| mirrored.header.as_str()).collect();
    names.sort_unstable();
    let twice = names.windows(2).any(|pair| matches!(pair, [a, b] if a == b));
    if sound && !twice { found } else { Vec::new() }
}

fn collect(schema: &Value, path: &mut Vec<String>, found: &mut Vec<Mirrored>) -> bool {
    let properties = schema.get("properties").and_then(Value::as_object);
    for (key, property) in properties.into_iter().flatten() {
        path.push(key.clone());
        if let Some(declared) = property.get(KEYWORD) {
            let kind = property.get("type").and_then(Value::as_str).unwrap_or_default();
            let name = declared.as_str().filter(|name| is_token(name));
            let (Some(name), "integer" | "string" | "boolean") = (name, kind) else { return false };
            let header = format!("{}{}", headers::PARAM_PREFIX, name.to_ascii_lowercase());
            let integer = kind == "integer";
            found.push(Mirrored { header, path: path.clone(), integer });
        }
        if !collect(property, path, found) {
            return false;
        }
        path.pop();
    }
    true
}

/// RFC 9110 section 5.6.2.
fn is_token(name: &str) -> bool {
    !name.is_empty()
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

/// Compares a call's headers with its arguments. `given` tells the values of a header; a value
/// that is no text is `None`.
///
/// # Errors
/// [`Mismatch`]: a header that is missing, there twice, there for nothing, or says something else.
pub fn check<'h>(
    declared: &[Mirrored],
    arguments: Option<&Value>,
    given: impl Fn(&str) -> Vec<Option<&'h str>>,
) -> Result<(), Mismatch> {
    for Mirrored { header, path, integer } in declared {
        let argument =
            arguments.and_then(|all| path.iter().try_fold(all, |value, key| value.get(key)));
        let written = argument.and_then(|value| match value {
            Value::String(text) => Some(text.clone()),
            Value::Bool(flag) => Some(flag.to_string()),
            Value::Number(number) => Some(number.to_string()),
            Value::Null | Value::Array(_) | Value::Object(_) => None,
        });
        let same = match (written, given(header).as_slice()) {
            (None, []) => true,
            (Some(written), [Some(value)]) => headers::decode_value(value)
                .is_ok_and(|value| value == written || *integer && same_integer(&value, &written)),
            _ => false,
        };
        if !same {
            return Err(Mismatch(header.clone()));
        }
    }
    Ok(())
}

/// Whether two decimals write one integer, however large.
fn same_integer(a: &str, b: &str) -> bool {
    fn whole(text: &str) -> Option<(bool, &str)> {
        let (negative, digits) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
        let (digits, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
        let decimal = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        if !decimal(digits) || !decimal(fraction) || fraction.bytes().any(|b| b != b'0') {
            return None;
        }
        let digits = digits.trim_start_matches('0');
        Some((negative && !digits.is_empty(), digits))
    }
    whole(a).is_some_and(|a| whole(b) == Some(a))
}

const KEYWORD: &str = "x-mcp-header";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Arguments, the headers that came with them, and the one that is wrong.
    type Wrong<'a> = (Value, &'a [(&'a str, &'a str)], &'a str);

    fn tool(properties: &Value) -> Value {
        json!({"name": "t", "inputSchema": {"type": "object", "properties": properties}})
    }

    #[test]
    fn what_a_schema_declares_is_read_or_left_alone() {
        let found = declared(&tool(&json!({
            "region": {"type": "string", "x-mcp-header": "Region"},
            "at": {"type": "object", "properties": {"zone": {"type": "integer", "x-mcp-header": "Zone"}}},
            "plain": {"type": "string"},
        })));
        let mut names: Vec<_> =
            found.iter().map(|one| (&*one.header, one.path.join("."))).collect();
        names.sort();
        assert_eq!(
            names,
            [("mcp-param-region", "region".to_owned()), ("mcp-param-zone", "at.zone".to_owned())]
        );
        for bad in [
            json!({"a": {"type": "number", "x-mcp-header": "A"}}),
            json!({"a": {"type": ["string"], "x-mcp-header": "A"}}),
            json!({"a": {"type": "string", "x-mcp-header": ""}}),
            json!({"a": {"type": "string", "x-mcp-header": "a b"}}),
            json!({"a": {"type": "string", "x-mcp-header": 7}}),
            json!({"a": {"type": "string", "x-mcp-header": "A"},
                   "b": {"type": "string", "x-mcp-header": "a"}}),
        ] {
            assert_eq!(declared(&tool(&bad)), [], "{bad}");
        }
        assert_eq!(declared(&json!({"name": "t"})), []);
    }

    #[test]
    fn headers_say_what_the_body_says() {
        let declared = declared(&tool(&json!({
            "region": {"type": "string", "x-mcp-header": "Region"},
            "n": {"type": "integer", "x-mcp-header": "N"},
            "dry": {"type": "boolean", "x-mcp-header": "Dry"},
        })));
        let of = |arguments: Value, given: &[(&str, &str)]| {
            let values = |name: &str| -> Vec<Option<&str>> {
                given.iter().filter(|(n, _)| *n == name).map(|(_, value)| Some(*value)).collect()
            };
            check(&declared, Some(&arguments), values).map_err(|Mismatch(header)| header)
        };
        let (region, n, dry) = ("mcp-param-region", "mcp-param-n", "mcp-param-dry");
        let all = json!({"region": "Zürich", "n": 42, "dry": false});
        let zurich = "=?base64?WsO8cmljaA==?=";
        assert_eq!(of(all.clone(), &[(region, zurich), (n, "42.0"), (dry, "false")]), Ok(()));
        assert_eq!(of(json!({}), &[("mcp-param-other", "x")]), Ok(()));
        assert_eq!(of(json!({"region": null}), &[]), Ok(()));
        assert_eq!(of(json!({"n": {"a": 1}}), &[]), Ok(()));
        let cases: &[Wrong<'_>] = &[
            (json!({"region": "eu"}), &[], region),
            (json!({"region": "eu"}), &[(region, "us")], region),
            (json!({"region": "eu"}), &[(region, "EU")], region),
            (json!({"region": "eu"}), &[(region, "eu"), (region, "eu")], region),
            (json!({"region": "eu"}), &[(region, "=?base64?###?=")], region),
            (json!({"region": null}), &[(region, "eu")], region),
            (json!({}), &[(region, "")], region),
            (json!({"n": 42}), &[(n, "42.5")], n),
            (json!({"n": 42}), &[(n, "4.2e1")], n),
            (json!({"n": 9_007_199_254_740_993_i64}), &[(n, "9007199254740992")], n),
            (json!({"dry": false}), &[(dry, "0")], dry),
        ];
        for (arguments, given, wrong) in cases {
            let found = of(arguments.clone(), given);
            assert_eq!(found, Err((*wrong).to_owned()), "{arguments} {given:?}");
        }
    }

    #[test]
    fn integers_are_compared_as_such() {
        for (a, b) in [("7", "7.0"), ("-7", "-7.00"), ("0", "-0"), ("007", "7")] {
            assert!(same_integer(a, b), "{a} {b}");
        }
        for (a, b) in [("7", "8"), ("7", "-7"), ("7", "7.1"), ("7", "7e0"), ("7", ""), ("7", "7.")]
        {
            assert!(!same_integer(a, b), "{a} {b}");
        }
    }
}
