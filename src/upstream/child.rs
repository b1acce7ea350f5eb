//! One child process that speaks MCP on stdio: one JSON message a line.
//!
//! Own process group, cleared environment. Lines that are not JSON-RPC are tolerated and dropped
//! (some servers greet on stdout); a line that claims to be JSON-RPC and is refused by the strict
//! decoder fails the request that it answers. Whose each message is, [`super::desk`] knows. Ending a child
//! closes its stdin, waits, then sends TERM and KILL to its group. Implements MCP
//! `basic/transports`, stdio.

use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWriteExt as _, BufReader};
use tokio::process::{Child as Process, ChildStdin, Command};
use tokio::sync::{mpsc, oneshot, watch};

use super::UpstreamError;
use super::desk::{Desk, Reader, lock};
use super::stdio::Launch;
use crate::mcp::sse::{self, Decoder, Event};
use crate::mcp::{Id, Kind, Limits, Message, Origin, batch};

/// How long a child has at each step of being ended.
const GRACE: Duration = Duration::from_secs(2);
/// Messages on their way to one reader before the child's stdout is no longer read.
const IN_FLIGHT: usize = 16;

/// A running child.
#[derive(Debug)]
pub(super) struct Child {
    stdin: mpsc::Sender<Bytes>,
    desk: Arc<Mutex<Desk>>,
    stop: watch::Sender<bool>,
    gone: watch::Receiver<bool>,
}

/// Where one reader gets a child's messages.
#[derive(Debug)]
pub(super) struct Inbox {
    messages: mpsc::Receiver<Bytes>,
    desk: Arc<Mutex<Desk>>,
    /// Where to say that nobody reads any more; `None` where leaving means nothing.
    cancel: Option<mpsc::Sender<Bytes>>,
    /// The request whose answer ends this inbox; `None` for the listener.
    request: Option<Id>,
    answered: bool,
}

impl Child {
    /// Starts a child.
    pub(super) fn start(launch: &Launch, limits: Limits) -> Result<Self, UpstreamError> {
        let cannot = |why: String| UpstreamError::CannotStart { why };
        let mut command = Command::new(&launch.program);
        command
            .args(&launch.arguments)
            .env_clear()
            .envs(launch.environment.iter().map(|(name, value)| (name, value.expose())))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        if let Some(folder) = &launch.folder {
            command.current_dir(folder);
        }
        #[cfg(unix)]
        command.process_group(0);
        let mut process = command.spawn().map_err(|error| {
            tracing::error!(program = %launch.program.display(), %error, "cannot start");
            cannot(error.to_string())
        })?;
        let (Some(stdin), Some(stdout), Some(stderr)) =
            (process.stdin.take(), process.stdout.take(), process.stderr.take())
        else {
            return Err(cannot("its pipes are missing".to_owned()));
        };

        let desk = Arc::new(Mutex::new(Desk::default()));
        let (to_stdin, lines) = mpsc::channel(IN_FLIGHT);
        let (stop, stopping) = watch::channel(false);
        let (report_gone, gone) = watch::channel(false);
        tokio::spawn(read_stderr(stderr, launch.name.clone(), launch.quiet.clone()));
        let (silent, fell_silent) = oneshot::channel();
        let reader_desk = Arc::clone(&desk);
        let reader = tokio::spawn(async move {
            read_stdout(stdout, reader_desk, limits).await;
            let _keeper_is_done = silent.send(());
        });
        let keeper_desk = Arc::clone(&desk);
        tokio::spawn(async move {
            let how = keep(process, stdin, lines, stopping, fell_silent).await;
            // What the child said last is still in the pipe; its end closes the inboxes.
            let _outcome = tokio::time::timeout(GRACE, reader).await;
            lock(&keeper_desk).close(how);
            let _unheard = report_gone.send(true);
        });
        Ok(Self { stdin: to_stdin, desk, stop, gone })
    }

    /// Whether the child still runs.
    pub(super) fn is_running(&self) -> bool {
        !*self.gone.borrow()
    }

    /// Whether a request with this id is in flight.
    pub(super) fn has_pending(&self, id: &Id) -> bool {
        lock(&self.desk).has_pending(id)
    }

    /// Sends a request and gives the inbox for what it brings. `modern`: to drop the inbox before
    /// the answer is to cancel the request, as closing its stream is over HTTP.
    pub(super) async fn request(
        &self,
        message: &Message,
        modern: bool,
    ) -> Result<Inbox, UpstreamError> {
        let Some(id) = message.id().cloned() else {
            return Err(UpstreamError::BrokeOff { why: "a request without id".to_owned() });
        };
        let cancel = modern.then(|| self.stdin.clone());
        let inbox = Inbox::ask(&self.desk, id, message, cancel)?;
        self.send(message).await?;
        Ok(inbox)
    }

    /// Sends a notification or a response.
    pub(super) async fn send(&self, message: &Message) -> Result<(), UpstreamError> {
        // One message a line: a pretty-printed message loses its line breaks, which JSON allows
        // only between tokens.
        let raw = message.raw();
        let line = if raw.iter().any(|byte| matches!(byte, b'\n' | b'\r')) {
            raw.iter().map(|&b| if matches!(b, b'\n' | b'\r') { b' ' } else { b }).collect()
        } else {
            raw.clone()
        };
        self.stdin.send(line).await.map_err(|_| lock(&self.desk).end_error())?;
        lock(&self.desk).withdraw(message);
        Ok(())
    }

    /// Takes the place of the reader for messages that answer nothing. The one before it ends.
    pub(super) fn listen(&self) -> Result<Inbox, UpstreamError> {
        Inbox::listen(&self.desk)
    }

    /// Says that the protocol session in this child has 2025-03-26 batches.
    pub(super) fn take_batches(&self) {
        lock(&self.desk).take_batches();
    }

    /// Asks the child to go, and sees to it that it does.
    pub(super) async fn end(&self) {
        let _gone_already = self.stop.send(true);
        let mut gone = self.gone.clone();
        let _closed = gone.wait_for(|gone| *gone).await;
    }
}

impl Inbox {
    /// The inbox of a request, noted at the desk before it is sent. `cancel`: where to say that
    /// nobody waits for its answer any more.
    pub(super) fn ask(
        desk: &Arc<Mutex<Desk>>,
        id: Id,
        message: &Message,
        cancel: Option<mpsc::Sender<Bytes>>,
    ) -> Result<Self, UpstreamError> {
        let (reader, messages) = mpsc::channel(IN_FLIGHT);
        lock(desk).ask(id.clone(), message, reader)?;
        let desk = Arc::clone(desk);
        Ok(Self { messages, desk, cancel, request: Some(id), answered: false })
    }

    /// The inbox of what answers nothing. The one before it ends.
    pub(super) fn listen(desk: &Arc<Mutex<Desk>>) -> Result<Self, UpstreamError> {
        let messages = lock(desk).listen()?;
        let desk = Arc::clone(desk);
        Ok(Self { messages, desk, cancel: None, request: None, answered: false })
    }

    /// The next message, or `None` when nothing follows: after the answer, after the listener's
    /// stream, or when the request was cancelled.
    pub(super) async fn next(&mut self) -> Option<Result<Bytes, UpstreamError>> {
        if self.answered {
            return None;
        }
        match self.messages.recv().await {
            Some(message) => Some(Ok(message)),
            None => {
                self.answered = true;
                // The listener's stream may end at any time; a request must be answered, unless
                // it was cancelled.
                let desk = lock(&self.desk);
                (self.request.is_some() && desk.has_ended()).then(|| Err(desk.end_error()))
            }
        }
    }

    /// Says that the message just read was the answer: nothing follows it.
    pub(super) fn finish(&mut self) {
        self.answered = true;
    }

    /// [`Self::next`], framed as an event.
    pub(super) async fn next_event(&mut self) -> Option<Result<Event, UpstreamError>> {
        let message = match self.next().await? {
            Ok(message) => message,
            Err(error) => return Some(Err(error)),
        };
        if self.request.is_some() && is_answer(&message) {
            self.finish();
        }
        as_event(&message).map(Ok)
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        if let Some(id) = self.request.take() {
            lock(&self.desk).forget(&id);
            let Some(cancel) = self.cancel.take().filter(|_| !self.answered) else { return };
            let line = format!(
                r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":{}}}}}"#,
                id.as_json()
            );
            // A child that reads nothing will not read this either.
            let _told = cancel.try_send(line.into());
        } else {
            // What the listener has not read waits for the next one.
            self.messages.close();
            while let Ok(message) = self.messages.try_recv() {
                lock(&self.desk).unread(message);
            }
        }
    }
}

/// A message that `read_stdout` has accepted, again; none where it was refused.
pub(super) fn decode(message: &Bytes) -> Option<Message> {
    let limits = Limits { bytes: usize::MAX, depth: 127 };
    Message::decode(message.clone(), Origin::Server, &limits).ok()
}

/// Whether nothing follows a message for the request that it was given to: it is the response, or
/// something that the gateway will refuse.
pub(super) fn is_answer(message: &Bytes) -> bool {
    decode(message).is_none_or(|message| matches!(message.kind(), Kind::Response { .. }))
}

/// A message as one event without id.
pub(super) fn as_event(message: &Bytes) -> Option<Event> {
    let text = String::from_utf8_lossy(message);
    let mut decoder = Decoder::new(usize::MAX);
    decoder.push(&sse::encode(None, None, &text)).ok()?;
    let exact = matches!(text, std::borrow::Cow::Borrowed(_));
    decoder.next().map(|event| Event { exact, ..event })
}

/// Feeds stdin until told to stop, or until the child ends or will say nothing more; gives how it
/// ended. A child that does not read its stdin holds up nothing but what is sent to it.
async fn keep(
    mut process: Process,
    mut stdin: ChildStdin,
    mut lines: mpsc::Receiver<Bytes>,
    mut stopping: watch::Receiver<bool>,
    mut fell_silent: oneshot::Receiver<()>,
) -> String {
    let stopped = async {
        tokio::select! {
            () = told_to_stop(&mut stopping) => {}
            // Nobody who waits for it would ever get an answer.
            _ = &mut fell_silent => {}
        }
    };
    tokio::pin!(stopped);
    let feeding = async {
        while let Some(mut line) = lines.recv().await.map(Vec::from) {
            line.push(b'\n');
            if stdin.write_all(&line).await.is_err() || stdin.flush().await.is_err() {
                // It may have closed its stdin and still answer what it has read.
                lines.close();
                while lines.recv().await.is_some() {}
                std::future::pending::<()>().await;
            }
        }
    };
    tokio::select! {
        () = feeding => {}
        status = process.wait() => return describe(status),
        () = &mut stopped => {}
    }
    end(process, stdin).await
}

/// Returns without the watch's guard, which must not be held across an await.
async fn told_to_stop(stopping: &mut watch::Receiver<bool>) {
    let _told_or_abandoned = stopping.wait_for(|stop| *stop).await.is_ok();
}

async fn end(mut process: Process, stdin: ChildStdin) -> String {
    drop(stdin);
    if let Ok(status) = tokio::time::timeout(GRACE, process.wait()).await {
        return describe(status);
    }
    signal_group(&process, Signal::Term);
    if let Ok(status) = tokio::time::timeout(GRACE, process.wait()).await {
        return describe(status);
    }
    signal_group(&process, Signal::Kill);
    let _unix_killed_it_already = process.start_kill();
    describe(process.wait().await)
}

#[derive(Clone, Copy)]
enum Signal {
    Term,
    Kill,
}

#[cfg(unix)]
fn signal_group(process: &Process, signal: Signal) {
    let pid = process.id().and_then(|pid| i32::try_from(pid).ok());
    if let Some(group) = pid.and_then(rustix::process::Pid::from_raw) {
        let signal = match signal {
            Signal::Term => rustix::process::Signal::TERM,
            Signal::Kill => rustix::process::Signal::KILL,
        };
        let _gone_already = rustix::process::kill_process_group(group, signal);
    }
}

/// Windows has no process groups to signal; the child itself is ended by `end`.
#[cfg(not(unix))]
fn signal_group(_process: &Process, _signal: Signal) {}

fn describe(status: std::io::Result<std::process::ExitStatus>) -> String {
    match status {
        Ok(status) => format!("its process ended ({status})"),
        Err(error) => format!("its process was lost ({error})"),
    }
}

async fn read_stdout(stdout: impl AsyncRead + Unpin, desk: Arc<Mutex<Desk>>, limits: Limits) {
    let mut reader = BufReader::with_capacity(64 * 1024, stdout);
    let mut line = Vec::new();
    loop {
        line.clear();
        match read_line(&mut reader, &mut line, limits.bytes).await {
            // A line over the bound cannot be framed any more; the pipe's end ends the child.
            Ok(Line::End | Line::TooLong) | Err(_) => return,
            Ok(Line::Whole) => {}
        }
        let raw = Bytes::copy_from_slice(line.trim_ascii());
        let has_batches = lock(&desk).has_batches();
        for raw in messages(raw, has_batches, &limits) {
            match Message::decode(raw.clone(), Origin::Server, &limits) {
                Ok(message) => hand_out(&desk, &message).await,
                // Whoever waits for a message is told, on record, what is wrong with this one.
                Err(_) if memchr::memmem::find(&raw, b"jsonrpc").is_some() => {
                    let reader = lock(&desk).reader_of_refused(&raw);
                    let _reader_left = give(&desk, reader, raw).await;
                }
                Err(_) => tracing::debug!(bytes = raw.len(), "a line on stdout is not JSON-RPC"),
            }
        }
    }
}

/// Gives a message to whom it belongs.
pub(super) async fn hand_out(desk: &Mutex<Desk>, message: &Message) {
    let reader = lock(desk).reader_of(message);
    let Some(unread) = give(desk, reader, message.raw().clone()).await else { return };
    // Where a listener left just now, it waits for the next one.
    let mut desk = lock(desk);
    if matches!(desk.reader_of(message), Reader::Awaited) {
        desk.keep(unread);
    }
}

/// Gives a message to a reader; gives it back where that has left.
async fn give(desk: &Mutex<Desk>, reader: Reader, raw: Bytes) -> Option<Bytes> {
    match reader {
        // Waiting here is the back-pressure: the child blocks on its full pipe.
        Reader::Is(sender) => return sender.send(raw).await.err().map(|unsent| unsent.0),
        Reader::Gone => {
            tracing::debug!("a message for a request that is not in flight");
        }
        Reader::Awaited => {
            lock(desk).keep(raw);
        }
    }
    None
}

/// The messages of one line: one, or those of a batch where there are any.
fn messages(line: Bytes, has_batches: bool, limits: &Limits) -> Vec<Bytes> {
    if has_batches
        && batch::is_batch(&line)
        && let Ok(elements) = batch::split(&line, limits)
    {
        return elements.into_iter().map(|element| element.raw).collect();
    }
    vec![line]
}

enum Line {
    Whole,
    TooLong,
    End,
}

async fn read_line<R: AsyncRead + Unpin>(
    reader: &mut BufReader<R>,
    line: &mut Vec<u8>,
    limit: usize,
) -> std::io::Result<Line> {
    loop {
        let chunk = reader.fill_buf().await?;
        if chunk.is_empty() {
            return Ok(if line.is_empty() { Line::End } else { Line::Whole });
        }
        let (taken, ended) = match memchr::memchr(b'\n', chunk) {
            Some(at) => (at, true),
            None => (chunk.len(), false),
        };
        if line.len() + taken > limit {
            return Ok(Line::TooLong);
        }
        line.extend_from_slice(chunk.get(..taken).unwrap_or_default());
        reader.consume(taken + usize::from(ended));
        if ended {
            return Ok(Line::Whole);
        }
    }
}

/// Passes a child's stderr on to our log, through `quiet`, which masks it.
async fn read_stderr(stderr: impl AsyncRead + Unpin, name: String, quiet: super::stdio::Quiet) {
    const LONGEST: usize = 8 * 1024;
    let mut reader = BufReader::new(stderr);
    let mut line = Vec::new();
    loop {
        line.clear();
        match read_line(&mut reader, &mut line, LONGEST).await {
            Ok(Line::Whole) => {
                let text = quiet(&String::from_utf8_lossy(&line));
                tracing::info!(connection = %name, line = %text, "stderr");
            }
            // Past an over-long line, keep the pipe empty without framing it.
            Ok(Line::TooLong) => {
                let _ends = tokio::io::copy(&mut reader, &mut tokio::io::sink()).await;
                return;
            }
            Ok(Line::End) | Err(_) => return,
        }
    }
}

#[cfg(all(test, unix))]
mod tests {
    use proptest::prelude::*;
    use tokio::io::AsyncReadExt as _;

    use super::*;
    use crate::types::Secret;

    async fn lines(reader: impl AsyncRead + Unpin) -> Vec<Vec<u8>> {
        let mut reader = BufReader::new(reader);
        let (mut lines, mut line) = (Vec::new(), Vec::new());
        while matches!(read_line(&mut reader, &mut line, 100).await, Ok(Line::Whole)) {
            lines.push(std::mem::take(&mut line));
        }
        lines
    }

    proptest! {
        #[test]
        fn where_a_childs_bytes_are_cut_changes_nothing(
            bytes in proptest::collection::vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..80),
            cut in any::<prop::sample::Index>(),
        ) {
            let (left, right) = bytes.split_at(cut.index(bytes.len() + 1));
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let (whole, pieces) = runtime.block_on(async {
                (lines(bytes.as_slice()).await, lines(left.chain(right)).await)
            });
            prop_assert_eq!(&whole, &pieces);
            let mut expected: Vec<_> = bytes.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
            if expected.last().is_some_and(Vec::is_empty) {
                expected.pop();
            }
            prop_assert_eq!(whole, expected);
        }
    }

    fn sh(script: &str) -> Child {
        let launch = Launch {
            name: "x".to_owned(),
            program: "/bin/sh".into(),
            arguments: vec!["-c".to_owned(), script.to_owned()],
            environment: vec![("PATH".to_owned(), Secret::new("/usr/bin:/bin"))],
            folder: None,
            quiet: Arc::new(str::to_owned),
        };
        Child::start(&launch, Limits::default()).unwrap()
    }

    fn ping(id: usize, filler: usize) -> Message {
        let filler = "x".repeat(filler);
        let text =
            format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"ping","params":{{"x":"{filler}"}}}}"#);
        Message::decode(text.into(), Origin::Client, &Limits::default()).unwrap()
    }

    /// Whether something ends at all, well before a test runner loses patience.
    async fn ends<T>(what: impl Future<Output = T>) -> T {
        tokio::time::timeout(Duration::from_secs(60), what).await.expect("it hangs")
    }

    #[tokio::test]
    async fn a_child_that_does_not_read_can_be_ended() {
        let child = sh("exec sleep 600");
        let mut inboxes = Vec::new();
        for id in 0..4 {
            inboxes.push(child.request(&ping(id, 200_000), false).await.unwrap());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        ends(child.end()).await;
        for mut inbox in inboxes {
            assert!(ends(inbox.next()).await.unwrap().is_err());
        }
    }

    #[tokio::test]
    async fn a_child_that_will_say_nothing_more_is_ended() {
        let child = sh("exec >&-; exec sleep 600");
        let mut inbox = child.request(&ping(1, 1), false).await.unwrap();
        assert!(ends(inbox.next()).await.unwrap().is_err());
        assert!(!child.is_running());
    }

    #[tokio::test]
    async fn a_line_without_end_ends_the_child() {
        let child = sh("trap '' PIPE; head -c 5000000 /dev/zero; exec sleep 600");
        let mut inbox = child.request(&ping(1, 1), false).await.unwrap();
        assert!(ends(inbox.next()).await.unwrap().is_err());
    }
}
