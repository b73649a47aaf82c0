//! Archives as other programs write them.

use std::process::Command;

use super::*;

fn names(bytes: &[u8]) -> Result<Vec<String>, ImageError> {
    let mut archive = Archive::new(bytes);
    let mut names = Vec::new();
    while let Some(entry) = archive.next()? {
        names.push(String::from_utf8_lossy(&entry.name).into_owned());
    }
    Ok(names)
}

/// What GNU tar writes with `flags` for a directory `t` that `prepare` filled.
fn gnu_tar(flags: &[&str], prepare: impl FnOnce(&std::path::Path)) -> Vec<u8> {
    let directory = crate::testing::Scratch::new("gnu-tar");
    let tree = directory.path().join("t");
    std::fs::create_dir(&tree).unwrap();
    prepare(&tree);
    let output = Command::new("tar")
        .args(flags)
        .args(["-c", "-C"])
        .arg(directory.path())
        .arg("t")
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    output.stdout
}

#[test]
fn long_names_of_gnu_and_pax_come_out_whole() {
    let long = format!("{}/{}", "d".repeat(150), "f".repeat(200));
    for format in ["gnu", "posix"] {
        let bytes = gnu_tar(&["--format", format], |tree| {
            std::fs::create_dir(tree.join("d".repeat(150))).unwrap();
            std::fs::write(tree.join(&long), "x").unwrap();
            std::os::unix::fs::symlink("l".repeat(300), tree.join("link")).unwrap();
        });
        assert!(names(&bytes).unwrap().contains(&format!("t/{long}")), "{format}");
        let mut archive = Archive::new(bytes.as_slice());
        let mut link = None;
        while let Some(entry) = archive.next().unwrap() {
            if let Kind::Symlink(target) = entry.kind {
                link = Some(target);
            }
        }
        assert_eq!(link.unwrap(), "l".repeat(300).as_bytes(), "{format}");
    }
}

#[test]
fn sparse_files_of_every_format_have_their_bytes_in_place() {
    use std::os::unix::fs::FileExt;
    let size = 40 << 20;
    for flags in [
        &["--sparse", "--format", "gnu"][..],
        &["--sparse", "--format", "posix", "--sparse-version=0.0"],
        &["--sparse", "--format", "posix", "--sparse-version=0.1"],
        &["--sparse", "--format", "posix", "--sparse-version=1.0"],
    ] {
        let bytes = gnu_tar(flags, |tree| {
            let file = std::fs::File::create(tree.join("holes")).unwrap();
            file.set_len(size).unwrap();
            for piece in 0..40 {
                file.write_all_at(format!("piece {piece}").as_bytes(), piece << 20)
                    .unwrap(); // more than fit into one header
            }
            std::fs::write(tree.join("zz-after"), "still in step").unwrap();
        });
        assert!(bytes.len() < 1 << 20, "{flags:?}: tar did not see the holes");
        let mut archive = Archive::new(bytes.as_slice());
        let mut seen = 0;
        while let Some(entry) = archive.next().unwrap() {
            match entry.name.as_slice() {
                b"t/holes" => {
                    assert_eq!(entry.size, size, "{flags:?}");
                    let data = archive.read_to_vec(u64::MAX).unwrap();
                    assert!(data[39 << 20..].starts_with(b"piece 39\0"), "{flags:?}");
                    seen += 1;
                }
                b"t/zz-after" => {
                    assert_eq!(archive.read_to_vec(100).unwrap(), b"still in step", "{flags:?}");
                    seen += 1;
                }
                _ => {}
            }
        }
        assert_eq!(seen, 2, "{flags:?}");
    }
}

#[test]
fn a_cut_inside_an_entry_is_truncation() {
    let bytes = gnu_tar(&[], |tree| std::fs::write(tree.join("f"), [7; 2000]).unwrap());
    for cut in [100, 1024 + 100, 1024 + 512 + 300] {
        let error = names(&bytes[..cut]).unwrap_err();
        assert_eq!(error.to_string(), "archive is truncated: unexpected EOF", "{cut}");
    }
}

#[test]
fn an_extended_header_over_a_mebibyte_is_refused_before_it_is_read() {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::XHeader);
    header.set_path("big").unwrap();
    header.set_size(10 << 30);
    header.set_cksum();
    let error = names(header.as_bytes()).unwrap_err();
    assert!(error.to_string().contains("longer than 1 MiB"), "{error}");
}

#[test]
fn noise_and_unknown_types_are_refused() {
    assert!(names(&[0x55; 4096]).is_err());
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::new(b'M'));
    header.set_size(0);
    header.set_cksum();
    assert!(
        names(header.as_bytes())
            .unwrap_err()
            .to_string()
            .contains("unknown type 'M'")
    );
}
