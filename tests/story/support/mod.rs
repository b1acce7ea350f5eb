//! What stories are told with: processes, people, real clients and servers of others.

pub mod browser;
pub mod ci;
pub mod client;
pub mod conformance;
pub mod debian;
pub mod http;
pub mod idp;
pub mod mutual;
pub mod oauth;
pub mod parts;
pub mod person;
pub mod proc;
pub mod quirky;
pub mod raw;
pub mod relay;
pub mod runner;
pub mod saml;
pub mod site;
pub mod sse;
pub mod tap;
pub mod wait;
pub mod world;

pub use ci::Ci;
pub use client::{Client, Refused, Seen, Target};
pub use idp::Idp;
pub use mutual::{Authority, Mutual};
pub use person::Person;
pub use proc::Proc;
pub use quirky::Quirky;
pub use raw::Raw;
pub use runner::{Skip, Story};
pub use site::{Server, Site};
pub use wait::{ids, until};
pub use world::{World, customers};
