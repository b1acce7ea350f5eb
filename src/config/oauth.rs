//! `[oauth]`: MCP's own OAuth, for which servers of whose tokens.

use std::collections::BTreeSet;

use serde::Deserialize;
use toml::Spanned;

use super::ConfigError;
use super::connection::ConnectionTable;
use super::file::{Place, Span};
use crate::gateway::oauth::{CONNECTION, Settings};
use crate::identity::IssuerSettings;
use crate::identity::access::{AccessRules, TYP};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OAuthTable {
    issuers: Option<Vec<Spanned<String>>>,
    #[serde(default = "types")]
    token_types: Vec<String>,
    #[serde(default = "life")]
    token_life: Span,
    #[serde(default)]
    scopes: Vec<Spanned<String>>,
    #[serde(default)]
    optional_scopes: Vec<Spanned<String>>,
}

fn types() -> Vec<String> {
    vec![TYP.to_owned()]
}

fn life() -> Span {
    Span(std::time::Duration::from_secs(3600))
}

pub(super) fn check(
    table: Option<Spanned<OAuthTable>>,
    issuers: &[IssuerSettings],
    connections: &[Spanned<ConnectionTable>],
    place: &Place<'_>,
) -> Result<Option<Settings>, ConfigError> {
    let marked: Vec<_> = connections.iter().filter_map(|table| table.get_ref().oauth()).collect();
    let Some(table) = table else {
        return match marked.first() {
            Some((_, at)) => {
                Err(place.error(*at, "this has no effect without [oauth], which turns it on"))
            }
            None => Ok(None),
        };
    };
    let at = table.span().start;
    let table = table.into_inner();
    let trusted = match &table.issuers {
        None => issuers.iter().map(|issuer| issuer.url.clone()).collect(),
        Some(named) => {
            named.iter().map(|name| url_of(name, issuers, place)).collect::<Result<_, _>>()?
        }
    };
    let trusted: Vec<String> = trusted;
    if trusted.is_empty() {
        let what = "[oauth] needs an [[issuer]] whose access tokens are accepted; the built-in \
                    issuer makes none";
        return Err(place.error(at, what));
    }
    if table.token_types.is_empty() || table.token_types.iter().any(String::is_empty) {
        return Err(place.error(at, "token_types must name at least one type, and none empty"));
    }
    let scopes = |given: &[Spanned<String>]| -> Result<Vec<String>, ConfigError> {
        given.iter().map(|scope| checked_scope(scope, place)).collect()
    };
    Ok(Some(Settings {
        rules: AccessRules {
            issuers: trusted,
            types: table.token_types.clone(),
            life: i64::try_from(table.token_life.0.as_secs()).unwrap_or(i64::MAX),
        },
        scopes: scopes(&table.scopes)?,
        optional_scopes: scopes(&table.optional_scopes)?,
        connections: marked.into_iter().map(|(name, _)| name).collect::<BTreeSet<_>>(),
    }))
}

fn url_of(
    name: &Spanned<String>,
    issuers: &[IssuerSettings],
    place: &Place<'_>,
) -> Result<String, ConfigError> {
    let found = issuers.iter().find(|issuer| issuer.name == *name.get_ref());
    found.map(|issuer| issuer.url.clone()).ok_or_else(|| {
        place.error(name.span().start, format!("there is no [[issuer]] named {:?}", name.get_ref()))
    })
}

/// A scope as RFC 6749, section 3.3, writes them.
fn checked_scope(scope: &Spanned<String>, place: &Place<'_>) -> Result<String, ConfigError> {
    let text = scope.get_ref();
    let plain = |b: u8| b == 0x21 || (0x23..=0x5b).contains(&b) || (0x5d..=0x7e).contains(&b);
    if text.is_empty() || !text.bytes().all(plain) {
        let what = format!("{text:?} is no name of a scope: no spaces, quotes or backslashes");
        return Err(place.error(scope.span().start, what));
    }
    if text.replace(CONNECTION, "").contains(['{', '}']) {
        let what = format!("the one thing that is put into a scope is {CONNECTION}");
        return Err(place.error(scope.span().start, what));
    }
    Ok(text.clone())
}
