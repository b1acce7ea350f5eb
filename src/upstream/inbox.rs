//! Where readers get what comes on a pipe or stream that many of them share, and how it is handed
//! to them.
//!
//! Whose each message is, [`super::desk`] knows. A reader that takes nothing holds up the pipe only
//! for as long as nobody else waits for it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::desk::{Delivery, Desk, Fate, Inlet, Party, Reader, Recipient, Unread, lock, reader};
use super::{Incoming, UpstreamError};
use crate::mcp::{Id, Message};

/// Messages on their way to one reader.
const IN_FLIGHT: usize = 16;
/// Messages on their way to one reader of a child that many share.
pub(super) const IN_FLIGHT_SHARED: usize = 1024;
/// Bytes on their way to one reader of a child that many share; a message more may be.
const BYTES_SHARED: usize = 8 * 1024 * 1024;
/// How long a reader that takes nothing may hold up others.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often it is looked whether there are others.
pub(super) const LOOK: Duration = Duration::from_millis(250);

/// Where one reader gets its messages.
#[derive(Debug)]
pub(super) struct Inbox {
    messages: Inlet,
    desk: Arc<Mutex<Desk>>,
    /// Where to say that nobody waits for the answer any more; `None` where that cannot be said.
    cancel: Option<mpsc::Sender<Bytes>>,
    /// Whether leaving cancels the request.
    cancels: bool,
    /// The request whose answer ends this inbox, as the server knows it; `None` for the listener.
    request: Option<Id>,
    /// The one who listens.
    party: Option<Party>,
    answered: bool,
    over: bool,
}

impl Inbox {
    /// The inbox of a request, noted at the desk before it is sent, and the request as the server
    /// is to read it. `cancel`: where to say that nobody waits for its answer any more. `cancels`:
    /// whether to drop the inbox before the answer is to say so.
    pub(super) fn ask(
        desk: &Arc<Mutex<Desk>>,
        party: &Party,
        message: &Message,
        cancel: Option<mpsc::Sender<Bytes>>,
        cancels: bool,
    ) -> Result<(Self, Message), UpstreamError> {
        let (messages, told) = {
            let mut desk = lock(desk);
            let room = if desk.is_shared() { IN_FLIGHT_SHARED } else { IN_FLIGHT };
            let (reader, messages) = reader(room);
            (messages, desk.ask(party, message, reader)?)
        };
        let (desk, request) = (Arc::clone(desk), told.id().cloned());
        let inbox = Self {
            messages,
            desk,
            cancel,
            cancels,
            request,
            party: None,
            answered: false,
            over: false,
        };
        Ok((inbox, told))
    }

    /// The inbox of what answers nothing. The party's one before it ends.
    pub(super) fn listen(desk: &Arc<Mutex<Desk>>, party: &Party) -> Result<Self, UpstreamError> {
        let messages = lock(desk).listen(party)?;
        Ok(Self {
            messages,
            desk: Arc::clone(desk),
            cancel: None,
            cancels: false,
            request: None,
            party: Some(Arc::clone(party)),
            answered: false,
            over: false,
        })
    }

    /// The next message, or `None` when nothing follows: after the answer, after the listener's
    /// stream, or when the client has cancelled the request.
    pub(super) async fn next(&mut self) -> Option<Result<Incoming, UpstreamError>> {
        if self.answered || self.over {
            return None;
        }
        if let Some(message) = self.messages.next().await {
            // Nothing follows an answer.
            self.answered = self.request.is_some() && message.is_last();
            return Some(Ok(message));
        }
        self.over = true;
        match self.messages.fate() {
            Some(Fate::Withdrawn) => None,
            Some(Fate::TooSlow) => Some(Err(UpstreamError::TooSlow)),
            Some(Fate::SessionOver) => {
                self.request.is_some().then_some(Err(UpstreamError::SessionGone))
            }
            // The listener's stream may end at any time; a request must be answered.
            None => self.request.is_some().then(|| Err(lock(&self.desk).end_error())),
        }
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        if let Some(id) = self.request.take() {
            let fate = self.messages.fate();
            if fate == Some(Fate::Withdrawn) {
                return;
            }
            lock(&self.desk).forget_reader(&id, &self.messages);
            let gives_up = self.cancels || fate == Some(Fate::TooSlow);
            if self.answered || !gives_up {
                return;
            }
            let Some(cancel) = &self.cancel else { return };
            let line = format!(
                r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":{}}}}}"#,
                id.as_json()
            );
            // A child that reads nothing will not read this either.
            let _told = cancel.try_send(line.into());
        } else if let Some(party) = &self.party {
            // What the listener has not read waits for the next one.
            let mut desk = lock(&self.desk);
            for message in self.messages.leave() {
                if let Incoming::Message(message) = message {
                    desk.unread(party, message);
                }
            }
        }
    }
}

/// Gives a message to whom it belongs; `lost` is told in a word of what reaches nobody. Gives back
/// the gateway's own answer to it, where a shared child is to have one.
pub(super) async fn hand_out(
    desk: &Mutex<Desk>,
    message: Message,
    lost: impl Fn(&'static str),
) -> Option<Bytes> {
    let delivery = lock(desk).deliver(message);
    match delivery {
        Delivery::To(all) => {
            for (to, reader, message) in all {
                hand(desk, &to, &reader, Incoming::Message(message), &lost).await;
            }
        }
        Delivery::Nobody(why) => lost(why),
        Delivery::Answer(answer, why) => {
            if let Some(why) = why {
                lost(why);
            }
            return Some(answer);
        }
        Delivery::Kept => {}
    }
    None
}

/// Hands a message over. Waiting for a reader is the back-pressure, since the server blocks on its
/// full pipe; but it holds up everybody, so it is patient only where there is nobody else.
pub(super) async fn hand(
    desk: &Mutex<Desk>,
    to: &Recipient,
    reader: &Reader,
    message: Incoming,
    lost: impl Fn(&'static str),
) {
    let cut_off = || {
        lock(desk).cut_off(to);
        // The desk has forgotten a request whose answer this was.
        reader.cut(Fate::TooSlow);
        lost("too_slow");
    };
    let shared = lock(desk).is_shared();
    if shared && reader.waiting() > BYTES_SHARED {
        return cut_off();
    }
    let mut left = PATIENCE;
    let mut message = message;
    loop {
        message = match reader.offer(message) {
            Ok(()) => return,
            // Where a listener left just now, it waits for the next one.
            Err(Unread::Left(Incoming::Message(message))) => {
                if let Recipient::Listener(party) = to {
                    lock(desk).unread(party, message);
                }
                return;
            }
            Err(Unread::Left(_)) => return,
            // Among strangers nobody waits for anybody.
            Err(Unread::Full(_)) if shared => return cut_off(),
            Err(Unread::Full(message)) => message,
        };
        if tokio::time::timeout(LOOK, reader.room()).await.is_err() && lock(desk).others_wait(to) {
            left = left.saturating_sub(LOOK);
            if left.is_zero() {
                return cut_off();
            }
        }
    }
}
