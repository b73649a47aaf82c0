//! The checksum of SCTP (CRC32c, RFC 9260 appendix A), as far as a change of ports needs it.
//!
//! A CRC is linear: what a change adds to the sum depends on the change and on how many bytes follow it, and on nothing else in the packet.
//! Bits are numbered as they are sent, so polynomials are written with their lowest power in the highest bit.

/// The polynomial of Castagnoli.
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// What a remainder becomes when 1, 2, 4 and so on bytes follow it, by four bits of it at a time. (Multiplying bit by bit needs no table, but the
/// verifier walks both ways of every bit.)
static FOLLOWED: [[[u32; 16]; 8]; 16] = followed();

/// What exchanging the first four bytes of a packet of `length` bytes (below 64 KiB) adds by exclusive or to its checksum. `change` is the
/// exclusive or of the bytes before and after; it and the checksum are as a little-endian machine reads them from the packet.
#[inline(always)]
pub fn change_of_first_word(change: u32, length: u32) -> u32 {
    let mut sum = change;
    for (bit, table) in FOLLOWED.iter().enumerate() {
        if length >> bit & 1 != 0 {
            let mut next = 0;
            for (place, nibbles) in table.iter().enumerate() {
                next ^= nibbles[(sum >> (4 * place) & 15) as usize];
            }
            sum = next;
        }
    }
    sum
}

const fn followed() -> [[[u32; 16]; 8]; 16] {
    let mut tables = [[[0; 16]; 8]; 16];
    // x to the power of 8: one byte follows.
    let mut power = 1 << (31 - 8);
    let mut bit = 0;
    while bit < 16 {
        let mut place = 0;
        while place < 8 {
            let mut nibble = 0;
            while nibble < 16 {
                tables[bit][place][nibble as usize] = product(nibble << (4 * place), power);
                nibble += 1;
            }
            place += 1;
        }
        power = product(power, power);
        bit += 1;
    }
    tables
}

/// The product of two remainders.
const fn product(mut a: u32, b: u32) -> u32 {
    let mut sum = 0;
    let mut bit = 0;
    while bit < 32 {
        if b >> (31 - bit) & 1 != 0 {
            sum ^= a;
        }
        a = if a & 1 != 0 { a >> 1 ^ POLYNOMIAL } else { a >> 1 };
        bit += 1;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By the book, a bit at a time.
    fn crc32c(bytes: &[u8]) -> u32 {
        let mut crc = !0u32;
        for byte in bytes {
            crc ^= u32::from(*byte);
            for _ in 0..8 {
                crc = if crc & 1 != 0 { crc >> 1 ^ POLYNOMIAL } else { crc >> 1 };
            }
        }
        !crc
    }

    #[test]
    fn the_check_value_of_the_catalogue_is_met() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn changed_ports_change_the_checksum_as_summing_anew_would() {
        for length in [4, 12, 13, 100, 1480, 8999, 65_535] {
            let before: Vec<u8> = (0..length).map(|at| (at * 7 % 251) as u8).collect();
            for ports in [[0, 0, 0, 1], [0x23, 0x28, 0x00, 0x50], [255; 4]] {
                let mut after = before.clone();
                after[..4].copy_from_slice(&ports);
                let word = |bytes: &[u8]| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
                let change = change_of_first_word(word(&before) ^ word(&after), length as u32);
                assert_eq!(crc32c(&before) ^ change, crc32c(&after), "{length} bytes, {ports:?}");
            }
        }
    }
}
