//! Where a browser comes back to: a port on this machine's loopback (RFC 8252, 7.3), open for one
//! answer.

use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, REFERRER_POLICY};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use crate::types::Secret;

/// What a browser brings back.
#[derive(Deserialize)]
pub struct Brought {
    /// The code, if the user agreed.
    pub code: Option<Secret>,
    /// What was sent along.
    pub state: Option<String>,
    /// The authorization server's name for itself.
    pub iss: Option<String>,
    /// OAuth's word for why there is no code.
    pub error: Option<String>,
}

/// A port that waits for a browser. Dropping it closes the port.
pub struct Redirect {
    uri: String,
    brought: oneshot::Receiver<Brought>,
    serving: AbortHandle,
}

type Waiting = Arc<Mutex<Option<oneshot::Sender<Brought>>>>;

impl Redirect {
    /// Opens a port; 0 is any.
    ///
    /// # Errors
    /// It cannot be opened.
    pub async fn open(port: u16) -> std::io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", port)).await?;
        let uri = format!("http://{}/callback", listener.local_addr()?);
        let (tell, brought) = oneshot::channel();
        let waiting: Waiting = Arc::new(Mutex::new(Some(tell)));
        let router = Router::new().route("/callback", get(take)).with_state(waiting);
        let serving = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                tracing::debug!(%error, "the port for the browser closed");
            }
        });
        Ok(Self { uri, brought, serving: serving.abort_handle() })
    }

    /// Where the browser has to come back to.
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// Waits for it; nothing if the port closed.
    pub async fn brought(&mut self) -> Option<Brought> {
        let brought = (&mut self.brought).await.ok();
        // The page has to reach the browser before the process ends.
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        brought
    }
}

impl Drop for Redirect {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn take(State(waiting): State<Waiting>, Query(brought): Query<Brought>) -> Response {
    let agreed = brought.code.is_some();
    let waits = waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
    let told = waits.is_some_and(|tell| tell.send(brought).is_ok());
    let (status, text) = match (told, agreed) {
        (true, true) => (StatusCode::OK, "Done. You can close this page and go back to mcpx.\n"),
        (true, false) => (StatusCode::OK, "Nothing was agreed to. You can close this page.\n"),
        (false, _) => (StatusCode::GONE, "Nobody waits for this any more.\n"),
    };
    let headers = [
        (CONTENT_TYPE, "text/plain; charset=utf-8"),
        (CACHE_CONTROL, "no-store"),
        (REFERRER_POLICY, "no-referrer"),
    ];
    (status, headers, text).into_response()
}
