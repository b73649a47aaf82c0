//! What works on the kernel, and one round of it.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    io,
    path::PathBuf,
    sync::Arc,
};

use sluice_datapath_common::{
    config,
    overlay::OVERHEAD6,
    programs::{FROM_OVERLAY, FROM_RESOLVER},
    settings::Settings,
};
use sluice_model::Network;

use super::{Scope, Setup};
use crate::{
    AgentError, Config, Tried,
    actual::Actual,
    apply::{self, Attention, Hands, Report},
    desired::Desired,
    kernel::{mounts, netlink::Netlink, netns, sysctl},
    link::{
        host_leg, listing, overlay,
        resolver_leg::ResolverLeg,
        sandbox::Offers,
        seal::{self, Key, Peer},
    },
    map::{contents::Tables, pins::Maps, rules::Rules},
    names::Names,
    plan::{self, rules::Ruling},
    program::{
        attach::Attacher,
        load::{self, Programs},
    },
    promise::Promises,
};

/// What works on the kernel, kept from round to round.
pub struct Kernel {
    config: Config,
    /// What things are called.
    pub names: Names,
    /// What the programs were loaded with.
    pub facts: config::Config,
    netlink: Netlink,
    /// The tables.
    pub maps: Arc<Maps>,
    programs: Programs,
    /// What attaches programs.
    pub attacher: Arc<Attacher>,
    /// What is there.
    pub actual: Actual,
    offers: Arc<Offers>,
    resolver: Arc<ResolverLeg>,
    /// The datapath's end of its leg; 0: there is none yet.
    resolver_ifindex: u32,
    /// The other hosts that the device that encrypts was told of.
    sealed: BTreeMap<Key, Peer>,
    /// The VXLAN device, and the port it was made for; 0 and none: there is none.
    overlay: (u32, Option<u16>),
    /// No round was complete yet: what an earlier configuration left is still there.
    first: bool,
}

impl Kernel {
    /// Mounts bpffs, makes or takes over the host's leg, tables and programs. Nothing is attached yet.
    pub fn open(setup: &Setup, offers: Arc<Offers>) -> Result<Self, AgentError> {
        let Setup {
            config,
            clsact,
            resolver,
        } = setup;
        let names = Names::new(&config.instance, &config.bpffs)?;
        mounts::ensure_bpffs(&config.bpffs).tried(|| format!("mounting bpffs at {}", config.bpffs.display()))?;
        let mut netlink = Netlink::open().tried(|| "opening a netlink socket".to_owned())?;
        let devices = listing::devices(&mut netlink).tried(|| "listing devices".to_owned())?;
        let leg = host_leg::ensure(&mut netlink, &devices, &names, config.ip_forward)?;
        let (ephemeral_first, ephemeral_last) =
            sysctl::ephemeral_ports().tried(|| "reading the host's ephemeral ports".to_owned())?;
        let facts = config::Config {
            netns_cookie: netns::cookie().tried(|| "asking for the cookie of the network namespace".to_owned())?,
            host_leg_ifindex: leg.datapath,
            host_ifindex: leg.host,
            host_mac: names.gateway_mac().0,
            ephemeral_first,
            ephemeral_last,
            ..config::Config::default()
        };
        let (maps, programs) = load::ensure(&names, &facts, config.limits)?;
        // The loader has taken and freed a few megabytes, once.
        // SAFETY: it takes a number and touches free memory only.
        unsafe { libc::malloc_trim(0) };
        let attacher = Arc::new(Attacher::new(&names, mounts::cgroup2(), *clsact)?);
        let config = config.clone();
        Ok(Self {
            config,
            names,
            facts,
            netlink,
            maps: Arc::new(maps),
            programs,
            attacher,
            actual: Actual::default(),
            offers,
            resolver: resolver.clone(),
            resolver_ifindex: 0,
            sealed: BTreeMap::new(),
            overlay: (0, None),
            first: true,
        })
    }

    /// At first in all sandboxes: an earlier life may have been cut short while it took one away.
    fn read_children(&mut self, desired: &Desired) -> io::Result<()> {
        let with_children = |network: &&Network| network.parent.is_some() && !network.is_placed();
        if !desired.networks.values().any(|network| with_children(&network)) {
            self.actual.children.clear();
            return Ok(());
        }
        let all: Vec<PathBuf> = match self.first {
            true => self.actual.sandboxes.keys().cloned().collect(),
            false => {
                let mut some: BTreeSet<PathBuf> =
                    self.actual.children.iter().map(|child| child.sandbox.clone()).collect();
                for endpoint in desired.endpoints.values() {
                    let network = desired.networks.get(endpoint.network.as_str()).filter(with_children);
                    if let Some(sandbox) = network.and(desired.sandboxes.get(endpoint.sandbox.as_str())) {
                        some.insert(sandbox.path.clone());
                    }
                }
                some.into_iter().collect()
            }
        };
        self.actual.read_children(&self.names, all.iter())
    }

    /// One round.
    pub fn round(&mut self, desired: &Desired, scope: Scope, promises: &Promises) -> Result<Report, AgentError> {
        if scope.devices {
            let directory = &self.config.netns_dir;
            self.actual
                .read_devices(&mut self.netlink, &self.names, directory, scope.routes)
                .tried(|| "reading the host's devices".to_owned())?;
            // what no record asks for yet is left alone, as if it were not there
            let asked_for: HashSet<&PathBuf> = desired.sandboxes.values().map(|sandbox| &sandbox.path).collect();
            self.actual
                .sandboxes
                .retain(|path, _| asked_for.contains(path) || !promises.covers(path));
            self.read_children(desired)
                .tried(|| "reading the devices of sandboxes".to_owned())?;
            let leg = self.actual.leg;
            if (leg.host, leg.datapath) != (self.facts.host_ifindex, self.facts.host_leg_ifindex) {
                return Err(AgentError::Failed(format!(
                    "the host's leg {} is gone",
                    self.names.host_leg
                )));
            }
        }
        let resolver_trouble = match scope.devices {
            true => self.see_to_resolver().err(),
            false => None,
        };
        let port = desired.this_host.as_ref().map(|host| host.vxlan_port);
        let overlay_trouble = match scope.devices || port != self.overlay.1 {
            true => self.see_to_overlay(port).err(),
            false => None,
        };
        self.actual.overlay_mtu = desired
            .this_host
            .as_ref()
            .and_then(|host| plan::overlay::mtu(host, &self.actual.world));
        let seal_trouble = self.see_to_seals(desired, scope.devices).err();
        if scope.tables {
            let reading = || "reading the datapath's tables".to_owned();
            self.actual.tables = Tables::read(&self.maps).tried(reading)?;
            self.actual.rules = Rules::read(&self.maps).tried(reading)?;
            // They are compared with what documents say, whether that has changed or not.
            self.actual.ruling = Ruling::default();
            self.actual.settled = plan::Settled::default();
        }
        let attention = if self.first { Attention::Full } else { Attention::Usual };
        let attention = scope.devices.then_some(attention);
        let mut hands = Hands {
            netlink: &mut self.netlink,
            maps: &self.maps,
            programs: &self.programs,
            attacher: &self.attacher,
            names: &self.names,
            settings: Settings {
                resolver_ifindex: self.resolver_ifindex,
                overlay_ifindex: self.overlay.0,
                overlay_port: port.unwrap_or(0).to_be(),
                policies: !desired.policies.is_empty() as u32,
                ..self.config.limits.settings()
            },
            offers: &self.offers,
            promises,
        };
        let mut report = apply::apply(&mut hands, desired, &mut self.actual, attention, scope.routes)?;
        if let Some(trouble) = resolver_trouble {
            report.troubles.insert("resolver".to_owned(), trouble.to_string());
        }
        if let Some(trouble) = seal_trouble {
            report.troubles.insert("encryption".to_owned(), trouble.to_string());
        }
        if let Some(trouble) = overlay_trouble {
            report.troubles.insert("overlay".to_owned(), trouble.to_string());
        }
        if self.first && report.troubles.is_empty() {
            load::remove_outdated(&self.names, &self.facts)?;
            self.first = false;
        }
        Ok(report)
    }

    /// A round in which nothing has changed but records of endpoints on other hosts; none: it must be a whole one. Answers the number of writes.
    pub fn follow_remotes(&mut self, desired: &Desired) -> Result<Option<usize>, AgentError> {
        apply::follow_remotes(&self.maps, desired, &mut self.actual)
    }

    /// Gives links to some of the veths that have outgrown their filter; answers how many have none yet.
    pub fn grow(&mut self) -> usize {
        apply::promote_grown(&self.attacher, &self.programs, &self.names, &mut self.actual);
        self.actual.made.len()
    }

    /// The way to the resolver, and the program on it. Without it nothing else is wrong.
    fn see_to_resolver(&mut self) -> Result<(), AgentError> {
        let present = self.actual.resolver_leg.as_ref();
        self.resolver_ifindex = self
            .resolver
            .ensure(&mut self.netlink, present, &self.names, self.resolver_ifindex)?;
        self.attacher
            .to_device(&self.programs, FROM_RESOLVER, self.resolver_ifindex)
            .map(drop)
    }

    /// Whom the device that encrypts knows. It is made and taken away by who asks for this host's key. Without it nothing is sent that was to be encrypted.
    fn see_to_seals(&mut self, desired: &Desired, look: bool) -> Result<(), AgentError> {
        let this_host = desired.this_host.as_ref().filter(|host| host.seal.is_some());
        let Some(this_host) = this_host else {
            self.sealed.clear();
            self.actual.sealed_mtu = None;
            return Ok(());
        };
        if self.actual.seal_device.is_none() {
            let looking = || format!("looking for {}", self.names.seal);
            let devices = listing::devices(&mut self.netlink).tried(looking)?;
            let found = devices
                .into_iter()
                .find(|device| device.alias == self.names.seal_alias());
            self.actual.seal_device = found;
            self.sealed.clear();
        }
        let mtu = plan::overlay::sealed_mtu(this_host, &self.actual.world);
        self.actual.sealed_mtu = mtu.map(|mtu| mtu.saturating_sub(OVERHEAD6));
        let wanted = plan::overlay::seals(desired, &self.actual);
        let (Some(device), Some(mtu)) = (&mut self.actual.seal_device, mtu) else {
            return Err(AgentError::Failed(format!(
                "there is no device {}: encrypted networks reach no other host",
                self.names.seal
            )));
        };
        if !look && wanted == self.sealed && device.mtu == mtu {
            return Ok(());
        }
        seal::follow(&mut self.netlink, device, mtu, &self.sealed, &wanted)
            .tried(|| format!("telling {} of the other hosts", self.names.seal))?;
        self.sealed = wanted;
        Ok(())
    }

    /// The VXLAN device, and the program on it. Without it our programs wrap and unwrap what they can.
    fn see_to_overlay(&mut self, port: Option<u16>) -> Result<(), AgentError> {
        let present = self.actual.overlay_device.as_ref();
        let made = overlay::ensure(&mut self.netlink, present, &self.names, port);
        self.overlay = (made.as_ref().copied().unwrap_or(0), port);
        match made? {
            0 => Ok(()),
            ifindex => self.attacher.to_device(&self.programs, FROM_OVERLAY, ifindex).map(drop),
        }
    }
}
