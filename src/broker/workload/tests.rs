//! Where tokens are found, and what is said where none is.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post};
use axum::{Form, Json, Router};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const TOKEN: &str = "aGVhZA.Ym9keQ.c2ln";

fn env(pairs: &[(&str, &str)]) -> impl Fn(&str) -> Option<String> + use<> {
    let pairs: HashMap<String, String> =
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    move |name: &str| pairs.get(name).cloned()
}

fn found(wanted: &Wanted, pairs: &[(&str, &str)]) -> Result<Source, WorkloadError> {
    find(wanted, &env(pairs))
}

const GITHUB: [(&str, &str); 3] = [
    ("GITHUB_ACTIONS", "true"),
    ("ACTIONS_ID_TOKEN_REQUEST_URL", "https://ci.example/token?api-version=2"),
    ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "bearer-secret"),
];

#[test]
fn sources_are_found_by_themselves_and_overridden() {
    let any = Wanted::default();
    assert!(matches!(found(&any, &GITHUB), Ok(Source::GitHub { .. })));
    let gitlab = [("GITLAB_CI", "true"), ("MCPX_ID_TOKEN", TOKEN)];
    assert!(matches!(found(&any, &gitlab), Ok(Source::Variable { .. })));
    assert!(matches!(found(&any, &gitlab[1..]), Err(WorkloadError::None { .. })));
    let azure = [
        ("AZURE_FEDERATED_TOKEN_FILE", "/x"),
        ("AZURE_CLIENT_ID", "c"),
        ("AZURE_TENANT_ID", "t/../evil"),
    ];
    match found(&any, &azure) {
        Ok(Source::Azure { url, .. }) => assert_eq!(
            url.as_str(),
            "https://login.microsoftonline.com/t%2F..%2Fevil/oauth2/v2.0/token"
        ),
        other => panic!("{:?}", other.err()),
    }
    let file = Wanted { file: Some("/token".into()), ..Wanted::default() };
    assert!(matches!(found(&file, &GITHUB), Ok(Source::File { .. })));
    let variable = Wanted { variable: Some("T".into()), ..Wanted::default() };
    assert!(matches!(found(&variable, &[("T", TOKEN)]), Ok(Source::Variable { .. })));
    let error = found(&variable, &[("T", "")]).err().unwrap();
    assert!(error.to_string().contains("variable T"), "{error}");
}

#[test]
fn what_is_missing_is_named() {
    for (kind, pairs, words) in [
        (Kind::GitHub, &GITHUB[..1], "id-token: write"),
        (Kind::GitLab, &[("GITLAB_CI", "true")][..], "id_tokens: {MCPX_ID_TOKEN"),
        (Kind::Kubernetes, &[][..], "/var/run/secrets/mcpx/token"),
        (Kind::Spiffe, &[][..], "Workload API is not spoken"),
        (Kind::Azure, &[("AZURE_CLIENT_ID", "c")][..], "AZURE_FEDERATED_TOKEN_FILE"),
    ] {
        let wanted = Wanted { kind: Some(kind), ..Wanted::default() };
        let error = found(&wanted, pairs).err().unwrap().to_string();
        assert!(error.contains(words), "{kind:?}: {error}");
    }
    let error = found(&Wanted::default(), &GITHUB[..1]).err().unwrap();
    let WorkloadError::None { looked } = &error else { panic!("{error}") };
    let near: Vec<_> = looked.iter().filter(|one| one.near).map(|one| one.from).collect();
    assert_eq!((looked.len(), near), (5, vec!["GitHub Actions"]));
}

#[test]
fn a_url_in_the_clear_is_refused_and_not_repeated() {
    let mut pairs = GITHUB;
    pairs[1].1 = "http://ci.example/token?key=hidden";
    let error = found(&Wanted::default(), &pairs).err().unwrap();
    let told = super::super::channel::chain(&error);
    assert!(told.contains("ACTIONS_ID_TOKEN_REQUEST_URL"), "{told}");
    assert!(told.contains("https") && !told.contains("hidden"), "{told}");
}

fn job(source: Source) -> Workload {
    Workload::new(source, "https://mcpx.example", None, None)
}

#[tokio::test]
async fn a_file_is_read_at_each_use_and_has_to_hold_a_token() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("token");
    let job = job(Source::File { path: path.clone() });
    let error = job.token().await.err().unwrap();
    assert!(error.to_string().contains("token"), "{error}");
    std::fs::write(&path, format!("{TOKEN}\n")).unwrap();
    assert_eq!(job.token().await.unwrap().expose(), TOKEN);
    std::fs::write(&path, "bmV3.bmV3.bmV3").unwrap();
    assert_eq!(job.token().await.unwrap().expose(), "bmV3.bmV3.bmV3");
    std::fs::write(&path, "cmVuZXc.cmVuZXc.cmVuZXc").unwrap();
    let recent = job.recent_id_token(3600).await.unwrap();
    assert_eq!(recent.expose(), "cmVuZXc.cmVuZXc.cmVuZXc", "a renewal shows what is there now");
    let long = "a".repeat(40_000);
    for bad in ["", "password", "a.b", "a.b.c.d", "a..c", "a.b.c d", "a.b.ü", &long] {
        std::fs::write(&path, bad).unwrap();
        let error = job.token().await.err().unwrap();
        assert!(matches!(error, WorkloadError::NotToken { .. }), "{bad:.20}: {error}");
        assert!(bad.is_empty() || !error.to_string().contains(bad));
    }
    let job = self::job(Source::File {
        path: "/var/run/secrets/kubernetes.io/serviceaccount/token".into(),
    });
    let error = job.token().await.err().unwrap();
    assert!(error.to_string().contains("API server"), "{error}");
}

#[test]
fn jobs_that_share_a_token_share_a_key() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("home");
    crate::identity::private_file::directory(&home).unwrap();
    let key = |source: Source| {
        let job = Workload::new(source, "a", None, Some(&home));
        job.key().unwrap().expect("a job's own key").thumbprint().to_string()
    };
    let file = Source::File { path: "/x".into() };
    assert_eq!(key(file.clone()), key(file));
    let kept = std::fs::read_to_string(home.join("job.key")).unwrap();
    assert!(kept.starts_with("-----BEGIN PRIVATE KEY-----"));
    let url: url::Url = "https://ci.example".parse().unwrap();
    let github = Source::GitHub { url, token: Secret::new("t") };
    assert_ne!(key(github.clone()), key(github));
}

/// What was asked of the servers that play GitHub and Entra.
#[derive(Clone, Default)]
struct Asked(Arc<Mutex<Vec<Value>>>);

async fn serve(asked: Asked) -> String {
    async fn github(
        State(Asked(asked)): State<Asked>,
        Query(query): Query<HashMap<String, String>>,
        headers: HeaderMap,
    ) -> (StatusCode, Json<Value>) {
        let mut asked = asked.lock().unwrap();
        let bearer = headers["authorization"].to_str().unwrap().to_owned();
        asked.push(json!({ "query": query, "authorization": bearer }));
        if asked.len() == 1 {
            return (StatusCode::BAD_GATEWAY, Json(json!({})));
        }
        if bearer != "Bearer good" {
            let said = json!({ "message": "who\u{1b}[2J are you" });
            return (StatusCode::UNAUTHORIZED, Json(said));
        }
        (StatusCode::OK, Json(json!({ "count": 1, "value": TOKEN })))
    }
    async fn entra(
        State(Asked(asked)): State<Asked>,
        Form(form): Form<HashMap<String, String>>,
    ) -> (StatusCode, Json<Value>) {
        asked.lock().unwrap().push(json!(form));
        if form["client_id"] == "unknown" {
            let said = json!({ "error": "invalid_client", "error_description": "AADSTS700016" });
            return (StatusCode::BAD_REQUEST, Json(said));
        }
        (StatusCode::OK, Json(json!({ "token_type": "Bearer", "access_token": TOKEN })))
    }
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let router = Router::new()
        .route("/token", get(github))
        .route("/tenant/oauth2/v2.0/token", post(entra))
        .with_state(asked);
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

#[tokio::test]
async fn github_is_asked_as_its_own_clients_do() {
    let asked = Asked::default();
    let base = serve(asked.clone()).await;
    let github = |token: &str| {
        let url = format!("{base}/token?api-version=2.0");
        let pairs = [
            ("ACTIONS_ID_TOKEN_REQUEST_URL", url.as_str()),
            ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", token),
        ];
        let source = found(&Wanted::default(), &pairs).unwrap();
        Workload::new(source, "https://mcpx.example/a?b&c", None, None)
    };
    // The first try meets a gateway that is down.
    assert_eq!(github("good").token().await.unwrap().expose(), TOKEN);
    let seen = asked.0.lock().unwrap().clone();
    assert_eq!(seen.len(), 2, "{seen:?}");
    let query = json!({ "api-version": "2.0", "audience": "https://mcpx.example/a?b&c" });
    assert_eq!(seen[1], json!({ "query": query, "authorization": "Bearer good" }));
    let error = github("wrong-secret").token().await.err().unwrap().to_string();
    assert!(error.contains("HTTP 401: who[2J are you"), "{error}");
    assert!(!error.contains("wrong-secret"), "{error}");
}

#[tokio::test]
async fn entra_gives_a_token_for_our_audience() {
    let asked = Asked::default();
    let base = serve(asked.clone()).await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("federated");
    std::fs::write(&path, TOKEN).unwrap();
    let azure = |client: &str| {
        let path = path.display().to_string();
        let pairs = [
            ("AZURE_FEDERATED_TOKEN_FILE", path.as_str()),
            ("AZURE_CLIENT_ID", client),
            ("AZURE_TENANT_ID", "tenant"),
            ("AZURE_AUTHORITY_HOST", base.as_str()),
        ];
        job(found(&Wanted::default(), &pairs).unwrap())
    };
    assert_eq!(azure("app").token().await.unwrap().expose(), TOKEN);
    let form = asked.0.lock().unwrap()[0].clone();
    assert_eq!(form["grant_type"], "client_credentials");
    assert_eq!(form["client_assertion"], TOKEN);
    assert_eq!(
        form["client_assertion_type"],
        "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
    );
    assert_eq!(form["scope"], "https://mcpx.example/.default");
    let error = azure("unknown").token().await.err().unwrap().to_string();
    assert!(error.contains("AADSTS700016") && !error.contains(TOKEN), "{error}");
}

#[tokio::test]
async fn who_does_not_answer_is_named_without_the_query() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url: url::Url = format!("http://{closed}/token?key=hidden").parse().unwrap();
    let error = job(Source::GitHub { url, token: Secret::new("t") }).token().await.err().unwrap();
    assert!(error.is_retryable());
    let told = super::super::channel::chain(&error);
    assert!(told.contains(&closed.to_string()) && !told.contains("hidden"), "{told}");
}

proptest! {
    #[test]
    fn whatever_lies_in_a_file_is_a_token_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        std::fs::write(&path, &bytes).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        if let Ok(token) = runtime.block_on(job(Source::File { path }).token()) {
            prop_assert_eq!(token.expose().split('.').count(), 3);
            prop_assert!(token.expose().is_ascii());
        }
    }
}
