//! Reading the journal on opening: what of it stands, and what a crash left behind it.
//!
//! A torn frame at the very end that nobody was told of is set apart. Anything else that is not
//! as it was written makes opening fail, with a sentence for the operator.

use std::path::Path;

use super::frame::body_fits;
use super::key::LogKey;
use super::leaf::Envelope;
use super::note::SignedCheckpoint;
use super::publish::CHECKPOINT;
use super::segment::{Fault, Frame, Segment, segment_path};
use super::tile::{Edge, Tile};
use super::tree::leaf_hash;

/// Reads the journal on opening and checks it against itself and the published checkpoint.
pub(super) struct Scan<'a> {
    root: &'a Path,
    key: &'a LogKey,
    published: Option<&'a SignedCheckpoint>,
    /// Whether the published checkpoint has been met.
    met: bool,
    begun: bool,
    pub(super) edge: Edge,
    /// Where the journal's last segment ends, without its torn tail.
    pub(super) end: u64,
    pub(super) tail: u64,
    pub(super) last_frame: Option<(u64, Vec<u8>)>,
}

/// Tiles with their bytes.
pub(super) type Tiles = Vec<(Tile, Vec<u8>)>;

impl<'a> Scan<'a> {
    pub(super) fn new(
        root: &'a Path,
        key: &'a LogKey,
        published: Option<&'a SignedCheckpoint>,
    ) -> Self {
        let (met, begun) = (published.is_none(), false);
        let edge = Edge::default();
        Self { root, key, published, met, begun, edge, end: 0, tail: 0, last_frame: None }
    }

    /// Reads one segment; gives back the tiles that it fills.
    pub(super) fn segment(&mut self, first: u64, last: bool) -> Result<Tiles, String> {
        let name = segment_path(first).display().to_string();
        let (mut segment, upper) =
            Segment::open(self.root, first).map_err(|fault| format!("{name} {fault}"))?;
        if self.begun {
            if self.edge.range().size() != first || self.edge.upper() != upper {
                return Err(format!("{name} does not follow the segment before it"));
            }
        } else {
            self.edge = Edge::resume(first, upper)
                .ok_or_else(|| format!("{name} has a malformed header"))?;
            self.begun = true;
            // A checkpoint file from before this segment is behind, and is written anew.
            self.met |= self.published.is_some_and(|p| p.checkpoint().size < first);
        }
        self.meet()?;
        let mut tiles = Vec::new();
        loop {
            let fault = match segment.next() {
                Ok(None) => break,
                Ok(Some(frame)) => match self.frame(&mut segment, &frame, &mut tiles)? {
                    None => {
                        self.last_frame = Some((frame.at, Vec::new()));
                        continue;
                    }
                    Some(fault) => {
                        // Its bodies are not whole: it is the next frame still.
                        segment.at = frame.at;
                        fault
                    }
                },
                Err(fault) => fault,
            };
            let index = self.edge.range().size();
            let torn = last
                && !matches!(fault, Fault::Io(_))
                && segment.tail_is_torn(index).map_err(|fault| format!("{name} {fault}"))?;
            if !torn {
                return Err(format!("{name} {fault}, at entry {index} (byte {})", segment.at));
            }
            let length = segment.length().map_err(|error| format!("{name}: {error}"))?;
            self.tail = length - segment.at;
            break;
        }
        self.end = segment.at;
        if let Some((at, bytes)) = &mut self.last_frame {
            if last {
                *bytes =
                    segment.read(*at, self.end - *at).map_err(|fault| format!("{name} {fault}"))?;
            } else {
                self.last_frame = None;
            }
        }
        Ok(tiles)
    }

    /// Takes in one frame, unless its bodies are not what its leaves committed to.
    fn frame(
        &mut self,
        segment: &mut Segment,
        frame: &Frame,
        tiles: &mut Tiles,
    ) -> Result<Option<Fault>, String> {
        let index = self.edge.range().size();
        let name = segment_path(segment.first).display().to_string();
        let at = |what: &str| format!("{name} {what}, at entry {index} (byte {})", frame.at);
        let head = frame.head().map_err(|fault| at(&fault.to_string()))?;
        if frame.header.first != index {
            return Err(at("has a frame of another place"));
        }
        for entry in &head.entries {
            let commitment = Envelope::decode(entry.leaf).map_err(|e| at(&e.to_string()))?.body;
            match (commitment, entry.body) {
                (None, None) => {}
                (Some(commitment), Some(span)) => {
                    let body = segment
                        .salt_and_body(frame, span)
                        .map_err(|fault| at(&fault.to_string()))?;
                    if !body_fits(&body, &commitment) {
                        return Ok(Some(Fault::Bad("has a body that its leaf does not know")));
                    }
                }
                _ => return Err(at("has a body without a commitment, or the reverse")),
            }
        }
        for entry in &head.entries {
            let hash = leaf_hash(entry.leaf);
            self.edge.push(entry.leaf, hash, &mut |tile, bytes| tiles.push((tile, bytes)));
        }
        let signed = self
            .key
            .vkey()
            .verify(head.checkpoint)
            .map_err(|error| at(&format!("has a wrong checkpoint: {error}")))?;
        let (range, head) = (self.edge.range(), signed.checkpoint());
        if (head.size, head.root) != (range.size(), range.root()) {
            return Err(at("has a checkpoint of another tree"));
        }
        self.meet()?;
        Ok(None)
    }

    /// Compares with the published checkpoint, when the tree has just its size.
    fn meet(&mut self) -> Result<(), String> {
        let range = self.edge.range();
        if let Some(published) = self.published.map(SignedCheckpoint::checkpoint)
            && published.size == range.size()
        {
            if published.root != range.root() {
                return Err(format!(
                    "journal and {CHECKPOINT} differ before entry {}",
                    range.size()
                ));
            }
            self.met = true;
        }
        Ok(())
    }

    pub(super) fn check_end(&self) -> Result<(), String> {
        if self.met {
            return Ok(());
        }
        let (size, published) =
            (self.edge.range().size(), self.published.map_or(0, |p| p.checkpoint().size));
        Err(format!("its {CHECKPOINT} covers {published} entries, its journal has {size}"))
    }
}
