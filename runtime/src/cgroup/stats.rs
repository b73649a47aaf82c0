//! What a container has used, as its cgroups count it.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{Cgroups, Hierarchies};

/// What a container has used, and what it may use. The same words for v1 and v2; what a kernel does not count is 0 or none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Processor time.
    pub cpu: CpuStats,
    /// Memory.
    pub memory: MemoryStats,
    /// Processes and threads.
    pub pids: PidsStats,
    /// Block devices, an entry for each device and kind that was used.
    pub block: Vec<BlockStats>,
    /// The memory controller is in the unified tree: [`MemoryStats::detail`] has the names of v2.
    pub is_unified: bool,
}

/// Processor time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CpuStats {
    /// Used in all.
    pub total: Duration,
    /// Of that in programs.
    pub user: Duration,
    /// Of that in the kernel.
    pub system: Duration,
    /// Used on each processor; empty on v2, which does not count it.
    pub per_cpu: Vec<Duration>,
    /// Periods of the quota that have passed.
    pub periods: u64,
    /// Periods in which the quota was used up.
    pub throttled_periods: u64,
    /// How long processes had to wait for that.
    pub throttled: Duration,
}

/// Memory, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryStats {
    /// In use, page cache included.
    pub usage: u64,
    /// The most that ever was in use; none before Linux 5.19 on v2.
    pub most: Option<u64>,
    /// The limit; none: no limit.
    pub limit: Option<u64>,
    /// How often the limit was run into.
    pub failures: u64,
    /// Processes killed for want of memory.
    pub oom_kills: u64,
    /// `memory.stat` as the kernel writes it.
    pub detail: BTreeMap<String, u64>,
}

/// Processes and threads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PidsStats {
    /// There are now.
    pub current: u64,
    /// The limit; none: no limit.
    pub limit: Option<u64>,
}

/// What was moved from or to a block device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockStats {
    /// The device's number.
    pub major: u32,
    /// The device's number.
    pub minor: u32,
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub written_bytes: u64,
    /// Operations of reading.
    pub reads: u64,
    /// Operations of writing.
    pub writes: u64,
}

/// v1 writes "no limit" as the highest multiple of the page size.
const NO_LIMIT_V1: u64 = 1 << 62;

pub(super) fn gather(hierarchies: &Hierarchies, cgroups: &Cgroups, place: &Path) -> Stats {
    let v1 = |controller: &str| {
        hierarchies
            .v1_with(controller)
            .map(|hierarchy| hierarchy.mounted_at.join(place))
    };
    let unified = &cgroups.unified;
    Stats {
        cpu: cpu(unified, v1("cpuacct"), v1("cpu")),
        is_unified: v1("memory").is_none(),
        memory: match v1("memory") {
            Some(directory) => memory1(&directory),
            None => memory2(unified),
        },
        pids: pids(&v1("pids").unwrap_or_else(|| unified.clone())),
        block: match v1("blkio") {
            Some(directory) => block1(&directory),
            None => block2(&text(unified, "io.stat")),
        },
    }
}

fn text(directory: &Path, name: &str) -> String {
    fs::read_to_string(directory.join(name)).unwrap_or_default()
}

fn number(directory: &Path, name: &str) -> Option<u64> {
    text(directory, name).trim().parse().ok()
}

/// Lines of a name and a number.
fn table(text: &str) -> BTreeMap<String, u64> {
    let line = |line: &str| {
        let (name, value) = line.split_once(' ')?;
        Some((name.to_owned(), value.trim().parse().ok()?))
    };
    text.lines().filter_map(line).collect()
}

fn cpu(unified: &Path, accounting: Option<PathBuf>, quota: Option<PathBuf>) -> CpuStats {
    // The unified tree counts time whether it has the controller or not, but not the periods.
    let counted = table(&text(unified, "cpu.stat"));
    let micros = |name: &str| Duration::from_micros(counted.get(name).copied().unwrap_or(0));
    let mut stats = CpuStats {
        total: micros("usage_usec"),
        user: micros("user_usec"),
        system: micros("system_usec"),
        periods: counted.get("nr_periods").copied().unwrap_or(0),
        throttled_periods: counted.get("nr_throttled").copied().unwrap_or(0),
        throttled: micros("throttled_usec"),
        per_cpu: Vec::new(),
    };
    if let Some(directory) = accounting {
        let nanos = |name| Duration::from_nanos(number(&directory, name).unwrap_or(0));
        stats.total = nanos("cpuacct.usage");
        stats.user = nanos("cpuacct.usage_user");
        stats.system = nanos("cpuacct.usage_sys");
        let each = text(&directory, "cpuacct.usage_percpu");
        let each = each.split_ascii_whitespace().filter_map(|nanos| nanos.parse().ok());
        stats.per_cpu = each.map(Duration::from_nanos).collect();
    }
    if let Some(directory) = quota {
        let counted = table(&text(&directory, "cpu.stat"));
        let of = |name: &str| counted.get(name).copied().unwrap_or(0);
        stats.periods = of("nr_periods");
        stats.throttled_periods = of("nr_throttled");
        stats.throttled = Duration::from_nanos(of("throttled_time"));
    }
    stats
}

fn memory1(directory: &Path) -> MemoryStats {
    MemoryStats {
        usage: number(directory, "memory.usage_in_bytes").unwrap_or(0),
        most: number(directory, "memory.max_usage_in_bytes"),
        limit: number(directory, "memory.limit_in_bytes").filter(|limit| *limit < NO_LIMIT_V1),
        failures: number(directory, "memory.failcnt").unwrap_or(0),
        oom_kills: table(&text(directory, "memory.oom_control"))
            .get("oom_kill")
            .copied()
            .unwrap_or(0),
        detail: table(&text(directory, "memory.stat")),
    }
}

fn memory2(directory: &Path) -> MemoryStats {
    let events = table(&text(directory, "memory.events"));
    MemoryStats {
        usage: number(directory, "memory.current").unwrap_or(0),
        most: number(directory, "memory.peak"),
        limit: number(directory, "memory.max"),
        failures: events.get("max").copied().unwrap_or(0),
        oom_kills: events.get("oom_kill").copied().unwrap_or(0),
        detail: table(&text(directory, "memory.stat")),
    }
}

fn pids(directory: &Path) -> PidsStats {
    PidsStats {
        current: number(directory, "pids.current").unwrap_or(0),
        limit: number(directory, "pids.max"),
    }
}

fn device(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

fn entry(all: &mut Vec<BlockStats>, (major, minor): (u32, u32)) -> &mut BlockStats {
    let known = all
        .iter()
        .position(|entry| (entry.major, entry.minor) == (major, minor));
    let at = known.unwrap_or_else(|| {
        all.push(BlockStats {
            major,
            minor,
            read_bytes: 0,
            written_bytes: 0,
            reads: 0,
            writes: 0,
        });
        all.len() - 1
    });
    &mut all[at]
}

/// Lines of `8:0 Read 4096`, in a file for bytes and one for operations.
fn block1(directory: &Path) -> Vec<BlockStats> {
    let mut all = Vec::new();
    for (name, in_bytes) in [
        ("blkio.throttle.io_service_bytes_recursive", true),
        ("blkio.throttle.io_serviced_recursive", false),
    ] {
        for line in text(directory, name).lines() {
            let mut words = line.split_ascii_whitespace();
            let (Some(device), Some(kind), Some(value)) = (words.next().and_then(device), words.next(), words.next())
            else {
                continue;
            };
            let value = value.parse().unwrap_or(0);
            match (kind, in_bytes) {
                ("Read", true) => entry(&mut all, device).read_bytes = value,
                ("Write", true) => entry(&mut all, device).written_bytes = value,
                ("Read", false) => entry(&mut all, device).reads = value,
                ("Write", false) => entry(&mut all, device).writes = value,
                _ => {}
            }
        }
    }
    all
}

/// Lines of `8:0 rbytes=4096 wbytes=0 rios=1 wios=0 dbytes=0 dios=0`.
fn block2(text: &str) -> Vec<BlockStats> {
    let mut all = Vec::new();
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        let Some(device) = words.next().and_then(device) else {
            continue;
        };
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            let value = value.parse().unwrap_or(0);
            match key {
                "rbytes" => entry(&mut all, device).read_bytes = value,
                "wbytes" => entry(&mut all, device).written_bytes = value,
                "rios" => entry(&mut all, device).reads = value,
                "wios" => entry(&mut all, device).writes = value,
                _ => {}
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unified_trees_block_figures_are_read_by_device() {
        let read = block2("254:0 rbytes=4096 wbytes=512 rios=1 wios=2 dbytes=0 dios=0\n7:1 rbytes=1\nbroken\n");
        assert_eq!(read.len(), 2);
        let first = BlockStats {
            major: 254,
            minor: 0,
            read_bytes: 4096,
            written_bytes: 512,
            reads: 1,
            writes: 2,
        };
        assert_eq!(read[0], first);
        assert_eq!((read[1].major, read[1].minor, read[1].read_bytes), (7, 1, 1));
    }

    #[test]
    fn what_is_no_number_is_passed_over() {
        let read = table("a 1\nb\nc x\nd 2\n");
        assert_eq!(read, BTreeMap::from([("a".to_owned(), 1), ("d".to_owned(), 2)]));
    }
}
