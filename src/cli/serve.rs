//! `mcpx serve`: control server and gateway in one process. Wired here, built elsewhere.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use serde_json::json;
use tokio::net::TcpListener;

use crate::audit::{Entry, LogKey, Reader, Record, Recorder};
use crate::cli::Context;
use crate::cli::error::{CliError, Kind};
use crate::config::{ConfigError, ConnectionSettings, Reach, Settings};
use crate::control::approvals::ApprovalDesk;
use crate::control::assertions::AssertionSigner;
use crate::control::consents::ConsentDesk;
use crate::control::grants::GrantBook;
use crate::control::index::Index;
use crate::control::issuer::saml::SamlParts;
use crate::control::issuer::{LocalIssuer, password};
use crate::control::oauth::{AccessDesk, KnownTokens};
use crate::control::pins::PinBoard;
use crate::control::routes::{Readiness, router};
use crate::control::session::ApiSessions;
use crate::control::{ConnectionInfo, Control, keys as signing_keys, listen};
use crate::gateway::Gateway;
use crate::gateway::oauth::OAuth;
use crate::gateway::seal::Seal;
use crate::gateway::shelf::Shelf;
use crate::gateway::slots::Slots;
use crate::identity::dpop::{Nonces, ReplayCache};
use crate::identity::fetch;
use crate::identity::grant::GrantSigner;
use crate::identity::key::SigningKey;
use crate::identity::possession::Possession;
use crate::identity::ring::KeyRing;
use crate::identity::trust::TrustRules;
use crate::identity::{IssuerVerifier, Issuers, private_file};
use crate::mask::Masker;
use crate::store::Store;
use crate::types::{Clock, ConnectionName, GrantId};
use crate::upstream::credential::behalf::Assertions;
use crate::upstream::http::HttpUpstream;
use crate::upstream::launch::{self, Launch};
use crate::upstream::sse::SseUpstream;
use crate::upstream::stdio::{Keeping, Share, StdioUpstream};
use crate::upstream::witness::Witness;
use crate::upstream::{Bounds, Upstream};

/// Run the control server and the gateway
#[derive(clap::Args, Debug)]
pub struct ServeArgs {
    /// The configuration file
    #[arg(
        long,
        value_name = "FILE",
        env = "MCPX_CONFIG",
        hide_env_values = true,
        default_value = "mcpx.toml"
    )]
    pub config: PathBuf,
    /// Check the configuration and the policies, then end
    #[arg(long)]
    pub check: bool,
    /// Read a password from stdin and print what `[local_issuer]` keeps of it, then end
    #[arg(long, conflicts_with_all = ["check", "ready_file"])]
    pub hash_password: bool,
    /// Let another key sign grants from now on, on the server that runs with this configuration
    /// or, without one, at its next start; then end. Sessions go on
    #[arg(long, conflicts_with_all = ["check", "ready_file", "hash_password"])]
    pub rotate_keys: bool,
    /// Write a JSON file with the addresses once requests are accepted
    #[arg(long, value_name = "FILE")]
    pub ready_file: Option<PathBuf>,
}

/// Proofs of possession that are remembered for as long as they could be accepted again (two
/// minutes and a little): the bound on calls in that time.
const PROOFS: usize = 1 << 20;

/// The log's public key, beside the log.
pub(super) const LOG_KEY: &str = "log.vkey";

/// How often what is over is cleared away.
const SWEEP: Duration = Duration::from_secs(1);

/// Serves until it is told to stop.
///
/// # Errors
/// [`CliError`]: what is wrong with the configuration, or what cannot be opened.
pub async fn run(args: ServeArgs, context: &Context) -> Result<(), CliError> {
    if args.hash_password {
        let typed = context.ui.secret("Password (not shown):")?;
        if typed.expose().is_empty() {
            return Err(CliError::new(Kind::Usage, "the password is empty"));
        }
        let hash = password::hash(typed.expose())
            .map_err(|error| failed("the password cannot be hashed", &error))?;
        return context.ui.print(&hash);
    }
    let settings = Settings::load(&args.config)?;
    if args.rotate_keys {
        return crate::cli::rotate::run(&settings.data_dir, context).await;
    }
    let tls = match &settings.tls {
        None => None,
        Some(files) => Some(
            listen::tls(&files.certificate, &files.key, files.client_certificates)
                .map_err(|error| failed("TLS cannot be set up", &error))?,
        ),
    };
    if args.check {
        let summary = Summary::of(&settings).await;
        return if context.ui.json() {
            context.ui.print_json(&summary.json())
        } else {
            context.ui.print(&summary.text())
        };
    }
    let server = Server::open(settings, context.clock()).await?;
    server.serve(tls, args.ready_file.as_deref(), context).await
}

impl From<ConfigError> for CliError {
    fn from(error: ConfigError) -> Self {
        let wrong = Self::failure("the configuration cannot be used").caused_by(Some(&error));
        wrong.hint("correct it, then try `mcpx serve --check`")
    }
}

fn failed(what: &str, error: &(dyn std::error::Error + 'static)) -> CliError {
    CliError::failure(what).caused_by(Some(error))
}

/// What `--check` says of a good configuration.
struct Summary {
    file: String,
    listen: String,
    connections: Vec<String>,
    /// How the child processes of a connection are kept, and what they are held to here.
    children: Vec<(String, String)>,
    issuers: Vec<String>,
    /// Connections with MCP's own OAuth.
    oauth: Vec<String>,
    trust: Vec<String>,
    policies: usize,
    policy_dir: String,
}

impl Summary {
    async fn of(settings: &Settings) -> Self {
        let mut issuers: Vec<_> =
            settings.issuers.iter().map(|issuer| issuer.name.clone()).collect();
        if settings.local_issuer.is_some() || settings.saml.is_some() {
            issuers.push("local".to_owned());
        }
        let mut children = Vec::new();
        for connection in &settings.connections {
            if let Reach::Stdio { keeping, sandbox, .. } = &connection.reach {
                let kept = kept(keeping);
                let held = match launch::probe(&helper(), sandbox).await {
                    Ok(report) => report.summary(),
                    Err(error) => format!("the sandbox cannot be tried: {error}"),
                };
                children.push((connection.name.to_string(), format!("{kept}; {held}")));
            }
        }
        Self {
            file: settings.file.display().to_string(),
            listen: settings.listen.to_string(),
            connections: settings.connections.iter().map(|c| c.name.to_string()).collect(),
            children,
            issuers,
            oauth: settings
                .oauth
                .iter()
                .flat_map(|oauth| &oauth.connections)
                .map(ToString::to_string)
                .collect(),
            trust: settings.trust.iter().map(|rule| rule.name.clone()).collect(),
            policies: settings.policies.len(),
            policy_dir: settings.policy_dir.display().to_string(),
        }
    }

    fn text(&self) -> String {
        let list = |names: &[String]| match names {
            [] => "none".to_owned(),
            names => names.join(", "),
        };
        let mut text = format!(
            "{} can be served.\n  listens on   {}\n  issuers      {}\n  connections  {}\n  policies     {} in {}{}",
            self.file,
            self.listen,
            list(&self.issuers),
            list(&self.connections),
            self.policies,
            self.policy_dir,
            if self.policies == 0 { " (so every call is denied)" } else { "" },
        );
        if !self.oauth.is_empty() {
            text.push_str(&format!("\n  oauth        {}", list(&self.oauth)));
        }
        if !self.trust.is_empty() {
            text.push_str(&format!("\n  trusts       jobs under {}", list(&self.trust)));
        }
        for (name, how) in &self.children {
            text.push_str(&format!("\n  {name}: {how}"));
        }
        text
    }

    fn json(&self) -> serde_json::Value {
        json!({
            "file": self.file,
            "listen": self.listen,
            "issuers": self.issuers,
            "oauth": self.oauth,
            "trust": self.trust,
            "connections": self.connections,
            "children": self.children.iter().cloned().collect::<BTreeMap<_, _>>(),
            "policies": self.policies,
        })
    }
}

/// How the children of a connection are kept, in words.
fn kept(keeping: &Keeping) -> String {
    match keeping.share {
        Share::Session => format!(
            "a process for each session, at most {}, {} for one user",
            keeping.processes, keeping.per_subject
        ),
        Share::Connection => {
            "one process for everybody: the MCP server cannot tell its users apart".to_owned()
        }
    }
}

/// This very program, also when its file was replaced since.
fn helper() -> PathBuf {
    if cfg!(target_os = "linux") {
        return "/proc/self/exe".into();
    }
    std::env::current_exe().unwrap_or_else(|_| "mcpx".into())
}

/// An opened server, before it takes requests.
struct Server {
    settings: Settings,
    listener: TcpListener,
    store: Store,
    recorder: Recorder,
    reader: Reader,
    clock: Arc<dyn Clock>,
}

impl Server {
    /// Opens everything that the server writes, and binds its address. Nothing is accepted yet.
    async fn open(settings: Settings, clock: Arc<dyn Clock>) -> Result<Self, CliError> {
        let data = &settings.data_dir;
        let unusable = |error: &(dyn std::error::Error + 'static)| {
            failed(&format!("the data directory {} cannot be used", data.display()), error)
        };
        private_file::directory(data).map_err(|error| unusable(&error))?;
        let keys = data.join("keys");
        private_file::directory(&keys).map_err(|error| unusable(&error))?;
        let origin = log_origin(&keys.join("log-name")).map_err(|error| unusable(&*error))?;
        let key = LogKey::load_or_create(&keys.join("log.key"), &origin)
            .map_err(|error| unusable(&error))?;
        let log = data.join("log");
        let (recorder, opened) =
            Recorder::open(&log, key, Arc::clone(&clock)).map_err(|error| unusable(&error))?;
        if opened.dropped > 0 || opened.restored > 0 {
            tracing::warn!(
                dropped_bytes = opened.dropped,
                restored_tiles = opened.restored,
                "the audit log was not closed in order; unfinished writes are dropped"
            );
        }
        let reader = Reader::open(&log).map_err(|error| unusable(&error))?;
        // For who verifies the folder by itself; who does not trust it brings the key along.
        std::fs::write(data.join(LOG_KEY), format!("{}\n", recorder.vkey()))
            .map_err(|error| unusable(&error))?;
        let store = Store::open(&data.join("mcpx.db")).await.map_err(|error| unusable(&error))?;
        let listener = TcpListener::bind(settings.listen)
            .await
            .map_err(|error| failed(&format!("cannot listen on {}", settings.listen), &error))?;
        Ok(Self { settings, listener, store, recorder, reader, clock })
    }

    async fn serve(
        self,
        tls: Option<Arc<rustls::ServerConfig>>,
        ready_file: Option<&Path>,
        context: &Context,
    ) -> Result<(), CliError> {
        let address =
            self.listener.local_addr().map_err(|error| failed("cannot listen", &error))?;
        let scheme = if tls.is_some() { "https" } else { "http" };
        let public_url =
            self.settings.public_url.clone().unwrap_or_else(|| format!("{scheme}://{address}"));

        let started = Record::Started {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            config_hash: self.settings.hash.clone(),
        };
        self.note(started).await?;
        let loaded = Record::PolicyLoaded { hash: self.settings.policies.version().to_owned() };
        self.note(loaded).await?;
        let (index, orphaned) =
            Index::start(self.recorder.clone(), self.reader.clone(), self.store.clone())
                .await
                .map_err(|error| failed("the audit log cannot be indexed", &error))?;
        if orphaned > 0 {
            tracing::warn!(orphaned, "calls were under way when the server last ended");
        }

        let masker = Arc::clone(&self.settings.masker);
        let pins = PinBoard::open(
            self.store.clone(),
            self.recorder.clone(),
            Arc::clone(&self.clock),
            Arc::clone(&masker),
        )
        .await
        .map_err(|error| failed("the pins cannot be read", &error))?;
        let pins = Arc::new(pins);
        let Self { settings, listener, store, recorder, reader, clock } = self;
        let head_timeout = settings.head_timeout;
        let parts = Parts { settings, store, recorder, reader, clock, index, pins, public_url };
        note_credentials(&parts).await?;
        let vouched = vouching(&parts)?;
        let desk = consents(&parts)?;
        let (control, gateway, issuer) = parts.wire()?;
        let readiness = Readiness::default();
        let routes =
            router(Arc::clone(&control), Arc::clone(&gateway), issuer.as_ref(), readiness.clone());
        let asking = desk.map(|desk| desk.router().with_state(Arc::clone(&control)));
        let routes = routes.merge(vouched).merge(asking.unwrap_or_default());
        let sweeper = tokio::spawn(sweep(Arc::clone(&control), Arc::clone(&gateway)));

        if let Some(path) = ready_file {
            let line = format!("{}\n", json!({ "server": control.public_url }));
            // Renamed into place: who waits for the file never reads half of it.
            let temporary = path.with_extension("tmp");
            std::fs::write(&temporary, line)
                .and_then(|()| std::fs::rename(&temporary, path))
                .map_err(|error| failed(&format!("cannot write {}", path.display()), &error))?;
        }
        readiness.set(true);
        context.ui.status(&format!("mcpx serves {} (Ctrl-C ends it)", control.public_url));
        let waits = listen::Waits {
            head: head_timeout,
            // Of a stream, the data path notices sooner, and writes it down.
            stalled: gateway.settings.streams.stalled * 2,
            drain: gateway.settings.drain,
        };
        let stopping = {
            let readiness = readiness.clone();
            async move {
                crate::cli::wait::until_told_to_stop().await;
                readiness.set(false);
                tracing::info!("stopping: running calls may finish");
            }
        };
        listen::serve(listener, tls, routes, control.recorder.clone(), stopping, waits).await;
        sweeper.abort();
        gateway.shutdown().await;
        // Calls that were cut have a moment to write how they ended.
        tokio::time::sleep(Duration::from_millis(200)).await;
        let stopped = Entry { record: Record::Stopped, body: None };
        let recorded = control.recorder.append(stopped).await;
        recorded.map_err(|error| failed("the audit log could not be closed", &error))?;
        let closed = control.recorder.shutdown().await;
        closed.map_err(|error| failed("the audit log could not be closed", &error))
    }

    async fn note(&self, record: Record) -> Result<(), CliError> {
        let entry = Entry { record, body: None };
        let noted = self.recorder.append(entry).await;
        let data = self.settings.data_dir.display().to_string();
        noted
            .map(drop)
            .map_err(|error| failed(&format!("the audit log in {data} cannot be written"), &error))
    }
}

/// What is over is cleared away: ended grants with the processes kept for them, lapsed approvals.
async fn sweep(control: Arc<Control>, gateway: Arc<Gateway>) {
    let mut ticks = tokio::time::interval(SWEEP);
    loop {
        ticks.tick().await;
        for (connection, session) in control.grants.sweep(control.clock.now()) {
            // A process may take its time to go; the next grant that is over does not wait for it.
            let gateway = Arc::clone(&gateway);
            tokio::spawn(async move { gateway.end_session(&connection, &session).await });
        }
        if let Err(error) = signing_keys::tend(&control).await {
            tracing::error!(%error, "the signing keys could not be looked after");
        }
        if let Err(error) = control.approvals.sweep().await {
            tracing::error!(?error, "lapsed approvals could not be cleared away");
        }
    }
}

/// Everything that control server and gateway are made of.
struct Parts {
    settings: Settings,
    store: Store,
    recorder: Recorder,
    reader: Reader,
    clock: Arc<dyn Clock>,
    index: Index,
    pins: Arc<PinBoard>,
    public_url: String,
}

type Wired = (Arc<Control>, Arc<Gateway>, Option<LocalIssuer>);

impl Parts {
    fn wire(self) -> Result<Wired, CliError> {
        let Self { settings, store, recorder, reader, clock, index, pins, public_url } = self;
        let keys = settings.data_dir.join("keys");
        let ring = KeyRing::open(&keys)
            .map_err(|error| failed("the key of grants cannot be used", &error))?;
        let signer = GrantSigner::new(Arc::new(ring), public_url.as_str());
        let nonces = settings.possession.nonce_life.map(Nonces::new).transpose();
        let nonces = nonces.map_err(|error| failed("nonces cannot be made", &error))?;
        let nonces = nonces.map(Arc::new);
        let possession = || {
            let replay = ReplayCache::new(PROOFS).since(clock.now_seconds());
            Possession::new(&settings.possession, replay.with_nonces(nonces.clone()))
        };
        let (of_gateway, of_control) = (possession(), possession());
        let certificates = settings.possession.certificates;
        let verifier = Arc::new(signer.verifier());
        let masker = settings.masker;
        let saml = settings.saml.map(|settings| SamlParts {
            settings,
            recorder: recorder.clone(),
            masker: Arc::clone(&masker),
        });
        let issuer = match settings.local_issuer.or(saml.as_ref().map(|_| Default::default())) {
            None => None,
            Some(local) => {
                let key = SigningKey::load_or_create(&keys.join("issuer.key"))
                    .map_err(|error| failed("the built-in issuer's key cannot be used", &error))?;
                let base = format!("{public_url}/issuer");
                let (store, clock) = (store.clone(), Arc::clone(&clock));
                let issuer = LocalIssuer::with_saml(local, saml, &base, key, store, clock)
                    .map_err(|error| failed("the built-in issuer cannot run", &error))?;
                Some(issuer)
            }
        };
        let issuers = issuers(settings.issuers, issuer.as_ref())?;
        let trust = TrustRules::new(settings.trust, &public_url)
            .map_err(|error| failed("a trust rule cannot be used", &error))?;
        let policies = Arc::new(ArcSwap::from_pointee(settings.policies));
        let (bounds, limits) = (settings.upstream, settings.gateway.limits);
        let (upstreams, shown) =
            upstreams(settings.connections, &masker, &recorder, bounds, limits)?;
        let grants = Arc::new(GrantBook::new(store.clone()));
        let approvals = Arc::new(ApprovalDesk::new(
            store.clone(),
            recorder.clone(),
            Arc::clone(&clock),
            settings.approval_expire,
        ));
        let seal = Arc::new(seal(&keys.join("session.key"))?);
        let streams = settings.gateway.streams;
        let shelf = Shelf::new(streams.keeping, Arc::clone(&seal))
            .map_err(|error| failed("streams cannot be numbered", &error))?;
        let slots = Arc::new(Slots::new(streams.per_session, streams.total));
        let oauth = settings.oauth.and_then(|oauth| {
            let desk = AccessDesk {
                store: store.clone(),
                recorder: recorder.clone(),
                masker: Arc::clone(&masker),
                policies: Arc::clone(&policies),
                grants: Arc::clone(&grants),
                slots: Arc::clone(&slots),
                clock: Arc::clone(&clock),
                grant_max: settings.control.grant_max,
                known: KnownTokens::default(),
            };
            OAuth::new(&oauth, &issuers, &public_url, Arc::new(desk))
        });
        let gateway = Gateway {
            oauth,
            public_url: public_url.clone(),
            connections: upstreams,
            policies: Arc::clone(&policies),
            masker: Arc::clone(&masker),
            recorder: recorder.clone(),
            verifier: Arc::clone(&verifier),
            possession: of_gateway,
            seal,
            shelf: Arc::new(shelf),
            slots: Arc::clone(&slots),
            grants: Arc::clone(&grants) as _,
            approvals: Arc::clone(&approvals) as _,
            pins: Arc::clone(&pins) as _,
            clock: Arc::clone(&clock),
            stop: tokio::sync::watch::channel(false).0,
            settings: settings.gateway,
        };
        let control = Control {
            public_url,
            issuers,
            trust,
            signer,
            verifier,
            possession: of_control,
            certificates,
            policies,
            masker,
            connections: shown,
            grants,
            slots,
            approvals,
            pins,
            sessions: ApiSessions::default(),
            store,
            log_key: recorder.vkey().to_string(),
            recorder,
            reader,
            index,
            settings: settings.control,
            clock,
        };
        Ok((Arc::new(control), Arc::new(gateway), issuer))
    }
}

/// Puts on record what the calls of each connection get.
async fn note_credentials(parts: &Parts) -> Result<(), CliError> {
    for connection in &parts.settings.connections {
        let Some(credential) = connection.reach.credential() else { continue };
        let record = Record::CredentialConfigured {
            connection: connection.name.clone(),
            credential: credential.kind().to_owned(),
        };
        let body = json!({ "credential": &**credential.name() }).to_string();
        let noted = parts.recorder.append(Entry { record, body: Some(body.into()) }).await;
        noted.map_err(|error| failed("the audit log cannot be written", &error))?;
    }
    Ok(())
}

/// Tries every credential, lets this server vouch for its subjects where one needs that, and
/// publishes the key.
fn vouching(parts: &Parts) -> Result<axum::Router, CliError> {
    let mut needing = Vec::new();
    for connection in &parts.settings.connections {
        let Some(credential) = connection.reach.credential() else { continue };
        if credential.needs_vouching() {
            needing.push(credential);
        }
        let (name, credential) = (connection.name.clone(), credential.clone());
        tokio::spawn(async move {
            if let Err(error) = credential.try_now().await {
                tracing::error!(connection = %name, %error, "calls will be refused: no credential");
            }
        });
    }
    if needing.is_empty() {
        return Ok(axum::Router::new());
    }
    let path = parts.settings.data_dir.join("keys").join("assertion.key");
    let clock = Arc::clone(&parts.clock);
    let signer = AssertionSigner::load_or_create(&path, &parts.public_url, clock)
        .map_err(|error| failed("the key of assertions cannot be used", &error))?;
    let routes = signer.router();
    let signer: Arc<dyn Assertions> = Arc::new(signer);
    needing.into_iter().for_each(|credential| credential.vouched_for_by(&signer));
    Ok(routes)
}

/// Where users agree to what is done in their name, if a connection wants that.
fn consents(parts: &Parts) -> Result<Option<Arc<ConsentDesk>>, CliError> {
    let mut wanting = BTreeMap::new();
    for connection in &parts.settings.connections {
        let credential = connection.reach.credential();
        if let Some(credential) = credential.filter(|known| known.consenting().is_some()) {
            wanting.insert(connection.name.clone(), credential.clone());
        }
    }
    if wanting.is_empty() {
        return Ok(None);
    }
    let seal = seal(&parts.settings.data_dir.join("keys").join("consent.key"))?;
    let (store, clock) = (parts.store.clone(), Arc::clone(&parts.clock));
    Ok(Some(Arc::new(ConsentDesk::new(wanting, store, seal, clock))))
}

fn issuers(
    trusted: Vec<crate::identity::IssuerSettings>,
    local: Option<&LocalIssuer>,
) -> Result<Issuers, CliError> {
    let wrong =
        |error: &(dyn std::error::Error + 'static)| failed("an issuer cannot be used", error);
    let mut verifiers = Vec::new();
    for issuer in trusted {
        let url = issuer.url.parse().map_err(|error: url::ParseError| wrong(&error))?;
        let http = fetch::client_for(&url).map_err(|error| wrong(&error))?;
        verifiers.push(IssuerVerifier::new(issuer, http).map_err(|error| wrong(&error))?);
    }
    if let Some(local) = local {
        verifiers.push(local.verifier("local").map_err(|error| wrong(&error))?);
    }
    Issuers::new(verifiers).map_err(|error| wrong(&error))
}

type Upstreams =
    (BTreeMap<ConnectionName, Arc<Upstream>>, BTreeMap<ConnectionName, ConnectionInfo>);

fn upstreams(
    connections: Vec<ConnectionSettings>,
    masker: &Arc<Masker>,
    recorder: &Recorder,
    bounds: Bounds,
    limits: crate::mcp::Limits,
) -> Result<Upstreams, CliError> {
    let client = HttpUpstream::client(bounds)
        .map_err(|error| failed("no HTTP client can be made", &error))?;
    let mut upstreams = BTreeMap::new();
    let mut shown = BTreeMap::new();
    for connection in connections {
        let upstream = match connection.reach {
            Reach::Http { url, credential } => {
                Upstream::Http(HttpUpstream::new(url, credential, client.clone(), bounds))
            }
            Reach::Sse { url, credential, streams } => {
                let client = client.clone();
                let sse = SseUpstream::new(url, credential, client, bounds, limits, streams);
                Upstream::Sse(sse)
            }
            Reach::Stdio { program, arguments, environment, folder, keeping, sandbox } => {
                let witness = Witness {
                    connection: connection.name.clone(),
                    recorder: recorder.clone(),
                    masker: Arc::clone(masker),
                };
                let helper = helper();
                let launch =
                    Launch { program, arguments, environment, folder, sandbox, helper, witness };
                Upstream::Stdio(StdioUpstream::new(launch, limits, keeping))
            }
        };
        let transport = upstream.transport();
        let info = ConnectionInfo { description: connection.description, transport };
        shown.insert(connection.name.clone(), info);
        upstreams.insert(connection.name, Arc::new(upstream));
    }
    Ok((upstreams, shown))
}

/// The log's name in its checkpoints: made at the first start and kept, because it is part of
/// what every checkpoint signs.
fn log_origin(path: &Path) -> Result<String, Box<dyn std::error::Error>> {
    let read = || -> Result<Option<String>, Box<dyn std::error::Error>> {
        let bytes = private_file::read(path)?;
        Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned()))
    };
    if let Some(name) = read()? {
        return Ok(name);
    }
    let id = GrantId::generate()?;
    let fresh = format!("mcpx/{}", id.as_str().trim_start_matches(GrantId::PREFIX));
    private_file::create(path, fresh.as_bytes())?;
    // Another process may have been faster; its name is the log's.
    Ok(read()?.unwrap_or(fresh))
}

fn seal(path: &Path) -> Result<Seal, CliError> {
    let wrong = |error: &(dyn std::error::Error + 'static)| {
        failed("the key of session ids cannot be used", error)
    };
    let fresh: [u8; 32] = crate::types::random().map_err(|error| wrong(&error))?;
    private_file::create(path, &fresh).map_err(|error| wrong(&error))?;
    let kept = private_file::read(path).map_err(|error| wrong(&error))?.unwrap_or_default();
    <&[u8; 32]>::try_from(kept.as_slice())
        .ok()
        .and_then(Seal::new)
        .ok_or_else(|| CliError::failure(format!("{} must hold exactly 32 bytes", path.display())))
}
