//! Parse, run, turn the outcome into an exit code. Everything else is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    if let Some(code) = mcpx::cli::sandbox::run(std::env::args_os()) {
        return code;
    }
    match mcpx::cli::parse(std::env::args_os()) {
        Ok(cli) => {
            // Two crates in the tree could each bring a TLS provider; the choice is made here,
            // before anything opens a connection. A second call is the only way to fail.
            let _first = rustls::crypto::aws_lc_rs::default_provider().install_default();
            mcpx::cli::run(cli)
        }
        Err(code) => code,
    }
}
