//! `[saml]`: the organisation's SAML identity provider, read from its metadata file and checked.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;

use super::file::{Place, Span};
use super::{ConfigError, read};
use crate::control::issuer::saml::{RequestSigning, SamlSettings};
use crate::types::Secret;

/// What a login may last at most, whatever is configured.
const LONGEST_SESSION: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// Clocks that are further apart are wrong.
const LONGEST_LEEWAY: Duration = Duration::from_secs(5 * 60);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SamlTable {
    idp_metadata: Spanned<PathBuf>,
    entity_id: Option<Spanned<String>>,
    subject_attribute: Option<Spanned<String>>,
    groups_attribute: Option<Spanned<String>>,
    email_attribute: Option<Spanned<String>>,
    max_session: Option<Spanned<Span>>,
    leeway: Option<Spanned<Span>>,
    signing_key: Option<Spanned<PathBuf>>,
    signing_certificate: Option<PathBuf>,
}

impl SamlTable {
    /// The file of the key, which no child may read.
    pub(super) fn key(&self) -> Option<&Path> {
        self.signing_key.as_ref().map(|key| key.get_ref().as_path())
    }
}

pub(super) fn check(
    table: SamlTable,
    base: &Path,
    place: &Place<'_>,
) -> Result<SamlSettings, ConfigError> {
    let at = table.idp_metadata.span().start;
    let within = |span: Option<Spanned<Span>>, or: u64, most: Duration| match span {
        None => Ok(Duration::from_secs(or)),
        Some(span) if span.get_ref().0 <= most => Ok(span.get_ref().0),
        Some(span) => {
            let what = format!("this may be {} s at most", most.as_secs());
            Err(place.error(span.span().start, what))
        }
    };
    let named = |name: Option<Spanned<String>>| match name {
        Some(name) if name.get_ref().trim().is_empty() => {
            Err(place.error(name.span().start, "this must not be empty"))
        }
        name => Ok(name.map(Spanned::into_inner)),
    };
    let signing = match (table.signing_key, table.signing_certificate) {
        (None, None) => None,
        (Some(key), Some(certificate)) => Some(RequestSigning {
            key: Secret::new(read(&base.join(key.get_ref()))?),
            certificate: read(&base.join(certificate))?,
        }),
        (key, _) => {
            let at = key.map_or(at, |key| key.span().start);
            let what = "`signing_key` and `signing_certificate` go together";
            return Err(place.error(at, what));
        }
    };
    let settings = SamlSettings {
        idp_metadata: read(&base.join(table.idp_metadata.get_ref()))?,
        entity_id: named(table.entity_id)?,
        subject_attribute: named(table.subject_attribute)?,
        groups_attribute: named(table.groups_attribute)?,
        email_attribute: named(table.email_attribute)?,
        max_session: within(table.max_session, 12 * 60 * 60, LONGEST_SESSION)?,
        leeway: within(table.leeway, 60, LONGEST_LEEWAY)?,
        signing,
    };
    settings.check().map_err(|error| place.error_chain(at, &error))?;
    Ok(settings)
}
