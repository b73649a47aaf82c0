//! The store as a whole: names, removal, restarts.

use super::*;
use crate::testing::{Scratch, Tar};

fn archive(text: &str) -> Vec<u8> {
    Tar::default().directory("./").file(text, text).end()
}

fn import(images: &Images, text: &str, name: Option<&str>) -> Image {
    images.import(&mut archive(text).as_slice(), name, &[], "").unwrap()
}

fn user(image: &Image, running: bool) -> ImageUse {
    ImageUse {
        image: image.id.clone(),
        container: "0123456789abcdef".into(),
        running,
    }
}

fn short(image: &Image) -> &str {
    &image.id[7..19]
}

fn layers(scratch: &Scratch) -> usize {
    fs::read_dir(scratch.path().join("image/layers")).unwrap().count()
}

#[test]
fn an_imported_image_is_found_by_every_name_it_has() {
    let scratch = Scratch::new("find");
    let images = Images::open(scratch.path()).unwrap();
    let changes = ["CMD [\"/web\"]".to_owned(), "EXPOSE 80".to_owned()];
    let image = images
        .import(&mut archive("a").as_slice(), Some("web"), &changes, "")
        .unwrap();
    assert_eq!(image.tags, ["web:latest"]);
    assert_eq!(image.extras.comment, "Imported from -");
    assert_eq!(
        image.config.history().as_ref().unwrap()[0].comment().as_deref(),
        Some("Imported from -")
    );
    assert_eq!(image.config.os().to_string(), "linux");
    assert_eq!(
        image.config.config().as_ref().unwrap().cmd().as_deref(),
        Some(&["/web".to_owned()][..])
    );
    let digest = image.id.clone();
    for name in [
        "web",
        "web:latest",
        "docker.io/library/web",
        &digest,
        &digest[7..],
        &digest[7..19],
        &digest[..20],
    ] {
        assert_eq!(images.find(name).unwrap().id, image.id, "{name}");
    }
    images.tag("web", "me/site:1").unwrap();
    assert_eq!(images.find(short(&image)).unwrap().tags, ["web:latest", "me/site:1"]);
}

#[test]
fn what_is_not_here_is_said_in_dockers_words() {
    let scratch = Scratch::new("missing");
    let images = Images::open(scratch.path()).unwrap();
    let error = |name: &str| images.find(name).unwrap_err().to_string();
    assert_eq!(error("foo"), "No such image: foo:latest");
    assert_eq!(error("docker.io/me/foo:1"), "No such image: me/foo:1");
    assert_eq!(error("sha256:12"), "No such image: sha256:12");
    assert_eq!(
        error("Foo"),
        "invalid reference format: repository name must be lowercase"
    );
    assert!(matches!(images.find("Foo"), Err(ImageError::Invalid(_))));
    assert!(matches!(images.tag("foo", "bar"), Err(ImageError::NotFound(_))));
    assert!(matches!(images.remove("foo", true, &[]), Err(ImageError::NotFound(_))));
}

#[test]
fn a_failed_import_leaves_nothing() {
    let scratch = Scratch::new("failed");
    let images = Images::open(scratch.path()).unwrap();
    let bytes = archive("a");
    let import = |bytes: &[u8], name, changes: &[String]| images.import(&mut &bytes[..], name, changes, "");
    assert!(matches!(
        import(&bytes[..700], None, &[]),
        Err(ImageError::BadArchive(_))
    ));
    assert!(matches!(
        import(&bytes, Some("Upper"), &[]),
        Err(ImageError::Invalid(_))
    ));
    assert!(matches!(
        import(&bytes, None, &["JUMP".into()]),
        Err(ImageError::Invalid(_))
    ));
    assert!(matches!(
        import(b"\xfd7zXZ\0", None, &[]),
        Err(ImageError::BadArchive(_))
    ));
    for name in ["staging", "layers", "content"] {
        assert_eq!(
            fs::read_dir(scratch.path().join("image").join(name)).unwrap().count(),
            0,
            "{name}"
        );
    }
}

#[test]
fn everything_is_there_after_a_restart_and_leftovers_are_not() {
    let scratch = Scratch::new("restart");
    let images = Images::open(scratch.path()).unwrap();
    let (one, two) = (import(&images, "one", Some("one")), import(&images, "two", None));
    drop(images);
    // what a kill leaves: something half-unpacked, a layer without its image, half-written files
    let root = scratch.path().join("image");
    fs::create_dir_all(root.join("staging/1-1/layer-1/fs/deep/tree")).unwrap();
    let orphan = root.join("layers").join("0".repeat(64));
    fs::create_dir_all(orphan.join("fs")).unwrap();
    fs::write(orphan.join("layer.json"), r#"{"size":0,"root":null}"#).unwrap();
    fs::create_dir_all(root.join("layers").join("1".repeat(64)).join("fs")).unwrap();
    fs::write(root.join("content/.0123.new"), "{").unwrap();
    fs::write(root.join(".repositories.json.new"), "{").unwrap();
    let images = Images::open(scratch.path()).unwrap();
    let ids: Vec<String> = images.list().unwrap().into_iter().map(|image| image.id).collect();
    assert_eq!(ids, [two.id, one.id.clone()], "newest first");
    assert_eq!(images.find("one").unwrap().id, one.id);
    assert_eq!(
        (layers(&scratch), fs::read_dir(root.join("staging")).unwrap().count()),
        (2, 0)
    );
}

#[test]
fn an_image_that_cannot_be_read_costs_no_layer() {
    let scratch = Scratch::new("unreadable");
    let images = Images::open(scratch.path()).unwrap();
    let image = import(&images, "one", Some("one"));
    drop(images);
    fs::write(scratch.path().join("image/content").join(&image.id[7..]), "damaged").unwrap();
    let images = Images::open(scratch.path()).unwrap();
    assert!(images.list().unwrap().is_empty() && matches!(images.find("one"), Err(ImageError::NotFound(_))));
    assert_eq!(layers(&scratch), 1);
}

#[test]
fn the_same_layer_is_kept_once() {
    let scratch = Scratch::new("shared");
    let images = Images::open(scratch.path()).unwrap();
    let (one, two) = (
        import(&images, "same", Some("one")),
        import(&images, "same", Some("two")),
    );
    assert_ne!(one.id, two.id, "another time of creation");
    assert_eq!(layers(&scratch), 1);
    images.remove("one", false, &[]).unwrap();
    assert_eq!(layers(&scratch), 1);
    let removed = images.remove("two", false, &[]).unwrap();
    let layer = two.layers[0].clone();
    assert_eq!(
        removed,
        [
            Removed::Untagged("two:latest".into()),
            Removed::Deleted(two.id),
            Removed::Deleted(layer)
        ]
    );
    assert_eq!(layers(&scratch), 0);
}

#[test]
fn a_name_that_is_not_the_last_is_only_taken_off() {
    let scratch = Scratch::new("untag");
    let images = Images::open(scratch.path()).unwrap();
    let image = import(&images, "a", Some("one"));
    images.tag("one", "two").unwrap();
    // also with a container on it
    assert_eq!(
        images.remove("one", false, &[user(&image, true)]).unwrap(),
        [Removed::Untagged("one:latest".into())]
    );
    assert!(matches!(images.find("one"), Err(ImageError::NotFound(_))));
}

#[test]
fn an_id_with_names_in_several_repositories_must_be_forced() {
    let scratch = Scratch::new("several");
    let images = Images::open(scratch.path()).unwrap();
    let image = import(&images, "a", Some("one"));
    images.tag("one", "two").unwrap();
    let id = short(&image);
    assert_eq!(
        images.remove(id, false, &[]).unwrap_err().to_string(),
        format!("conflict: unable to delete {id} (must be forced) - image is referenced in multiple repositories")
    );
    assert_eq!(
        images.remove(id, true, &[]).unwrap().len(),
        4,
        "two names, the image, the layer"
    );
}

#[test]
fn an_id_with_two_tags_of_one_repository_must_be_forced() {
    let scratch = Scratch::new("one-repository");
    let images = Images::open(scratch.path()).unwrap();
    let image = import(&images, "a", Some("one:1"));
    images.tag("one:1", "one:2").unwrap();
    assert!(images.remove(&image.id, false, &[]).is_err());
    images.remove("one:2", false, &[]).unwrap();
    let removed = images.remove(&image.id, false, &[]).unwrap();
    assert_eq!(removed[0], Removed::Untagged("one:1".into()));
    assert!(images.list().unwrap().is_empty());
}

#[test]
fn an_image_in_use_stays_as_docker_has_it() {
    let scratch = Scratch::new("in-use");
    let images = Images::open(scratch.path()).unwrap();
    let image = import(&images, "a", Some("one"));
    let id = short(&image);
    for running in [true, false] {
        assert_eq!(
            images
                .remove("one", false, &[user(&image, running)])
                .unwrap_err()
                .to_string(),
            format!(
                "conflict: unable to remove repository reference \"one\" (must force) - container 0123456789ab is using \
                 its referenced image {id}"
            )
        );
    }
    let error = |force, running| {
        images
            .remove(id, force, &[user(&image, running)])
            .unwrap_err()
            .to_string()
    };
    let running = format!(
        "conflict: unable to delete {id} (cannot be forced) - image is being used by running container 0123456789ab"
    );
    assert_eq!(error(false, true), running);
    assert_eq!(error(true, true), running);
    assert_eq!(
        error(false, false),
        format!(
            "conflict: unable to delete {id} (must be forced) - image is being used by stopped container 0123456789ab"
        )
    );
    assert_eq!(
        images.find("one").unwrap().tags,
        ["one:latest"],
        "a refusal takes no name off"
    );
    // by force, a running container keeps the image and loses the name
    assert_eq!(
        images.remove("one", true, &[user(&image, true)]).unwrap(),
        [Removed::Untagged("one:latest".into())]
    );
    assert!(images.find(id).is_ok());
    // and a stopped one does not keep it
    assert!(images.remove(id, true, &[user(&image, false)]).is_ok());
    assert!(images.find(id).is_err());
}

#[test]
fn a_layer_somebody_waits_for_is_not_swept() {
    let scratch = Scratch::new("pin");
    let images = Images::open(scratch.path()).unwrap();
    let image = import(&images, "a", Some("one"));
    let layer = Digest::parse(&image.layers[0]).unwrap();
    let mut pin = Pin::new(&images);
    assert!(pin.hold(&layer) && pin.hold(&layer));
    images.remove("one", false, &[]).unwrap();
    assert_eq!(layers(&scratch), 1);
    drop(pin);
    images.sweep().unwrap();
    assert_eq!(layers(&scratch), 0);
}

#[test]
fn many_imports_at_once_do_not_meet() {
    let scratch = Scratch::new("parallel");
    let images = Images::open(scratch.path()).unwrap();
    std::thread::scope(|scope| {
        for number in 0..8 {
            let images = &images;
            scope.spawn(move || import(images, &format!("f{}", number / 2), Some(&format!("app:{number}"))));
        }
    });
    assert_eq!((images.list().unwrap().len(), layers(&scratch)), (8, 4));
}
