//! What the crate promises, seen from outside.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed, and says where")]

mod chance;
mod random;
mod reading;
mod truth;
