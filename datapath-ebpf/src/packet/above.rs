//! Reading the layer above IP: what tells two conversations apart, and what a TCP packet does to its own.

use sluice_datapath_common::{DropReason, Family, Ipv4};

use super::{Fragment, Frame, Layer4};

/// IP protocol numbers.
pub const TCP: u8 = 6;
/// IP protocol numbers.
pub const UDP: u8 = 17;
/// IP protocol numbers.
pub const SCTP: u8 = 132;
/// IP protocol numbers. UDP-Lite (RFC 3828) has UDP's header, but where that has its length it says how much the checksum covers: always the
/// header and the addresses, so that they are translated as UDP's are.
pub const UDP_LITE: u8 = 136;

/// TCP flags.
pub const FIN: u8 = 0x01;
/// TCP flags.
pub const SYN: u8 = 0x02;
/// TCP flags.
pub const RST: u8 = 0x04;
/// TCP flags.
pub const ACK: u8 = 0x10;

/// RFC 9293, as far as we read it.
#[repr(C, packed(2))]
#[derive(Clone, Copy)]
struct TcpHeader {
    ports: Ports,
    _sequence: u32,
    _acknowledgement: u32,
    _length: u8,
    flags: u8,
    _window: u16,
    _checksum: u16,
    _urgent: u16,
}

/// RFC 768. ICMP's header has the same length.
#[repr(C, packed(2))]
#[derive(Clone, Copy)]
struct UdpHeader {
    ports: Ports,
    _length: u16,
    _checksum: u16,
}

/// RFC 9260, without the chunks.
#[repr(C, packed(2))]
#[derive(Clone, Copy)]
struct SctpHeader {
    ports: Ports,
    _tag: u32,
    _checksum: u32,
}

/// How long an SCTP chunk is at least, bytes. Its type comes first.
const CHUNK: u32 = 4;

/// RFC 792.
#[repr(C, packed(2))]
#[derive(Clone, Copy)]
pub struct IcmpHeader {
    kind: u8,
    _code: u8,
    _checksum: u16,
    identifier: u16,
    _sequence: u16,
}

/// Where the ports stand in every protocol that has some. Network byte order.
#[repr(C, packed(2))]
#[derive(Clone, Copy)]
pub struct Ports {
    /// The sender's.
    pub source: u16,
    /// The receiver's.
    pub destination: u16,
}

/// How long the header above is at least, bytes. ICMP's is as long as UDP's.
#[inline(always)]
pub fn least_header(protocol: u8) -> u32 {
    match protocol {
        TCP => size_of::<TcpHeader>() as u32,
        SCTP => size_of::<SctpHeader>() as u32 + CHUNK,
        _ => size_of::<UdpHeader>() as u32,
    }
}

/// Is it a first fragment without all of the `least` header above, or a later one that lies over it? Either could show us another header than it
/// shows its receiver (RFC 1858, RFC 3128, RFC 7112).
#[inline(always)]
pub fn is_tiny(fragment: Fragment, offset: u32, length: u32, least: u32) -> bool {
    match fragment {
        Fragment::Whole => false,
        Fragment::First => length < least,
        Fragment::Later => offset < least,
    }
}

/// What is read of the layer above.
pub struct Above {
    /// What it is to us.
    pub layer4: Layer4,
    /// TCP flags, or what says the same.
    pub tcp_flags: u8,
    /// Its ports, or what stands for them.
    pub ports: Ports,
}

impl Above {
    /// What has no ports.
    #[inline(always)]
    pub fn portless(layer4: Layer4) -> Self {
        let ports = Ports {
            source: 0,
            destination: 0,
        };
        Self {
            layer4,
            tcp_flags: 0,
            ports,
        }
    }
}

/// Reads what tells conversations apart in the layer above.
#[inline(always)]
pub fn read_above<F: Family>(frame: Frame, above: u32, protocol: u8, quoted: bool) -> Result<Above, DropReason> {
    match protocol {
        TCP if !quoted => {
            let tcp: TcpHeader = frame.read_beyond(above)?;
            Ok(Above {
                layer4: Layer4::Tcp,
                tcp_flags: tcp.flags,
                ports: tcp.ports,
            })
        }
        SCTP if !quoted => {
            let sctp: SctpHeader = frame.read_beyond(above)?;
            // Where the kernel will cut the packet up, each packet's chunks lie in a buffer of their own behind the header. There they must stay.
            let [chunk, ..] = frame.peek(above + size_of::<SctpHeader>() as u32)?;
            Ok(Above {
                layer4: Layer4::Sctp,
                tcp_flags: flags_of_chunk(chunk),
                ports: sctp.ports,
            })
        }
        TCP | UDP | UDP_LITE | SCTP => {
            // Eight bytes: all of UDP's header, and what an ICMP error must quote of the others'.
            let udp: UdpHeader = frame.read_beyond(above)?;
            let layer4 = match protocol {
                TCP => Layer4::Tcp,
                SCTP => Layer4::Sctp,
                _ => Layer4::Udp,
            };
            Ok(Above {
                layer4,
                tcp_flags: 0,
                ports: udp.ports,
            })
        }
        protocol if protocol == F::ICMP => {
            let icmp: IcmpHeader = frame.read_beyond(above)?;
            let layer4 = icmp_kind::<F>(icmp.kind);
            let identifier = if layer4 == Layer4::Echo { icmp.identifier } else { 0 };
            Ok(Above {
                layer4,
                tcp_flags: 0,
                ports: Ports {
                    source: identifier,
                    destination: identifier,
                },
            })
        }
        _ => Ok(Above::portless(Layer4::Portless)),
    }
}

/// What an SCTP packet's first chunk means for the conversation, in TCP's words (RFC 9260).
#[inline(always)]
fn flags_of_chunk(chunk: u8) -> u8 {
    match chunk {
        // INIT
        1 => SYN,
        // INIT ACK
        2 => SYN | ACK,
        // ABORT, SHUTDOWN COMPLETE
        6 | 14 => RST,
        _ => 0,
    }
}

/// Which ICMP messages bear an identifier, and which quote a packet.
#[inline(always)]
fn icmp_kind<F: Family>(kind: u8) -> Layer4 {
    match (F::AF == Ipv4::AF, kind) {
        // echo reply and request, timestamp and its reply (RFC 792); echo request and reply (RFC 4443)
        (true, 0 | 8 | 13 | 14) | (false, 128 | 129) => Layer4::Echo,
        // unreachable, source quench, time exceeded, parameter problem (RFC 792); the same and packet too big (RFC 4443)
        (true, 3 | 4 | 11 | 12) | (false, 1..=4) => Layer4::Error,
        (false, 130..=137 | 143) => Layer4::Discovery,
        _ => Layer4::Portless,
    }
}
