//! Client certificates that stand for nothing but their key (RFC 8705, section 3).
//!
//! The broker makes one in memory and shows it in the TLS handshake, which proves that it holds
//! the key; a token bound to it is then good on that connection without a signature for each call.
//! Who signed such a certificate, and until when, means nothing here: a token names the very
//! certificate (`cnf.x5t#S256`), and it is the token that ends.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, SignatureScheme};
use serde::{Deserialize, Serialize};

use super::key::KeyError;
use crate::types::Secret;

/// The header in which a balancer that ends TLS hands on its client's certificate (RFC 9440).
pub const HEADER: &str = "client-cert";

/// No self-signed certificate of one key is near this.
const MAX_CERTIFICATE: usize = 16 * 1024;

/// SHA-256 of a certificate's DER form in base64url, as it stands in a token's `cnf.x5t#S256`.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CertificateThumbprint(String);

impl CertificateThumbprint {
    /// The thumbprint of a certificate in DER.
    pub fn of(der: &[u8]) -> Self {
        Self(URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, der)))
    }

    /// The thumbprint as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CertificateThumbprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The certificate whose key the other end of this very TLS connection has proved. Only the
/// listener makes one, for every request that comes over the connection.
#[derive(Clone, Debug)]
pub struct PeerCertificate(pub CertificateThumbprint);

/// A certificate that does not do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// The token is bound to a certificate, and there is none.
    #[error("the token is bound to a TLS client certificate, and none was shown")]
    Missing,
    /// The token is bound to another one.
    #[error("the token is bound to another TLS client certificate than the one that was shown")]
    Other,
    /// A header that says what only a balancer may say.
    #[error(
        "the header Client-Cert came from {0}, which is no balancer that this server is told to believe"
    )]
    Untrusted(String),
    /// A header that holds no certificate.
    #[error("the header Client-Cert holds no certificate: {0}")]
    Malformed(&'static str),
}

impl CertificateError {
    /// A stable name for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Missing => "certificate_missing",
            Self::Other => "certificate_other",
            Self::Untrusted(_) => "certificate_untrusted",
            Self::Malformed(_) => "certificate_malformed",
        }
    }
}

/// Reads the value of the header `Client-Cert`: one byte sequence, the certificate's DER form.
///
/// # Errors
/// [`CertificateError::Malformed`].
pub fn from_header(value: &[u8]) -> Result<CertificateThumbprint, CertificateError> {
    if value.len() > MAX_CERTIFICATE * 2 {
        return Err(CertificateError::Malformed("it is too long"));
    }
    let item: sfv::Item = sfv::Parser::new(value)
        .parse()
        .map_err(|_| CertificateError::Malformed("it is no item of a structured field"))?;
    let sfv::BareItem::ByteSequence(der) = item.bare_item else {
        return Err(CertificateError::Malformed("it is no byte sequence"));
    };
    if der.len() > MAX_CERTIFICATE {
        return Err(CertificateError::Malformed("it is too long"));
    }
    let certificate = CertificateDer::from(der);
    ParsedCertificate::try_from(&certificate)
        .map_err(|_| CertificateError::Malformed("the bytes are no X.509 certificate"))?;
    Ok(CertificateThumbprint::of(&certificate))
}

/// A P-256 key and a certificate signed with it, both in this process's memory only.
pub struct OwnCertificate {
    pem: Secret,
    thumbprint: CertificateThumbprint,
}

impl OwnCertificate {
    /// A new key with its certificate. It says nothing of its holder, and does not end: a session
    /// may be longer than anything that could be written here, and some balancer may look.
    ///
    /// # Errors
    /// [`KeyError::Unusable`] when none can be made.
    pub fn generate() -> Result<Self, KeyError> {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)
            .map_err(|_| KeyError::Unusable)?;
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, "mcpx");
        // RFC 5280, section 4.1.2.5: the date for "no well-defined end".
        params.not_after = rcgen::date_time_ymd(9999, 12, 31);
        params.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.self_signed(&key).map_err(|_| KeyError::Unusable)?;
        let thumbprint = CertificateThumbprint::of(certificate.der());
        let pem = Secret::new(format!("{}{}", key.serialize_pem(), certificate.pem()));
        Ok(Self { pem, thumbprint })
    }

    /// Key and certificate in PEM.
    pub fn pem(&self) -> &Secret {
        &self.pem
    }

    /// What a token that is bound to it carries as `cnf.x5t#S256`.
    pub fn thumbprint(&self) -> &CertificateThumbprint {
        &self.thumbprint
    }
}

/// Asks every client for a certificate, takes none for an answer, and believes of one that is
/// shown nothing but that the client holds its key: that is what the handshake proves.
#[derive(Debug)]
pub struct AnyProvenKey {
    algorithms: WebPkiSupportedAlgorithms,
}

impl AnyProvenKey {
    /// The verifier, for a server's TLS configuration.
    pub fn new() -> Arc<Self> {
        Arc::new(Self { algorithms: default_provider().signature_verification_algorithms })
    }
}

impl ClientCertVerifier for AnyProvenKey {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        ParsedCertificate::try_from(end_entity)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests;
