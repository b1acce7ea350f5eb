//! Policy: what a call is, what the Cedar policies say of it, and the [`Permit`] that only they
//! can give.
//!
//! Pure and synchronous; reads no file and no clock. [`call`] is the thing judged, [`set`] the
//! loaded policies and the decision, [`mediation`] the table of who may send what, [`mod@slice`] and
//! [`guard`] which policies can meet a question, [`context`] how a call becomes a Cedar request, [`approval`] what
//! binds a person's yes to one call, [`connect`] who may have a grant and what binds a yes to one,
//! [`scope`] what a grant is limited to.
//!
//! Deny is the default, and an evaluation in which any policy failed is a deny: Cedar itself
//! skips a policy that errors, so an erroring `forbid` would otherwise let the call through.

pub mod approval;
pub mod call;
pub mod connect;
mod context;
mod guard;
mod listed;
pub mod mediation;
pub mod scope;
pub mod set;
mod slice;

pub use approval::{Approved, Binding};
pub use call::{Act, Call, Direction, Target};
pub use connect::{Connect, Wanted};
pub use mediation::{Transport, Way};
pub use scope::Scope;
pub use set::{Decision, Denial, Facts, Need, Permit, PolicyError, PolicySet, Source};
