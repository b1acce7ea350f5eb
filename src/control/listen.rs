//! The listener: TCP, TLS by rustls where configured, HTTP/1.1 and HTTP/2, and an orderly end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_io_timeout::TimeoutStream;
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt as _;

use crate::audit::{Entry, Record, Recorder, RefusalStage};
use crate::identity::certificate::{AnyProvenKey, CertificateThumbprint, PeerCertificate};

/// How long a client has for its TLS handshake.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long a client has to answer a ping of HTTP/2.
const PONG: Duration = Duration::from_secs(20);

/// How long the listener waits for clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waits {
    /// How long a connection may be idle, and a request's head be on its way.
    pub head: Duration,
    /// How long a connection may take no byte of what is written to it.
    pub stalled: Duration,
    /// How long running requests have to finish at the end.
    pub drain: Duration,
}

/// Certificate or key that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A PEM file cannot be read or holds nothing fitting.
    #[error("cannot use {path}: {why}")]
    File {
        /// The file.
        path: String,
        /// What is wrong.
        why: String,
    },
    /// Certificate and key do not fit each other, or are of a kind that is not supported.
    #[error("certificate and key cannot be used together")]
    Pair(#[source] rustls::Error),
}

/// A TLS configuration from a certificate chain and its key, both PEM. With `client_certificates`
/// it asks clients for one, to bind tokens to; who has none is served all the same.
///
/// # Errors
/// [`TlsError`], naming the file.
pub fn tls(
    certificate: &std::path::Path,
    key: &std::path::Path,
    client_certificates: bool,
) -> Result<Arc<ServerConfig>, TlsError> {
    let file = |path: &std::path::Path, why: String| TlsError::File {
        path: path.display().to_string(),
        why,
    };
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| file(certificate, error.to_string()))?;
    if chain.is_empty() {
        return Err(file(certificate, "it holds no certificate".to_owned()));
    }
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| file(key, error.to_string()))?;
    let config = ServerConfig::builder();
    let config = if client_certificates {
        config.with_client_cert_verifier(AnyProvenKey::new())
    } else {
        config.with_no_client_auth()
    };
    let mut config = config.with_single_cert(chain, secret).map_err(TlsError::Pair)?;
    // Without it, TLS 1.2 could resume somebody's session as somebody else (RFC 7627), and what is
    // known of a client is kept with the session.
    config.require_ems = client_certificates;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Serves until `stop` is done, then lets running requests finish for a while.
pub async fn serve(
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    router: Router,
    recorder: Recorder,
    stop: impl Future<Output = ()>,
    waits: Waits,
) {
    let acceptor = tls.map(TlsAcceptor::from);
    let graceful = GracefulShutdown::new();
    tokio::pin!(stop);
    loop {
        let (stream, peer) = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of file descriptors, most often: a pause lets some be closed.
                    tracing::error!(%error, "a connection cannot be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
            () = &mut stop => break,
        };
        let _delay_stays = stream.set_nodelay(true);
        let (router, acceptor) = (router.clone(), acceptor.clone());
        let (watcher, recorder) = (graceful.watcher(), recorder.clone());
        tokio::spawn(async move {
            match acceptor {
                None => connection(stream, (peer, None), router, watcher, waits, &recorder).await,
                Some(acceptor) => {
                    match tokio::time::timeout(PATIENCE, acceptor.accept(stream)).await {
                        Ok(Ok(stream)) => {
                            let shown = stream.get_ref().1.peer_certificates();
                            let shown = shown.and_then(|chain| chain.first()).map(|certificate| {
                                PeerCertificate(CertificateThumbprint::of(certificate))
                            });
                            let peer = (peer, shown);
                            connection(stream, peer, router, watcher, waits, &recorder).await;
                        }
                        Ok(Err(_)) | Err(_) => {
                            refused(&recorder, peer, RefusalStage::Tls, "tls_handshake").await;
                        }
                    }
                }
            }
        });
    }
    drop(listener);
    if tokio::time::timeout(waits.drain, graceful.shutdown()).await.is_err() {
        tracing::warn!("some connections did not end in time and are cut");
    }
}

async fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    (peer, certificate): (SocketAddr, Option<PeerCertificate>),
    router: Router,
    watcher: Watcher,
    waits: Waits,
    recorder: &Recorder,
) {
    let service = router.map_request(move |mut request: hyper::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer));
        if let Some(certificate) = &certificate {
            request.extensions_mut().insert(certificate.clone());
        }
        request.map(axum::body::Body::new)
    });
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(waits.head);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(waits.head)
        .keep_alive_timeout(PONG);
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(waits.stalled));
    let stream = TokioIo::new(Box::pin(stream));
    let serving = builder.serve_connection(stream, TowerToHyperService::new(service));
    // A client that breaks off is the client's business; one whose head was too long for the
    // parser was refused by it.
    if let Err(error) = watcher.watch(serving.into_owned()).await
        && error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_parse_too_large)
    {
        refused(recorder, peer, RefusalStage::Limit, "head_too_large").await;
    }
}

async fn refused(recorder: &Recorder, peer: SocketAddr, stage: RefusalStage, code: &str) {
    tracing::info!(%peer, code, "a connection was refused");
    let record = Record::Refused {
        stage,
        code: code.to_owned(),
        subject: None,
        connection: None,
        session: None,
    };
    if let Err(error) = recorder.append(Entry { record, body: None }).await {
        tracing::error!(%error, "a refused connection could not be recorded");
    }
}
