//! Tells of a drop as it happens, and of a conversation as it opens and closes, to whoever listens. While nobody does, that is one look into an array.
//!
//! The headers are read once more, by the kernel's helper, which reads whatever there is of a packet: this one may have died because it could not be
//! read, or before it was.

use aya_ebpf::helpers::{bpf_ringbuf_output, bpf_skb_load_bytes};
use sluice_datapath_common::{
    DropReason, Family, Ipv4, Ipv6,
    event::{
        CLOSED, DropEvent, EVENTS_PER_SECOND, FLOWS_PER_SECOND, FRAME_BYTES, FlowEvent, LISTEN_DROPS, LISTEN_FLOWS,
        LISTEN_FRAMES, OPENED, SECOND,
    },
    flow::{FLOW_IS_REPLY, FlowKey, State},
};

use crate::{
    family::Layer3,
    maps::{EVENT_PACE, EVENTS, LISTENERS, TOLD},
    packet::{ETHER_ARP, ETHERNET, Frame, SCTP, TCP, UDP, UDP_LITE},
    stage::{
        flow::{self, Entry},
        hold::known_to_verifier,
    },
};

/// An event with the beginning of its frame, and the header that is being read for it.
#[repr(C)]
pub struct Telling {
    event: DropEvent,
    frame: [u8; FRAME_BYTES],
    header: Header,
}

/// The first words of a header, as they stand in the packet.
pub type Header = [u32; 10];

/// ICMP as an IP protocol number, and ICMPv6.
const ICMP: u8 = 1;
const ICMP6: u8 = 58;

/// Tells of the end of a packet.
#[inline(always)]
pub fn of_packet(frame: Frame, endpoint: u32, direction: u8, reason: u8) {
    let Some(telling) = begin(endpoint, direction, reason, frame.len()) else {
        return;
    };
    telling.event.ifindex = frame.ifindex();
    telling.event.ether_type = frame.ether_type();
    match frame.ether_type() {
        Ipv4::ETHER_TYPE => read_ipv4(frame, telling),
        Ipv6::ETHER_TYPE => read_ipv6(frame, telling),
        ETHER_ARP => read_arp(frame, telling),
        _ => {}
    }
    if listen_to(LISTEN_FRAMES) && show(frame, telling) {
        put(telling, (size_of::<DropEvent>() + FRAME_BYTES) as u64, reason);
    } else {
        put(telling, size_of::<DropEvent>() as u64, reason);
    }
}

/// Does anybody want to hear of this?
#[inline(always)]
pub fn listen_to(what: u32) -> bool {
    LISTENERS.get(0).is_some_and(|listeners| listeners & what != 0)
}

/// Writes down how the frame begins. What is behind its end is left of an earlier one, and not looked at.
#[inline(always)]
fn show(frame: Frame, telling: &mut Telling) -> bool {
    let most = FRAME_BYTES as u32;
    match known_to_verifier(frame.len().min(most), most) {
        // SAFETY: the frame is the program's context, and so much fits.
        Some(length) => unsafe { bpf_skb_load_bytes(frame.context(), 0, (&raw mut telling.frame).cast(), length) == 0 },
        None => false,
    }
}

/// Tells of the end of a packet of which there is but a copy: the first bytes of its IP header, which may be followed by an extension header.
/// Out of line for its stack.
#[cold]
#[inline(never)]
pub fn of_copy(copy: *const [u32; 11], endpoint: u32, direction: u8, reason: u8, length: u32) {
    let Some(telling) = begin(endpoint, direction, reason, length) else {
        return;
    };
    let event = &mut telling.event;
    // SAFETY: the caller's copy is so long, and lies in a map.
    let word = |at: usize| unsafe { copy.cast::<u32>().add(at).read_volatile() };
    if bytes(word(0))[0] >> 4 == 6 {
        /// The fragment header, which begins with the number of what comes behind it.
        const FRAGMENT: u8 = 44;
        event.family = Ipv6::AF;
        event.ether_type = Ipv6::ETHER_TYPE;
        event.source = [word(2), word(3), word(4), word(5)];
        event.destination = [word(6), word(7), word(8), word(9)];
        event.protocol = match bytes(word(1))[2] {
            FRAGMENT => bytes(word(10))[0],
            other => other,
        };
    } else {
        event.family = Ipv4::AF;
        event.ether_type = Ipv4::ETHER_TYPE;
        event.source[0] = word(3);
        event.destination[0] = word(4);
        event.protocol = bytes(word(2))[1];
    }
    put(telling, size_of::<DropEvent>() as u64, reason);
}

/// Tells of the conversation that lies on the desk, opened by this packet just now.
#[inline(always)]
pub fn of_opened<F: Layer3>() -> u32 {
    if let Some(desk) = F::desk()
        // A packet that came second to another CPU's follows what that one has opened and told.
        && desk.flow.packets == 1
        && may_tell(OPENED, FLOWS_PER_SECOND)
        && let Some(event) = F::told()
    {
        event.reply_packets = 0;
        event.reply_bytes = 0;
        event.rule = desk.rule;
        // SAFETY: both are entries in maps.
        unsafe { flow::copy(&raw const desk.flow, &raw mut event.flow) };
        event.key = desk.key;
        end_of_flow(event, OPENED);
    }
    0
}

/// Tells of the conversation of the packet in hand, which that one has closed.
#[inline(always)]
pub fn of_closed<F: Layer3>() -> u32 {
    let (Some(facts), Some(desk)) = (F::facts(false), F::desk()) else {
        return 0;
    };
    let Some(flow) = flow::find(&facts.key) else { return 0 };
    flow::write_reverse(&mut desk.reverse, &facts.key, flow);
    let Some(other) = flow::find(&desk.reverse) else {
        return 0;
    };
    // SAFETY: an entry's slot stays readable until the program ends.
    let is_openers = unsafe { flow.as_ref() }.flags & FLOW_IS_REPLY == 0;
    let told = match is_openers {
        true => write_closed(&facts.key, flow, other),
        false => write_closed(&desk.reverse, other, flow),
    };
    let Some(event) = F::told() else { return 0 };
    if told != 0 {
        // It closes the conversation before it is counted.
        let bytes = u64::from(facts.above) + u64::from(facts.length);
        if is_openers {
            event.flow.packets += 1;
            event.flow.bytes += bytes;
        } else {
            event.reply_packets += 1;
            event.reply_bytes += bytes;
        }
        end_of_flow(event, CLOSED);
    }
    0
}

/// Writes down both halves of a conversation that closes. 0: it is not to be told. Out of line: the verifier need not walk it once for each side.
#[inline(never)]
fn write_closed<F: Layer3>(key: &FlowKey<F>, flow: Entry<F>, other: Entry<F>) -> u32 {
    if may_tell(CLOSED, FLOWS_PER_SECOND)
        && let Some(event) = F::told()
    {
        // SAFETY: an entry's slot stays readable until the program ends; both ends of the copy are entries in maps.
        unsafe {
            event.reply_packets = other.as_ref().packets;
            event.reply_bytes = other.as_ref().bytes;
            flow::copy(flow.as_ptr(), &raw mut event.flow);
        }
        event.rule = 0;
        event.key = *key;
        return 1;
    }
    0
}

/// Has this state been told of as the end of a conversation, if anybody listens?
#[inline(always)]
pub fn is_end(before: u8, next: State) -> bool {
    next as u8 == State::Closed as u8 && before != State::Closed as u8 && listen_to(LISTEN_FLOWS)
}

#[inline(always)]
fn end_of_flow<F: Layer3>(event: &mut FlowEvent<F>, kind: u8) {
    event.time = flow::now();
    event.kind = u32::from(kind);
    write((&raw const *event).cast(), size_of::<FlowEvent<F>>() as u64, kind);
}

/// An event to be filled in, if it may be told: somebody listens, and not too much was told of this reason yet.
#[inline(always)]
fn begin(endpoint: u32, direction: u8, reason: u8, length: u32) -> Option<&'static mut Telling> {
    if !listen_to(LISTEN_DROPS) || !may_tell(reason, EVENTS_PER_SECOND) {
        return None;
    }
    // SAFETY: it is this CPU's own, and a program tells of one drop at a time; integers only, so any bytes are a value.
    let telling = TOLD.get_ptr_mut(0).map(|telling| unsafe { &mut *telling })?;
    clear(&mut telling.event);
    telling.event.time = flow::now();
    telling.event.endpoint = endpoint;
    telling.event.length = length;
    telling.event.reason = reason;
    telling.event.direction = direction;
    Some(telling)
}

/// Was not too much told of it in this second yet? Counts it.
#[inline(always)]
fn may_tell(what: u8, most: u32) -> bool {
    let Some(pace) = EVENT_PACE.get_ptr_mut(u32::from(what)) else {
        return false;
    };
    let now = flow::now();
    // SAFETY: the slot of this CPU: nobody else writes to it while the program runs.
    unsafe {
        if now.wrapping_sub((*pace).since) >= SECOND {
            (*pace).since = now;
            (*pace).told = 0;
        }
        if (*pace).told >= most {
            (*pace).too_many += 1;
            return false;
        }
        (*pace).told += 1;
    }
    true
}

/// Nothing is known of it. By words: `memset` is a function here, with a stack of its own.
#[inline(always)]
fn clear(event: &mut DropEvent) {
    const { assert!(size_of::<DropEvent>().is_multiple_of(8) && align_of::<DropEvent>() == 8) }
    let words = (&raw mut *event).cast::<u64>();
    let mut word = 0;
    while word < size_of::<DropEvent>() / 8 {
        // SAFETY: within the event. Volatile, or the compiler would see through it.
        unsafe { words.add(word).write_volatile(0) };
        word += 1;
    }
}

/// Puts the event of a drop where it will be read.
#[inline(always)]
fn put(telling: &Telling, size: u64, reason: u8) {
    write((&raw const *telling).cast(), size, reason);
}

/// Puts a record of so many bytes where it will be read.
#[inline(always)]
fn write(record: *const u8, size: u64, what: u8) {
    // SAFETY: the record lies in a map, has the size that is said, and is copied. The reader is woken if it has read all before.
    let told = unsafe { bpf_ringbuf_output((&raw const EVENTS).cast_mut().cast(), record.cast_mut().cast(), size, 0) };
    if told != 0
        && let Some(pace) = EVENT_PACE.get_ptr_mut(u32::from(what))
    {
        // SAFETY: see `may_tell`.
        unsafe { (*pace).lost += 1 };
    }
}

/// The number of the rule that refused the packet in hand.
#[inline(always)]
fn rule_of<F: Layer3>(reason: u8) -> u64 {
    if reason == DropReason::PolicyDenied as u8 || reason == DropReason::PolicyRejected as u8 {
        F::desk().map_or(0, |desk| desk.rule)
    } else {
        0
    }
}

#[inline(always)]
fn read_ipv4(frame: Frame, telling: &mut Telling) {
    /// The fragment field, host byte order: the offset in units of 8 bytes.
    const OFFSET: u16 = 0x1fff;
    if !read(frame, ETHERNET, 20, &mut telling.header) {
        return;
    }
    let (event, header) = (&mut telling.event, &telling.header);
    event.family = Ipv4::AF;
    event.rule = rule_of::<Ipv4>(event.reason);
    event.source[0] = header[3];
    event.destination[0] = header[4];
    event.protocol = bytes(header[2])[1];
    let place = u16::from_be_bytes([bytes(header[1])[2], bytes(header[1])[3]]);
    if place & OFFSET == 0 {
        let length = u32::from(bytes(header[0])[0] & 0x0f) * 4;
        read_above(frame, telling, ETHERNET + length);
    }
}

#[inline(always)]
fn read_ipv6(frame: Frame, telling: &mut Telling) {
    /// How many extension headers are read at most.
    const HEADERS: u32 = 6;
    if !read(frame, ETHERNET, 40, &mut telling.header) {
        return;
    }
    let (event, header) = (&mut telling.event, &telling.header);
    event.family = Ipv6::AF;
    event.rule = rule_of::<Ipv6>(event.reason);
    event.source = [header[2], header[3], header[4], header[5]];
    event.destination = [header[6], header[7], header[8], header[9]];
    event.protocol = bytes(header[1])[2];
    let mut above = ETHERNET + 40;
    for _ in 0..HEADERS {
        // Hop by hop, routing, destination options; fragment (RFC 8200).
        if !matches!(telling.event.protocol, 0 | 43 | 60 | 44) {
            break;
        }
        if !read(frame, above, 8, &mut telling.header) {
            return;
        }
        let [next, length, high, low] = bytes(telling.header[0]);
        let is_fragment = telling.event.protocol == 44;
        telling.event.protocol = next;
        above += 8;
        if !is_fragment {
            above += 8 * u32::from(length);
        } else if u16::from_be_bytes([high, low]) >> 3 != 0 {
            return;
        }
    }
    read_above(frame, telling, above);
}

/// Who speaks, and whom it is about (RFC 826, for IPv4 over Ethernet).
#[inline(always)]
fn read_arp(frame: Frame, telling: &mut Telling) {
    if read(frame, ETHERNET, 28, &mut telling.header) {
        let (event, header) = (&mut telling.event, &telling.header);
        event.family = Ipv4::AF;
        // The sender's address stands in the middle between two words.
        event.source[0] = header[3] >> 16 | header[4] << 16;
        event.destination[0] = header[6];
    }
}

/// The ports, or what stands for them.
#[inline(always)]
fn read_above(frame: Frame, telling: &mut Telling, at: u32) {
    let protocol = telling.event.protocol;
    if !matches!(protocol, TCP | UDP | UDP_LITE | SCTP | ICMP | ICMP6) || !read(frame, at, 8, &mut telling.header) {
        return;
    }
    let [first, second, third, fourth] = bytes(telling.header[0]);
    telling.event.source_port = u16::from_ne_bytes([first, second]);
    if protocol != ICMP && protocol != ICMP6 {
        telling.event.destination_port = u16::from_ne_bytes([third, fourth]);
    } else if matches!((protocol, first), (ICMP, 0 | 8 | 13 | 14) | (ICMP6, 128 | 129)) {
        telling.event.destination_port = telling.header[1] as u16;
    }
}

/// Reads `length` bytes of the frame, if there are so many.
#[inline(always)]
fn read(frame: Frame, offset: u32, length: u32, header: &mut Header) -> bool {
    let header = header.as_mut_ptr();
    // SAFETY: the frame is the program's context; no caller asks for more than a `Header`.
    unsafe { bpf_skb_load_bytes(frame.context(), offset, header.cast(), length) == 0 }
}

/// The bytes of a word as they stand in the packet.
#[inline(always)]
fn bytes(word: u32) -> [u8; 4] {
    word.to_ne_bytes()
}
