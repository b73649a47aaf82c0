//! What every store must do, as tests that each implementation runs.
