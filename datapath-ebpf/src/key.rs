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
