//! A container's mounts in the OCI's words.

use std::{collections::BTreeMap, path::Path};

use oci_spec::{
    OciSpecError,
    runtime::{Mount as OciMount, MountBuilder},
};
use sluice_model::container::{Mount, MountKind};

use crate::{EngineError, container::directory, volume::local};

/// `volumes` is where all volumes have their directories, `directory` the container's. Everything that is mounted beside the file systems every container has, parents before children, else the parent hides the child.
pub(crate) fn to_oci(
    volumes: &Path,
    directory: &Path,
    mounts: &[Mount],
    tmpfs: &BTreeMap<String, String>,
) -> Result<Vec<OciMount>, OciSpecError> {
    let mut all = Vec::new();
    for (target, options) in tmpfs {
        all.push(memory(target, options)?);
    }
    for mount in mounts {
        all.push(one(volumes, directory, mount)?);
    }
    all.sort_by_key(|mount| mount.destination().components().count());
    Ok(all)
}

fn one(volumes: &Path, directory: &Path, mount: &Mount) -> Result<OciMount, OciSpecError> {
    if mount.kind == MountKind::Tmpfs {
        let mut options = Vec::new();
        if mount.tmpfs_size > 0 {
            options.push(format!("size={}", mount.tmpfs_size));
        }
        if mount.tmpfs_mode != 0 {
            options.push(format!("mode={:o}", mount.tmpfs_mode));
        }
        if mount.read_only {
            options.push("ro".to_owned());
        }
        options.extend(mount.tmpfs_options.iter().cloned());
        return memory(&mount.target, &options.join(","));
    }
    let propagation = match mount.propagation.as_str() {
        "" => "rprivate",
        propagation => propagation,
    };
    let recursion = if mount.non_recursive { "bind" } else { "rbind" };
    let mut options = vec![recursion.to_owned(), propagation.to_owned()];
    if mount.read_only {
        options.push("ro".to_owned());
        // what is mounted below is not to be a way around it
        if propagation == "rprivate" && !mount.non_recursive && !mount.read_only_non_recursive {
            options.push("rro".to_owned());
        }
    }
    let source = match mount.kind {
        MountKind::Volume => local::data_in(volumes, &mount.source),
        MountKind::Image => directory::of_image(directory, mount).join("merged"),
        _ => mount.source.clone().into(),
    };
    if !mount.subpath.is_empty() {
        options.push(format!("x-sluice.beneath={}", mount.subpath));
    }
    MountBuilder::default()
        .destination(&mount.target)
        .typ("bind")
        .source(source)
        .options(options)
        .build()
}

/// A tmpfs; nothing in it is executed, no device and no set-user bit works, unless the options say so.
fn memory(target: &str, options: &str) -> Result<OciMount, OciSpecError> {
    let given: Vec<&str> = options.split(',').filter(|option| !option.is_empty()).collect();
    let mut options = vec!["noexec", "nosuid", "nodev"];
    options.retain(|option| !given.contains(&option.trim_start_matches("no")));
    options.extend(given);
    MountBuilder::default()
        .destination(target)
        .typ("tmpfs")
        .source("tmpfs")
        .options(options.into_iter().map(str::to_owned).collect::<Vec<_>>())
        .build()
}

/// Refuses a bind that is to propagate where the host's mount does not.
pub(crate) fn check_propagation(mounts: &[Mount]) -> Result<(), EngineError> {
    let wanting = |mount: &&Mount| matches!(mount.propagation.as_str(), "shared" | "rshared" | "slave" | "rslave");
    let wanting: Vec<&Mount> = mounts.iter().filter(wanting).collect();
    if wanting.is_empty() {
        return Ok(());
    }
    let path = Path::new("/proc/self/mountinfo");
    let table = std::fs::read_to_string(path).map_err(|why| crate::error::io("read", path, &why))?;
    for mount in wanting {
        let real = std::fs::canonicalize(&mount.source).unwrap_or_else(|_| mount.source.clone().into());
        let Some((point, fields)) = mount_of(&table, &real) else {
            continue;
        };
        let is_shared = fields.contains("shared:");
        let (fits, wanted) = match mount.propagation.ends_with("shared") {
            true => (is_shared, "a shared mount"),
            false => (is_shared || fields.contains("master:"), "a shared or slave mount"),
        };
        if !fits {
            return Err(EngineError::failed(format!(
                "path {} is mounted on {point} but it is not {wanted}",
                mount.source
            )));
        }
    }
    Ok(())
}

/// The mount a path is in: where, and its optional fields.
fn mount_of(table: &str, path: &Path) -> Option<(String, String)> {
    let mut best: Option<(String, String)> = None;
    for line in table.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        let Some(point) = fields.get(4).map(|point| local::unescape(point)) else {
            continue;
        };
        let is_deeper = best.as_ref().is_none_or(|(best, _)| point.len() >= best.len());
        if path.starts_with(&point) && is_deeper {
            let optional = fields.iter().skip(6).take_while(|field| **field != "-").copied();
            best = Some((point, optional.collect::<Vec<_>>().join(" ")));
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deepest_mount_counts_and_the_last_of_those_at_one_place() {
        let table = "1 0 8:1 / / rw shared:1 - ext4 /dev/vda rw\n2 1 8:1 / /srv rw - ext4 x rw\n\
                     3 1 8:1 / /srv rw master:3 - ext4 x rw\n4 1 8:1 / /srv\\040x rw shared:9 - ext4 x rw";
        let of = |path: &str| mount_of(table, Path::new(path)).unwrap();
        assert_eq!(of("/srv/a"), ("/srv".into(), "master:3".into()));
        assert_eq!(of("/srvx"), ("/".into(), "shared:1".into()));
        assert_eq!(of("/srv x/y"), ("/srv x".into(), "shared:9".into()));
    }
}
