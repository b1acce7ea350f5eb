//! The words of the domain as types: ids, names, subjects, secrets and time.
//!
//! Everything here is plain data. Nothing in this file does I/O, except that new ids and secrets
//! draw from the operating system's random source.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize, Serializer};
use zeroize::Zeroize;

pub use jiff::Timestamp;

/// The operating system's random source failed; nothing that needs a fresh id or key can go on.
#[derive(Debug, thiserror::Error)]
#[error("the operating system's random source failed")]
pub struct RandomError;

/// Fills an array with bytes from the operating system's random source.
///
/// # Errors
/// [`RandomError`] when that source is not available.
pub fn random<const N: usize>() -> Result<[u8; N], RandomError> {
    let mut bytes = [0u8; N];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| RandomError)?;
    Ok(bytes)
}

/// Bytes in lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    let digit =
        |nibble: u8| char::from(if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 });
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// SHA-256 of bytes.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    hash.iter_mut().zip(digest.as_ref()).for_each(|(to, from)| *to = *from);
    hash
}

/// A text that does not have the shape its type demands.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {why}")]
pub struct InvalidText {
    /// The kind of thing that was expected.
    pub what: &'static str,
    /// What is wrong with the text given.
    pub why: String,
}

/// Crockford's base 32 in lower case: no `i`, `l`, `o`, `u`, so ids survive being read aloud.
const ID_ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const ID_LENGTH: usize = 16;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Deserialize)]
        #[serde(try_from = "String")]
        pub struct $name(Arc<str>);

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl $name {
            /// What every id of this kind begins with.
            pub const PREFIX: &'static str = $prefix;

            /// A new id with 80 random bits.
            ///
            /// # Errors
            /// [`RandomError`] when the operating system gives no randomness.
            pub fn generate() -> Result<Self, RandomError> {
                let bytes: [u8; ID_LENGTH] = random()?;
                let mut text = String::from($prefix);
                text.extend(bytes.iter().map(|b| char::from(ID_ALPHABET[usize::from(b & 31)])));
                Ok(Self(text.into()))
            }

            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidText;
            fn from_str(text: &str) -> Result<Self, InvalidText> {
                let rest = text.strip_prefix($prefix).ok_or_else(|| InvalidText {
                    what: stringify!($name),
                    why: format!("must begin with {:?}", $prefix),
                })?;
                if rest.len() == ID_LENGTH && rest.bytes().all(|b| ID_ALPHABET.contains(&b)) {
                    Ok(Self(text.into()))
                } else {
                    Err(InvalidText {
                        what: stringify!($name),
                        why: format!("must be {:?} and {ID_LENGTH} letters or digits", $prefix),
                    })
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidText;
            fn try_from(text: String) -> Result<Self, InvalidText> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0.as_ref().to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

id!(
    /// A [`Subject`]'s opaque id: what the log's leaves name instead of a person.
    SubjectId, "sub_"
);
id!(
    /// A grant's id, also the `jti` of its token.
    GrantId, "gr_"
);
id!(
    /// A session's id: all calls of one subject over one grant and connection.
    SessionId, "ses_"
);
id!(
    /// One call's id, given by the gateway; never the JSON-RPC id a client chose.
    CallId, "call_"
);
id!(
    /// An approval's id, from the request for it to its use.
    ApprovalId, "apr_"
);

/// A registered MCP server's name: 1 to 63 of `a-z`, `0-9` and `-`, beginning with a letter.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Deserialize)]
#[serde(try_from = "String")]
pub struct ConnectionName(Arc<str>);

impl Serialize for ConnectionName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl ConnectionName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ConnectionName {
    type Err = InvalidText;
    fn from_str(text: &str) -> Result<Self, InvalidText> {
        let shape = text.len() <= 63
            && text.starts_with(|c: char| c.is_ascii_lowercase())
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if shape {
            Ok(Self(text.into()))
        } else {
            Err(InvalidText {
                what: "connection name",
                why: format!(
                    "{text:?} must be 1 to 63 of a-z, 0-9 and '-', beginning with a letter"
                ),
            })
        }
    }
}

impl TryFrom<String> for ConnectionName {
    type Error = InvalidText;
    fn try_from(text: String) -> Result<Self, InvalidText> {
        text.parse()
    }
}

impl From<ConnectionName> for String {
    fn from(name: ConnectionName) -> Self {
        name.0.as_ref().to_owned()
    }
}

impl fmt::Display for ConnectionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Who an identity provider says somebody is, before the control server gives them a
/// [`SubjectId`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Identity {
    /// The issuer's URL, exactly as in the token's `iss`.
    pub issuer: String,
    /// The issuer's name for them: opaque, never parsed.
    pub sub: String,
    /// An e-mail address, if the issuer told one. For people to read; never decides anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// The groups that the issuer vouches for.
    #[serde(default)]
    pub groups: Vec<String>,
}

/// What a subject is, by the way it came in.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SubjectKind {
    /// Somebody who logged in.
    #[default]
    Person,
    /// A job or a service that showed its own token. It never speaks for a person: it approves
    /// nothing.
    Workload {
        /// The trust rule that let it in.
        rule: String,
    },
}

impl SubjectKind {
    /// Whether this is somebody who logged in.
    pub fn is_person(&self) -> bool {
        *self == Self::Person
    }

    /// The trust rule that let a workload in.
    pub fn rule(&self) -> Option<&str> {
        match self {
            Self::Person => None,
            Self::Workload { rule } => Some(rule),
        }
    }

    /// The word for it, as policies and the API have it.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Person => "person",
            Self::Workload { .. } => "workload",
        }
    }
}

/// A verified identity: a person or a workload, known to the control server.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Subject {
    /// The opaque id under which the log knows this subject.
    pub id: SubjectId,
    /// Whether it is a person.
    #[serde(default, skip_serializing_if = "SubjectKind::is_person")]
    pub kind: SubjectKind,
    /// Who the issuer says this is.
    #[serde(flatten)]
    pub identity: Identity,
}

impl Subject {
    /// What to call this subject on a screen: the e-mail address, or else the issuer's `sub`.
    pub fn label(&self) -> &str {
        self.identity.email.as_deref().unwrap_or(&self.identity.sub)
    }
}

/// A secret text. It has no `Debug`, `Display` or `Serialize`, and is wiped when dropped.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Takes a text into custody.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// A new random secret: 256 bits as unpadded base64url (43 characters).
    ///
    /// # Errors
    /// [`RandomError`] when the operating system gives no randomness.
    pub fn generate() -> Result<Self, RandomError> {
        use base64::Engine as _;
        let bytes: [u8; 32] = random()?;
        Ok(Self(base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)))
    }

    /// The text itself, for the one place that has to send or compare it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether `other` is this secret, in time that does not depend on where they differ.
    pub fn matches(&self, other: &str) -> bool {
        aws_lc_rs::constant_time::verify_slices_are_equal(self.0.as_bytes(), other.as_bytes())
            .is_ok()
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// Where the current time comes from. Passed in, so that tests can be somewhere else in time.
pub trait Clock: Send + Sync + 'static {
    /// The time now.
    fn now(&self) -> Timestamp;

    /// The time now in whole seconds since 1970, as JWTs count it.
    fn now_seconds(&self) -> i64 {
        self.now().as_second()
    }
}

/// The operating system's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        #[expect(clippy::disallowed_methods, reason = "this is the one place that asks")]
        Timestamp::now()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_parse_back_and_refuse_other_shapes() {
        let id = CallId::generate().unwrap();
        assert_eq!(id.as_str().parse::<CallId>().unwrap(), id);
        assert!(id.as_str().parse::<GrantId>().is_err());
        assert!("call_../../etc/passwd".parse::<CallId>().is_err());
        assert!("call_".parse::<CallId>().is_err());
    }

    #[test]
    fn connection_names_are_safe_in_paths() {
        assert!("crm-prod-2".parse::<ConnectionName>().is_ok());
        for bad in ["", "Crm", "2crm", "a/b", "..", "a.b", &"a".repeat(64)] {
            assert!(bad.parse::<ConnectionName>().is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn secrets_compare_whole() {
        let secret = Secret::generate().unwrap();
        assert_eq!(secret.expose().len(), 43);
        assert!(secret.matches(secret.expose()));
        assert!(!secret.matches(&secret.expose()[..42]));
    }
}
