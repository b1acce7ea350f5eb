//! `mcpx login`: the device flow, which works over SSH as well as at a desk.

use std::io::IsTerminal as _;
use std::time::Duration;

use serde::Serialize;

use crate::broker::credentials::StorageKind;
use crate::broker::device::DevicePrompt;
use crate::broker::login::{Login, LoginRequest};
use crate::broker::server;
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::text::clean;
use crate::cli::ui::{GOOD, STRONG, styled};
use crate::cli::workload::{self, WorkloadArgs};
use crate::identity::fetch;

/// Log in to a control server
///
/// Shows an address and a code; open the address on any device and confirm the code there. The
/// login is kept in the operating system's keyring and renews itself until its issuer ends it.
///
/// With --workload a job shows its own token once, to see that it is taken. Nothing is kept; other
/// commands of the job show it by themselves.
#[derive(clap::Args, Debug)]
pub struct LoginArgs {
    /// Which of the server's issuers to log in with [default: its first]
    #[arg(long, value_name = "NAME")]
    issuer: Option<String>,
    /// Do not open a browser
    #[arg(long)]
    no_browser: bool,
    /// Keep the login in a file that only you can read, where there is no keyring
    #[arg(long)]
    insecure_file: bool,
    #[command(flatten)]
    workload: WorkloadArgs,
}

#[derive(Serialize)]
struct PromptJson<'a> {
    verification_uri: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    verification_uri_complete: Option<&'a str>,
    user_code: &'a str,
    expires_in: u64,
}

/// Logs in.
///
/// # Errors
/// [`CliError`]: denied, too late, broken off, or the server or issuer is not reached.
pub async fn run(args: LoginArgs, context: &Context) -> Result<(), CliError> {
    if args.workload.is_asked_for() {
        return workload::login(&args.workload, context).await;
    }
    let ui = &context.ui;
    let home = context.home()?;
    let info = server::fetch(&context.server_to_log_in_to(&home)?).await?;
    let request = LoginRequest {
        home: &home,
        server: &info,
        issuer: info.issuer(args.issuer.as_deref())?,
        storage: if args.insecure_file { StorageKind::File } else { StorageKind::Keyring },
        clock: context.clock(),
    };
    let mut spinner = None;
    let prompt = |prompt: &DevicePrompt| {
        show(context, prompt);
        if !args.no_browser && may_open_browser() {
            open_browser(prompt);
        }
        spinner = Some(ui.spinner("waiting for you to confirm"));
    };
    let cancelled = async {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    let outcome = Login::device(request, prompt, cancelled).await;
    drop(spinner);
    let login = outcome?;
    context.remember_server(&home, info.server.as_str())?;
    let status = login.status().await?;
    if ui.json() {
        return ui.print_json(&status);
    }
    let who = status.identity.email.as_deref().unwrap_or(&status.identity.sub);
    ui.status(&format!(
        "{} to {} as {}",
        styled(GOOD, "Logged in"),
        clean(&status.server),
        styled(STRONG, &clean(who)),
    ));
    if status.storage == StorageKind::File {
        ui.warn("the login is kept unencrypted in a file that only you can read");
    }
    Ok(())
}

fn show(context: &Context, prompt: &DevicePrompt) {
    let complete = prompt.verification_uri_complete.as_ref().map(url::Url::as_str);
    if context.ui.json() {
        let json = PromptJson {
            verification_uri: prompt.verification_uri.as_str(),
            verification_uri_complete: complete,
            user_code: &prompt.user_code,
            expires_in: prompt.expires_in.as_secs(),
        };
        if let Err(error) = context.ui.print_json(&json) {
            tracing::debug!(?error, "nobody reads the address");
        }
        return;
    }
    context.ui.status(&format!(
        "Open {} and enter {}",
        styled(STRONG, complete.unwrap_or(prompt.verification_uri.as_str())),
        styled(STRONG, &clean(&prompt.user_code)),
    ));
    let minutes = prompt.expires_in.as_secs().div_ceil(60);
    context.ui.status(&format!(
        "The code is good for {minutes} {}. Confirm it only if it is the one shown here.",
        if minutes == 1 { "minute" } else { "minutes" }
    ));
}

/// A browser is opened only where its window would be in front of the user: not over SSH, and on
/// Linux only with a display, where a text browser would take the terminal over.
fn may_open_browser() -> bool {
    let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let display = !cfg!(target_os = "linux") || set("DISPLAY") || set("WAYLAND_DISPLAY");
    std::io::stderr().is_terminal() && !set("SSH_CONNECTION") && !set("SSH_TTY") && display
}

fn open_browser(prompt: &DevicePrompt) {
    let url = prompt.verification_uri_complete.as_ref().unwrap_or(&prompt.verification_uri);
    // The issuer chose this address; anything but a web page could start any program.
    let Ok(url) = fetch::safe_url(url.as_str()) else { return };
    std::thread::spawn(move || {
        // The address must be on screen before its window covers it.
        std::thread::sleep(Duration::from_millis(300));
        let mut options = webbrowser::BrowserOptions::new();
        options.with_suppress_output(true);
        let opened = webbrowser::open_browser_with_options(
            webbrowser::Browser::Default,
            url.as_str(),
            &options,
        );
        if let Err(error) = opened {
            tracing::debug!(%error, "no browser opened");
        }
    });
}
