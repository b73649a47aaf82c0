//! What strangers write, read as far as it goes, and what has to hold whatever it says. Fuzzers begin here (`fuzz/` has a target for each), and the
//! tests try each for a while with what chance makes of good examples.

use std::{fs, path::Path};

use crate::{
    budget::Limits,
    configuration::{Configuration, RunConfig},
    digest::Digest,
    dockerfile::{self, Ignore},
    layer,
    manifest::{self, DockerManifest, Index, Manifest},
    reference::{self, Named},
    registry::document::{Document, Fetched},
};

/// A name of an image: what is taken is taken again as it is written back.
pub fn reference(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(Named::Tagged(name)) = reference::parse(&text) {
        let again = reference::parse(&name.familiar());
        assert_eq!(again.ok(), Some(Named::Tagged(name)), "{text:?}");
    }
}

/// A manifest, a list of them, a configuration, of a registry or an archive: a digest that is taken is a file name and nothing else.
pub fn manifest(bytes: &[u8]) {
    let fetched = Fetched {
        bytes: bytes.to_vec(),
        media_type: String::new(),
        digest: Digest::of(bytes),
    };
    let named = match fetched.document() {
        Ok(Document::List(manifests)) => manifests,
        Ok(Document::Image { config, layers }) => layers.into_iter().chain([config]).collect(),
        Err(_) => Vec::new(),
    };
    for digest in named.iter().filter_map(|named| Digest::parse(&named.digest).ok()) {
        assert!(digest.hex().len() == 64 && digest.hex().bytes().all(|byte| byte.is_ascii_hexdigit()));
    }
    let _ = manifest::parse::<Vec<DockerManifest>>("manifest.json", bytes);
    let _ = manifest::parse::<Index>("index.json", bytes);
    let _ = manifest::parse::<Manifest>("manifest", bytes);
    let _ = Configuration::parse(bytes);
    let _ = RunConfig::of_document(bytes);
}

/// A layer, unpacked below `place`, which is made anew: nothing beside its root is touched.
pub fn layer(bytes: &[u8], place: &Path) {
    let failed = |why: &dyn std::fmt::Display| panic!("cannot prepare {}: {why}", place.display());
    if let Err(why) = layer::remove_tree(place) {
        failed(&why);
    }
    let (root, outside) = (place.join("root"), place.join("outside"));
    let made = fs::create_dir_all(&root).and_then(|()| fs::write(&outside, "untouched"));
    if let Err(why) = made {
        failed(&why);
    }
    let limits = Limits {
        stream: 16 << 20,
        entries: 10_000,
        ..Limits::default()
    };
    let _ = layer::unpack(bytes, &root, limits);
    let mut beside: Vec<_> = fs::read_dir(place)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    beside.sort();
    assert_eq!(beside, ["outside", "root"], "something was made beside the root");
    assert_eq!(fs::read(&outside).ok().as_deref(), Some(&b"untouched"[..]));
}

/// Gives the headers of a tar the sums that they should have: without them nothing behind a changed header is ever reached.
pub fn with_right_sums(bytes: &mut [u8]) {
    for block in bytes.chunks_exact_mut(512).filter(|block| &block[257..262] == b"ustar") {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
}

/// A Dockerfile and its `.dockerignore`: an instruction is the same when it is read again from what it is shown as.
pub fn dockerfile(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    for one in dockerfile::parse(&text).into_iter().flatten() {
        let again = dockerfile::instruction(&one.original, one.line);
        assert!(
            again.is_ok_and(|again| (again.name, again.rest) == (one.name.clone(), one.rest.clone())),
            "{text:?}"
        );
        for word in dockerfile::words(&one.rest) {
            let _ = dockerfile::expand(&word, &["A=b".into()]);
        }
        let _ = dockerfile::name_values("ENV", &one.rest);
        let _ = dockerfile::change(&mut RunConfig::default(), &one.name, &one.rest, &["A=b".into()]);
    }
    if let Ok(ignore) = Ignore::parse(&text) {
        for path in ["a", "a/b", "a/b/c.d", ".dockerignore"] {
            ignore.leaves_out(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use super::*;
    use crate::testing::{Scratch, Tar, gzip};

    /// Tries of each, unless `SLUICE_TRIES` says.
    const TRIES: u32 = 1500;

    /// Numbers that look random, the same for the same seed (xorshift).
    struct Chance(u64);

    impl Chance {
        /// A new one, or that of `SLUICE_SEED`, which is told so that a failure can be had again.
        fn new() -> Self {
            let given = std::env::var("SLUICE_SEED").ok().and_then(|seed| seed.parse().ok());
            let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64 | 1;
            let seed = given.unwrap_or_else(now);
            println!("again with SLUICE_SEED={seed}");
            Self(seed)
        }

        fn below(&mut self, limit: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 >> 11) as usize % limit.max(1)
        }

        /// One of the examples, with a few things done to it that enemies and broken disks do.
        fn make(&mut self, examples: &[Vec<u8>], words: &[&[u8]]) -> Vec<u8> {
            let mut bytes = examples[self.below(examples.len())].clone();
            for _ in 0..=self.below(6) {
                let (at, length) = (self.below(bytes.len() + 1), self.below(40));
                let end = (at + length).min(bytes.len());
                match self.below(7) {
                    0 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
                    1 if at < bytes.len() => bytes[at] = self.below(256) as u8,
                    2 => _ = bytes.drain(at..end),
                    3 => {
                        let again = bytes[at..end].to_vec();
                        bytes.splice(at..at, again);
                    }
                    4 => bytes.truncate(at),
                    5 => {
                        let other = &examples[self.below(examples.len())];
                        let from = self.below(other.len() + 1);
                        bytes.truncate(at);
                        bytes.extend_from_slice(&other[from..]);
                    }
                    _ => {
                        let word = words[self.below(words.len())];
                        bytes.splice(at..at, word.iter().copied());
                    }
                }
            }
            bytes
        }
    }

    fn tries() -> u32 {
        let given = std::env::var("SLUICE_TRIES").ok().and_then(|tries| tries.parse().ok());
        given.unwrap_or(TRIES)
    }

    #[test]
    fn any_reference_is_a_name_or_refused() {
        let examples = [
            "nginx",
            "nginx:1.2",
            "a.b:5000/c/d_e:f@g",
            "docker.io/library/x",
            "quay.io/a/b@sha256:00",
        ];
        let long = format!("r/a@sha256:{}", "0123456789abcdef".repeat(4));
        let examples: Vec<Vec<u8>> = examples
            .iter()
            .map(|text| text.as_bytes().to_vec())
            .chain([long.into()])
            .collect();
        let words: [&[u8]; 9] = [b":", b"@", b"/", b"..", b"__", b"-", b"A", b"sha256:", "ä".as_bytes()];
        let mut chance = Chance::new();
        for _ in 0..tries() {
            reference(&chance.make(&examples, &words));
        }
    }

    #[test]
    fn any_manifest_is_read_or_refused() {
        let digest = Digest::of(b"x");
        let image = format!(
            r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{{"digest":"{digest}","size":3}},"layers":[{{"digest":"{digest}","size":9}}]}}"#
        );
        let list = format!(
            r#"{{"schemaVersion":2,"manifests":[{{"digest":"{digest}","size":1,"platform":{{"os":"linux","architecture":"amd64"}}}}]}}"#
        );
        let config = format!(
            r#"{{"architecture":"amd64","os":"linux","config":{{"Env":["A=b"],"Cmd":["x"]}},"rootfs":{{"type":"layers","diff_ids":["{digest}"]}},"history":[{{"created_by":"a","empty_layer":true}}]}}"#
        );
        let docker = r#"[{"Config":"c.json","RepoTags":["a:1"],"Layers":["l/layer.tar"]}]"#.to_owned();
        let examples: Vec<Vec<u8>> = [image, list, config, docker].map(String::into_bytes).into();
        let words: [&[u8]; 10] = [
            b"null",
            b"{",
            b"[",
            b"]",
            b"}",
            b"\"",
            b"-1",
            b"1e400",
            b"../../x",
            b"[[[[[[[[[[[[",
        ];
        let mut chance = Chance::new();
        for _ in 0..tries() {
            manifest(&chance.make(&examples, &words));
        }
    }

    #[test]
    fn any_layer_is_laid_down_inside_or_refused() {
        let rich = Tar::default()
            .pax(&[("path", b"etc/x"), ("size", b"3"), ("SCHILY.xattr.user.a", b"b")])
            .file("x", b"abc")
            .directory("d")
            .symlink("l", "../../outside")
            .file("l/y", b"")
            .link("h", "x")
            .entry("n", b'3', "", b"", |_| ())
            .entry("s", b'S', "", b"", |_| ())
            .entry("long", b'L', "", b"../../../outside\0", |_| ())
            .file("short", b"z")
            .file(".wh.z", b"")
            .file("d/.wh..wh..opq", b"")
            .end();
        let examples = vec![rich.clone(), gzip(&rich), zstd::encode_all(rich.as_slice(), 1).unwrap()];
        let words: [&[u8]; 6] = [b"../", b"/", b"\0", b".wh.", &[0xff; 16], b"77777777777\0"];
        let scratch = Scratch::new("hostile");
        let place = scratch.path().join("place");
        let mut chance = Chance::new();
        for _ in 0..tries() / 3 {
            let mut bytes = chance.make(&examples, &words);
            if chance.below(3) > 0 {
                with_right_sums(&mut bytes);
            }
            super::layer(&bytes, &place);
        }
    }

    #[test]
    fn any_dockerfile_is_read_or_refused() {
        let examples = [
            "ARG A=1\nFROM a${A:-b} AS x\nRUN <<EOF\necho $A\nEOF\nCOPY --from=x --chown=1:2 a [\"b\"] /c\n",
            "# escape=`\nFROM a\nENV A=b C=\"d e\" F=${A:+x}\nONBUILD RUN x\nHEALTHCHECK --interval=5s CMD true\n",
            "FROM a\nADD http://x/y /z/\nSHELL [\"sh\", \"-c\"]\nEXPOSE 80 53/udp\nVOLUME [\"/d\"]\nLABEL a b\nRUN a \\\n # c\n b\n",
            "*.md\n!README.md\n**/*.log\n[a-z]?\\*\n",
        ];
        let examples: Vec<Vec<u8>> = examples.iter().map(|text| text.as_bytes().to_vec()).collect();
        let words: [&[u8]; 14] = [
            b"\\",
            b"\n",
            b"\r\n",
            b"<<E",
            b"<<-'E'\n",
            b"\"",
            b"'",
            b"${",
            b"$",
            b"--x=",
            b"#",
            b"[",
            b"`\n",
            "é\u{feff}".as_bytes(),
        ];
        let mut chance = Chance::new();
        for _ in 0..tries() {
            dockerfile(&chance.make(&examples, &words));
        }
    }
}
