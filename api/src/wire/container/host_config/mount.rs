//! What is mounted: `-v source:/path:options`, `--mount type=…`, `--tmpfs`, in Docker's grammar and words.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Component, Path},
};

use serde::Deserialize;
use serde_json::{Value, json};
use sluice_model::container::{Mount, MountKind};

use crate::error::{Answer, ApiError};

/// A member of `Mounts`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Wish {
    r#type: String,
    source: String,
    target: String,
    read_only: bool,
    bind_options: Option<BindOptions>,
    volume_options: Option<VolumeOptions>,
    tmpfs_options: Option<TmpfsOptions>,
    image_options: Option<ImageOptions>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct ImageOptions {
    subpath: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct BindOptions {
    propagation: String,
    non_recursive: bool,
    create_mountpoint: bool,
    read_only_non_recursive: bool,
    read_only_force_recursive: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct VolumeOptions {
    no_copy: bool,
    labels: BTreeMap<String, String>,
    driver_config: DriverConfig,
    subpath: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct DriverConfig {
    name: String,
    options: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct TmpfsOptions {
    size_bytes: i64,
    mode: u32,
    options: Vec<Vec<String>>,
}

/// All binds and mounts, and no place twice.
pub(super) fn all(
    binds: &[String],
    mounts: Vec<Wish>,
    tmpfs: &BTreeMap<String, String>,
    driver: &str,
) -> Answer<(Vec<Mount>, Vec<Mount>)> {
    let binds = binds
        .iter()
        .map(|text| parse(text, driver))
        .collect::<Answer<Vec<_>>>()?;
    let mounts = mounts.into_iter().map(Wish::into_model).collect::<Answer<Vec<_>>>()?;
    let mut places = BTreeSet::new();
    for target in tmpfs
        .keys()
        .chain(binds.iter().chain(&mounts).map(|mount| &mount.target))
    {
        if !places.insert(plain(target)) {
            return Err(ApiError::invalid(format!("Duplicate mount point: {target}")));
        }
    }
    Ok((binds, mounts))
}

/// `name-or-/host:/path[:options]`, or only `/path`.
pub(super) fn parse(text: &str, driver: &str) -> Answer<Mount> {
    let malformed = || ApiError::invalid(format!("invalid volume specification: '{text}'"));
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, mode) = match parts[..] {
        ["", ..] => return Err(malformed()),
        [target] => ("", target, ""),
        // a path and options, as `/data:ro`, is no volume
        [_, mode] if is_mode(mode) => return Err(malformed()),
        [source, target] => (source, target, ""),
        [source, target, mode] => (source, target, mode),
        _ => return Err(malformed()),
    };
    if !is_mode(mode) {
        return Err(ApiError::invalid(format!("invalid mode: {mode}")));
    }
    let words: Vec<&str> = mode.split(',').collect();
    let propagation = words
        .iter()
        .find(|word| is_propagation(word))
        .copied()
        .unwrap_or_default();
    let is_bind = source.starts_with('/');
    let mount = Mount {
        kind: if is_bind { MountKind::Bind } else { MountKind::Volume },
        source: source.to_owned(),
        target: target.to_owned(),
        read_only: words.contains(&"ro"),
        mode: mode.to_owned(),
        propagation: propagation.to_owned(),
        make_source: is_bind,
        no_copy: words.contains(&"nocopy"),
        driver: if is_bind { String::new() } else { driver.to_owned() },
        ..Mount::default()
    };
    check(&mount, |kind, why| {
        ApiError::invalid(format!(
            "invalid volume specification: '{text}': invalid mount config for type \"{kind}\": {why}"
        ))
    })?;
    Ok(mount)
}

/// As it is shown in `Binds`.
pub(super) fn text(bind: &Mount) -> String {
    let whole = [&bind.source, &bind.target, &bind.mode];
    let given: Vec<&str> = whole
        .iter()
        .map(|part| part.as_str())
        .filter(|part| !part.is_empty())
        .collect();
    given.join(":")
}

/// As it is shown in `Mounts` of `HostConfig`.
pub(super) fn document(mount: &Mount) -> Value {
    let mut document = json!({ "Type": kind(mount.kind), "Target": mount.target });
    if !mount.source.is_empty() {
        document["Source"] = json!(mount.source);
    }
    if mount.read_only {
        document["ReadOnly"] = json!(true);
    }
    let mut options = serde_json::Map::new();
    let mut set = |name: &str, value: Value, is_set: bool| {
        if is_set {
            options.insert(name.to_owned(), value);
        }
    };
    let name = match mount.kind {
        MountKind::Bind => {
            set("Propagation", json!(mount.propagation), !mount.propagation.is_empty());
            set("NonRecursive", json!(true), mount.non_recursive);
            set("CreateMountpoint", json!(true), mount.make_source);
            set("ReadOnlyNonRecursive", json!(true), mount.read_only_non_recursive);
            "BindOptions"
        }
        MountKind::Volume => {
            set("NoCopy", json!(true), mount.no_copy);
            set("Labels", json!(mount.labels), !mount.labels.is_empty());
            set("Subpath", json!(mount.subpath), !mount.subpath.is_empty());
            let driver = json!({ "Name": mount.driver, "Options": mount.driver_options });
            set(
                "DriverConfig",
                driver,
                !mount.driver.is_empty() || !mount.driver_options.is_empty(),
            );
            "VolumeOptions"
        }
        MountKind::Tmpfs => {
            set("SizeBytes", json!(mount.tmpfs_size), mount.tmpfs_size != 0);
            set("Mode", json!(mount.tmpfs_mode), mount.tmpfs_mode != 0);
            let words: Vec<[&String; 1]> = mount.tmpfs_options.iter().map(|word| [word]).collect();
            set("Options", json!(words), !words.is_empty());
            "TmpfsOptions"
        }
        MountKind::Image => {
            set("Subpath", json!(mount.subpath), !mount.subpath.is_empty());
            "ImageOptions"
        }
    };
    if !options.is_empty() {
        document[name] = Value::Object(options);
    }
    document
}

/// A kind by the name clients know.
pub(crate) fn kind(kind: MountKind) -> &'static str {
    match kind {
        MountKind::Bind => "bind",
        MountKind::Volume => "volume",
        MountKind::Tmpfs => "tmpfs",
        MountKind::Image => "image",
    }
}

/// Options of `-v`: of each sort at most one, and nothing else.
fn is_mode(mode: &str) -> bool {
    let sort = |word: &str| match word {
        "ro" | "rw" => Some(0),
        "z" | "Z" => Some(1),
        "nocopy" => Some(2),
        "consistent" | "cached" | "delegated" | "default" => Some(3),
        word if is_propagation(word) => Some(4),
        _ => None,
    };
    let mut seen = BTreeSet::new();
    mode.is_empty()
        || mode
            .split(',')
            .all(|word| sort(word).is_some_and(|sort| seen.insert(sort)))
}

fn is_propagation(word: &str) -> bool {
    matches!(word, "private" | "rprivate" | "slave" | "rslave" | "shared" | "rshared")
}

/// `name[:mode]` of `VolumesFrom`; no propagation and no copying comes along.
pub(super) fn check_volumes_from(text: &str) -> Answer<()> {
    let (name, mode) = text.split_once(':').unwrap_or((text, ""));
    if name.is_empty() {
        return Err(ApiError::invalid(
            "volumes-from specification must not be an empty string",
        ));
    }
    let is_plain = mode.split(',').all(|word| !is_propagation(word) && word != "nocopy");
    match is_mode(mode) && is_plain {
        true => Ok(()),
        false => Err(ApiError::invalid(format!("invalid mode: {mode}"))),
    }
}

fn check(mount: &Mount, invalid: impl Fn(&str, &str) -> ApiError) -> Answer<()> {
    let invalid = |why: String| invalid(kind(mount.kind), &why);
    let target = &mount.target;
    if target.is_empty() {
        return Err(invalid("field Target must not be empty".into()));
    }
    if plain(target).is_empty() && target.starts_with('/') {
        return Err(invalid("invalid specification: destination can't be '/'".into()));
    }
    if !target.starts_with('/') {
        return Err(invalid(format!(
            "invalid mount path: '{target}' mount path must be absolute"
        )));
    }
    match mount.kind {
        MountKind::Bind if mount.source.is_empty() => Err(invalid("field Source must not be empty".into())),
        MountKind::Bind if !mount.source.starts_with('/') => Err(invalid(format!(
            "invalid mount path: '{}' mount path must be absolute",
            mount.source
        ))),
        MountKind::Bind if !mount.propagation.is_empty() && !is_propagation(&mount.propagation) => {
            Err(invalid(format!("invalid propagation mode: {}", mount.propagation)))
        }
        MountKind::Volume if !mount.propagation.is_empty() => {
            Err(invalid("field BindOptions must not be specified".into()))
        }
        MountKind::Volume if mount.source.is_empty() && mount.read_only => Err(invalid(
            "must not set ReadOnly mode when using anonymous volumes".into(),
        )),
        MountKind::Volume if mount.source.is_empty() && !mount.subpath.is_empty() => {
            Err(invalid("must not set Subpath when using anonymous volumes".into()))
        }
        MountKind::Volume if !is_local(&mount.subpath) => {
            Err(invalid("subpath must be a relative path within the volume".into()))
        }
        MountKind::Image if mount.source.is_empty() => Err(invalid("field Source must not be empty".into())),
        MountKind::Image if !is_local(&mount.subpath) => {
            Err(invalid("subpath must be a relative path within the image".into()))
        }
        MountKind::Tmpfs if !mount.source.is_empty() => Err(invalid("field Source must not be specified".into())),
        MountKind::Tmpfs if mount.tmpfs_size < 0 => Err(invalid("size must not be negative".into())),
        _ => Ok(()),
    }
}

/// Relative and never above where it begins.
fn is_local(path: &str) -> bool {
    Path::new(path)
        .components()
        .all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
}

/// A path without `.`, `..` and slashes too many; empty: the root.
fn plain(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => _ = parts.pop(),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// A member of `Options` of `TmpfsOptions`: a word, or a word and its value. Two words are known, and neither has a value.
fn tmpfs_option(words: &[String]) -> Result<String, String> {
    match words {
        [word] if matches!(word.as_str(), "exec" | "noexec") => Ok(word.clone()),
        [word] => Err(format!("invalid option: {word}")),
        [word, value] => Err(format!("invalid option: {word}={value}")),
        _ => Err("invalid option array length".into()),
    }
}

// === impl Wish ===

impl Wish {
    fn into_model(self) -> Answer<Mount> {
        let kind = match self.r#type.as_str() {
            "bind" => MountKind::Bind,
            "volume" => MountKind::Volume,
            "tmpfs" => MountKind::Tmpfs,
            "image" => MountKind::Image,
            other @ ("cluster" | "npipe") => {
                return Err(ApiError::not_offered(format!("a mount of type {other:?}")));
            }
            other => {
                return Err(ApiError::invalid(format!(
                    "invalid mount config for type {other:?}: mount type unknown"
                )));
            }
        };
        let invalid =
            |kind: &str, why: &str| ApiError::invalid(format!("invalid mount config for type \"{kind}\": {why}"));
        let foreign = [
            (self.bind_options.is_some() && kind != MountKind::Bind, "BindOptions"),
            (
                self.volume_options.is_some() && kind != MountKind::Volume,
                "VolumeOptions",
            ),
            (self.tmpfs_options.is_some() && kind != MountKind::Tmpfs, "TmpfsOptions"),
            (self.image_options.is_some() && kind != MountKind::Image, "ImageOptions"),
        ];
        if let Some((_, field)) = foreign.iter().find(|(is_foreign, _)| *is_foreign) {
            return Err(invalid(&self.r#type, &format!("field {field} must not be specified")));
        }
        let bind = self.bind_options.unwrap_or_default();
        let volume = self.volume_options.unwrap_or_default();
        let tmpfs = self.tmpfs_options.unwrap_or_default();
        if bind.read_only_force_recursive && (!self.read_only || !matches!(bind.propagation.as_str(), "" | "rprivate"))
        {
            let why = "ReadOnlyForceRecursive needs ReadOnly and a propagation of rprivate";
            return Err(invalid("bind", why));
        }
        let tmpfs_options = tmpfs
            .options
            .iter()
            .map(|words| tmpfs_option(words).map_err(|why| invalid("tmpfs", &why)))
            .collect::<Answer<_>>()?;
        let subpath = match kind {
            MountKind::Image => self.image_options.unwrap_or_default().subpath,
            _ => volume.subpath,
        };
        let mount = Mount {
            kind,
            source: self.source,
            target: self.target,
            read_only: self.read_only,
            read_only_non_recursive: bind.read_only_non_recursive,
            propagation: bind.propagation,
            non_recursive: bind.non_recursive,
            make_source: bind.create_mountpoint,
            no_copy: volume.no_copy,
            subpath,
            labels: volume.labels,
            driver: volume.driver_config.name,
            driver_options: volume.driver_config.options,
            tmpfs_size: tmpfs.size_bytes,
            tmpfs_mode: tmpfs.mode,
            tmpfs_options,
            ..Mount::default()
        };
        check(&mount, invalid)?;
        // `-v` makes a directory that is not there; `--mount` asks for one that is
        if kind == MountKind::Bind && !mount.make_source && !Path::new(&mount.source).exists() {
            let why = format!("bind source path does not exist: {}", mount.source);
            return Err(invalid("bind", &why));
        }
        Ok(mount)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Mount {
        parse(text, "").unwrap_or_else(|error| panic!("{text}: {}", error.message))
    }

    #[test]
    fn a_path_is_a_bind_a_name_a_volume_and_a_lone_path_a_volume_without_a_name() {
        let bind = parsed("/host:/data:ro,rslave");
        assert_eq!(
            (bind.kind, bind.read_only, bind.propagation.as_str(), bind.make_source),
            (MountKind::Bind, true, "rslave", true)
        );
        assert_eq!(text(&bind), "/host:/data:ro,rslave");
        let volume = parsed("cache:/data:nocopy");
        assert_eq!(
            (volume.kind, volume.source.as_str(), volume.no_copy),
            (MountKind::Volume, "cache", true)
        );
        let nameless = parsed("/data");
        assert_eq!((nameless.kind, text(&nameless).as_str()), (MountKind::Volume, "/data"));
    }

    #[test]
    fn what_docker_refuses_is_refused_in_its_words() {
        for (wish, words) in [
            ("/a:/b:c:d", "invalid volume specification: '/a:/b:c:d'"),
            (":/b", "invalid volume specification: ':/b'"),
            ("/a:ro", "invalid volume specification: '/a:ro'"),
            ("/a:/b:zz", "invalid mode: zz"),
            ("/a:/b:ro,rw", "invalid mode: ro,rw"),
            ("/a:/b:rshared,rslave", "invalid mode: rshared,rslave"),
            (
                "/:/",
                "invalid volume specification: '/:/': invalid mount config for type \"bind\": invalid specification: destination can't be '/'",
            ),
            (
                "name:/x:rshared",
                "invalid volume specification: 'name:/x:rshared': invalid mount config for type \"volume\": field BindOptions must not be specified",
            ),
        ] {
            assert_eq!(parse(wish, "").unwrap_err().message, words);
        }
    }

    #[test]
    fn memory_is_executable_when_asked_and_an_image_is_mounted_by_its_name() {
        let made = |json: &str| serde_json::from_str::<Wish>(json).unwrap().into_model();
        let memory = made(r#"{"Type":"tmpfs","Target":"/t","TmpfsOptions":{"Options":[["exec"]]}}"#).unwrap();
        assert_eq!(memory.tmpfs_options, ["exec"]);
        assert_eq!(document(&memory)["TmpfsOptions"]["Options"], json!([["exec"]]));
        let image = made(r#"{"Type":"image","Source":"tools:1","Target":"/t","ImageOptions":{"Subpath":"bin"}}"#);
        let image = image.unwrap();
        assert_eq!((image.kind, image.subpath.as_str()), (MountKind::Image, "bin"));
        assert_eq!(
            document(&image),
            json!({"Type": "image", "Source": "tools:1", "Target": "/t", "ImageOptions": {"Subpath": "bin"}})
        );
        for (wish, words) in [
            (
                r#"{"Type":"tmpfs","Target":"/t","TmpfsOptions":{"Options":[["suid"]]}}"#,
                "invalid mount config for type \"tmpfs\": invalid option: suid",
            ),
            (
                r#"{"Type":"tmpfs","Target":"/t","TmpfsOptions":{"Options":[[]]}}"#,
                "invalid mount config for type \"tmpfs\": invalid option array length",
            ),
            (
                r#"{"Type":"image","Target":"/t"}"#,
                "invalid mount config for type \"image\": field Source must not be empty",
            ),
            (
                r#"{"Type":"image","Source":"a","Target":"/t","ImageOptions":{"Subpath":"../x"}}"#,
                "invalid mount config for type \"image\": subpath must be a relative path within the image",
            ),
            (
                r#"{"Type":"volume","Target":"/t","VolumeOptions":{"Subpath":"x"}}"#,
                "invalid mount config for type \"volume\": must not set Subpath when using anonymous volumes",
            ),
        ] {
            assert_eq!(made(wish).unwrap_err().message, words, "{wish}");
        }
    }

    #[test]
    fn a_place_is_taken_once() {
        let binds = ["/tmp:/x".to_owned(), "name:/x/".to_owned()];
        let error = all(&binds, vec![], &BTreeMap::new(), "").unwrap_err();
        assert_eq!(error.message, "Duplicate mount point: /x/");
    }

    #[test]
    fn a_subpath_does_not_lead_out() {
        for (path, is_fine) in [
            ("", true),
            ("a/b", true),
            ("..", false),
            ("a/../../b", false),
            ("/a", false),
        ] {
            assert_eq!(is_local(path), is_fine, "{path}");
        }
    }

    #[test]
    fn mounts_of_others_come_plain_or_read_only() {
        assert!(check_volumes_from("web").is_ok() && check_volumes_from("web:ro").is_ok());
        assert_eq!(check_volumes_from("web:zz").unwrap_err().message, "invalid mode: zz");
        assert!(check_volumes_from("web:rshared").is_err() && check_volumes_from(":ro").is_err());
    }
}
