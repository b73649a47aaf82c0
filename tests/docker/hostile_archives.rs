//! Archives made by an enemy: nothing may leave the layer's directory, and the daemon goes on.

use std::path::PathBuf;

use lab::{Daemon, Lab, Ran, start};

/// One entry of a tar: a ustar header and the content, padded.
fn entry(name: &str, kind: u8, link: &str, content: &[u8], declared: Option<u64>) -> Vec<u8> {
    let mut header = [0_u8; 512];
    header[..name.len()].copy_from_slice(name.as_bytes());
    header[100..108].copy_from_slice(b"0000755\0");
    header[108..116].copy_from_slice(b"0000000\0");
    header[116..124].copy_from_slice(b"0000000\0");
    let size = declared.unwrap_or(content.len() as u64);
    header[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
    header[136..148].copy_from_slice(b"00000000000\0");
    header[156] = kind;
    header[157..157 + link.len()].copy_from_slice(link.as_bytes());
    header[257..265].copy_from_slice(b"ustar\x0000");
    header[329..337].copy_from_slice(b"0000007\0");
    header[337..345].copy_from_slice(b"0000001\0");
    header[148..156].copy_from_slice(b"        ");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut bytes = header.to_vec();
    bytes.extend_from_slice(content);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn tar(entries: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = entries.concat();
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

/// Imports the bytes; whatever comes of it, the daemon must live and no mark may be on the host.
fn import(lab: &Lab, daemon: &Daemon, what: &str, bytes: &[u8]) -> Ran {
    let ran = daemon.docker().fed(&["import", "-", "enemy"], bytes);
    assert!(daemon.is_alive(), "{what} took the daemon down: {ran}");
    let marks: Vec<PathBuf> = lab.host.inside(|| {
        let root = daemon.data_root();
        let mut places = vec![
            PathBuf::from("/"),
            PathBuf::from("/tmp"),
            PathBuf::from("/etc"),
            PathBuf::from("/run"),
            lab.host.directory().to_owned(),
            root.clone(),
        ];
        places.extend(["image", "containers", "image/layers"].map(|place| root.join(place)));
        places
            .into_iter()
            .map(|place| place.join("sluice-mark"))
            .filter(|mark| mark.symlink_metadata().is_ok())
            .collect()
    });
    for mark in &marks {
        let _ = std::fs::remove_file(mark);
    }
    assert!(marks.is_empty(), "{what} escaped to {marks:?}");
    ran
}

const FILE: u8 = b'0';
const HARD: u8 = b'1';
const SOFT: u8 = b'2';
const CHARACTER: u8 = b'3';
const DIRECTORY: u8 = b'5';

#[test]
fn names_and_links_that_point_outside_stay_inside() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let mark = |name: &str| entry(name, FILE, "", b"mark", None);
    let cases: Vec<(&str, Vec<Vec<u8>>)> = vec![
        ("an absolute name", vec![mark("/sluice-mark")]),
        (
            "dots",
            vec![
                mark("../../../../../../../../tmp/sluice-mark"),
                mark("a/../../../../sluice-mark"),
            ],
        ),
        (
            "a link to the root",
            vec![
                entry("out", SOFT, "/", b"", None),
                mark("out/sluice-mark"),
                mark("out/tmp/sluice-mark"),
            ],
        ),
        (
            "a link upwards",
            vec![
                entry("up", SOFT, "../../../../..", b"", None),
                mark("up/sluice-mark"),
                mark("up/tmp/sluice-mark"),
            ],
        ),
        (
            "a chain of links",
            vec![
                entry("a", DIRECTORY, "", b"", None),
                entry("a/b", SOFT, "..", b"", None),
                entry("c", SOFT, "a/b/../../../..", b"", None),
                mark("c/sluice-mark"),
            ],
        ),
        (
            "a hard link to the outside",
            vec![
                entry("passwd", HARD, "/etc/hostname", b"", None),
                entry("passwd", FILE, "", b"mark", None),
            ],
        ),
        (
            "a hard link through dots",
            vec![
                entry("passwd", HARD, "../../../../../../../etc/hostname", b"", None),
                mark("passwd"),
            ],
        ),
        (
            "a hard link through a link",
            vec![
                entry("l", SOFT, "/etc", b"", None),
                entry("h", HARD, "l/hostname", b"", None),
                entry("h", FILE, "", b"mark", None),
            ],
        ),
        (
            "a link that becomes a directory",
            vec![
                entry("d", SOFT, "/tmp", b"", None),
                entry("d", DIRECTORY, "", b"", None),
                mark("d/sluice-mark"),
            ],
        ),
        (
            "a white-out of the outside",
            vec![
                entry("w", SOFT, "/tmp", b"", None),
                mark("w/.wh.sluice-other"),
                mark("../.wh.image"),
            ],
        ),
    ];
    let name_of_host = lab.host.run("cat /etc/hostname");
    let other = PathBuf::from("/tmp/sluice-other");
    std::fs::write(&other, "untouched").unwrap();
    for (what, entries) in cases {
        let ran = import(&lab, &daemon, what, &tar(&entries));
        assert_eq!(lab.host.run("cat /etc/hostname"), name_of_host, "{what}: {ran}");
        assert!(other.exists(), "{what}: {ran}");
    }
    let _ = std::fs::remove_file(&other);
    assert_eq!(daemon.docker().ok("run --rm busybox echo alive"), "alive");
}

#[test]
fn a_device_node_in_an_archive_opens_nothing() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    // The numbers of the header are 7 and 1: no device of these tests.
    import(
        &lab,
        &daemon,
        "a device",
        &tar(&[
            entry("device", CHARACTER, "", b"", None),
            entry("file", FILE, "", b"x", None),
        ]),
    );
    docker.import(&lab::busybox(), "busybox", &[]);
    let opened = docker.sh("--rm", "mknod /tmp/d c 7 1 && cat /tmp/d");
    assert!(!opened.is_ok() && opened.stdout.is_empty(), "{opened}");
}

#[test]
fn a_file_of_ten_gigabytes_that_is_not_there_and_a_damaged_archive_are_refused_and_leave_nothing() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let good = std::fs::read(lab::busybox()).unwrap();
    let mut bad_gzip = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3];
    bad_gzip.extend_from_slice(&good[..5000]);
    let size = |lab: &Lab| {
        lab.host
            .run(&format!(
                "du -s --apparent-size {} | cut -f1",
                daemon.data_root().display()
            ))
            .parse::<u64>()
            .unwrap()
    };
    let before = size(&lab);
    for (what, bytes) in [
        (
            "a truncated file",
            tar(&[entry("big", FILE, "", b"short", Some(8_589_934_591))])[..1500].to_vec(),
        ),
        ("a truncated archive", good[..good.len() / 2].to_vec()),
        ("bad gzip", bad_gzip),
        ("noise", good.iter().skip(100_000).take(100_000).copied().collect()),
    ] {
        let ran = import(&lab, &daemon, what, &bytes);
        assert_eq!(ran.code(), Some(1), "{what}: {ran}");
    }
    assert!(
        size(&lab) < before + 1000,
        "{} KiB before, {} after",
        before,
        size(&lab)
    );
    assert_eq!(daemon.docker().ok("images -q").lines().count(), 1);
}

#[test]
fn a_sparse_file_of_ten_gigabytes_takes_no_ten_gigabytes() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let made = lab.host.directory().join("sparse.tar");
    lab.host.run(&format!(
        "cd {} && truncate -s 10G sparse && tar -S -cf {} sparse && rm sparse",
        lab.host.directory().display(),
        made.display()
    ));
    let ran = import(&lab, &daemon, "a sparse file", &std::fs::read(&made).unwrap());
    let used: u64 = lab
        .host
        .run(&format!("du -s {} | cut -f1", daemon.data_root().display()))
        .parse()
        .unwrap();
    assert!(used < 100_000, "{used} KiB are used: {ran}");
    assert_eq!(daemon.docker().ok("run --rm busybox echo alive"), "alive");
}

#[test]
fn a_saved_archive_may_not_name_files_outside_of_it() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    for (what, manifest) in [
        (
            "an absolute layer",
            r#"[{"Config":"config.json","RepoTags":["enemy:1"],"Layers":["/etc/passwd"]}]"#,
        ),
        (
            "a layer above",
            r#"[{"Config":"config.json","RepoTags":["enemy:1"],"Layers":["../../../../../../etc/passwd"]}]"#,
        ),
        (
            "a configuration above",
            r#"[{"Config":"../../../../../etc/passwd","RepoTags":["enemy:1"],"Layers":[]}]"#,
        ),
        (
            "a linked layer",
            r#"[{"Config":"config.json","RepoTags":["enemy:1"],"Layers":["link"]}]"#,
        ),
        ("no JSON", "{{{{"),
        ("another JSON", r#"{"schemaVersion":7}"#),
    ] {
        let configuration = br#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":["sha256:0000000000000000000000000000000000000000000000000000000000000000"]}}"#;
        let bytes = tar(&[
            entry("link", SOFT, "/etc/passwd", b"", None),
            entry("config.json", FILE, "", configuration, None),
            entry("manifest.json", FILE, "", manifest.as_bytes(), None),
        ]);
        let ran = docker.fed(&["load"], &bytes);
        assert!(!ran.is_ok(), "{what}: {ran}");
        assert!(daemon.is_alive(), "{what}");
    }
    assert_eq!(docker.ok("images -q").lines().count(), 1);
}
