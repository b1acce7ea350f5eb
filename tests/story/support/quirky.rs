//! Identity providers that differ: `tests/parts/quirky.mjs`, one process with any number of issuers.

use serde_json::Value;

use super::http;
use super::idp::Idp;
use super::proc::Proc;
use super::world::World;

/// The providers; they run as long as this is held.
pub struct Quirky {
    /// Where they are.
    pub base: String,
    /// The one called `plain`, which has no quirks until it is given some.
    pub plain: Idp,
}

impl Quirky {
    /// Starts them.
    ///
    /// # Errors
    /// They do not start.
    pub fn start(world: &World) -> anyhow::Result<Self> {
        let mut command = world.command(world.parts().node()?)?;
        command.arg(world.parts().script("quirky.mjs"));
        let mut proc = Proc::start(world, "quirky", command)?;
        let base = proc.first_json_line()?["base"].as_str().unwrap_or_default().to_owned();
        let plain = Idp::new(format!("{base}/t/plain"), proc);
        Ok(Self { base, plain })
    }

    /// The URL of an issuer.
    pub fn issuer(&self, name: &str) -> String {
        format!("{}/t/{name}", self.base)
    }

    /// Gives an issuer quirks.
    ///
    /// # Errors
    /// There is no such quirk.
    pub fn set(&self, name: &str, quirks: &Value) -> anyhow::Result<Value> {
        self.ask(name, "", quirks)
    }

    /// What happened at an issuer.
    ///
    /// # Errors
    /// It does not answer.
    pub fn seen(&self, name: &str) -> anyhow::Result<Value> {
        self.ask(name, "", &Value::Null)
    }

    /// Has an issuer sign with a new key.
    ///
    /// # Errors
    /// It does not answer.
    pub fn rotate(&self, name: &str) -> anyhow::Result<Value> {
        self.ask(name, "/rotate", &Value::Null)
    }

    /// Lets go what an issuer holds back.
    ///
    /// # Errors
    /// It does not answer.
    pub fn go(&self, name: &str) -> anyhow::Result<Value> {
        self.ask(name, "/go", &Value::Null)
    }

    fn ask(&self, name: &str, verb: &str, body: &Value) -> anyhow::Result<Value> {
        let url = format!("{}/__test/{name}{verb}", self.base);
        let answer = http::send(http::client().post(url).body(body.to_string()))?;
        anyhow::ensure!(answer.status == 200, "{name}{verb}: {answer:?}");
        Ok(answer.json())
    }
}
