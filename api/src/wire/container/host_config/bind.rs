//! Binds and mounts: `-v /host:/path:ro`, `--mount type=bind,…`, `--tmpfs`.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Component, Path},
};

use serde::Deserialize;
use sluice_model::container::Bind;

use crate::error::{Answer, ApiError};

/// A member of `Mounts`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Mount {
    r#type: String,
    source: String,
    target: String,
    read_only: bool,
    bind_options: BindOptions,
    tmpfs_options: TmpfsOptions,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct BindOptions {
    propagation: String,
    create_mountpoint: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct TmpfsOptions {
    size_bytes: i64,
    mode: u32,
}

/// Everything that is mounted, and no place twice.
pub(super) fn all(
    binds: &[String],
    mounts: Vec<Mount>,
    mut tmpfs: BTreeMap<String, String>,
) -> Answer<(Vec<Bind>, BTreeMap<String, String>)> {
    let mut all = binds.iter().map(|text| parse(text)).collect::<Answer<Vec<_>>>()?;
    for mount in mounts {
        match mount.r#type.as_str() {
            "bind" => all.push(mount.into_bind()?),
            "tmpfs" => {
                absolute(&mount.target, &mount.target)?;
                let options = mount.tmpfs_options.text();
                if tmpfs.insert(mount.target.clone(), options).is_some() {
                    return Err(duplicate(&mount.target));
                }
            }
            other => return Err(ApiError::not_offered(format!("a mount of type {other:?}"))),
        }
    }
    let mut places = BTreeSet::new();
    for target in tmpfs.keys().chain(all.iter().map(|bind| &bind.target)) {
        if !places.insert(target.trim_end_matches('/')) {
            return Err(duplicate(target));
        }
    }
    Ok((all, tmpfs))
}

/// `/host:/path[:options]`.
pub(super) fn parse(text: &str) -> Answer<Bind> {
    let invalid = |why: &str| ApiError::invalid(format!("invalid volume specification: '{text}'{why}"));
    let mut parts = text.split(':');
    let (source, target, options) = match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(source), Some(target), options, None) if !source.is_empty() && !target.is_empty() => {
            (source, target, options)
        }
        _ => return Err(invalid("")),
    };
    absolute(target, text)?;
    if !source.starts_with('/') {
        return Err(ApiError::not_offered(format!(
            "a named volume ({source:?} in '{text}')"
        )));
    }
    let mut bind = Bind {
        source: source.to_owned(),
        target: target.to_owned(),
        read_only: false,
        propagation: String::new(),
    };
    for option in options.into_iter().flat_map(|options| options.split(',')) {
        match option {
            "ro" | "readonly" => bind.read_only = true,
            "private" | "rprivate" | "slave" | "rslave" | "shared" | "rshared" => bind.propagation = option.to_owned(),
            // Labels of SELinux, and hints for other systems: they change nothing here.
            "rw" | "z" | "Z" | "nocopy" | "consistent" | "cached" | "delegated" => {}
            _ => return Err(invalid(&format!(": invalid mode: {option}"))),
        }
    }
    Ok(bind)
}

/// As it is shown in `Binds`.
pub(super) fn text(bind: &Bind) -> String {
    match mode(bind).as_str() {
        "" => format!("{}:{}", bind.source, bind.target),
        mode => format!("{}:{}:{mode}", bind.source, bind.target),
    }
}

/// Its options, as a user would write them.
pub(crate) fn mode(bind: &Bind) -> String {
    let read_only = bind.read_only.then_some("ro");
    let propagation = Some(bind.propagation.as_str()).filter(|propagation| !propagation.is_empty());
    read_only.into_iter().chain(propagation).collect::<Vec<_>>().join(",")
}

fn absolute(target: &str, given: &str) -> Answer<()> {
    if !target.starts_with('/') {
        return Err(ApiError::invalid(format!(
            "invalid volume specification: '{given}': invalid mount config for type \"bind\": invalid mount path: '{target}' mount path must be absolute"
        )));
    }
    if !Path::new(target)
        .components()
        .any(|component| matches!(component, Component::Normal(_)))
    {
        return Err(ApiError::invalid(format!(
            "invalid volume specification: '{given}': invalid specification: destination can't be '/'"
        )));
    }
    Ok(())
}

fn duplicate(target: &str) -> ApiError {
    ApiError::invalid(format!("Duplicate mount point: {target}"))
}

// === impl Mount ===

impl Mount {
    fn into_bind(self) -> Answer<Bind> {
        absolute(&self.target, &self.target)?;
        if !self.source.starts_with('/') {
            return Err(ApiError::invalid(format!(
                "invalid mount config for type \"bind\": invalid mount path: '{}' mount path must be absolute",
                self.source
            )));
        }
        // `-v` makes a directory that is not there; `--mount` asks for one that is.
        if !self.bind_options.create_mountpoint && !Path::new(&self.source).exists() {
            return Err(ApiError::invalid(format!(
                "invalid mount config for type \"bind\": bind source path does not exist: {}",
                self.source
            )));
        }
        Ok(Bind {
            source: self.source,
            target: self.target,
            read_only: self.read_only,
            propagation: self.bind_options.propagation,
        })
    }
}

// === impl TmpfsOptions ===

impl TmpfsOptions {
    fn text(&self) -> String {
        let size = (self.size_bytes > 0).then(|| format!("size={}", self.size_bytes));
        let mode = (self.mode != 0).then(|| format!("mode={:o}", self.mode));
        size.into_iter().chain(mode).collect::<Vec<_>>().join(",")
    }
}
