//! What the sealed records tell: sessions, and their replay event by event.
//!
//! Reads the index and the audit log; writes nothing. Every body is checked against the
//! commitment in its leaf before it is shown.

pub mod replay;
