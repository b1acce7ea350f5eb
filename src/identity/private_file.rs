//! Files that only their owner may read: signing keys and, where no keyring answers, logins.
//!
//! Reading refuses a file that somebody else owns or could read. Writing replaces the whole file
//! atomically: a crash leaves the old content or the new, never a part of either.

use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use crate::types::{RandomError, random};

/// No private file is larger than this.
const MAX_SIZE: u64 = 1024 * 1024;

/// A private file could not be read or written, or is not private.
#[derive(Debug, thiserror::Error)]
pub enum PrivateFileError {
    /// Others may read or write it.
    #[error("{path} can be read by others (mode {mode:04o}); run: chmod {fix} {path}")]
    Exposed {
        /// The file or directory.
        path: String,
        /// Its permission bits.
        mode: u32,
        /// The permission bits it should have.
        fix: &'static str,
    },
    /// Somebody else owns it.
    #[error(
        "{path} belongs to user {owner}, not to the user who runs this (user {user}); if it is yours, run: chown {user} {path}, else remove it"
    )]
    NotOurs {
        /// The file or directory.
        path: String,
        /// Who owns it.
        owner: u32,
        /// Who we are.
        user: u32,
    },
    /// It is a link, a directory, a device, or beyond any sensible size.
    #[error("{path} is not a plain file of reasonable size")]
    NotPlain {
        /// The path.
        path: String,
    },
    /// The operating system refused.
    #[error("cannot {action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The path.
        path: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// No randomness for a temporary name.
    #[error(transparent)]
    Random(#[from] RandomError),
}

/// Reads a private file whole; `None` when there is none.
///
/// # Errors
/// [`PrivateFileError`] when it is not private or cannot be read.
pub fn read(path: &Path) -> Result<Option<Vec<u8>>, PrivateFileError> {
    let io = |action| move |source| io_error(action, path, source);
    let mut options = OpenOptions::new();
    options.read(true);
    no_follow(&mut options);
    let file = match options.open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_error("open", path, error)),
    };
    // The open handle is judged, not the path: what is behind the path may change meanwhile.
    let metadata = file.metadata().map_err(io("examine"))?;
    if !metadata.is_file() || metadata.len() > MAX_SIZE {
        return Err(PrivateFileError::NotPlain { path: path.display().to_string() });
    }
    check_private(path, &metadata, "600")?;
    let mut bytes = Vec::new();
    file.take(MAX_SIZE + 1).read_to_end(&mut bytes).map_err(io("read"))?;
    Ok(Some(bytes))
}

/// Replaces a private file's content, durably. The directory must exist.
///
/// # Errors
/// [`PrivateFileError::Io`] naming the step; the old content then still stands.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), PrivateFileError> {
    let temporary = write_temporary(path, bytes)?;
    let moved = fs::rename(&temporary, path).map_err(|source| io_error("replace", path, source));
    finish(path, &temporary, moved)
}

/// Renames one private file over another, durably.
///
/// # Errors
/// [`PrivateFileError::Io`]; both files then stand as they were.
pub fn replace(from: &Path, to: &Path) -> Result<(), PrivateFileError> {
    fs::rename(from, to).map_err(|source| io_error("replace", to, source))?;
    sync_directory(to)
}

/// Writes a private file only if there is none; `false` when there was one.
///
/// # Errors
/// [`PrivateFileError::Io`] naming the step.
pub fn create(path: &Path, bytes: &[u8]) -> Result<bool, PrivateFileError> {
    let temporary = write_temporary(path, bytes)?;
    // A link, unlike a rename, fails when the name is taken: two processes that start at once
    // agree on one file.
    let linked = fs::hard_link(&temporary, path);
    let there = matches!(&linked, Err(e) if e.kind() == io::ErrorKind::AlreadyExists);
    let linked = if there { Ok(()) } else { linked };
    let linked = linked.map_err(|source| io_error("create", path, source));
    let removed = fs::remove_file(&temporary);
    linked?;
    removed.map_err(|source| io_error("remove", &temporary, source))?;
    sync_directory(path)?;
    Ok(!there)
}

/// Removes a file; that there is none is fine.
///
/// # Errors
/// [`PrivateFileError::Io`].
pub fn remove(path: &Path) -> Result<(), PrivateFileError> {
    match fs::remove_file(path) {
        Ok(()) => sync_directory(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(io_error("remove", path, error)),
    }
}

/// Removes what writes of this file left behind that a crash broke off. Nobody may be writing it.
///
/// # Errors
/// [`PrivateFileError::Io`].
pub fn sweep(path: &Path) -> Result<(), PrivateFileError> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name().and_then(OsStr::to_str))
    else {
        return Ok(());
    };
    let io = |source| io_error("examine", parent, source);
    for entry in fs::read_dir(parent).map_err(io)? {
        let entry = entry.map_err(io)?;
        let left = entry.file_name();
        let left = left.to_str().and_then(|left| left.strip_prefix(name)?.strip_prefix('.'));
        let suffix = left.and_then(|left| left.strip_suffix(".tmp"));
        if suffix.is_some_and(|hex| hex.len() == 16 && hex.bytes().all(|b| b.is_ascii_hexdigit())) {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

/// Makes sure that a directory is there and only ours (mode 0700 when it is made here).
///
/// # Errors
/// [`PrivateFileError`] when it cannot be made, or others could write into it.
pub fn directory(path: &Path) -> Result<(), PrivateFileError> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path).map_err(|source| io_error("create", path, source))?;
    let metadata = fs::metadata(path).map_err(|source| io_error("examine", path, source))?;
    check_private(path, &metadata, "700")
}

fn write_temporary(path: &Path, bytes: &[u8]) -> Result<PathBuf, PrivateFileError> {
    let suffix = u64::from_ne_bytes(random()?);
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{suffix:016x}.tmp"));
    let temporary = PathBuf::from(name);
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let write = || -> io::Result<()> {
        let mut file = options.open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    match write() {
        Ok(()) => Ok(temporary),
        Err(source) => {
            fs::remove_file(&temporary).ok();
            Err(io_error("write", &temporary, source))
        }
    }
}

fn finish(
    path: &Path,
    temporary: &Path,
    moved: Result<(), PrivateFileError>,
) -> Result<(), PrivateFileError> {
    if moved.is_err() {
        fs::remove_file(temporary).ok();
    }
    moved?;
    sync_directory(path)
}

/// Makes a rename or removal of `path` durable: it is on disk only once its directory is.
///
/// # Errors
/// What the operating system says.
pub fn sync_parent(path: &Path) -> io::Result<()> {
    #[cfg(unix)]
    {
        let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs::File::open(parent)?.sync_all()
    }
    #[cfg(not(unix))]
    {
        let _elsewhere_the_rename_has_to_do = path;
        Ok(())
    }
}

fn sync_directory(path: &Path) -> Result<(), PrivateFileError> {
    sync_parent(path).map_err(|source| io_error("sync the directory of", path, source))
}

#[cfg(unix)]
fn no_follow(options: &mut OpenOptions) {
    use std::os::unix::fs::OpenOptionsExt as _;
    // NONBLOCK: a FIFO planted under the name must not hang us; it is refused as not plain.
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    options.custom_flags(flags.bits().cast_signed());
}

#[cfg(not(unix))]
fn no_follow(_: &mut OpenOptions) {}

#[cfg(unix)]
fn check_private(
    path: &Path,
    metadata: &fs::Metadata,
    fix: &'static str,
) -> Result<(), PrivateFileError> {
    use std::os::unix::fs::MetadataExt as _;
    let name = || path.display().to_string();
    let user = rustix::process::geteuid().as_raw();
    if metadata.uid() != user {
        return Err(PrivateFileError::NotOurs { path: name(), owner: metadata.uid(), user });
    }
    let mode = metadata.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(PrivateFileError::Exposed { path: name(), mode, fix });
    }
    Ok(())
}

/// Elsewhere the file inherits the access list of the user's own profile directory.
#[cfg(not(unix))]
fn check_private(_: &Path, _: &fs::Metadata, _: &'static str) -> Result<(), PrivateFileError> {
    Ok(())
}

fn io_error(action: &'static str, path: &Path, source: io::Error) -> PrivateFileError {
    PrivateFileError::Io { action, path: path.display().to_string(), source }
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn written_files_are_private_and_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        assert!(read(&path).unwrap().is_none());
        assert!(create(&path, b"one").unwrap());
        assert!(!create(&path, b"two").unwrap());
        assert_eq!(read(&path).unwrap().unwrap(), b"one");
        write(&path, b"three").unwrap();
        assert_eq!(read(&path).unwrap().unwrap(), b"three");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "temporary files are left");
    }

    #[test]
    fn what_a_crash_left_is_swept_away_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens");
        write(&path, b"good").unwrap();
        drop(write_temporary(&path, b"half").unwrap());
        let kept = ["tokens.tmp", "tokens.0123456789abcdeg.tmp", "other.0123456789abcdef.tmp"];
        for name in kept {
            fs::write(dir.path().join(name), b"x").unwrap();
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 5);
        sweep(&path).unwrap();
        assert_eq!(read(&path).unwrap().unwrap(), b"good");
        assert!(kept.iter().all(|name| dir.path().join(name).exists()));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 4);
    }

    #[test]
    fn somebody_elses_file_is_refused_with_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        write(&path, b"x").unwrap();
        // Only root can give a file away; elsewhere there is nothing to test with.
        if std::os::unix::fs::chown(&path, Some(65_534), None).is_err() {
            return;
        }
        let error = read(&path).unwrap_err();
        assert!(matches!(error, PrivateFileError::NotOurs { owner: 65_534, .. }), "{error}");
        assert!(error.to_string().contains("run: chown "), "{error}");
    }

    #[test]
    fn refuses_what_others_can_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        write(&path, b"x").unwrap();
        for mode in [0o640, 0o604, 0o620, 0o777] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert!(matches!(read(&path), Err(PrivateFileError::Exposed { .. })), "{mode:o}");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
        assert!(read(&path).is_ok());
    }

    #[test]
    fn refuses_links_and_devices() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("target");
        write(&target, b"x").unwrap();
        let link = dir.path().join("link");
        symlink(&target, &link).unwrap();
        assert!(read(&link).is_err());
        assert!(read(dir.path()).is_err());
    }

    #[test]
    fn directories_must_be_ours_alone() {
        let dir = tempfile::tempdir().unwrap();
        let made = dir.path().join("a/b");
        directory(&made).unwrap();
        assert_eq!(fs::metadata(&made).unwrap().permissions().mode() & 0o777, 0o700);
        fs::set_permissions(&made, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(matches!(directory(&made), Err(PrivateFileError::Exposed { fix: "700", .. })));
    }
}
