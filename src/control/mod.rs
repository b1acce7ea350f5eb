//! (being built)

pub mod issuer;
