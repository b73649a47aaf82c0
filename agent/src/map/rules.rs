//! What documents say, as the tables of the datapath hold it.

use std::io;

use sluice_datapath_common::{
    Ipv4Address, Ipv6Address,
    policy::{Cell, CellKey, Groups, Judgement, ListKey, Subject},
};

use super::{
    contents::{Entries, read},
    handle::Prefix,
    pins::Maps,
};

/// The tables. They are written in an order of their own (`apply::rules`), and there may be many entries: so they stand beside the others.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct Rules {
    /// `SUBJECTS`.
    pub subjects: Entries<u32, Subject>,
    /// `KNOWN4`.
    pub known4: Entries<Prefix<Ipv4Address>, Groups>,
    /// `KNOWN6`.
    pub known6: Entries<Prefix<Ipv6Address>, Groups>,
    /// `CELLS`.
    pub cells: Entries<CellKey, Cell>,
    /// `LISTS`.
    pub lists: Entries<Prefix<ListKey>, Judgement>,
}

impl Rules {
    /// What the kernel holds.
    pub fn read(maps: &Maps) -> io::Result<Self> {
        Ok(Self {
            subjects: read(&maps.SUBJECTS, |_, _| true)?,
            known4: read(&maps.KNOWN4, |_, _| true)?,
            known6: read(&maps.KNOWN6, |_, _| true)?,
            cells: read(&maps.CELLS, |_, _| true)?,
            lists: read(&maps.LISTS, |_, _| true)?,
        })
    }

    /// Nobody says anything.
    pub fn is_empty(&self) -> bool {
        self.subjects.is_empty()
            && self.known4.is_empty()
            && self.known6.is_empty()
            && self.cells.is_empty()
            && self.lists.is_empty()
    }
}
