//! A person's browser, as far as the built-in issuer's page needs one: one cookie, one form.

use reqwest::header::{COOKIE, ORIGIN, SET_COOKIE};
use url::Url;

use super::place::Person;
use crate::cli::error::CliError;
use crate::identity::fetch::{self, safe_url};

/// Opens the page that `mcpx login` printed, types name and password, and confirms.
pub(super) async fn confirm(page: &str, person: &Person) -> Result<(), CliError> {
    let failed = |error: &(dyn std::error::Error + 'static)| {
        CliError::failure("the login page did not work").caused_by(Some(error))
    };
    let url = safe_url(page).map_err(|error| failed(&error))?;
    let http = fetch::client_for(&url).map_err(|error| failed(&error))?;
    let shown = http.get(url.clone()).send().await.map_err(|error| failed(&error))?;
    let cookie = shown
        .headers()
        .get(SET_COOKIE)
        .and_then(|cookie| cookie.to_str().ok())
        .and_then(|cookie| cookie.split(';').next())
        .unwrap_or_default()
        .to_owned();
    let html = shown.text().await.map_err(|error| failed(&error))?;
    let field = |name: &str| {
        let at = html.find(&format!("name=\"{name}\""))?;
        let rest = html.get(at..)?.split_once("value=\"")?.1;
        rest.split_once('"').map(|(value, _)| value.to_owned())
    };
    let (Some(token), Some(code)) = (field("form_token"), field("user_code")) else {
        return Err(CliError::failure("the login page has no form"));
    };
    let mut action: Url = url.clone();
    action.set_query(None);
    let form = [
        ("form_token", token.as_str()),
        ("user_code", code.as_str()),
        ("name", person.name),
        ("password", person.password.expose()),
        ("action", "approve"),
    ];
    let sent = http
        .post(action)
        .header(COOKIE, cookie)
        .header(ORIGIN, url.origin().ascii_serialization())
        .form(&form)
        .send()
        .await
        .map_err(|error| failed(&error))?;
    if sent.status().is_success() {
        Ok(())
    } else {
        Err(CliError::failure(format!("the login page answered HTTP {}", sent.status())))
    }
}
