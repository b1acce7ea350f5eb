//! `mcpx login`: through a browser where one is at hand, else with a code, which works over SSH as
//! well as at a desk.

use std::io::IsTerminal as _;
use std::time::Duration;

use serde::Serialize;

use crate::broker::credentials::StorageKind;
use crate::broker::device::{BrowserPrompt, DevicePrompt};
use crate::broker::login::{Login, LoginError, LoginRequest};
use crate::broker::server;
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::text::clean;
use crate::cli::ui::{GOOD, STRONG, styled};
use crate::cli::workload::{self, WorkloadArgs};
use crate::identity::fetch;
use crate::identity::oidc::LoginKind;

/// Log in to a control server
///
/// At a desk, opens the issuer's page in the browser and waits until it comes back. Over SSH, or
/// where there is no browser, shows an address and a code; open the address on any device and confirm
/// the code there. The login is kept in the operating system's keyring and renews itself until its
/// issuer ends it.
///
/// With --workload a job shows its own token once, to see that it is taken. Nothing is kept; other
/// commands of the job show it by themselves.
#[derive(clap::Args, Debug)]
pub struct LoginArgs {
    /// Which of the server's issuers to log in with [default: its first]
    #[arg(long, value_name = "NAME")]
    issuer: Option<String>,
    /// Log in through a browser on this machine [default: where one is at hand]
    #[arg(long, conflicts_with = "device")]
    browser: bool,
    /// Log in with a code that any device can confirm
    #[arg(long)]
    device: bool,
    /// Do not open a browser, only show the address
    #[arg(long)]
    no_browser: bool,
    /// Where there is no keyring: keep the login in a file that only you can read, unencrypted
    #[arg(long)]
    insecure_file: bool,
    /// Where there is no keyring: keep the login's key in the Linux kernel, which forgets it at the
    /// next reboot, or after some days without use
    #[arg(long, conflicts_with = "insecure_file")]
    keyutils: bool,
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

#[derive(Serialize)]
struct PageJson<'a> {
    authorization_uri: &'a str,
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
    let issuer = info.issuer(args.issuer.as_deref())?;
    let request = || LoginRequest {
        home: &home,
        server: &info,
        issuer,
        storage: match (args.insecure_file, args.keyutils) {
            (true, _) => StorageKind::File,
            (false, true) => StorageKind::Keyutils,
            (false, false) => StorageKind::Keyring,
        },
        clock: context.clock(),
    };
    let opens = !args.no_browser && Surroundings::of_this_process().have_a_browser();
    let fitting = issuer.offers(LoginKind::Browser) && (opens || !issuer.offers(LoginKind::Device));
    let chosen = args.browser || (!args.device && fitting);
    let outcome = match chosen {
        true => through_browser(context, request(), opens).await,
        false => with_code(context, request(), opens).await,
    };
    let login = match outcome {
        // Not asked for, and nothing was shown yet: the other way is as good.
        Err(LoginError::NoBrowserFlow { .. }) if !args.browser => {
            with_code(context, request(), opens).await?
        }
        outcome => outcome?,
    };
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

async fn with_code(
    context: &Context,
    request: LoginRequest<'_>,
    opens: bool,
) -> Result<Login, LoginError> {
    let mut spinner = None;
    let prompt = |prompt: &DevicePrompt| {
        show(context, prompt);
        if opens {
            let complete = prompt.verification_uri_complete.as_ref();
            open_browser(complete.unwrap_or(&prompt.verification_uri));
        }
        spinner = Some(context.ui.spinner("waiting for you to confirm"));
    };
    let outcome = Login::device(request, prompt, cancelled()).await;
    drop(spinner);
    outcome
}

async fn through_browser(
    context: &Context,
    request: LoginRequest<'_>,
    opens: bool,
) -> Result<Login, LoginError> {
    let mut spinner = None;
    let prompt = |prompt: &BrowserPrompt| {
        show_page(context, prompt, opens);
        if opens {
            open_browser(&prompt.authorization_uri);
        }
        spinner = Some(context.ui.spinner("waiting for your browser"));
    };
    let outcome = Login::browser(request, prompt, cancelled()).await;
    drop(spinner);
    outcome
}

async fn cancelled() {
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}

fn show_page(context: &Context, prompt: &BrowserPrompt, opens: bool) {
    let address = prompt.authorization_uri.as_str();
    if context.ui.json() {
        let json = PageJson { authorization_uri: address, expires_in: prompt.expires_in.as_secs() };
        if let Err(error) = context.ui.print_json(&json) {
            tracing::debug!(?error, "nobody reads the address");
        }
        return;
    }
    let what = if opens { "Your browser opens" } else { "Open in a browser on this machine" };
    context.ui.status(&format!("{what} {}", styled(STRONG, address)));
    context
        .ui
        .status("If it shows an error, or none opens, press Ctrl-C and run `mcpx login --device`.");
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

/// What decides whether a browser's window would be in front of the user.
#[derive(Clone, Copy, Debug)]
struct Surroundings {
    terminal: bool,
    ssh: bool,
    display: bool,
}

impl Surroundings {
    fn of_this_process() -> Self {
        let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        Self {
            terminal: std::io::stderr().is_terminal(),
            ssh: set("SSH_CONNECTION") || set("SSH_CLIENT") || set("SSH_TTY"),
            // On Linux only with a display: a text browser would take the terminal over.
            display: !cfg!(target_os = "linux") || set("DISPLAY") || set("WAYLAND_DISPLAY"),
        }
    }

    fn have_a_browser(self) -> bool {
        self.terminal && !self.ssh && self.display
    }
}

/// Whether a browser's window would be in front of the user.
pub(super) fn may_open_browser() -> bool {
    Surroundings::of_this_process().have_a_browser()
}

fn open_browser(url: &url::Url) {
    open_address(url.as_str());
}

/// Opens a browser there, if it is a page.
pub(super) fn open_address(url: &str) {
    // Somebody else chose this address; anything but a web page could start any program.
    let Ok(url) = fetch::safe_url(url) else { return };
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_browser_is_at_hand_at_a_desk_only() {
        let desk = Surroundings { terminal: true, ssh: false, display: true };
        assert!(desk.have_a_browser());
        for elsewhere in [
            Surroundings { terminal: false, ..desk },
            Surroundings { ssh: true, ..desk },
            Surroundings { display: false, ..desk },
        ] {
            assert!(!elsewhere.have_a_browser(), "{elsewhere:?}");
        }
    }
}
