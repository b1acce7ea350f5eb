//! Device flows under way (RFC 8628): which codes wait, and what became of them.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::saml::Person;
use crate::types::{RandomError, Secret, random, sha256};

/// Consonants without `Y`: a code spells no word, and none is mistaken for another (RFC 8628,
/// section 6.1). Eight of them are 34 bits, for minutes.
const ALPHABET: &[u8; 20] = b"BCDFGHJKLMNPQRSTVWXZ";
const LENGTH: usize = 8;

/// Flows under way at one time.
const MAX_FLOWS: usize = 10_000;

/// Wrong passwords with one code before it is dead.
const MAX_WRONG: u8 = 5;

/// What RFC 8628 adds to the interval of a client that polls too fast.
const SLOWER: i64 = 5;

#[derive(Default)]
pub(super) struct Codes {
    flows: Mutex<Flows>,
}

/// Every flow by its user code; device codes are kept as hashes, like the secrets they are.
#[derive(Default)]
struct Flows {
    by_user_code: HashMap<UserCode, Flow>,
    by_device_code: HashMap<[u8; 32], UserCode>,
}

struct Flow {
    device_code: [u8; 32],
    scope: String,
    expires: i64,
    interval: i64,
    polled: Option<i64>,
    wrong: u8,
    state: FlowState,
}

enum FlowState {
    Waiting,
    Approved { who: Who, at: i64 },
    Denied,
}

/// Who logged in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Who {
    /// The local user of this name.
    Local(String),
    /// Somebody whom the SAML identity provider vouched for.
    Saml(Box<Person>),
}

/// A user code in its plain form: eight letters.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct UserCode(String);

impl UserCode {
    /// Reads a code as people type it: any case, with or without dash and spaces.
    pub(super) fn read(text: &str) -> Option<Self> {
        let letters: String = text
            .chars()
            .filter(|c| !matches!(c, '-' | ' '))
            .map(|c| c.to_ascii_uppercase())
            .take(LENGTH + 1)
            .collect();
        let good = letters.len() == LENGTH && letters.bytes().all(|b| ALPHABET.contains(&b));
        good.then_some(Self(letters))
    }

    /// The code as it is shown: `BCDF-GHJK`.
    pub(super) fn shown(&self) -> String {
        let (first, second) = self.0.split_at(LENGTH / 2);
        format!("{first}-{second}")
    }

    fn draw() -> Result<Self, RandomError> {
        let mut code = String::with_capacity(LENGTH);
        while code.len() < LENGTH {
            let bytes: [u8; 16] = random()?;
            // 240 is the largest multiple of 20: what lies above would favour some letters.
            let letters = bytes.into_iter().filter(|b| *b < 240).filter_map(|b| {
                ALPHABET.get(usize::from(b) % ALPHABET.len()).map(|letter| char::from(*letter))
            });
            code.extend(letters.take(LENGTH - code.len()));
        }
        Ok(Self(code))
    }
}

/// A flow that has just begun.
pub(super) struct Begun {
    pub(super) device_code: Secret,
    pub(super) user_code: UserCode,
}

/// What a poll with a device code finds.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Poll {
    Waiting,
    TooFast,
    Denied,
    /// Expired, used, or never there: for these the answer is the same.
    Gone,
    Approved {
        who: Who,
        scope: String,
        at: i64,
    },
}

/// Whether a user code may still be answered.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Waiting,
    /// Expired or never there.
    Unknown,
    /// Answered already, or dead from too many wrong passwords.
    Closed,
}

impl Codes {
    /// Begins a flow; `None` when too many are under way.
    pub(super) fn begin(
        &self,
        scope: String,
        interval: i64,
        life: i64,
        now: i64,
    ) -> Result<Option<Begun>, RandomError> {
        let device_code = Secret::generate()?;
        let hash = sha256(device_code.expose().as_bytes());
        let mut flows = self.lock();
        if flows.by_user_code.len() >= MAX_FLOWS {
            flows.forget_expired(now);
        }
        if flows.by_user_code.len() >= MAX_FLOWS {
            return Ok(None);
        }
        let user_code = loop {
            let code = UserCode::draw()?;
            if !flows.by_user_code.contains_key(&code) {
                break code;
            }
        };
        let flow = Flow {
            device_code: hash,
            scope,
            expires: now + life,
            interval,
            polled: None,
            wrong: 0,
            state: FlowState::Waiting,
        };
        flows.by_user_code.insert(user_code.clone(), flow);
        flows.by_device_code.insert(hash, user_code.clone());
        Ok(Some(Begun { device_code, user_code }))
    }

    /// What the command line asks again and again. An approved flow ends with its answer: the
    /// device code works once.
    pub(super) fn poll(&self, device_code: &str, now: i64) -> Poll {
        let mut flows = self.lock();
        flows.forget_expired(now);
        let Some(user_code) = flows.by_device_code.get(&sha256(device_code.as_bytes())).cloned()
        else {
            return Poll::Gone;
        };
        let Some(flow) = flows.by_user_code.get_mut(&user_code) else {
            return Poll::Gone;
        };
        let too_fast = flow.polled.is_some_and(|polled| now - polled < flow.interval);
        flow.polled = Some(now);
        if too_fast {
            flow.interval += SLOWER;
            return Poll::TooFast;
        }
        let answer = match &flow.state {
            FlowState::Waiting => return Poll::Waiting,
            FlowState::Denied => Poll::Denied,
            FlowState::Approved { who, at } => {
                Poll::Approved { who: who.clone(), scope: flow.scope.clone(), at: *at }
            }
        };
        flows.remove(&user_code);
        answer
    }

    pub(super) fn standing(&self, code: &UserCode, now: i64) -> Standing {
        let flows = self.lock();
        match flows.by_user_code.get(code).filter(|flow| flow.expires > now) {
            None => Standing::Unknown,
            Some(flow) if matches!(flow.state, FlowState::Waiting) => Standing::Waiting,
            Some(_) => Standing::Closed,
        }
    }

    /// Answers a waiting flow; `false` when it no longer waits.
    pub(super) fn approve(&self, code: &UserCode, who: Who, now: i64) -> bool {
        self.answer(code, FlowState::Approved { who, at: now }, now)
    }

    /// Denies a waiting flow; `false` when it no longer waits.
    pub(super) fn deny(&self, code: &UserCode, now: i64) -> bool {
        self.answer(code, FlowState::Denied, now)
    }

    /// Counts a wrong password; the last one kills the code.
    pub(super) fn wrong_password(&self, code: &UserCode) {
        if let Some(flow) = self.lock().by_user_code.get_mut(code) {
            flow.wrong = flow.wrong.saturating_add(1);
            if flow.wrong >= MAX_WRONG && matches!(flow.state, FlowState::Waiting) {
                flow.state = FlowState::Denied;
            }
        }
    }

    fn answer(&self, code: &UserCode, state: FlowState, now: i64) -> bool {
        let mut flows = self.lock();
        let flow = flows.by_user_code.get_mut(code);
        match flow {
            Some(flow) if flow.expires > now && matches!(flow.state, FlowState::Waiting) => {
                flow.state = state;
                true
            }
            _ => false,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Flows> {
        self.flows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Flows {
    fn forget_expired(&mut self, now: i64) {
        self.by_user_code.retain(|_, flow| flow.expires > now);
        let by_user_code = &self.by_user_code;
        self.by_device_code.retain(|_, code| by_user_code.contains_key(code));
    }

    fn remove(&mut self, code: &UserCode) {
        if let Some(flow) = self.by_user_code.remove(code) {
            self.by_device_code.remove(&flow.device_code);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begun(codes: &Codes) -> Begun {
        codes.begin("openid".to_owned(), 5, 600, 1000).unwrap().unwrap()
    }

    fn alice() -> Who {
        Who::Local("alice".to_owned())
    }

    #[test]
    fn codes_are_read_as_people_type_them() {
        let code = UserCode::draw().unwrap();
        let shown = code.shown();
        assert_eq!(shown.len(), 9);
        for typed in
            [shown.clone(), shown.to_lowercase(), shown.replace('-', " "), shown.replace('-', "")]
        {
            assert_eq!(UserCode::read(&typed), Some(code.clone()));
        }
        for bad in ["", "ABCD-EFGH", "BCDF-GHJ", "BCDF-GHJKL", "BCDF-GHJ\u{212a}", "<script>"] {
            assert_eq!(UserCode::read(bad), None, "{bad}");
        }
    }

    #[test]
    fn an_approved_code_works_once() {
        let codes = Codes::default();
        let flow = begun(&codes);
        let device = flow.device_code.expose();
        assert_eq!(codes.poll(device, 1000), Poll::Waiting);
        assert!(codes.approve(&flow.user_code, alice(), 1003));
        assert!(!codes.approve(&flow.user_code, Who::Local("mallory".to_owned()), 1003));
        assert!(!codes.deny(&flow.user_code, 1003));
        let approved = Poll::Approved { who: alice(), scope: "openid".to_owned(), at: 1003 };
        assert_eq!(codes.poll(device, 1005), approved);
        assert_eq!(codes.poll(device, 1010), Poll::Gone);
        assert_eq!(codes.standing(&flow.user_code, 1010), Standing::Unknown);
        assert!(codes.lock().by_device_code.is_empty());
    }

    #[test]
    fn fast_polls_are_slowed_down_even_when_approved() {
        let codes = Codes::default();
        let flow = begun(&codes);
        let device = flow.device_code.expose();
        assert_eq!(codes.poll(device, 1000), Poll::Waiting);
        assert_eq!(codes.poll(device, 1004), Poll::TooFast);
        assert_eq!(codes.poll(device, 1010), Poll::TooFast, "the interval is 10 now");
        assert!(codes.approve(&flow.user_code, alice(), 1010));
        assert!(matches!(codes.poll(device, 1025), Poll::Approved { .. }));
    }

    #[test]
    fn expired_and_guessed_codes_are_dead() {
        let codes = Codes::default();
        let flow = begun(&codes);
        assert!(!codes.approve(&flow.user_code, alice(), 1600));
        assert_eq!(codes.poll(flow.device_code.expose(), 1600), Poll::Gone);

        let flow = begun(&codes);
        for _ in 0..MAX_WRONG {
            assert_eq!(codes.standing(&flow.user_code, 1000), Standing::Waiting);
            codes.wrong_password(&flow.user_code);
        }
        assert_eq!(codes.standing(&flow.user_code, 1000), Standing::Closed);
        assert!(!codes.approve(&flow.user_code, alice(), 1000));
        assert_eq!(codes.poll(flow.device_code.expose(), 1000), Poll::Denied);
    }

    #[test]
    fn the_number_of_flows_is_bounded() {
        let codes = Codes::default();
        for _ in 0..MAX_FLOWS {
            begun(&codes);
        }
        assert!(codes.begin(String::new(), 5, 600, 1000).unwrap().is_none());
        assert!(codes.begin(String::new(), 5, 600, 1600).unwrap().is_some());
    }
}
