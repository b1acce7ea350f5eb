//! What credentials become, with an authorization server that writes down what it is asked.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use axum::{Form, Json, Router};
use reqwest::header::AUTHORIZATION;
use serde_json::{Value, json};

use super::behalf::{AssertionError, Claims, Named, Way};
use super::*;
use crate::types::{Identity, SubjectId, SubjectKind};
use crate::upstream::secret::{Place, ask};
use crate::upstream::token::ClientAuth;

type Form1 = BTreeMap<String, String>;

/// An authorization server: knows one secret, numbers its tokens.
#[derive(Default)]
struct Authority {
    secret: Mutex<String>,
    answer: Mutex<Option<Value>>,
    asked: Mutex<Vec<(Form1, String)>>,
}

async fn token(
    State(authority): State<Arc<Authority>>,
    headers: HeaderMap,
    Form(form): Form<Form1>,
) -> Response {
    let header = headers.get(AUTHORIZATION).map_or("", |value| value.to_str().unwrap()).to_owned();
    let number = {
        let mut asked = authority.asked.lock().unwrap();
        asked.push((form, header.clone()));
        asked.len()
    };
    // Long enough that all who wait, wait for this one.
    tokio::time::sleep(Duration::from_millis(50)).await;
    let wanted = format!("gate:{}", authority.secret.lock().unwrap());
    let wanted = base64::engine::general_purpose::STANDARD.encode(wanted);
    if header != format!("Basic {wanted}") {
        let no = json!({ "error": "invalid_client", "error_description": header });
        return (StatusCode::UNAUTHORIZED, Json(no)).into_response();
    }
    let usual =
        json!({ "access_token": format!("t{number}"), "token_type": "bearer", "expires_in": 60 });
    Json(authority.answer.lock().unwrap().clone().unwrap_or(usual)).into_response()
}

/// It, with the file that holds the client's secret, and an endpoint of it.
async fn authority() -> (Arc<Authority>, tempfile::TempDir, TokenEndpoint) {
    let authority = Arc::new(Authority::default());
    "pa%24s".clone_into(&mut authority.secret.lock().unwrap());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/token", listener.local_addr().unwrap()).parse().unwrap();
    let router = Router::new().route("/token", post(token)).with_state(Arc::clone(&authority));
    tokio::spawn(async { axum::serve(listener, router).await.unwrap() });
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("secret");
    std::fs::write(&path, "pa$s\n").unwrap();
    let source =
        SecretSource::new("file:secret", Place::File(path)).kept_for(Some(Duration::from_secs(60)));
    let auth = ClientAuth::Basic(Kept::new(source));
    let http = ask::client(None).unwrap();
    (authority, dir, TokenEndpoint::new(url, "gate".to_owned(), auth, http))
}

fn subject(sub: &str) -> Subject {
    let identity = Identity { issuer: "i".into(), sub: sub.into(), email: None, groups: vec![] };
    Subject { id: SubjectId::generate().unwrap(), kind: SubjectKind::Person, identity }
}

fn text(value: &HeaderValue) -> &str {
    assert!(value.is_sensitive());
    value.to_str().unwrap()
}

fn fixed(secret: &str) -> SecretSource {
    SecretSource::new("env:KEY", Place::Fixed(Secret::new(secret)))
}

#[tokio::test]
async fn a_secret_behind_a_prefix_and_a_user_with_a_secret() {
    let alice = subject("alice");
    let header = Credential::header(AUTHORIZATION, "Bearer ", fixed("s3cret"));
    assert_eq!(text(&header.value(&alice).await.unwrap()), "Bearer s3cret");
    assert!(!format!("{header:?}").contains("s3cret"));
    let basic = Credential::basic(AUTHORIZATION, "Aladdin", fixed("open sesame"));
    // The example of RFC 7617.
    assert_eq!(text(&basic.value(&alice).await.unwrap()), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
    assert_eq!(&**basic.name(), "basic Aladdin from env:KEY");
    // What cannot change is refused once and for all.
    let used = header.value(&alice).await.unwrap();
    assert!(!header.renew(&alice, &used).await);
}

#[tokio::test]
async fn a_token_for_the_gateway_is_asked_for_once_and_renewed_when_it_is_refused() {
    let (authority, dir, endpoint) = authority().await;
    let parameters = vec![("scope", "mcp".to_owned())];
    let credential = Credential::client_credentials(AUTHORIZATION, endpoint, parameters);
    let alice = subject("alice");
    let all = futures_util::future::join_all((0..32).map(|_| credential.value(&alice))).await;
    assert!(all.iter().all(|one| text(one.as_ref().unwrap()) == "Bearer t1"));
    let (form, _) = authority.asked.lock().unwrap()[0].clone();
    assert_eq!((&*form["grant_type"], &*form["scope"]), ("client_credentials", "mcp"));
    assert!(!form.contains_key("client_secret"), "{form:?}");

    // Meanwhile the client's secret is rotated as well: it is read again, and once.
    "fresh".clone_into(&mut authority.secret.lock().unwrap());
    std::fs::write(dir.path().join("secret"), "fresh").unwrap();
    let used = credential.value(&alice).await.unwrap();
    assert!(credential.renew(&alice, &used).await);
    assert_eq!(text(&credential.value(&alice).await.unwrap()), "Bearer t3");
    assert_eq!(authority.asked.lock().unwrap().len(), 3);
}

#[tokio::test]
async fn what_is_no_bearer_token_is_an_error_without_the_servers_words() {
    for (answer, word) in [
        (json!({ "access_token": "hunter2" }), "no token"),
        (json!({ "access_token": "hunter2", "token_type": "DPoP" }), "no bearer token"),
        (json!({ "access_token": "", "token_type": "Bearer" }), "cannot stand"),
        (json!({ "access_token": "hunter 2", "token_type": "Bearer" }), "cannot stand"),
        (json!({ "access_token": "hunter2\r\nx: y", "token_type": "Bearer" }), "cannot stand"),
        (json!("hunter2"), "no token"),
    ] {
        let (authority, _dir, endpoint) = authority().await;
        *authority.answer.lock().unwrap() = Some(answer.clone());
        let credential = Credential::client_credentials(AUTHORIZATION, endpoint, vec![]);
        let error = credential.value(&subject("alice")).await.unwrap_err();
        let told = format!("{error} {error:?}");
        assert!(told.contains(word) && !told.contains("hunter"), "{answer}: {told}");
        assert!(told.contains("client-credentials of gate"), "{told}");
    }
}

#[tokio::test]
async fn a_wrong_client_secret_is_told_without_it() {
    let (authority, dir, endpoint) = authority().await;
    std::fs::write(dir.path().join("secret"), "hunter2").unwrap();
    let credential = Credential::client_credentials(AUTHORIZATION, endpoint, vec![]);
    let error = credential.value(&subject("alice")).await.unwrap_err().to_string();
    assert!(error.contains("invalid_client (HTTP 401)") && !error.contains("hunter"), "{error}");
    // And those who come at once after it do not ask again.
    assert!(credential.value(&subject("bob")).await.is_err());
    assert_eq!(authority.asked.lock().unwrap().len(), 1);
    std::fs::write(dir.path().join("secret"), "").unwrap();
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert!(credential.value(&subject("alice")).await.is_err());
}

/// Says whom it vouches for, in clear.
struct Vouches;

impl Assertions for Vouches {
    fn assert(&self, claims: &Claims<'_>) -> Result<Secret, AssertionError> {
        Ok(Secret::new(format!("{} to {}", claims.sub, claims.audience)))
    }
}

#[tokio::test]
async fn everybody_has_a_token_of_their_own() {
    for (way, grant, handed) in [
        (Way::TokenExchange, "urn:ietf:params:oauth:grant-type:token-exchange", "subject_token"),
        (Way::IdJag, "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion"),
    ] {
        let (authority, _dir, endpoint) = authority().await;
        let behalf = Behalf {
            way,
            named: Named::Sub,
            endpoint,
            issuer: "https://as.example".to_owned(),
            resource: Some("https://crm.example/mcp".to_owned()),
            audience: None,
            scope: None,
        };
        let credential = Credential::behalf(AUTHORIZATION, behalf);
        let (alice, bob) = (subject("alice"), subject("bob"));
        let nobody = credential.value(&alice).await.unwrap_err().to_string();
        assert!(nobody.contains("nobody vouches"), "{nobody}");
        tokio::time::sleep(Duration::from_millis(1100)).await;

        credential.vouched_for_by(&(Arc::new(Vouches) as Arc<dyn Assertions>));
        let of = async |who: &Subject| text(&credential.value(who).await.unwrap()).to_owned();
        assert_eq!((of(&alice).await, of(&bob).await), ("Bearer t1".into(), "Bearer t2".into()));
        assert_eq!((of(&alice).await, of(&bob).await), ("Bearer t1".into(), "Bearer t2".into()));
        // A job's issuer gives names as it likes, and under no name is a job a person.
        let kind = SubjectKind::Workload { rule: "deploy".to_owned() };
        for person in [&alice, &subject("carol")] {
            let job = Subject { kind: kind.clone(), ..person.clone() };
            let error = credential.value(&job).await.unwrap_err().to_string();
            assert!(error.contains("the name of a job"), "{error}");
        }
        // The same name under another id is somebody else.
        assert_eq!(of(&subject("alice")).await, "Bearer t3");
        let asked = authority.asked.lock().unwrap().clone();
        assert_eq!(asked[0].0["grant_type"], grant);
        assert_eq!(asked[0].0[handed], "alice to https://as.example");
        assert_eq!(asked[1].0[handed], "bob to https://as.example");
        assert_eq!(asked[0].0["resource"], "https://crm.example/mcp");
    }
}
