//! How long a flow may be idle. The agent ends what is older; the packet path takes it for gone, whether the agent lives or not.

use crate::flow::{Flow, State};
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
/// No flow of the tables of half open ones lives longer without a packet: there TCP may close what was never open.
pub const LONGEST_OPENING: u64 = TCP_CLOSING;
const _: () = assert!(LONGEST_OPENING >= UNANSWERED && LONGEST_OPENING >= TCP_CLOSED && LONGEST_OPENING >= ICMP);
/// TCP and SCTP, both sides are done: a few retransmission times, as the last ACK may have to be sent again.
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
pub const SHORTEST: i64 = TCP_CLOSED as i64;

const TCP: u8 = 6;
const UDP: u8 = 17;

/// Protocols whose flows live alike.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// TCP.
    Tcp = 0,
    /// UDP.
    Udp = 1,
    /// ICMP of both families.
    Icmp = 2,
    /// All others.
    Other = 3,
}

impl Class {
    /// That of a protocol.
    #[inline(always)]
    pub const fn of(protocol: u8) -> Self {
        const ICMP4: u8 = <Ipv4 as Family>::ICMP;
        const ICMP6: u8 = <Ipv6 as Family>::ICMP;
        match protocol {
            TCP => Self::Tcp,
            UDP => Self::Udp,
            ICMP4 | ICMP6 => Self::Icmp,
            _ => Self::Other,
        }
    }
}

/// By class and state (four each), once as usual and once while room is short. A table, as the verifier would walk on once for each answer.
static LIFETIMES: [u64; 32] = {
    let mut table = [OTHER; 32];
    let mut hurried = 0;
    while hurried < 2 {
        let mut class = 0;
        while class < 4 {
            table[place(class, State::Unanswered as u8, hurried == 1)] = UNANSWERED;
            class += 1;
        }
        let mut state = 0;
        while state < 4 {
            table[place(Class::Icmp as u8, state, hurried == 1)] = ICMP;
            if state != State::Unanswered as u8 {
                table[place(Class::Udp as u8, state, hurried == 1)] = UDP_ANSWERED;
            }
            state += 1;
        }
        table[place(Class::Tcp as u8, State::Established as u8, hurried == 1)] = TCP_ESTABLISHED;
        table[place(Class::Tcp as u8, State::Closing as u8, hurried == 1)] = TCP_CLOSING;
        hurried += 1;
    }
    // Of all others only SCTP closes anything.
    let mut class = Class::Tcp as u8;
    while class <= Class::Other as u8 {
        table[place(class, State::Closed as u8, false)] = TCP_CLOSED;
        table[place(class, State::Closed as u8, true)] = TCP_CLOSED_HURRIED;
        class += Class::Other as u8 - Class::Tcp as u8;
    }
    table
};

#[inline(always)]
const fn place(class: u8, state: u8, hurried: bool) -> usize {
    (hurried as usize) << 4 | ((class & 3) << 2 | state & 3) as usize
}

/// How long a flow of this class may be idle in this state, nanoseconds. `hurried`: room is short.
#[inline(always)]
pub fn lifetime(class: u8, state: u8, hurried: bool) -> u64 {
    let place = place(class, state, hurried);
    // The verifier of 6.1 loses sight of the bound where the parts are put together; the compiler does not, and would leave the mask away.
    // SAFETY: a read of a value on the stack.
    LIFETIMES[unsafe { core::ptr::read_volatile(&raw const place) } & 31]
}

/// How long this direction has been idle, nanoseconds. A packet of this moment may be later than `now`: then it is less than nothing.
#[inline(always)]
pub const fn idle_for<F: Family>(flow: &Flow<F>, now: u64) -> i64 {
    now.wrapping_sub(flow.last_seen) as i64
}

/// Has this direction been idle for longer than it may? A connection is over when both have.
#[inline(always)]
pub fn is_idle<F: Family>(flow: &Flow<F>, now: u64, hurried: bool) -> bool {
    idle_for(flow, now) > lifetime(flow.class, flow.state, hurried) as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes_grow_with_what_would_be_lost() {
        let of = |protocol, state: State| lifetime(Class::of(protocol) as u8, state as u8, false);
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
            let (calm, hurried) = (
                lifetime(Class::Tcp as u8, state as u8, false),
                lifetime(Class::Tcp as u8, state as u8, true),
            );
            assert_eq!(hurried < calm, less, "{state:?}");
        }
    }

    #[test]
    fn nothing_ends_before_the_shortest_lifetime() {
        for class in 0..4 {
            for state in 0..4 {
                assert!(lifetime(class, state, false) as i64 >= SHORTEST, "{class} {state}");
            }
        }
    }

    #[test]
    fn a_flow_of_this_very_moment_is_not_idle_even_if_the_clocks_disagree() {
        let flow = Flow::<Ipv4> {
            last_seen: SECOND,
            state: State::Established as u8,
            ..Default::default()
        };
        assert!(!is_idle(&flow, SECOND - 1, false));
        assert!(!is_idle(&flow, SECOND + TCP_ESTABLISHED, false));
        assert!(is_idle(&flow, SECOND + TCP_ESTABLISHED + 1, false));
    }
}
