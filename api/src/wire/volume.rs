//! Volumes.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};
use sluice_engine::{CreateVolume, Pruned, VolumeView, fits};
use sluice_model::{Volume, volume::LOCAL};

use crate::{
    error::{Answer, ApiError},
    filter::{Filters, label_agrees},
    time,
    version::Version,
};

/// From this version on `prune` leaves volumes with a name alone unless it is told `all`.
const SPARES_NAMED: Version = Version(42);

/// What `POST /volumes/create` brings.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Create {
    name: String,
    driver: String,
    driver_opts: BTreeMap<String, String>,
    labels: BTreeMap<String, String>,
    cluster_volume_spec: Option<Value>,
}

impl Create {
    /// As the engine takes it.
    pub(crate) fn into_request(self) -> Answer<CreateVolume> {
        if self.cluster_volume_spec.is_some() {
            return Err(ApiError::not_offered("a cluster volume"));
        }
        Ok(CreateVolume {
            name: self.name,
            driver: self.driver,
            labels: self.labels,
            options: self.driver_opts,
        })
    }
}

/// A volume as `inspect` and `ls` show it.
pub(crate) fn document(view: &VolumeView) -> Value {
    let volume = &view.volume;
    json!({
        "CreatedAt": time::text_of_second(volume.created),
        "Driver": LOCAL,
        "Labels": null_if_none(&volume.labels),
        "Mountpoint": view.mountpoint.display().to_string(),
        "Name": volume.name,
        "Options": null_if_none(&volume.options),
        "Scope": "local",
    })
}

/// The same with what it takes, for `system df`.
pub(crate) fn document_with_usage(view: &VolumeView) -> Value {
    let mut document = document(view);
    document["UsageData"] = json!({ "Size": view.size, "RefCount": view.users });
    document
}

/// What a prune took away.
pub(crate) fn pruned(pruned: &Pruned) -> Value {
    let names = &pruned.removed;
    json!({
        "VolumesDeleted": if names.is_empty() { Value::Null } else { json!(names) },
        "SpaceReclaimed": pruned.bytes,
    })
}

/// Does a volume agree with the filters of `ls`?
pub(crate) fn agrees(view: &VolumeView, filters: &Filters) -> Answer<bool> {
    filters.only(&["dangling", "driver", "label", "name"])?;
    let dangling = filters.flag("dangling")?;
    Ok(filters.any("name", |name| fits(name, &view.volume.name))
        && filters.any("driver", |driver| driver == LOCAL)
        && filters.all("label", |label| label_agrees(label, &view.volume.labels))
        && dangling.is_none_or(|dangling| dangling == (view.users == 0)))
}

/// Which volumes a prune takes, of those that nobody has.
pub(crate) fn prunable(filters: Filters, version: Version) -> Answer<impl Fn(&Volume) -> bool + Send + 'static> {
    filters.only(&["label", "label!", "all"])?;
    let all = filters.flag("all")?.unwrap_or(version < SPARES_NAMED);
    Ok(move |volume: &Volume| {
        (all || volume.is_anonymous())
            && filters.all("label", |label| label_agrees(label, &volume.labels))
            && filters.all("label!", |label| !label_agrees(label, &volume.labels))
    })
}

fn null_if_none(map: &BTreeMap<String, String>) -> Value {
    if map.is_empty() { Value::Null } else { json!(map) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(name: &str, users: usize) -> VolumeView {
        VolumeView {
            volume: Volume {
                name: name.to_owned(),
                created: jiff::Timestamp::from_second(1_700_000_000).unwrap(),
                labels: [("a".to_owned(), "b".to_owned())].into(),
                options: BTreeMap::new(),
            },
            mountpoint: "/v/data/_data".into(),
            users,
            size: 7,
        }
    }

    #[test]
    fn a_volume_is_shown_as_dockers_specification_says() {
        let shown = document_with_usage(&view("data", 1));
        assert_eq!(shown["CreatedAt"], "2023-11-14T22:13:20Z");
        assert_eq!(
            (&shown["Options"], &shown["Mountpoint"]),
            (&Value::Null, &json!("/v/data/_data"))
        );
        let read: bollard_stubs::models::Volume = serde_json::from_value(shown).unwrap();
        assert_eq!(read.usage_data.unwrap().size, 7);
    }

    #[test]
    fn filters_choose_volumes() {
        let agrees = |filters: &str| agrees(&view("data", 0), &Filters::parse(filters).unwrap()).unwrap();
        assert!(agrees(
            r#"{"name":["at"],"driver":["local"],"label":["a=b"],"dangling":["true"]}"#
        ));
        assert!(!agrees(r#"{"dangling":["false"]}"#) && !agrees(r#"{"label":["a=c"]}"#));
        assert!(super::agrees(&view("data", 0), &Filters::parse(r#"{"foo":["x"]}"#).unwrap()).is_err());
    }

    #[test]
    fn a_prune_spares_volumes_with_a_name_unless_told_all_or_asked_in_old_words() {
        let takes = |filters: &str, version| {
            prunable(Filters::parse(filters).unwrap(), Version(version)).unwrap()(&view("data", 0).volume)
        };
        assert!(!takes("{}", 42) && takes(r#"{"all":["true"]}"#, 42) && takes("{}", 41));
        assert!(!takes(r#"{"all":["1"],"label!":["a"]}"#, 42));
    }
}
