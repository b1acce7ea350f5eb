//! Strangers at the port, and the one answer.

use proptest::prelude::*;

use super::*;

const ISSUER: &str = "https://id.example/realms/corp";

fn door(issuer_is_named: bool) -> (Door, oneshot::Receiver<Result<Secret, LoginError>>) {
    let (send, receive) = oneshot::channel();
    let expected =
        Expected { state: Secret::new("s3cret"), issuer: ISSUER.to_owned(), issuer_is_named };
    let door = Door {
        path: "/callback".to_owned(),
        host: "127.0.0.1:4711".to_owned(),
        expected,
        answer: Mutex::new(Some(send)),
    };
    (door, receive)
}

fn knock_at(door: &Door, method: &str, target: &str, host: Option<&str>) -> String {
    let method = method.parse().unwrap();
    match door.judge(&method, &target.parse().unwrap(), host) {
        Knock::Stranger(status) => status.as_u16().to_string(),
        Knock::Answer(Ok(code)) => format!("code {}", code.expose()),
        Knock::Answer(Err(error)) => error.to_string(),
    }
}

#[test]
fn only_who_knows_the_state_answers() {
    let iss = "iss=https%3A%2F%2Fid.example%2Frealms%2Fcorp";
    let table = [
        ("GET", "/callback?state=s3cret&code=abc", "code abc"),
        ("GET", &format!("/callback?code=abc&state=s3cret&{iss}&session_state=x"), "code abc"),
        ("GET", "/callback?code=abc", "400"),
        ("GET", "/callback?state=&code=abc", "400"),
        ("GET", "/callback?state=s3crey&code=abc", "400"),
        ("GET", "/callback?state=s3cret&state=s3cret&code=abc", "400"),
        ("GET", "/callback?state=s3cret&code=abc&code=def", "400"),
        ("GET", "/callback", "400"),
        ("GET", "/callback/?state=s3cret&code=abc", "404"),
        ("GET", "/favicon.ico", "404"),
        ("GET", "/?state=s3cret&code=abc", "404"),
        ("POST", "/callback?state=s3cret&code=abc", "405"),
        ("HEAD", "/callback?state=s3cret&code=abc", "405"),
        ("GET", "/callback?error=access_denied", "400"),
        ("GET", "/callback?error=access_denied&state=s3cret", "the login was denied"),
    ];
    for (method, target, expected) in table {
        let (door, _receive) = door(false);
        assert_eq!(knock_at(&door, method, target, Some("127.0.0.1:4711")), expected, "{target}");
        for host in [None, Some("evil.example:4711"), Some("localhost:4711"), Some("127.0.0.1")] {
            assert_eq!(knock_at(&door, method, target, host), "403", "{host:?}");
        }
    }
}

#[test]
fn who_answers_is_who_was_asked() {
    let table = [
        (true, "state=s3cret&code=abc", "does not name its issuer"),
        (true, "state=s3cret&error=access_denied", "does not name its issuer"),
        (false, "state=s3cret&code=abc&iss=https%3A%2F%2Fevil.example", "another issuer"),
        (true, "state=s3cret&code=abc&iss=https%3A%2F%2Fid.example%2Frealms%2Fcorp%2F", "another"),
        (
            false,
            "state=s3cret&error=server_error&error_description=a%1b[2Jb",
            "server_error: a[2Jb",
        ),
        (false, "state=s3cret&error=consent_required", "it answered consent_required"),
        (false, "state=s3cret", "neither a code nor an error"),
        (false, "state=s3cret&code=", "neither a code nor an error"),
        (false, "state=s3cret&code=a&error=b", "neither a code nor an error"),
    ];
    for (named, query, expected) in table {
        let (door, _receive) = door(named);
        let said = knock_at(&door, "GET", &format!("/callback?{query}"), Some("127.0.0.1:4711"));
        assert!(said.contains(expected), "{query}: {said}");
    }
}

#[tokio::test]
async fn one_answer_and_the_port_is_closed() {
    let loopback = Loopback::bind("http://127.0.0.1/callback").await.unwrap();
    let uri = loopback.redirect_uri().to_owned();
    let expected = Expected {
        state: Secret::new("s3cret"),
        issuer: ISSUER.to_owned(),
        issuer_is_named: false,
    };
    let waiting = tokio::spawn(loopback.answer(expected));
    let get = async |query: &str| {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        client.get(format!("{uri}?{query}")).send().await
    };
    for _ in 0..20 {
        assert_eq!(get("state=guess&code=x").await.unwrap().status(), 400);
    }
    let good = get("state=s3cret&code=%3Cb%3E").await.unwrap();
    assert_eq!(good.status(), 200);
    assert_eq!(good.headers()["cache-control"], "no-store");
    assert!(!good.text().await.unwrap().contains("<b>"), "the page repeats what came");
    assert_eq!(waiting.await.unwrap().unwrap().expose(), "<b>");
    assert!(get("state=s3cret&code=y").await.is_err(), "the port is still open");

    // A login that is broken off closes its port.
    let loopback = Loopback::bind("http://127.0.0.1/callback").await.unwrap();
    let uri = loopback.redirect_uri().to_owned();
    let expected =
        Expected { state: Secret::new("x"), issuer: String::new(), issuer_is_named: false };
    drop(loopback.answer(expected));
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    while client.get(&uri).send().await.is_ok() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn only_loopback_is_bound() {
    for bad in ["https://127.0.0.1/x", "http://0.0.0.0/x", "http://id.example/x", "x", ""] {
        let refused = Loopback::bind(bad).await;
        assert!(matches!(refused, Err(LoginError::UnsafePrompt { .. })), "{bad}");
    }
    // A port that is registered and taken is named.
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = taken.local_addr().unwrap().port();
    let refused = Loopback::bind(&format!("http://127.0.0.1:{port}/callback")).await;
    let error = refused.err().unwrap().to_string();
    assert!(error.contains(&port.to_string()) && error.contains("--device"), "{error}");
}

proptest! {
    #[test]
    fn no_query_opens_the_door_without_the_state(query in "[ -~]{0,80}") {
        let (door, _receive) = door(false);
        let parameters = Parameters::read(&query);
        let known = parameters.as_ref().is_some_and(|p| p.state.as_deref() == Some("s3cret"));
        if let Some(parameters) = parameters {
            prop_assert_eq!(matches!(door.read(parameters), Knock::Answer(_)), known);
        }
    }
}
