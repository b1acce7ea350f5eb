//! CI jobs and services come in with the token that they have already.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::grants::{LEADS, asked};
use crate::support::ci::{self, CiKey, REQUEST_TOKEN};
use crate::support::raw;
use crate::support::site::{MCPX, TRANSFERS, files, serve_refuses};
use crate::support::{Ci, Client, Idp, Person, Proc, Raw, Server, Site, World, http, ids, until};

crate::stories![
    a_github_job_with_nothing_but_its_token,
    the_emulator_is_one_to_other_peoples_clients,
    commands_of_one_gitlab_job_share_its_token,
    a_pods_token_is_read_again,
    a_pod_in_azure,
    a_job_that_thinks_for_longer_than_its_token_lives,
    tokens_that_are_refused,
    a_job_that_shows_nothing,
    a_job_never_approves,
    a_job_asks_and_a_person_agrees,
    a_yes_takes_no_job_beyond_its_rule,
    rules_are_tried_without_a_server,
    rules_that_are_too_open,
];

/// Jobs are in a group of their own, which may use everything.
const JOBS: &str = r#"
@id("jobs")
permit(principal in Group::"ci", action, resource)
when { principal.kind == "workload" && principal has rule };
"#;

/// What the operator writes for deployments of octo/app.
fn deploy(ci: &Ci) -> String {
    format!(
        r#"
[trust.deploy]
issuer = {:?}
groups = ["ci"]
[trust.deploy.claims]
repository_id = "7"
repository_owner_id = "42"
environment = "production"
ref = {{ glob = "refs/tags/v*" }}
job_workflow_ref = {{ glob = "octo/ci/.github/workflows/*@refs/heads/main" }}
"#,
        ci.url
    )
}

fn site<'a>(world: &'a World, idp: &Idp, ledger: &str, trust: &str) -> Site<'a> {
    Site::new(world, idp).policy("jobs.cedar", JOBS).http("ledger", ledger).extra(trust)
}

/// A machine that runs a job: a home that nobody has logged in at, and where the server is.
struct Runner<'a> {
    world: &'a World<'a>,
    home: PathBuf,
    server: String,
}

impl<'a> Runner<'a> {
    fn new(world: &'a World, name: &str, server: &Server) -> Self {
        let home = world.dir().join("runners").join(name);
        Self { world, home, server: server.url.clone() }
    }

    fn command(&self, arguments: &[&str]) -> anyhow::Result<Command> {
        std::fs::create_dir_all(self.home.parent().unwrap())?;
        let mut command = self.world.command(MCPX)?;
        command.env("MCPX_HOME", &self.home).env("MCPX_SERVER", &self.server).args(arguments);
        Ok(command)
    }

    /// `mcpx exec ledger` with a real client, which makes a note.
    fn note(&self, text: &str) -> anyhow::Result<Command> {
        let parts = self.world.parts();
        let client = format!("{:?} {:?}", parts.python()?, parts.script("client.py"));
        let arguments = json!({ "text": text });
        let script = format!("exec {client} auto note '{arguments}' \"$MCPX_URL\"");
        self.command(&["exec", "ledger", "--", "sh", "-c", &script])
    }
}

fn notes(world: &World) -> Vec<String> {
    let noted = world.executed().into_iter().filter(|call| call["tool"] == "note");
    noted.map(|call| call["text"].as_str().unwrap_or_default().to_owned()).collect()
}

/// The code of the last refusal on record.
fn last_code(server: &Server) -> String {
    let last = server.leaves_of("refused").pop().unwrap_or_default();
    last["code"].as_str().unwrap_or_default().to_owned()
}

fn a_github_job_with_nothing_but_its_token(world: &World) -> anyhow::Result<()> {
    let (idp, ci, ledger) = (world.idp()?, Ci::start()?, world.ledger()?);
    let server = site(world, &idp, &ledger.url, &deploy(&ci)).start()?;
    let runner = Runner::new(world, "github", &server);
    let mut job = runner.note("from a job")?;
    job.envs(ci.environment());
    let output = Proc::run(world, "job", job)?.exits(0);
    assert!(output.stdout.contains("noted: from a job"), "{output:#?}");
    assert_eq!(notes(world), ["from a job"]);

    // The grant is on record as the job's, and ends with the token.
    let [grant] = &server.leaves_of("grant_issued")[..] else { panic!("not one grant") };
    let ends: jiff::Timestamp = grant["expires"].as_str().unwrap_or_default().parse()?;
    assert!(ends.as_second() <= ci::now() + 300, "it outlives the job's token: {grant}");
    let recorded: String = files(server.data())
        .into_iter()
        .map(|file| String::from_utf8_lossy(&std::fs::read(file).unwrap()).into_owned())
        .collect();
    for said in [r#""rule":"deploy""#, r#""run_id":"1234567""#, "octo/app"] {
        assert!(recorded.contains(said), "the record does not say {said}");
    }

    // The other verbs find the token as well, and `login --workload` says what comes of it.
    let mut list = runner.command(&["ls", "--json"])?;
    list.envs(ci.environment());
    assert!(Proc::run(world, "ls", list)?.exits(0).stdout.contains("ledger"));
    let mut login =
        runner.command(&["login", "--workload=github", "--trust", "deploy", "--json"])?;
    login.envs(ci.environment());
    let told = Proc::run(world, "login", login)?.exits(0).json_lines().remove(0);
    assert_eq!((&told["rule"], &told["groups"]), (&json!("deploy"), &json!(["ci"])));
    // From here on the server is known; each command asked for a token of its own.
    let mut again = runner.note("with the server known")?;
    again.envs(ci.environment()).env_remove("MCPX_SERVER");
    Proc::run(world, "job", again)?.exits(0);
    assert_eq!(ci.given(), 4);
    for file in files(&runner.home) {
        let text = String::from_utf8_lossy(&std::fs::read(&file)?).into_owned();
        assert!(!text.contains("eyJ"), "{} holds a token", file.display());
    }
    server.holds_none_of([REQUEST_TOKEN, "eyJ"]);
    server.verify()?.exits(0);

    // Another job of the same repository gets nothing.
    let mut claims = ci.github();
    claims["environment"] = json!("staging");
    ci.job(&claims);
    let mut job = runner.note("from another job")?;
    job.envs(ci.environment());
    Proc::run(world, "job", job)?.exits(3).says("no trust rule takes this token");
    assert_eq!(last_code(&server), "trust_mismatch");
    assert_eq!(notes(world).len(), 2);
    Ok(())
}

fn the_emulator_is_one_to_other_peoples_clients(world: &World) -> anyhow::Result<()> {
    let ci = Ci::start()?;
    let python = world.parts().ci()?;
    let mut client = world.command(python)?;
    client.args(["-m", "id", "mcpx-control"]).envs(ci.environment());
    let output = Proc::run(world, "id", client)?.exits(0);
    let payload = output.stdout.trim().split('.').nth(1).unwrap_or_default().to_owned();
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload)?)?;
    assert_eq!((&claims["aud"], &claims["iss"]), (&json!("mcpx-control"), &json!(ci.url)));
    // And it refuses as GitHub does.
    let mut client = world.command(python)?;
    client.args(["-m", "id", "mcpx-control"]).envs(ci.environment());
    client.env("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "wrong");
    assert_ne!(Proc::run(world, "id", client)?.code, 0);
    Ok(())
}

fn commands_of_one_gitlab_job_share_its_token(world: &World) -> anyhow::Result<()> {
    let (idp, ci, ledger) = (world.idp()?, Ci::start()?, world.ledger()?);
    let trust = format!(
        "[trust.gitlab]\nissuer = {:?}\ngroups = [\"ci\"]\naudience = \"mcpx\"\n\
         [trust.gitlab.claims]\nproject_id = \"22\"\nref_protected = \"true\"\n",
        ci.url
    );
    let server = site(world, &idp, &ledger.url, &trust).start()?;
    let claims = json!({
        "sub": "project_path:octo/app:ref_type:branch:ref:main", "project_id": "22",
        "project_path": "octo/app", "ref": "main", "ref_protected": "true", "job_id": "302",
    });
    let token = ci.token(&claims, "mcpx", 600);
    let runner = Runner::new(world, "gitlab", &server);
    let environment = [("GITLAB_CI", "true"), ("MCPX_ID_TOKEN", &token)];
    for text in ["first", "second"] {
        let mut job = runner.note(text)?;
        job.envs(environment);
        Proc::run(world, "job", job)?.exits(0);
    }
    // `connect` takes part in it, whatever the variable is called.
    let mut connect = runner.command(&["connect", "ledger", "--json"])?;
    connect.env("OTHER", &token).args(["--token-env", "OTHER"]);
    let mut connected = Proc::start(world, "connect", connect)?;
    let url = connected.first_json_line()?["url"].as_str().unwrap_or_default().to_owned();
    let target = crate::support::Target::Url(url);
    Client::TypeScript1.call(world, &runner.home, &target, "note", &json!({"text": "third"}))?;
    assert_eq!(notes(world), ["first", "second", "third"]);
    assert_eq!(server.leaves_of("grant_issued").len(), 3);

    // Whoever found the token in a log of the job has no key.
    let thief = Runner::new(world, "thief", &server);
    let mut job = thief.note("stolen")?;
    job.envs(environment);
    Proc::run(world, "thief", job)?.exits(4).says("used with another key");
    assert_eq!(last_code(&server), "token_replayed");
    assert_eq!(notes(world).len(), 3);
    server.holds_none_of([token.as_str()]);
    Ok(())
}

fn a_pods_token_is_read_again(world: &World) -> anyhow::Result<()> {
    let (idp, ci, ledger) = (world.idp()?, Ci::start()?, world.ledger()?);
    // The cluster's keys are in a file: its API server is nobody's business here.
    let keys = format!(r#"{{"keys":[{}]}}"#, ci.public_key());
    let keys = world.write("server/cluster-jwks.json", &keys)?;
    let trust = format!(
        "[trust.pods]\nissuer = \"https://kubernetes.default.svc.cluster.local\"\n\
         jwks_file = {keys:?}\ngroups = [\"ci\"]\n[trust.pods.claims]\n\
         kubernetes.io.namespace = \"batch\"\nkubernetes.io.serviceaccount.name = \"nightly\"\n"
    );
    let server = site(world, &idp, &ledger.url, &trust).start()?;
    let token = |seconds: i64| {
        let claims = json!({
            "sub": "system:serviceaccount:batch:nightly",
            "kubernetes.io": {
                "namespace": "batch", "pod": {"name": "nightly-1", "uid": "1"},
                "serviceaccount": {"name": "nightly", "uid": "2"},
            },
        });
        let mut claims = ci.claims(&claims, &server.url, seconds);
        claims["iss"] = json!("https://kubernetes.default.svc.cluster.local");
        claims["aud"] = json!([server.url]);
        ci.key().sign(&claims)
    };
    let volume = Volume::new(world.dir().join("volume"))?;
    volume.write(&token(10))?;
    let runner = Runner::new(world, "pod", &server);
    let file = volume.path.join("token");
    let mut connect = runner.command(&["connect", "ledger", "--json", "--token-file"])?;
    connect.arg(&file);
    let mut connected = Proc::start(world, "connect", connect)?;
    let url = connected.first_json_line()?["url"].as_str().unwrap_or_default().to_owned();
    let note = |text: &str| {
        let answer = raw::post(&url, &[], &raw::call("note", &json!({ "text": text })))?;
        anyhow::Ok(answer.json()["result"]["structuredContent"]["result"].clone())
    };
    assert_eq!(note("on the first token")?, "noted: on the first token");
    let first_ends = ci::now() + 10;
    // The kubelet writes the next one when most of the life is over.
    volume.write(&token(20))?;
    let last = ci::now() + 20;
    until("the first token is over", || {
        note("in between")?;
        std::thread::sleep(Duration::from_millis(300));
        Ok((ci::now() > first_ends + 1).then_some(()))
    })?;
    assert_eq!(note("on the second token")?, "noted: on the second token");
    assert_eq!(server.leaves_of("grant_issued").len(), 1, "the session did not go on");
    let renewed = server.leaves_of("grant_renewed");
    assert!(!renewed.is_empty());
    for leaf in renewed {
        let ends: jiff::Timestamp = leaf["expires"].as_str().unwrap_or_default().parse()?;
        assert!(ends.as_second() <= last, "it outlives the token: {leaf}");
    }
    // Nobody writes a third: what came of the second ends with it.
    until("the second token is over", || Ok((ci::now() > last + 1).then_some(())))?;
    assert!(!note("on no token")?.is_string());
    assert_eq!(last_code(&server), "token_expired");
    let noted = notes(world);
    assert!(noted.contains(&"on the second token".to_owned()), "{noted:?}");
    assert!(!noted.contains(&"on no token".to_owned()), "{noted:?}");
    Ok(())
}

fn a_pod_in_azure(world: &World) -> anyhow::Result<()> {
    let (idp, ci, ledger) = (world.idp()?, Ci::start()?, world.ledger()?);
    let trust = format!(
        "[trust.aks]\nissuer = {:?}\ngroups = [\"ci\"]\n[trust.aks.claims]\nazp = \"the-job\"\n",
        ci.url
    );
    let server = site(world, &idp, &ledger.url, &trust).start()?;
    let runner = Runner::new(world, "aks", &server);
    let federated = json!({ "sub": "system:serviceaccount:batch:nightly" });
    let note = |audience: &str, client: &str| {
        let token = ci.token(&federated, audience, 600);
        let file = world.write("azure/federated-token", &token)?;
        let mut job = runner.note(&format!("by {client}"))?;
        job.env("AZURE_FEDERATED_TOKEN_FILE", file).env("AZURE_CLIENT_ID", client);
        job.env("AZURE_TENANT_ID", "tenant").env("AZURE_AUTHORITY_HOST", &ci.url);
        Proc::run(world, "job", job)
    };
    note("api://AzureADTokenExchange", "the-job")?.exits(0);
    note("api://AzureADTokenExchange", "another")?.exits(3);
    assert_eq!(last_code(&server), "trust_mismatch");
    note("https://kubernetes.default.svc", "the-job")?.exits(4).says("AADSTS700212");
    assert_eq!(notes(world), ["by the-job"]);
    Ok(())
}

fn a_job_that_thinks_for_longer_than_its_token_lives(world: &World) -> anyhow::Result<()> {
    let (idp, ci, ledger) = (world.idp()?, Ci::start()?, world.ledger()?);
    let server = site(world, &idp, &ledger.url, &deploy(&ci)).start()?;
    ci.life(8);
    let runner = Runner::new(world, "github", &server);
    let mut job = runner.note("at last")?;
    let script = format!("sleep 12; {}", job.get_args().last().unwrap().display());
    job = runner.command(&["exec", "ledger", "--", "sh", "-c", &script])?;
    job.envs(ci.environment());
    Proc::run(world, "job", job)?.exits(0);
    assert_eq!(notes(world), ["at last"]);
    let issued = server.leaves_of("grant_issued").len();
    assert_eq!(issued, 1, "the grant ended while nothing was called");
    assert!(!server.leaves_of("grant_renewed").is_empty());
    assert!(ci.given() >= 2, "no fresh token was asked for");
    Ok(())
}

/// A projected volume, as the kubelet keeps it: a link to a link to a folder that is exchanged
/// whole.
struct Volume {
    path: PathBuf,
}

impl Volume {
    fn new(path: PathBuf) -> anyhow::Result<Self> {
        std::fs::create_dir_all(&path)?;
        std::os::unix::fs::symlink("..data/token", path.join("token"))?;
        Ok(Self { path })
    }

    fn write(&self, token: &str) -> anyhow::Result<()> {
        let folder = format!("..{}", ci::fresh());
        std::fs::create_dir(self.path.join(&folder))?;
        std::fs::write(self.path.join(&folder).join("token"), token)?;
        std::os::unix::fs::symlink(&folder, self.path.join("..data_tmp"))?;
        Ok(std::fs::rename(self.path.join("..data_tmp"), self.path.join("..data"))?)
    }
}

fn tokens_that_are_refused(world: &World) -> anyhow::Result<()> {
    let (idp, ci, stranger, ledger) = (world.idp()?, Ci::start()?, Ci::start()?, world.ledger()?);
    let second =
        format!("[trust.octo]\nissuer = {:?}\ngroups = [\"ci\"]\nclaims.actor = \"bot\"\n", ci.url);
    let trust = format!("{}{second}", deploy(&ci));
    let server = site(world, &idp, &ledger.url, &trust).start()?;
    let url = server.resource("ledger");
    let raw = Raw::new()?;
    let good = || ci.claims(&ci.github(), &server.url, 300);
    let with = |name: &str, value: Value| {
        let mut claims = good();
        claims[name] = value;
        claims
    };
    let sign = |claims: &Value| ci.key().sign(claims);
    let answer = raw.exchange_job(&server, &sign(&good()), None, &url)?;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(answer.json()["expires_in"].as_i64() <= Some(300), "{answer:?}");

    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let unsigned = |alg: &str| format!("{}.{}.", encode(&json!({"alg": alg})), encode(&good()));
    // The public key as the secret of a symmetric signature.
    let confused = {
        let secret = jsonwebtoken::EncodingKey::from_secret(ci.public_key().as_bytes());
        let header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::HS256);
        jsonwebtoken::encode(&header, &good(), &secret)?
    };
    let whole = sign(&good());
    let person = idp.tokens("alice")?["id_token"].as_str().unwrap_or_default().to_owned();
    let table = [
        ("another repository", sign(&with("repository_id", json!("8"))), "trust_mismatch"),
        ("a fork's name", sign(&with("repository_owner_id", json!("43"))), "trust_mismatch"),
        ("a branch", sign(&with("ref", json!("refs/heads/v1"))), "trust_mismatch"),
        (
            "a branch named like another",
            sign(&with(
                "job_workflow_ref",
                json!("octo/ci/.github/workflows/d.yml@refs/heads/x@refs/heads/main"),
            )),
            "trust_mismatch",
        ),
        ("both rules", sign(&with("actor", json!("bot"))), "trust_ambiguous"),
        ("another audience", sign(&with("aud", json!("https://aws"))), "wrong_audience"),
        ("an old one", sign(&with("exp", json!(ci::now() - 1))), "token_expired"),
        ("one from tomorrow", sign(&with("nbf", json!(ci::now() + 86_400))), "token_not_yet_valid"),
        ("one without end", sign(&with("exp", Value::Null)), "token_malformed"),
        ("no algorithm", unsigned("none"), "token_algorithm"),
        ("no algorithm, in capitals", unsigned("NONE"), "token_algorithm"),
        ("a confused algorithm", confused, "token_algorithm"),
        ("an unknown key", CiKey::new("ci-9").sign(&good()), "token_key_unknown"),
        ("another key of the same name", CiKey::new("ci-1").sign(&good()), "token_signature"),
        ("another CI system", stranger.token(&ci.github(), &server.url, 300), "unknown_issuer"),
        ("a person's identity token", person, "unknown_issuer"),
        ("a part of one", whole[..whole.len() / 2].to_owned(), "token_malformed"),
        ("a large one", "a".repeat(1 << 20), "token_malformed"),
    ];
    let mut refused = server.leaves_of("refused").len();
    let mut judge = |what: &str, answer: &http::Answer, code: &str| {
        assert_eq!(answer.status, 400, "{what}: {answer:?}");
        assert_eq!(answer.json()["mcpx_code"], code, "{what}: {answer:?}");
        assert_eq!(last_code(&server), code, "{what}: on record with another reason");
        let now = server.leaves_of("refused").len();
        assert_eq!(now, refused + 1, "{what}: not on record");
        refused = now;
    };
    for (what, token, code) in table {
        judge(what, &raw.exchange_job(&server, &token, None, &url)?, code);
    }
    let token = sign(&good());
    judge("no such rule", &raw.exchange_job(&server, &token, Some("x"), &url)?, "trust_unknown");
    let answer = raw.exchange_job(&server, &token, Some("octo"), &url)?;
    judge("the other rule", &answer, "trust_mismatch");
    // What a rule wants is for whoever keeps it, not for whoever asks.
    assert!(answer.json()["error_description"].to_string().contains("actor"), "{answer:?}");
    assert!(!answer.body.contains("bot"), "{answer:?}");
    // A job's token is no login.
    judge("as a login", &raw.exchange(&server, &token, &url)?, "unknown_issuer");

    // The first key keeps a token, for as often as it likes, and a restart changes nothing.
    assert_eq!(raw.exchange_job(&server, &token, None, &url)?.status, 200);
    assert_eq!(raw.exchange_job(&server, &token, None, &url)?.status, 200);
    let thief = Raw::new()?;
    judge("replayed", &thief.exchange_job(&server, &token, None, &url)?, "token_replayed");
    let mut server = server;
    let old = server.url.clone();
    server.restart()?;
    assert_eq!(server.url, old);
    let answer = thief.exchange_job(&server, &token, None, &url)?;
    assert_eq!(answer.json()["mcpx_code"], "token_replayed", "{answer:?}");
    server.verify()?.exits(0);
    Ok(())
}

fn a_job_that_shows_nothing(world: &World) -> anyhow::Result<()> {
    let (idp, ledger) = (world.idp()?, world.ledger()?);
    let server = site(world, &idp, &ledger.url, "").start()?;
    let runner = Runner::new(world, "bare", &server);
    let run = |arguments: &[&str], environment: &[(&str, &str)]| {
        let mut command = runner.command(arguments)?;
        command.envs(environment.iter().copied());
        Proc::run(world, "bare", command)
    };
    let exec = ["exec", "ledger", "--", "true"];
    run(&exec, &[])?.exits(4).says("mcpx login");
    let github = [("GITHUB_ACTIONS", "true")];
    run(&exec, &github)?.exits(4).says("id-token: write");
    run(&["ls"], &github)?.exits(4).says("id-token: write");
    run(&exec, &[("GITLAB_CI", "true")])?.exits(4).says("id_tokens");
    run(&["exec", "ledger", "--workload=spiffe", "--", "true"], &[])?
        .exits(4)
        .says("spiffe-helper");
    let clear = [
        ("ACTIONS_ID_TOKEN_REQUEST_URL", "http://ci.example/?secret-part"),
        ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "x"),
    ];
    let output = run(&exec, &clear)?.exits(4).says("https");
    assert!(!output.stderr.contains("secret-part"), "{output:#?}");
    run(&exec, &[("MCPX_TOKEN_FILE", "/nonexistent/token")])?.exits(4).says("/nonexistent/token");
    run(&exec, &[("MCPX_TOKEN_ENV", "NOT_SET")])?.exits(4).says("NOT_SET");
    run(&["ls"], &[("MCPX_WORKLOAD", "jenkins")])?.exits(2).says("jenkins");
    let off = [github[0], ("MCPX_WORKLOAD", "off")];
    let output = run(&exec, &off)?.exits(4);
    assert!(!output.stderr.contains("id-token"), "{output:#?}");
    Ok(())
}

fn a_job_never_approves(world: &World) -> anyhow::Result<()> {
    let (idp, ci, ledger) = (world.idp()?, Ci::start()?, world.ledger()?);
    // An operator who means too well: the rule makes jobs leads and administrators.
    let generous = deploy(&ci).replace("[\"ci\"]", "[\"ci\", \"leads\", \"mcp-admins\"]");
    world.write("server/client-secret", "user")?;
    let consent = "[connection.credential]\nkind = \"authorization-code\"\n\
                   authorization_endpoint = \"https://as.example.test/auth\"\n\
                   token_endpoint = \"https://as.example.test/token\"\nclient_id = \"mcpx\"\n\
                   client_secret = \"file:client-secret\"\n";
    let server = site(world, &idp, &ledger.url, &generous)
        .policy("transfers.cedar", TRANSFERS)
        .http("crm", &ledger.url)
        .with(consent)
        .start()?;
    let alice = Person::logged_in(world, "alice", &server, &idp)?;
    let bob = Person::logged_in(world, "bob", &server, &idp)?;
    let connected = alice.connect("ledger")?;
    let arguments = json!({"amount": 10, "to": "ACME"});
    let target = connected.target();
    let call = Client::TypeScript1.start(world, alice.home(), &target, "transfer", &arguments)?;
    let id = until("there is something to approve", || {
        let listed = bob.run(&["approve", "--json"])?.exits(0);
        Ok(ids(&listed.stdout, "apr_").into_iter().next())
    })?;
    let runner = Runner::new(world, "github", &server);
    for verb in ["approve", "deny"] {
        let mut job = runner.command(&[verb, &id])?;
        job.envs(ci.environment());
        Proc::run(world, verb, job)?.exits(3).says("only people decide");
    }
    // Nor past the command line.
    let raw = Raw::new()?;
    let api = format!("{}/api", server.url);
    let token = ci.token(&ci.github(), &server.url, 300);
    let answer = raw.exchange_job(&server, &token, None, &api)?;
    let token = answer.json()["access_token"].as_str().unwrap_or_default().to_owned();
    let answer = raw.post(&format!("{api}/approvals/{id}"), &token, r#"{"decision":"approve"}"#)?;
    assert_eq!(answer.status, 403, "{answer:?}");
    assert_eq!(last_code(&server), "not_a_person");
    let accept = json!({"connection": "ledger", "kind": "tool", "name": "note", "hash": "00"});
    let answer = raw.post(&format!("{api}/tools/accept"), &token, &accept.to_string())?;
    assert_eq!(answer.json()["error"]["code"], "not_a_person", "{answer:?}");
    for (step, body) in [
        ("", json!({"redirect_uri": "http://127.0.0.1:1/callback"})),
        ("/finish", json!({"state": "s", "code": "c"})),
        ("/forget", json!({})),
    ] {
        let path = format!("{api}/connections/crm/consent{step}");
        let answer = raw.post(&path, &token, &body.to_string())?;
        assert_eq!(answer.json()["error"]["code"], "not_a_person", "{step} {answer:?}");
        assert_eq!(last_code(&server), "not_a_person");
    }
    assert!(world.executed().is_empty(), "{:?}", world.executed());
    bob.run(&["approve", &id])?.exits(0);
    assert!(!call.finish()?.is_error());
    Ok(())
}

fn a_job_asks_and_a_person_agrees(world: &World) -> anyhow::Result<()> {
    let (idp, ci, ledger) = (world.idp()?, Ci::start()?, world.ledger()?);
    // Two rules that let one name in, the one with too much.
    let trust = format!(
        "{}[trust.octo]\nissuer = {:?}\ngroups = [\"ci\"]\nclaims.repository_id = \"7\"\n",
        deploy(&ci).replace("[\"ci\"]", "[\"ci\", \"leads\"]"),
        ci.url
    );
    let server = site(world, &idp, &ledger.url, &trust).policy("leads.cedar", LEADS).start()?;
    let bob = Person::logged_in(world, "bob", &server, &idp)?;
    let runner = Runner::new(world, "github", &server);
    let run = |mut command: Command, rule: &str| {
        command.envs(ci.environment()).env("MCPX_TRUST", rule);
        Proc::run(world, rule, command)
    };

    run(runner.note("too early")?, "deploy")?.exits(5).says("mcpx request ledger");
    let request = ["request", "ledger", "--reason", "release 7", "--for", "30m"];
    let id = asked(&run(runner.command(&request)?, "deploy")?.exits(0));
    run(runner.command(&["approve", &id, "--yes"])?, "deploy")?.exits(3).says("only people decide");
    run(runner.command(&["approve", &id, "--yes"])?, "octo")?.exits(3).says("only people decide");
    let api = format!("{}/api", server.url);
    let raw = Raw::new()?;
    let token = ci.token(&ci.github(), &server.url, 300);
    let answer = raw.exchange_job(&server, &token, Some("deploy"), &api)?;
    let token = answer.json()["access_token"].as_str().unwrap_or_default().to_owned();
    let answer = raw.post(&format!("{api}/approvals/{id}"), &token, r#"{"decision":"approve"}"#)?;
    assert_eq!((answer.status, &*last_code(&server)), (403, "not_a_person"), "{answer:?}");

    bob.run(&["approve", &id, "--yes"])?.exits(0);
    // The yes is to jobs of that rule, though the other's have the same name at their issuer.
    run(runner.note("another rule's")?, "octo")?.exits(5).says("needs approval");
    run(runner.note("agreed to")?, "deploy")?.exits(0);
    assert_eq!(notes(world), ["agreed to"]);
    let [grant] = &server.leaves_of("grant_issued")[..] else { panic!("not one grant") };
    assert_eq!(grant["approval"], json!(id), "{grant:#}");
    let ends: jiff::Timestamp = grant["expires"].as_str().unwrap_or_default().parse()?;
    assert!(ends.as_second() <= ci::now() + 300, "it outlives the job's token: {grant}");
    run(runner.note("again")?, "deploy")?.exits(5).says("mcpx request ledger");

    // A command that waits in place asks with the token that its options name.
    let mut exec =
        runner.command(&["exec", "ledger", "--reason", "in place", "--trust", "octo"])?;
    exec.env("OTHER", ci.token(&ci.github(), &server.url, 300));
    exec.args(["--token-env", "OTHER", "--", "sh", "-c", "echo $MCPX_URL"]);
    let running = Proc::start(world, "in place", exec)?;
    let second = until("there is something to approve", || {
        let listed = bob.run(&["approve", "--json"])?.exits(0);
        Ok(ids(&listed.stdout, "apr_").into_iter().find(|other| *other != id))
    })?;
    bob.run(&["approve", &second, "--yes"])?.exits(0);
    let ran = running.finish()?.exits(0);
    assert!(ran.stdout.starts_with("http://127.0.0.1:"), "{ran:#?}");
    server.verify()?.exits(0);
    Ok(())
}

fn a_yes_takes_no_job_beyond_its_rule(world: &World) -> anyhow::Result<()> {
    let (idp, ci, ledger) = (world.idp()?, Ci::start()?, world.ledger()?);
    let trust = deploy(&ci).replace("groups = [\"ci\"]", "groups = [\"ci\"]\nmax = \"40s\"");
    let server = site(world, &idp, &ledger.url, &trust).policy("leads.cedar", LEADS).start()?;
    let bob = Person::logged_in(world, "bob", &server, &idp)?;
    let (raw, api) = (Raw::new()?, format!("{}/api", server.url));
    let job = ci.token(&ci.github(), &server.url, 300);
    let exchanged = |url: &str| -> anyhow::Result<Value> {
        Ok(raw.exchange_job(&server, &job, Some("deploy"), url)?.json())
    };
    let token = exchanged(&api)?["access_token"].as_str().unwrap_or_default().to_owned();
    let agreed = |extends: Value, seconds: u32| -> anyhow::Result<http::Answer> {
        let body = json!({
            "connection": "ledger", "reason": "release 7", "seconds": seconds, "extends": extends,
        });
        let answer = raw.post(&format!("{api}/requests"), &token, &body.to_string())?;
        if answer.status == 200 {
            let id = answer.json()["id"].as_str().unwrap_or_default().to_owned();
            bob.run(&["approve", &id, "--yes"])?.exits(0);
        }
        Ok(answer)
    };
    let time = |leaf: &Value, name: &str| -> anyhow::Result<jiff::Timestamp> {
        Ok(leaf[name].as_str().unwrap_or_default().parse()?)
    };

    assert_eq!(agreed(Value::Null, 10)?.status, 200);
    let grant = exchanged(&server.resource("ledger"))?["mcpx_grant"].clone();
    assert_eq!(agreed(grant.clone(), 1800)?.status, 200);
    let issued = &server.leaves_of("grant_issued")[0];
    let extended = &server.leaves_of("grant_extended")[0];
    let (first, last) = (time(issued, "ends")?, time(extended, "ends")?);
    assert!(last > first, "it was not extended: {extended:#}");
    // It was issued ten seconds before its first end.
    let most = first + Duration::from_secs(30);
    assert!(last <= most, "the rule gives 40 s: {issued:#} {extended:#}");
    // And no further yes is asked for.
    let answer = agreed(grant, 1800)?;
    assert_eq!((answer.status, &answer.json()["error"]["code"]), (409, &json!("grant_too_long")));
    server.verify()?.exits(0);
    Ok(())
}

fn rules_are_tried_without_a_server(world: &World) -> anyhow::Result<()> {
    let (idp, ci, ledger) = (world.idp()?, Ci::start()?, world.ledger()?);
    let closed = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let dark = format!(
        "[trust.dark]\nissuer = {:?}\njwks_uri = \"http://{closed}/jwks\"\naudience = \"mcpx\"\n\
         claims.repository_id = \"7\"\n",
        ci.url
    );
    let ours = "groups = [\"ci\"]\naudience = \"mcpx\"";
    let trust = format!("{}{dark}", deploy(&ci).replace("groups = [\"ci\"]", ours));
    // A credential that only the server has is in nobody's way.
    let credential = "credential = { header = \"K\", from = \"env:ONLY_THE_SERVER_HAS_IT\" }";
    let config = site(world, &idp, &ledger.url, &trust).with(credential).write()?;
    let test = |rule: &str, token: &str, more: &[&str]| {
        let file = world.write("job.token", &format!("{token}\n"))?;
        let mut command = world.command(MCPX)?;
        command.args(["trust", "test", rule, "--token-file"]).arg(file);
        command.arg("--config").arg(&config).args(more);
        let output = Proc::run(world, "trust test", command)?;
        let said = format!("{}{}", output.stdout, output.stderr);
        if token.len() > 100 {
            let part = token.split('.').nth(2).unwrap_or_default();
            assert!(part.is_empty() || !said.contains(part), "the token was printed: {said}");
        }
        assert!(!said.contains('\u{1b}'), "control characters came through: {said:?}");
        anyhow::Ok(output)
    };
    let good = ci.token(&ci.github(), "mcpx", 300);
    let output = test("deploy", &good, &[])?.exits(0);
    assert_eq!(output.stdout.lines().count(), 10, "{output:#?}");
    assert!(output.stdout.lines().all(|line| line.starts_with("ok")), "{output:#?}");
    // Trying costs nothing: the same token again.
    test("deploy", &good, &[])?.exits(0);

    let mut claims = ci.github();
    claims["environment"] = json!("\u{1b}[31mstaging\u{7}");
    claims["ref"] = json!(7);
    let wrong = ci.token(&claims, "mcpx", 300);
    let output = test("deploy", &wrong, &[])?.exits(3);
    let wrongs: Vec<_> = output.stdout.lines().filter(|line| line.starts_with("wrong")).collect();
    assert_eq!(wrongs.len(), 2, "{output:#?}");
    assert!(output.stdout.contains("wanted \"production\""), "{output:#?}");
    let json = test("deploy", &wrong, &["--json"])?.exits(3).json_lines().remove(0);
    assert_eq!((&json["matches"], &json["code"]), (&json!(false), &json!("trust_mismatch")));
    let check = |json: &Value, what: &str| {
        let checks = json["checks"].as_array().cloned().unwrap_or_default();
        checks.into_iter().find(|check| check["what"] == what).unwrap_or_default()
    };
    assert_eq!(check(&json, "signature")["verdict"], "ok");
    assert_eq!(
        check(&json, "ref"),
        json!({
            "what": "ref", "verdict": "wrong", "wanted": "glob \"refs/tags/v*\"", "found": "7",
        })
    );

    let old = ci.token(&ci.github(), "mcpx", -30);
    let json = test("deploy", &old, &["--json"])?.exits(3).json_lines().remove(0);
    assert_eq!(json["code"], "token_expired");
    assert_eq!(check(&json, "environment")["verdict"], "ok");
    let forged = CiKey::new("ci-1").sign(&ci.claims(&ci.github(), "mcpx", 300));
    let json = test("deploy", &forged, &["--json"])?.exits(3).json_lines().remove(0);
    assert_eq!(check(&json, "signature")["verdict"], "wrong");
    let json = test("dark", &good, &["--json"])?.exits(7).json_lines().remove(0);
    assert_eq!(check(&json, "signature")["verdict"], "open");
    test("deploy", "not a token", &[])?.exits(3).says("malformed");
    test("other", &good, &[])?.exits(2).says("dark, deploy");
    Ok(())
}

fn rules_that_are_too_open(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    for (trust, said) in [
        ("issuer = \"https://ci.example.com\"", "every token of that issuer"),
        (
            "issuer = \"https://ci.example.com\"\nclaims.sub = { glob = \"repo:octo/*\" }",
            "a glob on sub alone",
        ),
        (
            "issuer = \"https://token.actions.githubusercontent.com\"\n\
             claims.ref = \"refs/heads/main\"",
            "anybody's jobs",
        ),
    ] {
        let config = Site::new(world, &idp).extra(&format!("[trust.open]\n{trust}\n")).write()?;
        let output = serve_refuses(world, Path::new(&config))?.exits(1).says(said);
        assert!(output.stderr.contains("mcpx.toml:"), "no place: {output:#?}");
    }
    Ok(())
}
