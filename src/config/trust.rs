//! `[trust.NAME]`: whose jobs come in with their own token.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use jsonwebtoken::Algorithm;
use serde::Deserialize;
use toml::{Spanned, Table, Value};

use super::ConfigError;
use super::file::{File, Place, Span};
use crate::identity::jwks::KeyPlace;
use crate::identity::trust::{ClaimRule, Glob, Pattern, Rule};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TrustTable {
    issuer: String,
    #[serde(default)]
    audience: Audience,
    #[serde(default = "algorithms")]
    algorithms: Vec<Algorithm>,
    jwks_uri: Option<Spanned<String>>,
    jwks_file: Option<Spanned<PathBuf>>,
    #[serde(default)]
    groups: Vec<String>,
    max: Option<Span>,
    #[serde(default)]
    claims: Option<Spanned<Table>>,
}

/// One audience or several.
#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

impl Default for Audience {
    fn default() -> Self {
        Self::Several(Vec::new())
    }
}

fn algorithms() -> Vec<Algorithm> {
    vec![Algorithm::RS256, Algorithm::ES256]
}

/// The trust rules of a configuration, for whoever tries them.
pub struct Trust {
    /// The server's URL, as far as the file tells: the audience of rules that name none.
    pub own: Option<String>,
    /// The rules.
    pub rules: Vec<Rule>,
}

impl Trust {
    /// Reads the rules of a configuration file, and checks nothing else of it: credentials,
    /// policies and programs need not be at hand.
    ///
    /// # Errors
    /// [`ConfigError`], naming the place.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = super::read(path)?;
        let place = Place::new(path, &text);
        let file: File = toml::from_str(&text).map_err(|error| {
            place.error(error.span().map_or(0, |span| span.start), error.message())
        })?;
        let rules = check(file.trust, path.parent().unwrap_or(Path::new("")), &place)?;
        let own = match &file.server.public_url {
            Some(url) => Some(place.public_url(url)?),
            None => {
                let scheme = if file.server.tls.is_some() { "https" } else { "http" };
                let listen = file.server.listen.get_ref();
                (listen.port() != 0).then(|| format!("{scheme}://{listen}"))
            }
        };
        Ok(Self { own, rules })
    }
}

pub(super) fn check(
    tables: BTreeMap<String, Spanned<TrustTable>>,
    base: &Path,
    place: &Place<'_>,
) -> Result<Vec<Rule>, ConfigError> {
    let mut rules = Vec::new();
    for (name, table) in tables {
        let at = table.span().start;
        let table = table.into_inner();
        let keys = match (table.jwks_uri, table.jwks_file) {
            (None, None) => KeyPlace::Discovery,
            (Some(url), None) => KeyPlace::Url(url.into_inner()),
            (None, Some(file)) => {
                let path = base.join(file.get_ref());
                // Read again when keys change; a file that is not there now is a mistake.
                super::read(&path)?;
                KeyPlace::File(path)
            }
            (Some(_), Some(file)) => {
                let what = "either jwks_uri or jwks_file, and not both";
                return Err(place.error(file.span().start, what));
            }
        };
        let mut claims = Vec::new();
        if let Some(table) = table.claims {
            let at = table.span().start;
            collect("", table.get_ref(), &mut claims)
                .map_err(|what| place.error(at, format!("trust {name}: {what}")))?;
        }
        let audience = match table.audience {
            Audience::One(audience) => vec![audience],
            Audience::Several(audiences) => audiences,
        };
        let rule = Rule {
            name,
            issuer: table.issuer,
            audience,
            algorithms: table.algorithms,
            keys,
            groups: table.groups,
            max: table.max.map(|span| span.0),
            claims,
        };
        rule.check().map_err(|error| {
            let named = NamedError { name: rule.name.clone(), error };
            place.error_chain(at, &named)
        })?;
        rules.push(rule);
    }
    Ok(rules)
}

#[derive(Debug, thiserror::Error)]
#[error("trust {name}")]
struct NamedError {
    name: String,
    #[source]
    error: crate::identity::trust::RuleError,
}

/// The claims of a table. Tables within it are objects within the token, and the same as a path
/// with dots: TOML reads `kubernetes.io.namespace = "ci"` without quotes as tables.
fn collect(path: &str, table: &Table, claims: &mut Vec<ClaimRule>) -> Result<(), String> {
    for (name, value) in table {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        match value {
            Value::Table(inner) if pattern(inner).is_none() => collect(&path, inner, claims)?,
            value => {
                let accepts = accepts(&path, value)?;
                claims.push(ClaimRule { path, accepts });
            }
        }
    }
    Ok(())
}

/// The one key of `{ glob = … }` or `{ exact = … }`, and what it says.
fn pattern(table: &Table) -> Option<(&str, &Value)> {
    let mut entries = table.iter();
    let (name, value) = entries.next().filter(|_| entries.next().is_none())?;
    (["glob", "exact"].contains(&name.as_str()) && !value.is_table()).then_some((name, value))
}

fn accepts(path: &str, value: &Value) -> Result<Vec<Pattern>, String> {
    match value {
        Value::Array(items) => {
            let found = items.iter().map(|item| accepts(path, item));
            Ok(found.collect::<Result<Vec<_>, _>>()?.concat())
        }
        Value::Table(table) => match pattern(table) {
            Some(("glob", value)) => globs(path, value),
            Some((_, value)) => exacts(path, value),
            None => Err(format!(
                "claim {path}: a list holds values, {{ glob = … }} and {{ exact = … }}"
            )),
        },
        Value::String(text) if text.contains('*') => Err(format!(
            "claim {path}: {text:?} would be matched to the letter, star and all; write \
             {{ glob = {text:?} }}, or {{ exact = {text:?} }} if that is what is meant"
        )),
        other => exacts(path, other),
    }
}

fn globs(path: &str, value: &Value) -> Result<Vec<Pattern>, String> {
    match value {
        Value::String(text) => {
            let glob = Glob::parse(text).map_err(|why| format!("claim {path}: {why}"))?;
            Ok(vec![Pattern::Glob(glob)])
        }
        Value::Array(items) => {
            let found = items.iter().map(|item| globs(path, item));
            Ok(found.collect::<Result<Vec<_>, _>>()?.concat())
        }
        _ => Err(format!("claim {path}: a glob is a text")),
    }
}

fn exacts(path: &str, value: &Value) -> Result<Vec<Pattern>, String> {
    let json = match value {
        Value::String(text) => text.as_str().into(),
        Value::Integer(number) => (*number).into(),
        Value::Boolean(flag) => (*flag).into(),
        Value::Array(items) => {
            let found = items.iter().map(|item| exacts(path, item));
            return Ok(found.collect::<Result<Vec<_>, _>>()?.concat());
        }
        Value::Float(_) | Value::Datetime(_) | Value::Table(_) => {
            return Err(format!(
                "claim {path}: a value is a text, a whole number or true or false"
            ));
        }
    };
    Ok(vec![Pattern::Exact(json)])
}
