//! A connection on stdin and stdout, for MCP clients that start their servers as processes.
//!
//! One message per line each way; stdout carries the protocol and nothing else. Lines are read
//! from the first moment, while the grant is still being fetched. Requests run side by side;
//! notifications and the client's own answers go out one after the other, and a request waits for
//! those that stood before it. Every request is answered, if only with an error.
//!
//! | file | owns |
//! |---|---|
//! | [`exchange`] | one message's HTTP exchange and the reading of its answer |
//! | [`mirror`] | the headers that a modern request must repeat from its body |
//! | [`lines`] | reading and writing lines, bounded |
//!
//! Implements the stdio transport of both protocol eras on one side and Streamable HTTP on the
//! other.

mod exchange;
mod lines;
mod mirror;

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use axum::http::{HeaderValue, Method};
use bytes::Bytes;
use futures_util::FutureExt as _;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::io::{AsyncBufRead, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};

use self::lines::Line;
use self::mirror::Tools;
use super::channel::Channel;
use super::problem::{self, Problem};
use crate::mcp::{DecodeError, Fault, Id, Kind, Limits, Message, Origin, batch, headers};

/// Bridges a client on `input` and `output` to a connection until the client closes its side,
/// `stop` ends, or nobody reads the output any more.
///
/// # Errors
/// What reading from the client said.
pub async fn run<R, W>(
    channel: Arc<Channel>,
    limits: Limits,
    input: R,
    output: W,
    stop: impl Future<Output = ()>,
) -> io::Result<()>
where
    R: AsyncBufRead + Unpin,
    W: AsyncWrite + Unpin + Send + 'static,
{
    let (out, lines) = mpsc::channel(OUT_QUEUE);
    let writer = tokio::spawn(lines::write_all(lines, output));
    let closed = out.clone();
    let (ordered, queue) = mpsc::unbounded_channel();
    let bridge = Arc::new(Bridge {
        channel,
        limits,
        out,
        legacy: RwLock::default(),
        tools: RwLock::default(),
        running: Mutex::default(),
        handshaking: watch::Sender::new(false),
        delivered: watch::Sender::new(0),
    });
    let mut session = Session { tasks: JoinSet::new(), ordered, enqueued: 0, serial: 0 };
    let warm_up = Arc::clone(&bridge);
    // Only to have the grant early. A failure is told to the first request that needs it.
    let warm_up = tokio::spawn(async move { drop(warm_up.channel.grant().await) });
    let in_order = tokio::spawn(deliver_in_order(Arc::clone(&bridge), queue));

    // Whoever tells it to stop while it finishes has no more patience.
    let mut stop = std::pin::pin!(stop.fuse());
    let read = tokio::select! {
        read = read_all(&bridge, &mut session, input) => read,
        () = &mut stop => Ok(()),
        () = closed.closed() => Ok(()),
    };

    // What is under way may finish, then the server is told that this client is gone.
    let Session { mut tasks, ordered, .. } = session;
    drop(ordered);
    let in_order_handle = AbortOnDrop(in_order.abort_handle());
    if !closed.is_closed() {
        let finish = async {
            while tasks.join_next().await.is_some() {}
            if in_order.await.is_err() {
                tracing::warn!("a notification was lost");
            }
        };
        tokio::select! {
            finished = tokio::time::timeout(FINISH, finish) => {
                if finished.is_err() {
                    tracing::warn!("ending with requests still under way");
                }
            }
            () = &mut stop => {}
        }
    }
    tasks.shutdown().await;
    drop(in_order_handle);
    warm_up.abort();
    bridge.end_session().await;
    drop((bridge, closed));
    if let Ok(Err(error)) = tokio::time::timeout(FINISH, writer).await.unwrap_or(Ok(Ok(()))) {
        tracing::debug!(%error, "the client no longer reads");
    }
    read
}

/// Answers a client's first request with a problem, where there is no way to any connection: a
/// client that only sees its server end tells its user nothing.
///
/// # Errors
/// What reading or writing said.
pub async fn refuse<R, W>(
    problem: &Problem,
    limits: Limits,
    mut input: R,
    mut output: W,
) -> io::Result<()>
where
    R: AsyncBufRead + Unpin,
    W: AsyncWrite + Unpin,
{
    loop {
        let line = match lines::read(&mut input, limits.bytes).await? {
            Line::End => return Ok(()),
            Line::TooLong => continue,
            Line::Text(line) => line,
        };
        if let Ok(message) = Message::decode(line, Origin::Client, &limits)
            && let Kind::Request { id, .. } = message.kind()
        {
            let answer = problem.to_json_rpc(Some(id)) + "\n";
            output.write_all(answer.as_bytes()).await?;
            return output.flush().await;
        }
    }
}

/// What all tasks of one bridge share.
struct Bridge {
    channel: Arc<Channel>,
    limits: Limits,
    out: mpsc::Sender<Bytes>,
    legacy: RwLock<Legacy>,
    /// Per tool, the arguments that modern requests repeat as headers; from the lists seen.
    tools: RwLock<Tools>,
    /// Requests under way, by the client's id: what a cancellation ends.
    running: Mutex<HashMap<Id, (u64, AbortHandle)>>,
    /// Whether a legacy `initialize` is under way; everything else must wait for its session.
    handshaking: watch::Sender<bool>,
    /// How many of the ordered messages have been accepted or given up.
    delivered: watch::Sender<u64>,
}

/// What a legacy handshake has settled.
#[derive(Clone, Default)]
struct Legacy {
    session: Option<HeaderValue>,
    version: Option<HeaderValue>,
}

/// What the reader alone owns.
struct Session {
    tasks: JoinSet<()>,
    ordered: mpsc::UnboundedSender<Message>,
    enqueued: u64,
    serial: u64,
}

async fn read_all<R: AsyncBufRead + Unpin>(
    bridge: &Arc<Bridge>,
    session: &mut Session,
    mut input: R,
) -> io::Result<()> {
    loop {
        match lines::read(&mut input, bridge.limits.bytes).await? {
            Line::End => return Ok(()),
            Line::TooLong => {
                let limit = bridge.limits.bytes;
                let fault = Fault::TooLarge { found: limit, limit };
                bridge.refuse(&Bytes::new(), &DecodeError::at(limit, fault)).await;
            }
            Line::Text(line) if batch::is_batch(&line) && bridge.has_batches() => {
                match batch::split(&line, &bridge.limits) {
                    Ok(elements) => session.take_all(bridge, elements).await,
                    Err(error) => bridge.refuse(&line, &error).await,
                }
            }
            Line::Text(line) => {
                match Message::decode(line.clone(), Origin::Client, &bridge.limits) {
                    Ok(message) => session.take(bridge, message),
                    Err(error) => bridge.refuse(&line, &error).await,
                }
            }
        }
        while session.tasks.try_join_next().is_some() {}
    }
}

impl Session {
    /// Takes the messages of a batch as if each had come on a line of its own; so do their answers.
    async fn take_all(&mut self, bridge: &Arc<Bridge>, elements: Vec<batch::Element>) {
        for element in elements {
            match element.decode(Origin::Client, &bridge.limits) {
                Ok(message) if message.method() == Some("initialize") => {
                    let fault = Fault::Envelope("\"initialize\" cannot be part of a batch");
                    bridge.refuse(&element.raw, &element.fault(fault)).await;
                }
                Ok(message) => self.take(bridge, message),
                Err(error) => bridge.refuse(&element.raw, &error).await,
            }
        }
    }

    fn take(&mut self, bridge: &Arc<Bridge>, message: Message) {
        match message.kind() {
            Kind::Request { id, method } => {
                let id = id.clone();
                let handshake = method == "initialize" && mirror::version(&message).is_none();
                if handshake {
                    bridge.handshaking.send_replace(true);
                }
                self.serial += 1;
                let (serial, after) = (self.serial, self.enqueued);
                let task = Arc::clone(bridge);
                let own_id = id.clone();
                // Held until the handle is noted: a request that ends at once must find it.
                let mut running = lock(&bridge.running);
                let handle = self.tasks.spawn(async move {
                    if handshake {
                        let _until_dropped = Handshake(Arc::clone(&task));
                        task.handshake(&message, &own_id).await;
                    } else {
                        task.wait_turn(after).await;
                        task.request(&message, &own_id).await;
                    }
                    let mut running = lock(&task.running);
                    if running.get(&own_id).is_some_and(|(number, _)| *number == serial) {
                        running.remove(&own_id);
                    }
                });
                running.insert(id, (serial, handle));
            }
            Kind::Notification { method }
                if method == "notifications/cancelled" && !bridge.in_legacy_session() =>
            {
                bridge.cancel(&message);
            }
            Kind::Notification { .. } | Kind::Response { .. } => {
                // Fails only if the delivering task died; the messages behind it must not wait.
                if self.ordered.send(message).is_ok() {
                    self.enqueued += 1;
                }
            }
        }
    }
}

/// Sends notifications and the client's answers one after the other.
async fn deliver_in_order(bridge: Arc<Bridge>, mut queue: mpsc::UnboundedReceiver<Message>) {
    let mut listener: Option<AbortOnDrop> = None;
    while let Some(message) = queue.recv().await {
        let is_answer = matches!(message.kind(), Kind::Response { .. });
        if !is_answer {
            // An answer may be what the handshake waits for.
            bridge.wait_for_handshake().await;
        }
        if message.method() == Some("notifications/cancelled") {
            // Nobody waits for its answer any more, and no server owes one.
            bridge.cancel(&message);
        }
        match tokio::time::timeout(DELIVERY, bridge.deliver(&message)).await {
            Ok(Ok(())) => {
                if message.method() == Some("notifications/initialized") && listener.is_none() {
                    let listening = Arc::clone(&bridge);
                    let task = tokio::spawn(async move { listening.listen().await });
                    listener = Some(AbortOnDrop(task.abort_handle()));
                }
            }
            Ok(Err(problem)) => {
                tracing::warn!(
                    method = message.method(),
                    code = problem.code,
                    "a message was not delivered: {}",
                    problem.message
                );
            }
            Err(_) => {
                tracing::warn!(method = message.method(), "the gateway did not take a message");
            }
        }
        bridge.delivered.send_modify(|count| *count += 1);
    }
}

/// Lets the messages behind a handshake go on, however it ends.
struct Handshake(Arc<Bridge>);

impl Drop for Handshake {
    fn drop(&mut self) {
        self.0.handshaking.send_replace(false);
    }
}

struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Bridge {
    /// Whether this client made a legacy handshake, in which cancelling is a message to the
    /// server; in the modern era it is the end of the request's stream.
    fn in_legacy_session(&self) -> bool {
        *self.handshaking.borrow() || self.legacy().version.is_some()
    }

    /// Whether this client's session is of the one version that has batches.
    fn has_batches(&self) -> bool {
        let version = self.legacy().version;
        version.is_some_and(|version| version.as_bytes() == batch::VERSION.as_bytes())
    }

    fn legacy(&self) -> Legacy {
        self.legacy.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn wait_for_handshake(&self) {
        // The sender lives as long as self, so this ends only by the condition.
        let mut handshaking = self.handshaking.subscribe();
        drop(handshaking.wait_for(|busy| !busy).await);
    }

    async fn wait_turn(&self, after: u64) {
        self.wait_for_handshake().await;
        let mut delivered = self.delivered.subscribe();
        drop(delivered.wait_for(|count| *count >= after).await);
    }

    fn cancel(&self, message: &Message) {
        #[derive(Deserialize)]
        struct Cancelled<'a> {
            #[serde(rename = "requestId", borrow)]
            request: &'a RawValue,
        }
        let cancelled = message.params().and_then(|p| serde_json::from_str::<Cancelled>(p).ok());
        let Some(cancelled) = cancelled else { return };
        let mut running = lock(&self.running);
        let found = running.keys().find(|id| id.as_json() == cancelled.request.get()).cloned();
        if let Some((_, task)) = found.and_then(|id| running.remove(&id)) {
            task.abort();
        }
    }

    /// Answers a line that is no message. The id is repeated if a lax reader can find one, so
    /// that a client does not wait for it in vain.
    async fn refuse(&self, line: &Bytes, error: &DecodeError) {
        let value: serde_json::Value = serde_json::from_slice(line).unwrap_or_default();
        let id = value.get("id").filter(|_| value.get("method").is_some());
        let id = id.filter(|id| id.is_i64() || id.is_u64() || id.is_string());
        tracing::warn!(%error, "refused a message of the client");
        let text = problem::malformed(error);
        // `text` is ours and begins with exactly this.
        let text = match id {
            Some(id) => text.replacen("\"id\":null", &format!("\"id\":{id}"), 1),
            None => text,
        };
        self.emit(text.into()).await;
    }

    /// Hands one message to the client. Nothing to do if the client has gone: the reader ends.
    async fn emit(&self, message: Bytes) {
        drop(self.out.send(message).await);
    }

    async fn end_session(&self) {
        let legacy = self.legacy();
        if legacy.session.is_none() {
            return;
        }
        let sent = self.channel.send(Method::DELETE, self.legacy_headers(), Bytes::new());
        match tokio::time::timeout(FAREWELL, sent).await {
            Ok(Ok(response)) => tracing::debug!(status = %response.status(), "session ended"),
            Ok(Err(error)) => tracing::debug!(%error, "the session was not ended"),
            Err(_) => tracing::debug!("the session was not ended in time"),
        }
    }

    fn legacy_headers(&self) -> axum::http::HeaderMap {
        let legacy = self.legacy();
        let mut map = axum::http::HeaderMap::new();
        if let Some(session) = legacy.session {
            map.insert(headers::SESSION_ID, session);
        }
        if let Some(version) = legacy.version {
            map.insert(headers::PROTOCOL_VERSION, version);
        }
        map
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How many answers may wait for a client that reads slowly; then the gateway waits too.
const OUT_QUEUE: usize = 64;
/// How long requests may still run after the client has closed its side.
const FINISH: Duration = Duration::from_secs(5);
/// How long one notification may take before the next one goes.
const DELIVERY: Duration = Duration::from_secs(30);
/// How long ending the session may take.
const FAREWELL: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests;
