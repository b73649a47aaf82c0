//! What `iptables-save` prints, of either kind: rules that are in the kernel's old tables (legacy) or in nftables.

use std::net::IpAddr;

use ipnet::IpNet;
use sluice_model::network::Family;

use super::{
    nftables::protocol_number,
    ruleset::{Addresses, Condition, Root, Rule, Ruleset, Verdict},
};

/// Who prints the rules there may be, and whether they are IPv4's.
pub const PROGRAMS: [(&str, bool); 4] = [
    ("iptables-nft-save", true),
    ("iptables-legacy-save", true),
    ("ip6tables-nft-save", false),
    ("ip6tables-legacy-save", false),
];

/// The chains that a packet for the host passes, by table.
const ROOTS: [(&str, &str); 5] = [
    ("raw", "PREROUTING"),
    ("mangle", "PREROUTING"),
    ("mangle", "INPUT"),
    ("filter", "INPUT"),
    ("security", "INPUT"),
];

/// Targets that decide nothing.
const EFFECTLESS: [&str; 20] = [
    "AUDIT",
    "CHECKSUM",
    "CLASSIFY",
    "CONNMARK",
    "CONNSECMARK",
    "CT",
    "DSCP",
    "ECN",
    "HL",
    "HMARK",
    "LED",
    "LOG",
    "MARK",
    "NFLOG",
    "NOTRACK",
    "SECMARK",
    "SET",
    "TCPMSS",
    "TRACE",
    "TTL",
];

/// The rules in what was printed; none where nothing judges what comes in.
pub fn read(text: &str, is_ipv4: bool) -> Option<Ruleset> {
    let mut ruleset = Ruleset {
        name: "iptables".to_owned(),
        family: Some(match is_ipv4 {
            true => Family::V4,
            false => Family::V6,
        }),
        ..Ruleset::default()
    };
    let mut table = "";
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('*') {
            table = name.trim();
        } else if let Some(chain) = line.strip_prefix(':') {
            let mut words = chain.split_whitespace();
            let (name, policy) = (words.next().unwrap_or_default(), words.next());
            if name.starts_with("ufw-") {
                ruleset.name = "ufw".to_owned();
            }
            ruleset.chains.entry(format!("{table}/{name}")).or_default();
            if ROOTS.contains(&(table, name)) {
                ruleset.roots.push(Root {
                    chain: format!("{table}/{name}"),
                    accepts: policy != Some("DROP"),
                });
            }
        } else if let Some(rule) = line.strip_prefix("-A ") {
            let words = words(rule);
            let Some((chain, rest)) = words.split_first() else {
                continue;
            };
            if let Some(rule) = read_rule(table, rest) {
                ruleset.chains.entry(format!("{table}/{chain}")).or_default().push(rule);
            }
        }
    }
    let judges = !ruleset.roots.is_empty()
        && ruleset
            .roots
            .iter()
            .any(|root| !root.accepts || ruleset.chains.get(&root.chain).is_some_and(|rules| !rules.is_empty()));
    judges.then_some(ruleset)
}

/// A rule that may decide something.
fn read_rule(table: &str, words: &[String]) -> Option<Rule> {
    let mut conditions = Vec::new();
    let mut at = 0;
    let mut is_negated = false;
    while let Some(word) = words.get(at) {
        at += 1;
        // an option's values: everything up to the next option
        let values = words[at..]
            .iter()
            .take_while(|word| !word.starts_with('-') && *word != "!")
            .count();
        let value = words.get(at).filter(|_| values > 0).map_or("", String::as_str);
        match word.as_str() {
            "!" => {
                is_negated = true;
                continue;
            }
            "-j" | "--jump" => return verdict(table, value, false).map(|verdict| Rule { conditions, verdict }),
            "-g" | "--goto" => return verdict(table, value, true).map(|verdict| Rule { conditions, verdict }),
            "-m" | "--match" | "--comment" => {}
            option => conditions.push(condition(option, &words[at..at + values]).negated(is_negated)),
        }
        is_negated = false;
        at += values;
    }
    None
}

fn verdict(table: &str, target: &str, goes: bool) -> Option<Verdict> {
    match target {
        "ACCEPT" => Some(Verdict::Accept),
        "DROP" | "REJECT" => Some(Verdict::Drop),
        "RETURN" => Some(Verdict::Return),
        "QUEUE" | "NFQUEUE" | "SYNPROXY" | "TARPIT" | "TPROXY" => Some(Verdict::Unread),
        target if EFFECTLESS.contains(&target) => None,
        chain if goes => Some(Verdict::Goto(format!("{table}/{chain}"))),
        chain => Some(Verdict::Jump(format!("{table}/{chain}"))),
    }
}

/// What an option asks of packets.
fn condition(option: &str, values: &[String]) -> Condition {
    let value = values.first().map_or("", String::as_str);
    let any = |parse: fn(&str) -> Condition| Condition::Any(value.split(',').map(parse).collect());
    let is_among = |wanted: &str| Condition::Known(value.split(',').any(|one| one.eq_ignore_ascii_case(wanted)));
    match option {
        "-i" | "--in-interface" => Condition::Device(value.replace('+', "*")),
        "-p" | "--protocol" if value == "all" || value == "0" => Condition::Known(true),
        "-p" | "--protocol" => Condition::Protocol(protocol_number(value)),
        "-s" | "--source" => any(|text| addresses(text).map_or(Condition::Unread, Condition::Source)),
        "-d" | "--destination" => any(|text| addresses(text).map_or(Condition::Unread, Condition::Destination)),
        "--src-range" => any(|text| range(text).map_or(Condition::Unread, Condition::Source)),
        "--dst-range" => any(|text| range(text).map_or(Condition::Unread, Condition::Destination)),
        "--dport" | "--destination-port" | "--dports" | "--destination-ports" | "--ports" => any(ports),
        "--sport" | "--source-port" | "--sports" | "--source-ports" => Condition::Sometimes,
        "--ctstate" | "--state" => is_among("NEW"),
        "--ctstatus" => is_among("NONE"),
        "--ctdir" => is_among("ORIGINAL"),
        "--dst-type" => is_among("LOCAL"),
        "--src-type" => is_among("UNICAST"),
        "--pkt-type" => is_among("unicast"),
        "--syn" => Condition::Known(true),
        "--tcp-flags" => tcp_flags(values),
        // by the sender, or by how many come
        "--match-set" | "--mac-source" | "--limit" | "--limit-burst" | "--hashlimit-upto" | "--hashlimit-above"
        | "--connlimit-upto" | "--connlimit-above" | "--set" | "--update" | "--rcheck" | "--remove"
        | "--probability" => Condition::Sometimes,
        // settings of the above
        "--name"
        | "--seconds"
        | "--hitcount"
        | "--mask"
        | "--rsource"
        | "--rdest"
        | "--reap"
        | "--rttl"
        | "--mode"
        | "--hashlimit-mode"
        | "--hashlimit-name"
        | "--hashlimit-burst"
        | "--hashlimit-srcmask"
        | "--hashlimit-htable-expire"
        | "--connlimit-mask"
        | "--connlimit-saddr"
        | "--connlimit-daddr"
        | "--return-nomatch" => Condition::Known(true),
        // of ICMP alone, and the protocol was said already
        "--icmp-type" | "--icmpv6-type" => Condition::Sometimes,
        _ => Condition::Unread,
    }
}

/// `SYN,ACK,FIN,RST SYN`: these are looked at, and those of them are set. Ours is the first packet of a connection.
fn tcp_flags(values: &[String]) -> Condition {
    let [mask, set] = values else {
        return Condition::Unread;
    };
    let has_syn = |list: &str| list.split(',').any(|flag| flag == "SYN" || flag == "ALL");
    let sets_others = set.split(',').any(|flag| flag != "SYN" && flag != "NONE");
    Condition::Known(!sets_others && has_syn(set) == has_syn(mask))
}

fn ports(text: &str) -> Condition {
    let (first, last) = text.split_once(':').unwrap_or((text, text));
    let first = if first.is_empty() { Ok(0) } else { first.parse() };
    let last = if last.is_empty() { Ok(u16::MAX) } else { last.parse() };
    match (first, last) {
        (Ok(first), Ok(last)) => Condition::Port(first..=last),
        _ => Condition::Unread,
    }
}

fn addresses(text: &str) -> Option<Addresses> {
    let net = text
        .parse::<IpNet>()
        .or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    net.ok().map(Addresses::from)
}

fn range(text: &str) -> Option<Addresses> {
    let (first, last) = text.split_once('-')?;
    Some(Addresses {
        first: first.parse().ok()?,
        last: last.parse().ok()?,
    })
}

/// The words of a line; one in double quotes may have blanks.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word) = (Vec::new(), None::<String>);
    let (mut is_quoted, mut is_escaped) = (false, false);
    for character in line.chars() {
        match character {
            _ if is_escaped => {
                word.get_or_insert_default().push(character);
                is_escaped = false;
            }
            '\\' => is_escaped = true,
            '"' => {
                is_quoted = !is_quoted;
                word.get_or_insert_default();
            }
            ' ' if !is_quoted => words.extend(word.take()),
            _ => word.get_or_insert_default().push(character),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::firewall::{Belief, Visit, judge::belief};

    /// What `ufw enable`, `ufw allow 22/tcp`, `ufw allow from 192.0.2.0/24 to any port 8080` and `ufw limit 2222/tcp` leave, shortened.
    const UFW: &str = r#"
*filter
:INPUT DROP [5:300]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [2:100]
:ufw-after-input - [0:0]
:ufw-before-input - [0:0]
:ufw-before-logging-input - [0:0]
:ufw-logging-deny - [0:0]
:ufw-not-local - [0:0]
:ufw-reject-input - [0:0]
:ufw-skip-to-policy-input - [0:0]
:ufw-user-input - [0:0]
:ufw-user-limit - [0:0]
:ufw-user-limit-accept - [0:0]
-A INPUT -j ufw-before-logging-input
-A INPUT -j ufw-before-input
-A INPUT -j ufw-after-input
-A INPUT -j ufw-reject-input
-A ufw-after-input -p udp -m udp --dport 137 -j ufw-skip-to-policy-input
-A ufw-after-input -m addrtype --dst-type BROADCAST -j ufw-skip-to-policy-input
-A ufw-before-input -i lo -j ACCEPT
-A ufw-before-input -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A ufw-before-input -m conntrack --ctstate INVALID -j ufw-logging-deny
-A ufw-before-input -m conntrack --ctstate INVALID -j DROP
-A ufw-before-input -p icmp -m icmp --icmp-type 8 -j ACCEPT
-A ufw-before-input -p udp -m udp --sport 67 --dport 68 -j ACCEPT
-A ufw-before-input -j ufw-not-local
-A ufw-before-input -d 224.0.0.251/32 -p udp -m udp --dport 5353 -j ACCEPT
-A ufw-before-input -j ufw-user-input
-A ufw-logging-deny -m limit --limit 3/min --limit-burst 10 -j LOG --log-prefix "[UFW BLOCK] "
-A ufw-not-local -m addrtype --dst-type LOCAL -j RETURN
-A ufw-not-local -m addrtype --dst-type MULTICAST -j RETURN
-A ufw-not-local -m limit --limit 3/min --limit-burst 10 -j ufw-logging-deny
-A ufw-not-local -j DROP
-A ufw-skip-to-policy-input -j DROP
-A ufw-user-input -p tcp -m tcp --dport 22 -m comment --comment "the way in -j DROP" -j ACCEPT
-A ufw-user-input -s 192.0.2.0/24 -p tcp -m tcp --dport 8080 -j ACCEPT
-A ufw-user-input -p tcp -m tcp --dport 2222 -m conntrack --ctstate NEW -m recent --set --name DEFAULT --mask 255.255.255.255 --rsource
-A ufw-user-input -p tcp -m tcp --dport 2222 -m conntrack --ctstate NEW -m recent --update --seconds 30 --hitcount 6 --name DEFAULT --mask 255.255.255.255 --rsource -j ufw-user-limit
-A ufw-user-input -p tcp -m tcp --dport 2222 -j ufw-user-limit-accept
-A ufw-user-input -p tcp -m multiport --dports 6000:6007,7000 -j ACCEPT
-A ufw-user-limit -j REJECT --reject-with icmp-port-unreachable
-A ufw-user-limit-accept -j ACCEPT
COMMIT
"#;

    fn visit(source: &str, protocol: u8, port: u16) -> Visit {
        Visit {
            device: "eth0".into(),
            source: source.parse().unwrap(),
            address: "10.88.0.1".parse().unwrap(),
            protocol,
            port,
        }
    }

    #[test]
    fn what_ufw_believes_is_read_from_its_rules() {
        let ufw = read(UFW, true).unwrap();
        assert_eq!(ufw.name, "ufw");
        let world = "0.0.0.0/0";
        for (source, protocol, port, expected) in [
            (world, 6, 22, Belief::Open),
            (world, 17, 22, Belief::Closed),
            (world, 6, 80, Belief::Closed),
            (world, 6, 8080, Belief::Limited),
            ("192.0.2.0/25", 6, 8080, Belief::Open),
            ("198.51.100.0/24", 6, 8080, Belief::Closed),
            (world, 6, 2222, Belief::Limited),
            (world, 6, 6005, Belief::Open),
            (world, 6, 7000, Belief::Open),
            (world, 6, 7001, Belief::Closed),
            (world, 17, 137, Belief::Closed),
        ] {
            assert_eq!(
                belief(&ufw, &visit(source, protocol, port)),
                expected,
                "{source} {protocol} {port}"
            );
        }
        let own = Visit {
            device: "lo".into(),
            ..visit(world, 6, 80)
        };
        assert_eq!(belief(&ufw, &own), Belief::Open);
        let other_family = Visit {
            address: "2001:db8::1".parse().unwrap(),
            ..visit("::/0", 6, 80)
        };
        assert_eq!(belief(&ufw, &other_family), Belief::Open, "these are IPv4's rules");
    }

    #[test]
    fn a_rule_that_cannot_be_read_is_neither_believed_nor_passed_over() {
        let rules = |rule: &str| {
            let text = format!("*filter\n:INPUT ACCEPT [0:0]\n-A INPUT {rule}\nCOMMIT\n");
            // what judges nothing is no firewall
            read(&text, true).map_or(Belief::Open, |rules| belief(&rules, &visit("0.0.0.0/0", 6, 80)))
        };
        for (rule, expected) in [
            ("-m bpf --bytecode \"1,6 0 0 0\" -j DROP", Belief::Unclear),
            ("-p udp -m bpf --bytecode \"1,6 0 0 0\" -j DROP", Belief::Open),
            ("-m bpf --bytecode \"1,6 0 0 0\" -j ACCEPT", Belief::Open),
            (
                "-m bpf --bytecode \"1,6 0 0 0\" -j MARK --set-xmark 0x1/0xffffffff",
                Belief::Open,
            ),
            ("-p tcp ! --dport 22 -j DROP", Belief::Closed),
            ("-p tcp ! --dport 80 -j DROP", Belief::Open),
            ("! -i lo -j REJECT --reject-with icmp-port-unreachable", Belief::Closed),
            ("-i eth+ -j DROP", Belief::Closed),
            (
                "-p tcp -m tcp ! --tcp-flags FIN,SYN,RST,ACK SYN -m conntrack --ctstate NEW -j DROP",
                Belief::Open,
            ),
            (
                "-p tcp -m tcp --tcp-flags FIN,SYN,RST,PSH,ACK,URG NONE -j DROP",
                Belief::Open,
            ),
            ("-j NFQUEUE --queue-num 0", Belief::Unclear),
            ("-m iprange --src-range 192.0.2.1-192.0.2.9 -j DROP", Belief::Limited),
        ] {
            assert_eq!(rules(rule), expected, "{rule}");
        }
    }

    #[test]
    fn tables_that_judge_nothing_are_no_firewall() {
        let text =
            "*nat\n:PREROUTING ACCEPT [0:0]\nCOMMIT\n*filter\n:INPUT ACCEPT [0:0]\n:FORWARD DROP [0:0]\nCOMMIT\n";
        assert!(read(text, true).is_none());
        assert!(read("", true).is_none());
    }
}
