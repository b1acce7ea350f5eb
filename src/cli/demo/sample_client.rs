//! The demo's MCP client: one call over Streamable HTTP (MCP 2025-11-25), its answer on stdout.
//!
//! An ordinary client that knows nothing of mcpx: it gets a URL, and no secret.

use std::time::Duration;

use futures_util::StreamExt as _;
use reqwest::header::{ACCEPT, CONTENT_TYPE};
use serde_json::{Value, json};

use super::SampleAction;
use crate::cli::error::{CliError, Kind};
use crate::cli::ui::Ui;
use crate::mcp::headers;
use crate::mcp::sse::Decoder;

const VERSION: &str = "2025-11-25";
const LONGEST_EVENT: usize = 16 * 1024 * 1024;

/// Makes one call.
pub(super) async fn run(
    url: &str,
    action: SampleAction,
    tool: Option<String>,
    arguments: Option<String>,
    ui: &Ui,
) -> Result<(), CliError> {
    let http = reqwest::Client::builder()
        .no_proxy()
        .connect_timeout(Duration::from_secs(5))
        .build()
        .map_err(|error| CliError::failure("no HTTP client").caused_by(Some(&error)))?;
    let mut client = Client { http, url, session: None, next: 0 };
    let hello = json!({
        "protocolVersion": VERSION,
        "capabilities": {},
        "clientInfo": { "name": "sample-client", "version": env!("CARGO_PKG_VERSION") },
    });
    client.request("initialize", &hello, ui).await?;
    client.notify("notifications/initialized").await?;
    let outcome = match action {
        SampleAction::List => {
            let result = client.request("tools/list", &json!({}), ui).await?;
            let tools = result["tools"].as_array().cloned().unwrap_or_default();
            let rows = tools.iter().map(|tool| {
                let text = |key: &str| tool[key].as_str().unwrap_or_default().to_owned();
                vec![text("name"), text("description")]
            });
            ui.table(&["tool", "what it does"], rows.collect())
        }
        SampleAction::Call => {
            let Some(tool) = tool else {
                return Err(CliError::new(Kind::Usage, "which tool?"));
            };
            let arguments: Value = serde_json::from_str(arguments.as_deref().unwrap_or("{}"))
                .map_err(|error| {
                    CliError::new(Kind::Usage, "the arguments are not JSON").caused_by(Some(&error))
                })?;
            let params = json!({
                "name": tool, "arguments": arguments, "_meta": { "progressToken": "tour" },
            });
            let result = client.request("tools/call", &params, ui).await?;
            show(&result, ui)
        }
    };
    client.end().await;
    outcome
}

struct Client<'a> {
    http: reqwest::Client,
    url: &'a str,
    session: Option<String>,
    next: u64,
}

impl Client<'_> {
    async fn request(&mut self, method: &str, params: &Value, ui: &Ui) -> Result<Value, CliError> {
        self.next += 1;
        let id = self.next;
        let message = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params });
        let response = self.post(&message).await?;
        if let Some(session) = response.headers().get(headers::SESSION_ID) {
            self.session = session.to_str().ok().map(str::to_owned);
        }
        let streamed = response
            .headers()
            .get(CONTENT_TYPE)
            .is_some_and(|kind| kind.as_bytes().starts_with(headers::EVENT_STREAM.as_bytes()));
        let answer = if streamed {
            read_stream(response, id, ui).await?
        } else {
            let body = response.bytes().await.map_err(unreachable)?;
            serde_json::from_slice(&body)
                .map_err(|error| CliError::failure("no JSON came back").caused_by(Some(&error)))?
        };
        if let Some(error) = answer.get("error") {
            let message = error["message"].as_str().unwrap_or("the server refused");
            let code = error["data"]["mcpx"]["code"].as_str().unwrap_or("failure");
            return Err(CliError::new(Kind::of_code(code), message.to_owned()));
        }
        Ok(answer["result"].clone())
    }

    async fn notify(&self, method: &str) -> Result<(), CliError> {
        self.post(&json!({ "jsonrpc": "2.0", "method": method })).await.map(drop)
    }

    async fn post(&self, message: &Value) -> Result<reqwest::Response, CliError> {
        let mut request = self
            .http
            .post(self.url)
            .header(ACCEPT, headers::ACCEPT_BOTH)
            .header(CONTENT_TYPE, headers::JSON)
            .body(message.to_string());
        if let Some(session) = &self.session {
            request = request
                .header(headers::SESSION_ID, session)
                .header(headers::PROTOCOL_VERSION, VERSION);
        }
        request.send().await.map_err(unreachable)
    }

    async fn end(&self) {
        if let Some(session) = &self.session {
            let request = self.http.delete(self.url).header(headers::SESSION_ID, session);
            // A server keeps the session a while longer then; nothing else depends on it.
            drop(request.send().await);
        }
    }
}

async fn read_stream(response: reqwest::Response, id: u64, ui: &Ui) -> Result<Value, CliError> {
    let mut decoder = Decoder::new(LONGEST_EVENT);
    let mut chunks = response.bytes_stream();
    while let Some(chunk) = chunks.next().await {
        let too_large = |_| CliError::failure("an event is too large");
        decoder.push(&chunk.map_err(unreachable)?).map_err(too_large)?;
        while let Some(event) = decoder.next() {
            let Some(message) =
                event.data.and_then(|data| serde_json::from_str::<Value>(&data).ok())
            else {
                continue;
            };
            if message["id"] == id {
                return Ok(message);
            }
            if let Some(text) = message["params"]["message"].as_str() {
                ui.status(&format!("progress: {}", crate::cli::text::clean(text)));
            }
        }
    }
    Err(CliError::failure("the stream ended without an answer"))
}

fn show(result: &Value, ui: &Ui) -> Result<(), CliError> {
    if let Some(rows) = result["structuredContent"]["customers"].as_array() {
        let columns = ["id", "name", "email", "card", "ssn", "plan"];
        let rows = rows.iter().map(|row| {
            let cell = |column: &str| match &row[column] {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            columns.iter().map(|column| cell(column)).collect()
        });
        return ui.table(&columns, rows.collect());
    }
    let texts = result["content"].as_array().cloned().unwrap_or_default();
    let text: Vec<_> = texts.iter().filter_map(|part| part["text"].as_str()).collect();
    let text = crate::cli::text::clean(&text.join("\n"));
    if result["isError"] == true {
        let code = result["_meta"]["mcpx"]["code"].as_str().unwrap_or("failure");
        return Err(CliError::new(Kind::of_code(code), text));
    }
    ui.print(&text)
}

fn unreachable(error: reqwest::Error) -> CliError {
    CliError::new(Kind::Network, "the MCP server is not reached").caused_by(Some(&error))
}
