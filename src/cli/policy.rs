//! `mcpx policy`: questions about policies that need no server.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::ui::{GOOD, styled};
use crate::policy::{PolicySet, Source};

/// Check policies
#[derive(clap::Args, Debug)]
pub struct PolicyArgs {
    #[command(subcommand)]
    verb: PolicyVerb,
}

#[derive(clap::Subcommand, Debug)]
enum PolicyVerb {
    /// Load the policies in a directory as the server would, and say what is wrong with them
    Check {
        /// The directory with the `.cedar` files
        #[arg(value_name = "DIR")]
        directory: PathBuf,
    },
}

#[derive(Serialize)]
struct CheckJson<'a> {
    policies: usize,
    version: &'a str,
}

/// Answers the question.
///
/// # Errors
/// When the policies cannot be loaded, with file, line and column.
pub async fn run(args: PolicyArgs, context: &Context) -> Result<(), CliError> {
    let PolicyVerb::Check { directory } = args.verb;
    let set = PolicySet::parse(&read(&directory)?)?;
    if context.ui.json() {
        let json = CheckJson { policies: set.len(), version: set.version() };
        return context.ui.print_json(&json);
    }
    if set.is_empty() {
        context.ui.warn("there is no policy, so everything is denied");
    }
    context.ui.print(&format!(
        "{} {} policies, version {}",
        styled(GOOD, "ok"),
        set.len(),
        set.version()
    ))
}

fn read(directory: &Path) -> Result<Vec<Source>, CliError> {
    let failed = |path: &Path, error: std::io::Error| {
        CliError::failure(format!("cannot read {}", path.display())).caused_by(Some(&error))
    };
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(|e| failed(directory, e))? {
        let path = entry.map_err(|e| failed(directory, e))?.path();
        if path.extension().is_some_and(|extension| extension == "cedar") {
            paths.push(path);
        }
    }
    paths.sort();
    let source = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).map_err(|error| failed(&path, error))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Source { name, text })
    };
    paths.into_iter().map(source).collect()
}
