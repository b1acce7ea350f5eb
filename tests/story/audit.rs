//! Somebody tampers with the log, revokes a grant, or reads what they may not.

use std::fs;

use serde_json::json;

use crate::support::site::files;
use crate::support::{Client, Person, Server, Site, World, ids, until};

crate::stories![
    one_byte_changed_anywhere,
    the_end_of_the_log_cut_off,
    a_revoked_grant_ends_what_is_under_way,
    only_auditors_read_what_others_did,
    an_orderly_stop,
    an_orderly_stop_of_running_calls,
];

/// A log with some calls in it, whose server has stopped.
fn written<'a>(world: &'a World) -> anyhow::Result<Server<'a>> {
    let idp = world.idp()?;
    let ledger = world.ledger()?;
    let mut server = Site::new(world, &idp).http("ledger", &ledger.url).start()?;
    let alice = Person::logged_in(world, "alice", &server, &idp)?;
    for number in 0..3 {
        let arguments = json!({"text": format!("number {number}")});
        alice.call(Client::TypeScript2, "ledger", "note", &arguments)?;
    }
    server.proc.terminate();
    server.proc.wait()?;
    server.verify()?.exits(0);
    Ok(server)
}

fn one_byte_changed_anywhere(world: &World) -> anyhow::Result<()> {
    let server = written(world)?;
    let leaves = server.leaves();
    let responses = leaves.iter().filter(|leaf| leaf["kind"] == "response").count();
    assert!(responses >= 3, "{leaves:#?}");
    // Every file in which a leaf lies as text, changed in the middle of that leaf.
    let mut changed = 0;
    for file in files(server.data()) {
        let bytes = fs::read(&file)?;
        let Some(at) = memchr::memmem::find(&bytes, b"\"kind\":\"response\"") else { continue };
        let mut tampered = bytes.clone();
        tampered[at + 8] ^= 1;
        fs::write(&file, &tampered)?;
        let output = server.verify()?;
        // A copy that can be rebuilt (a database index) does not matter to the log.
        if output.code != 0 {
            assert_eq!(output.code, 8, "{}: {output:#?}", file.display());
            changed += 1;
        }
        fs::write(&file, &bytes)?;
        server.verify()?.exits(0);
    }
    assert!(changed > 0, "nothing that was changed was noticed");
    Ok(())
}

fn the_end_of_the_log_cut_off(world: &World) -> anyhow::Result<()> {
    let server = written(world)?;
    let mut cut = 0;
    for file in files(server.data()) {
        let bytes = fs::read(&file)?;
        if memchr::memmem::find(&bytes, b"\"kind\":\"response\"").is_none() {
            continue;
        }
        fs::write(&file, &bytes[..bytes.len() / 2])?;
        let output = server.verify()?;
        if output.code != 0 {
            assert_eq!(output.code, 8, "{}: {output:#?}", file.display());
            cut += 1;
        }
        fs::write(&file, &bytes)?;
    }
    assert!(cut > 0, "nothing that was cut off was missed");
    server.verify()?.exits(0);
    Ok(())
}

fn a_revoked_grant_ends_what_is_under_way(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let ledger = world.ledger()?;
    let server = Site::new(world, &idp).http("ledger", &ledger.url).start()?;
    let carol = Person::logged_in(world, "carol", &server, &idp)?;
    let alice = Person::logged_in(world, "alice", &server, &idp)?;
    let connected = carol.connect("ledger")?;
    let arguments = json!({"text": "long", "seconds": 600});
    let target = connected.target();
    let call = Client::TypeScript1.start(world, carol.home(), &target, "slow", &arguments)?;
    until("the call is under way", || Ok((!world.executed().is_empty()).then_some(())))?;

    let issued = server.leaves_of("grant_issued");
    let grant = issued[0]["grant"].as_str().unwrap_or_default().to_owned();
    carol.run(&["revoke", "gr_0000000000000000"])?.exits(1);
    alice.run(&["revoke", &grant])?.exits(0);
    // The stream is cut; the client does not wait for ten minutes.
    let told = call.finish();
    assert!(told.as_ref().map_or(true, |seen| seen.is_error()), "{told:#?}");
    assert_eq!(server.leaves_of("grant_revoked").len(), 1);
    server.verify()?.exits(0);
    Ok(())
}

fn only_auditors_read_what_others_did(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let ledger = world.ledger()?;
    let server = Site::new(world, &idp).http("ledger", &ledger.url).start()?;
    let alice = Person::logged_in(world, "alice", &server, &idp)?;
    let carol = Person::logged_in(world, "carol", &server, &idp)?;
    alice.call(Client::TypeScript2, "ledger", "note", &json!({"text": "alice's"}))?;
    let all = alice.run(&["sessions", "--json"])?.exits(0);
    let session = ids(&all.stdout, "ses_").remove(0);
    let replay = alice.run(&["replay", &session])?.exits(0);
    assert!(replay.stdout.contains("note"), "{replay:#?}");
    let viewed = server.leaves_of("viewed");
    assert!(viewed.iter().any(|leaf| leaf["session"] == session.as_str()), "{viewed:#?}");

    let hers = carol.run(&["sessions", "--json"])?;
    assert!(!hers.stdout.contains(&session), "{hers:#?}");
    let output = carol.run(&["replay", &session])?;
    assert!([1, 3].contains(&output.code), "{output:#?}");
    assert!(!output.stdout.contains("alice's"), "{output:#?}");
    Ok(())
}

fn an_orderly_stop(world: &World) -> anyhow::Result<()> {
    let server = written(world)?;
    let kinds: Vec<_> = server.leaves().iter().map(|leaf| leaf["kind"].clone()).collect();
    assert_eq!(kinds.first(), Some(&json!("started")));
    assert_eq!(kinds.last(), Some(&json!("stopped")));
    Ok(())
}

fn an_orderly_stop_of_running_calls(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let ledger = world.ledger()?;
    let mut server = Site::new(world, &idp).http("ledger", &ledger.url).start()?;
    let alice = Person::logged_in(world, "alice", &server, &idp)?;
    let connected = alice.connect("ledger")?;
    let arguments = json!({"text": "long", "seconds": 600});
    let call =
        Client::TypeScript2.start(world, alice.home(), &connected.target(), "slow", &arguments)?;
    until("the upstream executes the call", || Ok((!world.executed().is_empty()).then_some(())))?;
    server.proc.terminate();
    assert!(server.proc.wait()?.success());
    drop(call);
    // Every call has its end on record, so that nothing is orphaned by stopping in order.
    server.restart()?;
    let orphaned = server.leaves_of("orphaned");
    assert!(orphaned.is_empty(), "{orphaned:#?}");
    server.verify()?.exits(0);
    Ok(())
}
