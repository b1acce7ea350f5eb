//! `mcpx client ls`: which clients are here, and what each reaches through mcpx.

use std::path::Path;

use serde::Serialize;

use crate::broker::client::file::ClientFile;
use crate::broker::client::places::{Client, Machine, Scope};
use crate::cli::context::Context;
use crate::cli::error::CliError;

/// List the clients on this machine, and their connections through mcpx
///
/// Looks at the user's files and at those of the project in the current directory.
#[derive(clap::Args, Debug)]
pub(super) struct LsArgs {}

#[derive(Serialize)]
struct ClientJson {
    client: &'static str,
    title: &'static str,
    /// Whether the client was used on this machine, as far as its files tell.
    found: bool,
    files: Vec<FileJson>,
}

#[derive(Serialize)]
struct FileJson {
    scope: &'static str,
    path: String,
    exists: bool,
    connections: Vec<EntryJson>,
    /// Why the file cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

#[derive(Serialize)]
struct EntryJson {
    entry: String,
    connection: String,
    program: String,
    /// Whether the program that the entry starts is there.
    program_exists: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    home: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    server: Option<String>,
}

pub(super) fn run(_args: &LsArgs, context: &Context, machine: &Machine) -> Result<(), CliError> {
    let ui = &context.ui;
    let clients: Vec<ClientJson> = Client::all().map(|client| look(client, machine)).collect();
    if ui.json() {
        return ui.print_json(&clients);
    }
    let mut rows = Vec::new();
    for client in clients.iter() {
        for file in &client.files {
            if let Some(error) = &file.error {
                ui.warn(&crate::cli::text::clean(error));
            }
            let shown = file.exists || (client.found && file.scope == Scope::User.id());
            if shown && file.error.is_none() {
                let connections: Vec<String> =
                    file.connections.iter().map(EntryJson::text).collect();
                rows.push(vec![
                    client.title.to_owned(),
                    file.scope.to_owned(),
                    if connections.is_empty() { "-".to_owned() } else { connections.join(", ") },
                    file.path.clone(),
                ]);
            }
        }
    }
    if !rows.is_empty() {
        ui.table(&["client", "scope", "connections", "file"], rows)?;
    }
    let absent: Vec<&str> = clients.iter().filter(|c| !c.found).map(|c| c.title).collect();
    if !absent.is_empty() {
        ui.status(&format!("Not found on this machine: {}.", absent.join(", ")));
    }
    Ok(())
}

fn look(client: Client, machine: &Machine) -> ClientJson {
    let files: Vec<FileJson> = [Scope::User, Scope::Project]
        .into_iter()
        .filter_map(|scope| Some(look_into(client, scope, &client.file(machine, scope)?)))
        .collect();
    let found = client.sign(machine).exists()
        || files.iter().any(|file| file.exists && file.scope == Scope::User.id());
    ClientJson { client: client.id(), title: client.title(), found, files }
}

fn look_into(client: Client, scope: Scope, path: &Path) -> FileJson {
    let mut found = FileJson {
        scope: scope.id(),
        path: path.display().to_string(),
        exists: path.exists(),
        connections: Vec::new(),
        error: None,
    };
    let file = match ClientFile::read(path) {
        Ok(file) => file,
        Err(error) => {
            found.error = Some(error.to_string());
            return found;
        }
    };
    match file.text().map(|text| client.format().entries(text)) {
        None => {}
        Some(Err(error)) => found.error = Some(format!("{}:{error}", found.path)),
        Some(Ok(entries)) => {
            let ours = entries.into_iter().filter_map(|entry| Some((entry.name, entry.launch?)));
            found.connections = ours
                .map(|(entry, launch)| EntryJson {
                    entry,
                    connection: launch.connection.as_str().to_owned(),
                    // Without a directory the client looks in its PATH, which is not ours.
                    program_exists: Path::new(&launch.program).components().count() == 1
                        || Path::new(&launch.program).exists(),
                    program: launch.program,
                    home: launch.home,
                    server: launch.server,
                })
                .collect();
        }
    }
    found
}

impl EntryJson {
    fn text(&self) -> String {
        let mut text = self.connection.clone();
        if self.entry != self.connection {
            text = format!("{text} (as {})", self.entry);
        }
        if !self.program_exists {
            text = format!("{text} ({} is gone)", self.program);
        }
        text
    }
}
