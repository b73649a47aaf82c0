//! Makes tables of documents. What they mean stands in [`meaning`](crate::meaning), how they are read in [`tables`](crate::tables).

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;

use crate::{
    Direction, Facts, Judgement, Number, Peer, Policy, Selector, Tables, Verdict,
    tables::{Cell, MOST_GROUPS, Subject},
    traffic::Block,
    verdict::Spoken,
};

/// Who lives where.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Surroundings {
    /// All endpoints that are known, those of other hosts too. Those of this host have their number.
    pub endpoints: Vec<(Option<u32>, Facts)>,
    /// The addresses of the host.
    pub host: BTreeSet<IpAddr>,
    /// The subnets of networks: who has an address in one is not of the world.
    pub subnets: BTreeSet<IpNet>,
}

/// Tables that say of these surroundings what the documents mean.
pub fn compile(policies: &[Policy], surroundings: &Surroundings) -> Tables {
    if policies.is_empty() {
        return Tables::default();
    }
    let peers = Peers::of(policies);
    let mut known = Known::of(&peers, surroundings);
    let mut tables = Tables {
        known: known.take_entries(),
        ..Tables::default()
    };
    let mut rows = Rows::of(policies, &peers, known.own);
    let chosen = Index::of(policies.iter().map(|policy| &policy.select));
    for (number, facts) in &surroundings.endpoints {
        let Some(number) = number else { continue };
        let policies = chosen.of_endpoint(facts);
        if policies.is_empty() {
            continue;
        }
        let subject = Subject {
            ingress: rows.enter(&mut tables, Direction::Ingress, &policies),
            egress: rows.enter(&mut tables, Direction::Egress, &policies),
        };
        if subject != Subject::default() {
            tables.subjects.insert(*number, subject);
        }
    }
    tables.rules.extend(policies.iter().flat_map(Policy::origins));
    tables
}

/// Every peer that a rule speaks of, once, by its place; and its number.
struct Peers<'a> {
    all: Vec<(&'a Peer, Number)>,
    places: HashMap<&'a Peer, usize>,
}

impl<'a> Peers<'a> {
    fn of(policies: &'a [Policy]) -> Self {
        let mut peers = Self {
            all: Vec::new(),
            places: HashMap::new(),
        };
        for policy in policies {
            for direction in [Direction::Ingress, Direction::Egress] {
                let rules = policy.rules(direction).into_iter().flatten();
                for peer in rules.filter_map(|rule| rule.peers.as_ref()).flatten() {
                    if !peers.places.contains_key(peer) {
                        peers.places.insert(peer, peers.all.len());
                        peers.all.push((peer, number_of(peer)));
                    }
                }
            }
        }
        peers
    }

    fn place(&self, of: impl Fn(&Peer) -> bool) -> Option<usize> {
        self.all.iter().position(|(peer, _)| of(peer))
    }
}

fn number_of(peer: &Peer) -> Number {
    // Words and addresses in an order of their own: nothing that JSON could not say.
    Number::of("peer", [serde_json::to_vec(peer).unwrap_or_default()])
}

/// Finds the selectors that an endpoint fits without asking all of them: each is found by one thing that it wants.
struct Index<'a> {
    selectors: Vec<&'a Selector>,
    by_label: HashMap<&'a str, HashMap<&'a str, Vec<usize>>>,
    by_network: HashMap<&'a str, Vec<usize>>,
    by_name: HashMap<&'a str, Vec<usize>>,
    others: Vec<usize>,
}

impl<'a> Index<'a> {
    fn of(selectors: impl IntoIterator<Item = &'a Selector>) -> Self {
        let mut index = Self {
            selectors: Vec::new(),
            by_label: HashMap::new(),
            by_network: HashMap::new(),
            by_name: HashMap::new(),
            others: Vec::new(),
        };
        for (place, selector) in selectors.into_iter().enumerate() {
            index.selectors.push(selector);
            let plain = |text: &&str| !text.contains('*');
            let label = selector
                .labels
                .iter()
                .find(|(_, values)| values.0.iter().all(|value| plain(&value.as_str())));
            if let Some(name) = selector.name.as_deref().filter(plain) {
                index.by_name.entry(name).or_default().push(place);
            } else if let Some((key, values)) = label {
                let of_key = index.by_label.entry(key).or_default();
                for value in values.0.iter().map(String::as_str).collect::<BTreeSet<_>>() {
                    of_key.entry(value).or_default().push(place);
                }
            } else if let Some(network) = &selector.network {
                index.by_network.entry(network).or_default().push(place);
            } else {
                index.others.push(place);
            }
        }
        index
    }

    /// The places of those that the endpoint fits, in order.
    fn of_endpoint(&self, facts: &Facts) -> Vec<usize> {
        let by_label = facts
            .labels
            .iter()
            .filter_map(|(key, value)| self.by_label.get(key.as_str())?.get(value.as_str()));
        let by_network = [&facts.network, &facts.network_id]
            .into_iter()
            .filter_map(|network| self.by_network.get(network.as_str()));
        let mut places: Vec<usize> = by_label
            .chain(by_network)
            .chain(self.by_name.get(facts.name.as_str()))
            .chain([&self.others])
            .flatten()
            .copied()
            .filter(|place| self.selectors[*place].selects(facts))
            .collect();
        places.sort_unstable();
        places.dedup();
        places
    }
}

/// Which groups addresses belong to.
struct Known<'a> {
    peers: &'a Peers<'a>,
    /// By prefix: the peers that begin to be meant there, and those that are excepted from there on.
    begins: BTreeMap<IpNet, Vec<usize>>,
    excepts: BTreeMap<IpNet, Vec<usize>>,
    lengths: BTreeSet<u8>,
    entries: BTreeMap<IpNet, Vec<Number>>,
    /// Groups that stand for several peers at once.
    own: BTreeMap<Number, Vec<usize>>,
}

impl<'a> Known<'a> {
    fn of(peers: &'a Peers<'a>, surroundings: &Surroundings) -> Self {
        let mut known = Self {
            peers,
            begins: BTreeMap::new(),
            excepts: BTreeMap::new(),
            lengths: BTreeSet::new(),
            entries: BTreeMap::new(),
            own: BTreeMap::new(),
        };
        for (place, (peer, _)) in peers.all.iter().enumerate() {
            let Peer::Addresses { cidr, except } = peer else {
                continue;
            };
            known.begins.entry(*cidr).or_default().push(place);
            except
                .iter()
                .for_each(|except| known.excepts.entry(*except).or_default().push(place));
        }
        known.lengths = known
            .begins
            .keys()
            .chain(known.excepts.keys())
            .map(IpNet::prefix_len)
            .collect();
        known.enter_prefixes(surroundings);
        known.enter_host(surroundings);
        known.enter_endpoints(surroundings);
        known
    }

    /// The world and our networks, cut up by what rules say of addresses.
    fn enter_prefixes(&mut self, surroundings: &Surroundings) {
        let all = [
            IpNet::new_assert(Ipv4Addr::UNSPECIFIED.into(), 0),
            IpNet::new_assert(Ipv6Addr::UNSPECIFIED.into(), 0),
        ];
        let prefixes: BTreeSet<IpNet> = all
            .into_iter()
            .chain(self.begins.keys().copied())
            .chain(self.excepts.keys().copied())
            .chain(surroundings.subnets.iter().copied())
            .collect();
        let world = self.peers.place(|peer| *peer == Peer::World);
        let subnet_lengths: BTreeSet<u8> = surroundings.subnets.iter().map(IpNet::prefix_len).collect();
        for prefix in prefixes {
            let mut meant = self.meant_by_address(prefix);
            if !around(prefix, &subnet_lengths).any(|net| surroundings.subnets.contains(&net)) {
                meant.extend(world);
            }
            self.enter(prefix, meant);
        }
    }

    fn enter_host(&mut self, surroundings: &Surroundings) {
        let host = self.peers.place(|peer| *peer == Peer::Host);
        for address in &surroundings.host {
            let mut meant = self.meant_by_address((*address).into());
            meant.extend(host);
            self.enter((*address).into(), meant);
        }
    }

    fn enter_endpoints(&mut self, surroundings: &Surroundings) {
        let selectors = self.peers.all.iter().enumerate();
        let (places, selectors): (Vec<usize>, Vec<&Selector>) = selectors
            .filter_map(|(place, (peer, _))| match peer {
                Peer::Endpoints(selector) => Some((place, selector)),
                _ => None,
            })
            .unzip();
        let index = Index::of(selectors);
        for (_, facts) in &surroundings.endpoints {
            let of_endpoint: Vec<usize> = index
                .of_endpoint(facts)
                .into_iter()
                .map(|place| places[place])
                .collect();
            for address in &facts.addresses {
                let mut meant = self.meant_by_address((*address).into());
                meant.extend(&of_endpoint);
                self.enter((*address).into(), meant);
            }
        }
    }

    /// The peers that mean all addresses of a prefix by the address alone.
    fn meant_by_address(&self, prefix: IpNet) -> Vec<usize> {
        let (mut meant, mut excepted): (Vec<usize>, BTreeSet<usize>) = Default::default();
        for net in around(prefix, &self.lengths) {
            meant.extend(self.begins.get(&net).into_iter().flatten());
            excepted.extend(self.excepts.get(&net).into_iter().flatten());
        }
        meant.retain(|place| !excepted.contains(place));
        meant
    }

    fn enter(&mut self, prefix: IpNet, mut meant: Vec<usize>) {
        meant.sort_unstable();
        meant.dedup();
        let mut groups: Vec<Number> = meant.iter().map(|place| self.peers.all[*place].1).collect();
        groups.sort_unstable();
        if groups.len() > MOST_GROUPS {
            let own = Number::of("peers", groups.iter().map(|number| number.0.to_le_bytes()));
            self.own.insert(own, meant);
            groups = vec![own];
        }
        self.entries.insert(prefix, groups);
    }

    /// The entries, without those that say what the prefix around them says.
    fn take_entries(&mut self) -> BTreeMap<IpNet, Vec<Number>> {
        let all = std::mem::take(&mut self.entries);
        let lengths: BTreeSet<u8> = all.keys().map(IpNet::prefix_len).collect();
        let outer = |prefix: &IpNet| {
            let wider = around(*prefix, &lengths).filter(|net| net != prefix);
            wider
                .filter_map(|net| all.get(&net))
                .last()
                .map_or(&[][..], Vec::as_slice)
        };
        let says_more = |(prefix, groups): &(&IpNet, &Vec<Number>)| outer(prefix) != groups.as_slice();
        all.iter()
            .filter(says_more)
            .map(|(prefix, groups)| (*prefix, groups.clone()))
            .collect()
    }
}

/// The prefixes of these lengths that hold a prefix, itself included, the widest first.
fn around(prefix: IpNet, lengths: &BTreeSet<u8>) -> impl Iterator<Item = IpNet> {
    lengths
        .iter()
        .copied()
        .take_while(move |length| *length <= prefix.prefix_len())
        .filter_map(move |length| Some(IpNet::new(prefix.addr(), length).ok()?.trunc()))
}

/// A rule with all that need not be found out twice.
struct Prepared {
    says: Judgement,
    /// Places of peers. None: everybody.
    peers: Option<Vec<usize>>,
    /// None: all traffic.
    blocks: Option<Vec<Block>>,
}

/// What a document says of a direction.
struct Chapter {
    default: Judgement,
    rules: Vec<Prepared>,
}

/// What is said of subjects: of those that the same documents select, once.
struct Rows<'a> {
    peers: &'a Peers<'a>,
    own: BTreeMap<Number, Vec<usize>>,
    chapters: [Vec<Option<Chapter>>; 2],
    done: HashMap<(Direction, Vec<usize>), Number>,
}

impl<'a> Rows<'a> {
    fn of(policies: &'a [Policy], peers: &'a Peers<'a>, own: BTreeMap<Number, Vec<usize>>) -> Self {
        let chapters = [Direction::Ingress, Direction::Egress].map(|direction| {
            policies
                .iter()
                .map(|policy| chapter(policy, direction, peers))
                .collect()
        });
        Self {
            peers,
            own,
            chapters,
            done: HashMap::new(),
        }
    }

    /// Enters what the documents at these places say, and answers the number of that.
    fn enter(&mut self, tables: &mut Tables, direction: Direction, policies: &[usize]) -> Number {
        let chapters = &self.chapters[direction as usize];
        let speaking: Vec<usize> = policies
            .iter()
            .copied()
            .filter(|place| chapters[*place].is_some())
            .collect();
        if speaking.is_empty() {
            return Number::NONE;
        }
        let key = (direction, speaking);
        if let Some(done) = self.done.get(&key) {
            return *done;
        }
        let number = self.write(tables, direction, &key.1);
        self.done.insert(key, number);
        number
    }

    fn write(&self, tables: &mut Tables, direction: Direction, policies: &[usize]) -> Number {
        let chapters = policies
            .iter()
            .filter_map(|place| self.chapters[direction as usize][*place].as_ref());
        let mut default = Judgement::default();
        let mut of_group: BTreeMap<Number, Vec<&Prepared>> = BTreeMap::new();
        for chapter in chapters {
            default = default.and(chapter.default);
            for rule in &chapter.rules {
                let Some(peers) = &rule.peers else {
                    of_group.entry(Number::EVERYBODY).or_default().push(rule);
                    continue;
                };
                for place in peers {
                    of_group.entry(self.peers.all[*place].1).or_default().push(rule);
                }
                for (own, stands_for) in &self.own {
                    if peers.iter().any(|place| stands_for.contains(place)) {
                        of_group.entry(*own).or_default().push(rule);
                    }
                }
            }
        }
        let mut cells: BTreeMap<Number, Cell> = of_group
            .into_iter()
            .map(|(group, rules)| (group, cell(tables, &rules)))
            .collect();
        let said_of_nobody = Cell {
            all: default,
            list: Number::NONE,
        };
        cells.insert(Number::NOBODY, said_of_nobody);
        let parts = cells.iter().map(|(group, cell)| {
            let mut part = group.0.to_le_bytes().to_vec();
            part.extend(cell.list.0.to_le_bytes());
            part.extend(bytes(cell.all));
            part
        });
        let number = Number::of("subject", [direction.to_string().into_bytes()].into_iter().chain(parts));
        tables
            .cells
            .extend(cells.into_iter().map(|(group, cell)| ((number, group), cell)));
        number
    }
}

fn chapter(policy: &Policy, direction: Direction, peers: &Peers<'_>) -> Option<Chapter> {
    let says = |verdict, rule| Judgement::of(Spoken { verdict, rule }, policy.audit);
    let rules = policy.rules(direction)?.enumerate().map(|(place, rule)| Prepared {
        says: says(rule.action, policy.rule_number(direction, place)),
        peers: rule.peers.as_ref().map(|named| {
            let mut places: Vec<usize> = named.iter().map(|peer| peers.places[peer]).collect();
            places.sort_unstable();
            places.dedup();
            places
        }),
        blocks: rule
            .traffic
            .as_ref()
            .map(|traffic| traffic.iter().flat_map(|traffic| traffic.blocks()).collect()),
    });
    Some(Chapter {
        default: says(Verdict::Deny, policy.default_number(direction)),
        rules: rules.collect(),
    })
}

/// What rules say together, and the list where that differs by traffic.
fn cell(tables: &mut Tables, rules: &[&Prepared]) -> Cell {
    let mut all = Judgement::default();
    let mut blocks: BTreeMap<Block, Judgement> = BTreeMap::new();
    for rule in rules {
        match &rule.blocks {
            None => all = all.and(rule.says),
            Some(own) => {
                for block in own {
                    let said = blocks.entry(*block).or_default();
                    *said = said.and(rule.says);
                }
            }
        }
    }
    // Each block alone says what is said of it; looked up, it is to say what is said of all around it too.
    let whole: Vec<(Block, Judgement)> = blocks
        .keys()
        .map(|block| {
            let around =
                (0..=block.bits).filter_map(|bits| blocks.get(&Block::around(block.protocol, block.port, bits)));
            (*block, around.fold(all, |said, other| said.and(*other)))
        })
        .collect();
    if whole.is_empty() {
        return Cell {
            all,
            list: Number::NONE,
        };
    }
    let parts = whole.iter().map(|(block, said)| {
        let mut part = vec![block.protocol, block.bits];
        part.extend(block.port.to_le_bytes());
        part.extend(bytes(*said));
        part
    });
    let list = Number::of("list", parts);
    tables
        .lists
        .extend(whole.iter().map(|(block, said)| ((list, *block), *said)));
    Cell { all, list }
}

fn bytes(said: Judgement) -> Vec<u8> {
    [said.enforced, said.audited]
        .into_iter()
        .flat_map(|spoken| {
            let (verdict, rule) = spoken.map_or((0, 0), |spoken| (spoken.verdict as u8, spoken.rule.0));
            [verdict].into_iter().chain(rule.to_le_bytes())
        })
        .collect()
}
