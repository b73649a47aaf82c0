//! The arithmetic of the Internet checksum (RFC 1071), as far as changes need it (RFC 1624).
//!
//! A *difference* is a 32-bit one's complement sum of what was added and taken away, in the byte order of the packet read natively: what
//! the kernel's checksum helpers take as `to` when `size` is 0. Differences may be added; the complement of one undoes it.

/// Adds with the carry brought round.
#[inline(always)]
pub const fn add(a: u32, b: u32) -> u32 {
    let sum = a.wrapping_add(b);
    sum.wrapping_add((sum < a) as u32)
}

/// The difference that replacing `old` by `new` makes. Both are words in packet order: 32 bits, or 16 bits at an even offset.
#[inline(always)]
pub const fn difference(old: u32, new: u32) -> u32 {
    add(new, !old)
}

/// The checksum field after a change that makes `difference`.
#[inline(always)]
pub const fn apply(checksum: u16, difference: u32) -> u16 {
    !fold(add((!checksum) as u32, difference))
}

/// A sum brought down to 16 bits.
#[inline(always)]
pub const fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(words: &[u16]) -> u16 {
        !fold(words.iter().fold(0, |sum, word| add(sum, u32::from(*word))))
    }

    #[test]
    fn a_changed_word_changes_the_checksum_as_summing_anew_would() {
        let before = [0x4500, 0x0073, 0x0000, 0x4000, 0x4011, 0xc0a8, 0x0001, 0xc0a8, 0x00c7];
        for new in [0x0000, 0x0001, 0x8000, 0xfffe, 0xc0a8] {
            let mut after = before;
            after[5] = new;
            let difference = difference(u32::from(before[5]), u32::from(new));
            assert_eq!(apply(of(&before), difference), of(&after), "{new:#06x}");
        }
    }

    #[test]
    fn the_complement_of_a_difference_undoes_it() {
        let difference = difference(0xc0a8_0001, 0x0a00_00c7);
        assert_eq!(apply(apply(0xb861, difference), !difference), 0xb861);
    }
}
