//! Tokens that have to be asked for.

use std::time::Duration;

use reqwest::StatusCode;
use serde::Deserialize;
use url::Url;

use super::WorkloadError;
use crate::identity::fetch::{self, FetchError};
use crate::types::Secret;

const GITHUB: &str = "GitHub Actions";
const AZURE: &str = "Azure workload identity";
const ASSERTION: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// What is waited before GitHub is asked again; its runners' own clients do as much.
const PAUSES: [Duration; 2] = [Duration::from_millis(300), Duration::from_secs(2)];

/// Longer words of the other side's are cut.
const LONGEST_REASON: usize = 300;

/// A fresh token of this job from GitHub.
pub(super) async fn github(
    url: &Url,
    token: &Secret,
    audience: &str,
) -> Result<Secret, WorkloadError> {
    #[derive(Deserialize)]
    struct Answer {
        value: Secret,
    }
    let http = client(GITHUB, url)?;
    let mut url = url.clone();
    // The URL has a query already, which stays.
    url.query_pairs_mut().append_pair("audience", audience);
    let mut pauses = PAUSES.into_iter();
    loop {
        let request = http.get(url.clone()).bearer_auth(token.expose());
        let request = request.header(reqwest::header::ACCEPT, "application/json");
        match answer::<Answer>(GITHUB, &url, request).await {
            Ok(answer) => return Ok(answer.value),
            Err(error) => match pauses.next().filter(|_| error.is_retryable()) {
                Some(pause) => tokio::time::sleep(pause).await,
                None => return Err(error),
            },
        }
    }
}

/// A token with our audience from Entra ID, for the one that Kubernetes gave (RFC 7523).
pub(super) async fn azure(
    url: &Url,
    application: &str,
    assertion: &Secret,
    audience: &str,
) -> Result<Secret, WorkloadError> {
    #[derive(Deserialize)]
    struct Answer {
        access_token: Secret,
    }
    let form = [
        ("grant_type", "client_credentials"),
        ("client_id", application),
        ("client_assertion_type", ASSERTION),
        ("client_assertion", assertion.expose()),
        ("scope", &format!("{audience}/.default")),
    ];
    let request = client(AZURE, url)?.post(url.clone()).form(&form);
    Ok(answer::<Answer>(AZURE, url, request).await?.access_token)
}

fn client(from: &str, url: &Url) -> Result<reqwest::Client, WorkloadError> {
    fetch::client_for(url).map_err(|source| network(from, url, source))
}

fn network(from: &str, url: &Url, source: FetchError) -> WorkloadError {
    // Where, and no more: what follows may be part of the key.
    let host = url.origin().ascii_serialization();
    let source = match source {
        FetchError::Network(error) => FetchError::Network(error.without_url()),
        other => other,
    };
    WorkloadError::Network { from: from.to_owned(), host, source }
}

async fn answer<T: serde::de::DeserializeOwned>(
    from: &str,
    url: &Url,
    request: reqwest::RequestBuilder,
) -> Result<T, WorkloadError> {
    #[derive(Deserialize, Default)]
    struct Complaint {
        error_description: Option<String>,
        message: Option<String>,
    }
    let response = request.send().await.map_err(|e| network(from, url, FetchError::Network(e)))?;
    let status = response.status();
    if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
        return Err(network(from, url, FetchError::Status(status.as_u16())));
    }
    let body = fetch::read_body(response).await.map_err(|error| network(from, url, error))?;
    let refused = |why: String| WorkloadError::Refused { from: from.to_owned(), why };
    if status != StatusCode::OK {
        let said: Complaint = serde_json::from_slice(&body).unwrap_or_default();
        let said = said.error_description.or(said.message).unwrap_or_default();
        let said: String = said.chars().filter(|c| !c.is_control()).take(LONGEST_REASON).collect();
        let colon = if said.is_empty() { "" } else { ": " };
        return Err(refused(format!("HTTP {}{colon}{said}", status.as_u16())));
    }
    serde_json::from_slice(&body)
        .map_err(|_| refused("its answer is not the JSON that belongs there".to_owned()))
}
