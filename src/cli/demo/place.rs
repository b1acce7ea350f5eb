//! The demo's folder: configuration, policies, keys and people, made afresh.

use std::path::{Path, PathBuf};

use crate::cli::error::CliError;
use crate::control::issuer::password;
use crate::identity::private_file;
use crate::types::Secret;

/// One of the demo's people.
pub(super) struct Person {
    /// The name to log in with.
    pub(super) name: &'static str,
    /// What they type.
    pub(super) password: Secret,
    /// What `MCPX_HOME` selects them by.
    pub(super) home: PathBuf,
}

/// The demo's folder.
pub(super) struct Place {
    pub(super) dir: PathBuf,
    pub(super) config: PathBuf,
    pub(super) data: PathBuf,
    pub(super) ready: PathBuf,
    pub(super) customers: PathBuf,
    pub(super) alice: Person,
    pub(super) bob: Person,
}

/// The policies that also ship for people to begin with.
const POLICIES: &str = include_str!("../../../deploy/policies/customers.cedar");

impl Place {
    /// Makes the folder. `program` is this very binary, which is also the sample server.
    pub(super) fn make(dir: &Path, program: &Path) -> Result<Self, CliError> {
        let wrong = |what: &Path, error: &(dyn std::error::Error + 'static)| {
            CliError::failure(format!("cannot write {}", what.display())).caused_by(Some(error))
        };
        private_file::directory(dir).map_err(|error| wrong(dir, &error))?;
        let dir = std::path::absolute(dir).map_err(|error| wrong(dir, &error))?;
        let policies = dir.join("policies");
        std::fs::create_dir_all(&policies).map_err(|error| wrong(&policies, &error))?;
        let customers_policy = policies.join("customers.cedar");
        std::fs::write(&customers_policy, POLICIES)
            .map_err(|error| wrong(&customers_policy, &error))?;

        let person = |name: &'static str| -> Result<Person, CliError> {
            let home = dir.join(name);
            private_file::directory(&home).map_err(|error| wrong(&home, &error))?;
            let password = Secret::generate().map_err(|error| wrong(&home, &error))?;
            Ok(Person { name, password, home })
        };
        let place = Self {
            config: dir.join("mcpx.toml"),
            data: dir.join("data"),
            ready: dir.join("ready.json"),
            customers: dir.join("customers.db"),
            alice: person("alice")?,
            bob: person("bob")?,
            dir,
        };
        let config = place.config(program).map_err(|error| wrong(&place.config, &*error))?;
        private_file::write(&place.config, config.as_bytes())
            .map_err(|error| wrong(&place.config, &error))?;
        Ok(place)
    }

    fn config(&self, program: &Path) -> Result<String, Box<dyn std::error::Error>> {
        let text = |path: &Path| toml::Value::from(path.to_string_lossy().into_owned()).to_string();
        let hash = |person: &Person| -> Result<String, Box<dyn std::error::Error>> {
            Ok(toml::Value::from(password::hash(person.password.expose())?).to_string())
        };
        Ok(format!(
            r#"# Made by `mcpx demo`. docs/configuration.md explains every key.
[server]
listen = "127.0.0.1:0"
data_dir = {data}
drain = "2s"

[policy]
dir = "policies"

# Everything known to be sensitive is masked. Support needs the names, so those stay.
[masking]
off = ["pii.name"]

[approvals]
wait = "2m"

[roles]
auditors = ["leads"]
operators = ["leads"]

[[connection]]
name = "customers"
description = "made-up customers in a SQLite file"
command = [{program}, "demo", "sample-server", {customers}]

# People without an identity provider of their own. Real ones stand in [[issuer]].
[local_issuer]
poll_interval = 1

[[local_issuer.users]]
name = "alice"
email = "alice@example.com"
groups = ["support"]
password_hash = {alice}

[[local_issuer.users]]
name = "bob"
email = "bob@example.com"
groups = ["support", "leads"]
password_hash = {bob}
"#,
            data = text(&self.data),
            program = text(program),
            customers = text(&self.customers),
            alice = hash(&self.alice)?,
            bob = hash(&self.bob)?,
        ))
    }
}
