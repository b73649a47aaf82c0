//! The container's log: written here, so that a container that says more than the disk takes is slowed; or by another process, which it never
//! waits for (`mode=non-blocking`).

mod apart;
mod file;

use std::{io, os::fd::BorrowedFd};

use apart::Apart;
use file::LogFile;

pub(crate) enum Log {
    Here(LogFile),
    Apart(Apart),
}

impl Log {
    pub fn open(rules: &crate::Log) -> io::Result<Self> {
        Ok(match rules.buffer_bytes {
            0 => Self::Here(LogFile::open(rules)?),
            _ => Self::Apart(Apart::open(rules)?),
        })
    }

    /// Adds an entry, made by `entry` of the attributes each one bears.
    pub fn append(&mut self, entry: impl FnOnce(&mut Vec<u8>, &str)) {
        match self {
            Self::Here(file) => file.append(entry),
            Self::Apart(apart) => apart.append(entry),
        }
    }

    /// Passes on what has been added.
    pub fn flush(&mut self) {
        match self {
            Self::Here(file) => file.flush(),
            Self::Apart(apart) => apart.flush(),
        }
    }

    /// Gives back memory that was needed while much was said.
    pub fn shrink(&mut self) {
        if let Self::Here(file) = self {
            file.shrink();
        }
    }

    /// What to wait for before the rest of an entry that has been begun can be passed on; none: there is no such rest.
    pub fn is_behind(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Here(_) => None,
            Self::Apart(apart) => apart.is_behind(),
        }
    }

    /// Nothing more will come: returns when all is in the file.
    pub fn end(self) {
        match self {
            Self::Here(mut file) => file.flush(),
            Self::Apart(apart) => apart.end(),
        }
    }
}
