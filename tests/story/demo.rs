//! Somebody tries the program for the first time.

use serde_json::Value;

use crate::support::{Person, World};

crate::stories![the_tour, a_server_to_play_with];

fn the_tour(world: &World) -> anyhow::Result<()> {
    let visitor = Person::new(world, "visitor")?;
    let output = visitor.run(&["demo"])?.exits(0);
    for told in [
        "Logged in",
        "search_customers",
        "***-**-7315",
        "waiting for approval apr_",
        "customer 2 is deleted",
        "no-bulk-export",
        "approved by bob@example.com",
        "the audit log does not add up",
        "Everything held.",
    ] {
        assert!(output.stdout.contains(told), "{told:?} is not told: {output:#?}");
    }
    for secret in ["4111 1111 1111 1111", "219-44-7315", "ada.winters@example.com"] {
        assert!(!output.stdout.contains(secret), "{secret} got through: {output:#?}");
    }
    // Nothing is left behind unless it was asked for.
    assert!(!output.stdout.contains('\u{1b}'), "colours without a terminal");
    Ok(())
}

fn a_server_to_play_with(world: &World) -> anyhow::Result<()> {
    let visitor = Person::new(world, "visitor")?;
    let dir = world.dir().join("demo").display().to_string();
    let mut demo = visitor.start(&["demo", "--serve", "--json", "--data-dir", &dir])?;
    let ready = demo.first_json_line()?;
    let home = |name: &str| ready["people"][name]["home"].as_str().map(str::to_owned);
    let (Some(alice), Some(bob)) = (home("alice"), home("bob")) else {
        anyhow::bail!("no homes: {ready}");
    };
    // The homes hold finished logins, and the rest of the line is true.
    for (home, verb) in [(&alice, "status"), (&alice, "ls"), (&bob, "approve"), (&bob, "sessions")]
    {
        visitor.run(&["--home", home, verb])?.exits(0);
    }
    let listed = visitor.run(&["--home", &alice, "ls", "--json"])?.exits(0);
    let listed: Value = serde_json::from_str(&listed.stdout)?;
    assert_eq!(listed[0]["name"], "customers");
    let config = ready["config"].as_str().unwrap_or_default();
    visitor.run(&["serve", "--check", "--config", config])?.exits(0);
    let data = ready["data_dir"].as_str().unwrap_or_default();
    visitor.run(&["audit", "verify", "--dir", data])?.exits(0);
    demo.terminate();
    assert!(demo.wait()?.success(), "an orderly end is a success");
    Ok(())
}
