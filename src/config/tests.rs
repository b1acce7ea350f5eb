//! Complaints point at the place.

use super::*;
use crate::upstream::sandbox::Mode;
use crate::upstream::stdio::Share;

const MINIMAL: &str = r#"[server]
listen = "127.0.0.1:0"
data_dir = "data"
[[issuer]]
name = "corp"
url = "https://login.example.com"
"#;

fn load(text: &str) -> Result<Settings, ConfigError> {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("policies")).unwrap();
    std::fs::write(dir.path().join("token"), "s3cret\n").unwrap();
    let path = dir.path().join("mcpx.toml");
    std::fs::write(&path, text).unwrap();
    Settings::load(&path)
}

/// The place and the words of a complaint.
fn complaint(text: &str) -> (usize, usize, String) {
    match load(text) {
        Err(ConfigError::At { line, column, what, .. }) => (line, column, what),
        Err(other) => panic!("not placed: {other}"),
        Ok(_) => panic!("accepted: {text}"),
    }
}

#[test]
fn defaults_are_filled_in() {
    let settings = load(MINIMAL).unwrap();
    assert!(settings.data_dir.is_absolute() && settings.data_dir.ends_with("data"));
    assert_eq!(settings.control.grant_ttl, Duration::from_secs(900));
    assert!(settings.policies.is_empty());
    let more = format!(
        "{MINIMAL}[grants]\nttl = \"1h 30m\"\n[[connection]]\nname = \"a\"\nurl = \"https://x.example/mcp\"\n[connection.credential]\nheader = \"X-Key\"\nfrom = \"file:token\"\n"
    );
    let settings = load(&more).unwrap();
    assert_eq!(settings.control.grant_ttl, Duration::from_secs(5400));
    assert!(matches!(&settings.connections[0].reach, Reach::Http { credential: Some(_), .. }));
    let sse =
        more.replace("[connection.credential]", "transport = \"sse\"\n[connection.credential]");
    let settings = load(&sse).unwrap();
    let reach = &settings.connections[0].reach;
    assert!(matches!(reach, Reach::Sse { credential: Some(_), streams: 256, .. }));
}

#[test]
fn complaints_name_line_and_column() {
    let (line, column, what) = complaint(&MINIMAL.replace("data_dir", "dta_dir"));
    assert_eq!((line, column), (3, 1), "{what}");
    assert!(what.contains("dta_dir"), "{what}");

    let (line, column, what) = complaint(&MINIMAL.replace("127.0.0.1:0", "0.0.0.0:80"));
    assert_eq!((line, column), (2, 10), "{what}");
    assert!(what.contains("loopback"), "{what}");

    let (line, _, what) = complaint(&format!("{MINIMAL}[grants]\nttl = \"soon\"\n"));
    assert_eq!(line, 8, "{what}");

    for (connection, at, word) in [
        ("name = \"Bad Name\"\nurl = \"https://x.example\"", 8, "connection name"),
        ("name = \"a\"", 7, "either url or command"),
        ("name = \"a\"\nurl = \"http://db.internal/mcp\"", 9, "insecure_http"),
        ("name = \"a\"\ncommand = [\"no-such-program-here\"]", 9, "no-such-program-here"),
        ("name = \"a\"\ncommand = []", 9, "empty"),
        ("name = \"a\"\nurl = \"https://x.example\"\ntransport = \"websocket\"", 10, "websocket"),
        ("name = \"a\"\ncommand = [\"sh\"]\ntransport = \"sse\"", 10, "a url"),
        ("name = \"a\"\nurl = \"https://x.example\"\nstreams = 5", 10, "\"sse\""),
        (
            "name = \"a\"\nurl = \"https://x.example\"\ntransport = \"sse\"\nstreams = 0",
            11,
            "nobody",
        ),
        ("name = \"a\"\nurl = \"https://u:p@x.example\"", 9, "password"),
        (
            "name = \"a\"\nurl = \"https://x.example\"\n[connection.credential]\nheader = \"K\"\nfrom = \"env:MCPX_TEST_UNSET\"",
            12,
            "MCPX_TEST_UNSET",
        ),
        (
            "name = \"a\"\nurl = \"https://x.example\"\n[connection.credential]\nheader = \"K\"\nfrom = \"hunter2\"",
            12,
            "env:NAME",
        ),
    ] {
        let (line, _, what) = complaint(&format!("{MINIMAL}[[connection]]\n{connection}\n"));
        assert_eq!(line, at, "{what}");
        assert!(what.contains(word), "{what}");
        assert!(!what.contains("hunter2"), "a secret must not be quoted: {what}");
    }
    let twice = "[[connection]]\nname = \"a\"\nurl = \"https://x.example\"\n";
    let (line, _, what) = complaint(&format!("{MINIMAL}{twice}{twice}"));
    assert_eq!((line, what.as_str()), (11, "there are two connections named a"));
    assert!(complaint(&MINIMAL.replace("[[issuer]]", "[other]")).2.contains("other"));
}

#[test]
fn a_missing_file_is_named() {
    let Err(error) = Settings::load(Path::new("/nonexistent/mcpx.toml")) else {
        panic!("loaded a file that is not there");
    };
    assert!(error.to_string().contains("/nonexistent/mcpx.toml"));
}

/// A configuration with a child under a sandbox; the rest of its table is given.
fn sandboxed(lines: &str) -> String {
    format!("{MINIMAL}[[connection]]\nname = \"a\"\ncommand = [\"sh\"]\n{lines}\n")
}

#[test]
fn children_are_kept_as_the_table_says() {
    let of = |lines: &str| match load(&sandboxed(lines)).unwrap().connections.remove(0).reach {
        Reach::Stdio { keeping, sandbox, .. } => (keeping, sandbox),
        Reach::Http { .. } | Reach::Sse { .. } => panic!("not stdio"),
    };
    let (keeping, sandbox) = of("");
    assert_eq!((keeping.processes, keeping.per_subject), (32, 16));
    assert_eq!((keeping.share, sandbox.mode), (Share::Session, Mode::Off));
    let (keeping, _) = of("processes = 1");
    assert_eq!((keeping.processes, keeping.per_subject), (1, 1));
    let (keeping, sandbox) =
        of("processes_per_subject = 3\nshare = \"connection\"\nrestart = { first = \"1s\" }\n\
         sandbox = \"require\"\nread = [\"token\"]\nnetwork = true");
    assert_eq!((keeping.per_subject, keeping.share), (3, Share::Connection));
    assert_eq!(keeping.restart.first, Duration::from_secs(1));
    assert_eq!((sandbox.mode, sandbox.network), (Mode::Require, true));
    assert!(sandbox.read[0].is_absolute() && sandbox.read[0].ends_with("token"));
    assert!(sandbox.read.iter().any(|path| path.ends_with("sh")), "{:?}", sandbox.read);
}

#[test]
fn no_sandbox_opens_what_is_the_servers_own() {
    for (lines, word) in [
        // The data directory is not there yet; it will be.
        ("read = [\".\"]", "data"),
        ("read = [\"/\"]", "server's own"),
        ("write = [\"mcpx.toml\"]", "mcpx.toml"),
        ("folder = \".\"", "server's own"),
        ("read = [\"no-such-file\"]", "there is no"),
    ] {
        let (_, _, what) = complaint(&sandboxed(&format!("sandbox = \"try\"\n{lines}")));
        assert!(what.contains(word), "{lines}: {what}");
    }
    let (line, _, what) = complaint(&sandboxed("network = false"));
    assert_eq!(line, 10, "{what}");
    assert!(what.contains("no effect"), "{what}");
    let url = "[[connection]]\nname = \"a\"\nurl = \"https://x.example\"\nsandbox = \"try\"";
    assert!(complaint(&format!("{MINIMAL}{url}\n")).2.contains("with a command"));
}

#[test]
fn saml_settings_are_checked() {
    for (lines, at, word) in [
        ("idp_metadata = \"token\"", 8, "metadata cannot be used"),
        ("idp_metadata = \"token\"\nmax_session = \"1000h\"", 9, "at most"),
        ("idp_metadata = \"token\"\nleeway = \"6m\"", 9, "300 s at most"),
        ("idp_metadata = \"token\"\nentity_id = \" \"", 9, "empty"),
        ("idp_metadata = \"token\"\nsigning_key = \"token\"", 9, "go together"),
        ("idp_metadata = \"token\"\nidp_url = \"https://x\"", 9, "idp_url"),
    ] {
        let (line, _, what) = complaint(&format!("{MINIMAL}[saml]\n{lines}\n"));
        assert_eq!(line, at, "{what}");
        assert!(what.contains(word), "{what}");
        assert!(!what.contains("s3cret"), "a file must not be quoted: {what}");
    }
    let missing = load(&format!("{MINIMAL}[saml]\nidp_metadata = \"idp.xml\"\n"));
    assert!(matches!(missing, Err(ConfigError::Read { path, .. }) if path.ends_with("idp.xml")));
}
