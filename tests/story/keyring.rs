//! Somebody's tokens are kept by the keyring of their desktop: a real Secret Service, GNOME's.

use std::path::Path;

use crate::support::site::files;
use crate::support::{Person, Proc, Quirky, Site, Skip, World, debian};

crate::stories![
    a_login_kept_by_a_secret_service,
    a_login_kept_by_the_kernel,
    a_machine_without_a_keyring,
    a_file_that_others_could_read,
];

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
    output.says("--insecure-file").says("--keyutils");
    alice.run(&["status"])?.exits(4);
    assert!(!files(alice.home()).iter().any(|file| file.ends_with("tokens")));
    Ok(())
}

/// `--keyutils`, from one login session of the operating system to the next.
fn a_login_kept_by_the_kernel(world: &World) -> anyhow::Result<()> {
    // Containers often may not ask the kernel for keys.
    if !debian::provides("keyctl session - keyctl get_persistent @s", &["keyutils"]) {
        return Err(Skip("the kernel keeps no keys for us here".to_owned()).into());
    }
    let quirky = Quirky::start(world)?;
    let server =
        Site::new(world, &quirky.plain).http("ledger", "http://127.0.0.1:9/mcp").start()?;
    let alice = Person::new(world, "alice")?;
    let in_session = |arguments: &[&str]| {
        let mut session = world.command("keyctl")?;
        session.args(["session", "-", crate::support::site::MCPX]).args(arguments);
        session.env("MCPX_HOME", alice.home());
        Proc::run(world, "keyctl session", session)
    };
    let login = ["login", "--server", &server.url, "--no-browser", "--keyutils", "--json"];
    let output = in_session(&login)?.exits(0);
    assert!(output.stdout.contains("\"storage\":\"keyutils\""), "{output:#?}");
    for file in files(alice.home()) {
        let text = std::fs::read_to_string(&file)?;
        assert!(!text.contains("eyJ"), "{} holds a readable token", file.display());
    }
    assert!(in_session(&["ls"])?.exits(0).stdout.contains("ledger"));
    // Somebody with the files and without the kernel's key has nothing; so has a rebooted machine.
    let sealed = std::fs::read(alice.home().join("tokens"))?;
    in_session(&["logout"])?.exits(0);
    in_session(&login)?.exits(0);
    std::fs::write(alice.home().join("tokens"), sealed)?;
    in_session(&["ls"])?.exits(4).says("mcpx login");
    in_session(&["logout"])?.exits(0);
    in_session(&["ls"])?.exits(4);
    Ok(())
}

/// The mode and the owner are looked at each time; the error says how to mend them.
fn a_file_that_others_could_read(world: &World) -> anyhow::Result<()> {
    use std::os::unix::fs::{PermissionsExt as _, chown};
    let quirky = Quirky::start(world)?;
    let server =
        Site::new(world, &quirky.plain).http("ledger", "http://127.0.0.1:9/mcp").start()?;
    let alice = Person::new(world, "alice")?;
    let login = ["login", "--server", &server.url, "--no-browser", "--insecure-file"];
    alice.run(&login)?.exits(0).says("unencrypted");
    alice.run(&["ls"])?.exits(0);
    let chmod = |name: &str, mode| {
        std::fs::set_permissions(alice.home().join(name), std::fs::Permissions::from_mode(mode))
    };
    for file in ["tokens", "login.json"] {
        for mode in [0o640, 0o604, 0o660, 0o622] {
            chmod(file, mode)?;
            alice.run(&["ls"])?.exits(1).says(&format!("chmod 600 {}", path(&alice, file)));
        }
        chmod(file, 0o600)?;
        // Only root can give a file away.
        if chown(alice.home().join(file), Some(65_534), None).is_ok() {
            alice.run(&["ls"])?.exits(1).says(&format!("chown 0 {}", path(&alice, file)));
            chown(alice.home().join(file), Some(0), None)?;
        }
        alice.run(&["ls"])?.exits(0);
    }
    // A link to somewhere else is not the file.
    let real = alice.home().join("tokens");
    let moved = world.dir().join("elsewhere");
    std::fs::rename(&real, &moved)?;
    std::os::unix::fs::symlink(&moved, &real)?;
    alice.run(&["ls"])?.exits(1);
    std::fs::rename(&moved, &real)?;
    chmod("", 0o750)?;
    alice.run(&["ls"])?.exits(1).says("chmod 700");
    chmod("", 0o700)?;
    alice.run(&["ls"])?.exits(0);
    Ok(())
}

fn path(person: &Person, file: &str) -> String {
    person.home().join(file).display().to_string()
}
