//! The log as a whole: what it promises, under faults, under a knife, and in others' eyes.

mod faults;
mod knife;
mod life;
mod oracle;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::disk::RealDisk;
use super::key::LogKey;
use super::record::Record;
use super::recorder::{Entry, Recorder};
use super::{Broken, Report, VerifyError, verify_folder};
use crate::types::SystemClock;

const ORIGIN: &str = "mcpx.example/log";

/// A log in a folder of its own, that can be opened again and again with the same key.
struct Bench {
    folder: tempfile::TempDir,
    keys: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), keys: tempfile::tempdir().unwrap() }
    }

    /// Another log with the same key.
    fn another(&self) -> Self {
        let keys = tempfile::tempdir().unwrap();
        std::fs::copy(self.keys.path().join("key"), keys.path().join("key")).unwrap();
        Self { folder: tempfile::tempdir().unwrap(), keys }
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    fn key(&self) -> LogKey {
        LogKey::load_or_create(&self.keys.path().join("key"), ORIGIN).unwrap()
    }

    fn open(&self) -> Recorder {
        self.open_with(u64::MAX)
    }

    fn open_with(&self, segment_limit: u64) -> Recorder {
        let clock = Arc::new(SystemClock);
        Recorder::open_on(&self.root(), self.key(), clock, RealDisk, segment_limit).unwrap().0
    }

    fn verify(&self) -> Result<Report, Broken> {
        verify(&self.root(), &self.key())
    }
}

fn verify(root: &Path, key: &LogKey) -> Result<Report, Broken> {
    match verify_folder(root, key.vkey(), None) {
        Ok(report) => Ok(report),
        Err(VerifyError::Broken(broken)) => Err(broken),
        Err(error) => panic!("{error:?}"),
    }
}

/// An entry that can be told from others, with a body if its number is odd.
fn entry(number: u64) -> Entry {
    let record = Record::PolicyLoaded { hash: format!("{number:04}") };
    let body = (number % 2 == 1).then(|| format!("{{\"n\":{number}}}").into());
    Entry { record, body }
}

/// Appends numbers one after the other.
async fn append(recorder: &Recorder, numbers: std::ops::Range<u64>) {
    for number in numbers {
        recorder.append(entry(number)).await.unwrap();
    }
}

/// Appends numbers all at once, in any order, so that they share syncs.
async fn append_together(recorder: &Recorder, numbers: std::ops::Range<u64>) {
    let waiting = numbers.map(|number| recorder.append(entry(number)));
    for result in futures_util::future::join_all(waiting).await {
        result.unwrap();
    }
}
