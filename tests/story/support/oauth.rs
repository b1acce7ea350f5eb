//! MCP clients that log in by themselves (MCP's own OAuth), and the people who sit before them.

use serde_json::{Value, json};

use super::browser::{Browser, Page};
use super::http::{self, Answer};
use super::idp::Idp;
use super::proc::Proc;
use super::raw::{self, Raw};
use super::world::World;

/// Whose OAuth client it is.
#[derive(Clone, Copy, Debug)]
pub enum Sdk {
    /// The Python SDK, in the newest protocol that the server speaks.
    Python,
    /// The Python SDK, in the legacy protocol.
    PythonLegacy,
    /// The TypeScript SDK 1.x.
    TypeScript1,
    /// The TypeScript SDK 2.x.
    TypeScript2,
}

/// A running client.
pub struct OAuthClient {
    proc: Proc,
    logins: usize,
    steps: usize,
}

impl OAuthClient {
    /// Starts a client that connects to `url` and then takes its steps; `plan` as in
    /// `tests/parts/oauth_client.py`.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(world: &World, sdk: Sdk, url: &str, plan: &Value) -> anyhow::Result<Self> {
        let name = format!("oauth client {sdk:?}");
        let file = world.write(&format!("plans/{name}.json"), &plan.to_string())?;
        let parts = world.parts();
        let (program, script, mode) = match sdk {
            Sdk::Python => (parts.python()?, "oauth_client.py", "auto"),
            Sdk::PythonLegacy => (parts.python()?, "oauth_client.py", "legacy"),
            Sdk::TypeScript1 => (parts.node()?, "oauth_client.mjs", "v1"),
            Sdk::TypeScript2 => (parts.node()?, "oauth_client.mjs", "v2"),
        };
        let mut command = world.command(program)?;
        command.arg(parts.script(script)).arg(mode).arg(file).arg(url);
        Ok(Self { proc: Proc::start(world, &name, command)?, logins: 0, steps: 0 })
    }

    /// The address that the client opens in a browser next.
    ///
    /// # Errors
    /// It opens none.
    pub fn address(&mut self) -> anyhow::Result<String> {
        let address = self.line("authorize", self.logins)?;
        self.logins += 1;
        Ok(address["authorize"].as_str().unwrap_or_default().to_owned())
    }

    /// Somebody logs in on the page that the client opens next, and agrees. Gives its address.
    ///
    /// # Errors
    /// No page is opened, or the provider refuses.
    pub fn log_in(&mut self, name: &str) -> anyhow::Result<String> {
        let address = self.address()?;
        let done = log_in(&address, name)?;
        anyhow::ensure!(done.says("back to the client"), "not sent back: {done:#?}");
        Ok(address)
    }

    /// What the client's next step gave; the first is `connect`.
    ///
    /// # Errors
    /// It does not come.
    pub fn step(&mut self) -> anyhow::Result<Value> {
        let step = self.line("step", self.steps)?;
        self.steps += 1;
        Ok(step)
    }

    /// What the next step saw.
    ///
    /// # Errors
    /// It does not come, or it failed.
    pub fn seen(&mut self) -> anyhow::Result<Value> {
        let step = self.step()?;
        anyhow::ensure!(step.get("error").is_none(), "{step}\n{}", self.proc.stderr());
        Ok(step["seen"].clone())
    }

    /// How many pages it has opened so far.
    pub fn pages(&self) -> usize {
        self.proc.stdout().lines().filter(|line| line.contains("\"authorize\"")).count()
    }

    /// Leaves the pages alone that it has opened so far.
    pub fn forget_pages(&mut self) {
        self.logins = self.pages();
    }

    fn line(&mut self, kind: &str, number: usize) -> anyhow::Result<Value> {
        self.proc.until(&format!("prints {kind} {number}"), |proc| {
            let stdout = proc.stdout();
            let whole = stdout.rsplit_once('\n').map_or("", |(whole, _)| whole);
            let lines = whole.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            Ok(lines.filter(|line| line.get(kind).is_some()).nth(number))
        })
    }
}

/// Somebody logs in at an address and agrees; the page that they end at.
///
/// # Errors
/// The provider refuses.
pub fn log_in(address: &str, name: &str) -> anyhow::Result<Page> {
    let mut browser = Browser::default();
    let login = browser.open(address)?;
    let sign_in = [("prompt", "login"), ("login", name), ("password", "any")];
    let consent = browser.submit(&login.form()?, &sign_in)?;
    browser.submit(&consent.form()?, &[("prompt", "consent")])
}

/// The step of a call.
pub fn call(tool: &str, arguments: &Value) -> Value {
    json!({"step": "call", "name": tool, "arguments": arguments})
}

/// The step of waiting for a file of that name to be written.
pub fn wait(world: &World, name: &str) -> Value {
    json!({"step": "wait", "file": world.dir().join(name)})
}

/// Posts a message of the newest protocol with a Bearer token.
///
/// # Errors
/// The server does not answer.
pub fn bearer(url: &str, token: &str, body: &str) -> anyhow::Result<Answer> {
    raw::post(url, &[("authorization", &format!("Bearer {token}"))], body)
}

/// Claims of a good access token for a resource.
pub fn claims(idp: &Idp, resource: &str, name: &str, groups: &[&str]) -> Value {
    let now = now();
    json!({
        "iss": idp.url, "aud": resource, "sub": name, "client_id": "story", "scope": "mcp",
        "jti": format!("{:x}", rand()), "iat": now, "exp": now + 600, "groups": groups,
    })
}

/// An access token with these claims, signed by the provider.
///
/// # Errors
/// The provider does not answer.
pub fn sign(idp: &Idp, claims: &Value) -> anyhow::Result<String> {
    sign_as(idp, claims, &json!({"typ": "at+jwt"}), "own")
}

/// Any token; `key` as in `tests/parts/idp_oauth.mjs`.
///
/// # Errors
/// The provider does not answer.
pub fn sign_as(idp: &Idp, claims: &Value, header: &Value, key: &str) -> anyhow::Result<String> {
    let body = json!({"claims": claims, "header": header, "key": key});
    let url = format!("{}/__test/sign-as", idp.url);
    let answer = http::send(http::client().post(url).body(body.to_string()))?;
    anyhow::ensure!(answer.status == 200, "{answer:?}");
    Ok(answer.json()["token"].as_str().unwrap_or_default().to_owned())
}

/// Claims that bind a token to a key.
///
/// # Errors
/// The key has no thumbprint.
pub fn bound_to(mut claims: Value, raw: &Raw) -> anyhow::Result<Value> {
    claims["cnf"] = json!({"jkt": raw.thumbprint()?});
    Ok(claims)
}

/// Seconds since 1970.
pub fn now() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |now| now.as_secs())
}

fn rand() -> u64 {
    let mut bytes = [0u8; 8];
    aws_lc_rs::rand::fill(&mut bytes).unwrap();
    u64::from_le_bytes(bytes)
}
