//! The upstream's answers: made-up customers with values that must not get through, as text and as
//! structured content, and the check of what a masked answer must look like.

use serde_json::{Value, json};

/// Which answer a tool gives, and how.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Payload {
    /// 2 KB as one JSON body.
    Small,
    /// 10 KB as one JSON body.
    Large,
    /// 2 KB as one event of an event stream.
    SmallStream,
}

pub const PAYLOADS: [Payload; 3] = [Payload::Small, Payload::Large, Payload::SmallStream];

impl Payload {
    pub fn name(self) -> &'static str {
        match self {
            Self::Small => "2k",
            Self::Large => "10k",
            Self::SmallStream => "2k-sse",
        }
    }

    /// The tool that answers so.
    pub fn tool(self) -> &'static str {
        match self {
            Self::Small => "small",
            Self::Large => "large",
            Self::SmallStream => "small_stream",
        }
    }

    pub fn is_stream(self) -> bool {
        self == Self::SmallStream
    }

    /// The result, as the upstream sends it.
    pub fn result(self) -> String {
        let bytes = if self == Self::Large { 10 * 1024 } else { 2 * 1024 };
        let mut rows: Vec<Value> = Vec::new();
        loop {
            let grown = result(&rows);
            if grown.len() >= bytes {
                return grown;
            }
            rows.push(row(rows.len()));
        }
    }
}

fn result(rows: &[Value]) -> String {
    let found = json!({ "customers": rows });
    json!({
        "content": [{ "type": "text", "text": found.to_string() }],
        "structuredContent": found,
        "isError": false,
    })
    .to_string()
}

fn row(number: usize) -> Value {
    json!({
        "id": 1000 + number,
        "email": format!("person.{number}@example.com"),
        "card": card(number),
        "ssn": format!("219-09-{:04}", 1000 + number * 7),
        "plan": if number.is_multiple_of(2) { "pro" } else { "free" },
    })
}

/// A card number whose check digit is right.
fn card(number: usize) -> String {
    let digits: Vec<u32> = format!("411111{:09}", 100_000 + number * 7919)
        .bytes()
        .map(|b| u32::from(b - b'0'))
        .collect();
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(place, digit)| match place % 2 {
            0 if *digit > 4 => digit * 2 - 9,
            0 => digit * 2,
            _ => *digit,
        })
        .sum();
    let check = (10 - sum % 10) % 10;
    digits.iter().chain([&check]).map(u32::to_string).collect()
}

/// Whether `masked` is `raw` with every sensitive value gone and everything else in its place;
/// says what is wrong.
pub fn check_masked(raw: &str, masked: &str) -> Result<(), String> {
    let parse = |text: &str| serde_json::from_str::<Value>(text).map_err(|e| e.to_string());
    let (raw, parsed) = (parse(raw)?, parse(masked)?);
    let inner = |result: &Value| parse(result["content"][0]["text"].as_str().unwrap_or_default());
    same_but_masked(&raw["structuredContent"], &parsed["structuredContent"])?;
    same_but_masked(&inner(&raw)?, &inner(&parsed)?)?;
    let values = raw["structuredContent"]["customers"].as_array().cloned().unwrap_or_default();
    for value in values.iter().flat_map(|row| ["email", "card", "ssn"].map(|key| &row[key])) {
        if value.as_str().is_none_or(|value| masked.contains(value)) {
            return Err(format!("{value} got through"));
        }
    }
    Ok(())
}

fn same_but_masked(raw: &Value, masked: &Value) -> Result<(), String> {
    let rows = |of: &Value| of["customers"].as_array().cloned().unwrap_or_default();
    let (raw, masked) = (rows(raw), rows(masked));
    if raw.is_empty() || raw.len() != masked.len() {
        return Err(format!("{} rows instead of {}", masked.len(), raw.len()));
    }
    for (raw, masked) in raw.iter().zip(&masked) {
        let kept = ["id", "plan"].iter().all(|key| raw[key] == masked[key]);
        let hidden = ["email", "card", "ssn"].iter().all(|key| {
            raw[key] != masked[key] && masked[key].as_str().is_some_and(|text| !text.is_empty())
        });
        let same_keys = raw.as_object().map(|o| o.keys().collect::<Vec<_>>())
            == masked.as_object().map(|o| o.keys().collect::<Vec<_>>());
        if !(kept && hidden && same_keys) {
            return Err(format!("{raw} became {masked}"));
        }
    }
    Ok(())
}
