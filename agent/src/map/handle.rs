//! Typed handles of open maps. Sizes are compared with the kernel's when a handle is made, so that no call can overrun.

use std::{
    io,
    marker::PhantomData,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use aya::Pod;

use crate::kernel::{bpf, ring};

/// How many entries one system call carries: enough that the call is not what costs, little enough to be forgotten at once.
const BATCH: usize = 512;

/// A map with one value per key.
pub struct Table<K, V> {
    map: OwnedFd,
    entries: PhantomData<(K, V)>,
}

/// A map with a value per key and CPU.
pub struct PerCpuTable<K, V> {
    map: OwnedFd,
    cpus: usize,
    entries: PhantomData<(K, V)>,
}

/// A ring of records, which has no keys.
pub struct Ring<K, V> {
    map: OwnedFd,
    records: PhantomData<(K, V)>,
}

/// The key of a trie.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Prefix<A> {
    /// Bits.
    pub length: u32,
    /// The address, network byte order.
    pub address: A,
}

// SAFETY: `repr(C)`, a 32-bit integer and a key of the contract, none of which is aligned to more than four bytes: no padding.
unsafe impl<A: Pod> Pod for Prefix<A> {}

/// The names that the contract calls the kinds by, each with its handle.
pub mod kind {
    use super::{PerCpuTable, Prefix, Ring, Table};

    pub type HashMap<K, V> = Table<K, V>;
    pub type SparseHashMap<K, V> = Table<K, V>;
    pub type LruHashMap<K, V> = Table<K, V>;
    pub type Array<K, V> = Table<K, V>;
    pub type LpmTrie<A, V> = Table<Prefix<A>, V>;
    pub type LruPerCpuHashMap<K, V> = PerCpuTable<K, V>;
    pub type PerCpuArray<K, V> = PerCpuTable<K, V>;
    pub type RingBuf<K, V> = Ring<K, V>;
}

/// What every handle knows of its map.
pub trait Handle {
    /// Bytes of a key.
    const KEY_SIZE: usize;
    /// Bytes of a value (on one CPU).
    const VALUE_SIZE: usize;

    /// Takes an open map over. The caller has compared the sizes.
    fn from_map(map: OwnedFd) -> io::Result<Self>
    where
        Self: Sized;

    /// The map.
    fn map(&self) -> BorrowedFd<'_>;

    /// How many keys it holds; of a ring, how many bytes that were not read yet.
    fn count(&self) -> io::Result<u64>;

    /// How many keys have a value that is not all zeros.
    fn count_set(&self) -> io::Result<u64>;
}

// === impl Table ===

impl<K: Pod, V: Pod> Table<K, V> {
    /// The value of a key.
    pub fn get(&self, key: &K) -> io::Result<Option<V>> {
        let mut value = zeroed::<V>();
        // SAFETY: sizes were compared when the handle was made.
        let found = unsafe { bpf::lookup(self.map.as_fd(), key, &raw mut value)? };
        Ok(found.then_some(value))
    }

    /// Gives a key a value.
    pub fn put(&self, key: &K, value: &V) -> io::Result<()> {
        // SAFETY: as above.
        unsafe { bpf::update(self.map.as_fd(), key, value) }
    }

    /// Takes a key's value away; fine when there is none.
    pub fn remove(&self, key: &K) -> io::Result<()> {
        // SAFETY: as above.
        unsafe { bpf::delete(self.map.as_fd(), key) }.map(drop)
    }

    /// Takes many keys' values away.
    pub fn remove_all(&self, keys: &[K]) -> io::Result<()> {
        let mut rest = keys;
        while !rest.is_empty() {
            // SAFETY: as above.
            let gone = unsafe { bpf::delete_batch(self.map.as_fd(), rest)? };
            // It stopped at a key that somebody else has removed: step over that one.
            rest = rest.get(gone + 1..).unwrap_or_default();
        }
        Ok(())
    }

    /// Hands on all entries, some at a time. What is written meanwhile may be missed, or seen twice.
    pub fn each(&self, mut each: impl FnMut(&[K], &[V])) -> io::Result<()> {
        let mut keys = vec![zeroed::<K>(); BATCH];
        let mut values = vec![zeroed::<V>(); BATCH];
        let mut walk = bpf::Walk::default();
        loop {
            // SAFETY: sizes as above; `Pod` means that any bytes are a value.
            let count = unsafe { bpf::lookup_batch(self.map.as_fd(), &mut walk, &mut keys, &mut values) };
            match count {
                Ok(0) => return Ok(()),
                Ok(count) => each(&keys[..count], &values[..count]),
                // Kernels before 5.6 and odd kinds: one by one.
                Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => return self.each_singly(each),
                Err(error) => return Err(error),
            }
        }
    }

    fn each_singly(&self, mut each: impl FnMut(&[K], &[V])) -> io::Result<()> {
        let mut key = None;
        loop {
            let mut next = zeroed::<K>();
            // SAFETY: sizes as above.
            if !unsafe { bpf::next_key(self.map.as_fd(), key.as_ref(), &mut next)? } {
                return Ok(());
            }
            if let Some(value) = self.get(&next)? {
                each(&[next], &[value]);
            }
            key = Some(next);
        }
    }

    /// All entries that are wanted.
    pub fn entries(&self, mut wanted: impl FnMut(&K, &V) -> bool) -> io::Result<Vec<(K, V)>> {
        let mut entries = Vec::new();
        self.each(|keys, values| {
            entries.extend(
                keys.iter()
                    .copied()
                    .zip(values.iter().copied())
                    .filter(|(key, value)| wanted(key, value)),
            )
        })?;
        Ok(entries)
    }
}

impl<K: Pod, V: Pod> Handle for Table<K, V> {
    const KEY_SIZE: usize = size_of::<K>();
    const VALUE_SIZE: usize = size_of::<V>();

    fn from_map(map: OwnedFd) -> io::Result<Self> {
        Ok(Self {
            map,
            entries: PhantomData,
        })
    }

    fn map(&self) -> BorrowedFd<'_> {
        self.map.as_fd()
    }

    fn count(&self) -> io::Result<u64> {
        let mut count = 0;
        self.each(|keys, _| count += keys.len() as u64)?;
        Ok(count)
    }

    fn count_set(&self) -> io::Result<u64> {
        let mut count = 0;
        self.each(|_, values| count += values.iter().filter(|value| is_set(*value)).count() as u64)?;
        Ok(count)
    }
}

// === impl PerCpuTable ===

impl<K: Pod, V: Pod> PerCpuTable<K, V> {
    /// Hands on each key with its values, one per possible CPU.
    pub fn each(&self, mut each: impl FnMut(&K, &[V])) -> io::Result<()> {
        // Each CPU's value begins at a multiple of eight bytes.
        let stride = size_of::<V>().next_multiple_of(8);
        let mut buffer = vec![0u64; stride / 8 * self.cpus];
        let mut key = None;
        // When the key is evicted under our hands the walk begins again: bounded, or it might never end.
        let steps = bpf::map_info(self.map.as_fd())?.max_entries.saturating_mul(2);
        for _ in 0..steps {
            let mut next = zeroed::<K>();
            // SAFETY: the key's size was compared when the handle was made.
            if !unsafe { bpf::next_key(self.map.as_fd(), key.as_ref(), &mut next)? } {
                return Ok(());
            }
            // SAFETY: as above; the buffer has room for the values of all possible CPUs.
            if unsafe { bpf::lookup(self.map.as_fd(), &next, buffer.as_mut_ptr())? } {
                let values: Vec<V> = (0..self.cpus)
                    // SAFETY: in bounds by construction of the buffer; any bytes are a value of a `Pod`.
                    .map(|cpu| unsafe {
                        buffer
                            .as_ptr()
                            .cast::<u8>()
                            .add(cpu * stride)
                            .cast::<V>()
                            .read_unaligned()
                    })
                    .collect();
                each(&next, &values);
            }
            key = Some(next);
        }
        Ok(())
    }
}

impl<K: Pod, V: Pod> Handle for PerCpuTable<K, V> {
    const KEY_SIZE: usize = size_of::<K>();
    const VALUE_SIZE: usize = size_of::<V>();

    fn from_map(map: OwnedFd) -> io::Result<Self> {
        let cpus =
            aya::util::nr_cpus().map_err(|(path, error)| io::Error::new(error.kind(), format!("{path}: {error}")))?;
        Ok(Self {
            map,
            cpus,
            entries: PhantomData,
        })
    }

    fn map(&self) -> BorrowedFd<'_> {
        self.map.as_fd()
    }

    fn count(&self) -> io::Result<u64> {
        let mut count = 0;
        self.each(|_, _| count += 1)?;
        Ok(count)
    }

    fn count_set(&self) -> io::Result<u64> {
        let mut count = 0;
        self.each(|_, values| count += u64::from(values.iter().any(is_set)))?;
        Ok(count)
    }
}

// === impl Ring ===

impl<K, V> Ring<K, V> {
    /// Its memory, for the one who reads.
    pub fn reader(&self) -> io::Result<ring::Ring> {
        ring::Ring::open(self.map.as_fd(), bpf::map_info(self.map.as_fd())?.max_entries)
    }
}

impl<K, V> Handle for Ring<K, V> {
    const KEY_SIZE: usize = 0;
    const VALUE_SIZE: usize = 0;

    fn from_map(map: OwnedFd) -> io::Result<Self> {
        Ok(Self {
            map,
            records: PhantomData,
        })
    }

    fn map(&self) -> BorrowedFd<'_> {
        self.map.as_fd()
    }

    fn count(&self) -> io::Result<u64> {
        Ok(self.reader()?.unread())
    }

    fn count_set(&self) -> io::Result<u64> {
        self.count()
    }
}

fn is_set<V: Pod>(value: &V) -> bool {
    // SAFETY: values of the contract have their padding written out as fields, so every byte is initialised.
    let bytes = unsafe { std::slice::from_raw_parts(std::ptr::from_ref(value).cast::<u8>(), size_of::<V>()) };
    bytes.iter().any(|byte| *byte != 0)
}

fn zeroed<T: Pod>() -> T {
    // SAFETY: any bytes are a value of a `Pod`.
    unsafe { std::mem::zeroed() }
}
