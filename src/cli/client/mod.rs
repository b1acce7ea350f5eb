//! `mcpx client`: connections written into MCP clients' own files, and taken out again.

mod diff;
mod ls;

use std::path::PathBuf;

use clap::ValueEnum;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use serde::Serialize;

use crate::broker::client::file::{ClientFile, FileError};
use crate::broker::client::places::{Client, Machine, Scope, System};
use crate::broker::client::{Added, EditError, EntryName, Format, Removed};
use crate::cli::context::Context;
use crate::cli::error::{CliError, Kind};
use crate::cli::ui::{FAINT, GOOD, STRONG, styled};
use crate::types::ConnectionName;

/// Write connections into MCP clients' own files
#[derive(clap::Args, Debug)]
pub struct ClientArgs {
    #[command(subcommand)]
    verb: ClientVerb,
}

#[derive(clap::Subcommand, Debug)]
enum ClientVerb {
    Add(AddArgs),
    Remove(RemoveArgs),
    Ls(ls::LsArgs),
}

/// Let a client start a connection
///
/// Writes an entry that starts `mcpx connect NAME --stdio` into the client's own file, and nothing
/// else: comments, order and layout stay. The entry holds no secret. The file as it was is kept
/// beside it, with `.mcpx.bak` behind its name.
#[derive(clap::Args, Debug)]
struct AddArgs {
    /// The connection, as `mcpx ls` shows it
    #[arg(value_name = "NAME")]
    connection: ConnectionName,
    /// The client
    #[arg(long, value_name = "CLIENT", value_parser = clients())]
    to: Client,
    #[command(flatten)]
    place: PlaceArgs,
    /// The entry's name [default: the connection's]
    #[arg(long = "as", value_name = "ENTRY")]
    entry: Option<EntryName>,
    /// Overwrite an entry of that name that mcpx did not make
    #[arg(long)]
    force: bool,
}

/// Take a connection out of a client
///
/// Undoes `mcpx client add`: the file is what it was before, to the byte, and gone if it was not
/// there.
#[derive(clap::Args, Debug)]
struct RemoveArgs {
    /// The connection
    #[arg(value_name = "NAME")]
    connection: ConnectionName,
    /// The client
    #[arg(long, value_name = "CLIENT", value_parser = clients())]
    from: Client,
    #[command(flatten)]
    place: PlaceArgs,
    /// Only the entry of this name [default: all that start the connection]
    #[arg(long = "as", value_name = "ENTRY")]
    entry: Option<EntryName>,
    /// Take out an entry of that name even if mcpx did not make it
    #[arg(long)]
    force: bool,
}

#[derive(clap::Args, Debug)]
struct PlaceArgs {
    /// Whose file: the user's, or that of the project in the current directory
    #[arg(long, value_enum, default_value_t = ScopeArg::User)]
    scope: ScopeArg,
    /// Only show what would be written
    #[arg(long)]
    print: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ScopeArg {
    User,
    Project,
}

impl From<ScopeArg> for Scope {
    fn from(scope: ScopeArg) -> Self {
        match scope {
            ScopeArg::User => Self::User,
            ScopeArg::Project => Self::Project,
        }
    }
}

fn clients() -> impl TypedValueParser<Value = Client> {
    let names = Client::all().map(|client| PossibleValue::new(client.id()).help(client.title()));
    PossibleValuesParser::new(names).try_map(|name| name.parse::<Client>())
}

/// Edits a client's file, or lists what is in them.
///
/// # Errors
/// [`CliError`]: the client has no such file, or the file cannot be read, edited or replaced.
pub async fn run(args: ClientArgs, context: &Context) -> Result<(), CliError> {
    let machine = machine()?;
    match args.verb {
        ClientVerb::Add(args) => add(&args, context, &machine),
        ClientVerb::Remove(args) => remove(&args, context, &machine),
        ClientVerb::Ls(args) => ls::run(&args, context, &machine),
    }
}

fn add(args: &AddArgs, context: &Context, machine: &Machine) -> Result<(), CliError> {
    let target = Target::of(args.to, &args.place, machine)?;
    let launch = context.launch(&args.connection)?;
    let entry = args.entry.clone().unwrap_or_else(|| EntryName::from(&args.connection));
    if target.scope == Scope::User && !args.to.sign(machine).exists() && !target.path.exists() {
        let title = args.to.title();
        context
            .ui
            .warn(&format!("{title} was not found on this machine; it gets the entry anyway"));
    }
    target.change(context, |format, file| {
        let added = format.add(file.text(), &entry, &launch, args.force)?;
        let names = vec![entry.as_str().to_owned()];
        Ok(match added {
            Added::Already => (Outcome::Already, names, Next::Same),
            Added::New(text) => (Outcome::Added, names, Next::Text(text)),
            Added::Changed(text) => (Outcome::Changed, names, Next::Text(text)),
        })
    })?;
    if args.place.print {
        return Ok(());
    }
    if target.scope == Scope::Project {
        context.ui.warn(
            "others who use this project's file need mcpx at the same path; --scope user keeps \
             the entry to yourself",
        );
    }
    Ok(())
}

fn remove(args: &RemoveArgs, context: &Context, machine: &Machine) -> Result<(), CliError> {
    let target = Target::of(args.from, &args.place, machine)?;
    target.change(context, |format, file| {
        let Some(text) = file.text() else {
            return Ok((Outcome::Nothing, Vec::new(), Next::Same));
        };
        let removed = format.remove(text, &args.connection, args.entry.as_ref(), args.force)?;
        Ok(match removed {
            Removed::Nothing => (Outcome::Nothing, Vec::new(), Next::Same),
            Removed::Text(text, names) => (Outcome::Removed, names, Next::Text(text)),
            // What is behind a link was not made by us, whatever it holds.
            Removed::File { names, .. } if file.is_link() => {
                (Outcome::Removed, names, Next::Text(format.nothing().to_owned()))
            }
            Removed::File { names, untouched } => {
                (Outcome::Removed, names, Next::NoFile { untouched })
            }
        })
    })
}

/// What an edit came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    Added,
    Changed,
    Already,
    Removed,
    Nothing,
}

/// What becomes of the file.
enum Next {
    Same,
    Text(String),
    NoFile { untouched: bool },
}

#[derive(Serialize)]
struct ChangeJson<'a> {
    client: &'static str,
    scope: &'static str,
    path: String,
    outcome: Outcome,
    entries: &'a [String],
    /// Whether a file was changed.
    written: bool,
    /// Where the file as it was is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    backup: Option<String>,
    /// With --print: the lines that would change.
    #[serde(skip_serializing_if = "Option::is_none")]
    diff: Option<Vec<String>>,
}

/// A client's file, and whether it is only looked at.
struct Target {
    client: Client,
    scope: Scope,
    path: PathBuf,
    print: bool,
}

impl Target {
    fn of(client: Client, place: &PlaceArgs, machine: &Machine) -> Result<Self, CliError> {
        let scope = place.scope.into();
        let path = client.file(machine, scope).ok_or_else(|| {
            let message = format!("{} has no file for a project", client.title());
            CliError::new(Kind::Usage, message).hint("leave out `--scope project`")
        })?;
        Ok(Self { client, scope, path, print: place.print })
    }

    /// Reads, edits and replaces the file, and says what was done. Where another program got in
    /// between, all over again.
    fn change(
        &self,
        context: &Context,
        edit: impl Fn(Format, &ClientFile) -> Result<(Outcome, Vec<String>, Next), EditError>,
    ) -> Result<(), CliError> {
        let mut attempts = 0;
        loop {
            attempts += 1;
            let file = ClientFile::read(&self.path)?;
            let (outcome, entries, next) =
                edit(self.client.format(), &file).map_err(|error| self.refusal(&error))?;
            let new = match &next {
                Next::Same => return self.report(context, outcome, &entries, None, &file, None),
                Next::Text(text) => Some(text.as_str()),
                Next::NoFile { .. } => None,
            };
            if self.print {
                return self.report(context, outcome, &entries, None, &file, Some(new));
            }
            let done = match next {
                Next::NoFile { untouched: true } => file.delete().map(|()| None),
                _ => file.replace(new, self.scope == Scope::User),
            };
            match done {
                Err(FileError::Changed { .. }) if attempts < ATTEMPTS => {}
                Err(error) => return Err(error.into()),
                Ok(backup) => {
                    return self.report(context, outcome, &entries, backup, &file, Some(new));
                }
            }
        }
    }

    /// `new` is what the file holds now, or would hold, if that is something else than before.
    fn report(
        &self,
        context: &Context,
        outcome: Outcome,
        entries: &[String],
        backup: Option<PathBuf>,
        file: &ClientFile,
        new: Option<Option<&str>>,
    ) -> Result<(), CliError> {
        let ui = &context.ui;
        let path = self.path.display().to_string();
        let shown = new.filter(|_| self.print);
        let diff =
            shown.map(|new| diff::lines(file.text().unwrap_or_default(), new.unwrap_or_default()));
        if ui.json() {
            return ui.print_json(&ChangeJson {
                client: self.client.id(),
                scope: self.scope.id(),
                path,
                outcome,
                entries,
                written: new.is_some() && !self.print,
                backup: backup.map(|backup| backup.display().to_string()),
                diff: self.print.then(|| diff.unwrap_or_default()),
            });
        }
        let names = styled(STRONG, &entries.join(", "));
        let (title, path) = (self.client.title(), styled(FAINT, &path));
        if let Some(diff) = &diff {
            ui.status(&match new.flatten() {
                Some(_) => format!("Nothing is written. {title}'s file would change: {path}"),
                None => format!("Nothing is written. {title}'s file would go: {path}"),
            });
            return diff::print(ui, diff);
        }
        match outcome {
            Outcome::Already => ui.status(&format!("{title} has {names} already: {path}")),
            Outcome::Nothing => ui.status(&format!("{title} has no such entry: {path}")),
            _ => {
                let done = match outcome {
                    Outcome::Added => "added to",
                    Outcome::Changed => "changed in",
                    _ => "removed from",
                };
                ui.status(&format!("{} {names} {done} {title}: {path}", styled(GOOD, "ok")));
                if let Some(backup) = backup {
                    let kept = format!("The file as it was: {}", backup.display());
                    ui.status(&styled(FAINT, &kept));
                }
                ui.status(&format!("If {title} is running, restart it or reload its servers."));
            }
        }
        Ok(())
    }

    fn refusal(&self, error: &EditError) -> CliError {
        let path = self.path.display();
        match error {
            EditError::At { .. } => CliError::failure(format!("{path}:{error}"))
                .code("unreadable_file")
                .hint("the file was not touched; correct it there and try again"),
            EditError::NotOurs { name } => CliError::failure(format!(
                "{path} has an entry {:?} that does not start this connection",
                name.as_str()
            ))
            .code("not_ours")
            .hint("name another entry with --as, or say --force; nothing was changed"),
        }
    }
}

impl From<FileError> for CliError {
    fn from(error: FileError) -> Self {
        Self::of(Kind::Failure, &error)
    }
}

const ATTEMPTS: usize = 5;

/// Where things are, from the environment.
fn machine() -> Result<Machine, CliError> {
    let home = etcetera::home_dir().map_err(|error| {
        CliError::failure("there is no home directory").caused_by(Some(&error)).hint("set HOME")
    })?;
    let directory = |name: &str| {
        // A relative path in these variables is no place, as the XDG specification says.
        std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute())
    };
    let project = std::env::current_dir().map_err(|error| {
        CliError::failure("the current directory cannot be named").caused_by(Some(&error))
    })?;
    Ok(Machine {
        system: System::HERE,
        home,
        app_data: directory("APPDATA"),
        xdg_config: directory("XDG_CONFIG_HOME"),
        claude_config: directory("CLAUDE_CONFIG_DIR"),
        codex_home: directory("CODEX_HOME"),
        project,
    })
}
