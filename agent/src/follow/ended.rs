//! Conversations that the agent ends, for those who follow conversations: the kernel's programs end none.

use std::{collections::HashSet, net::IpAddr};

use jiff::Timestamp;
use sluice_datapath_common::{
    event::{CLOSED, FlowEvent},
    flow::{FLOW_IS_REPLY, Flow, FlowKey, State},
};

use super::tell::{Record, Recorded};
use crate::{
    expire::{now, reverse},
    view::Untold,
};

/// How many are told of one by one after a walk.
const MOST: usize = 2_048;

/// Of [`FlowEvent::kind`], beside those of the kernel: nobody used it for too long.
pub const IDLE: u32 = 0x100;
/// One of its endpoints is gone.
pub const GONE: u32 = 0x101;

/// Those that a walk has ended.
#[derive(Default)]
pub struct Ended {
    records: Vec<Record>,
    /// A walk may meet a conversation by both of its entries.
    met: HashSet<(IpAddr, IpAddr, u16, u16, u32, u8)>,
    too_many: u64,
}

impl Ended {
    /// Notes the conversation of an entry, whose other one may be gone. The end of one that its ends have closed was told by the kernel.
    pub fn note<F: Recorded>(&mut self, key: &FlowKey<F>, flow: &Flow<F>, other: Option<&Flow<F>>, why: u32) {
        if flow.state == State::Closed as u8 {
            return;
        }
        let back = reverse(key, flow);
        let (key, flow, reply) = match (flow.flags & FLOW_IS_REPLY, other) {
            (0, reply) => (*key, flow, reply),
            (_, Some(forward)) => (back, forward, Some(flow)),
            // Half a conversation: the opener's half was told of, or nothing is known of it.
            (_, None) => return,
        };
        let (source, destination) = (F::told(key.source), F::told(key.destination));
        let (scope, protocol) = (key.scope, key.protocol);
        if !self.met.insert((
            source,
            destination,
            key.source_port,
            key.destination_port,
            scope,
            protocol,
        )) {
            return;
        }
        if self.records.len() >= MOST {
            self.too_many += 1;
            return;
        }
        self.records.push(F::record(FlowEvent {
            time: now(),
            reply_packets: reply.map_or(0, |reply| reply.packets),
            reply_bytes: reply.map_or(0, |reply| reply.bytes),
            rule: 0,
            flow: *flow,
            key,
            kind: why,
        }));
    }

    /// All that were noted, and how many more there were.
    pub fn take(self) -> (Vec<Record>, Option<Untold>) {
        let untold = (self.too_many > 0).then(|| Untold {
            time: Timestamp::now(),
            reason: "close".to_owned(),
            number: CLOSED,
            too_many: self.too_many,
            lost: 0,
        });
        (self.records, untold)
    }
}

#[cfg(test)]
mod tests {
    use sluice_datapath_common::{Ipv4, Ipv4Address};

    use super::*;

    #[test]
    fn a_conversation_is_told_once_whichever_of_its_entries_is_met_first() {
        let key = FlowKey::<Ipv4> {
            source: Ipv4Address::new([172, 17, 0, 2]),
            destination: Ipv4Address::new([172, 17, 0, 3]),
            source_port: 4000u16.to_be(),
            destination_port: 80u16.to_be(),
            scope: 2,
            protocol: 6,
            padding: [0; 3],
        };
        let flow = Flow {
            packets: 3,
            source: key.source,
            destination: key.destination,
            source_port: key.source_port,
            destination_port: key.destination_port,
            reverse_scope: 2,
            ..Flow::default()
        };
        let back = reverse(&key, &flow);
        let reply = Flow {
            packets: 5,
            source: back.source,
            destination: back.destination,
            source_port: back.source_port,
            destination_port: back.destination_port,
            flags: FLOW_IS_REPLY,
            ..flow
        };
        let mut ended = Ended::default();
        ended.note(&back, &reply, Some(&flow), IDLE);
        ended.note(&key, &flow, Some(&reply), IDLE);
        let closed = State::Closed as u8;
        let other = FlowKey { source_port: 1, ..key };
        ended.note(&other, &Flow { state: closed, ..flow }, None, IDLE);
        let (records, untold) = ended.take();
        let [Record::Flow4(told)] = &records[..] else {
            panic!("{} records", records.len())
        };
        assert_eq!(
            (told.key, told.flow, told.reply_packets, told.kind),
            (key, flow, 5, IDLE)
        );
        assert_eq!(untold, None);
    }
}
