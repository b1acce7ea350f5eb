//! Finding and masking of sensitive values in messages, records, logs and errors.
//!
//! Pure and synchronous, and linear in the length of what is masked. [`Masker`] is made once from
//! the `[masking]` table; its answer is a [`Masked`] message, which nothing else can make, so that
//! whoever takes one knows that it has been through here. What cannot be masked is an error, never
//! the raw value: the caller fails closed.
//!
//! In the order of the work: [`doc`] reads a message and the JSON within its strings, [`message`]
//! says what is protocol and what is data. [`walk`] goes over it once: [`shape`] knows tables and
//! records, [`fields`] knows names, [`detect`] knows patterns, [`values`] remembers what names gave
//! away, [`path`] where all this was. Then [`sites`] looks for what was learnt in what is left and
//! writes the edits, [`keys`] those of sensitive keys; [`redact`] says what stands in a value's
//! place, and [`findings`] what of it may be told. For operators: `docs/masking.md`.

mod class;
mod detect;
mod doc;
mod fields;
mod findings;
mod keys;
mod message;
mod path;
mod redact;
mod rules;
mod shape;
mod sites;
#[cfg(test)]
mod tests;
mod values;
mod walk;

use std::borrow::Cow;
use std::collections::BTreeMap;

use bytes::Bytes;

pub use class::Class;
pub use findings::{Finding, Findings};
pub use rules::{Rules, RulesError};

use detect::Detector;
use doc::Doc;
use fields::{Fields, Strength};
use message::Role;
use walk::Walk;

/// Why something could not be masked. The value must then not be passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MaskError {
    /// Not JSON in UTF-8.
    #[error("cannot mask the message: it is not JSON")]
    Malformed,
    /// JSON within strings of JSON more often, or arrays and objects deeper, than is looked into.
    #[error(
        "cannot mask the message: it nests JSON text more than {} times, or too deeply",
        doc::MOST_LEVELS
    )]
    TooDeep,
    /// Longer than can be masked.
    #[error("cannot mask the message: it has {found} bytes; at most {limit} can be masked")]
    TooLarge {
        /// Its length.
        found: usize,
        /// The bound.
        limit: usize,
    },
}

/// A message that has been masked. Only [`Masker::message`] makes one.
///
/// ```
/// use bytes::Bytes;
/// use mcpx::mask::{Masker, Rules};
///
/// let masker = Masker::new(&Rules::default())?;
/// let raw = Bytes::from_static(br#"{"jsonrpc":"2.0","id":1,"result":{"ssn":"078-05-1120"}}"#);
/// let masked = masker.message(&raw)?;
/// let pointers: Vec<String> = masked.findings().iter().map(|found| found.pointer).collect();
/// assert_eq!(pointers, ["/result/ssn"]);
/// assert!(!masked.bytes().windows(3).any(|part| part == b"078"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// It cannot be made out of bytes that have not been through the masker:
///
/// ```compile_fail,E0451
/// use mcpx::mask::Masked;
///
/// let forged = Masked { bytes: bytes::Bytes::new(), findings: Default::default(), changed: false };
/// ```
#[derive(Clone, Debug)]
pub struct Masked {
    bytes: Bytes,
    findings: Findings,
    changed: bool,
}

impl Masked {
    /// The message to pass on. Where nothing was masked, these are the original bytes, shared.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// What was masked, in the order of the message.
    pub fn findings(&self) -> &Findings {
        &self.findings
    }

    /// How many values of each class were masked.
    pub fn counts(&self) -> BTreeMap<String, u32> {
        self.findings.counts()
    }

    /// Whether anything was masked.
    pub fn changed(&self) -> bool {
        self.changed
    }
}

/// The masking engine with an organisation's rules. Make it once and share it.
#[derive(Debug)]
pub struct Masker {
    fields: Fields,
    detector: Detector,
}

impl Masker {
    /// An engine with these rules.
    ///
    /// # Errors
    /// [`RulesError`] if the rules name a class that does not exist, or contradict themselves.
    pub fn new(rules: &Rules) -> Result<Self, RulesError> {
        let off = rules.off()?;
        Ok(Self { fields: Fields::new(rules, &off)?, detector: Detector::new(off) })
    }

    /// Masks one whole JSON-RPC message, of either direction. `raw` has been accepted by
    /// [`crate::mcp::Message::decode`]; bytes outside the masked values stay as they are.
    ///
    /// # Errors
    /// [`MaskError`] where the message cannot be masked as a whole.
    pub fn message(&self, raw: &Bytes) -> Result<Masked, MaskError> {
        let (edited, findings) = self.mask(raw, Role::Envelope)?;
        let changed = edited.is_some();
        Ok(Masked { bytes: edited.map_or_else(|| raw.clone(), Bytes::from), findings, changed })
    }

    /// Masks any JSON value, all of it as data: what a record holds of a request's parameters.
    ///
    /// # Errors
    /// [`MaskError`] where the value cannot be masked as a whole.
    pub fn json(&self, raw: &[u8]) -> Result<(Vec<u8>, Findings), MaskError> {
        let (edited, findings) = self.mask(raw, Role::Data)?;
        Ok((edited.unwrap_or_else(|| raw.to_vec()), findings))
    }

    /// Masks a text: a line of standard error, a log line, an error's message. A text that cannot
    /// be masked is withheld as a whole.
    pub fn text<'a>(&self, text: &'a str) -> (Cow<'a, str>, Findings) {
        let Ok(regions) = doc::regions(text) else {
            return (Cow::Borrowed(WITHHELD), Findings::default());
        };
        let Ok((edited, findings)) = Walk::new(self, text).text(&regions) else {
            return (Cow::Borrowed(WITHHELD), Findings::default());
        };
        let findings = findings.in_text();
        match edited.map(String::from_utf8) {
            None => (Cow::Borrowed(text), findings),
            Some(Ok(masked)) => (Cow::Owned(masked), findings),
            Some(Err(_)) => (Cow::Borrowed(WITHHELD), findings),
        }
    }

    /// The edited bytes, if anything had to be edited, and why.
    fn mask(&self, raw: &[u8], role: Role) -> Result<(Option<Vec<u8>>, Findings), MaskError> {
        let text = std::str::from_utf8(raw).map_err(|_| MaskError::Malformed)?;
        let doc = Doc::parse(text)?;
        Walk::new(self, text).document(&doc, role).map_err(|_| MaskError::Malformed)
    }

    /// The rule for a name that turns out to be a person's.
    fn name_rule(&self) -> Option<(Class, Strength)> {
        self.detector.is_on(Class::NAME).then_some((Class::NAME, Strength::Sure))
    }
}

/// What stands in place of a text that cannot be masked.
const WITHHELD: &str = "[text withheld: it is too large, or nests JSON too deeply, to be masked]";
