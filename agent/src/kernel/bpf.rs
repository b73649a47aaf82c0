//! bpf(2), as far as aya leaves it to us: links of any kind replaced in place, batches of map entries, what is attached where.
//!
//! aya 0.14 opens a pinned map without comparing it with what is expected, has no batch operations and cannot replace a cgroup link's
//! program. Its loader is used (`program/load.rs`); everything that touches a live kernel object is here, alike for every kind.

use std::{
    ffi::CString,
    io,
    mem::size_of,
    os::{
        fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

/// Commands of bpf(2), numbered as in `enum bpf_cmd`.
mod command {
    pub const MAP_LOOKUP: u32 = 1;
    pub const MAP_UPDATE: u32 = 2;
    pub const MAP_DELETE: u32 = 3;
    pub const MAP_NEXT_KEY: u32 = 4;
    pub const OBJECT_PIN: u32 = 6;
    pub const OBJECT_GET: u32 = 7;
    pub const MAP_BY_ID: u32 = 14;
    pub const OBJECT_INFO: u32 = 15;
    pub const PROGRAM_QUERY: u32 = 16;
    pub const MAP_LOOKUP_BATCH: u32 = 24;
    pub const MAP_DELETE_BATCH: u32 = 27;
    pub const LINK_CREATE: u32 = 28;
    pub const LINK_UPDATE: u32 = 29;
    pub const LINK_BY_ID: u32 = 30;
    pub const LINK_DETACH: u32 = 34;
    pub const PROGRAM_BY_ID: u32 = 13;
}

/// Where a program can be attached, numbered as in `enum bpf_attach_type`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u32)]
pub enum AttachType {
    Bind4 = 8,
    Bind6 = 9,
    Connect4 = 10,
    Connect6 = 11,
    Sendmsg4 = 14,
    Sendmsg6 = 15,
    Recvmsg4 = 19,
    Recvmsg6 = 20,
    Getpeername4 = 29,
    Getpeername6 = 30,
    TcxIngress = 46,
    TcxEgress = 47,
}

/// Put ours before all others (with no other named: first).
const BEFORE: u32 = 1 << 3;

/// The kernel's word on a map.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MapInfo {
    /// `enum bpf_map_type`.
    pub kind: u32,
    pub id: u32,
    /// Bytes.
    pub key_size: u32,
    /// Bytes.
    pub value_size: u32,
    pub max_entries: u32,
    /// At most 15 characters.
    pub name: String,
}

/// The kernel's word on a program.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProgramInfo {
    pub id: u32,
    /// At most 15 characters.
    pub name: String,
    /// The maps it uses.
    pub maps: Vec<u32>,
}

/// The kernel's word on a link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LinkInfo {
    pub id: u32,
    pub program: u32,
    /// For tcx: the device; 0 when it is gone. For cgroups: 0.
    pub ifindex: u32,
    /// For cgroups: the id of the cgroup; 0 when it is gone. For tcx: 0.
    pub cgroup: u64,
}

// === calls ===

/// bpf(2) with one of the attribute structs below.
///
/// # Safety
/// `attribute` is laid out as `command` wants it, and every address in it stays good for the call.
unsafe fn call<T>(command: u32, attribute: &mut T) -> io::Result<i64> {
    // SAFETY: the attribute is exclusively borrowed, its size is passed; the caller answers for what it points to.
    let answer = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attribute), size_of::<T>()) };
    if answer < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(answer)
    }
}

/// A call that answers with a new file descriptor.
///
/// # Safety
/// As [`call`].
unsafe fn call_for_fd<T>(command: u32, attribute: &mut T) -> io::Result<OwnedFd> {
    // SAFETY: passed on.
    let fd = unsafe { call(command, attribute)? };
    let fd = RawFd::try_from(fd).map_err(|_| io::Error::other("bpf(2) answered with a strange descriptor"))?;
    // SAFETY: the kernel has just opened it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn path_of(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))
}

#[repr(C)]
#[derive(Default)]
struct ObjectAttribute {
    path: u64,
    fd: u32,
    flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct IdAttribute {
    id: u32,
    next: u32,
    flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct InfoAttribute {
    fd: u32,
    length: u32,
    info: u64,
}

/// Opens what is pinned at `path`.
pub fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    let path = path_of(path)?;
    let mut attribute = ObjectAttribute {
        path: path.as_ptr() as u64,
        ..Default::default()
    };
    // SAFETY: `path` lives until the end of the function.
    unsafe { call_for_fd(command::OBJECT_GET, &mut attribute) }
}

/// Pins a map, program or link at `path`.
pub fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = path_of(path)?;
    let mut attribute = ObjectAttribute {
        path: path.as_ptr() as u64,
        fd: object.as_raw_fd() as u32,
        flags: 0,
    };
    // SAFETY: `path` lives until the end of the function.
    unsafe { call(command::OBJECT_PIN, &mut attribute) }.map(drop)
}

fn open_by_id(command: u32, id: u32) -> io::Result<OwnedFd> {
    let mut attribute = IdAttribute {
        id,
        ..Default::default()
    };
    // SAFETY: the attribute holds no address.
    unsafe { call_for_fd(command, &mut attribute) }
}

/// Opens the map with this id.
pub fn map_by_id(id: u32) -> io::Result<OwnedFd> {
    open_by_id(command::MAP_BY_ID, id)
}

/// Opens the program with this id.
pub fn program_by_id(id: u32) -> io::Result<OwnedFd> {
    open_by_id(command::PROGRAM_BY_ID, id)
}

/// Opens the link with this id.
pub fn link_by_id(id: u32) -> io::Result<OwnedFd> {
    open_by_id(command::LINK_BY_ID, id)
}

/// Fills `info` (of the kernel's layout, a prefix of it is enough).
///
/// # Safety
/// Any bytes are a value of `T`, and every address in it stays good for the call.
unsafe fn info<T>(object: BorrowedFd<'_>, info: &mut T) -> io::Result<()> {
    let mut attribute = InfoAttribute {
        fd: object.as_raw_fd() as u32,
        length: size_of::<T>() as u32,
        info: std::ptr::from_mut(info) as u64,
    };
    // SAFETY: the kernel writes at most `length` bytes to `info`.
    unsafe { call(command::OBJECT_INFO, &mut attribute) }.map(drop)
}

fn name_of(bytes: &[u8; 16]) -> String {
    bytes
        .iter()
        .take_while(|byte| **byte != 0)
        .map(|byte| char::from(*byte))
        .collect()
}

/// What the kernel says of a map.
pub fn map_info(map: BorrowedFd<'_>) -> io::Result<MapInfo> {
    #[repr(C)]
    #[derive(Default)]
    struct Raw {
        kind: u32,
        id: u32,
        key_size: u32,
        value_size: u32,
        max_entries: u32,
        flags: u32,
        name: [u8; 16],
    }
    let mut raw = Raw::default();
    // SAFETY: integers only, no addresses.
    unsafe { info(map, &mut raw)? };
    Ok(MapInfo {
        kind: raw.kind,
        id: raw.id,
        key_size: raw.key_size,
        value_size: raw.value_size,
        max_entries: raw.max_entries,
        name: name_of(&raw.name),
    })
}

/// What the kernel says of a program.
pub fn program_info(program: BorrowedFd<'_>) -> io::Result<ProgramInfo> {
    #[repr(C)]
    #[derive(Default)]
    struct Raw {
        kind: u32,
        id: u32,
        tag: [u8; 8],
        jited_length: u32,
        xlated_length: u32,
        jited: u64,
        xlated: u64,
        load_time: u64,
        user: u32,
        map_count: u32,
        maps: u64,
        name: [u8; 16],
    }
    let mut maps = [0u32; 64];
    let mut raw = Raw {
        map_count: maps.len() as u32,
        maps: maps.as_mut_ptr() as u64,
        ..Default::default()
    };
    // SAFETY: integers only; `maps` has room for `map_count` ids and outlives the call.
    unsafe { info(program, &mut raw)? };
    let count = maps.len().min(raw.map_count as usize);
    Ok(ProgramInfo {
        id: raw.id,
        name: name_of(&raw.name),
        maps: maps[..count].to_vec(),
    })
}

/// What the kernel says of a link.
pub fn link_info(link: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    const CGROUP: u32 = 3;
    const TCX: u32 = 11;
    #[repr(C)]
    #[derive(Default)]
    struct Raw {
        kind: u32,
        id: u32,
        program: u32,
        padding: u32,
        target: u64,
        more: u64,
    }
    let mut raw = Raw::default();
    // SAFETY: integers only, no addresses.
    unsafe { info(link, &mut raw)? };
    let of = |kind| raw.kind == kind;
    Ok(LinkInfo {
        id: raw.id,
        program: raw.program,
        // The union begins with `__u32 ifindex` for tcx and `__u64 cgroup_id` for cgroups.
        ifindex: if of(TCX) {
            u32::from_ne_bytes(first_word(raw.target))
        } else {
            0
        },
        cgroup: if of(CGROUP) { raw.target } else { 0 },
    })
}

fn first_word(value: u64) -> [u8; 4] {
    let bytes = value.to_ne_bytes();
    [bytes[0], bytes[1], bytes[2], bytes[3]]
}

// === links ===

#[repr(C)]
#[derive(Default)]
struct LinkAttribute {
    program: u32,
    target: u32,
    attach_type: u32,
    flags: u32,
    relative: u32,
    padding: u32,
    expected_revision: u64,
}

/// Attaches a program to a device, before all others there.
pub fn attach_to_device(program: BorrowedFd<'_>, ifindex: u32, attach_type: AttachType) -> io::Result<OwnedFd> {
    let mut attribute = LinkAttribute {
        program: program.as_raw_fd() as u32,
        target: ifindex,
        attach_type: attach_type as u32,
        flags: BEFORE,
        ..Default::default()
    };
    // SAFETY: the attribute holds no address.
    unsafe { call_for_fd(command::LINK_CREATE, &mut attribute) }
}

/// Attaches a program to a cgroup beside others there.
pub fn attach_to_cgroup(
    program: BorrowedFd<'_>,
    cgroup: BorrowedFd<'_>,
    attach_type: AttachType,
) -> io::Result<OwnedFd> {
    // A link is always one of several; saying so by a flag is EINVAL.
    let mut attribute = LinkAttribute {
        program: program.as_raw_fd() as u32,
        target: cgroup.as_raw_fd() as u32,
        attach_type: attach_type as u32,
        ..Default::default()
    };
    // SAFETY: the attribute holds no address.
    unsafe { call_for_fd(command::LINK_CREATE, &mut attribute) }
}

/// Puts another program behind a link, with no packet between that meets none.
pub fn replace_program(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    #[repr(C)]
    struct Attribute {
        link: u32,
        program: u32,
        flags: u32,
        old_program: u32,
    }
    let mut attribute = Attribute {
        link: link.as_raw_fd() as u32,
        program: program.as_raw_fd() as u32,
        flags: 0,
        old_program: 0,
    };
    // SAFETY: the attribute holds no address.
    unsafe { call(command::LINK_UPDATE, &mut attribute) }.map(drop)
}

/// Detaches a link, whoever holds it.
pub fn detach(link: BorrowedFd<'_>) -> io::Result<()> {
    let mut attribute = link.as_raw_fd() as u32;
    // SAFETY: the attribute is one descriptor.
    unsafe { call(command::LINK_DETACH, &mut attribute) }.map(drop)
}

/// The (program, link) ids attached to a device by tcx.
pub fn attached_to_device(ifindex: u32, attach_type: AttachType) -> io::Result<Vec<(u32, u32)>> {
    #[repr(C)]
    #[derive(Default)]
    struct Attribute {
        target: u32,
        attach_type: u32,
        query_flags: u32,
        attach_flags: u32,
        programs: u64,
        count: u32,
        padding: u32,
        program_flags: u64,
        links: u64,
        link_flags: u64,
        revision: u64,
    }
    let (mut programs, mut links) = ([0u32; 64], [0u32; 64]);
    let mut attribute = Attribute {
        target: ifindex,
        attach_type: attach_type as u32,
        programs: programs.as_mut_ptr() as u64,
        count: programs.len() as u32,
        links: links.as_mut_ptr() as u64,
        ..Default::default()
    };
    // SAFETY: both arrays have room for `count` ids and outlive the call.
    unsafe { call(command::PROGRAM_QUERY, &mut attribute)? };
    let count = programs.len().min(attribute.count as usize);
    Ok(programs.into_iter().zip(links).take(count).collect())
}

// === map entries ===

#[repr(C)]
struct EntryAttribute {
    map: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

impl EntryAttribute {
    fn new<K, V>(map: BorrowedFd<'_>, key: *const K, value: *mut V) -> Self {
        Self {
            map: map.as_raw_fd() as u32,
            padding: 0,
            key: key as u64,
            value: value as u64,
            flags: 0,
        }
    }
}

/// Copies the value of `key` to `value`; false when there is none.
///
/// # Safety
/// `K` is as large as the map's key, and `value` has room for the map's value (of every possible CPU for per-CPU maps).
pub unsafe fn lookup<K, V>(map: BorrowedFd<'_>, key: &K, value: *mut V) -> io::Result<bool> {
    let mut attribute = EntryAttribute::new(map, key, value);
    // SAFETY: the caller's promise.
    found(unsafe { call(command::MAP_LOOKUP, &mut attribute) })
}

/// Gives `key` this value.
///
/// # Safety
/// `K` and `V` are as large as the map's key and value.
pub unsafe fn update<K, V>(map: BorrowedFd<'_>, key: &K, value: &V) -> io::Result<()> {
    let mut attribute = EntryAttribute::new(map, key, std::ptr::from_ref(value).cast_mut());
    // SAFETY: the caller's promise; the kernel only reads the value.
    unsafe { call(command::MAP_UPDATE, &mut attribute) }.map(drop)
}

/// Takes `key`'s entry away; false when there was none.
///
/// # Safety
/// `K` is as large as the map's key.
pub unsafe fn delete<K>(map: BorrowedFd<'_>, key: &K) -> io::Result<bool> {
    let mut attribute = EntryAttribute::new::<K, u8>(map, key, std::ptr::null_mut());
    // SAFETY: the caller's promise.
    found(unsafe { call(command::MAP_DELETE, &mut attribute) })
}

/// The key after `key` (the first one after none); false at the end.
///
/// # Safety
/// `K` is as large as the map's key.
pub unsafe fn next_key<K>(map: BorrowedFd<'_>, key: Option<&K>, next: &mut K) -> io::Result<bool> {
    let key = key.map_or(std::ptr::null(), std::ptr::from_ref);
    let mut attribute = EntryAttribute::new(map, key, std::ptr::from_mut(next));
    // SAFETY: the caller's promise.
    found(unsafe { call(command::MAP_NEXT_KEY, &mut attribute) })
}

fn found(answer: io::Result<i64>) -> io::Result<bool> {
    match answer {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

#[repr(C)]
#[derive(Default)]
struct BatchAttribute {
    from: u64,
    to: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    entry_flags: u64,
    flags: u64,
}

/// Where a walk through a map by batches has come to.
#[derive(Default)]
pub struct Walk {
    /// Opaque: a bucket's number for hashes, a key (of at most 64 bytes here) for others.
    place: [u64; 8],
    begun: bool,
    ended: bool,
}

/// Fills `keys` and `values` with the next entries and says how many; 0 at the end.
///
/// # Safety
/// `K` and `V` are as large as the map's key (at most 64 bytes) and value, any bytes are values of both.
pub unsafe fn lookup_batch<K, V>(
    map: BorrowedFd<'_>,
    walk: &mut Walk,
    keys: &mut [K],
    values: &mut [V],
) -> io::Result<usize> {
    if walk.ended {
        return Ok(0);
    }
    let from = walk.place;
    let mut attribute = BatchAttribute {
        from: if walk.begun { from.as_ptr() as u64 } else { 0 },
        to: walk.place.as_mut_ptr() as u64,
        keys: keys.as_mut_ptr() as u64,
        values: values.as_mut_ptr() as u64,
        count: keys.len().min(values.len()) as u32,
        map: map.as_raw_fd() as u32,
        ..Default::default()
    };
    // SAFETY: the caller's promise; `from` and `place` hold any token of the kernel (4 bytes or a key).
    match unsafe { call(command::MAP_LOOKUP_BATCH, &mut attribute) } {
        Ok(_) => walk.begun = true,
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => walk.ended = true,
        Err(error) => return Err(error),
    }
    Ok(attribute.count as usize)
}

/// Takes these keys' entries away and says how many; stops at the first that is gone already.
///
/// # Safety
/// `K` is as large as the map's key.
pub unsafe fn delete_batch<K>(map: BorrowedFd<'_>, keys: &[K]) -> io::Result<usize> {
    let mut attribute = BatchAttribute {
        keys: keys.as_ptr() as u64,
        count: keys.len() as u32,
        map: map.as_raw_fd() as u32,
        ..Default::default()
    };
    // SAFETY: the caller's promise; the kernel only reads the keys.
    let answer = unsafe { call(command::MAP_DELETE_BATCH, &mut attribute) };
    found(answer).map(|_| attribute.count as usize)
}
