//! One token for each subject: kept for that subject alone, until shortly before its end.
//!
//! Who is told apart here is told apart by [`SubjectId`], which is issuer and `sub` together.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use reqwest::header::HeaderValue;

use super::behalf::{Assertions, Behalf};
use super::consent::{Consenting, Consents};
use super::{CredentialError, Fetch, Fetched, Kept, Life, bearer};
use crate::types::{Secret, Subject, SubjectId, SubjectKind};
use crate::upstream::token::TokenError;

/// For how many subjects tokens are kept; those of the others are asked for again.
const SUBJECTS: usize = 10_000;

/// How a subject's token is got.
pub(super) enum How {
    /// With this server's own word.
    Vouched(Box<Behalf>, OnceLock<Arc<dyn Assertions>>),
    /// With what the subject once agreed to.
    Consented(Box<Consenting>, OnceLock<Arc<dyn Consents>>),
}

/// A job may have a person's id.
type Whose = (SubjectId, SubjectKind);

/// The tokens of all subjects for one connection.
pub(super) struct Tokens {
    shared: Arc<Shared>,
    kept: Mutex<HashMap<Whose, Arc<Kept<Maker>>>>,
}

pub(super) struct Shared {
    pub(super) how: How,
    name: Arc<str>,
}

/// Makes the header of one subject.
pub(super) struct Maker {
    shared: Arc<Shared>,
    subject: Subject,
}

impl Tokens {
    pub(super) fn new(how: How, name: Arc<str>) -> Self {
        Self { shared: Arc::new(Shared { how, name }), kept: Mutex::default() }
    }

    pub(super) fn how(&self) -> &How {
        &self.shared.how
    }

    pub(super) fn of(&self, subject: &Subject) -> Arc<Kept<Maker>> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        // A job may have the id of a person, where both have one issuer, and is not that person.
        let who = (subject.id.clone(), subject.kind.clone());
        if let Some(known) = kept.get(&who) {
            return Arc::clone(known);
        }
        if kept.len() >= SUBJECTS {
            kept.retain(|_, token| token.is_good());
            // All alive: start over. It costs requests, never a wrong token.
            if kept.len() >= SUBJECTS {
                kept.clear();
            }
        }
        let maker = Maker { shared: Arc::clone(&self.shared), subject: subject.clone() };
        let new = Kept::new(maker);
        kept.insert(who, Arc::clone(&new));
        new
    }

    /// Forgets what is kept for a subject.
    pub(super) fn forget(&self, subject: &SubjectId) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|(id, _), _| id != subject);
    }
}

impl Shared {
    async fn token(&self, subject: &Subject, anew: bool) -> Result<(Secret, Life), TokenError> {
        match &self.how {
            How::Vouched(behalf, assertions) => match assertions.get() {
                Some(assertions) => behalf.token(subject, assertions.as_ref()).await,
                None => Err(TokenError::NoAssertion("nobody vouches for users".to_owned())),
            },
            // Only people agree, and what they agreed to is for nobody else.
            How::Consented(..) if !subject.kind.is_person() => Err(TokenError::NoConsent),
            How::Consented(consenting, consents) => match consents.get() {
                Some(consents) => consenting.token(&subject.id, consents.as_ref(), anew).await,
                None => Err(TokenError::Unavailable("is not asked: nothing is kept".to_owned())),
            },
        }
    }
}

impl Fetch for Maker {
    type Value = HeaderValue;
    type Error = CredentialError;

    fn fetch(&self, anew: bool) -> Fetched<'_, Self> {
        Box::pin(self.make(anew))
    }

    fn same(one: &HeaderValue, other: &HeaderValue) -> bool {
        one == other
    }

    fn voids(error: &CredentialError) -> bool {
        error.wants_consent()
    }

    fn name(&self) -> &str {
        &self.shared.name
    }
}

impl Maker {
    /// In a task of its own: a caller who leaves must not take a refresh token along that was used
    /// up and whose successor is not yet kept. What was consented to is used by one after the
    /// other, whichever maker they come from: see [`super::consent::Turns`].
    async fn make(&self, anew: bool) -> Result<(HeaderValue, Life), CredentialError> {
        let (shared, subject) = (Arc::clone(&self.shared), self.subject.clone());
        let made = tokio::spawn(async move { shared.token(&subject, anew).await });
        let asked = made.await.unwrap_or_else(|_| {
            Err(TokenError::Unavailable("was not asked to the end".to_owned()))
        });
        bearer(asked, &self.shared.name)
    }
}
