//! Web pages and rebound names at both listeners: the local port of `mcpx connect` turns them away on
//! every path and method, and neither listener ever gives a page leave to read (CORS).

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::json;

use crate::support::proc::PATIENCE;
use crate::support::{Person, Site, World, raw};

crate::stories![pages_at_the_local_port, pages_at_the_gateway];

const METHODS: [&str; 7] = ["GET", "POST", "DELETE", "OPTIONS", "PUT", "PATCH", "HEAD"];

/// Sends exactly these bytes and gives the answer's status and whole text.
fn send(to: SocketAddr, request: &str) -> anyhow::Result<(u16, String)> {
    let mut stream = TcpStream::connect(to)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let text = String::from_utf8_lossy(&answer).into_owned();
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok());
    Ok((status.unwrap_or(0), text))
}

/// A request with these lines after its first, and a good message.
fn request(method: &str, target: &str, lines: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "{method} {target} HTTP/1.1\r\n{lines}connection: close\r\ncontent-type: application/json\r\n\
         accept: application/json, text/event-stream\r\naccess-control-request-method: POST\r\n\
         content-length: {length}\r\n\r\n{body}"
    )
}

fn gives_no_leave(what: &str, answer: &str) {
    let head = answer.split("\r\n\r\n").next().unwrap_or_default().to_ascii_lowercase();
    assert!(!head.contains("access-control-"), "{what}: {head}");
}

fn pages_at_the_local_port(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let ledger = world.ledger()?;
    let server = Site::new(world, &idp).http("ledger", &ledger.url).start()?;
    let alice = Person::logged_in(world, "alice", &server, &idp)?;
    let connected = alice.connect("ledger")?;
    let url = reqwest::Url::parse(&connected.url)?;
    let port = url.port().unwrap_or_default();
    let to = SocketAddr::from(([127, 0, 0, 1], port));
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "ping"}).to_string();

    let elsewhere = SocketAddr::from(([127, 0, 0, 2], port));
    let reached = TcpStream::connect_timeout(&elsewhere, Duration::from_secs(5));
    assert!(reached.is_err(), "it listens on more than 127.0.0.1");

    let here = format!("host: 127.0.0.1:{port}\r\n");
    let other = port.wrapping_add(1);
    let hosts = [
        String::new(),
        "host:\r\n".to_owned(),
        format!("{here}{here}"),
        format!("{here}host: evil.example\r\n"),
        "host: 127.0.0.1\r\n".to_owned(),
        "host: localhost\r\n".to_owned(),
        format!("host: 127.0.0.1:{other}\r\n"),
        format!("host: 127.0.0.1:0{port}\r\n"),
        format!("host: 127.0.0.1:+{port}\r\n"),
        format!("host: evil.example:{port}\r\n"),
        format!("host: localhost.evil:{port}\r\n"),
        format!("host: 127.0.0.1.rebound.example:{port}\r\n"),
        format!("host: localhost.:{port}\r\n"),
        format!("host: 127.0.0.1.:{port}\r\n"),
        format!("host: evil@127.0.0.1:{port}\r\n"),
        format!("host: 127.0.0.1:{port}, evil.example\r\n"),
        format!("host: [::ffff:127.0.0.1]:{port}\r\n"),
        format!("host: [0:0:0:0:0:0:0:1]:{port}\r\n"),
        format!("host: [::1%25lo]:{port}\r\n"),
        format!("host: 0.0.0.0:{port}\r\n"),
        format!("host: 127.1:{port}\r\n"),
        format!("host: 2130706433:{port}\r\n"),
    ];
    let own = format!("origin: http://127.0.0.1:{port}\r\n");
    let origins = [
        "origin: https://evil.example\r\n".to_owned(),
        "origin: null\r\n".to_owned(),
        "origin:\r\n".to_owned(),
        "origin: file://\r\n".to_owned(),
        "origin: vscode-webview://x\r\n".to_owned(),
        format!("origin: https://127.0.0.1:{port}\r\n"),
        format!("origin: http://127.0.0.1:{other}\r\n"),
        "origin: http://127.0.0.1\r\n".to_owned(),
        format!("origin: http://localhost:{port}.evil.example\r\n"),
        format!("origin: http://localhost.evil.example:{port}\r\n"),
        format!("origin: HTTP://127.0.0.1:{port}\r\n"),
        format!("{own}{own}"),
        format!("{own}origin: https://evil.example\r\n"),
        format!("origin: null\r\n{own}"),
    ];
    let bearer = url.path().trim_start_matches('/').trim_end_matches("/mcp");
    let bearer = format!("authorization: Bearer {bearer}\r\n");
    let absolute = format!("http://evil.example:{port}{}", url.path());
    let strange_hosts = hosts.iter().map(|lines| (lines.clone(), None));
    let pages = origins.iter().map(|origin| (format!("{here}{origin}"), None));
    let rebound = [(here.clone(), Some(absolute.as_str()))];
    let mut asked = 0;
    for (lines, target) in strange_hosts.chain(pages).chain(rebound) {
        for method in METHODS {
            for path in [url.path(), "/mcp", "/", "/favicon.ico", "/.well-known/mcpx", "/x/mcp"] {
                let what = format!("{method} {path} {lines:?}");
                let lines = format!("{lines}{bearer}");
                let (status, answer) =
                    send(to, &request(method, target.unwrap_or(path), &lines, &body))?;
                assert_eq!(status, 403, "{what}: {answer}");
                gives_no_leave(&what, &answer);
                asked += 1;
            }
        }
    }
    assert!(asked > 1000, "{asked}");
    // Asking for leave is what pages do, whatever they say of themselves.
    let (status, answer) = send(to, &request("OPTIONS", url.path(), &here, ""))?;
    assert_eq!(status, 403, "{answer}");
    assert_eq!(server.leaves_of("call").len(), 0, "a stranger reached the gateway");

    for lines in [
        here.clone(),
        format!("host: localhost:{port}\r\n"),
        format!("host: LocalHost:{port}\r\n"),
        format!("host: [::1]:{port}\r\n"),
        format!("{here}{own}"),
    ] {
        let (status, answer) = send(to, &request("POST", url.path(), &lines, &body))?;
        // The ledger wants a session, and says so: it was reached.
        assert!(status != 403 && answer.contains("jsonrpc"), "{lines:?}: {answer}");
        gives_no_leave(&lines, &answer);
    }
    assert!(!server.leaves_of("call").is_empty());
    Ok(())
}

fn pages_at_the_gateway(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let ledger = world.ledger()?;
    let server = Site::new(world, &idp).http("ledger", &ledger.url).start()?;
    let host = server.url.trim_start_matches("http://").to_owned();
    let to: SocketAddr = host.parse()?;
    let body = raw::call("note", &json!({"text": "page"}));
    let own = format!("origin: {}\r\n", server.url);
    let origins = [
        "origin: https://evil.example\r\n".to_owned(),
        "origin: null\r\n".to_owned(),
        "origin:\r\n".to_owned(),
        format!("origin: {}.evil.example\r\n", server.url),
        format!("{own}origin: https://evil.example\r\n"),
        format!("{own}{own}"),
    ];
    for origin in &origins {
        let lines = format!("host: {host}\r\n{origin}");
        for method in METHODS {
            for path in ["/mcp/ledger", "/mcp/nowhere"] {
                let what = format!("{method} {path} {origin:?}");
                let (status, answer) = send(to, &request(method, path, &lines, &body))?;
                assert_eq!(status, 403, "{what}: {answer}");
                gives_no_leave(&what, &answer);
            }
            for path in ["/", "/api/me", "/oauth/token", "/.well-known/mcpx", "/healthz"] {
                let (_, answer) = send(to, &request(method, path, &lines, ""))?;
                gives_no_leave(path, &answer);
            }
        }
    }
    // Without a page: no grant, no call.
    for method in METHODS {
        let lines = format!("host: {host}\r\n");
        let (status, answer) = send(to, &request(method, "/mcp/ledger", &lines, &body))?;
        assert_eq!(status, 401, "{method}: {answer}");
        gives_no_leave(method, &answer);
    }
    assert!(world.executed().is_empty());
    server.verify()?.exits(0);
    Ok(())
}
