//! Waiting for a person. A client never just hangs: while it waits it gets signs of life and, if
//! it asked for progress, what it waits for; past the configured wait it gets an answer that
//! names the open approval. The approval is bound to the canonical call, so the same call made
//! later passes once.
//!
//! A client of the modern era that can open a page for its user waits in rounds ([`super::rounds`]):
//! the first is answered at once, so that the user learns what waits; the others are held, each for
//! its part of the wait.

use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use bytes::Bytes;
use serde_json::json;
use tokio::sync::oneshot;

use super::authenticate::Caller;
use super::line::Line;
use super::ports::{Answer, Ended, PortError};
use super::records::{Denied, Trail, Waiting};
use super::refusal::Refusal;
use super::respond::{Opening, Piece, Reply};
use super::rounds::{self, Round};
use super::{Gateway, has_left, unrecorded};
use crate::audit::Outcome;
use crate::mcp::{Message, sse};
use crate::policy::{Decision, Need};
use crate::types::{ApprovalId, Timestamp};

/// What a call waits for.
struct Waits {
    approval: ApprovalId,
    trail: Trail,
    until: Timestamp,
    /// What is answered if nobody has decided by then, in place of a refusal.
    again: Option<Bytes>,
}

impl Gateway {
    pub(super) async fn hold(
        self: Arc<Self>,
        caller: Caller,
        need: Need,
        round: Option<Round>,
        left: oneshot::Receiver<()>,
    ) -> Reply {
        let trail = Trail::of(&need.call);
        // A state that was given for another call says nothing of this one.
        let round = round.filter(|round| round.binding == need.binding.as_str());
        let approval = match &round {
            Some(round) => round.approval.clone(),
            None => match self.approvals.ask(&need).await {
                Ok(approval) => approval,
                Err(error) => return self.refuse(caller.refused(Refusal::from(&error))).await,
            },
        };
        let waiting = match self.recorder.record(Waiting::new(&need, &approval)).await {
            Ok(waiting) => waiting,
            Err(error) => return unrecorded(&error, false),
        };
        let again = self.another_round(&caller, &need, &approval, round.as_ref());
        let wait = match &round {
            None if again.is_some() => Duration::ZERO,
            Some(round) if !round.accepted => Duration::ZERO,
            Some(_) => self.settings.approval_wait / u32::from(rounds::MOST),
            None => self.settings.approval_wait,
        };
        let until = self.until(wait);
        let waits = Waits { approval, trail: trail.clone(), until, again };
        if wait.is_zero() || !caller.takes_stream() {
            let settling = async {
                let waited = self.wait(&caller, &need, &waits).await;
                Arc::clone(&self).settle(caller, need, waits, waited).await
            };
            return tokio::select! {
                reply = settling => reply,
                () = has_left(Some(left)) => {
                    self.close(&trail, Outcome::Cancelled, false).await;
                    Reply::Left
                }
            };
        }
        let (line, shown) =
            if caller.relayed { self.direct(None) } else { self.line(caller.owner(), &need.call) };
        tokio::spawn(self.hold_open(caller, need, waits, line));
        Reply::Stream(Opening::Waiting(Box::new(waiting)), shown)
    }

    fn until(&self, wait: Duration) -> Timestamp {
        let now = self.clock.now();
        now.checked_add(wait).unwrap_or(now)
    }

    /// Keeps a stream alive while the call waits, then carries its answer into the stream.
    async fn hold_open(self: Arc<Self>, mut caller: Caller, need: Need, waits: Waits, line: Line) {
        caller.relayed = true;
        let progress = need.call.message().and_then(progress_token);
        let rule = need.rules.join(", ");
        let mut step = 0u64;
        let waited = loop {
            let waiting = self.wait(&caller, &need, &waits);
            let waited = tokio::select! {
                // A yes that has been taken is never left lying.
                biased;
                waited = waiting => Some(waited),
                () = line.away() => None,
                () = self.tell(&line, &waits, progress.as_deref(), &mut step, &rule) => None,
            };
            if let Some(waited) = waited {
                break waited;
            }
            // Without its client the call takes no yes: whoever makes it again finds the request
            // open, and so does this one when its client is back.
            if !line.back().await {
                self.close(&waits.trail, Outcome::Cancelled, false).await;
                return line.finish();
            }
        };
        let trail = waits.trail.clone();
        let reply = Arc::clone(&self).settle(caller, need, waits, waited).await;
        self.relay(Some(&trail), reply, &line).await;
        line.finish();
    }

    /// Tells a client that waits so, until it is cut off.
    async fn tell(
        &self,
        line: &Line,
        waits: &Waits,
        progress: Option<&str>,
        step: &mut u64,
        rule: &str,
    ) {
        let Waits { approval, trail, .. } = waits;
        let mut ticks = tokio::time::interval(self.settings.keep_alive);
        loop {
            ticks.tick().await;
            let Some(token) = progress else {
                line.keep_alive();
                continue;
            };
            *step += 1;
            let piece = self.progress(trail, token, *step, approval, rule).await;
            if !self.put(Some(trail), line, piece).await {
                return;
            }
        }
    }

    /// Waits for the answer.
    async fn wait(&self, caller: &Caller, need: &Need, waits: &Waits) -> Waited {
        let mut grant = caller.grant.clone();
        tokio::select! {
            answer = self.approvals.answer(&waits.approval, &need.call.id, waits.until) => {
                Waited::Answered(answer)
            }
            ended = grant.ended(&*self.clock) => Waited::Over(ended),
            () = self.stopping() => Waited::Stopping,
        }
    }

    /// Acts on the answer.
    async fn settle(
        self: Arc<Self>,
        caller: Caller,
        need: Need,
        waits: Waits,
        waited: Waited,
    ) -> Reply {
        let Waits { approval, trail, again, .. } = waits;
        let answer = match waited {
            Waited::Answered(answer) => answer,
            Waited::Over(ended) => {
                let refusal = Refusal::ended(ended);
                return self.own_answer(&need.call, &trail, &refusal, Outcome::Expired).await;
            }
            Waited::Stopping => {
                let refusal = Refusal::stopping();
                return self.own_answer(&need.call, &trail, &refusal, Outcome::Cancelled).await;
            }
        };
        let (refusal, outcome) = match answer {
            Ok(Answer::Yes(approved)) => {
                // What is used may have changed while the approver thought.
                let mut call = need.call;
                match self.pin(&mut call).await {
                    Ok(None) => {}
                    Ok(Some(denial)) => {
                        let refusal = Refusal::quarantined(&call, &denial);
                        let denied = Denied::new(&call, &refusal, &denial, &self.masker);
                        return self.deny(denied).await;
                    }
                    Err(error) => {
                        let refusal = Refusal::from(&error);
                        return self.own_answer(&call, &trail, &refusal, Outcome::Expired).await;
                    }
                }
                return match self.decide(&caller, call, Some(&approved)) {
                    // A task of its own: the yes is spent, so the call is made and its end
                    // recorded even if the client leaves now.
                    Decision::Allow(permit) => tokio::spawn(self.pass(caller, *permit, None))
                        .await
                        .unwrap_or(Reply::Unrecorded { forwarded: true }),
                    Decision::Deny(call, denial) => {
                        self.deny(Denied::by_policy(&call, &denial, &self.masker)).await
                    }
                    Decision::NeedsApproval(need) => {
                        let (call, denial) =
                            need.refused("the policies changed while this call waited");
                        self.deny(Denied::by_policy(&call, &denial, &self.masker)).await
                    }
                };
            }
            Ok(Answer::No { reason }) => {
                (Refusal::rejected(approval, reason.as_deref(), &need.rules), Outcome::Denied)
            }
            Ok(Answer::Expired) => (Refusal::approval_expired(approval), Outcome::Expired),
            Ok(Answer::Taken) => (Refusal::approval_taken(approval), Outcome::Expired),
            Ok(Answer::Pending) => {
                if let Some(again) = again {
                    return self
                        .own_message(&trail, StatusCode::OK, &again, Outcome::Accepted)
                        .await;
                }
                let refusal = Refusal::pending(approval, &need.groups, &need.rules);
                let id = need.call.message().and_then(Message::id);
                if let Some(id) = id.filter(|_| need.call.action() == "tools/call") {
                    let message = refusal.to_tool_result(id);
                    let outcome = Outcome::Expired;
                    return self.own_message(&trail, refusal.status, &message, outcome).await;
                }
                (refusal, Outcome::Expired)
            }
            Err(error) => (Refusal::from(&error), Outcome::Expired),
        };
        self.own_answer(&need.call, &trail, &refusal, outcome).await
    }

    async fn progress(
        &self,
        trail: &Trail,
        token: &str,
        step: u64,
        approval: &ApprovalId,
        rule: &str,
    ) -> Piece {
        let text = json!(format!("waiting for approval {approval} (policy {rule})"));
        let message = Bytes::from(format!(
            r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":{token},"progress":{step},"message":{text}}}}}"#
        ));
        let Ok(masked) = self.masker.message(&message) else { return Piece::KeepAlive };
        let Ok(text) = std::str::from_utf8(masked.bytes()) else { return Piece::KeepAlive };
        let frame = sse::encode(None, None, text);
        let event = trail.event(frame, Outcome::StreamEvent, false, Some(&masked));
        match self.recorder.record(event).await {
            Ok(event) => Piece::Event(Arc::new(event)),
            Err(error) => {
                tracing::error!(%error, "the audit log cannot be written; a stream is cut");
                Piece::Broken
            }
        }
    }
}

/// What ended the wait.
enum Waited {
    Answered(Result<Answer, PortError>),
    Over(Ended),
    Stopping,
}

/// The progress token as JSON text: a string or an integer.
fn progress_token(message: &Message) -> Option<String> {
    let params = message.params_value()?;
    let token = params.get("_meta")?.get("progressToken")?;
    (token.is_string() || token.is_i64() || token.is_u64()).then(|| token.to_string())
}
