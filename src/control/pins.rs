//! Pins: the accepted definition of each tool and prompt, and what is in quarantine.
//!
//! The first definition that is seen without a flaw is taken as accepted. Every change is on
//! record before it is in the database, and in the database before it counts; a crash in between
//! leaves a record of something that is noticed again at the next list.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::sync::RwLock;

use super::error::ApiError;
use crate::audit::{Entry, Record, Recorder};
use crate::gateway::ports::{Definition, Flaw, ItemKind, Pins, PortError, Standing};
use crate::mask::Masker;
use crate::mcp::mirror::{self, Mirrored};
use crate::store::pins::PinRow;
use crate::store::{Store, StoreError};
use crate::types::{Clock, ConnectionName, Subject};

type Key = (ConnectionName, ItemKind, String);

struct Kept {
    row: PinRow,
    skeleton: String,
    mirrored: Arc<[Mirrored]>,
}

impl Kept {
    fn new(row: PinRow, skeleton: String) -> Self {
        let mirrored = mirrored(&row);
        Self { row, skeleton, mirrored }
    }

    fn standing(&self) -> Standing {
        match &self.row.accepted {
            Some(hash) if self.row.offered.is_none() => {
                Standing::Accepted { hash: hash.clone(), mirrored: Arc::clone(&self.mirrored) }
            }
            _ => Standing::Quarantined {
                reason: self
                    .row
                    .reason
                    .clone()
                    .unwrap_or_else(|| "it was never accepted".to_owned()),
            },
        }
    }

    /// How a definition stands, where nothing about its pin has to change.
    fn settled(&self, definition: &Definition) -> Option<Standing> {
        // The accepted definition shown again ends no quarantine: a server that shows two faces is
        // worse than one that changed.
        let known = [&self.row.offered, &self.row.accepted];
        known
            .into_iter()
            .any(|hash| hash.as_ref() == Some(&definition.hash))
            .then(|| self.standing())
    }
}

/// What a call of the accepted tool repeats in headers, read from what is kept of its definition.
/// Masking leaves schemas as they are, but for a value in them that looks like somebody's.
fn mirrored(row: &PinRow) -> Arc<[Mirrored]> {
    let definition = row.definition.as_deref().filter(|text| text.contains("x-mcp-header"));
    let definition = definition.and_then(|text| serde_json::from_str(text).ok());
    definition.map(|definition| mirror::declared(&definition)).unwrap_or_default().into()
}

/// All pins.
pub struct PinBoard {
    store: Store,
    recorder: Recorder,
    clock: Arc<dyn Clock>,
    masker: Arc<Masker>,
    pins: RwLock<HashMap<Key, Kept>>,
}

fn failed(error: impl std::error::Error) -> PortError {
    PortError(error.to_string())
}

impl PinBoard {
    /// The pins of a database.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn open(
        store: Store,
        recorder: Recorder,
        clock: Arc<dyn Clock>,
        masker: Arc<Masker>,
    ) -> Result<Self, StoreError> {
        let mut pins = HashMap::new();
        for row in store.pins(None).await? {
            let kind = if row.kind == "prompt" { ItemKind::Prompt } else { ItemKind::Tool };
            let key = (row.connection.clone(), kind, row.name.clone());
            let skeleton = crate::gateway::pins::skeleton_of(&row.name);
            pins.insert(key, Kept::new(row, skeleton));
        }
        Ok(Self { store, recorder, clock, masker, pins: RwLock::new(pins) })
    }

    /// Accepts what is in quarantine, if it is still the definition with that hash.
    ///
    /// # Errors
    /// [`ApiError`]: nothing of that name and hash is in quarantine.
    pub async fn accept(
        &self,
        connection: &ConnectionName,
        kind: ItemKind,
        name: &str,
        hash: &str,
        by: &Subject,
    ) -> Result<PinRow, ApiError> {
        let mut pins = self.pins.write().await;
        let key = (connection.clone(), kind, name.to_owned());
        let kept = pins.get_mut(&key).filter(|kept| kept.row.offered.as_deref() == Some(hash));
        let Some(kept) = kept else {
            let kind = kind.as_str();
            let message = format!(
                "no definition {hash} of the {kind} {name:?} of {connection} is in quarantine"
            );
            return Err(ApiError::not_found(message)
                .hint(format!("`mcpx tools diff {connection}` shows what is")));
        };
        let record = Record::Accepted {
            connection: connection.clone(),
            hash: hash.to_owned(),
            by: by.id.clone(),
        };
        let body = body(kind, name, kept.row.proposal.as_deref());
        self.recorder.append(Entry { record, body }).await?;
        let row = PinRow {
            accepted: kept.row.offered.clone(),
            definition: kept.row.proposal.clone(),
            offered: None,
            proposal: None,
            reason: None,
            changed_at: self.clock.now(),
            ..kept.row.clone()
        };
        self.store.put_pin(&row).await?;
        kept.mirrored = mirrored(&row);
        kept.row = row.clone();
        Ok(row)
    }

    async fn note(
        &self,
        connection: &ConnectionName,
        definition: Definition,
    ) -> Result<Standing, PortError> {
        let mut pins = self.pins.write().await;
        let key = (connection.clone(), definition.kind, definition.name.clone());
        // Another call may have noted it while this one waited.
        if let Some(standing) = pins.get(&key).and_then(|kept| kept.settled(&definition)) {
            return Ok(standing);
        }
        let twin = pins.iter().find(|((c, kind, name), kept)| {
            c == connection
                && *kind == definition.kind
                && *name != definition.name
                && kept.skeleton == definition.skeleton
        });
        let known = pins.get(&key).map(|kept| &kept.row);
        let changed = known.is_some_and(|row| row.accepted.is_some());
        let (code, reason) = match (changed, definition.flaw, twin) {
            (true, ..) => {
                ("changed", Some("its definition changed since it was accepted".to_owned()))
            }
            (false, Some(Flaw::HiddenCharacters), _) => {
                ("hidden_characters", Some("its definition hides characters".to_owned()))
            }
            (false, None, Some(((_, _, other), _))) => {
                ("look_alike", Some(format!("its name looks like {other:?}")))
            }
            (false, None, None) => ("", None),
        };
        let hash = definition.hash.clone();
        let accepted = known.and_then(|row| row.accepted.clone());
        let record = match &reason {
            None => Record::Pinned { connection: connection.clone(), hash: hash.clone() },
            Some(_) => Record::Quarantined {
                connection: connection.clone(),
                hash: hash.clone(),
                accepted: accepted.clone(),
                code: code.to_owned(),
            },
        };
        // What is kept is for people, so masked; what is compared is the hash of the original.
        let masked = self.masker.json(definition.text.as_bytes()).map_err(failed)?.0;
        let shown = String::from_utf8(masked).map_err(failed)?;
        let body = body(definition.kind, &definition.name, Some(&shown));
        self.recorder.append(Entry { record, body }).await.map_err(failed)?;
        let row = PinRow {
            connection: connection.clone(),
            kind: definition.kind.as_str().to_owned(),
            name: definition.name.clone(),
            accepted: if reason.is_none() { Some(hash.clone()) } else { accepted },
            definition: if reason.is_none() {
                Some(shown.clone())
            } else {
                known.and_then(|row| row.definition.clone())
            },
            offered: reason.is_some().then(|| hash.clone()),
            proposal: reason.is_some().then_some(shown),
            reason: reason.clone(),
            changed_at: self.clock.now(),
        };
        self.store.put_pin(&row).await.map_err(failed)?;
        if let Some(reason) = reason {
            tracing::warn!(%connection, tool = definition.name, reason, "put in quarantine");
        }
        let kept = Kept::new(row, definition.skeleton);
        let standing = kept.standing();
        pins.insert(key, kept);
        Ok(standing)
    }
}

fn body(kind: ItemKind, name: &str, definition: Option<&str>) -> Option<Bytes> {
    let definition: serde_json::Value =
        definition.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    let body = serde_json::json!({ "kind": kind.as_str(), "name": name, "definition": definition });
    Some(body.to_string().into())
}

impl Pins for PinBoard {
    fn standing<'a>(
        &'a self,
        connection: &'a ConnectionName,
        kind: ItemKind,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Standing, PortError>> {
        Box::pin(async move {
            let pins = self.pins.read().await;
            let kept = pins.get(&(connection.clone(), kind, name.to_owned()));
            Ok(kept.map_or(Standing::Unknown, Kept::standing))
        })
    }

    fn see<'a>(
        &'a self,
        connection: &'a ConnectionName,
        definitions: Vec<Definition>,
    ) -> BoxFuture<'a, Result<Vec<Standing>, PortError>> {
        Box::pin(async move {
            let mut standings = Vec::with_capacity(definitions.len());
            for definition in definitions {
                let key = (connection.clone(), definition.kind, definition.name.clone());
                let known = {
                    let pins = self.pins.read().await;
                    pins.get(&key).and_then(|kept| kept.settled(&definition))
                };
                standings.push(match known {
                    Some(standing) => standing,
                    None => self.note(connection, definition).await?,
                });
            }
            Ok(standings)
        })
    }
}
