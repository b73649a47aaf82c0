//! The engine as people meet it, by the stock docker CLI.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod running;
