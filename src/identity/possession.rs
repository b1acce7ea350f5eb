//! What a token is bound to, and whether a request shows it.
//!
//! There are two kinds, and neither is ever accepted by the other's rule:
//!
//! | kind | the token says | `Authorization` | the request shows |
//! |---|---|---|---|
//! | proof (RFC 9449) | `cnf.jkt` | `DPoP TOKEN` | a signed proof for this one request |
//! | certificate (RFC 8705) | `cnf.x5t#S256` | `Bearer TOKEN` | the certificate of its TLS connection, or of a trusted balancer's |

use std::net::IpAddr;

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::certificate::{self, CertificateError, CertificateThumbprint, PeerCertificate};
use super::dpop::{self, DpopError, ReplayCache, Thumbprint, Unused};

/// What a token is bound to (RFC 7800): its `cnf`, which names exactly one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Confirmation {
    /// The key that signs a proof for each request.
    #[serde(rename = "jkt")]
    Key(Thumbprint),
    /// The certificate of the TLS connection.
    #[serde(rename = "x5t#S256")]
    Certificate(CertificateThumbprint),
}

impl Confirmation {
    /// As the database keeps it. A key's thumbprint stands alone, as before there were others.
    pub fn text(&self) -> String {
        match self {
            Self::Key(thumbprint) => thumbprint.to_string(),
            Self::Certificate(thumbprint) => format!("x5t#S256:{thumbprint}"),
        }
    }

    /// The type of a token that is bound so, as the token endpoint says it.
    pub fn token_type(&self) -> &'static str {
        match self {
            Self::Key(_) => "DPoP",
            Self::Certificate(_) => "Bearer",
        }
    }
}

/// How possession is proved here.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Whether clients may show a certificate, here or to a balancer, so that brokers are told.
    pub certificates: bool,
    /// The balancers whose `Client-Cert` is believed.
    pub balancers: Vec<IpNet>,
    /// For how many seconds a server's nonce is good, if proofs must carry one.
    pub nonce_life: Option<i64>,
}

/// Why a request does not show what its token is bound to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PossessionError {
    /// The proof is missing or wrong.
    #[error(transparent)]
    Proof(#[from] DpopError),
    /// The certificate is missing or wrong.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// Neither a proof nor a certificate.
    #[error("a DPoP proof or a TLS client certificate is needed")]
    Nothing,
    /// A proof does not stand in for the certificate.
    #[error("the token is bound to a TLS client certificate, which a DPoP proof does not replace")]
    NeedsCertificate,
    /// A certificate does not stand in for the proof.
    #[error("the token is bound to a DPoP key, for which a TLS client certificate does not do")]
    NeedsProof,
}

impl PossessionError {
    /// A stable name for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Proof(error) => error.code(),
            Self::Certificate(error) => error.code(),
            Self::Nothing => "dpop_missing",
            Self::NeedsCertificate => "token_needs_certificate",
            Self::NeedsProof => "token_needs_proof",
        }
    }
}

/// What a request shows besides its token.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a> {
    /// Its headers.
    pub headers: &'a HeaderMap,
    /// Its method.
    pub method: &'a str,
    /// Its URL, as clients see it.
    pub url: &'a str,
    /// The address that it came from.
    pub source: Option<IpAddr>,
    /// The certificate of its own TLS connection.
    pub certificate: Option<&'a PeerCertificate>,
}

/// An access token, in the scheme it came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presented<'a> {
    /// `Authorization: DPoP`.
    Dpop(&'a str),
    /// `Authorization: Bearer`.
    Bearer(&'a str),
}

impl<'a> Presented<'a> {
    /// The token of a request, if it has exactly one in a known scheme.
    pub fn of(headers: &'a HeaderMap) -> Option<Self> {
        let (scheme, token) = single(headers, AUTHORIZATION.as_str())?.split_once(' ')?;
        let token = token.trim();
        if scheme.eq_ignore_ascii_case("dpop") {
            Some(Self::Dpop(token))
        } else if scheme.eq_ignore_ascii_case("bearer") {
            Some(Self::Bearer(token))
        } else {
            None
        }
    }

    /// The token itself.
    pub fn token(self) -> &'a str {
        match self {
            Self::Dpop(token) | Self::Bearer(token) => token,
        }
    }
}

/// Judges what requests show.
pub struct Possession {
    balancers: Vec<IpNet>,
    replay: ReplayCache,
}

impl Possession {
    /// A judge that remembers proofs in `replay`.
    pub fn new(settings: &Settings, replay: ReplayCache) -> Self {
        Self { balancers: settings.balancers.clone(), replay }
    }

    /// Whether a request shows what its token, verified before, is bound to. Uses its proof up.
    ///
    /// # Errors
    /// [`PossessionError`].
    pub fn check(
        &self,
        shown: &Shown<'_>,
        presented: Presented<'_>,
        confirmation: &Confirmation,
        now: i64,
    ) -> Result<(), PossessionError> {
        match (confirmation, presented) {
            (Confirmation::Key(key), Presented::Dpop(token)) => {
                let proof = single(shown.headers, "dpop")
                    .ok_or(DpopError::Malformed("there is not exactly one DPoP header"))?;
                if self.proved(shown, proof, Some(token), now)? == *key {
                    Ok(())
                } else {
                    Err(DpopError::OtherKey.into())
                }
            }
            (Confirmation::Certificate(bound), Presented::Bearer(_)) => {
                match self.certificate(shown)? {
                    Some(certificate) if certificate == *bound => Ok(()),
                    Some(_) => Err(CertificateError::Other.into()),
                    None => Err(CertificateError::Missing.into()),
                }
            }
            (Confirmation::Certificate(_), Presented::Dpop(_)) => {
                Err(PossessionError::NeedsCertificate)
            }
            (Confirmation::Key(_), Presented::Bearer(_)) => Err(PossessionError::NeedsProof),
        }
    }

    /// What a token that is asked for by this request is to be bound to: the key of its proof,
    /// and without one the certificate. The proof is yet to be used up, once it is known who shows
    /// it: else strangers could fill the memory of proofs.
    ///
    /// # Errors
    /// [`PossessionError`].
    pub fn confirm(
        &self,
        shown: &Shown<'_>,
        now: i64,
    ) -> Result<(Confirmation, Option<Unused>), PossessionError> {
        if shown.headers.contains_key("dpop") {
            let proof = single(shown.headers, "dpop")
                .ok_or(DpopError::Malformed("there is not exactly one DPoP header"))?;
            let (method, url) = (shown.method, shown.url);
            let proof = dpop::inspect_proof(proof, method, url, None, now, &self.replay)?;
            return Ok((Confirmation::Key(proof.thumbprint().clone()), Some(proof)));
        }
        let certificate = self.certificate(shown)?.ok_or(PossessionError::Nothing)?;
        Ok((Confirmation::Certificate(certificate), None))
    }

    /// Uses up the proof of a request to the token endpoint, if it had one.
    ///
    /// # Errors
    /// [`PossessionError`]: it was used before, or cannot be remembered.
    pub fn use_up(&self, proof: Option<Unused>, now: i64) -> Result<(), PossessionError> {
        if let Some(proof) = proof {
            proof.use_up(now, &self.replay)?;
        }
        Ok(())
    }

    /// The nonce that proofs must carry from now on, if they must.
    pub fn nonce(&self, now: i64) -> Option<String> {
        self.replay.nonce(now)
    }

    fn proved(
        &self,
        shown: &Shown<'_>,
        proof: &str,
        token: Option<&str>,
        now: i64,
    ) -> Result<Thumbprint, PossessionError> {
        Ok(dpop::verify_proof(proof, shown.method, shown.url, token, now, &self.replay)?)
    }

    /// The client's certificate. What comes from a balancer is its client's business and never its
    /// own: the balancer's own certificate would let everybody behind it be the same one.
    fn certificate(
        &self,
        shown: &Shown<'_>,
    ) -> Result<Option<CertificateThumbprint>, CertificateError> {
        let source = shown.source.map(|source| source.to_canonical());
        let balanced = source
            .is_some_and(|source| self.balancers.iter().any(|balancer| balancer.contains(&source)));
        let mut headers = shown.headers.get_all(certificate::HEADER).iter();
        match (headers.next(), balanced) {
            (None, false) => Ok(shown.certificate.map(|peer| peer.0.clone())),
            (None, true) => Ok(None),
            (Some(_), false) => Err(CertificateError::Untrusted(
                source.map_or_else(|| "nowhere".to_owned(), |source| source.to_string()),
            )),
            (Some(value), true) => {
                if headers.next().is_some() {
                    return Err(CertificateError::Malformed("there is more than one"));
                }
                certificate::from_header(value.as_bytes()).map(Some)
            }
        }
    }
}

/// A header's value, if it is there exactly once.
pub(crate) fn single<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    if values.next().is_some() { None } else { value.to_str().ok() }
}

#[cfg(test)]
mod tests;
