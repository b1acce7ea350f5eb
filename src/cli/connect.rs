//! `mcpx connect`: a connection on a local port, or on stdin and stdout.

use std::sync::Arc;

use serde::Serialize;
use serde_json::json;

use crate::broker::channel::Channel;
use crate::broker::local::Local;
use crate::broker::problem::Problem;
use crate::broker::{relay, stdio};
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::request::{InPlaceArgs, in_place};
use crate::cli::ui::{FAINT, STRONG, styled};
use crate::cli::wait::until_told_to_stop;
use crate::cli::workload::WorkloadArgs;
use crate::mcp::Limits;
use crate::types::{ConnectionName, SessionId};

/// Open a connection for an MCP client on this machine
///
/// Listens on a local port, and prints the URL that an MCP client is given. With --stdio the
/// client starts mcpx itself and talks over stdin and stdout. Either way the client holds no
/// secret of the server.
#[derive(clap::Args, Debug)]
pub struct ConnectArgs {
    /// The connection, as `mcpx ls` shows it
    #[arg(value_name = "NAME")]
    connection: ConnectionName,
    /// Speak the protocol on stdin and stdout
    #[arg(long, conflicts_with = "port")]
    stdio: bool,
    /// The local port [default: a free one]
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
    /// Why you need it; recorded with the grant, and policy may ask for it
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    #[command(flatten)]
    asking: InPlaceArgs,
    #[command(flatten)]
    workload: WorkloadArgs,
}

#[derive(Serialize)]
struct ConnectJson<'a> {
    url: &'a str,
    connection: &'a ConnectionName,
    session: Option<SessionId>,
    expires_in: i64,
}

/// Serves the connection until it is told to stop, or the client is done.
///
/// # Errors
/// [`CliError`]: no login, no grant, or the port is taken.
pub async fn run(args: ConnectArgs, context: &Context) -> Result<(), CliError> {
    let channel = context.channel(&args.connection, args.reason.clone(), &args.workload).await;
    let channel = channel.map(Arc::new);
    if args.stdio {
        let channel = match channel {
            // Whoever gives a reason wants to be asked for; the client's first message waits.
            Ok(channel) if args.reason.is_some() => {
                tokio::select! {
                    ready = ready(context, &args, &channel) => ready.map(|()| channel),
                    () = until_told_to_stop() => return Ok(()),
                }
            }
            channel => channel,
        };
        return on_stdio(channel).await;
    }
    let channel = channel?;
    let ui = &context.ui;
    let spinner = ui.spinner("asking for a grant");
    let grant = channel.grant().await;
    drop(spinner);
    let grant = match grant {
        Ok(grant) => grant,
        Err(error) => {
            let reason = args.reason.as_deref();
            in_place(context, &args.connection, reason, &args.asking, &args.workload, error)
                .await?;
            channel.grant().await?
        }
    };
    let keeper = Arc::clone(&channel);
    tokio::spawn(async move { keeper.keep().await });
    let local = Local::bind(args.port.unwrap_or(0)).await?;
    let url = local.url();
    if ui.json() {
        ui.print_json(&ConnectJson {
            url: &url,
            connection: &args.connection,
            session: grant.session,
            expires_in: grant.expires_in,
        })?;
    } else {
        ui.print(&url)?;
        ui.status(&format!(
            "{} {}",
            styled(STRONG, args.connection.as_str()),
            styled(FAINT, "is open; whoever has this URL can use it. Ctrl-C closes it."),
        ));
        let name = args.connection.as_str();
        let http = json!({ "mcpServers": { name: { "type": "http", "url": url } } });
        ui.status(&format!("{}\n{http:#}", styled(FAINT, "For an MCP client, while this runs:")));
        if let Ok(launch) = context.launch(&args.connection) {
            let started = json!({ "mcpServers": { name: {
                "command": launch.program, "args": launch.arguments(),
            } } });
            let how = format!(
                "Or for good, started by the client itself (`mcpx client add {name} --to CLIENT` \
                 writes it):"
            );
            ui.status(&format!("{}\n{started:#}", styled(FAINT, &how)));
        }
    }
    let router = relay::router(channel, local.gate(), Limits::default());
    local.serve(router, until_told_to_stop()).await?;
    Ok(())
}

/// Asks for the approval that a grant needs, if one is what is missing. Every other trouble is told
/// to the client's own messages.
async fn ready(context: &Context, args: &ConnectArgs, channel: &Channel) -> Result<(), CliError> {
    let Err(error) = channel.grant().await else { return Ok(()) };
    if !matches!(error.problem().code.as_str(), "needs_approval" | "approval_pending") {
        return Ok(());
    }
    let reason = args.reason.as_deref();
    in_place(context, &args.connection, reason, &args.asking, &args.workload, error).await
}

/// No grant is waited for here: the client's first message is read meanwhile.
async fn on_stdio(channel: Result<Arc<Channel>, CliError>) -> Result<(), CliError> {
    let input = tokio::io::BufReader::new(tokio::io::stdin());
    let output = tokio::io::stdout();
    let stop = until_told_to_stop();
    let error = match channel {
        Ok(channel) => {
            let keeper = Arc::clone(&channel);
            tokio::spawn(async move { keeper.keep().await });
            return Ok(stdio::run(channel, Limits::default(), input, output, stop).await?);
        }
        Err(error) => error,
    };
    let json = serde_json::json!({ "error": error.as_json() }).to_string();
    let problem = Problem::of_answer(axum::http::StatusCode::FORBIDDEN, json.as_bytes());
    tokio::select! {
        told = stdio::refuse(&problem, Limits::default(), input, output) => {
            if let Err(told) = told {
                tracing::debug!(error = %told, "the client is gone");
            }
        }
        () = stop => {}
    }
    Err(error)
}
