//! What documents say, for who is there: as tables.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;
use sluice_datapath_common::policy::{Cell, CellKey, Groups, Judgement, LIST_KEY_BITS, ListKey, MAX_GROUPS, Subject};
use sluice_model::Network;
use sluice_policy::{
    Facts, Number, Policy, Surroundings, Tables, compile,
    tables::{MOST_GROUPS, Origin},
};

use super::{
    Place,
    network::{gateways, is_placed},
    tables::prefix,
};
use crate::{
    actual::Actual,
    desired::Desired,
    map::{contents::ByBytes, rules::Rules},
};

// An address may be both in its groups of before and in those of behind.
const _: () = assert!(2 * MOST_GROUPS <= MAX_GROUPS);

/// What tables were made of, and where their rules stand.
#[derive(Clone, Default, Debug)]
pub struct Ruling {
    policies: BTreeMap<String, Policy>,
    surroundings: Surroundings,
    /// Rules by number.
    pub origins: BTreeMap<Number, Origin>,
}

/// What is to be in the tables.
pub struct Wanted {
    /// The tables.
    pub rules: Rules,
    /// What they were made of.
    pub ruling: Ruling,
    /// The documents are others than before.
    pub other_documents: bool,
}

/// What the tables must hold; none: what they hold already.
pub fn wanted(desired: &Desired, places: &BTreeMap<&str, Place<'_>>, actual: &Actual) -> Option<Wanted> {
    let before = &actual.ruling;
    if desired.policies.is_empty() && before.policies.is_empty() && actual.rules.is_empty() {
        return None;
    }
    let surroundings = match desired.policies.is_empty() {
        true => Surroundings::default(),
        false => surroundings(desired, places, actual),
    };
    let other_documents = desired.policies != before.policies;
    if !other_documents && surroundings == before.surroundings {
        return None;
    }
    let policies: Vec<Policy> = desired.policies.values().cloned().collect();
    let mut tables = compile(&policies, &surroundings);
    let ruling = Ruling {
        policies: desired.policies.clone(),
        surroundings,
        origins: std::mem::take(&mut tables.rules),
    };
    Some(Wanted {
        rules: words(&tables),
        ruling,
        other_documents,
    })
}

/// Who lives where. Endpoints beside the datapath are not known to it: who has one of their addresses is of the world.
fn surroundings(desired: &Desired, places: &BTreeMap<&str, Place<'_>>, actual: &Actual) -> Surroundings {
    let here = places.values().filter(|place| is_placed(place.network)).map(|place| {
        let endpoint = place.endpoint;
        let addresses = endpoint.addresses.iter().map(IpNet::addr).collect();
        let facts = facts(&endpoint.labels, &endpoint.name, place.network, addresses);
        (Some(endpoint.number), facts)
    });
    let elsewhere = desired.remotes.iter().filter_map(|(_, endpoint)| {
        let network = desired.networks.get(&*endpoint.network)?;
        Some((
            None,
            facts(
                &endpoint.bearer.labels,
                &endpoint.bearer.name,
                network,
                endpoint.addresses.to_vec(),
            ),
        ))
    });
    let placed = desired.networks.values().filter(|network| is_placed(network));
    Surroundings {
        endpoints: here.chain(elsewhere).collect(),
        host: actual
            .world
            .addresses
            .iter()
            .map(|(address, _)| *address)
            .chain(gateways(desired).map(|(gateway, _)| gateway.addr()))
            .collect(),
        // On a bridge of the host there are others' machines, too.
        subnets: placed
            .filter(|network| !network.is_on_bridge())
            .flat_map(|network| network.subnets.iter().map(|subnet| subnet.subnet.trunc()))
            .collect(),
    }
}

fn facts(labels: &BTreeMap<String, String>, name: &str, network: &Network, addresses: Vec<IpAddr>) -> Facts {
    Facts {
        labels: labels.clone(),
        name: name.to_owned(),
        network: network.name.clone(),
        network_id: network.id.to_string(),
        addresses,
    }
}

/// The same in the words of the datapath.
fn words(tables: &Tables) -> Rules {
    let mut rules = Rules::default();
    for (number, subject) in &tables.subjects {
        let subject = Subject {
            ingress: subject.ingress.0,
            egress: subject.egress.0,
        };
        rules.subjects.insert(ByBytes(*number), subject);
    }
    for (net, numbers) in &tables.known {
        let mut groups = Groups::default();
        for (place, number) in groups.groups.iter_mut().zip(numbers) {
            *place = number.0;
        }
        match net {
            IpNet::V4(net) => rules
                .known4
                .insert(ByBytes(prefix(net.prefix_len(), net.addr().into())), groups),
            IpNet::V6(net) => rules
                .known6
                .insert(ByBytes(prefix(net.prefix_len(), net.addr().into())), groups),
        };
    }
    for ((subject, group), cell) in &tables.cells {
        let key = CellKey {
            subject: subject.0,
            group: group.0,
        };
        let cell = Cell {
            all: judgement(cell.all),
            list: cell.list.0,
        };
        rules.cells.insert(ByBytes(key), cell);
    }
    for ((list, block), said) in &tables.lists {
        let key = ListKey::of(list.0, block.protocol, block.port.to_be());
        let bits = LIST_KEY_BITS + u32::from(block.bits);
        rules.lists.insert(ByBytes(prefix(bits as u8, key)), judgement(*said));
    }
    rules
}

fn judgement(said: sluice_policy::Judgement) -> Judgement {
    let words = |spoken: Option<sluice_policy::verdict::Spoken>| {
        spoken.map_or((0, 0), |spoken| (spoken.verdict as u8, spoken.rule.0))
    };
    let ((said, rule), (audited, audited_rule)) = (words(said.enforced), words(said.audited));
    Judgement {
        rule,
        audited_rule,
        said,
        audited,
        padding: [0; 6],
    }
}
