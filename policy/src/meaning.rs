//! What documents mean, as plainly as it can be told: every rule of every document is asked. The tables ([`compile`](crate::compile)) say the same faster.

use std::net::IpAddr;

use crate::{Direction, Facts, Judgement, Number, Peer, Policy, Rule, Verdict, verdict::Spoken};

/// Who is at an end of a conversation.
#[derive(Clone, Copy, Debug)]
pub enum Party<'a> {
    /// An endpoint, by one of its addresses.
    Endpoint(&'a Facts, IpAddr),
    /// The host itself, at this address.
    Host(IpAddr),
    /// Somebody who is neither.
    World(IpAddr),
    /// An address in a network of ours that no endpoint has.
    Vacant(IpAddr),
}

/// A conversation by who opens it, and after all translation.
#[derive(Clone, Copy, Debug)]
pub struct Conversation<'a> {
    /// Who speaks first.
    pub source: Party<'a>,
    /// Who is spoken to.
    pub destination: Party<'a>,
    /// IP protocol number.
    pub protocol: u8,
    /// The port that is spoken to, host byte order; of ICMP the type of the question.
    pub port: u16,
}

/// What is said of a conversation at both of its ends: the stricter. At an end that is no endpoint nothing is said.
pub fn judge<'a>(policies: &[Policy], conversation: &Conversation<'a>) -> Judgement {
    let Conversation {
        source, destination, ..
    } = conversation;
    let egress = judge_end(policies, Direction::Egress, *source, *destination, conversation);
    let ingress = judge_end(policies, Direction::Ingress, *destination, *source, conversation);
    egress.and(ingress)
}

/// What is said at one end.
pub fn judge_end(
    policies: &[Policy],
    direction: Direction,
    subject: Party<'_>,
    peer: Party<'_>,
    conversation: &Conversation<'_>,
) -> Judgement {
    let Party::Endpoint(subject, _) = subject else {
        return Judgement::default();
    };
    let (mut said, mut default) = (Judgement::default(), Judgement::default());
    for policy in policies.iter().filter(|policy| policy.select.selects(subject)) {
        let Some(rules) = policy.rules(direction) else { continue };
        let spoken = |verdict, rule: Number| Judgement::of(Spoken { verdict, rule }, policy.audit);
        // Who is selected is closed to all whom no rule speaks of.
        default = default.and(spoken(Verdict::Deny, policy.default_number(direction)));
        for (place, rule) in rules.enumerate() {
            if speaks_of(rule, peer, conversation) {
                said = said.and(spoken(rule.action, policy.rule_number(direction, place)));
            }
        }
    }
    said.or(default)
}

fn speaks_of(rule: &Rule, peer: Party<'_>, conversation: &Conversation<'_>) -> bool {
    let Conversation { protocol, port, .. } = *conversation;
    let peers = rule
        .peers
        .as_ref()
        .is_none_or(|peers| peers.iter().any(|one| is_meant(one, peer)));
    let traffic = rule
        .traffic
        .as_ref()
        .is_none_or(|traffic| traffic.iter().any(|traffic| traffic.covers(protocol, port)));
    peers && traffic
}

fn is_meant(peer: &Peer, party: Party<'_>) -> bool {
    match party {
        Party::Endpoint(facts, address) => peer.is_endpoint(facts, address),
        Party::Host(address) => *peer == Peer::Host || peer.holds(address),
        Party::World(address) => *peer == Peer::World || peer.holds(address),
        Party::Vacant(address) => peer.holds(address),
    }
}
