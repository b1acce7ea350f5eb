//! `mcpx mask`: what the masking engine does, without a server.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde::Serialize;

use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::text::clean;
use crate::cli::ui::{FAINT, GOOD, Lines, STRONG, styled};
use crate::config::Masking;
use crate::mask::{Class, Finding, Masker, Rules};

/// See what masking does
#[derive(clap::Args, Debug)]
pub struct MaskArgs {
    #[command(subcommand)]
    verb: MaskVerb,
}

#[derive(clap::Subcommand, Debug)]
enum MaskVerb {
    /// List the classes of values that can be masked
    Classes(ConfigArgs),
    /// Mask a file or standard input, as the gateway would
    ///
    /// A JSON-RPC message is masked as one, other JSON as data, and everything else as text. What
    /// cannot be masked is never printed raw: its place is taken by an error, and the command ends
    /// with 1.
    Try(TryArgs),
}

#[derive(clap::Args, Debug)]
struct ConfigArgs {
    /// The configuration file whose `[masking]` counts; without it, the built-in rules
    #[arg(long, value_name = "FILE", env = "MCPX_CONFIG", hide_env_values = true)]
    config: Option<PathBuf>,
}

#[derive(clap::Args, Debug)]
struct TryArgs {
    /// The file; `-` is standard input
    #[arg(value_name = "FILE", default_value = "-")]
    file: PathBuf,
    /// Take one JSON-RPC message a line, and print each masked, line for line
    #[arg(long)]
    jsonl: bool,
    /// Take the input, or with --jsonl each of its lines, as plain text
    #[arg(long)]
    text: bool,
    /// Say on stderr what was masked: its class and where it stood
    #[arg(long)]
    explain: bool,
    #[command(flatten)]
    config: ConfigArgs,
}

#[derive(Serialize)]
struct ClassJson {
    class: Class,
    meaning: &'static str,
    masked: bool,
}

#[derive(Serialize)]
struct MaskedJson<'a> {
    masked: &'a str,
    findings: &'a [Finding],
}

/// Runs the verb.
///
/// # Errors
/// Rules that cannot be used, input that cannot be read or masked.
pub async fn run(args: MaskArgs, context: &Context) -> Result<(), CliError> {
    match args.verb {
        MaskVerb::Classes(args) => classes(&rules(&args)?, context),
        MaskVerb::Try(args) => {
            let masker = Masker::new(&rules(&args.config)?).map_err(|error| {
                CliError::failure("the rules cannot be used").caused_by(Some(&error))
            })?;
            tokio::task::block_in_place(|| try_input(&args, &masker, context))
        }
    }
}

fn rules(args: &ConfigArgs) -> Result<Rules, CliError> {
    Ok(match &args.config {
        Some(path) => Masking::load(path)?.rules,
        None => Rules::default(),
    })
}

fn classes(rules: &Rules, context: &Context) -> Result<(), CliError> {
    let listed = Class::ALL.iter().map(|class| ClassJson {
        class: *class,
        meaning: class.meaning(),
        masked: !rules.off.iter().any(|off| off == class.as_str()),
    });
    if context.ui.json() {
        return context.ui.print_json(&listed.collect::<Vec<_>>());
    }
    let rows = listed.map(|row| {
        let masked = if row.masked { "yes" } else { "no" };
        vec![row.class.to_string(), row.meaning.to_owned(), masked.to_owned()]
    });
    context.ui.table(&["class", "what it is", "masked"], rows.collect())
}

/// How a piece of input is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum As {
    Message,
    Data,
    Text,
}

impl As {
    /// What a whole input is by its look.
    fn look(input: &[u8]) -> Self {
        match serde_json::from_slice::<serde_json::Value>(input) {
            Ok(value) if value.get("jsonrpc").is_some() => Self::Message,
            Ok(_) => Self::Data,
            Err(_) => Self::Text,
        }
    }
}

/// A masked piece of input.
struct Piece {
    masked: String,
    findings: Vec<Finding>,
}

fn mask(masker: &Masker, input: Vec<u8>, how: As, places: bool) -> Result<Piece, String> {
    let listed = |findings: &crate::mask::Findings| {
        if places { findings.iter().collect() } else { Vec::new() }
    };
    let told = |error: &dyn std::error::Error| error.to_string();
    let (masked, findings) = match how {
        As::Message => {
            let masked = masker.message(&Bytes::from(input)).map_err(|error| told(&error))?;
            (masked.bytes().to_vec(), listed(masked.findings()))
        }
        As::Data => {
            let (masked, findings) = masker.json(&input).map_err(|error| told(&error))?;
            (masked, listed(&findings))
        }
        As::Text => {
            let text = String::from_utf8(input).map_err(|error| {
                format!("not UTF-8 from byte {}", error.utf8_error().valid_up_to())
            })?;
            let (masked, findings) = masker.text(&text);
            (masked.into_owned().into_bytes(), listed(&findings))
        }
    };
    let masked = String::from_utf8(masked).map_err(|error| told(&error))?;
    Ok(Piece { masked, findings })
}

fn try_input(args: &TryArgs, masker: &Masker, context: &Context) -> Result<(), CliError> {
    let mut input = open(&args.file)?;
    let mut trial = Trial {
        masker,
        context,
        places: args.explain || context.ui.json(),
        explain: args.explain,
        out: context.ui.lines(),
        failed: 0,
    };
    if args.jsonl {
        let how = if args.text { As::Text } else { As::Message };
        trial.lines(input, how, &args.file)?;
    } else {
        let mut whole = Vec::new();
        let limit = LONGEST as u64 + 1;
        input.by_ref().take(limit).read_to_end(&mut whole).map_err(|e| unread(&args.file, &e))?;
        let how = if args.text { As::Text } else { As::look(&whole) };
        trial.piece(whole, how, None)?;
    }
    trial.end()
}

/// The longest piece that is read; the engine refuses less.
const LONGEST: usize = 65 << 20;

fn unread(path: &Path, error: &std::io::Error) -> CliError {
    CliError::failure(format!("cannot read {}", path.display())).caused_by(Some(error))
}

fn open(path: &Path) -> Result<Box<dyn BufRead>, CliError> {
    if path == Path::new("-") {
        return Ok(Box::new(BufReader::new(std::io::stdin())));
    }
    let file = std::fs::File::open(path).map_err(|error| unread(path, &error))?;
    Ok(Box::new(BufReader::with_capacity(1 << 18, file)))
}

/// One run over some input.
struct Trial<'a> {
    masker: &'a Masker,
    context: &'a Context,
    /// Whether anybody asks where things stood.
    places: bool,
    explain: bool,
    out: Lines,
    /// Pieces that could not be masked.
    failed: usize,
}

impl Trial<'_> {
    fn lines(&mut self, input: Box<dyn BufRead>, how: As, path: &Path) -> Result<(), CliError> {
        let mut input = input;
        for number in 1.. {
            let mut line = Vec::new();
            let limit = LONGEST as u64 + 1;
            let read = input.by_ref().take(limit).read_until(b'\n', &mut line);
            if read.map_err(|error| unread(path, &error))? == 0 {
                break;
            }
            if line.len() > LONGEST {
                let what = format!("line {number} has more than {LONGEST} bytes");
                return Err(CliError::failure(what));
            }
            if line.last() == Some(&b'\n') {
                line.pop();
            }
            if line.last() == Some(&b'\r') {
                line.pop();
            }
            if line.is_empty() {
                self.out.line("")?;
                continue;
            }
            self.piece(line, how, Some(number))?;
        }
        Ok(())
    }

    fn piece(&mut self, input: Vec<u8>, how: As, line: Option<usize>) -> Result<(), CliError> {
        let piece = match mask(self.masker, input, how, self.places) {
            Ok(piece) => piece,
            Err(why) => {
                self.failed += 1;
                let json = serde_json::json!({ "error": why });
                return self.out.line(&json.to_string());
            }
        };
        if self.context.ui.json() {
            let json = MaskedJson { masked: &piece.masked, findings: &piece.findings };
            let json = serde_json::to_string(&json)
                .map_err(|e| CliError::failure("cannot write JSON").caused_by(Some(&e)))?;
            self.out.line(&json)?;
        } else if line.is_some() || how != As::Text {
            self.out.line(&piece.masked)?;
        } else {
            self.out.text(&piece.masked)?;
        }
        if self.explain {
            for found in &piece.findings {
                let at = line.map_or_else(String::new, |line| format!("line {line}  "));
                self.context.ui.status(&format!(
                    "{}{}  {}",
                    styled(FAINT, &at),
                    styled(STRONG, found.class.as_str()),
                    clean(&found.pointer),
                ));
            }
            if piece.findings.is_empty() && line.is_none() {
                self.context.ui.status(&styled(GOOD, "nothing was masked"));
            }
        }
        Ok(())
    }

    fn end(mut self) -> Result<(), CliError> {
        self.out.flush()?;
        match self.failed {
            0 => Ok(()),
            1 => Err(CliError::failure("one piece of the input could not be masked")),
            many => Err(CliError::failure(format!("{many} lines could not be masked"))),
        }
    }
}
