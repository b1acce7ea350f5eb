//! What is kept of a stream so that a client whose connection was cut gets what it missed.
//!
//! For a legacy client of a server on stdio or over HTTP+SSE the gateway is all the Streamable HTTP
//! there is, so it is the gateway that numbers events and plays them again (MCP 2025-11-25
//! `basic/transports`, resumability). Kept are pieces that are masked and on record already, and nothing else. Each
//! belongs to one session: nobody else's event id names it. In the legacy era a client that is cut
//! off has cancelled nothing, so what it asked for goes on; once as much as may be kept waits for
//! it, its upstream is not read further until it is back.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use super::kept::Kept;
use super::respond::{Piece, Pieces};
use super::seal::{Of, Seal, Sealed};
use crate::types::{ConnectionName, RandomError, SessionId, SubjectId, random};

/// Pieces on their way to a client before nothing more is put behind them.
pub(super) const IN_FLIGHT: usize = 4;

/// Bounds on what is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keeping {
    /// How many events of one stream.
    pub events: usize,
    /// How many bytes of all streams of one session. One event may exceed it.
    pub bytes: usize,
    /// For how long after a stream has ended, or has lost its client.
    pub time: Duration,
}

/// Everything that is kept.
pub struct Shelf {
    pub(super) keeping: Keeping,
    pub(super) seal: Arc<Seal>,
    /// The number of the next stream. It begins anywhere, so that no id from before a restart names
    /// a stream of after it.
    next: AtomicU64,
    sessions: Mutex<HashMap<SessionId, Session>>,
}

#[derive(Default)]
pub(super) struct Session {
    pub(super) bytes: usize,
    /// By their numbers, the oldest first.
    pub(super) streams: BTreeMap<u64, Stream>,
}

pub(super) struct Stream {
    /// The protocol session that it belongs to.
    protocol_session: Option<String>,
    /// Whether it is the stream for what the server says unasked, which upstreams keep messages
    /// for themselves while nobody listens.
    pub(super) unasked: bool,
    /// How often it was taken up by another carrier.
    pub(super) carrier: u64,
    /// The number of the first event in `events`; an event's number is one more than its
    /// predecessor's, and the first one's is 1.
    first: u64,
    pub(super) events: VecDeque<Piece>,
    pub(super) reader: Option<mpsc::Sender<Piece>>,
    /// Since when it has no reader.
    pub(super) away: Option<Instant>,
    /// Whether nothing more will come.
    pub(super) done: bool,
    /// Whether the client has an id of the server's own, by which the server resumes the stream.
    pub(super) resumable_upstream: bool,
    changed: Arc<Notify>,
}

/// Whose a stream is.
#[derive(Clone)]
pub(super) struct Owner {
    pub(super) session: SessionId,
    pub(super) subject: SubjectId,
    pub(super) connection: ConnectionName,
    pub(super) protocol_session: Option<String>,
    /// Whether its client takes an event that brings nothing but an id.
    pub(super) primed: bool,
}

impl Owner {
    /// For whom ids of the stream are sealed.
    pub(super) fn seals(&self) -> Of<'_> {
        let (subject, connection) = (&self.subject, &self.connection);
        Of { subject, connection, session: Some(&self.session) }
    }
}

/// A place in a stream: up to where a client has read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    session: SessionId,
    stream: u64,
    event: u64,
}

/// The place is not kept, or never was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gone;

impl Shelf {
    /// An empty shelf, whose event ids are sealed.
    ///
    /// # Errors
    /// [`RandomError`] when the operating system gives no randomness.
    pub fn new(keeping: Keeping, seal: Arc<Seal>) -> Result<Self, RandomError> {
        let next = AtomicU64::new(u64::from_be_bytes(random()?) >> 1);
        Ok(Self { keeping, seal, next, sessions: Mutex::default() })
    }

    /// Begins a stream, with its first reader and with an event that brings nothing but an id, so
    /// that a client that is cut off before the first message can come back.
    pub(super) fn begin(self: &Arc<Self>, owner: Owner, unasked: bool) -> (Kept, Pieces) {
        let (reader, pieces) = mpsc::channel(IN_FLIGHT);
        let changed = Arc::new(Notify::new());
        let mut sessions = self.lock();
        let session = sessions.entry(owner.session.clone()).or_default();
        let stream = self.next.fetch_add(1, Ordering::Relaxed);
        let entry = Stream {
            protocol_session: owner.protocol_session.clone(),
            unasked,
            carrier: 0,
            first: 1,
            events: VecDeque::new(),
            reader: Some(reader),
            away: None,
            done: false,
            resumable_upstream: false,
            changed: Arc::clone(&changed),
        };
        session.streams.insert(stream, entry);
        drop(sessions);
        let kept = Kept { shelf: Arc::clone(self), owner, stream, carrier: 0, changed };
        let primer = kept.id(0).filter(|_| kept.owner.primed).map(Piece::Primer);
        (kept, Pieces::after(primer.into_iter().collect(), pieces))
    }

    /// The place that an event id of ours names, if it is one of the owner's.
    pub(super) fn place(&self, id: &str, of: Of<'_>) -> Option<Place> {
        let text = self.seal.open(Sealed::Place, id, of).ok()?;
        let mut parts = text.split(' ');
        let place = Place {
            session: parts.next()?.parse().ok()?,
            stream: parts.next()?.parse().ok()?,
            event: parts.next()?.parse().ok()?,
        };
        (parts.next().is_none() && of.session == Some(&place.session)).then_some(place)
    }

    /// Whether a place belongs to the stream for what the server says unasked.
    pub(super) fn is_unasked(&self, owner: &Owner, place: &Place) -> Result<bool, Gone> {
        let mut sessions = self.lock();
        find(&mut sessions, owner, place).map(|stream| stream.unasked)
    }

    /// Takes a stream up from a place: what came after it, then what comes. The reader before this
    /// one ends.
    pub(super) fn resume(&self, owner: &Owner, place: &Place) -> Result<Pieces, Gone> {
        let mut sessions = self.lock();
        let stream = find(&mut sessions, owner, place)?;
        Ok(stream.attach(place))
    }

    /// Takes up the stream for what the server says unasked, with a new carrier.
    pub(super) fn take_over(
        self: &Arc<Self>,
        owner: Owner,
        place: &Place,
    ) -> Result<(Kept, Pieces), Gone> {
        let mut sessions = self.lock();
        let stream = find(&mut sessions, &owner, place)?;
        stream.carrier += 1;
        stream.done = false;
        let (carrier, changed) = (stream.carrier, Arc::clone(&stream.changed));
        let pieces = stream.attach(place);
        drop(sessions);
        let kept = Kept { shelf: Arc::clone(self), owner, stream: place.stream, carrier, changed };
        Ok((kept, pieces))
    }

    /// Forgets what is kept for a session that is over.
    pub(super) fn forget(&self, session: &SessionId) {
        self.forget_where(session, |_| true);
    }

    /// Forgets what is kept for a protocol session that is over.
    pub(super) fn forget_protocol_session(&self, owner: &Owner) {
        let ended = |stream: &Stream| stream.protocol_session == owner.protocol_session;
        self.forget_where(&owner.session, ended);
    }

    /// Who still reads is told by the stream how it ends.
    fn forget_where(&self, session: &SessionId, over: impl Fn(&Stream) -> bool) {
        let mut sessions = self.lock();
        let Some(kept) = sessions.get_mut(session) else { return };
        let mut freed = 0;
        kept.streams.retain(|_, stream| {
            if !over(stream) {
                return true;
            }
            freed += stream.events.iter().map(Piece::len).sum::<usize>();
            stream.first = stream.next();
            stream.events.clear();
            let read = stream.look();
            if !read {
                stream.changed.notify_waiters();
            }
            read
        });
        kept.bytes = kept.bytes.saturating_sub(freed);
        if kept.streams.is_empty() {
            sessions.remove(session);
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, HashMap<SessionId, Session>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn find<'a>(
    sessions: &'a mut HashMap<SessionId, Session>,
    owner: &Owner,
    place: &Place,
) -> Result<&'a mut Stream, Gone> {
    let session = sessions.get_mut(&owner.session).ok_or(Gone)?;
    let stream = session.streams.get_mut(&place.stream).ok_or(Gone)?;
    let known = stream.protocol_session == owner.protocol_session
        && place.event + 1 >= stream.first
        && place.event < stream.next();
    if known { Ok(stream) } else { Err(Gone) }
}

impl Session {
    /// Makes room by forgetting streams that have ended, the oldest first.
    pub(super) fn forget_ended(&mut self, keeping: &Keeping) {
        while self.bytes >= keeping.bytes {
            let ended = self.streams.iter().find(|(_, stream)| stream.done);
            let Some(id) = ended.map(|(id, _)| *id) else { break };
            self.remove(id);
        }
    }

    /// Makes room by forgetting what the reader of a stream was sent first.
    pub(super) fn forget_oldest(&mut self, keeping: &Keeping, own: u64) {
        let Some(stream) = self.streams.get_mut(&own) else { return };
        while stream.events.len() > 1
            && (stream.events.len() > keeping.events || self.bytes > keeping.bytes)
        {
            let Some(oldest) = stream.events.pop_front() else { break };
            stream.first += 1;
            self.bytes = self.bytes.saturating_sub(oldest.len());
        }
    }

    pub(super) fn remove(&mut self, id: u64) {
        let Some(stream) = self.streams.remove(&id) else { return };
        let bytes: usize = stream.events.iter().map(Piece::len).sum();
        self.bytes = self.bytes.saturating_sub(bytes);
        stream.changed.notify_waiters();
    }
}

impl Stream {
    /// The number of the event that comes next.
    pub(super) fn next(&self) -> u64 {
        self.first + u64::try_from(self.events.len()).unwrap_or(u64::MAX)
    }

    fn attach(&mut self, place: &Place) -> Pieces {
        let read = usize::try_from(place.event + 1 - self.first).unwrap_or(usize::MAX);
        let missed = self.events.iter().skip(read).cloned().collect();
        let (reader, live) = mpsc::channel(IN_FLIGHT);
        // Without a carrier the stream ends where what is kept ends.
        self.reader = (!self.done).then_some(reader);
        self.away = None;
        self.changed.notify_waiters();
        Pieces::after(missed, live)
    }

    /// Notes a reader that has gone; whether there is one.
    pub(super) fn look(&mut self) -> bool {
        if self.reader.as_ref().is_some_and(mpsc::Sender::is_closed) {
            self.reader = None;
        }
        if self.reader.is_none() {
            self.away.get_or_insert_with(Instant::now);
        }
        self.reader.is_some()
    }
}
