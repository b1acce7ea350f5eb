//! A client's file on disk: read whole, replaced whole, with a copy of what it was beside it.
//!
//! A crash at any point leaves the old file or the new one. The new one has the mode of the old
//! one, and a link keeps pointing where it did: what is behind it is replaced.

use std::fs::{self, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use super::EditError;
use crate::identity::private_file::{self, PrivateFileError};
use crate::types::{RandomError, random};

/// No file that a person keeps settings in is larger. (`~/.claude.json` grows to some megabytes.)
const MAX_SIZE: u64 = 64 * 1024 * 1024;

/// A client's file could not be read or replaced.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The operating system refused.
    #[error("cannot {action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A directory, a device, or beyond any sensible size.
    #[error("{path} is not a plain file of reasonable size")]
    NotPlain {
        /// The path.
        path: String,
    },
    /// A link to a file that is not there: where to write is the user's to say.
    #[error("{path} is a link to a file that does not exist")]
    Dangling {
        /// The link.
        path: String,
    },
    /// Bytes that are no text.
    #[error("{path}: {source}")]
    NotText {
        /// The file.
        path: String,
        /// Where.
        #[source]
        source: EditError,
    },
    /// The client, or another mcpx, wrote the file in between.
    #[error("{path} was changed by another program meanwhile")]
    Changed {
        /// The file.
        path: String,
    },
    /// The copy could not be written; the file was not touched.
    #[error("cannot keep a copy of {path}")]
    Backup {
        /// The file.
        path: String,
        /// Why not.
        #[source]
        source: PrivateFileError,
    },
    /// No randomness for a temporary name.
    #[error(transparent)]
    Random(#[from] RandomError),
}

/// A client's file as it was read.
#[derive(Clone, Debug)]
pub struct ClientFile {
    /// As the client names it.
    path: PathBuf,
    /// Behind all links.
    real: PathBuf,
    text: Option<String>,
}

impl ClientFile {
    /// Reads a file; that there is none is fine.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn read(path: &Path) -> Result<Self, FileError> {
        let path = path.to_owned();
        let name = || path.display().to_string();
        let real = match fs::canonicalize(&path) {
            Ok(real) => real,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return match fs::symlink_metadata(&path) {
                    Ok(_) => Err(FileError::Dangling { path: name() }),
                    Err(_) => Ok(Self { real: path.clone(), path, text: None }),
                };
            }
            Err(error) => return Err(failed("find", &path, error)),
        };
        let bytes = read(&real)?;
        let text = String::from_utf8(bytes).map_err(|error| {
            let valid = error.utf8_error().valid_up_to();
            let text = String::from_utf8_lossy(error.as_bytes()).into_owned();
            let source = EditError::at(&text, valid, "not UTF-8 text");
            FileError::NotText { path: name(), source }
        })?;
        Ok(Self { path, real, text: Some(text) })
    }

    /// What it holds; `None` when there is no file.
    pub fn text(&self) -> Option<&str> {
        self.text.as_deref()
    }

    /// As the client names it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the path is a link, whose target is not ours to delete.
    pub fn is_link(&self) -> bool {
        fs::symlink_metadata(&self.path).is_ok_and(|metadata| metadata.is_symlink())
    }

    /// Where the copy of the old content is kept: one per file, of the last change.
    pub fn backup(&self) -> PathBuf {
        beside(&self.real, "mcpx.bak")
    }

    /// Deletes the file without a copy: for one that is to the byte what we wrote.
    ///
    /// # Errors
    /// [`FileError`]; the file then still stands.
    pub fn delete(&self) -> Result<(), FileError> {
        self.check_unchanged()?;
        fs::remove_file(&self.real).map_err(|error| failed("remove", &self.real, error))?;
        sync_directory(&self.real)
    }

    /// Replaces the file, or deletes it for `None`. `private` is the mode of a new file: 0600, or
    /// what the user's mask gives. Says where the copy of the old content is, if there was any.
    ///
    /// # Errors
    /// [`FileError`]; the old content then still stands.
    pub fn replace(&self, new: Option<&str>, private: bool) -> Result<Option<PathBuf>, FileError> {
        let backup = match &self.text {
            Some(text) => {
                let backup = self.backup();
                let failed = |source| FileError::Backup { path: self.name(), source };
                private_file::write(&backup, text.as_bytes()).map_err(failed)?;
                Some(backup)
            }
            None => None,
        };
        match new {
            Some(new) => self.write(new, private)?,
            None => self.delete()?,
        }
        Ok(backup)
    }

    fn write(&self, new: &str, private: bool) -> Result<(), FileError> {
        if let Some(directory) = self.real.parent() {
            fs::create_dir_all(directory).map_err(|e| failed("create", directory, e))?;
        }
        let suffix = u64::from_ne_bytes(random()?);
        let temporary = beside(&self.real, &format!("{suffix:016x}.tmp"));
        let outcome = self.write_temporary(&temporary, new, private).and_then(|()| {
            // As late as can be: Claude Code, for one, rewrites its file all the time.
            self.check_unchanged()?;
            fs::rename(&temporary, &self.real).map_err(|e| failed("replace", &self.real, e))
        });
        if outcome.is_err() {
            fs::remove_file(&temporary).ok();
        }
        outcome?;
        sync_directory(&self.real)
    }

    fn write_temporary(&self, path: &Path, new: &str, private: bool) -> Result<(), FileError> {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        // Private until it has the mode of the old one, which may be secret.
        #[cfg(unix)]
        if private || self.text.is_some() {
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        }
        #[cfg(not(unix))]
        let _ = private;
        let write = || -> io::Result<()> {
            let mut file = options.open(path)?;
            file.write_all(new.as_bytes())?;
            if self.text.is_some() {
                file.set_permissions(fs::metadata(&self.real)?.permissions())?;
            }
            file.sync_all()
        };
        write().map_err(|error| failed("write", path, error))
    }

    fn check_unchanged(&self) -> Result<(), FileError> {
        let now = match fs::symlink_metadata(&self.real) {
            Ok(_) => Some(read(&self.real)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(failed("examine", &self.real, error)),
        };
        if now.as_deref() == self.text.as_ref().map(|text| text.as_bytes()) {
            Ok(())
        } else {
            Err(FileError::Changed { path: self.name() })
        }
    }

    fn name(&self) -> String {
        self.path.display().to_string()
    }
}

fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    let metadata = fs::metadata(path).map_err(|error| failed("examine", path, error))?;
    if !metadata.is_file() || metadata.len() > MAX_SIZE {
        return Err(FileError::NotPlain { path: path.display().to_string() });
    }
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(|error| failed("open", path, error))?;
    file.take(MAX_SIZE).read_to_end(&mut bytes).map_err(|error| failed("read", path, error))?;
    Ok(bytes)
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    PathBuf::from(name)
}

fn sync_directory(path: &Path) -> Result<(), FileError> {
    private_file::sync_parent(path).map_err(|error| failed("sync the directory of", path, error))
}

fn failed(action: &'static str, path: &Path, source: io::Error) -> FileError {
    FileError::Io { action, path: path.display().to_string(), source }
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn the_mode_stays_and_the_copy_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("settings.json");
        fs::write(&path, "old").unwrap();
        for bits in [0o600, 0o640, 0o664] {
            fs::set_permissions(&path, fs::Permissions::from_mode(bits)).unwrap();
            let file = ClientFile::read(&path).unwrap();
            let backup = file.replace(Some("new"), true).unwrap().unwrap();
            assert_eq!((mode(&path), mode(&backup)), (bits, 0o600));
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "one copy, no temporary file");
    }

    #[test]
    fn a_new_file_and_its_folder_are_made() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b/mcp.json");
        let file = ClientFile::read(&path).unwrap();
        assert!(file.text().is_none());
        assert_eq!(file.replace(Some("{}"), true).unwrap(), None);
        assert_eq!(mode(&path), 0o600);
        let file = ClientFile::read(&path).unwrap();
        assert!(file.replace(None, true).unwrap().is_some() && !path.exists());
    }

    #[test]
    fn links_stay_links() {
        let dir = tempfile::tempdir().unwrap();
        let (real, link) = (dir.path().join("dotfiles.json"), dir.path().join("link"));
        fs::write(&real, "old").unwrap();
        symlink("dotfiles.json", &link).unwrap();
        let file = ClientFile::read(&link).unwrap();
        assert!(file.is_link());
        file.replace(Some("new"), true).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_to_string(&real).unwrap(), "new");
        fs::remove_file(&real).unwrap();
        assert!(matches!(ClientFile::read(&link), Err(FileError::Dangling { .. })));
    }

    #[test]
    fn what_another_program_wrote_meanwhile_is_not_lost() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.json");
        let absent = ClientFile::read(&path).unwrap();
        fs::write(&path, "theirs").unwrap();
        assert!(matches!(absent.replace(Some("ours"), true), Err(FileError::Changed { .. })));
        let file = ClientFile::read(&path).unwrap();
        fs::write(&path, "theirs, later").unwrap();
        for new in [Some("ours"), None] {
            assert!(matches!(file.replace(new, true), Err(FileError::Changed { .. })));
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), "theirs, later");
    }

    #[test]
    fn what_is_no_text_is_refused_by_line_and_column() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.json");
        fs::write(&path, b"{\n \xff}").unwrap();
        let error = ClientFile::read(&path).unwrap_err().to_string();
        assert!(error.ends_with("x.json: 2:2: not UTF-8 text"), "{error}");
        assert!(matches!(ClientFile::read(dir.path()), Err(FileError::NotPlain { .. })));
    }
}
