//! The organisation's identity provider, and what its users and administrators do there.

use serde_json::Value;

use super::browser::{Browser, Page};
use super::http;
use super::proc::Proc;

/// The identity provider; it runs as long as this is held.
pub struct Idp {
    /// The issuer.
    pub url: String,
    _proc: Proc,
}

impl Idp {
    /// Takes over a running provider.
    pub fn new(url: String, proc: Proc) -> Self {
        Self { url, _proc: proc }
    }

    /// Does what an administrator would; see `tests/parts/idp.mjs` for the hooks.
    ///
    /// # Errors
    /// There is no such hook.
    pub fn set(&self, hook: &str) -> anyhow::Result<Value> {
        self.hook(reqwest::Method::POST, hook, Value::Null)
    }

    /// Somebody leaves the organisation.
    ///
    /// # Errors
    /// The provider does not answer.
    pub fn remove(&self, name: &str) -> anyhow::Result<Value> {
        self.hook(reqwest::Method::DELETE, &format!("accounts/{name}"), Value::Null)
    }

    /// How many tokens it gave, refreshed and revoked.
    ///
    /// # Errors
    /// The provider does not answer.
    pub fn stats(&self) -> anyhow::Result<Value> {
        self.hook(reqwest::Method::GET, "stats", Value::Null)
    }

    /// A token with any claims, signed by the provider's own key.
    ///
    /// # Errors
    /// The provider does not answer.
    pub fn sign(&self, claims: Value) -> anyhow::Result<String> {
        let signed = self.hook(reqwest::Method::POST, "sign", claims)?;
        Ok(signed["token"].as_str().unwrap_or_default().to_owned())
    }

    /// Somebody opens the address that a device shows, signs in and agrees.
    ///
    /// # Errors
    /// The provider does not show the pages that it should, or refuses.
    pub fn approve(&self, address: &str, name: &str) -> anyhow::Result<()> {
        let mut browser = Browser::default();
        let code = browser.open(address)?;
        let confirm = browser.submit(&code.form()?, &[])?;
        let login = browser.submit(&confirm.form()?, &[("confirm", "yes")])?;
        let sign_in = [("prompt", "login"), ("login", name), ("password", "any")];
        let consent = browser.submit(&login.form()?, &sign_in)?;
        let done = browser.submit(&consent.form()?, &[("prompt", "consent")])?;
        anyhow::ensure!(done.says("Sign-in Success"), "sign-in did not succeed: {done:#?}");
        Ok(())
    }

    /// Somebody's browser is sent here by the program, and they sign in and agree: the page that
    /// their browser ends at.
    ///
    /// # Errors
    /// The provider does not show the pages that it should, or refuses.
    pub fn sign_in(&self, address: &str, name: &str) -> anyhow::Result<Page> {
        let mut browser = Browser::default();
        let login = browser.open(address)?;
        let sign_in = [("prompt", "login"), ("login", name), ("password", "any")];
        let consent = browser.submit(&login.form()?, &sign_in)?;
        browser.submit(&consent.form()?, &[("prompt", "consent")])
    }

    /// Somebody opens the address that a device shows and says that it is not theirs.
    ///
    /// # Errors
    /// The provider does not show the pages that it should.
    pub fn refuse(&self, address: &str) -> anyhow::Result<()> {
        let mut browser = Browser::default();
        let code = browser.open(address)?;
        let confirm = browser.submit(&code.form()?, &[])?;
        let done = browser.submit(&confirm.form()?, &[("abort", "yes")])?;
        anyhow::ensure!(done.says("interrupted"), "could not refuse: {done:#?}");
        Ok(())
    }

    fn hook(&self, method: reqwest::Method, hook: &str, body: Value) -> anyhow::Result<Value> {
        let url = format!("{}/__test/{hook}", self.url);
        let answer = http::send(http::client().request(method, url).body(body.to_string()))?;
        anyhow::ensure!(answer.status == 200, "{hook}: {answer:?}");
        Ok(answer.json())
    }

    /// Asks for a device code as the program would: the address to open, and the code to poll
    /// with.
    ///
    /// # Errors
    /// The provider does not answer.
    pub fn ask_device_code(&self) -> anyhow::Result<(String, String)> {
        let form = [("client_id", "mcpx-cli"), ("scope", "openid offline_access email groups")];
        let request = http::client().post(format!("{}/device/auth", self.url)).form(&form);
        let body = http::send(request)?.json();
        let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
        Ok((text("verification_uri_complete"), text("device_code")))
    }

    /// Asks for tokens with a device code.
    ///
    /// # Errors
    /// The provider does not answer.
    pub fn poll(&self, code: &str) -> anyhow::Result<Value> {
        let kind = "urn:ietf:params:oauth:grant-type:device_code";
        self.token(&[("grant_type", kind), ("device_code", code)])
    }

    /// Asks for tokens with a refresh token.
    ///
    /// # Errors
    /// The provider does not answer.
    pub fn refresh(&self, token: &str) -> anyhow::Result<Value> {
        self.token(&[("grant_type", "refresh_token"), ("refresh_token", token)])
    }

    /// The tokens of somebody who logs in without the program.
    ///
    /// # Errors
    /// They cannot.
    pub fn tokens(&self, name: &str) -> anyhow::Result<Value> {
        let (address, code) = self.ask_device_code()?;
        self.approve(&address, name)?;
        self.poll(&code)
    }

    fn token(&self, form: &[(&str, &str)]) -> anyhow::Result<Value> {
        let form = [form, &[("client_id", "mcpx-cli")]].concat();
        Ok(http::send(http::client().post(format!("{}/token", self.url)).form(&form))?.json())
    }
}
