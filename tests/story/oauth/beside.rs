//! MCP's own OAuth beside what else there is: tokens that are bound to certificates, nonces, grants on
//! a person's yes, and grants that policy takes back.

use std::time::Duration;

use serde_json::json;

use super::{SWITCHED_ON, code, listen};
use crate::grants::LEADS;
use crate::support::oauth::{bearer, bound_to, claims, now, sign};
use crate::support::{Authority, Mutual, Raw, Site, World, raw, until};

crate::stories![
    a_grant_that_is_bound_to_a_certificate_stays_one,
    a_bound_access_token_is_proved_with_a_nonce,
    policy_takes_a_grant_back_and_gives_another,
    what_needs_a_yes_is_not_given_in_passing,
];

fn a_grant_that_is_bound_to_a_certificate_stays_one(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let ledger = world.ledger()?;
    let authority = Authority::new(world)?;
    let server = Site::new(world, &idp)
        .http("ledger", &ledger.url)
        .with("oauth = true")
        .extra(&format!("{SWITCHED_ON}{}", authority.tls))
        .start()?;
    let url = server.resource("ledger");
    let (own, thief) = (Mutual::new(&authority)?, Mutual::new(&authority)?);
    let without = Mutual::without(&authority)?;
    let id_token = idp.tokens("alice")?["id_token"].as_str().unwrap_or_default().to_owned();
    let grant = format!("Bearer {}", own.token(&server, &id_token, &url)?);
    let access = sign(&idp, &claims(&idp, &url, "carol", &["eng"]))?;
    let access = format!("Bearer {access}");
    let bad = raw::call("note", &json!({"text": "bad"}));

    // Both are Bearer, and each is taken by its own rule.
    for (who, token, text) in [(&own, &grant, "granted"), (&without, &access, "logged in")] {
        let body = raw::call("note", &json!({ "text": text }));
        let answer = who.post(&url, &[("authorization", token)], &body)?;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    let place = format!("{}/.well-known/oauth-protected-resource/mcp/ledger", server.url);
    for (who, expected) in [(&thief, "certificate_other"), (&without, "certificate_missing")] {
        let answer = who.post(&url, &[("authorization", &grant)], &bad)?;
        assert_eq!((answer.status, code(&answer.json())), (401, expected), "{answer:?}");
        assert_eq!(server.leaves_of("refused").last().unwrap()["code"], expected);
        let challenge = answer.header("www-authenticate");
        assert!(challenge.starts_with("Bearer ") && challenge.contains(&place), "{challenge}");
    }
    // A certificate is no proof of the key that an access token is bound to.
    let bound = bound_to(claims(&idp, &url, "carol", &["eng"]), &Raw::new()?)?;
    let bound = format!("Bearer {}", sign(&idp, &bound)?);
    let answer = own.post(&url, &[("authorization", &bound)], &bad)?;
    assert_eq!((answer.status, code(&answer.json())), (401, "token_needs_proof"), "{answer:?}");
    // A grant's token that somebody has changed is still none of the provider's.
    let forged = format!("{}AAAA", grant.get(..grant.len() - 4).unwrap_or_default());
    let answer = own.post(&url, &[("authorization", &forged)], &bad)?;
    assert_eq!((answer.status, code(&answer.json())), (401, "token_signature"), "{answer:?}");
    let executed: Vec<_> = world.executed().iter().map(|call| call["text"].clone()).collect();
    assert_eq!(executed, ["granted", "logged in"]);
    server.verify()?.exits(0);
    Ok(())
}

fn a_bound_access_token_is_proved_with_a_nonce(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let ledger = world.ledger()?;
    let server = Site::new(world, &idp)
        .http("ledger", &ledger.url)
        .with("oauth = true")
        .server("dpop_nonce = \"5m\"")
        .extra(SWITCHED_ON)
        .start()?;
    let url = server.resource("ledger");
    let holder = Raw::new()?;
    let token = sign(&idp, &bound_to(claims(&idp, &url, "carol", &["eng"]), &holder)?)?;
    let body = raw::call("note", &json!({"text": "proved"}));
    let answer = holder.post(&url, &token, &body)?;
    assert_eq!((answer.status, code(&answer.json())), (401, "use_dpop_nonce"), "{answer:?}");
    // Nobody has to log in for that, so no place to do so is named.
    let challenges: Vec<_> = answer.headers.get_all("www-authenticate").iter().collect();
    let expected = "DPoP error=\"use_dpop_nonce\", error_description=\"use_dpop_nonce\", \
                    algs=\"EdDSA ES256\"";
    assert_eq!(challenges, [expected]);
    let nonce = answer.header("dpop-nonce").to_owned();
    let with = |nonce: &str| {
        let proof =
            holder.proof("POST", &url, Some(&token), |claims| claims["nonce"] = json!(nonce))?;
        let authorization = format!("DPoP {token}");
        raw::post(&url, &[("authorization", &authorization), ("dpop", &proof)], &body)
    };
    assert_eq!(with(&nonce)?.status, 200);
    assert_eq!(code(&with("another")?.json()), "use_dpop_nonce");
    assert_eq!(world.executed().len(), 1);
    server.verify()?.exits(0);
    Ok(())
}

fn policy_takes_a_grant_back_and_gives_another(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let fixture = world.fixture()?;
    let engineers = r#"@id("eng") permit(principal in Group::"eng", action, resource);"#;
    let mut server = Site::new(world, &idp)
        .http("fixture", &fixture.url)
        .with("oauth = true")
        .policy("eng.cedar", engineers)
        .extra(SWITCHED_ON)
        .start()?;
    let url = server.resource("fixture");
    let begun = now();
    let token = |iat: u64, groups: &[&str]| {
        let mut given = claims(&idp, &url, "carol", groups);
        given["iat"] = json!(iat);
        sign(&idp, &given)
    };
    let ping = raw::call("test_simple_text", &json!({}));
    let first = token(begun - 20, &["eng"])?;
    let mut stream = listen(&url, &first)?;
    // An older token says nothing of what holds now.
    let older = bearer(&url, &token(begun - 30, &["visitors"])?, &ping)?;
    assert_eq!((older.status, code(&older.json())), (403, "policy_denied"), "{older:?}");
    assert_eq!(bearer(&url, &first, &ping)?.status, 200);
    assert!(server.leaves_of("grant_ended").is_empty());

    // A newer one does: she is no engineer any more.
    let newer = bearer(&url, &token(begun - 10, &["visitors"])?, &ping)?;
    assert_eq!((newer.status, code(&newer.json())), (403, "policy_denied"), "{newer:?}");
    assert_eq!(code(&stream.rest()?.last().unwrap().json()), "grant_revoked");
    let ended = server.leaves_of("grant_ended");
    assert_eq!((ended.len(), &ended[0]["code"]), (1, &json!("policy_denied")), "{ended:?}");
    let enforced =
        until("the end is measured", || Ok(server.leaves_of("revocation_enforced").pop()))?;
    assert!(enforced["streams"] == 1 && enforced.get("left").is_none(), "{enforced}");
    for _ in 0..2 {
        let answer = bearer(&url, &first, &ping)?;
        assert_eq!((answer.status, code(&answer.json())), (401, "grant_revoked"), "{answer:?}");
        server.restart()?;
    }
    // Nobody revoked anything: what policy gives again, a refreshed token gets.
    std::thread::sleep(Duration::from_millis(1100));
    let again = token(now(), &["eng"])?;
    assert_eq!(bearer(&url, &again, &ping)?.status, 200);
    assert_eq!(code(&bearer(&url, &first, &ping)?.json()), "grant_revoked");
    assert_eq!(server.leaves_of("grant_issued").len(), 2);
    server.verify()?.exits(0);
    Ok(())
}

fn what_needs_a_yes_is_not_given_in_passing(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let ledger = world.ledger()?;
    let server = Site::new(world, &idp)
        .http("ledger", &ledger.url)
        .with("oauth = true")
        .policy("leads.cedar", LEADS)
        .extra(SWITCHED_ON)
        .start()?;
    let url = server.resource("ledger");
    let token = sign(&idp, &claims(&idp, &url, "carol", &["eng"]))?;
    let answer = bearer(&url, &token, &raw::call("note", &json!({"text": "bad"})))?;
    let told = answer.json();
    assert_eq!((answer.status, code(&told)), (403, "needs_approval"), "{answer:?}");
    assert!(answer.header("www-authenticate").is_empty(), "a login gives no yes: {answer:?}");
    let message = told["error"]["message"].as_str().unwrap_or_default();
    for word in ["leads", "mcpx request ledger --reason", "mcpx connect ledger"] {
        assert!(message.contains(word), "{word}: {message}");
    }
    assert_eq!(told["error"]["data"]["mcpx"]["rules"], json!(["the-ledger-needs-a-lead"]));
    let refused = server.leaves_of("refused");
    assert_eq!(refused.last().unwrap()["code"], "needs_approval");
    assert!(refused.last().unwrap()["subject"].is_string(), "{refused:?}");
    assert!(server.leaves_of("grant_issued").is_empty() && world.executed().is_empty());
    server.verify()?.exits(0);
    Ok(())
}
