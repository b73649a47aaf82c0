//! Published ports: an address, port and protocol of the host that belong to an endpoint.

use crate::{Family, Ipv4, Ipv6, network::MAX_NETWORKS, plain_old_data};

/// What a client asks for.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct PublishKey<F: Family> {
    /// An address of the host, or "any"; in a routed network an endpoint's own address.
    pub address: F::Address,
    /// The port, network byte order.
    pub port: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// Always zero.
    pub padding: u8,
}

/// What a client asks for, among the published ranges: a prefix of it is the key of a trie, whose last bits are the port's.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct RangeKey<F: Family> {
    /// An address of the host, or "any".
    pub address: F::Address,
    /// IP protocol number, host byte order.
    pub protocol: u16,
    /// The port, network byte order.
    pub port: u16,
}

/// Who answers.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Publication<F: Family> {
    /// The number of the endpoint's network.
    pub network: u16,
    /// 0: who asks for it from anywhere is answered. Else only who is among the endpoint's sources.
    pub limited: u16,
    /// The endpoint's number.
    pub endpoint: u32,
    /// The endpoint's address. In IPv6 an IPv4-mapped one (`::ffff:a.b.c.d`) names an endpoint that has IPv4 only: sockets of host processes are
    /// sent there, packets are not.
    pub address: F::Address,
    /// The port at the endpoint, network byte order. Of a range: that of its first port.
    pub port: u16,
    /// The first port of the range at the host, network byte order; 0 for a single port.
    pub first: u16,
}

/// Who may use an endpoint's published ports: a prefix of it is the key of a trie, whose last bits are the client's address.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct SourceKey<F: Family> {
    /// The endpoint's number.
    pub endpoint: u32,
    /// The client's address.
    pub address: F::Address,
}

impl<F: Family> Publication<F> {
    /// The port at the endpoint that `port` of the host stands for. Both in network byte order.
    #[inline(always)]
    pub fn inside(&self, port: u16) -> u16 {
        if self.first == 0 {
            return self.port;
        }
        let offset = u16::from_be(port).wrapping_sub(u16::from_be(self.first));
        u16::from_be(self.port).wrapping_add(offset).to_be()
    }
}

/// The words of `RESERVED`: a bit for each port of two families and four protocols.
pub const RESERVED_WORDS: u32 = 8_192;

/// Where `RESERVED` says whether `bind` of host processes is refused the port (host byte order), and masquerading too: a slot and a bit of it.
/// None: a protocol whose ports are not kept apart.
#[inline(always)]
pub const fn reserved_at(family: u8, protocol: u8, port: u16) -> Option<(u32, u64)> {
    let protocol = match protocol {
        6 => 0,
        17 => 1,
        132 => 2,
        136 => 3,
        _ => return None,
    };
    let family = if family == Ipv4::AF { 0 } else { 1 };
    let slot = (family * 4 + protocol) * 1024 + (port as u32 >> 6);
    Some((slot, 1 << (port & 63)))
}

/// The ports from `first` to `last`, host byte order, as the fewest blocks that are a prefix each: the first port of each, and how many bits all
/// of its ports share.
pub fn blocks(first: u16, last: u16) -> impl Iterator<Item = (u16, u32)> {
    let end = last as u32 + 1;
    let mut next = first as u32;
    core::iter::from_fn(move || {
        if next >= end {
            return None;
        }
        let start = next;
        // As large as where it begins allows, and as what is left.
        let aligned = if start == 0 { 16 } else { start.trailing_zeros().min(16) };
        let bits = aligned.min((end - start).ilog2());
        next += 1 << bits;
        Some((start as u16, 16 - bits))
    })
}

// The numbers of networks fit.
const _: () = assert!(MAX_NETWORKS <= 1 << 16);
const _: () = assert!(size_of::<PublishKey<Ipv4>>() == 8 && size_of::<PublishKey<Ipv6>>() == 20);
const _: () = assert!(size_of::<Publication<Ipv4>>() == 16 && size_of::<Publication<Ipv6>>() == 28);
const _: () = assert!(size_of::<SourceKey<Ipv4>>() == 8 && size_of::<SourceKey<Ipv6>>() == 20);
const _: () = assert!(size_of::<RangeKey<Ipv4>>() == 8 && size_of::<RangeKey<Ipv6>>() == 20);

plain_old_data!(
    PublishKey<Ipv4>,
    PublishKey<Ipv6>,
    RangeKey<Ipv4>,
    RangeKey<Ipv6>,
    Publication<Ipv4>,
    Publication<Ipv6>,
    SourceKey<Ipv4>,
    SourceKey<Ipv6>
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_a_few_blocks_that_hold_each_port_once() {
        for (first, last) in [
            (20_000, 29_999),
            (1, 65_535),
            (80, 80),
            (0, 65_535),
            (1024, 2047),
            (32_767, 32_769),
        ] {
            let mut next = u32::from(first);
            let mut count = 0;
            for (start, bits) in blocks(first, last) {
                let size = 1u32 << (16 - bits);
                assert_eq!(u32::from(start), next, "no gap and no overlap in {first}-{last}");
                assert_eq!(next % size, 0, "a block is a prefix");
                next += size;
                count += 1;
            }
            assert_eq!(next, u32::from(last) + 1);
            assert!(count <= 30, "{first}-{last}: {count}");
        }
        assert_eq!(blocks(32_768, 65_535).collect::<Vec<_>>(), [(32_768, 1)]);
    }

    #[test]
    fn a_port_of_a_range_leads_to_its_counterpart() {
        let single = Publication::<Ipv4> {
            port: 80u16.to_be(),
            ..Default::default()
        };
        assert_eq!(single.inside(8080u16.to_be()), 80u16.to_be());
        let range = Publication::<Ipv4> {
            port: 5000u16.to_be(),
            first: 20_000u16.to_be(),
            ..Default::default()
        };
        assert_eq!(range.inside(20_000u16.to_be()), 5000u16.to_be());
        assert_eq!(range.inside(20_999u16.to_be()), 5999u16.to_be());
    }

    #[test]
    fn every_port_has_a_bit_of_its_own() {
        let mut seen = std::collections::HashSet::new();
        for family in [2, 10] {
            for protocol in [6, 17, 132, 136] {
                for port in 0..=65_535 {
                    let (slot, bit) = reserved_at(family, protocol, port).unwrap();
                    assert!(slot < RESERVED_WORDS && bit.count_ones() == 1);
                    assert!(seen.insert((slot, bit)));
                }
            }
        }
        assert_eq!(reserved_at(2, 1, 80), None);
    }
}
