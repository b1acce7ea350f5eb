//! A table of forgeries.

use jsonwebtoken::EncodingKey;
use serde_json::{Value, json};

use super::super::key::SigningKey;
use super::*;

const NOW: i64 = 1_800_000_000;
const TOKEN: &str = "the-access-token";

fn url() -> Url {
    Url::parse("https://mcpx.example/c/crm").unwrap()
}

fn check(proof: &str) -> Result<Thumbprint, DpopError> {
    verify_proof(proof, "POST", url(), Some(TOKEN), NOW, &ReplayCache::new(100))
}

fn good_header(key: &SigningKey) -> Value {
    json!({ "typ": "dpop+jwt", "alg": "ES256", "jwk": {
        "kty": "EC", "crv": "P-256",
        "x": member(key, "x"), "y": member(key, "y"),
    }})
}

fn member(key: &SigningKey, name: &str) -> Value {
    serde_json::to_value(key.jwk()).unwrap()[name].clone()
}

fn good_claims() -> Value {
    json!({ "jti": "j", "htm": "POST", "htu": url().as_str(), "iat": NOW, "ath": token_hash(TOKEN) })
}

/// Signs any header with any claims: what an attacker with a key can do.
fn forge(key: &SigningKey, header: &Value, claims: &Value) -> String {
    let [header, claims] = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string()));
    let message = format!("{header}.{claims}");
    let signature = key.sign_raw(message.as_bytes());
    format!("{message}.{signature}")
}

#[test]
fn a_proof_is_good_once() {
    let key = DpopKey::generate().unwrap();
    let seen = ReplayCache::new(100);
    let proof = key.proof("POST", &url(), Some(TOKEN), NOW).unwrap();
    let verify = |now| verify_proof(&proof, "POST", url(), Some(TOKEN), now, &seen);
    assert_eq!(verify(NOW + 61), Err(DpopError::Stale { off: -61 }));
    assert_eq!(verify(NOW - 61), Err(DpopError::Stale { off: 61 }));
    assert_eq!(verify(NOW).unwrap(), *key.thumbprint());
    assert_eq!(verify(NOW), Err(DpopError::Replayed));
    assert_eq!(verify(NOW + 60), Err(DpopError::Replayed));
    let next = key.proof("POST", &url(), Some(TOKEN), NOW).unwrap();
    assert!(verify_proof(&next, "POST", url(), Some(TOKEN), NOW, &seen).is_ok());
}

#[test]
fn a_key_survives_its_file_and_is_of_one_kind() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("job.key");
    let first = DpopKey::load_or_create(&path).unwrap();
    let again = DpopKey::load_or_create(&path).unwrap();
    assert_eq!(first.thumbprint(), again.thumbprint());
    let proof = again.proof("POST", &url(), Some(TOKEN), NOW).unwrap();
    assert!(check(&proof).is_ok());
    // The file is what other tools call a PKCS #8 PEM.
    jsonwebtoken::EncodingKey::from_ed_pem(&std::fs::read(&path).unwrap()).unwrap();
    let other = dir.path().join("other.key");
    SigningKey::load_or_create(&other).unwrap();
    let error = DpopKey::load_or_create(&other).err().unwrap().to_string();
    assert!(error.contains("other.key") && error.contains("Ed25519"), "{error}");
}

#[test]
fn a_refused_proof_is_not_used_up() {
    let key = DpopKey::generate().unwrap();
    let seen = ReplayCache::new(100);
    let proof = key.proof("POST", &url(), Some(TOKEN), NOW).unwrap();
    assert!(verify_proof(&proof, "GET", url(), Some(TOKEN), NOW, &seen).is_err());
    assert!(verify_proof(&proof, "POST", url(), Some(TOKEN), NOW, &seen).is_ok());
}

#[test]
fn the_url_is_compared_normalised() {
    let key = DpopKey::generate().unwrap();
    let request = Url::parse("HTTPS://MCPX.example:443/c/./crm?x=1#f").unwrap();
    let proof = key.proof("POST", &request, Some(TOKEN), NOW).unwrap();
    assert!(check(&proof).is_ok());
    for other in
        ["https://mcpx.example/c/CRM", "https://mcpx.example/c/crm/", "http://mcpx.example/c/crm"]
    {
        let proof = key.proof("POST", &Url::parse(other).unwrap(), Some(TOKEN), NOW).unwrap();
        assert_eq!(check(&proof), Err(DpopError::OtherRequest("URL")), "{other}");
    }
}

#[test]
fn proofs_with_and_without_token_are_not_exchanged() {
    let key = DpopKey::generate().unwrap();
    let seen = ReplayCache::new(100);
    let bare = key.proof("POST", &url(), None, NOW).unwrap();
    assert_eq!(check(&bare), Err(DpopError::OtherRequest("access token")));
    assert!(verify_proof(&bare, "POST", url(), None, NOW, &seen).is_ok());
    let bound = key.proof("POST", &url(), Some("other"), NOW).unwrap();
    assert_eq!(check(&bound), Err(DpopError::OtherRequest("access token")));
    let bound = key.proof("POST", &url(), Some(TOKEN), NOW).unwrap();
    assert!(verify_proof(&bound, "POST", url(), None, NOW, &seen).is_err());
}

#[test]
fn forgeries_are_refused() {
    let key = SigningKey::generate().unwrap();
    let other = SigningKey::generate().unwrap();
    assert!(check(&forge(&key, &good_header(&key), &good_claims())).is_ok());

    let jwk = |name: &str, value: Value| {
        let mut header = good_header(&key);
        header["jwk"][name] = value;
        header
    };
    let top = |name: &str, value: Value| {
        let mut header = good_header(&key);
        header[name] = value;
        header
    };
    let long = format!("AA{}", member(&key, "x").as_str().unwrap());
    let headers = [
        top("typ", json!("JWT")),
        top("typ", json!("at+jwt")),
        top("typ", Value::Null),
        top("alg", json!("none")),
        top("alg", json!("HS256")),
        top("alg", json!("ES384")),
        top("alg", json!("EdDSA")),
        top("crit", json!(["x"])),
        top("jwk", Value::Null),
        top("jwk", json!({ "kty": "oct", "k": "AAAA" })),
        top("jwk", json!({ "kty": "RSA", "n": "AAAA", "e": "AQAB" })),
        jwk("kty", json!("OKP")),
        jwk("crv", json!("P-384")),
        jwk("d", json!("AAAA")),
        jwk("d", Value::Null),
        jwk("k", json!("AAAA")),
        jwk("x", json!(long)),
        jwk("x", json!("AAAA")),
        jwk("x", json!(format!("{}=", member(&key, "x").as_str().unwrap()))),
        jwk("y", member(&key, "x")),
        jwk("x", member(&other, "x")),
        top("jwk", good_header(&other)["jwk"].clone()),
    ];
    for header in headers {
        assert!(check(&forge(&key, &header, &good_claims())).is_err(), "{header}");
    }

    let cases = [
        ("jti", json!("")),
        ("jti", json!("j".repeat(MAX_JTI + 1))),
        ("jti", Value::Null),
        ("jti", json!(7)),
        ("htm", json!("post")),
        ("htm", json!("GET")),
        ("htu", json!("https://mcpx.example/c/other")),
        ("htu", json!("https://mcpx.example/c/crm?x")),
        ("htu", json!("https://mcpx.example/c/crm#x")),
        ("htu", json!("/c/crm")),
        ("iat", json!(NOW - 61)),
        ("iat", json!(NOW + 61)),
        ("iat", json!(i64::MIN)),
        ("iat", json!(NOW.to_string())),
        ("ath", json!("")),
        ("ath", Value::Null),
        ("ath", json!(TOKEN)),
    ];
    for (name, value) in cases {
        let mut claims = good_claims();
        claims[name] = value.clone();
        let proof = forge(&key, &good_header(&key), &claims);
        assert!(check(&proof).is_err(), "{name}: {value}");
    }

    let good = forge(&key, &good_header(&key), &good_claims());
    let (message, signature) = good.rsplit_once('.').unwrap();
    for shape in [
        String::new(),
        message.to_owned(),
        format!("{message}."),
        format!("{good}.x"),
        format!("{message}.{}", signature.replace(|c: char| c.is_ascii_lowercase(), "A")),
        format!("{message}.{}", key.sign_raw(b"something else")),
        "a".repeat(MAX_PROOF + 1),
    ] {
        assert!(check(&shape).is_err(), "{shape}");
    }
    // Symmetric, keyed with the public key that the header shows.
    let mut header = Header::new(Algorithm::HS256);
    header.typ = Some(TYP.to_owned());
    header.jwk = Some(key.jwk().clone());
    let secret = EncodingKey::from_secret(key.public().try_get_as_bytes().unwrap());
    let proof = jsonwebtoken::encode(&header, &good_claims(), &secret).unwrap();
    assert_eq!(check(&proof), Err(DpopError::Key("alg")));
}

#[test]
fn both_suites_are_taken_and_not_mixed() {
    let mine = DpopKey::generate().unwrap();
    let proof = mine.proof("POST", &url(), Some(TOKEN), NOW).unwrap();
    assert_eq!(check(&proof).unwrap(), *mine.thumbprint());
    let p256 = SigningKey::generate().unwrap();
    let proof = forge(&p256, &good_header(&p256), &good_claims());
    assert_eq!(check(&proof).unwrap(), Thumbprint::of(p256.jwk()).unwrap());
    // The one's key under the other's name.
    let okp = serde_json::to_value(&mine.jwk).unwrap();
    for (alg, jwk) in [("ES256", okp.clone()), ("EdDSA", good_header(&p256)["jwk"].clone())] {
        let header = json!({ "typ": TYP, "alg": alg, "jwk": jwk });
        let proof = forge(&p256, &header, &good_claims());
        assert_eq!(check(&proof), Err(DpopError::Key("kty or crv")), "{alg}");
    }
    let header = json!({ "typ": TYP, "alg": "EdDSA", "jwk": okp });
    assert_eq!(check(&forge(&p256, &header, &good_claims())), Err(DpopError::Signature));
}

#[test]
fn a_known_key_still_has_to_sign() {
    let key = SigningKey::generate().unwrap();
    let seen = ReplayCache::new(100);
    let verify = |proof: &str| verify_proof(proof, "POST", url(), Some(TOKEN), NOW, &seen);
    let claims = |jti: &str| {
        let mut claims = good_claims();
        claims["jti"] = json!(jti);
        claims
    };
    assert!(verify(&forge(&key, &good_header(&key), &claims("1"))).is_ok());
    assert!(verify(&forge(&key, &good_header(&key), &claims("2"))).is_ok());
    let thief = SigningKey::generate().unwrap();
    let forged = forge(&thief, &good_header(&key), &claims("3"));
    assert_eq!(verify(&forged), Err(DpopError::Signature));
    assert!(verify(&forge(&key, &good_header(&key), &claims("3"))).is_ok());
}

#[test]
fn the_thumbprint_is_that_of_the_specification() {
    // RFC 9449, section 6.1, and RFC 7638.
    let jwk: Jwk = serde_json::from_value(json!({
        "kty": "EC", "crv": "P-256",
        "x": "l8tFrhx-34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFs",
        "y": "9VE4jf_Ok_o64zbTTlcuNJajHmt6v9TDVrU0CdvGRDA",
    }))
    .unwrap();
    let thumbprint = Thumbprint::of(&jwk).unwrap();
    assert_eq!(thumbprint.as_str(), "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I");
    // RFC 9449, section 7.1: the hash of its example token.
    let token = "Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU";
    assert_eq!(token_hash(token), "fUHyO2r2Z3DZ53EsNrWBb0xWXoaNy59IiKCAqksmQEo");
}

#[test]
fn the_specification_s_own_proof_verifies() {
    // RFC 9449, section 7.1, figure 12.
    let proof = "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6Ik\
        VDIiwieCI6Imw4dEZyaHgtMzR0VjNoUklDUkRZOXpDa0RscEJoRjQyVVFVZldWQVdCR\
        nMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFqSG10NnY5VERWclUwQ2R2R1JE\
        QSIsImNydiI6IlAtMjU2In19.eyJqdGkiOiJlMWozVl9iS2ljOC1MQUVCIiwiaHRtIj\
        oiR0VUIiwiaHR1IjoiaHR0cHM6Ly9yZXNvdXJjZS5leGFtcGxlLm9yZy9wcm90ZWN0Z\
        WRyZXNvdXJjZSIsImlhdCI6MTU2MjI2MjYxOCwiYXRoIjoiZlVIeU8ycjJaM0RaNTNF\
        c05yV0JiMHhXWG9hTnk1OUlpS0NBcWtzbVFFbyJ9.2oW9RP35yRqzhrtNP86L-Ey71E\
        OptxRimPPToA1plemAgR6pxHF8y6-yqyVnmcw6Fy1dqd-jfxSYoMxhAJpLjA";
    let url = Url::parse("https://resource.example.org/protectedresource").unwrap();
    let token = "Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU";
    let seen = ReplayCache::new(10);
    let verified = verify_proof(proof, "GET", &url, Some(token), 1_562_262_618, &seen);
    assert_eq!(verified.unwrap().as_str(), "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I");
}

#[test]
fn a_fault_in_a_claim_names_it() {
    let key = SigningKey::generate().unwrap();
    let refused = |claims: &Value| check(&forge(&key, &good_header(&key), claims)).unwrap_err();
    for name in ["jti", "htm", "htu", "iat"] {
        let mut missing = good_claims();
        missing.as_object_mut().unwrap().remove(name);
        let mut wrong = good_claims();
        wrong[name] = json!([1]);
        for claims in [missing, wrong] {
            assert_eq!(refused(&claims), DpopError::Malformed(name), "{claims}");
        }
    }
    for name in ["ath", "nonce"] {
        let mut wrong = good_claims();
        wrong[name] = json!(7);
        assert_eq!(refused(&wrong), DpopError::Malformed(name));
    }
}

proptest::proptest! {
    #[test]
    fn no_text_makes_it_fall_over(
        text in "\\PC{0,300}",
        bytes in proptest::prelude::any::<Vec<u8>>(),
    ) {
        proptest::prop_assert!(check(&text).is_err());
        let part = URL_SAFE_NO_PAD.encode(&bytes);
        let three = [part.as_str(); 3].join(".");
        proptest::prop_assert!(check(&three).is_err());
    }

    #[test]
    fn any_header_or_claims_of_a_forger_are_judged(
        name in "typ|alg|jwk|crit|jti|htm|htu|iat|ath|nonce",
        value in "null|0|-1|1e99|true|\"\"|\"x\"|\\[\\]|\\{\\}|\\{\"kty\":\"EC\"\\}",
    ) {
        let key = SigningKey::generate().unwrap();
        let (mut header, mut claims) = (good_header(&key), good_claims());
        let value: Value = serde_json::from_str(&value).unwrap();
        let part = if ["typ", "alg", "jwk", "crit"].contains(&name.as_str()) {
            &mut header
        } else {
            &mut claims
        };
        part[&name] = value.clone();
        // A jti may be any text, and a nonce that nobody asked for is not looked at. A `crit` of
        // null is none.
        let harmless = match name.as_str() {
            "jti" => value == "x",
            "nonce" => value.is_string() || value.is_null(),
            "crit" => value.is_null(),
            _ => false,
        };
        proptest::prop_assert_eq!(check(&forge(&key, &header, &claims)).is_ok(), harmless);
    }
}
