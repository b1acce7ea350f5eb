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
        "{MINIMAL}[grants]\nttl = \"1m 30s\"\n[[connection]]\nname = \"a\"\nurl = \"https://x.example/mcp\"\n[connection.credential]\nheader = \"X-Key\"\nfrom = \"file:token\"\n"
    );
    let settings = load(&more).unwrap();
    assert_eq!(settings.control.grant_ttl, Duration::from_secs(90));
    assert!(matches!(&settings.connections[0].reach, Reach::Http { credential: Some(_), .. }));
    let sse =
        more.replace("[connection.credential]", "transport = \"sse\"\n[connection.credential]");
    let settings = load(&sse).unwrap();
    let reach = &settings.connections[0].reach;
    assert!(matches!(reach, Reach::Sse { credential: Some(_), streams: 256, .. }));
}

#[test]
fn a_grant_token_is_short_lived() {
    let grants = |line: &str| format!("{MINIMAL}[grants]\n{line}\n");
    let settings = load(&grants("ttl = \"15m\"\nmax_jit = \"2h\"")).unwrap();
    assert_eq!(settings.control.grant_max_jit, Duration::from_secs(7200));
    let (line, _, what) = complaint(&grants("ttl = \"15m 1s\""));
    assert_eq!(line, 8, "{what}");
    assert!(what.contains("15m"), "{what}");
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

/// A configuration with one connection whose credential has these lines.
fn credential(lines: &str) -> String {
    let url = "[[connection]]\nname = \"a\"\nurl = \"https://x.example\"";
    format!("{MINIMAL}{url}\n[connection.credential]\n{lines}\n")
}

const VAULT: &str = "[vault]\naddress = \"https://v.example\"\n[vault.approle]\nrole_id = \"r\"\n\
                     secret_id = \"file:token\"\n";
const OAUTH: &str = "token_endpoint = \"https://as.example/token\"\nclient_id = \"c\"\n\
                     client_secret = \"file:token\"\n";

#[test]
fn credentials_of_every_kind_are_read() {
    let aws = "[aws]\nregion = \"eu-central-1\"\naccess_key_id = \"file:token\"\n\
               secret_access_key = \"file:token\"\n";
    let azure = "[azure]\nvault = \"https://v.vault.azure.net\"\ntenant = \"t\"\n\
                 client_id = \"c\"\nclient_assertion = \"file:token\"\n";
    let header = "header = \"X-Key\"\nfrom = ";
    for (lines, tables, name) in [
        (
            format!("{header}\"vault:kv/crm#t\"\ncache = \"10s\""),
            VAULT,
            "header x-key from vault:kv/crm#t",
        ),
        (format!("{header}\"aws:crm#t\""), aws, "header x-key from aws:crm#t"),
        (format!("{header}\"azure:crm\""), azure, "header x-key from azure:crm"),
        (
            "kind = \"basic\"\nuser = \"u\"\nfrom = \"file:token\"".to_owned(),
            "",
            "basic u from file:token",
        ),
        (
            format!("kind = \"client-credentials\"\nscope = \"s\"\n{OAUTH}"),
            "",
            "client-credentials of c",
        ),
        (
            format!(
                "kind = \"id-jag\"\nissuer = \"https://as.example\"\nsubject = \"sub\"\n{OAUTH}"
            ),
            "",
            "id-jag of c",
        ),
        (
            "kind = \"authorization-code\"\nauthorization_endpoint = \"https://as.example/a\"\n\
             token_endpoint = \"https://as.example/t\"\nclient_id = \"c\""
                .to_owned(),
            "",
            "authorization-code of c",
        ),
    ] {
        let settings = load(&format!("{}{tables}", credential(&lines)))
            .unwrap_or_else(|error| panic!("{lines}: {error}"));
        let found = settings.connections[0].reach.credential().unwrap();
        assert_eq!(&**found.name(), name);
        assert_eq!(found.needs_vouching(), name.starts_with("id-jag"), "{name}");
    }
}

#[test]
fn complaints_about_credentials_name_what_is_missing_and_quote_no_secret() {
    let header = "header = \"X-Key\"\nfrom = ";
    let two = "[[issuer]]\nname = \"b\"\nurl = \"https://b.example\"\n";
    let jag = format!("kind = \"id-jag\"\nissuer = \"i\"\nsubject = \"sub\"\n{OAUTH}");
    for (lines, tables, word) in [
        (format!("{header}\"vault:kv/crm#t\""), "", "[vault]"),
        (format!("{header}\"aws:crm\""), "", "[aws]"),
        (format!("{header}\"azure:crm\""), "", "[azure]"),
        (format!("{header}\"vault:kv\""), VAULT, "vault:mount/path#field"),
        (format!("{header}\"file:policies\""), "", "file:policies cannot be read"),
        (format!("{header}\"file:nothing\""), "", "no such file"),
        (format!("{header}\"credential:a/b\""), "", "plain name"),
        (format!("{header}\"credential:a\""), "", "CREDENTIALS_DIRECTORY"),
        ("from = \"file:token\"".to_owned(), "", "needs header"),
        ("header = \"X-Key\"".to_owned(), "", "needs from"),
        ("kind = \"basic\"\nfrom = \"file:token\"".to_owned(), "", "needs user"),
        ("kind = \"basic\"\nprefix = \"x\"".to_owned(), "", "prefix means nothing"),
        ("kind = \"basic\"\nuser = \"a:b\"\nfrom = \"file:token\"".to_owned(), "", "colon"),
        (format!("kind = \"id-jag\"\n{OAUTH}"), "", "needs issuer"),
        (jag, two, "two people"),
        (
            format!("kind = \"client-credentials\"\n{}", OAUTH.replace("https", "http")),
            "",
            "the token endpoint must be https",
        ),
        (format!("kind = \"client-credentials\"\ncache = \"1s\"\n{OAUTH}"), "", "cache means"),
        (
            format!("kind = \"client-credentials\"\n{}", OAUTH.replace("client_secret", "scope")),
            "",
            "client_assertion",
        ),
        (String::new(), &VAULT.replace("https", "http"), "the vault's address must be https"),
        (String::new(), "[vault]\naddress = \"https://v.example\"\n", "[vault.approle]"),
        (String::new(), &VAULT.replace("file:token", "vault:a/b#c"), "[vault]"),
        (String::new(), "[vault]\naddress = \"https://v.example\"\ntoken = \"hunter2\"\n", "token"),
    ] {
        let text = if lines.is_empty() { MINIMAL.to_owned() } else { credential(&lines) };
        let (_, _, what) = complaint(&format!("{text}{tables}"));
        assert!(what.contains(word), "{lines}{tables}: {what}");
        assert!(!what.contains("hunter2") && !what.contains("s3cret"), "{what}");
    }
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
fn oauth_is_off_until_the_server_and_a_connection_say_so() {
    let connection = "[[connection]]\nname = \"crm\"\nurl = \"https://x.example/mcp\"\n";
    assert!(load(&format!("{MINIMAL}{connection}")).unwrap().oauth.is_none());
    let none = load(&format!("{MINIMAL}[oauth]\n{connection}")).unwrap().oauth.unwrap();
    assert!(none.connections.is_empty());
    let on =
        format!("{MINIMAL}[oauth]\nscopes = [\"mcp:{{connection}}\"]\n{connection}oauth = true\n");
    let on = load(&on).unwrap().oauth.unwrap();
    assert_eq!(on.rules.issuers, ["https://login.example.com"]);
    assert_eq!((&*on.rules.types, on.rules.life), (&["at+jwt".to_owned()][..], 3600));
    assert_eq!(on.connections.iter().map(ToString::to_string).collect::<Vec<_>>(), ["crm"]);

    let (line, _, what) = complaint(&format!("{MINIMAL}{connection}oauth = true\n"));
    assert!(line == 10 && what.contains("[oauth]"), "{line}: {what}");
    for (lines, word) in [
        ("issuers = [\"other\"]", "no [[issuer]] named \"other\""),
        ("issuers = []", "needs an [[issuer]]"),
        ("token_types = []", "token_types"),
        ("scopes = [\"a b\"]", "no name of a scope"),
        ("scopes = [\"\"]", "no name of a scope"),
        ("optional_scopes = [\"a\\\"b\"]", "no name of a scope"),
        ("scopes = [\"mcp:{name}\"]", "{connection}"),
        ("token_life = \"0s\"", "longer than nothing"),
        ("audience = \"x\"", "unknown field"),
    ] {
        let (_, _, what) = complaint(&format!("{MINIMAL}[oauth]\n{lines}\n{connection}"));
        assert!(what.contains(word), "{lines}: {what}");
    }
}

const TRUST: &str = r#"[trust.deploy]
issuer = "https://ci.example.com"
groups = ["ci"]
[trust.deploy.claims]
project_id = "7"
"#;

#[test]
fn trust_rules_are_read_with_their_claims() {
    use crate::identity::jwks::KeyPlace;
    let text = format!(
        "{MINIMAL}{TRUST}protected = true\nruns = 3\nref = [\"main\", {{ glob = \"v*\" }}]\n\
         kubernetes.io.namespace = \"ci\"\n\"kubernetes.io\".pod.name = {{ glob = [\"a-*\"] }}\n\
         [trust.other]\nissuer = \"https://k8s.example.com\"\naudience = \"x\"\nmax = \"5m\"\n\
         jwks_file = \"keys\"\nclaims.sub = \"system:serviceaccount:ci:deploy\"\n"
    );
    let Err(error) = load(&text) else { panic!("loaded without its keys") };
    assert!(error.to_string().contains("keys"), "{error}");
    let rules = load(&text.replace("\"keys\"", "\"token\"")).unwrap().trust;
    let [deploy, other] = rules.as_slice() else { panic!("{rules:?}") };
    assert_eq!((deploy.name.as_str(), &deploy.keys), ("deploy", &KeyPlace::Discovery));
    let shown = |path: &str| -> Vec<String> {
        let claim = deploy.claims.iter().find(|claim| claim.path == path).unwrap();
        claim.accepts.iter().map(crate::identity::trust::Pattern::shown).collect()
    };
    assert_eq!(shown("project_id"), ["\"7\""]);
    assert_eq!(shown("protected"), ["true"]);
    assert_eq!(shown("runs"), ["3"]);
    assert_eq!(shown("ref"), ["\"main\"", "glob \"v*\""]);
    assert_eq!(shown("kubernetes.io.namespace"), ["\"ci\""]);
    assert_eq!(shown("kubernetes.io.pod.name"), ["glob \"a-*\""]);
    assert_eq!(other.max, Some(Duration::from_secs(300)));
    assert_eq!(other.audience, ["x"]);
}

#[test]
fn trust_rules_that_are_wrong_are_placed() {
    for (from, to, word) in [
        ("project_id = \"7\"", "", "without claims"),
        ("project_id = \"7\"", "sub = { glob = \"repo:*\" }", "sub alone"),
        ("project_id = \"7\"", "ref = \"v*\"", "{ glob ="),
        ("project_id = \"7\"", "ref = { glob = 7 }", "a glob is a text"),
        ("project_id = \"7\"", "ref = 1.5", "whole number"),
        ("project_id = \"7\"", "ref = []", "accepts nothing"),
        ("project_id = \"7\"", "ref = [[{ x = 1 }]]", "a list holds"),
        ("https://ci", "http://ci", "issuer cannot be used"),
        ("trust.deploy", "trust.\"De ploy\"", "rule's name"),
        ("groups", "gruops", "gruops"),
        ("groups", "algorithms = [\"HS256\"]\ngroups", "symmetric"),
        ("groups", "algorithms = [\"none\"]\ngroups", "none"),
    ] {
        let (line, _, what) = complaint(&format!("{MINIMAL}{}", TRUST.replace(from, to)));
        assert!(what.contains(word), "{to}: {what}");
        assert!(line >= 7, "{to}: line {line}");
    }
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
