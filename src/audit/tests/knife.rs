//! Altered logs: every byte, every length, every file.

use std::fs;

use super::faults::prepared;
use super::*;
use crate::audit::OpenError;
use crate::audit::frame::encode_frame;
use crate::audit::tile::entries;
use crate::audit::tree::{CompactRange, leaf_hash};

/// Every file of the log but the lock, which is empty.
fn files(root: &Path) -> Vec<PathBuf> {
    let (mut files, mut folders) = (Vec::new(), vec![root.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if !path.ends_with("lock") {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

fn name(root: &Path, file: &Path) -> String {
    file.strip_prefix(root).unwrap().display().to_string()
}

/// Writes a log with some publications in between, so that it has older partial tiles too.
async fn small_log(bench: &Bench) {
    let recorder = bench.open();
    for start in [0, 2] {
        append_together(&recorder, start..start + 2).await;
        recorder.publish().await.unwrap();
    }
    recorder.shutdown().await.unwrap();
    bench.verify().unwrap();
}

#[tokio::test]
async fn every_flipped_byte_of_a_small_log_is_found() {
    let bench = Bench::new();
    small_log(&bench).await;
    let (root, key) = (bench.root(), bench.key());
    let mut flipped = 0;
    for file in files(&root) {
        let good = fs::read(&file).unwrap();
        let name = name(&root, &file);
        for place in 0..good.len() {
            let mut bad = good.clone();
            bad[place] ^= 1;
            fs::write(&file, &bad).unwrap();
            let broken = verify(&root, &key).err().unwrap_or_else(|| panic!("{name} byte {place}"));
            let family = name.split('/').next().unwrap();
            assert!(broken.what.contains(family), "{name} byte {place}: {broken}");
            // An entry bundle's and a leaf tile's bytes each belong to one entry.
            let entry = match name.split_once(".p/") {
                Some(("tile/0/000", _)) => Some(place / 32),
                Some(("tile/entries/000", _)) => {
                    let mut end = 0;
                    entries(&good).position(|entry| {
                        end += 2 + entry.unwrap().len();
                        place < end
                    })
                }
                _ => None,
            };
            if let Some(entry) = entry {
                assert_eq!(broken.index, Some(entry as u64), "{name} byte {place}: {broken}");
            }
            if family == "journal" && place > 48 {
                assert!(broken.index.is_some(), "{name} byte {place}: {broken}");
            }
            flipped += 1;
        }
        fs::write(&file, &good).unwrap();
    }
    assert!(flipped > 2000, "only {flipped} bytes");
    verify(&root, &key).unwrap();
}

#[tokio::test]
async fn the_altered_entry_of_the_journal_is_named() {
    let bench = Bench::new();
    small_log(&bench).await;
    let (root, key) = (bench.root(), bench.key());
    let file = root.join(JOURNAL);
    let good = fs::read(&file).unwrap();
    for number in 0..4u64 {
        let needle = format!("{number:04}\"");
        let leaf = good.windows(5).position(|w| w == needle.as_bytes()).unwrap();
        let body = format!("{{\"n\":{number}}}");
        let body = good.windows(body.len()).position(|w| w == body.as_bytes());
        assert_eq!(body.is_some(), number % 2 == 1);
        let salt = body.map(|body| body - 32);
        for place in [Some(leaf), body, salt].into_iter().flatten() {
            let mut bad = good.clone();
            bad[place] ^= 4;
            fs::write(&file, &bad).unwrap();
            let broken = verify(&root, &key).unwrap_err();
            assert_eq!(broken.index, Some(number), "{broken}");
            assert!(broken.what.contains("journal/"), "{broken}");
        }
    }
}

#[tokio::test]
async fn every_cut_and_every_lost_file_is_found() {
    let bench = Bench::new();
    small_log(&bench).await;
    let (root, key) = (bench.root(), bench.key());
    for file in files(&root) {
        let good = fs::read(&file).unwrap();
        let name = name(&root, &file);
        for length in 0..good.len() {
            fs::write(&file, &good[..length]).unwrap();
            assert!(verify(&root, &key).is_err(), "{name} cut to {length}");
        }
        fs::write(&file, [&good[..], b"\n"].concat()).unwrap();
        let longer = verify(&root, &key);
        // A byte more in the journal is a write that a crash cut short; it is said so.
        match longer {
            Ok(report) => assert!(name.starts_with("journal") && report.unfinished == 1),
            Err(broken) => assert!(!name.starts_with("journal"), "{broken}"),
        }
        fs::remove_file(&file).unwrap();
        let lost = verify(&root, &key);
        // Partial tiles that a later one has replaced may go.
        let old = name.ends_with(".p/2");
        assert_eq!(lost.is_ok(), old, "{name} lost: {lost:?}");
        fs::write(&file, &good).unwrap();
    }
    verify(&root, &key).unwrap();
    fs::write(root.join("tile/0/notes.txt"), "hello").unwrap();
    assert!(verify(&root, &key).unwrap_err().what.contains("notes.txt"));
}

#[tokio::test]
async fn flips_in_a_larger_log_are_found_in_full_and_upper_tiles_and_old_segments() {
    let bench = Bench::new();
    let recorder = bench.open_with(4096);
    append_together(&recorder, 0..600).await;
    recorder.shutdown().await.unwrap();
    let (root, key) = (bench.root(), bench.key());
    assert_eq!(verify(&root, &key).unwrap().entries, 600);
    for file in files(&root) {
        let good = fs::read(&file).unwrap();
        let name = name(&root, &file);
        let step = (good.len() / 7).max(1);
        for place in (0..good.len()).step_by(step).chain([good.len() - 1]) {
            let mut bad = good.clone();
            bad[place] ^= 0x80;
            fs::write(&file, &bad).unwrap();
            let broken = verify(&root, &key).err().unwrap_or_else(|| panic!("{name} byte {place}"));
            if name == "tile/0/001" {
                assert_eq!(broken.index, Some(256 + place as u64 / 32), "{broken}");
            }
            if name.starts_with("tile/1/") {
                assert!(broken.what.contains(&name), "{broken}");
            }
        }
        fs::write(&file, &good).unwrap();
    }
}

#[tokio::test]
async fn a_log_rewritten_by_its_key_fails_against_a_remembered_checkpoint() {
    let bench = Bench::new();
    small_log(&bench).await;
    let remembered = bench.verify().unwrap().checkpoint;
    // Rewritten from the start, with the right key, and longer.
    fs::remove_dir_all(bench.root()).unwrap();
    let recorder = bench.open();
    append(&recorder, 100..120).await;
    recorder.shutdown().await.unwrap();
    bench.verify().unwrap();
    let against = |old: &_| verify_folder(&bench.root(), bench.key().vkey(), Some(old));
    let error = against(remembered.checkpoint()).unwrap_err();
    assert!(error.to_string().contains("rewritten"), "{error}");
    // Cut short and signed again.
    let newer = bench.verify().unwrap().checkpoint;
    fs::remove_dir_all(bench.root()).unwrap();
    let recorder = bench.open();
    append(&recorder, 100..105).await;
    recorder.shutdown().await.unwrap();
    match against(newer.checkpoint()).unwrap_err() {
        VerifyError::Broken(broken) => assert_eq!(broken.index, Some(5), "{broken}"),
        error => panic!("{error}"),
    }
    let mut other = newer.checkpoint().clone();
    other.origin = "another".into();
    assert!(against(&other).is_err());
}

#[tokio::test]
async fn a_log_altered_throughout_but_not_signed_names_the_first_altered_batch() {
    // The entry, its tiles and the journal's frame are all made to agree; only the key is missing.
    let (bench, forger) = (Bench::new(), Bench::new());
    small_log(&bench).await;
    small_log(&forger).await;
    let (root, forged) = (bench.root(), forger.root());
    fs::remove_dir_all(root.join("tile")).unwrap();
    fs::rename(forged.join("tile"), root.join("tile")).unwrap();
    fs::copy(forged.join(JOURNAL), root.join(JOURNAL)).unwrap();
    let broken = bench.verify().unwrap_err();
    assert_eq!(broken.index, Some(0), "{broken}");
    assert!(broken.what.contains("no signature"), "{broken}");
}

#[tokio::test]
async fn a_well_formed_batch_under_a_checkpoint_of_another_tree_is_found() {
    let bench = Bench::new();
    small_log(&bench).await;
    let (root, key) = (bench.root(), bench.key());
    let good = fs::read(root.join(JOURNAL)).unwrap();
    let add = |first, note: &str| {
        let frame = encode_frame(first, &[prepared(4)], note);
        fs::write(root.join(JOURNAL), [&good[..], &frame].concat()).unwrap();
    };
    let mut tree = CompactRange::default();
    let reader = crate::audit::Reader::open(&root).unwrap();
    reader.entries(0).for_each(|e| tree.push(leaf_hash(&e.unwrap().leaf.encode().unwrap())));
    let old_root = tree.root();
    tree.push(leaf_hash(&prepared(4).leaf));

    let stranger = LogKey::generate(ORIGIN).unwrap();
    for (what, first, note) in [
        ("root", 4, key.sign(5, old_root).unwrap()),
        ("size", 4, key.sign(6, tree.root()).unwrap()),
        ("place", 3, key.sign(5, tree.root()).unwrap()),
        ("key", 4, stranger.sign(5, tree.root()).unwrap()),
    ] {
        add(first, note.note());
        let broken = verify(&root, &key).unwrap_err();
        assert_eq!(broken.index, Some(4), "{what}: {broken}");
        let opened = Recorder::open(&root, bench.key(), Arc::new(SystemClock));
        assert!(matches!(opened, Err(OpenError::Damaged { .. })), "{what}");
    }
    // With everything right it is what a crash before publication leaves.
    add(4, key.sign(5, tree.root()).unwrap().note());
    let report = verify(&root, &key).unwrap();
    assert_eq!((report.entries, report.checkpoint.checkpoint().size), (5, 4));
    bench.open().shutdown().await.unwrap();
    assert_eq!(bench.verify().unwrap().checkpoint.checkpoint().size, 5);
}

const JOURNAL: &str = "journal/00000000000000000000";
