//! `mcpx audit`: the log, checked by the one who asks and not by the server.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::audit::{Broken, LogCheck, SignedCheckpoint, VerifierKey, VerifyError, verify_folder};
use crate::broker::home::Home;
use crate::broker::remote::{Remote, RemoteError};
use crate::cli::context::Context;
use crate::cli::error::{CliError, Kind};
use crate::cli::serve::LOG_KEY;
use crate::cli::text::clean;
use crate::cli::ui::{GOOD, styled};

/// Check the audit log
#[derive(clap::Args, Debug)]
pub struct AuditArgs {
    #[command(subcommand)]
    verb: AuditVerb,
}

#[derive(clap::Subcommand, Debug)]
enum AuditVerb {
    Verify(VerifyArgs),
}

/// Verify every record of the log, its tree, and its signature
///
/// Fetches the log from the server and checks it here, against the key that the server had when
/// you logged in and the checkpoint remembered from the last time: a log that was rewritten or cut
/// fails even if it was signed again. With --dir the same for a folder.
///
/// Ends with code 8 and names the first bad record when something does not add up.
#[derive(clap::Args, Debug)]
struct VerifyArgs {
    /// A server's data directory, or a log's folder, instead of the server's log
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// The log's verifier key that you trust [default: the one that lies beside the log]
    #[arg(long, value_name = "VKEY", requires = "dir")]
    key: Option<String>,
}

#[derive(Serialize)]
struct VerifyJson<'a> {
    origin: &'a str,
    size: u64,
    root: String,
    /// The size of the checkpoint that the log was found consistent with.
    consistent_with: Option<u64>,
    checkpoint: &'a str,
}

/// The newest verified checkpoint of each log, by the log's key.
#[derive(Default, Serialize, Deserialize)]
struct Remembered(std::collections::BTreeMap<String, String>);

/// Verifies the log.
///
/// # Errors
/// [`Kind::Integrity`] when the log does not add up.
pub async fn run(args: AuditArgs, context: &Context) -> Result<(), CliError> {
    let AuditVerb::Verify(VerifyArgs { dir, key }) = args.verb;
    match (dir, key) {
        (Some(dir), key) => {
            let (dir, key) = locate(dir, key, context)?;
            let key = parse_key(&key)?;
            let worker = tokio::task::spawn_blocking(move || verify_folder(&dir, &key, None));
            let report = worker
                .await
                .map_err(|error| CliError::failure("interrupted").caused_by(Some(&error)))?
                .map_err(|error| match error {
                    VerifyError::Broken(broken) => broken.into(),
                    error @ VerifyError::Fetch { .. } => CliError::of(Kind::Failure, &error),
                })?;
            tell(context, &report.checkpoint, None)
        }
        (None, _) => verify_server(context).await,
    }
}

/// The log's folder and key: a data directory holds both.
fn locate(
    dir: PathBuf,
    key: Option<String>,
    context: &Context,
) -> Result<(PathBuf, String), CliError> {
    let inside = dir.join("log");
    let log = if inside.is_dir() { inside } else { dir.clone() };
    if let Some(key) = key {
        return Ok((log, key));
    }
    let beside = log.parent().unwrap_or(&dir).join(LOG_KEY);
    let key = std::fs::read_to_string(&beside).map_err(|error| {
        CliError::new(Kind::Usage, format!("cannot read the log's key {}", beside.display()))
            .caused_by(Some(&error))
            .hint("give the key that you trust with --key")
    })?;
    context.ui.warn("the key lies beside the log; give the one that you trust with --key");
    Ok((log, key.trim().to_owned()))
}

async fn verify_server(context: &Context) -> Result<(), CliError> {
    let login = context.login()?;
    let text = login.server().log_key.clone();
    let key = parse_key(&text)?;
    let home = context.home()?;
    let mut remembered: Remembered = home.read_json(FILE)?.unwrap_or_default();
    let old = match remembered.0.get(&text) {
        Some(note) => Some(key.verify(note.as_bytes()).map_err(|error| {
            CliError::failure(format!("{} is damaged", home.file(FILE).display()))
                .caused_by(Some(&error))
                .hint("find out who changed it; delete it to begin anew")
        })?),
        None => None,
    };
    let spinner = context.ui.spinner("checking every record");
    let checked = check(&context.remote().await?, &key, old.as_ref()).await;
    drop(spinner);
    let new = checked?;
    remember(&home, &mut remembered, text, &new)?;
    tell(context, &new, old.as_ref())
}

async fn check(
    remote: &Remote,
    key: &VerifierKey,
    old: Option<&SignedCheckpoint>,
) -> Result<SignedCheckpoint, CliError> {
    let note = remote.log_file("checkpoint").await?;
    let mut check = LogCheck::new(key, old.map(SignedCheckpoint::checkpoint), &note)?;
    while let Some(tile) = check.wants() {
        let mut bytes = fetch(remote, &tile.path()).await?;
        if bytes.is_none() && !tile.is_full() {
            bytes = fetch(remote, &tile.full().path()).await?;
        }
        check.accept(bytes.as_deref())?;
    }
    Ok(check.finish()?)
}

async fn fetch(remote: &Remote, path: &str) -> Result<Option<bytes::Bytes>, CliError> {
    match remote.log_file(path).await {
        Ok(bytes) => Ok(Some(bytes)),
        Err(RemoteError::Refused(problem)) if problem.status.as_u16() == 404 => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn remember(
    home: &Home,
    remembered: &mut Remembered,
    key: String,
    checkpoint: &SignedCheckpoint,
) -> Result<(), CliError> {
    remembered.0.insert(key, checkpoint.note().to_owned());
    Ok(home.write_json(FILE, remembered)?)
}

fn tell(
    context: &Context,
    new: &SignedCheckpoint,
    old: Option<&SignedCheckpoint>,
) -> Result<(), CliError> {
    let checkpoint = new.checkpoint();
    let before = old.map(|old| old.checkpoint().size);
    if context.ui.json() {
        return context.ui.print_json(&VerifyJson {
            origin: &checkpoint.origin,
            size: checkpoint.size,
            root: checkpoint.root.to_string(),
            consistent_with: before,
            checkpoint: new.note(),
        });
    }
    let consistent = match before {
        Some(before) => format!("; consistent with the {before} seen before"),
        None => "; nothing was remembered to compare with".to_owned(),
    };
    context.ui.print(&format!(
        "{} {} records of {} verified{consistent}",
        styled(GOOD, "ok"),
        checkpoint.size,
        clean(&checkpoint.origin),
    ))
}

fn parse_key(text: &str) -> Result<VerifierKey, CliError> {
    text.parse().map_err(|error: crate::types::InvalidText| {
        CliError::new(Kind::Usage, "the log's verifier key cannot be read").caused_by(Some(&error))
    })
}

impl From<Broken> for CliError {
    fn from(broken: Broken) -> Self {
        let message = match broken.index {
            Some(index) => format!("the audit log does not add up from record {index} on"),
            None => "the audit log does not add up".to_owned(),
        };
        Self::new(Kind::Integrity, message)
            .caused_by(Some(&broken))
            .hint("keep what you have, and tell whoever is responsible for the log")
    }
}

const FILE: &str = "checkpoints.json";
