//! Who calls: a live grant for this connection, and proof that the caller holds its key.
//!
//! Implements the protected resource's part of RFC 9449 (section 7: a proof for this method and
//! URL bound to the token, single use) and of RFC 8705 (section 3: the certificate of the token).

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::ConnectInfo;
use axum::http::header::ORIGIN;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method};
use url::Url;

use super::Gateway;
use super::ports::LiveGrant;
use super::records::Refused;
use super::refusal::{Refusal, connection_name};
use super::seal::{ProtocolSession, Sealed, UnknownSession};
use super::shelf::Place;
use super::slots::Slot;
use crate::identity::certificate::PeerCertificate;
use crate::identity::possession::{Presented, Shown, single};
use crate::mcp::{Era, headers};
use crate::policy::{Act, Direction, Transport, Way};
use crate::types::{SubjectId, Timestamp};
use crate::upstream::{Route, Upstream};

/// An authenticated caller of one connection.
#[derive(Clone)]
pub(super) struct Caller {
    pub(super) grant: LiveGrant,
    pub(super) upstream: Arc<Upstream>,
    pub(super) source: Option<IpAddr>,
    /// The request's headers, of which the upstream gets those that MCP passes on.
    pub(super) headers: HeaderMap,
    /// The upstream's own session, unsealed.
    pub(super) protocol_session: Option<ProtocolSession>,
    /// Where in a stream that the gateway keeps the caller wants to go on.
    pub(super) place: Option<Place>,
    /// Held as long as the caller's call may have a stream.
    pub(super) slot: Option<Arc<Slot>>,
    /// Whether what reads the answer's stream is a line of the gateway's own.
    pub(super) relayed: bool,
}

impl Caller {
    /// A refusal after authentication, which can name who was refused.
    pub(super) fn refused(&self, refusal: Refusal) -> Refused {
        Refused {
            refusal,
            id: None,
            subject: Some(self.grant.subject.id.clone()),
            connection: Some(self.grant.connection.clone()),
            session: Some(self.grant.session.clone()),
            source: self.source,
        }
    }

    /// Where the upstream keeps what belongs to this caller.
    pub(super) fn route(&self) -> Route {
        Route {
            session: self.grant.session.clone(),
            protocol_session: self.protocol_session.as_ref().map(|session| session.id.clone()),
        }
    }

    /// The era of what this caller sends.
    pub(super) fn era(&self, act: &Act) -> Era {
        let version = self.headers.get(headers::PROTOCOL_VERSION);
        let version = version.and_then(|version| version.to_str().ok());
        let message = match act {
            Act::Message(message) => Some(message),
            Act::Listen | Act::End => None,
        };
        Era::of(version, self.protocol_session.is_some(), message)
    }

    /// The way of a call of this caller, or to them.
    pub(super) fn way(&self, direction: Direction, era: Era) -> Way {
        let transport = match *self.upstream {
            Upstream::Http(_) => Transport::Http,
            Upstream::Sse(_) => Transport::Sse,
            Upstream::Stdio(_) => Transport::Stdio,
        };
        Way { direction, era, transport }
    }

    /// Whether the client takes an event stream for an answer.
    pub(super) fn takes_stream(&self) -> bool {
        self.headers
            .get_all(axum::http::header::ACCEPT)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .any(|accept| accept.contains(headers::EVENT_STREAM))
    }
}

impl Gateway {
    pub(super) async fn authenticate(
        &self,
        connection: &str,
        head: &Parts,
    ) -> Result<Caller, Refused> {
        let source =
            head.extensions.get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(peer)| peer.ip());
        let mut known = Known { source, ..Known::default() };
        match self.caller(connection, head, &mut known).await {
            Ok(caller) => Ok(caller),
            Err(refusal) => Err(Refused {
                refusal: match &self.oauth {
                    Some(oauth) => oauth.challenge(connection, refusal),
                    None => refusal,
                },
                id: None,
                subject: known.subject,
                connection: known.connection,
                session: known.session,
                source,
            }),
        }
    }

    /// A browser names the page that makes it ask; no page but our own may (MCP
    /// `basic/transports`, security warning). Programs that are not browsers send no origin.
    fn check_origin(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let mut origins = headers.get_all(ORIGIN).iter();
        let (Some(origin), further) = (origins.next(), origins.next()) else { return Ok(()) };
        let own = Url::parse(&self.public_url).map(|url| url.origin().ascii_serialization());
        match own {
            Ok(own) if further.is_none() && origin.as_bytes() == own.as_bytes() => Ok(()),
            _ => Err(Refusal::foreign_origin()),
        }
    }

    async fn caller(
        &self,
        connection: &str,
        head: &Parts,
        known: &mut Known,
    ) -> Result<Caller, Refusal> {
        self.check_origin(&head.headers)?;
        let name = connection_name(connection)?;
        let url = format!("{}/mcp/{name}", self.public_url);
        let now = self.clock.now();

        let presented = Presented::of(&head.headers).ok_or_else(Refusal::no_token)?;
        let shown = Shown {
            headers: &head.headers,
            method: head.method.as_str(),
            url: &url,
            source: known.source,
            certificate: head.extensions.get::<PeerCertificate>(),
        };
        if let Some(oauth) = &self.oauth
            && oauth.takes(&name, presented, &self.public_url)
            && let Some(upstream) = self.connections.get(&name)
        {
            known.connection = Some(name.clone());
            let grant = self.access_grant(oauth, presented, &name, &shown).await;
            let grant = grant.map_err(|no| {
                known.subject = no.subject;
                no.refusal
            })?;
            known.subject = Some(grant.subject.id.clone());
            return self.enter(grant, upstream, head, known, now);
        }

        let now_seconds = now.as_second();
        let claims = self
            .verifier
            .verify(presented.token(), &url, now_seconds)
            .map_err(|error| Refusal::from(&error))?;
        known.subject = Some(claims.sub.clone());
        self.possession
            .check(&shown, presented, &claims.cnf, now_seconds)
            .map_err(|error| Refusal::possession(&error, self.possession.nonce(now_seconds)))?;

        // Only who has a genuine token learns which connections exist.
        let upstream =
            self.connections.get(&name).ok_or_else(|| Refusal::no_connection(connection))?;
        known.connection = Some(name.clone());
        let grant = claims.grant().ok_or_else(Refusal::unknown_grant)?;
        let grant = self.grants.find(&grant).await.map_err(|error| Refusal::from(&error))?;
        let grant = grant
            .filter(|grant| grant.connection == name && grant.subject.id == claims.sub)
            .ok_or_else(Refusal::unknown_grant)?;
        self.enter(grant, upstream, head, known, now)
    }

    /// What is left to look at once it is known whose grant it is.
    fn enter(
        &self,
        grant: LiveGrant,
        upstream: &Arc<Upstream>,
        head: &Parts,
        known: &mut Known,
        now: Timestamp,
    ) -> Result<Caller, Refusal> {
        known.session = Some(grant.session.clone());
        if let Some(ended) = grant.has_ended(now) {
            return Err(Refusal::ended(ended));
        }
        if !matches!(head.method, Method::POST | Method::GET | Method::DELETE) {
            return Err(Refusal::method_not_allowed());
        }

        let protocol_session = match head.headers.get(headers::SESSION_ID) {
            None => None,
            Some(_) => {
                // Of two, a server may well take the other one.
                let sealed = single(&head.headers, headers::SESSION_ID).unwrap_or_default();
                Some(self.seal.open_session(sealed, grant.seals())?)
            }
        };
        let mut given = head.headers.clone();
        let mut place = None;
        if given.contains_key(headers::LAST_EVENT_ID) {
            let sealed = single(&given, headers::LAST_EVENT_ID).unwrap_or_default();
            place = self.shelf.place(sealed, grant.seals());
            if place.is_some() && head.method == Method::GET {
                given.remove(headers::LAST_EVENT_ID);
            } else {
                let id = self.seal.open(Sealed::Event, sealed, grant.seals())?;
                let id = HeaderValue::from_bytes(id.as_bytes()).map_err(|_| UnknownSession)?;
                given.insert(headers::LAST_EVENT_ID, id);
            }
        }
        Ok(Caller {
            grant,
            upstream: Arc::clone(upstream),
            source: known.source,
            headers: given,
            protocol_session,
            place,
            slot: None,
            relayed: false,
        })
    }
}

/// What is known of a caller by the time they are refused.
#[derive(Default)]
struct Known {
    source: Option<IpAddr>,
    subject: Option<SubjectId>,
    connection: Option<crate::types::ConnectionName>,
    session: Option<crate::types::SessionId>,
}
