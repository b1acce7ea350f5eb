//! Where a browser comes back to once its user has agreed to something: a port on this machine's
//! loopback (RFC 8252, 7.3), open for one answer. Whoever does not know the `state` that was sent along
//! is turned away and ends nothing.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use axum::Router;
use axum::extract::{Query, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, HOST, REFERRER_POLICY};
use axum::http::{HeaderMap, StatusCode};
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
    door: Arc<Door>,
    brought: oneshot::Receiver<Brought>,
    serving: AbortHandle,
}

struct Door {
    host: String,
    /// Known once the server has been asked, which has to be told the port first.
    state: OnceLock<Secret>,
    /// Taken by the one answer.
    waiting: Mutex<Option<oneshot::Sender<Brought>>>,
}

impl Redirect {
    /// Opens a port; 0 is any.
    ///
    /// # Errors
    /// It cannot be opened.
    pub async fn open(port: u16) -> std::io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", port)).await?;
        let host = listener.local_addr()?.to_string();
        let uri = format!("http://{host}/callback");
        let (tell, brought) = oneshot::channel();
        let (state, waiting) = (OnceLock::new(), Mutex::new(Some(tell)));
        let door = Arc::new(Door { host, state, waiting });
        let router = Router::new().route("/callback", get(take)).with_state(Arc::clone(&door));
        let serving = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                tracing::debug!(%error, "the port for the browser closed");
            }
        });
        Ok(Self { uri, door, brought, serving: serving.abort_handle() })
    }

    /// Where the browser has to come back to.
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// Waits for what comes with this `state`; nothing if the port closed.
    pub async fn brought(&mut self, state: Secret) -> Option<Brought> {
        // Only the first is waited for.
        let _another = self.door.state.set(state);
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

async fn take(
    State(door): State<Arc<Door>>,
    headers: HeaderMap,
    Query(brought): Query<Brought>,
) -> Response {
    // A page that has its own name point at this machine (DNS rebinding) comes with that name.
    let here = headers.get(HOST).is_some_and(|host| host.as_bytes() == door.host.as_bytes());
    let known = door.state.get().zip(brought.state.as_ref());
    if !here || !known.is_some_and(|(state, given)| state.matches(given)) {
        return page(StatusCode::FORBIDDEN, "This is not the answer that mcpx waits for.\n");
    }
    let agreed = brought.code.is_some();
    let waits = door.waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
    let told = waits.is_some_and(|tell| tell.send(brought).is_ok());
    let (status, text) = match (told, agreed) {
        (true, true) => (StatusCode::OK, "Done. You can close this page and go back to mcpx.\n"),
        (true, false) => (StatusCode::OK, "Nothing was agreed to. You can close this page.\n"),
        (false, _) => (StatusCode::GONE, "Nobody waits for this any more.\n"),
    };
    page(status, text)
}

fn page(status: StatusCode, text: &'static str) -> Response {
    let headers = [
        (CONTENT_TYPE, "text/plain; charset=utf-8"),
        (CACHE_CONTROL, "no-store"),
        (REFERRER_POLICY, "no-referrer"),
    ];
    (status, headers, text).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn strangers_end_nothing() {
        let mut redirect = Redirect::open(0).await.unwrap();
        let uri = redirect.uri().to_owned();
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let ask = async |query: &str, host: Option<&str>| {
            let mut request = http.get(format!("{uri}?{query}"));
            if let Some(host) = host {
                request = request.header("host", host);
            }
            request.send().await.unwrap().status().as_u16()
        };
        assert_eq!(ask("code=x&state=s", None).await, 403, "nobody has been asked yet");
        let asking = async {
            // Until the wait has begun, even the right one is nobody's.
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            assert_eq!(ask("code=x", None).await, 403);
            assert_eq!(ask("code=x&state=t", None).await, 403);
            assert_eq!(ask("code=x&state=s", Some("evil.example")).await, 403);
            assert_eq!(ask("code=y&state=s", None).await, 200);
            assert_eq!(ask("code=z&state=s", None).await, 410);
        };
        let (brought, ()) = tokio::join!(redirect.brought(Secret::new("s".to_owned())), asking);
        assert_eq!(brought.unwrap().code.unwrap().expose(), "y");
    }
}
