//! `mcpx client` as a process, with a home directory of its own: what stands in each client's file
//! after an addition, and that a removal leaves no trace.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
#![cfg(unix)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

struct Machine {
    directory: tempfile::TempDir,
}

impl Machine {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        for name in ["home", "project"] {
            fs::create_dir(directory.path().join(name)).unwrap();
        }
        Self { directory }
    }

    fn path(&self, relative: &str) -> PathBuf {
        self.directory.path().canonicalize().unwrap().join(relative)
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mcpx"));
        command
            .args(line.split(' '))
            .env_clear()
            .env("HOME", self.path("home"))
            .current_dir(self.path("project"))
            .stdin(Stdio::null());
        command
    }

    fn run(&self, line: &str) -> Output {
        self.command(line).output().unwrap()
    }

    fn ok(&self, line: &str) -> Value {
        let output = self.run(&format!("{line} --json"));
        assert!(output.status.success(), "{line}: {}", text(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn refused(&self, line: &str, code: i32) -> String {
        let output = self.run(line);
        assert_eq!(output.status.code(), Some(code), "{line}: {}", text(&output.stderr));
        text(&output.stderr).to_owned()
    }
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn program() -> String {
    Path::new(env!("CARGO_BIN_EXE_mcpx")).canonicalize().unwrap().to_str().unwrap().to_owned()
}

fn system(linux: &str, macos: &str) -> String {
    if cfg!(target_os = "macos") { macos.into() } else { linux.into() }
}

/// Every client, its user's file, and its project's.
fn clients() -> Vec<(&'static str, String, Option<&'static str>)> {
    let support = "home/Library/Application Support";
    vec![
        (
            "claude-desktop",
            system(
                "home/.config/Claude/claude_desktop_config.json",
                &format!("{support}/Claude/claude_desktop_config.json"),
            ),
            None,
        ),
        ("claude-code", "home/.claude.json".into(), Some("project/.mcp.json")),
        ("cursor", "home/.cursor/mcp.json".into(), Some("project/.cursor/mcp.json")),
        (
            "vscode",
            system("home/.config/Code/User/mcp.json", &format!("{support}/Code/User/mcp.json")),
            Some("project/.vscode/mcp.json"),
        ),
        ("windsurf", "home/.codeium/windsurf/mcp_config.json".into(), None),
        ("zed", "home/.config/zed/settings.json".into(), Some("project/.zed/settings.json")),
        ("gemini-cli", "home/.gemini/settings.json".into(), Some("project/.gemini/settings.json")),
        ("codex", "home/.codex/config.toml".into(), Some("project/.codex/config.toml")),
    ]
}

/// A file as its owner left it, and where entries stand in it.
fn sample(client: &str) -> (&'static str, &'static str) {
    match client {
        "codex" => ("model = \"x\" # mine\n\n[mcp_servers.other]\nurl = \"y\"\n", "mcp_servers"),
        "zed" => ("// Zed\n{\n  \"theme\": \"One\", // mine\n}\n", "context_servers"),
        "vscode" => (
            "{\n\t\"servers\": {\n\t\t// theirs\n\t\t\"other\": {\"url\": \"y\"},\n\t},\n\t\
             \"inputs\": []\n}\n",
            "servers",
        ),
        _ => ("{\n  \"z\": 1,\n  \"mcpServers\": {\"other\": {\"url\": \"y\"}}\n}", "mcpServers"),
    }
}

fn read(path: &Path) -> Value {
    let text = fs::read_to_string(path).unwrap();
    if path.extension().is_some_and(|extension| extension == "toml") {
        let value: toml::Value = toml::from_str(&text).unwrap();
        return serde_json::to_value(value).unwrap();
    }
    let text = text.lines().map(|line| line.split("//").next().unwrap_or_default());
    let text: String = text.map(|line| format!("{}\n", line.trim_end())).collect();
    let text = text.replace(",\n\t}", "\n\t}").replace(",\n}", "\n}");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn every_client_is_given_its_entry_and_loses_it_again() {
    for (client, user, project) in clients() {
        for (scope, file) in [("user", Some(user.as_str())), ("project", project)] {
            let Some(file) = file else { continue };
            let (before, container) = sample(client);
            for before in [None, Some(before)] {
                let machine = Machine::new();
                let path = machine.path(file);
                if let Some(before) = before {
                    fs::create_dir_all(path.parent().unwrap()).unwrap();
                    fs::write(&path, before).unwrap();
                    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
                }
                let add = format!("client add crm --to {client} --scope {scope}");
                let shown = machine.ok(&format!("{add} --print"));
                assert_eq!(
                    (&shown["outcome"], &shown["written"]),
                    (&json!("added"), &json!(false))
                );
                assert!(shown["diff"].to_string().contains("--stdio"), "{shown}");
                assert_eq!(fs::read_to_string(&path).ok().as_deref(), before, "{client} --print");

                let added = machine.ok(&add);
                assert_eq!((&added["outcome"], &added["written"]), (&json!("added"), &json!(true)));
                assert_eq!(added["path"], path.to_str().unwrap());
                let entry = &read(&path)[container]["crm"];
                assert_eq!(entry["command"], program(), "{client}");
                assert_eq!(entry["args"], json!(["connect", "crm", "--stdio"]), "{client}");
                let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
                let expected = if before.is_some() { 0o640 } else { 0o600 };
                assert!(mode == expected || scope == "project", "{client}: {mode:o}");
                if let Some(backup) = added["backup"].as_str() {
                    assert_eq!(fs::read_to_string(backup).ok().as_deref(), before);
                    let mode = fs::metadata(backup).unwrap().permissions().mode();
                    assert_eq!(mode & 0o777, 0o600);
                }
                assert_eq!(added["backup"].is_string(), before.is_some());

                let once = fs::read(&path).unwrap();
                let again = machine.ok(&add);
                assert_eq!(
                    (&again["outcome"], &again["written"]),
                    (&json!("already"), &json!(false))
                );
                assert_eq!(fs::read(&path).unwrap(), once);

                let listed = machine.ok("client ls");
                let here = listed.as_array().unwrap().iter().find(|c| c["client"] == client);
                let files = here.unwrap()["files"].as_array().unwrap();
                let here = files.iter().find(|file| file["scope"] == scope).unwrap();
                assert_eq!(here["connections"][0]["connection"], "crm", "{listed}");
                assert_eq!(here["connections"][0]["program_exists"], true);

                let remove = format!("client remove crm --from {client} --scope {scope}");
                assert_eq!(machine.ok(&remove)["outcome"], "removed");
                assert_eq!(fs::read_to_string(&path).ok().as_deref(), before, "{client} {scope}");
                assert_eq!(machine.ok(&remove)["outcome"], "nothing");
                let left = fs::read_dir(path.parent().unwrap()).unwrap();
                let left = left.filter(|e| e.as_ref().unwrap().path().is_file()).count();
                assert_eq!(left, if before.is_some() { 2 } else { 0 }, "{client} {scope}");
            }
        }
    }
}

#[test]
fn the_home_is_written_out_and_no_secret_is() {
    let machine = Machine::new();
    let line = "client add crm --to cursor --as data --json";
    let output = machine.command(line).env("MCPX_HOME", "../elsewhere").output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let path = machine.path("home/.cursor/mcp.json");
    let args = &read(&path)["mcpServers"]["data"]["args"];
    let home = args[4].as_str().unwrap();
    assert_eq!(args[3], "--home");
    assert!(Path::new(home).is_absolute() && home.ends_with("elsewhere"), "{home}");
    // Without it the same entry is changed, and found again by its connection.
    assert_eq!(machine.ok("client add crm --to cursor --as data")["outcome"], "changed");
    assert_eq!(read(&path)["mcpServers"]["data"]["args"].as_array().unwrap().len(), 3);
    assert_eq!(machine.ok("client remove crm --from cursor")["entries"], json!(["data"]));
    assert!(!path.exists());
    let secret = "--server https://ann:hunter2@mcpx.example client add crm --to cursor";
    let refused = machine.refused(secret, 2);
    assert!(refused.contains("password") && !refused.contains("hunter2"), "{refused}");
    assert!(!path.exists());
}

#[test]
fn what_cannot_be_edited_is_left_alone() {
    let machine = Machine::new();
    let path = machine.path("home/.claude.json");
    let broken = "{\n  \"a\": 1\n  \"b\": 2\n}\n";
    fs::write(&path, broken).unwrap();
    let refused = machine.refused("client add crm --to claude-code", 1);
    assert!(refused.contains(".claude.json:2:9: "), "{refused}");
    assert_eq!(fs::read_to_string(&path).unwrap(), broken);
    let listed = machine.ok("client ls");
    assert!(listed[1]["files"][0]["error"].as_str().unwrap().contains(":2:9: "), "{listed}");

    let theirs = "{\"mcpServers\": {\"crm\": {\"command\": \"npx\", \"args\": [\"crm\"]}}}";
    fs::write(&path, theirs).unwrap();
    for line in ["client add crm --to claude-code", "client remove crm --from claude-code"] {
        let refused = machine.refused(line, 1);
        assert!(refused.contains("--force"), "{refused}");
        assert_eq!(fs::read_to_string(&path).unwrap(), theirs);
    }
    assert_eq!(machine.ok("client add crm --to claude-code --force")["outcome"], "changed");
    assert_eq!(read(&path)["mcpServers"]["crm"]["command"], program());

    machine.refused("client add crm --to windsurf --scope project", 2);
    machine.refused("client add crm --to emacs", 2);
    machine.refused("client add crm --to zed --as a.b", 2);
    let names: Vec<_> = fs::read_dir(machine.path("home")).unwrap().collect();
    assert_eq!(names.len(), 2, "the file and one copy: {names:?}");
}

/// Settings kept in a repository and linked from where the client looks.
#[test]
fn a_link_stays_a_link() {
    let machine = Machine::new();
    let link = machine.path("home/.cursor/mcp.json");
    let real = machine.path("project/mcp.json");
    fs::create_dir(link.parent().unwrap()).unwrap();
    fs::write(&real, "{}").unwrap();
    std::os::unix::fs::symlink(&real, &link).unwrap();
    machine.ok("client add crm --to cursor");
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert!(fs::read_to_string(&real).unwrap().contains("--stdio"));
    machine.ok("client remove crm --from cursor");
    assert_eq!(fs::read_to_string(&real).unwrap(), "{}");
}

#[test]
fn what_people_see() {
    let machine = Machine::new();
    fs::create_dir(machine.path("home/.gemini")).unwrap();
    let path = machine.path("home/.gemini/settings.json");
    fs::write(&path, "{\n  \"key\": \"do-not-show\",\n  \"a\": 1\n}\n").unwrap();
    let shown = machine.run("client add crm --to gemini-cli --print");
    let stdout = text(&shown.stdout);
    assert!(
        stdout.starts_with("@@ line 3 @@\n-  \"a\": 1\n+  \"a\": 1,\n+  \"mcpServers\""),
        "{stdout}"
    );
    assert!(!stdout.contains("do-not-show"));
    let added = machine.run("client add crm --to gemini-cli");
    assert_eq!(text(&added.stdout), "");
    assert!(text(&added.stderr).starts_with("ok crm added to Gemini CLI: "), "{added:?}");
    let listed = machine.run("client ls");
    let table = text(&listed.stdout);
    assert_eq!(table.lines().count(), 2, "{table}");
    assert!(table.contains("Gemini CLI") && table.contains("crm"), "{table}");
    assert!(text(&listed.stderr).contains("Not found on this machine: Claude Desktop,"));
}
