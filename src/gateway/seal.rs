//! Legacy session ids, event ids and states, sealed so that they work for their owner only.
//!
//! A client never sees the upstream's `Mcp-Session-Id`. It gets that id encrypted and bound
//! (AES-256-GCM-SIV, which random nonces under one key do not wear out; subject, connection and the
//! grant's session as associated data), so a session id that leaks is useless with another grant,
//! and any gateway with the key can open it. Implements the session binding that MCP's security best practices
//! ask for. The ids of stream events go the same way: they are an upstream's text that cannot be
//! masked, since it has to come back as it was, and one subject's must not resume another's
//! stream.

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::mcp::modern;
use crate::types::{ConnectionName, SessionId, SubjectId};

/// What is sealed. One kind never opens as the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sealed {
    /// An `Mcp-Session-Id`.
    Session,
    /// The id that a server gave an event of a stream; it comes back as `Last-Event-ID`.
    Event,
    /// A place in a stream that the gateway itself keeps, which comes back likewise.
    Place,
    /// The `requestState` of a call that waits for a person.
    State,
    /// What a user agreed to for an MCP server. Never leaves the server, and has a key of its own.
    Consent,
}

/// A session or event id that this gateway did not give to this subject for this connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this MCP session is not known here; initialize again")]
pub struct UnknownSession;

/// A legacy session, as only this gateway can tell it from its sealed id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProtocolSession {
    /// The upstream's own id.
    pub id: String,
    /// The protocol version that its `initialize` settled on, where the gateway learned it.
    pub version: Option<&'static str>,
}

/// Whose a sealed id is: it opens for nobody else.
#[derive(Clone, Copy, Debug)]
pub struct Of<'a> {
    /// The subject.
    pub subject: &'a SubjectId,
    /// The connection.
    pub connection: &'a ConnectionName,
    /// The session of the one grant that may use it; with none, any of the subject's for the
    /// connection.
    pub session: Option<&'a SessionId>,
}

/// The key that seals session ids.
pub struct Seal(RandomizedNonceKey);

impl Seal {
    /// A seal with a 32-byte key.
    pub fn new(key: &[u8; 32]) -> Option<Self> {
        RandomizedNonceKey::new(&AES_256_GCM_SIV, key).ok().map(Self)
    }

    /// The id that the client gets for an upstream's id; `None` if it cannot be sealed.
    pub fn seal(&self, kind: Sealed, id: &str, of: Of<'_>) -> Option<String> {
        let mut text = id.as_bytes().to_vec();
        let nonce = self.0.seal_in_place_append_tag(bound_to(kind, of), &mut text).ok()?;
        let mut sealed = nonce.as_ref().to_vec();
        sealed.extend(text);
        Some(URL_SAFE_NO_PAD.encode(sealed))
    }

    /// The id that the client gets for an upstream's session; `None` if it cannot be sealed.
    pub fn seal_session(&self, session: &ProtocolSession, of: Of<'_>) -> Option<String> {
        let text = format!("{} {}", session.version.unwrap_or("-"), session.id);
        self.seal(Sealed::Session, &text, of)
    }

    /// The upstream's session behind a client's id.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_session(
        &self,
        sealed: &str,
        of: Of<'_>,
    ) -> Result<ProtocolSession, UnknownSession> {
        let text = self.open(Sealed::Session, sealed, of)?;
        let (version, id) = text.split_once(' ').ok_or(UnknownSession)?;
        Ok(ProtocolSession { id: id.to_owned(), version: modern::legacy_version(version) })
    }

    /// The upstream's id behind a client's.
    ///
    /// # Errors
    /// [`UnknownSession`] for anything that was not sealed for whom it is opened for.
    pub fn open(&self, kind: Sealed, sealed: &str, of: Of<'_>) -> Result<String, UnknownSession> {
        let bytes = URL_SAFE_NO_PAD.decode(sealed).map_err(|_| UnknownSession)?;
        let (nonce, text) = bytes.split_at_checked(NONCE_LEN).ok_or(UnknownSession)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| UnknownSession)?;
        let mut text = text.to_vec();
        let id = self
            .0
            .open_in_place(nonce, bound_to(kind, of), &mut text)
            .map_err(|_| UnknownSession)?;
        String::from_utf8(id.to_vec()).map_err(|_| UnknownSession)
    }
}

fn bound_to(kind: Sealed, of: Of<'_>) -> Aad<String> {
    let kind = match kind {
        Sealed::Session => "session",
        Sealed::Event => "event",
        Sealed::Place => "place",
        Sealed::State => "state",
        Sealed::Consent => "consent",
    };
    // None can hold a blank, so no two of them share a text.
    let Of { subject, connection, session } = of;
    let session = session.map_or("-", SessionId::as_str);
    Aad::from(format!("mcpx/{kind}/v2 {subject} {connection} {session}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_keeps_its_version() {
        let seal = Seal::new(&[7; 32]).unwrap();
        let (alice, crm) = (SubjectId::generate().unwrap(), "crm".parse().unwrap());
        for version in [None, Some("2025-03-26"), Some("2025-11-25")] {
            let session = ProtocolSession { id: "a b 2025-03-26".to_owned(), version };
            let of = Of { subject: &alice, connection: &crm, session: None };
            let sealed = seal.seal_session(&session, of).unwrap();
            assert_eq!(seal.open_session(&sealed, of).unwrap(), session);
        }
    }

    #[test]
    fn opens_for_its_owner_only() {
        let seal = Seal::new(&[7; 32]).unwrap();
        let (alice, bob) = (SubjectId::generate().unwrap(), SubjectId::generate().unwrap());
        let (crm, hr) = ("crm".parse().unwrap(), "hr".parse().unwrap());
        let (session, other) = (SessionId::generate().unwrap(), SessionId::generate().unwrap());
        let own = Of { subject: &alice, connection: &crm, session: Some(&session) };
        let (bobs, of_hr) = (Of { subject: &bob, ..own }, Of { connection: &hr, ..own });
        let sealed = seal.seal(Sealed::Session, "upstream-1", own).unwrap();
        assert!(!sealed.contains("upstream"));
        assert!(sealed.bytes().all(|byte| (0x21..=0x7e).contains(&byte)));
        assert_eq!(seal.open(Sealed::Session, &sealed, own).unwrap(), "upstream-1");
        assert_eq!(seal.open(Sealed::Session, &sealed, bobs), Err(UnknownSession));
        assert_eq!(seal.open(Sealed::Session, &sealed, of_hr), Err(UnknownSession));
        // Nor for another grant of the same subject, or for whoever needs none.
        for session in [Some(&other), None] {
            let of = Of { session, ..own };
            assert_eq!(seal.open(Sealed::Session, &sealed, of), Err(UnknownSession));
        }
        assert_eq!(
            Seal::new(&[8; 32]).unwrap().open(Sealed::Session, &sealed, own),
            Err(UnknownSession)
        );
        for other in [Sealed::Event, Sealed::Place, Sealed::State] {
            assert_eq!(seal.open(other, &sealed, own), Err(UnknownSession));
        }
        for bad in ["", "upstream-1", "!!", &sealed[1..]] {
            assert_eq!(seal.open(Sealed::Session, bad, own), Err(UnknownSession));
        }
    }
}
