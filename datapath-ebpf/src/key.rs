//! The keys of flows, built in one place.
//!
//! A key is compared by its bytes, so its padding must be zero, and the compiler would make a function call of three zero bytes: protocol and
//! padding are therefore written as one word.

use core::mem::{MaybeUninit, offset_of};

use sluice_datapath_common::{Family, flow::FlowKey};

/// One end of a conversation.
#[derive(Clone, Copy)]
pub struct End<F: Family> {
    /// Its address.
    pub address: F::Address,
    /// Its port, network byte order.
    pub port: u16,
}

/// The key of packets from `source` to `destination` that come from `scope`.
#[inline(always)]
pub fn flow_key<F: Family>(source: End<F>, destination: End<F>, scope: u32, protocol: u8) -> FlowKey<F> {
    const {
        assert!(
            offset_of!(FlowKey<F>, protocol).is_multiple_of(4)
                && offset_of!(FlowKey<F>, protocol) + 4 == size_of::<FlowKey<F>>()
        )
    }
    let mut key = MaybeUninit::<FlowKey<F>>::uninit();
    let fields = key.as_mut_ptr();
    // SAFETY: every byte of the key is written: four fields, and the last word with the protocol and three bytes of padding.
    unsafe {
        (&raw mut (*fields).source).write(source.address);
        (&raw mut (*fields).destination).write(destination.address);
        (&raw mut (*fields).source_port).write(source.port);
        (&raw mut (*fields).destination_port).write(destination.port);
        (&raw mut (*fields).scope).write(scope);
        let last = fields.cast::<u8>().add(offset_of!(FlowKey<F>, protocol)).cast::<u32>();
        last.write(u32::from_ne_bytes([protocol, 0, 0, 0]));
        key.assume_init()
    }
}

/// 0 when both are the same. Sums of these are compared with 0 at once, where the compiler would rather ask of each by itself: the verifier walks on
/// once for each answer.
#[inline(always)]
pub fn differ(one: u32, other: u32) -> u64 {
    let mut difference = u64::from(one);
    // SAFETY: two registers and nothing else. The compiler cannot see through it, which is its purpose.
    unsafe {
        core::arch::asm!(
            "{difference} ^= {other}",
            difference = inout(reg) difference,
            other = in(reg) u64::from(other),
            options(pure, nomem, nostack),
        )
    };
    difference
}

/// The same for larger values: whole words, all of whose bytes are written.
#[inline(always)]
pub fn differ_by_words<T>(one: &T, other: &T) -> u64 {
    const { assert!(size_of::<T>().is_multiple_of(4) && align_of::<T>().is_multiple_of(4)) }
    let (one, other) = ((&raw const *one).cast::<u32>(), (&raw const *other).cast::<u32>());
    let mut difference = 0;
    let mut word = 0;
    while word < size_of::<T>() / 4 {
        // SAFETY: within both values.
        difference |= unsafe { differ(one.add(word).read(), other.add(word).read()) };
        word += 1;
    }
    difference
}

/// Are they the same?
#[inline(always)]
pub fn is_same<F: Family>(one: &FlowKey<F>, other: &FlowKey<F>) -> bool {
    differ_by_words(one, other) == 0
}

/// The source of a key's packets.
#[inline(always)]
pub fn source<F: Family>(key: &FlowKey<F>) -> End<F> {
    End {
        address: key.source,
        port: key.source_port,
    }
}

/// Their destination.
#[inline(always)]
pub fn destination<F: Family>(key: &FlowKey<F>) -> End<F> {
    End {
        address: key.destination,
        port: key.destination_port,
    }
}
