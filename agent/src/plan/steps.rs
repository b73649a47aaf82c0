//! What makes the tables as they are into the tables as they must be.

use std::{collections::BTreeSet, net::IpAddr};

use sluice_datapath_common::{
    Ipv4, Ipv4Address, Ipv6, Ipv6Address,
    endpoint::{self, Attachment, EndpointKey},
    network,
    overlay::Host,
    policy::{LinkKey, MemberKey},
    publish::{Publication, PublishKey, RangeKey, SourceKey},
    resolver::Resolver,
    settings::Settings,
    uplink::{LocalAddress, Uplink},
};

use crate::map::{
    contents::{Changes, Tables},
    handle::Prefix,
};

/// What is to be done to the tables, but those of endpoints on other hosts (see [`super::RemoteSteps`]).
#[derive(Clone, PartialEq, Default, Debug)]
pub struct Steps {
    /// `NETWORKS`.
    pub networks: Changes<u32, network::Network>,
    /// `SUBNETS4`.
    pub subnets4: Changes<Prefix<Ipv4Address>, u32>,
    /// `SUBNETS6`.
    pub subnets6: Changes<Prefix<Ipv6Address>, u32>,
    /// `GENERATIONS`.
    pub generations: Changes<u32, u32>,
    /// `ATTACHMENTS`.
    pub attachments: Changes<u32, Attachment>,
    /// `RESOLVERS`.
    pub resolvers: Changes<u64, Resolver>,
    /// `ENDPOINTS4`.
    pub endpoints4: Changes<EndpointKey<Ipv4>, endpoint::Endpoint>,
    /// `ENDPOINTS6`.
    pub endpoints6: Changes<EndpointKey<Ipv6>, endpoint::Endpoint>,
    /// `PUBLISHED4`.
    pub published4: Changes<PublishKey<Ipv4>, Publication<Ipv4>>,
    /// `PUBLISHED6`.
    pub published6: Changes<PublishKey<Ipv6>, Publication<Ipv6>>,
    /// `RANGES4`.
    pub ranges4: Changes<Prefix<RangeKey<Ipv4>>, Publication<Ipv4>>,
    /// `RANGES6`.
    pub ranges6: Changes<Prefix<RangeKey<Ipv6>>, Publication<Ipv6>>,
    /// `SOURCES4`.
    pub sources4: Changes<Prefix<SourceKey<Ipv4>>, u32>,
    /// `SOURCES6`.
    pub sources6: Changes<Prefix<SourceKey<Ipv6>>, u32>,
    /// `LINKS`.
    pub links: Changes<LinkKey, u32>,
    /// `MEMBERS`.
    pub members: Changes<MemberKey, u32>,
    /// `RESERVED`.
    pub reserved: Changes<u32, u64>,
    /// `SETTINGS`.
    pub settings: Changes<u32, Settings>,
    /// `LOCAL4`.
    pub local4: Changes<Ipv4Address, LocalAddress>,
    /// `LOCAL6`.
    pub local6: Changes<Ipv6Address, LocalAddress>,
    /// `UPLINKS4`.
    pub uplinks4: Changes<u32, Uplink<Ipv4>>,
    /// `UPLINKS6`.
    pub uplinks6: Changes<u32, Uplink<Ipv6>>,
    /// `HOSTS`.
    pub hosts: Changes<u32, Host>,
    /// `SENDERS`.
    pub senders: Changes<Ipv6Address, u32>,
    /// `VNIS`.
    pub vnis: Changes<u32, u32>,
    /// Some flow that was judged before would be judged otherwise now.
    pub moves_epoch: bool,
}

/// What makes the tables as they are into the tables as they must be.
pub fn steps(actual: &Tables, desired: &Tables) -> Steps {
    let mut steps = Steps {
        networks: Changes::between(&actual.networks, &desired.networks),
        subnets4: Changes::between(&actual.subnets4, &desired.subnets4),
        subnets6: Changes::between(&actual.subnets6, &desired.subnets6),
        generations: Changes::between(&actual.generations, &desired.generations),
        attachments: Changes::between(&actual.attachments, &desired.attachments),
        resolvers: Changes::between(&actual.resolvers, &desired.resolvers),
        endpoints4: Changes::between(&actual.endpoints4, &desired.endpoints4),
        endpoints6: Changes::between(&actual.endpoints6, &desired.endpoints6),
        published4: Changes::between(&actual.published4, &desired.published4),
        published6: Changes::between(&actual.published6, &desired.published6),
        ranges4: Changes::between(&actual.ranges4, &desired.ranges4),
        ranges6: Changes::between(&actual.ranges6, &desired.ranges6),
        sources4: Changes::between(&actual.sources4, &desired.sources4),
        sources6: Changes::between(&actual.sources6, &desired.sources6),
        links: Changes::between(&actual.links, &desired.links),
        members: Changes::between(&actual.members, &desired.members),
        reserved: Changes::between(&actual.reserved, &desired.reserved),
        settings: Changes::between(&actual.settings, &desired.settings),
        local4: Changes::between(&actual.local4, &desired.local4),
        local6: Changes::between(&actual.local6, &desired.local6),
        uplinks4: Changes::between(&actual.uplinks4, &desired.uplinks4),
        uplinks6: Changes::between(&actual.uplinks6, &desired.uplinks6),
        hosts: Changes::between(&actual.hosts, &desired.hosts),
        senders: Changes::between(&actual.senders, &desired.senders),
        vnis: Changes::between(&actual.vnis, &desired.vnis),
        moves_epoch: false,
    };
    // An endpoint that comes or goes alone moves nothing: no flow was judged against the first, the second's die by their generation.
    steps.moves_epoch = !steps.subnets4.is_empty()
        || !steps.subnets6.is_empty()
        || !steps.networks.is_empty()
        || !steps.published4.is_empty()
        || !steps.published6.is_empty()
        || !steps.ranges4.is_empty()
        || !steps.ranges6.is_empty()
        // What may be from now on has no flow yet, and what is said to many never has one.
        || !steps.sources4.remove.is_empty()
        || !steps.sources6.remove.is_empty()
        || !steps.links.remove.is_empty()
        || !steps.local4.is_empty()
        || !steps.local6.is_empty()
        || !steps.uplinks4.is_empty()
        || !steps.uplinks6.is_empty()
        || !steps.hosts.is_empty()
        || steps.endpoints4.replaces(&actual.endpoints4)
        || steps.endpoints6.replaces(&actual.endpoints6)
        || steps.attachments.replaces(&actual.attachments);
    steps
}

impl Steps {
    /// Nothing is to be done.
    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// How many writes these are.
    pub fn count(&self) -> usize {
        fn of<K, V>(changes: &Changes<K, V>) -> usize {
            changes.remove.len() + changes.put.len()
        }
        of(&self.networks)
            + of(&self.subnets4)
            + of(&self.subnets6)
            + of(&self.generations)
            + of(&self.attachments)
            + of(&self.resolvers)
            + of(&self.endpoints4)
            + of(&self.endpoints6)
            + of(&self.published4)
            + of(&self.published6)
            + of(&self.ranges4)
            + of(&self.ranges6)
            + of(&self.sources4)
            + of(&self.sources6)
            + of(&self.links)
            + of(&self.members)
            + of(&self.settings)
            + of(&self.reserved)
            + of(&self.local4)
            + of(&self.local6)
            + of(&self.uplinks4)
            + of(&self.uplinks6)
            + of(&self.hosts)
            + of(&self.senders)
            + of(&self.vnis)
    }

    /// The addresses of endpoints that are gone.
    pub fn departed(&self) -> BTreeSet<IpAddr> {
        let ipv4 = self
            .endpoints4
            .remove
            .iter()
            .map(|key| IpAddr::V4(key.0.address.into()));
        let ipv6 = self
            .endpoints6
            .remove
            .iter()
            .map(|key| IpAddr::V6(key.0.address.into()));
        ipv4.chain(ipv6).collect()
    }

    /// Something is taken away or becomes something else.
    pub fn removes(&self) -> bool {
        !(self.networks.is_empty()
            && self.subnets4.remove.is_empty()
            && self.subnets6.remove.is_empty()
            && self.published4.remove.is_empty()
            && self.published6.remove.is_empty()
            && self.ranges4.remove.is_empty()
            && self.ranges6.remove.is_empty()
            && self.sources4.remove.is_empty()
            && self.sources6.remove.is_empty()
            && self.links.remove.is_empty()
            && self.local4.remove.is_empty()
            && self.local6.remove.is_empty()
            && self.hosts.is_empty()
            && self.uplinks6.remove.is_empty()
            && self.uplinks4.remove.is_empty())
    }
}
