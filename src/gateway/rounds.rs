//! Waiting for a person in the modern era, in rounds: the call is answered with `input_required`
//! and a page that says what waits, and the client makes it again (MCP 2026-07-28
//! `basic/patterns/mrtr`). The user is asked once; the rounds after that carry the state alone. Nothing is kept open between the rounds, and nothing is kept here: what
//! is needed to go on lies in `requestState`, sealed for this subject and connection.
//!
//! Each round is a call like every other, judged by the policies in force. The state only says
//! which request for approval it belongs to; it lifts nothing. A server may ask in rounds of its
//! own: what its state was, and what was answered to it, travels inside ours, byte for byte, and
//! is put back before the call is judged. A state that is not ours is the server's.

use std::borrow::Cow;
use std::collections::HashMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;

use super::Gateway;
use super::authenticate::Caller;
use super::refusal::Refusal;
use super::seal::{Of, Sealed};
use crate::mcp::{Era, Message, Origin, headers};
use crate::policy::{Act, Call, Direction, Need};
use crate::types::ApprovalId;

/// What our states begin with.
const MARK: &str = "mcpx1.";
/// The one request that we put into a result.
const KEY: &str = "mcpx_approval";
/// Rounds before the call is answered for good: they share the time that calls may wait. Clients
/// count rounds as well; ten is usual.
pub(super) const MOST: u8 = 8;
/// The longest text of the server's rounds that fits into ours; beyond it, the stream is held.
const ROOM: usize = 64 * 1024;

const STATE: &str = "requestState";
const ANSWERS: &str = "inputResponses";

/// What a state says.
#[derive(Serialize, Deserialize)]
struct State {
    approval: ApprovalId,
    /// The call that the approval is for.
    binding: String,
    round: u8,
    /// The server's own state and what is answered to it, as JSON text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    state: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    answers: Option<String>,
}

/// A call that comes back.
pub(super) struct Round {
    pub(super) approval: ApprovalId,
    pub(super) binding: String,
    number: u8,
    /// Whether the user goes on waiting.
    pub(super) accepted: bool,
}

impl Gateway {
    /// Takes our state out of a call that comes back, so that it is the call that it was.
    pub(super) fn take_up(
        &self,
        caller: &Caller,
        call: Call,
    ) -> Result<(Call, Option<Round>), Refusal> {
        if call.era != Era::Modern || !call.row().input {
            return Ok((call, None));
        }
        let Some((params, members)) = call.message().and_then(members) else {
            return Ok((call, None));
        };
        let Some(state) = members.get(STATE).and_then(|state| self.open(caller, state.get()))
        else {
            return Ok((call, None));
        };
        let accepted = members.get(ANSWERS).is_some_and(|answers| accepts(answers.get()));
        let original = restored(&members, &state);
        let raw = call.message().map_or_else(Bytes::new, |message| message.raw().clone());
        let start = params.as_ptr().addr().saturating_sub(raw.as_ptr().addr());
        let place = start..start + params.len();
        let unreadable =
            || Refusal::failed_closed("unreadable_input", "the call cannot be restored");
        let raw = crate::mcp::json::splice(&raw, &[(place, original)]).map_err(|_| unreadable())?;
        let message = Message::decode(raw.into(), Origin::Client, &self.settings.limits)
            .map_err(|error| Refusal::from(&error))?;
        let way = caller.way(Direction::ClientToServer, call.era);
        let call = self.call(caller, way, Act::Message(message))?;
        let State { approval, binding, round: number, .. } = state;
        // Only the first round has asked.
        let accepted = accepted || number > 1;
        Ok((call, Some(Round { approval, binding, number, accepted })))
    }

    fn open(&self, caller: &Caller, state: &str) -> Option<State> {
        let state: Cow<'_, str> = serde_json::from_str(state).ok()?;
        let sealed = state.strip_prefix(MARK)?;
        let text = self.seal.open(Sealed::State, sealed, any_grant(caller)).ok()?;
        serde_json::from_str(&text).ok()
    }

    /// The answer that sends the client into another round: `None` where it cannot be asked, will
    /// not wait, or has waited often enough.
    pub(super) fn another_round(
        &self,
        caller: &Caller,
        need: &Need,
        approval: &ApprovalId,
        round: Option<&Round>,
    ) -> Option<Bytes> {
        let number = round.map_or(0, |round| round.number);
        if !opens_pages(&need.call) || number >= MOST || round.is_some_and(|r| !r.accepted) {
            return None;
        }
        let message = need.call.message()?;
        let (_, members) = members(message)?;
        let text = |name: &str| members.get(name).map(|value| value.get().to_owned());
        let state = State {
            approval: approval.clone(),
            binding: need.binding.as_str().to_owned(),
            round: number + 1,
            state: text(STATE),
            answers: text(ANSWERS),
        };
        let state = serde_json::to_string(&state).ok().filter(|state| state.len() <= ROOM)?;
        let sealed = self.seal.seal(Sealed::State, &state, any_grant(caller))?;
        let from = need.groups.join(" or ");
        let ask = json!({
            "mode": "url",
            "message": format!(
                "This call waits for approval {approval} by somebody of {from}. They approve it \
                 with `mcpx approve {approval}`; then it goes on."
            ),
            "url": format!("{}/approvals/{approval}", self.public_url),
        });
        let meta = json!({ "code": "approval_pending", "approval": approval, "rules": need.rules });
        let mut result = json!({
            "resultType": "input_required",
            STATE: format!("{MARK}{sealed}"),
            "_meta": { "mcpx": meta },
        });
        if round.is_none() {
            let ask = json!({ KEY: { "method": "elicitation/create", "params": ask } });
            result["inputRequests"] = ask;
        }
        let id = message.id()?.as_json();
        Some(Bytes::from(format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#)))
    }
}

type Members<'a> = HashMap<Cow<'a, str>, &'a RawValue>;

/// The parameters' text and members.
fn members(message: &Message) -> Option<(&str, Members<'_>)> {
    #[derive(Deserialize)]
    #[serde(transparent)]
    struct Borrowed<'a>(#[serde(borrow)] Members<'a>);
    let params = message.params()?;
    serde_json::from_str::<Borrowed<'_>>(params).ok().map(|Borrowed(members)| (params, members))
}

/// The parameters as they were before we asked: without our state and what answers it, with the
/// server's. Every other member keeps its text and its place.
fn restored(members: &Members<'_>, state: &State) -> String {
    let mut rest: Vec<_> =
        members.iter().filter(|(key, _)| !matches!(key.as_ref(), STATE | ANSWERS)).collect();
    // All values are parts of one text.
    rest.sort_by_key(|(_, value)| value.get().as_ptr().addr());
    let own = [(STATE, &state.state), (ANSWERS, &state.answers)];
    let own = own.into_iter().filter_map(|(key, text)| Some((key, text.as_deref()?)));
    let all = rest.into_iter().map(|(key, value)| (key.as_ref(), value.get())).chain(own);
    let text: Vec<_> = all.map(|(key, value)| format!("{}:{value}", json!(key))).collect();
    format!("{{{}}}", text.join(","))
}

/// Whether the user said that they go on.
fn accepts(answers: &str) -> bool {
    let answers: serde_json::Value = serde_json::from_str(answers).unwrap_or_default();
    answers.get(KEY).and_then(|answer| answer.get("action")).is_some_and(|it| it == "accept")
}

/// Whether the client said, with this call, that it can open pages for its user.
fn opens_pages(call: &Call) -> bool {
    let capabilities = call
        .params()
        .and_then(|params| params.get("_meta")?.get(headers::META_CLIENT_CAPABILITIES))
        .and_then(|capabilities| capabilities.get("elicitation")?.get("url"));
    call.era == Era::Modern && call.row().input && capabilities.is_some_and(|url| url.is_object())
}

/// A round may well come under another grant than the one before it: the yes is the subject's.
fn any_grant(caller: &Caller) -> Of<'_> {
    let grant = &caller.grant;
    Of { subject: &grant.subject.id, connection: &grant.connection, session: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mcp::Limits;

    fn message(params: &str) -> Message {
        let raw = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{params}}}"#);
        Message::decode(raw.into(), Origin::Client, &Limits::default()).unwrap()
    }

    fn state(own: Option<&str>, answers: Option<&str>) -> State {
        State {
            approval: ApprovalId::generate().unwrap(),
            binding: "b".to_owned(),
            round: 1,
            state: own.map(str::to_owned),
            answers: answers.map(str::to_owned),
        }
    }

    #[test]
    fn the_servers_rounds_come_out_as_they_went_in() {
        let ours = r#"{ "name":"t", "requestState":"mcpx1.x", "arguments":{"n":1.50, "a":[ 1 ]},"inputResponses":{"mcpx_approval":{"action":"accept"}}}"#;
        let message = message(ours);
        let (_, members) = members(&message).unwrap();
        assert_eq!(
            restored(&members, &state(None, None)),
            r#"{"name":"t","arguments":{"n":1.50, "a":[ 1 ]}}"#
        );
        let theirs = (r#""s\u0041\/é""#, r#"{"a":{"action":"accept","content":{"n":1.0}}}"#);
        assert_eq!(
            restored(&members, &state(Some(theirs.0), Some(theirs.1))),
            format!(
                r#"{{"name":"t","arguments":{{"n":1.50, "a":[ 1 ]}},"requestState":{},"inputResponses":{}}}"#,
                theirs.0, theirs.1
            )
        );
    }

    #[test]
    fn going_on_is_said_in_so_many_words() {
        assert!(accepts(r#"{"mcpx_approval":{"action":"accept"}}"#));
        for no in [
            "{}",
            "null",
            r#"{"other":{"action":"accept"}}"#,
            r#"{"mcpx_approval":{"action":"decline"}}"#,
            r#"{"mcpx_approval":{"action":"cancel"}}"#,
            r#"{"mcpx_approval":"accept"}"#,
        ] {
            assert!(!accepts(no), "{no}");
        }
    }
}
