//! Every kind of token against everything that a request can show.

use super::*;
use crate::identity::certificate::OwnCertificate;
use crate::identity::dpop::{DpopKey, Nonces};
use url::Url;

const NOW: i64 = 1_800_000_000;

struct Case {
    key: DpopKey,
    certificate: OwnCertificate,
    url: Url,
}

fn case() -> Case {
    Case {
        key: DpopKey::generate().unwrap(),
        certificate: OwnCertificate::generate().unwrap(),
        url: Url::parse("https://mcpx.example/mcp/crm").unwrap(),
    }
}

fn judge(balancers: &[&str]) -> Possession {
    let balancers = balancers.iter().map(|network| network.parse().unwrap()).collect();
    let settings = Settings { certificates: true, balancers, nonce_life: None };
    Possession::new(&settings, ReplayCache::new(1000))
}

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.append(*name, value.parse().unwrap());
    }
    headers
}

fn handed_on(certificate: &OwnCertificate) -> String {
    use base64::Engine as _;
    let pem = certificate.pem().expose();
    let body = pem.split("-----BEGIN CERTIFICATE-----").nth(1).unwrap();
    let body: String = body.split("-----END").next().unwrap().split_whitespace().collect();
    let engine = base64::engine::general_purpose::STANDARD;
    assert!(engine.decode(&body).is_ok());
    format!(":{body}:")
}

/// The code of the refusal; `ok` for none.
fn code(result: Result<(), PossessionError>) -> &'static str {
    result.map_or_else(|error| error.code(), |()| "ok")
}

#[test]
fn a_token_of_one_kind_is_never_accepted_by_the_rule_of_the_other() {
    let case = case();
    let thief = OwnCertificate::generate().unwrap();
    let other_key = DpopKey::generate().unwrap();
    let by_key = Confirmation::Key(case.key.thumbprint().clone());
    let by_certificate = Confirmation::Certificate(case.certificate.thumbprint().clone());
    let own = PeerCertificate(case.certificate.thumbprint().clone());
    let stolen = PeerCertificate(thief.thumbprint().clone());
    let judge = judge(&[]);
    type Proof<'a> = Option<&'a DpopKey>;
    type Peer<'a> = Option<&'a PeerCertificate>;
    let rows: [(&Confirmation, bool, Proof<'_>, Peer<'_>, &str); 14] = [
        (&by_key, true, Some(&case.key), None, "ok"),
        (&by_key, true, Some(&case.key), Some(&stolen), "ok"),
        (&by_key, true, None, None, "dpop_malformed"),
        (&by_key, true, None, Some(&own), "dpop_malformed"),
        (&by_key, true, Some(&other_key), Some(&own), "dpop_other_key"),
        (&by_key, false, None, Some(&own), "token_needs_proof"),
        (&by_key, false, Some(&case.key), None, "token_needs_proof"),
        (&by_certificate, false, None, Some(&own), "ok"),
        (&by_certificate, false, Some(&case.key), Some(&own), "ok"),
        (&by_certificate, false, None, None, "certificate_missing"),
        (&by_certificate, false, Some(&case.key), None, "certificate_missing"),
        (&by_certificate, false, None, Some(&stolen), "certificate_other"),
        (&by_certificate, true, Some(&case.key), None, "token_needs_certificate"),
        (&by_certificate, true, Some(&case.key), Some(&own), "token_needs_certificate"),
    ];
    for (at, (bound, dpop, proof, certificate, expected)) in rows.into_iter().enumerate() {
        let proof = proof.map(|key| key.proof("POST", &case.url, Some("t"), NOW).unwrap());
        let headers = match &proof {
            Some(proof) => headers(&[("dpop", proof)]),
            None => HeaderMap::new(),
        };
        let shown = Shown {
            headers: &headers,
            method: "POST",
            url: case.url.as_str(),
            source: None,
            certificate,
        };
        let presented = if dpop { Presented::Dpop("t") } else { Presented::Bearer("t") };
        assert_eq!(code(judge.check(&shown, presented, bound, NOW)), expected, "row {at}");
    }
}

#[test]
fn a_certificate_is_believed_of_balancers_only_and_never_their_own() {
    let case = case();
    let bound = Confirmation::Certificate(case.certificate.thumbprint().clone());
    let judge = judge(&["10.0.0.0/8", "::1/128"]);
    let (good, own) =
        (handed_on(&case.certificate), PeerCertificate(case.certificate.thumbprint().clone()));
    let one = headers(&[("client-cert", &good)]);
    let two = headers(&[("client-cert", &good), ("client-cert", &good)]);
    let none = HeaderMap::new();
    let bad = headers(&[("client-cert", "nonsense")]);
    let rows: [(&HeaderMap, &str, Option<&PeerCertificate>, &str); 9] = [
        (&one, "10.1.2.3", None, "ok"),
        (&one, "::ffff:10.1.2.3", None, "ok"),
        (&one, "::1", None, "ok"),
        (&one, "11.1.2.3", None, "certificate_untrusted"),
        (&one, "11.1.2.3", Some(&own), "certificate_untrusted"),
        (&two, "10.1.2.3", None, "certificate_malformed"),
        (&bad, "10.1.2.3", None, "certificate_malformed"),
        (&none, "10.1.2.3", Some(&own), "certificate_missing"),
        (&none, "11.1.2.3", Some(&own), "ok"),
    ];
    for (at, (headers, source, certificate, expected)) in rows.into_iter().enumerate() {
        let source = Some(source.parse().unwrap());
        let shown = Shown { headers, method: "POST", url: case.url.as_str(), source, certificate };
        let got = code(judge.check(&shown, Presented::Bearer("t"), &bound, NOW));
        assert_eq!(got, expected, "row {at}");
        let confirmed = judge.confirm(&shown, NOW).map_or_else(|error| error.code(), |_| "ok");
        let expected = if expected == "certificate_missing" { "dpop_missing" } else { expected };
        assert_eq!(confirmed, expected, "row {at} at the exchange");
    }
}

#[test]
fn an_exchange_with_both_is_bound_to_the_proof() {
    let case = case();
    let own = PeerCertificate(case.certificate.thumbprint().clone());
    let proof = case.key.proof("POST", &case.url, None, NOW).unwrap();
    let headers = headers(&[("dpop", &proof)]);
    let (url, certificate) = (case.url.as_str(), Some(&own));
    let shown = Shown { headers: &headers, method: "POST", url, source: None, certificate };
    let expected = Confirmation::Key(case.key.thumbprint().clone());
    let judge = judge(&[]);
    let (first, proof) = judge.confirm(&shown, NOW).unwrap();
    assert_eq!(first, expected);
    // What strangers show is not remembered; what is used up is good no second time.
    let (again, same) = judge.confirm(&shown, NOW).unwrap();
    assert_eq!(again, expected);
    assert_eq!(judge.use_up(proof, NOW), Ok(()));
    assert_eq!(judge.use_up(same, NOW), Err(DpopError::Replayed.into()));
}

#[test]
fn a_nonce_is_asked_for_and_then_taken() {
    let case = case();
    let settings = Settings { nonce_life: Some(60), ..Settings::default() };
    let replay = ReplayCache::new(100).with_nonces(Some(Nonces::new(60).unwrap().into()));
    let judge = Possession::new(&settings, replay);
    let ask = |nonce: Option<String>| {
        let proof = case.key.proof_with("POST", &case.url, None, nonce, NOW).unwrap();
        let headers = headers(&[("dpop", &proof)]);
        let url = case.url.as_str();
        let shown =
            Shown { headers: &headers, method: "POST", url, source: None, certificate: None };
        judge.confirm(&shown, NOW).map_or_else(|error| error.code(), |_| "ok")
    };
    assert_eq!(ask(None), "use_dpop_nonce");
    assert_eq!(ask(Some("of my own".to_owned())), "use_dpop_nonce");
    assert_eq!(ask(judge.nonce(NOW - 90)), "use_dpop_nonce");
    assert_eq!(ask(judge.nonce(NOW)), "ok");
}

#[test]
fn what_was_stored_before_there_were_certificates_reads_the_same() {
    let jkt = Confirmation::Key(DpopKey::generate().unwrap().thumbprint().clone());
    assert!(!jkt.text().contains(':'));
    let text = serde_json::to_string(&jkt).unwrap();
    assert!(text.starts_with(r#"{"jkt":""#), "{text}");
    let x5t = Confirmation::Certificate(OwnCertificate::generate().unwrap().thumbprint().clone());
    let written = serde_json::to_value(&x5t).unwrap();
    assert!(written["x5t#S256"].is_string(), "{written}");
    assert_ne!(jkt.text(), x5t.text());
    let mut both = written;
    both["jkt"] = "x".into();
    for wrong in [both, serde_json::json!({}), serde_json::json!({"jwk": {}}), "jkt".into()] {
        assert!(serde_json::from_value::<Confirmation>(wrong.clone()).is_err(), "{wrong}");
    }
}

#[test]
fn tokens_come_in_two_schemes() {
    for (value, expected) in [
        ("DPoP abc", Some(Presented::Dpop("abc"))),
        ("dpop  abc", Some(Presented::Dpop("abc"))),
        ("BEARER abc", Some(Presented::Bearer("abc"))),
        ("Basic abc", None),
        ("abc", None),
        ("", None),
    ] {
        assert_eq!(Presented::of(&headers(&[("authorization", value)])), expected, "{value}");
    }
    let twice = headers(&[("authorization", "DPoP a"), ("authorization", "Bearer a")]);
    assert_eq!(Presented::of(&twice), None);
}
