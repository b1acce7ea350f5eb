//! `[masking]`, for whoever tries it without a server.

use std::path::Path;

use super::ConfigError;
use super::file::{File, Place};
use crate::mask::{Masker, Rules};

/// The masking rules of a configuration.
pub struct Masking {
    /// The rules, which the engine takes.
    pub rules: Rules,
}

impl Masking {
    /// Reads the `[masking]` table of a configuration file, and checks nothing else of it:
    /// credentials, policies and programs need not be at hand.
    ///
    /// # Errors
    /// [`ConfigError`], naming the place.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = super::read(path)?;
        let place = Place::new(path, &text);
        let file: File = toml::from_str(&text).map_err(|error| {
            place.error(error.span().map_or(0, |span| span.start), error.message())
        })?;
        let at = file.masking.as_ref().map_or(0, |rules| rules.span().start);
        let rules = file.masking.map(toml::Spanned::into_inner).unwrap_or_default();
        Masker::new(&rules).map_err(|error| place.error_chain(at, &error))?;
        Ok(Self { rules })
    }
}
