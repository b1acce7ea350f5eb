//! Somebody logs in with a device code, works, and logs out.

use std::time::Duration;

use std::os::unix::fs::PermissionsExt as _;

use crate::support::site::files;
use crate::support::{Person, Proc, Site, World};

crate::stories![
    logging_in_working_and_logging_out,
    a_login_that_is_refused,
    a_code_that_expires,
    a_provider_that_tells_no_interval,
    a_provider_that_says_slow_down,
    many_commands_share_one_rotating_login,
    somebody_who_has_left_the_organisation,
    a_provider_that_changed_its_keys,
    a_server_that_is_not_there,
];

fn logging_in_working_and_logging_out(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let ledger = world.ledger()?;
    let server = Site::new(world, &idp).http("ledger", &ledger.url).start()?;
    let alice = Person::new(world, "alice")?;
    alice.run(&["status"])?.exits(4);
    alice.run(&["ls"])?.exits(4).says("mcpx login");

    let login = alice.login(&server)?;
    assert!(login.shown["user_code"].as_str().is_some_and(|code| !code.is_empty()));
    assert!(login.shown["verification_uri"].as_str().is_some_and(|uri| uri.starts_with(&idp.url)));
    idp.approve(&login.address, "alice")?;
    let output = login.proc.finish()?.exits(0);
    assert_eq!(output.json_lines().len(), 2, "prompt and result: {output:#?}");

    let status = alice.run(&["status", "--json"])?.exits(0);
    assert!(status.stdout.contains("alice@example.test"), "{status:#?}");
    assert!(alice.run(&["ls"])?.exits(0).stdout.contains("ledger"));

    let kept = files(alice.home());
    assert!(!kept.is_empty());
    for file in kept {
        let mode = file.metadata()?.permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{} has mode {mode:o}", file.display());
    }
    alice.run(&["logout"])?.exits(0);
    alice.run(&["ls"])?.exits(4);
    for file in files(alice.home()) {
        let text = String::from_utf8_lossy(&std::fs::read(&file)?).into_owned();
        assert!(!text.contains("eyJ"), "{} still holds a token", file.display());
    }
    Ok(())
}

fn a_login_that_is_refused(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let server = Site::new(world, &idp).start()?;
    let alice = Person::new(world, "alice")?;
    let login = alice.login(&server)?;
    idp.refuse(&login.address)?;
    let output = login.proc.finish()?;
    assert_ne!(output.code, 0, "{output:#?}");
    output.says("denied");
    alice.run(&["status"])?.exits(4);
    Ok(())
}

fn a_code_that_expires(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let server = Site::new(world, &idp).start()?;
    idp.set("device-seconds/2")?;
    let alice = Person::new(world, "alice")?;
    alice.login(&server)?.proc.finish()?.exits(4).says("expired");
    alice.run(&["status"])?.exits(4);
    Ok(())
}

fn a_provider_that_tells_no_interval(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let server = Site::new(world, &idp).start()?;
    idp.set("interval/0")?;
    let alice = Person::new(world, "alice")?;
    let login = alice.login(&server)?;
    idp.approve(&login.address, "alice")?;
    login.proc.finish()?.exits(0);
    // RFC 8628, section 3.2: without an interval, poll every five seconds. The first try may come
    // at once; approval took less than two intervals.
    assert!(idp.stats()?["token"].as_u64() <= Some(2), "polled too often: {}", idp.stats()?);
    Ok(())
}

fn a_provider_that_says_slow_down(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let server = Site::new(world, &idp).start()?;
    idp.set("slow-down/1")?;
    Person::logged_in(world, "alice", &server, &idp)?;
    Ok(())
}

fn many_commands_share_one_rotating_login(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let ledger = world.ledger()?;
    let server = Site::new(world, &idp).http("ledger", &ledger.url).start()?;
    // So short that every command has to refresh; a refresh token that is used twice would end
    // the login for all of them.
    idp.set("id-seconds/2")?;
    let alice = Person::logged_in(world, "alice", &server, &idp)?;
    for _round in 0..2 {
        std::thread::sleep(Duration::from_secs(2));
        let commands: Vec<Proc> =
            (0..6).map(|_| alice.start(&["ls", "--json"])).collect::<Result<_, _>>()?;
        for command in commands {
            command.finish()?.exits(0);
        }
    }
    let stats = idp.stats()?;
    assert!(stats["refreshed"].as_u64() >= Some(2), "nothing was refreshed: {stats}");
    assert_eq!(stats["revoked"], 0, "a refresh token was used twice: {stats}");
    Ok(())
}

fn somebody_who_has_left_the_organisation(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let server = Site::new(world, &idp).start()?;
    idp.set("id-seconds/2")?;
    let carol = Person::logged_in(world, "carol", &server, &idp)?;
    carol.run(&["ls"])?.exits(0);
    idp.remove("carol")?;
    std::thread::sleep(Duration::from_secs(2));
    carol.run(&["ls"])?.exits(4).says("mcpx login");
    Ok(())
}

fn a_provider_that_changed_its_keys(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let server = Site::new(world, &idp).start()?;
    let alice = Person::logged_in(world, "alice", &server, &idp)?;
    alice.run(&["ls"])?.exits(0);
    idp.set("rotate")?;
    let carol = Person::logged_in(world, "carol", &server, &idp)?;
    carol.run(&["ls"])?.exits(0);
    alice.run(&["ls"])?.exits(0);
    Ok(())
}

fn a_server_that_is_not_there(world: &World) -> anyhow::Result<()> {
    let alice = Person::new(world, "alice")?;
    let arguments = ["login", "--server", "http://127.0.0.1:9", "--insecure-file", "--no-browser"];
    alice.run(&arguments)?.exits(7).says("127.0.0.1:9");
    // Sending a login over plain HTTP to another machine is refused before anything is sent.
    let arguments = ["login", "--server", "http://mcpx.example", "--insecure-file", "--no-browser"];
    let output = alice.run(&arguments)?;
    assert_ne!(output.code, 0, "{output:#?}");
    output.says("https");
    Ok(())
}
