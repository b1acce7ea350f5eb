//! The stream that answers a request on the local port, seen to its end: where it breaks or ends
//! without the answer, a JSON-RPC error takes the answer's place, so that the client learns at
//! once what it would otherwise wait for until its own patience ends.
//!
//! Events pass as they came, each as soon as it is whole; half an event that breaks off is left
//! out, or it would run into the error. A legacy stream with event ids is left to the client, which
//! may take it up again (MCP 2025-11-25 `basic/transports`, resumability), and so is the end of a
//! subscription, which answers nothing by then.

use std::pin::Pin;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::problem::{Problem, STREAM_BROKE, STREAM_ENDED};
use crate::mcp::sse::{self, Decoder, Event};
use crate::mcp::{Id, Kind, Message, modern};

/// A request whose answer comes as an event stream.
pub(super) struct Asked {
    id: Id,
    /// Whether a client may take a broken stream up again.
    resumable: bool,
}

impl Asked {
    /// The request that a message is; none where no answer is owed.
    pub(super) fn of(message: &Message) -> Option<Self> {
        let Kind::Request { id, method } = message.kind() else { return None };
        let owed = method != "subscriptions/listen";
        let resumable = !modern::is_modern(None, message);
        owed.then(|| Self { id: id.clone(), resumable })
    }

    /// The stream, with an answer in any case that the client cannot mend itself.
    pub(super) fn answered<E: Send + 'static>(
        self,
        bytes: impl Stream<Item = Result<Bytes, E>> + Send + 'static,
    ) -> impl Stream<Item = Result<Bytes, E>> + Send + 'static {
        let decoder = Decoder::new(EVENT_BYTES);
        let bytes = Box::pin(bytes);
        let answer =
            Answer { asked: self, bytes, decoder, answered: false, last_id: false, over: false };
        stream::unfold(answer, async |mut answer| Some((answer.next().await?, answer)))
    }
}

struct Answer<E> {
    asked: Asked,
    bytes: Pin<Box<dyn Stream<Item = Result<Bytes, E>> + Send>>,
    decoder: Decoder,
    answered: bool,
    /// Whether the last event id is one to go on from.
    last_id: bool,
    over: bool,
}

impl<E: Send + 'static> Answer<E> {
    async fn next(&mut self) -> Option<Result<Bytes, E>> {
        loop {
            if let Some(event) = self.decoder.next() {
                self.see(&event);
                return Some(Ok(event.raw));
            }
            if self.over {
                return None;
            }
            match self.bytes.next().await {
                Some(Ok(chunk)) => {
                    if self.decoder.push(&chunk).is_err() {
                        // What was whole before it still goes out; more cannot be read.
                        self.bytes = Box::pin(stream::empty());
                        tracing::warn!("an event of the gateway is longer than any may be");
                    }
                }
                None => {
                    self.over = true;
                    return self.last_word(STREAM_ENDED).map(Ok);
                }
                Some(Err(error)) => {
                    self.over = true;
                    return Some(self.last_word(STREAM_BROKE).ok_or(error));
                }
            }
        }
    }

    fn see(&mut self, event: &Event) {
        /// As much of a message as tells an answer from others.
        #[derive(Deserialize)]
        struct Seen<'a> {
            #[serde(borrow)]
            id: Option<&'a RawValue>,
            method: Option<IgnoredAny>,
        }
        if let Some(id) = &event.id {
            self.last_id = !id.is_empty();
        }
        let data = event.data.as_deref().unwrap_or_default();
        if let Ok(seen) = serde_json::from_str::<Seen<'_>>(data) {
            let its_own = seen.id.is_none_or(|id| id.get() == self.asked.id.as_json());
            self.answered |= seen.method.is_none() && its_own;
        }
    }

    /// The error that stands in for an answer which nobody will send any more.
    fn last_word(&self, why: &str) -> Option<Bytes> {
        if self.answered || (self.asked.resumable && self.last_id) {
            return None;
        }
        tracing::warn!("{why}");
        let error = Problem::outcome_unknown(why).to_json_rpc(Some(&self.asked.id));
        Some(sse::encode(None, None, &error))
    }
}

/// The gateway has applied its own, configured bound already; this one only protects memory.
const EVENT_BYTES: usize = 64 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mcp::{Limits, Origin};

    const LEGACY: &str = r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{}}"#;
    const MODERN: &str = r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}"#;
    const PROGRESS: &str =
        "data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\"params\":{}}\n\n";
    const ANSWER: &str = "data: {\"jsonrpc\":\"2.0\",\"id\":7,\"result\":{}}\n\n";
    /// A request of the server under the same id, which is no answer.
    const QUESTION: &str = "data: {\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"ping\"}\n\n";

    /// What a client reads of a stream of these chunks that ends well or breaks, and whether it
    /// sees the break.
    async fn read(request: &str, chunks: &[&str], breaks: bool) -> (String, bool) {
        let request = Bytes::from(request.to_owned());
        let message = Message::decode(request, Origin::Client, &Limits::default()).unwrap();
        let mut items: Vec<Result<Bytes, ()>> =
            chunks.iter().map(|chunk| Ok(Bytes::from((*chunk).to_owned()))).collect();
        if breaks {
            items.push(Err(()));
        }
        let Some(asked) = Asked::of(&message) else { panic!("no answer is owed") };
        let (mut text, mut broke) = (String::new(), false);
        for item in asked.answered(stream::iter(items)).collect::<Vec<_>>().await {
            match item {
                Ok(bytes) => text.push_str(std::str::from_utf8(&bytes).unwrap()),
                Err(()) => broke = true,
            }
        }
        (text, broke)
    }

    #[tokio::test]
    async fn a_stream_without_its_answer_ends_with_an_error() {
        for request in [LEGACY, MODERN] {
            for chunks in [&[][..], &[PROGRESS], &[QUESTION], &[PROGRESS, "data: {\"jsonrpc\""]] {
                for breaks in [false, true] {
                    let (text, broke) = read(request, chunks, breaks).await;
                    let whole: String =
                        chunks.iter().filter(|c| c.ends_with('\n')).copied().collect();
                    let error = text.strip_prefix(&whole).unwrap();
                    assert!(
                        error.starts_with("data: {\"jsonrpc\":\"2.0\",\"id\":7,\"error\""),
                        "{text}"
                    );
                    assert!(error.contains("outcome_unknown"), "{text}");
                    assert!(!broke, "the client must read the error: {text}");
                }
            }
        }
    }

    #[tokio::test]
    async fn an_answer_is_the_end() {
        for breaks in [false, true] {
            let expected = format!(": hi\n\n{PROGRESS}{ANSWER}");
            let (text, broke) = read(LEGACY, &[": hi\n\n", PROGRESS, ANSWER], breaks).await;
            assert_eq!((text, broke), (expected, breaks));
        }
    }

    #[tokio::test]
    async fn a_stream_that_can_be_taken_up_again_is_left_alone() {
        let primed = "id: 1\ndata: \n\n";
        for breaks in [false, true] {
            assert_eq!(read(LEGACY, &[primed], breaks).await, (primed.to_owned(), breaks));
            let (text, _) = read(MODERN, &[primed], breaks).await;
            assert!(text.contains("outcome_unknown"), "the modern era resumes nothing: {text}");
            let (text, _) = read(LEGACY, &[primed, "id:\ndata: \n\n"], breaks).await;
            assert!(text.contains("outcome_unknown"), "the server took its id back: {text}");
        }
    }
}
