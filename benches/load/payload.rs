//! The upstream's answers: plain prose, records of which few values are sensitive, and records of
//! which most are.

use serde_json::{Value, json};

/// Which answer a tool gives, and how.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Payload {
    /// 200 bytes of prose, nothing in it to mask.
    Plain,
    /// 10 KB of records; one value in sixty is masked.
    Sparse,
    /// 2 KB of records, most of whose values are masked.
    SmallDense,
    /// 10 KB of them.
    Dense,
    /// 2 KB of them as one event of an event stream.
    DenseStream,
    /// The prose as one event of an event stream.
    PlainStream,
    /// 16 MB of prose.
    Huge,
}

impl Payload {
    pub const ALL: [Self; 7] = [
        Self::Plain,
        Self::Sparse,
        Self::SmallDense,
        Self::Dense,
        Self::DenseStream,
        Self::PlainStream,
        Self::Huge,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "200",
            Self::Sparse => "10k",
            Self::SmallDense => "2k-dense",
            Self::Dense => "10k-dense",
            Self::DenseStream => "2k-sse",
            Self::PlainStream => "200-sse",
            Self::Huge => "16m",
        }
    }

    /// The tool that answers so.
    pub fn tool(self) -> &'static str {
        match self {
            Self::Plain => "import_status",
            Self::Sparse => "search_tickets",
            Self::SmallDense => "get_customers",
            Self::Dense => "search_customers",
            Self::DenseStream => "stream_customers",
            Self::PlainStream => "stream_status",
            Self::Huge => "import_log",
        }
    }

    pub fn is_stream(self) -> bool {
        matches!(self, Self::DenseStream | Self::PlainStream)
    }

    /// The result, as the upstream sends it.
    pub fn result(self) -> String {
        match self {
            Self::Plain | Self::PlainStream => prose(PLAIN),
            Self::Huge => {
                let mut text = PLAIN.repeat(HUGE / PLAIN.len() + 1);
                text.truncate(HUGE);
                prose(&text)
            }
            Self::Sparse => records("tickets", 10 * 1024, ticket),
            Self::SmallDense | Self::DenseStream => records("customers", 2 * 1024, customer),
            Self::Dense => records("customers", 10 * 1024, customer),
        }
    }
}

const PLAIN: &str = "The import finished after three retries. Two batches were skipped because the \
                     queue was paused; both run again tonight. ";

/// 16 MB with what is around it stays below 16 MiB, the longest that can be recorded.
const HUGE: usize = 16_000_000;

fn prose(text: &str) -> String {
    json!({ "content": [{ "type": "text", "text": text }], "isError": false }).to_string()
}

/// So many records that the result has `bytes`: half of it as text, half as structured content.
fn records(key: &str, bytes: usize, record: fn(usize) -> Value) -> String {
    let mut rows: Vec<Value> = Vec::new();
    loop {
        let found = json!({ key: rows });
        let result = json!({
            "content": [{ "type": "text", "text": found.to_string() }],
            "structuredContent": found,
            "isError": false,
        })
        .to_string();
        if result.len() >= bytes {
            return result;
        }
        rows.push(record(rows.len()));
    }
}

fn ticket(number: usize) -> Value {
    let pick = |from: &[&'static str]| from[(number * 7 + 3) % from.len()];
    let mut ticket = json!({
        "id": 48_200 + number * 13,
        "opened": format!("2026-10-{:02}T{:02}:{:02}:00Z", 1 + number % 28, number % 24, number * 7 % 60),
        "status": pick(&["open", "waiting", "solved"]),
        "priority": pick(&["low", "normal", "high", "urgent"]),
        "product": pick(&["export", "search", "billing page", "mobile app", "import"]),
        "summary": pick(&[
            "The export stops after the first page when a filter is set",
            "Search results are sorted by age although relevance was chosen",
            "The page shows last month's total until it is loaded again",
            "A comment with a long line is cut at the edge of the screen",
            "The import skips rows whose last column is empty",
        ]),
        "minutes_spent": number * 17 % 240,
        "tags": [pick(&["regression", "question", "wish"]), pick(&["web", "phone", "chat", "form"])],
    });
    if number % 5 == 2 {
        ticket["reporter"] =
            json!({ "email": format!("person.{number}@example.com"), "plan": "team" });
    }
    ticket
}

fn customer(number: usize) -> Value {
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
    same_but_masked(&parse(raw)?, &parse(masked)?, masked)
}

/// The members that are masked, whatever they hold.
const SENSITIVE: [&str; 3] = ["email", "card", "ssn"];

fn same_but_masked(raw: &Value, masked: &Value, whole: &str) -> Result<(), String> {
    match (raw, masked) {
        (Value::Object(raw), Value::Object(masked)) if raw.keys().eq(masked.keys()) => {
            raw.iter().zip(masked.values()).try_for_each(|((key, raw), masked)| {
                if !SENSITIVE.contains(&key.as_str()) {
                    return same_but_masked(raw, masked, whole);
                }
                let hidden = raw.as_str().is_some_and(|raw| !whole.contains(raw));
                let shown = masked.as_str().is_some_and(|masked| !masked.is_empty());
                if hidden && shown { Ok(()) } else { Err(format!("{key} {raw} became {masked}")) }
            })
        }
        (Value::Array(raw), Value::Array(masked)) if raw.len() == masked.len() => {
            raw.iter().zip(masked).try_for_each(|(raw, masked)| same_but_masked(raw, masked, whole))
        }
        (Value::String(raw), Value::String(masked)) if raw.starts_with('{') => {
            let parse = |text| serde_json::from_str::<Value>(text).map_err(|e| e.to_string());
            same_but_masked(&parse(raw)?, &parse(masked)?, whole)
        }
        (raw, masked) if raw == masked => Ok(()),
        (raw, masked) => Err(format!("{raw} became {masked}")),
    }
}
