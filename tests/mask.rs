//! `mcpx mask`: somebody tries what masking does, without a server.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

fn mcpx(args: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_mcpx"))
        .args(args)
        .env_remove("MCPX_CONFIG")
        .env_remove("CLICOLOR_FORCE")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    let writing = std::thread::spawn(move || drop(stdin.write_all(input.as_bytes())));
    let output = child.wait_with_output().unwrap();
    writing.join().unwrap();
    output
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn messages_are_masked_line_for_line() {
    let input = concat!(
        r#"{"jsonrpc":"2.0","id":"078-05-1120","result":{"ssn":"078-05-1120","n":1e400}}"#,
        "\n\n",
        r#"{"jsonrpc":"2.0","id":2,"result":{"order_id":"4111"}}"#,
        "\r\nssn 078-05-1120, which is no message\n",
        r#"{"jsonrpc":"2.0","id":3,"result":{"content":[{"type":"text","text":"ada@example.org"}]}}"#,
    );
    let output = mcpx(&["mask", "try", "--jsonl", "--explain"], input);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(
        stdout(&output),
        concat!(
            // An id is protocol, and every other byte stays.
            r#"{"jsonrpc":"2.0","id":"078-05-1120","result":{"ssn":"***-**-1120","n":1e400}}"#,
            "\n\n",
            r#"{"jsonrpc":"2.0","id":2,"result":{"order_id":"4111"}}"#,
            "\n",
            r#"{"error":"cannot mask the message: it is not JSON"}"#,
            "\n",
            r#"{"jsonrpc":"2.0","id":3,"result":{"content":[{"type":"text","text":"a***@masked.invalid"}]}}"#,
            "\n",
        )
    );
    let told = stderr(&output);
    assert!(told.contains("line 1  pii.ssn  /result/ssn"), "{told}");
    assert!(told.contains("line 5  pii.email  /result/content/0/text"), "{told}");
    assert!(told.contains("one piece of the input could not be masked"), "{told}");
    assert!(!told.contains("078-05"), "{told}");
}

#[test]
fn texts_are_masked_line_for_line() {
    let input = "ssn: 078-05-1120\n\n{\"password\":\"hunter22\"}\nplain\n";
    let output = mcpx(&["mask", "try", "--jsonl", "--text"], input);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let masked = "ssn: ***-**-1120\n\n{\"password\":\"[secret.password masked]\"}\nplain\n";
    assert_eq!(stdout(&output), masked);
}

#[test]
fn a_file_is_taken_for_what_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let data = file("rows.json", r#"[{"id":7,"email":"ada@example.org"}]"#);
    let output = mcpx(&["mask", "try", &data], "");
    assert_eq!(stdout(&output), "[{\"id\":7,\"email\":\"a***@masked.invalid\"}]\n");
    let log = file("app.log", "to ada@example.org\nno line end");
    let output = mcpx(&["mask", "try", &log], "");
    assert_eq!(stdout(&output), "to a***@masked.invalid\nno line end");
    let output = mcpx(&["mask", "try", "--text", "--json", &log], "");
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["masked"], "to a***@masked.invalid\nno line end");
    assert_eq!(json["findings"][0]["class"], "pii.email");
    let missing = mcpx(&["mask", "try", "/nowhere/at/all"], "");
    assert_eq!(missing.status.code(), Some(1));
    assert!(stderr(&missing).contains("/nowhere/at/all"), "{missing:?}");
}

#[test]
fn the_rules_of_a_configuration_count() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("mcpx.toml");
    let path = config.display().to_string();
    let server = "[server]\nlisten = \"127.0.0.1:0\"\ndata_dir = \"data\"\n";
    std::fs::write(&config, format!("{server}[masking]\noff = [\"pii.email\"]\n")).unwrap();
    let output = mcpx(&["mask", "try", "--config", &path], "ada@example.org 078-05-1120");
    assert_eq!(stdout(&output), "ada@example.org ***-**-1120");
    let listed = mcpx(&["mask", "classes", "--config", &path, "--json"], "");
    let classes: Vec<serde_json::Value> = serde_json::from_slice(&listed.stdout).unwrap();
    let off: Vec<_> = classes.iter().filter(|class| class["masked"] == false).collect();
    assert_eq!(off.len(), 1);
    assert_eq!(off[0]["class"], "pii.email");
    std::fs::write(&config, format!("{server}[masking]\noff = [\"pii.emial\"]\n")).unwrap();
    let refused = mcpx(&["mask", "try", "--config", &path], "ada@example.org");
    assert_ne!(refused.status.code(), Some(0));
    let told = stderr(&refused);
    assert!(told.contains("pii.emial") && told.contains("mcpx.toml:"), "{told}");
    assert!(stdout(&refused).is_empty());
}
