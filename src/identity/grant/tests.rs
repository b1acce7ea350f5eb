//! Grant tokens against forgeries, confusion of kinds, and clocks.

use super::*;

const NOW: i64 = 1_800_000_000;
const AUDIENCE: &str = "https://mcpx.example/c/crm";

fn signer() -> GrantSigner {
    GrantSigner::new(SigningKey::generate().unwrap(), "https://mcpx.example")
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
        cnf: Confirmation { jkt: Thumbprint::of(key.jwk()).unwrap() },
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
    let other_server =
        GrantSigner { issuer: "https://other.example".into(), key: signer.key.clone() };
    assert_eq!(verify(&other_server.sign(&claims()).unwrap()).code(), "unknown_issuer");

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
        verifier.remember(sha256(n.to_string().as_bytes()), &shared, NOW);
        assert!(verifier.cache().len() <= CACHE);
    }
    verifier.remember(sha256(b"later"), &shared, NOW + 400);
}
