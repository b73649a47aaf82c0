//! Real mounts, in the mount namespace of the tests. They need root.

use std::{fs, os::unix::fs::MetadataExt};

use super::*;
use crate::{
    Images, Owners, Writes,
    testing::{Scratch, Tar},
};

/// No container of these tests has other owners on the host.
fn unasked(_: &crate::Owners) -> std::io::Result<OwnedFd> {
    panic!("nobody asked for other owners")
}

/// Unmounts what a failed test leaves.
struct Lab {
    scratch: Scratch,
}

impl Lab {
    fn new(name: &str, layers: usize) -> (Self, Vec<PathBuf>) {
        let lab = Self {
            scratch: Scratch::new(name),
        };
        let lower: Vec<PathBuf> = (0..layers).map(|number| lab.path(&format!("{:064}", number))).collect();
        for (number, directory) in lower.iter().enumerate() {
            fs::create_dir(directory).unwrap();
            fs::write(directory.join(format!("f{number}")), "").unwrap();
            fs::write(directory.join("top"), number.to_string()).unwrap();
        }
        for name in ["upper", "work", "merged"] {
            fs::create_dir_all(lab.path(name)).unwrap();
        }
        (lab, lower)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    fn check(&self, layers: usize) {
        let merged = self.path("merged");
        assert_eq!(fs::read_dir(&merged).unwrap().count(), layers + 1);
        assert_eq!(
            fs::read_to_string(merged.join("top")).unwrap(),
            "0",
            "the first is the topmost"
        );
        fs::write(merged.join("new"), "").unwrap();
        assert!(self.path("upper/new").exists());
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        while nix::mount::umount2(&self.path("merged"), nix::mount::MntFlags::MNT_DETACH).is_ok() {}
    }
}

#[test]
fn five_hundred_layers_mount_by_either_road() {
    for layers in [1, 128, 500] {
        for old in [false, true] {
            let (lab, lower) = Lab::new(&format!("layers-{layers}-{old}"), layers);
            let (upper, work) = (lab.path("upper"), lab.path("work"));
            let overlay = Overlay {
                lower: &lower,
                upper: &upper,
                work: &work,
                passing: false,
            };
            match old {
                false => mount(&overlay, &lab.path("merged")).unwrap(),
                true => mount_by_options(&overlay, &lab.path("merged")).unwrap(),
            }
            lab.check(layers);
        }
    }
}

#[test]
fn an_error_carries_the_words_of_the_kernel() {
    let (lab, lower) = Lab::new("words", 501);
    let (upper, work) = (lab.path("upper"), lab.path("work"));
    let error = mount(
        &Overlay {
            lower: &lower,
            upper: &upper,
            work: &work,
            passing: false,
        },
        &lab.path("merged"),
    )
    .unwrap_err();
    assert!(error.to_string().contains("too many lower directories"), "{error}");
}

#[test]
fn names_with_colons_and_commas_and_long_ones_are_mounted() {
    for old in [false, true] {
        let (lab, _) = Lab::new(&format!("names-{old}"), 0);
        let odd = lab.path("a:b,c\\d");
        let long = lab.path(&"l".repeat(250));
        for (number, directory) in [&odd, &long].iter().enumerate() {
            fs::create_dir(directory).unwrap();
            fs::write(directory.join(format!("f{number}")), "").unwrap();
            fs::write(directory.join("top"), number.to_string()).unwrap();
        }
        let (lower, upper, work) = ([odd, long], lab.path("upper"), lab.path("work"));
        let overlay = Overlay {
            lower: &lower,
            upper: &upper,
            work: &work,
            passing: old,
        };
        match old {
            false => mount(&overlay, &lab.path("merged")).unwrap(),
            true => mount_by_options(&overlay, &lab.path("merged")).unwrap(),
        }
        lab.check(2);
    }
}

#[test]
fn a_container_stands_on_its_layers_also_when_its_image_is_gone() {
    let scratch = Scratch::new("snapshot");
    let images = Images::open(scratch.path()).unwrap();
    let archive = Tar::default()
        .entry("./", b'5', "", b"", |header| header.set_mode(0o750))
        .file("etc/hostname", "image")
        .end();
    let image = images.import(&mut archive.as_slice(), Some("app"), &[], "").unwrap();
    let dir = scratch.path().join("containers/c1");
    let snapshot = images.prepare("app", &dir, None).unwrap();
    assert!(!snapshot.merged.join("etc").exists(), "no mount yet");
    images.remove(&image.id, true, &[]).unwrap();
    for _ in 0..2 {
        images.mount(&image.id, &dir, Writes::Lasting, None, unasked).unwrap(); // the second time it is mounted already
    }
    let images = Images::open(scratch.path()).unwrap();
    assert_eq!(fs::metadata(&snapshot.merged).unwrap().mode() & 0o7777, 0o750);
    fs::write(snapshot.merged.join("etc/hostname"), "container").unwrap();
    images.unmount(&dir).unwrap();
    images.unmount(&dir).unwrap(); // fine when not mounted
    assert_eq!(
        fs::read_to_string(snapshot.upper.join("etc/hostname")).unwrap(),
        "container"
    );
    // a restart of the container finds what it wrote
    images.mount(&image.id, &dir, Writes::Lasting, None, unasked).unwrap();
    assert_eq!(
        fs::read_to_string(snapshot.merged.join("etc/hostname")).unwrap(),
        "container"
    );
    images.discard(&dir).unwrap();
    assert!(!snapshot.upper.exists());
    images.sweep().unwrap();
    assert_eq!(
        fs::read_dir(scratch.path().join("image/layers")).unwrap().count(),
        0,
        "nobody needs the layer now"
    );
}

#[test]
fn what_is_written_in_passing_is_never_synced_and_mounted_again_all_the_same() {
    let scratch = Scratch::new("passing");
    let images = Images::open(scratch.path()).unwrap();
    let archive = Tar::default().file("f", "x").end();
    images.import(&mut archive.as_slice(), Some("app"), &[], "").unwrap();
    let dir = scratch.path().join("c");
    for life in ["first", "second"] {
        let snapshot = images.mount("app", &dir, Writes::Passing, None, unasked).unwrap();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let own = mounts
            .lines()
            .find(|line| line.contains(&*snapshot.merged.to_string_lossy()))
            .unwrap();
        assert!(own.contains("volatile"), "{own}");
        fs::write(snapshot.merged.join(life), "").unwrap();
        images.unmount(&dir).unwrap();
        // what a crash leaves behind, too
        assert!(dir.join("work/work/incompat/volatile").exists());
    }
    let snapshot = images.mount("app", &dir, Writes::Passing, None, unasked).unwrap();
    assert!(snapshot.merged.join("first").exists() && snapshot.merged.join("second").exists());
    images.discard(&dir).unwrap();
}

#[test]
fn a_snapshot_whose_record_a_power_failure_cut_short_is_described_anew() {
    let scratch = Scratch::new("torn");
    let images = Images::open(scratch.path()).unwrap();
    let archive = Tar::default().file("f", "x").end();
    images.import(&mut archive.as_slice(), Some("app"), &[], "").unwrap();
    let dir = scratch.path().join("c");
    images.prepare("app", &dir, None).unwrap();
    let record = fs::read_dir(scratch.path().join("image/snapshots"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    fs::write(&record, "").unwrap();
    images.sweep().unwrap();
    let snapshot = images.mount("app", &dir, Writes::Lasting, None, unasked).unwrap();
    assert!(snapshot.merged.join("f").exists());
    images.discard(&dir).unwrap();
}

#[test]
fn a_busy_mount_goes_away_in_the_end() {
    let scratch = Scratch::new("busy");
    let images = Images::open(scratch.path()).unwrap();
    images
        .import(
            &mut Tar::default().file("f", "x").end().as_slice(),
            Some("app"),
            &[],
            "",
        )
        .unwrap();
    let dir = scratch.path().join("c");
    let snapshot = images.mount("app", &dir, Writes::Lasting, None, unasked).unwrap();
    let held = File::open(snapshot.merged.join("f")).unwrap();
    images.unmount(&dir).unwrap();
    assert!(!snapshot.merged.join("f").exists());
    drop(held);
    images.discard(&dir).unwrap();
}

#[test]
fn an_image_without_layers_has_an_empty_root() {
    let scratch = Scratch::new("no-layers");
    let images = Images::open(scratch.path()).unwrap();
    let config = r#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#;
    let archive = Tar::default()
        .file("c.json", config)
        .file(
            "manifest.json",
            r#"[{"Config":"c.json","RepoTags":["none"],"Layers":[]}]"#,
        )
        .end();
    images.load(&mut archive.as_slice()).unwrap();
    let dir = scratch.path().join("c");
    let snapshot = images.mount("none", &dir, Writes::Lasting, None, unasked).unwrap();
    fs::write(snapshot.merged.join("f"), "").unwrap();
    images.discard(&dir).unwrap();
}

/// A user namespace in which these ids of the host are 0 and so on.
fn namespace_of(owners: &Owners) -> std::io::Result<OwnedFd> {
    let mut sleeper = std::process::Command::new("unshare")
        .args(["--user", "sleep", "1000"])
        .spawn()?;
    let place = PathBuf::from(format!("/proc/{}", sleeper.id()));
    let own = fs::read_link("/proc/self/ns/user")?;
    while fs::read_link(place.join("ns/user"))? == own {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    for (file, ranges) in [("uid_map", &owners.users), ("gid_map", &owners.groups)] {
        let (within, host, count) = ranges[0];
        fs::write(place.join(file), format!("{within} {host} {count}"))?;
    }
    let namespace = File::open(place.join("ns/user"))?;
    sleeper.kill()?;
    sleeper.wait()?;
    Ok(namespace.into())
}

/// A file system of its own for a directory where that of the tests has no idmapped mounts, as memory has none before Linux 6.3.
struct Disk(PathBuf);

impl Disk {
    fn at(directory: &Path) -> Self {
        let script = "truncate -s 32M disk && mkfs.ext4 -q -F disk && mkdir -p mounted && mount -o loop disk mounted";
        let made = std::process::Command::new("sh")
            .args(["-c", script])
            .current_dir(directory)
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        Self(directory.join("mounted"))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH);
    }
}

#[test]
fn layers_are_idmapped_where_a_containers_users_are_others() {
    let owners = Owners {
        users: vec![(0, 231_072, 65_536)],
        groups: vec![(0, 331_072, 65_536)],
    };
    let scratch = Scratch::new("idmapped");
    let namespace = namespace_of(&owners).unwrap();
    let disk = Images::open(scratch.path())
        .unwrap()
        .check_idmapped(&namespace)
        .is_err()
        .then(|| Disk::at(scratch.path()));
    let root = disk.as_ref().map_or(scratch.path(), |disk| &disk.0);
    let images = Images::open(root).unwrap();
    images.check_idmapped(&namespace).unwrap();
    let archive = Tar::default()
        .entry("mine", b'0', "", b"x", |header| {
            header.set_uid(1000);
            header.set_gid(2000);
        })
        .directory("etc")
        .end();
    images.import(&mut archive.as_slice(), Some("app"), &[], "").unwrap();
    let dir = root.join("c");
    images.prepare("app", &dir, Some(&owners)).unwrap();
    let snapshot = images
        .mount("app", &dir, Writes::Lasting, Some(&owners), namespace_of)
        .unwrap();
    let seen = |name: &str| {
        let file = fs::metadata(snapshot.merged.join(name)).unwrap();
        (file.uid(), file.gid())
    };
    assert_eq!(seen("mine"), (231_072 + 1000, 331_072 + 2000));
    assert_eq!((seen("etc"), seen(".")), ((231_072, 331_072), (231_072, 331_072)));
    // a copy that is written has the same owner, and the layer its own
    fs::write(snapshot.merged.join("mine"), "changed").unwrap();
    assert_eq!(seen("mine"), (231_072 + 1000, 331_072 + 2000));
    let stored = images.below(&dir).unwrap().remove(0).join("mine");
    assert_eq!(fs::metadata(&stored).unwrap().uid(), 1000);
    assert_eq!(fs::read_to_string(&stored).unwrap(), "x");
    images.discard(&dir).unwrap();
    drop(images);
    drop(disk);
}
