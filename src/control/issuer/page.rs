//! The page on which a user confirms a login: a plain form that works without scripts.
//!
//! Threats: a page elsewhere that posts the form for a logged-out user (the form is bound to a
//! `SameSite=Strict` cookie, and `Origin` must be ours), framing, a user code that carries markup,
//! guessing passwords, and a stranger who talks a user into confirming the stranger's own code
//! (the page says what confirming means; it cannot do more).

use std::fmt::Write as _;
use std::sync::Arc;

use aws_lc_rs::hmac;
use axum::extract::rejection::{FormRejection, QueryRejection};
use axum::extract::{Form, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

use super::Shared;
use super::codes::{Standing, UserCode, Who};
use crate::control::page;
use crate::types::{RandomError, Secret, random};

const COOKIE: &str = "mcpx_form";

/// Longer ones would only cost time.
const MAX_PASSWORD: usize = 1024;
const MAX_NAME: usize = 256;

#[derive(Deserialize)]
pub(super) struct Prefilled {
    user_code: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct Submitted {
    form_token: String,
    user_code: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    password: Option<Secret>,
    action: Action,
}

#[derive(Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Action {
    Approve,
    Deny,
    Saml,
}

/// What went wrong, for the user.
#[derive(Clone, Copy)]
pub(super) enum Problem {
    UnknownCode,
    ClosedCode,
    WrongPassword,
    TooMany { wait: i64 },
    StaleForm,
    Unavailable,
}

pub(super) async fn show(
    State(issuer): State<Arc<Shared>>,
    headers: HeaderMap,
    query: Result<Query<Prefilled>, QueryRejection>,
) -> Response {
    // Only a code that could be one is put into the form.
    let code = query.ok().and_then(|Query(q)| q.user_code).and_then(|code| UserCode::read(&code));
    issuer.form(&headers, code.as_ref(), "", None)
}

pub(super) async fn submit(
    State(issuer): State<Arc<Shared>>,
    headers: HeaderMap,
    form: Result<Form<Submitted>, FormRejection>,
) -> Response {
    let Ok(Form(form)) = form else {
        return issuer.form(&headers, None, "", Some(Problem::StaleForm));
    };
    let code = UserCode::read(&form.user_code);
    if !issuer.is_own_form(&headers, &form.form_token) {
        return issuer.form(&headers, code.as_ref(), &form.name, Some(Problem::StaleForm));
    }
    let Some(code) = code else {
        return issuer.form(&headers, None, &form.name, Some(Problem::UnknownCode));
    };
    let problem = match form.action {
        Action::Deny => issuer.deny(&code),
        Action::Saml => issuer.begin_saml(&headers, code.clone()),
        Action::Approve => {
            let password = form.password.unwrap_or_else(|| Secret::new(""));
            issuer.approve(&code, &form.name, password).await
        }
    };
    match problem {
        Ok(page) => page,
        Err(problem) => issuer.form(&headers, Some(&code), &form.name, Some(problem)),
    }
}

impl Shared {
    pub(super) fn deny(&self, code: &UserCode) -> Result<Response, Problem> {
        self.check_standing(code)?;
        if !self.codes.deny(code, self.now()) {
            return Err(Problem::ClosedCode);
        }
        Ok(self.page(
            StatusCode::OK,
            None,
            "Login denied",
            "<p>Nobody was logged in. You can close this page.</p>",
        ))
    }

    async fn approve(
        &self,
        code: &UserCode,
        name: &str,
        password: Secret,
    ) -> Result<Response, Problem> {
        self.check_standing(code)?;
        if name.len() > MAX_NAME || password.expose().len() > MAX_PASSWORD {
            return Err(Problem::WrongPassword);
        }
        self.limits.attempt(name, self.now()).map_err(|wait| Problem::TooMany { wait })?;
        if !self.password_is(name, password).await? {
            self.codes.wrong_password(code);
            // The last wrong one closes the code: say so.
            self.check_standing(code)?;
            return Err(Problem::WrongPassword);
        }
        self.limits.clear(name);
        if !self.codes.approve(code, Who::Local(name.to_owned()), self.now()) {
            return Err(Problem::ClosedCode);
        }
        let name = escape(name);
        Ok(self.page(
            StatusCode::OK,
            None,
            "Logged in",
            &format!("<p>The command line is now logged in as <b>{name}</b>. You can close this page and go back to it.</p>"),
        ))
    }

    pub(super) fn check_standing(&self, code: &UserCode) -> Result<(), Problem> {
        match self.codes.standing(code, self.now()) {
            Standing::Waiting => Ok(()),
            Standing::Unknown => Err(Problem::UnknownCode),
            Standing::Closed => Err(Problem::ClosedCode),
        }
    }

    /// Whether the user has this password. A name that nobody has takes as long.
    async fn password_is(&self, name: &str, password: Secret) -> Result<bool, Problem> {
        let user = self.user(name);
        let hash = user.map_or(&self.nobody, |user| &user.password).clone();
        let exists = user.is_some();
        let permit = Arc::clone(&self.checks).acquire_owned().await;
        let permit = permit.map_err(|_| Problem::Unavailable)?;
        let check = tokio::task::spawn_blocking(move || {
            let _one_of_few = permit;
            hash.matches(password.expose())
        });
        let matches = check.await.map_err(|_| Problem::Unavailable)?;
        Ok(exists && matches)
    }

    /// Whether a submitted form is one that this page gave to this browser.
    pub(super) fn is_own_form(&self, headers: &HeaderMap, form_token: &str) -> bool {
        if !self.is_own_origin(headers) {
            return false;
        }
        let Some(cookie) = form_cookie(headers) else {
            return false;
        };
        let Ok(tag) = URL_SAFE_NO_PAD.decode(form_token) else {
            return false;
        };
        hmac::verify(&self.form_key, cookie.as_bytes(), &tag).is_ok()
    }

    /// Whether a form comes from a page of this server, as far as the browser says.
    pub(super) fn is_own_origin(&self, headers: &HeaderMap) -> bool {
        let own = self.url.origin().ascii_serialization();
        headers.get(header::ORIGIN).is_none_or(|origin| origin.as_bytes() == own.as_bytes())
    }

    fn form(
        &self,
        headers: &HeaderMap,
        code: Option<&UserCode>,
        name: &str,
        problem: Option<Problem>,
    ) -> Response {
        // Two open pages share the browser's cookie, so both keep working.
        let (cookie, fresh) = match form_cookie(headers) {
            Some(cookie) => (cookie, false),
            None => match new_cookie() {
                Ok(cookie) => (cookie, true),
                Err(RandomError) => return StatusCode::SERVICE_UNAVAILABLE.into_response(),
            },
        };
        let form_token = URL_SAFE_NO_PAD.encode(hmac::sign(&self.form_key, cookie.as_bytes()));
        let path = format!("{}/device", self.url.path().trim_end_matches('/'));
        let code = code.map(UserCode::shown).unwrap_or_default();
        let mut body = String::new();
        if let Some(problem) = problem {
            let _infallible = write!(
                body,
                "<p class=\"problem\" role=\"alert\" id=\"problem\">{}</p>",
                problem.sentence()
            );
        }
        let described = if problem.is_some() { " aria-describedby=\"problem\"" } else { "" };
        let (path, name) = (escape(&path), escape(name));
        let _infallible = write!(
            body,
            "<p>A command line asks to be logged in as you. Compare the code with the one it shows. \
             If you did not start this yourself just now, choose <b>Deny</b>: somebody else may be \
             asking you to log them in.</p>\
             <form method=\"post\" action=\"{path}\"{described}>\
             <input type=\"hidden\" name=\"form_token\" value=\"{form_token}\">\
             <label for=\"user_code\">Code</label>\
             <input id=\"user_code\" name=\"user_code\" value=\"{code}\" required maxlength=\"16\" \
             autocomplete=\"off\" autocapitalize=\"characters\" spellcheck=\"false\">"
        );
        let local = !self.users.is_empty();
        if local {
            let _infallible = write!(
                body,
                "<label for=\"name\">Name</label>\
                 <input id=\"name\" name=\"name\" value=\"{name}\" maxlength=\"{MAX_NAME}\" \
                 autocomplete=\"username\" autocapitalize=\"none\" spellcheck=\"false\">\
                 <label for=\"password\">Password</label>\
                 <input id=\"password\" name=\"password\" type=\"password\" \
                 autocomplete=\"current-password\">"
            );
        }
        let buttons = [
            (local, "approve", "", "Log in"),
            (self.saml.is_some(), "saml", "", "Log in with your organisation"),
            (true, "deny", " class=\"quiet\"", "Deny"),
        ];
        body.push_str("<p>");
        for (_, action, class, text) in buttons.into_iter().filter(|(shown, ..)| *shown) {
            let _infallible =
                write!(body, "<button name=\"action\" value=\"{action}\"{class}>{text}</button> ");
        }
        body.push_str("</p></form>");
        let status = problem.map_or(StatusCode::OK, Problem::status);
        let mut response =
            self.page(status, fresh.then_some(cookie.as_str()), "Log in to mcpx", &body);
        if let Some(Problem::TooMany { wait }) = problem {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(wait));
        }
        response
    }

    /// `body` is HTML made here, with everything from outside escaped.
    pub(super) fn page(
        &self,
        status: StatusCode,
        cookie: Option<&str>,
        title: &str,
        body: &str,
    ) -> Response {
        let mut response = page::page(status, title, body);
        let headers = response.headers_mut();
        if let Some(cookie) = cookie {
            let secure = if self.url.scheme() == "https" { "; Secure" } else { "" };
            let path = self.url.path();
            let cookie =
                format!("{COOKIE}={cookie}; Path={path}; HttpOnly; SameSite=Strict{secure}");
            if let Ok(cookie) = HeaderValue::from_str(&cookie) {
                headers.insert(header::SET_COOKIE, cookie);
            }
        }
        response
    }
}

impl Problem {
    fn status(self) -> StatusCode {
        match self {
            Self::UnknownCode | Self::ClosedCode => StatusCode::BAD_REQUEST,
            Self::WrongPassword | Self::StaleForm => StatusCode::FORBIDDEN,
            Self::TooMany { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn sentence(self) -> String {
        match self {
            Self::UnknownCode => {
                "No login waits for this code. Check it, or start again on the command line: \
                 codes expire after some minutes."
            }
            Self::ClosedCode => {
                "This code was answered already, or too many wrong passwords were tried with it. \
                 Start again on the command line."
            }
            Self::WrongPassword => "Name or password is wrong.",
            Self::StaleForm => "This page was open for too long. Please try once more.",
            Self::Unavailable => "The server cannot do this now. Please try again in a moment.",
            Self::TooMany { wait } => {
                let minutes = wait.max(1).div_euclid(60) + 1;
                return format!("Too many attempts for this name. Try again in {minutes} minutes.");
            }
        }
        .to_owned()
    }
}

/// The cookie's value, if it has the shape that we give it.
pub(super) fn form_cookie(headers: &HeaderMap) -> Option<String> {
    let lines = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
    let mut values = lines
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .filter(|(name, _)| *name == COOKIE)
        .map(|(_, value)| value);
    let value = values.next()?;
    let shape = value.len() == 43 && URL_SAFE_NO_PAD.decode(value).is_ok();
    shape.then(|| value.to_owned())
}

fn new_cookie() -> Result<String, RandomError> {
    Ok(URL_SAFE_NO_PAD.encode(random::<32>()?))
}

pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c if c.is_control() => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}
