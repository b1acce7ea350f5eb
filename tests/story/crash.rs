//! The server is killed with `kill -9` at the worst moments.

use std::collections::BTreeSet;

use serde_json::json;

use crate::support::{Client, Person, Site, World, ids, until};

crate::stories![
    killed_while_a_call_is_under_way,
    killed_while_a_call_of_a_child_is_under_way,
    killed_again_and_again_under_load,
    killed_while_somebody_waits_for_approval,
];

fn killed_while_a_call_is_under_way(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let ledger = world.ledger()?;
    lost_call(world, &idp, Site::new(world, &idp).http("ledger", &ledger.url))
}

fn killed_while_a_call_of_a_child_is_under_way(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let command = world.ledger_stdio()?;
    lost_call(world, &idp, Site::new(world, &idp).stdio("ledger", &command))
}

fn lost_call(world: &World, idp: &crate::support::Idp, site: Site) -> anyhow::Result<()> {
    let mut server = site.start()?;
    let alice = Person::logged_in(world, "alice", &server, idp)?;
    let connected = alice.connect("ledger")?;
    let arguments = json!({"text": "lost", "seconds": 600});
    let call =
        Client::TypeScript1.start(world, alice.home(), &connected.target(), "slow", &arguments)?;
    until("the upstream executes the call", || Ok((!world.executed().is_empty()).then_some(())))?;
    server.kill();
    // The client is told; it does not wait for ten minutes.
    let told = call.finish();
    assert!(told.as_ref().map_or(true, |seen| seen.is_error()), "{told:#?}");

    server.restart()?;
    server.verify()?.exits(0);
    let calls = server.leaves_of("call");
    let slow: Vec<_> = calls
        .iter()
        .filter(|leaf| leaf["method"] == "tools/call" && leaf["forwarded"] == true)
        .collect();
    assert_eq!(slow.len(), 1, "{calls:#?}");
    let orphaned = server.leaves_of("orphaned");
    assert!(
        orphaned.iter().any(|leaf| leaf["call"] == slow[0]["call"]),
        "{} is not among the orphaned: {orphaned:#?}",
        slow[0]
    );
    let sessions = alice.run(&["sessions", "--json"])?.exits(0);
    let replayed: Vec<_> = ids(&sessions.stdout, "ses_")
        .iter()
        .map(|session| Ok(alice.run(&["replay", session, "--json"])?.exits(0).stdout))
        .collect::<anyhow::Result<_>>()?;
    assert!(replayed.iter().any(|replay| replay.contains("orphaned")), "{replayed:#?}");

    // Work goes on, and a second start finds nothing new to report.
    let seen = alice.call(Client::TypeScript1, "ledger", "note", &json!({"text": "after"}))?;
    assert_eq!(seen.text(), "noted: after");
    server.restart()?;
    server.verify()?.exits(0);
    let again = server.leaves_of("orphaned");
    let once: BTreeSet<_> = again.iter().map(|leaf| leaf["call"].to_string()).collect();
    assert_eq!(once.len(), again.len(), "a call is orphaned twice: {again:#?}");
    Ok(())
}

fn killed_again_and_again_under_load(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let ledger = world.ledger()?;
    let mut server = Site::new(world, &idp).http("ledger", &ledger.url).start()?;
    let alice = Person::logged_in(world, "alice", &server, &idp)?;
    for round in 0..4usize {
        let connected = alice.connect("ledger")?;
        let calls = (0..3)
            .map(|number| {
                let arguments = json!({"text": format!("round {round} number {number}")});
                let target = connected.target();
                Client::TypeScript1.start(world, alice.home(), &target, "note", &arguments)
            })
            .collect::<Result<Vec<_>, _>>()?;
        // Somewhere between the first call's arrival and the last one's answer.
        until("calls arrive", || Ok((world.executed().len() > round).then_some(())))?;
        server.kill();
        drop(calls);
        drop(connected);
        server.restart()?;
        server.verify()?.exits(0);
    }
    // Whatever was executed had been recorded before: no call happened that the log does not know.
    let executed = world.executed().len();
    let forwarded = server
        .leaves_of("call")
        .iter()
        .filter(|leaf| leaf["method"] == "tools/call" && leaf["forwarded"] == true)
        .count();
    assert!(executed <= forwarded, "{executed} calls executed, {forwarded} recorded");
    // And every forwarded call has an end: an answer, or the word that it was lost.
    let ended: BTreeSet<_> = server
        .leaves()
        .iter()
        .filter(|leaf| {
            leaf["kind"] == "orphaned" || (leaf["kind"] == "response" && leaf["last"] == true)
        })
        .map(|leaf| leaf["call"].to_string())
        .collect();
    for call in server.leaves_of("call") {
        let waits = call["shape"] == "request" && call["forwarded"] == true;
        assert!(!waits || ended.contains(&call["call"].to_string()), "no end of {call}");
    }
    Ok(())
}

fn killed_while_somebody_waits_for_approval(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let ledger = world.ledger()?;
    let mut server = Site::new(world, &idp)
        .policy("transfers.cedar", crate::support::site::TRANSFERS)
        .http("ledger", &ledger.url)
        .start()?;
    let alice = Person::logged_in(world, "alice", &server, &idp)?;
    let bob = Person::logged_in(world, "bob", &server, &idp)?;
    let connected = alice.connect("ledger")?;
    let arguments = json!({"amount": 10, "to": "ACME"});
    let target = connected.target();
    let call = Client::TypeScript1.start(world, alice.home(), &target, "transfer", &arguments)?;
    let listed = || Ok(ids(&bob.run(&["approve", "--json"])?.stdout, "apr_").pop());
    let id = until("there is something to approve", listed)?;
    server.kill();
    drop(call);
    server.restart()?;
    assert!(world.executed().is_empty());
    // The request for approval outlived the server; the call passes once.
    bob.run(&["approve", &id])?.exits(0);
    let seen = alice.call(Client::TypeScript1, "ledger", "transfer", &arguments)?;
    assert!(!seen.is_error(), "{seen:#?}");
    assert_eq!(world.executed().len(), 1);
    server.verify()?.exits(0);
    Ok(())
}
