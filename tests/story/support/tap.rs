//! Taps: something in the line between a client and a server that passes every byte through as it
//! is and writes it down, over HTTP ([`Tap`]) and over stdio ([`StdioTap`], `tests/parts/tap.py`).

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use futures_util::StreamExt as _;
use tokio::net::TcpListener;
use tokio::task::AbortHandle;

use super::http;
use super::world::World;

/// One HTTP exchange, byte by byte.
#[derive(Clone, Debug, Default)]
pub struct Exchange {
    /// The request's method.
    pub method: String,
    /// Whether it went to the MCP endpoint, and not beside it.
    pub endpoint: bool,
    /// The request's body.
    pub request: Vec<u8>,
    /// The answer's status; 0 as long as there is none.
    pub status: u16,
    /// The answer's content type, without parameters.
    pub content_type: String,
    /// The answer's body so far.
    pub response: Vec<u8>,
    /// Whether the answer came to its own end.
    pub whole: bool,
    /// Whether nothing more passes, for whatever reason.
    pub over: bool,
}

/// Notes the end of an exchange, however it comes.
struct Passing(Arc<Mutex<Exchange>>);

impl Drop for Passing {
    fn drop(&mut self) {
        self.0.lock().unwrap().over = true;
    }
}

impl Exchange {
    /// The messages of the answer, without what carried them.
    pub fn answers(&self) -> Vec<Vec<u8>> {
        if self.content_type != "text/event-stream" {
            return if self.response.is_empty() { vec![] } else { vec![self.response.clone()] };
        }
        let (mut found, mut data) = (vec![], vec![]);
        for line in self.response.split(|byte| *byte == b'\n') {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if let Some(rest) = line.strip_prefix(b"data:") {
                data.extend_from_slice(rest.strip_prefix(b" ").unwrap_or(rest));
            } else if line.is_empty() && !data.is_empty() {
                found.push(std::mem::take(&mut data));
            }
        }
        found
    }
}

type Log = Arc<Mutex<Vec<Arc<Mutex<Exchange>>>>>;

/// A tap in front of one MCP endpoint; it runs as long as this is held.
pub struct Tap {
    /// Where clients find it.
    pub url: String,
    line: Arc<Wire>,
    serving: AbortHandle,
}

struct Wire {
    target: Target,
    log: Log,
    cuts: AtomicBool,
}

enum Target {
    Fixed(String),
    /// In a file, which is read for each request.
    File(PathBuf),
}

/// What the answer to be cut off is asked with.
pub const CUT: &[u8] = br#""steps":3"#;

static CLIENT: LazyLock<reqwest::Client> = LazyLock::new(|| {
    let builder = reqwest::Client::builder().no_proxy();
    // Streams last as long as somebody listens.
    builder.redirect(reqwest::redirect::Policy::none()).build().unwrap()
});

impl Tap {
    /// A tap in front of `target`.
    ///
    /// # Errors
    /// No port is free.
    pub fn start(target: &str) -> anyhow::Result<Self> {
        Self::on(Target::Fixed(target.to_owned()))
    }

    /// A tap in front of whatever a file names at the time.
    ///
    /// # Errors
    /// No port is free.
    pub fn follow(file: PathBuf) -> anyhow::Result<Self> {
        Self::on(Target::File(file))
    }

    fn on(target: Target) -> anyhow::Result<Self> {
        let listener = http::block(TcpListener::bind("127.0.0.1:0"))?;
        let url = format!("http://{}/mcp", listener.local_addr()?);
        let cuts = AtomicBool::new(false);
        let line = Arc::new(Wire { target, log: Log::default(), cuts });
        let router = Router::new().fallback(pass).with_state(line.clone());
        let serving = http::runtime().spawn(async { axum::serve(listener, router).await });
        Ok(Self { url, line, serving: serving.abort_handle() })
    }

    /// Whether the answer to what asks with [`CUT`] is cut off after its first progress.
    pub fn cuts(&self, cuts: bool) {
        self.line.cuts.store(cuts, Ordering::Relaxed);
    }

    /// Everything that passed since it was forgotten last.
    pub fn passed(&self) -> Vec<Exchange> {
        let log = self.line.log.lock().unwrap();
        log.iter().map(|exchange| exchange.lock().unwrap().clone()).collect()
    }

    /// Forgets what has passed.
    pub fn forget(&self) {
        self.line.log.lock().unwrap().clear();
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn pass(State(line): State<Arc<Wire>>, request: Request) -> Response {
    match line.pass(request).await {
        Ok(response) => response,
        Err(error) => (StatusCode::BAD_GATEWAY, error.to_string()).into_response(),
    }
}

impl Wire {
    async fn pass(&self, request: Request) -> anyhow::Result<Response> {
        let (mut head, body) = request.into_parts();
        head.headers.remove(header::HOST);
        let body = axum::body::to_bytes(body, usize::MAX).await?;
        let endpoint = head.uri.path() == "/mcp";
        let mut target = match &self.target {
            Target::Fixed(url) => reqwest::Url::parse(url)?,
            Target::File(file) => reqwest::Url::parse(&fs::read_to_string(file)?)?,
        };
        if !endpoint {
            target.set_path(head.uri.path());
        }
        let exchange = Arc::new(Mutex::new(Exchange {
            method: head.method.to_string(),
            endpoint,
            request: body.to_vec(),
            ..Exchange::default()
        }));
        self.log.lock().unwrap().push(exchange.clone());
        let passing = Passing(exchange.clone());
        let cut = self.cuts.load(Ordering::Relaxed) && memchr::memmem::find(&body, CUT).is_some();
        let sent = CLIENT.request(head.method, target).headers(head.headers).body(body);
        let mut answer = sent.send().await?;
        let status = answer.status();
        let mut headers = std::mem::take(answer.headers_mut());
        // Both belong to one hop.
        headers.remove(header::TRANSFER_ENCODING);
        headers.remove(header::CONNECTION);
        {
            let mut exchange = exchange.lock().unwrap();
            exchange.status = status.as_u16();
            let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
            let kind = kind.unwrap_or_default().split(';').next().unwrap_or_default();
            kind.trim().clone_into(&mut exchange.content_type);
        }
        let stream = futures_util::stream::unfold(
            Some((answer.bytes_stream(), passing)),
            move |state| async move {
                let (mut rest, passing) = state?;
                let exchange = &passing.0;
                match rest.next().await {
                    Some(Ok(chunk)) => {
                        if cut && tells_progress(&exchange.lock().unwrap().response) {
                            let gone = std::io::Error::other("the connection was cut");
                            return Some((Err::<Bytes, _>(gone), None));
                        }
                        exchange.lock().unwrap().response.extend_from_slice(&chunk);
                        Some((Ok(chunk), Some((rest, passing))))
                    }
                    Some(Err(error)) => Some((Err(std::io::Error::other(error)), None)),
                    None => {
                        exchange.lock().unwrap().whole = true;
                        None
                    }
                }
            },
        );
        let mut response = Response::new(Body::from_stream(stream));
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        Ok(response)
    }
}

/// Whether an event that tells progress has passed, so that there is one to go on after.
fn tells_progress(response: &[u8]) -> bool {
    memchr::memmem::find(response, b"notifications/progress").is_some()
}

/// A tap in a stdio line.
pub struct StdioTap {
    folder: PathBuf,
    command: Vec<String>,
    /// How much of each file is forgotten. A server may outlive its clients, and writes on.
    forgotten: Mutex<BTreeMap<PathBuf, usize>>,
}

/// What passed one stdio line, both ways.
#[derive(Debug, Default)]
pub struct Lines {
    /// What was said to the server.
    pub to_server: Vec<Vec<u8>>,
    /// What was said to the client.
    pub to_client: Vec<Vec<u8>>,
}

impl StdioTap {
    /// A tap in front of `command`, which writes into a folder of this name.
    ///
    /// # Errors
    /// There is no Python.
    pub fn new(world: &World, name: &str, command: &[String]) -> anyhow::Result<Self> {
        let folder = world.dir().join("taps").join(name);
        let words =
            [world.parts().python()?, &world.parts().script("tap.py"), &folder, Path::new("--")];
        let words = words.iter().map(|word| word.display().to_string());
        let command = words.chain(command.iter().cloned()).collect();
        Ok(Self { command, folder, forgotten: Mutex::default() })
    }

    /// What to start in place of the server.
    pub fn command(&self) -> &[String] {
        &self.command
    }

    /// The file that says that something slow has reached the server.
    pub fn go(&self) -> PathBuf {
        self.folder.join("go")
    }

    /// Everything that passed since it was forgotten last.
    pub fn passed(&self) -> Lines {
        let mut lines = Lines::default();
        let forgotten = self.forgotten.lock().unwrap();
        for file in super::site::files(&self.folder) {
            let written = fs::read(&file).unwrap_or_default();
            let begin = forgotten.get(&file).copied().unwrap_or(0);
            for line in written.get(begin..).unwrap_or_default().split(|byte| *byte == b'\n') {
                let line = line.strip_suffix(b"\r").unwrap_or(line);
                match line.split_first() {
                    Some((b'>', message)) => lines.to_server.push(message.to_vec()),
                    Some((b'<', message)) => lines.to_client.push(message.to_vec()),
                    _ => {}
                }
            }
        }
        lines
    }

    /// Forgets what has passed.
    pub fn forget(&self) {
        drop(fs::remove_file(self.go()));
        let mut forgotten = self.forgotten.lock().unwrap();
        for file in super::site::files(&self.folder) {
            let written = fs::metadata(&file).map_or(0, |about| about.len());
            forgotten.insert(file, usize::try_from(written).unwrap_or(usize::MAX));
        }
    }
}
