//! A stolen token is worthless: it is bound to a certificate where TLS reaches the gateway or a
//! balancer hands the certificate on, and to a key with proofs elsewhere. And the key that signs
//! tokens is replaced without anybody noticing.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::mutual::{Balancer, free_port};
use crate::support::raw::{call, parts, post};
use crate::support::site::files;
use crate::support::{Authority, Client, Mutual, Person, Raw, Server, Site, World, http};

crate::stories![
    over_its_own_tls,
    behind_a_balancer,
    a_balancer_that_is_not_trusted,
    a_balancer_that_forgets,
    certificates_switched_off,
    nonces,
    keys_rotate_in_mid_session,
    wrong_configurations,
];

/// The codes of all refusals so far, oldest first.
fn codes(server: &Server) -> Vec<String> {
    let refused = server.leaves_of("refused");
    refused.iter().map(|leaf| leaf["code"].as_str().unwrap_or_default().to_owned()).collect()
}

/// Fails unless an answer is a refusal with this code that is on record.
#[track_caller]
fn is_refused(server: &Server, answer: &http::Answer, status: u16, code: &str) {
    assert_eq!(answer.status, status, "{code}: {answer:#?}");
    let told = answer.json();
    let places = ["/error/data/mcpx/code", "/error/code", "/mcpx_code"];
    let found = places.iter().filter_map(|place| told.pointer(place)).find(|v| v.is_string());
    assert_eq!(found.and_then(Value::as_str), Some(code), "{told}");
    let recorded = codes(server);
    assert_eq!(recorded.last().map(String::as_str), Some(code), "{recorded:?}");
}

fn logged_in<'a>(
    world: &'a World,
    server: &Server,
    idp: &crate::support::Idp,
    authority: &Authority,
) -> anyhow::Result<Person<'a>> {
    let mut alice = Person::new(world, "alice")?;
    alice.trust(&authority.authority);
    let login = alice.login(server)?;
    idp.approve(&login.address, "alice")?;
    login.proc.finish()?.exits(0);
    Ok(alice)
}

/// How many grants the database has that are bound to a certificate.
fn bound_to_certificates(server: &Server) -> usize {
    let found = files(server.data()).into_iter().filter(|file| {
        file.file_name().is_some_and(|name| name.to_string_lossy().starts_with("mcpx.db"))
    });
    found
        .map(|file| {
            let bytes = std::fs::read(file).unwrap_or_default();
            memchr::memmem::find_iter(&bytes, b"x5t#S256:").count()
        })
        .sum()
}

fn over_its_own_tls(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let ledger = world.ledger()?;
    let authority = Authority::new(world)?;
    let site = Site::new(world, &idp).http("ledger", &ledger.url).grant_ttl("20s");
    let server = site.extra(&authority.tls).start()?;
    let url = server.resource("ledger");

    // The program: the server says that it binds to certificates, and the broker takes that.
    let alice = logged_in(world, &server, &idp, &authority)?;
    let connected = alice.connect("ledger")?;
    let target = connected.target();
    let note = json!({"text": "bound"});
    for pause in [0, 14_500] {
        std::thread::sleep(Duration::from_millis(pause));
        let seen = Client::TypeScript2.call(world, alice.home(), &target, "note", &note)?;
        assert_eq!(seen.text(), "noted: bound");
    }
    assert!(bound_to_certificates(&server) > 0, "the broker did not show its certificate");
    assert!(!server.leaves_of("grant_renewed").is_empty(), "no grant was renewed");
    alice.run(&["ls", "--json"])?.exits(0);
    alice.run(&["audit", "verify"])?.exits(0);
    let before = codes(&server);
    assert!(before.iter().all(|code| code == "tls_handshake"), "{before:?}");

    // By hand.
    let id_token = idp.tokens("alice")?["id_token"].as_str().unwrap_or_default().to_owned();
    let (own, thief) = (Mutual::new(&authority)?, Mutual::new(&authority)?);
    let without = Mutual::without(&authority)?;
    let about = own.get(&format!("{}/.well-known/mcpx", server.url), &[])?.json();
    assert_eq!(about["tls_client_certificate_bound_access_tokens"], true);
    let body = call("note", &json!({"text": "by hand"}));
    let bearer = |token: &str| format!("Bearer {token}");
    let token = own.token(&server, &id_token, &url)?;
    let (header, claims) = parts(&token);
    assert_eq!(header["typ"], "at+jwt");
    assert!(claims["cnf"]["x5t#S256"].is_string() && claims["cnf"]["jkt"].is_null(), "{claims}");
    let answer = own.post(&url, &[("authorization", &bearer(&token))], &body)?;
    assert_eq!(answer.json()["result"]["structuredContent"]["result"], "noted: by hand");
    let executed = world.executed().len();

    // A copied token.
    let copied = bearer(&token);
    let answer = without.post(&url, &[("authorization", &copied)], &body)?;
    is_refused(&server, &answer, 401, "certificate_missing");
    let answer = thief.post(&url, &[("authorization", &copied)], &body)?;
    is_refused(&server, &answer, 401, "certificate_other");
    // The rule of the other kind does not do, in neither direction.
    let key = Raw::new()?;
    let proof = key.proof("POST", &url, Some(&token), |_| ())?;
    let dpop = format!("DPoP {token}");
    let headers = [("authorization", dpop.as_str()), ("dpop", &proof)];
    is_refused(&server, &own.post(&url, &headers, &body)?, 401, "token_needs_certificate");
    let endpoint = format!("{}/oauth/token", server.url);
    let proof = key.proof("POST", &endpoint, None, |_| ())?;
    let answer = own.exchange(&server, &id_token, &url, &[], &[("dpop", &proof)])?.json();
    assert_eq!(answer["token_type"], "DPoP", "a proof is what this client wants to use");
    let by_key = answer["access_token"].as_str().unwrap_or_default().to_owned();
    let answer = own.post(&url, &[("authorization", &bearer(&by_key))], &body)?;
    is_refused(&server, &answer, 401, "token_needs_proof");
    let proof = key.proof("POST", &url, Some(&by_key), |_| ())?;
    let dpop = format!("DPoP {by_key}");
    let headers = [("authorization", dpop.as_str()), ("dpop", &proof)];
    assert_eq!(without.post(&url, &headers, &body)?.status, 200, "proofs pass without one");
    // Only a balancer may say whose certificate it is.
    let claimed = client_cert(&own);
    let headers = [("authorization", copied.as_str()), ("client-cert", &claimed)];
    is_refused(&server, &without.post(&url, &headers, &body)?, 401, "certificate_untrusted");
    let answer = without.exchange(&server, &id_token, &url, &[], &[("client-cert", &claimed)])?;
    is_refused(&server, &answer, 400, "certificate_untrusted");
    let answer = without.exchange(&server, &id_token, &url, &[], &[])?;
    is_refused(&server, &answer, 400, "dpop_missing");

    // A renewal takes the same certificate.
    let token = own.token(&server, &id_token, &url)?;
    let answer = thief.exchange(&server, &id_token, &url, &[("mcpx_grant", &token)], &[])?;
    is_refused(&server, &answer, 400, "grant_unknown");
    let renewed = own.exchange(&server, &id_token, &url, &[("mcpx_grant", &token)], &[])?.json();
    assert_eq!(renewed["mcpx_grant"], parts(&token).1["jti"]);
    let fresh = bearer(renewed["access_token"].as_str().unwrap_or_default());
    assert_eq!(own.post(&url, &[("authorization", &fresh)], &body)?.status, 200);
    // And a verified token is not remembered past a revocation.
    let grant = renewed["mcpx_grant"].as_str().unwrap_or_default();
    alice.run(&["revoke", grant])?.exits(0);
    let answer = own.post(&url, &[("authorization", &fresh)], &body)?;
    is_refused(&server, &answer, 401, "grant_revoked");

    // The API goes by the same rules.
    let api = format!("{}/api", server.url);
    let me = format!("{api}/me");
    let token = own.token(&server, &id_token, &api)?;
    let headers = [("authorization", &*bearer(&token))];
    assert_eq!(own.get(&me, &headers)?.status, 200);
    is_refused(&server, &without.get(&me, &headers)?, 401, "certificate_missing");
    is_refused(&server, &thief.get(&me, &headers)?, 401, "certificate_other");
    assert_eq!(world.executed().len(), executed + 2);
    server.verify()?.exits(0);
    Ok(())
}

/// What a balancer would say of somebody.
fn client_cert(who: &Mutual) -> String {
    use base64::Engine as _;
    format!(":{}:", base64::engine::general_purpose::STANDARD.encode(&who.der))
}

/// A gateway on loopback behind a balancer, which the configuration calls a balancer or not.
fn balanced<'a>(
    world: &'a World,
    idp: &crate::support::Idp,
    ledger: &str,
    authority: &Authority,
    trusted: &str,
    when: &str,
) -> anyhow::Result<(Balancer, Server<'a>, String)> {
    let (port, gateway) = (free_port()?, free_port()?);
    let balancer = Balancer::start(world, authority, port, gateway, when)?;
    let server = Site::new(world, idp)
        .http("ledger", ledger)
        .listen(&format!("127.0.0.1:{gateway}"))
        .server(&format!("public_url = \"https://127.0.0.1:{port}\""))
        .server(&format!("client_certificates_from = [{trusted:?}]"))
        .start()?;
    Ok((balancer, server, format!("http://127.0.0.1:{gateway}")))
}

fn behind_a_balancer(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let ledger = world.ledger()?;
    let authority = Authority::new(world)?;
    let (_balancer, server, behind) =
        balanced(world, &idp, &ledger.url, &authority, "127.0.0.0/8", "")?;
    let url = server.resource("ledger");
    let alice = logged_in(world, &server, &idp, &authority)?;
    let note = json!({"text": "balanced"});
    let seen = alice.call(Client::TypeScript2, "ledger", "note", &note)?;
    assert_eq!(seen.text(), "noted: balanced");
    assert!(bound_to_certificates(&server) > 0, "the broker did not show its certificate");

    let id_token = idp.tokens("alice")?["id_token"].as_str().unwrap_or_default().to_owned();
    let (own, thief) = (Mutual::lasting(&authority)?, Mutual::lasting(&authority)?);
    let without = Mutual::without(&authority)?;
    let token = own.token(&server, &id_token, &url)?;
    let authorization = format!("Bearer {token}");
    let body = call("note", &json!({"text": "by hand"}));
    let headers = [("authorization", authorization.as_str())];
    for _ in 0..3 {
        assert_eq!(own.post(&url, &headers, &body)?.status, 200);
    }
    is_refused(&server, &thief.post(&url, &headers, &body)?, 401, "certificate_other");
    is_refused(&server, &without.post(&url, &headers, &body)?, 401, "certificate_missing");
    // What a client writes itself, the balancer does not hand on.
    let claimed = client_cert(&Mutual::new(&authority)?);
    let spoofed = [("authorization", authorization.as_str()), ("client-cert", &claimed)];
    is_refused(&server, &without.post(&url, &spoofed, &body)?, 401, "certificate_missing");
    // Nonsense in the balancer's own words, which only reaches the gateway past the balancer.
    let direct = format!("{behind}/mcp/ledger");
    for nonsense in ["nonsense", ":AAAA:", "\"text\"", ""] {
        let headers = [("authorization", authorization.as_str()), ("client-cert", nonsense)];
        is_refused(&server, &post(&direct, &headers, &body)?, 401, "certificate_malformed");
    }
    server.verify()?.exits(0);
    Ok(())
}

fn a_balancer_that_is_not_trusted(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let ledger = world.ledger()?;
    let authority = Authority::new(world)?;
    let (_balancer, server, _) = balanced(world, &idp, &ledger.url, &authority, "192.0.2.1", "")?;
    let url = server.resource("ledger");
    let id_token = idp.tokens("alice")?["id_token"].as_str().unwrap_or_default().to_owned();
    let own = Mutual::lasting(&authority)?;
    let answer = own.exchange(&server, &id_token, &url, &[], &[])?;
    is_refused(&server, &answer, 400, "certificate_untrusted");
    // The broker is told, and goes on with proofs, which pass every balancer.
    let alice = logged_in(world, &server, &idp, &authority)?;
    let note = json!({"text": "proved"});
    let seen = alice.call(Client::TypeScript2, "ledger", "note", &note)?;
    assert_eq!(seen.text(), "noted: proved");
    assert_eq!(bound_to_certificates(&server), 0);
    Ok(())
}

fn a_balancer_that_forgets(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let ledger = world.ledger()?;
    let authority = Authority::new(world)?;
    let when = "{ path_beg /oauth }";
    let (_balancer, server, _) = balanced(world, &idp, &ledger.url, &authority, "127.0.0.1", when)?;
    // The token is bound to a certificate that no call shows: refused once, then a key does.
    let alice = logged_in(world, &server, &idp, &authority)?;
    let connected = alice.connect("ledger")?;
    for _ in 0..2 {
        let (target, note) = (connected.target(), json!({"text": "proved"}));
        let seen = Client::TypeScript2.call(world, alice.home(), &target, "note", &note)?;
        assert_eq!(seen.text(), "noted: proved");
    }
    assert!(bound_to_certificates(&server) > 0, "the broker did not try its certificate");
    let codes = codes(&server);
    let missing = codes.iter().filter(|code| *code == "certificate_missing").count();
    assert!((1..=3).contains(&missing) && missing == codes.len(), "{codes:?}");
    assert_eq!(world.executed().len(), 2);
    Ok(())
}

fn certificates_switched_off(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let ledger = world.ledger()?;
    let authority = Authority::new(world)?;
    let tls = format!("{}client_certificates = false\n", authority.tls);
    let server = Site::new(world, &idp).http("ledger", &ledger.url).extra(&tls).start()?;
    let own = Mutual::new(&authority)?;
    let about = own.get(&format!("{}/.well-known/mcpx", server.url), &[])?.json();
    assert_eq!(about["tls_client_certificate_bound_access_tokens"], false);
    let alice = logged_in(world, &server, &idp, &authority)?;
    let note = json!({"text": "proved"});
    let seen = alice.call(Client::TypeScript2, "ledger", "note", &note)?;
    assert_eq!(seen.text(), "noted: proved");
    assert_eq!(bound_to_certificates(&server), 0);
    let id_token = idp.tokens("alice")?["id_token"].as_str().unwrap_or_default().to_owned();
    let answer = own.exchange(&server, &id_token, &server.resource("ledger"), &[], &[])?;
    is_refused(&server, &answer, 400, "dpop_missing");
    Ok(())
}

fn nonces(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let ledger = world.ledger()?;
    let site = Site::new(world, &idp).http("ledger", &ledger.url);
    let server = site.server("dpop_nonce = \"10s\"").start()?;
    let url = server.resource("ledger");
    let raw = Raw::new()?;
    let id_token = idp.tokens("alice")?["id_token"].as_str().unwrap_or_default().to_owned();

    let answer = raw.exchange(&server, &id_token, &url)?;
    is_refused(&server, &answer, 400, "use_dpop_nonce");
    assert_eq!(answer.json()["error"], "use_dpop_nonce", "RFC 9449, section 8");
    let nonce = answer.header("dpop-nonce").to_owned();
    assert!(!nonce.is_empty());
    let endpoint = format!("{}/oauth/token", server.url);
    let form = [
        ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
        ("subject_token", &id_token),
        ("subject_token_type", "urn:ietf:params:oauth:token-type:id_token"),
        ("resource", &url),
    ];
    let proof = raw.proof("POST", &endpoint, None, |claims| claims["nonce"] = json!(nonce))?;
    let request = http::client().post(&endpoint).header("DPoP", proof).form(&form);
    let token = http::send(request)?.json()["access_token"].as_str().unwrap_or_default().to_owned();

    let body = call("note", &json!({"text": "fresh"}));
    let answer = raw.post(&url, &token, &body)?;
    is_refused(&server, &answer, 401, "use_dpop_nonce");
    let challenge = answer.header("www-authenticate");
    assert!(challenge.contains("error=\"use_dpop_nonce\""), "{challenge}");
    let nonce = answer.header("dpop-nonce").to_owned();
    let ask = |nonce: &str| {
        let proof =
            raw.proof("POST", &url, Some(&token), |claims| claims["nonce"] = json!(nonce))?;
        let authorization = format!("DPoP {token}");
        post(&url, &[("authorization", &authorization), ("dpop", &proof)], &body)
    };
    assert_eq!(ask(&nonce)?.status, 200);
    is_refused(&server, &ask("another")?, 401, "use_dpop_nonce");
    assert_eq!(world.executed().len(), 1);

    // The program obeys by itself, also when the nonce it has runs out.
    let alice = Person::logged_in(world, "alice", &server, &idp)?;
    let connected = alice.connect("ledger")?;
    for pause in [0, 11] {
        std::thread::sleep(Duration::from_secs(pause));
        let note = json!({"text": "obeyed"});
        let target = connected.target();
        let seen = Client::TypeScript2.call(world, alice.home(), &target, "note", &note)?;
        assert_eq!(seen.text(), "noted: obeyed");
    }
    is_refused(&server, &ask(&nonce)?, 401, "use_dpop_nonce");
    assert_eq!(world.executed().len(), 3);
    Ok(())
}

fn keys_rotate_in_mid_session(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let ledger = world.ledger()?;
    let mut server = Site::new(world, &idp).http("ledger", &ledger.url).start()?;
    let url = server.resource("ledger");
    let raw = Raw::new()?;
    let id_token = idp.tokens("alice")?["id_token"].as_str().unwrap_or_default().to_owned();
    let first = raw.token(&server, &id_token, &url)?;
    let alice = Person::logged_in(world, "alice", &server, &idp)?;
    let connected = alice.connect("ledger")?;
    let body = call("note", &json!({"text": "still"}));
    let works = |server: &Server, token: &str| -> anyhow::Result<()> {
        let answer = raw.post(&server.resource("ledger"), token, &body)?;
        assert_eq!(answer.status, 200, "{answer:#?}");
        Ok(())
    };
    let session_works = || -> anyhow::Result<()> {
        let (target, note) = (connected.target(), json!({"text": "session"}));
        let seen = Client::TypeScript2.call(world, alice.home(), &target, "note", &note)?;
        assert_eq!(seen.text(), "noted: session");
        Ok(())
    };
    let published = |server: &Server| -> anyhow::Result<Vec<Value>> {
        let about = http::send(http::client().get(format!("{}/.well-known/mcpx", server.url)))?;
        let at = about.json()["jwks_uri"].as_str().unwrap_or_default().to_owned();
        let jwks = http::send(http::client().get(at))?.json();
        Ok(jwks["keys"].as_array().cloned().unwrap_or_default())
    };
    session_works()?;
    assert_eq!(published(&server)?.len(), 1);

    let operator = Person::new(world, "operator")?;
    let config = server.config().display().to_string();
    let rotate = || -> anyhow::Result<Value> {
        let arguments = ["serve", "--config", &config, "--rotate-keys", "--json"];
        Ok(serde_json::from_str(&operator.run(&arguments)?.exits(0).stdout)?)
    };
    let mut tokens = vec![first];
    for round in 1..=2 {
        let told = rotate()?;
        assert_eq!(told["rotated"], true, "{told}");
        assert_ne!(told["key"], told["previous"]);
        tokens.push(raw.token(&server, &id_token, &url)?);
        let (header, _) = parts(tokens.last().unwrap());
        assert_eq!(header["kid"], told["key"], "the new key signs");
        // Every token since the first is good, and the session never ended.
        for token in &tokens {
            works(&server, token)?;
        }
        session_works()?;
        let keys = published(&server)?;
        assert_eq!(keys.len(), round + 1);
        for key in &keys {
            assert!(key["kid"].is_string() && key["d"].is_null() && key["use"] == "sig", "{key}");
        }
        let rotated = server.leaves_of("key_rotated");
        assert_eq!(rotated.len(), round);
        assert_eq!(rotated.last().map(|leaf| &leaf["key"]), Some(&told["key"]));
    }
    // A restart in the overlap, and a request that waits for one.
    server.proc.terminate();
    assert!(server.proc.wait()?.success());
    let told = rotate()?;
    assert_eq!(told["rotated"], false, "{told}");
    server.restart()?;
    crate::support::until("the rotation is made", || {
        Ok((server.leaves_of("key_rotated").len() == 3).then_some(()))
    })?;
    for token in &tokens {
        works(&server, token)?;
    }
    session_works()?;
    // When the overlap is over, so are the old keys.
    server.kill();
    let file = server.data().join("keys/grant.retired.json");
    let mut retired: Value = serde_json::from_str(&std::fs::read_to_string(&file)?)?;
    assert_eq!(retired["retired"].as_array().map(Vec::len), Some(3), "{retired}");
    assert!(!retired.to_string().contains("\"d\""), "a private key was kept: {retired}");
    for row in retired["retired"].as_array_mut().into_iter().flatten() {
        row["until"] = json!(1);
    }
    std::fs::write(&file, retired.to_string())?;
    server.restart()?;
    crate::support::until("the old keys are gone", || {
        Ok((server.leaves_of("key_retired").len() == 3).then_some(()))
    })?;
    assert_eq!(published(&server)?.len(), 1);
    for token in &tokens {
        let answer = raw.post(&url, token, &body)?;
        is_refused(&server, &answer, 401, "token_key_unknown");
    }
    session_works()?;
    server.verify()?.exits(0);
    Ok(())
}

fn wrong_configurations(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let rows = [
        ("client_certificates_from = [\"balancer.example\"]", "balancer.example"),
        ("client_certificates_from = [\"0.0.0.0/0\"]", "everybody"),
        ("dpop_nonce = \"1s\"", "10s"),
        ("dpop_nonce = \"soon\"", "soon"),
    ];
    for (line, named) in rows {
        let config = Site::new(world, &idp).server(line).write()?;
        let output = crate::support::site::serve_refuses(world, &config)?;
        assert_eq!(output.code, 1, "{line}: {output:#?}");
        let told = &output.stderr;
        assert!(told.contains(named) && told.contains("mcpx.toml:"), "{line}: {output:#?}");
    }
    // A request for another key where there is none yet.
    let config = Site::new(world, &idp).data_dir(&world.dir().join("nothing")).write()?;
    let operator = Person::new(world, "operator")?;
    let arguments = ["serve", "--config", &config.display().to_string(), "--rotate-keys"];
    let output = operator.run(&arguments)?;
    assert!(output.code == 1 && output.stderr.contains("no keys yet"), "{output:#?}");
    Ok(())
}
