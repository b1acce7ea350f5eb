//! Verification against a real HTTP server that plays the issuer, well and badly.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::Ed25519KeyPair;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::{EncodingKey, Header};
use serde_json::json;

use super::*;
use crate::identity::Fault;
use crate::identity::fetch::{self, Route};
use crate::identity::key::SigningKey;

const NOW: i64 = 1_800_000_000;

#[derive(Clone)]
struct Fake {
    url: String,
    state: Arc<Mutex<Published>>,
    fetches: Arc<AtomicUsize>,
}

struct Published {
    issuer: Option<String>,
    jwks_uri: Option<String>,
    keys: Vec<Value>,
    down: bool,
    slow: Duration,
}

impl Fake {
    async fn start(keys: Vec<Value>) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state =
            Published { issuer: None, jwks_uri: None, keys, down: false, slow: Duration::ZERO };
        let fake = Self { url, state: Arc::new(Mutex::new(state)), fetches: Arc::default() };
        let router = Router::new()
            .route("/.well-known/openid-configuration", get(discovery))
            .route("/jwks", get(jwks))
            .with_state(fake.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        fake
    }

    fn set(&self, change: impl FnOnce(&mut Published)) {
        change(&mut self.state.lock().unwrap());
    }

    fn fetches(&self) -> usize {
        self.fetches.load(Ordering::SeqCst)
    }

    fn verifier(&self) -> IssuerVerifier {
        IssuerVerifier::new(settings(&self.url), fetch::client(Route::Direct).unwrap()).unwrap()
    }

    fn claims(&self) -> Value {
        json!({
            "iss": self.url, "sub": "alice", "aud": "mcpx-cli", "exp": NOW + 600, "iat": NOW,
            "email": "alice@example.test", "groups": ["eng", "admins"],
        })
    }
}

async fn discovery(State(fake): State<Fake>) -> Response {
    let published = fake.state.lock().unwrap();
    if published.down {
        return StatusCode::BAD_GATEWAY.into_response();
    }
    let issuer = published.issuer.clone().unwrap_or_else(|| fake.url.clone());
    let keys = published.jwks_uri.clone().unwrap_or_else(|| format!("{}/jwks", fake.url));
    Json(json!({ "issuer": issuer, "jwks_uri": keys })).into_response()
}

async fn jwks(State(fake): State<Fake>) -> Response {
    fake.fetches.fetch_add(1, Ordering::SeqCst);
    let slow = fake.state.lock().unwrap().slow;
    tokio::time::sleep(slow).await;
    let keys = fake.state.lock().unwrap().keys.clone();
    Json(json!({ "keys": keys })).into_response()
}

fn settings(url: &str) -> IssuerSettings {
    serde_json::from_value(json!({ "name": "test", "url": url })).unwrap()
}

fn public(key: &SigningKey) -> Value {
    serde_json::to_value(key.jwk()).unwrap()
}

fn sign(key: &SigningKey, claims: &Value) -> String {
    let mut header = Header::new(Algorithm::ES256);
    header.kid = Some(key.id().to_owned());
    key.sign(&header, claims).unwrap()
}

fn encode(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

#[tokio::test]
async fn accepts_a_good_token() {
    let key = SigningKey::generate().unwrap();
    let fake = Fake::start(vec![public(&key)]).await;
    let verified = fake.verifier().verify(&sign(&key, &fake.claims()), NOW).await.unwrap();
    assert_eq!(verified.identity.issuer, fake.url);
    assert_eq!(verified.identity.sub, "alice");
    assert_eq!(verified.identity.email.as_deref(), Some("alice@example.test"));
    assert_eq!(verified.identity.groups, ["admins", "eng"]);
    assert_eq!(verified.expires, NOW + 600);
}

#[tokio::test]
async fn a_job_s_token_is_no_login() {
    let key = SigningKey::generate().unwrap();
    let fake = Fake::start(vec![public(&key)]).await;
    let settings = IssuerSettings { signs_for_jobs: true, ..settings(&fake.url) };
    let verifier = IssuerVerifier::new(settings, fetch::client(Route::Direct).unwrap()).unwrap();
    let refused = verifier.verify(&sign(&key, &fake.claims()), NOW).await;
    assert_eq!(refused.err().unwrap().code(), "token_no_login");
    for (claim, value) in [("auth_time", json!(NOW - 5)), ("nonce", json!("n"))] {
        let mut claims = fake.claims();
        claims[claim] = value;
        assert!(verifier.verify(&sign(&key, &claims), NOW).await.is_ok(), "{claim}");
    }
}

#[tokio::test]
async fn accepts_rsa_and_ed25519() {
    let rsa: Pkcs8V1Der<'_> = KeyPair::generate(KeySize::Rsa2048).unwrap().as_der().unwrap();
    let pem = format!(
        "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
        STANDARD.encode(rsa.as_ref())
    );
    let rsa = EncodingKey::from_rsa_pem(pem.as_bytes()).unwrap();
    let random = aws_lc_rs::rand::SystemRandom::new();
    let ed = Ed25519KeyPair::generate_pkcs8v1(&random).unwrap();
    let ed = EncodingKey::from_ed_der(ed.as_ref());
    let keys = [(rsa, Algorithm::RS256), (ed, Algorithm::EdDSA)];
    let published = keys.iter().map(|(key, algorithm)| {
        let mut jwk = Jwk::from_encoding_key(key, *algorithm).unwrap();
        jwk.common.key_id = Some(format!("{algorithm:?}"));
        serde_json::to_value(jwk).unwrap()
    });
    let fake = Fake::start(published.collect()).await;
    let verifier = fake.verifier();
    for (key, algorithm) in &keys {
        let mut header = Header::new(*algorithm);
        header.kid = Some(format!("{algorithm:?}"));
        let token = jsonwebtoken::encode(&header, &fake.claims(), key).unwrap();
        verifier.verify(&token, NOW).await.unwrap();
        // The same key under another algorithm than it is published for, or than is accepted.
        if *algorithm == Algorithm::RS256 {
            header.alg = Algorithm::PS256;
            let token = jsonwebtoken::encode(&header, &fake.claims(), key).unwrap();
            assert!(matches!(verifier.verify(&token, NOW).await, Err(TokenError::Algorithm(_))));
        }
    }
}

#[tokio::test]
async fn refuses_forgeries() {
    let key = SigningKey::generate().unwrap();
    let stranger = SigningKey::generate().unwrap();
    let fake = Fake::start(vec![public(&key)]).await;
    let verifier = fake.verifier();
    let claims = fake.claims();
    let good = sign(&key, &claims);
    verifier.verify(&good, NOW).await.unwrap();
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let (_, payload) = signed.split_once('.').unwrap();

    // Symmetric, keyed with everything public about the key.
    let jwk = serde_json::to_string(key.jwk()).unwrap();
    for secret in [jwk.as_bytes(), key.id().as_bytes(), key.public().try_get_as_bytes().unwrap()] {
        let mut header = Header::new(Algorithm::HS256);
        header.kid = Some(key.id().to_owned());
        let secret = EncodingKey::from_secret(secret);
        let token = jsonwebtoken::encode(&header, &claims, &secret).unwrap();
        let refused = verifier.verify(&token, NOW).await.unwrap_err();
        assert_eq!(refused, TokenError::Algorithm("HS256".to_owned()));
    }
    for alg in ["none", "None", "NONE", "", "ES256K", "es256"] {
        let header = encode(&json!({ "alg": alg, "kid": key.id() }));
        for signature in ["", signature] {
            let token = format!("{header}.{payload}.{signature}");
            let refused = verifier.verify(&token, NOW).await.unwrap_err();
            assert_eq!(refused.code(), "token_algorithm", "{alg:?}");
        }
    }
    // A stranger's key under our key's name, and embedded in the header.
    let mut header = Header::new(Algorithm::ES256);
    header.kid = Some(key.id().to_owned());
    header.jwk = Some(stranger.jwk().clone());
    header.jku = Some("http://127.0.0.1:9/jwks".to_owned());
    let token = stranger.sign(&header, &claims).unwrap();
    assert_eq!(verifier.verify(&token, NOW).await.unwrap_err(), TokenError::Signature);
    // Claims exchanged under a good signature.
    let mut other = claims.clone();
    other["sub"] = json!("root");
    let header = signed.split_once('.').unwrap().0;
    let token = format!("{header}.{}.{signature}", encode(&other));
    assert_eq!(verifier.verify(&token, NOW).await.unwrap_err(), TokenError::Signature);
    // Another kind of token signed by the same key.
    for typ in ["at+jwt", "dpop+jwt", "logout+jwt"] {
        let mut header = Header::new(Algorithm::ES256);
        header.typ = Some(typ.to_owned());
        header.kid = Some(key.id().to_owned());
        let token = key.sign(&header, &claims).unwrap();
        assert_eq!(verifier.verify(&token, NOW).await.unwrap_err().code(), "token_type");
    }
    let mut header = Header::new(Algorithm::ES256);
    header.kid = Some(key.id().to_owned());
    header.crit = Some(vec!["exp".to_owned()]);
    let token = key.sign(&header, &claims).unwrap();
    assert_eq!(verifier.verify(&token, NOW).await.unwrap_err().code(), "token_malformed");

    let shapes = [
        "",
        ".",
        "..",
        "a.b.c",
        "eyJ.eyJ",
        &format!("{good}.x"),
        &format!("x{good}"),
        &good.replace('.', ".."),
        &format!("{good}="),
        &"a".repeat(MAX_TOKEN + 1),
    ];
    for shape in shapes {
        assert!(verifier.verify(shape, NOW).await.is_err(), "{shape}");
    }
}

#[tokio::test]
async fn judges_claims() {
    let key = SigningKey::generate().unwrap();
    let fake = Fake::start(vec![public(&key)]).await;
    let verifier = fake.verifier();
    let cases: &[(&str, &[(&str, Value)])] = &[
        ("token_expired", &[("exp", json!(NOW - 60))]),
        ("ok", &[("exp", json!(NOW - 59))]),
        ("ok", &[("exp", json!(NOW as f64 + 0.5))]),
        ("token_malformed", &[("exp", Value::Null)]),
        ("token_malformed", &[("exp", json!("1900000000"))]),
        ("token_malformed", &[("exp", json!(1e300))]),
        ("token_not_yet_valid", &[("nbf", json!(NOW + 61))]),
        ("ok", &[("nbf", json!(NOW + 60))]),
        ("token_not_yet_valid", &[("iat", json!(NOW + 61))]),
        ("wrong_audience", &[("aud", json!("other"))]),
        ("wrong_audience", &[("aud", json!([]))]),
        ("wrong_audience", &[("aud", json!("MCPX-CLI"))]),
        ("token_malformed", &[("aud", Value::Null)]),
        ("ok", &[("aud", json!(["other", "mcpx-cli"]))]),
        ("ok", &[("aud", json!(["other", "mcpx-cli"])), ("azp", json!("mcpx-cli"))]),
        ("wrong_audience", &[("aud", json!(["other", "mcpx-cli"])), ("azp", json!("other"))]),
        ("unknown_issuer", &[("iss", json!(format!("{}/", fake.url)))]),
        ("unknown_issuer", &[("iss", json!("https://evil.example"))]),
        ("token_malformed", &[("iss", json!([fake.url]))]),
        ("token_malformed", &[("sub", json!(""))]),
        ("token_malformed", &[("sub", Value::Null)]),
        ("token_malformed", &[("sub", json!("a\u{1b}[2J"))]),
        ("token_malformed", &[("sub", json!("a".repeat(MAX_SUB + 1)))]),
        ("token_malformed", &[("groups", json!([{"name": "eng"}]))]),
        ("token_malformed", &[("groups", json!({"eng": true}))]),
    ];
    for (expected, changes) in cases {
        let mut claims = fake.claims();
        for (name, value) in *changes {
            claims[*name] = value.clone();
        }
        let result = verifier.verify(&sign(&key, &claims), NOW).await;
        let code = result.as_ref().map_or_else(TokenError::code, |_| "ok");
        assert_eq!(code, *expected, "{changes:?}");
    }
    // A claim that stands twice is read differently by different readers.
    let payload = fake.claims().to_string().replacen('{', r#"{"sub":"root","#, 1);
    let raw: Box<serde_json::value::RawValue> = serde_json::from_str(&payload).unwrap();
    let mut header = Header::new(Algorithm::ES256);
    header.kid = Some(key.id().to_owned());
    let token = key.sign(&header, &raw).unwrap();
    assert_eq!(verifier.verify(&token, NOW).await.unwrap_err().code(), "token_malformed");
}

#[tokio::test]
async fn reads_groups_where_they_are() {
    let key = SigningKey::generate().unwrap();
    let fake = Fake::start(vec![public(&key)]).await;
    let cases = [
        ("groups", json!({"groups": "eng, admins,,eng"}), vec!["admins", "eng"]),
        ("realm_access.roles", json!({"realm_access": {"roles": ["eng"]}}), vec!["eng"]),
        ("https://x.example/groups", json!({"https://x.example/groups": ["eng"]}), vec!["eng"]),
        ("groups", json!({}), vec![]),
        ("groups", json!({"groups": null}), vec![]),
        ("a.b.c", json!({"a": {"b": 1}}), vec![]),
        ("/a/b~1c/0", json!({"a": {"b/c": [["eng"]]}}), vec!["eng"]),
        ("/groups", json!({"groups": ["eng"]}), vec!["eng"]),
        ("/a/b", json!({"a": 1}), vec![]),
        ("/odd", json!({"/odd": ["eng"], "odd": ["x"]}), vec!["eng"]),
        // Another claim is left out, or none: there are no groups.
        ("groups", json!({"_claim_names": {"address": "src1"}, "hasgroups": false}), vec![]),
        ("roles", json!({"_claim_names": {"groups": "src1"}, "hasgroups": true}), vec![]),
        ("groups", json!({"groups": ["eng"], "_claim_names": {"groups": "s"}}), vec!["eng"]),
    ];
    for (claim, extra, expected) in cases {
        let mut settings = settings(&fake.url);
        settings.groups_claim = claim.to_owned();
        let verifier =
            IssuerVerifier::new(settings, fetch::client(Route::Direct).unwrap()).unwrap();
        let mut claims = fake.claims();
        claims.as_object_mut().unwrap().remove("groups");
        claims.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        let verified = verifier.verify(&sign(&key, &claims), NOW).await.unwrap();
        assert_eq!(verified.identity.groups, expected, "{claim}");
    }
    for left_out in [
        json!({"_claim_names": {"groups": "src1"}}),
        json!({"hasgroups": true}),
        json!({"hasgroups": "True", "groups": null}),
    ] {
        let mut claims = fake.claims();
        claims.as_object_mut().unwrap().remove("groups");
        claims.as_object_mut().unwrap().extend(left_out.as_object().unwrap().clone());
        let refused = fake.verifier().verify(&sign(&key, &claims), NOW).await.unwrap_err();
        assert_eq!((refused.code(), refused.fault()), ("groups_left_out", Fault::Caller));
        assert!(refused.hint().is_some_and(|hint| hint.contains("group_lookup")));
    }
    let mut claims = fake.claims();
    claims["email_verified"] = json!(false);
    let verified = fake.verifier().verify(&sign(&key, &claims), NOW).await.unwrap();
    assert_eq!(verified.identity.email, None);
}

#[tokio::test]
async fn follows_rotation_but_not_every_stranger() {
    let old = SigningKey::generate().unwrap();
    let new = SigningKey::generate().unwrap();
    let fake = Fake::start(vec![public(&old)]).await;
    let verifier = fake.verifier();
    verifier.verify(&sign(&old, &fake.claims()), NOW).await.unwrap();
    assert_eq!(fake.fetches(), 1);

    fake.set(|published| published.keys = vec![public(&new), public(&old)]);
    let rotated = sign(&new, &fake.claims());
    // Keys that change right after they were first fetched are asked for once more.
    verifier.verify(&rotated, NOW + 1).await.unwrap();
    verifier.verify(&sign(&old, &fake.claims()), NOW + 1).await.unwrap();
    assert_eq!(fake.fetches(), 2);
    // From then on once a minute: refused, without asking the issuer.
    let newest = SigningKey::generate().unwrap();
    fake.set(|published| published.keys = vec![public(&newest), public(&new), public(&old)]);
    let rotated = sign(&newest, &fake.claims());
    let refused = verifier.verify(&rotated, NOW + 60).await.unwrap_err();
    assert_eq!(refused.code(), "token_key_unknown");
    assert_eq!(fake.fetches(), 2);
    verifier.verify(&rotated, NOW + 61).await.unwrap();
    assert_eq!(fake.fetches(), 3);

    for n in 0..50 {
        let stranger = SigningKey::generate().unwrap();
        let refused = verifier.verify(&sign(&stranger, &fake.claims()), NOW + 62 + n % 50).await;
        assert_eq!(refused.unwrap_err().code(), "token_key_unknown");
    }
    assert_eq!(fake.fetches(), 3);
    // A key that the issuer withdrew goes, once the keys are fetched again.
    fake.set(|published| published.keys = vec![public(&new)]);
    let stranger = SigningKey::generate().unwrap();
    verifier.verify(&sign(&stranger, &fake.claims()), NOW + 130).await.unwrap_err();
    let withdrawn = verifier.verify(&sign(&old, &fake.claims()), NOW + 131).await.unwrap_err();
    assert_eq!(withdrawn.code(), "token_key_unknown");
}

#[tokio::test]
async fn many_first_tokens_make_one_fetch() {
    let key = SigningKey::generate().unwrap();
    let fake = Fake::start(vec![public(&key)]).await;
    fake.set(|published| published.slow = Duration::from_millis(50));
    let verifier = Arc::new(fake.verifier());
    let token = sign(&key, &fake.claims());
    let tasks: Vec<_> = (0..40)
        .map(|_| {
            let (verifier, token) = (Arc::clone(&verifier), token.clone());
            tokio::spawn(async move { verifier.verify(&token, NOW).await.map(drop) })
        })
        .collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    assert_eq!(fake.fetches(), 1);
}

#[tokio::test]
async fn many_tokens_of_a_new_key_make_one_fetch() {
    let old = SigningKey::generate().unwrap();
    let new = SigningKey::generate().unwrap();
    let fake = Fake::start(vec![public(&old)]).await;
    let verifier = Arc::new(fake.verifier());
    verifier.verify(&sign(&old, &fake.claims()), NOW).await.unwrap();
    fake.set(|published| {
        published.keys = vec![public(&new), public(&old)];
        published.slow = Duration::from_millis(100);
    });
    let later = NOW + 600;
    let mut tasks = Vec::new();
    for n in 0..100 {
        // Half of them are of strangers, which must not bring another fetch after this one.
        let stranger = SigningKey::generate().unwrap();
        let key = if n % 2 == 0 { &new } else { &stranger };
        let mut claims = fake.claims();
        claims["exp"] = json!(later + 600);
        let (verifier, token) = (Arc::clone(&verifier), sign(key, &claims));
        tasks.push((n, tokio::spawn(async move { verifier.verify(&token, later).await })));
    }
    for (n, task) in tasks {
        match task.await.unwrap() {
            Ok(_) => assert_eq!(n % 2, 0),
            Err(error) => assert_eq!((error.code(), n % 2), ("token_key_unknown", 1)),
        }
    }
    assert_eq!(fake.fetches(), 2);
}

#[tokio::test]
async fn old_keys_serve_on_while_the_issuer_is_down() {
    let key = SigningKey::generate().unwrap();
    let fake = Fake::start(vec![public(&key)]).await;
    let verifier = fake.verifier();
    fake.set(|published| published.down = true);
    let mut claims = fake.claims();
    claims["exp"] = json!(NOW + 10 * 86_400);
    let token = sign(&key, &claims);
    let error = verifier.verify(&token, NOW).await.unwrap_err();
    assert_eq!((error.code(), error.fault()), ("issuer_unreachable", Fault::Issuer));
    fake.set(|published| published.down = false);
    // Nothing is held, so it is tried again soon.
    assert!(verifier.verify(&token, NOW + 1).await.is_err());
    verifier.verify(&token, NOW + 5).await.unwrap();
    fake.set(|published| published.down = true);
    verifier.verify(&token, NOW + 3600).await.unwrap();
    let error = verifier.verify(&token, NOW + 5 + 86_400).await.unwrap_err();
    assert_eq!(error.code(), "issuer_unreachable", "keys of yesterday are trusted no longer");
}

#[tokio::test]
async fn refuses_metadata_that_lies() {
    let key = SigningKey::generate().unwrap();
    let token_for = |fake: &Fake| sign(&key, &fake.claims());
    let changes: [fn(&mut Published); 5] = [
        |published| published.issuer = Some("https://evil.example".to_owned()),
        |published| published.jwks_uri = Some("http://192.0.2.1/jwks".to_owned()),
        |published| published.jwks_uri = Some("file:///etc/passwd".to_owned()),
        |published| published.keys = Vec::new(),
        |published| published.keys = vec![json!({"kty": "oct", "k": "AAAA", "alg": "HS256"})],
    ];
    for change in changes {
        let fake = Fake::start(vec![public(&key)]).await;
        fake.set(change);
        let error = fake.verifier().verify(&token_for(&fake), NOW).await.unwrap_err();
        assert_eq!((error.code(), error.fault()), ("issuer_unusable", Fault::Issuer));
    }
    // A trailing slash more makes another issuer.
    let fake = Fake::start(vec![public(&key)]).await;
    fake.set(|published| published.issuer = Some(format!("{}/", fake.url)));
    let error = fake.verifier().verify(&token_for(&fake), NOW).await.unwrap_err();
    assert_eq!(error.code(), "issuer_unusable");
}

#[tokio::test]
async fn keys_that_cannot_verify_are_passed_over() {
    let key = SigningKey::generate().unwrap();
    let other = SigningKey::generate().unwrap();
    let mut encryption = public(&other);
    encryption["use"] = json!("enc");
    let odd = [json!({"kty": "AKP", "pub": "x"}), json!(7), json!({}), encryption];
    let fake = Fake::start(odd.into_iter().chain([public(&key)]).collect()).await;
    let verifier = fake.verifier();
    verifier.verify(&sign(&key, &fake.claims()), NOW).await.unwrap();
    let refused = verifier.verify(&sign(&other, &fake.claims()), NOW).await.unwrap_err();
    assert_eq!(refused.code(), "token_key_unknown");
    // Without a key id, one fitting key is enough and two are too many.
    let anonymous = key.sign(&Header::new(Algorithm::ES256), &fake.claims()).unwrap();
    verifier.verify(&anonymous, NOW).await.unwrap();
    fake.set(|published| published.keys.push(public(&SigningKey::generate().unwrap())));
    let refused = fake.verifier().verify(&anonymous, NOW).await.unwrap_err();
    assert_eq!(refused.code(), "token_key_unknown");
}

#[tokio::test]
async fn each_token_goes_to_its_own_issuer() {
    let keys = [SigningKey::generate().unwrap(), SigningKey::generate().unwrap()];
    let fakes =
        [Fake::start(vec![public(&keys[0])]).await, Fake::start(vec![public(&keys[1])]).await];
    let issuers = Issuers::new(fakes.iter().map(Fake::verifier).collect()).unwrap();
    for (fake, key) in fakes.iter().zip(&keys) {
        let verified = issuers.verify(&sign(key, &fake.claims()), NOW).await.unwrap();
        assert_eq!(verified.identity.issuer, fake.url);
    }
    // Signed by one trusted issuer in the name of the other.
    let crossed = sign(&keys[1], &fakes[0].claims());
    assert_eq!(issuers.verify(&crossed, NOW).await.unwrap_err().code(), "token_key_unknown");
    let twice = Issuers::new(vec![fakes[0].verifier(), fakes[0].verifier()]);
    assert!(matches!(twice.err(), Some(IssuerSettingsError::Twice { .. })));
}

#[test]
fn settings_are_checked() {
    let base = json!({ "name": "x", "url": "https://id.example" });
    let read = |extra: Value| {
        let mut all = base.clone();
        all.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        serde_json::from_value::<IssuerSettings>(all).map_err(|e| e.to_string())
    };
    read(json!({})).unwrap().check().unwrap();
    read(json!({ "algorithms": ["RS512"] })).unwrap().check().unwrap();
    for uri in ["http://127.0.0.1:8976/callback", "http://[::1]/x", "http://localhost/callback"] {
        read(json!({ "redirect_uri": uri })).unwrap().check().unwrap();
    }
    read(json!({ "resource": "urn:mcpx", "logins": ["device"] })).unwrap().check().unwrap();
    let lookup = |endpoint: &str| {
        json!({ "group_lookup": { "token_endpoint": endpoint, "client_id": "g",
                                  "client_secret_file": "graph.secret" } })
    };
    read(lookup("https://login.example/t/oauth2/v2.0/token")).unwrap().check().unwrap();
    for bad in [
        json!({ "algorithms": ["ES256", "HS256"] }),
        json!({ "algorithms": [] }),
        json!({ "url": "http://id.example" }),
        json!({ "url": "https://id.example/?x=1" }),
        json!({ "audience": [""] }),
        json!({ "client_id": "" }),
        json!({ "logins": [] }),
        json!({ "redirect_uri": "https://mcpx.example/callback" }),
        json!({ "redirect_uri": "http://127.0.0.1/callback?x=1" }),
        json!({ "redirect_uri": "http://10.0.0.1/callback" }),
        json!({ "resource": "mcpx" }),
        json!({ "resource": "https://mcpx.example/#x" }),
        lookup("http://login.example/token"),
    ] {
        assert!(read(bad.clone()).unwrap().check().is_err(), "{bad}");
    }
    assert!(read(json!({ "algorithms": ["none"] })).is_err());
    assert!(read(json!({ "client_secret": "x" })).is_err());
    assert!(read(json!({ "logins": ["password"] })).is_err());
    assert!(read(json!({ "group_lookup": { "client_id": "g" } })).is_err());
}

mod properties {
    use proptest::prelude::*;

    use super::*;

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[ -~]{0,12}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::btree_map("[a-c./~]{0,3}", inner, 0..5)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        /// Whatever a token holds, groups are read as names or refused; and none of them is empty.
        #[test]
        fn groups_are_names_or_refused(claims in any_json(), name in "[a-c./~01]{1,8}") {
            let Value::Object(claims) = claims else { return Ok(()) };
            let found = find_claim(&claims, &name);
            if let Some(groups) = found.and_then(|value| group_names(value).ok()) {
                prop_assert!(groups.iter().all(|group| !group.is_empty() && printable(group)));
            }
            prop_assert!(!lookup::left_out(&claims, &name));
        }

        /// A pointer finds what serde's own finds, unless a claim has the pointer's text as its name.
        #[test]
        fn pointers_are_those_of_rfc_6901(claims in any_json(), name in "(/[a-c./~01]{0,3}){1,3}") {
            let Value::Object(map) = &claims else { return Ok(()) };
            if !map.contains_key(&name) {
                prop_assert_eq!(find_claim(map, &name), claims.pointer(&name));
            }
        }
    }
}
