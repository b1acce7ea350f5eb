//! What passed before the gateway and behind it, compared byte by byte.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use regex::bytes::Regex;
use serde_json::Value;

use crate::support::customers;
use crate::support::tap::{Exchange, Lines};

/// The messages of one line, without the transport that carried them.
#[derive(Debug, Default)]
pub struct Flow {
    to_server: Vec<Vec<u8>>,
    to_client: Vec<Vec<u8>>,
}

impl From<Lines> for Flow {
    fn from(lines: Lines) -> Self {
        Self { to_server: lines.to_server, to_client: lines.to_client }
    }
}

impl From<&[Exchange]> for Flow {
    fn from(exchanges: &[Exchange]) -> Self {
        let endpoint = || exchanges.iter().filter(|exchange| exchange.endpoint);
        let bodies = endpoint().map(|exchange| exchange.request.clone());
        Self {
            to_server: bodies.filter(|body| !body.is_empty()).collect(),
            // A GET or DELETE that is refused is no business of a message's.
            to_client: endpoint()
                .filter(|exchange| exchange.method == "POST" || exchange.status == 200)
                .flat_map(Exchange::answers)
                .collect(),
        }
    }
}

impl Flow {
    /// How many messages there are, so that nobody compares nothing with nothing.
    pub fn len(&self) -> usize {
        self.to_server.len() + self.to_client.len()
    }

    /// Whether the server was told of a cancelled request.
    pub fn tells_of_cancelling(&self) -> bool {
        self.to_server.iter().any(|message| method(message) == "notifications/cancelled")
    }

    /// The requests that were cancelled, as JSON.
    fn cancelled(&self) -> Vec<String> {
        let cancelled = self.to_server.iter().map(|message| value(message));
        let cancelled = cancelled.filter(|message| message["method"] == "notifications/cancelled");
        cancelled.map(|message| message["params"]["requestId"].to_string()).collect()
    }

    /// The messages that have to be on both sides of the gateway: all but those that say that a
    /// request is cancelled (HTTP says it by hanging up where stdio sends a notification), and
    /// progress of or an answer to such a request, which may cross it on the way.
    fn lasting(&self, both: &[&Self]) -> (Vec<&[u8]>, Vec<&[u8]>) {
        let cancelled: Vec<String> = both.iter().flat_map(|flow| flow.cancelled()).collect();
        let to_server = self.to_server.iter().map(Vec::as_slice);
        let to_client = self.to_client.iter().map(Vec::as_slice);
        (
            to_server.filter(|message| method(message) != "notifications/cancelled").collect(),
            to_client
                .filter(|message| {
                    let message = value(message);
                    // A server may call off its own requests when its client has left.
                    if message["method"] == "notifications/cancelled" {
                        return false;
                    }
                    let about = match message["method"].as_str() {
                        None => &message["id"],
                        Some("notifications/progress") => &message["params"]["progressToken"],
                        Some(_) => return true,
                    };
                    !cancelled.contains(&about.to_string())
                })
                .collect(),
        )
    }

    /// What the gateway changed between a client and a server on different transports: nothing
    /// but masked values.
    pub fn changes(&self, server: &Self) -> Vec<String> {
        let (sent, heard) = self.lasting(&[self, server]);
        let (received, said) = server.lasting(&[self, server]);
        let mut found =
            diff("sent by the client", &sent, "received by the server", &received, plain);
        let (mut said, heard) = without_nameless(said, heard);
        // What a server says or asks besides may come when its client has left, each time anew
        // where there is a process for each step: the client hears no more of it than was said.
        let mut ears: Vec<_> = heard.iter().map(|message| veiled(message)).collect();
        said.retain(|message| {
            if matches!(method(message).as_str(), "" | "notifications/progress") {
                return true;
            }
            let ear = ears.iter().position(|other| *other == veiled(message));
            ear.map(|at| ears.swap_remove(at)).is_some()
        });
        found.extend(diff("said by the server", &said, "heard by the client", &heard, veiled));
        found
    }

    /// What a client on the same transport saw and sent otherwise than without a gateway, but for
    /// what no two runs have in common. Only requests, answers to them and their progress: what a
    /// server says or asks besides comes when it likes.
    pub fn differences(&self, direct: &Self) -> Vec<String> {
        fn steady(message: &[u8]) -> Vec<u8> {
            let mut text = veiled(message);
            for (pattern, name) in VOLATILE.iter() {
                text = pattern.replace_all(&text, *name).into_owned();
            }
            text
        }
        let (sent, heard) = self.lasting(&[self, direct]);
        let (sent_before, heard_before) = direct.lasting(&[self, direct]);
        let answers = |messages: Vec<&'_ [u8]>| -> Vec<Vec<u8>> {
            let kept = messages.into_iter().filter(|message| {
                matches!(method(message).as_str(), "" | "notifications/progress")
            });
            kept.map(<[u8]>::to_vec).collect()
        };
        let (heard, heard_before) = (answers(heard), answers(heard_before));
        // What the server asks is answered when it asks.
        let asked = |message: &&[u8]| !method(message).is_empty();
        let sent: Vec<_> = sent.into_iter().filter(asked).collect();
        let sent_before: Vec<_> = sent_before.into_iter().filter(asked).collect();
        let heard: Vec<_> = heard.iter().map(Vec::as_slice).collect();
        let heard_before: Vec<_> = heard_before.iter().map(Vec::as_slice).collect();
        let mut found = diff("sent direct", &sent_before, "sent through", &sent, steady);
        found.extend(diff("heard direct", &heard_before, "heard through", &heard, steady));
        found
    }
}

/// Without the errors that name no request, which HTTP ties to one all the same: over stdio the
/// client hears them with the request's id.
fn without_nameless<'m>(
    said: Vec<&'m [u8]>,
    mut heard: Vec<&'m [u8]>,
) -> (Vec<&'m [u8]>, Vec<&'m [u8]>) {
    let said = said.into_iter().filter(|message| {
        let nameless = value(message);
        if nameless["error"].is_null() || !nameless["id"].is_null() {
            return true;
        }
        let named = heard.iter().position(|other| {
            let other = value(other);
            other["error"] == nameless["error"] && !other["id"].is_null()
        });
        named.map(|at| heard.remove(at)).is_none()
    });
    (said.collect(), heard)
}

/// What the gateway changed between a client and a server that both speak HTTP: status, content
/// type and messages of every exchange.
pub fn changes(client: &[Exchange], server: &[Exchange]) -> Vec<String> {
    let mut left: Vec<&Exchange> = server.iter().filter(|one| one.endpoint).collect();
    let mut found = vec![];
    for exchange in client.iter().filter(|one| one.endpoint && one.status != 0) {
        let same = |other: &&Exchange| {
            other.method == exchange.method
                && other.request == exchange.request
                && other.status == exchange.status
                && (other.response.is_empty() || other.content_type == exchange.content_type)
                && follows(exchange, other)
        };
        match left.iter().position(same) {
            Some(at) => drop(left.remove(at)),
            None => found.push(format!("before the gateway: {}", show(exchange))),
        }
    }
    let unknown = left.iter().filter(|one| one.status != 0);
    found.extend(unknown.map(|one| format!("behind the gateway: {}", show(one))));
    found
}

/// Whether a client heard what the server said: all of it, or its beginning if it did not listen
/// to the end.
fn follows(client: &Exchange, server: &Exchange) -> bool {
    let veil = |exchange: &Exchange| -> Vec<Vec<u8>> {
        exchange.answers().iter().map(|message| veiled(message)).collect()
    };
    let (heard, said) = (veil(client), veil(server));
    if client.whole && server.whole { heard == said } else { said.starts_with(&heard) }
}

fn show(exchange: &Exchange) -> String {
    let Exchange { method, request, status, content_type, response, whole, .. } = exchange;
    format!(
        "{method} {} -> {status} {content_type} whole={whole} {}",
        String::from_utf8_lossy(request),
        String::from_utf8_lossy(response),
    )
}

/// The messages that are in only one of two heaps.
fn diff(
    first_name: &str,
    first: &[&[u8]],
    second_name: &str,
    second: &[&[u8]],
    reading: fn(&[u8]) -> Vec<u8>,
) -> Vec<String> {
    let mut heap: BTreeMap<Vec<u8>, isize> = BTreeMap::new();
    for message in first {
        *heap.entry(reading(message)).or_default() += 1;
    }
    for message in second {
        *heap.entry(reading(message)).or_default() -= 1;
    }
    heap.into_iter()
        .filter(|(_, count)| *count != 0)
        .map(|(message, count)| {
            let (name, other) =
                if count > 0 { (first_name, second_name) } else { (second_name, first_name) };
            let message = String::from_utf8_lossy(&message).into_owned();
            format!("{name}, not {other}: {message}")
        })
        .collect()
}

fn value(message: &[u8]) -> Value {
    serde_json::from_slice(message).unwrap_or_default()
}

fn method(message: &[u8]) -> String {
    value(message)["method"].as_str().unwrap_or_default().to_owned()
}

fn plain(message: &[u8]) -> Vec<u8> {
    message.to_vec()
}

/// A message with one word in the place of each value that nobody may see, and of what stands for
/// it once it is masked.
pub fn veiled(message: &[u8]) -> Vec<u8> {
    let mut text = message.to_vec();
    for (pattern, name) in SECRET.iter() {
        text = pattern.replace_all(&text, *name).into_owned();
    }
    text
}

static SECRET: LazyLock<Vec<(Regex, &[u8])>> = LazyLock::new(|| {
    let customers = customers();
    let mut secrets = vec![(Regex::new(r"grace\.story@example\.com").unwrap(), &b"EMAIL"[..])];
    for (kind, name) in [("email", &b"EMAIL"[..]), ("ssn", b"SSN"), ("card", b"CARD")] {
        for value in customers[kind].as_array().unwrap() {
            let pattern = regex::escape(value.as_str().unwrap());
            secrets.push((Regex::new(&pattern).unwrap(), name));
        }
    }
    // What an answer holds depends on who asked: the gateway lets nobody keep it for another.
    secrets.push((Regex::new(r#""cacheScope": ?"(public|private)""#).unwrap(), b"SCOPE"));
    secrets.push((Regex::new("Ada Moreno|Björn Åkesson|Chidi Okafor").unwrap(), b"NAME"));
    secrets.push((Regex::new(r"\[pii\.name masked\]").unwrap(), b"NAME"));
    secrets.push((Regex::new(r"[a-z]\*\*\*@masked\.invalid").unwrap(), b"EMAIL"));
    secrets.push((Regex::new(r"\*{3}-\*{2}-\d{4}").unwrap(), b"SSN"));
    secrets.push((Regex::new(r"[* ]{8,}\d{4}").unwrap(), b"CARD"));
    secrets
});

/// What no two runs have in common, and what stands for it.
static VOLATILE: LazyLock<Vec<(Regex, &[u8])>> = LazyLock::new(|| {
    let patterns: [(&str, &[u8]); 6] = [
        (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", b"UUID"),
        (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", b"ISO"),
        (r"\d{1,2}:\d\d:\d\d.[AP]M", b"TIME"),
        (r#""duration_ms":[0-9.]+"#, b"DURATION"),
        (r#""progressToken":"[^"]*""#, b"TOKEN"),
        (r"127\.0\.0\.1:\d+", b"HERE"),
    ];
    patterns.map(|(pattern, name)| (Regex::new(pattern).unwrap(), name)).into()
});

/// A value without what no two runs have in common.
pub fn steady(value: &Value) -> String {
    let mut text = veiled(value.to_string().as_bytes());
    for (pattern, name) in VOLATILE.iter() {
        text = pattern.replace_all(&text, *name).into_owned();
    }
    String::from_utf8_lossy(&text).into_owned()
}
