//! What a child writes to its stderr: kept apart from the protocol, bounded, masked, recorded.
//!
//! Lines are gathered for a moment and masked together, since a private key, for one, is many
//! lines. Beyond a rate they are counted and no longer kept.

use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::time::Instant;

use super::witness::ChildWitness;

/// How long lines are gathered before they are put on record.
const GATHERING: Duration = Duration::from_millis(250);
/// The longest line, in bytes; the rest of it is left out.
const LONGEST: usize = 8 * 1024;
/// What goes from the end of a line that was cut: half a secret is not known for one.
const DOUBTFUL: usize = 1024;
/// The time for which the bounds below hold.
const WINDOW: Duration = Duration::from_secs(10);
/// The most lines in that time.
const LINES: u32 = 200;
/// The most bytes in that time.
const BYTES: usize = 64 * 1024;

/// How much was kept in the window that runs.
struct Rate {
    since: Instant,
    lines: u32,
    bytes: usize,
}

impl Rate {
    fn new(now: Instant) -> Self {
        Self { since: now, lines: 0, bytes: 0 }
    }

    /// Whether a line may be kept.
    fn admits(&mut self, bytes: usize, now: Instant) -> bool {
        if now.saturating_duration_since(self.since) >= WINDOW {
            *self = Self::new(now);
        }
        let fits = self.lines < LINES && self.bytes + bytes <= BYTES;
        if fits {
            self.lines += 1;
            self.bytes += bytes;
        }
        fits
    }
}

/// Lines that wait for their record.
#[derive(Default)]
struct Batch {
    lines: Vec<String>,
    /// Whether its only line was cut.
    cut: bool,
    dropped: u64,
    /// When it is put on record.
    due: Option<Instant>,
}

impl Batch {
    async fn flush(&mut self, child: &ChildWitness) {
        let batch = std::mem::take(self);
        if batch.lines.is_empty() && batch.dropped == 0 {
            return;
        }
        let text = batch.lines.join("\n");
        let mut text = child.witness.masker.text(&text).0.into_owned();
        if batch.cut {
            let end = text.floor_char_boundary(text.len().saturating_sub(DOUBTFUL));
            text.truncate(end);
            text.push('…');
        }
        let lines = u32::try_from(batch.lines.len()).unwrap_or(u32::MAX);
        child.stderr(&text, lines, batch.dropped).await;
    }

    fn due_in(&mut self, wait: Duration) {
        let due = Instant::now() + wait;
        self.due = Some(self.due.map_or(due, |other| other.min(due)));
    }
}

/// Reads a child's stderr to its end.
pub(super) async fn read(mut reader: BufReader<impl AsyncRead + Unpin>, child: &ChildWitness) {
    let mut rate = Rate::new(Instant::now());
    let mut batch = Batch::default();
    let mut line = Line::default();
    loop {
        let due = batch.due;
        let due = async move {
            match due {
                Some(due) => tokio::time::sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        let more = tokio::select! {
            more = line.read(&mut reader) => more,
            () = due => {
                batch.flush(child).await;
                continue;
            }
        };
        let Line { bytes, cut } = std::mem::take(&mut line);
        let (ended, empty) = (!more.unwrap_or(false), bytes.trim_ascii().is_empty());
        if !empty && rate.admits(bytes.len(), Instant::now()) {
            if cut || batch.cut {
                batch.flush(child).await;
                batch.cut = cut;
            }
            batch.lines.push(String::from_utf8_lossy(&bytes).trim_end().to_owned());
            batch.due_in(GATHERING);
        } else if !empty {
            batch.dropped += 1;
            batch.due_in(WINDOW);
        }
        if ended {
            batch.flush(child).await;
            return;
        }
    }
}

/// A line, as far as it was read.
#[derive(Default)]
struct Line {
    bytes: Vec<u8>,
    cut: bool,
}

impl Line {
    /// Reads to the line's end; false at the end of all. May be given up and called again.
    async fn read(
        &mut self,
        reader: &mut BufReader<impl AsyncRead + Unpin>,
    ) -> std::io::Result<bool> {
        loop {
            let chunk = reader.fill_buf().await?;
            if chunk.is_empty() {
                return Ok(false);
            }
            let (taken, ended) = match memchr::memchr(b'\n', chunk) {
                Some(at) => (at, true),
                None => (chunk.len(), false),
            };
            let room = (LONGEST + DOUBTFUL).saturating_sub(self.bytes.len());
            self.cut |= taken > room;
            self.bytes.extend_from_slice(chunk.get(..taken.min(room)).unwrap_or_default());
            reader.consume(taken + usize::from(ended));
            if ended {
                return Ok(true);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::testing::Notes;

    async fn recorded(written: &str) -> Vec<(serde_json::Value, String)> {
        let notes = Notes::new();
        read(BufReader::new(written.as_bytes()), &notes.child()).await;
        notes.take().await
    }

    #[tokio::test]
    async fn lines_are_masked_and_recorded_together() {
        let notes = recorded("starting\nlogin by 078-05-1120\n\nlast words").await;
        assert_eq!(notes.len(), 1, "{notes:?}");
        let (leaf, body) = &notes[0];
        assert_eq!((&leaf["kind"], &leaf["lines"]), (&"child_stderr".into(), &3.into()), "{leaf}");
        assert!(body.contains("starting") && body.contains("last words"), "{body}");
        assert!(!body.contains("078-05-1120"), "{body}");
    }

    #[tokio::test]
    async fn a_flood_is_counted() {
        let notes = recorded(&"again\n".repeat(1000)).await;
        let sum = |field: &str| -> u64 {
            notes.iter().filter_map(|(leaf, _)| leaf[field].as_u64()).sum()
        };
        assert_eq!((sum("lines"), sum("dropped")), (u64::from(LINES), 1000 - u64::from(LINES)));
    }

    #[tokio::test]
    async fn a_long_line_is_cut_and_ends_in_no_half_secret() {
        // The number lies across the cut.
        let start = LONGEST + DOUBTFUL - 6;
        let long = format!("{} 078-05-1120 {}\nafter\n", "x".repeat(start - 1), "y".repeat(9000));
        let notes = recorded(&long).await;
        let text = notes.iter().map(|(_, body)| body.as_str()).collect::<String>();
        assert!(text.contains('…') && text.contains("after"), "{notes:?}");
        assert!(!text.contains("078"), "half a number is left: {}", &text[text.len() - 200..]);
    }

    #[test]
    fn a_new_window_begins_afresh() {
        let now = Instant::now();
        let mut rate = Rate::new(now);
        assert!((0..LINES).all(|_| rate.admits(1, now)));
        assert!(!rate.admits(1, now + WINDOW / 2));
        assert!(rate.admits(1, now + WINDOW));
        assert!(!rate.admits(BYTES, now + WINDOW));
    }
}
