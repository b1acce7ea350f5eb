//! `[[connection]]`: the registered MCP servers.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Spanned;
use url::Url;

use super::ConfigError;
use super::credential::CredentialTable;
use super::file::{Place, Span};
use super::secrets::Sources;
use crate::identity::fetch::is_loopback;
use crate::types::{ConnectionName, Secret};
use crate::upstream::backoff::Restart;
use crate::upstream::credential::Credential;
use crate::upstream::sandbox::{Mode, Profile, SYSTEM};
use crate::upstream::stdio::{Keeping, Share};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ConnectionTable {
    name: Spanned<ConnectionName>,
    #[serde(default)]
    description: String,
    url: Option<Spanned<Url>>,
    transport: Option<Spanned<Transport>>,
    streams: Option<Spanned<usize>>,
    #[serde(default)]
    insecure_http: bool,
    credential: Option<Spanned<CredentialTable>>,
    command: Option<Spanned<Vec<String>>>,
    #[serde(default)]
    env: BTreeMap<String, Spanned<EnvValue>>,
    folder: Option<PathBuf>,
    #[serde(default = "processes")]
    processes: usize,
    processes_per_subject: Option<usize>,
    share: Option<Spanned<Share>>,
    #[serde(default)]
    restart: RestartTable,
    sandbox: Option<Spanned<Mode>>,
    #[serde(default)]
    read: Vec<Spanned<PathBuf>>,
    #[serde(default)]
    write: Vec<Spanned<PathBuf>>,
    network: Option<Spanned<bool>>,
}

/// When a child that died is started again.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RestartTable {
    first: Option<Span>,
    most: Option<Span>,
    steady: Option<Span>,
}

impl RestartTable {
    fn checked(&self) -> Restart {
        let usual = Restart::default();
        Restart {
            first: self.first.map_or(usual.first, |span| span.0),
            most: self.most.map_or(usual.most, |span| span.0),
            steady: self.steady.map_or(usual.steady, |span| span.0),
        }
    }
}

fn processes() -> usize {
    32
}

/// What a server at a URL speaks.
#[derive(Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Transport {
    #[default]
    StreamableHttp,
    Sse,
}

const STREAMS: usize = 256;

/// A variable of a child's environment: a text, or where its secret comes from.
#[derive(Deserialize)]
#[serde(untagged)]
enum EnvValue {
    Plain(String),
    From { from: Spanned<String> },
}

/// A checked connection.
pub struct ConnectionSettings {
    /// Its name.
    pub name: ConnectionName,
    /// What it is for.
    pub description: String,
    /// How it is reached.
    pub reach: Reach,
}

/// How an MCP server is reached.
pub enum Reach {
    /// Over Streamable HTTP.
    Http {
        /// Where.
        url: Url,
        /// With which credential.
        credential: Option<Credential>,
    },
    /// Over HTTP+SSE, as before 2025-03-26.
    Sse {
        /// Where event streams are opened.
        url: Url,
        /// With which credential.
        credential: Option<Credential>,
        /// How many streams may be open at a time.
        streams: usize,
    },
    /// As a child process.
    Stdio {
        /// The program, by path.
        program: PathBuf,
        /// Its arguments.
        arguments: Vec<String>,
        /// Its whole environment.
        environment: Vec<(String, Secret)>,
        /// The folder it starts in.
        folder: Option<PathBuf>,
        /// How its processes are kept.
        keeping: Keeping,
        /// What they may reach.
        sandbox: Profile,
    },
}

impl Reach {
    /// What the gateway adds to calls.
    pub fn credential(&self) -> Option<&Credential> {
        match self {
            Self::Http { credential, .. } | Self::Sse { credential, .. } => credential.as_ref(),
            Self::Stdio { .. } => None,
        }
    }
}

pub(super) fn check(
    tables: Vec<Spanned<ConnectionTable>>,
    base: &Path,
    secret: &[PathBuf],
    sources: &Sources<'_>,
    issuers: usize,
) -> Result<Vec<ConnectionSettings>, ConfigError> {
    let place = sources.place();
    let mut connections: Vec<ConnectionSettings> = Vec::new();
    for table in tables {
        let at = table.span().start;
        let table = table.into_inner();
        let name = table.name.get_ref().clone();
        if connections.iter().any(|other| other.name == name) {
            let what = format!("there are two connections named {name}");
            return Err(place.error(table.name.span().start, what));
        }
        let description = table.description.clone();
        let reach = match (&table.url, &table.command) {
            (Some(_), None) => http(&table, sources, issuers)?,
            (None, Some(_)) => stdio(&table, base, secret, sources)?,
            _ => {
                let what = format!("connection {name} needs either url or command, and not both");
                return Err(place.error(at, what));
            }
        };
        connections.push(ConnectionSettings { name, description, reach });
    }
    Ok(connections)
}

fn http(
    table: &ConnectionTable,
    sources: &Sources<'_>,
    issuers: usize,
) -> Result<Reach, ConfigError> {
    let place = sources.place();
    let Some(url) = &table.url else { return Err(place.error(0, "url is missing")) };
    let at = url.span().start;
    let url = url.get_ref();
    let plain = url.scheme() == "http";
    if !plain && url.scheme() != "https" {
        return Err(place.error(at, "the url must be http or https"));
    }
    if plain && !is_loopback(url) && !table.insecure_http {
        let what = "plain http would send calls and credential unprotected; use https, or say \
                    insecure_http = true";
        return Err(place.error(at, what));
    }
    if !url.username().is_empty() || url.password().is_some() {
        let what = "the url holds a password; use [connection.credential]";
        return Err(place.error(at, what));
    }
    if let Some((name, _)) = table.env.iter().next() {
        let what = format!("env ({name}) is for connections with a command");
        return Err(place.error(at, what));
    }
    let share = table.share.as_ref().map(|share| share.span());
    if let Some(span) = share.or(table.sandbox.as_ref().map(|sandbox| sandbox.span())) {
        return Err(place.error(span.start, "this is for connections with a command"));
    }
    let credential = match &table.credential {
        None => None,
        Some(given) => {
            let checked = given.get_ref().checked(given.span().start, sources, issuers);
            Some(checked.map_err(|error| of(&table.name, error))?)
        }
    };
    let url = url.clone();
    let transport = table.transport.as_ref().map(|given| *given.get_ref()).unwrap_or_default();
    match (transport, &table.streams) {
        (Transport::StreamableHttp, None) => Ok(Reach::Http { url, credential }),
        (Transport::StreamableHttp, Some(streams)) => {
            let what = "streams is for connections with transport = \"sse\"";
            Err(place.error(streams.span().start, what))
        }
        (Transport::Sse, Some(streams)) if *streams.get_ref() == 0 => {
            let what = "with no streams nobody could connect";
            Err(place.error(streams.span().start, what))
        }
        (Transport::Sse, streams) => {
            // More than a semaphore counts is as good as no bound.
            let most = streams.as_ref().map_or(STREAMS, |given| *given.get_ref());
            let streams = most.min(tokio::sync::Semaphore::MAX_PERMITS);
            Ok(Reach::Sse { url, credential, streams })
        }
    }
}

fn stdio(
    table: &ConnectionTable,
    base: &Path,
    secret: &[PathBuf],
    sources: &Sources<'_>,
) -> Result<Reach, ConfigError> {
    let place = sources.place();
    let Some(command) = &table.command else { return Err(place.error(0, "command is missing")) };
    let at = command.span().start;
    if let Some(credential) = &table.credential {
        let what = "credential is for connections with a url; put secrets into env";
        return Err(place.error(credential.span().start, what));
    }
    let at_url = [
        ("transport", table.transport.as_ref().map(|given| given.span().start)),
        ("streams", table.streams.as_ref().map(|given| given.span().start)),
    ];
    for (key, given) in at_url {
        if let Some(at) = given {
            return Err(place.error(at, format!("{key} is for connections with a url")));
        }
    }
    let Some((program, arguments)) = command.get_ref().split_first() else {
        return Err(place.error(at, "the command is empty"));
    };
    let program = find_program(program, base)
        .ok_or_else(|| place.error(at, format!("there is no program {program:?}")))?;
    let mut environment = Vec::new();
    for (name, value) in &table.env {
        let secret = match value.get_ref() {
            EnvValue::Plain(text) => Secret::new(text.clone()),
            EnvValue::From { from } => {
                let read = sources.source(from).map_err(|error| of(&table.name, error))?.read_now();
                let at = from.span().start;
                let what = "a process's own secrets are read at start, from env:, file: or \
                            credential: only";
                read.map_err(|error| place.error_chain(at, &error))?
                    .ok_or_else(|| place.error(at, what))?
            }
        };
        environment.push((name.clone(), secret));
    }
    let folder = table.folder.as_ref().map(|folder| base.join(folder));
    let sandbox = sandbox(table, base, &program, folder.as_deref(), secret, place)?;
    let processes = table.processes.max(1);
    let per_subject = table.processes_per_subject.unwrap_or(processes / 2).clamp(1, processes);
    let share = table.share.as_ref().map(|share| *share.get_ref()).unwrap_or_default();
    let keeping = Keeping { share, processes, per_subject, restart: table.restart.checked() };
    let arguments = arguments.to_vec();
    Ok(Reach::Stdio { program, arguments, environment, folder, keeping, sandbox })
}

/// A complaint that names the connection.
fn of(name: &Spanned<ConnectionName>, error: ConfigError) -> ConfigError {
    match error {
        ConfigError::At { file, line, column, what } => {
            let what = format!("connection {}: {what}", name.get_ref());
            ConfigError::At { file, line, column, what }
        }
        other => other,
    }
}

/// What a child may reach. Nothing of what is the server's own may be among it.
fn sandbox(
    table: &ConnectionTable,
    base: &Path,
    program: &Path,
    folder: Option<&Path>,
    secret: &[PathBuf],
    place: &Place<'_>,
) -> Result<Profile, ConfigError> {
    let mode = table.sandbox.as_ref().map(|mode| *mode.get_ref()).unwrap_or_default();
    let at = table.sandbox.as_ref().map_or(0, |mode| mode.span().start);
    if mode == Mode::Off {
        let paths = table.read.iter().chain(&table.write).map(|path| path.span().start);
        let network = table.network.as_ref().map(|network| network.span().start);
        return match paths.chain(network).next() {
            Some(at) => {
                Err(place.error(at, "this has no effect without sandbox = \"try\" or \"require\""))
            }
            None => Ok(Profile::default()),
        };
    }
    let check = |path: &Path, at: usize| -> Result<(), ConfigError> {
        let real = real(path);
        let shows = |kept: &&PathBuf| kept.starts_with(&real) || real.starts_with(kept);
        match secret.iter().find(shows) {
            None => Ok(()),
            Some(kept) => {
                let what = format!(
                    "the sandbox would open {}, and with it {}, which is the server's own",
                    path.display(),
                    kept.display()
                );
                Err(place.error(at, what))
            }
        }
    };
    let named = |paths: &[Spanned<PathBuf>]| -> Result<Vec<PathBuf>, ConfigError> {
        let mut found = Vec::new();
        for path in paths {
            let at = path.span().start;
            let path = base.join(path.get_ref());
            if !path.exists() {
                return Err(place.error(at, format!("there is no {}", path.display())));
            }
            check(&path, at)?;
            found.push(std::path::absolute(&path).unwrap_or(path));
        }
        Ok(found)
    };
    let mut read = named(&table.read)?;
    let write = named(&table.write)?;
    for path in [Some(program), folder].into_iter().flatten() {
        check(path, at)?;
        read.push(std::path::absolute(path).unwrap_or_else(|_| path.to_owned()));
    }
    for path in SYSTEM.iter().map(Path::new).filter(|path| path.exists()) {
        check(path, at)?;
    }
    let network = table.network.as_ref().is_some_and(|network| *network.get_ref());
    Ok(Profile { mode, read, write, network })
}

/// A path without links, as far as it is there.
pub(super) fn real(path: &Path) -> PathBuf {
    let whole = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut missing = Vec::new();
    let mut there = whole.as_path();
    loop {
        if let Ok(real) = there.canonicalize() {
            return missing.iter().rev().fold(real, |path, name| path.join(name));
        }
        let (Some(parent), Some(name)) = (there.parent(), there.file_name()) else {
            return whole.clone();
        };
        missing.push(name.to_owned());
        there = parent;
    }
}

/// A program with a slash in its name is looked for beside the configuration, any other on the
/// server's own `PATH`; the child itself gets no environment but its own.
fn find_program(program: &str, base: &Path) -> Option<PathBuf> {
    if program.contains(std::path::is_separator) {
        let path = std::path::absolute(base.join(program)).ok()?;
        return path.is_file().then_some(path);
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(program)).find(|path| path.is_file())
}
