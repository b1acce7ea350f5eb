//! TLS in both directions: an authority for servers, clients that show certificates of their own
//! making, and a balancer that hands them on (HAProxy).

use std::net::TcpListener;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose};
use serde_json::Value;

use super::http::{self, Answer};
use super::proc::Proc;
use super::site::Server;
use super::world::World;
use super::{Skip, debian};

/// A certificate authority, and a server's certificate and key under it.
pub struct Authority {
    /// What clients are to trust.
    pub authority: PathBuf,
    /// The server's certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// `[server.tls]` with both.
    pub tls: String,
}

impl Authority {
    /// A fresh one.
    ///
    /// # Errors
    /// It cannot be made or written.
    pub fn new(world: &World) -> anyhow::Result<Self> {
        let mut authority = CertificateParams::new(Vec::new())?;
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
        let key = KeyPair::generate()?;
        let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
        let certificate = CertificateParams::new(names)?.signed_by(&key, &authority)?;
        let authority = world.write("tls/authority.pem", &authority.pem())?;
        let certificate = world.write("tls/server.pem", &certificate.pem())?;
        let key = world.write("tls/server.key", &key.serialize_pem())?;
        let tls = format!("[server.tls]\ncertificate = {certificate:?}\nkey = {key:?}\n");
        Ok(Self { authority, certificate, key, tls })
    }
}

/// Somebody who speaks HTTP over TLS without the program, with a certificate or without.
pub struct Mutual {
    client: reqwest::Client,
    /// The certificate in DER; empty without one.
    pub der: Vec<u8>,
}

impl Mutual {
    /// Somebody with a fresh certificate of their own.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn new(trusted: &Authority) -> anyhow::Result<Self> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        // Whoever looks at it looks at nothing but the key.
        params.not_after = rcgen::date_time_ymd(2001, 1, 1);
        let certificate = params.self_signed(&key)?;
        let pem = format!("{}{}", key.serialize_pem(), certificate.pem());
        let identity = reqwest::Identity::from_pem(pem.as_bytes())?;
        let client = builder(trusted)?.identity(identity).build()?;
        Ok(Self { client, der: certificate.der().to_vec() })
    }

    /// Somebody with a certificate that has not run out, as a balancer may want it.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn lasting(trusted: &Authority) -> anyhow::Result<Self> {
        let own = mcpx::identity::certificate::OwnCertificate::generate()?;
        let pem = own.pem().expose();
        let client = builder(trusted)?.identity(reqwest::Identity::from_pem(pem.as_bytes())?);
        Ok(Self { client: client.build()?, der: Vec::new() })
    }

    /// Somebody without one.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn without(trusted: &Authority) -> anyhow::Result<Self> {
        Ok(Self { client: builder(trusted)?.build()?, der: Vec::new() })
    }

    /// Exchanges an identity token for a token, with these headers and more form fields.
    ///
    /// # Errors
    /// The server does not answer.
    pub fn exchange(
        &self,
        server: &Server,
        id_token: &str,
        resource: &str,
        more: &[(&str, &str)],
        headers: &[(&str, &str)],
    ) -> anyhow::Result<Answer> {
        let mut form = vec![
            ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
            ("subject_token", id_token),
            ("subject_token_type", "urn:ietf:params:oauth:token-type:id_token"),
            ("resource", resource),
        ];
        form.extend(more);
        let mut request = self.client.post(format!("{}/oauth/token", server.url)).form(&form);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        http::send(request)
    }

    /// A token for `resource` that is bound to this one's certificate.
    ///
    /// # Errors
    /// The server refuses, or gives another kind of token.
    pub fn token(&self, server: &Server, id_token: &str, resource: &str) -> anyhow::Result<String> {
        let answer = self.exchange(server, id_token, resource, &[], &[])?;
        anyhow::ensure!(answer.status == 200, "{answer:#?}");
        let told = answer.json();
        anyhow::ensure!(told["token_type"] == "Bearer", "{told}");
        Ok(told["access_token"].as_str().context("no token")?.to_owned())
    }

    /// Posts a message of the newest protocol with any headers.
    ///
    /// # Errors
    /// The server does not answer.
    pub fn post(&self, url: &str, headers: &[(&str, &str)], body: &str) -> anyhow::Result<Answer> {
        let message: Value = serde_json::from_str(body)?;
        let mut request = self
            .client
            .post(url)
            .header("content-type", "application/json")
            .header("accept", "application/json, text/event-stream")
            .header("mcp-protocol-version", "2026-07-28")
            .header("mcp-method", message["method"].as_str().unwrap_or_default())
            .header("mcp-name", message["params"]["name"].as_str().unwrap_or_default());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        http::send(request.body(body.to_owned()))
    }

    /// Gets something with any headers.
    ///
    /// # Errors
    /// The server does not answer.
    pub fn get(&self, url: &str, headers: &[(&str, &str)]) -> anyhow::Result<Answer> {
        let mut request = self.client.get(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        http::send(request)
    }
}

fn builder(trusted: &Authority) -> anyhow::Result<reqwest::ClientBuilder> {
    let authority = reqwest::Certificate::from_pem(&std::fs::read(&trusted.authority)?)?;
    Ok(reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(Duration::from_secs(60))
        .tls_certs_only([authority]))
}

/// A port that nobody listens on now.
///
/// # Errors
/// There is none.
pub fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// A balancer that ends TLS and says in `Client-Cert` who its client is (RFC 9440); it runs as long
/// as this is held.
pub struct Balancer {
    _proc: Proc,
}

impl Balancer {
    /// Starts HAProxy on one port in front of another. It hands certificates on where `when`, a
    /// condition of its language, holds.
    ///
    /// # Errors
    /// [`Skip`] where there is none and none can be installed; or it does not start.
    pub fn start(
        world: &World,
        trusted: &Authority,
        port: u16,
        gateway: u16,
        when: &str,
    ) -> anyhow::Result<Self> {
        if !debian::provides("command -v haproxy", &["haproxy"]) {
            return Err(Skip("no haproxy: it is not installed and could not be".to_owned()).into());
        }
        let both = format!(
            "{}{}",
            std::fs::read_to_string(&trusted.certificate)?,
            std::fs::read_to_string(&trusted.key)?
        );
        let both = world.write("balancer/both.pem", &both)?;
        let (both, authority) = (both.display(), trusted.authority.display());
        let file = world.write(
            "balancer/haproxy.cfg",
            &format!(
                r"global
    maxconn 200
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
frontend clients
    bind 127.0.0.1:{port} ssl crt {both} verify optional ca-file {authority} ca-ignore-err all crt-ignore-err all alpn h2,http/1.1
    http-request del-header Client-Cert
    http-request set-header Client-Cert :%[ssl_c_der,base64]: if {{ ssl_c_used }} {when}
    default_backend gateway
backend gateway
    server gateway 127.0.0.1:{gateway}
"
            ),
        )?;
        let mut command = world.command("haproxy")?;
        command.args(["-db", "-f"]).arg(file);
        let mut proc = Proc::start(world, "haproxy", command)?;
        proc.until("listens", |_| {
            let open = std::net::TcpStream::connect(("127.0.0.1", port));
            Ok(open.ok().map(drop))
        })?;
        Ok(Self { _proc: proc })
    }
}
