//! A daemon that is killed at any moment leaves images that are whole, and nothing else for long.

use std::{
    fs,
    io::sink,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crate::{
    Commit, ImageError, Images, RegistryOptions,
    configuration::RunConfig,
    registry::tests::{Ear, fake::Fake, here, layer, pull_from, stored::Stored},
    testing::{Scratch, Tar},
};

/// Tells the test below that it is the daemon to be killed, and where it works.
const PLACE: &str = "SLUICE_IMAGE_KILLS";
/// How often it is killed.
const ROUNDS: u32 = 40;
/// No round lets it live longer, milliseconds.
const LONGEST_LIFE: u64 = 60;

/// Makes images, containers of them and images of those, and removes them all again, for as long as it lives.
#[test]
fn worker() {
    let Some(place) = std::env::var_os(PLACE) else { return };
    let place = PathBuf::from(place);
    let images = Images::open(&place).unwrap();
    let mut stored = Stored::default();
    for number in 0..5 {
        let own = layer(&format!("own{number}"), 2_000);
        stored.image(&number.to_string(), &[layer("shared", 5_000), own], here());
    }
    let registry = Fake::serve(move |asked| stored.answer(asked));
    // as a mirror, so that names are the same in each life
    let images = images.with_registries(RegistryOptions {
        mirrors: vec![format!("http://{}", registry.address)],
        ..RegistryOptions::default()
    });
    // the parent waits for this
    fs::write(place.join("open"), "").unwrap();
    for number in (0..).map(|number: u32| number % 5) {
        let name = format!("image{number}");
        let mut tar = Tar::default().directory("d");
        for file in 0..40 {
            tar = tar.file(&format!("d/{number}-{file}"), vec![b'x'; 3000]);
        }
        images.import(&mut tar.end().as_slice(), Some(&name), &[], "").unwrap();
        let directory = place.join("containers").join(format!("c{number}"));
        let snapshot = images.prepare(&name, &directory, None).unwrap();
        fs::write(snapshot.upper.join("own"), name.as_bytes()).unwrap();
        let made = format!("made{number}");
        let commit = Commit {
            directory: &directory,
            image: &name,
            scaffold: &[],
            container: "c",
            command: "",
            config: RunConfig::default(),
            changes: &[],
            reference: Some(&made),
            author: "",
            comment: "",
        };
        images.commit(commit).unwrap();
        // two at a time, which share a layer
        std::thread::scope(|scope| {
            for pulled in [number, (number + 1) % 5] {
                let (images, name) = (&images, format!("a:{pulled}"));
                scope.spawn(move || pull_from(images, &name, &Ear::default()).unwrap());
            }
        });
        // a step of a build
        let step = images
            .derive(Commit {
                directory: &directory,
                image: &name,
                scaffold: &[],
                container: "",
                command: "#(nop) ENV a=b",
                config: RunConfig::default(),
                changes: &[],
                reference: None,
                author: "",
                comment: "",
            })
            .unwrap();
        let base = images.find(&name).unwrap().id;
        images.remember(&base, "ENV a=b", &step.id).unwrap();
        assert_eq!(images.made_of(&base, "ENV a=b").unwrap().id, step.id);
        images.prune_steps(true, &[], |_| true).unwrap();
        images.remove(&format!("a:{number}"), true, &[]).unwrap();
        let mut archive = Vec::new();
        images.save(std::slice::from_ref(&made), &mut archive).unwrap();
        images.remove(&name, true, &[]).unwrap();
        images.discard(&directory).unwrap();
        if number % 2 == 0 {
            images.remove(&made, true, &[]).unwrap();
            images.load(&mut archive.as_slice()).unwrap();
        }
    }
}

#[test]
fn images_are_whole_after_a_kill_at_any_moment() {
    if !nix::unistd::Uid::effective().is_root() {
        eprintln!("passed over: needs root");
        return;
    }
    let scratch = Scratch::new("kills");
    let seed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos();
    let mut random = u64::from(seed) | 1;
    for round in 0..ROUNDS {
        let open = scratch.path().join("open");
        let _ = fs::remove_file(&open);
        let mut worker = Command::new(std::env::current_exe().unwrap())
            .args(["kills::worker", "--exact", "--nocapture"])
            .env(PLACE, scratch.path())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        while !open.exists() {
            assert!(worker.try_wait().unwrap().is_none(), "round {round}: {}", said(worker));
            std::thread::sleep(Duration::from_millis(1));
        }
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        std::thread::sleep(Duration::from_micros((random >> 33) % (LONGEST_LIFE * 1000)));
        assert!(worker.try_wait().unwrap().is_none(), "round {round}: {}", said(worker));
        worker.kill().unwrap();
        worker.wait().unwrap();
        check(scratch.path(), round, seed);
    }
    let images = Images::open(scratch.path()).unwrap();
    for entry in entries(&scratch.path().join("containers")) {
        images.discard(&entry).unwrap();
    }
    for image in images.list().unwrap() {
        match images.remove(&image.id, true, &[]) {
            // a step goes with what was made of it
            Ok(_) | Err(ImageError::NotFound(_)) => {}
            Err(why) => panic!("{}: {why} (seed {seed})", image.id),
        }
    }
    for part in ["content", "layers", "snapshots", "staging"] {
        let left = entries(&scratch.path().join("image").join(part));
        assert!(left.is_empty(), "left behind in {part}: {left:?} (seed {seed})");
    }
}

fn said(worker: std::process::Child) -> String {
    let output = worker.wait_with_output().unwrap();
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// What the next daemon finds: images that can be read to their last byte, and nothing that is nobody's.
fn check(place: &Path, round: u32, seed: u32) {
    let images = Images::open(place).unwrap_or_else(|why| panic!("round {round}, seed {seed}: {why}"));
    let root = place.join("image");
    assert!(entries(&root.join("staging")).is_empty(), "round {round}, seed {seed}");
    let mut layers = std::collections::BTreeSet::new();
    for image in images.list().unwrap() {
        images
            .save(std::slice::from_ref(&image.id), &mut sink())
            .unwrap_or_else(|why| panic!("round {round}, seed {seed}: {} {:?}: {why}", image.id, image.tags));
        layers.extend(image.layers);
    }
    for entry in entries(&place.join("containers")) {
        // one that was not made to its end stands on nothing yet
        if let Ok(of_container) = images.layers_of(&entry) {
            layers.extend(of_container.iter().map(|layer| layer.to_string()));
        }
    }
    for layer in entries(&root.join("layers")) {
        let hex = layer.file_name().unwrap().to_string_lossy().into_owned();
        assert!(
            layers.contains(&format!("sha256:{hex}")),
            "round {round}, seed {seed}: {hex} is nobody's"
        );
    }
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten();
    entries.map(|entry| entry.unwrap().path()).collect()
}
