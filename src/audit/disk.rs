//! The few file operations that the log's promises rest on, behind a trait, so that a test can
//! make any one of them fail.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::path::Path;

/// What a file operation is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Place {
    /// A frame at the end of the journal.
    Journal,
    /// A new journal segment.
    Segment,
    /// A tile.
    Tile,
    /// The published checkpoint.
    Checkpoint,
}

/// File operations, as the operating system gives them.
pub(super) trait Disk: Send + Sync + 'static {
    /// Writes all bytes from `at` on, in one system call unless the system takes fewer at once.
    fn write(&self, place: Place, file: &File, at: u64, bytes: &[u8]) -> io::Result<()>;
    /// Returns once the file's contents and length are on the disk.
    fn sync(&self, place: Place, file: &File) -> io::Result<()>;
    /// Cuts the file off at `length`.
    fn truncate(&self, place: Place, file: &File, length: u64) -> io::Result<()>;
    /// Puts a file in another's place, at once.
    fn rename(&self, place: Place, from: &Path, to: &Path) -> io::Result<()>;
    /// Returns once the folder's entries are on the disk.
    fn sync_folder(&self, place: Place, folder: &Path) -> io::Result<()>;
}

/// The disk itself.
pub(super) struct RealDisk;

impl Disk for RealDisk {
    fn write(&self, _: Place, mut file: &File, at: u64, bytes: &[u8]) -> io::Result<()> {
        file.seek(SeekFrom::Start(at))?;
        file.write_all(bytes)
    }

    fn sync(&self, _: Place, file: &File) -> io::Result<()> {
        file.sync_data()
    }

    fn truncate(&self, _: Place, file: &File, length: u64) -> io::Result<()> {
        file.set_len(length)
    }

    fn rename(&self, _: Place, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn sync_folder(&self, _: Place, folder: &Path) -> io::Result<()> {
        sync_folder(folder)
    }
}

/// Options that create a file which only its owner can read.
pub(super) fn private_file() -> OpenOptions {
    #[cfg_attr(not(unix), expect(unused_mut, reason = "modes exist on Unix"))]
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.mode(0o600);
    }
    options
}

/// Creates a folder, and those above it that are missing, which only their owner can enter.
pub(super) fn private_folder(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::DirBuilderExt as _;
        builder.mode(0o700);
    }
    builder.create(path)
}

/// Makes a folder's entries durable. Where folders cannot be synced (Windows) the file system's
/// own journal has to do.
pub(super) fn sync_folder(path: &Path) -> io::Result<()> {
    if !cfg!(unix) {
        return Ok(());
    }
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    File::open(path)?.sync_all()
}

/// Whether a failed write says that there is no room, which can pass, and nothing worse.
pub(super) fn may_pass(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::ReadOnlyFilesystem
            | io::ErrorKind::FileTooLarge
    )
}
