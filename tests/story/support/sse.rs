//! Somebody who speaks the legacy protocol by hand and reads its streams event by event.

use anyhow::Context as _;
use serde_json::{Value, json};

use super::http::{self, Answer};
use super::raw::Raw;
use super::site::Server;

/// One event with an id or data.
#[derive(Clone, Debug, Default)]
pub struct Event {
    /// Its id, empty if it has none.
    pub id: String,
    /// Its data, empty if it has none.
    pub data: String,
}

impl Event {
    /// Its data as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.data).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// A stream that is being read. Dropped, its connection is cut.
pub struct Stream {
    response: reqwest::Response,
    read: String,
}

impl Stream {
    /// Sends a request that is answered with a stream.
    ///
    /// # Errors
    /// It is answered otherwise.
    pub fn open(request: reqwest::RequestBuilder) -> anyhow::Result<Self> {
        let response = http::block(async { request.send().await })?;
        let kind = response.headers().get("content-type").and_then(|kind| kind.to_str().ok());
        anyhow::ensure!(kind == Some("text/event-stream"), "no stream: {response:?}");
        Ok(Self { response, read: String::new() })
    }

    /// The next event, without comments; `None` at the end.
    ///
    /// # Errors
    /// The stream breaks.
    pub fn next(&mut self) -> anyhow::Result<Option<Event>> {
        loop {
            while let Some((block, rest)) = self.read.split_once("\n\n") {
                let field = |name: &str| {
                    let line = block.lines().find_map(|line| line.strip_prefix(name));
                    line.map(|value| value.trim().to_owned())
                };
                let event = field("id:").or(field("data:")).map(|_| Event {
                    id: field("id:").unwrap_or_default(),
                    data: field("data:").unwrap_or_default(),
                });
                self.read = rest.to_owned();
                if event.is_some() {
                    return Ok(event);
                }
            }
            match http::block(async { self.response.chunk().await })? {
                None => return Ok(None),
                Some(chunk) => self.read.push_str(&String::from_utf8_lossy(&chunk)),
            }
        }
    }

    /// Waits for a comment, as long as no event comes.
    ///
    /// # Errors
    /// An event comes, or the stream ends.
    pub fn comment(&mut self) -> anyhow::Result<()> {
        loop {
            if let Some((block, rest)) = self.read.split_once("\n\n") {
                anyhow::ensure!(block.starts_with(':'), "an event: {block}");
                self.read = rest.to_owned();
                return Ok(());
            }
            let chunk = http::block(async { self.response.chunk().await })?
                .context("the stream has ended")?;
            self.read.push_str(&String::from_utf8_lossy(&chunk));
        }
    }

    /// The next event.
    ///
    /// # Errors
    /// The stream breaks or ends.
    pub fn event(&mut self) -> anyhow::Result<Event> {
        self.next()?.context("the stream has ended")
    }

    /// Every event to the end.
    ///
    /// # Errors
    /// The stream breaks.
    pub fn rest(&mut self) -> anyhow::Result<Vec<Event>> {
        let mut events = Vec::new();
        while let Some(event) = self.next()? {
            events.push(event);
        }
        Ok(events)
    }
}

/// A protocol session of 2025-11-25.
pub struct Legacy<'a> {
    raw: &'a Raw,
    token: &'a str,
    url: &'a str,
    /// Its `Mcp-Session-Id`.
    pub session: String,
}

impl<'a> Legacy<'a> {
    /// Initializes.
    ///
    /// # Errors
    /// It is refused.
    pub fn begin(raw: &'a Raw, token: &'a str, url: &'a str) -> anyhow::Result<Self> {
        let mut legacy = Self { raw, token, url, session: String::new() };
        let params = json!({
            "protocolVersion": "2025-11-25",
            "capabilities": {},
            "clientInfo": {"name": "story", "version": "1"},
        });
        let answer = legacy.post("initialize", 0, &params)?;
        anyhow::ensure!(answer.status == 200, "{answer:?}");
        answer.header("mcp-session-id").clone_into(&mut legacy.session);
        anyhow::ensure!(!legacy.session.is_empty(), "{answer:?}");
        Ok(legacy)
    }

    /// A request of any kind in this session.
    ///
    /// # Errors
    /// No proof can be signed.
    pub fn request(&self, method: &str) -> anyhow::Result<reqwest::RequestBuilder> {
        let proof = self.raw.proof(method, self.url, Some(self.token), |_| ())?;
        let mut request = http::client()
            .request(method.parse()?, self.url)
            .header("authorization", format!("DPoP {}", self.token))
            .header("dpop", proof)
            .header("mcp-protocol-version", "2025-11-25")
            .header("accept", "application/json, text/event-stream");
        if !self.session.is_empty() {
            request = request.header("mcp-session-id", &self.session);
        }
        Ok(request)
    }

    /// A message, ready to be sent.
    ///
    /// # Errors
    /// No proof can be signed.
    pub fn message(
        &self,
        method: &str,
        id: u64,
        params: &Value,
    ) -> anyhow::Result<reqwest::RequestBuilder> {
        let body = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        let request = self.request("POST")?.header("content-type", "application/json");
        Ok(request.body(body.to_string()))
    }

    /// The call of a tool, ready to be sent.
    ///
    /// # Errors
    /// No proof can be signed.
    pub fn call(
        &self,
        id: u64,
        tool: &str,
        arguments: &Value,
    ) -> anyhow::Result<reqwest::RequestBuilder> {
        self.message("tools/call", id, &json!({"name": tool, "arguments": arguments}))
    }

    /// Sends a message and reads the whole answer.
    ///
    /// # Errors
    /// None comes.
    pub fn post(&self, method: &str, id: u64, params: &Value) -> anyhow::Result<Answer> {
        http::send(self.message(method, id, params)?)
    }

    /// The stream for what the server says unasked, or one that is taken up after an event.
    ///
    /// # Errors
    /// No proof can be signed.
    pub fn get(&self, after: Option<&str>) -> anyhow::Result<reqwest::RequestBuilder> {
        let request = self.request("GET")?;
        Ok(match after {
            Some(id) => request.header("last-event-id", id),
            None => request,
        })
    }
}

/// A grant token for a connection.
///
/// # Errors
/// The server refuses.
pub fn token(
    raw: &Raw,
    idp: &super::Idp,
    server: &Server,
    name: &str,
    url: &str,
) -> anyhow::Result<String> {
    let id_token = idp.tokens(name)?["id_token"].as_str().unwrap_or_default().to_owned();
    raw.token(server, &id_token, url)
}
