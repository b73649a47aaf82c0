//! A container as an OCI spec, with Docker's defaults.

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
};

use oci_spec::{
    OciSpecError,
    runtime::{
        Capability, LinuxBuilder, LinuxCapabilitiesBuilder, LinuxNamespaceBuilder, LinuxNamespaceType, LinuxSeccomp,
        Mount, MountBuilder, Process, ProcessBuilder, RootBuilder, Spec, SpecBuilder, User, UserBuilder,
    },
};
use sluice_model::{Container, HostConfig, container::NetworkMode};
use sluice_runtime::spec::{DEFAULT_MASKED_PATHS, DEFAULT_READONLY_PATHS, DEFAULT_SHM_SIZE, default_mounts};

use crate::{
    EngineError,
    container::{
        capabilities, devices, limits, owners,
        security::Options,
        sharing::{self, SharedMemory, Sharing, Whose},
    },
};

/// Docker's, when nobody sets one.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Who the process runs as, found out in the container's own `/etc/passwd` and `/etc/group`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Identity {
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
    pub home: String,
}

/// What the spec needs to know beside the record.
#[derive(Clone, Debug)]
pub(crate) struct Surroundings<'a> {
    /// The mounted root.
    pub rootfs: &'a Path,
    /// The directory with what is mounted over `/etc/hosts`, `hostname` and `resolv.conf`: its own, or that of the one whose network it shares.
    pub etc: &'a Path,
    /// What is mounted for it alone.
    pub mounts: &'a [Mount],
    /// The namespace file; none: the host's.
    pub sandbox: Option<&'a Path>,
    /// Its user namespace, where it has one.
    pub user: Option<&'a Path>,
    /// The parent of its cgroup.
    pub cgroup_parent: &'a str,
    /// Who it runs as.
    pub identity: &'a Identity,
    /// The host name inside.
    pub host_name: &'a str,
    /// The NIS domain inside.
    pub domain: Option<&'a str>,
    /// The system call filter; none: the user wants none.
    pub seccomp: Option<LinuxSeccomp>,
    /// With whom it shares namespaces.
    pub sharing: &'a Sharing,
    /// What it is told of the containers it is linked to.
    pub linked: &'a [String],
}

/// The spec of a container.
pub(crate) fn build(container: &Container, around: &Surroundings<'_>) -> Result<Spec, EngineError> {
    let host = &container.host_config;
    let options = Options::parse(&host.security_opt)?;
    let (nodes, rules) = devices::of(host)?;
    let mut resources = limits::resources(host)?;
    resources.set_devices(Some(rules));
    let process = first_process(container, around, &options)?;
    let assemble = || -> Result<Spec, OciSpecError> {
        let mut linux = LinuxBuilder::default()
            .cgroups_path(cgroup(host, around.cgroup_parent).join(container.id.as_str()))
            .namespaces(sharing::namespaces(around.sharing, around.sandbox)?)
            .resources(resources)
            .devices(nodes)
            .masked_paths(paths(host, &options, &host.masked_paths, &DEFAULT_MASKED_PATHS))
            .readonly_paths(paths(host, &options, &host.readonly_paths, &DEFAULT_READONLY_PATHS))
            .sysctl(sysctls(container, around.sandbox.is_some()))
            .build()?;
        if let (Some(path), Some(ids)) = (around.user, &container.id_map) {
            let namespace = LinuxNamespaceBuilder::default()
                .typ(LinuxNamespaceType::User)
                .path(path);
            linux.namespaces_mut().get_or_insert_default().push(namespace.build()?);
            linux
                .set_uid_mappings(Some(owners::to_oci(&ids.users)?))
                .set_gid_mappings(Some(owners::to_oci(&ids.groups)?));
        }
        linux.set_seccomp(around.seccomp.clone());
        linux.set_rootfs_propagation(propagation_of_root(around.mounts));
        let mut spec = SpecBuilder::default()
            .root(
                RootBuilder::default()
                    .path(around.rootfs)
                    .readonly(host.read_only_rootfs)
                    .build()?,
            )
            .process(process)
            .mounts(mounts(host, around)?)
            .linux(linux)
            .build()?;
        if around.sharing.uts == Whose::Own {
            spec.set_hostname(Some(around.host_name.to_owned()));
            spec.set_domainname(around.domain.filter(|name| !name.is_empty()).map(str::to_owned));
        } else {
            spec.set_hostname(None);
        }
        if host.init {
            spec.set_annotations(Some(HashMap::from([(
                sluice_runtime::spec::INIT.to_owned(),
                "true".to_owned(),
            )])));
        }
        Ok(spec)
    };
    assemble()
        .map_err(|error| EngineError::failed(format!("cannot write the spec of container {}: {error}", container.id)))
}

/// The cgroup above a container's: the user's own, else the daemon's.
fn cgroup(host: &HostConfig, of_daemon: &str) -> PathBuf {
    let parent = match host.cgroup_parent.trim_matches('/') {
        "" => of_daemon,
        own => own,
    };
    Path::new("/").join(parent)
}

/// The user's own list, else none for who is not to be held back, else the default.
fn paths(host: &HostConfig, options: &Options, asked: &Option<Vec<String>>, default: &[&str]) -> Vec<String> {
    match asked {
        Some(list) => list.clone(),
        None if host.privileged || options.unmasked => vec![],
        None => owned(default),
    }
}

/// Which paths are covered, and which can't be written, in a container that asked for these limits.
pub(crate) fn covered_paths(host: &HostConfig) -> Result<(Vec<String>, Vec<String>), EngineError> {
    let options = Options::parse(&host.security_opt)?;
    Ok((
        paths(host, &options, &host.masked_paths, &DEFAULT_MASKED_PATHS),
        paths(host, &options, &host.readonly_paths, &DEFAULT_READONLY_PATHS),
    ))
}

fn first_process(container: &Container, around: &Surroundings<'_>, options: &Options) -> Result<Process, EngineError> {
    let (config, host) = (&container.config, &container.host_config);
    let names = capabilities::resolve(&host.cap_add, &host.cap_drop, host.privileged)?;
    let rlimits = limits::rlimits(host)?;
    let mut args = config.entrypoint.clone().unwrap_or_default();
    args.extend(config.cmd.iter().cloned());
    let mut process = process(&Wanted {
        args,
        env: environment(&Origins {
            set: &config.env,
            linked: around.linked,
            host_name: around.host_name,
            home: &around.identity.home,
            tty: config.tty,
        }),
        cwd: &config.working_dir,
        tty: config.tty,
        identity: around.identity,
        capabilities: &names,
        no_new_privileges: options.no_new_privileges,
    })
    .map_err(|error| {
        EngineError::failed(format!(
            "cannot describe the process of container {}: {error}",
            container.id
        ))
    })?;
    process
        .set_rlimits(rlimits)
        .set_apparmor_profile(options.apparmor.clone())
        .set_oom_score_adj(i32::try_from(host.oom_score_adj).ok().filter(|score| *score != 0));
    Ok(process)
}

/// A process of a container, the first or a further one.
pub(crate) struct Wanted<'a> {
    pub args: Vec<String>,
    pub env: Vec<String>,
    pub cwd: &'a str,
    pub tty: bool,
    pub identity: &'a Identity,
    pub capabilities: &'a [&'static str],
    pub no_new_privileges: bool,
}

/// The same in the OCI's words.
pub(crate) fn process(wanted: &Wanted<'_>) -> Result<Process, OciSpecError> {
    let set: HashSet<Capability> = capabilities::to_oci(wanted.capabilities).into_iter().collect();
    // only root has them at once; others may gain them by execve of a file that has them
    let at_once = if wanted.identity.uid == 0 {
        set.clone()
    } else {
        HashSet::new()
    };
    let capabilities = LinuxCapabilitiesBuilder::default()
        .bounding(set)
        .effective(at_once.clone())
        .permitted(at_once)
        .inheritable(HashSet::<Capability>::new())
        .ambient(HashSet::<Capability>::new())
        .build()?;
    let mut process = ProcessBuilder::default()
        .terminal(wanted.tty)
        .user(user(wanted.identity)?)
        .args(wanted.args.clone())
        .env(wanted.env.clone())
        .cwd(if wanted.cwd.is_empty() { "/" } else { wanted.cwd })
        .capabilities(capabilities)
        .no_new_privileges(wanted.no_new_privileges)
        .build()?;
    // the crate's default of 1024 open files is not Docker's, which leaves the daemon's own limits
    process
        .set_rlimits(None)
        .set_apparmor_profile(None)
        .set_selinux_label(None);
    Ok(process)
}

fn user(identity: &Identity) -> Result<User, OciSpecError> {
    UserBuilder::default()
        .uid(identity.uid)
        .gid(identity.gid)
        .additional_gids(identity.groups.clone())
        .build()
}

/// Where the variables of a container's process come from.
pub(crate) struct Origins<'a> {
    /// What the user and the image set.
    pub set: &'a [String],
    /// What it is told of the containers it is linked to.
    pub linked: &'a [String],
    pub host_name: &'a str,
    pub home: &'a str,
    /// Has it a terminal?
    pub tty: bool,
}

/// PATH, HOSTNAME, TERM, HOME and those of links, overridden by what the user and the image set.
pub(crate) fn environment(origins: &Origins<'_>) -> Vec<String> {
    let mut all = vec![PATH.to_owned(), format!("HOSTNAME={}", origins.host_name)];
    if origins.tty {
        all.push("TERM=xterm".to_owned());
    }
    if !origins.home.is_empty() {
        all.push(format!("HOME={}", origins.home));
    }
    all.extend_from_slice(origins.linked);
    override_with(&mut all, origins.set);
    all
}

/// Later values of a name win; a name without `=` takes the variable away, as in Docker.
pub(crate) fn override_with(all: &mut Vec<String>, set: &[String]) {
    for variable in set {
        let name = variable.split('=').next().unwrap_or_default();
        let is_same = |other: &String| other.split('=').next() == Some(name);
        match (all.iter().position(is_same), variable.contains('=')) {
            (Some(at), true) => all[at].clone_from(variable),
            (Some(at), false) => drop(all.remove(at)),
            (None, true) => all.push(variable.clone()),
            (None, false) => {}
        }
    }
}

fn sysctls(container: &Container, own_network: bool) -> HashMap<String, String> {
    let mut all = HashMap::new();
    if own_network {
        // since Docker 20.10: ports below 1024 and ping without a capability
        all.insert("net.ipv4.ip_unprivileged_port_start".to_owned(), "0".to_owned());
        // in a user namespace only to groups that are in it
        let of_namespace = container.id_map.as_ref().and_then(|ids| ids.groups.first());
        let last = of_namespace.map_or(i32::MAX.unsigned_abs(), |range| range.count.saturating_sub(1));
        all.insert("net.ipv4.ping_group_range".to_owned(), format!("0 {last}"));
    }
    let host = &container.host_config;
    all.extend(host.sysctls.iter().map(|(name, value)| (name.clone(), value.clone())));
    all
}

/// A bind that is to propagate needs a root that lets it.
fn propagation_of_root(own: &[Mount]) -> Option<String> {
    let words = || own.iter().flat_map(|mount| mount.options().iter().flatten());
    let any = |kind: &str| words().any(|word| word.strip_prefix('r').unwrap_or(word) == kind);
    if any("shared") {
        Some("shared".to_owned())
    } else if any("slave") {
        Some("rslave".to_owned())
    } else {
        None
    }
}

fn mounts(host: &HostConfig, around: &Surroundings<'_>) -> Result<Vec<Mount>, OciSpecError> {
    let (etc, own) = (around.etc, around.mounts);
    let shm_size = u64::try_from(host.shm_size)
        .ok()
        .filter(|size| *size > 0)
        .unwrap_or(DEFAULT_SHM_SIZE);
    let mut all = default_mounts(shm_size);
    if host.privileged {
        all.iter_mut().for_each(make_writable);
    }
    match &around.sharing.shared_memory {
        SharedMemory::Own => {}
        SharedMemory::None => all.retain(|mount| mount.destination() != Path::new("/dev/shm")),
        SharedMemory::At(place) => {
            all.retain(|mount| mount.destination() != Path::new("/dev/shm"));
            all.push(bind(
                "/dev/shm",
                place,
                &["rbind", "rprivate", "nosuid", "noexec", "nodev"],
            )?);
        }
    }
    let wanted = |target: &str| own.iter().any(|mount| mount.destination() == Path::new(target));
    // who brings a mount of his own for one of these places gets it, and with a /dev of his own all that is in it
    all.retain(|mount| {
        let destination = mount.destination().to_string_lossy();
        !(wanted(&destination) || wanted("/dev") && destination.starts_with("/dev/"))
    });
    for file in ["resolv.conf", "hostname", "hosts"] {
        let target = format!("/etc/{file}");
        // who brings a file of his own gets it
        if !wanted(&target) {
            all.push(bind(&target, &etc.join(file), &["rbind", "rprivate"])?);
        }
    }
    all.extend_from_slice(own);
    Ok(all)
}

/// /sys and the cgroups can be written by who may do anything.
fn make_writable(mount: &mut Mount) {
    let options = mount.options().clone().unwrap_or_default();
    mount.set_options(Some(
        options
            .into_iter()
            .map(|option| if option == "ro" { "rw".to_owned() } else { option })
            .collect(),
    ));
}

fn bind(target: &str, source: &Path, options: &[&str]) -> Result<Mount, OciSpecError> {
    MountBuilder::default()
        .destination(target)
        .typ("bind")
        .source(PathBuf::from(source))
        .options(owned(options))
        .build()
}

fn owned(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// What the container calls its host: the user's word, the host's own name where it shares that or the network, else the short id.
pub(crate) fn host_name(container: &Container) -> String {
    match container.config.hostname.as_deref().filter(|name| !name.is_empty()) {
        Some(name) => name.to_owned(),
        None if container.host_config.network_mode == NetworkMode::Host || container.host_config.uts_mode == "host" => {
            std::fs::read_to_string("/proc/sys/kernel/hostname")
                .map_or_else(|_| container.id.short().to_owned(), |name| name.trim().to_owned())
        }
        None => container.id.short().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::held::tests::record;

    fn spec(change: impl FnOnce(&mut Container)) -> serde_json::Value {
        let mut container = record("web", 0xab);
        container.config.cmd = owned(&["nginx", "-g"]);
        change(&mut container);
        let identity = Identity {
            home: "/root".into(),
            ..Default::default()
        };
        let name = host_name(&container);
        let (volumes, own) = (Path::new("/v"), Path::new("/c"));
        let tmpfs = &container.host_config.tmpfs;
        let mounts = crate::container::mounts::to_oci(volumes, own, &container.mounts, tmpfs).unwrap();
        let spec = build(
            &container,
            &Surroundings {
                rootfs: Path::new("/data/merged"),
                etc: Path::new("/data"),
                mounts: &mounts,
                sandbox: Some(Path::new("/run/netns/x")),
                user: None,
                cgroup_parent: "sluice",
                identity: &identity,
                host_name: &name,
                domain: container.config.domainname.as_deref(),
                seccomp: Some(LinuxSeccomp::default()).filter(|_| !container.host_config.privileged),
                sharing: &Sharing::default(),
                linked: &[],
            },
        );
        serde_json::to_value(spec.unwrap()).unwrap()
    }

    fn mount_at<'a>(spec: &'a serde_json::Value, target: &str) -> &'a serde_json::Value {
        spec["mounts"]
            .as_array()
            .unwrap()
            .iter()
            .find(|mount| mount["destination"] == target)
            .unwrap()
    }

    #[test]
    fn an_ordinary_container_has_dockers_defaults() {
        let spec = spec(|_| {});
        assert_eq!(spec["hostname"], "abababababab");
        assert_eq!(spec["process"]["args"], serde_json::json!(["nginx", "-g"]));
        assert_eq!(spec["process"]["cwd"], "/");
        let env = serde_json::json!([PATH, "HOSTNAME=abababababab", "HOME=/root"]);
        assert_eq!(spec["process"]["env"], env);
        assert_eq!(
            spec["process"]["capabilities"]["bounding"].as_array().unwrap().len(),
            14
        );
        assert_eq!(spec["process"]["noNewPrivileges"], false);
        assert!(spec["process"].get("rlimits").is_none());
        assert_eq!(
            spec["linux"]["maskedPaths"].as_array().unwrap().len(),
            DEFAULT_MASKED_PATHS.len()
        );
        assert!(spec["linux"].get("seccomp").is_some());
        assert_eq!(spec["linux"]["cgroupsPath"], format!("/sluice/{}", "ab".repeat(32)));
        assert_eq!(spec["linux"]["resources"]["devices"][0]["allow"], false);
        assert_eq!(mount_at(&spec, "/etc/hosts")["source"], "/data/hosts");
        assert!(
            mount_at(&spec, "/sys/fs/cgroup")["options"]
                .as_array()
                .unwrap()
                .contains(&"ro".into())
        );
        let types: Vec<_> = spec["linux"]["namespaces"]
            .as_array()
            .unwrap()
            .iter()
            .map(|ns| &ns["type"])
            .collect();
        assert!(types.contains(&&"network".into()) && !types.contains(&&"user".into()));
    }

    #[test]
    fn a_privileged_container_is_not_held_back() {
        let spec = spec(|container| container.host_config.privileged = true);
        assert!(spec["linux"].get("seccomp").is_none());
        assert_eq!(spec["linux"]["maskedPaths"].as_array().map_or(0, Vec::len), 0);
        assert_eq!(spec["linux"]["resources"]["devices"][0]["allow"], true);
        assert_eq!(
            spec["process"]["capabilities"]["effective"].as_array().unwrap().len(),
            41
        );
        assert!(
            mount_at(&spec, "/sys")["options"]
                .as_array()
                .unwrap()
                .contains(&"rw".into())
        );
    }

    #[test]
    fn limits_are_written_in_the_kernels_units() {
        let spec = spec(|container| {
            container.host_config.memory = 64 << 20;
            container.host_config.nano_cpus = 1_500_000_000;
            container.host_config.cpu_shares = 512;
            container.host_config.pids_limit = 50;
        });
        let resources = &spec["linux"]["resources"];
        assert_eq!(resources["memory"]["limit"], 64 << 20);
        assert_eq!(resources["memory"]["swap"], 128 << 20);
        assert_eq!(
            (&resources["cpu"]["quota"], &resources["cpu"]["period"]),
            (&150_000.into(), &100_000.into())
        );
        assert_eq!(resources["cpu"]["shares"], 512);
        assert_eq!(resources["pids"]["limit"], 50);
    }

    #[test]
    fn the_users_environment_wins_and_a_bare_name_takes_away() {
        let set = owned(&["PATH=/mine", "HOME", "A=1"]);
        assert_eq!(
            environment(&Origins {
                set: &set,
                linked: &owned(&["CACHE_NAME=/web/cache", "A=0"]),
                host_name: "h",
                home: "/root",
                tty: true,
            }),
            ["PATH=/mine", "HOSTNAME=h", "TERM=xterm", "CACHE_NAME=/web/cache", "A=1"]
        );
    }

    #[test]
    fn binds_come_parents_first_and_replace_our_files_in_etc() {
        let bind = |source: &str, target: &str, read_only| sluice_model::container::Mount {
            source: source.into(),
            target: target.into(),
            read_only,
            ..Default::default()
        };
        let spec = spec(|container| {
            container.mounts = vec![
                bind("/b", "/srv/deep", true),
                bind("/a", "/srv", false),
                bind("/h", "/etc/hosts", false),
            ];
        });
        let targets: Vec<_> = spec["mounts"]
            .as_array()
            .unwrap()
            .iter()
            .map(|mount| mount["destination"].as_str().unwrap())
            .collect();
        let at = |target| targets.iter().position(|other| *other == target).unwrap();
        assert!(at("/srv") < at("/srv/deep"));
        assert_eq!(targets.iter().filter(|target| **target == "/etc/hosts").count(), 1);
        assert_eq!(
            mount_at(&spec, "/srv/deep")["options"],
            serde_json::json!(["rbind", "rprivate", "ro", "rro"])
        );
    }

    #[test]
    fn others_than_root_have_no_capability_at_once() {
        let identity = Identity {
            uid: 1000,
            ..Default::default()
        };
        let wanted = Wanted {
            args: vec![],
            env: vec![],
            cwd: "",
            tty: false,
            identity: &identity,
            capabilities: &["CHOWN"],
            no_new_privileges: false,
        };
        let process = serde_json::to_value(process(&wanted).unwrap()).unwrap();
        assert_eq!(process["capabilities"]["bounding"], serde_json::json!(["CAP_CHOWN"]));
        assert_eq!(process["capabilities"]["effective"].as_array().map_or(0, Vec::len), 0);
    }
}
