//! Access tokens: what is accepted, for how long, and that nothing breaks on the rest.

use jsonwebtoken::Header;
use jsonwebtoken::jwk::Jwk;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::identity::IssuerVerifier;
use crate::identity::key::SigningKey;

const NOW: i64 = 1_800_000_000;
const ISSUER: &str = "https://login.example.com";
const AUDIENCE: &str = "https://mcpx.example/mcp/crm";

struct Issuer(SigningKey);

impl Issuer {
    fn new() -> Self {
        Self(SigningKey::generate().unwrap())
    }

    fn verifier(&self, types: &[&str]) -> AccessVerifier {
        let settings = json!({ "name": "corp", "url": ISSUER, "groups_claim": "realm.groups" });
        let settings: IssuerSettings = serde_json::from_value(settings).unwrap();
        let mut jwk: Jwk = self.0.jwk().clone();
        jwk.common.key_id = Some("k1".to_owned());
        let issuers = Issuers::new(vec![IssuerVerifier::with_keys(settings, [&jwk]).unwrap()]);
        let rules = AccessRules {
            issuers: vec![ISSUER.to_owned()],
            types: types.iter().map(|typ| (*typ).to_owned()).collect(),
            life: 3600,
        };
        AccessVerifier::new(&issuers.unwrap(), &rules)
    }

    fn sign(&self, typ: &str, claims: &Value) -> String {
        let mut header = Header::new(Algorithm::ES256);
        header.typ = Some(typ.to_owned());
        header.kid = Some("k1".to_owned());
        self.0.sign(&header, claims).unwrap()
    }
}

fn claims() -> Value {
    json!({
        "iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "client_id": "app", "jti": "t1",
        "iat": NOW, "exp": NOW + 600, "scope": "mcp  mcp:crm", "realm": {"groups": ["eng"]},
    })
}

#[tokio::test]
async fn a_good_token_says_whose_it_is() {
    let issuer = Issuer::new();
    let verifier = issuer.verifier(&[TYP]);
    for typ in ["at+jwt", "AT+JWT", "application/at+jwt", "Application/at+JWT"] {
        let token = issuer.sign(typ, &claims());
        let found = verifier.verify(&token, AUDIENCE, NOW).await.unwrap();
        assert_eq!((&*found.identity.sub, &*found.client), ("alice", "app"));
        assert_eq!(found.identity.groups, ["eng"]);
        assert_eq!(found.scopes, ["mcp", "mcp:crm"]);
        assert!(found.jkt.is_none());
        assert!(verifier.names(&token));
    }
    assert_eq!(bare("application"), "application");
    assert_eq!(bare("ápplication/x"), "ápplication/x");
}

#[tokio::test]
async fn a_remembered_token_still_ends_and_keeps_its_audience() {
    let issuer = Issuer::new();
    let verifier = issuer.verifier(&[TYP]);
    let token = issuer.sign(TYP, &claims());
    verifier.verify(&token, AUDIENCE, NOW).await.unwrap();
    verifier.verify(&token, AUDIENCE, NOW + 599).await.unwrap();
    let expired = verifier.verify(&token, AUDIENCE, NOW + 600).await.unwrap_err();
    assert_eq!(expired, TokenError::Expired { ago: 0 });
    let other = verifier.verify(&token, "https://mcpx.example/mcp/hr", NOW).await.unwrap_err();
    assert_eq!(other.code(), "wrong_audience");
}

#[tokio::test]
async fn a_token_is_good_for_no_longer_than_is_configured() {
    let issuer = Issuer::new();
    let verifier = issuer.verifier(&[TYP]);
    let mut long = claims();
    long["exp"] = json!(NOW + 86_400);
    let token = issuer.sign(TYP, &long);
    assert_eq!(verifier.verify(&token, AUDIENCE, NOW).await.unwrap().until, NOW + 3600);
    verifier.verify(&token, AUDIENCE, NOW + 3599).await.unwrap();
    for known in [true, false] {
        let verifier = if known { &verifier } else { &issuer.verifier(&[TYP]) };
        verifier.verify(&token, AUDIENCE, NOW + 3600).await.unwrap_err();
    }
    // Whole centuries do not overflow anything.
    for (iat, exp) in [(1, 1_i64 << 52), (-(1_i64 << 52), 1 << 52), (NOW, -(1_i64 << 52))] {
        long["iat"] = json!(iat);
        long["exp"] = json!(exp);
        verifier.verify(&issuer.sign(TYP, &long), AUDIENCE, NOW).await.unwrap_err();
    }
}

#[tokio::test]
async fn other_issuers_types_and_words_where_they_are_configured() {
    let issuer = Issuer::new();
    let entra = json!({
        "iss": ISSUER, "aud": [AUDIENCE], "sub": "alice", "appid": "11-22", "uti": "x",
        "iat": NOW as f64 + 0.5, "exp": NOW + 600, "scp": "mcp.use other",
    });
    let token = issuer.sign("JWT", &entra);
    let refused = issuer.verifier(&[TYP]).verify(&token, AUDIENCE, NOW).await.unwrap_err();
    assert_eq!(refused.code(), "token_type");
    let verifier = issuer.verifier(&["JWT", TYP]);
    let found = verifier.verify(&token, AUDIENCE, NOW).await.unwrap();
    assert_eq!((&*found.client, &found.jti, found.issued), ("11-22", &None, NOW));
    assert_eq!(found.scopes, ["mcp.use", "other"]);
    // RFC 9068's own type keeps to RFC 9068.
    let whole = verifier.verify(&issuer.sign(TYP, &entra), AUDIENCE, NOW).await.unwrap_err();
    assert_eq!(whole, TokenError::Claim { name: "jti", fault: "is missing" });
    let mut overage = entra;
    overage["_claim_names"] = json!({"realm.groups": "src1"});
    let refused = verifier.verify(&issuer.sign("JWT", &overage), AUDIENCE, NOW).await.unwrap_err();
    assert_eq!(refused.code(), "groups_left_out");
}

#[tokio::test]
async fn a_binding_is_told_and_an_unknown_one_refused() {
    let issuer = Issuer::new();
    let verifier = issuer.verifier(&[TYP]);
    let key = Thumbprint::of(SigningKey::generate().unwrap().jwk()).unwrap();
    let mut bound = claims();
    bound["cnf"] = json!({"jkt": key});
    let found = verifier.verify(&issuer.sign(TYP, &bound), AUDIENCE, NOW).await.unwrap();
    assert_eq!(found.jkt, Some(key.clone()));
    for cnf in [json!({}), json!({"x5t#S256": "x"}), json!({"jkt": key, "x5t#S256": "x"})] {
        bound["cnf"] = cnf;
        let refused = verifier.verify(&issuer.sign(TYP, &bound), AUDIENCE, NOW).await.unwrap_err();
        assert_eq!(refused.code(), "token_claim");
    }
}

proptest! {
    #[test]
    fn no_claims_break_anything(name in "(iss|aud|sub|exp|iat|nbf|client_id|jti|scope|scp|cnf|groups|sid|auth_time|realm|_claim_names)", value in json_value()) {
        let issuer = Issuer::new();
        let mut changed = claims();
        changed[&name] = value;
        let token = issuer.sign(TYP, &changed);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        // Accepted or refused, it says which; and an accepted one ends when it should.
        if let Ok(found) = runtime.block_on(issuer.verifier(&[TYP]).verify(&token, AUDIENCE, NOW)) {
            prop_assert!(found.until > NOW && found.until <= found.issued + 3600);
            prop_assert!(!found.identity.sub.is_empty() && !found.client.is_empty());
        }
    }

    #[test]
    fn no_text_breaks_anything(text in "\\PC{0,200}|[A-Za-z0-9_-]{0,60}(\\.[A-Za-z0-9_-]{0,60}){0,4}") {
        let issuer = Issuer::new();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let verifier = issuer.verifier(&[TYP]);
        prop_assert!(runtime.block_on(verifier.verify(&text, AUDIENCE, NOW)).is_err());
        prop_assert!(!verifier.names(&text));
    }
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,20}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("(jkt|groups|x)", inner, 0..3)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}
