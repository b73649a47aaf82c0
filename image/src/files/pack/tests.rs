use std::{
    fs::{self, File},
    os::{
        fd::AsFd,
        unix::fs::{MetadataExt, PermissionsExt, symlink},
    },
};

use super::*;
use crate::{
    archive::Archive,
    files::{Laying, copy, lay_down},
    testing::Scratch,
};

fn packed(root: &std::path::Path, path: &[u8], name: &[u8], style: Style) -> Vec<u8> {
    let root = File::open(root).unwrap();
    let mut out = Vec::new();
    let packing = Packing {
        name,
        style,
        one_file_system: true,
        scaffold: &[],
        owners: None,
        timeless: false,
    };
    pack(root.as_fd(), path, packing, &mut out).unwrap();
    out
}

fn names(tar: &[u8]) -> Vec<String> {
    let mut archive = Archive::new(tar);
    std::iter::from_fn(|| archive.next().unwrap())
        .map(|entry| String::from_utf8(entry.name).unwrap())
        .collect()
}

#[test]
fn names_are_those_asked_for_and_in_order() {
    let scratch = Scratch::new("pack-names");
    let root = scratch.path().join("root");
    fs::create_dir_all(root.join("data/sub")).unwrap();
    fs::write(root.join("data/a"), "one").unwrap();
    fs::write(root.join("data/sub/b"), "two").unwrap();
    symlink("/data", root.join("link")).unwrap();
    let names = |path: &str, name: &str| names(&packed(&root, path.as_bytes(), name.as_bytes(), Style::Plain));
    assert_eq!(names("/data", "data"), ["data/", "data/a", "data/sub/", "data/sub/b"]);
    assert_eq!(names("/data/.", "."), ["./", "./a", "./sub/", "./sub/b"]);
    assert_eq!(names("/link", "link"), ["link"]);
    assert_eq!(names("/link/", "link"), ["link/", "link/a", "link/sub/", "link/sub/b"]);
    assert_eq!(
        names("/", "/"),
        ["/", "/data/", "/data/a", "/data/sub/", "/data/sub/b", "/link"]
    );
    assert_eq!(names("/data", ""), ["a", "sub/", "sub/b"]);
    assert_eq!(names("/link/a", "other"), ["other"]);
}

#[test]
fn what_is_copied_has_its_links_modes_holes_and_attributes() {
    let scratch = Scratch::new("pack-copy");
    let (from, to) = (scratch.path().join("from"), scratch.path().join("to"));
    fs::create_dir_all(from.join("deep/er")).unwrap();
    fs::create_dir(&to).unwrap();
    fs::write(from.join("file"), "content").unwrap();
    fs::set_permissions(from.join("file"), fs::Permissions::from_mode(0o4711)).unwrap();
    fs::hard_link(from.join("file"), from.join("deep/er/same")).unwrap();
    symlink("../../../../etc", from.join("deep/link")).unwrap();
    let sparse = File::create(from.join("sparse")).unwrap();
    sparse.set_len(100 << 20).unwrap();
    sparse.write_all_at(b"end", (100 << 20) - 3).unwrap();
    fs::set_permissions(&from, fs::Permissions::from_mode(0o750)).unwrap();
    copy(File::open(&from).unwrap().as_fd(), File::open(&to).unwrap().as_fd()).unwrap();

    let of = |name: &str| to.join(name).symlink_metadata().unwrap();
    assert_eq!(of("file").mode() & 0o7777, 0o4711);
    assert_eq!(of("file").ino(), of("deep/er/same").ino());
    assert_eq!(
        fs::read_link(to.join("deep/link")).unwrap().to_str(),
        Some("../../../../etc")
    );
    assert_eq!(of("sparse").len(), 100 << 20);
    assert!(of("sparse").blocks() * 512 < 1 << 20, "holes stay holes");
    assert_eq!(to.symlink_metadata().unwrap().mode() & 0o7777, 0o750);
    assert_eq!(
        of("deep").mtime(),
        from.join("deep").symlink_metadata().unwrap().mtime()
    );
}

#[test]
fn a_copy_goes_through_no_link_that_is_already_there() {
    let scratch = Scratch::new("pack-through");
    let (root, outside) = (scratch.path().join("root"), scratch.path().join("outside"));
    fs::create_dir_all(root.join("data")).unwrap();
    fs::create_dir(&outside).unwrap();
    fs::write(scratch.path().join("f"), "mark").unwrap();
    symlink(&outside, root.join("data/d")).unwrap();
    let tar = packed(scratch.path(), b"/f", b"d/f", Style::Plain);
    let root_fd = File::open(&root).unwrap();
    // the link means a path of the container, which is made there
    let _ = lay_down(root_fd.as_fd(), b"data", &mut tar.as_slice(), Laying::default());
    assert!(!outside.join("f").exists());
    symlink(outside.join("f"), root.join("data/f")).unwrap();
    let tar = packed(scratch.path(), b"/f", b"f", Style::Plain);
    lay_down(root_fd.as_fd(), b"data", &mut tar.as_slice(), Laying::default()).unwrap();
    assert!(!outside.join("f").exists());
    assert_eq!(
        fs::read_to_string(root.join("data/f")).unwrap(),
        "mark",
        "the link is replaced"
    );
}

#[test]
fn kinds_are_kept_when_asked() {
    let scratch = Scratch::new("pack-kinds");
    let root = scratch.path().join("root");
    fs::create_dir_all(root.join("name/full/er")).unwrap();
    fs::write(scratch.path().join("name"), "file").unwrap();
    let tar = packed(scratch.path(), b"/name", b"name", Style::Plain);
    let fd = File::open(&root).unwrap();
    let keep = Laying {
        keep_kinds: true,
        ..Laying::default()
    };
    let error = lay_down(fd.as_fd(), b"", &mut tar.as_slice(), keep).unwrap_err();
    assert!(
        error.to_string().starts_with("cannot overwrite directory \"/name\""),
        "{error}"
    );
    lay_down(fd.as_fd(), b"", &mut tar.as_slice(), Laying::default()).unwrap();
    assert_eq!(fs::read_to_string(root.join("name")).unwrap(), "file");
}

#[test]
fn the_marks_of_overlayfs_become_those_of_a_layer() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let scratch = Scratch::new("pack-layer");
    let root = scratch.path().join("upper");
    fs::create_dir_all(root.join("opaque")).unwrap();
    fs::write(root.join("opaque/new"), "").unwrap();
    nix::sys::stat::mknod(&root.join("gone"), SFlag::S_IFCHR, Mode::empty(), 0).unwrap();
    let fd = File::open(root.join("opaque")).unwrap();
    // SAFETY: the name is a C string, the value one byte; neither is kept.
    let set = unsafe {
        libc::fsetxattr(
            fd.as_raw_fd(),
            c"trusted.overlay.opaque".as_ptr(),
            c"y".as_ptr().cast(),
            1,
            0,
        )
    };
    assert_eq!(set, 0);
    let tar = packed(&root, b"/", b"", Style::Layer);
    assert_eq!(
        names(&tar),
        [".wh.gone", "opaque/", "opaque/.wh..wh..opq", "opaque/new"]
    );
    assert!(!tar.windows(15).any(|window| window == b"trusted.overlay"));
}
