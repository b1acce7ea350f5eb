//! Every durable write, failing in every way: what was acknowledged is never lost, no index is
//! given twice, and the log verifies after it has been opened again.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::sync::Mutex;

use super::*;
use crate::audit::disk::{Disk, Place};
use crate::audit::frame::Prepared;
use crate::audit::log::Log;
use crate::audit::{Leaf, OpenError, Reader, RecordError};
use crate::types::Timestamp;

/// What happens at the chosen operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// It fails for want of room, and does nothing.
    Full,
    /// It fails for a worse reason, and does nothing.
    Broken,
    /// The same, and again whenever it is tried.
    Lasting,
    /// A write stops in the middle for want of room.
    Short,
    /// It is done, and reports that it failed.
    Persisted,
    /// It fails for want of room, and so does the operation after it.
    Twice,
    /// The process dies before it.
    Killed,
    /// The process dies in the middle of a write.
    KilledShort,
    /// The power goes at a sync: what it should have made durable is cut off in the middle.
    CutAtSync,
    /// The same, but the file has its length already, and zeros in place of the end.
    ZeroAtSync,
    /// The same, but it is the beginning that never came.
    HoleAtSync,
}

impl Fault {
    /// Whether it differs from a plain failure at such an operation.
    fn concerns(self, sort: (Place, Op)) -> bool {
        match self {
            Self::Short | Self::KilledShort => sort.1 == Op::Write,
            Self::CutAtSync | Self::ZeroAtSync | Self::HoleAtSync => {
                sort == (Place::Journal, Op::Sync)
            }
            _ => true,
        }
    }
}

const FAULTS: [Fault; 10] = [
    Fault::Full,
    Fault::Broken,
    Fault::Short,
    Fault::Persisted,
    Fault::Twice,
    Fault::Killed,
    Fault::KilledShort,
    Fault::CutAtSync,
    Fault::ZeroAtSync,
    Fault::HoleAtSync,
];

#[derive(Default)]
struct Plan {
    fault: Option<Fault>,
    /// Counts down to the fault.
    left: usize,
    /// Only operations of this sort count, if it is given.
    only: Option<(Place, Op)>,
    /// How many operations there have been, and of which sort the one that failed was.
    count: usize,
    hit: Option<(Place, Op)>,
    dead: bool,
    /// All operations so far.
    log: Vec<(Place, Op)>,
    /// Where the last write to the journal began and ended, its spare room aside, until it has
    /// been synced.
    written: Option<(u64, u64)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Op {
    Write,
    Sync,
    Truncate,
    Rename,
    SyncFolder,
}

/// A disk that fails once, as planned; without a plan, one that does not sync.
#[derive(Clone, Default)]
pub(super) struct FaultyDisk(Arc<Mutex<Plan>>);

impl FaultyDisk {
    fn failing(fault: Fault, left: usize, only: Option<(Place, Op)>) -> Self {
        let plan = Plan { fault: Some(fault), left, only, ..Plan::default() };
        Self(Arc::new(Mutex::new(plan)))
    }

    /// The fault to show now, if any.
    fn step(&self, place: Place, op: Op) -> io::Result<Option<Fault>> {
        let mut plan = self.0.lock().unwrap();
        plan.count += 1;
        plan.log.push((place, op));
        if plan.dead {
            return Err(io::Error::other("dead"));
        }
        if plan.only.is_some_and(|only| only != (place, op))
            && (plan.hit.is_none() || plan.fault == Some(Fault::Lasting))
        {
            return Ok(None);
        }
        let Some(fault) = plan.fault else { return Ok(None) };
        if plan.left > 0 {
            plan.left -= 1;
            return Ok(None);
        }
        if plan.hit.is_none() {
            plan.hit = Some((place, op));
        }
        plan.fault = match fault {
            Fault::Twice => Some(Fault::Full),
            Fault::Lasting => Some(fault),
            _ => None,
        };
        plan.dead = matches!(
            fault,
            Fault::Killed
                | Fault::KilledShort
                | Fault::CutAtSync
                | Fault::ZeroAtSync
                | Fault::HoleAtSync
        );
        match fault {
            Fault::Full | Fault::Twice | Fault::Lasting => Err(io::ErrorKind::StorageFull.into()),
            Fault::Broken | Fault::Killed => Err(io::Error::other("broken")),
            fault => Ok(Some(fault)),
        }
    }

    /// Runs an operation that is no write, or makes it fail.
    fn run(&self, place: Place, op: Op, act: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        match self.step(place, op)? {
            None => act(),
            Some(Fault::Persisted) => act().and(Err(io::Error::other("persisted"))),
            Some(_) => Err(io::Error::other("broken")),
        }
    }
}

impl Disk for FaultyDisk {
    fn write(&self, place: Place, file: &File, at: u64, bytes: &[u8]) -> io::Result<()> {
        let fault = self.step(place, Op::Write)?;
        // The spare room behind a frame is no place for interesting faults.
        let frame = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        if place == Place::Journal {
            self.0.lock().unwrap().written = Some((at, at + frame as u64));
        }
        match fault {
            None => RealDisk.write(place, file, at, bytes),
            Some(Fault::Persisted) => {
                RealDisk.write(place, file, at, bytes)?;
                Err(io::ErrorKind::StorageFull.into())
            }
            Some(_) => {
                RealDisk.write(place, file, at, &bytes[..frame / 2])?;
                Err(io::ErrorKind::StorageFull.into())
            }
        }
    }

    fn sync(&self, place: Place, file: &File) -> io::Result<()> {
        let fault = self.step(place, Op::Sync)?;
        let unsynced = self.0.lock().unwrap().written.take_if(|_| place == Place::Journal);
        let Some(fault) = fault else { return Ok(()) };
        if let Some((from, frame_end)) = unsynced {
            let end = file.metadata()?.len();
            let middle = from + (frame_end - from) / 2;
            match fault {
                Fault::CutAtSync => file.set_len(middle)?,
                Fault::ZeroAtSync => {
                    file.set_len(middle)?;
                    file.set_len(end)?;
                }
                Fault::HoleAtSync => {
                    let zeros = vec![0; (middle - from) as usize];
                    RealDisk.write(place, file, from, &zeros)?;
                }
                _ => {}
            }
        }
        Err(io::Error::other("sync"))
    }

    fn truncate(&self, place: Place, file: &File, length: u64) -> io::Result<()> {
        self.run(place, Op::Truncate, || RealDisk.truncate(place, file, length))
    }

    fn rename(&self, place: Place, from: &Path, to: &Path) -> io::Result<()> {
        self.run(place, Op::Rename, || RealDisk.rename(place, from, to))
    }

    fn sync_folder(&self, place: Place, _: &Path) -> io::Result<()> {
        self.run(place, Op::SyncFolder, || Ok(()))
    }
}

pub(super) fn prepared(number: u64) -> Prepared {
    let Entry { record, body } = entry(number);
    let salt = [7; 32];
    let commitment = body.as_ref().map(|body| crate::audit::Commitment::new(&salt, body));
    let leaf = Leaf::new(Timestamp::UNIX_EPOCH, record, commitment).encode().unwrap();
    Prepared { leaf, body: body.map(|body| (salt, body)) }
}

const LIMIT: u64 = 1024;
const BATCH: u64 = 128;

/// Records numbers in batches, going on after errors; what was acknowledged, by index.
pub(super) fn work<D: Disk>(
    log: &mut Log<D>,
    numbers: std::ops::Range<u64>,
) -> BTreeMap<u64, Vec<u8>> {
    let mut acknowledged = BTreeMap::new();
    let mut next = numbers.start;
    while next < numbers.end {
        let room = BATCH.min(log.room() as u64).min(numbers.end - next);
        let batch: Vec<_> = (next..next + room).map(prepared).collect();
        next += room;
        if let Ok(first) = log.commit(&batch) {
            for (entry, index) in batch.into_iter().zip(first..) {
                assert!(acknowledged.insert(index, entry.leaf).is_none(), "index {index} twice");
            }
        }
        drop(log.publish());
        log.rotate();
    }
    acknowledged
}

/// Opens the log again and checks that it holds what was acknowledged, and goes on.
fn check(bench: &Bench, acknowledged: &BTreeMap<u64, Vec<u8>>, what: &str) {
    let disk = FaultyDisk::default();
    let (mut log, _) = Log::open(&bench.root(), bench.key(), disk, LIMIT)
        .unwrap_or_else(|error| panic!("{what}: {error}"));
    let more = work(&mut log, 5000..5000 + BATCH);
    assert!(!more.is_empty(), "{what}: it does not go on");
    log.publish().unwrap();
    drop(log);
    let report = bench.verify().unwrap_or_else(|broken| panic!("{what}: {broken}"));
    assert_eq!((report.unfinished, report.checkpoint.checkpoint().size), (0, report.entries));

    let mut seen = std::collections::HashSet::new();
    let mut found = BTreeMap::new();
    for entry in Reader::open(&bench.root()).unwrap().entries(0) {
        let entry = entry.unwrap();
        assert_eq!(entry.index, found.len() as u64, "{what}");
        let leaf = entry.leaf.encode().unwrap();
        assert!(seen.insert(leaf.clone()), "{what}: entry {} is there twice", entry.index);
        found.insert(entry.index, leaf);
    }
    for (index, leaf) in acknowledged.iter().chain(&more) {
        assert_eq!(found.get(index), Some(leaf), "{what}: entry {index} was lost");
    }
}

#[test]
fn no_fault_at_any_operation_loses_or_doubles_an_entry() {
    let clean = Bench::new();
    let disk = FaultyDisk::default();
    let (mut log, _) = Log::open(&clean.root(), clean.key(), disk.clone(), LIMIT).unwrap();
    let opening = disk.0.lock().unwrap().count;
    assert_eq!(work(&mut log, 0..3 * BATCH).len(), 3 * BATCH as usize);
    drop(log);
    let operations = disk.0.lock().unwrap().count;
    let segments = fs::read_dir(clean.root().join("journal")).unwrap().count();
    assert!(operations > opening + 30 && segments == 2, "{operations}, {segments}");

    let mut sorts = Vec::new();
    let did = disk.0.lock().unwrap().log.clone();
    for (left, sort) in did.into_iter().enumerate() {
        for fault in FAULTS.into_iter().filter(|fault| fault.concerns(sort)) {
            let bench = clean.another();
            let disk = FaultyDisk::failing(fault, left, None);
            let acknowledged = match Log::open(&bench.root(), bench.key(), disk.clone(), LIMIT) {
                Ok((mut log, _)) => work(&mut log, 0..3 * BATCH),
                Err(OpenError::Io { .. }) if left < opening => BTreeMap::new(),
                Err(error) => panic!("operation {left}, {fault:?}: {error}"),
            };
            let hit = disk.0.lock().unwrap().hit;
            check(&bench, &acknowledged, &format!("operation {left} {hit:?}, {fault:?}"));
            if let Some(hit) = hit.filter(|hit| !sorts.contains(hit)) {
                sorts.push(hit);
            }
        }
    }
    // The sweep has met every kind of write that the log makes.
    for sort in [
        (Place::Journal, Op::Write),
        (Place::Journal, Op::Sync),
        (Place::Segment, Op::Write),
        (Place::Segment, Op::Sync),
        (Place::Segment, Op::Rename),
        (Place::Segment, Op::SyncFolder),
        (Place::Tile, Op::Write),
        (Place::Tile, Op::Rename),
        (Place::Tile, Op::Sync),
        (Place::Tile, Op::SyncFolder),
        (Place::Checkpoint, Op::Write),
        (Place::Checkpoint, Op::Rename),
    ] {
        assert!(sorts.contains(&sort), "{sort:?} was never met");
    }
}

/// What the recorder does after a fault.
#[derive(Debug, PartialEq, Eq)]
enum Then {
    /// Nobody is refused.
    Unharmed,
    /// One batch is refused; later ones go on.
    Refused,
    /// Everything is refused until a restart.
    Poisoned,
}

#[test]
fn each_fault_is_as_fatal_as_documented() {
    use Fault::{Broken, Full, Persisted, Short, Twice};
    use Op::{Rename, Sync, SyncFolder, Write};
    let table = [
        (Place::Journal, Write, Full, Then::Refused),
        (Place::Journal, Write, Short, Then::Refused),
        (Place::Journal, Write, Persisted, Then::Refused),
        (Place::Journal, Write, Broken, Then::Poisoned),
        // The write and then taking it back.
        (Place::Journal, Write, Twice, Then::Poisoned),
        (Place::Journal, Sync, Full, Then::Poisoned),
        (Place::Journal, Sync, Persisted, Then::Poisoned),
        // Publishing is tried again before the next batch.
        (Place::Tile, Write, Full, Then::Unharmed),
        (Place::Tile, Write, Twice, Then::Refused),
        (Place::Tile, Rename, Broken, Then::Unharmed),
        (Place::Checkpoint, Write, Full, Then::Unharmed),
        (Place::Checkpoint, Rename, Persisted, Then::Unharmed),
        // A new segment: before it has its name nothing depends on it.
        (Place::Segment, Write, Full, Then::Unharmed),
        (Place::Segment, Sync, Broken, Then::Unharmed),
        (Place::Segment, Rename, Persisted, Then::Poisoned),
        (Place::Segment, SyncFolder, Broken, Then::Poisoned),
        (Place::Tile, Sync, Broken, Then::Poisoned),
    ];
    for (place, op, fault, expected) in table {
        let what = format!("{place:?} {op:?} {fault:?}");
        let bench = Bench::new();
        let disk = FaultyDisk::default();
        let (mut log, _) = Log::open(&bench.root(), bench.key(), disk.clone(), LIMIT).unwrap();
        *disk.0.lock().unwrap() =
            Plan { fault: Some(fault), only: Some((place, op)), ..Plan::default() };
        let mut results = Vec::new();
        for number in 0..6 {
            let batch: Vec<_> = (number * BATCH..(number + 1) * BATCH).map(prepared).collect();
            results.push(log.commit(&batch));
            drop(log.publish());
            log.rotate();
        }
        assert!(disk.0.lock().unwrap().hit.is_some(), "{what}: was not met");
        let poisoned = results.iter().filter(|r| matches!(r, Err(RecordError::Poisoned { .. })));
        let refused = results.iter().filter(|r| matches!(r, Err(RecordError::Refused { .. })));
        let then = match (poisoned.count(), refused.count()) {
            (0, 0) => Then::Unharmed,
            (0, 1) => Then::Refused,
            (1.., 0) if results.last().is_some_and(Result::is_err) => Then::Poisoned,
            other => panic!("{what}: {other:?}"),
        };
        assert_eq!(then, expected, "{what}");
    }
}

#[test]
fn nothing_more_is_recorded_while_what_was_cannot_be_published() {
    for sort in [(Place::Tile, Op::Write), (Place::Checkpoint, Op::Rename)] {
        let bench = Bench::new();
        let disk = FaultyDisk::default();
        let (mut log, _) = Log::open(&bench.root(), bench.key(), disk.clone(), LIMIT).unwrap();
        *disk.0.lock().unwrap() =
            Plan { fault: Some(Fault::Lasting), only: Some(sort), ..Plan::default() };
        let acknowledged = work(&mut log, 0..4 * BATCH);
        assert_eq!(acknowledged.len() as u64, BATCH, "only the first batch");
        let did = disk.0.lock().unwrap().log.clone();
        assert_eq!(did.iter().filter(|did| **did == (Place::Journal, Op::Write)).count(), 1);
        disk.0.lock().unwrap().fault = None;
        assert_eq!(work(&mut log, 600..600 + BATCH).len() as u64, BATCH);
        drop(log);
        check(&bench, &acknowledged, "after there was room again");
    }
}

#[test]
fn published_files_lost_in_a_power_cut_are_made_again() {
    for contents in [None, Some(&b""[..]), Some(&[0; 100][..])] {
        let bench = Bench::new();
        let disk = FaultyDisk::default;
        let (mut log, _) = Log::open(&bench.root(), bench.key(), disk(), u64::MAX).unwrap();
        let acknowledged = work(&mut log, 0..3 * BATCH);
        drop(log);
        let mut folders = vec![bench.root().join("tile")];
        let mut files = vec![bench.root().join("checkpoint")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() { folders.push(path) } else { files.push(path) }
            }
        }
        assert!(files.len() > 5);
        for file in files {
            match contents {
                None => fs::remove_file(file).unwrap(),
                Some(contents) => fs::write(file, contents).unwrap(),
            }
        }
        bench.verify().unwrap_err();
        let (log, opened) = Log::open(&bench.root(), bench.key(), disk(), u64::MAX).unwrap();
        assert_eq!(opened.restored, 5);
        drop(log);
        check(&bench, &acknowledged, "after the power cut");
    }
}

#[test]
fn a_frame_that_may_be_in_memory_only_is_written_again_before_anything_rests_on_it() {
    let bench = Bench::new();
    let disk = FaultyDisk::failing(Fault::Persisted, 0, Some((Place::Journal, Op::Sync)));
    let (mut log, _) = Log::open(&bench.root(), bench.key(), FaultyDisk::default(), LIMIT).unwrap();
    work(&mut log, 0..BATCH);
    drop(log);
    disk.0.lock().unwrap().left = 1;
    let (mut log, _) = Log::open(&bench.root(), bench.key(), disk, LIMIT).unwrap();
    assert!(work(&mut log, BATCH..2 * BATCH).is_empty(), "the sync was to fail");
    drop(log);

    let disk = FaultyDisk::default();
    let (log, opened) = Log::open(&bench.root(), bench.key(), disk.clone(), LIMIT).unwrap();
    assert_eq!((log.size(), opened.dropped), (2 * BATCH, 0));
    let did = disk.0.lock().unwrap().log.clone();
    let place = |sort| did.iter().position(|did| *did == sort).unwrap();
    let (write, sync) = ((Place::Journal, Op::Write), (Place::Journal, Op::Sync));
    assert!(place(write) < place(sync), "{did:?}");
    assert!(place(sync) < place((Place::Tile, Op::Write)), "{did:?}");
    assert!(place(sync) < place((Place::Checkpoint, Op::Rename)), "{did:?}");
}

#[test]
fn a_lost_tile_of_an_old_segment_is_made_again() {
    let bench = Bench::new();
    let (mut log, _) = Log::open(&bench.root(), bench.key(), FaultyDisk::default(), LIMIT).unwrap();
    let acknowledged = work(&mut log, 0..3 * BATCH);
    drop(log);
    fs::remove_file(bench.root().join("tile/entries/000")).unwrap();
    check(&bench, &acknowledged, "after the loss of a tile");
}

#[test]
fn what_no_crash_explains_is_not_repaired() {
    type Harm = fn(&Path);
    let harms: [(&str, u64, Harm); 6] = [
        ("an acknowledged frame cut off", u64::MAX, |root| {
            let path = last_segment(root);
            let length = fs::metadata(&path).unwrap().len();
            File::options().write(true).open(path).unwrap().set_len(length - 1).unwrap();
        }),
        ("a byte in the middle", u64::MAX, |root| {
            let mut bytes = fs::read(last_segment(root)).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            fs::write(last_segment(root), bytes).unwrap();
        }),
        ("a byte in the middle, with the checkpoint gone", u64::MAX, |root| {
            let mut bytes = fs::read(last_segment(root)).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            fs::write(last_segment(root), bytes).unwrap();
            fs::remove_file(root.join("checkpoint")).unwrap();
        }),
        ("the journal gone", u64::MAX, |root| fs::remove_dir_all(root.join("journal")).unwrap()),
        ("a checkpoint altered", u64::MAX, |root| {
            let note = fs::read_to_string(root.join("checkpoint")).unwrap();
            fs::write(root.join("checkpoint"), note.replace("\n384\n", "\n385\n")).unwrap();
        }),
        ("the last segment gone", LIMIT, |root| fs::remove_file(last_segment(root)).unwrap()),
    ];
    for (name, limit, harm) in harms {
        let bench = Bench::new();
        let disk = FaultyDisk::default;
        let (mut log, _) = Log::open(&bench.root(), bench.key(), disk(), limit).unwrap();
        work(&mut log, 0..3 * BATCH);
        log.publish().unwrap();
        log.tidy();
        drop(log);
        harm(&bench.root());
        let journal = fs::read(last_segment(&bench.root())).ok();
        let error = Log::open(&bench.root(), bench.key(), disk(), LIMIT).err();
        assert!(matches!(error, Some(OpenError::Damaged { .. })), "{name}: {error:?}");
        assert_eq!(fs::read(last_segment(&bench.root())).ok(), journal, "{name}: was changed");
    }
}

#[test]
fn spare_room_behind_the_frames_is_none_of_them() {
    let bench = Bench::new();
    let disk = FaultyDisk::default;
    let open = || Log::open(&bench.root(), bench.key(), disk(), u64::MAX);
    let (mut log, _) = open().unwrap();
    let mut acknowledged = work(&mut log, 0..BATCH);
    log.publish().unwrap();
    let length = || fs::metadata(last_segment(&bench.root())).unwrap().len();
    let with_spare = length();
    // The next frames are written into it, and the file does not grow.
    acknowledged.extend(work(&mut log, BATCH..BATCH + 1));
    assert_eq!(length(), with_spare);
    log.publish().unwrap();
    assert_eq!(bench.verify().unwrap().unfinished, 0);
    drop(log);

    // A write that was cut short in the middle of it is dropped, and said so.
    let path = last_segment(&bench.root());
    let mut bytes = fs::read(&path).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    bytes[end + 3000..end + 3100].fill(7);
    fs::write(&path, &bytes).unwrap();
    let (mut log, opened) = open().unwrap();
    assert_eq!(opened.dropped, with_spare - end as u64);
    assert_eq!(length(), end as u64);
    acknowledged.extend(work(&mut log, BATCH + 1..BATCH + 2));
    log.publish().unwrap();
    log.tidy();
    assert!(length() < with_spare);
    drop(log);

    // A later page of one is on the disk and an earlier one, in which its header begins, is not.
    let good = fs::read(&path).unwrap();
    let mut frame = good[end..].to_vec();
    frame[..12].fill(0);
    fs::write(&path, [&good[..], &frame, &[0; 5000]].concat()).unwrap();
    assert!(bench.verify().unwrap().unfinished > 0);
    let (log, opened) = open().unwrap();
    assert!(opened.dropped > 0);
    drop(log);
    check(&bench, &acknowledged, "spare room");
}

fn last_segment(root: &Path) -> PathBuf {
    let folder = fs::read_dir(root.join("journal"));
    let paths = folder.into_iter().flatten().map(|entry| entry.unwrap().path());
    paths.max().unwrap_or_default()
}

#[tokio::test]
async fn waiters_of_a_failed_batch_get_the_error_and_later_ones_succeed() {
    let bench = Bench::new();
    let disk = FaultyDisk::default();
    let clock = Arc::new(SystemClock);
    let (recorder, _) =
        Recorder::open_on(&bench.root(), bench.key(), clock, disk.clone(), LIMIT).unwrap();
    append(&recorder, 0..3).await;
    disk.0.lock().unwrap().only = Some((Place::Journal, Op::Write));
    disk.0.lock().unwrap().fault = Some(Fault::Short);
    let error = recorder.append(entry(3)).await.unwrap_err();
    assert!(matches!(error, RecordError::Refused { .. }), "{error}");
    assert_eq!(recorder.checkpoint().checkpoint().size, 3);
    assert_eq!(recorder.append(entry(4)).await.unwrap(), 3);

    disk.0.lock().unwrap().hit = None;
    disk.0.lock().unwrap().only = Some((Place::Journal, Op::Sync));
    disk.0.lock().unwrap().fault = Some(Fault::Persisted);
    for number in 5..8 {
        let error = recorder.append(entry(number)).await.unwrap_err();
        assert!(matches!(error, RecordError::Poisoned { .. }), "{error}");
    }
    assert_eq!(recorder.checkpoint().checkpoint().size, 4);
    recorder.shutdown().await.unwrap_err();
    let recorder = bench.open();
    // The entry whose sync failed turned out to be there; nobody was told that it was not.
    assert_eq!(recorder.checkpoint().checkpoint().size, 5);
    recorder.shutdown().await.unwrap();
    bench.verify().unwrap();
}
