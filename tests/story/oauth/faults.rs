//! Every fault that an access token can have, at the MCP endpoint: each is refused with its own
//! reason and on record, and none of them breaks anything.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::support::oauth::{bearer, bound_to, claims, now, sign, sign_as};
use crate::support::site::Server;
use crate::support::{Idp, Raw, Site, World, raw};

use super::SWITCHED_ON;

crate::stories![every_fault_of_a_token_is_refused, a_token_of_one_kind_is_not_taken_for_another];

/// A fault, its token, and what is said of it: the code, and a word of the sentence.
type Row = (String, String, &'static str, &'static str);

fn every_fault_of_a_token_is_refused(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let stranger = world.idp()?;
    let ledger = world.ledger()?;
    let server = Site::new(world, &idp)
        .http("ledger", &ledger.url)
        .with("oauth = true")
        .http("other", &ledger.url)
        .with("oauth = true")
        .extra(&format!("{SWITCHED_ON}token_life = \"10m\"\n"))
        .start()?;
    let url = server.resource("ledger");
    let good = || claims(&idp, &url, "alice", &["eng"]);
    let body = raw::call("note", &json!({"text": "bad"}));

    let mut rows = faults_of_claims(&idp, &server, &good)?;
    rows.extend(faults_of_signatures(&idp, &stranger, &good)?);
    rows.extend(faults_of_form(&idp, &good)?);
    let mut told = BTreeSet::new();
    for (what, token, code, word) in &rows {
        let answer = bearer(&url, token, &body)?;
        assert_eq!(answer.status, 401, "{what}: {answer:?}");
        let error = &answer.json()["error"];
        assert_eq!(error["data"]["mcpx"]["code"], *code, "{what}: {error}");
        let message = error["message"].as_str().unwrap_or_default();
        assert!(message.contains(word), "{what}: {message}");
        told.insert(message.to_owned());
        let challenge = answer.header("www-authenticate");
        assert!(challenge.starts_with("Bearer error=\"invalid_token\""), "{what}: {challenge}");
    }
    // Each of them is on record, once and in order.
    let leaves = server.leaves_of("refused");
    let recorded: Vec<_> = leaves.iter().filter_map(|leaf| leaf["code"].as_str()).collect();
    assert_eq!(recorded, rows.iter().map(|(_, _, code, _)| *code).collect::<Vec<_>>());
    assert!(rows.len() > 100 && told.len() > 60, "{} faults, but {told:#?}", rows.len());

    // A megabyte is longer than any request's head may be, and is refused before there is a request.
    let huge = format!("{}.{}.x", "a".repeat(500_000), "b".repeat(500_000));
    match bearer(&url, &huge, &body) {
        Ok(answer) => assert_eq!(answer.status, 431, "{answer:?}"),
        // It may be cut off while it still sends.
        Err(error) => println!("a megabyte: {error:#}"),
    }
    let last = crate::support::until("the megabyte is on record", || {
        Ok(server.leaves_of("refused").pop().filter(|leaf| leaf["code"] == "head_too_large"))
    })?;
    assert_eq!(last["stage"], "limit");

    // The same with nothing wrong.
    let answer = bearer(&url, &sign(&idp, &good())?, &raw::call("note", &json!({"text": "good"})))?;
    assert_eq!(answer.status, 200, "{answer:?}");
    let executed: Vec<_> = world.executed().iter().map(|call| call["text"].clone()).collect();
    assert_eq!(executed, ["good"], "a refused token reached the upstream");
    server.verify()?.exits(0);
    Ok(())
}

fn faults_of_claims(
    idp: &Idp,
    server: &Server,
    good: &dyn Fn() -> Value,
) -> anyhow::Result<Vec<Row>> {
    let mut rows = vec![];
    let mut add = |what: String, claims: &Value, code, word| -> anyhow::Result<()> {
        rows.push((what, sign(idp, claims)?, code, word));
        Ok(())
    };
    for name in ["iss", "aud", "sub", "exp", "iat", "client_id", "jti"] {
        let mut claims = good();
        claims.as_object_mut().unwrap().remove(name);
        add(format!("no {name}"), &claims, "token_claim", name)?;
        claims[name] = Value::Null;
        add(format!("{name} is null"), &claims, "token_claim", "is missing")?;
        for wrong in [json!({"a": 1}), json!(true)] {
            claims[name] = wrong;
            add(format!("{name}: {}", claims[name]), &claims, "token_claim", "is not a")?;
        }
    }
    for name in ["iss", "sub", "client_id", "jti"] {
        let mut claims = good();
        claims[name] = json!(7);
        add(format!("{name} is a number"), &claims, "token_claim", "is not a text")?;
        claims[name] = json!("");
        add(format!("{name} is empty"), &claims, "token_claim", "is empty")?;
        claims[name] = json!("x".repeat(600));
        add(format!("{name} is long"), &claims, "token_claim", "is too long")?;
        claims[name] = json!("a\u{7}b");
        add(format!("{name} rings"), &claims, "token_claim", "is not printable")?;
    }
    for name in ["exp", "iat", "nbf", "auth_time"] {
        let mut claims = good();
        claims[name] = json!("tomorrow");
        add(format!("{name} is a text"), &claims, "token_claim", "is not a time")?;
        claims[name] = json!(1e300);
        add(format!("{name} is beyond all time"), &claims, "token_claim", "is not a time")?;
    }
    let with = |name: &str, value: Value| {
        let mut claims = good();
        claims[name] = value;
        claims
    };
    let url = server.resource("ledger");
    let now = now();
    let others = [
        ("another connection", json!(server.resource("other"))),
        ("the server", json!(server.url)),
        ("a slash more", json!(format!("{url}/"))),
        ("other letters", json!(url.to_uppercase())),
        ("the client", json!("mcpx-cli")),
        ("the API", json!(format!("{}/api", server.url))),
        ("one other, in a list", json!(["elsewhere"])),
    ];
    for (what, aud) in others {
        add(format!("for {what}"), &with("aud", aud), "wrong_audience", "another audience")?;
    }
    let aud = |aud: Value| with("aud", aud);
    add("for several".into(), &aud(json!([url, "elsewhere"])), "token_claim", "several audiences")?;
    add("for nobody".into(), &aud(json!([])), "token_claim", "aud is empty")?;
    add("for a number".into(), &aud(json!([1])), "token_claim", "aud is not a text")?;
    add("of yesterday".into(), &with("exp", json!(now - 86_400)), "token_expired", "expired")?;
    add("of this second".into(), &with("exp", json!(now)), "token_expired", "expired")?;
    let mut old = with("iat", json!(now - 3600));
    old["exp"] = json!(now + 3600);
    add("too long a life".into(), &old, "token_claim", "iat is longer ago")?;
    let future = json!(now + 300);
    add("of the future".into(), &with("iat", future.clone()), "token_not_yet_valid", "only")?;
    add("not yet".into(), &with("nbf", future), "token_not_yet_valid", "only")?;
    add("slash".into(), &with("iss", json!(format!("{}/", idp.url))), "unknown_issuer", "trusts")?;
    add(
        "a stranger".into(),
        &with("iss", json!("https://evil.example")),
        "unknown_issuer",
        "evil",
    )?;
    add("groups of numbers".into(), &with("groups", json!([1])), "token_malformed", "a group is")?;
    add("groups: object".into(), &with("groups", json!({"a": 1})), "token_malformed", "neither")?;
    let mut overage = with("_claim_names", json!({"groups": "src1"}));
    overage.as_object_mut().unwrap().remove("groups");
    add("groups elsewhere".into(), &overage, "groups_left_out", "left this user's groups out")?;
    add("a list of scopes".into(), &with("scope", json!(["mcp"])), "token_claim", "scope is not")?;
    add("cnf is a text".into(), &with("cnf", json!("x")), "token_claim", "cnf is not an object")?;
    let certificate =
        with("cnf", json!({"x5t#S256": "bwcK0esc3ACC3DB2Y5_lESsXE8o9ltc05O89jdN-dg2"}));
    add("bound to a certificate".into(), &certificate, "token_claim", "not checked here")?;
    add("cnf is empty".into(), &with("cnf", json!({})), "token_claim", "not checked here")?;
    add("half a key".into(), &with("cnf", json!({"jkt": "abc"})), "token_claim", "no thumbprint")?;
    add("no key".into(), &with("cnf", json!({"jkt": 1})), "token_claim", "no thumbprint")?;
    Ok(rows)
}

fn faults_of_signatures(
    idp: &Idp,
    stranger: &Idp,
    good: &dyn Fn() -> Value,
) -> anyhow::Result<Vec<Row>> {
    let at = json!({"typ": "at+jwt"});
    let with = |name: &str, value: Value| {
        let mut header = at.clone();
        header[name] = value;
        header
    };
    let row = |what: &str, token: String, code, word| (what.to_owned(), token, code, word);
    let mut rows = vec![
        row(
            "a stranger's key under the provider's kid",
            sign_as(idp, &good(), &with("alg", json!("ES256")), "other")?,
            "token_signature",
            "signature is wrong",
        ),
        row(
            "a key of another kind",
            sign_as(idp, &good(), &with("alg", json!("RS256")), "rsa")?,
            "token_key_unknown",
            "does not publish",
        ),
        row(
            "the public key as a secret",
            sign_as(idp, &good(), &at, "public")?,
            "token_algorithm",
            "HS256",
        ),
        row("signed by another provider", sign(stranger, &good())?, "token_key_unknown", "publish"),
        row(
            "a kid that nobody has",
            sign_as(idp, &good(), &with("kid", json!("k99")), "own")?,
            "token_key_unknown",
            "k99",
        ),
        row(
            "an identity token's type",
            sign_as(idp, &good(), &json!({"typ": "JWT"}), "own")?,
            "token_type",
            "JWT",
        ),
        row("no type", sign_as(idp, &good(), &json!({}), "own")?, "token_type", "at+jwt"),
        row(
            "a proof's type",
            sign_as(idp, &good(), &json!({"typ": "dpop+jwt"}), "own")?,
            "token_type",
            "dpop+jwt",
        ),
    ];
    let genuine = sign(idp, &good())?;
    let (_, payload_and_signature) = genuine.split_once('.').unwrap();
    let (payload, signature) = payload_and_signature.split_once('.').unwrap();
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let head = |alg: &str| encode(&json!({"typ": "at+jwt", "alg": alg}));
    for alg in ["none", "None", "", "ES999", "HS256", "ES384", "PS256"] {
        rows.push((
            format!("alg {alg:?}"),
            format!("{}.{payload}.{signature}", head(alg)),
            "token_algorithm",
            "is not accepted",
        ));
    }
    rows.push(row("unsigned", format!("{}.{payload}.", head("none")), "token_algorithm", "none"));
    let crit = encode(&json!({"typ": "at+jwt", "alg": "ES256", "crit": ["exp"], "exp": 1}));
    rows.push(row(
        "critical",
        format!("{crit}.{payload}.{signature}"),
        "token_malformed",
        "critical",
    ));
    let mut others = good();
    others["sub"] = json!("mallory");
    let (own_head, _) = genuine.split_once('.').unwrap();
    let swapped = format!("{own_head}.{}.{signature}", encode(&others));
    rows.push(row("other claims under the signature", swapped, "token_signature", "wrong"));
    rows.push(row("no signature", format!("{own_head}.{payload}."), "token_signature", "wrong"));
    let half = signature.get(..40).unwrap_or_default();
    let cut = format!("{own_head}.{payload}.{half}");
    rows.push(row("half a signature", cut, "token_signature", "wrong"));
    Ok(rows)
}

fn faults_of_form(idp: &Idp, good: &dyn Fn() -> Value) -> anyhow::Result<Vec<Row>> {
    let genuine = sign(idp, &good())?;
    let parts: Vec<_> = genuine.split('.').collect();
    let [head, payload, signature] = parts.as_slice() else { panic!("{genuine}") };
    let not_json = URL_SAFE_NO_PAD.encode("not json");
    let list = URL_SAFE_NO_PAD.encode("[1]");
    let shapes = [
        ("a word", "token".to_owned(), "no parts"),
        ("dots", "..".to_owned(), "EOF"),
        ("two parts", format!("{head}.{payload}"), "malformed"),
        ("four parts", format!("{genuine}.{signature}"), "more than three parts"),
        ("five parts", "a.b.c.d.e".to_owned(), "more than three parts"),
        ("no head", format!(".{payload}.{signature}"), "EOF"),
        ("no claims", format!("{head}..{signature}"), "EOF"),
        ("truncated", genuine.get(..genuine.len() / 3).unwrap_or_default().to_owned(), "malformed"),
        ("not base64", format!("{head}.%%%.{signature}"), "not base64url"),
        ("claims are no JSON", format!("{head}.{not_json}.{signature}"), "malformed"),
        ("claims are a list", format!("{head}.{list}.{signature}"), "malformed"),
        ("head is no JSON", format!("{not_json}.{payload}.{signature}"), "malformed"),
        ("100 KB", format!("{head}.{}.{signature}", "A".repeat(100_000)), "too long"),
    ];
    let rows = shapes.map(|(what, token, word)| (what.to_owned(), token, "token_malformed", word));
    Ok(rows.into())
}

fn a_token_of_one_kind_is_not_taken_for_another(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let ledger = world.ledger()?;
    let server = Site::new(world, &idp)
        .http("ledger", &ledger.url)
        .with("oauth = true")
        .http("other", &ledger.url)
        .extra(SWITCHED_ON)
        .start()?;
    let (url, other) = (server.resource("ledger"), server.resource("other"));
    let (holder, thief) = (Raw::new()?, Raw::new()?);
    let body = raw::call("note", &json!({"text": "bad"}));
    let refused = |what: &str, answer: &crate::support::http::Answer, code: &str| {
        assert_eq!(answer.status, 401, "{what}: {answer:?}");
        assert_eq!(answer.json()["error"]["data"]["mcpx"]["code"], code, "{what}: {answer:?}");
        assert_eq!(server.leaves_of("refused").last().unwrap()["code"], code, "{what}");
    };

    // A grant token of ours is bound to a key, and the key has to be proved.
    let id_token = idp.tokens("alice")?["id_token"].as_str().unwrap_or_default().to_owned();
    let grant = holder.token(&server, &id_token, &url)?;
    refused("a grant token as Bearer", &bearer(&url, &grant, &body)?, "token_needs_proof");
    refused("an identity token as Bearer", &bearer(&url, &id_token, &body)?, "token_type");

    // An access token that is bound to nobody is Bearer, and nothing else.
    let loose = sign(&idp, &claims(&idp, &url, "alice", &["eng"]))?;
    refused("an unbound token as DPoP", &holder.post(&url, &loose, &body)?, "token_not_bound");

    // One that is bound to a key has to be proved, by that key, for this request, once.
    let bound = bound_to(claims(&idp, &url, "alice", &["eng"]), &holder)?;
    let bound = sign(&idp, &bound)?;
    refused("a bound token as Bearer", &bearer(&url, &bound, &body)?, "token_needs_proof");
    let authorization = format!("DPoP {bound}");
    let only = [("authorization", &*authorization)];
    refused("a bound token without proof", &raw::post(&url, &only, &body)?, "dpop_malformed");
    refused("a stolen bound token", &thief.post(&url, &bound, &body)?, "dpop_other_key");
    let proof = holder.proof("POST", &other, Some(&bound), |_| ())?;
    let headers = [("authorization", &*authorization), ("dpop", &*proof)];
    refused("for another URL", &raw::post(&url, &headers, &body)?, "dpop_other_request");
    assert!(server.leaves_of("grant_issued").len() == 1, "a refused token opened a grant");
    let proof = holder.proof("POST", &url, Some(&bound), |_| ())?;
    let headers = [("authorization", &*authorization), ("dpop", &*proof)];
    let note = raw::call("note", &json!({"text": "bound"}));
    assert_eq!(raw::post(&url, &headers, &note)?.status, 200);
    refused("a proof used twice", &raw::post(&url, &headers, &note)?, "dpop_replayed");

    // Where it is off, an access token is nothing, and nobody is told of a place to get one.
    let elsewhere = sign(&idp, &claims(&idp, &other, "alice", &["eng"]))?;
    let answer = bearer(&other, &elsewhere, &body)?;
    refused("a connection without", &answer, "token_key_unknown");
    let challenges = answer.headers.get_all("www-authenticate");
    assert!(challenges.iter().all(|one| one.as_bytes().starts_with(b"DPoP ")), "{answer:?}");
    let refresh = idp.tokens("alice")?["access_token"].as_str().unwrap_or_default().to_owned();
    refused("the login's own access token", &bearer(&url, &refresh, &body)?, "token_malformed");

    // A broker's grant works beside all that.
    let good = raw::call("note", &json!({"text": "granted"}));
    assert_eq!(holder.post(&url, &grant, &good)?.status, 200);
    let executed: Vec<_> = world.executed().iter().map(|call| call["text"].clone()).collect();
    assert_eq!(executed, ["bound", "granted"]);
    server.verify()?.exits(0);
    Ok(())
}
