//! Certificates in headers, and in handshakes with real clients.

use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{PrivateKeyDer, ServerName};

use super::*;

fn der(own: &OwnCertificate) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(own.pem().expose().as_bytes()).unwrap()
}

fn header(der: &[u8]) -> String {
    format!(":{}:", STANDARD.encode(der))
}

#[test]
fn a_balancer_hands_a_certificate_on() {
    let own = OwnCertificate::generate().unwrap();
    let value = header(&der(&own));
    assert_eq!(from_header(value.as_bytes()).as_ref(), Ok(own.thumbprint()));
    assert_eq!(own.thumbprint().as_str().len(), 43);
    // Parameters are allowed and mean nothing (RFC 9440, section 2.2).
    assert_eq!(from_header(format!("{value};a=1").as_bytes()).as_ref(), Ok(own.thumbprint()));
    let other = OwnCertificate::generate().unwrap();
    assert_ne!(own.thumbprint(), other.thumbprint());
}

#[test]
fn what_is_no_certificate_is_refused() {
    let own = OwnCertificate::generate().unwrap();
    let whole = der(&own);
    let text = header(&whole);
    let rows: Vec<Vec<u8>> = vec![
        vec![],
        b"::".to_vec(),
        header(b"no certificate").into_bytes(),
        header(&whole[..whole.len() - 1]).into_bytes(),
        header(&[whole.as_ref(), b"x"].concat()).into_bytes(),
        header(&vec![0x30; 1 << 20]).into_bytes(),
        text.trim_matches(':').into(),
        format!("{text}, {text}").into(),
        format!("({text})").into(),
        text.replace(':', "\"").into(),
        own.pem().expose().as_bytes().to_vec(),
        vec![0xff; 64],
    ];
    for row in rows {
        let refused = from_header(&row).unwrap_err();
        assert_eq!(refused.code(), "certificate_malformed", "{refused}");
    }
}

proptest! {
    #[test]
    fn no_header_makes_it_fall_over(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(from_header(&bytes).is_err());
    }

    #[test]
    fn a_changed_certificate_is_another_one(at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let own = OwnCertificate::generate().unwrap();
        let mut changed = der(&own).to_vec();
        let at = at.index(changed.len());
        changed[at] ^= 1 << bit;
        if let Ok(thumbprint) = from_header(header(&changed).as_bytes()) {
            prop_assert_ne!(&thumbprint, own.thumbprint());
        }
    }
}

/// Which certificate a server sees of a client, over a handshake in memory.
fn seen(
    client: rustls::ClientConfig,
    server: &Arc<rustls::ServerConfig>,
) -> Result<Option<CertificateThumbprint>, rustls::Error> {
    let name = ServerName::try_from("localhost").unwrap();
    let mut client = rustls::ClientConnection::new(Arc::new(client), name).unwrap();
    let mut server = rustls::ServerConnection::new(Arc::clone(server)).unwrap();
    let mut bytes = Vec::new();
    while client.is_handshaking() || server.is_handshaking() {
        bytes.clear();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            server.read_tls(&mut rest).unwrap();
            server.process_new_packets()?;
        }
        bytes.clear();
        while server.wants_write() {
            server.write_tls(&mut bytes).unwrap();
        }
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            client.process_new_packets()?;
        }
    }
    let shown = server.peer_certificates().and_then(|chain| chain.first());
    Ok(shown.map(|certificate| CertificateThumbprint::of(certificate)))
}

struct Both {
    server: Arc<rustls::ServerConfig>,
    roots: rustls::RootCertStore,
}

fn both() -> Both {
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate.der().clone()).unwrap();
    let secret = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let server = rustls::ServerConfig::builder()
        .with_client_cert_verifier(AnyProvenKey::new())
        .with_single_cert(vec![certificate.der().clone()], secret)
        .unwrap();
    Both { server: Arc::new(server), roots }
}

fn client(
    both: &Both,
    version: &'static rustls::SupportedProtocolVersion,
    shown: Option<(CertificateDer<'static>, PrivateKeyDer<'static>)>,
) -> rustls::ClientConfig {
    let config = rustls::ClientConfig::builder_with_protocol_versions(&[version])
        .with_root_certificates(both.roots.clone());
    match shown {
        None => config.with_no_client_auth(),
        Some((certificate, key)) => config.with_client_auth_cert(vec![certificate], key).unwrap(),
    }
}

fn key(own: &OwnCertificate) -> PrivateKeyDer<'static> {
    PrivateKeyDer::from_pem_slice(own.pem().expose().as_bytes()).unwrap()
}

#[test]
fn the_handshake_proves_the_key_and_asks_for_nothing_else() {
    let both = both();
    let own = OwnCertificate::generate().unwrap();
    let other = OwnCertificate::generate().unwrap();
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let without = seen(client(&both, version, None), &both.server).unwrap();
        assert_eq!(without, None);
        let shown = Some((der(&own), key(&own)));
        let with = seen(client(&both, version, shown), &both.server).unwrap();
        assert_eq!(with.as_ref(), Some(own.thumbprint()));
        // Resumed with a ticket, it is still the same client.
        let config = client(&both, version, Some((der(&own), key(&own))));
        for _ in 0..2 {
            let again = seen(config.clone(), &both.server).unwrap();
            assert_eq!(again.as_ref(), Some(own.thumbprint()));
        }
        // Somebody else's certificate, without its key: a client that does not mind.
        let resolver = Arc::new(Stolen(Arc::new(rustls::sign::CertifiedKey::new(
            vec![der(&own)],
            rustls::crypto::aws_lc_rs::sign::any_supported_type(&key(&other)).unwrap(),
        ))));
        let thief = rustls::ClientConfig::builder_with_protocol_versions(&[version])
            .with_root_certificates(both.roots.clone())
            .with_client_cert_resolver(resolver);
        assert!(seen(thief, &both.server).is_err(), "{version:?}");
    }
}

#[test]
fn a_certificate_that_is_over_still_stands_for_its_key() {
    let both = both();
    let own = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.not_after = rcgen::date_time_ymd(1999, 1, 1);
    let certificate = params.self_signed(&own).unwrap();
    let secret = PrivateKeyDer::try_from(own.serialize_der()).unwrap();
    let shown = Some((certificate.der().clone(), secret));
    let with = seen(client(&both, &rustls::version::TLS13, shown), &both.server).unwrap();
    assert_eq!(with, Some(CertificateThumbprint::of(certificate.der())));
}

#[derive(Debug)]
struct Stolen(Arc<rustls::sign::CertifiedKey>);

impl rustls::client::ResolvesClientCert for Stolen {
    fn resolve(
        &self,
        _: &[&[u8]],
        _: &[SignatureScheme],
    ) -> Option<Arc<rustls::sign::CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}
