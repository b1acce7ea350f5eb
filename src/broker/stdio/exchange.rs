//! One message's HTTP exchange, and the stream on which a legacy server speaks unasked.
//!
//! Every way for a request to end leads to exactly one answer: the server's, or an error that says
//! what is known about the call.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use bytes::{Bytes, BytesMut};

use super::{Bridge, mirror};
use crate::broker::problem::{self, Problem};
use crate::mcp::sse::{Decoder, Event};
use crate::mcp::{Id, Kind, Limits, Message, Origin, headers};

/// Where a stream stands.
#[derive(Default)]
struct Stream {
    last_id: Option<String>,
    retry: Option<Duration>,
    answered: bool,
}

impl Bridge {
    /// Carries one request and answers it in any case.
    pub(super) async fn request(&self, message: &Message, id: &Id) {
        let answered = match self.post(message).await {
            Ok(response) => self.take_answer(response, message, id).await,
            Err(problem) => Err(problem),
        };
        if let Err(problem) = answered {
            tracing::debug!(code = problem.code, "a request failed: {}", problem.message);
            self.emit(problem.to_json_rpc(Some(id)).into()).await;
        }
    }

    /// Carries a legacy `initialize`, and keeps what it settles.
    pub(super) async fn handshake(&self, message: &Message, id: &Id) {
        *self.legacy.write().unwrap_or_else(std::sync::PoisonError::into_inner) =
            super::Legacy::default();
        self.request(message, id).await;
    }

    /// Carries a notification or an answer of the client.
    pub(super) async fn deliver(&self, message: &Message) -> Result<(), Problem> {
        let response = self.post(message).await?;
        let status = response.status();
        if status.is_success() {
            return Ok(());
        }
        let body = read_body(response, ERROR_BYTES).await?;
        Err(Problem::of_answer(status, &body))
    }

    /// Reads what a legacy server says unasked, for as long as it offers a stream for that.
    pub(super) async fn listen(&self) {
        let mut stream = Stream::default();
        let mut failures = 0u32;
        loop {
            match self.get(stream.last_id.as_deref()).await {
                Ok(response) if response.status().is_success() => {
                    failures = 0;
                    if let Err(problem) = self.read_stream(response, None, &mut stream).await {
                        tracing::debug!(code = problem.code, "{}", problem.message);
                    }
                }
                Ok(response) if !response.status().is_server_error() => {
                    // 405: no such stream. 404, 401, 403: the session or the grant is over, which
                    // the next request will be told.
                    tracing::debug!(status = %response.status(), "no stream to listen on");
                    return;
                }
                Ok(_) => failures += 1,
                Err(problem) => {
                    tracing::debug!(code = problem.code, "{}", problem.message);
                    failures += 1;
                }
            }
            tokio::time::sleep(pause(&stream, failures)).await;
        }
    }

    async fn post(&self, message: &Message) -> Result<reqwest::Response, Problem> {
        let mut map = match mirror::version(message) {
            Some(version) => {
                let tools = self.tools.read().unwrap_or_else(std::sync::PoisonError::into_inner);
                mirror::request_headers(message, &version, |tool| tools.of(tool))
            }
            None => self.legacy_headers(),
        };
        map.insert(header::ACCEPT, HeaderValue::from_static(headers::ACCEPT_BOTH));
        map.insert(header::CONTENT_TYPE, HeaderValue::from_static(headers::JSON));
        let sent = self.channel.send(Method::POST, map, message.raw().clone()).await;
        sent.map_err(|error| error.problem())
    }

    async fn get(&self, last_id: Option<&str>) -> Result<reqwest::Response, Problem> {
        let mut map: HeaderMap = self.legacy_headers();
        map.insert(header::ACCEPT, HeaderValue::from_static(headers::EVENT_STREAM));
        if let Some(Ok(id)) = last_id.map(HeaderValue::from_str) {
            map.insert(headers::LAST_EVENT_ID, id);
        }
        let sent = self.channel.send(Method::GET, map, Bytes::new()).await;
        sent.map_err(|error| error.problem())
    }

    async fn take_answer(
        &self,
        response: reqwest::Response,
        request: &Message,
        id: &Id,
    ) -> Result<(), Problem> {
        let handshake = *self.handshaking.borrow() && request.method() == Some("initialize");
        if handshake && let Some(session) = response.headers().get(headers::SESSION_ID) {
            let mut legacy = self.legacy.write().unwrap_or_else(std::sync::PoisonError::into_inner);
            legacy.session = Some(session.clone());
        }
        if !media_type(response.headers()).eq_ignore_ascii_case(headers::EVENT_STREAM) {
            let status = response.status();
            let body = read_body(response, ANSWER_BYTES).await?;
            return self.take_json(status, body, request, id).await;
        }
        let mut stream = Stream::default();
        let mut attempts = 0;
        let mut read = self.read_stream(response, Some((request, id)), &mut stream).await;
        // A legacy server may close the stream on purpose and be asked again (2025-11-25), and a
        // broken one can be resumed: reading on sends the call no second time.
        while !stream.answered && attempts < RESUME_ATTEMPTS {
            let Some(last) = stream.last_id.clone().filter(|id| !id.is_empty()) else { break };
            if mirror::version(request).is_some() {
                break;
            }
            tokio::time::sleep(pause(&stream, attempts)).await;
            attempts += 1;
            match self.get(Some(&last)).await {
                Ok(response) if response.status().is_success() => {
                    read = self.read_stream(response, Some((request, id)), &mut stream).await;
                    if stream.last_id.as_deref() != Some(&last) {
                        attempts = 0;
                    }
                }
                Ok(response) if response.status().is_client_error() => break,
                Ok(_) => {}
                Err(problem) => read = Err(problem),
            }
        }
        if stream.answered {
            return Ok(());
        }
        read?;
        Err(unanswered(request))
    }

    async fn take_json(
        &self,
        status: StatusCode,
        body: Bytes,
        request: &Message,
        id: &Id,
    ) -> Result<(), Problem> {
        let message = match Message::decode(body.clone(), Origin::Server, &answer_limits()) {
            Ok(message) => message,
            Err(_) if !status.is_success() => {
                let problem = Problem::of_answer(status, &body);
                return Err(match status {
                    StatusCode::NOT_FOUND if self.legacy().session.is_some() => {
                        Problem::new(status, "session_ended", "the server has ended this session")
                            .hint("restart the MCP client")
                    }
                    _ => problem,
                });
            }
            Err(error) if body.is_empty() => {
                tracing::debug!(%error, %status, "empty answer");
                let text =
                    format!("the server accepted the request (HTTP {status}) and gave no answer");
                return Err(Problem::new(StatusCode::BAD_GATEWAY, "failure", text));
            }
            Err(error) => {
                let text = format!("the server's answer was refused: {error}");
                return Err(Problem::new(StatusCode::BAD_GATEWAY, "failure", text));
            }
        };
        match message.kind() {
            Kind::Response { id: Some(answered), .. } if answered == id => {
                self.note(&message, request);
                self.emit(message.raw().clone()).await;
                Ok(())
            }
            // The server could not read the id; only this request can be meant.
            Kind::Response { id: None, .. } => {
                let answer = message.error().and_then(|e| problem::json_rpc_error_for(id, e));
                match answer {
                    Some(answer) => {
                        self.emit(answer.into()).await;
                        Ok(())
                    }
                    None => Err(Problem::of_answer(status, &body)),
                }
            }
            _ => Err(Problem::new(
                StatusCode::BAD_GATEWAY,
                "failure",
                "the server answered another request than the one that was asked",
            )),
        }
    }

    /// Hands on every message of a stream until it ends.
    async fn read_stream(
        &self,
        mut response: reqwest::Response,
        request: Option<(&Message, &Id)>,
        stream: &mut Stream,
    ) -> Result<(), Problem> {
        let mut decoder = Decoder::new(ANSWER_BYTES);
        loop {
            let chunk = response.chunk().await.map_err(|error| broken(&error))?;
            let Some(chunk) = chunk else { return Ok(()) };
            let pushed = decoder.push(&chunk);
            while let Some(event) = decoder.next() {
                self.take_event(event, request, stream).await;
            }
            pushed.map_err(|error| {
                Problem::new(StatusCode::BAD_GATEWAY, "failure", error.to_string())
            })?;
        }
    }

    async fn take_event(
        &self,
        event: Event,
        request: Option<(&Message, &Id)>,
        stream: &mut Stream,
    ) {
        if let Some(id) = event.id {
            stream.last_id = Some(id);
        }
        if let Some(retry) = event.retry {
            stream.retry = Some(Duration::from_millis(retry));
        }
        let is_message = event.event.as_deref().unwrap_or("message") == "message";
        let Some(data) = event.data.filter(|data| is_message && !data.trim().is_empty()) else {
            return;
        };
        match Message::decode(Bytes::from(data), Origin::Server, &answer_limits()) {
            Ok(message) => {
                if let (Some((request, id)), Kind::Response { id: Some(answered), .. }) =
                    (request, message.kind())
                    && answered == id
                {
                    stream.answered = true;
                    self.note(&message, request);
                }
                self.emit(message.raw().clone()).await;
            }
            // Something else than a message must not reach a client that reads messages.
            Err(error) => tracing::warn!(%error, "left out an event of the server"),
        }
    }

    /// Keeps what later requests depend on.
    fn note(&self, answer: &Message, request: &Message) {
        let Some(result) = answer.result() else { return };
        match request.method() {
            Some("initialize") => {
                let result: serde_json::Value = serde_json::from_str(result).unwrap_or_default();
                let version = result.get("protocolVersion").and_then(|v| v.as_str());
                let version = version.and_then(|v| HeaderValue::from_str(v).ok());
                self.legacy.write().unwrap_or_else(std::sync::PoisonError::into_inner).version =
                    version;
            }
            Some("tools/list") => {
                let mut tools =
                    self.tools.write().unwrap_or_else(std::sync::PoisonError::into_inner);
                tools.note(result);
            }
            _ => {}
        }
    }
}

fn unanswered(request: &Message) -> Problem {
    if request.method() == Some("subscriptions/listen") {
        return Problem::new(StatusCode::BAD_GATEWAY, "stream_ended", "the subscription ended")
            .hint("subscribe again");
    }
    Problem::outcome_unknown(problem::STREAM_ENDED)
}

fn broken(error: &reqwest::Error) -> Problem {
    tracing::debug!(%error, "a stream broke");
    Problem::outcome_unknown(problem::STREAM_BROKE)
}

async fn read_body(mut response: reqwest::Response, limit: usize) -> Result<Bytes, Problem> {
    let mut body = BytesMut::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| broken(&error))? {
        if body.len() + chunk.len() > limit {
            let text = format!("the answer is longer than {limit} bytes");
            return Err(Problem::new(StatusCode::BAD_GATEWAY, "failure", text));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

fn media_type(map: &HeaderMap) -> &str {
    let value = map.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim()
}

/// The server's wish, or a second, doubled with every failure up to half a minute.
fn pause(stream: &Stream, failures: u32) -> Duration {
    let wished = stream.retry.unwrap_or(Duration::from_secs(1)).min(LONGEST_PAUSE);
    wished.saturating_mul(1 << failures.min(8)).min(LONGEST_PAUSE)
}

/// The gateway has applied its own, configured bound already; this one only protects memory.
fn answer_limits() -> Limits {
    Limits { bytes: ANSWER_BYTES, depth: 127 }
}

const ANSWER_BYTES: usize = 64 * 1024 * 1024;
const ERROR_BYTES: usize = 64 * 1024;
const RESUME_ATTEMPTS: u32 = 5;
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
