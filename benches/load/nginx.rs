//! nginx as a plain reverse proxy, for comparison: no check of anybody, no access log, and TLS only
//! where the gateway has it too.

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::process::{self, Process};
use super::tls;
use super::ways::Bound;

pub struct Nginx {
    process: Process,
    pub port: u16,
}

impl Nginx {
    /// Whether there is one on this machine; nothing installs it.
    pub fn version() -> Option<String> {
        let said = Command::new(PROGRAM).arg("-v").output().ok()?;
        Some(String::from_utf8_lossy(&said.stderr).trim().to_owned())
    }

    /// Starts it in front of `upstream`, a port of this machine.
    pub fn start(dir: &Path, upstream: u16, bound: Bound) -> Self {
        let dir = dir.join("nginx");
        std::fs::create_dir(&dir).expect("a folder");
        let free = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = free.local_addr().expect("its address").port();
        drop(free);
        let file = dir.join("nginx.conf");
        std::fs::write(&file, configuration(&dir, upstream, port, bound)).expect("a configuration");
        let child = Command::new(PROGRAM)
            .arg("-c")
            .arg(&file)
            .arg("-p")
            .arg(&dir)
            .args(["-e", "error.log"])
            .stdin(Stdio::null())
            .spawn();
        let mut process = Process(child.expect("nginx starts"));
        let deadline = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            let running = matches!(process.0.try_wait(), Ok(None)) && Instant::now() < deadline;
            let said = || std::fs::read_to_string(dir.join("error.log")).unwrap_or_default();
            assert!(running, "nginx does not listen: {}", said());
            std::thread::sleep(Duration::from_millis(10));
        }
        Self { process, port }
    }

    /// Master and workers. Asked anew each time: the master listens before it has any.
    pub fn pids(&self) -> Vec<u32> {
        let master = self.process.0.id();
        let workers = process::children(master);
        assert!(!workers.is_empty(), "nginx has no workers");
        std::iter::once(master).chain(workers).collect()
    }
}

const PROGRAM: &str = "nginx";

fn configuration(dir: &Path, upstream: u16, port: u16, bound: Bound) -> String {
    let dir = dir.display();
    let (ssl, files) = match bound {
        Bound::Key => ("", String::new()),
        Bound::Certificate => {
            let (certificate, key) = (tls::certificate(), tls::key());
            let (certificate, key) = (certificate.display(), key.display());
            (" ssl", format!("ssl_certificate {certificate};\n        ssl_certificate_key {key};"))
        }
    };
    format!(
        r#"daemon off;
worker_processes auto;
pid {dir}/nginx.pid;
error_log {dir}/error.log error;
events {{ worker_connections 8192; }}
http {{
    access_log off;
    client_body_temp_path {dir}/body;
    proxy_temp_path {dir}/proxy;
    fastcgi_temp_path {dir}/fastcgi;
    uwsgi_temp_path {dir}/uwsgi;
    scgi_temp_path {dir}/scgi;
    # No message of the bench touches a file on its way.
    client_body_buffer_size 1m;
    proxy_buffers 16 8k;
    proxy_max_temp_file_size 0;
    keepalive_timeout 1h;
    keepalive_requests 1000000000;
    upstream bench {{
        server 127.0.0.1:{upstream};
        keepalive 1024;
        keepalive_timeout 1h;
        keepalive_requests 1000000000;
    }}
    server {{
        listen 127.0.0.1:{port}{ssl};
        {files}
        location / {{
            proxy_pass http://bench;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
        }}
    }}
}}
"#
    )
}
