//! The parts of others without `mcpx` between them. When these pass and another story fails, the
//! fault lies with `mcpx`; when these fail, with a part.

use serde_json::{Value, json};

use crate::support::{Client, Target, World, http};

crate::stories![
    every_client_reaches_every_http_server,
    every_client_reaches_every_stdio_server,
    a_person_signs_in_at_the_identity_provider,
    a_replayed_refresh_token_ends_the_login,
    keys_rotate_and_people_leave,
];

fn every_client_reaches_every_http_server(world: &World) -> anyhow::Result<()> {
    let everything = world.everything()?;
    let dbhub = world.dbhub()?;
    let ledger = world.ledger()?;
    for client in Client::ALL {
        let call = |url: &str, tool, arguments| {
            client.call(world, world.dir(), &Target::Url(url.to_owned()), tool, &arguments)
        };
        let seen = call(&everything.url, "echo", json!({"message": "hi"}))?;
        assert_eq!(seen.text(), "Echo: hi", "{client:?}");
        assert!(seen.tools.contains(&"get-sum".to_owned()), "{client:?}: {seen:?}");
        let seen = call(&dbhub.url, "execute_sql", json!({"sql": "select ssn from customers"}))?;
        assert!(seen.text().contains("078-05-1120"), "{client:?}: {seen:?}");
        let newest = matches!(client, Client::Python | Client::TypeScript2);
        assert_eq!(seen.protocol.as_deref() == Some("2026-07-28"), newest, "{client:?}");
        let seen = call(&ledger.url, "customer", json!({"id": 1}))?;
        assert_eq!(seen.result["structuredContent"]["name"], "Ada Moreno", "{client:?}: {seen:?}");
    }
    assert_eq!(world.executed().len(), Client::ALL.len());
    Ok(())
}

fn every_client_reaches_every_stdio_server(world: &World) -> anyhow::Result<()> {
    let everything = world.everything_stdio()?;
    let dbhub = world.dbhub_stdio()?;
    let git = world.git_stdio()?;
    for client in Client::ALL {
        let call = |command: &[String], tool, arguments| {
            let target = Target::Command(command.to_vec());
            client.call(world, world.dir(), &target, tool, &arguments)
        };
        let seen = call(&everything, "echo", json!({"message": "hi"}))?;
        assert_eq!(seen.text(), "Echo: hi", "{client:?}");
        let seen = call(&dbhub, "execute_sql", json!({"sql": "select name from customers"}))?;
        assert!(seen.text().contains("Chidi Okafor"), "{client:?}: {seen:?}");
        let repository = json!({"repo_path": world.repository()});
        let seen = call(&git, "git_log", repository)?;
        assert!(seen.text().contains("Begin the story"), "{client:?}: {seen:?}");
    }
    Ok(())
}

fn a_person_signs_in_at_the_identity_provider(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let (address, code) = idp.ask_device_code()?;
    assert_eq!(idp.poll(&code)?["error"], "authorization_pending");
    idp.approve(&address, "alice")?;
    let tokens = idp.poll(&code)?;
    assert!(tokens["refresh_token"].is_string(), "{tokens}");

    let (address, code) = idp.ask_device_code()?;
    idp.refuse(&address)?;
    assert_eq!(idp.poll(&code)?["error"], "access_denied");

    idp.set("device-seconds/1")?;
    let (_, code) = idp.ask_device_code()?;
    idp.set("slow-down/1")?;
    assert_eq!(idp.poll(&code)?["error"], "slow_down");
    std::thread::sleep(std::time::Duration::from_secs(2));
    assert_eq!(idp.poll(&code)?["error"], "expired_token");
    Ok(())
}

fn a_replayed_refresh_token_ends_the_login(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let first = refresh_token(&idp.tokens("alice")?);
    let second = refresh_token(&idp.refresh(&first)?);
    assert_ne!(second, first, "refresh tokens do not rotate");
    assert_eq!(idp.refresh(&first)?["error"], "invalid_grant");
    assert_eq!(idp.refresh(&second)?["error"], "invalid_grant");
    let stats = idp.stats()?;
    assert_eq!((&stats["refreshed"], &stats["revoked"]), (&json!(1), &json!(1)));
    Ok(())
}

fn keys_rotate_and_people_leave(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let keys = || -> anyhow::Result<usize> {
        let answer = http::send(http::client().get(format!("{}/jwks", idp.url)))?;
        Ok(answer.json()["keys"].as_array().map_or(0, Vec::len))
    };
    let bob = refresh_token(&idp.tokens("bob")?);
    idp.set("rotate")?;
    assert_eq!(keys()?, 2);
    idp.set("drop-old")?;
    assert_eq!(keys()?, 1);
    let refreshed = idp.refresh(&bob)?;
    assert!(refreshed["id_token"].is_string(), "a login does not outlive a key: {refreshed}");
    idp.remove("bob")?;
    assert_eq!(idp.refresh(&refresh_token(&refreshed))?["error"], "invalid_grant");
    Ok(())
}

fn refresh_token(tokens: &Value) -> String {
    tokens["refresh_token"].as_str().unwrap_or_else(|| panic!("no refresh token: {tokens}")).into()
}
