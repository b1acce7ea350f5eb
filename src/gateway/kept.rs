//! The carrier's end of a stream that is kept: gives each piece to whoever reads, and knows whether
//! anybody does. See [`super::shelf`].

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use super::respond::Piece;
use super::seal::Sealed;
use super::shelf::{Owner, Shelf};

/// Where the carrier of a kept stream puts its pieces.
pub(super) struct Kept {
    pub(super) shelf: Arc<Shelf>,
    pub(super) owner: Owner,
    /// The stream's number.
    pub(super) stream: u64,
    /// Which of the stream's carriers this is.
    pub(super) carrier: u64,
    pub(super) changed: Arc<Notify>,
}

/// What became of a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// It is with the client, or waits for it.
    Fine,
    /// The client did not take it in time, and was cut off.
    Stalled,
}

/// How a stream stands.
enum Stands {
    /// Somebody reads it.
    Read(mpsc::Sender<Piece>),
    /// Nobody does, and it is kept until then.
    Away(Instant),
    /// It is not kept, or no longer by this carrier.
    Lost,
}

impl Kept {
    /// The id under which the client can take the stream up after event `number`.
    pub(super) fn id(&self, number: u64) -> Option<String> {
        let text = format!("{} {} {number}", self.owner.session, self.stream);
        self.shelf.seal.seal(Sealed::Place, &text, self.owner.seals())
    }

    /// Keeps a piece and gives it to the reader. Waits where nobody reads and no more may be kept.
    pub(super) async fn send(&self, piece: Piece, patience: Duration) -> Sent {
        let mut waiting = Some(piece);
        loop {
            let changed = self.changed.notified();
            let reader = {
                let mut sessions = self.shelf.lock();
                let Some(session) = sessions.get_mut(&self.owner.session) else {
                    return Sent::Fine;
                };
                session.forget_ended(&self.shelf.keeping);
                let full = session.bytes >= self.shelf.keeping.bytes;
                let Some(stream) = session.streams.get_mut(&self.stream) else {
                    return Sent::Fine;
                };
                let there = stream.look();
                let full = full || stream.events.len() >= self.shelf.keeping.events;
                // What is said unasked and waits too long makes room, as at its server.
                let waits = full && !there && !stream.unasked && !stream.events.is_empty();
                if waits {
                    None
                } else {
                    let Some(piece) = waiting.take() else { return Sent::Fine };
                    stream.resumable_upstream |= piece.has_id();
                    let piece = piece.under(|| self.id(stream.next()));
                    session.bytes += piece.len();
                    stream.events.push_back(piece.clone());
                    let reader = stream.reader.clone();
                    if reader.is_none() && !stream.unasked {
                        return Sent::Fine;
                    }
                    session.forget_oldest(&self.shelf.keeping, self.stream);
                    let Some(reader) = reader else { return Sent::Fine };
                    // Made before anybody else can take the stream up.
                    Some((reader, piece, self.changed.notified()))
                }
            };
            let Some((reader, piece, taken_up)) = reader else {
                changed.await;
                continue;
            };
            // Whoever takes the stream up meanwhile has been given the piece with the rest.
            return tokio::select! {
                sent = tokio::time::timeout(patience, reader.send(piece)) => match sent {
                    Ok(_taken_or_left) => Sent::Fine,
                    Err(_) => {
                        self.cut(&reader);
                        Sent::Stalled
                    }
                },
                () = taken_up => Sent::Fine,
            };
        }
    }

    /// A sign of life for whoever reads.
    pub(super) fn keep_alive(&self) {
        if let Stands::Read(reader) = self.stands() {
            let _busy_or_left = reader.try_send(Piece::KeepAlive);
        }
    }

    fn cut(&self, reader: &mpsc::Sender<Piece>) {
        let mut sessions = self.shelf.lock();
        let stream = sessions
            .get_mut(&self.owner.session)
            .and_then(|session| session.streams.get_mut(&self.stream));
        if let Some(stream) = stream
            && stream.reader.as_ref().is_some_and(|now| now.same_channel(reader))
        {
            stream.reader = None;
            stream.look();
        }
    }

    fn stands(&self) -> Stands {
        let mut sessions = self.shelf.lock();
        let stream = sessions
            .get_mut(&self.owner.session)
            .and_then(|session| session.streams.get_mut(&self.stream));
        let Some(stream) = stream.filter(|stream| stream.carrier == self.carrier) else {
            return Stands::Lost;
        };
        stream.look();
        match (&stream.reader, stream.away) {
            (Some(reader), _) => Stands::Read(reader.clone()),
            // Its messages wait at the upstream, for whoever listens next; or the server itself
            // resumes it.
            (None, _) if stream.unasked || stream.resumable_upstream => Stands::Lost,
            (None, Some(since)) => Stands::Away(since + self.shelf.keeping.time),
            (None, None) => Stands::Lost,
        }
    }

    /// Waits until nobody reads the stream.
    pub(super) async fn away(&self) {
        loop {
            let changed = self.changed.notified();
            let Stands::Read(reader) = self.stands() else { return };
            tokio::select! {
                () = reader.closed() => {}
                () = changed => {}
            }
        }
    }

    /// Waits until somebody reads the stream again; whether anybody does.
    pub(super) async fn back(&self) -> bool {
        loop {
            let changed = self.changed.notified();
            match self.stands() {
                Stands::Read(_) => return true,
                Stands::Lost => return false,
                Stands::Away(until) => {
                    if tokio::time::timeout_at(until, changed).await.is_err() {
                        return matches!(self.stands(), Stands::Read(_));
                    }
                }
            }
        }
    }

    /// Nothing more comes. What is kept stays for its time.
    pub(super) fn finish(self) {
        let mut sessions = self.shelf.lock();
        let stream = sessions
            .get_mut(&self.owner.session)
            .and_then(|session| session.streams.get_mut(&self.stream));
        let Some(stream) = stream.filter(|stream| stream.carrier == self.carrier) else { return };
        stream.done = true;
        stream.reader = None;
        drop(sessions);
        tokio::spawn(async move {
            tokio::time::sleep(self.shelf.keeping.time).await;
            let mut sessions = self.shelf.lock();
            let Some(session) = sessions.get_mut(&self.owner.session) else { return };
            let stream = session.streams.get(&self.stream);
            if stream.is_some_and(|stream| stream.done && stream.carrier == self.carrier) {
                session.remove(self.stream);
            }
            if session.streams.is_empty() {
                sessions.remove(&self.owner.session);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::seal::{Of, Seal};
    use super::super::shelf::{Gone, Keeping, Place};
    use super::*;
    use crate::types::{SessionId, SubjectId};

    const PATIENCE: Duration = Duration::from_secs(60);

    fn shelf(events: usize, time: Duration) -> Arc<Shelf> {
        let seal = Arc::new(Seal::new(&[7; 32]).unwrap());
        Arc::new(Shelf::new(Keeping { events, bytes: 1000, time }, seal).unwrap())
    }

    fn owner() -> Owner {
        Owner {
            session: SessionId::generate().unwrap(),
            subject: SubjectId::generate().unwrap(),
            connection: "crm".parse().unwrap(),
            protocol_session: Some("p".to_owned()),
            primed: true,
        }
    }

    /// The id and the text of a piece that [`Kept::send`] was given as [`Piece::Primer`].
    fn read(piece: Piece) -> (String, String) {
        match piece {
            Piece::Placed(id, piece) => match *piece {
                Piece::Primer(text) => (id, text),
                _ => panic!("another piece"),
            },
            Piece::Primer(id) => (id, String::new()),
            _ => panic!("another piece"),
        }
    }

    fn place(shelf: &Shelf, owner: &Owner, id: &str) -> Place {
        shelf.place(id, owner.seals()).unwrap()
    }

    #[tokio::test]
    async fn whoever_comes_back_misses_nothing_and_gets_nothing_twice() {
        const ALL: usize = 500;
        let (shelf, owner) = (shelf(16, PATIENCE), owner());
        let (kept, mut pieces) = shelf.begin(owner.clone(), false);
        let sending = tokio::spawn(async move {
            for number in 0..ALL {
                assert_eq!(
                    kept.send(Piece::Primer(number.to_string()), PATIENCE).await,
                    Sent::Fine
                );
            }
            kept.finish();
        });
        let (mut last, text) = read(pieces.next().await.unwrap());
        assert_eq!(text, "", "it begins with an id and nothing else");
        let mut seen = Vec::new();
        for round in 1.. {
            // Reads some, then is cut off.
            for _ in 0..round % 7 {
                let Some(piece) = pieces.next().await else { break };
                let (id, text) = read(piece);
                last = id;
                seen.push(text);
            }
            if seen.len() == ALL {
                break;
            }
            drop(pieces);
            tokio::task::yield_now().await;
            pieces = shelf.resume(&owner, &place(&shelf, &owner, &last)).unwrap();
        }
        let expected: Vec<_> = (0..ALL).map(|number| number.to_string()).collect();
        assert_eq!(seen, expected);
        assert!(pieces.next().await.is_none(), "it ends");
        sending.await.unwrap();
    }

    #[tokio::test]
    async fn a_place_is_its_owners_and_is_kept_for_a_while() {
        let (shelf, alice, bob) = (shelf(2, PATIENCE), owner(), owner());
        let (kept, mut pieces) = shelf.begin(alice.clone(), false);
        let mut given = vec![read(pieces.next().await.unwrap()).0];
        for number in 0..4 {
            kept.send(Piece::Primer(number.to_string()), PATIENCE).await;
            given.push(read(pieces.next().await.unwrap()).0);
        }
        let id = given.last().unwrap();
        assert!(shelf.place(id, bob.seals()).is_none());
        let of_another_session = Of { session: Some(&bob.session), ..alice.seals() };
        assert!(shelf.place(id, of_another_session).is_none());
        let at = place(&shelf, &alice, id);
        let elsewhere = Owner { protocol_session: None, ..alice.clone() };
        assert_eq!(shelf.is_unasked(&elsewhere, &at), Err(Gone));
        let kept_from: Vec<_> = given
            .iter()
            .map(|id| shelf.resume(&alice, &place(&shelf, &alice, id)).is_ok())
            .collect();
        assert_eq!(kept_from, [false, false, true, true, true], "two events are kept");
        shelf.forget(&alice.session);
        assert_eq!(shelf.is_unasked(&alice, &place(&shelf, &alice, &given[3])), Err(Gone));
        drop(kept);
    }

    #[tokio::test]
    async fn who_does_not_read_is_cut_and_who_does_not_come_back_is_given_up() {
        let (shelf, alice) = (shelf(2, Duration::from_millis(50)), owner());
        let (kept, pieces) = shelf.begin(alice.clone(), false);
        let mut sent = Sent::Fine;
        while sent == Sent::Fine {
            sent = kept.send(Piece::Primer(String::new()), Duration::from_millis(20)).await;
        }
        drop(pieces);
        assert!(!kept.back().await, "it is given up");
        // The stream for what is said unasked is left to its server at once.
        let (kept, pieces) = shelf.begin(alice, true);
        drop(pieces);
        kept.away().await;
        assert!(!kept.back().await);
    }
}
