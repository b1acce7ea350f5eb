//! The servers of the matrix: how each is started, what it offers, and what is done with it.

use std::fs;
use std::path::{Path, PathBuf};

use axum::Router;
use axum::routing::get;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::support::world::Upstream;
use crate::support::{Proc, Skip, World, debian, http, until};

/// A server of somebody else's.
pub struct Shelved {
    /// Its name, and its connection's.
    pub name: &'static str,
    /// How it is reached.
    pub place: Place,
    /// Whether it speaks the newest protocol besides the legacy one.
    pub modern: bool,
    /// What clients do with it besides asking for its lists; see `tests/parts/driver.py`.
    pub steps: Vec<Value>,
    /// Whether its answers hold what nobody may see.
    pub masked: bool,
}

/// How a server is reached.
pub enum Place {
    /// At a URL.
    Http(String),
    /// It is started with this command and nothing but this environment besides `PATH`.
    Stdio(Vec<String>, Vec<(&'static str, String)>),
}

/// All servers; they run as long as this is held.
pub struct Shelf {
    /// The servers.
    pub servers: Vec<Shelved>,
    _upstreams: Vec<Upstream>,
    _postgres: Postgres,
}

/// The search path of every server that is started as a child.
pub const PATH: &str = "/usr/local/bin:/usr/bin:/bin";

impl Shelf {
    /// Starts all of them.
    ///
    /// # Errors
    /// One cannot be started.
    pub fn open(world: &World) -> anyhow::Result<Self> {
        let postgres = Postgres::start(world)?;
        let page = page()?;
        let upstreams = vec![
            world.everything()?,
            world.dbhub()?,
            world.fixture()?,
            world.typescript_fixture()?,
        ];
        let url = |at: usize| Place::Http(upstreams[at].url.clone());
        let plain = |command: &[String]| Place::Stdio(command.to_vec(), vec![]);
        let servers = vec![
            Shelved::new("everything", url(0), everything(true)),
            Shelved::new("everything-stdio", plain(&world.everything_stdio()?), everything(false)),
            filesystem(world)?,
            memory(world)?,
            thinking(world)?,
            git(world)?,
            time(world)?,
            fetch(world, &page)?,
            sqlite(world)?,
            dbhub("dbhub", url(1)),
            dbhub("dbhub-stdio", plain(&world.dbhub_stdio()?)),
            postgres.server(world)?,
            Shelved::new("python-fixture", url(2), fixture(true)).modern(),
            Shelved::new("typescript-fixture", url(3), fixture(true)).modern(),
            Shelved::new("python-fixture-stdio", plain(&world.fixture_stdio()?), fixture(false))
                .modern(),
        ];
        Ok(Self { servers, _upstreams: upstreams, _postgres: postgres })
    }
}

impl Shelved {
    fn new(name: &'static str, place: Place, steps: Vec<Value>) -> Self {
        Self { name, place, modern: false, steps, masked: false }
    }

    fn modern(mut self) -> Self {
        self.modern = true;
        self
    }

    fn masked(mut self) -> Self {
        self.masked = true;
        self
    }
}

fn call(name: &str, arguments: Value) -> Value {
    json!({"step": "call", "name": name, "arguments": arguments})
}

fn read(uri: &str) -> Value {
    json!({"step": "read", "uri": uri})
}

fn prompt(name: &str, arguments: Value) -> Value {
    json!({"step": "prompt", "name": name, "arguments": arguments})
}

fn progress(name: &str, arguments: Value) -> Value {
    json!({"step": "progress", "name": name, "arguments": arguments})
}

/// The call is cancelled after its first progress, or, if `go` says so, once it has reached the
/// server.
fn cancel(name: &str, arguments: Value, then: (&str, Value)) -> Value {
    let then = json!({"name": then.0, "arguments": then.1});
    json!({"step": "cancel", "name": name, "arguments": arguments, "then": then})
}

fn cancel_slow(name: &str, arguments: Value, then: (&str, Value)) -> Value {
    let mut step = cancel(name, arguments, then);
    // The file's name is put in where it is known.
    step["go"] = json!("");
    step
}

fn resume(name: &str, arguments: Value) -> Value {
    json!({"step": "resume", "name": name, "arguments": arguments})
}

fn package(world: &World, path: &str) -> anyhow::Result<Vec<String>> {
    let script = world.parts().package(&format!("@modelcontextprotocol/{path}"));
    Ok(vec![text(world.parts().node()?), text(&script)])
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

fn everything(http: bool) -> Vec<Value> {
    let long = "trigger-long-running-operation";
    let mut steps = vec![
        call("get-structured-content", json!({"location": "Chicago"})),
        call("get-tiny-image", json!({})),
        read("demo://resource/static/document/architecture.md"),
        prompt("args-prompt", json!({"city": "Oslo"})),
        progress(long, json!({"duration": 0.2, "steps": 4})),
        cancel(long, json!({"duration": 30, "steps": 90}), ("echo", json!({"message": "again"}))),
    ];
    if http {
        // See tap::CUT.
        steps.push(resume(long, json!({"duration": 1.5, "steps": 3})));
    }
    steps
}

fn fixture(http: bool) -> Vec<Value> {
    let mut steps = vec![
        call("test_multiple_content_types", json!({})),
        read("test://static-text"),
        prompt("test_prompt_with_arguments", json!({"arg1": "one", "arg2": "two"})),
        progress("test_tool_with_progress", json!({})),
        cancel("test_slow", json!({}), ("test_simple_text", json!({}))),
    ];
    if http {
        // The server cuts this one itself.
        steps.push(resume("test_reconnection", json!({})));
    }
    steps
}

fn filesystem(world: &World) -> anyhow::Result<Shelved> {
    let file = world.write("files/letter.txt", "Dear reader,\nall is well.\n")?;
    let folder = world.dir().join("files");
    let mut command = package(world, "server-filesystem/dist/index.js")?;
    command.push(text(&folder));
    let steps = vec![
        call("read_text_file", json!({"path": file})),
        call("directory_tree", json!({"path": folder})),
    ];
    Ok(Shelved::new("filesystem", Place::Stdio(command, vec![]), steps))
}

fn memory(world: &World) -> anyhow::Result<Shelved> {
    let ada = r#"{"type":"entity","name":"Ada","entityType":"person","observations":["tea"]}"#;
    let file = world.write("memory.jsonl", &format!("{ada}\n"))?;
    let command = package(world, "server-memory/dist/index.js")?;
    let steps = vec![call("read_graph", json!({})), call("open_nodes", json!({"names": ["Ada"]}))];
    let place = Place::Stdio(command, vec![("MEMORY_FILE_PATH", text(&file))]);
    Ok(Shelved::new("memory", place, steps))
}

fn thinking(world: &World) -> anyhow::Result<Shelved> {
    let command = package(world, "server-sequential-thinking/dist/index.js")?;
    let thought = json!({
        "thought": "One is enough.",
        "thoughtNumber": 1,
        "totalThoughts": 1,
        "nextThoughtNeeded": false,
    });
    let place = Place::Stdio(command, vec![]);
    Ok(Shelved::new("sequential-thinking", place, vec![call("sequentialthinking", thought)]))
}

fn git(world: &World) -> anyhow::Result<Shelved> {
    let command = world.git_stdio()?.to_vec();
    let repository = json!({"repo_path": world.repository()});
    let steps = vec![call("git_log", repository.clone()), call("git_status", repository)];
    Ok(Shelved::new("git", Place::Stdio(command, vec![]), steps).modern().masked())
}

fn time(world: &World) -> anyhow::Result<Shelved> {
    let program = world.parts().python_program("mcp-server-time")?;
    let command = vec![text(&program), "--local-timezone".to_owned(), "UTC".to_owned()];
    let wanted = json!({
        "source_timezone": "UTC",
        "time": "16:30",
        "target_timezone": "Asia/Tokyo",
    });
    let steps = vec![call("convert_time", wanted)];
    Ok(Shelved::new("time", Place::Stdio(command, vec![]), steps).modern())
}

fn fetch(world: &World, page: &str) -> anyhow::Result<Shelved> {
    let program = world.parts().python_program("mcp-server-fetch")?;
    let flags = ["--ignore-robots-txt", "--allow-private-ips"].map(str::to_owned);
    let command = [vec![text(&program)], flags.to_vec()].concat();
    let letter = json!({"url": format!("{page}/letter")});
    let steps = vec![
        call("fetch", letter.clone()),
        prompt("fetch", letter.clone()),
        cancel_slow("fetch", json!({"url": format!("{page}/slow")}), ("fetch", letter)),
    ];
    Ok(Shelved::new("fetch", Place::Stdio(command, vec![]), steps).modern())
}

fn sqlite(world: &World) -> anyhow::Result<Shelved> {
    // Written by the other server on the same file.
    let [.., dsn] = world.dbhub_stdio()?;
    let file = dsn.trim_start_matches("sqlite://").to_owned();
    let program = world.parts().python1()?.with_file_name("mcp-server-sqlite");
    let command = vec![text(&program), "--db-path".to_owned(), file];
    let query = "select id, name, email, ssn, card, plan from customers order by id";
    let steps = vec![
        call("read_query", json!({"query": query})),
        call("list_tables", json!({})),
        read("memo://insights"),
        prompt("mcp-demo", json!({"topic": "tea"})),
    ];
    Ok(Shelved::new("sqlite", Place::Stdio(command, vec![]), steps).masked())
}

fn dbhub(name: &'static str, place: Place) -> Shelved {
    let query = "select id, name, email, ssn, card, plan from customers order by id";
    let steps = vec![
        call("execute_sql", json!({"sql": query})),
        call("search_objects", json!({"object_type": "table", "pattern": "cust%"})),
    ];
    Shelved::new(name, place, steps).modern().masked()
}

/// Pages for the server that fetches some: one that is there, and one that never comes.
fn page() -> anyhow::Result<String> {
    let listener = http::block(TcpListener::bind("127.0.0.1:0"))?;
    let url = format!("http://{}", listener.local_addr()?);
    let router = Router::new()
        .route("/letter", get(async || "Dear reader, all is well."))
        .route("/slow", get(std::future::pending::<&'static str>));
    drop(http::runtime().spawn(async { axum::serve(listener, router).await }));
    Ok(url)
}

/// A PostgreSQL with customers, on a socket of its own.
struct Postgres {
    folder: PathBuf,
    _proc: Proc,
}

/// Debian keeps most of PostgreSQL's programs off the search path.
const PROGRAMS: &str = "PATH=$PATH:$(echo /usr/lib/postgresql/*/bin | tr ' ' ':')";

impl Postgres {
    fn start(world: &World) -> anyhow::Result<Self> {
        let check =
            format!("{PROGRAMS}; command -v initdb && command -v postgres && command -v psql");
        if !debian::provides(&check, &["postgresql"]) {
            return Err(Skip("no PostgreSQL, and it cannot be installed".to_owned()).into());
        }
        // It does not run as root, and whoever it runs as must be able to reach its folder.
        let folder = tempfile::Builder::new().prefix("mcpx-story-").tempdir()?.keep();
        let shell = |name: &str, line: &str| -> anyhow::Result<Proc> {
            let mut command = world.command("sh")?;
            let whoever = "if [ \"$(id -u)\" = 0 ]; then chown -R 65534:65534 .; \
                           as='setpriv --reuid=65534 --regid=65534 --clear-groups'; fi";
            command.current_dir(&folder).env("HOME", &folder).env("LC_ALL", "C");
            command.arg("-c").arg(format!("{PROGRAMS}; {whoever}; {line}"));
            Proc::start(world, name, command)
        };
        let init = "$as initdb --no-sync --username=story --auth=trust --pgdata=data";
        shell("initdb", init)?.finish()?.exits(0);
        let serve = "exec $as postgres -D data -k \"$PWD\" -c listen_addresses= -c fsync=off";
        let proc = shell("postgres", serve)?;
        let this = Self { folder: folder.clone(), _proc: proc };
        let customers = world.dir().join("customers.sql");
        let python = world.parts().python()?.display().to_string();
        let script = "from customers import CUSTOMERS as c\n\
             print('create table customers (id int, name text, email text, ssn text, card text, \
             plan text);')\n\
             for row in c: print('insert into customers values', row, ';', sep='')";
        let mut seed = world.command(python)?;
        seed.env("PYTHONPATH", world.parts().script("")).args(["-c", script]);
        fs::write(&customers, Proc::run(world, "customers", seed)?.exits(0).stdout)?;
        fs::copy(&customers, folder.join("customers.sql"))?;
        let ready = "psql -h \"$PWD\" -U story -d postgres -c 'select 1'";
        until("PostgreSQL", || Ok((shell("psql", ready)?.finish()?.code == 0).then_some(())))?;
        let fill = "psql -v ON_ERROR_STOP=1 -h \"$PWD\" -U story -d postgres -f customers.sql";
        shell("psql fill", fill)?.finish()?.exits(0);
        Ok(this)
    }

    fn server(&self, world: &World) -> anyhow::Result<Shelved> {
        let mut command = package(world, "server-postgres/dist/index.js")?;
        command.push(format!("postgres://story@localhost/postgres?host={}", self.folder.display()));
        let all = json!({"sql": "select * from customers order by id"});
        let steps = vec![
            call("query", all.clone()),
            read("postgres://story@localhost/customers/schema"),
            cancel_slow("query", json!({"sql": "select pg_sleep(20) as slow"}), ("query", all)),
        ];
        Ok(Shelved::new("postgres", Place::Stdio(command, vec![]), steps).masked())
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.folder));
    }
}
