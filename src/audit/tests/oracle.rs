//! Cross-checks with two crates that share no code with this one.

use std::fs;

use signed_note::{Note, StandardVerifier, VerifierList};
use tlog_tiles::checkpoint::Checkpoint;
use tlog_tiles::tile::{Tile, TileHashReader, TileReader};
use tlog_tiles::tlog::{
    Error, check_record, check_tree, prove_record, prove_tree, record_hash, tree_hash,
};

use super::faults::{FaultyDisk, work};
use super::*;
use crate::audit::log::Log;

struct Folder(PathBuf);

impl TileReader for Folder {
    fn height(&self) -> u8 {
        8
    }
    fn read_tiles(&self, tiles: &[Tile]) -> Result<Vec<Vec<u8>>, Error> {
        let read = |tile: &Tile| {
            // The oracle's paths are those of Go's sumdb: tile/8/<level>/…
            let path = tile.path().replacen("tile/8/", "tile/", 1);
            Ok(fs::read(self.0.join(&path)).unwrap_or_else(|e| panic!("{path}: {e}")))
        };
        tiles.iter().map(read).collect()
    }
    fn save_tiles(&self, _: &[Tile], _: &[Vec<u8>]) {}
}

fn their_checkpoint(root: &Path, vkey: &str) -> Result<Checkpoint, String> {
    let verifier = StandardVerifier::new(vkey).map_err(|e| format!("{e:?}"))?;
    let note = fs::read(root.join("checkpoint")).unwrap();
    let note = Note::from_bytes(&note).map_err(|e| format!("{e:?}"))?;
    note.verify(&VerifierList::new(vec![Box::new(verifier)])).map_err(|e| format!("{e:?}"))?;
    Checkpoint::from_bytes(note.text()).map_err(|e| format!("{e:?}"))
}

#[test]
fn they_accept_what_we_publish_and_refuse_it_edited() {
    let bench = Bench::new();
    let root = bench.root();
    let vkey = bench.key().vkey().to_string();
    let mut old: Option<Checkpoint> = None;
    let mut size = 0;
    for next in [1, 2, 255, 256, 257, 700, 66_000] {
        let (mut log, _) = Log::open(&root, bench.key(), FaultyDisk::default(), 4 << 20).unwrap();
        work(&mut log, size..next);
        size = next;
        drop(log);

        let theirs = their_checkpoint(&root, &vkey).unwrap();
        assert_eq!((theirs.origin(), theirs.size()), (ORIGIN, size));
        let folder = Folder(root.clone());
        let reader = TileHashReader::new(size, *theirs.hash(), &folder);
        assert_eq!(tree_hash(size, &reader).unwrap().0, theirs.hash().0);
        let journal = crate::audit::Reader::open(&root).unwrap();
        for index in [0, size / 2, size - 1] {
            let leaf = journal.entries(index).next().unwrap().unwrap().leaf.encode().unwrap();
            let proof = prove_record(size, index, &reader).unwrap();
            check_record(&proof, size, *theirs.hash(), index, record_hash(&leaf)).unwrap();
            let edited = record_hash(&[&leaf[..], b" "].concat());
            assert!(check_record(&proof, size, *theirs.hash(), index, edited).is_err());
        }
        if let Some(old) = &old {
            let proof = prove_tree(size, old.size(), &reader).unwrap();
            check_tree(&proof, size, *theirs.hash(), old.size(), *old.hash()).unwrap();
        }
        old = Some(theirs);
    }
    assert_eq!(bench.verify().unwrap().entries, 66_000);

    let note = fs::read(root.join("checkpoint")).unwrap();
    let edited = String::from_utf8(note).unwrap().replace("\n66000\n", "\n65000\n");
    fs::write(root.join("checkpoint"), edited).unwrap();
    their_checkpoint(&root, &vkey).unwrap_err();
}
