//! A cable that loses packets: a small XDP program takes every n-th away. It needs nothing that a kernel without `netem` lacks.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use nix::libc;

/// Loses every n-th IP packet that comes in by a device, until it goes.
pub struct Loss {
    counts: OwnedFd,
    _link: OwnedFd,
}

impl Loss {
    /// On a device of the thread's network namespace. What is not IP (ARP) is let through.
    pub fn of(every: u32, device: &str) -> Self {
        let ifindex = nix::net::if_::if_nametoindex(device).unwrap_or_else(|error| panic!("{device}: {error}"));
        let counts = create_map();
        let program = load(&instructions(counts.as_raw_fd(), every));
        let link = bpf(
            LINK_CREATE,
            &mut LinkCreate {
                program: program.as_raw_fd() as u32,
                ifindex,
                attach_type: ATTACH_XDP,
                flags: GENERIC,
            },
        );
        Self {
            counts,
            _link: owned(link, "attach an XDP program"),
        }
    }

    /// How many are lost so far.
    pub fn lost(&self) -> u64 {
        let (key, mut value) = (0u32, [0u64; 2]);
        let answer = bpf(
            LOOKUP,
            &mut Element {
                map: self.counts.as_raw_fd() as u32,
                padding: 0,
                key: (&raw const key) as u64,
                value: value.as_mut_ptr() as u64,
                flags: 0,
            },
        );
        answer.unwrap_or_else(|error| panic!("read how many packets are lost: {error}"));
        value[1]
    }
}

// Numbers of bpf(2), from <linux/bpf.h>.
const MAP_CREATE: i32 = 0;
const LOOKUP: i32 = 1;
const PROG_LOAD: i32 = 5;
const LINK_CREATE: i32 = 28;
const TYPE_ARRAY: u32 = 2;
const TYPE_XDP: u32 = 6;
const ATTACH_XDP: u32 = 37;
/// `XDP_FLAGS_SKB_MODE`: on any device, and for super-packets as they are.
const GENERIC: u32 = 1 << 1;

#[repr(C)]
struct MapCreate {
    kind: u32,
    key_size: u32,
    value_size: u32,
    entries: u32,
}

#[repr(C)]
struct Element {
    map: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
struct ProgLoad {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
}

#[repr(C)]
struct LinkCreate {
    program: u32,
    ifindex: u32,
    attach_type: u32,
    flags: u32,
}

/// One instruction: operation, registers (destination in the low half), offset, number.
#[repr(C)]
#[derive(Clone, Copy)]
struct Instruction {
    operation: u8,
    registers: u8,
    offset: i16,
    number: i32,
}

/// Counts IP packets in the first half of the table's only value, and lost ones in the second.
#[rustfmt::skip] // an instruction a line
fn instructions(counts: i32, every: u32) -> Vec<Instruction> {
    let i = |operation, destination: u8, source: u8, offset, number| Instruction { operation, registers: source << 4 | destination, offset, number };
    const PASS: i32 = 2;
    const DROP: i32 = 1;
    vec![
        i(0x61, 2, 1, 0, 0),                   //  0 r2 = the packet's beginning
        i(0x61, 3, 1, 4, 0),                   //  1 r3 = its end
        i(0xbf, 4, 2, 0, 0),                   //  2 r4 = r2
        i(0x07, 4, 0, 0, 14),                  //  3 r4 += 14
        i(0x2d, 4, 3, 18, 0),                  //  4 if r4 > r3 goto pass
        i(0x69, 5, 2, 12, 0),                  //  5 r5 = its Ethernet type
        i(0x15, 5, 0, 1, 0x0008),              //  6 if it is IPv4 skip the next
        i(0x55, 5, 0, 15, 0xdd86),             //  7 if it is not IPv6 goto pass
        i(0x62, 10, 0, -4, 0),                 //  8 the key: 0
        i(0x18, 1, 1, 0, counts),              //  9 r1 = the table
        i(0, 0, 0, 0, 0),                      // 10   (second half)
        i(0xbf, 2, 10, 0, 0),                  // 11 r2 = where the key is
        i(0x07, 2, 0, 0, -4),                  // 12
        i(0x85, 0, 0, 0, 1),                   // 13 r0 = look it up
        i(0x15, 0, 0, 8, 0),                   // 14 if there is none goto pass
        i(0xb7, 1, 0, 0, 1),                   // 15 r1 = 1
        i(0xdb, 0, 1, 0, 1),                   // 16 r1 = the count before it is raised by r1
        i(0x97, 1, 0, 0, every as i32),        // 17 r1 %= every
        i(0x55, 1, 0, 4, every as i32 - 1),    // 18 if it is not the last of so many goto pass
        i(0xb7, 1, 0, 0, 1),                   // 19 r1 = 1
        i(0xdb, 0, 1, 8, 0),                   // 20 one more is lost
        i(0xb7, 0, 0, 0, DROP),                // 21
        i(0x95, 0, 0, 0, 0),                   // 22 exit
        i(0xb7, 0, 0, 0, PASS),                // 23 pass:
        i(0x95, 0, 0, 0, 0),                   // 24 exit
    ]
}

fn create_map() -> OwnedFd {
    let made = bpf(
        MAP_CREATE,
        &mut MapCreate {
            kind: TYPE_ARRAY,
            key_size: 4,
            value_size: 16,
            entries: 1,
        },
    );
    owned(made, "make a table of counts")
}

fn load(program: &[Instruction]) -> OwnedFd {
    let mut log = vec![0u8; 65_536];
    let loaded = bpf(
        PROG_LOAD,
        &mut ProgLoad {
            kind: TYPE_XDP,
            count: program.len() as u32,
            instructions: program.as_ptr() as u64,
            license: c"GPL".as_ptr() as u64,
            log_level: 1,
            log_size: log.len() as u32,
            log: log.as_mut_ptr() as u64,
        },
    );
    let said = String::from_utf8_lossy(&log);
    owned(
        loaded,
        &format!("load an XDP program ({})", said.trim_end_matches('\0')),
    )
}

/// Calls bpf(2).
fn bpf<T>(command: i32, attributes: &mut T) -> io::Result<i32> {
    // SAFETY: `attributes` is what the command takes, as long as is said; what it points to lives until the call is done.
    let done = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attributes, size_of::<T>()) };
    match done {
        0.. => Ok(done as i32),
        _ => Err(io::Error::last_os_error()),
    }
}

fn owned(descriptor: io::Result<i32>, what: &str) -> OwnedFd {
    let descriptor = descriptor.unwrap_or_else(|error| panic!("{what}: {error}"));
    // SAFETY: the kernel has just given it to us.
    unsafe { OwnedFd::from_raw_fd(descriptor) }
}
