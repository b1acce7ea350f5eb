//! A CI system that signs its jobs' tokens as GitHub does: RS256, a discovery document and keys,
//! and the endpoint that a running job asks. The same issuer plays GitLab and a Kubernetes
//! cluster, whose tokens differ in their claims only.

use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
use aws_lc_rs::rsa::{KeyPair, KeySize};
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post};
use axum::{Form, Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use super::http;

/// What a runner gives its job to ask with.
pub const REQUEST_TOKEN: &str = "request-token-of-the-runner";

/// A key and its id.
#[derive(Clone)]
pub struct CiKey {
    private: EncodingKey,
    id: String,
}

/// The CI system; it runs as long as the stories do.
pub struct Ci {
    /// The issuer.
    pub url: String,
    key: CiKey,
    state: Shared,
}

type Shared = Arc<Mutex<Published>>;

struct Published {
    url: String,
    key: CiKey,
    claims: Value,
    seconds: i64,
    given: usize,
}

/// Seconds since 1970.
pub fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(now.as_secs()).unwrap()
}

/// A name that comes once.
pub fn fresh() -> String {
    let mut id = [0u8; 12];
    aws_lc_rs::rand::fill(&mut id).unwrap();
    URL_SAFE_NO_PAD.encode(id)
}

impl CiKey {
    /// A fresh key.
    pub fn new(id: &str) -> Self {
        let rsa: Pkcs8V1Der<'_> = KeyPair::generate(KeySize::Rsa2048).unwrap().as_der().unwrap();
        let encoded = STANDARD.encode(rsa.as_ref());
        let pem = format!("-----BEGIN PRIVATE KEY-----\n{encoded}\n-----END PRIVATE KEY-----\n");
        let private = EncodingKey::from_rsa_pem(pem.as_bytes()).unwrap();
        Self { private, id: id.to_owned() }
    }

    /// A token with any claims.
    pub fn sign(&self, claims: &Value) -> String {
        let mut header = Header::new(Algorithm::RS256);
        header.kid = Some(self.id.clone());
        jsonwebtoken::encode(&header, claims, &self.private).unwrap()
    }

    fn public(&self) -> Value {
        let mut jwk = Jwk::from_encoding_key(&self.private, Algorithm::RS256).unwrap();
        jwk.common.key_id = Some(self.id.clone());
        serde_json::to_value(jwk).unwrap()
    }
}

impl Ci {
    /// Starts it.
    ///
    /// # Errors
    /// No port is free.
    pub fn start() -> anyhow::Result<Self> {
        let listener = http::block(tokio::net::TcpListener::bind("127.0.0.1:0"))?;
        let url = format!("http://{}", listener.local_addr()?);
        let key = CiKey::new("ci-1");
        let published = Published {
            url: url.clone(),
            key: key.clone(),
            claims: json!({}),
            seconds: 300,
            given: 0,
        };
        let state: Shared = Arc::new(Mutex::new(published));
        let ci = Self { url, key, state };
        ci.job(&ci.github());
        let router = Router::new()
            .route("/.well-known/openid-configuration", get(discovery))
            .route("/jwks", get(jwks))
            .route("/token", get(token))
            .route("/tenant/oauth2/v2.0/token", post(entra))
            .with_state(Arc::clone(&ci.state));
        http::runtime().spawn(async move { axum::serve(listener, router).await });
        Ok(ci)
    }

    /// The claims of the tokens that a running job asks for, but for those of every one.
    pub fn job(&self, claims: &Value) {
        self.state.lock().unwrap().claims = claims.clone();
    }

    /// How long the tokens that are asked for live.
    pub fn life(&self, seconds: i64) {
        self.state.lock().unwrap().seconds = seconds;
    }

    /// How many tokens were asked for.
    pub fn given(&self) -> usize {
        self.state.lock().unwrap().given
    }

    /// What GitHub says of a deployment of octo/app. The name is in its form of 2026.
    pub fn github(&self) -> Value {
        json!({
            "sub": "repo:octo@42/app@7:environment:production",
            "repository": "octo/app", "repository_id": "7",
            "repository_owner": "octo", "repository_owner_id": "42",
            "ref": "refs/tags/v1.2.3", "ref_type": "tag", "environment": "production",
            "event_name": "push", "run_id": "1234567", "run_attempt": "1", "actor": "ada",
            "job_workflow_ref": "octo/ci/.github/workflows/deploy.yml@refs/heads/main",
            "runner_environment": "github-hosted",
        })
    }

    /// The environment of a running job.
    pub fn environment(&self) -> [(&'static str, String); 3] {
        [
            ("GITHUB_ACTIONS", "true".to_owned()),
            ("ACTIONS_ID_TOKEN_REQUEST_URL", format!("{}/token?api-version=2.0", self.url)),
            ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", REQUEST_TOKEN.to_owned()),
        ]
    }

    /// A token for an audience, good for some seconds.
    pub fn token(&self, claims: &Value, audience: &str, seconds: i64) -> String {
        self.key.sign(&whole(claims, &self.url, audience, seconds))
    }

    /// All claims of a token, to be spoiled.
    pub fn claims(&self, claims: &Value, audience: &str, seconds: i64) -> Value {
        whole(claims, &self.url, audience, seconds)
    }

    /// The key that signs.
    pub fn key(&self) -> &CiKey {
        &self.key
    }

    /// The signing key as it is published, for whoever confuses algorithms.
    pub fn public_key(&self) -> String {
        self.key.public().to_string()
    }
}

fn whole(claims: &Value, issuer: &str, audience: &str, seconds: i64) -> Value {
    let mut whole = claims.clone();
    let now = now();
    for (name, value) in [
        ("iss", json!(issuer)),
        ("aud", json!(audience)),
        ("iat", json!(now)),
        ("nbf", json!(now - 5)),
        ("exp", json!(now + seconds)),
        ("jti", json!(fresh())),
    ] {
        whole[name] = value;
    }
    whole
}

async fn discovery(State(state): State<Shared>) -> Json<Value> {
    let url = state.lock().unwrap().url.clone();
    Json(json!({ "issuer": url, "jwks_uri": format!("{url}/jwks") }))
}

async fn jwks(State(state): State<Shared>) -> Json<Value> {
    Json(json!({ "keys": [state.lock().unwrap().key.public()] }))
}

/// GitHub's endpoint: without an audience it is the owner's URL.
async fn token(
    State(state): State<Shared>,
    Query(query): Query<std::collections::BTreeMap<String, String>>,
    headers: HeaderMap,
) -> (StatusCode, Json<Value>) {
    let bearer = headers.get("authorization").and_then(|value| value.to_str().ok());
    let (scheme, token) = bearer.and_then(|value| value.split_once(' ')).unwrap_or_default();
    // `@actions/core` says Bearer and `id` says bearer.
    if !scheme.eq_ignore_ascii_case("bearer") || token != REQUEST_TOKEN {
        return (StatusCode::UNAUTHORIZED, Json(json!({ "message": "Bad credentials" })));
    }
    if query.get("api-version").map(String::as_str) != Some("2.0") {
        return (StatusCode::BAD_REQUEST, Json(json!({ "message": "the query is gone" })));
    }
    let mut published = state.lock().unwrap();
    published.given += 1;
    let usual = "https://github.com/octo".to_owned();
    let audience = query.get("audience").unwrap_or(&usual);
    let claims = whole(&published.claims, &published.url, audience, published.seconds);
    let value = published.key.sign(&claims);
    (StatusCode::OK, Json(json!({ "count": value.len(), "value": value })))
}

/// Entra ID's endpoint: a token for an application, for the federated token of a pod (RFC 7523). It
/// looks at what Microsoft's own client sends.
async fn entra(
    State(state): State<Shared>,
    Form(form): Form<std::collections::BTreeMap<String, String>>,
) -> (StatusCode, Json<Value>) {
    let said = |name: &str| form.get(name).map(String::as_str).unwrap_or_default();
    let refused = |why: &str| {
        let answer = json!({ "error": "invalid_client", "error_description": why });
        (StatusCode::BAD_REQUEST, Json(answer))
    };
    let kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
    if said("grant_type") != "client_credentials" || said("client_assertion_type") != kind {
        return refused("AADSTS900144: not what is expected");
    }
    let part = said("client_assertion").split('.').nth(1).unwrap_or_default();
    let shown = URL_SAFE_NO_PAD.decode(part).unwrap_or_default();
    let shown: Value = serde_json::from_slice(&shown).unwrap_or_default();
    if shown["aud"] != "api://AzureADTokenExchange" {
        return refused("AADSTS700212: no matching federated identity record for the audience");
    }
    let Some(audience) = said("scope").strip_suffix("/.default") else {
        return refused("AADSTS1002012: the scope is not valid");
    };
    let mut published = state.lock().unwrap();
    published.given += 1;
    let claims = json!({ "sub": "object-of-the-job", "azp": said("client_id"), "tid": "tenant" });
    let claims = whole(&claims, &published.url, audience, published.seconds);
    let token = published.key.sign(&claims);
    let answer = json!({ "token_type": "Bearer", "expires_in": 300, "access_token": token });
    (StatusCode::OK, Json(answer))
}
