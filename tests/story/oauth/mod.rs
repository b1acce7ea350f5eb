//! Clients that cannot run the command line log in by MCP's own OAuth, at the organisation's own
//! identity provider, and are held to everything that others are held to.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::conformance::{EVERYTHING, agree};
use crate::support::conformance::Run;
use crate::support::http::{self, Answer};
use crate::support::oauth::{self, bearer, claims, sign};
use crate::support::relay::Relay;
use crate::support::sse::Stream;
use crate::support::{Person, Site, World, raw};

pub mod beside;
pub mod faults;
pub mod logins;

crate::stories![
    the_metadata_says_where_to_log_in,
    switched_off_there_is_nothing_of_it,
    a_revocation_ends_a_client_and_its_streams,
    an_expired_token_ends_its_streams,
    one_client_has_one_session_for_all_its_tokens,
    scopes_and_policy_each_say_no_in_their_own_way,
    the_token_stays_at_the_gateway,
    a_provider_that_changes_its_keys_or_is_not_there,
    the_conformance_suite_sees_no_difference,
];

/// Turned on for the server; connections say `oauth = true`.
pub const SWITCHED_ON: &str = "\n[oauth]\nissuers = [\"corp\"]\n";

const SCOPED: &str = "\n[oauth]\nscopes = [\"mcp:{connection}\"]\noptional_scopes = [\"mcp\"]\n";

fn get(url: &str) -> anyhow::Result<Answer> {
    http::send(http::client().get(url))
}

fn the_metadata_says_where_to_log_in(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let ledger = world.ledger()?;
    let site =
        || Site::new(world, &idp).http("ledger", &ledger.url).with("oauth = true").extra(SCOPED);
    let server = site().http("other", &ledger.url).start()?;
    let place = format!("{}/.well-known/oauth-protected-resource", server.url);
    let resource = server.resource("ledger");
    let body = raw::call("note", &json!({"text": "bad"}));

    let answer = raw::post(&resource, &[], &body)?;
    assert_eq!(answer.status, 401, "{answer:?}");
    let challenges: Vec<_> = answer.headers.get_all("www-authenticate").iter().collect();
    let [first, second] = challenges.as_slice() else { panic!("{answer:?}") };
    let scope = "mcp:ledger mcp";
    let expected = format!("Bearer resource_metadata=\"{place}/mcp/ledger\", scope=\"{scope}\"");
    assert_eq!(*first, &expected);
    assert!(second.as_bytes().starts_with(b"DPoP "), "{answer:?}");

    let path = get(&format!("{place}/mcp/ledger"))?;
    assert_eq!((path.status, path.header("content-type")), (200, "application/json"));
    assert_eq!(
        path.json(),
        json!({
            "resource": resource,
            "resource_name": "ledger",
            "authorization_servers": [idp.url],
            "scopes_supported": ["mcp:ledger", "mcp"],
            "bearer_methods_supported": ["header"],
            "dpop_signing_alg_values_supported": ["ES256", "EdDSA"],
        })
    );
    // There is one resource, so the root has something to say; it is the same.
    assert_eq!(get(&place)?.json(), path.json());
    for nowhere in ["/mcp/other", "/mcp/nobody", "/mcp/", "/mcp", "/mcp/ledger/x"] {
        assert_eq!(get(&format!("{place}{nowhere}"))?.status, 404, "{nowhere}");
    }
    drop(server);

    // Of two resources the root could only name one, and a client would ask for the wrong token.
    let server = site().http("other", &ledger.url).with("oauth = true").start()?;
    let place = format!("{}/.well-known/oauth-protected-resource", server.url);
    assert_eq!(get(&place)?.status, 404);
    for name in ["ledger", "other"] {
        let document = get(&format!("{place}/mcp/{name}"))?.json();
        assert_eq!(document["resource"], json!(server.resource(name)));
        assert_eq!(document["scopes_supported"][0], json!(format!("mcp:{name}")));
    }
    Ok(())
}

fn switched_off_there_is_nothing_of_it(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let ledger = world.ledger()?;
    for extra in ["", SWITCHED_ON] {
        let server = Site::new(world, &idp).http("ledger", &ledger.url).extra(extra).start()?;
        let place = format!("{}/.well-known/oauth-protected-resource", server.url);
        assert_eq!(get(&place)?.status, 404);
        assert_eq!(get(&format!("{place}/mcp/ledger"))?.status, 404);
        let url = server.resource("ledger");
        let token = sign(&idp, &claims(&idp, &url, "alice", &["eng"]))?;
        let bearer = format!("Bearer {token}");
        // Sent, it is a grant token that nobody made.
        let cases = [(vec![], "token_missing"), (vec![&bearer], "token_key_unknown")];
        for (headers, expected) in cases {
            let headers: Vec<_> =
                headers.iter().map(|value| ("authorization", &***value)).collect();
            let answer = raw::post(&url, &headers, &raw::call("note", &json!({"text": "bad"})))?;
            assert_eq!(answer.status, 401, "{answer:?}");
            let challenges: Vec<_> = answer.headers.get_all("www-authenticate").iter().collect();
            let challenge = format!(
                "DPoP error=\"invalid_token\", error_description=\"{expected}\", \
                 algs=\"EdDSA ES256\""
            );
            assert_eq!(challenges, [&challenge]);
            let message = answer.json()["error"]["message"].as_str().unwrap_or_default().to_owned();
            assert!(message.contains("mcpx connect NAME"), "{message}");
        }
    }
    assert!(world.executed().is_empty());
    Ok(())
}

/// A request of the newest protocol that is answered with a stream as long as the grant lasts.
fn listen(url: &str, token: &str) -> anyhow::Result<Stream> {
    let body = json!({
        "jsonrpc": "2.0", "id": "sub-1", "method": "subscriptions/listen",
        "params": {
            "notifications": {"toolsListChanged": true},
            "_meta": {
                "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                "io.modelcontextprotocol/clientCapabilities": {},
            },
        },
    });
    Stream::open(
        http::client()
            .post(url)
            .timeout(Duration::from_secs(300))
            .header("authorization", format!("Bearer {token}"))
            .header("content-type", "application/json")
            .header("accept", "application/json, text/event-stream")
            .header("mcp-protocol-version", "2026-07-28")
            .header("mcp-method", "subscriptions/listen")
            .body(body.to_string()),
    )
}

fn code(value: &Value) -> &str {
    value["error"]["data"]["mcpx"]["code"].as_str().unwrap_or_default()
}

fn a_revocation_ends_a_client_and_its_streams(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let fixture = world.fixture()?;
    let server = Site::new(world, &idp)
        .http("fixture", &fixture.url)
        .with("oauth = true")
        .policy("everything.cedar", EVERYTHING)
        .extra(SWITCHED_ON)
        .start()?;
    let url = server.resource("fixture");
    let alice = Person::logged_in(world, "alice", &server, &idp)?;
    let given = claims(&idp, &url, "carol", &["eng"]);
    let token = sign(&idp, &given)?;
    let mut stream = listen(&url, &token)?;
    let ping = raw::call("test_simple_text", &json!({}));
    assert_eq!(bearer(&url, &token, &ping)?.status, 200);
    let issued = server.leaves_of("grant_issued");
    let grant = issued[0]["grant"].as_str().unwrap_or_default();

    alice.run(&["revoke", grant])?.exits(0);
    let revoked = Instant::now();
    let events = stream.rest()?;
    let took = revoked.elapsed();
    assert_eq!(code(&events.last().unwrap().json()), "grant_revoked");
    assert!(took < Duration::from_secs(2), "the stream lived on for {took:?}");
    let answer = bearer(&url, &token, &ping)?;
    assert_eq!((answer.status, code(&answer.json())), (401, "grant_revoked"), "{answer:?}");
    assert!(answer.header("www-authenticate").starts_with("Bearer error=\"invalid_token\""));

    // What the client gets by refreshing is no way around it, nor is a restart.
    let now = oauth::now();
    let mut later = given.clone();
    later["iat"] = json!(now + 2);
    later["jti"] = json!("later");
    let answer = bearer(&url, &sign(&idp, &later)?, &ping)?;
    assert_eq!(code(&answer.json()), "grant_revoked", "a refreshed token undid it: {answer:?}");
    // A login from before it is none from after it.
    later["auth_time"] = json!(now - 60);
    let answer = bearer(&url, &sign(&idp, &later)?, &ping)?;
    assert_eq!(code(&answer.json()), "grant_revoked", "{answer:?}");
    let mut server = server;
    server.restart()?;
    let answer = bearer(&url, &token, &ping)?;
    assert_eq!(code(&answer.json()), "grant_revoked", "after a restart: {answer:?}");
    // Other clients of hers are not concerned, and a new login is one.
    let mut other = given;
    other["client_id"] = json!("another");
    assert_eq!(bearer(&url, &sign(&idp, &other)?, &ping)?.status, 200);
    later["auth_time"] = json!(now + 2);
    assert_eq!(bearer(&url, &sign(&idp, &later)?, &ping)?.status, 200);
    // But not for the token from before.
    let answer = bearer(&url, &token, &ping)?;
    assert_eq!(code(&answer.json()), "grant_revoked", "the old token is back: {answer:?}");
    server.verify()?.exits(0);
    Ok(())
}

fn an_expired_token_ends_its_streams(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let fixture = world.fixture()?;
    let server = Site::new(world, &idp)
        .http("fixture", &fixture.url)
        .with("oauth = true")
        .policy("everything.cedar", EVERYTHING)
        .extra(SWITCHED_ON)
        .start()?;
    let url = server.resource("fixture");
    let mut given = claims(&idp, &url, "carol", &["eng"]);
    given["exp"] = json!(oauth::now() + 6);
    let token = sign(&idp, &given)?;
    let mut stream = listen(&url, &token)?;
    let events = stream.rest()?;
    assert_eq!(code(&events.last().unwrap().json()), "grant_expired");
    let ping = raw::call("test_simple_text", &json!({}));
    let answer = bearer(&url, &token, &ping)?;
    assert_eq!((answer.status, code(&answer.json())), (401, "token_expired"), "{answer:?}");
    Ok(())
}

fn one_client_has_one_session_for_all_its_tokens(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let ledger = world.ledger()?;
    let everybody = r#"@id("connect") permit(principal, action == Action::"connect", resource);"#;
    let server = Site::new(world, &idp)
        .http("ledger", &ledger.url)
        .with("oauth = true")
        .policy("connect.cedar", everybody)
        .extra(SWITCHED_ON)
        .start()?;
    let url = server.resource("ledger");
    let now = oauth::now();
    let given = |change: &[(&str, Value)]| -> anyhow::Result<String> {
        let mut claims = claims(&idp, &url, "carol", &["eng"]);
        for (name, value) in change {
            claims[*name] = value.clone();
        }
        sign(&idp, &claims)
    };
    let works = |token: &str| -> anyhow::Result<bool> {
        let answer = bearer(&url, token, &raw::call("note", &json!({"text": "x"})))?;
        assert_eq!(answer.status, 200, "{answer:?}");
        Ok(code(&answer.json()).is_empty())
    };
    let issued = || server.leaves_of("grant_issued").len();
    let renewed = || server.leaves_of("grant_renewed").len();

    // Sixteen requests at once, of a token that nobody has seen: one grant.
    let first = given(&[("iat", json!(now - 20))])?;
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..16).map(|_| scope.spawn(|| works(&first))).collect();
        for one in all {
            assert!(one.join().unwrap().unwrap());
        }
    });
    assert_eq!((issued(), renewed()), (1, 0));
    // A newer one renews it, with the groups that it brings; the older one lends it none.
    let second = given(&[("iat", json!(now - 10)), ("groups", json!([]))])?;
    assert!(!works(&second)?, "the groups of the newer token do not count");
    assert!(!works(&first)?, "the groups of an older token count");
    assert_eq!((issued(), renewed()), (1, 1));
    let between = given(&[("iat", json!(now - 15))])?;
    assert!(!works(&between)?, "the groups of an older token count");
    assert_eq!((issued(), renewed()), (1, 1));
    let third = given(&[("iat", json!(now))])?;
    assert!(works(&third)?);
    assert_eq!((issued(), renewed()), (1, 2));
    // Another client, and another login at the issuer, are sessions of their own.
    assert!(works(&given(&[("client_id", json!("another"))])?)?);
    assert!(works(&given(&[("sid", json!("another login"))])?)?);
    assert_eq!(issued(), 3);
    server.verify()?.exits(0);
    Ok(())
}

fn scopes_and_policy_each_say_no_in_their_own_way(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let ledger = world.ledger()?;
    let server = Site::new(world, &idp)
        .http("ledger", &ledger.url)
        .with("oauth = true")
        .extra(SCOPED)
        .start()?;
    let url = server.resource("ledger");
    let note = raw::call("note", &json!({"text": "x"}));
    let with = |name: &str, value: Value| -> anyhow::Result<String> {
        let mut claims = claims(&idp, &url, "carol", &["eng"]);
        claims[name] = value;
        sign(&idp, &claims)
    };
    let place = format!("{}/.well-known/oauth-protected-resource/mcp/ledger", server.url);
    for scope in [json!(""), json!("mcp"), json!("mcp:ledger2 mcp:other"), json!("MCP:LEDGER")] {
        let answer = bearer(&url, &with("scope", scope.clone())?, &note)?;
        assert_eq!((answer.status, code(&answer.json())), (403, "insufficient_scope"), "{scope}");
        let challenge = format!(
            "Bearer error=\"insufficient_scope\", resource_metadata=\"{place}\", \
             scope=\"mcp:ledger mcp\""
        );
        assert_eq!(answer.header("www-authenticate"), challenge, "{scope}");
    }
    let refused = server.leaves_of("refused");
    assert_eq!(refused.len(), 4);
    assert!(refused.iter().all(|leaf| leaf["subject"].as_str().is_some()), "{refused:?}");
    assert!(server.leaves_of("grant_issued").is_empty());
    for (name, value) in [("scope", json!("a mcp:ledger b")), ("scp", json!(["mcp:ledger"]))] {
        let mut claims = claims(&idp, &url, "carol", &["eng"]);
        claims.as_object_mut().unwrap().remove("scope");
        claims[name] = value;
        assert_eq!(bearer(&url, &sign(&idp, &claims)?, &note)?.status, 200);
    }

    // No scope helps somebody whom policy does not let in, so none is asked for.
    let mut claims = claims(&idp, &url, "mallory", &["visitors"]);
    claims["scope"] = json!("mcp:ledger");
    let answer = bearer(&url, &sign(&idp, &claims)?, &note)?;
    assert_eq!((answer.status, code(&answer.json())), (403, "policy_denied"), "{answer:?}");
    assert!(answer.header("www-authenticate").is_empty(), "{answer:?}");
    server.verify()?.exits(0);
    Ok(())
}

fn the_token_stays_at_the_gateway(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    // A server that writes down every header that it is sent.
    let (seen, listener) = http::block(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let (said, seen) = std::sync::mpsc::channel();
        anyhow::Ok(((said, seen), listener))
    })?;
    let (said, seen) = seen;
    let upstream = format!("http://{}/mcp", listener.local_addr()?);
    let router = axum::Router::new().fallback(move |request: axum::extract::Request| {
        let said = said.clone();
        async move {
            said.send(format!("{:?} {:?}", request.uri(), request.headers())).unwrap();
            let head = [("content-type", "application/json")];
            (head, r#"{"jsonrpc":"2.0","id":1,"result":{"content":[]}}"#)
        }
    });
    let serving = http::runtime().spawn(async { axum::serve(listener, router).await });
    let key = world.write("server/key", "upstream-credential")?;
    let credential = format!(
        "oauth = true\n[connection.credential]\nheader = \"Authorization\"\nprefix = \"Bearer \"\n\
         from = \"file:{}\"",
        key.display()
    );
    let server = Site::new(world, &idp)
        .http("plain", &upstream)
        .with("oauth = true")
        .http("secured", &upstream)
        .with(&credential)
        .extra(SWITCHED_ON)
        .start()?;
    for name in ["plain", "secured"] {
        let url = server.resource(name);
        let token = sign(&idp, &claims(&idp, &url, "carol", &["eng"]))?;
        let answer = bearer(&url, &token, &raw::call("note", &json!({"text": "x"})))?;
        assert_eq!(answer.status, 200, "{answer:?}");
        let headers = seen.recv_timeout(Duration::from_secs(10))?;
        assert!(!headers.contains(&token), "the caller's token went on: {headers}");
        let own = headers.contains("Bearer upstream-credential");
        assert_eq!(own, name == "secured", "{headers}");
        assert_eq!(headers.contains("authorization"), own, "{headers}");
        server.holds_none_of([&*token]);
    }
    // In the query it is no token (RFC 6750, section 2.3).
    let url = server.resource("plain");
    let token = sign(&idp, &claims(&idp, &url, "carol", &["eng"]))?;
    let query = format!("{url}?access_token={token}");
    let answer = raw::post(&query, &[], &raw::call("note", &json!({"text": "x"})))?;
    assert_eq!((answer.status, code(&answer.json())), (401, "token_missing"), "{answer:?}");
    serving.abort();
    Ok(())
}

fn a_provider_that_changes_its_keys_or_is_not_there(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let ledger = world.ledger()?;
    let site = || {
        Site::new(world, &idp).http("ledger", &ledger.url).with("oauth = true").extra(SWITCHED_ON)
    };
    let server = site().start()?;
    let url = server.resource("ledger");
    let note = raw::call("note", &json!({"text": "x"}));
    let token = || sign(&idp, &claims(&idp, &url, "carol", &["eng"]));
    let first = token()?;
    assert_eq!(bearer(&url, &first, &note)?.status, 200);
    idp.set("rotate")?;
    let second = token()?;
    assert_eq!(bearer(&url, &second, &note)?.status, 200);
    assert_eq!(bearer(&url, &first, &note)?.status, 200);
    drop(server);

    let server = site().start()?;
    let url = server.resource("ledger");
    let token = sign(&idp, &claims(&idp, &url, "carol", &["eng"]))?;
    drop(idp);
    let answer = bearer(&url, &token, &note)?;
    assert_eq!((answer.status, code(&answer.json())), (503, "issuer_unreachable"), "{answer:?}");
    assert!(answer.header("www-authenticate").is_empty(), "logging in would not help: {answer:?}");
    assert_eq!(server.leaves_of("refused").last().unwrap()["code"], "issuer_unreachable");
    Ok(())
}

/// No server scenario of the suite is about authorization, and those for clients have resource and
/// authorization server of their own. So it is shown that nothing else changes: all server
/// scenarios end behind an access token as they do without a gateway.
fn the_conformance_suite_sees_no_difference(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    for version in ["2025-11-25", "2026-07-28"] {
        let (first, second) = (world.fixture()?, world.fixture()?);
        let server = Site::new(world, &idp)
            .http("fixture", &second.url)
            .with("oauth = true")
            .policy("everything.cedar", EVERYTHING)
            .extra(SWITCHED_ON)
            .start()?;
        let url = server.resource("fixture");
        let direct = Run::new(world, &format!("direct-{version}"), version, &first.url)?;
        anyhow::ensure!(direct.passed, "the server itself does not conform: {}", direct.summary);
        let token = sign(&idp, &claims(&idp, &url, "carol", &["eng"]))?;
        let relay = Relay::bearer(token, url)?;
        let oauth = Run::new(world, &format!("oauth-{version}"), version, &relay.url)?;
        agree(version, &[], &direct.outcomes(), "oauth", &oauth.outcomes());
        server.verify()?.exits(0);
    }
    Ok(())
}
