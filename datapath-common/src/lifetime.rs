//! How long a flow may be idle. The agent ends what is older; the packet path takes it for gone, whether the agent lives or not.

use crate::flow::{Flow, FlowKey, State};
use crate::{Family, Ipv4, Ipv6};

/// Nanoseconds of a second.
const SECOND: u64 = 1_000_000_000;

/// Nobody answered, or the opener has not completed TCP's handshake. Longer than the first four SYNs of Linux (at 0, 1, 3, 7, 15 s), shorter than
/// anybody waits for a UDP answer.
pub const UNANSWERED: u64 = 30 * SECOND;
/// TCP, both have spoken. Idle sessions (ssh, databases) without keep-alive survive a night; Linux' own keep-alive begins after 2 h.
pub const TCP_ESTABLISHED: u64 = 24 * 60 * 60 * SECOND;
/// TCP, one side is done. The other may go on sending for long, but then it is not idle; FIN_WAIT_2 of Linux lasts 60 s.
pub const TCP_CLOSING: u64 = 60 * SECOND;
/// TCP, both sides are done: a few retransmission times, as the last ACK may have to be sent again.
pub const TCP_CLOSED: u64 = 10 * SECOND;
/// The same while room is short. Twenty thousand connections a second, which two cores can make, would fill the table in three seconds: what lingers
/// is then one second's worth.
pub const TCP_CLOSED_HURRIED: u64 = SECOND / 2;
/// UDP, both have spoken: as long as conntrack's default for a stream, longer than common keep-alives (QUIC 30 s, WireGuard 25 s, DTLS 60 s).
pub const UDP_ANSWERED: u64 = 120 * SECOND;
/// ICMP echo: `ping` asks each second, and asks again under the same identifier.
pub const ICMP: u64 = 30 * SECOND;
/// Protocols without ports, and all others: as conntrack's generic timeout.
pub const OTHER: u64 = 600 * SECOND;

/// No flow ends before it has been idle for so long, unless room is short: the packet path need not look closer at what was used since.
pub const SHORTEST: u64 = TCP_CLOSED;

const TCP: u8 = 6;
const UDP: u8 = 17;

/// How long a flow in this state may be idle, nanoseconds. `hurried`: room is short.
#[inline(always)]
pub const fn lifetime(protocol: u8, state: u8, hurried: bool) -> u64 {
    if protocol == Ipv4::ICMP || protocol == Ipv6::ICMP {
        ICMP
    } else if state == State::Unanswered as u8 {
        UNANSWERED
    } else if protocol == TCP {
        match state {
            CLOSING => TCP_CLOSING,
            CLOSED if hurried => TCP_CLOSED_HURRIED,
            CLOSED => TCP_CLOSED,
            _ => TCP_ESTABLISHED,
        }
    } else if protocol == UDP {
        UDP_ANSWERED
    } else {
        OTHER
    }
}

const CLOSING: u8 = State::Closing as u8;
const CLOSED: u8 = State::Closed as u8;

/// Has this direction been idle for longer than it may? A connection is over when both have.
#[inline(always)]
pub fn is_idle<F: Family>(key: &FlowKey<F>, flow: &Flow<F>, now: u64, hurried: bool) -> bool {
    // A packet of this moment may be later than `now`.
    now.saturating_sub(flow.last_seen) > lifetime(key.protocol, flow.state, hurried)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes_grow_with_what_would_be_lost() {
        let of = |protocol, state: State| lifetime(protocol, state as u8, false);
        assert!(of(TCP, State::Closed) < of(TCP, State::Unanswered));
        assert!(of(TCP, State::Unanswered) < of(TCP, State::Closing));
        assert!(of(TCP, State::Closing) < of(TCP, State::Established));
        assert!(of(UDP, State::Unanswered) < of(UDP, State::Established));
        assert!(of(UDP, State::Established) < of(TCP, State::Established));
        assert_eq!(
            of(1, State::Established),
            of(58, State::Unanswered),
            "ICMP of both families"
        );
    }

    #[test]
    fn closed_connections_linger_less_when_room_is_short_and_only_they() {
        for (state, less) in [
            (State::Unanswered, false),
            (State::Established, false),
            (State::Closing, false),
            (State::Closed, true),
        ] {
            let (calm, hurried) = (lifetime(TCP, state as u8, false), lifetime(TCP, state as u8, true));
            assert_eq!(hurried < calm, less, "{state:?}");
        }
    }

    #[test]
    fn nothing_ends_before_the_shortest_lifetime() {
        for protocol in 0..=255 {
            for state in 0..=3 {
                assert!(lifetime(protocol, state, false) >= SHORTEST, "{protocol} {state}");
            }
        }
    }

    #[test]
    fn a_flow_of_this_very_moment_is_not_idle_even_if_the_clocks_disagree() {
        let key = FlowKey::<Ipv4> {
            protocol: TCP,
            ..Default::default()
        };
        let flow = Flow::<Ipv4> {
            last_seen: SECOND,
            state: State::Established as u8,
            ..Default::default()
        };
        assert!(!is_idle(&key, &flow, SECOND - 1, false));
        assert!(!is_idle(&key, &flow, SECOND + TCP_ESTABLISHED, false));
        assert!(is_idle(&key, &flow, SECOND + TCP_ESTABLISHED + 1, false));
    }
}
