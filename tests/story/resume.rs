//! A connection is cut in the middle of a stream: whoever comes back gets what they missed, every
//! message exactly once, and nobody else gets anything.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::support::relay::Relay;
use crate::support::site::ENGINEERS;
use crate::support::sse::{Event, Legacy, Stream, token};
use crate::support::{Client, Person, Raw, Server, Site, World, http, ids, until};

crate::stories![
    a_call_whose_connection_is_cut,
    nobody_elses_stream,
    what_is_not_kept_any_more,
    what_the_server_says_unasked,
    a_call_that_waits_for_a_person,
    clients_that_come_back_by_themselves,
];

const STEPS: u64 = 12;

/// The command of the server that takes its time.
fn streamer(world: &World) -> anyhow::Result<[String; 3]> {
    let python = world.parts().python()?.display().to_string();
    let script = world.parts().script("streamer.py").display().to_string();
    Ok([python, script, world.dir().display().to_string()])
}

/// Lets the tool `steps` go on.
fn go(world: &World) -> anyhow::Result<()> {
    world.write("GO", "").map(drop)
}

fn steps(wait: u64) -> Value {
    json!({"count": STEPS, "wait": wait})
}

/// What events say of steps, and whether the last is the answer.
fn told(events: &[Event]) -> (Vec<String>, bool) {
    let messages: Vec<_> =
        events.iter().filter(|event| !event.data.is_empty()).map(Event::json).collect();
    let steps = messages.iter().filter_map(|message| message["params"]["data"].as_str());
    let answered = messages.last().is_some_and(|last| last["result"].is_object());
    (steps.map(str::to_owned).collect(), answered)
}

fn all_steps() -> Vec<String> {
    (0..STEPS).map(|step| format!("step {step}")).collect()
}

fn code(answer: &http::Answer) -> String {
    answer.json()["error"]["data"]["mcpx"]["code"].as_str().unwrap_or_default().to_owned()
}

/// Reads a number of events and is cut off.
fn cut_after(request: reqwest::RequestBuilder, events: usize) -> anyhow::Result<Vec<Event>> {
    let mut stream = Stream::open(request)?;
    (0..events).map(|_| stream.event()).collect()
}

fn site<'a>(world: &'a World, idp: &crate::support::Idp) -> anyhow::Result<Site<'a>> {
    Ok(Site::new(world, idp).stdio("streamer", &streamer(world)?))
}

fn a_call_whose_connection_is_cut(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let server = site(world, &idp)?.start()?;
    let (raw, url) = (Raw::new()?, server.resource("streamer"));
    let token = token(&raw, &idp, &server, "alice", &url)?;
    let legacy = Legacy::begin(&raw, &token, &url)?;

    // The first event brings an id and nothing else, then come three steps; then the cut.
    let mut seen = cut_after(legacy.call(1, "steps", &steps(6))?, 4)?;
    assert!(!seen[0].id.is_empty() && seen[0].data.is_empty(), "not primed: {seen:?}");
    // The call goes on meanwhile: of all that follows nothing has a reader.
    go(world)?;
    until("the call has ended", || {
        let ends = server.leaves_of("response").into_iter();
        Ok(ends.into_iter().filter(|leaf| leaf["outcome"] == "result").nth(1))
    })?;
    // Taken up, cut, and taken up again.
    let last = seen.last().map(|event| event.id.clone());
    seen.extend(cut_after(legacy.get(last.as_deref())?, 5)?);
    let last = seen.last().map(|event| event.id.clone());
    seen.extend(Stream::open(legacy.get(last.as_deref())?)?.rest()?);
    assert_eq!(told(&seen), (all_steps(), true), "{seen:#?}");
    let mut ids: Vec<_> = seen.iter().map(|event| &event.id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), seen.len(), "ids that are not unique: {seen:#?}");
    // And from the very beginning.
    let again = Stream::open(legacy.get(Some(&seen[0].id))?)?.rest()?;
    assert_eq!(told(&again), (all_steps(), true), "{again:#?}");
    // The call was made once, and what was played again was recorded once.
    let events = server.leaves_of("call").into_iter();
    let said = events.filter(|leaf| leaf["method"] == "notifications/message").count();
    assert_eq!(said, all_steps().len());
    let resumed = server.leaves_of("call").into_iter().filter(|leaf| leaf["forwarded"] == false);
    assert_eq!(resumed.count(), 3, "each coming back is on record");
    // What belongs to a protocol session ends with it.
    assert_eq!(http::send(legacy.request("DELETE")?)?.status, 200);
    let answer = http::send(legacy.get(Some(&seen[0].id))?)?;
    assert_eq!((answer.status, code(&answer).as_str()), (410, "stream_gone"), "{answer:?}");
    server.verify()?.exits(0);
    Ok(())
}

fn nobody_elses_stream(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let server = site(world, &idp)?.start()?;
    let url = server.resource("streamer");
    let (raw, carol) = (Raw::new()?, Raw::new()?);
    let hers = token(&raw, &idp, &server, "alice", &url)?;
    let another = token(&raw, &idp, &server, "alice", &url)?;
    let others = token(&carol, &idp, &server, "carol", &url)?;
    let legacy = Legacy::begin(&raw, &hers, &url)?;
    let seen = cut_after(legacy.call(1, "steps", &steps(6))?, 3)?;
    let id = seen[2].id.as_str();

    let refused = |what: &str, legacy: &Legacy, id: &str, status, expected: &str| {
        let answer = http::send(legacy.get(Some(id))?)?;
        assert_eq!((answer.status, code(&answer).as_str()), (status, expected), "{what}");
        anyhow::Ok(())
    };
    let legacy_of = |raw, token| Legacy::begin(raw, token, &url);
    let unknown = "session_unknown";
    refused("somebody else", &legacy_of(&carol, &others)?, id, 404, unknown)?;
    refused("another grant of hers", &legacy_of(&raw, &another)?, id, 404, unknown)?;
    refused("another protocol session", &legacy_of(&raw, &hers)?, id, 410, "stream_gone")?;
    refused("an id that nobody gave", &legacy, "made-up", 404, unknown)?;
    // Nor does a session that leaked serve another grant, be it of the same person.
    let mut thief = legacy_of(&raw, &another)?;
    thief.session.clone_from(&legacy.session);
    let answer = http::send(thief.call(7, "steps", &steps(1))?)?;
    assert_eq!((answer.status, code(&answer).as_str()), (404, unknown), "{answer:?}");
    // Of all that nothing was taken from the stream.
    go(world)?;
    let rest = Stream::open(legacy.get(Some(id))?)?.rest()?;
    let all: Vec<_> = seen.into_iter().chain(rest).collect();
    assert_eq!(told(&all), (all_steps(), true));
    let codes = server.leaves_of("refused");
    assert_eq!(codes.len(), 5, "{codes:#?}");
    server.verify()?.exits(0);
    Ok(())
}

fn what_is_not_kept_any_more(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let server = site(world, &idp)?.extra("[streams]\nkeep_events = 4\n").start()?;
    let (raw, url) = (Raw::new()?, server.resource("streamer"));
    let token = token(&raw, &idp, &server, "alice", &url)?;
    let legacy = Legacy::begin(&raw, &token, &url)?;
    let gone = |id: &str| {
        let answer = http::send(legacy.get(Some(id))?)?;
        assert_eq!((answer.status, code(&answer).as_str()), (410, "stream_gone"), "{answer:?}");
        anyhow::Ok(())
    };
    go(world)?;
    let seen = Stream::open(legacy.call(1, "steps", &steps(6))?)?.rest()?;
    assert_eq!(told(&seen), (all_steps(), true), "{seen:#?}");
    gone(&seen[3].id)?;
    // What is kept is kept.
    let from = seen.len() - 4;
    let again = Stream::open(legacy.get(Some(&seen[from].id))?)?.rest()?;
    assert_eq!(told(&again), told(&seen[from + 1..]));

    // Who is away loses nothing by the bound: the server is not read further until they are back.
    std::fs::remove_file(world.dir().join("GO"))?;
    let mut seen = cut_after(legacy.call(2, "steps", &steps(2))?, 3)?;
    go(world)?;
    until("as much waits as may", || {
        let said = server.leaves_of("call").into_iter();
        let said = said.filter(|leaf| leaf["method"] == "notifications/message").count();
        Ok((said >= all_steps().len() + 4).then_some(()))
    })?;
    seen.extend(Stream::open(legacy.get(Some(&seen[2].id))?)?.rest()?);
    assert_eq!(told(&seen), (all_steps(), true), "{seen:#?}");
    let answer = http::send(legacy.call(3, "quick", &json!({}))?)?;
    assert_eq!(answer.status, 200, "the session is not usable any more: {answer:?}");
    server.verify()?.exits(0);
    Ok(())
}

fn what_the_server_says_unasked(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let server = site(world, &idp)?.start()?;
    let (raw, url) = (Raw::new()?, server.resource("streamer"));
    let token = token(&raw, &idp, &server, "alice", &url)?;
    let legacy = Legacy::begin(&raw, &token, &url)?;
    let say = |step: u64| {
        let answer = http::send(legacy.call(100 + step, "unasked", &json!({"step": step}))?)?;
        anyhow::ensure!(answer.body.contains("said"), "{answer:?}");
        Ok(())
    };
    let mut stream = Stream::open(legacy.get(None)?)?;
    let primer = stream.event()?;
    assert!(!primer.id.is_empty() && primer.data.is_empty(), "{primer:?}");
    let mut seen = vec![primer];
    for step in 0..4 {
        say(step)?;
        seen.push(stream.event()?);
    }
    drop(stream);
    // Two of them never arrived, and two more come while nobody listens.
    seen.truncate(3);
    say(4)?;
    say(5)?;
    let mut stream = Stream::open(legacy.get(Some(&seen[2].id))?)?;
    for _ in 0..4 {
        seen.push(stream.event()?);
    }
    say(6)?;
    seen.push(stream.event()?);
    let expected: Vec<_> = (0..7).map(|step| format!("step {step}")).collect();
    assert_eq!(told(&seen).0, expected, "{seen:#?}");
    server.verify()?.exits(0);
    Ok(())
}

/// Steps need a lead.
const STEPS_NEED_A_LEAD: &str = r#"
@id("steps-need-a-lead")
@approval("group:leads")
forbid(principal, action == Action::"tools/call", resource == Tool::"streamer/steps")
unless { context.approved };
"#;

fn a_call_that_waits_for_a_person(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let server = site(world, &idp)?
        .policy("engineers.cedar", ENGINEERS)
        .policy("steps.cedar", STEPS_NEED_A_LEAD)
        .extra("[limits]\nkeep_alive = \"1s\"\n")
        .start()?;
    let bob = Person::logged_in(world, "bob", &server, &idp)?;
    let (raw, url) = (Raw::new()?, server.resource("streamer"));
    let token = token(&raw, &idp, &server, "alice", &url)?;
    let legacy = Legacy::begin(&raw, &token, &url)?;
    go(world)?;
    let params = json!({"name": "steps", "arguments": steps(0), "_meta": {"progressToken": "p"}});
    // The wait begins with an id, and says what it waits for.
    let mut seen = cut_after(legacy.message("tools/call", 7, &params)?, 2)?;
    assert!(seen[1].data.contains("waiting for approval"), "{seen:?}");
    let approve = || {
        let listed = bob.run(&["approve", "--json"])?.exits(0);
        let id = ids(&listed.stdout, "apr_").pop().unwrap_or_default();
        bob.run(&["approve", &id])
    };
    let last = seen.last().map(|event| event.id.clone());
    let mut stream = Stream::open(legacy.get(last.as_deref())?)?;
    approve()?.exits(0);
    seen.extend(stream.rest()?);
    let steps: Vec<_> = told(&seen).0;
    assert_eq!((steps, told(&seen).1), (all_steps(), true), "{seen:#?}");
    assert_eq!(approved(&server).len(), 1, "it went through once");

    // Without its client no call takes a yes: the same call made again does.
    let mut seen = cut_after(legacy.message("tools/call", 8, &params)?, 2)?;
    let again = legacy.message("tools/call", 9, &params)?;
    let mut again = Stream::open(again)?;
    again.event()?;
    until("the cut is noticed", || {
        let told = || [8, 9].map(|id| progress_of(&server, id));
        let before = told();
        for _ in 0..2 {
            again.event()?;
        }
        let after = told();
        Ok((after[0] == before[0] && after[1] > before[1]).then_some(()))
    })?;
    approve()?.exits(0);
    let rest = again.rest()?;
    assert!(told(&rest).1 && !rest.last().is_some_and(|e| e.data.contains("error")), "{rest:#?}");
    let last = seen.last().map(|event| event.id.clone());
    seen = Stream::open(legacy.get(last.as_deref())?)?.rest()?;
    let end = seen.last().map(|event| event.data.clone()).unwrap_or_default();
    assert!(end.contains("approval_used"), "{seen:#?}");
    assert_eq!(approved(&server).len(), 2, "twice asked, twice approved, twice made");
    server.verify()?.exits(0);
    Ok(())
}

/// How often the client of the second or third call that waited was told so.
fn progress_of(server: &Server, id: usize) -> usize {
    let calls = server.leaves_of("call").into_iter();
    let mut waiting = calls.filter(|leaf| leaf["decision"] == "needs_approval");
    let call = waiting.nth(id - 7).map(|leaf| leaf["call"].clone());
    let told = server.leaves_of("response").into_iter();
    told.filter(|leaf| leaf["outcome"] == "stream_event" && Some(&leaf["call"]) == call.as_ref())
        .count()
}

/// The calls that went through with an approval.
fn approved(server: &Server) -> Vec<Value> {
    let calls = server.leaves_of("call").into_iter();
    calls.filter(|leaf| leaf["decision"] == "allow" && leaf["approval"].is_string()).collect()
}

fn clients_that_come_back_by_themselves(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let server = site(world, &idp)?.start()?;
    let url = server.resource("streamer");
    for client in [Client::TypeScript1, Client::TypeScript2, Client::PythonLegacy] {
        drop(std::fs::remove_file(world.dir().join("GO")));
        let raw = Raw::new()?;
        let token = token(&raw, &idp, &server, "alice", &url)?;
        let cuts = Arc::new(AtomicUsize::new(1));
        let relay = Relay::start_cutting(raw, token, url.clone(), Arc::clone(&cuts))?;
        let person = Person::new(world, &format!("{client:?}"))?;
        let target = crate::support::Target::Url(relay.url.clone());
        let calling = client.start(world, person.home(), &target, "steps", &steps(3))?;
        until("its stream is cut", || Ok((cuts.load(Ordering::SeqCst) == 0).then_some(())))?;
        go(world)?;
        let seen = calling.finish()?;
        assert_eq!(seen.text(), "all steps are done", "{client:?}: {seen:#?}");
    }
    let calls = server.leaves_of("call").into_iter();
    let made = calls.clone().filter(|leaf| leaf["method"] == "tools/call").count();
    assert_eq!(made, 3, "a call was made twice");
    assert!(calls.filter(|leaf| leaf["forwarded"] == false).count() >= 3, "nobody came back");
    server.verify()?.exits(0);
    Ok(())
}
