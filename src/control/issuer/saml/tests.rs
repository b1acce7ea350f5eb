//! The service provider against good and bad responses.
