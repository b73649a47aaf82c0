//! Images.

use serde_json::{Value, json};
use sluice_image::{Distribution, Image, Removed};

use crate::{
    error::{Answer, ApiError},
    filter::{Filters, label_agrees, pattern_agrees},
    time,
    version::Version,
    wire::null_if_empty,
};

/// Up to this version images have a `VirtualSize`, the same as their size.
const LAST_WITH_VIRTUAL_SIZE: Version = Version(43);
/// Up to this version an image without a name is called `<none>:<none>`.
const LAST_WITH_NAME_FOR_NONE: Version = Version(42);
/// Up to this version an image tells of the container it was made of.
const LAST_WITH_CONTAINER: Version = Version(44);
/// Up to this version the configuration of an image has all members that one of a container has.
const LAST_WITH_WHOLE_CONFIG: Version = Version(49);

/// A line of `images`.
pub(crate) fn summary(image: &Image, version: Version) -> Value {
    let nameless = image.tags.is_empty() && version <= LAST_WITH_NAME_FOR_NONE;
    let mut document = json!({
        "Id": image.id,
        "ParentId": image.parent.as_deref().unwrap_or_default(),
        "RepoTags": if nameless { json!(["<none>:<none>"]) } else { json!(image.tags) },
        "RepoDigests": if nameless && image.digests.is_empty() { json!(["<none>@<none>"]) } else { json!(image.digests) },
        "Created": created(image).map_or(0, jiff::Timestamp::as_second),
        "Size": image.size,
        "SharedSize": -1,
        "Labels": null_if_none(labels(image)),
        "Containers": -1,
    });
    if version <= LAST_WITH_VIRTUAL_SIZE {
        document["VirtualSize"] = json!(image.size);
    }
    document
}

/// An image as `inspect` shows it.
pub(crate) fn document(image: &Image, version: Version) -> Value {
    let config = &image.config;
    let mut document = json!({
        "Id": image.id,
        "RepoTags": image.tags,
        "RepoDigests": image.digests,
        "Parent": image.parent.as_deref().unwrap_or_default(),
        "Comment": image.extras.comment,
        "Created": config.created().as_deref().unwrap_or(time::NEVER),
        "DockerVersion": image.extras.docker_version,
        "Author": config.author().as_deref().unwrap_or_default(),
        "Config": container_config(image, version),
        "Architecture": config.architecture().to_string(),
        "Os": config.os().to_string(),
        "Size": image.size,
        "GraphDriver": { "Name": "overlay2", "Data": directories(image) },
        "RootFS": { "Type": "layers", "Layers": image.layers },
        "Metadata": { "LastTagTime": time::NEVER },
    });
    if !image.extras.variant.is_empty() {
        document["Variant"] = json!(image.extras.variant);
    }
    if version <= LAST_WITH_VIRTUAL_SIZE {
        document["VirtualSize"] = json!(image.size);
    }
    if version <= LAST_WITH_CONTAINER {
        document["Container"] = json!("");
    }
    // Docker has left this out since 1.45, and Compose 1.29 has failed without since: it looks for the image's volumes here
    document["ContainerConfig"] = document["Config"].clone();
    document
}

/// Where its layers are; it is mounted for containers only.
fn directories(image: &Image) -> Value {
    let Some((top, lower)) = image.directories.split_last() else {
        return json!({});
    };
    let mut data = json!({ "UpperDir": top.display().to_string() });
    if !lower.is_empty() {
        let lower: Vec<String> = lower.iter().rev().map(|path| path.display().to_string()).collect();
        data["LowerDir"] = json!(lower.join(":"));
    }
    data
}

/// Its steps, the last first. As Docker does, the last ones get the names of the images that stand in its line, one each: the image itself, the one it
/// was made of here, and so on.
pub(crate) fn history(line: &[Image]) -> Value {
    let Some(image) = line.first() else { return json!([]) };
    let mut sizes = image.layer_sizes.iter();
    // each step that is not empty is the next layer
    let size = |step: &oci_spec::image::History| match step.empty_layer() {
        Some(true) => 0,
        _ => sizes.next().copied().unwrap_or(0),
    };
    let steps = image.config.history().as_deref().unwrap_or_default();
    let sizes: Vec<u64> = steps.iter().map(size).collect();
    let steps = steps.iter().zip(sizes).rev().enumerate();
    let step = |(position, (step, size)): (usize, (&oci_spec::image::History, u64))| {
        json!({
            "Id": line.get(position).map_or("<missing>", |image| image.id.as_str()),
            "Created": step.created().as_deref().and_then(seconds).unwrap_or(0),
            "CreatedBy": step.created_by().as_deref().unwrap_or_default(),
            "Tags": line.get(position).map_or(Value::Null, |image| null_if_empty(&image.tags)),
            "Size": size,
            "Comment": step.comment().as_deref().unwrap_or_default(),
        })
    };
    steps.map(step).collect()
}

/// What a registry says of a name.
pub(crate) fn distribution(found: &Distribution) -> Value {
    let platform = |(os, architecture, variant): &(String, String, Option<String>)| {
        let mut platform = json!({ "architecture": architecture, "os": os });
        if let Some(variant) = variant {
            platform["variant"] = json!(variant);
        }
        platform
    };
    json!({
        "Descriptor": { "mediaType": found.media_type, "digest": found.digest, "size": found.size },
        "Platforms": found.platforms.iter().map(platform).collect::<Vec<_>>(),
    })
}

/// What became of names and images.
pub(crate) fn removed(removed: &[Removed]) -> Value {
    let line = |removed: &Removed| match removed {
        Removed::Untagged(name) => json!({ "Untagged": name }),
        Removed::Deleted(id) => json!({ "Deleted": id }),
    };
    removed.iter().map(line).collect()
}

/// Chooses images by the filters of `images`, which may compare them with each other.
pub(crate) fn choose(images: Vec<Image>, filters: &Filters) -> Answer<Vec<Image>> {
    filters.only(&["reference", "dangling", "label", "before", "since", "until"])?;
    let dangling = filters.flag("dangling")?;
    let age_of = |name: &str| images.iter().find(|image| is_named(image, name)).and_then(created);
    let agrees = |image: &Image| {
        filters.any("reference", |pattern| {
            image.tags.iter().any(|tag| reference_agrees(pattern, tag))
        }) && filters.all("label", |label| label_agrees(label, &labels(image)))
            && filters.all("before", |name| {
                age_of(name).is_some_and(|other| created(image) < Some(other))
            })
            && filters.all("since", |name| {
                age_of(name).is_some_and(|other| created(image) > Some(other))
            })
            && filters.all("until", |text| {
                time::parse(text)
                    .ok()
                    .flatten()
                    .is_some_and(|until| created(image) < Some(until))
            })
            && dangling.is_none_or(|dangling| dangling == image.tags.is_empty())
    };
    let chosen: Vec<bool> = images.iter().map(agrees).collect();
    Ok(images
        .into_iter()
        .zip(chosen)
        .filter_map(|(image, chosen)| chosen.then_some(image))
        .collect())
}

/// Which images a prune takes, of those that no container uses: those without a name, unless told otherwise.
pub(crate) fn prunable(filters: Filters) -> Answer<impl Fn(&Image) -> bool + Send + 'static> {
    filters.only(&["dangling", "label", "label!", "until"])?;
    let dangling = filters.flag("dangling")?.unwrap_or(true);
    let until = filters.one("until").map(until).transpose()?;
    Ok(move |image: &Image| {
        (!dangling || image.tags.is_empty())
            && !image.is_intermediate
            && filters.all("label", |label| label_agrees(label, &labels(image)))
            && filters.all("label!", |label| !label_agrees(label, &labels(image)))
            && until.is_none_or(|until| created(image) < Some(until))
    })
}

/// Which images of steps a prune of the builder takes, of those that nothing stands on: all, or those that are older.
pub(crate) fn aged(filters: Filters) -> Answer<impl Fn(&Image) -> bool + Send + 'static> {
    filters.only(&["until"])?;
    let until = filters.one("until").map(until).transpose()?;
    Ok(move |image: &Image| until.is_none_or(|until| created(image) < Some(until)))
}

/// A moment, or how long ago: `10m`, `1h30m`.
fn until(text: &str) -> Answer<jiff::Timestamp> {
    let invalid = || ApiError::invalid(format!("invalid value {text:?} for until"));
    if let Ok(span) = text.parse::<jiff::SignedDuration>() {
        return jiff::Timestamp::now().checked_sub(span).map_err(|_| invalid());
    }
    time::parse(text).ok().flatten().ok_or_else(invalid)
}

/// `nginx`, `nginx:*`, `*/web`: a pattern of the repository, or of repository and tag.
fn reference_agrees(pattern: &str, tag: &str) -> bool {
    let repository = tag.rsplit_once(':').map_or(tag, |(repository, _)| repository);
    pattern_agrees(pattern, tag) || pattern_agrees(pattern, repository)
}

fn null_if_none(labels: std::collections::BTreeMap<String, String>) -> Value {
    if labels.is_empty() { Value::Null } else { json!(labels) }
}

fn is_named(image: &Image, name: &str) -> bool {
    let bare = image.id.strip_prefix("sha256:").unwrap_or(&image.id);
    image.id.starts_with(name)
        || bare.starts_with(name)
        || image
            .tags
            .iter()
            .any(|tag| tag == name || *tag == format!("{name}:latest"))
}

fn created(image: &Image) -> Option<jiff::Timestamp> {
    image.config.created().as_deref()?.parse().ok()
}

fn seconds(text: &str) -> Option<i64> {
    text.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_second)
}

fn labels(image: &Image) -> std::collections::BTreeMap<String, String> {
    let labels = image
        .config
        .config()
        .as_ref()
        .and_then(|config| config.labels().clone());
    labels.into_iter().flatten().collect()
}

/// The configuration of which nothing is known.
fn empty_config(version: Version) -> Value {
    let mut config = json!({
        "Env": null, "Cmd": null, "Entrypoint": null, "Volumes": null, "WorkingDir": "", "User": "", "Labels": null, "OnBuild": null,
    });
    if version <= LAST_WITH_WHOLE_CONFIG {
        for (member, value) in [("Hostname", json!("")), ("Domainname", json!("")), ("Image", json!(""))] {
            config[member] = value;
        }
        for member in [
            "AttachStdin",
            "AttachStdout",
            "AttachStderr",
            "Tty",
            "OpenStdin",
            "StdinOnce",
        ] {
            config[member] = json!(false);
        }
    }
    config
}

/// `Config`: what the image's author wrote, and the members that clients expect to be there.
fn container_config(image: &Image, version: Version) -> Value {
    let extras = &image.extras;
    let mut config = empty_config(version);
    config["OnBuild"] = null_if_empty(&extras.on_build);
    let written = image
        .config
        .config()
        .as_ref()
        .and_then(|written| serde_json::to_value(written).ok());
    if let (Value::Object(config), Some(Value::Object(written))) = (&mut config, written) {
        config.extend(written.into_iter().filter(|(_, value)| !value.is_null()));
    }
    if let Some(healthcheck) = &extras.healthcheck {
        config["Healthcheck"] = json!(healthcheck);
    }
    if !extras.shell.is_empty() {
        config["Shell"] = json!(extras.shell);
    }
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(tags: &[&str], created: &str) -> Image {
        let config = json!({
            "created": created, "architecture": "amd64", "os": "linux",
            "config": {"Cmd": ["sh"], "Env": ["A=b"], "ExposedPorts": {"80/tcp": {}}, "Labels": {"a": "b"}},
            "rootfs": {"type": "layers", "diff_ids": ["sha256:11"]},
            "history": [{"created": created, "created_by": "a"}, {"created": created, "created_by": "b", "comment": "c"}],
        });
        Image {
            id: format!("sha256:{}", "cd".repeat(32)),
            config: serde_json::from_value(config).unwrap(),
            tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
            size: 77,
            extras: sluice_image::Extras {
                comment: "c".to_owned(),
                ..Default::default()
            },
            layers: vec!["sha256:11".to_owned()],
            parent: None,
            is_intermediate: false,
            layer_sizes: vec![77],
            directories: vec!["/layers/11/fs".into()],
            digests: vec![format!("web@sha256:{}", "ef".repeat(32))],
        }
    }

    #[test]
    fn an_image_is_shown_as_dockers_specification_says() {
        let document = document(&image(&["web:1"], "2026-01-01T00:00:00Z"), Version(50));
        assert_eq!(document["Config"]["ExposedPorts"], json!({"80/tcp": {}}));
        assert_eq!(document["Config"]["Volumes"], Value::Null);
        assert_eq!(document["Comment"], "c");
        assert_eq!(document.get("VirtualSize"), None);
        let read: bollard_stubs::models::ImageInspect = serde_json::from_value(document).unwrap();
        assert_eq!(read.config.unwrap().cmd.unwrap(), ["sh"]);
    }

    #[test]
    fn older_clients_get_a_virtual_size_and_a_name_for_none() {
        let summary = |version| summary(&image(&[], "2026-01-01T00:00:00Z"), version);
        assert_eq!(summary(Version(42))["RepoTags"], json!(["<none>:<none>"]));
        assert_eq!(summary(Version(43))["RepoTags"], json!([]));
        assert_eq!(summary(Version(43))["VirtualSize"], 77);
        assert_eq!(summary(Version(44)).get("VirtualSize"), None);
        let _: bollard_stubs::models::ImageSummary = serde_json::from_value(summary(Version(50))).unwrap();
    }

    #[test]
    fn the_last_step_of_the_history_comes_first_and_bears_the_names() {
        let history = history(&[image(&["web:1"], "2026-01-01T00:00:00Z")]);
        assert_eq!(history[0]["CreatedBy"], "b");
        assert_eq!(history[0]["Tags"], json!(["web:1"]));
        assert_eq!(history[1]["Id"], "<missing>");
    }

    #[test]
    fn filters_choose_images() {
        let chosen = |filters: &str| {
            let images = vec![
                image(&["web:2", "r:5000/team/web:2"], "2026-02-01T00:00:00Z"),
                image(&[], "2026-01-01T00:00:00Z"),
            ];
            choose(images, &Filters::parse(filters).unwrap()).unwrap().len()
        };
        assert_eq!(chosen(r#"{"reference":["web"]}"#), 1);
        assert_eq!(chosen(r#"{"reference":["*/team/web"]}"#), 1);
        assert_eq!(chosen(r#"{"reference":["web:1"]}"#), 0);
        assert_eq!(chosen(r#"{"dangling":["true"]}"#), 1);
        assert_eq!(chosen(r#"{"before":["web:2"]}"#), 1);
        assert_eq!(chosen(r#"{"since":["web:2"]}"#), 0);
        assert_eq!(chosen(r#"{"label":["a"]}"#), 2);
    }
}
