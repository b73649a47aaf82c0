//! Containers: made, looked at, led through their lives, listened to.

pub(crate) mod files;
pub(crate) mod life;
pub(crate) mod look;
pub(crate) mod make;
pub(crate) mod streams;
