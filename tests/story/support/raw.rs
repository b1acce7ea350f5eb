//! Somebody who speaks HTTP to the gateway without the program: with their own key and proofs
//! (RFC 9449) and their own token exchange (RFC 8693), so that they can do all of it wrongly.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use super::http::{self, Answer};
use super::site::Server;

/// A key, and what can be done with it.
pub struct Raw {
    key: EncodingKey,
    jwk: Jwk,
}

impl Raw {
    /// A fresh key.
    ///
    /// # Errors
    /// None can be made.
    pub fn new() -> anyhow::Result<Self> {
        let pkcs8 =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())?;
        let key = EncodingKey::from_ec_der(pkcs8.as_ref());
        let jwk = Jwk::from_encoding_key(&key, Algorithm::ES256)?;
        Ok(Self { key, jwk })
    }

    /// The key's thumbprint (RFC 7638), as a token's `cnf.jkt` names it.
    ///
    /// # Errors
    /// It has none.
    pub fn thumbprint(&self) -> anyhow::Result<String> {
        Ok(self.jwk.thumbprint(jsonwebtoken::jwk::ThumbprintHash::SHA256)?)
    }

    /// A proof for a request; `change` spoils its claims.
    ///
    /// # Errors
    /// It cannot be signed.
    pub fn proof(
        &self,
        method: &str,
        url: &str,
        token: Option<&str>,
        change: impl FnOnce(&mut Value),
    ) -> anyhow::Result<String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let mut id = [0u8; 16];
        aws_lc_rs::rand::fill(&mut id)?;
        let mut claims =
            json!({ "jti": URL_SAFE_NO_PAD.encode(id), "htm": method, "htu": url, "iat": now });
        if let Some(token) = token {
            let hash = digest(&SHA256, token.as_bytes());
            claims["ath"] = json!(URL_SAFE_NO_PAD.encode(hash.as_ref()));
        }
        change(&mut claims);
        let mut header = Header::new(Algorithm::ES256);
        header.typ = Some("dpop+jwt".to_owned());
        header.jwk = Some(self.jwk.clone());
        Ok(jsonwebtoken::encode(&header, &claims, &self.key)?)
    }

    /// Any header and claims, signed with this key.
    ///
    /// # Errors
    /// It cannot be signed.
    pub fn forge(&self, header: &Value, claims: &Value) -> anyhow::Result<String> {
        sign(&self.key, header, claims)
    }

    /// The public key.
    pub fn jwk(&self) -> Value {
        serde_json::to_value(&self.jwk).unwrap()
    }

    /// Exchanges an identity token for a grant token for `resource`.
    ///
    /// # Errors
    /// The server does not answer.
    pub fn exchange(
        &self,
        server: &Server,
        id_token: &str,
        resource: &str,
    ) -> anyhow::Result<Answer> {
        self.exchange_with(server, id_token, resource, &[])
    }

    /// As [`Self::exchange`], with more in the form.
    ///
    /// # Errors
    /// The server does not answer.
    pub fn exchange_with(
        &self,
        server: &Server,
        id_token: &str,
        resource: &str,
        more: &[(&str, &str)],
    ) -> anyhow::Result<Answer> {
        let kind = "urn:ietf:params:oauth:token-type:id_token";
        let form = [&[("subject_token", id_token), ("subject_token_type", kind)], more].concat();
        self.exchange_form(server, &form, resource)
    }

    /// Exchanges a job's token for a grant token for `resource`, under a trust rule if one is
    /// named.
    ///
    /// # Errors
    /// The server does not answer.
    pub fn exchange_job(
        &self,
        server: &Server,
        token: &str,
        rule: Option<&str>,
        resource: &str,
    ) -> anyhow::Result<Answer> {
        let kind = "urn:ietf:params:oauth:token-type:jwt";
        let mut form = vec![("subject_token", token), ("subject_token_type", kind)];
        form.extend(rule.map(|rule| ("mcpx_trust", rule)));
        self.exchange_form(server, &form, resource)
    }

    fn exchange_form(
        &self,
        server: &Server,
        shown: &[(&str, &str)],
        resource: &str,
    ) -> anyhow::Result<Answer> {
        let about = http::send(http::client().get(format!("{}/.well-known/mcpx", server.url)))?;
        let about = about.json();
        let endpoint = about["token_endpoint"].as_str().context("no token_endpoint")?;
        let kind = "urn:ietf:params:oauth:grant-type:token-exchange";
        let form = [&[("grant_type", kind), ("resource", resource)], shown].concat();
        let proof = self.proof("POST", endpoint, None, |_| ())?;
        http::send(http::client().post(endpoint).header("DPoP", proof).form(&form))
    }

    /// A grant token for `resource`.
    ///
    /// # Errors
    /// The server refuses.
    pub fn token(&self, server: &Server, id_token: &str, resource: &str) -> anyhow::Result<String> {
        let answer = self.exchange(server, id_token, resource)?;
        anyhow::ensure!(answer.status == 200, "{answer:#?}");
        Ok(answer.json()["access_token"].as_str().unwrap_or_default().to_owned())
    }

    /// Posts a message with a token and a good proof.
    ///
    /// # Errors
    /// The server does not answer.
    pub fn post(&self, url: &str, token: &str, body: &str) -> anyhow::Result<Answer> {
        http::send(self.request(url, token, body)?)
    }

    /// What [`Self::post`] sends.
    ///
    /// # Errors
    /// No proof can be signed.
    pub fn request(
        &self,
        url: &str,
        token: &str,
        body: &str,
    ) -> anyhow::Result<reqwest::RequestBuilder> {
        let proof = self.proof("POST", url, Some(token), |_| ())?;
        let headers = [("authorization", &*format!("DPoP {token}")), ("dpop", &proof)];
        Ok(request(url, &headers, body))
    }
}

/// Any header and claims under any key.
///
/// # Errors
/// It cannot be signed.
pub fn sign(key: &EncodingKey, header: &Value, claims: &Value) -> anyhow::Result<String> {
    let [header, claims] = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string()));
    let message = format!("{header}.{claims}");
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), key, Algorithm::ES256)?;
    Ok(format!("{message}.{signature}"))
}

/// The header and the claims of a token, whoever signed it.
pub fn parts(token: &str) -> (Value, Value) {
    let part = |at: usize| {
        let part = token.split('.').nth(at).unwrap_or_default();
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
    };
    (part(0), part(1))
}

/// Posts a message of the newest protocol with any headers.
///
/// # Errors
/// The server does not answer.
pub fn post(url: &str, headers: &[(&str, &str)], body: &str) -> anyhow::Result<Answer> {
    http::send(request(url, headers, body))
}

fn request(url: &str, headers: &[(&str, &str)], body: &str) -> reqwest::RequestBuilder {
    // The mirrored headers say what the body says, where it says anything.
    let message: Value = serde_json::from_str(body).unwrap_or_default();
    let mut request = http::client()
        .post(url)
        .header("content-type", "application/json")
        .header("accept", "application/json, text/event-stream")
        .header("mcp-protocol-version", "2026-07-28");
    if let Some(method) = message["method"].as_str() {
        request = request.header("mcp-method", method);
    }
    if let Some(name) = message["params"]["name"].as_str() {
        request = request.header("mcp-name", name);
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(body.to_owned())
}

/// A call of a tool in the newest protocol.
pub fn call(tool: &str, arguments: &Value) -> String {
    json!({
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/call",
        "params": {
            "name": tool,
            "arguments": arguments,
            "_meta": {
                "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                "io.modelcontextprotocol/clientCapabilities": {},
            },
        },
    })
    .to_string()
}
