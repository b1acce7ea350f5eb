//! The entries in MCP clients' own files that start `mcpx connect NAME --stdio`.
//!
//! | file | owns |
//! |---|---|
//! | this | what an entry of ours says, and which entries are ours |
//! | [`places`] | the table of clients: their files, per operating system and scope |
//! | [`json`] | edits of JSON with comments |
//! | [`toml`] | edits of TOML |
//! | [`mod@file`] | reading a client's file and replacing it |
//!
//! The edits are pure: text in, text out. They splice into the original text, so that comments,
//! order and layout stay, and what an addition put in a removal takes out to the byte. No secret
//! is ever part of an entry.

pub mod file;
pub mod json;
pub mod places;
pub mod toml;

use std::str::FromStr;

use crate::types::{ConnectionName, InvalidText};

/// An edit that was not made; the text stays as it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// The file is not what its client reads, or is written in a way that is not edited here.
    #[error("{line}:{column}: {what}")]
    At {
        /// 1-based line.
        line: usize,
        /// 1-based column, in characters.
        column: usize,
        /// What is wrong there.
        what: String,
    },
    /// Somebody else's entry has the name.
    #[error("the entry {name:?} was not made by mcpx")]
    NotOurs {
        /// The entry.
        name: EntryName,
    },
}

impl EditError {
    /// A complaint about the text at a byte.
    fn at(text: &str, byte: usize, what: impl Into<String>) -> Self {
        let before = text.get(..byte).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Self::At {
            line: before.matches('\n').count() + 1,
            column: before.get(line_start..).unwrap_or_default().chars().count() + 1,
            what: what.into(),
        }
    }
}

/// An entry's name: 1 to 64 of letters, digits, `-` and `_`, which every client takes (Claude Code
/// and Codex take no other).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct EntryName(String);

impl EntryName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&ConnectionName> for EntryName {
    fn from(connection: &ConnectionName) -> Self {
        // A connection's name is made of fewer letters and is shorter.
        Self(connection.as_str().to_owned())
    }
}

impl FromStr for EntryName {
    type Err = InvalidText;
    fn from_str(text: &str) -> Result<Self, InvalidText> {
        let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
        if (1..=64).contains(&text.len()) && text.bytes().all(good) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidText {
                what: "entry name",
                why: "must be 1 to 64 letters, digits, - or _".to_owned(),
            })
        }
    }
}

/// How an entry starts us. Clients start programs without the user's PATH and with few variables,
/// so all that steers the process is in its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// The program, by its whole path.
    pub program: String,
    /// The connection.
    pub connection: ConnectionName,
    /// The home, where it is not the usual one.
    pub home: Option<String>,
    /// The control server, where one was named.
    pub server: Option<String>,
}

impl Launch {
    /// The arguments.
    pub fn arguments(&self) -> Vec<String> {
        let words = ["connect", self.connection.as_str(), "--stdio"];
        let mut arguments = words.map(str::to_owned).to_vec();
        for (flag, value) in [("--home", &self.home), ("--server", &self.server)] {
            if let Some(value) = value {
                arguments.extend([flag.to_owned(), value.clone()]);
            }
        }
        arguments
    }

    /// Reads an entry's command; `None` for one that is not ours. Arguments that a user added
    /// (`--reason TEXT`) do not make it somebody else's.
    pub fn read(command: &str, arguments: &[&str]) -> Option<Self> {
        let program = command.rsplit(['/', '\\']).next()?.strip_prefix("mcpx")?;
        // `mcpx.exe`, `mcpx-0.2`, but not `mcpxtra`.
        if program.starts_with(|c: char| c.is_alphanumeric()) {
            return None;
        }
        let (mut words, mut stdio, mut home, mut server) = (Vec::new(), false, None, None);
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            let (flag, given) = match argument.split_once('=') {
                Some((flag, value)) => (flag, Some(value)),
                None => (*argument, None),
            };
            let mut value = || given.or_else(|| rest.next().copied()).map(str::to_owned);
            match flag {
                "--stdio" => stdio = true,
                "--home" => home = Some(value()?),
                "--server" => server = Some(value()?),
                "--reason" | "--log" => drop(value()?),
                flag if flag.starts_with('-') => {}
                _ => words.push(*argument),
            }
        }
        match (words.as_slice(), stdio) {
            (["connect", name], true) => {
                Some(Self { program: command.into(), connection: name.parse().ok()?, home, server })
            }
            _ => None,
        }
    }
}

/// An entry found in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Existing {
    /// Its name, as written.
    pub name: String,
    /// How it starts us; `None` for an entry that is not ours.
    pub launch: Option<Launch>,
}

/// How a client writes its entries down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// An object of entries in a JSON file, which may hold comments.
    Json(json::Shape),
    /// Tables `[TABLE.NAME]` in a TOML file.
    Toml(&'static str),
}

/// What adding came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Added {
    /// The same entry is there.
    Already,
    /// The text to write: a new entry.
    New(String),
    /// The text to write: the entry now starts us otherwise.
    Changed(String),
}

/// What removing came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removed {
    /// There was nothing to remove.
    Nothing,
    /// The text to write, and the names of the entries that were taken out.
    Text(String, Vec<String>),
    /// The file held nothing but what was added, and goes.
    File {
        /// The entries that were taken out.
        names: Vec<String>,
        /// Whether it is to the byte what an addition writes, so that no copy is worth keeping.
        untouched: bool,
    },
}

impl Format {
    /// A file without anything in it.
    pub fn nothing(&self) -> &'static str {
        match self {
            Self::Json(_) => "{}\n",
            Self::Toml(_) => "",
        }
    }

    /// The entries in a file.
    ///
    /// # Errors
    /// [`EditError::At`] for a file that cannot be read.
    pub fn entries(&self, text: &str) -> Result<Vec<Existing>, EditError> {
        match self {
            Self::Json(shape) => json::entries(text, *shape),
            Self::Toml(table) => toml::entries(text, table),
        }
    }

    /// Adds an entry. One of ours under the same name is changed in place; one that is not ours is
    /// overwritten only with `force`.
    ///
    /// # Errors
    /// [`EditError`]; nothing is changed.
    pub fn add(
        &self,
        text: Option<&str>,
        name: &EntryName,
        launch: &Launch,
        force: bool,
    ) -> Result<Added, EditError> {
        let before = text.map_or(Ok(Vec::new()), |text| self.entries(text))?;
        let there = before.iter().find(|entry| entry.name == name.as_str());
        let (new, is_new) = match (there, text) {
            (None, _) | (_, None) => {
                let new = match self {
                    Self::Json(shape) => json::insert(text, *shape, name, launch)?,
                    Self::Toml(table) => toml::insert(text, table, name, launch)?,
                };
                (new, true)
            }
            (Some(Existing { launch: Some(old), .. }), _) if old == launch => {
                return Ok(Added::Already);
            }
            (Some(Existing { launch: Some(_), .. }), Some(text)) => {
                let new = match self {
                    Self::Json(shape) => json::update(text, *shape, name, launch)?,
                    Self::Toml(table) => toml::update(text, table, name, launch)?,
                };
                (new, false)
            }
            (Some(_), Some(text)) if force => {
                let new = match self {
                    Self::Json(shape) => json::overwrite(text, *shape, name, launch)?,
                    Self::Toml(table) => toml::overwrite(text, table, name, launch)?,
                };
                (new, false)
            }
            (Some(_), Some(_)) => return Err(EditError::NotOurs { name: name.clone() }),
        };
        let (ours, others): (Vec<_>, Vec<_>) =
            self.entries(&new)?.into_iter().partition(|entry| entry.name == name.as_str());
        let kept = before.iter().filter(|entry| entry.name != name.as_str());
        let good = kept.eq(&others) && ours.iter().map(|e| e.launch.as_ref()).eq([Some(launch)]);
        match (good, is_new) {
            (false, _) => Err(self.unsafe_edit(text.unwrap_or_default())),
            (true, true) => Ok(Added::New(new)),
            (true, false) => Ok(Added::Changed(new)),
        }
    }

    /// Removes our entries for a connection, or the one of them with the name given. An entry that
    /// is not ours goes only by its name, with `force`.
    ///
    /// # Errors
    /// [`EditError`]; nothing is changed.
    pub fn remove(
        &self,
        text: &str,
        connection: &ConnectionName,
        only: Option<&EntryName>,
        force: bool,
    ) -> Result<Removed, EditError> {
        let entries = self.entries(text)?;
        let named = |entry: &Existing| only.is_none_or(|only| entry.name == only.as_str());
        let ours = |entry: &Existing| {
            entry.launch.as_ref().is_some_and(|launch| launch.connection == *connection)
        };
        let mut names: Vec<String> =
            entries.iter().filter(|e| ours(e) && named(e)).map(|e| e.name.clone()).collect();
        if names.is_empty() {
            let name = only.cloned().unwrap_or_else(|| EntryName::from(connection));
            match entries.iter().find(|entry| entry.name == name.as_str()) {
                None => return Ok(Removed::Nothing),
                Some(_) if force => names.push(name.as_str().to_owned()),
                // Ours, but of another connection, is somebody else's as well.
                Some(_) => return Err(EditError::NotOurs { name }),
            }
        }
        let mut rest = text.to_owned();
        for name in &names {
            let taken = match self {
                Self::Json(shape) => json::take(&rest, *shape, name)?,
                Self::Toml(table) => toml::take(&rest, table, name)?,
            };
            match taken {
                Some(text) => rest = text,
                None => {
                    let untouched = self.is_untouched(&rest, name)?;
                    return Ok(Removed::File { untouched: untouched && names.len() == 1, names });
                }
            }
        }
        let kept = entries.iter().filter(|entry| !names.contains(&entry.name));
        if kept.eq(&self.entries(&rest)?) {
            Ok(Removed::Text(rest, names))
        } else {
            Err(self.unsafe_edit(text))
        }
    }

    /// Every edit is read again before it is handed out: a file laid out in a way that nobody
    /// thought of is left alone.
    fn unsafe_edit(&self, text: &str) -> EditError {
        EditError::at(text, 0, "is laid out in a way that cannot be edited; do it by hand")
    }

    fn is_untouched(&self, text: &str, name: &str) -> Result<bool, EditError> {
        let ours = self.entries(text)?.into_iter().find(|entry| entry.name == name);
        let Some((launch, Ok(name))) = ours.and_then(|e| Some((e.launch?, e.name.parse()))) else {
            return Ok(false);
        };
        Ok(self.add(None, &name, &launch, false)? == Added::New(text.to_owned()))
    }
}

#[cfg(test)]
mod tests;
