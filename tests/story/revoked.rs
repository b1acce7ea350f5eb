//! What ends grants before their time: somebody's word, other policies, a lost group, a closed account.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::grants::{LEADS, Oneself, asked, code, endless, ends, grants, site};
use crate::support::{Client, Person, Site, World, http, until};

crate::stories![
    a_yes_under_other_policies,
    revoking_cuts_what_runs,
    revoking_takes_back_what_was_not_used,
    a_lost_group_ends_a_grant,
    somebody_who_left_is_out,
];

fn a_yes_under_other_policies(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let ledger = world.ledger()?;
    let mut server = site(world, &idp, &ledger.url).start()?;
    let carol = Person::logged_in(world, "carol", &server, &idp)?;
    let bob = Person::logged_in(world, "bob", &server, &idp)?;
    let hers = Oneself::new(&server, &idp, "carol", "ledger")?;
    let used = asked(&carol.run(&["request", "ledger", "--reason", "one"])?.exits(0));
    bob.run(&["approve", &used, "--yes"])?.exits(0);
    let token = hers.token(&server)?;
    let unused = asked(&carol.run(&["request", "ledger", "--reason", "two"])?.exits(0));
    bob.run(&["approve", &unused, "--yes"])?.exits(0);
    world.write("server/policies/leads.cedar", &LEADS.replace("1h", "30m"))?;
    server.restart()?;
    carol.run(&["connect", "ledger", "--wait", "0s"])?.exits(5);
    let moved = Oneself { url: server.resource("ledger"), ..hers };
    let more = [("mcpx_grant", &*token)];
    let renewed = moved.raw.exchange_with(&server, &moved.id_token, &moved.url, &more)?;
    // The port stays, so the token is for this server still.
    assert_eq!(renewed.json()["mcpx_code"], "needs_approval", "{renewed:?}");
    let ended = &server.leaves_of("grant_ended")[0];
    assert_eq!(ended["code"], "needs_approval", "{ended:#}");
    let refused = http::send(moved.call(&token, "note")?)?;
    assert_eq!(code(&refused.json()), "grant_revoked", "{refused:?}");
    server.verify()?.exits(0);
    Ok(())
}

fn revoking_cuts_what_runs(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let endless = endless()?;
    let server = Site::new(world, &idp).http("one", &endless).http("two", &endless).start()?;
    let alice = Person::logged_in(world, "alice", &server, &idp)?;
    let person = Person::logged_in(world, "carol", &server, &idp)?;
    let carol_id = {
        let hers = Oneself::new(&server, &idp, "carol", "one")?;
        hers.token(&server)?;
        server.leaves_of("grant_issued")[0]["subject"].as_str().unwrap_or_default().to_owned()
    };
    for (revoke, cut, spared) in [
        (&["--subject", "carol@example.test"][..], "one", None),
        (&["--subject", &carol_id], "two", None),
        (&["--connection", "one"], "one", Some("two")),
        (&["--all-of", "eng"], "two", None),
    ] {
        let carol = Oneself::new(&server, &idp, "carol", cut)?;
        let token = carol.token(&server)?;
        let streams = [carol.stream(&token)?, carol.stream(&token)?];
        let spared = match spared {
            None => None,
            Some(connection) => {
                let other = Oneself::new(&server, &idp, "carol", connection)?;
                let token = other.token(&server)?;
                let stream = other.stream(&token)?;
                Some((other, token, stream))
            }
        };
        let before = server.leaves_of("revocation_enforced").len();
        // Who is no operator may not.
        person.run(&[&["revoke"][..], revoke].concat()).map(|output| {
            let own = revoke[0] == "--subject";
            assert_eq!(output.code, if own { 0 } else { 3 }, "{revoke:?}: {output:#?}");
        })?;
        if revoke[0] != "--subject" {
            let more = ["revoke", revoke[0], revoke[1], "--reason", "an incident"];
            let told = alice.run(&more)?.exits(0);
            assert!(told.stderr.contains("was cut in"), "{told:#?}");
        }
        for stream in streams {
            let (ended, took) = ends(stream)?;
            assert_eq!(ended, "grant_revoked", "{revoke:?}");
            assert!(took < Duration::from_secs(2), "{revoke:?}: cut after {took:?}");
        }
        let refused = http::send(carol.call(&token, "note")?)?;
        assert_eq!((refused.status, code(&refused.json())), (401, "grant_revoked"), "{refused:?}");
        if let Some((other, token, stream)) = spared {
            other.stream(&token)?;
            drop(stream);
        }
        let enforced = server.leaves_of("revocation_enforced").split_off(before);
        let measured = enforced.iter().find(|leaf| leaf["streams"] == 2).expect("on record");
        assert!(measured["millis"].as_u64().is_some_and(|millis| millis < 2000), "{measured:#}");
        assert!(measured.get("left").is_none(), "{measured:#}");
    }
    // Others' are not hers to end, by whatever name.
    let alices = Oneself::new(&server, &idp, "alice", "one")?;
    let token = alices.token(&server)?;
    let grant = server.leaves_of("grant_issued").pop().unwrap_or_default();
    let grant = grant["grant"].as_str().unwrap_or_default();
    person.run(&["revoke", "--subject", "alice@example.test"])?.exits(3);
    person.run(&["revoke", "--subject", "nobody@example.test"])?.exits(3);
    assert_ne!(person.run(&["revoke", "--grant", grant])?.code, 0);
    alices.stream(&token)?;
    // A client that reads nothing is cut like every other.
    let deaf = alices.stream(&token)?;
    alice.run(&["revoke", "--grant", grant])?.exits(0).says("was cut in");
    drop(deaf);
    let reasons = server.leaves_of("grant_revoked");
    assert!(reasons.len() >= 5, "{reasons:#?}");
    server.verify()?.exits(0);
    Ok(())
}

fn revoking_takes_back_what_was_not_used(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let ledger = world.ledger()?;
    let server = site(world, &idp, &ledger.url).http("other", &ledger.url).start()?;
    let alice = Person::logged_in(world, "alice", &server, &idp)?;
    let carol = Person::logged_in(world, "carol", &server, &idp)?;
    let bob = Person::logged_in(world, "bob", &server, &idp)?;
    for (spared, revoke) in [
        (false, ["--subject", "carol@example.test"]),
        (false, ["--connection", "ledger"]),
        (false, ["--all-of", "eng"]),
        (true, ["--connection", "other"]),
    ] {
        let why = format!("before {}", revoke[0]);
        let id = asked(&carol.run(&["request", "ledger", "--reason", &why])?.exits(0));
        bob.run(&["approve", &id, "--yes"])?.exits(0);
        alice.run(&[&["revoke"][..], &revoke].concat())?.exits(0);
        let hers = Oneself::new(&server, &idp, "carol", "ledger")?;
        let answer = hers.exchange(&server)?;
        assert_eq!(answer.status == 200, spared, "{revoke:?}: {answer:?}");
        let expired = server.leaves_of("approval_expired");
        let on_record = expired.iter().any(|leaf| leaf["approval"] == json!(id));
        assert_eq!(on_record, !spared, "{revoke:?}: {expired:#?}");
    }
    server.verify()?.exits(0);
    Ok(())
}

fn a_lost_group_ends_a_grant(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let server = Site::new(world, &idp).http("one", &endless()?).start()?;
    let carol = Oneself::new(&server, &idp, "carol", "one")?;
    let token = carol.token(&server)?;
    let stream = carol.stream(&token)?;
    idp.set("groups/carol/")?;
    // As a broker renews: with what the provider says of her now.
    let without = idp.tokens("carol")?["id_token"].as_str().unwrap_or_default().to_owned();
    let more = [("mcpx_grant", &*token)];
    let renewed = carol.raw.exchange_with(&server, &without, &carol.url, &more)?;
    assert_eq!(renewed.json()["mcpx_code"], "policy_denied", "{renewed:?}");
    let (ended, took) = ends(stream)?;
    assert_eq!(ended, "grant_revoked");
    assert!(took < Duration::from_secs(2), "cut after {took:?}");
    // Her old token is worth nothing either, though its time is not up.
    let refused = http::send(carol.call(&token, "note")?)?;
    assert_eq!((refused.status, code(&refused.json())), (401, "grant_revoked"), "{refused:?}");
    let ended = &server.leaves_of("grant_ended")[0];
    assert_eq!(ended["code"], "policy_denied", "{ended:#}");
    assert_eq!(server.leaves_of("revocation_enforced")[0]["streams"], 1);
    server.verify()?.exits(0);
    Ok(())
}

fn somebody_who_left_is_out(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let ledger = world.ledger()?;
    let server = Site::new(world, &idp).http("ledger", &ledger.url).grant_ttl("6s").start()?;
    let carol = Person::logged_in(world, "carol", &server, &idp)?;
    let alice = Person::logged_in(world, "alice", &server, &idp)?;
    let connected = carol.connect("ledger")?;
    until("it is renewed", || Ok((!server.leaves_of("grant_renewed").is_empty()).then_some(())))?;
    idp.remove("carol")?;
    let left = Instant::now();
    until("her grant is over", || {
        let live = grants(&alice)?;
        Ok(live.iter().all(|grant| grant["state"] == "ended").then_some(()))
    })?;
    assert!(left.elapsed() < Duration::from_secs(20), "{:?}", left.elapsed());
    let text = json!({"text": "too late"});
    let call = Client::PythonLegacy.call(world, carol.home(), &connected.target(), "note", &text);
    assert!(call.is_err(), "{call:#?}");
    assert!(world.executed().is_empty());
    Ok(())
}
