//! `mcpx trust`: questions about trust rules that need no server.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::cli::context::Context;
use crate::cli::error::{CliError, Kind};
use crate::cli::text::clean;
use crate::cli::ui::{BAD, FAINT, GOOD, WAITING, styled};
use crate::config::Trust;
use crate::identity::Fault;
use crate::identity::trust::{Check, Judgement, TrustError, TrustRules, Verdict};
use crate::types::Secret;

/// Look at trust rules for jobs
#[derive(clap::Args, Debug)]
pub struct TrustArgs {
    #[command(subcommand)]
    verb: TrustVerb,
}

#[derive(clap::Subcommand, Debug)]
enum TrustVerb {
    /// Hold a job's token against a rule, and say claim by claim whether it fits
    ///
    /// Ends with 0 when the rule takes the token, 3 when it does not, and 7 when that cannot be
    /// told because the issuer's keys are not reached. The token itself is never printed, nor kept,
    /// nor used up.
    Test(TestArgs),
}

#[derive(clap::Args, Debug)]
struct TestArgs {
    /// The rule, as in `[trust.RULE]`
    #[arg(value_name = "RULE")]
    rule: String,
    /// The file with the token
    #[arg(long, value_name = "FILE")]
    token_file: PathBuf,
    /// The configuration file
    #[arg(
        long,
        value_name = "FILE",
        env = "MCPX_CONFIG",
        hide_env_values = true,
        default_value = "mcpx.toml"
    )]
    config: PathBuf,
}

#[derive(Serialize)]
struct TestJson<'a> {
    rule: &'a str,
    matches: bool,
    code: Option<&'static str>,
    checks: Vec<CheckJson<'a>>,
}

#[derive(Serialize)]
struct CheckJson<'a> {
    what: &'a str,
    verdict: &'static str,
    wanted: &'a str,
    found: Option<String>,
}

/// Answers the question.
///
/// # Errors
/// [`Kind::Denied`] when the rule does not take the token.
pub async fn run(args: TrustArgs, context: &Context) -> Result<(), CliError> {
    let TrustVerb::Test(args) = args.verb;
    let Trust { own, rules } = Trust::load(&args.config)?;
    let named = rules.iter().find(|rule| rule.name == args.rule);
    if own.is_none() && named.is_some_and(|rule| rule.audience.is_empty()) {
        let rule = &args.rule;
        let what = format!("the rule {rule} names no audience, and the server's URL is not known");
        return Err(CliError::failure(what).hint("set server.public_url, or the rule's audience"));
    }
    let rules = TrustRules::new(rules, &own.unwrap_or_default())
        .map_err(|error| CliError::failure("the rules cannot be used").caused_by(Some(&error)))?;
    let token = read(&args.token_file)?;
    let now = context.clock().now_seconds();
    let judgement = rules.explain(token.expose(), &args.rule, now).await;
    let judgement = judgement.map_err(|error| no_judgement(&error, &rules))?;
    show(&judgement, context)?;
    outcome(&judgement)
}

fn read(path: &Path) -> Result<Secret, CliError> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        CliError::failure(format!("cannot read {}", path.display())).caused_by(Some(&error))
    })?;
    let token = Secret::new(text.trim());
    drop(Secret::new(text));
    Ok(token)
}

fn no_judgement(error: &TrustError, rules: &TrustRules) -> CliError {
    let kind = match error {
        TrustError::UnknownRule(_) => Kind::Usage,
        _ => Kind::Denied,
    };
    let names: Vec<_> = rules.names().collect();
    let told = CliError::new(kind, clean(&error.to_string())).code(error.code());
    match error {
        TrustError::UnknownRule(_) if names.is_empty() => {
            told.hint("the configuration has no [trust.NAME]")
        }
        TrustError::UnknownRule(_) => told.hint(format!("the rules are {}", names.join(", "))),
        _ => told.hint("is it the token itself that lies in the file, and nothing else?"),
    }
}

fn word(check: &Check) -> &'static str {
    match check.verdict {
        Verdict::Good => "ok",
        Verdict::Wrong => "wrong",
        Verdict::Open => "open",
    }
}

fn show(judgement: &Judgement, context: &Context) -> Result<(), CliError> {
    let ui = &context.ui;
    let found = |check: &Check| check.found.as_deref().map(clean);
    if ui.json() {
        let checks = judgement.checks.iter().map(|check| CheckJson {
            what: &check.what,
            verdict: word(check),
            wanted: &check.wanted,
            found: found(check),
        });
        return ui.print_json(&TestJson {
            rule: &judgement.rule,
            matches: judgement.matches(),
            code: code(judgement),
            checks: checks.collect(),
        });
    }
    for check in &judgement.checks {
        let style = match check.verdict {
            Verdict::Good => GOOD,
            Verdict::Wrong => BAD,
            Verdict::Open => WAITING,
        };
        // Padded before it is coloured: the colour's own characters take no room.
        let mark = styled(style, &format!("{:<5}", word(check)));
        let found = found(check).unwrap_or_else(|| "nothing".to_owned());
        let mut line = format!("{mark}  {}: {found}", clean(&check.what));
        if check.verdict != Verdict::Good {
            line.push_str(&styled(FAINT, &format!("  wanted {}", clean(&check.wanted))));
        }
        ui.print(&line)?;
    }
    Ok(())
}

fn code(judgement: &Judgement) -> Option<&'static str> {
    match &judgement.fault {
        Some(fault) => Some(fault.code()),
        None => (!judgement.matches()).then_some("trust_mismatch"),
    }
}

fn outcome(judgement: &Judgement) -> Result<(), CliError> {
    let Some(code) = code(judgement) else { return Ok(()) };
    let rule = &judgement.rule;
    let wrong = judgement.checks.iter().any(|check| check.verdict == Verdict::Wrong);
    let (kind, message) = match &judgement.fault {
        Some(fault) if fault.fault() == Fault::Issuer && !wrong => {
            (Kind::Network, format!("whether {rule} takes this token cannot be told: {fault}"))
        }
        Some(fault) => (Kind::Denied, format!("{rule} does not take this token: {fault}")),
        None => (Kind::Denied, format!("{rule} does not take this token")),
    };
    Err(CliError::new(kind, clean(&message)).code(code))
}
