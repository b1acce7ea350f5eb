//! What the audit log and the server's log are told of child processes.
//!
//! Facts about a child are no part of any call: the log gets them as records of their own. A child
//! can make as many of them as it likes, so the ones that it decides on are counted and bounded
//! ([`super::stderr`], [`Losses`]).

use std::collections::BTreeMap;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::json;

use super::sandbox::Report;
use crate::audit::{Entry, Record, RecordError, Recorder};
use crate::mask::Masker;
use crate::types::{ConnectionName, SessionId};

/// How long messages that went to nobody are counted before they are put on record.
const COUNTING: Duration = Duration::from_secs(1);

/// Who is told what the children of a connection do.
#[derive(Clone)]
pub struct Witness {
    /// The connection.
    pub connection: ConnectionName,
    /// The audit log's writer.
    pub recorder: Recorder,
    /// Masks what children write.
    pub masker: Arc<Masker>,
}

/// One child, as records name it.
#[derive(Clone)]
pub(super) struct ChildWitness {
    pub(super) witness: Witness,
    pub(super) process: u32,
    /// The session that it works for; none for one that all share.
    pub(super) session: Option<SessionId>,
}

impl ChildWitness {
    /// A child was started. Nothing may be sent to it before this is on record.
    pub(super) async fn started(&self, report: &Report) -> Result<(), RecordError> {
        let Witness { connection, recorder, .. } = &self.witness;
        let sandbox = report.summary();
        tracing::info!(%connection, process = self.process, %sandbox, "a child was started");
        let record = Record::ChildStarted {
            connection: connection.clone(),
            process: self.process,
            session: self.session.clone(),
            sandbox: report.level,
            landlock: report.landlock,
        };
        let body = json!({ "seccomp": report.seccomp, "missing": report.missing });
        let has_more = report.seccomp || !report.missing.is_empty();
        let body = has_more.then(|| body.to_string().into());
        recorder.append(Entry { record, body }).await.map(drop)
    }

    /// A child ended.
    pub(super) async fn ended(&self, status: Option<ExitStatus>, asked: bool) {
        let connection = self.witness.connection.clone();
        if asked {
            tracing::debug!(%connection, process = self.process, "a child was ended");
        } else {
            tracing::warn!(%connection, process = self.process, ?status, "a child died");
        }
        let record = Record::ChildEnded {
            connection,
            process: self.process,
            session: self.session.clone(),
            asked,
            exit: status.and_then(|status| status.code()),
            signal: status.and_then(signal),
        };
        self.append(record.into()).await;
    }

    /// A child wrote to its stderr. `text` is masked already.
    pub(super) async fn stderr(&self, text: &str, lines: u32, dropped: u64) {
        let connection = self.witness.connection.clone();
        for line in text.lines() {
            tracing::info!(%connection, process = self.process, line, "stderr");
        }
        if dropped > 0 {
            tracing::warn!(%connection, process = self.process, dropped, "stderr: too much");
        }
        let record = Record::ChildStderr {
            connection,
            process: self.process,
            session: self.session.clone(),
            lines,
            dropped,
        };
        let body = (lines > 0).then(|| json!({ "text": text }).to_string().into());
        self.append(Entry { record, body }).await;
    }

    async fn append(&self, entry: Entry) {
        if let Err(error) = self.witness.recorder.append(entry).await {
            tracing::error!(%error, "what a child did could not be recorded");
        }
    }
}

#[cfg(unix)]
fn signal(status: ExitStatus) -> Option<i32> {
    std::os::unix::process::ExitStatusExt::signal(&status)
}

#[cfg(not(unix))]
fn signal(_status: ExitStatus) -> Option<i32> {
    None
}

/// Messages of a child that went to nobody, counted by why.
#[derive(Default)]
pub(super) struct Losses {
    counts: Mutex<BTreeMap<&'static str, u64>>,
    some: tokio::sync::Notify,
}

impl Losses {
    pub(super) fn count(&self, code: &'static str) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry(code).or_default() += 1;
        drop(counts);
        self.some.notify_one();
    }

    /// Puts what was counted on record, again and again, at a bounded rate.
    pub(super) async fn report(&self, child: &ChildWitness) {
        loop {
            self.some.notified().await;
            tokio::time::sleep(COUNTING).await;
            self.flush(child).await;
        }
    }

    /// Puts what was counted on record now.
    pub(super) async fn flush(&self, child: &ChildWitness) {
        let counts = {
            let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *counts)
        };
        for (code, count) in counts {
            let connection = child.witness.connection.clone();
            tracing::warn!(%connection, process = child.process, code, count, "went to nobody");
            let record = Record::ChildDropped {
                connection,
                process: child.process,
                session: child.session.clone(),
                code: code.to_owned(),
                count,
            };
            child.append(record.into()).await;
        }
    }
}
