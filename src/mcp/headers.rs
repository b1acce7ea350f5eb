//! The HTTP headers of both protocol eras, by name, and how their values are read.
//!
//! Names are in lower case, as HTTP/2 and every header map store them. What is not here is not
//! copied between a client and a server: cookies and authorisations belong to one hop.
//!
//! Implements the header parts of MCP `basic/transports` (2024-11-05 to 2025-11-25) and
//! `basic/transports/streamable-http` (2026-07-28).

use std::borrow::Cow;

use base64::Engine as _;

/// Which protocol version the sender speaks. Both eras; `initialize` itself has none.
pub const PROTOCOL_VERSION: &str = "mcp-protocol-version";
/// Legacy: the server's name for one handshake.
pub const SESSION_ID: &str = "mcp-session-id";
/// Legacy: the last event seen, to resume a stream.
pub const LAST_EVENT_ID: &str = "last-event-id";
/// Modern: the body's `method`.
pub const METHOD: &str = "mcp-method";
/// Modern: the body's `params.name`, or `params.uri` of a resource.
pub const NAME: &str = "mcp-name";
/// Modern: what begins every header that mirrors one argument of a tool.
pub const PARAM_PREFIX: &str = "mcp-param-";

/// Asks proxies not to hold a stream back.
pub const X_ACCEL_BUFFERING: &str = "x-accel-buffering";

/// The two media types that every POST of a client accepts.
pub const ACCEPT_BOTH: &str = "application/json, text/event-stream";
/// One JSON message.
pub const JSON: &str = "application/json";
/// An event stream.
pub const EVENT_STREAM: &str = "text/event-stream";

/// `params._meta` of a modern request: which version it speaks.
pub const META_PROTOCOL_VERSION: &str = "io.modelcontextprotocol/protocolVersion";

/// Whether a request header goes from the client on to the server, by its lower-case name.
///
/// Beside MCP's own headers these are content negotiation and trace context. `accept-encoding`
/// stays behind: a compressed answer could be neither masked nor recorded.
pub fn is_forwarded_request(name: &str) -> bool {
    name.starts_with(PARAM_PREFIX)
        || matches!(
            name,
            PROTOCOL_VERSION
                | SESSION_ID
                | METHOD
                | NAME
                | "accept"
                | "content-type"
                | LAST_EVENT_ID
                | "traceparent"
                | "tracestate"
                | "baggage"
        )
}

/// Whether a response header goes on towards the client, by its lower-case name. A header's value
/// is neither masked nor recorded, so only those do whose values are the protocol's own; of an MCP
/// server's, even these are made anew or checked (`upstream::http`).
pub fn is_forwarded_response(name: &str) -> bool {
    matches!(
        name,
        "content-type" | SESSION_ID | "cache-control" | "retry-after" | "allow" | X_ACCEL_BUFFERING
    )
}

/// A header value that claims to be base64 and is not, or not of UTF-8.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a header value of the form =?base64?…?= holds no base64 of UTF-8 text")]
pub struct BadValue;

/// The text that a mirrored header stands for: `=?base64?…?=` is decoded, everything else is
/// taken as it is. Always decode before comparing with the body.
///
/// # Errors
/// [`BadValue`] where the base64 or the UTF-8 in it is broken.
pub fn decode_value(value: &str) -> Result<Cow<'_, str>, BadValue> {
    match value.strip_prefix(ENCODED_START).and_then(|v| v.strip_suffix(ENCODED_END)) {
        None => Ok(Cow::Borrowed(value)),
        Some(encoded) => {
            let bytes =
                base64::engine::general_purpose::STANDARD.decode(encoded).map_err(|_| BadValue)?;
            String::from_utf8(bytes).map(Cow::Owned).map_err(|_| BadValue)
        }
    }
}

/// The header value for a text: as it is where a header can hold it unchanged, else as base64.
pub fn encode_value(text: &str) -> Cow<'_, str> {
    let plain = text.bytes().all(|b| matches!(b, b' '..=b'~'))
        && text.trim() == text
        && !text.starts_with(ENCODED_START);
    if plain {
        Cow::Borrowed(text)
    } else {
        let encoded = base64::engine::general_purpose::STANDARD.encode(text);
        Cow::Owned(format!("{ENCODED_START}{encoded}{ENCODED_END}"))
    }
}

const ENCODED_START: &str = "=?base64?";
const ENCODED_END: &str = "?=";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn secrets_of_one_hop_stay_there() {
        let own = ["authorization", "cookie", "dpop", "host", "origin", "accept-encoding"];
        for name in own.into_iter().chain(["mcp-anything", "mcp-parameter"]) {
            assert!(!is_forwarded_request(name), "{name}");
        }
        for name in ["mcp-param-region", SESSION_ID, LAST_EVENT_ID, "accept"] {
            assert!(is_forwarded_request(name), "{name}");
        }
        for name in [
            "set-cookie",
            "transfer-encoding",
            "access-control-allow-origin",
            "x-customer",
            "location",
            "content-encoding",
        ] {
            assert!(!is_forwarded_response(name), "{name}");
        }
        assert!(is_forwarded_response("x-accel-buffering"));
    }

    #[test]
    fn values_are_decoded_before_they_are_compared() {
        assert_eq!(decode_value("execute_sql").unwrap(), "execute_sql");
        assert_eq!(decode_value("=?base64?w6l0w6k=?=").unwrap(), "été");
        assert_eq!(decode_value("=?base64?###?="), Err(BadValue));
        assert_eq!(decode_value("=?base64?/w==?="), Err(BadValue));
        assert_eq!(decode_value("=?base64?").unwrap(), "=?base64?", "no end: plain text");
    }

    proptest! {
        #[test]
        fn every_text_survives_a_header(text in any::<String>()) {
            let value = encode_value(&text);
            prop_assert!(value.bytes().all(|b| matches!(b, b' '..=b'~')));
            prop_assert_eq!(value.trim(), &*value);
            prop_assert_eq!(decode_value(&value).unwrap(), text.as_str());
        }
    }
}
