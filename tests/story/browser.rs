//! Somebody logs in through a browser on their own machine.

use std::time::Duration;

use reqwest::Url;
use serde_json::json;

use crate::support::browser::Browser;
use crate::support::{Idp, Person, Proc, Quirky, Site, Skip, World, debian, http};

crate::stories![
    logging_in_through_a_browser,
    strangers_at_the_port,
    a_browser_that_comes_back_wrong,
    a_person_who_says_no_in_the_browser,
    a_provider_without_codes,
    a_desk_and_a_session_over_ssh,
    what_the_operator_has_set_up,
];

fn logging_in_through_a_browser(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let server = Site::new(world, &idp).http("ledger", "http://127.0.0.1:9/mcp").start()?;
    let alice = Person::new(world, "alice")?;
    idp.set("id-seconds/2")?;
    let login = alice.login_through_browser(&server, None)?;
    let address = Url::parse(&login.address)?;
    let asked = |name: &str| {
        address.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
    };
    assert_eq!(asked("code_challenge_method").as_deref(), Some("S256"));
    assert_eq!(asked("response_type").as_deref(), Some("code"));
    assert!(asked("nonce").is_some_and(|nonce| nonce.len() >= 16));
    assert!(asked("state").is_some_and(|state| state.len() >= 16));
    assert!(asked("resource").is_none(), "some providers refuse it");
    let back = Url::parse(&asked("redirect_uri").unwrap_or_default())?;
    assert_eq!((back.host_str(), back.path()), (Some("127.0.0.1"), "/callback"));

    let page = idp.sign_in(&login.address, "alice")?;
    assert!(page.says("You can close this page"), "{page:#?}");
    assert!(page.url.as_str().starts_with(back.as_str()), "{page:#?}");
    login.proc.finish()?.exits(0);
    // One answer, and nobody listens any more.
    assert!(http::send(http::client().get(page.url)).is_err(), "the port is still open");
    let status = alice.run(&["status", "--json"])?.exits(0);
    assert!(status.stdout.contains("alice@example.test"), "{status:#?}");
    assert!(alice.run(&["ls"])?.exits(0).stdout.contains("ledger"));
    // It renews itself as any other.
    std::thread::sleep(Duration::from_secs(2));
    alice.run(&["ls"])?.exits(0);
    let stats = idp.stats()?;
    assert_eq!((&stats["refreshed"], &stats["revoked"]), (&json!(1), &json!(0)), "{stats}");
    Ok(())
}

fn strangers_at_the_port(world: &World) -> anyhow::Result<()> {
    let quirky = Quirky::start(world)?;
    let server = Site::new(world, &quirky.plain).start()?;
    let alice = Person::new(world, "alice")?;
    let login = alice.login_through_browser(&server, None)?;
    let back = redirect_of(&login.address)?;
    let port = back.port().unwrap_or_default();
    let get = |path: &str| http::client().get(format!("http://127.0.0.1:{port}{path}"));
    let strangers = [
        (get("/"), 404),
        (get("/favicon.ico"), 404),
        (get("/callback"), 400),
        (get("/callback?code=stolen&state=guessed"), 400),
        (get("/callback?error=access_denied"), 400),
        (get("/callback?error=access_denied&state="), 400),
        (get("/callback?state=a&state=b&code=c"), 400),
        (get("/callback").header("host", "evil.example"), 403),
        (http::client().post(back.clone()).body("code=stolen"), 405),
        (get(&format!("/callback?{}", "x".repeat(9000))), 400),
    ];
    for (request, status) in strangers {
        let answer = http::send(request)?;
        assert_eq!(answer.status, status, "{answer:#?}");
        assert!(!answer.body.contains("stolen"), "{answer:#?}");
    }
    // Bytes that are no HTTP at all, and somebody who connects and says nothing.
    let _silent = std::net::TcpStream::connect(("127.0.0.1", port))?;
    std::io::Write::write_all(
        &mut std::net::TcpStream::connect(("127.0.0.1", port))?,
        b"\x16\x03\x01\x00\xff\r\n\r\n",
    )?;
    let page = Browser::default().open(&login.address)?;
    assert!(page.says("You can close this page"), "{page:#?}");
    login.proc.finish()?.exits(0);
    alice.run(&["status"])?.exits(0);
    Ok(())
}

fn a_browser_that_comes_back_wrong(world: &World) -> anyhow::Result<()> {
    let quirky = Quirky::start(world)?;
    let server = Site::new(world, &quirky.plain).start()?;
    let table = [
        (json!({ "iss": "other" }), "another issuer"),
        (json!({ "iss": "omitted" }), "does not name its issuer"),
        (json!({ "iss": true, "nonce": "other" }), "nonce"),
        (json!({ "nonce": "omitted" }), "nonce"),
        (json!({ "nonce": true, "deny": "consent_required" }), "it answered consent_required"),
        (json!({ "deny": null, "alg": "none" }), "not valid"),
        (json!({ "alg": "ES256", "resource": "https://x" }), "invalid_target"),
    ];
    for (n, (quirks, says)) in table.into_iter().enumerate() {
        quirky.set("plain", &quirks)?;
        let person = Person::new(world, &format!("person-{n}"))?;
        let login = person.login_through_browser(&server, None)?;
        Browser::default().open(&login.address)?;
        login.proc.finish()?.exits(1).says(says);
        person.run(&["status"])?.exits(4);
    }
    // A state that does not come back is a stranger's; so the login waits on, and can be broken off.
    quirky.set("plain", &json!({ "resource": "ignored", "state": false }))?;
    let person = Person::new(world, "stateless")?;
    let mut login = person.login_through_browser(&server, None)?;
    let page = Browser::default().open(&login.address)?;
    assert!(page.says("not the answer"), "{page:#?}");
    quirky.set("plain", &json!({ "state": true, "iss": false }))?;
    let page = Browser::default().open(&login.address)?;
    // Nothing is said of RFC 9207 now, but this login began when it was promised.
    assert!(page.says("not logged in"), "{page:#?}");
    assert!(!login.proc.wait()?.success());
    // Who never promised to name itself need not.
    let person = Person::new(world, "unnamed")?;
    let login = person.login_through_browser(&server, None)?;
    Browser::default().open(&login.address)?;
    login.proc.finish()?.exits(0);
    Ok(())
}

fn a_person_who_says_no_in_the_browser(world: &World) -> anyhow::Result<()> {
    let quirky = Quirky::start(world)?;
    let server = Site::new(world, &quirky.plain).start()?;
    quirky.set("plain", &json!({ "deny": "access_denied" }))?;
    let alice = Person::new(world, "alice")?;
    let login = alice.login_through_browser(&server, None)?;
    let page = Browser::default().open(&login.address)?;
    assert!(page.says("not logged in"), "{page:#?}");
    login.proc.finish()?.exits(4).says("denied");
    alice.run(&["status"])?.exits(4);
    Ok(())
}

fn a_provider_without_codes(world: &World) -> anyhow::Result<()> {
    let quirky = Quirky::start(world)?;
    let server = Site::new(world, &quirky.plain).start()?;
    let alice = Person::new(world, "alice")?;
    let browser =
        ["login", "--server", &server.url, "--browser", "--no-browser", "--insecure-file"];
    for quirks in [json!({ "code": false }), json!({ "code": true, "pkce": ["plain"] })] {
        quirky.set("plain", &quirks)?;
        alice.run(&browser)?.exits(1).says("mcpx login --device");
    }
    // Entra ID says nothing of PKCE, and has it.
    quirky.set("plain", &json!({ "pkce": null }))?;
    let login = alice.login_through_browser(&server, None)?;
    Browser::default().open(&login.address)?;
    login.proc.finish()?.exits(0);
    assert_eq!(quirky.seen("plain")?["authorize"]["code_challenge_method"], "S256");
    alice.run(&["login", "--browser", "--device"])?.exits(2);
    Ok(())
}

/// On a terminal with a display a browser is opened by itself; over SSH a code is shown. The terminal
/// is a real one, of `script`; the browser is a program that opens the address.
fn a_desk_and_a_session_over_ssh(world: &World) -> anyhow::Result<()> {
    if !debian::provides("command -v script", &["bsdutils"]) {
        return Err(Skip("there is no `script` to make a terminal".to_owned()).into());
    }
    let quirky = Quirky::start(world)?;
    let server = Site::new(world, &quirky.plain).start()?;
    let opened = world.dir().join("opened");
    let browser = world.write_program(
        "browser",
        &["sh", "-c", "printf %s \"$1\" > opened.tmp && mv opened.tmp opened", "browser"]
            .map(str::to_owned),
    )?;
    // `write_program` passes no arguments on; a browser is given its address.
    let text = std::fs::read_to_string(&browser)?.replace("'browser'\n", "'browser' \"$@\"\n");
    std::fs::write(&browser, text)?;
    let at = |name: &str, ssh: bool, issuer: &Idp| -> anyhow::Result<Proc> {
        assert_eq!(issuer.url, quirky.plain.url);
        let person = Person::new(world, name)?;
        let line =
            format!("{} login --server {} --insecure-file", crate::support::site::MCPX, server.url);
        let mut command = world.command("script")?;
        command.args(["-qec", &line, "/dev/null"]).env("MCPX_HOME", person.home());
        command.env("DISPLAY", ":0").env("BROWSER", &browser).env("TERM", "xterm");
        if ssh {
            command.env("SSH_CONNECTION", "192.0.2.1 50000 192.0.2.2 22");
        }
        Proc::start(world, name, command)
    };
    let mut desk = at("desk", false, &quirky.plain)?;
    let address = desk.until("opens the browser", |_| Ok(std::fs::read_to_string(&opened).ok()))?;
    assert!(address.contains("code_challenge="), "{address}");
    Browser::default().open(&address)?;
    let output = desk.finish()?.exits(0);
    assert!(output.stdout.contains("Your browser opens"), "{output:#?}");
    std::fs::remove_file(&opened)?;

    let output = at("ssh", true, &quirky.plain)?.finish()?.exits(0);
    assert!(output.stdout.contains("ABCD-EFGH"), "{output:#?}");
    assert!(!opened.exists(), "a browser was opened at the other end of the line");
    // An issuer that turns out to have no codes is logged in to with a device code.
    quirky.set("plain", &json!({ "code": false }))?;
    let output = at("fallback", false, &quirky.plain)?.finish()?.exits(0);
    assert!(output.stdout.contains("ABCD-EFGH"), "{output:#?}");
    Ok(())
}

/// `logins` and `redirect_uri` of an issuer, as the command line sees them.
fn what_the_operator_has_set_up(world: &World) -> anyhow::Result<()> {
    let quirky = Quirky::start(world)?;
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let issuers = format!(
        r#"
[[issuer]]
name = "port"
url = "{}"
redirect_uri = "http://127.0.0.1:{port}/callback"
resource = "https://mcpx.example"

[[issuer]]
name = "browser-only"
url = "{}"
logins = ["browser"]
"#,
        quirky.issuer("port"),
        quirky.issuer("browser-only")
    );
    quirky.set("port", &json!({ "resource": "https://mcpx.example" }))?;
    let server = Site::new(world, &quirky.plain).extra(&issuers).start()?;
    let alice = Person::new(world, "alice")?;
    let login = alice.login_through_browser(&server, Some("port"))?;
    assert_eq!(redirect_of(&login.address)?.port(), Some(port));
    // The port is taken while somebody logs in; who comes second is told what to do.
    let bob = Person::new(world, "bob")?;
    let arguments = ["login", "--server", &server.url, "--issuer", "port", "--browser"];
    let second = bob.run(&[&arguments[..], &["--no-browser", "--insecure-file"]].concat())?;
    second.exits(1).says(&port.to_string()).says("mcpx login --device");
    Browser::default().open(&login.address)?;
    login.proc.finish()?.exits(0);
    assert_eq!(quirky.seen("port")?["authorize"]["resource"], "https://mcpx.example");
    // Where there is only the browser, it is taken without a terminal, too.
    let carol = Person::new(world, "carol")?;
    let arguments = ["login", "--server", &server.url, "--issuer", "browser-only", "--json"];
    let flags = ["--no-browser", "--insecure-file"];
    let mut login = carol.start(&[&arguments[..], &flags].concat())?;
    let shown = login.first_json_line()?;
    Browser::default().open(shown["authorization_uri"].as_str().unwrap_or_default())?;
    login.finish()?.exits(0);
    Ok(())
}

fn redirect_of(address: &str) -> anyhow::Result<Url> {
    let address = Url::parse(address)?;
    let back = address.query_pairs().find(|(key, _)| key == "redirect_uri");
    Ok(Url::parse(&back.map(|(_, value)| value.into_owned()).unwrap_or_default())?)
}
