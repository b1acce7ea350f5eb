//! Somebody's tokens are kept by the keyring of their desktop: a real Secret Service, GNOME's.

use std::path::Path;

use crate::support::{Person, Proc, Site, Skip, World, debian};

crate::stories![a_login_kept_by_a_secret_service, a_machine_without_a_keyring];

/// One desktop session: unlocks a fresh keyring, then does what a person would type.
const SESSION: &str = r#"
printf pw | gnome-keyring-daemon --unlock --components=secrets --daemonize >/dev/null 2>&1
for _ in 1 2 3 4 5 6 7 8 9 10; do
    secret-tool lookup none none >/dev/null 2>&1; [ $? -eq 1 ] && break; sleep 0.2
done
"$MCPX" login --server "$SERVER" --no-browser --json || exit 11
"$MCPX" status >&2 || exit 12
"$MCPX" ls --json || exit 13
"$MCPX" logout || exit 14
"$MCPX" status >&2 && exit 15
exit 0
"#;

/// What Debian calls the parts of a Secret Service.
const PACKAGES: [&str; 3] = ["gnome-keyring", "libsecret-tools", "dbus-daemon"];

/// Installs a Secret Service where there is none, or says why that cannot be.
fn secret_service() -> anyhow::Result<()> {
    let check =
        "command -v gnome-keyring-daemon && command -v secret-tool && command -v dbus-run-session";
    if debian::provides(check, &PACKAGES) {
        return Ok(());
    }
    Err(Skip("no Secret Service: gnome-keyring and dbus-run-session are missing".to_owned()).into())
}

fn a_login_kept_by_a_secret_service(world: &World) -> anyhow::Result<()> {
    secret_service()?;
    let idp = world.idp()?;
    let ledger = world.ledger()?;
    let server = Site::new(world, &idp).http("ledger", &ledger.url).start()?;
    let alice = Person::new(world, "alice")?;
    // The keyring's socket needs a short path of its own.
    let runtime = tempfile::tempdir()?;
    let mut session = world.command(Path::new("dbus-run-session"))?;
    session
        .args(["--", "sh", "-c", SESSION])
        .env("MCPX", env!("CARGO_BIN_EXE_mcpx"))
        .env("MCPX_HOME", alice.home())
        .env("SERVER", &server.url)
        .env("HOME", runtime.path())
        .env("XDG_RUNTIME_DIR", runtime.path());
    let mut session = Proc::start(world, "a desktop session", session)?;
    let shown = session.first_json_line()?;
    let address = shown["verification_uri_complete"].as_str().unwrap_or_default().to_owned();
    idp.approve(&address, "alice")?;
    let output = session.finish()?.exits(0);
    assert!(output.stdout.contains("\"storage\":\"keyring\""), "{output:#?}");
    assert!(output.stdout.contains("ledger"), "{output:#?}");
    Ok(())
}

fn a_machine_without_a_keyring(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let server = Site::new(world, &idp).start()?;
    let alice = Person::new(world, "alice")?;
    let mut login = alice.command(&["login", "--server", &server.url, "--no-browser"])?;
    login.env("DBUS_SESSION_BUS_ADDRESS", "unix:path=/nonexistent/bus");
    let output = Proc::run(world, "login without a keyring", login)?;
    assert_eq!(output.code, 1, "{output:#?}");
    output.says("--insecure-file");
    alice.run(&["status"])?.exits(4);
    Ok(())
}
