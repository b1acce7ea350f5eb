//! An operator runs the server: over TLS, watched by a health check, and stopped in an orderly way.

use serde_json::json;

use crate::support::{Authority, Client, Person, Site, World, http};

crate::stories![over_tls, a_health_check, a_good_configuration];

fn over_tls(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let ledger = world.ledger()?;
    let Authority { authority, tls, .. } = Authority::new(world)?;
    let server = Site::new(world, &idp).http("ledger", &ledger.url).extra(&tls).start()?;
    assert!(server.url.starts_with("https://127.0.0.1:"), "{}", server.url);

    // Without the authority nobody gets as far as a login.
    let stranger = Person::new(world, "stranger")?;
    let arguments = ["login", "--server", &server.url, "--insecure-file", "--no-browser"];
    stranger.run(&arguments)?.exits(7);

    let mut alice = Person::new(world, "alice")?;
    alice.trust(&authority);
    let login = alice.login(&server)?;
    idp.approve(&login.address, "alice")?;
    login.proc.finish()?.exits(0);
    let arguments = json!({"text": "under TLS"});
    let seen = alice.call(Client::TypeScript2, "ledger", "note", &arguments)?;
    assert_eq!(seen.text(), "noted: under TLS");
    alice.run(&["audit", "verify"])?.exits(0);
    // The handshake that failed is on record.
    let refused = server.leaves_of("refused");
    assert!(refused.iter().any(|leaf| leaf["stage"] == "tls"), "{refused:#?}");
    Ok(())
}

fn a_health_check(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let mut server = Site::new(world, &idp).start()?;
    let ask = |path: &str| -> anyhow::Result<(u16, String)> {
        http::block(async {
            let answer = http::client().get(format!("{}{path}", server.url)).send().await?;
            Ok((answer.status().as_u16(), answer.text().await?))
        })
    };
    assert_eq!(ask("/healthz")?, (200, "ok\n".to_owned()));
    assert_eq!(ask("/readyz")?, (200, "ready\n".to_owned()));
    assert_eq!(ask("/nothing")?.0, 404);
    server.proc.terminate();
    assert!(server.proc.wait()?.success(), "an orderly stop is a success");
    Ok(())
}

fn a_good_configuration(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let ledger = world.ledger()?;
    let config = Site::new(world, &idp).http("ledger", &ledger.url).write()?;
    let config = config.display().to_string();
    let operator = Person::new(world, "operator")?;
    let output = operator.run(&["serve", "--config", &config, "--check"])?.exits(0);
    assert!(output.stdout.contains("ledger") && output.stdout.contains("corp"), "{output:#?}");
    let output = operator.run(&["serve", "--config", &config, "--check", "--json"])?.exits(0);
    let checked: serde_json::Value = serde_json::from_str(&output.stdout)?;
    assert_eq!(checked["connections"], json!(["ledger"]));
    Ok(())
}
