//! Images as one archive, in the layout of OCI with Docker's `manifest.json` beside it: what `docker save` writes, and what old and new `load`s read.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
};

use serde_json::{Value, json};

use crate::{
    Images, Pin, State,
    archive::{Entry, Kind, Writer},
    digest::Digest,
    error::ImageError,
    layer,
    reference::{self, Named, Reference},
};

const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";
const LAYER_TYPE: &str = "application/vnd.oci.image.layer.v1.tar";

/// An image to be saved, and the names that go with it.
struct Saved {
    id: Digest,
    names: Vec<Reference>,
    config: Vec<u8>,
    layers: Vec<Digest>,
    manifest: Vec<u8>,
}

impl Images {
    /// Writes the images of these names; a name without a tag stands for all its tags, an id for the image alone.
    pub fn save(&self, names: &[String], out: &mut dyn Write) -> Result<(), ImageError> {
        let mut pin = Pin::new(self);
        let images = self.chosen(names)?;
        let layers: BTreeSet<&Digest> = images.iter().flat_map(|image| &image.layers).collect();
        let mut sizes = BTreeMap::new();
        for layer in layers {
            if !pin.hold(layer) {
                return Err(ImageError::Failed(format!("cannot save: layer {layer} is gone")));
            }
            sizes.insert(layer, self.archive_of(layer)?);
        }
        let mut archive = Archive::new(out);
        archive.directory("blobs/")?;
        archive.directory("blobs/sha256/")?;
        for (layer, size) in &sizes {
            archive.layer(self, layer, *size)?;
        }
        let mut written = BTreeSet::new();
        for image in &images {
            for bytes in [&image.config, &image.manifest] {
                let digest = Digest::of(bytes);
                if written.insert(digest.clone()) {
                    archive.file(&blob(&digest), bytes)?;
                }
            }
        }
        archive.document("index.json", &index(&images))?;
        archive.document("manifest.json", &docker_manifest(&images))?;
        archive.document("oci-layout", &json!({ "imageLayoutVersion": "1.0.0" }))?;
        let repositories = repositories(&images);
        if repositories.as_object().is_some_and(|names| !names.is_empty()) {
            archive.document("repositories", &repositories)?;
        }
        archive.finish()
    }

    fn chosen(&self, names: &[String]) -> Result<Vec<Saved>, ImageError> {
        let state = self.state();
        let mut chosen: Vec<(Digest, BTreeSet<Reference>)> = Vec::new();
        for name in names {
            for (id, reference) in state.meant(name)? {
                match chosen.iter_mut().find(|(other, _)| *other == id) {
                    Some((_, names)) => names.extend(reference),
                    None => chosen.push((id, reference.into_iter().collect())),
                }
            }
        }
        let saved = chosen.into_iter().map(|(id, names)| {
            let layers = state
                .images
                .get(&id)
                .map(|image| image.diff_ids.clone())
                .unwrap_or_default();
            let config = state.content.read(&id)?;
            Ok(Saved {
                names: names.into_iter().collect(),
                manifest: state.oci_manifest(&id, &config, &layers)?,
                config,
                layers,
                id,
            })
        });
        saved.collect()
    }

    /// Bytes of a layer's archive.
    pub(crate) fn archive_of(&self, layer: &Digest) -> Result<u64, ImageError> {
        let state = self.state();
        state
            .layers
            .get(layer)
            .and_then(|layer| layer.archive)
            .ok_or_else(|| no_record(layer))
    }
}

impl State {
    /// The images a name means, each with the name it is saved under.
    fn meant(&self, name: &str) -> Result<Vec<(Digest, Option<Reference>)>, ImageError> {
        let id = self.find(name);
        let is_id = |id: &Digest| id.as_str().starts_with(name) || id.hex().starts_with(name);
        if let Ok(Named::Tagged(reference)) = reference::parse(name) {
            let is_bare = !name.rsplit('/').next().unwrap_or(name).contains(':');
            let all = self.repositories.all();
            let mut named: Vec<(Digest, Option<Reference>)> = all
                .filter(|(other, _)| match is_bare {
                    true => other.repository == reference.repository,
                    false => **other == reference,
                })
                .map(|(other, id)| (id.clone(), Some(other.clone())))
                .collect();
            named.retain(|(id, _)| self.images.contains_key(id));
            if !named.is_empty()
                && !id
                    .as_ref()
                    .is_ok_and(|id| is_id(id) && named.iter().all(|(other, _)| other != id))
            {
                return Ok(named);
            }
        }
        Ok(vec![(id?, None)])
    }

    fn oci_manifest(&self, id: &Digest, config: &[u8], layers: &[Digest]) -> Result<Vec<u8>, ImageError> {
        let mut described = Vec::new();
        for layer in layers {
            let known = self.layers.get(layer).and_then(|layer| layer.archive);
            let size = known.ok_or_else(|| no_record(layer))?;
            described.push(json!({ "mediaType": LAYER_TYPE, "digest": layer.as_str(), "size": size }));
        }
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": { "mediaType": CONFIG_TYPE, "digest": id.as_str(), "size": config.len() },
            "layers": described,
        });
        serde_json::to_vec(&manifest).map_err(|why| ImageError::Failed(format!("cannot write a manifest: {why}")))
    }
}

/// `index.json`: a line for each name, so that each image is found under all of them.
fn index(images: &[Saved]) -> Value {
    let mut lines = Vec::new();
    for image in images {
        let line = json!({
            "mediaType": MANIFEST_TYPE,
            "digest": Digest::of(&image.manifest).as_str(),
            "size": image.manifest.len(),
        });
        for name in &image.names {
            let mut line = line.clone();
            line["annotations"] = json!({
                "io.containerd.image.name": name.to_string(),
                "org.opencontainers.image.ref.name": name.tag,
            });
            lines.push(line);
        }
        if image.names.is_empty() {
            lines.push(line);
        }
    }
    json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": lines })
}

/// Docker's own list.
fn docker_manifest(images: &[Saved]) -> Value {
    let image = |image: &Saved| {
        let names: Vec<String> = image.names.iter().map(Reference::familiar).collect();
        json!({
            "Config": blob(&image.id),
            "RepoTags": if names.is_empty() { Value::Null } else { json!(names) },
            "Layers": image.layers.iter().map(blob).collect::<Vec<_>>(),
        })
    };
    images.iter().map(image).collect()
}

/// What the oldest readers look at: of each name, the topmost layer.
fn repositories(images: &[Saved]) -> Value {
    let mut all: BTreeMap<String, BTreeMap<&str, &str>> = BTreeMap::new();
    for image in images {
        for name in &image.names {
            let familiar = name.familiar();
            let repository = familiar
                .rsplit_once(':')
                .map_or(familiar.as_str(), |(repository, _)| repository);
            let top = image.layers.last().unwrap_or(&image.id);
            all.entry(repository.to_owned())
                .or_default()
                .insert(&name.tag, top.hex());
        }
    }
    json!(all)
}

fn blob(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn no_record(layer: &Digest) -> ImageError {
    ImageError::Failed(format!(
        "layer {layer} was unpacked by an earlier version, which kept no record of its archive: load its image again"
    ))
}

/// The archive on its way out.
struct Archive<'a> {
    writer: Writer<&'a mut dyn Write>,
}

impl<'a> Archive<'a> {
    fn new(out: &'a mut dyn Write) -> Self {
        Self {
            writer: Writer::new(out),
        }
    }

    fn directory(&mut self, name: &str) -> Result<(), ImageError> {
        let entry = Entry {
            name: name.as_bytes().to_vec(),
            kind: Kind::Directory,
            mode: 0o755,
            ..Entry::default()
        };
        self.writer.begin(&entry, None).map_err(writing)
    }

    fn begin(&mut self, name: &str, size: u64) -> Result<(), ImageError> {
        let entry = Entry {
            name: name.as_bytes().to_vec(),
            size,
            mode: 0o644,
            ..Entry::default()
        };
        self.writer.begin(&entry, None).map_err(writing)
    }

    fn file(&mut self, name: &str, bytes: &[u8]) -> Result<(), ImageError> {
        self.begin(name, bytes.len() as u64)?;
        self.writer.data(bytes).map_err(writing)
    }

    fn document(&mut self, name: &str, document: &Value) -> Result<(), ImageError> {
        self.file(name, document.to_string().as_bytes())
    }

    fn layer(&mut self, images: &Images, layer: &Digest, size: u64) -> Result<(), ImageError> {
        self.begin(&blob(layer), size)?;
        let directory = images.state().layers.directory_of(layer);
        layer::write_archive(&directory, layer, &mut Data(&mut self.writer))
    }

    fn finish(self) -> Result<(), ImageError> {
        let out = self.writer.finish().map_err(writing)?;
        out.flush().map_err(writing)
    }
}

/// The data of an entry.
struct Data<'a, 'b>(&'a mut Writer<&'b mut dyn Write>);

impl Write for Data<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.data(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn writing(why: std::io::Error) -> ImageError {
    ImageError::Failed(format!("cannot write the archive: {why}"))
}

#[cfg(test)]
mod tests {
    use crate::{
        Images,
        testing::{Scratch, Tar},
    };

    fn import(images: &Images, name: &str, tar: &[u8]) -> String {
        images.import(&mut { tar }, Some(name), &[], "").unwrap().id
    }

    #[test]
    fn what_is_saved_is_loaded_as_the_same_image_with_its_names() {
        let scratch = Scratch::new("save");
        let one = Images::open(&scratch.path().join("one")).unwrap();
        // a file that comes twice, a directory that becomes a file, a sparse one, a long name: all of it has to come out as it came in
        let long = "long/".repeat(60) + "name";
        let tar = Tar::default()
            .file("twice", "first")
            .directory("d")
            .file("d/inner", "in the directory")
            .file("twice", "second, and longer")
            .file("d", "no directory any more")
            .pax(&[("path", long.as_bytes())])
            .file("short", "x".repeat(700))
            .link("same", "twice")
            .symlink("soft", "twice")
            .end();
        let first = import(&one, "one:1", &tar);
        one.tag("one:1", "one:2").unwrap();
        one.tag("one:1", "quay.io/else/where:3").unwrap();
        let second = import(&one, "two:1", &Tar::default().file("b", "b").end());
        let mut saved = Vec::new();
        one.save(&["one".into(), "two:1".into()], &mut saved).unwrap();

        let other = Images::open(&scratch.path().join("other")).unwrap();
        other.load(&mut saved.as_slice()).unwrap();
        assert_eq!(other.find("one:1").unwrap().id, first);
        assert_eq!(other.find("one:1").unwrap().tags, ["one:1", "one:2"]);
        assert_eq!(other.find("two:1").unwrap().id, second);
        assert!(
            other.find("quay.io/else/where:3").is_err(),
            "a name that was not asked for stays behind"
        );
        let mut again = Vec::new();
        other.save(&["one".into(), "two:1".into()], &mut again).unwrap();
        assert!(again == saved, "and it is saved again as it was");
    }

    #[test]
    fn an_image_by_id_is_saved_without_a_name() {
        let scratch = Scratch::new("save-id");
        let images = Images::open(scratch.path()).unwrap();
        let id = import(&images, "named:1", &Tar::default().file("a", "a").end());
        let mut saved = Vec::new();
        images
            .save(&[id["sha256:".len()..][..12].to_owned()], &mut saved)
            .unwrap();
        assert!(!saved.windows(5).any(|window| window == b"named"));
        assert!(images.save(&["nope".into()], &mut Vec::new()).is_err());
    }
}
