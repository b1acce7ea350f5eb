//! Logins that are at the identity provider, in memory: a restart ends them, as it ends the device
//! flows that they belong to.
//!
//! Each is bound to the browser that began it, to one device flow, and to one request; it is
//! answered once, and confirmed once.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use saml_rs::PendingAuthnRequest;

use super::Person;
use crate::control::issuer::codes::UserCode;
use crate::types::{RandomError, Secret, sha256};

/// Logins at one time; each belongs to a device flow of its own.
const MOST: usize = 10_000;

#[derive(Default)]
pub(super) struct PendingLogins {
    /// By relay state.
    logins: Mutex<HashMap<String, Login>>,
}

struct Login {
    request: PendingAuthnRequest,
    /// SHA-256 of the cookie of the browser that began it.
    browser: [u8; 32],
    code: UserCode,
    expires: i64,
    answer: Option<Answer>,
}

struct Answer {
    /// SHA-256 of what the page with the answer holds.
    handle: [u8; 32],
    person: Person,
}

/// A login that the identity provider vouched for and the user answers now.
pub(super) struct Confirmed {
    pub(super) code: UserCode,
    pub(super) person: Person,
    /// Whether the browser is the one that began the login.
    pub(super) same_browser: bool,
}

impl PendingLogins {
    /// Keeps a login; `false` when too many are under way. An earlier one for the same code ends.
    pub(super) fn add(
        &self,
        relay_state: &str,
        request: PendingAuthnRequest,
        cookie: &str,
        code: UserCode,
        (expires, now): (i64, i64),
    ) -> bool {
        let mut logins = self.lock();
        logins.retain(|_, login| login.expires > now && login.code != code);
        if logins.len() >= MOST {
            return false;
        }
        let browser = sha256(cookie.as_bytes());
        let login = Login { request, browser, code, expires, answer: None };
        logins.insert(relay_state.to_owned(), login);
        true
    }

    /// The request that a response must answer.
    pub(super) fn request(&self, relay_state: &str, now: i64) -> Option<PendingAuthnRequest> {
        let logins = self.lock();
        let login = logins.get(relay_state).filter(|login| login.expires > now)?;
        Some(login.request.clone())
    }

    /// Keeps a verified answer until the user confirms it. Gives the code to show, and the handle
    /// for the page; nothing when the login is over or has its answer.
    pub(super) fn answer(
        &self,
        relay_state: &str,
        person: Person,
        now: i64,
    ) -> Result<Option<(UserCode, Secret)>, RandomError> {
        let handle = Secret::generate()?;
        let mut logins = self.lock();
        let login = logins.get_mut(relay_state).filter(|login| login.expires > now);
        let Some(login) = login.filter(|login| login.answer.is_none()) else { return Ok(None) };
        login.answer = Some(Answer { handle: sha256(handle.expose().as_bytes()), person });
        Ok(Some((login.code.clone(), handle)))
    }

    /// Takes a login off by its handle, in whatever browser.
    pub(super) fn confirm(&self, handle: &str, cookie: &str, now: i64) -> Option<Confirmed> {
        let handle = sha256(handle.as_bytes());
        let mut logins = self.lock();
        let relay_state = logins
            .iter()
            .find(|(_, login)| {
                login.expires > now && login.answer.as_ref().is_some_and(|a| a.handle == handle)
            })
            .map(|(relay_state, _)| relay_state.clone())?;
        let login = logins.remove(&relay_state)?;
        let same_browser = login.browser == sha256(cookie.as_bytes());
        Some(Confirmed { code: login.code, person: login.answer?.person, same_browser })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Login>> {
        self.logins.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
