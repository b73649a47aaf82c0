//! Documents on who may speak to whom: kept, told, and asked what they would say.
//!
//! In a cluster they are the cluster's: written to etcd, and copied by each host among its own records. Those that were made before a host joined stay
//! its own.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use sluice_agent::view::{Count, Verdicts};
use sluice_model::{Endpoint, Network, RemoteEndpoint};
use sluice_policy::{
    Conversation, Direction, Facts, Number, Party, Policy, Verdict,
    document::Kept,
    meaning::judge_end,
    tables::Origin,
    traffic::{ICMP, ICMP6},
};
use sluice_store::{
    Store, Transaction, Write,
    key::{self, shared},
    record,
};

use crate::{Engine, EngineError};

/// What the agent tells troubles with documents under.
const SUBJECT: &str = "policies";

/// A document as it is shown.
#[derive(Clone, Debug)]
pub struct PolicyView {
    /// The document.
    pub policy: Policy,
    /// It is in force on all hosts of the cluster.
    pub shared: bool,
    /// The names of the endpoints that it selects, and of their networks.
    pub selects: Vec<(String, String)>,
    /// What its rules have said on this host.
    pub counts: Vec<RuleCount>,
}

/// How often a rule has spoken on this host.
#[derive(Clone, Debug)]
pub struct RuleCount {
    /// Where it stands.
    pub origin: Origin,
    /// How often.
    pub verdicts: Verdicts,
}

/// How often a document has said something on this host.
#[derive(Clone, Debug)]
pub struct PolicyVerdict {
    /// The document's name.
    pub policy: String,
    /// At which end.
    pub direction: Direction,
    /// `allowed`, `denied`, `rejected` or, where it only counts what it is against, `audited`.
    pub verdict: &'static str,
    /// How often.
    pub count: Count,
}

/// What applying documents changes.
#[derive(Clone, Debug, Default)]
pub struct Applied {
    /// Documents that were not there.
    pub created: Vec<Policy>,
    /// Those that are another now: as before, and as they are.
    pub changed: Vec<(Policy, Policy)>,
    /// Those that are as they were.
    pub unchanged: Vec<Policy>,
}

/// A conversation that is asked about.
#[derive(Clone, Debug)]
pub struct Asked {
    /// A container's name, an address, `host` or `world`.
    pub from: String,
    /// The same.
    pub to: String,
    /// IP protocol number.
    pub protocol: u8,
    /// The port, or of ICMP the type.
    pub port: u16,
}

/// One end, as it was understood.
#[derive(Clone, Debug)]
pub struct End {
    /// The container's name, `host`, `world`, or nobody.
    pub name: String,
    /// By which address.
    pub address: IpAddr,
}

/// What is said at one end.
#[derive(Clone, Debug)]
pub struct Opinion {
    /// What is done.
    pub verdict: Verdict,
    /// By which rule. None: nobody says anything.
    pub rule: Option<Origin>,
    /// What would be done, were documents under audit in force.
    pub would_be: Verdict,
    /// By which rule.
    pub would_be_rule: Option<Origin>,
}

/// What is said of a conversation.
#[derive(Clone, Debug)]
pub struct Judged {
    /// Who speaks.
    pub from: End,
    /// Who is spoken to.
    pub to: End,
    /// What is done.
    pub verdict: Verdict,
    /// What would be done.
    pub would_be: Verdict,
    /// At the end of who speaks.
    pub egress: Opinion,
    /// At the end of who is spoken to.
    pub ingress: Opinion,
}

impl Engine {
    /// All documents, by name.
    pub async fn policies(&self) -> Result<Vec<PolicyView>, EngineError> {
        let kept = self.kept_policies().await?;
        let verdicts = self.agent.verdicts().await?;
        let residents = self.residents().await?;
        Ok(kept
            .into_values()
            .map(|kept| view(kept, &residents, &verdicts))
            .collect())
    }

    /// What documents have said on this host, by document, end and verdict; what was never said is left out.
    pub async fn policy_verdicts(&self) -> Result<Vec<PolicyVerdict>, EngineError> {
        let kept = self.kept_policies().await?;
        if kept.is_empty() {
            return Ok(Vec::new());
        }
        let spoken = self.agent.verdicts().await?;
        Ok(kept.values().flat_map(|kept| said(&kept.policy, &spoken)).collect())
    }

    /// One document.
    pub async fn policy(&self, name: &str) -> Result<PolicyView, EngineError> {
        let kept = self.kept_policies().await?.remove(name).ok_or_else(|| no_such(name))?;
        let verdicts = self.agent.verdicts().await?;
        Ok(view(kept, &self.residents().await?, &verdicts))
    }

    /// Puts documents in force, all or none; those of other names stay. They are in force on this host when this returns. `dry`: says what would change.
    pub async fn apply_policies(&self, policies: Vec<Policy>, dry: bool) -> Result<Applied, EngineError> {
        let mut before = self.kept_policies().await?;
        let (mut applied, mut writes) = (Applied::default(), Vec::new());
        for policy in policies {
            let name = policy.name.as_str().to_owned();
            match before.remove(&name) {
                // One of this host alone becomes the cluster's when it is applied again.
                Some(kept) if kept.policy == policy && kept.shared == self.cluster.is_some() => {
                    applied.unchanged.push(policy);
                    continue;
                }
                Some(kept) => applied.changed.push((kept.policy, policy.clone())),
                None => applied.created.push(policy.clone()),
            }
            writes.push((name, Some(policy)));
        }
        if !dry && !writes.is_empty() {
            self.write_policies(writes).await?;
        }
        Ok(applied)
    }

    /// Takes a document away. It is no more in force on this host when this returns.
    pub async fn delete_policy(&self, name: &str) -> Result<(), EngineError> {
        if !self.kept_policies().await?.contains_key(name) {
            return Err(no_such(name));
        }
        self.write_policies(vec![(name.to_owned(), None)]).await
    }

    /// Writes documents and takes others away. What cannot be put in force is taken back.
    async fn write_policies(&self, documents: Vec<(String, Option<Policy>)>) -> Result<(), EngineError> {
        let mut before = self.kept_policies().await?;
        let back: Vec<(String, Option<Kept>)> = documents
            .iter()
            .map(|(name, _)| (name.clone(), before.remove(name)))
            .collect();
        let shared = self.cluster.is_some();
        let documents: Vec<(String, Option<Kept>)> = documents
            .into_iter()
            .map(|(name, policy)| (name, policy.map(|policy| Kept { policy, shared })))
            .collect();
        self.tell_cluster(&documents).await?;
        let Err(why) = self.make_policies_real(&documents).await else {
            return Ok(());
        };
        let put_back = async {
            self.tell_cluster(&back).await?;
            self.make_policies_real(&back).await
        };
        match put_back.await {
            Ok(()) => Err(why),
            Err(also) => Err(EngineError::failed(format!(
                "{why}; and the policies of before cannot be put back: {also}"
            ))),
        }
    }

    async fn tell_cluster(&self, documents: &[(String, Option<Kept>)]) -> Result<(), EngineError> {
        if self.cluster.is_none() {
            return Ok(());
        }
        let doing = "cannot change the cluster's policies";
        let etcd = self.cluster_for(doing)?.etcd().map_err(|why| why.within(doing))?;
        let transaction = writes(documents, shared::policy, |kept| kept.shared)?;
        let written = etcd.commit(transaction).await;
        written.map(drop).map_err(|why| EngineError::from(why).within(doing))
    }

    /// The copy of the cluster's records says the same at the same time.
    async fn make_policies_real(&self, documents: &[(String, Option<Kept>)]) -> Result<(), EngineError> {
        let revision = self.store.commit(writes(documents, key::policy, |_| true)?).await?;
        Ok(self.agent.settled(revision, &[SUBJECT]).await?)
    }

    /// What documents say of a conversation: those that are in force, with these in the place of those of the same names.
    pub async fn test_policies(&self, further: Vec<Policy>, asked: &Asked) -> Result<Judged, EngineError> {
        let mut policies: BTreeMap<String, Policy> = self
            .kept_policies()
            .await?
            .into_iter()
            .map(|(name, kept)| (name, kept.policy))
            .collect();
        policies.extend(
            further
                .into_iter()
                .map(|policy| (policy.name.as_str().to_owned(), policy)),
        );
        let policies: Vec<Policy> = policies.into_values().collect();
        let origins: BTreeMap<Number, Origin> = policies.iter().flat_map(Policy::origins).collect();
        let residents = self.residents().await?;
        let scene = Scene {
            residents: &residents,
            networks: self.networks.all(),
            host: self.host_addresses().await?,
        };
        let family6 = asked.protocol == ICMP6;
        let (from, to) = scene.parties(asked, family6)?;
        if asked.protocol == ICMP && from.1.address.is_ipv6() {
            return Err(EngineError::invalid("icmp4 is not spoken between addresses of IPv6"));
        }
        let conversation = Conversation {
            source: from.0,
            destination: to.0,
            protocol: asked.protocol,
            port: asked.port,
        };
        let egress = judge_end(&policies, Direction::Egress, from.0, to.0, &conversation);
        let ingress = judge_end(&policies, Direction::Ingress, to.0, from.0, &conversation);
        let both = egress.and(ingress);
        let opinion = |said: sluice_policy::Judgement| Opinion {
            verdict: said.verdict(),
            rule: said.enforced.and_then(|spoken| origins.get(&spoken.rule).cloned()),
            would_be: said.would_be(),
            would_be_rule: said.audited.and_then(|spoken| origins.get(&spoken.rule).cloned()),
        };
        Ok(Judged {
            from: from.1,
            to: to.1,
            verdict: both.verdict(),
            would_be: both.would_be(),
            egress: opinion(egress),
            ingress: opinion(ingress),
        })
    }

    async fn kept_policies(&self) -> Result<BTreeMap<String, Kept>, EngineError> {
        let (entries, _) = self.store.list(key::POLICIES).await?;
        let mut kept = BTreeMap::new();
        for entry in entries {
            let name = entry.key.trim_start_matches(key::POLICIES).to_owned();
            kept.insert(name, record::decode::<Kept>(&entry.key, &entry.value)?);
        }
        Ok(kept)
    }

    /// Every endpoint that is known, as rules see it.
    async fn residents(&self) -> Result<Vec<Facts>, EngineError> {
        let networks: BTreeMap<String, Network> = self
            .networks
            .all()
            .into_iter()
            .map(|network| (network.id.to_string(), network))
            .collect();
        let here: Vec<Endpoint> = self.networks.places().endpoints.values().cloned().collect();
        let mut residents = Vec::new();
        for endpoint in here {
            let Some(network) = networks
                .get(endpoint.network.as_str())
                .filter(|network| network.is_placed())
            else {
                continue;
            };
            let addresses = endpoint.addresses.iter().map(ipnet::IpNet::addr).collect();
            residents.push(facts(endpoint.labels, endpoint.name, network, addresses));
        }
        for entry in self.store.list(key::REMOTE_ENDPOINTS).await?.0 {
            let endpoint: RemoteEndpoint = record::decode(&entry.key, &entry.value)?;
            if let Some(network) = networks.get(endpoint.network.as_str()) {
                let addresses = endpoint.addresses.iter().map(ipnet::IpNet::addr).collect();
                residents.push(facts(endpoint.labels, endpoint.name, network, addresses));
            }
        }
        Ok(residents)
    }

    async fn host_addresses(&self) -> Result<BTreeSet<IpAddr>, EngineError> {
        let devices = self.agent.host_devices().await?;
        let own = devices
            .iter()
            .flat_map(|device| device.addresses.iter().map(ipnet::IpNet::addr));
        let networks = self.networks.all();
        let placed = networks.iter().filter(|network| network.is_placed());
        let gateways = placed.flat_map(|network| network.subnets.iter().map(|subnet| subnet.gateway));
        Ok(own.chain(gateways).collect())
    }
}

/// Documents as records under these keys; those that do not belong there, and those that are none, go.
fn writes(
    documents: &[(String, Option<Kept>)],
    place: fn(&str) -> String,
    belongs: fn(&Kept) -> bool,
) -> Result<Transaction, EngineError> {
    let write = |(name, kept): &(String, Option<Kept>)| match kept {
        Some(kept) if belongs(kept) => Ok(Write::Put(place(name), record::encode(kept)?)),
        _ => Ok(Write::Delete(place(name))),
    };
    Ok(Transaction {
        conditions: vec![],
        writes: documents.iter().map(write).collect::<Result<_, EngineError>>()?,
    })
}

fn no_such(name: &str) -> EngineError {
    EngineError::not_found(format!("no such policy: {name}"))
}

fn facts(labels: BTreeMap<String, String>, name: String, network: &Network, addresses: Vec<IpAddr>) -> Facts {
    Facts {
        labels,
        name,
        network: network.name.clone(),
        network_id: network.id.to_string(),
        addresses,
    }
}

fn view(kept: Kept, residents: &[Facts], verdicts: &BTreeMap<u64, Verdicts>) -> PolicyView {
    let Kept { policy, shared } = kept;
    let selected = residents.iter().filter(|facts| policy.select.selects(facts));
    let mut selects: Vec<(String, String)> = selected
        .map(|facts| (facts.name.clone(), facts.network.clone()))
        .collect();
    selects.sort();
    let mut counts: Vec<RuleCount> = policy
        .origins()
        .into_iter()
        .map(|(number, origin)| RuleCount {
            origin,
            verdicts: verdicts.get(&number.0).copied().unwrap_or_default(),
        })
        .collect();
    // What is said when no rule says anything stands behind them.
    counts.sort_by_key(|count| (count.origin.direction, count.origin.place.is_none(), count.origin.place));
    PolicyView {
        policy,
        shared,
        selects,
        counts,
    }
}

/// What a document has said.
fn said(policy: &Policy, spoken: &BTreeMap<u64, Verdicts>) -> Vec<PolicyVerdict> {
    let mut sums: BTreeMap<(Direction, &'static str), Count> = BTreeMap::new();
    for (number, origin) in policy.origins() {
        let Some(verdicts) = spoken.get(&number.0) else {
            continue;
        };
        let rule = origin
            .place
            .and_then(|place| policy.rules(origin.direction)?.nth(place))
            .map_or(Verdict::Deny, |rule| rule.action);
        let verdict = match rule {
            Verdict::Allow => "allowed",
            Verdict::Reject => "rejected",
            Verdict::Deny => "denied",
        };
        for (verdict, count) in [(verdict, verdicts.done), ("audited", verdicts.audited)] {
            if count.packets > 0 {
                let sum = sums.entry((origin.direction, verdict)).or_default();
                sum.packets += count.packets;
                sum.bytes += count.bytes;
            }
        }
    }
    let each = sums.into_iter().map(|((direction, verdict), count)| PolicyVerdict {
        policy: policy.name.as_str().to_owned(),
        direction,
        verdict,
        count,
    });
    each.collect()
}

/// Who is where, to find those who are asked about.
struct Scene<'a> {
    residents: &'a [Facts],
    networks: Vec<Network>,
    host: BTreeSet<IpAddr>,
}

/// Who was meant.
type Found<'a> = (Party<'a>, End);

impl<'a> Scene<'a> {
    /// Both ends, by addresses of one family.
    fn parties(&self, asked: &Asked, wants_six: bool) -> Result<(Found<'a>, Found<'a>), EngineError> {
        // What is said by its address says the family.
        let by_address = [&asked.from, &asked.to]
            .into_iter()
            .find_map(|text| text.parse::<IpAddr>().ok());
        let mut families = match (by_address, wants_six) {
            (Some(address), _) => vec![address.is_ipv6()],
            (None, true) => vec![true],
            (None, false) => vec![false, true],
        };
        if wants_six {
            families.retain(|six| *six);
        }
        let mut trouble = EngineError::invalid("icmp6 is not spoken between addresses of IPv4");
        for six in families {
            // Of containers on several networks, the one that both are on.
            let networks = |name: &str| -> BTreeSet<&str> {
                let named = self.residents.iter().filter(|facts| facts.name == name);
                named.map(|facts| facts.network_id.as_str()).collect()
            };
            let common = networks(&asked.from).intersection(&networks(&asked.to)).next().copied();
            match (self.party(&asked.from, six, common), self.party(&asked.to, six, common)) {
                (Ok(from), Ok(to)) => return Ok((from, to)),
                (Err(why), _) | (_, Err(why)) => trouble = why,
            }
        }
        Err(trouble)
    }

    fn party(&self, text: &str, six: bool, network: Option<&str>) -> Result<Found<'a>, EngineError> {
        let end = |name: &str, address| End {
            name: name.to_owned(),
            address,
        };
        if text == "world" {
            // Of the prefixes for documentation: somebody who is nobody else.
            let address = if six { "2001:db8::1" } else { "203.0.113.1" };
            let address = address
                .parse()
                .map_err(|_| EngineError::failed("an address cannot be read"))?;
            return Ok((Party::World(address), end("world", address)));
        }
        if text == "host" {
            let address = self.host.iter().find(|address| address.is_ipv6() == six).copied();
            let address = address.ok_or_else(|| EngineError::invalid("the host has no address of that family"))?;
            return Ok((Party::Host(address), end("host", address)));
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            if address.is_ipv6() != six {
                return Err(EngineError::invalid("both ends must be of one family of addresses"));
            }
            let resident = self.residents.iter().find(|facts| facts.addresses.contains(&address));
            if let Some(facts) = resident {
                return Ok((Party::Endpoint(facts, address), end(&facts.name, address)));
            }
            if self.host.contains(&address) {
                return Ok((Party::Host(address), end("host", address)));
            }
            let subnets = |network: &Network| network.is_placed() && !network.is_on_bridge();
            let is_ours = self
                .networks
                .iter()
                .filter(|network| subnets(network))
                .any(|network| network.subnets.iter().any(|subnet| subnet.subnet.contains(&address)));
            return Ok(match is_ours {
                true => (Party::Vacant(address), end("nobody", address)),
                false => (Party::World(address), end("world", address)),
            });
        }
        let named = self.residents.iter().filter(|facts| facts.name == text);
        let mut there = named.filter(|facts| network.is_none_or(|network| facts.network_id == network));
        let found = there.find_map(|facts| {
            let address = facts.addresses.iter().find(|address| address.is_ipv6() == six)?;
            Some((facts, *address))
        });
        match found {
            Some((facts, address)) => Ok((Party::Endpoint(facts, address), end(&facts.name, address))),
            None => Err(EngineError::not_found(format!(
                "{text} is no container that runs on a network of that family; an address, \"host\" and \"world\" are understood too"
            ))),
        }
    }
}
