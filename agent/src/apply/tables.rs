//! Writes the tables: takes permission away, gives reach, and moves the epoch.

use std::io;

use sluice_datapath_common::{network::Network, overlay::Host};

use crate::{
    AgentError, Tried,
    map::{contents::Tables, pins::Maps},
    plan::{RemoteSteps, Steps},
};

/// Takes permission away: by generation at once, then entry by entry. A rule of a network that changes counts as one that is taken away.
pub fn withdraw(maps: &Maps, steps: &Steps, mirror: &mut Tables) -> Result<(), AgentError> {
    let mut all = || -> io::Result<()> {
        steps.generations.blank(&maps.GENERATIONS, &mut mirror.generations, 0)?;
        steps.links.withdraw(&maps.LINKS, &mut mirror.links)?;
        steps.members.withdraw(&maps.MEMBERS, &mut mirror.members)?;
        steps.published4.withdraw(&maps.PUBLISHED4, &mut mirror.published4)?;
        steps.published6.withdraw(&maps.PUBLISHED6, &mut mirror.published6)?;
        steps.attachments.withdraw(&maps.ATTACHMENTS, &mut mirror.attachments)?;
        steps.resolvers.withdraw(&maps.RESOLVERS, &mut mirror.resolvers)?;
        steps.endpoints4.withdraw(&maps.ENDPOINTS4, &mut mirror.endpoints4)?;
        steps.endpoints6.withdraw(&maps.ENDPOINTS6, &mut mirror.endpoints6)?;
        steps.ranges4.withdraw(&maps.RANGES4, &mut mirror.ranges4)?;
        steps.ranges6.withdraw(&maps.RANGES6, &mut mirror.ranges6)?;
        steps.sources4.withdraw(&maps.SOURCES4, &mut mirror.sources4)?;
        steps.sources6.withdraw(&maps.SOURCES6, &mut mirror.sources6)?;
        steps.reserved.blank(&maps.RESERVED, &mut mirror.reserved, 0)?;
        steps.networks.grant(&maps.NETWORKS, &mut mirror.networks)?;
        steps.subnets4.withdraw(&maps.SUBNETS4, &mut mirror.subnets4)?;
        steps.subnets6.withdraw(&maps.SUBNETS6, &mut mirror.subnets6)?;
        steps
            .networks
            .blank(&maps.NETWORKS, &mut mirror.networks, Network::default())?;
        steps.uplinks4.withdraw(&maps.UPLINKS4, &mut mirror.uplinks4)?;
        steps.uplinks6.withdraw(&maps.UPLINKS6, &mut mirror.uplinks6)?;
        steps.local6.withdraw(&maps.LOCAL6, &mut mirror.local6)?;
        steps.local4.withdraw(&maps.LOCAL4, &mut mirror.local4)?;
        steps.vnis.withdraw(&maps.VNIS, &mut mirror.vnis)?;
        steps.senders.withdraw(&maps.SENDERS, &mut mirror.senders)?;
        steps.hosts.blank(&maps.HOSTS, &mut mirror.hosts, Host::default())
    };
    all().tried(|| "taking entries from the datapath's tables".to_owned())
}

/// Gives reach: first what others lean on, published ports last.
pub fn grant(maps: &Maps, steps: &Steps, mirror: &mut Tables) -> Result<(), AgentError> {
    let mut all = || -> io::Result<()> {
        steps.networks.grant(&maps.NETWORKS, &mut mirror.networks)?;
        steps.subnets4.grant(&maps.SUBNETS4, &mut mirror.subnets4)?;
        steps.subnets6.grant(&maps.SUBNETS6, &mut mirror.subnets6)?;
        steps.local4.grant(&maps.LOCAL4, &mut mirror.local4)?;
        steps.local6.grant(&maps.LOCAL6, &mut mirror.local6)?;
        steps.uplinks4.grant(&maps.UPLINKS4, &mut mirror.uplinks4)?;
        steps.uplinks6.grant(&maps.UPLINKS6, &mut mirror.uplinks6)?;
        steps.hosts.grant(&maps.HOSTS, &mut mirror.hosts)?;
        steps.senders.grant(&maps.SENDERS, &mut mirror.senders)?;
        steps.vnis.grant(&maps.VNIS, &mut mirror.vnis)?;
        steps.generations.grant(&maps.GENERATIONS, &mut mirror.generations)?;
        steps.endpoints4.grant(&maps.ENDPOINTS4, &mut mirror.endpoints4)?;
        steps.endpoints6.grant(&maps.ENDPOINTS6, &mut mirror.endpoints6)?;
        steps.attachments.grant(&maps.ATTACHMENTS, &mut mirror.attachments)?;
        steps.resolvers.grant(&maps.RESOLVERS, &mut mirror.resolvers)?;
        steps.members.grant(&maps.MEMBERS, &mut mirror.members)?;
        steps.links.grant(&maps.LINKS, &mut mirror.links)?;
        steps.sources4.grant(&maps.SOURCES4, &mut mirror.sources4)?;
        steps.sources6.grant(&maps.SOURCES6, &mut mirror.sources6)?;
        steps.reserved.grant(&maps.RESERVED, &mut mirror.reserved)?;
        steps.settings.grant(&maps.SETTINGS, &mut mirror.settings)?;
        steps.ranges4.grant(&maps.RANGES4, &mut mirror.ranges4)?;
        steps.ranges6.grant(&maps.RANGES6, &mut mirror.ranges6)?;
        steps.published6.grant(&maps.PUBLISHED6, &mut mirror.published6)?;
        steps.published4.grant(&maps.PUBLISHED4, &mut mirror.published4)
    };
    all().tried(|| "writing the datapath's tables".to_owned())
}

/// Takes away who lives on other hosts no more.
pub fn withdraw_remotes(maps: &Maps, steps: &RemoteSteps, mirror: &mut Tables) -> Result<(), AgentError> {
    let mut all = || -> io::Result<()> {
        steps.ipv4.withdraw(&maps.REMOTES4, &mut mirror.remotes4)?;
        steps.ipv6.withdraw(&maps.REMOTES6, &mut mirror.remotes6)
    };
    all().tried(|| "taking endpoints of other hosts from the datapath's tables".to_owned())
}

/// Enters who lives on other hosts.
pub fn grant_remotes(maps: &Maps, steps: &RemoteSteps, mirror: &mut Tables) -> Result<(), AgentError> {
    let mut all = || -> io::Result<()> {
        steps.ipv4.grant(&maps.REMOTES4, &mut mirror.remotes4)?;
        steps.ipv6.grant(&maps.REMOTES6, &mut mirror.remotes6)
    };
    all().tried(|| "entering endpoints of other hosts in the datapath's tables".to_owned())
}

/// Every flow is judged again on its next packet.
pub fn move_epoch(maps: &Maps) -> Result<(), AgentError> {
    let moved = || -> io::Result<()> {
        let epoch = maps.EPOCH.get(&0)?.unwrap_or(0);
        maps.EPOCH.put(&0, &epoch.wrapping_add(1))
    };
    moved().tried(|| "moving the epoch".to_owned())
}
