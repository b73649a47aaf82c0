//! Changes limits and restart policy of a container, also while it runs.

use sluice_model::{
    HostConfig,
    container::{Phase, RestartPolicy},
};

use crate::{
    Engine, EngineError,
    container::{limits, validate},
};

/// What is to be changed; what is zero, empty or none stays.
#[derive(Clone, Debug, Default)]
pub struct UpdateContainer {
    /// Limits; the other members of it mean nothing here.
    pub limits: HostConfig,
    /// The restart policy.
    pub restart_policy: Option<RestartPolicy>,
}

impl Engine {
    /// Changes it; returns what the user should know.
    pub async fn update_container(&self, name: &str, update: UpdateContainer) -> Result<Vec<String>, EngineError> {
        let held = self.containers.find(name)?;
        if let Some(policy) = &update.restart_policy {
            validate::check_restart_policy(policy)?;
        }
        self.carry_out(|engine| async move {
            let _story = held.story.lock().await;
            let container = held.record();
            let cannot = |why: EngineError| why.within(&format!("Cannot update container {}", held.id));
            if matches!(container.state.phase, Phase::Removing | Phase::Dead) {
                return Err(cannot(EngineError::conflict(
                    "Container is marked for removal and cannot be \"update\".",
                )));
            }
            let mut host = container.host_config;
            if let Some(policy) = update.restart_policy {
                let restarts = !matches!(policy.name.as_str(), "" | "no");
                if restarts && host.auto_remove {
                    return Err(EngineError::invalid(
                        "Restart policy cannot be updated because AutoRemove is enabled for the container",
                    ));
                }
                host.restart_policy = policy;
            }
            let mut wish = update.limits;
            let mut warnings = limits::discard(&mut wish, engine.runtime.features());
            change(&mut host, &wish).map_err(cannot)?;
            limits::check(&host, &mut warnings)?;
            limits::check_availability(&host, engine.runtime.features())?;
            if container.state.is_alive() {
                let resources = limits::resources(&host)?;
                let updated = engine.runtime.update(held.id.as_str(), &resources).await;
                updated.map_err(|why| cannot(why.into()))?;
            }
            held.change(|container| container.host_config = host);
            engine.save(&held).await?;
            engine.tell(&held, "update", &[]);
            Ok(warnings)
        })
        .await
    }
}

/// Takes the wish over into the limits; what contradicts those that stay is refused in Docker's words.
fn change(host: &mut HostConfig, wish: &HostConfig) -> Result<(), EngineError> {
    let conflict = |what: &str, with: &str| {
        EngineError::conflict(format!(
            "Conflicting options: {what} cannot be updated as {with} has already been set"
        ))
    };
    if wish.cpu_period > 0 && host.nano_cpus > 0 {
        return Err(conflict("CPU Period", "NanoCPUs"));
    }
    if wish.cpu_quota > 0 && host.nano_cpus > 0 {
        return Err(conflict("CPU Quota", "NanoCPUs"));
    }
    if wish.nano_cpus > 0 && host.cpu_period > 0 {
        return Err(conflict("Nano CPUs", "CPU Period"));
    }
    if wish.nano_cpus > 0 && host.cpu_quota > 0 {
        return Err(conflict("Nano CPUs", "CPU Quota"));
    }
    if wish.memory > 0 && wish.memory_swap == 0 && host.memory_swap > 0 && wish.memory > host.memory_swap {
        return Err(EngineError::conflict(
            "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time",
        ));
    }
    let numbers = [
        (&mut host.memory, wish.memory),
        (&mut host.memory_swap, wish.memory_swap),
        (&mut host.memory_reservation, wish.memory_reservation),
        (&mut host.nano_cpus, wish.nano_cpus),
        (&mut host.cpu_shares, wish.cpu_shares),
        (&mut host.cpu_period, wish.cpu_period),
        (&mut host.cpu_quota, wish.cpu_quota),
        (&mut host.pids_limit, wish.pids_limit),
    ];
    for (now, wanted) in numbers {
        if wanted != 0 {
            *now = wanted;
        }
    }
    if wish.blkio_weight != 0 {
        host.blkio_weight = wish.blkio_weight;
    }
    for (now, wanted) in [
        (&mut host.cpuset_cpus, &wish.cpuset_cpus),
        (&mut host.cpuset_mems, &wish.cpuset_mems),
    ] {
        if !wanted.is_empty() {
            now.clone_from(wanted);
        }
    }
    for (now, wanted) in [
        (&mut host.blkio_weight_device, &wish.blkio_weight_device),
        (&mut host.blkio_device_read_bps, &wish.blkio_device_read_bps),
        (&mut host.blkio_device_write_bps, &wish.blkio_device_write_bps),
        (&mut host.blkio_device_read_iops, &wish.blkio_device_read_iops),
        (&mut host.blkio_device_write_iops, &wish.blkio_device_write_iops),
    ] {
        for figure in wanted {
            now.retain(|known| known.path != figure.path);
            now.push(figure.clone());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use sluice_model::container::DeviceFigure;

    use super::*;

    fn changed(host: HostConfig, wish: HostConfig) -> Result<HostConfig, String> {
        let mut host = host;
        change(&mut host, &wish).map(|()| host).map_err(|why| why.message)
    }

    #[test]
    fn what_is_not_said_stays() {
        let host = HostConfig {
            memory: 64 << 20,
            memory_swap: 128 << 20,
            cpuset_cpus: "0".into(),
            ..Default::default()
        };
        let wish = HostConfig {
            memory: 96 << 20,
            pids_limit: 7,
            ..Default::default()
        };
        let host = changed(host, wish).unwrap();
        assert_eq!(
            (host.memory >> 20, host.memory_swap >> 20, host.pids_limit),
            (96, 128, 7)
        );
        assert_eq!(host.cpuset_cpus, "0");
    }

    #[test]
    fn a_device_has_one_figure_of_a_kind() {
        let figure = |path: &str, figure| DeviceFigure {
            path: path.into(),
            figure,
        };
        let host = HostConfig {
            blkio_device_read_bps: vec![figure("/dev/sda", 1), figure("/dev/sdb", 2)],
            ..Default::default()
        };
        let wish = HostConfig {
            blkio_device_read_bps: vec![figure("/dev/sda", 3)],
            ..Default::default()
        };
        let all = changed(host, wish).unwrap().blkio_device_read_bps;
        assert_eq!(all, [figure("/dev/sdb", 2), figure("/dev/sda", 3)]);
    }

    #[test]
    fn what_contradicts_the_rest_is_refused() {
        let host = HostConfig {
            memory: 64 << 20,
            memory_swap: 128 << 20,
            nano_cpus: 1,
            ..Default::default()
        };
        let memory = HostConfig {
            memory: 256 << 20,
            ..Default::default()
        };
        assert!(
            changed(host.clone(), memory)
                .unwrap_err()
                .starts_with("Memory limit should be smaller")
        );
        let quota = HostConfig {
            cpu_quota: 5,
            ..Default::default()
        };
        assert_eq!(
            changed(host, quota).unwrap_err(),
            "Conflicting options: CPU Quota cannot be updated as NanoCPUs has already been set"
        );
    }
}
