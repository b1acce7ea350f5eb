//! Publishing: bringing the tiles and the checkpoint file up to what the journal holds.
//!
//! Everything here can be made again from the journal, so nothing here is synced while callers
//! wait. What a crash leaves: tiles without a checkpoint that covers them, which nobody asks
//! for, or after a power cut an empty file; opening puts both right. Each file appears whole,
//! under its name, at once; the checkpoint comes after every tile that it covers.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::disk::{Disk, Place, private_file, private_folder};
use super::note::SignedCheckpoint;
use super::tile::{Edge, TILE_WIDTH, Tile, TileKind, beginning};

/// The file of the published checkpoint under the log's root.
pub(super) const CHECKPOINT: &str = "checkpoint";

/// A file on its way to its name.
pub(super) const TEMPORARY: &str = "publish.tmp";

/// Writes tiles and the checkpoint file.
pub(super) struct Publisher {
    root: PathBuf,
    /// Full tiles that still have to be written, oldest first.
    full: VecDeque<(Tile, Vec<u8>)>,
    /// Of each kind, the partial tile written last.
    partial: HashMap<TileKind, Tile>,
    /// Files written and not known to be on the disk.
    unsynced: BTreeSet<PathBuf>,
    /// The size under the checkpoint file, if there is one.
    published: Option<u64>,
}

impl Publisher {
    pub(super) fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            full: VecDeque::new(),
            partial: HashMap::new(),
            unsynced: BTreeSet::new(),
            published: None,
        }
    }

    /// The size of the tree that was published last.
    pub(super) fn published(&self) -> Option<u64> {
        self.published
    }

    /// Takes a tile that has become full, to be written with the next publication.
    pub(super) fn add(&mut self, tile: Tile, bytes: Vec<u8>) {
        self.full.push_back((tile, bytes));
    }

    /// Writes what is missing of the tree, tiles first. After an error it can be called again.
    pub(super) fn publish(
        &mut self,
        disk: &impl Disk,
        edge: &Edge,
        checkpoint: &SignedCheckpoint,
    ) -> io::Result<()> {
        let mut filled = Vec::new();
        while let Some((tile, bytes)) = self.full.pop_front() {
            if let Err(error) = self.write_tile(disk, tile, &bytes) {
                self.full.push_front((tile, bytes));
                return Err(error);
            }
            filled.push(tile);
        }
        for (tile, bytes) in edge.partials() {
            if self.partial.get(&tile.kind()) != Some(&tile) {
                self.write_tile(disk, tile, &bytes)?;
                self.partial.insert(tile.kind(), tile);
            }
        }
        self.write(disk, Place::Checkpoint, Path::new(CHECKPOINT), checkpoint.note().as_bytes())?;
        self.published = Some(checkpoint.checkpoint().size);
        filled.into_iter().for_each(|tile| self.drop_partials(tile));
        Ok(())
    }

    /// Puts right what a crash may have left of a tile that the journal holds, full or partial:
    /// whether anything had to be written.
    pub(super) fn restore(
        &mut self,
        disk: &impl Disk,
        tile: Tile,
        bytes: &[u8],
    ) -> io::Result<bool> {
        let path = self.root.join(tile.path());
        let right = match fs::read(&path) {
            Ok(found) => found == bytes,
            Err(error) if missing(&error) => false,
            Err(error) => return Err(error),
        };
        if right {
            self.unsynced.insert(path);
        } else {
            self.write_tile(disk, tile, bytes)?;
        }
        if tile.is_full() {
            self.drop_partials(tile);
        } else {
            self.drop_wrong_partials(tile, bytes)?;
            self.partial.insert(tile.kind(), tile);
        }
        Ok(!right)
    }

    /// Makes everything published so far durable.
    pub(super) fn sync(&mut self, disk: &impl Disk) -> io::Result<()> {
        self.unsynced.insert(self.root.join(CHECKPOINT));
        let paths: Vec<&Path> = self.unsynced.iter().map(PathBuf::as_path).collect();
        // A segment's worth of tiles can be a thousand files, and callers wait meanwhile. Syncs
        // that are under way together share the file system's own commits.
        std::thread::scope(|scope| {
            let share = paths.len().div_ceil(SYNC_THREADS).max(FEW_FILES);
            let threads: Vec<_> = paths
                .chunks(share)
                .map(|paths| scope.spawn(move || paths.iter().try_for_each(|p| sync_file(disk, p))))
                .collect();
            threads.into_iter().try_for_each(|thread| {
                thread.join().unwrap_or_else(|_| Err(io::Error::other("a thread panicked")))
            })
        })?;
        let folders: BTreeSet<&Path> = paths
            .iter()
            .flat_map(|path| path.ancestors().skip(1))
            .filter(|folder| folder.starts_with(&self.root))
            .collect();
        for folder in folders {
            match disk.sync_folder(Place::Tile, folder) {
                // The folder of partial tiles that have since been filled.
                Err(error) if missing(&error) => {}
                result => result?,
            }
        }
        self.unsynced.clear();
        Ok(())
    }

    fn write_tile(&mut self, disk: &impl Disk, tile: Tile, bytes: &[u8]) -> io::Result<()> {
        let path = PathBuf::from(tile.path());
        if let Some(folder) = path.parent() {
            private_folder(&self.root.join(folder))?;
        }
        self.write(disk, Place::Tile, &path, bytes)?;
        self.unsynced.insert(self.root.join(path));
        Ok(())
    }

    fn write(&self, disk: &impl Disk, place: Place, name: &Path, bytes: &[u8]) -> io::Result<()> {
        let temporary = self.root.join(TEMPORARY);
        let file = private_file().write(true).create(true).truncate(true).open(&temporary)?;
        disk.write(place, &file, 0, bytes)?;
        drop(file);
        disk.rename(place, &temporary, &self.root.join(name))
    }

    /// Removes the partial tiles of a place that is now full. They take room and nothing else, so
    /// a failure is not one.
    fn drop_partials(&mut self, tile: Tile) {
        let folder = self.partials(tile);
        drop(fs::remove_dir_all(&folder));
        self.unsynced.retain(|path| !path.starts_with(&folder));
    }

    /// Removes partial tiles that are not how the tile began.
    fn drop_wrong_partials(&self, tile: Tile, bytes: &[u8]) -> io::Result<()> {
        let folder = match fs::read_dir(self.partials(tile)) {
            Ok(folder) => folder,
            Err(error) if missing(&error) => return Ok(()),
            Err(error) => return Err(error),
        };
        for entry in folder {
            let entry = entry?;
            let width = entry.file_name().to_str().and_then(|name| name.parse().ok());
            let begun = width.and_then(|width| beginning(tile.kind(), bytes, width));
            if begun.is_none_or(|begun| fs::read(entry.path()).is_ok_and(|found| found != begun)) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    fn partials(&self, tile: Tile) -> PathBuf {
        self.root.join(format!("{}.p", tile.full().path()))
    }
}

fn sync_file(disk: &impl Disk, path: &Path) -> io::Result<()> {
    match File::open(path) {
        Ok(file) => disk.sync(Place::Tile, &file),
        // A partial tile that has since been filled.
        Err(error) if missing(&error) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Whether all full tiles of a tree of `size` leaves are there. Only asks for their names and
/// lengths: what they hold is for verification.
pub(super) fn has_full_tiles(root: &Path, size: u64) -> bool {
    let there = |kind, number, length: Option<u64>| {
        Tile::new(kind, number, TILE_WIDTH)
            .and_then(|tile| fs::metadata(root.join(tile.path())).ok())
            .is_some_and(|found| length.map_or(found.len() > 0, |length| found.len() == length))
    };
    (0..size >> 8).all(|number| there(TileKind::Entries, number, None))
        && (0u8..8).all(|level| {
            let tiles = size.checked_shr(8 * (u32::from(level) + 1)).unwrap_or(0);
            (0..tiles).all(|number| there(TileKind::Hashes(level), number, Some(256 * 32)))
        })
}

pub(super) fn missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// How many files are synced at once, and how few are not worth another thread.
const SYNC_THREADS: usize = 8;
const FEW_FILES: usize = 16;
