//! Who may speak with whom: as people write it ([`document`]), as it is meant ([`meaning`]), and as tables that a look-up or two judge by ([`compile`]).
//!
//! Pure: nothing is read, nothing written, no clock is asked. The meaning is told twice, once as plainly as it can be and once as tables; a test has
//! both judge the same random conversations by the same random documents.
//!
//! The semantics are those of Kubernetes' NetworkPolicy where that says something: an endpoint that a document selects for a direction hears (ingress)
//! or says (egress) only what a rule allows; documents add to each other; answers to what was allowed pass. Beyond it, rules may deny and reject, which
//! goes before every allowance, and a whole document may be there to be watched only (`audit`).
#![forbid(unsafe_code)]

pub mod compile;
pub mod document;
pub mod glob;
pub mod meaning;
pub mod number;
pub mod peer;
pub mod tables;
pub mod traffic;
pub mod verdict;

pub use compile::{Surroundings, compile};
pub use document::{Policy, Rule};
pub use meaning::{Conversation, Party, judge};
pub use number::Number;
pub use peer::{Facts, Peer, Selector};
pub use tables::Tables;
pub use traffic::Traffic;
pub use verdict::{Direction, Judgement, Verdict};
