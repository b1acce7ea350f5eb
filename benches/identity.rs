//! What it costs to know who calls: a grant token that is known already (wanted: 2 µs) and one that
//! is not (60 µs), what a request shows besides it, and making a token.
//!
//! `cargo bench --bench identity`. A call with a DPoP-bound token costs `known` and `proof`, one
//! with a certificate-bound token `known` and `certificate`.
#![allow(clippy::expect_used, reason = "a bench that cannot run has nothing else to say")]

use std::sync::Arc;

use axum::http::HeaderMap;
use divan::{Bencher, black_box};
use mcpx::identity::certificate::{OwnCertificate, PeerCertificate};
use mcpx::identity::dpop::{DpopKey, ReplayCache};
use mcpx::identity::grant::{GrantClaims, GrantDetail, GrantKind, GrantSigner, GrantVerifier};
use mcpx::identity::key::SigningKey;
use mcpx::identity::possession::{Confirmation, Possession, Presented, Settings, Shown};
use mcpx::identity::ring::KeyRing;
use mcpx::types::{GrantId, SessionId, SubjectId};
use url::Url;

fn main() {
    divan::main();
}

const NOW: i64 = 1_800_000_000;
const AUDIENCE: &str = "https://mcpx.example/mcp/crm";

/// A signer, its verifier, and a token.
struct Place {
    signer: GrantSigner,
    verifier: GrantVerifier,
    claims: GrantClaims,
    token: String,
    runtime: tokio::runtime::Runtime,
}

fn place() -> Place {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let key = Arc::new(SigningKey::generate().expect("a key"));
    let ring = Arc::new(KeyRing::of(key).expect("a ring"));
    let signer = GrantSigner::new(ring, "https://mcpx.example");
    let claims = GrantClaims {
        iss: String::new(),
        sub: SubjectId::generate().expect("randomness"),
        aud: AUDIENCE.to_owned(),
        exp: NOW + 900,
        iat: NOW,
        jti: GrantId::generate().expect("randomness").to_string(),
        cnf: Confirmation::Key(DpopKey::generate().expect("a key").thumbprint().clone()),
        mcpx: GrantDetail {
            kind: GrantKind::Connection,
            session: Some(SessionId::generate().expect("randomness")),
            connection: Some("crm".parse().expect("a name")),
        },
    };
    let token = runtime.block_on(signer.sign(&claims)).expect("a token");
    let verifier = signer.verifier();
    Place { signer, verifier, claims, token, runtime }
}

/// A token that was verified before.
#[divan::bench]
fn known(bencher: Bencher) {
    let place = place();
    place.verifier.verify(&place.token, AUDIENCE, NOW).expect("a good token");
    bencher.bench(|| {
        place.verifier.verify(black_box(&place.token), AUDIENCE, NOW).expect("a good token")
    });
}

/// A token that nobody has seen before.
#[divan::bench]
fn unknown(bencher: Bencher) {
    let place = place();
    bencher.with_inputs(|| place.signer.verifier()).bench_refs(|verifier| {
        verifier.verify(black_box(&place.token), AUDIENCE, NOW).expect("a good token")
    });
}

/// The proof of one request, each its own.
#[divan::bench]
fn proof(bencher: Bencher) {
    let key = DpopKey::generate().expect("a key");
    let url = Url::parse(AUDIENCE).expect("a URL");
    let judge = Possession::new(&Settings::default(), ReplayCache::new(1 << 24));
    let bound = Confirmation::Key(key.thumbprint().clone());
    let made = || {
        let proof = key.proof("POST", &url, Some("token"), NOW).expect("a proof");
        HeaderMap::from_iter([(
            axum::http::HeaderName::from_static("dpop"),
            proof.parse().expect("a header"),
        )])
    };
    bencher.with_inputs(made).bench_refs(|headers| {
        let (method, url) = ("POST", AUDIENCE);
        let shown = Shown { headers, method, url, source: None, certificate: None };
        judge.check(&shown, Presented::Dpop("token"), &bound, NOW).expect("a good proof");
    });
}

/// The certificate of a connection, whose handshake is over.
#[divan::bench]
fn certificate(bencher: Bencher) {
    let own = OwnCertificate::generate().expect("a certificate");
    let judge = Possession::new(&Settings::default(), ReplayCache::new(1));
    let bound = Confirmation::Certificate(own.thumbprint().clone());
    let peer = PeerCertificate(own.thumbprint().clone());
    let headers = HeaderMap::new();
    bencher.bench(|| {
        let (headers, method, url) = (black_box(&headers), "POST", AUDIENCE);
        let shown = Shown { headers, method, url, source: None, certificate: Some(&peer) };
        judge.check(&shown, Presented::Bearer("token"), &bound, NOW).expect("the certificate");
    });
}

/// Signing one token.
#[divan::bench]
fn sign(bencher: Bencher) {
    let place = place();
    bencher.bench(|| {
        place.runtime.block_on(place.signer.sign(black_box(&place.claims))).expect("a token")
    });
}

/// What a broker makes before its first request.
#[divan::bench]
fn own_certificate() -> OwnCertificate {
    OwnCertificate::generate().expect("a certificate")
}
