//! The keys that grant tokens are signed with: one that signs, and those before it, which verify
//! until the last token that they signed is over.
//!
//! On disk, below `keys/`:
//!
//! | file | holds |
//! |---|---|
//! | `grant.key` | the key that signs |
//! | `grant.retired.json` | public halves of the keys before it, and until when each verifies |
//! | `grant.next.key` | the next one, only while it takes over |
//! | `grant.rotate` | that somebody asked for the next one: the id of the key to replace |
//!
//! A rotation makes the next key, writes the old one's public half down, then renames the next one
//! into place; the old private half is gone with that. A crash before the rename leaves the old
//! key signing, listed among the retired as well, which means nothing; the request is still there,
//! and the rotation is made again with the same next key. A crash after it leaves a request for a
//! key that does not sign any more, which is dropped.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use jsonwebtoken::DecodingKey;
use jsonwebtoken::jwk::{Jwk, JwkSet};
use serde::{Deserialize, Serialize};

use super::key::{KeyError, SigningKey};
use super::private_file;
use super::signer::Signer;

/// The ring. Signer and verifier share one.
pub struct KeyRing {
    keys: ArcSwap<Keys>,
    /// Where the files are; none for a key that lives in memory only.
    folder: Option<PathBuf>,
    /// Held while keys change.
    changing: std::sync::Mutex<()>,
}

/// The keys at one time.
pub struct Keys {
    signer: Arc<dyn Signer>,
    own: DecodingKey,
    retired: Vec<Retired>,
    /// Another one after each change, so that what was verified before is verified again.
    generation: u64,
}

struct Retired {
    id: String,
    key: DecodingKey,
    jwk: Jwk,
    until: i64,
}

/// `grant.retired.json`.
#[derive(Serialize, Deserialize)]
struct File {
    version: u32,
    retired: Vec<Row>,
}

#[derive(Serialize, Deserialize)]
struct Row {
    jwk: Jwk,
    /// In seconds since 1970.
    until: i64,
}

const VERSION: u32 = 1;
const CURRENT: &str = "grant.key";
const NEXT: &str = "grant.next.key";
const RETIRED: &str = "grant.retired.json";
const REQUEST: &str = "grant.rotate";

impl Keys {
    /// The key that signs.
    pub fn signer(&self) -> &Arc<dyn Signer> {
        &self.signer
    }

    /// The key of that id, if it verifies at that time.
    pub(super) fn verifying(&self, id: &str, now: i64) -> Option<&DecodingKey> {
        if id == self.signer.id() {
            return Some(&self.own);
        }
        let retired = self.retired.iter().find(|retired| retired.id == id);
        retired.filter(|retired| retired.until > now).map(|retired| &retired.key)
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// The public halves of all keys that verify (RFC 7517).
    pub fn jwks(&self) -> JwkSet {
        let retired = self.retired.iter().map(|retired| retired.jwk.clone());
        JwkSet { keys: std::iter::once(self.signer.jwk().clone()).chain(retired).collect() }
    }
}

impl KeyRing {
    /// The ring in a folder of private files; makes the first key if need be.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn open(folder: &Path) -> Result<Self, KeyError> {
        let key = SigningKey::load_or_create(&folder.join(CURRENT))?;
        let retired = read_retired(&folder.join(RETIRED), key.id())?;
        Ok(Self {
            keys: ArcSwap::from_pointee(Keys::new(Arc::new(key), retired, 0)?),
            folder: Some(folder.to_owned()),
            changing: std::sync::Mutex::default(),
        })
    }

    /// A ring of one key that is not in a file of ours.
    ///
    /// # Errors
    /// [`KeyError::Unusable`] for a key whose public half is none for ES256.
    pub fn of(signer: Arc<dyn Signer>) -> Result<Self, KeyError> {
        Ok(Self {
            keys: ArcSwap::from_pointee(Keys::new(signer, Vec::new(), 0)?),
            folder: None,
            changing: std::sync::Mutex::default(),
        })
    }

    /// The keys at this time.
    pub fn keys(&self) -> arc_swap::Guard<Arc<Keys>> {
        self.keys.load()
    }

    /// The next key, if one was asked for: made, on disk, and not yet in use.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn requested(&self) -> Result<Option<Arc<SigningKey>>, KeyError> {
        let Some(folder) = &self.folder else { return Ok(None) };
        let Some(asked) = private_file::read(&folder.join(REQUEST))? else { return Ok(None) };
        if asked != self.keys().signer.id().as_bytes() {
            // Answered already, by a rotation that crashed after it was done.
            private_file::remove(&folder.join(REQUEST))?;
            return Ok(None);
        }
        SigningKey::load_or_create(&folder.join(NEXT)).map(|key| Some(Arc::new(key)))
    }

    /// Lets the next key sign from now on; the one before verifies until `until`.
    ///
    /// # Errors
    /// [`KeyError`]; the old key then still signs.
    pub fn rotate(&self, next: Arc<SigningKey>, until: i64, now: i64) -> Result<(), KeyError> {
        let Some(folder) = &self.folder else { return Err(KeyError::Unusable) };
        let _one_at_a_time = self.changing.lock().unwrap_or_else(|error| error.into_inner());
        let old = self.keys.load_full();
        let mut retired: Vec<Retired> = old.retired.iter().filter_map(Retired::again).collect();
        retired.retain(|retired| retired.until > now);
        retired.push(Retired::new(old.signer.jwk().clone(), until)?);
        write_retired(&folder.join(RETIRED), &retired)?;
        let (current, waiting) = (folder.join(CURRENT), folder.join(NEXT));
        private_file::replace(&waiting, &current)?;
        self.keys.store(Arc::new(Keys::new(next, retired, old.generation + 1)?));
        private_file::remove(&folder.join(REQUEST))?;
        Ok(())
    }

    /// The retired keys whose time is over.
    pub fn over(&self, now: i64) -> Vec<String> {
        let keys = self.keys();
        let over = keys.retired.iter().filter(|retired| retired.until <= now);
        over.map(|retired| retired.id.clone()).collect()
    }

    /// Forgets the retired keys whose time is over.
    ///
    /// # Errors
    /// [`KeyError`]; they verify nothing all the same.
    pub fn forget(&self, now: i64) -> Result<(), KeyError> {
        let Some(folder) = &self.folder else { return Ok(()) };
        let _one_at_a_time = self.changing.lock().unwrap_or_else(|error| error.into_inner());
        let old = self.keys.load_full();
        let mut retired: Vec<Retired> = old.retired.iter().filter_map(Retired::again).collect();
        retired.retain(|retired| retired.until > now);
        write_retired(&folder.join(RETIRED), &retired)?;
        let keys = Keys::new(Arc::clone(&old.signer), retired, old.generation + 1)?;
        self.keys.store(Arc::new(keys));
        Ok(())
    }
}

/// Asks whichever server uses this folder, now or later, to rotate; the id of the key that is
/// replaced, or nothing where there is no key yet.
///
/// # Errors
/// [`KeyError`].
pub fn request(folder: &Path) -> Result<Option<String>, KeyError> {
    let Some(key) = SigningKey::load(&folder.join(CURRENT))? else { return Ok(None) };
    private_file::write(&folder.join(REQUEST), key.id().as_bytes())?;
    Ok(Some(key.id().to_owned()))
}

/// The id of the key that signs in a folder, and whether a request waits there.
///
/// # Errors
/// [`KeyError`].
pub fn state(folder: &Path) -> Result<(Option<String>, bool), KeyError> {
    let waiting = private_file::read(&folder.join(REQUEST))?.is_some();
    let key = SigningKey::load(&folder.join(CURRENT))?;
    Ok((key.map(|key| key.id().to_owned()), waiting))
}

impl Keys {
    fn new(
        signer: Arc<dyn Signer>,
        mut retired: Vec<Retired>,
        generation: u64,
    ) -> Result<Self, KeyError> {
        retired.retain(|retired| retired.id != signer.id());
        let own = DecodingKey::from_jwk(signer.jwk()).map_err(|_| KeyError::Unusable)?;
        Ok(Self { signer, own, retired, generation })
    }
}

impl Retired {
    fn new(jwk: Jwk, until: i64) -> Result<Self, KeyError> {
        let id = jwk.common.key_id.clone().ok_or(KeyError::Unusable)?;
        let key = DecodingKey::from_jwk(&jwk).map_err(|_| KeyError::Unusable)?;
        Ok(Self { id, key, jwk, until })
    }

    fn again(&self) -> Option<Self> {
        Self::new(self.jwk.clone(), self.until).ok()
    }
}

fn read_retired(path: &Path, current: &str) -> Result<Vec<Retired>, KeyError> {
    let Some(bytes) = private_file::read(path)? else { return Ok(Vec::new()) };
    let unreadable = || KeyError::NotRing { path: path.display().to_string() };
    let file: File = serde_json::from_slice(&bytes).map_err(|_| unreadable())?;
    if file.version != VERSION {
        return Err(unreadable());
    }
    let rows = file.retired.into_iter();
    let retired: Result<Vec<_>, _> = rows.map(|row| Retired::new(row.jwk, row.until)).collect();
    let mut retired = retired.map_err(|_| unreadable())?;
    retired.retain(|retired| retired.id != current);
    Ok(retired)
}

fn write_retired(path: &Path, retired: &[Retired]) -> Result<(), KeyError> {
    let rows = retired.iter().map(|retired| Row { jwk: retired.jwk.clone(), until: retired.until });
    let file = File { version: VERSION, retired: rows.collect() };
    let text = serde_json::to_vec_pretty(&file).map_err(|_| KeyError::Unusable)?;
    Ok(private_file::write(path, &text)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("other"), "").unwrap();
        folder
    }

    fn rotated(ring: &KeyRing, until: i64, now: i64) -> String {
        let next = ring.requested().unwrap().expect("a request");
        ring.rotate(next, until, now).unwrap();
        ring.keys().signer().id().to_owned()
    }

    #[test]
    fn old_keys_verify_until_their_time_is_over() {
        let folder = folder();
        let ring = KeyRing::open(folder.path()).unwrap();
        assert!(ring.requested().unwrap().is_none());
        let first = request(folder.path()).unwrap().unwrap();
        let second = rotated(&ring, 900, 0);
        request(folder.path()).unwrap();
        let third = rotated(&ring, 1000, 100);
        let keys = ring.keys();
        for (id, until) in [(&first, 900), (&second, 1000), (&third, i64::MAX)] {
            assert!(keys.verifying(id, until - 1).is_some(), "{id}");
            assert!(id == &third || keys.verifying(id, until).is_none(), "{id}");
        }
        assert!(keys.verifying("nobody's", 0).is_none());
        assert_eq!(keys.jwks().keys.len(), 3);
        // Another start reads the same.
        let again = KeyRing::open(folder.path()).unwrap();
        assert_eq!(again.keys().signer().id(), third);
        assert!(again.keys().verifying(&first, 899).is_some());
        assert_eq!(ring.over(950), std::slice::from_ref(&first));
        ring.forget(950).unwrap();
        assert_eq!((ring.over(950).len(), ring.keys().jwks().keys.len()), (0, 2));
        assert!(KeyRing::open(folder.path()).unwrap().keys().verifying(&first, 0).is_none());
    }

    #[test]
    fn a_crash_at_each_step_leaves_keys_that_work() {
        let folder = folder();
        let path = |name: &str| folder.path().join(name);
        let first = KeyRing::open(folder.path()).unwrap().keys().signer().id().to_owned();
        request(folder.path()).unwrap();
        // After the next key was made.
        let next = KeyRing::open(folder.path()).unwrap().requested().unwrap().unwrap();
        let ring = KeyRing::open(folder.path()).unwrap();
        assert_eq!(ring.keys().signer().id(), first);
        assert_eq!(ring.requested().unwrap().unwrap().id(), next.id(), "the same next key");
        // After the old one was written down.
        write_retired(
            &path(RETIRED),
            &[Retired::new(ring.keys().signer().jwk().clone(), 9).unwrap()],
        )
        .unwrap();
        let ring = KeyRing::open(folder.path()).unwrap();
        assert!(ring.keys().verifying(&first, 10).is_some(), "it still signs, so it verifies");
        assert!(ring.over(10).is_empty());
        // After the rename, before the request was dropped.
        std::fs::rename(path(NEXT), path(CURRENT)).unwrap();
        let ring = KeyRing::open(folder.path()).unwrap();
        assert_eq!(ring.keys().signer().id(), next.id());
        assert!(ring.keys().verifying(&first, 8).is_some());
        assert!(ring.requested().unwrap().is_none());
        assert!(!path(REQUEST).exists());
    }

    #[test]
    fn what_is_no_list_of_keys_is_refused() {
        let folder = folder();
        for text in ["", "{}", r#"{"version":2,"retired":[]}"#, r#"{"version":1,"retired":[{}]}"#] {
            private_file::write(&folder.path().join(RETIRED), text.as_bytes()).unwrap();
            let opened = KeyRing::open(folder.path()).err().unwrap();
            assert!(matches!(opened, KeyError::NotRing { .. }), "{text:?}: {opened}");
        }
    }

    proptest::proptest! {
        // Each case writes files durably.
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(32))]
        #[test]
        fn no_file_makes_it_fall_over(
            bytes in proptest::prelude::any::<Vec<u8>>(),
            until in proptest::prelude::any::<i64>(),
            x in "[A-Za-z0-9_-]{0,50}",
        ) {
            let folder = folder();
            let path = folder.path().join(RETIRED);
            let jwk = format!(r#"{{"kty":"EC","crv":"P-256","kid":"k","x":"{x}","y":"{x}"}}"#);
            let row = format!(r#"{{"version":1,"retired":[{{"jwk":{jwk},"until":{until}}}]}}"#);
            for text in [bytes.as_slice(), row.as_bytes()] {
                private_file::write(&path, text).unwrap();
                // A key that is none verifies nothing, whether it was noticed or not.
                if let Ok(ring) = KeyRing::open(folder.path()) {
                    let keys = ring.keys();
                    let verifies = keys.verifying("k", until.saturating_sub(1)).is_some_and(|key| {
                        let zero = "A".repeat(86);
                        let signed = jsonwebtoken::Algorithm::ES256;
                        jsonwebtoken::crypto::verify(&zero, b"x", key, signed).unwrap_or(false)
                    });
                    proptest::prop_assert!(!verifies);
                }
            }
        }
    }
}
