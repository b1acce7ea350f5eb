//! Where it happens: the server's process on a fresh folder, one person's login, and what else the
//! ways need.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mcpx::broker::grant::{GrantSource, TokenKind, exchange};
use mcpx::broker::hold::Hold;
use mcpx::broker::login::Login;
use mcpx::broker::server::ServerInfo;
use mcpx::identity::fetch;
use mcpx::types::{Clock as _, Secret, SystemClock};
use url::Url;

use super::child;
use super::config::{self, COUNTS, Options};
use super::journal::{Commits, Journal};
use super::login::log_in;
use super::nginx::Nginx;
use super::process::{self, Process};
use super::server::{self, Server};
use super::upstream::Upstream;
use super::ways::{Bound, Reach, Way};

/// Everything that runs. Dropped in this order: clients of a server before the server.
pub struct Place {
    connects: Vec<(Reach, Process, Url)>,
    login: Login,
    info: ServerInfo,
    pub home: PathBuf,
    nginx: Option<Nginx>,
    pub server: Server,
    upstream: Upstream,
    journal: RefCell<Journal>,
    bound: Bound,
    folder: tempfile::TempDir,
}

/// What it takes to ask for a grant.
pub struct Asker {
    server: ServerInfo,
    http: reqwest::Client,
    id_token: Secret,
    resource: String,
}

impl Asker {
    /// Asks for a grant that is bound to a fresh key.
    pub async fn ask(&self) {
        let Self { server, http, id_token, resource } = self;
        let hold = Hold::new(server).expect("a key");
        let now = SystemClock.now_seconds();
        let given = exchange(
            server,
            http,
            id_token,
            &TokenKind::Identity,
            &hold,
            resource,
            None,
            None,
            now,
        )
        .await;
        assert!(given.is_ok_and(|given| given.grant.is_some()), "no grant");
    }
}

/// Processor time so far.
#[derive(Clone, Copy)]
pub struct Cpu {
    /// Of every process on a way, the upstream included.
    pub all: Duration,
    /// Of what stands between client and upstream.
    pub proxy: Duration,
}

impl Place {
    pub async fn open(options: &Options) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let dir = folder.path();
        let upstream = Upstream::start();
        config::write(dir, upstream.port, options);
        let nginx = options.nginx.then(|| Nginx::start(dir, upstream.port, options.bound));
        let server = Server::start(dir);
        let home = dir.join("home");
        let (login, info) = log_in(&server.url, &home).await;
        let connect = |reach: &Reach| {
            let (process, url) = server::connect(&home, reach.connection());
            (*reach, process, url)
        };
        let connects = options.connects.iter().map(connect).collect();
        let journal = RefCell::new(Journal::new(&dir.join("data/log/journal")));
        let bound = options.bound;
        Self { connects, login, info, home, nginx, server, upstream, journal, bound, folder }
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Where children leave their counts.
    pub fn counts(&self) -> PathBuf {
        self.folder().join(COUNTS)
    }

    /// Where a way begins for connection `name`, whose server is at `path` of the upstream.
    pub fn url(&self, way: Way, reach: Reach, name: &str, path: &str) -> Url {
        let local = |port: u16| format!("http://127.0.0.1:{port}{path}").parse().expect("a URL");
        match way {
            Way::Direct => local(self.upstream.port),
            Way::Nginx => {
                let mut url = local(self.nginx.as_ref().expect("nginx was started").port);
                if self.bound == Bound::Certificate {
                    url.set_scheme("https").expect("a scheme like the other");
                }
                url
            }
            Way::Gateway => format!("{}mcp/{name}", self.info.server).parse().expect("a URL"),
            Way::Connect => self.connect(reach).2.clone(),
        }
    }

    fn connect(&self, reach: Reach) -> &(Reach, Process, Url) {
        let found = self.connects.iter().find(|(of, ..)| *of == reach);
        found.expect("mcpx connect was started for it")
    }

    /// A grant of its own for the gateway.
    pub fn grant(&self, resource: &Url) -> GrantSource {
        let clock = Arc::new(SystemClock);
        let login = Arc::new(self.login.clone());
        GrantSource::new(self.info.clone(), login, resource.as_str(), None, clock).expect("a key")
    }

    /// Somebody who asks for one grant after the other.
    pub async fn asker(&self) -> Asker {
        let server = self.info.clone();
        let http = fetch::client_for(&server.token_endpoint).expect("a client");
        let id_token = self.login.id_token().await.expect("a login");
        let resource = format!("{}mcp/{}", server.server, Reach::Http.connection());
        Asker { server, http, id_token, resource }
    }

    /// What stands between client and upstream.
    fn proxies(&self, way: Way, reach: Reach) -> Vec<u32> {
        match way {
            Way::Direct => Vec::new(),
            Way::Nginx => self.nginx.as_ref().map(Nginx::pids).unwrap_or_default(),
            Way::Gateway => vec![self.server.pid()],
            Way::Connect => vec![self.server.pid(), self.connect(reach).1.0.id()],
        }
    }

    fn upstreams(&self, way: Way, reach: Reach) -> Vec<u32> {
        let parent = match (reach, way) {
            (Reach::Http, _) => return vec![self.upstream.pid()],
            (Reach::Stdio, Way::Direct) => std::process::id(),
            (Reach::Stdio, _) => self.server.pid(),
        };
        let mut children = process::children(parent);
        children.retain(|pid| process::first_argument(*pid).as_deref() == Some(child::ARGUMENT));
        children
    }

    /// What the processes on a way have used so far; nothing where there is no `/proc`.
    pub fn cpu(&self, way: Way, reach: Reach) -> Option<Cpu> {
        let proxy: Duration =
            self.proxies(way, reach).into_iter().map(process::cpu).sum::<Option<_>>()?;
        let behind: Duration =
            self.upstreams(way, reach).into_iter().map(process::cpu).sum::<Option<_>>()?;
        Some(Cpu { all: proxy + behind, proxy })
    }

    /// What the proxies on a way keep in memory, in MB; for the direct way the upstream.
    pub fn resident(&self, way: Way, reach: Reach) -> Option<f64> {
        let counted = match way {
            Way::Direct => self.upstreams(way, reach),
            _ => self.proxies(way, reach),
        };
        counted.into_iter().map(process::resident).sum()
    }

    /// What the audit log committed since this was asked last.
    pub fn commits(&self) -> Commits {
        self.journal.borrow_mut().news()
    }

    /// What syncs of 4 KiB cost on the audit log's disk just now, in order of length.
    pub fn syncs(&self, count: usize) -> Vec<Duration> {
        use std::io::Write as _;
        let mut file = std::fs::File::create(self.folder().join("sync")).expect("a file");
        let mut times: Vec<Duration> = (0..count)
            .map(|_| {
                let begun = Instant::now();
                file.write_all(&[7; 4096]).expect("a write");
                file.sync_data().expect("a sync");
                begun.elapsed()
            })
            .collect();
        times.sort_unstable();
        times
    }

    /// Ends everything and checks what must be true at the end: every call reached the tool once,
    /// and the log verifies with a record of each.
    pub fn close(self, calls: u64) -> String {
        let Self { connects, server, nginx, upstream, folder, .. } = self;
        drop(connects);
        drop(server);
        drop(nginx);
        let reached = upstream.close() + child::counted(&folder.path().join(COUNTS));
        assert_eq!(reached, calls, "calls that reached the tool, and calls that were answered");
        let verified = server::verify(&folder.path().join("data"));
        assert_eq!(verified, Ok(()), "the log does not verify");
        let log = std::fs::read_to_string(folder.path().join("server.log")).unwrap_or_default();
        let complaints: Vec<&str> =
            log.lines().filter(|line| line.contains("WARN") || line.contains("ERROR")).collect();
        format!(
            "{calls} calls were answered as they must be and reached the tool once; the log \
             verifies; {} warnings of the server{}{}",
            complaints.len(),
            if complaints.is_empty() { "" } else { ", the first: " },
            complaints.first().unwrap_or(&""),
        )
    }
}
