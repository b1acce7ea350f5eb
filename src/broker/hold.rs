//! What a broker holds for one grant, and how it shows it: a certificate in the TLS handshake
//! (RFC 8705) where the server says that it binds tokens to one, else a key that signs a proof for
//! each request (RFC 9449), with the server's nonce once it gave one.
//!
//! A certificate may not arrive: something in between ends TLS and hands nothing on. The server
//! says so, and this falls back to proofs, which pass everything. Both are bound to a key that
//! never leaves this process, so neither is the weaker one. A job brings its own key, as its token is
//! bound to the first that used it, and shows proofs only.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock};

use axum::http::HeaderMap;
use url::Url;

use super::server::ServerInfo;
use crate::identity::certificate::OwnCertificate;
use crate::identity::dpop::DpopKey;
use crate::identity::key::KeyError;

/// What a server says that wants its nonce in the proof.
pub const USE_NONCE: &str = "use_dpop_nonce";

/// A nonce that is longer is none.
const MAX_NONCE: usize = 512;

/// Key and certificate, in this process's memory only but for a key that a job's commands share. It
/// has no `Debug`.
pub struct Hold {
    key: DpopKey,
    certificate: Option<OwnCertificate>,
    /// Whether the certificate is what counts.
    by_certificate: AtomicBool,
    nonce: RwLock<Option<String>>,
}

impl Hold {
    /// Makes what the server can use.
    ///
    /// # Errors
    /// [`KeyError`] when no key can be made.
    pub fn new(server: &ServerInfo) -> Result<Self, KeyError> {
        // Without TLS of its own there is nothing to show a certificate in.
        let wanted = server.certificates && server.server.scheme() == "https";
        let certificate = wanted.then(OwnCertificate::generate).transpose()?;
        Ok(Self {
            key: DpopKey::generate()?,
            by_certificate: AtomicBool::new(certificate.is_some()),
            certificate,
            nonce: RwLock::default(),
        })
    }

    /// Proofs of this key and nothing else.
    pub fn of_key(key: DpopKey) -> Self {
        Self {
            key,
            certificate: None,
            by_certificate: AtomicBool::new(false),
            nonce: RwLock::default(),
        }
    }

    /// Key and certificate for the TLS client.
    ///
    /// # Errors
    /// What the HTTP library says of them.
    pub fn identity(&self) -> Result<Option<reqwest::Identity>, reqwest::Error> {
        let pem = self.certificate.as_ref().map(OwnCertificate::pem);
        pem.map(|pem| reqwest::Identity::from_pem(pem.expose().as_bytes())).transpose()
    }

    /// The same in PEM, for a TLS client of another kind.
    pub fn pem(&self) -> Option<&crate::types::Secret> {
        self.certificate.as_ref().map(OwnCertificate::pem)
    }

    /// The proof for a request, if it takes one, and the type of token that goes with it.
    ///
    /// # Errors
    /// [`KeyError`] when the proof cannot be signed.
    pub fn proof(
        &self,
        method: &str,
        url: &Url,
        token: Option<&str>,
        now: i64,
    ) -> Result<(Option<String>, &'static str), KeyError> {
        if self.by_certificate.load(Ordering::Acquire) {
            return Ok((None, "Bearer"));
        }
        let nonce = self.nonce.read().unwrap_or_else(PoisonError::into_inner).clone();
        Ok((Some(self.key.proof_with(method, url, token, nonce, now)?), "DPoP"))
    }

    /// Takes the nonce of an answer for the next proofs, if it has one.
    pub fn nonce(&self, headers: &HeaderMap) {
        let nonce = headers.get("dpop-nonce").and_then(|nonce| nonce.to_str().ok());
        if let Some(nonce) = nonce.filter(|nonce| nonce.len() <= MAX_NONCE) {
            *self.nonce.write().unwrap_or_else(PoisonError::into_inner) = Some(nonce.to_owned());
        }
    }

    /// Learns from a refusal; whether the same request may go through now. The caller sends it
    /// again once at most.
    pub fn learn(&self, code: &str, headers: &HeaderMap) -> bool {
        match code {
            USE_NONCE => {
                self.nonce(headers);
                headers.contains_key("dpop-nonce")
            }
            // Nothing was shown, or not this: something in between ends TLS.
            "dpop_missing"
            | "certificate_missing"
            | "certificate_other"
            | "certificate_untrusted"
            | "certificate_malformed" => {
                if self.by_certificate.swap(false, Ordering::AcqRel) {
                    tracing::info!(
                        code,
                        "the certificate does not reach the server: proofs instead"
                    );
                }
                // Also where another request was the first to learn it.
                self.certificate.is_some()
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(url: &str, certificates: bool) -> ServerInfo {
        serde_json::from_value(serde_json::json!({
            "version": 1, "server": url, "issuers": [], "token_endpoint": format!("{url}/t"),
            "api": format!("{url}/api"), "log_key": "k",
            "tls_client_certificate_bound_access_tokens": certificates,
        }))
        .unwrap()
    }

    fn kind(hold: &Hold) -> &'static str {
        let url = Url::parse("https://mcpx.example/mcp/crm").unwrap();
        let (proof, kind) = hold.proof("POST", &url, None, 1).unwrap();
        assert_eq!(proof.is_some(), kind == "DPoP");
        kind
    }

    #[test]
    fn picks_the_certificate_where_it_is_offered_and_can_be_shown() {
        for (url, offered, expected) in [
            ("https://mcpx.example", true, "Bearer"),
            ("https://mcpx.example", false, "DPoP"),
            ("http://127.0.0.1:1", true, "DPoP"),
        ] {
            let hold = Hold::new(&server(url, offered)).unwrap();
            assert_eq!(kind(&hold), expected, "{url} {offered}");
            assert_eq!(hold.identity().unwrap().is_some(), expected == "Bearer");
        }
    }

    #[test]
    fn falls_back_to_proofs_and_takes_a_nonce() {
        let hold = Hold::new(&server("https://mcpx.example", true)).unwrap();
        let none = HeaderMap::new();
        assert!(!hold.learn("grant_revoked", &none) && kind(&hold) == "Bearer");
        assert!(hold.learn("certificate_missing", &none));
        assert_eq!(kind(&hold), "DPoP");
        assert!(hold.learn("certificate_missing", &none), "of a request sent before");
        assert!(!hold.learn(USE_NONCE, &none), "no nonce came along");
        let given = HeaderMap::from_iter([("dpop-nonce".parse().unwrap(), "n1".parse().unwrap())]);
        assert!(hold.learn(USE_NONCE, &given));
        let own = Hold::of_key(DpopKey::generate().unwrap());
        assert!(kind(&own) == "DPoP" && own.identity().unwrap().is_none());
        assert!(!own.learn("certificate_missing", &none));
        let proofs = Hold::new(&server("https://mcpx.example", false)).unwrap();
        assert!(!proofs.learn("certificate_missing", &none), "there is nothing else to try");
    }
}
