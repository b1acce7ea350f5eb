//! The command line's contract: what is generated from it is what is checked in, and the real
//! binary starts fast and fails with the promised codes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

#[path = "../examples/generate.rs"]
mod generate;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output, Stdio};

const REGENERATE: &str = "run: cargo run --example generate";

#[test]
fn manual_and_completions_are_up_to_date() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = generate::files().unwrap();
    for (path, expected) in &files {
        let found = std::fs::read(root.join(path)).unwrap_or_default();
        assert!(found == *expected, "{} is out of date; {REGENERATE}", path.display());
    }
    let expected: BTreeSet<_> = files.keys().map(|path| root.join(path)).collect();
    for folder in ["man", "completions"] {
        for entry in std::fs::read_dir(root.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            assert!(expected.contains(&path), "{} is left over; {REGENERATE}", path.display());
        }
    }
}

#[test]
fn generating_twice_gives_the_same() {
    assert_eq!(generate::files().unwrap(), generate::files().unwrap());
}

fn mcpx(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mcpx"));
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("MCPX_HOME", home)
        .stdin(Stdio::null());
    command
}

fn run(args: &[&str]) -> Output {
    let home = tempfile::tempdir().unwrap();
    mcpx(&home.path().join("home")).args(args).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn exit_codes_of_the_real_binary() {
    let cases: &[(&[&str], i32)] = &[
        (&["--help"], 0),
        (&["--version"], 0),
        (&["help-me"], 2),
        (&[], 2),
        (&["connect", "Not/A/Name"], 2),
        (&["connect", "crm", "--stdio", "--port", "1"], 2),
        (&["audit", "verify", "--dir", "x"], 2),
        (&["login"], 2),
        (&["status"], 4),
        (&["ls"], 4),
        (&["connect", "crm"], 4),
        (&["exec", "crm", "--", "true"], 4),
        (&["approve"], 4),
        (&["audit", "verify"], 4),
        (&["logout"], 0),
        (&["login", "--server", "http://127.0.0.1:9"], 7),
        (&["login", "--server", "http://mcpx.example"], 1),
        (&["policy", "check", "/nonexistent"], 1),
        (&["client", "add", "crm"], 2),
        (&["client", "add", "crm", "--to", "emacs"], 2),
        (&["client", "add", "crm", "--to", "windsurf", "--scope", "project"], 2),
    ];
    for (args, code) in cases {
        let output = run(args);
        assert_eq!(output.status.code(), Some(*code), "{args:?}: {}", text(&output.stderr));
    }
}

#[test]
fn errors_say_what_and_what_next() {
    let plain = run(&["status"]);
    assert_eq!(text(&plain.stdout), "");
    assert_eq!(text(&plain.stderr), "error: you are not logged in\nhint: run `mcpx login`\n");
    let json = run(&["status", "--json"]);
    assert_eq!(text(&json.stdout), "");
    let error: serde_json::Value = serde_json::from_slice(&json.stderr).unwrap();
    assert_eq!(error["error"]["code"], "login_needed");
    assert_eq!(error["error"]["exit_code"], 4);
    assert!(error["error"]["hint"].as_str().unwrap().contains("mcpx login"));
    let chain = run(&["login", "--server", "http://127.0.0.1:9"]);
    let chain = text(&chain.stderr);
    assert!(
        chain.starts_with("error: http://127.0.0.1:9") && chain.contains("\ncause: "),
        "{chain}"
    );
}

/// Help must not read, open or start anything, wherever it is asked for.
#[test]
fn help_touches_no_file() {
    let home = tempfile::tempdir().unwrap();
    let inside = home.path().join("home");
    let output = mcpx(&inside).args(["connect", "--help"]).output().unwrap();
    assert!(output.status.success() && !inside.exists());
}

#[test]
fn a_policy_folder_is_checked_offline() {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("a.cedar"), "permit(principal, action, resource);").unwrap();
    let check = || {
        let mut command = mcpx(&home.path().join("home"));
        command.args(["policy", "check"]).arg(home.path()).arg("--json").output().unwrap()
    };
    let good = check();
    assert!(good.status.success(), "{}", text(&good.stderr));
    let json: serde_json::Value = serde_json::from_slice(&good.stdout).unwrap();
    assert_eq!(json["policies"], 1);
    std::fs::write(home.path().join("b.cedar"), "permit(principal,\n action resource);").unwrap();
    let bad = check();
    assert_eq!(bad.status.code(), Some(1));
    assert!(text(&bad.stderr).contains("b.cedar:2"), "{}", text(&bad.stderr));
}

/// `mcpx … | head -0` is no failure.
#[cfg(unix)]
#[test]
fn a_reader_that_leaves_is_no_failure() {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("a.cedar"), "").unwrap();
    let script = r#"sleep 0.2; exec "$0" policy check "$1" --json"#;
    let mut child = Command::new("sh")
        .args(["-c", script, env!("CARGO_BIN_EXE_mcpx")])
        .arg(home.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{:?} {}", output.status, text(&output.stderr));
    assert_eq!(text(&output.stderr), "");
}
