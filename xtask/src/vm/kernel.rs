//! Debian's kernels, downloaded and unpacked, never installed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::step::{self, Doing, Failure, Outcome, say};

use super::cache;

/// An unpacked kernel: `vmlinuz`, `release` and `modules/<release>` in one directory.
pub struct Kernel {
    directory: PathBuf,
    /// What `uname -r` will say.
    pub release: String,
}

impl Kernel {
    /// The newest Debian kernel whose version begins with `version` (`6.1`, `6.12`: those of the machine's own apt sources), from the cache if it
    /// is there. `newest` is the newest of all that apt knows.
    pub fn fetch(version: &str) -> Outcome<Self> {
        let newest;
        let version = if version == "newest" {
            newest = newest_version()?;
            &newest
        } else {
            version
        };
        let directory = cache().join(version);
        if !directory.join("release").exists() {
            download(version, &directory)?;
        }
        let release =
            fs::read_to_string(directory.join("release")).doing(|| format!("read the release of kernel {version}"))?;
        Ok(Self {
            directory,
            release: release.trim().to_owned(),
        })
    }

    /// The compressed image.
    pub fn image(&self) -> PathBuf {
        self.directory.join("vmlinuz")
    }

    /// What belongs at `/lib/modules`.
    pub fn modules(&self) -> PathBuf {
        self.directory.join("lib/modules")
    }

    /// The module and those it needs, in the order they are loaded; nothing when it is built in.
    pub fn module_files(&self, name: &str) -> Outcome<Vec<PathBuf>> {
        let listing = Command::new("modprobe")
            .arg("-d")
            .arg(&self.directory)
            .args(["-S", &self.release, "--show-depends", name])
            .output()
            .doing(|| "start modprobe (package kmod)".to_owned())?;
        let listing = String::from_utf8_lossy(&listing.stdout);
        let files = listing.lines().filter_map(|line| line.strip_prefix("insmod "));
        Ok(files.map(|file| PathBuf::from(file.trim())).collect())
    }
}

fn download(version: &str, directory: &Path) -> Outcome {
    let package = newest(version)?;
    say(format_args!("kernel {version}: downloading {package}"));
    let fresh = directory.with_extension("new");
    let _ = fs::remove_dir_all(&fresh);
    fs::create_dir_all(&fresh).doing(|| format!("make {}", fresh.display()))?;
    let mut download = Command::new("apt-get");
    download
        .current_dir(&fresh)
        .args(["-q", "-o", "APT::Sandbox::User=root", "download", &package]);
    step::run(&mut download)?;
    let archive = entries(&fresh)?
        .into_iter()
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .ok_or_else(|| Failure::new(format!("apt-get download {package} left no package")))?;
    let unpacked = fresh.join("unpacked");
    step::run(Command::new("dpkg-deb").arg("-x").arg(&archive).arg(&unpacked))?;
    fs::remove_file(&archive).doing(|| format!("remove {}", archive.display()))?;

    let lib = if unpacked.join("lib/modules").exists() {
        unpacked.join("lib")
    } else {
        unpacked.join("usr/lib")
    };
    let release = entries(&lib.join("modules"))?
        .first()
        .and_then(|path| path.file_name()?.to_str().map(str::to_owned))
        .ok_or_else(|| Failure::new(format!("{package} has no modules")))?;
    fs::create_dir_all(fresh.join("lib")).doing(|| "make lib".to_owned())?;
    fs::rename(lib.join("modules"), fresh.join("lib/modules")).doing(|| "move the modules".to_owned())?;
    fs::rename(unpacked.join(format!("boot/vmlinuz-{release}")), fresh.join("vmlinuz"))
        .doing(|| "move the image".to_owned())?;
    fs::remove_dir_all(&unpacked).doing(|| format!("remove {}", unpacked.display()))?;
    // The packages leave this to their installation.
    step::run(Command::new("depmod").arg("-b").arg(&fresh).arg(&release))?;
    fs::write(fresh.join("release"), &release).doing(|| "write the release".to_owned())?;
    let _ = fs::remove_dir_all(directory);
    fs::rename(&fresh, directory).doing(|| format!("put the kernel into {}", directory.display()))
}

/// The name of the newest signed image package of this version; apt's lists are fetched when they do not know one.
fn newest(version: &str) -> Outcome<String> {
    if let Ok(name) = newest_known(version) {
        return Ok(name);
    }
    step::run(Command::new("apt-get").args(["-q", "update"]))?;
    newest_known(version)
}

/// The first two numbers of the newest kernel that apt knows.
fn newest_version() -> Outcome<String> {
    let names = step::output(Command::new("apt-cache").args(["pkgnames", "linux-image-"]))?;
    let newest = names.lines().filter_map(version_of).max();
    newest
        .map(|(major, minor)| format!("{major}.{minor}"))
        .ok_or_else(|| Failure::new("apt knows no kernel (apt-get update)"))
}

/// The first two numbers of a package's version, if it is the plain flavour.
fn version_of(name: &str) -> Option<(u64, u64)> {
    let [major, minor, ..] = numbers(name)[..] else {
        return None;
    };
    is_image(name, &format!("{major}.{minor}")).then_some((major, minor))
}

fn newest_known(version: &str) -> Outcome<String> {
    let names = step::output(Command::new("apt-cache").args(["pkgnames", &format!("linux-image-{version}")]))?;
    let mut fitting: Vec<&str> = names.lines().filter(|name| is_image(name, version)).collect();
    fitting.sort_by_key(|name| numbers(name));
    let newest = fitting.last().map(|name| (*name).to_owned());
    newest.ok_or_else(|| Failure::new(format!("apt knows no package linux-image-{version}*-amd64")))
}

/// Is it the plain flavour (the cloud's has no 9p, the unsigned one no signature) of just this version?
fn is_image(name: &str, version: &str) -> bool {
    let Some(rest) = name
        .strip_prefix("linux-image-")
        .and_then(|rest| rest.strip_prefix(version))
    else {
        return false;
    };
    let continues = rest.starts_with(['.', '-', '+']);
    continues
        && rest.ends_with("-amd64")
        && !["cloud", "rt", "unsigned", "dbg"]
            .iter()
            .any(|flavour| rest.contains(flavour))
}

/// The numbers in a name, for comparing versions.
fn numbers(name: &str) -> Vec<u64> {
    name.split(|c: char| !c.is_ascii_digit())
        .filter_map(|digits| digits.parse().ok())
        .collect()
}

fn entries(directory: &Path) -> Outcome<Vec<PathBuf>> {
    let listing = fs::read_dir(directory).doing(|| format!("list {}", directory.display()))?;
    Ok(listing.flatten().map(|entry| entry.path()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_package_of_just_that_version_is_chosen() {
        assert!(is_image("linux-image-6.1.0-56-amd64", "6.1"));
        assert!(is_image("linux-image-6.12.117+deb12-amd64", "6.12"));
        assert!(!is_image("linux-image-6.12.117+deb12-amd64", "6.1"));
        assert!(!is_image("linux-image-6.1.0-56-cloud-amd64", "6.1"));
        assert!(!is_image("linux-image-6.1.0-56-amd64-unsigned", "6.1"));
        assert_eq!(version_of("linux-image-6.12.117+deb12-amd64"), Some((6, 12)));
        assert_eq!(version_of("linux-image-amd64"), None);
        assert_eq!(version_of("linux-image-7.0.1-cloud-amd64"), None);
        assert!(numbers("linux-image-6.1.0-9-amd64") < numbers("linux-image-6.1.0-56-amd64"));
    }
}
