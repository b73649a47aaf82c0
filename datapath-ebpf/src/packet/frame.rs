//! The frame that the kernel hands us, and what stands at its beginning.

use core::ptr::read_volatile;

use aya_ebpf::{
    EbpfContext as _,
    bindings::__sk_buff,
    helpers::{bpf_skb_load_bytes, bpf_skb_pull_data, bpf_skb_vlan_pop},
    programs::TcContext,
};
use sluice_datapath_common::DropReason;

/// Ethernet types, host byte order.
pub const ETHER_ARP: u16 = 0x0806;

/// The length of an Ethernet header, bytes.
pub const ETHERNET: u32 = 14;

/// The frame the program was called with.
#[derive(Clone, Copy)]
pub struct Frame {
    skb: *mut __sk_buff,
}

/// A MAC address: six bytes as they stand in the frame, in the low 48 bits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Mac(u64);

/// IEEE 802.3.
#[repr(C, packed(2))]
#[derive(Clone, Copy)]
pub struct EthernetHeader {
    /// Receiver.
    pub destination: [u16; 3],
    /// Sender.
    pub source: [u16; 3],
    /// Big endian.
    pub ether_type: u16,
}

/// RFC 826, for IPv4 over Ethernet.
#[repr(C, packed(2))]
#[derive(Clone, Copy)]
pub struct ArpHeader {
    /// 1: Ethernet. Big endian, as all others.
    pub hardware: u16,
    /// 0x0800: IPv4.
    pub protocol: u16,
    /// 6 and 4, the lengths of their addresses.
    pub lengths: u16,
    /// 1: who has, 2: is at.
    pub operation: u16,
    /// Who speaks.
    pub sender_mac: [u16; 3],
    /// Who speaks.
    pub sender: u32,
    /// Whom it is about.
    pub target_mac: [u16; 3],
    /// Whom it is about.
    pub target: u32,
}

// === impl Frame ===

impl Frame {
    /// The frame of a program's context.
    #[inline(always)]
    pub fn of(ctx: &TcContext) -> Self {
        Self {
            skb: ctx.as_ptr().cast(),
        }
    }

    /// The frame of a context that was handed on.
    #[inline(always)]
    pub fn of_skb(skb: *mut __sk_buff) -> Self {
        Self { skb }
    }

    /// The context as the kernel's helpers want it.
    #[inline(always)]
    pub fn context(self) -> *mut core::ffi::c_void {
        self.skb.cast()
    }

    /// The same, for helpers of socket buffers.
    #[inline(always)]
    pub fn skb(self) -> *mut __sk_buff {
        self.skb
    }

    /// Its length, bytes, Ethernet header included.
    #[inline(always)]
    pub fn len(self) -> u32 {
        // SAFETY: `skb` is the program's context; the verifier turns the read into one of the real field. The same goes for those below.
        unsafe { read_volatile(&raw const (*self.skb).len) }
    }

    /// How much of a super-packet's payload each of its packets will have, bytes; 0: it is no super-packet.
    #[inline(always)]
    pub fn gso_size(self) -> u32 {
        // SAFETY: see `len`.
        unsafe { read_volatile(&raw const (*self.skb).gso_size) }
    }

    /// The device it is on.
    #[inline(always)]
    pub fn ifindex(self) -> u32 {
        // SAFETY: see `len`.
        unsafe { read_volatile(&raw const (*self.skb).ifindex) }
    }

    /// The device it came into this host's stack by; 0: the host has made it.
    #[inline(always)]
    pub fn first_ifindex(self) -> u32 {
        // SAFETY: see `len`.
        unsafe { read_volatile(&raw const (*self.skb).ingress_ifindex) }
    }

    /// Its Ethernet type, host byte order.
    #[inline(always)]
    pub fn ether_type(self) -> u16 {
        // SAFETY: see `len`.
        u16::from_be(unsafe { read_volatile(&raw const (*self.skb).protocol) } as u16)
    }

    /// Does it belong to a VLAN? A tag of VLAN 0 bears a priority and nothing more (IEEE 802.1Q): it is taken off, as the kernel does for what it
    /// delivers itself.
    #[inline(always)]
    pub fn is_tagged(self) -> bool {
        /// The bits of a tag that name the VLAN.
        const VLAN: u32 = 0x0fff;
        // SAFETY: see `len`.
        let (present, tag) = unsafe {
            (
                read_volatile(&raw const (*self.skb).vlan_present),
                read_volatile(&raw const (*self.skb).vlan_tci),
            )
        };
        // SAFETY: `skb` is the program's context.
        present != 0 && (tag & VLAN != 0 || unsafe { bpf_skb_vlan_pop(self.skb) } != 0)
    }

    /// Does the kernel take it for addressed to this device (`PACKET_HOST`)?
    #[inline(always)]
    pub fn is_for_us(self) -> bool {
        // SAFETY: see `len`.
        unsafe { read_volatile(&raw const (*self.skb).pkt_type) == 0 }
    }

    /// The MACs it bears.
    #[inline(always)]
    pub fn ethernet(self) -> Result<EthernetHeader, DropReason> {
        self.read(0)
    }

    /// A copy of the `T` at `offset`. What lies beyond the linear part is pulled in first.
    #[inline(always)]
    pub fn read<T: Copy>(self, offset: u32) -> Result<T, DropReason> {
        if let Some(header) = self.at::<T>(offset) {
            // SAFETY: `at` has checked the bounds; `T` is a header of integers, any bytes are one.
            return Ok(unsafe { *header });
        }
        if pull(self.skb, offset + size_of::<T>() as u32) != 0 {
            return Err(DropReason::Truncated);
        }
        // SAFETY: as above.
        self.at::<T>(offset)
            .map(|header| unsafe { *header })
            .ok_or(DropReason::Truncated)
    }

    /// The same where headers before it differ in length, within the first 1024 bytes: no header we read starts beyond.
    ///
    /// The compiler knows the bound and leaves it away; the verifier, which has lost sight of it by then, does not. So the compiler is made to
    /// forget it too (volatile).
    #[inline(always)]
    pub fn read_beyond<T: Copy>(self, offset: u32) -> Result<T, DropReason> {
        // SAFETY: a read of a value on the stack.
        self.read(unsafe { read_volatile(&raw const offset) } & 0x3ff)
    }

    /// The four bytes at `offset`, wherever they lie: nothing is pulled.
    #[inline(always)]
    pub fn peek(self, offset: u32) -> Result<[u8; 4], DropReason> {
        let mut bytes = [0; 4];
        // SAFETY: `skb` is the program's context; the kernel checks the offset and writes four bytes.
        match unsafe { bpf_skb_load_bytes(self.context(), offset, (&raw mut bytes).cast(), 4) } {
            0 => Ok(bytes),
            _ => Err(DropReason::Truncated),
        }
    }

    /// Where the `T` at `offset` lies, if it is in the linear part.
    ///
    /// Both ends are read anew each time (volatile): the compiler would otherwise carry one over a call that moves the frame, or extend the
    /// 32-bit field by arithmetic that the verifier refuses on packet pointers.
    #[inline(always)]
    fn at<T>(self, offset: u32) -> Option<*const T> {
        // SAFETY: see `len`.
        let start = unsafe { read_volatile(&raw const (*self.skb).data) } as usize;
        // SAFETY: see `len`.
        let end = unsafe { read_volatile(&raw const (*self.skb).data_end) } as usize;
        let header = start + offset as usize;
        (header + size_of::<T>() <= end).then_some(header as *const T)
    }
}

/// Makes the first `length` bytes linear. A function of its own, being rare.
#[cold]
#[inline(never)]
fn pull(skb: *mut __sk_buff, length: u32) -> i64 {
    // SAFETY: `skb` is the program's context; the kernel checks the length. No packet pointer is alive across the call.
    unsafe { bpf_skb_pull_data(skb, length) }
}

// === impl Mac ===

impl Mac {
    /// From the bytes as they are written.
    #[inline(always)]
    pub const fn new(bytes: [u8; 6]) -> Self {
        Self::from_words([
            u16::from_ne_bytes([bytes[0], bytes[1]]),
            u16::from_ne_bytes([bytes[2], bytes[3]]),
            u16::from_ne_bytes([bytes[4], bytes[5]]),
        ])
    }

    /// From the words as they stand in the frame.
    #[inline(always)]
    pub const fn from_words(words: [u16; 3]) -> Self {
        Self(words[0] as u64 | (words[1] as u64) << 16 | (words[2] as u64) << 32)
    }

    /// As they stand in the frame.
    #[inline(always)]
    pub const fn words(self) -> [u16; 3] {
        [self.0 as u16, (self.0 >> 16) as u16, (self.0 >> 32) as u16]
    }

    /// Is it for many (multicast or broadcast)?
    #[inline(always)]
    pub const fn is_group(self) -> bool {
        self.words()[0].to_ne_bytes()[0] & 1 != 0
    }
}

// === impl EthernetHeader ===

impl EthernetHeader {
    /// Who sends the frame.
    #[inline(always)]
    pub fn sender(&self) -> Mac {
        Mac::from_words(self.source)
    }

    /// Who is to take it.
    #[inline(always)]
    pub fn receiver(&self) -> Mac {
        Mac::from_words(self.destination)
    }
}
