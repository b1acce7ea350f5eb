//! The installed parts of others: Node, Python and the packages named in `tests/parts`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Deserialize;

use super::{Skip, debian};

/// Where the parts are, and why those that are not there are not.
#[derive(Default, Deserialize)]
pub struct Parts {
    dir: PathBuf,
    node: Option<PathBuf>,
    python: Option<PathBuf>,
    python1: Option<PathBuf>,
    ci: Option<PathBuf>,
    missing: BTreeMap<String, String>,
}

impl Parts {
    /// Installs what is missing into `target/parts`; done in milliseconds when all is there.
    pub fn install() -> Self {
        let (target, setup) = (target(), setup());
        // What is still missing after this is named by the setup, or by the story that needs it.
        for (check, packages) in [
            ("python3 -c 'import ensurepip, venv'", &["python3", "python3-venv"][..]),
            ("command -v npm", &["npm"][..]),
            ("command -v git", &["git"][..]),
        ] {
            let _provided = debian::provides(check, packages);
        }
        let done = Command::new("python3")
            .arg(setup)
            .arg(target)
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output();
        let reason = match done {
            Ok(output) => match serde_json::from_slice(&output.stdout) {
                Ok(parts) => return parts,
                Err(error) => format!("tests/parts/setup.py failed ({}): {error}", output.status),
            },
            Err(error) => format!("python3 cannot be run: {error}"),
        };
        let missing = ["node", "python", "python1", "ci"]
            .map(|part| (part.to_owned(), reason.clone()))
            .into();
        Self { missing, ..Self::default() }
    }

    /// The Node to run scripts with.
    ///
    /// # Errors
    /// [`Skip`] with the reason why there is none.
    pub fn node(&self) -> Result<&Path, Skip> {
        self.node.as_deref().ok_or_else(|| self.skip("node"))
    }

    /// The Python that has the packages.
    ///
    /// # Errors
    /// [`Skip`] with the reason why there is none.
    pub fn python(&self) -> Result<&Path, Skip> {
        self.python.as_deref().ok_or_else(|| self.skip("python"))
    }

    /// A program that a Python package brought.
    ///
    /// # Errors
    /// [`Skip`] with the reason why there is none.
    pub fn python_program(&self, name: &str) -> Result<PathBuf, Skip> {
        Ok(self.python()?.with_file_name(name))
    }

    /// The Python that has what needs version 1 of the package `mcp`.
    ///
    /// # Errors
    /// [`Skip`] with the reason why there is none.
    pub fn python1(&self) -> Result<&Path, Skip> {
        self.python1.as_deref().ok_or_else(|| self.skip("python1"))
    }

    /// The Python that has what CI jobs ask for their token with.
    ///
    /// # Errors
    /// [`Skip`] with the reason why there is none.
    pub fn ci(&self) -> Result<&Path, Skip> {
        self.ci.as_deref().ok_or_else(|| self.skip("ci"))
    }

    /// The Python of a part that few stories need, installed when the first of them asks.
    ///
    /// # Errors
    /// [`Skip`] with the reason why there is none.
    pub fn extra(&self, part: &str) -> Result<PathBuf, Skip> {
        #[derive(Deserialize)]
        struct Extra {
            python: Option<PathBuf>,
            missing: Option<String>,
        }
        let skip = |reason: String| Skip(format!("no {part}: {reason}"));
        let mut command = Command::new("python3");
        command.arg(setup()).arg(target()).arg(part);
        let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output();
        let output = output.map_err(|error| skip(format!("python3 cannot be run: {error}")))?;
        let extra: Extra = serde_json::from_slice(&output.stdout)
            .map_err(|error| skip(format!("tests/parts/setup.py failed: {error}")))?;
        extra.python.ok_or_else(|| skip(extra.missing.unwrap_or_default()))
    }

    /// A script of `tests/parts`, where it can find its packages.
    pub fn script(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// A file of an npm package.
    pub fn package(&self, path: &str) -> PathBuf {
        self.dir.join("node_modules").join(path)
    }

    fn skip(&self, part: &str) -> Skip {
        let reason = self.missing.get(part).map_or("was not installed", String::as_str);
        Skip(format!("no {part}: {reason}"))
    }
}

fn target() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("parts")
}

fn setup() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/parts/setup.py")
}
