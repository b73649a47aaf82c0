//! Tells of a drop as it happens, to whoever listens. While nobody does, that is one look into an array.
//!
//! The headers are read once more, by the kernel's helper, which reads whatever there is of a packet: this one may have died because it could not be
//! read, or before it was.

use aya_ebpf::helpers::{bpf_ringbuf_output, bpf_skb_load_bytes};
use sluice_datapath_common::{
    Family, Ipv4, Ipv6,
    event::{DropEvent, EVENTS_PER_SECOND, SECOND},
};

use crate::{
    maps::{EVENT_PACE, EVENTS, LISTENERS, TOLD},
    packet::{ETHER_ARP, ETHERNET, Frame, SCTP, TCP, UDP, UDP_LITE},
    stage::flow,
};

/// An event, and the header that is being read for it.
#[repr(C)]
pub struct Telling {
    event: DropEvent,
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
    end(telling);
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
    end(telling);
}

/// An event to be filled in, if it may be told: somebody listens, and not too much was told of this reason yet.
#[inline(always)]
fn begin(endpoint: u32, direction: u8, reason: u8, length: u32) -> Option<&'static mut Telling> {
    if LISTENERS.get(0).is_none_or(|listeners| *listeners == 0) {
        return None;
    }
    let pace = EVENT_PACE.get_ptr_mut(u32::from(reason))?;
    let now = flow::now();
    // SAFETY: the slot of this CPU: nobody else writes to it while the program runs.
    unsafe {
        if now.wrapping_sub((*pace).since) >= SECOND {
            (*pace).since = now;
            (*pace).told = 0;
        }
        if (*pace).told >= EVENTS_PER_SECOND {
            (*pace).too_many += 1;
            return None;
        }
        (*pace).told += 1;
    }
    // SAFETY: it is this CPU's own, and a program tells of one drop at a time; integers only, so any bytes are a value.
    let telling = TOLD.get_ptr_mut(0).map(|telling| unsafe { &mut *telling })?;
    clear(&mut telling.event);
    telling.event.time = now;
    telling.event.endpoint = endpoint;
    telling.event.length = length;
    telling.event.reason = reason;
    telling.event.direction = direction;
    Some(telling)
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

/// Puts the event where it will be read.
#[inline(always)]
fn end(telling: &mut Telling) {
    let event = &raw mut telling.event;
    // SAFETY: the event has the size that is said, and is copied. The reader is woken if it has read all before.
    let told = unsafe {
        bpf_ringbuf_output(
            (&raw const EVENTS).cast_mut().cast(),
            event.cast(),
            size_of::<DropEvent>() as u64,
            0,
        )
    };
    if told != 0
        && let Some(pace) = EVENT_PACE.get_ptr_mut(u32::from(telling.event.reason))
    {
        // SAFETY: see `begin`.
        unsafe { (*pace).lost += 1 };
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
