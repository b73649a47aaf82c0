//! A container's stories, a verb a file; [`held`] is the container they are about, [`register`] where all of them are found.

pub(crate) mod adopt;
pub(crate) mod attach;
pub(crate) mod capabilities;
pub(crate) mod create;
pub(crate) mod directory;
pub(crate) mod exec;
pub(crate) mod held;
pub(crate) mod inspect;
pub(crate) mod kill;
pub(crate) mod list;
pub(crate) mod logs;
pub(crate) mod merge;
pub(crate) mod pause;
pub(crate) mod register;
pub(crate) mod remove;
pub(crate) mod rename;
pub(crate) mod restart;
pub(crate) mod security;
pub(crate) mod signal;
pub(crate) mod spec;
pub(crate) mod start;
pub(crate) mod stop;
pub(crate) mod top;
pub(crate) mod validate;
pub(crate) mod wait;
pub(crate) mod watch;
