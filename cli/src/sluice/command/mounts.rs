//! What is mounted in a container: `--volume`, `--mount`, `--volumes-from`.

use std::collections::HashMap;

use bollard_stubs::models::{
    HostConfig, Mount, MountBindOptions, MountImageOptions, MountTmpfsOptions, MountType, MountVolumeOptions,
    MountVolumeOptionsDriverConfig,
};
use clap::Args;
use serde::de::{DeserializeOwned, IntoDeserializer, value::StrDeserializer};

use crate::{failure::Failure, measure::parse_bytes};

/// Mounts, as the options describe them.
#[derive(Args, Debug, Default)]
pub struct Mounts {
    /// Mount something: type=volume|bind|tmpfs|image,source=…,target=…[,readonly][,OPTION=VALUE]
    #[arg(long, value_name = "MOUNT")]
    mount: Vec<String>,
    /// Mount a directory: [HOST:]PATH[:OPTIONS]
    #[arg(short, long, value_name = "VOLUME")]
    volume: Vec<String>,
    /// The driver of volumes that have to be made
    #[arg(long, value_name = "DRIVER")]
    volume_driver: Option<String>,
    /// All that another container has mounted: CONTAINER[:ro]
    #[arg(long, value_name = "CONTAINER")]
    volumes_from: Vec<String>,
}

impl Mounts {
    /// Adds them to a wish; the volumes without a name are another's business.
    pub fn add_to(&self, wish: HostConfig) -> Result<HostConfig, Failure> {
        let (binds, _) = self.volumes()?;
        let mounts = self
            .mount
            .iter()
            .map(|text| mount(text))
            .collect::<Result<Vec<_>, _>>()?;
        let some = |list: &[String]| (!list.is_empty()).then(|| list.to_vec());
        Ok(HostConfig {
            binds: some(&binds),
            mounts: (!mounts.is_empty()).then_some(mounts),
            volumes_from: some(&self.volumes_from),
            volume_driver: self.volume_driver.clone(),
            ..wish
        })
    }

    /// Binds, and volumes without a name.
    pub fn volumes(&self) -> Result<(Vec<String>, Vec<String>), Failure> {
        let (mut binds, mut anonymous) = (Vec::new(), Vec::new());
        for text in &self.volume {
            match text.split_once(':') {
                None => anonymous.push(text.clone()),
                Some((source, rest)) if source == "." || source.starts_with("./") || source.starts_with("../") => {
                    let here = std::env::current_dir().and_then(|here| std::path::absolute(here.join(source)));
                    let source = here.map_err(|why| Failure::Usage(format!("cannot resolve {source}: {why}")))?;
                    binds.push(format!("{}:{rest}", source.display()));
                }
                Some(_) => binds.push(text.clone()),
            }
        }
        Ok((binds, anonymous))
    }
}

/// `type=bind,source=/a,target=/b,readonly`, in Docker's words and with its refusals.
fn mount(text: &str) -> Result<Mount, Failure> {
    let mut mount = Mount {
        typ: Some(MountType::VOLUME),
        ..Mount::default()
    };
    for field in text.split(',') {
        let (name, value) = field.split_once('=').unwrap_or((field, ""));
        let (name, is_flag) = (name.to_ascii_lowercase(), !field.contains('='));
        let yes = || match value {
            _ if is_flag => Ok(true),
            "1" | "true" => Ok(true),
            "0" | "false" => Ok(false),
            _ => Err(Failure::Usage(format!("invalid value for {name}: {value}"))),
        };
        match name.as_str() {
            "readonly" | "ro" => mount.read_only = Some(yes()?),
            "volume-nocopy" => volume(&mut mount).no_copy = Some(yes()?),
            "bind-nonrecursive" => bind(&mut mount).non_recursive = Some(yes()?),
            _ if is_flag => {
                return Err(Failure::Usage(format!(
                    "invalid field '{field}' must be a key=value pair"
                )));
            }
            "type" => mount.typ = Some(word(value).ok_or_else(|| refused("type", value))?),
            "source" | "src" => mount.source = Some(absolute(value)?),
            "target" | "dst" | "destination" => mount.target = Some(value.to_owned()),
            "consistency" => mount.consistency = Some(value.to_owned()),
            "bind-propagation" => {
                bind(&mut mount).propagation = Some(word(value).ok_or_else(|| refused(&name, value))?)
            }
            "bind-recursive" => match value {
                "enabled" => {}
                "disabled" => bind(&mut mount).non_recursive = Some(true),
                "writable" => bind(&mut mount).read_only_non_recursive = Some(true),
                "readonly" => bind(&mut mount).read_only_force_recursive = Some(true),
                _ => return Err(refused(&name, value)),
            },
            "volume-subpath" => volume(&mut mount).subpath = Some(value.to_owned()),
            "image-subpath" => image(&mut mount).subpath = Some(value.to_owned()),
            "volume-label" => add(&mut volume(&mut mount).labels, value),
            "volume-driver" => driver(volume(&mut mount)).name = Some(value.to_owned()),
            "volume-opt" => add(&mut driver(volume(&mut mount)).options, value),
            "tmpfs-size" => tmpfs(&mut mount).size_bytes = Some(parse_bytes(value)?),
            "tmpfs-mode" => {
                let mode = i64::from_str_radix(value, 8).map_err(|_| refused(&name, value))?;
                tmpfs(&mut mount).mode = Some(mode);
            }
            _ => return Err(Failure::Usage(format!("unexpected key '{name}' in '{field}'"))),
        }
    }
    if mount.target.as_deref().unwrap_or_default().is_empty() {
        return Err(Failure::Usage("target is required".into()));
    }
    for (given, wanted, options) in [
        (mount.bind_options.is_some(), MountType::BIND, "bind-*"),
        (mount.volume_options.is_some(), MountType::VOLUME, "volume-*"),
        (mount.tmpfs_options.is_some(), MountType::TMPFS, "tmpfs-*"),
        (mount.image_options.is_some(), MountType::IMAGE, "image-*"),
    ] {
        if let Some(kind) = mount.typ.filter(|kind| given && *kind != wanted) {
            return Err(Failure::Usage(format!(
                "cannot mix '{options}' options with mount type '{kind}'"
            )));
        }
    }
    Ok(mount)
}

/// A path relative to here becomes absolute; names of volumes stay.
fn absolute(source: &str) -> Result<String, Failure> {
    if source != "." && !source.starts_with("./") && !source.starts_with("../") {
        return Ok(source.to_owned());
    }
    let path = std::path::absolute(source).map_err(|why| Failure::Usage(format!("cannot resolve {source}: {why}")))?;
    Ok(path.display().to_string())
}

/// One of the words the API knows.
fn word<T: DeserializeOwned>(text: &str) -> Option<T> {
    let text: StrDeserializer<'_, serde::de::value::Error> = text.into_deserializer();
    T::deserialize(text).ok()
}

fn bind(mount: &mut Mount) -> &mut MountBindOptions {
    mount.bind_options.get_or_insert_default()
}

fn volume(mount: &mut Mount) -> &mut MountVolumeOptions {
    mount.volume_options.get_or_insert_default()
}

fn tmpfs(mount: &mut Mount) -> &mut MountTmpfsOptions {
    mount.tmpfs_options.get_or_insert_default()
}

fn image(mount: &mut Mount) -> &mut MountImageOptions {
    mount.image_options.get_or_insert_default()
}

fn driver(volume: &mut MountVolumeOptions) -> &mut MountVolumeOptionsDriverConfig {
    volume.driver_config.get_or_insert_default()
}

fn add(pairs: &mut Option<HashMap<String, String>>, text: &str) {
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    pairs.get_or_insert_default().insert(name.to_owned(), value.to_owned());
}

fn refused(name: &str, value: &str) -> Failure {
    Failure::Usage(format!("invalid value for {name}: {value}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(text: &str) -> serde_json::Value {
        serde_json::to_value(mount(text).unwrap()).unwrap()
    }

    #[test]
    fn mounts_are_read_as_dockers_client_reads_them() {
        assert_eq!(
            document("type=bind,src=/a,dst=/b,readonly,bind-propagation=rslave"),
            serde_json::json!({"Type": "bind", "Source": "/a", "Target": "/b", "ReadOnly": true, "BindOptions": {"Propagation": "rslave"}})
        );
        assert_eq!(
            document("source=data,target=/d,volume-nocopy,volume-label=a=b,volume-opt=type=tmpfs"),
            serde_json::json!({"Type": "volume", "Source": "data", "Target": "/d",
                "VolumeOptions": {"NoCopy": true, "Labels": {"a": "b"}, "DriverConfig": {"Options": {"type": "tmpfs"}}}})
        );
        assert_eq!(
            document("type=tmpfs,target=/t,tmpfs-size=1m,tmpfs-mode=700"),
            serde_json::json!({"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"SizeBytes": 1 << 20, "Mode": 448}})
        );
    }

    #[test]
    fn what_makes_no_mount_is_refused_in_dockers_words() {
        for (text, words) in [
            ("type=bind,source=/a", "target is required"),
            (
                "type=bind,target=/b,volume-nocopy",
                "cannot mix 'volume-*' options with mount type 'bind'",
            ),
            ("target=/b,colour=red", "unexpected key 'colour' in 'colour=red'"),
            ("target", "invalid field 'target' must be a key=value pair"),
            ("target=/b,readonly=no", "invalid value for readonly: no"),
        ] {
            assert_eq!(mount(text).unwrap_err().to_string(), words, "{text}");
        }
    }
}
