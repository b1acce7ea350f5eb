//! Plain HTTP for stories that speak it themselves: blocking calls over one shared runtime.

use std::future::Future;
use std::sync::LazyLock;
use std::time::Duration;

use serde_json::Value;
use tokio::runtime::Runtime;

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().unwrap());

static CLIENT: LazyLock<reqwest::Client> = LazyLock::new(|| {
    reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(Duration::from_secs(60))
        .build()
        .unwrap()
});

/// The runtime that everything asynchronous in the stories runs on.
pub fn runtime() -> &'static Runtime {
    &RUNTIME
}

/// Waits for a future.
pub fn block<T>(future: impl Future<Output = T>) -> T {
    RUNTIME.block_on(future)
}

/// A client that follows no redirect and uses no proxy.
pub fn client() -> &'static reqwest::Client {
    &CLIENT
}

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The headers.
    pub headers: reqwest::header::HeaderMap,
    /// The body as text.
    pub body: String,
}

impl Answer {
    /// The body as JSON; of an event stream, the last event's data.
    #[track_caller]
    pub fn json(&self) -> Value {
        let last = self.body.lines().rev().find_map(|line| line.strip_prefix("data:"));
        serde_json::from_str(last.unwrap_or(&self.body))
            .unwrap_or_else(|error| panic!("not JSON ({error}): {self:#?}"))
    }

    /// A header's value, empty if there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// Sends a request and reads the whole answer.
///
/// # Errors
/// No whole answer came.
pub fn send(request: reqwest::RequestBuilder) -> anyhow::Result<Answer> {
    block(async {
        let response = request.send().await?;
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let body = String::from_utf8_lossy(&response.bytes().await?).into_owned();
        Ok(Answer { status, headers, body })
    })
}
