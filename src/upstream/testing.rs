//! For unit tests: a witness with a log of its own.

use std::sync::Arc;

use serde_json::Value;

use super::launch::Launch;
use super::sandbox::Profile;
use super::witness::{ChildWitness, Witness};
use crate::audit::{LogKey, Reader, Recorder};
use crate::mask::{Masker, Rules};
use crate::types::{Secret, SystemClock};

/// A log in a folder that lives as long as this.
pub(super) struct Notes {
    folder: tempfile::TempDir,
    pub(super) witness: Witness,
}

impl Notes {
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = LogKey::generate("test").unwrap();
        let clock = Arc::new(SystemClock);
        let (recorder, _) = Recorder::open(folder.path(), key, clock).unwrap();
        let masker = Arc::new(Masker::new(&Rules::default()).unwrap());
        let witness = Witness { connection: "x".parse().unwrap(), recorder, masker };
        Self { folder, witness }
    }

    /// A shell script on a pipe.
    pub(super) fn launch(&self, script: &str) -> Launch {
        Launch {
            program: "/bin/sh".into(),
            arguments: vec!["-c".to_owned(), script.to_owned()],
            environment: vec![("PATH".to_owned(), Secret::new("/usr/bin:/bin"))],
            folder: None,
            sandbox: Profile::default(),
            helper: "mcpx".into(),
            witness: self.witness.clone(),
        }
    }

    pub(super) fn child(&self) -> ChildWitness {
        ChildWitness { witness: self.witness.clone(), process: 1, session: None }
    }

    /// Closes the log; every leaf in it, with its body.
    pub(super) async fn take(self) -> Vec<(Value, String)> {
        self.witness.recorder.shutdown().await.unwrap();
        let reader = Reader::open(self.folder.path()).unwrap();
        let mut entries = reader.entries(0);
        std::iter::from_fn(|| entries.next_below(u64::MAX).unwrap())
            .map(|entry| {
                let leaf = serde_json::to_value(&entry.leaf).unwrap();
                let body = match (&entry.body_at, &entry.leaf.body) {
                    (Some(at), Some(commitment)) => reader.body(at, commitment).unwrap(),
                    _ => Vec::new(),
                };
                (leaf, String::from_utf8(body).unwrap())
            })
            .collect()
    }
}
