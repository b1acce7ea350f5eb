//! How many entries a second the recorder makes durable, by how many callers wait at once.
//!
//! The figure to look at is items per second: with one caller it is the disk's sync rate, and
//! group commit has to make it grow with the number of callers. Run with `TMPDIR` on the disk that
//! is to be measured; on a memory file system syncs cost nothing and the figures mean nothing.
#![allow(clippy::expect_used, reason = "a bench that cannot run has nothing else to say")]

use std::sync::Arc;

use divan::Bencher;
use divan::counter::ItemsCount;
use mcpx::audit::{Entry, LogKey, Record, Recorder};
use mcpx::types::SystemClock;

fn main() {
    divan::main();
}

const EACH: usize = 16;
const BODY: usize = 1024;

#[divan::bench(args = [1, 4, 16, 64, 256, 1024], sample_count = 10, sample_size = 1)]
fn append(bencher: Bencher, callers: usize) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let key = LogKey::generate("bench.example/log").expect("a key");
    let (recorder, _) =
        Recorder::open(folder.path(), key, Arc::new(SystemClock)).expect("a new log");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    bencher.counter(ItemsCount::new(callers * EACH)).bench(|| {
        runtime.block_on(async {
            let callers: Vec<_> = (0..callers)
                .map(|_| {
                    let recorder = recorder.clone();
                    tokio::spawn(async move {
                        for _ in 0..EACH {
                            let record = Record::PolicyLoaded { hash: "0".repeat(64) };
                            let entry = Entry { record, body: Some(vec![b'x'; BODY].into()) };
                            recorder.append(entry).await.expect("a durable entry");
                        }
                    })
                })
                .collect();
            for caller in callers {
                caller.await.expect("a caller that ends");
            }
        });
    });
    runtime.block_on(recorder.shutdown()).expect("an orderly end");
}
