//! Which token a job has. Only looks; the environment is handed in, and nothing is asked on the
//! network.

use std::path::{Path, PathBuf};

use url::Url;

use super::{Source, WorkloadError};
use crate::identity::fetch;
use crate::types::Secret;

/// Where tokens of jobs come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// GitHub Actions, with `permissions: id-token: write`.
    GitHub,
    /// GitLab, with `id_tokens`.
    GitLab,
    /// A Kubernetes projected token.
    Kubernetes,
    /// Azure workload identity.
    Azure,
    /// A SPIFFE JWT-SVID in a file.
    Spiffe,
}

/// What the caller asked for.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// One source, instead of whichever is there.
    pub kind: Option<Kind>,
    /// A file with a token.
    pub file: Option<PathBuf>,
    /// A variable with a token.
    pub variable: Option<String>,
}

/// Where was looked in vain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Looked {
    /// The source.
    pub from: &'static str,
    /// Why nothing was there.
    pub why: String,
    /// Whether the source's own environment is there all the same: then this is worth telling.
    pub near: bool,
}

/// The variable that a GitLab job's token is expected in.
const GITLAB_VARIABLE: &str = "MCPX_ID_TOKEN";
/// Where a pod's token for mcpx is expected.
const KUBERNETES_FILE: &str = "/var/run/secrets/mcpx/token";
/// Where `spiffe-helper` is expected to write a JWT-SVID for mcpx.
const SPIFFE_FILE: &str = "/var/run/secrets/mcpx/jwt_svid.token";
const ENTRA: &str = "https://login.microsoftonline.com/";

/// Variables by name; a set one that is empty counts as none.
type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// What a source looks like when it is not used.
enum Miss {
    Absent(Looked),
    Broken(WorkloadError),
}

impl Kind {
    /// In the order in which they are looked for. A file that was put there for mcpx goes before
    /// what is there for everybody.
    const ALL: [Self; 5] =
        [Self::GitHub, Self::GitLab, Self::Kubernetes, Self::Spiffe, Self::Azure];

    fn name(self) -> &'static str {
        match self {
            Self::GitHub => "GitHub Actions",
            Self::GitLab => "GitLab",
            Self::Kubernetes => "Kubernetes",
            Self::Azure => "Azure workload identity",
            Self::Spiffe => "SPIFFE",
        }
    }

    fn look(self, wanted: &Wanted, env: Env<'_>) -> Result<Source, Miss> {
        match self {
            Self::GitHub => github(env),
            Self::GitLab => gitlab(wanted, env),
            Self::Kubernetes => {
                let near = env("KUBERNETES_SERVICE_HOST").is_some();
                let why = "mount a projected token with the server's URL as audience there; the \
                           pod's usual token is for the API server and is never taken";
                file(self, wanted, KUBERNETES_FILE, why, near)
            }
            Self::Spiffe => {
                let near = env("SPIFFE_ENDPOINT_SOCKET").is_some();
                let why = "the Workload API is not spoken here; let spiffe-helper write a JWT-SVID \
                           there, or name its file with --token-file";
                file(self, wanted, SPIFFE_FILE, why, near)
            }
            Self::Azure => azure(wanted, env),
        }
    }

    fn absent(self, why: impl Into<String>, near: bool) -> Miss {
        Miss::Absent(Looked { from: self.name(), why: why.into(), near })
    }
}

/// The source that was asked for, or the first that is there.
///
/// # Errors
/// [`WorkloadError`]: what was asked for is not there, or nothing is, or what is there cannot be
/// used.
pub fn find(wanted: &Wanted, env: Env<'_>) -> Result<Source, WorkloadError> {
    let env = &|name: &str| env(name).filter(|value| !value.is_empty());
    if let Some(kind) = wanted.kind {
        return kind.look(wanted, env).map_err(|miss| match miss {
            Miss::Broken(error) => error,
            Miss::Absent(Looked { from, why, .. }) => {
                WorkloadError::Missing { from: from.to_owned(), why }
            }
        });
    }
    if let Some(path) = &wanted.file {
        return Ok(Source::File { path: path.clone() });
    }
    if let Some(name) = &wanted.variable {
        return variable(name, env).ok_or_else(|| WorkloadError::Missing {
            from: format!("the variable {name}"),
            why: "it is not set, or empty".to_owned(),
        });
    }
    let mut looked = Vec::new();
    for kind in Kind::ALL {
        match kind.look(wanted, env) {
            Ok(source) => return Ok(source),
            Err(Miss::Broken(error)) => return Err(error),
            Err(Miss::Absent(one)) => looked.push(one),
        }
    }
    Err(WorkloadError::None { looked })
}

fn variable(name: &str, env: Env<'_>) -> Option<Source> {
    let token = Secret::new(env(name)?.trim());
    Some(Source::Variable { name: name.to_owned(), token })
}

fn github(env: Env<'_>) -> Result<Source, Miss> {
    const URL: &str = "ACTIONS_ID_TOKEN_REQUEST_URL";
    const TOKEN: &str = "ACTIONS_ID_TOKEN_REQUEST_TOKEN";
    let kind = Kind::GitHub;
    let near = env("GITHUB_ACTIONS").is_some();
    let (Some(url), Some(token)) = (env(URL), env(TOKEN)) else {
        let why =
            format!("{URL} and {TOKEN} are not set; give the job `permissions: id-token: write`");
        return Err(kind.absent(why, near));
    };
    let url = safe(kind, URL, &url)?;
    Ok(Source::GitHub { url, token: Secret::new(token) })
}

fn gitlab(wanted: &Wanted, env: Env<'_>) -> Result<Source, Miss> {
    let kind = Kind::GitLab;
    let near = env("GITLAB_CI").is_some();
    let name = wanted.variable.as_deref().unwrap_or(GITLAB_VARIABLE);
    // Elsewhere a variable of that name is not GitLab's, unless it is asked for.
    let found = variable(name, env).filter(|_| near || wanted.kind == Some(kind));
    found.ok_or_else(|| {
        let why = format!("{name} is not set; give the job `id_tokens: {{{name}: {{aud: URL}}}}`");
        kind.absent(why, near)
    })
}

fn file(kind: Kind, wanted: &Wanted, usual: &str, why: &str, near: bool) -> Result<Source, Miss> {
    let path = wanted.file.clone().unwrap_or_else(|| PathBuf::from(usual));
    if path.exists() {
        return Ok(Source::File { path });
    }
    Err(kind.absent(format!("there is no {}: {why}", path.display()), near))
}

fn azure(wanted: &Wanted, env: Env<'_>) -> Result<Source, Miss> {
    let kind = Kind::Azure;
    let given =
        wanted.file.clone().or_else(|| env("AZURE_FEDERATED_TOKEN_FILE").map(PathBuf::from));
    let near = given.is_some();
    let names = "AZURE_FEDERATED_TOKEN_FILE, AZURE_CLIENT_ID and AZURE_TENANT_ID";
    let (Some(path), Some(client), Some(tenant)) =
        (given, env("AZURE_CLIENT_ID"), env("AZURE_TENANT_ID"))
    else {
        let why =
            format!("{names} are not all set; the pod needs the label azure.workload.identity/use");
        return Err(kind.absent(why, near));
    };
    let host = env("AZURE_AUTHORITY_HOST").unwrap_or_else(|| ENTRA.to_owned());
    let mut url = safe(kind, "AZURE_AUTHORITY_HOST", &host)?;
    // As a part of the path, whatever it holds.
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty().push(&tenant).extend(["oauth2", "v2.0", "token"]);
    }
    Ok(Source::Azure { url, client, path })
}

fn safe(kind: Kind, name: &'static str, text: &str) -> Result<Url, Miss> {
    fetch::safe_url(text).map_err(|source| {
        let source = match source {
            // The rest of it may hold what opens the door.
            fetch::FetchError::Insecure(_) => fetch::FetchError::Insecure("its URL".to_owned()),
            other => other,
        };
        Miss::Broken(WorkloadError::Url { from: kind.name().to_owned(), name, source })
    })
}

/// Whether a path is the pod's token for the API server, which must not be shown to anybody else.
pub(super) fn is_for_the_api_server(path: &Path) -> bool {
    path.starts_with("/var/run/secrets/kubernetes.io/serviceaccount")
        || path.starts_with("/run/secrets/kubernetes.io/serviceaccount")
}
