//! What the gateway adds to calls, and where that comes from: real OpenBao, moto's Secrets Manager
//! with its checks on, a real authorization server, and MCP servers that let nobody in without.

mod oauth;
mod vaults;

use std::fs;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use self::oauth::{
    a_token_for_the_gateway_itself, a_token_for_the_user_who_calls, a_token_that_the_user_agreed_to,
};
use self::vaults::{
    aws_secrets_manager_checks_the_signature, azure_key_vault_as_its_pages_say,
    openbao_by_approle_rotates_seals_and_comes_back, openbao_by_jwt_lets_in_whom_its_role_means,
};
use crate::support::http::Answer;
use crate::support::{Idp, Proc, Raw, Server, Site, World, raw, site, until};

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
    let known = server.leaves_of("credential_configured");
    assert_eq!((known.len(), &known[0]["credential"]), (1, &json!("header")), "{known:?}");
    on_record(&server, "header x-key from credential:crm");

    fs::write(&file, "key-two")?;
    alice.passes_again()?;
    server.holds_none_of(["key-one", "key-two"]);
    server.verify()?.exits(0);
    Ok(())
}
