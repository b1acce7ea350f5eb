//! Input that must be refused: each with a message, a status or exit code, and a record.

use serde_json::{Value, json};

use crate::support::raw::{self, post};
use crate::support::site::{ENGINEERS, serve_refuses};
use crate::support::{Client, Person, Raw, Site, World, http};

crate::stories![
    messages_at_the_gateway,
    tokens_at_the_gateway,
    identities_at_the_exchange,
    an_upstream_that_is_not_there,
    what_policy_forbids,
    configurations,
    strangers_at_the_local_port,
];

/// What makes a good proof bad.
type Spoil = fn(&mut Value);

/// A request at the gateway that must be refused.
struct Row {
    what: &'static str,
    body: String,
    status: u16,
}

fn messages_at_the_gateway(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let ledger = world.ledger()?;
    let server = Site::new(world, &idp).http("ledger", &ledger.url).start()?;
    let url = server.resource("ledger");
    let raw = Raw::new()?;
    let id_token = idp.tokens("alice")?["id_token"].as_str().unwrap_or_default().to_owned();
    let token = raw.token(&server, &id_token, &url)?;

    let good = raw::call("note", &json!({"text": "good"}));
    let answer = raw.post(&url, &token, &good)?;
    assert_eq!(answer.json()["result"]["structuredContent"]["result"], "noted: good");

    let bad = raw::call("note", &json!({"text": "bad"}));
    let row = |what, body: String| Row { what, body, status: 400 };
    let rows = [
        row("not JSON", "{".to_owned()),
        row("nothing", String::new()),
        row("an array of messages", format!("[{bad}]")),
        row("a key twice in the envelope", bad.replacen('{', r#"{"method":"ping","#, 1)),
        row("a key twice in the arguments", bad.replace(r#""text":"#, r#""text":"x","text":"#)),
        row("a key twice by escapes", bad.replace(r#""text":"#, r#""text":"x","t\u0065xt":"#)),
        row("keys that differ by case", bad.replace(r#""name":"#, r#""Name":"ping","name":"#)),
        row("an id that is null", bad.replace(r#""id":1"#, r#""id":null"#)),
        row("half a surrogate", bad.replace("bad", r"\ud800")),
        row("another protocol", bad.replace("2.0", "1.0")),
        row("very deep", format!("{}{}", "[".repeat(5000), "]".repeat(5000))),
        row("text after the message", format!("{bad} {bad}")),
        Row { what: "far too large", body: bad.replace("bad", &"x".repeat(64 << 20)), status: 413 },
    ];
    let mut refused = server.leaves_of("refused").len();
    for Row { what, body, status } in rows {
        let answer = raw.post(&url, &token, &body)?;
        assert_eq!(answer.status, status, "{what}: {answer:?}");
        let message = answer.json()["error"]["message"].as_str().unwrap_or_default().to_owned();
        assert!(!message.is_empty(), "{what}: no message: {answer:?}");
        let now = server.leaves_of("refused").len();
        assert_eq!(now, refused + 1, "{what}: not on record");
        refused = now;
    }
    // What the headers say is not what the body says.
    let proof = raw.proof("POST", &url, Some(&token), |_| ())?;
    let authorization = format!("DPoP {token}");
    let request = http::client()
        .post(&url)
        .header("authorization", &authorization)
        .header("dpop", proof)
        .header("content-type", "application/json")
        .header("accept", "application/json, text/event-stream")
        .header("mcp-protocol-version", "2026-07-28")
        .header("mcp-method", "tools/call")
        .header("mcp-name", "transfer")
        .body(bad.clone());
    let answer = http::send(request)?;
    assert_eq!((answer.status, &answer.json()["error"]["code"]), (400, &json!(-32020)));
    assert_eq!(answer.json()["id"], 1, "the refusal names the request: {answer:?}");

    // A page in somebody's browser asks, even with a good token.
    for origin in ["https://evil.example", "null", &format!("{}.evil.example", server.url)] {
        let proof = raw.proof("POST", &url, Some(&token), |_| ())?;
        let headers = [("authorization", &*authorization), ("dpop", &proof), ("origin", origin)];
        let answer = post(&url, &headers, &bad)?;
        let code = &answer.json()["error"]["data"]["mcpx"]["code"];
        assert_eq!((answer.status, code), (403, &json!("foreign_origin")), "{origin}");
    }

    let executed: Vec<_> = world.executed().iter().map(|call| call["text"].clone()).collect();
    assert_eq!(executed, ["good"], "a refused message reached the upstream");
    server.verify()?.exits(0);
    Ok(())
}

fn tokens_at_the_gateway(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let ledger = world.ledger()?;
    let server = Site::new(world, &idp)
        .http("ledger", &ledger.url)
        .http("other", &ledger.url)
        .grant_ttl("2s")
        .start()?;
    let url = server.resource("ledger");
    let other = server.resource("other");
    let raw = Raw::new()?;
    let thief = Raw::new()?;
    let id_token = idp.tokens("alice")?["id_token"].as_str().unwrap_or_default().to_owned();
    let body = raw::call("note", &json!({"text": "bad"}));
    let token = || raw.token(&server, &id_token, &url);
    let dpop = |token: &str| format!("DPoP {token}");

    let refused = |what: &str, answer: &http::Answer, status: u16| {
        assert_eq!(answer.status, status, "{what}: {answer:?}");
        let last = server.leaves_of("refused").pop().unwrap_or_default();
        let code = last["code"].as_str().unwrap_or_default();
        assert!(!code.is_empty(), "{what}: not on record");
        if status == 401 {
            let challenge = answer.header("www-authenticate");
            assert!(challenge.contains("DPoP"), "{what}: no challenge: {answer:?}");
        }
        code.to_owned()
    };

    let answer = post(&url, &[], &body)?;
    refused("no token", &answer, 401);
    let answer = raw.post(&url, "not-a-token", &body)?;
    refused("a wrong token", &answer, 401);
    let answer = raw.post(&url, &id_token, &body)?;
    refused("the identity token itself", &answer, 401);
    let good = token()?;
    let forged = idp.sign(json!({"iss": server.url, "aud": url, "sub": "alice"}))?;
    let answer = raw.post(&url, &forged, &body)?;
    refused("a token signed by somebody else", &answer, 401);
    let answer = raw.post(&other, &good, &body)?;
    refused("a token for another connection", &answer, 401);
    let answer = post(&url, &[("authorization", &format!("Bearer {good}"))], &body)?;
    refused("a token without its proof", &answer, 401);
    let answer = thief.post(&url, &good, &body)?;
    refused("a stolen token with another key", &answer, 401);

    let good = token()?;
    let authorization = dpop(&good);
    let spoiled: [(&str, Spoil); 4] = [
        ("a proof for another method", |claims| claims["htm"] = json!("GET")),
        ("a proof for another URL", |claims| claims["htu"] = json!("http://127.0.0.1:1/mcp/x")),
        ("a proof from yesterday", |claims| {
            claims["iat"] = json!(claims["iat"].as_i64().unwrap_or_default() - 86_400);
        }),
        ("a proof for another token", |claims| claims["ath"] = json!("AAAA")),
    ];
    for (what, spoil) in spoiled {
        let proof = raw.proof("POST", &url, Some(&good), spoil)?;
        let headers = [("authorization", authorization.as_str()), ("dpop", &proof)];
        refused(what, &post(&url, &headers, &body)?, 401);
    }
    assert!(world.executed().is_empty(), "{:?}", world.executed());

    let good = token()?;
    let authorization = dpop(&good);
    let proof = raw.proof("POST", &url, Some(&good), |_| ())?;
    let headers = [("authorization", authorization.as_str()), ("dpop", &proof)];
    assert_eq!(post(&url, &headers, &body)?.status, 200);
    let code = refused("a proof used twice", &post(&url, &headers, &body)?, 401);
    assert_eq!(code, "dpop_replayed");
    assert_eq!(world.executed().len(), 1);

    std::thread::sleep(std::time::Duration::from_secs(3));
    let code = refused("a grant that has expired", &raw.post(&url, &good, &body)?, 401);
    assert!(code.contains("expired"), "{code}");
    let answer = raw.post(&server.resource("nowhere"), &good, &body)?;
    assert!([401, 404].contains(&answer.status), "an unknown connection: {answer:?}");
    assert_eq!(world.executed().len(), 1);
    server.verify()?.exits(0);
    Ok(())
}

fn identities_at_the_exchange(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let stranger = world.idp()?;
    let ledger = world.ledger()?;
    let server = Site::new(world, &idp).http("ledger", &ledger.url).start()?;
    let url = server.resource("ledger");
    let raw = Raw::new()?;
    let now = i64::try_from(
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs(),
    )?;
    let claims = json!({
        "iss": idp.url, "aud": "mcpx-cli", "sub": "mallory", "groups": ["eng"],
        "iat": now, "exp": now + 600,
    });
    let with = |name: &str, value: Value| {
        let mut claims = claims.clone();
        claims[name] = value;
        claims
    };
    assert_eq!(raw.exchange(&server, &idp.sign(claims.clone())?, &url)?.status, 200);

    let rows = [
        ("expired", idp.sign(with("exp", json!(now - 600)))?),
        ("for another client", idp.sign(with("aud", json!("somebody-else")))?),
        ("of an unknown issuer", stranger.sign(with("iss", json!(stranger.url)))?),
        ("signed by a stranger", stranger.sign(claims.clone())?),
        ("unsigned", unsigned(&claims)),
        ("not a token", "e30.e30.e30".to_owned()),
        ("nothing", String::new()),
    ];
    let mut refused = server.leaves_of("refused").len();
    for (what, token) in rows {
        let answer = raw.exchange(&server, &token, &url)?;
        assert!((400..500).contains(&answer.status), "{what}: {answer:?}");
        let told = answer.json();
        assert!(told["error"].is_string(), "{what}: {answer:?}");
        let now = server.leaves_of("refused").len();
        assert_eq!(now, refused + 1, "{what}: not on record");
        refused = now;
    }
    let answer = raw.exchange(&server, &idp.sign(claims)?, &server.resource("nowhere"))?;
    assert!((400..500).contains(&answer.status), "an unknown connection: {answer:?}");
    Ok(())
}

/// A token with the algorithm `none`.
fn unsigned(claims: &Value) -> String {
    use base64::Engine as _;
    let encode = |value: &Value| {
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(value.to_string().as_bytes())
    };
    format!("{}.{}.", encode(&json!({"alg": "none", "typ": "JWT"})), encode(claims))
}

fn an_upstream_that_is_not_there(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let gone = world.ledger()?;
    let url = gone.url.clone();
    drop(gone);
    let missing = ["/bin/false".to_owned()];
    let server = Site::new(world, &idp).http("gone", &url).stdio("missing", &missing).start()?;
    let alice = Person::logged_in(world, "alice", &server, &idp)?;
    for connection in ["gone", "missing"] {
        let refused = alice.call(Client::TypeScript1, connection, "note", &json!({"text": "x"}));
        let told = match refused {
            Ok(seen) => panic!("{connection}: {seen:#?}"),
            Err(error) => error.to_string(),
        };
        assert!(told.contains(connection), "which server failed is not told: {told}");
        // Whose port and which path it is concerns the operator, not the caller.
        assert!(!told.contains("/bin/false") && !told.contains(&url), "{told}");
    }
    let failed = server.leaves_of("response");
    assert!(failed.iter().any(|leaf| leaf["outcome"] == "upstream_failed"), "{failed:#?}");
    server.verify()?.exits(0);
    Ok(())
}

fn what_policy_forbids(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let ledger = world.ledger()?;
    let server = Site::new(world, &idp)
        .policy(
            "fails.cedar",
            r#"@id("no-failing-tools")
            forbid(principal, action == Action::"tools/call", resource == Tool::"ledger/fails");"#,
        )
        .http("ledger", &ledger.url)
        .start()?;
    let bob = Person::logged_in(world, "bob", &server, &idp)?;
    let listed = bob.run(&["ls", "--json"])?.exits(0);
    assert!(!listed.stdout.contains("ledger"), "what he may not use is shown: {listed:#?}");
    bob.run(&["connect", "ledger", "--json"])?.exits(3);
    bob.run(&["exec", "ledger", "--", "true"])?.exits(3);

    let alice = Person::logged_in(world, "alice", &server, &idp)?;
    let seen = alice.call(Client::TypeScript1, "ledger", "note", &json!({"text": "ok"}))?;
    assert!(!seen.tools.contains(&"fails".to_owned()), "a forbidden tool is listed: {seen:#?}");
    let refused = alice.call(Client::TypeScript1, "ledger", "fails", &json!({"text": "no"}));
    let told = match refused {
        Ok(seen) => seen.result.to_string(),
        Err(error) => error.to_string(),
    };
    assert!(told.contains("no-failing-tools"), "the rule is not named: {told}");
    assert_eq!(world.executed().len(), 1);
    let denied = server.leaves_of("call");
    assert!(
        denied.iter().any(|leaf| {
            leaf["decision"] == "deny" && leaf["rules"] == json!(["no-failing-tools"])
        }),
        "{denied:#?}"
    );
    // Not even whether a connection exists is told to those who may not use it.
    let unknown = bob.run(&["connect", "nowhere", "--json"])?;
    assert_ne!(unknown.code, 0, "{unknown:#?}");
    Ok(())
}

fn configurations(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let site = || Site::new(world, &idp);
    let rows: [(&str, Site, &[&str]); 6] = [
        ("an unknown key", site().extra("[server2]\nlisten = \"x\"\n"), &["mcpx.toml", "server2"]),
        (
            "a connection twice",
            site().http("ledger", "http://127.0.0.1:1/mcp").http("ledger", "http://127.0.0.1:1/"),
            &["mcpx.toml", "ledger"],
        ),
        (
            "a name that is no name",
            site().http("Ledger/..", "http://127.0.0.1:1/mcp"),
            &["mcpx.toml", "Ledger/.."],
        ),
        ("no duration", site().grant_ttl("soon"), &["mcpx.toml", "soon"]),
        (
            "a secret that is not there",
            site().http("crm", "http://127.0.0.1:1/mcp").with(
                "[connection.credential]\nheader = \"Authorization\"\nfrom = \"env:NOT_SET_7F3A\"",
            ),
            &["NOT_SET_7F3A", "crm"],
        ),
        (
            "a policy that does not parse",
            site().policy("broken.cedar", &format!("{ENGINEERS}\npermit(principal, nonsense);\n")),
            &["broken.cedar"],
        ),
    ];
    for (what, site, named) in rows {
        let config = site.write()?;
        for check in [&["--check"][..], &[]] {
            let mut command = world.command(crate::support::site::MCPX)?;
            command.args(["serve", "--config"]).arg(&config).args(check);
            let output = crate::support::Proc::run(world, "serve", command)?;
            assert!([1, 2].contains(&output.code), "{what}: {output:#?}");
            for word in named {
                assert!(output.stderr.contains(word), "{what}: {word:?} is not named: {output:#?}");
            }
        }
        std::fs::remove_dir_all(world.dir().join("server"))?;
    }
    let output = serve_refuses(world, std::path::Path::new("/no/such/mcpx.toml"))?;
    assert!([1, 2].contains(&output.code), "{output:#?}");
    output.says("/no/such/mcpx.toml");
    Ok(())
}

fn strangers_at_the_local_port(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let ledger = world.ledger()?;
    let server = Site::new(world, &idp).http("ledger", &ledger.url).start()?;
    let alice = Person::logged_in(world, "alice", &server, &idp)?;
    let connected = alice.connect("ledger")?;
    let body = raw::call("note", &json!({"text": "stranger"}));
    let base = reqwest::Url::parse(&connected.url)?;
    assert_eq!(base.host_str(), Some("127.0.0.1"));
    let guess = base.join("/mcp")?.to_string();
    let rows = [
        ("without the secret", guess, vec![]),
        ("from a web page", connected.url.clone(), vec![("origin", "https://evil.example")]),
        ("by another name", connected.url.clone(), vec![("host", "evil.example")]),
    ];
    for (what, url, headers) in rows {
        let answer = post(&url, &headers, &body)?;
        assert!([401, 403, 404].contains(&answer.status), "{what}: {answer:?}");
        assert_eq!(answer.header("access-control-allow-origin"), "", "{what}");
    }
    assert!(world.executed().is_empty());
    assert_eq!(post(&connected.url, &[], &body)?.status, 200);
    assert_eq!(world.executed().len(), 1);
    Ok(())
}
