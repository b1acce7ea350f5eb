//! The protocol: what an MCP message is, and nothing about who may send it.
//!
//! Pure and synchronous. [`message`] decodes one JSON-RPC message strictly ([`strict`]) and keeps its
//! bytes; [`batch`] cuts a 2025-03-26 batch into messages;
//! [`json`] walks JSON text by spans; [`sse`] frames event streams; [`headers`] holds the names of
//! the HTTP headers of both protocol eras; [`canonical`] gives one text for one value; [`modern`]
//! is what an HTTP server of the modern era checks, and [`mirror`] what headers repeat of a tool's
//! arguments.

pub mod batch;
pub mod canonical;
pub mod headers;
pub mod json;
pub mod message;
pub mod mirror;
pub mod modern;
pub mod sse;
pub mod strict;

pub use message::Origin;
pub use message::{Id, Kind, Limits, Message};
pub use modern::Era;
pub use strict::{DecodeError, Fault};
