//! A server that puts somebody's number wherever it can: nothing of it may reach a client or the
//! server's folder, and what it resumes or hides is held to its owner and to policy.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use serde_json::{Value, json};

use crate::support::{Client, Person, Raw, Site, World, http, until};

crate::stories![
    a_server_that_leaks_everywhere,
    a_stream_that_is_resumed,
    a_slow_answer_to_somebody_who_lost_the_grant,
    a_server_that_asks_what_it_may_not,
];

const SSN: &str = "078-05-1120";

/// A server that answers with exactly the bytes that `answer` gives for a method and a body.
pub fn upstream(answer: fn(&str, &str) -> String) -> anyhow::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let url = format!("http://{}/mcp", listener.local_addr()?);
    // Ends with the process of the stories: it holds nothing.
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || serve(stream, answer));
        }
    });
    Ok(url)
}

fn serve(mut stream: TcpStream, answer: fn(&str, &str) -> String) -> Option<()> {
    let (head, body) = request(&mut stream)?;
    stream.write_all(answer(&head, &body).as_bytes()).ok()
}

/// Reads one request: its head and its body.
pub(crate) fn request(stream: &mut TcpStream) -> Option<(String, String)> {
    let mut request = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let read = stream.read(&mut buffer).ok().filter(|read| *read > 0)?;
        request.extend_from_slice(buffer.get(..read)?);
        let text = String::from_utf8_lossy(&request);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| {
            line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse::<usize>().ok()
        });
        if body.len() >= length.unwrap_or(0) {
            return Some((head.to_owned(), body.to_owned()));
        }
    }
}

pub(crate) fn whole(head: &str, body: &str) -> String {
    format!("{head}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

pub(crate) const OK_JSON: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/json";
pub(crate) const OK_STREAM: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream";
const DONE: &str = r#"{"jsonrpc":"2.0","id":1,"result":{"content":[]}}"#;

type Way = (&'static str, fn() -> String);

/// Each way to leak, by the name of the tool.
const WAYS: &[Way] = &[
    ("headers", || {
        let head = format!(
            "HTTP/1.1 200 {SSN}\r\ncontent-type: application/json; charset=utf-16; x={SSN}\r\n\
             x-customer: {SSN}\r\nlocation: /{SSN}\r\netag: \"{SSN}\"\r\nmcp-customer: {SSN}\r\n\
             content-disposition: attachment; filename={SSN}\r\nretry-after: 078051120"
        );
        whole(&head, DONE)
    }),
    ("event fields", || {
        let events = format!(
            ": {SSN}\n\nid: {SSN}\nretry: 78051120\ndata:\n\nevent: {SSN}\ndata: {{}}\n\n\
             x-{SSN}: {SSN}\nid: {SSN}\ndata: {DONE}\n\n"
        );
        whole(OK_STREAM, &events)
    }),
    ("a redirect", || {
        whole(&format!("HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1/{SSN}"), SSN)
    }),
    ("an early hint", || {
        format!("HTTP/1.1 103 Early\r\nlink: </{SSN}>\r\n\r\n{}", whole(OK_JSON, DONE))
    }),
    ("a trailer", || {
        let length = DONE.len();
        format!(
            "{OK_JSON}\r\nconnection: close\r\ntransfer-encoding: chunked\r\ntrailer: x-t\r\n\r\n\
             {length:x}\r\n{DONE}\r\n0\r\nx-t: {SSN}\r\n\r\n"
        )
    }),
    ("a page", || whole(&format!("HTTP/1.1 200 OK\r\ncontent-type: text/{SSN}"), SSN)),
    ("a page of errors", || whole("HTTP/1.1 500 No\r\ncontent-type: text/html", SSN)),
    ("an array", || whole(OK_JSON, &format!(r#"[{{"ssn":"{SSN}"}}]"#))),
    ("more than a message", || whole(OK_JSON, &format!("{DONE} {SSN}"))),
    ("a key twice", || {
        let twice = format!(r#""{SSN}":1,"{SSN}":2"#);
        whole(OK_JSON, &format!(r#"{{"jsonrpc":"2.0","id":1,"result":{{{twice}}}}}"#))
    }),
    ("another id", || {
        whole(OK_JSON, &format!(r#"{{"jsonrpc":"2.0","id":"{SSN}","result":{{}}}}"#))
    }),
    ("two answers in one event", || {
        let other = format!(r#"{{"jsonrpc":"2.0","id":1,"result":{{"a":"{SSN}"}}}}"#);
        whole(OK_STREAM, &format!("data: {DONE}\ndata: {other}\n\n"))
    }),
    ("another id in a stream", || {
        let other = format!(r#"{{"jsonrpc":"2.0","id":"{SSN}","result":{{}}}}"#);
        whole(OK_STREAM, &format!("data: {other}\n\ndata: {DONE}\n\n"))
    }),
    ("a request of its own", || {
        let own =
            format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{SSN} x","params":{{"a":"{SSN}"}}}}"#);
        whole(OK_STREAM, &format!("data: {own}\n\ndata: {DONE}\n\n"))
    }),
    ("an error", || {
        let error = format!(r#"{{"code":1,"message":"no {SSN}","data":{{"{SSN}":"{SSN}"}}}}"#);
        whole(OK_JSON, &format!(r#"{{"jsonrpc":"2.0","id":1,"error":{error}}}"#))
    }),
];

fn leak(_head: &str, body: &str) -> String {
    let message: Value = serde_json::from_str(body).unwrap_or_default();
    let name = message["params"]["name"].as_str().unwrap_or_default();
    let way = WAYS.iter().find(|(way, _)| *way == name);
    way.map_or_else(|| whole("HTTP/1.1 404 Not Found", ""), |(_, answer)| answer())
}

fn a_server_that_leaks_everywhere(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let server = Site::new(world, &idp).http("leaky", &upstream(leak)?).start()?;
    let url = server.resource("leaky");
    let raw = Raw::new()?;
    let id_token = idp.tokens("alice")?["id_token"].as_str().unwrap_or_default().to_owned();
    let token = raw.token(&server, &id_token, &url)?;
    for (way, _) in WAYS {
        let answer = raw.post(&url, &token, &crate::support::raw::call(way, &json!({})))?;
        let all = format!("{answer:?}");
        for form in [SSN, "078051120", "78051120"] {
            assert!(!all.contains(form), "{way}: {all}");
        }
    }
    server.holds_none_of([SSN]);
    server.verify()?.exits(0);
    Ok(())
}

/// Gives an event id with the first answer, and the list to whoever comes back with that id.
fn resume(head: &str, _body: &str) -> String {
    if head.starts_with("POST") {
        return whole(OK_STREAM, &format!("id: the-stream\ndata:\n\ndata: {DONE}\n\n"));
    }
    if !head.contains("last-event-id: the-stream\r\n") {
        return whole("HTTP/1.1 400 Bad Request", "");
    }
    let list = r#"{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"note"},{"name":"hidden"}]}}"#;
    whole(OK_STREAM, &format!("id: the-stream\ndata: {list}\n\n"))
}

fn a_stream_that_is_resumed(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let server = Site::new(world, &idp)
        .policy("hidden.cedar", r#"forbid(principal, action, resource == Tool::"resumed/hidden");"#)
        .http("resumed", &upstream(resume)?)
        .start()?;
    let url = server.resource("resumed");
    let (alice, carol) = (Raw::new()?, Raw::new()?);
    let token = |raw: &Raw, name: &str| {
        let id_token = idp.tokens(name)?["id_token"].as_str().unwrap_or_default().to_owned();
        raw.token(&server, &id_token, &url)
    };
    let hers = token(&alice, "alice")?;
    let body = crate::support::raw::call("note", &json!({"text": "x"}));
    let answer = alice.post(&url, &hers, &body)?;
    let id = answer.body.lines().find_map(|line| line.strip_prefix("id: ")).unwrap_or_default();
    assert!(!id.is_empty() && id != "the-stream", "{answer:?}");

    let get = |raw: &Raw, token: &str, id: &str| {
        let proof = raw.proof("GET", &url, Some(token), |_| ())?;
        let request = http::client()
            .get(&url)
            .header("authorization", format!("DPoP {token}"))
            .header("dpop", proof)
            .header("accept", "text/event-stream")
            .header("last-event-id", id);
        http::send(request)
    };
    let resumed = get(&alice, &hers, id)?;
    assert_eq!(resumed.status, 200, "{resumed:?}");
    assert!(resumed.body.contains("note"), "{resumed:?}");
    assert!(!resumed.body.contains("hidden"), "a hidden tool is shown: {resumed:?}");
    assert!(!resumed.body.contains("the-stream"), "{resumed:?}");

    let others = token(&carol, "carol")?;
    for (what, raw, token, id) in [
        ("somebody else's id", &carol, &others, id),
        ("the server's own id", &carol, &others, "the-stream"),
    ] {
        let answer = get(raw, token, id)?;
        assert_eq!(answer.status, 404, "{what}: {answer:?}");
    }
    server.verify()?.exits(0);
    Ok(())
}

/// Answers whole, long after it was asked.
fn slow(_head: &str, _body: &str) -> String {
    std::thread::sleep(std::time::Duration::from_secs(20));
    whole(OK_JSON, &DONE.replace("[]", r#"[{"type":"text","text":"too late"}]"#))
}

fn a_slow_answer_to_somebody_who_lost_the_grant(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let server = Site::new(world, &idp).http("slow", &upstream(slow)?).start()?;
    let url = server.resource("slow");
    let alice = Person::logged_in(world, "alice", &server, &idp)?;
    let raw = Raw::new()?;
    let id_token = idp.tokens("alice")?["id_token"].as_str().unwrap_or_default().to_owned();
    let token = raw.token(&server, &id_token, &url)?;
    let body = crate::support::raw::call("x", &json!({}));
    let answer = std::thread::scope(|scope| {
        let answer = scope.spawn(|| raw.post(&url, &token, &body));
        until("the call is forwarded", || {
            Ok(server.leaves_of("call").iter().any(|leaf| leaf["forwarded"] == true).then_some(()))
        })?;
        let issued = server.leaves_of("grant_issued");
        let grant = issued[0]["grant"].as_str().unwrap_or_default().to_owned();
        alice.run(&["revoke", &grant])?.exits(0);
        answer.join().unwrap()
    })?;
    assert!(answer.body.contains("grant_revoked"), "{answer:?}");
    assert!(!answer.body.contains("too late"), "{answer:?}");
    let ends = server.leaves_of("response");
    assert_eq!(ends.len(), 1, "{ends:#?}");
    assert_eq!((&ends[0]["outcome"], &ends[0]["last"]), (&json!("expired"), &json!(true)));
    server.verify()?.exits(0);
    Ok(())
}

fn a_server_that_asks_what_it_may_not(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let python = world.parts().python()?.display().to_string();
    let command = [python, world.parts().script("asker.py").display().to_string()];
    let forbid = r#"@id("no-roots") forbid(principal, action == Action::"roots/list", resource);"#;
    let server =
        Site::new(world, &idp).stdio("asker", &command).policy("no-roots.cedar", forbid).start()?;
    let alice = Person::logged_in(world, "alice", &server, &idp)?;
    // The server is told no, so its tool can go on; the client is not asked at all.
    let seen = alice.call(Client::TypeScript1, "asker", "ask", &json!({}))?;
    assert_eq!(seen.text(), "refused: -31003");
    let calls = server.leaves_of("call");
    let asked = calls.iter().find(|leaf| leaf["method"] == "roots/list");
    assert!(asked.is_some_and(|leaf| leaf["decision"] == "deny"), "{calls:#?}");
    let told = calls.iter().find(|leaf| leaf["shape"] == "response");
    assert!(told.is_some_and(|leaf| leaf["forwarded"] == true), "{calls:#?}");
    server.verify()?.exits(0);
    Ok(())
}
