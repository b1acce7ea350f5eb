//! One person's login, with somebody at the browser.

use std::path::Path;
use std::sync::Arc;

use mcpx::broker::credentials::StorageKind;
use mcpx::broker::device::DevicePrompt;
use mcpx::broker::home::Home;
use mcpx::broker::login::{Login, LoginRequest};
use mcpx::broker::server::{self, ServerInfo};
use mcpx::types::SystemClock;
use url::Url;

use super::config::{PASSWORD, USER};

/// Logs in by device code.
pub async fn log_in(server: &str, home: &Path) -> (Login, ServerInfo) {
    let info = server::fetch(server).await.expect("an mcpx server");
    let home = Home::open(home).expect("a home");
    let (shown, page) = tokio::sync::oneshot::channel();
    let request = LoginRequest {
        home: &home,
        server: &info,
        issuer: info.issuer(None).expect("an issuer"),
        storage: StorageKind::File,
        clock: Arc::new(SystemClock),
    };
    let prompt = |prompt: &DevicePrompt| {
        let page = prompt.verification_uri_complete.clone().expect("a page");
        shown.send(page).expect("a browser");
    };
    let login = Login::device(request, prompt, std::future::pending());
    let browser = async { confirm(page.await.expect("a page")).await };
    let (login, ()) = tokio::join!(login, browser);
    (login.expect("a login"), info)
}

async fn confirm(page: Url) {
    let http = reqwest::Client::builder().no_proxy().build().expect("a client");
    let shown = http.get(page.clone()).send().await.expect("the page");
    let cookie = shown.headers()["set-cookie"].to_str().expect("a cookie");
    let cookie = cookie.split(';').next().unwrap_or_default().to_owned();
    let html = shown.text().await.expect("the page");
    let field = |name: &str| {
        let rest = html.split_once(&format!("name=\"{name}\"")).expect("a field").1;
        rest.split_once("value=\"").expect("a value").1.split('"').next().unwrap_or_default()
    };
    let (token, code) = (field("form_token"), field("user_code"));
    let mut action = page.clone();
    action.set_query(None);
    let sent = http
        .post(action)
        .header("cookie", cookie)
        .header("origin", page.origin().ascii_serialization())
        .form(&[
            ("form_token", token),
            ("user_code", code),
            ("name", USER),
            ("password", PASSWORD),
            ("action", "approve"),
        ])
        .send()
        .await
        .expect("an answer");
    assert!(sent.status().is_success(), "{}", sent.status());
}
