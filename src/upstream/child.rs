//! One child process that speaks MCP on stdio: one JSON message a line.
//!
//! Lines that are not JSON-RPC are tolerated and counted (some servers greet on stdout); a line that
//! claims to be JSON-RPC and is refused by the strict decoder fails the request that it answers.
//! Whose each message is, [`super::desk`] knows, and [`super::inbox`] hands it over. Ending a child
//! closes its stdin, waits, then sends TERM and KILL to its group. Implements MCP
//! `basic/transports`, stdio.

use std::process::ExitStatus;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWriteExt as _, BufReader};
use tokio::process::{Child as Process, ChildStdin};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::desk::{Desk, Party, lock};
use super::inbox::{self, Inbox};
use super::launch::{Launch, Started};
use super::seats::Seat;
use super::witness::{ChildWitness, Losses};
use super::{Incoming, UpstreamError, stderr};
use crate::mcp::{Limits, Message, Origin, batch};
use crate::types::SessionId;

/// How long a child has at each step of being ended.
const GRACE: Duration = Duration::from_secs(2);
/// Lines on their way to a child.
const LINES: usize = 16;

/// A running child.
#[derive(Debug)]
pub(super) struct Child {
    stdin: mpsc::Sender<Bytes>,
    desk: Arc<Mutex<Desk>>,
    stop: watch::Sender<bool>,
    gone: watch::Receiver<bool>,
}

/// Whom a child works for.
pub(super) enum For {
    /// One session.
    Session(SessionId),
    /// Everybody.
    All,
}

impl Child {
    /// Starts a child. Its start is on record before it is sent anything. `died` is called with
    /// how long it lived if it ends without having been asked to.
    pub(super) async fn start(
        launch: &Launch,
        limits: Limits,
        whom: For,
        seat: Seat,
        died: impl FnOnce(Duration) + Send + 'static,
    ) -> Result<Self, UpstreamError> {
        let started_at = Instant::now();
        let started = launch.start().await?;
        let Started { process, number, stdin, stdout, stderr, report } = started;
        let (session, desk) = match whom {
            For::Session(session) => (Some(session), Desk::default()),
            For::All => (None, Desk::shared()),
        };
        let witness = ChildWitness { witness: launch.witness.clone(), process: number, session };
        // Dropping the process kills it.
        witness.started(&report).await.map_err(|error| {
            tracing::error!(%error, "a child is not started, since that cannot be recorded");
            UpstreamError::CannotStart { why: "its start cannot be recorded".to_owned() }
        })?;

        let desk = Arc::new(Mutex::new(desk));
        let (to_stdin, lines) = mpsc::channel(LINES);
        let (stop, stopping) = watch::channel(false);
        let (report_gone, gone) = watch::channel(false);
        let stderr = {
            let witness = witness.clone();
            tokio::spawn(async move { stderr::read(stderr, &witness).await })
        };
        let (silent, fell_silent) = oneshot::channel();
        let losses = Arc::new(Losses::default());
        let reading = Reading {
            desk: Arc::clone(&desk),
            stdin: to_stdin.downgrade(),
            losses: Arc::clone(&losses),
            limits,
        };
        let reader = tokio::spawn(async move {
            reading.all_of(stdout).await;
            let _keeper_is_done = silent.send(());
        });
        let keeper_desk = Arc::clone(&desk);
        tokio::spawn(async move {
            let keeping = keep(process, stdin, lines, stopping, fell_silent);
            let end = tokio::select! {
                end = keeping => end,
                () = losses.report(&witness) => End::default(),
            };
            // What the child said last is still in the pipes; their end closes the inboxes.
            let rest = async { tokio::join!(reader, stderr) };
            let _outcome = tokio::time::timeout(GRACE, rest).await;
            drop(seat);
            if !end.asked {
                died(started_at.elapsed());
            }
            lock(&keeper_desk).close(describe(end.status));
            losses.flush(&witness).await;
            witness.ended(end.status, end.asked).await;
            let _unheard = report_gone.send(true);
        });
        Ok(Self { stdin: to_stdin, desk, stop, gone })
    }

    /// Whether the child still runs.
    pub(super) fn is_running(&self) -> bool {
        !lock(&self.desk).is_closed()
    }

    /// What it is known of who waits for what.
    pub(super) fn desk<T>(&self, look: impl FnOnce(&mut Desk) -> T) -> T {
        look(&mut lock(&self.desk))
    }

    /// Sends a request and gives the inbox for what it brings. `modern`: to drop the inbox before
    /// the answer is to cancel the request, as closing its stream is over HTTP.
    pub(super) async fn request(
        &self,
        party: &Party,
        message: &Message,
        modern: bool,
    ) -> Result<Inbox, UpstreamError> {
        let stdin = Some(self.stdin.clone());
        let (inbox, told) = Inbox::ask(&self.desk, party, message, stdin, modern)?;
        self.send(&told).await?;
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

    /// Takes the place of a party's reader for messages that answer nothing. The one before it
    /// ends.
    pub(super) fn listen(&self, party: &Party) -> Result<Inbox, UpstreamError> {
        Inbox::listen(&self.desk, party)
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

/// How a child ended.
#[derive(Default)]
struct End {
    status: Option<ExitStatus>,
    /// Whether it was asked to.
    asked: bool,
}

/// Feeds stdin until told to stop, or until the child ends or will say nothing more; gives how it
/// ended. A child that does not read its stdin holds up nothing but what is sent to it.
async fn keep(
    mut process: Process,
    mut stdin: ChildStdin,
    mut lines: mpsc::Receiver<Bytes>,
    mut stopping: watch::Receiver<bool>,
    mut fell_silent: oneshot::Receiver<()>,
) -> End {
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
    let asked = tokio::select! {
        () = feeding => true,
        status = process.wait() => return End { status: status.ok(), asked: false },
        () = told_to_stop(&mut stopping) => true,
        // Nobody who waits for it would ever get an answer.
        _ = &mut fell_silent => false,
    };
    End { status: end(process, stdin).await, asked }
}

/// Returns without the watch's guard, which must not be held across an await.
async fn told_to_stop(stopping: &mut watch::Receiver<bool>) {
    let _told_or_abandoned = stopping.wait_for(|stop| *stop).await.is_ok();
}

async fn end(mut process: Process, stdin: ChildStdin) -> Option<ExitStatus> {
    drop(stdin);
    if let Ok(status) = tokio::time::timeout(GRACE, process.wait()).await {
        return status.ok();
    }
    signal_group(&process, Signal::Term);
    if let Ok(status) = tokio::time::timeout(GRACE, process.wait()).await {
        return status.ok();
    }
    signal_group(&process, Signal::Kill);
    let _unix_killed_it_already = process.start_kill();
    process.wait().await.ok()
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

fn describe(status: Option<ExitStatus>) -> String {
    match status {
        Some(status) => format!("its process ended ({status})"),
        None => "its process was lost".to_owned(),
    }
}

/// What reading a child's stdout takes.
struct Reading {
    desk: Arc<Mutex<Desk>>,
    /// Weak, or the child's stdin would never end.
    stdin: mpsc::WeakSender<Bytes>,
    losses: Arc<Losses>,
    limits: Limits,
}

impl Reading {
    async fn all_of(&self, stdout: impl AsyncRead + Unpin) {
        let mut reader = BufReader::with_capacity(64 * 1024, stdout);
        let mut line = Vec::new();
        loop {
            line.clear();
            match read_line(&mut reader, &mut line, self.limits.bytes).await {
                // A line over the bound cannot be framed any more; the pipe's end ends the child.
                Ok(Line::End | Line::TooLong) | Err(_) => return,
                Ok(Line::Whole) => {}
            }
            let raw = Bytes::copy_from_slice(line.trim_ascii());
            if raw.is_empty() {
                continue;
            }
            let has_batches = lock(&self.desk).has_batches();
            for raw in messages(raw, has_batches, &self.limits) {
                self.take(raw).await;
            }
        }
    }

    async fn take(&self, raw: Bytes) {
        let lost = |why| self.losses.count(why);
        if let Ok(message) = Message::decode(raw.clone(), Origin::Server, &self.limits) {
            let answer = inbox::hand_out(&self.desk, message, lost).await;
            // A child that reads nothing will not read this either.
            let _told =
                answer.and_then(|answer| self.stdin.upgrade().map(|stdin| stdin.try_send(answer)));
            return;
        }
        let claims = memchr::memmem::find(&raw, b"jsonrpc").is_some();
        let asked = if claims { lock(&self.desk).refused(&raw) } else { None };
        match asked {
            // Whoever waits for a message is told, on record, what is wrong with this one.
            Some((to, reader)) => {
                inbox::hand(&self.desk, &to, &reader, Incoming::Refused(raw), lost).await;
            }
            None => lost("not_a_message"),
        }
    }
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

#[cfg(all(test, unix))]
mod tests {
    use proptest::prelude::*;
    use tokio::io::AsyncReadExt as _;

    use super::*;
    use crate::types::SubjectId;
    use crate::upstream::inbox::{IN_FLIGHT_SHARED, LOOK};
    use crate::upstream::seats::Seats;
    use crate::upstream::testing::Notes;

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

    async fn sh(script: &str) -> Child {
        start(script, &Notes::new(), For::Session(SessionId::generate().unwrap())).await
    }

    async fn start(script: &str, notes: &Notes, whom: For) -> Child {
        let seat = Seats::new(1, 1).take(Some(&SubjectId::generate().unwrap())).unwrap();
        let launch = notes.launch(script);
        Child::start(&launch, Limits::default(), whom, seat, |_| ()).await.unwrap()
    }

    fn party() -> Party {
        "p".into()
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
        let child = sh("exec sleep 600").await;
        let mut inboxes = Vec::new();
        for id in 0..4 {
            inboxes.push(child.request(&party(), &ping(id, 200_000), false).await.unwrap());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        ends(child.end()).await;
        for mut inbox in inboxes {
            assert!(ends(inbox.next()).await.unwrap().is_err());
        }
    }

    #[tokio::test]
    async fn a_child_that_will_say_nothing_more_is_ended() {
        let child = sh("exec >&-; exec sleep 600").await;
        let mut inbox = child.request(&party(), &ping(1, 1), false).await.unwrap();
        assert!(ends(inbox.next()).await.unwrap().is_err());
        assert!(!child.is_running());
    }

    #[tokio::test]
    async fn a_line_without_end_ends_the_child() {
        let child = sh("trap '' PIPE; head -c 5000000 /dev/zero; exec sleep 600").await;
        let mut inbox = child.request(&party(), &ping(1, 1), false).await.unwrap();
        assert!(ends(inbox.next()).await.unwrap().is_err());
    }

    /// Answers request 1 after many notifications of its progress, and everything else at once.
    const CHATTY: &str = r#"read a
        i=0
        while [ $i -lt 3000 ]; do
            echo '{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":1}}'
            i=$((i + 1))
        done
        read b
        echo '{"jsonrpc":"2.0","id":2,"result":{}}'
        read c
        echo "$c" >&2"#;

    fn call(id: usize) -> Message {
        let text = format!(
            r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"_meta":{{"progressToken":{id}}}}}}}"#
        );
        Message::decode(text.into(), Origin::Client, &Limits::default()).unwrap()
    }

    #[tokio::test]
    async fn a_slow_reader_of_a_shared_child_is_cut_off_and_others_are_answered() {
        let notes = Notes::new();
        let child = start(CHATTY, &notes, For::All).await;
        let mut slow = child.request(&"alice".into(), &call(1), false).await.unwrap();
        let mut quick = child.request(&"bob".into(), &call(1), false).await.unwrap();
        let answer = ends(quick.next()).await.unwrap().unwrap();
        let Incoming::Message(answer) = answer else { panic!("{answer:?}") };
        assert_eq!(answer.id().unwrap().as_json(), "1");
        let mut told = 0;
        let error = loop {
            match ends(slow.next()).await.unwrap() {
                Ok(_) => told += 1,
                Err(error) => break error,
            }
        };
        assert!(matches!(error, UpstreamError::TooSlow), "{error}");
        assert_eq!(told, IN_FLIGHT_SHARED);
        drop(slow);
        // It ends by itself when it has read what it is told.
        let mut gone = child.gone.clone();
        ends(gone.wait_for(|gone| *gone)).await.unwrap();
        let notes = notes.take().await;
        let said = notes.iter().map(|(_, body)| body.as_str()).collect::<String>();
        assert!(said.contains("notifications/cancelled"), "the server is told: {said}");
        let lost = notes.iter().find(|(leaf, _)| leaf["code"] == "too_slow");
        assert!(lost.is_some(), "{notes:?}");
    }

    #[tokio::test]
    async fn a_slow_reader_alone_holds_the_child_up_and_loses_nothing() {
        let child = sh(&CHATTY.replace("read b", "").replace("\"id\":2", "\"id\":1")).await;
        let mut slow = child.request(&party(), &call(1), false).await.unwrap();
        tokio::time::sleep(LOOK * 2).await;
        let mut told = 0;
        while let Some(message) = ends(slow.next()).await {
            message.unwrap();
            told += 1;
        }
        assert_eq!(told, 3001);
    }

    #[tokio::test]
    async fn a_life_is_on_record() {
        let notes = Notes::new();
        let script = "echo hello; echo 'user 078-05-1120' >&2; exit 3";
        let child = start(script, &notes, For::Session(SessionId::generate().unwrap())).await;
        let mut gone = child.gone.clone();
        ends(gone.wait_for(|gone| *gone)).await.unwrap();
        let notes = notes.take().await;
        let kinds: Vec<_> = notes.iter().map(|(leaf, _)| leaf["kind"].as_str().unwrap()).collect();
        assert_eq!(kinds, ["child_started", "child_stderr", "child_dropped", "child_ended"]);
        assert!(notes[1].1.contains("user") && !notes[1].1.contains("078"), "{notes:?}");
        let (end, _) = &notes[3];
        assert_eq!((&end["asked"], &end["exit"]), (&false.into(), &3.into()), "{end}");
    }
}
