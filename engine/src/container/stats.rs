//! What a container uses: of its cgroup, of its network devices, beside what the host's processors have done meanwhile.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use sluice_model::{Endpoint, container::NetworkMode};
use sluice_runtime::Stats;
use tokio::{sync::mpsc, time::MissedTickBehavior};

use crate::{Engine, EngineError, Kind, blocking::blocking, container::held::Held, error};

/// Between two measurements, as Docker has it.
const INTERVAL: Duration = Duration::from_secs(1);
/// The kernel tells processor time in these, whatever its own ticks are (`USER_HZ`).
const TICK: Duration = Duration::from_millis(10);

/// Devices that the kernel puts into each new network namespace when it has such tunnels; nobody's place in a network.
const FALLBACKS: [&str; 10] = [
    "tunl0", "gre0", "gretap0", "erspan0", "sit0", "ip6tnl0", "ip6gre0", "ip_vti0", "ip6_vti0", "teql0",
];

/// How often somebody wants to know.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Often {
    /// Every second, until the container is removed.
    EverySecond,
    /// Once, a second after a first measurement to compare with.
    Compared,
    /// Once, now.
    Once,
}

/// What a network device has carried, from the container's side.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Traffic {
    /// Received.
    pub received: Direction,
    /// Sent.
    pub sent: Direction,
}

/// One direction.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Direction {
    /// Bytes.
    pub bytes: u64,
    /// Packets.
    pub packets: u64,
    /// Errors.
    pub errors: u64,
    /// Packets dropped.
    pub dropped: u64,
}

/// What an endpoint's device has carried since its container started.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Carried {
    /// The endpoint's id.
    pub endpoint: String,
    /// The container's name.
    pub container: String,
    /// The network's name.
    pub network: String,
    /// From the container's side.
    pub traffic: Traffic,
}

/// A measurement.
#[derive(Clone, Debug)]
pub struct Usage {
    /// When.
    pub at: Timestamp,
    /// By its cgroup.
    pub stats: Stats,
    /// By device; empty in the host's network.
    pub traffic: BTreeMap<String, Traffic>,
    /// What all processors of the host have done since boot, idling too.
    pub host_cpu: Duration,
    /// Processors of the host.
    pub cpus: usize,
}

/// A measurement, and the one before to compare with.
#[derive(Clone, Debug)]
pub struct UsageView {
    /// The container's id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// None: it does not run.
    pub now: Option<Usage>,
    /// The one before, in a sequence.
    pub before: Option<Usage>,
}

impl Engine {
    /// What it uses.
    pub async fn stats(&self, name: &str, often: Often) -> Result<mpsc::Receiver<UsageView>, EngineError> {
        let held = self.containers.find(name)?;
        let (sender, receiver) = mpsc::channel(1);
        let engine = self.me.clone();
        self.in_background(async move {
            let mut life = held.life();
            let mut ticks = tokio::time::interval(INTERVAL);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut before = None;
            loop {
                tokio::select! {
                    _ = ticks.tick() => {}
                    () = sender.closed() => return,
                    _ = life.wait_for(|life| life.removed) => return,
                }
                let Some(engine) = engine.upgrade() else { return };
                let now = match engine.measure(&held).await {
                    Ok(now) => now,
                    Err(error) => {
                        tracing::warn!("cannot measure container {}: {error}", held.id);
                        return;
                    }
                };
                let compares = often == Often::Compared && before.is_none() && now.is_some();
                let view = UsageView {
                    id: held.id.to_string(),
                    name: held.look(|container| container.name.clone()),
                    now: now.clone(),
                    before: before.take(),
                };
                before = now;
                if compares {
                    continue;
                }
                if sender.send(view).await.is_err() || often != Often::EverySecond {
                    return;
                }
            }
        });
        Ok(receiver)
    }

    /// What the endpoints of all running containers have carried.
    pub async fn carried(&self) -> Result<Vec<Carried>, EngineError> {
        let endpoints: Vec<Endpoint> = self.networks.places().endpoints.values().cloned().collect();
        let found: Vec<(Endpoint, String, u32)> = endpoints
            .into_iter()
            .filter_map(|endpoint| {
                let network = self.networks.by_id(&endpoint.network)?.name;
                let held = self.containers.by_id(&endpoint.container)?;
                let pid = held.look(|container| container.state.is_alive().then_some(container.state.pid))?;
                Some((endpoint, network, pid))
            })
            .collect();
        blocking(move || {
            let mut devices: BTreeMap<u32, BTreeMap<String, Traffic>> = BTreeMap::new();
            let mut carried = Vec::with_capacity(found.len());
            for (endpoint, network, pid) in found {
                let devices = devices.entry(pid).or_insert_with(|| {
                    // of a process that just ended there are none
                    traffic(&std::fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap_or_default())
                });
                carried.extend(devices.get(&endpoint.interface).map(|traffic| Carried {
                    endpoint: endpoint.id.to_string(),
                    container: endpoint.name.clone(),
                    network,
                    traffic: *traffic,
                }));
            }
            Ok(carried)
        })
        .await
    }

    /// Itself, or by way of the containers whose network it shares. What the host's devices carry is not its own.
    fn is_in_hosts_network(&self, held: &Held) -> bool {
        let mut mode = held.look(|container| container.host_config.network_mode.clone());
        // a container cannot share with one that shares with itself, but a record may say so
        for _ in 0..16 {
            match mode {
                NetworkMode::Host => return true,
                NetworkMode::Container(name) => match self.containers.find(&name) {
                    Ok(other) => mode = other.look(|container| container.host_config.network_mode.clone()),
                    Err(_) => return false,
                },
                _ => return false,
            }
        }
        false
    }

    /// None: it does not run.
    async fn measure(&self, held: &Held) -> Result<Option<Usage>, EngineError> {
        let (alive, pid) = held.look(|container| (container.state.is_alive(), container.state.pid));
        let own_network = !self.is_in_hosts_network(held);
        if !alive {
            return Ok(None);
        }
        let stats = match self.runtime.stats(held.id.as_str()).await.map_err(EngineError::from) {
            Ok(stats) => stats,
            // it ended just now
            Err(error) if error.kind == Kind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        blocking(move || {
            let devices = format!("/proc/{pid}/net/dev");
            let traffic = if own_network {
                // of a process that just ended there are none
                traffic(&std::fs::read_to_string(devices).unwrap_or_default())
            } else {
                BTreeMap::new()
            };
            let path = std::path::Path::new("/proc/stat");
            let text = std::fs::read_to_string(path).map_err(|why| error::io("read", path, &why))?;
            let (host_cpu, cpus) = host_cpu(&text);
            Ok(Some(Usage {
                at: Timestamp::now(),
                stats,
                traffic,
                host_cpu,
                cpus,
            }))
        })
        .await
    }
}

/// `/proc/PID/net/dev`: devices but loopback.
fn traffic(text: &str) -> BTreeMap<String, Traffic> {
    let device = |line: &str| {
        let (name, figures) = line.split_once(':')?;
        let figures: Vec<u64> = figures.split_whitespace().map_while(|text| text.parse().ok()).collect();
        let direction = |at: usize| {
            Some(Direction {
                bytes: *figures.get(at)?,
                packets: *figures.get(at + 1)?,
                errors: *figures.get(at + 2)?,
                dropped: *figures.get(at + 3)?,
            })
        };
        let traffic = Traffic {
            received: direction(0)?,
            sent: direction(8)?,
        };
        let name = name.trim();
        (name != "lo" && !FALLBACKS.contains(&name)).then(|| (name.to_owned(), traffic))
    };
    text.lines().filter_map(device).collect()
}

/// `/proc/stat`: the time of all processors (user, nice, system, idle, iowait, irq, softirq, as Docker adds them up), and how many there are.
fn host_cpu(text: &str) -> (Duration, usize) {
    let is_of_one = |line: &&str| {
        line.strip_prefix("cpu")
            .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    let cpus = text.lines().filter(is_of_one).count();
    let all = text
        .lines()
        .find_map(|line| line.strip_prefix("cpu "))
        .unwrap_or_default();
    let ticks: u64 = all
        .split_whitespace()
        .take(7)
        .filter_map(|text| text.parse::<u64>().ok())
        .sum();
    let nanoseconds = u128::from(ticks) * TICK.as_nanos();
    (
        Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX)),
        cpus,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_counted_from_the_containers_side_and_loopback_is_left_out() {
        let text = "Inter-|   Receive                                                |  Transmit\n \
            face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n    \
            lo:     100       1    0    0    0     0          0         0      100       1    0    0    0     0       0          0\n  \
            sit0: 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n  \
            eth0: 1100 11 1 2 0 0 0 0 2200 22 3 4 0 0 0 0\n";
        let all = traffic(text);
        assert_eq!(all.keys().collect::<Vec<_>>(), ["eth0"]);
        let Traffic { received, sent } = all["eth0"];
        assert_eq!(
            (received.bytes, received.packets, received.errors, received.dropped),
            (1100, 11, 1, 2)
        );
        assert_eq!((sent.bytes, sent.packets, sent.errors, sent.dropped), (2200, 22, 3, 4));
    }

    #[test]
    fn the_hosts_time_is_the_sum_of_seven_columns() {
        let text = "cpu  1 2 3 4 5 6 7 800 900 0\ncpu0 1 1 1 1 1 1 1 1 1 1\ncpu1 0 0 0 0 0 0 0 0 0 0\nintr 9\n";
        assert_eq!(host_cpu(text), (Duration::from_millis(280), 2));
    }
}
