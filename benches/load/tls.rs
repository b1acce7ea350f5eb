//! TLS for a run with certificate-bound tokens: an authority, one server's certificate under it for
//! the gateway and for nginx, and the client's side of a connection.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use mcpx::types::Secret;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsConnector;

/// Where the files are, for this program started again.
const VARIABLE: &str = "BENCH_TLS";

const AUTHORITY: &str = "authority.pem";
const CERTIFICATE: &str = "server.pem";
const KEY: &str = "server.key";

/// The server's certificate.
pub fn certificate() -> PathBuf {
    folder().join(CERTIFICATE)
}

/// Its key.
pub fn key() -> PathBuf {
    folder().join(KEY)
}

fn folder() -> PathBuf {
    std::env::var_os(VARIABLE).expect("set by this program itself").into()
}

/// Whether this is the program started again, with an authority to trust.
pub fn is_trusted() -> bool {
    std::env::var_os(VARIABLE).is_some()
}

/// Starts this program again so that it and all that it starts trust a new authority, which
/// libraries learn from the environment only; whether it went well.
pub fn start_again() -> bool {
    let folder = tempfile::tempdir().expect("a temporary folder");
    write(folder.path());
    let program = std::env::current_exe().expect("this program's file");
    let status = Command::new(program)
        .args(std::env::args_os().skip(1))
        .env(VARIABLE, folder.path())
        .env("SSL_CERT_FILE", folder.path().join(AUTHORITY))
        .status();
    status.expect("this program starts").success()
}

fn write(folder: &Path) {
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let own = KeyPair::generate().expect("a key");
    let authority = CertifiedIssuer::self_signed(params, own).expect("an authority");
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("a name");
    let certificate = params.signed_by(&key, &authority).expect("a certificate");
    for (name, text) in
        [(AUTHORITY, authority.pem()), (CERTIFICATE, certificate.pem()), (KEY, key.serialize_pem())]
    {
        std::fs::write(folder.join(name), text).expect("a file");
    }
}

/// The client's side, which shows a certificate if there is one.
pub fn connector(shown: Option<&Secret>) -> TlsConnector {
    let mut roots = rustls::RootCertStore::empty();
    let authority = CertificateDer::from_pem_file(folder().join(AUTHORITY)).expect("PEM");
    roots.add(authority).expect("a certificate");
    let config = rustls::ClientConfig::builder().with_root_certificates(roots);
    let config = match shown {
        None => config.with_no_client_auth(),
        Some(pem) => {
            let pem = pem.expose().as_bytes();
            let certificate = CertificateDer::from_pem_slice(pem).expect("a certificate");
            let key = PrivateKeyDer::from_pem_slice(pem).expect("a key");
            config.with_client_auth_cert(vec![certificate], key).expect("a pair")
        }
    };
    TlsConnector::from(Arc::new(config))
}
