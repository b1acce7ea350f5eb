//! Identity providers differ from one another. Somebody logs in at each of them by a code, and uses
//! what their groups allow; what cannot be trusted is refused, with its reason.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::support::proc::Output;
use crate::support::{Person, Quirky, Raw, Server, Site, World};

crate::stories![
    providers_that_differ,
    providers_that_cannot_be_trusted,
    groups_that_are_too_many_for_a_token,
    a_provider_that_renews_without_identity,
    a_provider_whose_keys_cannot_be_had,
    a_provider_that_changes_its_keys_under_a_login,
];

/// A provider, what the server is told of it, and what comes of a login there.
struct Row {
    name: &'static str,
    quirks: Value,
    config: &'static str,
    /// What `mcpx login` says, empty where it succeeds.
    login: &'static str,
    /// What `mcpx ls` says, empty where it shows what engineers may use.
    ls: &'static str,
}

impl Row {
    fn works(name: &'static str, quirks: Value, config: &'static str) -> Self {
        Self { name, quirks, config, login: "", ls: "" }
    }

    fn cannot_log_in(name: &'static str, quirks: Value, says: &'static str) -> Self {
        Self { name, quirks, config: "", login: says, ls: "" }
    }

    fn is_refused(
        name: &'static str,
        quirks: Value,
        config: &'static str,
        says: &'static str,
    ) -> Self {
        Self { name, quirks, config, login: "", ls: says }
    }
}

/// A server that trusts the provider of every row.
fn server<'a>(world: &'a World, quirky: &Quirky, rows: &[Row]) -> anyhow::Result<Server<'a>> {
    let mut issuers = String::new();
    for row in rows {
        quirky.set(row.name, &row.quirks)?;
        let config = row.config.replace("BASE", &quirky.base);
        writeln!(issuers, "\n[[issuer]]\nname = {:?}", row.name)?;
        writeln!(issuers, "url = {:?}\n{config}", quirky.issuer(row.name))?;
    }
    // Nobody is there: connections are only listed.
    Site::new(world, &quirky.plain).http("ledger", "http://127.0.0.1:9/mcp").extra(&issuers).start()
}

fn log_in(world: &World, server: &Server, issuer: &str) -> anyhow::Result<(String, Output)> {
    let person = Person::new(world, issuer)?;
    let flags = ["--device", "--insecure-file", "--no-browser"];
    let arguments = [&["login", "--server", &server.url, "--issuer", issuer], &flags[..]].concat();
    Ok((issuer.to_owned(), person.run(&arguments)?))
}

fn tell(world: &World, rows: &[Row]) -> anyhow::Result<()> {
    let quirky = Quirky::start(world)?;
    let server = server(world, &quirky, rows)?;
    let mut wrong = vec![];
    for row in rows {
        let (_, login) = log_in(world, &server, row.name)?;
        if row.login.is_empty() != (login.code == 0) || !login.stderr.contains(row.login) {
            wrong.push(format!("{}: login: {login:#?}", row.name));
        }
        if !row.login.is_empty() {
            continue;
        }
        let ls = Person::new(world, row.name)?.run(&["ls"])?;
        let right = match row.ls {
            "" => ls.code == 0 && ls.stdout.contains("ledger"),
            says => ls.code != 0 && ls.stderr.contains(says),
        };
        if !right {
            wrong.push(format!("{}: ls: {ls:#?}", row.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

fn providers_that_differ(world: &World) -> anyhow::Result<()> {
    let none = json!(null);
    let group = |claims: Value| json!({ "claims": claims });
    tell(
        world,
        &[
            Row::works("ordinary", json!({}), ""),
            Row::works("rsa", json!({ "alg": "RS256" }), ""),
            Row::works("eddsa", json!({ "alg": "EdDSA" }), ""),
            Row::works(
                "opaque-sub",
                group(json!({ "sub": "auth0|5f7c8ec7c33c6c004bbafe82 ü=/" })),
                "",
            ),
            Row::works("comma-groups", group(json!({ "groups": "staff, eng" })), ""),
            Row::works(
                "other-claim",
                group(json!({ "groups": none, "cognito:groups": ["eng"] })),
                r#"groups_claim = "cognito:groups""#,
            ),
            Row::works(
                "nested-claim",
                group(json!({ "groups": none, "realm_access": { "roles": ["eng"] } })),
                r#"groups_claim = "realm_access.roles""#,
            ),
            Row::works(
                "pointer-claim",
                group(
                    json!({ "groups": none, "resource_access": { "a.b/c": { "roles": "eng" } } }),
                ),
                r#"groups_claim = "/resource_access/a.b~1c/roles""#,
            ),
            Row::works(
                "url-claim",
                group(json!({ "groups": none, "https://corp.example/groups": ["eng"] })),
                r#"groups_claim = "https://corp.example/groups""#,
            ),
            Row::works("aud-array", group(json!({ "aud": ["mcpx-cli"] })), ""),
            Row::works(
                "aud-many",
                group(json!({ "aud": ["mcpx-cli", "other"], "azp": "mcpx-cli" })),
                "",
            ),
            Row::works("interval-omitted", json!({ "interval": "omitted" }), ""),
            Row::works("interval-null", json!({ "interval": none }), ""),
            Row::works("interval-zero", json!({ "interval": 0, "pending": 1 }), ""),
            Row::works("google-name", json!({ "verificationUrl": true }), ""),
            Row::works("odd-keys", json!({ "oddKeys": true }), ""),
            Row::works("clock-ahead", json!({ "skew": 45 }), ""),
            Row::works("clock-behind", json!({ "skew": -50, "life": 300 }), ""),
            Row::works("no-resource", json!({ "resource": "refused" }), ""),
            Row::works(
                "resource",
                json!({ "resource": "https://mcpx.example/mcp" }),
                r#"resource = "https://mcpx.example/mcp""#,
            ),
            Row::works(
                "public-secret",
                json!({ "secret": "GOCSPX-not-a-secret" }),
                r#"published_client_secret = "GOCSPX-not-a-secret""#,
            ),
            Row::works("no-refresh", json!({ "refreshToken": false }), ""),
        ],
    )
}

fn providers_that_cannot_be_trusted(world: &World) -> anyhow::Result<()> {
    let claims = |claims: Value| json!({ "claims": claims });
    let far = 4_000_000_000_u64;
    tell(
        world,
        &[
            Row::cannot_log_in("none", json!({ "alg": "none" }), "not valid"),
            // Signed with HMAC, the key being the issuer's public key.
            Row::cannot_log_in("hs256", json!({ "alg": "HS256" }), "not valid"),
            Row::cannot_log_in(
                "liar",
                json!({ "issuer": "https://login.example" }),
                "cannot be used",
            ),
            Row::cannot_log_in("slash", json!({ "issuer": "SELF/" }), "cannot be used"),
            Row::cannot_log_in("other-aud", claims(json!({ "aud": "other" })), "not valid"),
            Row::cannot_log_in(
                "other-iss",
                claims(json!({ "iss": "https://x.example" })),
                "not valid",
            ),
            Row::cannot_log_in("over", json!({ "life": -10 }), "clock"),
            Row::cannot_log_in("no-identity", json!({ "idToken": false }), "scope openid"),
            Row::cannot_log_in(
                "resource-needed",
                json!({ "resource": "https://x" }),
                "invalid_target",
            ),
            Row::cannot_log_in("no-device", json!({ "device": false }), "mcpx login --browser"),
            Row::cannot_log_in("down", json!({ "down": true }), "does not answer"),
            // What only the server can judge.
            Row::is_refused("from-the-future", json!({ "skew": 120 }), "", "clocks"),
            Row::is_refused("not-before", claims(json!({ "nbf": far })), "", "clocks"),
            Row::is_refused("server-aud", json!({}), r#"audience = ["mcpx"]"#, "another audience"),
            Row::is_refused(
                "azp",
                claims(json!({ "aud": ["mcpx-cli", "x"], "azp": "x" })),
                "",
                "audience",
            ),
            Row::is_refused(
                "odd-groups",
                claims(json!({ "groups": { "eng": true } })),
                "",
                "groups claim",
            ),
            Row::is_refused("alg", json!({ "alg": "RS256" }), r#"algorithms = ["ES256"]"#, "RS256"),
        ],
    )
}

fn groups_that_are_too_many_for_a_token(world: &World) -> anyhow::Result<()> {
    let entra = |extra: Value| {
        let mut quirks = json!({ "claims": {
            "groups": null, "oid": "0b1c2d3e-aaaa-bbbb-cccc-0123456789ab",
            "_claim_names": { "groups": "src1" },
            "_claim_sources": { "src1": { "endpoint": "https://graph.windows.net/x" } },
        }});
        quirks.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        quirks
    };
    let lookup = r#"
[issuer.group_lookup]
endpoint = "BASE/graph/v1.0"
token_endpoint = "BASE/t/NAME/token"
client_id = "graph-reader"
client_secret_file = "graph.secret""#;
    let with_lookup = |name: &str| -> &'static str { lookup.replace("NAME", name).leak() };
    world.write("server/graph.secret", "graph secret\n")?;
    world.write("server/wrong.secret", "not it\n")?;
    let rows = [
        Row::is_refused("unlooked", entra(json!({})), "", "too many"),
        Row::is_refused(
            "has-groups",
            json!({ "claims": { "groups": null, "hasgroups": true } }),
            "",
            "too many",
        ),
        Row::works("looked-up", entra(json!({})), with_lookup("looked-up")),
        Row::works("forgets", entra(json!({ "graphForgets": true })), with_lookup("forgets")),
        Row::is_refused(
            "graph-down",
            entra(json!({ "graphDown": true })),
            with_lookup("graph-down"),
            "cannot be looked up",
        ),
        Row::is_refused(
            "no-oid",
            json!({ "claims": { "groups": null, "_claim_names": { "groups": "src1" } } }),
            with_lookup("no-oid"),
            "no oid",
        ),
        Row::is_refused(
            "wrong-secret",
            entra(json!({})),
            with_lookup("wrong-secret").replace("graph.secret", "wrong.secret").leak(),
            "cannot be looked up",
        ),
    ];
    tell(world, &rows)?;

    let quirky = Quirky::start(world)?;
    let server = server(world, &quirky, &rows)?;
    log_in(world, &server, "looked-up")?.1.exits(0);
    let alice = Person::new(world, "looked-up")?;
    alice.run(&["ls"])?.exits(0);
    let seen = quirky.seen("looked-up")?;
    assert_eq!(seen["lookup"]["user"], "0b1c2d3e-aaaa-bbbb-cccc-0123456789ab");
    assert_eq!(seen["lookup"]["body"], json!({ "securityEnabledOnly": true }));
    // Taken anew each time: whoever leaves a group loses it as fast as with groups in the token.
    quirky.set("looked-up", &json!({ "groups": ["sales"] }))?;
    let ls = alice.run(&["ls"])?.exits(0);
    assert!(!ls.stdout.contains("ledger"), "{ls:#?}");
    // What was refused is on record, and says why.
    log_in(world, &server, "unlooked")?.1.exits(0);
    let ls = Person::new(world, "unlooked")?.run(&["ls"])?.exits(1);
    let ls = ls.says("group_lookup");
    let refused = server.leaves_of("refused");
    assert!(refused.iter().any(|leaf| leaf["code"] == "groups_left_out"), "{refused:#?} {ls:#?}");
    server.holds_none_of(["graph secret", "graph-"]);
    Ok(())
}

fn a_provider_that_renews_without_identity(world: &World) -> anyhow::Result<()> {
    let quirky = Quirky::start(world)?;
    let server = server(world, &quirky, &[])?;
    quirky.set("plain", &json!({ "life": 8, "refreshIdToken": false }))?;
    log_in(world, &server, "corp")?.1.exits(0);
    let alice = Person::new(world, "corp")?;
    // It is renewed early, in vain; the old identity token serves as long as it lasts.
    std::thread::sleep(std::time::Duration::from_millis(1500));
    alice.run(&["ls"])?.exits(0);
    std::thread::sleep(std::time::Duration::from_secs(7));
    alice.run(&["ls"])?.exits(4).says("gives no new one when it renews");
    // The refresh token that came instead was kept: none is used twice.
    assert_eq!(quirky.seen("plain")?["replayed"], 0);
    quirky.set("plain", &json!({ "refreshIdToken": true }))?;
    alice.run(&["ls"])?.exits(0);
    Ok(())
}

fn a_provider_whose_keys_cannot_be_had(world: &World) -> anyhow::Result<()> {
    let quirky = Quirky::start(world)?;
    let server = server(world, &quirky, &[])?;
    quirky.set("plain", &json!({ "life": 2 }))?;
    log_in(world, &server, "corp")?.1.exits(0);
    let alice = Person::new(world, "corp")?;
    alice.run(&["ls"])?.exits(0);
    // Keys that were fetched before serve the server and the command line, and logins are renewed.
    quirky.set("plain", &json!({ "jwksDown": true, "life": 3600 }))?;
    std::thread::sleep(std::time::Duration::from_secs(2));
    alice.run(&["ls"])?.exits(0);
    assert_eq!(quirky.seen("plain")?["refreshed"], 1);
    // Somebody new gets neither.
    log_in(world, &server, "corp")?.1.exits(7).says("does not answer");
    Ok(())
}

fn a_provider_that_changes_its_keys_under_a_login(world: &World) -> anyhow::Result<()> {
    let quirky = Quirky::start(world)?;
    let server = server(world, &quirky, &[])?;
    quirky.set("plain", &json!({ "life": 2 }))?;
    log_in(world, &server, "corp")?.1.exits(0);
    let alice = Person::new(world, "corp")?;
    alice.run(&["ls"])?.exits(0);
    quirky.rotate("plain")?;
    quirky.set("plain", &json!({ "life": 3600 }))?;
    std::thread::sleep(std::time::Duration::from_secs(2));
    // Its next identity token is signed by the new key: the server fetches once, for all who come.
    let before = quirky.seen("plain")?["jwks"].as_u64().unwrap_or_default();
    alice.run(&["ls"])?.exits(0);
    let commands = (0..6).map(|_| alice.start(&["ls"])).collect::<Result<Vec<_>, _>>()?;
    for command in commands {
        command.finish()?.exits(0);
    }
    let after = quirky.seen("plain")?["jwks"].as_u64().unwrap_or_default();
    // One by the command line, which renewed the login; one by the server.
    assert_eq!(after - before, 2, "{}", quirky.seen("plain")?);
    // Strangers' keys make it fetch no more: once a minute, however many come.
    let raw = Raw::new()?;
    let header = json!({ "alg": "ES256", "kid": "stranger" });
    let exp = 4_000_000_000_u64;
    let claims =
        json!({ "iss": quirky.issuer("plain"), "sub": "a", "aud": "mcpx-cli", "exp": exp });
    let token = [header, claims].map(|part| base64(&part.to_string())).join(".");
    let resource = format!("{}/api", server.url);
    for _ in 0..5 {
        let answer = raw.exchange(&server, &format!("{token}.AAAA"), &resource)?;
        assert_eq!(answer.json()["mcpx_code"], "token_key_unknown", "{answer:#?}");
    }
    let last = quirky.seen("plain")?["jwks"].as_u64().unwrap_or_default();
    assert!(last - after <= 1, "{last} {after}");
    Ok(())
}

fn base64(text: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text)
}
