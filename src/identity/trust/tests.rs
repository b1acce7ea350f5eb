//! Tokens of every kind against rules of every kind.

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, Header};
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::identity::jwks::KeyPlace;
use crate::identity::key::SigningKey;

const NOW: i64 = 1_800_000_000;
const ISSUER: &str = "https://ci.example.com";
const OWN: &str = "https://mcpx.example.com";

struct Ci {
    key: SigningKey,
    file: PathBuf,
    _dir: tempfile::TempDir,
}

impl Ci {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ci = Self {
            key: SigningKey::generate().unwrap(),
            file: dir.path().join("jwks.json"),
            _dir: dir,
        };
        let keys = json!({ "keys": [ci.key.jwk()] });
        std::fs::write(&ci.file, keys.to_string()).unwrap();
        ci
    }

    fn rule(&self, name: &str, claims: &[(&str, Value)]) -> Rule {
        Rule {
            name: name.to_owned(),
            issuer: ISSUER.to_owned(),
            audience: vec![],
            algorithms: vec![Algorithm::ES256],
            keys: KeyPlace::File(self.file.clone()),
            groups: vec![format!("ci-{name}")],
            max: None,
            claims: claims
                .iter()
                .map(|(path, value)| ClaimRule {
                    path: (*path).to_owned(),
                    accepts: vec![Pattern::Exact(value.clone())],
                })
                .collect(),
        }
    }

    fn token(&self, claims: &Value) -> String {
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some(self.key.id().to_owned());
        self.key.sign(&header, claims).unwrap()
    }
}

fn claims() -> Value {
    json!({
        "iss": ISSUER, "sub": "repo:octo/app:environment:prod", "aud": OWN, "iat": NOW,
        "exp": NOW + 300, "jti": "one", "repository_id": "7", "environment": "prod",
        "ref": "refs/heads/main", "run_id": "99",
    })
}

fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[name] = value;
    claims
}

fn rules(rules: Vec<Rule>) -> TrustRules {
    TrustRules::new(rules, OWN).unwrap()
}

async fn code(rules: &TrustRules, token: &str, named: Option<&str>) -> &'static str {
    rules.admit(token, named, NOW).await.map_or_else(|error| error.code(), |_| "admitted")
}

#[tokio::test]
async fn a_job_gets_what_its_rule_gives_and_no_more() {
    let ci = Ci::new();
    let wanted = [("repository_id", json!("7")), ("environment", json!("prod"))];
    let rules = rules(vec![ci.rule("deploy", &wanted)]);
    let mut signed = claims();
    // What a token says of groups and addresses is not asked.
    signed["groups"] = json!(["mcp-admins"]);
    signed["email"] = json!("boss@example.com");
    let admitted = rules.admit(&ci.token(&signed), None, NOW).await.unwrap();
    assert_eq!((admitted.rule.as_str(), admitted.expires), ("deploy", NOW + 300));
    assert_eq!(admitted.identity.groups, ["ci-deploy"]);
    assert_eq!(admitted.identity.email, None);
    assert_eq!(admitted.identity.sub, "repo:octo/app:environment:prod");
    assert_eq!(admitted.evidence["run_id"], "99");
    assert!(!admitted.evidence.contains_key("groups"));
}

#[tokio::test]
async fn every_fault_has_its_own_code() {
    let ci = Ci::new();
    let stranger = Ci::new();
    let rules = rules(vec![ci.rule("deploy", &[("repository_id", json!("7"))])]);
    let token = |claims: &Value| ci.token(claims);
    let mut forged = Header::new(Algorithm::ES256);
    forged.kid = Some(ci.key.id().to_owned());
    let none = format!(
        "{}.{}.",
        URL_SAFE_NO_PAD.encode(r#"{"alg":"none","typ":"JWT"}"#),
        URL_SAFE_NO_PAD.encode(claims().to_string())
    );
    let mut typed = Header::new(Algorithm::ES256);
    typed.typ = Some("dpop+jwt".to_owned());
    let missing = |name: &str| {
        let mut claims = claims();
        claims.as_object_mut().unwrap().remove(name);
        token(&claims)
    };
    let table = [
        ("good", token(&claims()), "admitted"),
        ("another repository", token(&with("repository_id", json!("8"))), "trust_mismatch"),
        ("a number for a text", token(&with("repository_id", json!(7))), "trust_mismatch"),
        ("no such claim", missing("repository_id"), "trust_mismatch"),
        ("another audience", token(&with("aud", json!("https://aws"))), "wrong_audience"),
        ("one of several audiences", token(&with("aud", json!(["x", OWN]))), "wrong_audience"),
        ("ours alone, in a list", token(&with("aud", json!([OWN]))), "admitted"),
        ("an audience that is none", token(&with("aud", json!(7))), "token_malformed"),
        ("no audience", missing("aud"), "token_malformed"),
        ("expired", token(&with("exp", json!(NOW))), "token_expired"),
        ("no end", missing("exp"), "token_malformed"),
        ("an end that is no time", token(&with("exp", json!("soon"))), "token_malformed"),
        ("an end that is a fraction", token(&with("exp", json!(NOW as f64 + 9.5))), "admitted"),
        ("from the future", token(&with("nbf", json!(NOW + 120))), "token_not_yet_valid"),
        ("another issuer", token(&with("iss", json!("https://evil"))), "unknown_issuer"),
        ("no issuer", missing("iss"), "token_malformed"),
        ("no subject", missing("sub"), "token_malformed"),
        ("an ugly subject", token(&with("sub", json!("a\u{1b}[2J"))), "token_malformed"),
        ("bound to a key", token(&with("cnf", json!({"jkt": "x"}))), "token_malformed"),
        ("not signed", none, "token_algorithm"),
        ("an unknown key", stranger.token(&claims()), "token_key_unknown"),
        ("a known key's name", stranger.key.sign(&forged, &claims()).unwrap(), "token_signature"),
        ("a proof", ci.key.sign(&typed, &claims()).unwrap(), "token_type"),
        ("no token", "x".to_owned(), "token_malformed"),
        ("a large one", "a".repeat(1 << 20), "token_malformed"),
    ];
    for (what, token, wanted) in table {
        assert_eq!(code(&rules, &token, None).await, wanted, "{what}");
        assert_eq!(code(&rules, &token, Some("deploy")).await, wanted, "{what}, named");
    }
    assert_eq!(code(&rules, &token(&claims()), Some("other")).await, "trust_unknown");
    assert_eq!(code(&TrustRules::default(), &token(&claims()), None).await, "unknown_issuer");
}

#[tokio::test]
async fn two_rules_that_fit_are_an_error_that_names_both() {
    let ci = Ci::new();
    let rules = rules(vec![
        ci.rule("deploy", &[("environment", json!("prod"))]),
        ci.rule("octo", &[("repository_id", json!("7"))]),
        ci.rule("other", &[("repository_id", json!("8"))]),
    ]);
    let token = ci.token(&claims());
    let error = rules.admit(&token, None, NOW).await.unwrap_err();
    assert_eq!(error.code(), "trust_ambiguous");
    assert!(error.to_string().contains("deploy and octo"), "{error}");
    assert_eq!(rules.admit(&token, Some("octo"), NOW).await.unwrap().rule, "octo");
    let token = ci.token(&with("environment", json!("test")));
    assert_eq!(rules.admit(&token, None, NOW).await.unwrap().rule, "octo");
}

#[tokio::test]
async fn the_caller_learns_names_and_the_record_learns_all() {
    let ci = Ci::new();
    let rules = rules(vec![ci.rule("deploy", &[("environment", json!("top-secret-name"))])]);
    let token = ci.token(&claims());
    let named = rules.admit(&token, Some("deploy"), NOW).await.unwrap_err();
    assert!(named.to_string().contains("environment"), "{named}");
    let unnamed = rules.admit(&token, None, NOW).await.unwrap_err();
    for error in [named, unnamed] {
        assert!(!error.to_string().contains("top-secret"), "{error}");
        assert!(error.inside().unwrap().contains("top-secret"), "{error:?}");
    }
}

#[tokio::test]
async fn a_token_is_known_by_its_jti_or_by_itself() {
    let ci = Ci::new();
    let rules = rules(vec![ci.rule("deploy", &[("repository_id", json!("7"))])]);
    let mark = async |claims: Value| rules.admit(&ci.token(&claims), None, NOW).await.unwrap().mark;
    let one = mark(claims()).await;
    assert_eq!(one, mark(with("exp", json!(NOW + 400))).await, "the same jti");
    assert_ne!(one, mark(with("jti", json!("two"))).await);
    let (bare, other) = (with("jti", json!(null)), {
        let mut claims = with("jti", json!(null));
        claims["exp"] = json!(NOW + 400);
        claims
    });
    assert_eq!(mark(bare.clone()).await, mark(bare.clone()).await);
    assert_ne!(mark(bare).await, mark(other).await);
}

#[tokio::test]
async fn an_explanation_tells_everything_at_once() {
    let ci = Ci::new();
    let wanted = [("repository_id", json!("8")), ("environment", json!("prod"))];
    let rules = rules(vec![ci.rule("deploy", &wanted)]);
    let mut bad = with("aud", json!("x"));
    bad["exp"] = json!(NOW - 10);
    let judgement = rules.explain(&ci.token(&bad), "deploy", NOW).await.unwrap();
    assert!(!judgement.matches());
    let seen: Vec<_> =
        judgement.checks.iter().map(|check| (check.what.as_str(), check.verdict)).collect();
    let (good, wrong) = (Verdict::Good, Verdict::Wrong);
    assert_eq!(
        seen,
        [
            ("algorithm", good),
            ("issuer", good),
            ("signature", good),
            ("times", wrong),
            ("audience", wrong),
            ("repository_id", wrong),
            ("environment", good),
        ]
    );
    let rules = rules_without_keys(&ci);
    let judgement = rules.explain(&ci.token(&claims()), "deploy", NOW).await.unwrap();
    assert!(!judgement.matches());
    assert!(judgement.checks.iter().any(|check| check.verdict == Verdict::Open));
}

fn rules_without_keys(ci: &Ci) -> TrustRules {
    let mut rule = ci.rule("deploy", &[("repository_id", json!("7"))]);
    rule.keys = KeyPlace::File("/nonexistent/jwks.json".into());
    rules(vec![rule])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// No token, however broken, is admitted or brings the server down.
    #[test]
    fn broken_tokens_are_refused(token in "[A-Za-z0-9_.-]{0,80}", cut in 0usize..200) {
        let ci = Ci::new();
        let rules = rules(vec![ci.rule("deploy", &[("repository_id", json!("7"))])]);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        prop_assert!(runtime.block_on(rules.admit(&token, None, NOW)).is_err());
        let whole = ci.token(&claims());
        let part = &whole[..whole.len().saturating_sub(cut + 1)];
        prop_assert!(runtime.block_on(rules.admit(part, None, NOW)).is_err());
    }
}
