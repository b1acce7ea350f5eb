//! A second person says yes or no to one exact call.

use serde_json::{Value, json};

use crate::support::site::TRANSFERS;
use crate::support::{Client, Idp, Person, Raw, Refused, Server, Site, World, http, ids, until};

crate::stories![
    a_lead_approves_one_call_once,
    a_yes_is_for_one_exact_call,
    a_lead_says_no,
    nobody_approves_their_own_call,
    only_the_named_group_approves,
    nobody_decides_in_time,
    a_client_that_does_not_wait,
    a_client_of_the_newest_protocol,
    a_client_that_waits_in_rounds,
    a_user_who_does_not_wait,
    a_server_that_asks_after_the_yes,
    a_state_in_other_hands,
];

/// Alice is an engineer and bob leads; transfers of the ledger need a lead.
fn site<'a>(world: &'a World, idp: &Idp, url: &str) -> Site<'a> {
    Site::new(world, idp).policy("transfers.cedar", TRANSFERS).http("ledger", url)
}

fn transfer(amount: u32) -> Value {
    json!({"amount": amount, "to": "ACME"})
}

/// Waits until somebody sees a request for approval that is not in `known`.
fn pending(person: &Person, known: &[String]) -> anyhow::Result<String> {
    until("there is something to approve", || {
        let listed = person.run(&["approve", "--json"])?.exits(0);
        Ok(ids(&listed.stdout, "apr_").into_iter().find(|id| !known.contains(id)))
    })
}

fn transfers(world: &World) -> Vec<Value> {
    world.executed().into_iter().filter(|call| call["tool"] == "transfer").collect()
}

fn a_lead_approves_one_call_once(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let ledger = world.ledger()?;
    let server = site(world, &idp, &ledger.url).start()?;
    let alice = Person::logged_in(world, "alice", &server, &idp)?;
    let bob = Person::logged_in(world, "bob", &server, &idp)?;
    let connected = alice.connect("ledger")?;
    let start = || {
        let target = connected.target();
        Client::TypeScript1.start(world, alice.home(), &target, "transfer", &transfer(10))
    };

    let first = start()?;
    let id = pending(&bob, &[])?;
    let listed = bob.run(&["approve", "--json"])?.exits(0).stdout;
    for shown in ["alice@example.test", "ledger", "transfer", "ACME", "transfers-need-a-lead"] {
        assert!(listed.contains(shown), "the approver is not told {shown:?}: {listed}");
    }
    assert!(transfers(world).is_empty(), "it was forwarded before the yes");
    bob.run(&["approve", &id])?.exits(0);
    let seen = first.finish()?;
    assert!(!seen.is_error(), "{seen:#?}");
    assert_eq!(seen.result["structuredContent"]["moved"], 10, "{seen:#?}");
    assert_eq!(transfers(world).len(), 1);

    // The yes is used up: the same call asks again.
    let second = start()?;
    let again = pending(&bob, std::slice::from_ref(&id))?;
    bob.run(&["deny", &again])?.exits(0);
    assert!(is_refused(second.finish()), "the same call passed twice");
    assert_eq!(transfers(world).len(), 1);

    let decided = server.leaves_of("approval_decided");
    let decided: Vec<_> = decided.iter().map(|leaf| &leaf["approved"]).collect();
    assert_eq!(decided, [&json!(true), &json!(false)]);
    assert_eq!(server.leaves_of("approval_used").len(), 1);
    server.verify()?.exits(0);
    Ok(())
}

fn a_yes_is_for_one_exact_call(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let ledger = world.ledger()?;
    let server = site(world, &idp, &ledger.url).approvals("1s", "10m").start()?;
    let alice = Person::logged_in(world, "alice", &server, &idp)?;
    let bob = Person::logged_in(world, "bob", &server, &idp)?;
    let call = |amount| alice.call(Client::PythonLegacy, "ledger", "transfer", &transfer(amount));
    assert!(is_refused(call(10)));
    let id = pending(&bob, &[])?;
    bob.run(&["approve", &id])?.exits(0);
    assert!(is_refused(call(11)), "a yes to 10 was good for 11");
    assert!(transfers(world).is_empty());
    let seen = call(10)?;
    assert!(!seen.is_error(), "the approved call does not pass: {seen:#?}");
    assert_eq!(transfers(world), [json!({"tool": "transfer", "amount": 10, "to": "ACME"})]);
    assert!(is_refused(call(10)), "it passed twice");
    assert_eq!(transfers(world).len(), 1);
    Ok(())
}

fn a_lead_says_no(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let ledger = world.ledger()?;
    let server = site(world, &idp, &ledger.url).start()?;
    let alice = Person::logged_in(world, "alice", &server, &idp)?;
    let bob = Person::logged_in(world, "bob", &server, &idp)?;
    let connected = alice.connect("ledger")?;
    let target = connected.target();
    let call =
        Client::TypeScript1.start(world, alice.home(), &target, "transfer", &transfer(10))?;
    let id = pending(&bob, &[])?;
    bob.run(&["deny", &id])?.exits(0);
    assert!(is_refused(call.finish()));
    assert!(transfers(world).is_empty());
    // What is decided stays decided.
    let late = bob.run(&["approve", &id])?;
    assert_ne!(late.code, 0, "{late:#?}");
    Ok(())
}

fn nobody_approves_their_own_call(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let ledger = world.ledger()?;
    let server = site(world, &idp, &ledger.url).approvals("1s", "10m").start()?;
    idp.set("groups/alice/eng,leads")?;
    let alice = Person::logged_in(world, "alice", &server, &idp)?;
    let refused = alice.call(Client::PythonLegacy, "ledger", "transfer", &transfer(10));
    let id = approval_in(&refused);
    alice.run(&["approve", &id])?.exits(3);
    assert!(is_refused(alice.call(Client::PythonLegacy, "ledger", "transfer", &transfer(10))));
    assert!(transfers(world).is_empty());
    assert!(server.leaves_of("approval_decided").is_empty());
    Ok(())
}

fn only_the_named_group_approves(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let ledger = world.ledger()?;
    let server = site(world, &idp, &ledger.url).approvals("1s", "10m").start()?;
    let alice = Person::logged_in(world, "alice", &server, &idp)?;
    let carol = Person::logged_in(world, "carol", &server, &idp)?;
    let refused = alice.call(Client::PythonLegacy, "ledger", "transfer", &transfer(10));
    let id = approval_in(&refused);
    let listed = carol.run(&["approve", "--json"])?.exits(0);
    assert!(!listed.stdout.contains(&id), "it is not hers to see: {listed:#?}");
    let output = carol.run(&["approve", &id])?;
    assert!(output.code == 3 || output.code == 1, "{output:#?}");
    assert!(server.leaves_of("approval_decided").is_empty());
    assert!(transfers(world).is_empty());
    Ok(())
}

fn nobody_decides_in_time(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let ledger = world.ledger()?;
    let server = site(world, &idp, &ledger.url).approvals("1s", "2s").start()?;
    let alice = Person::logged_in(world, "alice", &server, &idp)?;
    let bob = Person::logged_in(world, "bob", &server, &idp)?;
    let refused = alice.call(Client::PythonLegacy, "ledger", "transfer", &transfer(10));
    let id = approval_in(&refused);
    until("it is over", || {
        let listed = bob.run(&["approve", "--json"])?.exits(0);
        Ok((!listed.stdout.contains(&id)).then_some(()))
    })?;
    bob.run(&["approve", &id])?.exits(5);
    assert!(transfers(world).is_empty());
    // The same call asks anew.
    let refused = alice.call(Client::PythonLegacy, "ledger", "transfer", &transfer(10));
    assert_ne!(approval_in(&refused), id);
    Ok(())
}

fn a_client_that_does_not_wait(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let ledger = world.ledger()?;
    let server = site(world, &idp, &ledger.url).start()?;
    let alice = Person::logged_in(world, "alice", &server, &idp)?;
    let bob = Person::logged_in(world, "bob", &server, &idp)?;
    let connected = alice.connect("ledger")?;
    let target = connected.target();
    let call =
        Client::TypeScript1.start(world, alice.home(), &target, "transfer", &transfer(10))?;
    let id = pending(&bob, &[])?;
    drop(call);
    // A yes that comes too late executes nothing by itself; the same call then passes once.
    bob.run(&["approve", &id])?.exits(0);
    let seen = alice.call(Client::TypeScript1, "ledger", "transfer", &transfer(10))?;
    assert!(!seen.is_error(), "{seen:#?}");
    assert_eq!(transfers(world).len(), 1);
    server.verify()?.exits(0);
    Ok(())
}

fn a_client_of_the_newest_protocol(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let ledger = world.ledger()?;
    let server = site(world, &idp, &ledger.url).approvals("1s", "10m").start()?;
    let alice = Person::logged_in(world, "alice", &server, &idp)?;
    let bob = Person::logged_in(world, "bob", &server, &idp)?;
    for (number, client) in [Client::Python, Client::TypeScript2].into_iter().enumerate() {
        let amount = transfer(u32::try_from(number)?);
        // These clients answer no questions: whatever they make of being asked, they must not
        // hang, and nothing may happen before the yes.
        let asked = alice.call(client, "ledger", "transfer", &amount);
        assert!(is_refused(asked), "{client:?} got a result without a yes");
        assert_eq!(transfers(world).len(), number);
        let id = pending(&bob, &decided(&server))?;
        bob.run(&["approve", &id])?.exits(0);
        let seen = alice.call(client, "ledger", "transfer", &amount)?;
        assert!(!seen.is_error(), "{client:?}: {seen:#?}");
        assert_eq!(transfers(world).len(), number + 1);
    }
    Ok(())
}

/// The calls on record that waited for a person.
fn waited(server: &Server) -> Vec<Value> {
    let calls = server.leaves_of("call");
    calls.into_iter().filter(|leaf| leaf["decision"] == "needs_approval").collect()
}

fn a_client_that_waits_in_rounds(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let ledger = world.ledger()?;
    let server = site(world, &idp, &ledger.url).approvals("12s", "10m").start()?;
    let alice = Person::logged_in(world, "alice", &server, &idp)?;
    let bob = Person::logged_in(world, "bob", &server, &idp)?;
    let connected = alice.connect("ledger")?;
    let target = connected.target();
    let clients = [Client::PythonAsked, Client::TypeScript2Asked];
    for (number, client) in clients.into_iter().enumerate() {
        let before = waited(&server).len();
        let amount = transfer(u32::try_from(number)?);
        let call = client.start(world, alice.home(), &target, "transfer", &amount)?;
        let id = pending(&bob, &decided(&server))?;
        // The first asks the user, the second comes back with the answer and is held, and ends
        // without a decision; the third carries the state alone.
        until("a third round", || Ok((waited(&server).len() >= before + 3).then_some(())))?;
        assert_eq!(transfers(world).len(), number, "it was forwarded before the yes");
        bob.run(&["approve", &id])?.exits(0);
        let seen = call.finish()?;
        assert_eq!(seen.protocol.as_deref(), Some("2026-07-28"), "{seen:#?}");
        assert!(!seen.is_error(), "{client:?}: {seen:#?}");
        assert_eq!(transfers(world).len(), number + 1);

        // The user was asked once, to look at a page that tells nothing of the call.
        let [asked] = seen.asked.as_slice() else { panic!("{seen:#?}") };
        assert_eq!(asked["mode"], "url");
        let told = asked["message"].as_str().unwrap_or_default();
        assert!(told.contains(&format!("mcpx approve {id}")), "{told}");
        let url = asked["url"].as_str().unwrap_or_default();
        assert_eq!(url, format!("{}/approvals/{id}", server.url));
        let page = http::send(http::client().get(url))?;
        assert_eq!(page.status, 200);
        assert!(page.body.contains(&format!("mcpx approve {id}")), "{page:?}");
        for secret in ["transfer", "ledger", "alice", "ACME", "<form", "<a "] {
            assert!(!page.body.contains(secret), "{secret}: {page:?}");
        }
        let other = http::send(http::client().get(format!("{}/approvals/x<y", server.url)))?;
        assert_eq!(other.status, 404);

        let waited: Vec<_> =
            waited(&server).iter().skip(before).map(|leaf| leaf["approval"].clone()).collect();
        assert!(waited.iter().all(|approval| *approval == json!(id)), "{waited:?}");
    }
    server.verify()?.exits(0);
    Ok(())
}

fn a_user_who_does_not_wait(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let ledger = world.ledger()?;
    let server = site(world, &idp, &ledger.url).approvals("10m", "10m").start()?;
    let alice = Person::logged_in(world, "alice", &server, &idp)?;
    let refused = alice.call(Client::PythonDeclines, "ledger", "transfer", &transfer(1));
    let id = approval_in(&refused);
    assert_eq!(waited(&server).len(), 2, "asked once, and not held after the user's no");
    assert!(server.leaves_of("approval_decided").is_empty(), "a user's no decides nothing: {id}");
    assert!(transfers(world).is_empty());
    Ok(())
}

/// The server asks in rounds as well: its state and what its user answered reach it byte for byte,
/// although the call that brings them waits for another yes.
fn a_server_that_asks_after_the_yes(world: &World) -> anyhow::Result<()> {
    const TOOL: &str = "test_input_required_result_request_state";
    let idp = world.idp()?;
    let fixture = world.fixture()?;
    let policy = TRANSFERS.replace("ledger/transfer", &format!("fixture/{TOOL}"));
    let server = Site::new(world, &idp)
        .policy("asks.cedar", &policy)
        .http("fixture", &fixture.url)
        .start()?;
    let alice = Person::logged_in(world, "alice", &server, &idp)?;
    let bob = Person::logged_in(world, "bob", &server, &idp)?;
    let connected = alice.connect("fixture")?;
    let target = connected.target();
    let call = Client::PythonAsked.start(world, alice.home(), &target, TOOL, &json!({}))?;
    let first = pending(&bob, &[])?;
    bob.run(&["approve", &first])?.exits(0);
    let second = pending(&bob, std::slice::from_ref(&first))?;
    let listed = bob.run(&["approve", "--json"])?.exits(0).stdout;
    assert!(listed.contains("inputResponses"), "the approver sees what was answered: {listed}");
    bob.run(&["approve", &second])?.exits(0);
    let seen = call.finish()?;
    // The tool says so only if its sealed state and the answer came back.
    assert!(seen.text().starts_with("state-ok: "), "{seen:#?}");
    let modes: Vec<_> = seen.asked.iter().map(|asked| asked["mode"].clone()).collect();
    assert_eq!(modes, ["url", "form", "url"]);
    assert_eq!(server.leaves_of("approval_used").len(), 2);
    server.verify()?.exits(0);
    Ok(())
}

fn a_state_in_other_hands(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let ledger = world.ledger()?;
    let server = site(world, &idp, &ledger.url).start()?;
    let bob = Person::logged_in(world, "bob", &server, &idp)?;
    let url = server.resource("ledger");
    let with = |name: &str| {
        let raw = Raw::new()?;
        let id_token = idp.tokens(name)?["id_token"].as_str().unwrap_or_default().to_owned();
        let token = raw.token(&server, &id_token, &url)?;
        Ok::<_, anyhow::Error>((raw, token))
    };
    let (alice, hers) = with("alice")?;
    let (carol, others) = with("carol")?;
    let call = |amount: u32, state: Option<&Value>| {
        let body = crate::support::raw::call("transfer", &transfer(amount));
        let mut body: Value = serde_json::from_str(&body).unwrap();
        let params = &mut body["params"];
        params["_meta"]["io.modelcontextprotocol/clientCapabilities"] =
            json!({"elicitation": {"url": {}}});
        if let Some(state) = state {
            params["requestState"] = state.clone();
            params["inputResponses"] = json!({"mcpx_approval": {"action": "decline"}});
        }
        body.to_string()
    };
    let approval = |answer: &http::Answer| {
        let result = &answer.json()["result"];
        (result["_meta"]["mcpx"]["approval"].clone(), result["requestState"].clone())
    };
    let first = alice.post(&url, &hers, &call(1, None))?;
    assert_eq!(first.json()["result"]["resultType"], "input_required", "{first:?}");
    let (id, state) = approval(&first);

    // Another call of hers, and the same call of somebody else's, are asked for by themselves.
    let (other, _) = approval(&alice.post(&url, &hers, &call(2, Some(&state)))?);
    assert!(other.is_string() && other != id, "a state was good for another call");
    let (foreign, _) = approval(&carol.post(&url, &others, &call(1, Some(&state)))?);
    assert!(foreign.is_string() && foreign != id, "a state was good for somebody else");

    // A yes lifts the call and not whoever holds the state.
    bob.run(&["approve", id.as_str().unwrap_or_default()])?.exits(0);
    let answer = carol.post(&url, &others, &call(1, Some(&state)))?;
    assert_eq!(approval(&answer).0, foreign, "{answer:?}");
    assert!(transfers(world).is_empty());
    let answer = alice.post(&url, &hers, &call(1, Some(&state)))?;
    assert_eq!(answer.json()["result"]["structuredContent"]["moved"], 1, "{answer:?}");
    // Once.
    let answer = alice.post(&url, &hers, &call(1, Some(&state)))?;
    assert_eq!(answer.json()["error"]["data"]["mcpx"]["code"], "approval_used", "{answer:?}");
    assert_eq!(transfers(world).len(), 1);
    server.verify()?.exits(0);
    Ok(())
}

fn decided(server: &Server) -> Vec<String> {
    let decided = server.leaves_of("approval_decided");
    decided.iter().filter_map(|leaf| leaf["approval"].as_str()).map(str::to_owned).collect()
}

/// Whether a call came back without having been made: as an error, or as a result that is one.
fn is_refused(outcome: anyhow::Result<crate::support::Seen>) -> bool {
    match outcome {
        Ok(seen) => seen.is_error(),
        Err(error) => {
            assert!(error.is::<Refused>(), "{error:?}");
            true
        }
    }
}

/// The approval that a refused call names, as its user gets to read it.
#[track_caller]
fn approval_in(outcome: &anyhow::Result<crate::support::Seen>) -> String {
    let told = match outcome {
        Ok(seen) => seen.text(),
        Err(error) => error.to_string(),
    };
    assert!(told.contains("mcpx approve"), "the next step is not named: {told}");
    ids(&told, "apr_").pop().unwrap_or_else(|| panic!("no approval is named: {told}"))
}
