//! What `nft -j list ruleset` prints (libnftables-json(5)).

use std::{collections::HashMap, io, net::IpAddr};

use ipnet::IpNet;
use serde_json::{Map, Value};
use sluice_model::network::Family;

use super::ruleset::{Addresses, Condition, Root, Rule, Ruleset, Verdict};

/// By family and name.
type TableName<'a> = (&'a str, &'a str);
/// Sets and maps by table and name, with their elements.
type Sets<'a> = HashMap<(TableName<'a>, &'a str), &'a [Value]>;

/// Each table in which something judges what comes in.
pub fn read(text: &str) -> io::Result<Vec<Ruleset>> {
    let document: Value = serde_json::from_str(text)?;
    let objects = document["nftables"].as_array().map_or(&[][..], Vec::as_slice);
    let of_kind = |kind: &'static str| objects.iter().filter_map(move |object| object.get(kind));
    let sets: Sets<'_> = of_kind("set")
        .chain(of_kind("map"))
        .map(|set| {
            let elements = set["elem"].as_array().map_or(&[][..], Vec::as_slice);
            ((table_of(set), text_of(set, "name")), elements)
        })
        .collect();
    let mut tables: HashMap<TableName<'_>, Ruleset> = HashMap::new();
    for chain in of_kind("chain") {
        let (family, name) = table_of(chain);
        if !["inet", "ip", "ip6"].contains(&family) {
            continue;
        }
        let ruleset = tables
            .entry((family, name))
            .or_insert_with(|| new_ruleset(family, name));
        let chain_name = text_of(chain, "name");
        ruleset.chains.entry(chain_name.to_owned()).or_default();
        // before routing too a packet can be dropped; what is translated there is not judged
        if text_of(chain, "type") == "filter" && ["input", "prerouting"].contains(&text_of(chain, "hook")) {
            // the name that iptables gives in tables of its own
            ruleset.is_of_iptables |= family != "inet" && ["INPUT", "PREROUTING"].contains(&chain_name);
            ruleset.roots.push(Root {
                chain: chain_name.to_owned(),
                accepts: text_of(chain, "policy") != "drop",
            });
        }
    }
    for rule in of_kind("rule") {
        let table = table_of(rule);
        let Some(ruleset) = tables.get_mut(&table) else {
            continue;
        };
        let statements = rule["expr"].as_array().map_or(&[][..], Vec::as_slice);
        let rules = Reader { table, sets: &sets }.rules(statements);
        let chain = ruleset.chains.entry(text_of(rule, "chain").to_owned()).or_default();
        chain.extend(rules);
    }
    let judges = |ruleset: &Ruleset| {
        ruleset.roots.iter().any(|root| {
            let is_empty = ruleset.chains.get(&root.chain).is_none_or(Vec::is_empty);
            !root.accepts || !is_empty
        })
    };
    let mut rulesets: Vec<Ruleset> = tables.into_values().filter(judges).collect();
    rulesets.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(rulesets)
}

fn new_ruleset(family: &str, name: &str) -> Ruleset {
    Ruleset {
        name: match name {
            "firewalld" => "firewalld".to_owned(),
            _ => format!("nftables ({family} {name})"),
        },
        family: match family {
            "ip" => Some(Family::V4),
            "ip6" => Some(Family::V6),
            _ => None,
        },
        ..Ruleset::default()
    }
}

fn table_of(object: &Value) -> TableName<'_> {
    (text_of(object, "family"), text_of(object, "table"))
}

fn text_of<'a>(object: &'a Value, name: &str) -> &'a str {
    object[name].as_str().unwrap_or_default()
}

/// What a rule looks at.
enum Looked {
    Device,
    Protocol,
    Family,
    Source,
    Destination,
    Port,
    /// What is the same in all packets like ours, as the rule calls it.
    Fact(&'static str),
    /// What only the sender knows.
    Senders,
    Several(Vec<Looked>),
    Unread,
}

/// Reads the rules of a table.
struct Reader<'a> {
    table: TableName<'a>,
    sets: &'a Sets<'a>,
}

impl<'a> Reader<'a> {
    /// What may decide in a rule; of a map of verdicts each line is one.
    fn rules(&self, statements: &[Value]) -> Vec<Rule> {
        let (mut rules, mut conditions) = (Vec::new(), Vec::new());
        for statement in statements {
            let Some((kind, content)) = only(statement) else {
                conditions.push(Condition::Unread);
                continue;
            };
            if let Some(verdict) = verdict(statement) {
                rules.extend(verdict.map(|verdict| Rule { conditions, verdict }));
                return rules;
            }
            match kind {
                "match" => conditions.push(self.matches(content)),
                "vmap" => {
                    let looked = looked(&content["key"]);
                    for pair in self.elements(&content["data"]) {
                        let Some([key, verdict]) = pair.as_array().map(Vec::as_slice) else {
                            continue;
                        };
                        let mut conditions = conditions.clone();
                        conditions.push(requires(&content["key"]));
                        conditions.push(self.is(&looked, key));
                        if let Some(verdict) = self::verdict(verdict).unwrap_or(Some(Verdict::Unread)) {
                            rules.push(Rule { conditions, verdict });
                        }
                    }
                }
                "limit" | "quota" | "ct count" | "meter" => conditions.push(Condition::Sometimes),
                "counter" | "log" | "comment" | "mangle" | "notrack" | "set" | "map" | "flow" | "secmark" | "last" => {}
                _ => conditions.push(Condition::Unread),
            }
        }
        rules
    }

    fn matches(&self, content: &Value) -> Condition {
        let left = &content["left"];
        let looked = looked(left);
        let right = &content["right"];
        let is_among = || {
            Condition::Any(
                self.elements(right)
                    .iter()
                    .map(|value| self.is(&looked, value))
                    .collect(),
            )
        };
        let port = || right.as_u64().and_then(|port| u16::try_from(port).ok());
        let holds = match text_of(content, "op") {
            "==" | "in" => is_among(),
            "!=" => is_among().negated(true),
            "<=" if matches!(looked, Looked::Port) => {
                port().map_or(Condition::Unread, |port| Condition::Port(0..=port))
            }
            ">=" if matches!(looked, Looked::Port) => {
                port().map_or(Condition::Unread, |port| Condition::Port(port..=u16::MAX))
            }
            "<" if matches!(looked, Looked::Port) => port()
                .and_then(|port| port.checked_sub(1))
                .map_or(Condition::Unread, |port| Condition::Port(0..=port)),
            ">" if matches!(looked, Looked::Port) => port()
                .and_then(|port| port.checked_add(1))
                .map_or(Condition::Unread, |port| Condition::Port(port..=u16::MAX)),
            _ => Condition::Unread,
        };
        Condition::All(vec![requires(left), holds])
    }

    /// The elements of a set, by its name or written out; of one value that value.
    fn elements<'v>(&self, value: &'v Value) -> Vec<&'v Value>
    where
        'a: 'v,
    {
        if let Some(name) = value.as_str().and_then(|text| text.strip_prefix('@')) {
            let elements = self.sets.get(&(self.table, name)).copied().unwrap_or_default();
            return elements.iter().map(bare).collect();
        }
        match value.get("set").unwrap_or(value) {
            Value::Array(elements) => elements.iter().map(bare).collect(),
            single => vec![bare(single)],
        }
    }

    /// Is what is looked at this value?
    fn is(&self, looked: &Looked, value: &Value) -> Condition {
        let value = bare(value);
        // one element may itself be a set
        if value.get("set").is_some() {
            return Condition::Any(
                self.elements(value)
                    .iter()
                    .map(|value| self.is(looked, value))
                    .collect(),
            );
        }
        let condition = match looked {
            Looked::Several(parts) => {
                let values = value.get("concat").and_then(Value::as_array);
                values.filter(|values| values.len() == parts.len()).map(|values| {
                    Condition::All(
                        parts
                            .iter()
                            .zip(values)
                            .map(|(part, value)| self.is(part, value))
                            .collect(),
                    )
                })
            }
            Looked::Device => value.as_str().map(|name| Condition::Device(name.to_owned())),
            Looked::Protocol => match value {
                Value::String(name) => Some(Condition::Protocol(protocol_number(name))),
                number => number
                    .as_u64()
                    .and_then(|number| u8::try_from(number).ok())
                    .map(Condition::Protocol),
            },
            Looked::Family => match value.as_str() {
                Some("ip" | "ipv4") => Some(Condition::Family(Family::V4)),
                Some("ip6" | "ipv6") => Some(Condition::Family(Family::V6)),
                Some(_) => Some(Condition::Known(false)),
                None => None,
            },
            Looked::Source => addresses(value).map(Condition::Source),
            Looked::Destination => addresses(value).map(Condition::Destination),
            Looked::Port => match value.get("range").and_then(Value::as_array).map(Vec::as_slice) {
                Some([first, last]) => port(first)
                    .zip(port(last))
                    .map(|(first, last)| Condition::Port(first..=last)),
                _ => port(value).map(|port| Condition::Port(port..=port)),
            },
            Looked::Fact(fact) => match value {
                Value::String(word) => Some(Condition::Known(word == fact)),
                Value::Bool(is_so) => Some(Condition::Known(*is_so == (*fact == "exists"))),
                _ => None,
            },
            Looked::Senders => Some(Condition::Sometimes),
            Looked::Unread => None,
        };
        // "*" in a map is everything
        match value.as_str() {
            Some("*") => Condition::Known(true),
            _ => condition.unwrap_or(Condition::Unread),
        }
    }
}

/// The only member of an object.
fn only(value: &Value) -> Option<(&str, &Value)> {
    let object: &Map<String, Value> = value.as_object()?;
    object.iter().next().map(|(kind, content)| (kind.as_str(), content))
}

/// An element without what is said about it (time-outs, counters).
fn bare(value: &Value) -> &Value {
    value
        .get("elem")
        .and_then(|element| element.get("val"))
        .unwrap_or(value)
}

/// What a statement does with the packet; the inner None: nothing. The outer one: it is no verdict.
fn verdict(statement: &Value) -> Option<Option<Verdict>> {
    let (kind, content) = only(statement)?;
    let target = || text_of(content, "target").to_owned();
    Some(match kind {
        "accept" => Some(Verdict::Accept),
        "drop" | "reject" => Some(Verdict::Drop),
        "return" => Some(Verdict::Return),
        "continue" => None,
        "jump" => Some(Verdict::Jump(target())),
        "goto" => Some(Verdict::Goto(target())),
        "queue" | "synproxy" | "tproxy" => Some(Verdict::Unread),
        _ => return None,
    })
}

/// What packets must be for a rule to find what it looks at.
fn requires(left: &Value) -> Condition {
    if let Some(parts) = left.get("concat").and_then(Value::as_array) {
        return Condition::All(parts.iter().map(requires).collect());
    }
    if let Some(parts) = left.get("&").and_then(Value::as_array) {
        return parts.first().map_or(Condition::Known(true), requires);
    }
    let Some(payload) = left.get("payload") else {
        return Condition::Known(true);
    };
    match text_of(payload, "protocol") {
        "ip" => Condition::Family(Family::V4),
        "ip6" => Condition::Family(Family::V6),
        "th" | "ether" | "" => Condition::Known(true),
        protocol => Condition::Protocol(protocol_number(protocol)),
    }
}

fn looked(left: &Value) -> Looked {
    let Some((kind, content)) = only(left) else {
        return Looked::Unread;
    };
    match kind {
        "concat" => Looked::Several(content.as_array().into_iter().flatten().map(looked).collect()),
        "meta" => match text_of(content, "key") {
            "iif" | "iifname" => Looked::Device,
            "l4proto" => Looked::Protocol,
            "nfproto" | "protocol" => Looked::Family,
            "pkttype" => Looked::Fact("host"),
            _ => Looked::Unread,
        },
        "payload" => match (text_of(content, "protocol"), text_of(content, "field")) {
            ("ip" | "ip6", "saddr") => Looked::Source,
            ("ip" | "ip6", "daddr") => Looked::Destination,
            ("ip", "protocol") | ("ip6", "nexthdr") => Looked::Protocol,
            (_, "dport") => Looked::Port,
            (_, "sport") | ("ether", "saddr") => Looked::Senders,
            ("tcp", "flags") => Looked::Fact("syn"),
            ("icmp" | "icmpv6", _) => Looked::Senders,
            _ => Looked::Unread,
        },
        // `tcp flags & (fin | syn | rst | ack)`: of a first packet the same as the flags, if SYN is among those looked at
        "&" => match content.as_array().map(Vec::as_slice) {
            Some([inner, mask])
                if matches!(looked(inner), Looked::Fact("syn")) && mask.to_string().contains("\"syn\"") =>
            {
                Looked::Fact("syn")
            }
            _ => Looked::Unread,
        },
        "ct" => match text_of(content, "key") {
            "state" => Looked::Fact("new"),
            "direction" => Looked::Fact("original"),
            // it is neither answered nor translated
            "status" => Looked::Fact("none"),
            _ => Looked::Unread,
        },
        "fib" => {
            let flags = content["flags"].to_string();
            match text_of(content, "result") {
                "type" if flags.contains("daddr") => Looked::Fact("local"),
                "type" => Looked::Fact("unicast"),
                // the way back to the sender is by the device it came in by
                "oif" | "oifname" | "check" => Looked::Fact("exists"),
                _ => Looked::Unread,
            }
        }
        _ => Looked::Unread,
    }
}

fn port(value: &Value) -> Option<u16> {
    value.as_u64().and_then(|port| u16::try_from(port).ok())
}

fn addresses(value: &Value) -> Option<Addresses> {
    let address = |value: &Value| value.as_str()?.parse::<IpAddr>().ok();
    if let Some(prefix) = value.get("prefix") {
        let length = prefix["len"].as_u64().and_then(|length| u8::try_from(length).ok())?;
        return IpNet::new(address(&prefix["addr"])?, length).ok().map(Addresses::from);
    }
    if let Some([first, last]) = value.get("range").and_then(Value::as_array).map(Vec::as_slice) {
        return Some(Addresses {
            first: address(first)?,
            last: address(last)?,
        });
    }
    address(value).map(|address| IpNet::from(address).into())
}

/// A protocol's number by the name that firewalls use; 255 (reserved): one that no port is published of.
pub fn protocol_number(name: &str) -> u8 {
    match name {
        "icmp" => 1,
        "tcp" => 6,
        "udp" => 17,
        "icmpv6" | "ipv6-icmp" => 58,
        "sctp" => 132,
        "udplite" => 136,
        other => other.parse().unwrap_or(255),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::firewall::{Belief, Visit, judge};

    /// `nft -j list ruleset` of a table with one chain at the hook `input`, of which these are the rules.
    fn table(policy: &str, rules: &[&str], more: &str) -> Vec<Ruleset> {
        let rules = rules.iter().map(|expr| {
            let (chain, expr) = expr.split_once(": ").unwrap();
            format!(r#",{{"rule":{{"family":"inet","table":"filter","chain":"{chain}","handle":9,"expr":[{expr}]}}}}"#)
        });
        let text = format!(
            r#"{{"nftables":[{{"metainfo":{{"json_schema_version":1}}}},{{"table":{{"family":"inet","name":"filter","handle":1}}}},
            {{"chain":{{"family":"inet","table":"filter","name":"input","handle":1,"type":"filter","hook":"input","prio":0,"policy":"{policy}"}}}},
            {{"chain":{{"family":"inet","table":"filter","name":"more","handle":2}}}}{more}{}]}}"#,
            rules.collect::<String>()
        );
        read(&text).unwrap()
    }

    fn belief(rulesets: &[Ruleset], port: u16) -> Belief {
        let visit = Visit {
            device: "eth0".into(),
            source: "0.0.0.0/0".parse().unwrap(),
            address: "10.88.0.1".parse().unwrap(),
            protocol: 6,
            port,
        };
        judge::belief(&rulesets[0], &visit)
    }

    const ESTABLISHED: &str = r#"input: {"match":{"op":"in","left":{"ct":{"key":"state"}},"right":["established","related"]}},{"accept":null}"#;

    #[test]
    fn a_policy_of_drop_closes_what_no_rule_opens() {
        let rulesets = table(
            "drop",
            &[
                ESTABLISHED,
                r#"input: {"match":{"op":"==","left":{"meta":{"key":"iifname"}},"right":"lo"}},{"accept":null}"#,
                r#"input: {"match":{"op":"==","left":{"payload":{"protocol":"tcp","field":"dport"}},"right":{"set":[22,{"range":[8000,8010]}]}}},{"counter":{"packets":1,"bytes":60}},{"accept":null}"#,
                r#"input: {"match":{"op":"==","left":{"payload":{"protocol":"udp","field":"dport"}},"right":53}},{"accept":null}"#,
                r#"input: {"match":{"op":"==","left":{"payload":{"protocol":"ip","field":"saddr"}},"right":{"prefix":{"addr":"192.0.2.0","len":24}}}},{"match":{"op":"==","left":{"payload":{"protocol":"tcp","field":"dport"}},"right":443}},{"accept":null}"#,
                r#"input: {"match":{"op":"==","left":{"payload":{"protocol":"tcp","field":"dport"}},"right":25}},{"limit":{"rate":10,"per":"second"}},{"accept":null}"#,
            ],
            "",
        );
        assert_eq!(rulesets[0].name, "nftables (inet filter)");
        for (port, expected) in [
            (22, Belief::Open),
            (8005, Belief::Open),
            (8011, Belief::Closed),
            (53, Belief::Closed),
            (443, Belief::Limited),
            (25, Belief::Limited),
        ] {
            assert_eq!(belief(&rulesets, port), expected, "{port}");
        }
    }

    #[test]
    fn maps_of_verdicts_sets_with_names_and_other_chains_are_followed() {
        let rulesets = table(
            "drop",
            &[
                r#"input: {"vmap":{"key":{"ct":{"key":"state"}},"data":{"set":[["established",{"accept":null}],["invalid",{"drop":null}]]}}}"#,
                r#"input: {"vmap":{"key":{"meta":{"key":"iifname"}},"data":{"set":[["lo",{"accept":null}],["eth0",{"jump":{"target":"more"}}]]}}}"#,
                r#"more: {"match":{"op":"==","left":{"concat":[{"meta":{"key":"l4proto"}},{"payload":{"protocol":"th","field":"dport"}}]},"right":"@open"}},{"accept":null}"#,
                r#"more: {"vmap":{"key":{"payload":{"protocol":"tcp","field":"dport"}},"data":"@doors"}}"#,
                r#"more: {"match":{"op":"!=","left":{"payload":{"protocol":"tcp","field":"dport"}},"right":{"range":[1,9000]}}},{"goto":{"target":"nowhere"}}"#,
            ],
            r#",{"set":{"family":"inet","name":"open","table":"filter","type":["inet_proto","inet_service"],"handle":3,"elem":[{"concat":["tcp",80]},{"elem":{"val":{"concat":["udp",81]},"timeout":60}}]}},
               {"map":{"family":"inet","name":"doors","table":"filter","type":"inet_service","handle":4,"map":"verdict","elem":[[82,{"accept":null}],[83,{"drop":null}]]}}"#,
        );
        for (port, expected) in [
            (80, Belief::Open),
            (81, Belief::Closed),
            (82, Belief::Open),
            (83, Belief::Closed),
            (84, Belief::Closed),
            (9001, Belief::Closed),
        ] {
            assert_eq!(belief(&rulesets, port), expected, "{port}");
        }
    }

    #[test]
    fn a_first_packet_is_new_has_syn_and_comes_from_where_answers_go() {
        let rulesets = table(
            "accept",
            &[
                r#"input: {"match":{"op":"==","left":{"fib":{"result":"oif","flags":["saddr","iif"]}},"right":false}},{"drop":null}"#,
                r#"input: {"match":{"op":"!=","left":{"&":[{"payload":{"protocol":"tcp","field":"flags"}},["fin","syn","rst","ack"]]},"right":"syn"}},{"match":{"op":"in","left":{"ct":{"key":"state"}},"right":"new"}},{"drop":null}"#,
                r#"input: {"match":{"op":"!=","left":{"fib":{"result":"type","flags":["daddr"]}},"right":"local"}},{"drop":null}"#,
                r#"input: {"match":{"op":"in","left":{"ct":{"key":"status"}},"right":"dnat"}},{"drop":null}"#,
                r#"input: {"xt":{"type":"match","name":"bpf"}},{"match":{"op":"==","left":{"payload":{"protocol":"tcp","field":"dport"}},"right":99}},{"drop":null}"#,
            ],
            "",
        );
        assert_eq!(belief(&rulesets, 80), Belief::Open);
        assert_eq!(belief(&rulesets, 99), Belief::Unclear);
    }

    #[test]
    fn tables_that_judge_nothing_are_no_firewall_and_what_is_no_json_is_an_error() {
        assert!(table("accept", &[], "").is_empty());
        assert!(read(r#"{"nftables":[]}"#).unwrap().is_empty());
        assert!(read("table inet filter {").is_err());
    }
}
