//! What a verb is given besides its own arguments: how to speak, and the way to home, login and
//! server.

use std::path::PathBuf;
use std::sync::Arc;

use etcetera::BaseStrategy as _;
use serde::{Deserialize, Serialize};
use url::Url;

use crate::broker::client::Launch;
use crate::broker::grant::{GrantSource, IdentitySource};
use crate::broker::home::Home;
use crate::broker::login::Login;
use crate::broker::remote::Remote;
use crate::broker::server::{self, ServerInfo};
use crate::broker::workload::WorkloadError;
use crate::broker::{channel::Channel, grant::ExchangeError};
use crate::cli::error::{CliError, Kind};
use crate::cli::ui::Ui;
use crate::cli::workload::{self, WorkloadArgs};
use crate::types::{Clock, ConnectionName, SystemClock};

/// What every verb is given besides its own arguments.
#[derive(Clone, Debug)]
pub struct Context {
    /// How to speak.
    pub ui: Ui,
    /// `--home` or `MCPX_HOME`.
    pub home: Option<PathBuf>,
    /// `--server` or `MCPX_SERVER`.
    pub server: Option<String>,
}

impl Context {
    /// The time.
    pub fn clock(&self) -> Arc<dyn Clock> {
        Arc::new(SystemClock)
    }

    /// The directory with the user's login, made if there is none.
    ///
    /// # Errors
    /// When it cannot be made or is open to others.
    pub fn home(&self) -> Result<Home, CliError> {
        let path = match &self.home {
            Some(path) => path.clone(),
            None => etcetera::choose_base_strategy()
                .map_err(|error| {
                    CliError::failure("there is no home directory to keep logins in")
                        .caused_by(Some(&error))
                        .hint("set MCPX_HOME to a directory")
                })?
                .data_dir()
                .join("mcpx"),
        };
        Ok(Home::open(path)?)
    }

    /// The login, for the server asked for if one was.
    ///
    /// # Errors
    /// [`Kind::LoginNeeded`] when there is none, or it is for another server.
    pub fn login(&self) -> Result<Login, CliError> {
        let login = Login::load(&self.home()?, self.clock())?
            .ok_or_else(|| CliError::new(Kind::LoginNeeded, "you are not logged in"))?;
        if let Some(asked) = &self.server {
            let known = login.server().server.as_str();
            if !same_server(asked, known) {
                let message = format!("you are logged in to {known}, not to {asked}");
                return Err(CliError::new(Kind::LoginNeeded, message)
                    .hint(format!("run `mcpx login --server {asked}`")));
            }
        }
        Ok(login)
    }

    /// Who calls: the job's own token where one was asked for, else the login, else a job's token
    /// that is found.
    ///
    /// # Errors
    /// As [`Context::login`], or why a job's token cannot be shown.
    pub async fn identity(
        &self,
        workload: &WorkloadArgs,
    ) -> Result<(ServerInfo, Arc<dyn IdentitySource>), CliError> {
        // A job may have nowhere to write, and then has no login either.
        let home = self.home();
        let found = if workload.is_asked_for() {
            workload.find()??
        } else {
            let kept = match &home {
                Ok(home) => Login::load(home, self.clock())?.is_some(),
                Err(_) => false,
            };
            if kept || workload.is_off() {
                let login = self.login()?;
                return Ok((login.server().clone(), Arc::new(login)));
            }
            match workload.find()? {
                Ok(found) => found,
                Err(WorkloadError::None { looked }) => {
                    return Err(home.err().unwrap_or_else(|| workload::nobody(&looked)));
                }
                Err(error) => return Err(error.into()),
            }
        };
        let server = match (&self.server, &home) {
            (Some(server), _) => server.clone(),
            (None, Ok(home)) => self.server_to_log_in_to(home)?,
            (None, Err(_)) => {
                return Err(CliError::new(Kind::Usage, "which server?")
                    .hint("set MCPX_SERVER to its URL, or give --server"));
            }
        };
        let info = server::fetch(&server).await?;
        let home = home.ok();
        let job = found.workload(info.server.as_str(), home.as_ref().map(Home::path));
        Ok((info, Arc::new(job)))
    }

    /// The API of the server, for whoever calls.
    ///
    /// # Errors
    /// As [`Context::identity`].
    pub async fn remote(&self) -> Result<Remote, CliError> {
        self.remote_as(&WorkloadArgs::of_environment()?).await
    }

    /// The API of the server, for whom a verb's own options say.
    ///
    /// # Errors
    /// As [`Context::identity`].
    pub async fn remote_as(&self, workload: &WorkloadArgs) -> Result<Remote, CliError> {
        let (server, identity) = self.identity(workload).await?;
        Ok(Remote::new(&server, identity, self.clock())?)
    }

    /// A way to one connection.
    ///
    /// # Errors
    /// As [`Context::identity`].
    pub async fn channel(
        &self,
        connection: &ConnectionName,
        reason: Option<String>,
        workload: &WorkloadArgs,
    ) -> Result<Channel, CliError> {
        let (server, identity) = self.identity(workload).await?;
        let base = server.server.as_str().trim_end_matches('/');
        let resource = format!("{base}/mcp/{connection}");
        let url = Url::parse(&resource).map_err(|error| {
            CliError::failure(format!("{resource} is not a URL")).caused_by(Some(&error))
        })?;
        let source = GrantSource::new(server, identity, resource, reason, self.clock())
            .map_err(|error: ExchangeError| CliError::from(error))?;
        Ok(Channel::new(url, source)?)
    }

    /// How another program starts this one for a connection, with all that steers this process
    /// written out.
    ///
    /// # Errors
    /// When a path is not text, or the server's URL holds a password.
    pub fn launch(&self, connection: &ConnectionName) -> Result<Launch, CliError> {
        let text = |path: PathBuf| {
            path.into_os_string().into_string().map_err(|path| {
                let path = PathBuf::from(path);
                CliError::failure(format!("{} is not text", path.display()))
                    .hint("clients' files hold text only; use another directory")
            })
        };
        let home = match &self.home {
            Some(home) => Some(text(std::path::absolute(home).unwrap_or_else(|_| home.clone()))?),
            None => None,
        };
        if let Some(url) = self.server.as_deref().and_then(|server| Url::parse(server).ok())
            && (url.password().is_some() || !url.username().is_empty())
        {
            let message = "the server's URL holds a user name or password, which is not written \
                           into files";
            return Err(CliError::new(Kind::Usage, message).hint("give the URL without it"));
        }
        let (connection, server) = (connection.clone(), self.server.clone());
        let launch = Launch { program: text(program()?)?, connection, home, server };
        let arguments = launch.arguments();
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        if Launch::read(&launch.program, &arguments).as_ref() != Some(&launch) {
            let message = format!("{} would not be known again as mcpx", launch.program);
            return Err(CliError::failure(message).hint("call the program mcpx"));
        }
        Ok(launch)
    }

    /// The server to log in to: the one asked for, or the one of the last login.
    ///
    /// # Errors
    /// [`Kind::Usage`] when there was none.
    pub fn server_to_log_in_to(&self, home: &Home) -> Result<String, CliError> {
        if let Some(server) = &self.server {
            return Ok(server.clone());
        }
        if let Some(login) = Login::load(home, self.clock()).ok().flatten() {
            return Ok(login.server().server.to_string());
        }
        home.read_json::<LastServer>(LAST_SERVER)?.map(|last| last.server).ok_or_else(|| {
            CliError::new(Kind::Usage, "which server?")
                .hint("run `mcpx login --server https://mcpx.example.com`")
        })
    }

    /// Remembers the server for the next login, which a logout must not forget.
    ///
    /// # Errors
    /// When the home cannot be written.
    pub fn remember_server(&self, home: &Home, server: &str) -> Result<(), CliError> {
        Ok(home.write_json(LAST_SERVER, &LastServer { server: server.to_owned() })?)
    }
}

#[derive(Serialize, Deserialize)]
struct LastServer {
    server: String,
}

/// The program by the path that its user has it under, if that is in PATH: behind it there may be
/// a directory with a version in its name, which the next update removes.
fn program() -> Result<PathBuf, CliError> {
    let unknown = |error: std::io::Error| {
        CliError::failure("this program's path is not known").caused_by(Some(&error))
    };
    let program = std::env::current_exe().map_err(unknown)?;
    let real = program.canonicalize().map_err(unknown)?;
    let name = format!("mcpx{}", std::env::consts::EXE_SUFFIX);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let known = std::env::split_paths(&path)
        .map(|directory| directory.join(&name))
        .find(|path| path.is_absolute() && path.canonicalize().is_ok_and(|path| path == real));
    Ok(known.unwrap_or(program))
}

const LAST_SERVER: &str = "last-server.json";

fn same_server(a: &str, b: &str) -> bool {
    match (Url::parse(a), Url::parse(b)) {
        (Ok(a), Ok(b)) => {
            a.origin() == b.origin()
                && a.path().trim_end_matches('/') == b.path().trim_end_matches('/')
        }
        _ => a == b,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_compared_as_urls() {
        assert!(same_server("https://a.example", "https://a.example:443/"));
        assert!(!same_server("https://a.example", "http://a.example"));
        assert!(!same_server("https://a.example/x", "https://a.example/y"));
    }
}
