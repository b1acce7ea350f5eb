//! Tokens of an MCP server's own authorization server: for the gateway, and for the user who calls.

use std::fs;

use serde_json::{Value, json};

use super::{Caller, Guarded, a_bit, on_record};
use crate::support::browser::Browser;
use crate::support::http::{self, Answer};
use crate::support::{Person, Proc, Raw, Site, World};

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

pub fn a_token_for_the_gateway_itself(world: &World) -> anyhow::Result<()> {
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
    authority.set("secret/the-second-one", &Value::Null)?;
    authority.set("rotate", &Value::Null)?;
    fs::write(&secret, "the-second-one")?;
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
    server.holds_none_of(["eyJhbGciOiJFUzI1NiIs", "the-second-one"]);
    Ok(())
}

pub fn a_token_for_the_user_who_calls(world: &World) -> anyhow::Result<()> {
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

pub fn a_token_that_the_user_agreed_to(world: &World) -> anyhow::Result<()> {
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
