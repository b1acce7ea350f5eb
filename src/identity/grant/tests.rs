//! Grant tokens against forgeries, confusion of kinds, and clocks.

use std::sync::Arc;

use futures_util::FutureExt as _;
use proptest::prelude::*;

use super::*;
use crate::identity::dpop::Thumbprint;
use crate::identity::key::SigningKey;
use crate::identity::ring;

const NOW: i64 = 1_800_000_000;
const AUDIENCE: &str = "https://mcpx.example/c/crm";

/// A signer and its key.
struct Own {
    signer: GrantSigner,
    key: Arc<SigningKey>,
}

impl Own {
    fn of(issuer: &str) -> Self {
        let key = Arc::new(SigningKey::generate().unwrap());
        let ring = Arc::new(KeyRing::of(Arc::clone(&key) as _).unwrap());
        Self { signer: GrantSigner::new(ring, issuer), key }
    }

    fn sign(&self, claims: &GrantClaims) -> Result<String, KeyError> {
        signed(&self.signer, claims)
    }

    fn verifier(&self) -> GrantVerifier {
        self.signer.verifier()
    }
}

/// A key in a file signs at once.
fn signed(signer: &GrantSigner, claims: &GrantClaims) -> Result<String, KeyError> {
    signer.sign(claims).now_or_never().unwrap()
}

fn signer() -> Own {
    Own::of("https://mcpx.example")
}

fn claims() -> GrantClaims {
    let key = SigningKey::generate().unwrap();
    GrantClaims {
        iss: String::new(),
        sub: SubjectId::generate().unwrap(),
        aud: AUDIENCE.to_owned(),
        exp: NOW + 300,
        iat: NOW,
        jti: GrantId::generate().unwrap().to_string(),
        cnf: Confirmation::Key(Thumbprint::of(key.jwk()).unwrap()),
        mcpx: GrantDetail {
            kind: GrantKind::Connection,
            session: Some(SessionId::generate().unwrap()),
            connection: Some("crm".parse().unwrap()),
        },
    }
}

#[test]
fn says_what_was_signed() {
    let signer = signer();
    let verifier = signer.verifier();
    let token = signer.sign(&claims()).unwrap();
    let verified = verifier.verify(&token, AUDIENCE, NOW).unwrap();
    assert_eq!(verified.iss, "https://mcpx.example");
    assert!(verified.grant().is_some());
    assert_eq!(*verifier.verify(&token, AUDIENCE, NOW + 1).unwrap(), *verified);
}

#[test]
fn remembered_tokens_still_expire_and_keep_their_audience() {
    let signer = signer();
    let verifier = signer.verifier();
    let token = signer.sign(&claims()).unwrap();
    verifier.verify(&token, AUDIENCE, NOW).unwrap();
    verifier.verify(&token, AUDIENCE, NOW + 299).unwrap();
    let expired = verifier.verify(&token, AUDIENCE, NOW + 300).unwrap_err();
    assert_eq!(expired, TokenError::Expired { ago: 0 });
    let other = verifier.verify(&token, "https://mcpx.example/c/hr", NOW).unwrap_err();
    assert_eq!(other.code(), "wrong_audience");
}

#[test]
fn refuses_what_it_did_not_sign() {
    let signer = signer();
    let verifier = signer.verifier();
    let verify = |token: &str| verifier.verify(token, AUDIENCE, NOW).map(drop).unwrap_err();
    let good = signer.sign(&claims()).unwrap();
    let (message, signature) = good.rsplit_once('.').unwrap();
    let (header, _) = message.split_once('.').unwrap();

    let other_key = self::signer().sign(&claims()).unwrap();
    assert_eq!(verify(&other_key).code(), "token_key_unknown");
    let ring = Arc::clone(signer.signer.ring());
    let other_server = GrantSigner::new(ring, "https://other.example");
    assert_eq!(verify(&signed(&other_server, &claims()).unwrap()).code(), "unknown_issuer");

    let other = self::signer().sign(&claims()).unwrap();
    let payload = other.split('.').nth(1).unwrap();
    assert_eq!(verify(&format!("{header}.{payload}.{signature}")), TokenError::Signature);

    for (typ, alg, code) in [
        (Some("JWT"), Algorithm::ES256, "token_type"),
        (Some("dpop+jwt"), Algorithm::ES256, "token_type"),
        (None, Algorithm::ES256, "token_type"),
    ] {
        let mut header = Header::new(alg);
        header.typ = typ.map(str::to_owned);
        header.kid = Some(signer.key.id().to_owned());
        let token = signer.key.sign(&header, &claims()).unwrap();
        assert_eq!(verify(&token).code(), code);
    }
    let mut header = Header::new(Algorithm::HS256);
    header.typ = Some(TYP.to_owned());
    header.kid = Some(signer.key.id().to_owned());
    let secret = signer.key.public().try_get_as_bytes().unwrap();
    let secret = jsonwebtoken::EncodingKey::from_secret(secret);
    let token = jsonwebtoken::encode(&header, &claims(), &secret).unwrap();
    assert_eq!(verify(&token).code(), "token_algorithm");
}

#[test]
fn refuses_tokens_without_a_key() {
    let signer = signer();
    let mut header = Header::new(Algorithm::ES256);
    header.typ = Some(TYP.to_owned());
    header.kid = Some(signer.key.id().to_owned());
    let mut bare = serde_json::to_value(claims()).unwrap();
    bare["iss"] = "https://mcpx.example".into();
    bare.as_object_mut().unwrap().remove("cnf");
    let token = signer.key.sign(&header, &bare).unwrap();
    let refused = signer.verifier().verify(&token, AUDIENCE, NOW).unwrap_err();
    assert_eq!(refused, TokenError::NotBound);
}

#[test]
fn the_memory_of_tokens_is_bounded() {
    let signer = signer();
    let verifier = signer.verifier();
    let shared = Arc::new(claims());
    for n in 0..CACHE * 2 {
        verifier.remember(sha256(n.to_string().as_bytes()), &shared, 0, NOW);
        assert!(verifier.cache().len() <= CACHE);
    }
    verifier.remember(sha256(b"later"), &shared, 0, NOW + 400);
}

#[test]
fn tokens_of_a_key_that_was_replaced_are_good_until_its_time_is_over() {
    let folder = tempfile::tempdir().unwrap();
    let ring = Arc::new(KeyRing::open(folder.path()).unwrap());
    let signer = GrantSigner::new(Arc::clone(&ring), "https://mcpx.example");
    let verifier = signer.verifier();
    let first = signed(&signer, &claims()).unwrap();
    let code = |token: &str, now| {
        verifier.verify(token, AUDIENCE, now).map_or_else(|error| error.code(), |_| "ok")
    };
    assert_eq!(code(&first, NOW), "ok");
    for _ in 0..2 {
        ring::request(folder.path()).unwrap();
        ring.rotate(ring.requested().unwrap().unwrap(), NOW + 200, NOW).unwrap();
    }
    let third = signed(&signer, &claims()).unwrap();
    assert_eq!((code(&first, NOW + 199), code(&third, NOW + 199)), ("ok", "ok"));
    // Nor does the memory of verified tokens keep it longer.
    ring.forget(NOW + 200).unwrap();
    assert_eq!((code(&first, NOW + 200), code(&third, NOW + 200)), ("token_key_unknown", "ok"));
}

#[test]
fn a_fault_names_the_claim_that_it_is_in() {
    let signer = signer();
    let mut header = Header::new(Algorithm::ES256);
    header.typ = Some(TYP.to_owned());
    header.kid = Some(signer.key.id().to_owned());
    let mut good = serde_json::to_value(claims()).unwrap();
    good["iss"] = "https://mcpx.example".into();
    let refused = |claims: &Value| {
        let token = signer.key.sign(&header, claims).unwrap();
        signer.verifier().verify(&token, AUDIENCE, NOW).map(drop).unwrap_err()
    };
    for name in ["iss", "sub", "aud", "exp", "iat", "jti", "cnf", "mcpx"] {
        let mut missing = good.clone();
        missing.as_object_mut().unwrap().remove(name);
        let mut wrong = good.clone();
        wrong[name] = Value::Array(vec![1.into()]);
        let (missing, wrong) = (refused(&missing), refused(&wrong));
        assert_eq!(wrong.code(), "token_malformed", "{name}");
        assert!(wrong.to_string().contains(name), "{wrong}");
        if name == "cnf" {
            assert_eq!(missing, TokenError::NotBound);
        } else {
            assert!(missing.to_string().contains(name), "{missing}");
        }
    }
}

proptest! {
    #[test]
    fn no_text_makes_it_fall_over(text in "\\PC{0,300}", bytes in any::<Vec<u8>>()) {
        let verifier = signer().verifier();
        prop_assert!(verifier.verify(&text, AUDIENCE, NOW).is_err());
        let three = URL_SAFE_NO_PAD.encode(&bytes);
        let three = format!("{three}.{three}.{three}");
        prop_assert!(verifier.verify(&three, AUDIENCE, NOW).is_err());
    }

    #[test]
    fn no_change_of_a_token_is_accepted(at in any::<prop::sample::Index>(), to in "[A-Za-z0-9_.=-]") {
        let own = signer();
        let token = own.sign(&claims()).unwrap();
        let at = at.index(token.len());
        let changed = format!("{}{to}{}", &token[..at], &token[at + 1..]);
        let verified = own.verifier().verify(&changed, AUDIENCE, NOW);
        prop_assert_eq!(verified.is_ok(), changed == token, "{}", changed);
    }
}
