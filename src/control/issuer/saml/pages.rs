//! The way to the identity provider, the way back, and the page on which a user confirms.
//!
//! Threats: a login that somebody else began (the page that confirms works only in the browser
//! that began the login: its `SameSite=Strict` cookie, which does not come along with the identity
//! provider's post, does with the confirmation), a response that nobody asked for, one for another
//! command line's code (each request belongs to one code, and the page shows it), and a flood
//! (bodies are bounded, and no XML is read for a login that is not under way).

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, FormRejection};
use axum::extract::{DefaultBodyLimit, Form, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::json;

use super::refused::{Refused, Why};
use super::response::{self, Failure};
use crate::audit::{Entry, Record, RefusalStage};
use crate::control::issuer::codes::{UserCode, Who};
use crate::control::issuer::page::{Problem, escape, form_cookie};
use crate::control::issuer::{SamlLogin, Shared};
use crate::gateway::records::recordable;
use crate::types::{Secret, random};

/// The routes below the issuer's address.
pub(in crate::control::issuer) fn routes() -> Router<Arc<Shared>> {
    let body = DefaultBodyLimit::max(response::MAX_FORM);
    Router::new()
        .route("/saml/metadata", get(metadata))
        .route("/saml/acs", post(consume).layer(body))
        .route("/saml/confirm", post(confirm))
}

#[derive(Deserialize)]
pub(super) struct Confirmation {
    handle: Secret,
    action: Action,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Action {
    Approve,
    Deny,
}

async fn metadata(State(issuer): State<Arc<Shared>>) -> Response {
    let Some(saml) = &issuer.saml else { return StatusCode::NOT_FOUND.into_response() };
    let kind = [(header::CONTENT_TYPE, "application/samlmetadata+xml")];
    (kind, saml.provider.metadata().to_owned()).into_response()
}

/// The assertion consumer service.
async fn consume(
    State(issuer): State<Arc<Shared>>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let Some(saml) = &issuer.saml else { return StatusCode::NOT_FOUND.into_response() };
    match issuer.answered(saml, &headers, body).await {
        Ok(page) => page,
        Err(Failure::Refused(refused)) => issuer.refuse_saml(saml, &refused).await,
        Err(Failure::Store(error)) => {
            tracing::error!(%error, "a login over SAML cannot use the database");
            issuer.unavailable()
        }
    }
}

async fn confirm(
    State(issuer): State<Arc<Shared>>,
    headers: HeaderMap,
    form: Result<Form<Confirmation>, FormRejection>,
) -> Response {
    let Some(saml) = &issuer.saml else { return StatusCode::NOT_FOUND.into_response() };
    match issuer.confirmed(saml, &headers, form) {
        Ok(page) => page,
        Err(refused) => issuer.refuse_saml(saml, &refused).await,
    }
}

impl Shared {
    /// Sends a browser to the identity provider.
    pub(in crate::control::issuer) fn begin_saml(
        &self,
        headers: &HeaderMap,
        code: UserCode,
    ) -> Result<Response, Problem> {
        self.check_standing(&code)?;
        let (Some(saml), Some(cookie)) = (&self.saml, form_cookie(headers)) else {
            return Err(Problem::StaleForm);
        };
        let relay_state: [u8; 32] = random().map_err(|_| Problem::Unavailable)?;
        let relay_state = URL_SAFE_NO_PAD.encode(relay_state);
        let (request, address) = saml.provider.request(&relay_state).map_err(|error| {
            tracing::error!(%error, "no SAML request can be made");
            Problem::Unavailable
        })?;
        let now = self.now();
        let life = (now + self.settings.code_lifetime, now);
        if !saml.provider.pending.add(&relay_state, request, &cookie, code, life) {
            return Err(Problem::Unavailable);
        }
        // Not a redirect: browsers hold redirects of a form to `form-action`, and who knows over
        // which hosts the identity provider sends people on.
        let link = escape(&address);
        let body = format!(
            "<p>You are being sent to your organisation's login.</p>\
             <p><a href=\"{link}\">Go on</a></p>"
        );
        let mut page = self.page(StatusCode::OK, None, "Log in", &body);
        let refresh = HeaderValue::from_str(&format!("0; url={address}"));
        page.headers_mut().insert(header::REFRESH, refresh.map_err(|_| Problem::Unavailable)?);
        Ok(page)
    }

    async fn answered(
        &self,
        saml: &SamlLogin,
        headers: &HeaderMap,
        body: Result<Bytes, BytesRejection>,
    ) -> Result<Response, Failure> {
        let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let kind = kind.and_then(|kind| kind.split(';').next()).unwrap_or_default().trim();
        if !kind.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
            return Err(Why::ContentType.with(format!("the content type is {kind:?}")).into());
        }
        let body = body.map_err(|rejection| match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => {
                Why::TooLarge.with(format!("more than {} bytes", response::MAX_FORM))
            }
            _ => Why::Form.with("the body broke off"),
        })?;
        let now = self.now();
        let posted = response::read(&body)?;
        let relay_state = posted.relay_state.clone();
        let request = saml.provider.pending.request(&relay_state, now);
        let request = request.ok_or_else(|| Why::Unsolicited.with("no such RelayState"))?;
        let (provider, store) = (Arc::clone(&saml.provider), self.store.clone());
        let permit = Arc::clone(&self.checks).acquire_owned().await;
        let check = tokio::task::spawn_blocking(move || {
            let _one_of_few = permit;
            provider.accept(&posted, &request, &store, now)
        });
        let Ok(person) = check.await else { return Ok(self.unavailable()) };
        let person = person?;
        let shown = escape(&person.shown);
        let Ok(answer) = saml.provider.pending.answer(&relay_state, person, now) else {
            return Ok(self.unavailable());
        };
        let (code, handle) =
            answer.ok_or_else(|| Why::Replayed.with("the login has its answer already"))?;
        let path = format!("{}/saml/confirm", self.url.path().trim_end_matches('/'));
        let (path, handle, code) = (escape(&path), handle.expose(), code.shown());
        let body = format!(
            "<p>You are <b>{shown}</b>. A command line asks to be logged in as you; it shows the \
             code <b>{code}</b>. If you did not start this yourself just now, choose <b>Deny</b>: \
             somebody else may be asking you to log them in.</p>\
             <form method=\"post\" action=\"{path}\">\
             <input type=\"hidden\" name=\"handle\" value=\"{handle}\">\
             <p><button name=\"action\" value=\"approve\">Log in</button> \
             <button name=\"action\" value=\"deny\" class=\"quiet\">Deny</button></p></form>"
        );
        Ok(self.page(StatusCode::OK, None, "Log in to mcpx", &body))
    }

    fn confirmed(
        &self,
        saml: &SamlLogin,
        headers: &HeaderMap,
        form: Result<Form<Confirmation>, FormRejection>,
    ) -> Result<Response, Refused> {
        let Form(form) = form.map_err(|error| Why::Form.with(error.body_text()))?;
        let now = self.now();
        let cookie = form_cookie(headers).unwrap_or_default();
        let taken = saml.provider.pending.confirm(form.handle.expose(), &cookie, now);
        let taken = taken.ok_or_else(|| Why::Unsolicited.with("no such login to confirm"))?;
        if !taken.same_browser || !self.is_own_origin(headers) {
            return Err(Why::OtherBrowser.with("the cookie or the origin is another"));
        }
        let gone = || Why::CodeGone.with("the code was answered or expired");
        if matches!(form.action, Action::Deny) {
            return self.deny(&taken.code).map_err(|_| gone());
        }
        let shown = escape(&taken.person.shown);
        if !self.codes.approve(&taken.code, Who::Saml(Box::new(taken.person)), now) {
            return Err(gone());
        }
        let body = format!(
            "<p>The command line is now logged in as <b>{shown}</b>. You can close this page and \
             go back to it.</p>"
        );
        Ok(self.page(StatusCode::OK, None, "Logged in", &body))
    }

    /// The page of a refusal, which is on record first.
    async fn refuse_saml(&self, saml: &SamlLogin, refused: &Refused) -> Response {
        let Refused { why, detail } = refused;
        let body = json!({ "message": recordable(detail, &saml.masker) });
        let record = Record::Refused {
            stage: RefusalStage::Login,
            code: why.code().to_owned(),
            subject: None,
            connection: None,
            session: None,
        };
        let entry = Entry { record, body: Some(body.to_string().into()) };
        if let Err(error) = saml.recorder.append(entry).await {
            tracing::error!(%error, "a refused login over SAML cannot be recorded");
            return self.unavailable();
        }
        let body = format!(
            "<p class=\"problem\" role=\"alert\">{}</p><p>Nobody was logged in. Start again on \
             the command line; if it happens again, tell whoever runs this server: \
             <code>{}</code></p>",
            why.sentence(),
            why.code(),
        );
        self.page(why.status(), None, "Login refused", &body)
    }

    fn unavailable(&self) -> Response {
        let body = "<p>The server cannot do this now. Please try again in a moment.</p>";
        self.page(StatusCode::SERVICE_UNAVAILABLE, None, "Not now", body)
    }
}
