//! Archives of images in every layout.

use serde_json::json;

use super::*;
use crate::{
    Limits,
    testing::{Scratch, Tar, gzip},
};

fn layer(text: &str) -> Vec<u8> {
    Tar::default().file(text, text).end()
}

fn config(layers: &[&[u8]]) -> String {
    config_for("linux", layers)
}

fn config_for(os: &str, layers: &[&[u8]]) -> String {
    let diff_ids: Vec<String> = layers.iter().map(|layer| Digest::of(layer).to_string()).collect();
    let rootfs = json!({"type": "layers", "diff_ids": diff_ids});
    json!({"architecture": manifest::architecture(), "os": os, "config": {"Cmd": ["x"]}, "rootfs": rootfs}).to_string()
}

fn images(scratch: &Scratch) -> Images {
    Images::open(scratch.path()).unwrap()
}

fn load(images: &Images, archive: &[u8]) -> Result<Vec<String>, ImageError> {
    images.load(&mut &archive[..])
}

fn assert_nothing_left(scratch: &Scratch) {
    for name in ["staging", "layers", "content"] {
        let directory = scratch.path().join("image").join(name);
        assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 0, "{name}");
    }
}

#[test]
fn the_old_layout_with_linked_layers_is_loaded() {
    let scratch = Scratch::new("load-old");
    let images = images(&scratch);
    let (one, two) = (layer("one"), layer("two"));
    let config = config(&[&one, &two, &one]);
    let manifest = json!([{"Config": "c.json", "RepoTags": ["app:1", "docker.io/library/app:2"],
        "Layers": ["aaa/layer.tar", "bbb/layer.tar", "ccc/layer.tar"]}]);
    let archive = Tar::default()
        .directory("aaa/")
        .file("aaa/layer.tar", &one)
        .file("bbb/layer.tar", gzip(&two))
        .symlink("ccc/layer.tar", "../aaa/layer.tar")
        .file("c.json", &config)
        .file("manifest.json", manifest.to_string())
        .end();
    for packed in [archive.clone(), gzip(&archive)] {
        assert_eq!(
            load(&images, &packed).unwrap(),
            ["Loaded image: app:1", "Loaded image: app:2"]
        );
    }
    let image = images.find("app:2").unwrap();
    assert_eq!(image.id, Digest::of(config.as_bytes()).to_string());
    assert_eq!((image.layers.len(), image.size), (3, 9));
    assert_eq!(
        std::fs::read_dir(scratch.path().join("image/staging")).unwrap().count(),
        0
    );
}

#[test]
fn an_image_without_a_name_is_told_by_its_id_and_a_taken_name_is_told_too() {
    let scratch = Scratch::new("load-names");
    let images = images(&scratch);
    let one = layer("one");
    let archive = |tags: serde_json::Value, config: &str| {
        let manifest = json!([{"Config": "c.json", "RepoTags": tags, "Layers": ["l"]}]);
        Tar::default()
            .file("l", &one)
            .file("c.json", config)
            .file("manifest.json", manifest.to_string())
            .end()
    };
    let first = config(&[&one]);
    let id = Digest::of(first.as_bytes());
    assert_eq!(
        load(&images, &archive(json!(null), &first)).unwrap(),
        [format!("Loaded image ID: {id}")]
    );
    load(&images, &archive(json!(["app"]), &first)).unwrap();
    let lines = load(&images, &archive(json!(["app"]), &(first.clone() + "\n"))).unwrap();
    assert_eq!(
        lines,
        [
            format!("The image app:latest already exists, renaming the old one with ID {id} to empty string"),
            "Loaded image: app:latest".into()
        ]
    );
    assert!(images.find(id.as_str()).unwrap().tags.is_empty());
}

/// An OCI layout under construction.
#[derive(Default)]
struct Layout(Tar);

impl Layout {
    fn blob(&mut self, bytes: &[u8]) -> String {
        let digest = Digest::of(bytes);
        self.0 = std::mem::take(&mut self.0).file(&blob_name(&digest), bytes);
        digest.to_string()
    }

    fn image(&mut self, text: &str) -> serde_json::Value {
        let plain = layer(text);
        let config = self.blob(config(&[&plain]).as_bytes());
        let layer = self.blob(&gzip(&plain));
        let manifest = json!({"schemaVersion": 2, "config": {"digest": config}, "layers": [{"digest": layer}]});
        let digest = self.blob(manifest.to_string().as_bytes());
        json!({"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest})
    }

    fn end(self, index: serde_json::Value) -> Vec<u8> {
        self.0
            .file("index.json", index.to_string())
            .file("oci-layout", "{}")
            .end()
    }
}

fn with(mut descriptor: serde_json::Value, key: &str, value: serde_json::Value) -> serde_json::Value {
    descriptor[key] = value;
    descriptor
}

#[test]
fn an_oci_layout_is_loaded_with_the_platform_of_this_machine() {
    let scratch = Scratch::new("load-oci");
    let images = images(&scratch);
    let mut layout = Layout::default();
    let here = json!({"os": "linux", "architecture": manifest::architecture()});
    let other = json!({"os": "linux", "architecture": "s390x"});
    let unknown = json!({"os": "unknown", "architecture": "unknown"});
    let inner = json!({"manifests": [
        with(layout.image("other"), "platform", other),
        with(layout.image("here"), "platform", here),
        with(layout.image("attestation"), "platform", unknown),
    ]});
    let digest = layout.blob(inner.to_string().as_bytes());
    let index = json!({"manifests": [{"mediaType": "application/vnd.oci.image.index.v1+json", "digest": digest,
        "annotations": {"io.containerd.image.name": "docker.io/me/app:3"}}]});
    assert_eq!(load(&images, &layout.end(index)).unwrap(), ["Loaded image: me/app:3"]);
    assert_eq!(images.find("me/app:3").unwrap().size, 4, "the layer of `here`");
}

#[test]
fn an_archive_for_another_machine_says_so() {
    let scratch = Scratch::new("load-platform");
    let mut layout = Layout::default();
    let image = with(
        layout.image("x"),
        "platform",
        json!({"os": "linux", "architecture": "s390x"}),
    );
    let error = load(&images(&scratch), &layout.end(json!({"manifests": [image]}))).unwrap_err();
    assert!(
        error.to_string().starts_with("archive has no image for linux/"),
        "{error}"
    );
}

#[test]
fn a_damaged_blob_is_refused_and_nothing_is_left() {
    let scratch = Scratch::new("load-damaged");
    let images = images(&scratch);
    let mut layout = Layout::default();
    let image = layout.image("x");
    let good = layout.end(json!({"manifests": [image]}));
    let entries = good.len() / 512;
    let mut refused = 0;
    for block in 0..entries {
        let mut bad = good.clone();
        bad[block * 512 + 200] ^= 1;
        match load(&images, &bad) {
            Err(ImageError::BadArchive(_) | ImageError::Invalid(_)) => {
                refused += 1;
                assert_nothing_left(&scratch);
            }
            Err(error) => panic!("{error:?}"),
            // padding, or a header field that means nothing
            Ok(_) => {
                let id = images.list().unwrap().remove(0).id;
                images.remove(&id, true, &[]).unwrap();
            }
        }
    }
    assert!(refused > 5, "{refused}");
}

#[test]
fn a_layer_of_another_digest_is_refused() {
    let scratch = Scratch::new("load-layer");
    let images = images(&scratch);
    let manifest = json!([{"Config": "c.json", "Layers": ["l"]}]).to_string();
    let archive = Tar::default()
        .file("c.json", config(&[&layer("said")]))
        .file("l", layer("given"));
    let error = load(&images, &archive.file("manifest.json", &manifest).end()).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("layer verification failed for digest sha256:"),
        "{error}"
    );
    let archive = Tar::default().file("c.json", config(&[])).file("l", layer("given"));
    let error = load(&images, &archive.file("manifest.json", &manifest).end()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "invalid manifest, layers length mismatch: expected 0, got 1"
    );
    assert_nothing_left(&scratch);
}

#[test]
fn of_many_layers_each_is_where_it_belongs_and_a_wrong_one_is_the_end_of_all() {
    let scratch = Scratch::new("load-many");
    let images = images(&scratch);
    let mut layers: Vec<Vec<u8>> = (0..40).map(|number| layer(&format!("layer-{number}"))).collect();
    // some of it twice, in the image as in the archive
    layers.push(layers[7].clone());
    let archive = |layers: &[Vec<u8>], given: &[Vec<u8>]| {
        let names: Vec<String> = (0..layers.len()).map(|number| format!("{number}/layer.tar")).collect();
        let config = config(&layers.iter().map(Vec::as_slice).collect::<Vec<_>>());
        let one = |name: &str| json!({"Config": "c.json", "RepoTags": [name], "Layers": names});
        let mut archive = Tar::default();
        for (name, layer) in names.iter().zip(given) {
            archive = archive.file(name, layer);
        }
        archive
            .file("c.json", config)
            .file("manifest.json", json!([one("many:1"), one("many:2")]).to_string())
            .end()
    };
    let mut wrong = layers.clone();
    wrong[21] = layer("something else");
    let error = load(&images, &archive(&layers, &wrong)).unwrap_err();
    let promised = format!("layer verification failed for digest {}", Digest::of(&layers[21]));
    assert!(error.to_string().starts_with(&promised), "{error}");
    assert_nothing_left(&scratch);

    assert_eq!(
        load(&images, &archive(&layers, &layers)).unwrap(),
        ["Loaded image: many:1", "Loaded image: many:2"]
    );
    let image = images.find("many:2").unwrap();
    for (number, directory) in image.directories.iter().enumerate() {
        let number = if number == 40 { 7 } else { number };
        let name = format!("layer-{number}");
        assert_eq!(std::fs::read_to_string(directory.join(&name)).unwrap(), name);
    }
}

#[test]
fn what_is_no_archive_of_images_says_what_is_missing() {
    let scratch = Scratch::new("load-nothing");
    let images = images(&scratch);
    let error = |archive: &[u8]| load(&images, archive).unwrap_err().to_string();
    assert!(error(b"").contains("neither manifest.json nor index.json"));
    assert!(error(&layer("x")).contains("neither manifest.json nor index.json"));
    let manifest = |text: &str| Tar::default().file("manifest.json", text);
    assert!(error(&manifest("{").end()).starts_with("invalid manifest.json in archive"));
    let missing = json!([{"Config": "../../../etc/passwd", "Layers": []}]).to_string();
    assert!(error(&manifest(&missing).end()).contains("archive lacks"));
    let circle = Tar::default()
        .symlink("manifest.json", "b")
        .symlink("b", "manifest.json")
        .end();
    assert!(error(&circle).contains("in a circle"));
    let windows = json!([{"Config": "c.json", "Layers": []}]).to_string();
    let archive = manifest(&windows).file("c.json", config_for("windows", &[])).end();
    assert_eq!(error(&archive), "cannot load windows image on linux");
    let tag = json!([{"Config": "c.json", "RepoTags": ["UPPER"], "Layers": []}]).to_string();
    let archive = manifest(&tag).file("c.json", config(&[])).end();
    assert!(error(&archive).contains("must be lowercase"));
    assert_nothing_left(&scratch);
}

#[test]
fn an_archive_that_expands_without_end_is_refused() {
    let scratch = Scratch::new("load-bomb");
    let limits = Limits {
        expansion: 20,
        free: 1 << 20,
        ..Limits::default()
    };
    let images = Images::open_with_limits(scratch.path(), limits).unwrap();
    let error = load(&images, &gzip(&Tar::default().file("f", vec![b'A'; 4 << 20]).end())).unwrap_err();
    assert_eq!(error.to_string(), "archive expands to more than 20 times its size");
    assert_nothing_left(&scratch);
}
