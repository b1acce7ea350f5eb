//! The `[masking]` table of `mcpx.toml`: what an operator may change about the built-in rules.

use std::collections::{BTreeMap, HashSet};

use serde::{Deserialize, Serialize};

use super::class::Class;

/// The `[masking]` table. The default masks every class.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rules {
    /// Classes that are not masked.
    pub off: Vec<String>,
    /// More field names per class, beside the built-in ones.
    pub fields: BTreeMap<String, Vec<String>>,
    /// Field names whose values no field rule and no bare-digit rule touches.
    pub keep: Vec<String>,
}

/// A `[masking]` table that says something impossible.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RulesError {
    /// A class that the engine does not have.
    #[error("masking.{place} names the unknown class {class:?}; known classes: {}", known())]
    UnknownClass {
        /// Where it stands: `off` or `fields`.
        place: &'static str,
        /// The name as written.
        class: String,
    },
    /// A field name without a letter or digit, which would match nothing.
    #[error("masking.{place} holds {name:?}, which is not a field name")]
    EmptyName {
        /// Where it stands: `fields` or `keep`.
        place: &'static str,
        /// The name as written.
        name: String,
    },
    /// A field that is both masked and kept.
    #[error("masking.keep and masking.fields both name the field {name:?}; remove one")]
    KeptAndMasked {
        /// The name as written in `keep`.
        name: String,
    },
}

fn known() -> String {
    let names: Vec<&str> = Class::ALL.iter().map(|class| class.as_str()).collect();
    names.join(", ")
}

impl Rules {
    /// The classes that are off.
    pub(super) fn off(&self) -> Result<HashSet<Class>, RulesError> {
        self.off.iter().map(|name| class("off", name)).collect()
    }

    /// The extra fields, with their classes read.
    pub(super) fn extra(&self) -> Result<Vec<(Class, &str)>, RulesError> {
        let mut extra = Vec::new();
        for (name, fields) in &self.fields {
            let class = class("fields", name)?;
            extra.extend(fields.iter().map(|field| (class, field.as_str())));
        }
        Ok(extra)
    }
}

fn class(place: &'static str, name: &str) -> Result<Class, RulesError> {
    Class::from_name(name).ok_or_else(|| RulesError::UnknownClass { place, class: name.to_owned() })
}
