//! The port on loopback that a browser comes back to with an authorization code (RFC 8252,
//! section 7.3), open for one login and one answer.
//!
//! Only a request that knows this login's `state` is an answer; whatever else arrives, from a web
//! page or another program, is turned away and changes nothing. The page that the browser shows has
//! nothing in it that came with the request.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use url::Url;
use url::form_urlencoded;

use crate::broker::login::LoginError;
use crate::identity::oidc::is_loopback_redirect;
use crate::types::Secret;

/// How long the browser has to take its page, once its answer is here.
const DRAIN: Duration = Duration::from_secs(2);

/// How a good answer is known.
pub(super) struct Expected {
    /// What this login sent along.
    pub(super) state: Secret,
    /// Who was asked.
    pub(super) issuer: String,
    /// Whether that one promises to name itself in every answer (RFC 9207).
    pub(super) issuer_is_named: bool,
}

/// A bound port.
pub(super) struct Loopback {
    listener: TcpListener,
    /// With the port that it got.
    redirect: Url,
}

impl Loopback {
    /// Binds the port of a registered redirect URI, or any free one where that names none.
    pub(super) async fn bind(registered: &str) -> Result<Self, LoginError> {
        let unsafe_one = || LoginError::UnsafePrompt {
            what: format!("the address {:?}", registered.chars().take(200).collect::<String>()),
        };
        let mut redirect = Url::parse(registered).map_err(|_| unsafe_one())?;
        if !is_loopback_redirect(registered) {
            return Err(unsafe_one());
        }
        let host = if redirect.host_str() == Some("[::1]") { "::1" } else { "127.0.0.1" };
        let port = redirect.port().unwrap_or(0);
        let failed = |source| LoginError::Listen { address: format!("{host}:{port}"), source };
        let listener = TcpListener::bind((host, port)).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        redirect.set_port(Some(address.port())).map_err(|()| unsafe_one())?;
        Ok(Self { listener, redirect })
    }

    /// What to tell the issuer.
    pub(super) fn redirect_uri(&self) -> &str {
        self.redirect.as_str()
    }

    /// Listens from now on; the future ends with the code, or what the issuer said instead.
    pub(super) fn answer(
        self,
        expected: Expected,
    ) -> impl Future<Output = Result<Secret, LoginError>> {
        let (send, receive) = oneshot::channel();
        let door = Arc::new(Door {
            path: self.redirect.path().to_owned(),
            host: self.redirect.authority().to_owned(),
            expected,
            answer: Mutex::new(Some(send)),
        });
        let router = Router::new().fallback(knock).with_state(door);
        let (stop, stopped) = oneshot::channel::<()>();
        let listener = self.listener;
        let serving = tokio::spawn(async move {
            // Ends when the sender is gone, which is what is waited for.
            let stopped = async move { drop(stopped.await) };
            axum::serve(listener, router).with_graceful_shutdown(stopped).await
        });
        // Whoever drops the future closes the port.
        let guard = Guard { serving: serving.abort_handle() };
        async move {
            let answer = receive.await;
            drop(stop);
            // The page is on its way; an open connection without a request holds nobody up.
            drop(tokio::time::timeout(DRAIN, serving).await);
            drop(guard);
            answer.unwrap_or(Err(LoginError::Cancelled))
        }
    }
}

struct Guard {
    serving: tokio::task::AbortHandle,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

struct Door {
    path: String,
    host: String,
    expected: Expected,
    /// Taken by the one answer.
    answer: Mutex<Option<oneshot::Sender<Result<Secret, LoginError>>>>,
}

enum Knock {
    Stranger(StatusCode),
    Answer(Result<Secret, LoginError>),
}

async fn knock(
    State(door): State<Arc<Door>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    match door.judge(&method, &uri, host) {
        Knock::Stranger(status) => page(status, "This is not the answer that mcpx waits for."),
        Knock::Answer(answer) => {
            let said = match &answer {
                Ok(_) => "mcpx has the answer. You can close this page and go back to it.",
                Err(_) => "You are not logged in. mcpx says why.",
            };
            let taken = door.answer.lock().unwrap_or_else(PoisonError::into_inner).take();
            match taken.map(|waiting| waiting.send(answer)) {
                Some(Ok(())) => page(StatusCode::OK, said),
                _ => page(StatusCode::GONE, "mcpx has had its answer."),
            }
        }
    }
}

impl Door {
    fn judge(&self, method: &Method, uri: &Uri, host: Option<&str>) -> Knock {
        // A page that has its own name point at this machine (DNS rebinding) comes with that name.
        if host != Some(self.host.as_str()) {
            return Knock::Stranger(StatusCode::FORBIDDEN);
        }
        if uri.path() != self.path {
            return Knock::Stranger(StatusCode::NOT_FOUND);
        }
        if method != Method::GET {
            return Knock::Stranger(StatusCode::METHOD_NOT_ALLOWED);
        }
        match Parameters::read(uri.query().unwrap_or_default()) {
            Some(parameters) => self.read(parameters),
            None => Knock::Stranger(StatusCode::BAD_REQUEST),
        }
    }

    fn read(&self, parameters: Parameters) -> Knock {
        let expected = &self.expected;
        let ours = parameters.state.is_some_and(|state| expected.state.matches(&state));
        if !ours {
            return Knock::Stranger(StatusCode::BAD_REQUEST);
        }
        let issuer = || expected.issuer.clone();
        let broken = |why: String| Knock::Answer(Err(LoginError::Issuer { issuer: issuer(), why }));
        // Mix-up: who answers must be who was asked. Looked at before code and error are.
        match parameters.iss {
            Some(named) if named != expected.issuer => {
                let named: String = named.chars().take(200).collect();
                return broken(format!("the answer is from another issuer, {named:?} (RFC 9207)"));
            }
            None if expected.issuer_is_named => {
                return broken(
                    "the answer does not name its issuer, as it has to (RFC 9207)".into(),
                );
            }
            _ => {}
        }
        match (parameters.code, parameters.error) {
            (Some(code), None) if !code.is_empty() => Knock::Answer(Ok(Secret::new(code))),
            (None, Some(error)) if error == "access_denied" => {
                Knock::Answer(Err(LoginError::Denied))
            }
            (None, Some(error)) => {
                let description = parameters.description.unwrap_or_default();
                let both = format!("{error}: {description}");
                let shown: String = both.chars().filter(|c| !c.is_control()).take(300).collect();
                broken(format!("it answered {}", shown.trim_end_matches(": ")))
            }
            _ => broken("it answered with neither a code nor an error".to_owned()),
        }
    }
}

/// What an issuer sends along (RFC 6749, section 4.1.2; RFC 9207).
#[derive(Default)]
struct Parameters {
    state: Option<String>,
    code: Option<String>,
    iss: Option<String>,
    error: Option<String>,
    description: Option<String>,
}

impl Parameters {
    /// `None` where one is there twice: two readers could read it differently.
    fn read(query: &str) -> Option<Self> {
        let mut read = Self::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let place = match &*name {
                "state" => &mut read.state,
                "code" => &mut read.code,
                "iss" => &mut read.iss,
                "error" => &mut read.error,
                "error_description" => &mut read.description,
                _ => continue,
            };
            if place.replace(value.into_owned()).is_some() {
                return None;
            }
        }
        Some(read)
    }
}

fn page(status: StatusCode, said: &'static str) -> Response {
    let html = format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>mcpx</title>\n\
         <body><p>{said}</p></body></html>\n"
    );
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
        (header::CACHE_CONTROL, "no-store"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CONNECTION, "close"),
    ];
    (status, headers, html).into_response()
}

#[cfg(test)]
mod tests;
