//! What the tables of the control side hold: the same shape for what is desired and for what is there.

use std::{cmp::Ordering, collections::BTreeMap, io};

use aya::Pod;
use sluice_datapath_common::{
    Ipv4, Ipv4Address, Ipv6, Ipv6Address,
    endpoint::{Attachment, Endpoint, EndpointKey},
    network::{NETWORK_EXISTS, Network},
    overlay::{Host, Remote},
    policy::{LinkKey, MemberKey},
    publish::{Publication, PublishKey, RangeKey, SourceKey},
    resolver::Resolver,
    settings::Settings,
    uplink::{LocalAddress, Uplink},
};

use super::{
    handle::{Prefix, Table},
    pins::Maps,
};

/// A key ordered by its bytes, as the kernel compares keys. No key of the contract has hidden padding.
#[derive(Clone, Copy, Debug)]
pub struct ByBytes<K>(pub K);

/// The entries of one table.
pub type Entries<K, V> = BTreeMap<ByBytes<K>, V>;

/// The tables that the agent alone writes. Absent slots of arrays are left out.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct Tables {
    /// `NETWORKS`.
    pub networks: Entries<u32, Network>,
    /// `SUBNETS4`.
    pub subnets4: Entries<Prefix<Ipv4Address>, u32>,
    /// `SUBNETS6`.
    pub subnets6: Entries<Prefix<Ipv6Address>, u32>,
    /// `GENERATIONS`.
    pub generations: Entries<u32, u32>,
    /// `ATTACHMENTS`.
    pub attachments: Entries<u32, Attachment>,
    /// `RESOLVERS`.
    pub resolvers: Entries<u64, Resolver>,
    /// `ENDPOINTS4`.
    pub endpoints4: Entries<EndpointKey<Ipv4>, Endpoint>,
    /// `ENDPOINTS6`.
    pub endpoints6: Entries<EndpointKey<Ipv6>, Endpoint>,
    /// `PUBLISHED4`.
    pub published4: Entries<PublishKey<Ipv4>, Publication<Ipv4>>,
    /// `PUBLISHED6`.
    pub published6: Entries<PublishKey<Ipv6>, Publication<Ipv6>>,
    /// `RANGES4`.
    pub ranges4: Entries<Prefix<RangeKey<Ipv4>>, Publication<Ipv4>>,
    /// `RANGES6`.
    pub ranges6: Entries<Prefix<RangeKey<Ipv6>>, Publication<Ipv6>>,
    /// `SOURCES4`.
    pub sources4: Entries<Prefix<SourceKey<Ipv4>>, u32>,
    /// `SOURCES6`.
    pub sources6: Entries<Prefix<SourceKey<Ipv6>>, u32>,
    /// `LINKS`.
    pub links: Entries<LinkKey, u32>,
    /// `MEMBERS`.
    pub members: Entries<MemberKey, u32>,
    /// `RESERVED`.
    pub reserved: Entries<u32, u64>,
    /// `SETTINGS`.
    pub settings: Entries<u32, Settings>,
    /// `LOCAL4`.
    pub local4: Entries<Ipv4Address, LocalAddress>,
    /// `LOCAL6`.
    pub local6: Entries<Ipv6Address, LocalAddress>,
    /// `UPLINKS4`.
    pub uplinks4: Entries<u32, Uplink<Ipv4>>,
    /// `UPLINKS6`.
    pub uplinks6: Entries<u32, Uplink<Ipv6>>,
    /// `HOSTS`.
    pub hosts: Entries<u32, Host>,
    /// `SENDERS`.
    pub senders: Entries<Ipv6Address, u32>,
    /// `VNIS`.
    pub vnis: Entries<u32, u32>,
    /// `REMOTES4`.
    pub remotes4: Entries<EndpointKey<Ipv4>, Remote>,
    /// `REMOTES6`.
    pub remotes6: Entries<EndpointKey<Ipv6>, Remote>,
}

/// What is to be done to one table.
#[derive(Clone, Debug)]
pub struct Changes<K, V> {
    /// Keys whose entries go.
    pub remove: Vec<ByBytes<K>>,
    /// Entries that come or change.
    pub put: Vec<(ByBytes<K>, V)>,
}

// === impl ByBytes ===

impl<K: Pod> ByBytes<K> {
    fn bytes(&self) -> &[u8] {
        // SAFETY: the keys are `Pod`s whose padding is written out as fields, so every byte is initialised.
        unsafe { std::slice::from_raw_parts((&raw const self.0).cast(), size_of::<K>()) }
    }
}

impl<K: Pod> PartialEq for ByBytes<K> {
    fn eq(&self, other: &Self) -> bool {
        self.bytes() == other.bytes()
    }
}

impl<K: Pod> Eq for ByBytes<K> {}

impl<K: Pod> Ord for ByBytes<K> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.bytes().cmp(other.bytes())
    }
}

impl<K: Pod> PartialOrd for ByBytes<K> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

// === impl Changes ===

impl<K, V> Default for Changes<K, V> {
    fn default() -> Self {
        Self {
            remove: Vec::new(),
            put: Vec::new(),
        }
    }
}

impl<K: Pod, V: PartialEq> PartialEq for Changes<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.remove == other.remove && self.put == other.put
    }
}

impl<K: Pod, V: Copy + PartialEq> Changes<K, V> {
    /// What makes `actual` into `desired`.
    pub fn between(actual: &Entries<K, V>, desired: &Entries<K, V>) -> Self {
        Self {
            remove: actual
                .keys()
                .filter(|key| !desired.contains_key(key))
                .copied()
                .collect(),
            put: desired
                .iter()
                .filter(|(key, value)| actual.get(key) != Some(value))
                .map(|(key, value)| (*key, *value))
                .collect(),
        }
    }

    /// Nothing is to be done.
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.put.is_empty()
    }

    /// Some entry that is there will be another.
    pub fn replaces(&self, actual: &Entries<K, V>) -> bool {
        self.put.iter().any(|(key, _)| actual.contains_key(key))
    }
}

impl<K: Pod, V: Pod + PartialEq> Changes<K, V> {
    /// Removes from the table what goes, and from the mirror with it.
    pub fn withdraw(&self, table: &Table<K, V>, mirror: &mut Entries<K, V>) -> io::Result<()> {
        for key in &self.remove {
            table.remove(&key.0)?;
            mirror.remove(key);
        }
        Ok(())
    }

    /// Writes what comes or changes to the table, and to the mirror with it.
    pub fn grant(&self, table: &Table<K, V>, mirror: &mut Entries<K, V>) -> io::Result<()> {
        for (key, value) in &self.put {
            table.put(&key.0, value)?;
            mirror.insert(*key, *value);
        }
        Ok(())
    }

    /// As [`Changes::withdraw`] for an array, whose slots cannot be removed: they become `absent`.
    pub fn blank(&self, table: &Table<K, V>, mirror: &mut Entries<K, V>, absent: V) -> io::Result<()> {
        for key in &self.remove {
            table.put(&key.0, &absent)?;
            mirror.remove(key);
        }
        Ok(())
    }
}

// === impl Tables ===

impl Tables {
    /// Writes down what may be changed while packets pass.
    pub fn set(&mut self, settings: Settings) {
        let published_ranges = (self.ranges4.len() + self.ranges6.len()) as u32;
        let settings = Settings {
            published_ranges,
            ..settings
        };
        if settings != Settings::default() {
            self.settings.insert(ByBytes(0), settings);
        }
    }

    /// What the kernel holds.
    pub fn read(maps: &Maps) -> io::Result<Self> {
        Ok(Self {
            networks: read(&maps.NETWORKS, |_, network| network.flags & NETWORK_EXISTS != 0)?,
            subnets4: read(&maps.SUBNETS4, |_, _| true)?,
            subnets6: read(&maps.SUBNETS6, |_, _| true)?,
            generations: read(&maps.GENERATIONS, |_, generation| *generation != 0)?,
            attachments: read(&maps.ATTACHMENTS, |_, _| true)?,
            resolvers: read(&maps.RESOLVERS, |_, _| true)?,
            endpoints4: read(&maps.ENDPOINTS4, |_, _| true)?,
            endpoints6: read(&maps.ENDPOINTS6, |_, _| true)?,
            published4: read(&maps.PUBLISHED4, |_, _| true)?,
            published6: read(&maps.PUBLISHED6, |_, _| true)?,
            ranges4: read(&maps.RANGES4, |_, _| true)?,
            ranges6: read(&maps.RANGES6, |_, _| true)?,
            sources4: read(&maps.SOURCES4, |_, _| true)?,
            sources6: read(&maps.SOURCES6, |_, _| true)?,
            links: read(&maps.LINKS, |_, _| true)?,
            members: read(&maps.MEMBERS, |_, _| true)?,
            reserved: read(&maps.RESERVED, |_, ports| *ports != 0)?,
            settings: read(&maps.SETTINGS, |_, settings| *settings != Settings::default())?,
            local4: read(&maps.LOCAL4, |_, _| true)?,
            local6: read(&maps.LOCAL6, |_, _| true)?,
            uplinks4: read(&maps.UPLINKS4, |_, _| true)?,
            uplinks6: read(&maps.UPLINKS6, |_, _| true)?,
            hosts: read(&maps.HOSTS, |_, host| *host != Host::default())?,
            senders: read(&maps.SENDERS, |_, _| true)?,
            vnis: read(&maps.VNIS, |_, _| true)?,
            remotes4: read(&maps.REMOTES4, |_, _| true)?,
            remotes6: read(&maps.REMOTES6, |_, _| true)?,
        })
    }
}

/// The entries of a table that are wanted.
pub fn read<K: Pod, V: Pod>(table: &Table<K, V>, wanted: impl FnMut(&K, &V) -> bool) -> io::Result<Entries<K, V>> {
    Ok(table
        .entries(wanted)?
        .into_iter()
        .map(|(key, value)| (ByBytes(key), value))
        .collect())
}
