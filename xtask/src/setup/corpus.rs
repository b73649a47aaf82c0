//! What the images in `tests/images` are made of: debootstrap's minbase and Debian's packages, from the mirror that apt has on this machine. Fetched once
//! and kept in `target/corpus`, so that the tests need no network.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::debian;
use crate::repository;
use crate::step::{self, Doing, Failure, Outcome, say};

/// What each image has beyond the base.
const IMAGES: [(&str, &[&str]); 3] = [
    ("nginx", &["nginx-light"]),
    ("redis", &["redis-server"]),
    ("flask", &["python3-flask", "python3-redis"]),
];
/// What nobody reads in a container.
const BALLAST: &str = "usr/share/doc usr/share/man usr/share/locale usr/share/info usr/share/i18n/charmaps var/cache/apt var/lib/apt/lists var/log/*.log";
/// In the directory: what it was made as, so that what another version of this file made is made anew.
const LABEL: &str = "made-as";

/// Makes it when it is not there. Without a network, or on another system than Debian, the tests of it are passed over: that is said, and no failure.
pub fn provide() {
    let kept = repository::root().join("target/corpus");
    let label = format!("{IMAGES:?} without {BALLAST}");
    let is_made = fs::read_to_string(kept.join(LABEL)).is_ok_and(|made| made == label);
    if is_made || !debian::is_debian() {
        return;
    }
    say("debootstrap and apt fetch what images of the tests are made of");
    let made = make(&kept).and_then(|()| fs::write(kept.join(LABEL), label).doing(|| "write its label".into()));
    match made {
        Ok(()) => say(format_args!("it is kept in {}", kept.display())),
        Err(failure) => say(format_args!("there are no images of Debian to test with: {failure}")),
    }
}

fn make(kept: &Path) -> Outcome {
    let (root, tar) = (kept.join("root"), kept.join("debian.tar"));
    let shown = |path: &Path| path.display().to_string();
    step::output(debian::as_root(["rm", "-rf"]).arg(kept))?;
    fs::create_dir_all(kept).doing(|| format!("make {}", kept.display()))?;
    // where apt's lists are old, packages that they name are gone
    step::output(&mut debian::as_root(["apt-get", "update", "-q"]))?;
    let release = release()?;
    let mut bootstrap = debian::as_root(["debootstrap", "--variant=minbase", &release]);
    bootstrap.args([&shown(&root), &mirror(&release)?]);
    if let Some(proxy) = proxy() {
        bootstrap.env("http_proxy", proxy);
    }
    step::output(&mut bootstrap)?;
    for (name, packages) in IMAGES {
        let directory = kept.join(name);
        fs::create_dir_all(directory.join("partial")).doing(|| format!("make {}", directory.display()))?;
        let mut download = debian::as_root(["apt-get", "install", "--quiet", "--yes", "--download-only"]);
        download.arg("--no-install-recommends");
        for option in [
            "APT::Sandbox::User=root".to_owned(),
            format!("Dir::State::status={}/var/lib/dpkg/status", root.display()),
            format!("Dir::Cache::archives={}/", directory.display()),
        ] {
            download.args(["-o", &option]);
        }
        step::output(download.args(packages))?;
        step::output(debian::as_root(["rm", "-rf"]).args([directory.join("partial"), directory.join("lock")]))?;
    }
    // in an image no service is started by the installation of its package
    let tidy = format!(
        "cd '{0}' && rm -rf {BALLAST} && mkdir -p var/cache/apt/archives/partial var/lib/apt/lists/partial usr/share/man/man1 usr/share/man/man8 &&
         printf '#!/bin/sh\\nexit 101\\n' > usr/sbin/policy-rc.d && chmod 755 usr/sbin/policy-rc.d && rm -rf dev/* proc/* sys/* &&
         tar --numeric-owner --sort=name -cf '{1}.new' . && mv '{1}.new' '{1}' && rm -rf '{0}' && chmod -R a+rX '{2}'",
        root.display(),
        tar.display(),
        kept.display()
    );
    step::output(debian::as_root(["sh", "-c", &tidy]).current_dir("/")).map(drop)
}

/// The name of this machine's release.
fn release() -> Outcome<String> {
    let about = fs::read_to_string("/etc/os-release").doing(|| "read /etc/os-release".into())?;
    let name = about.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    name.map(|name| name.trim_matches('"').to_owned())
        .ok_or_else(|| Failure::new("/etc/os-release does not name the release"))
}

/// Where apt has this release from.
fn mirror(release: &str) -> Outcome<String> {
    let asked = step::output(
        Command::new("apt-get")
            .args(["indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"])
            .args(["Component: main", &format!("Codename: {release}")]),
    )?;
    let first = asked.lines().next().map(str::to_owned);
    first.ok_or_else(|| Failure::new(format!("apt has no list of the packages of {release}")))
}

/// What apt goes through, and debootstrap should too.
fn proxy() -> Option<String> {
    let asked = Command::new("apt-config")
        .args(["dump", "--format", "%v%n", "Acquire::http::Proxy"])
        .output();
    let said = String::from_utf8(asked.ok()?.stdout).ok()?;
    Some(said.trim().to_owned()).filter(|proxy| !proxy.is_empty() && proxy != "DIRECT")
}
