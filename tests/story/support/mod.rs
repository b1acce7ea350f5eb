//! What stories are told with: processes, people, real clients and servers of others.

pub mod browser;
pub mod client;
pub mod http;
pub mod parts;
pub mod person;
pub mod proc;
pub mod runner;
pub mod site;
pub mod world;

pub use client::{Client, Refused, Seen, Target};
pub use person::Person;
pub use proc::{Output, PATIENCE, Proc};
pub use runner::{Skip, Story};
pub use site::{Server, Site};
pub use world::{Idp, Upstream, World, customers};
