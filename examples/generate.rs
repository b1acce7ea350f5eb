//! Writes `man/` and `completions/` from the tree of verbs, and `docs/mediation.md` from the table
//! of who may send what: `cargo run --example generate`.
//!
//! `tests/cli_reference.rs` holds what is checked in against what this makes, so a change of the
//! command line or of that table shows in review. The output depends on nothing else: no date, no
//! terminal width, no environment.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap_complete::Shell;

#[path = "generate/mediation.rs"]
mod mediation;

/// Every generated file by its path in the repository.
pub(crate) fn files() -> std::io::Result<BTreeMap<PathBuf, Vec<u8>>> {
    let mut files = BTreeMap::new();
    let mut tree = mcpx::cli::command();
    tree.build();
    manual(&tree, &mut files)?;
    for (shell, name) in
        [(Shell::Bash, "mcpx.bash"), (Shell::Zsh, "_mcpx"), (Shell::Fish, "mcpx.fish")]
    {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut mcpx::cli::command(), "mcpx", &mut script);
        files.insert(Path::new("completions").join(name), script);
    }
    files.insert(PathBuf::from("docs/mediation.md"), mediation::page().into_bytes());
    Ok(files)
}

fn manual(command: &clap::Command, files: &mut BTreeMap<PathBuf, Vec<u8>>) -> std::io::Result<()> {
    let man = clap_mangen::Man::new(command.clone()).date("").manual("mcpx manual");
    let mut page = Vec::new();
    man.render(&mut page)?;
    files.insert(Path::new("man").join(man.get_filename()), page);
    for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
        manual(verb, files)?;
    }
    Ok(())
}

/// Unused where a test takes this file in as a module.
#[allow(dead_code)]
fn main() -> std::io::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = files()?;
    for folder in ["man", "completions"] {
        match std::fs::remove_dir_all(root.join(folder)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => std::fs::create_dir(root.join(folder))?,
        }
    }
    for (path, bytes) in files {
        std::fs::write(root.join(path), bytes)?;
    }
    Ok(())
}
