//! Images made of what the machine has: nothing is fetched.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use crate::{Ran, files};

/// A root file system with busybox and all its names, as a tar.
pub fn busybox() -> PathBuf {
    once("busybox", furnish)
}

/// The same with nginx from the Debian package, which serves `hello` and logs to its standard output.
pub fn web() -> PathBuf {
    once("web", |root| {
        furnish(root);
        add_program(root, &installed("nginx"), "nginx");
        configure_nginx(root);
    })
}

/// The same with `getent` of the C library, which asks for names as its programs do.
pub fn getent() -> PathBuf {
    once("getent", |root| {
        furnish(root);
        add_program(root, &installed("getent"), "getent");
    })
}

/// The same with `redis-server` from the Debian packages; none where they are not installed.
pub fn redis() -> Option<PathBuf> {
    // Its package of this name would start it on this machine. The program is that of the tools, which goes by the name it is called by.
    let server = files::program("redis-check-rdb")?;
    Some(once("redis", |root| {
        furnish(root);
        add_program(root, &server, "redis-server");
    }))
}

/// What a Flask application with a store in redis needs, from the Debian packages.
const FLASK: [&str; 15] = [
    "libpython3.11-minimal",
    "libpython3.11-stdlib",
    "python3-flask",
    "python3-werkzeug",
    "python3-jinja2",
    "python3-markupsafe",
    "python3-itsdangerous",
    "python3-click",
    "python3-redis",
    "python3-async-timeout",
    "python3-deprecated",
    "python3-wrapt",
    "python3-six",
    "python3-packaging",
    "python3-pyparsing",
];

/// What the images of `tests/images` are made of: `debian.tar`, which debootstrap has made, and a directory of packages for each. None where
/// `cargo xtask setup` could not fetch that.
pub fn corpus() -> Option<PathBuf> {
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/corpus");
    kept.join("debian.tar").exists().then_some(kept)
}

/// The page that counts its visits.
const APPLICATION: &str = include_str!("../images/flask/app.py");

/// The same with Python, Flask and `/app.py`, which counts visits in redis at `$REDIS_HOST`; none where the Debian packages are not installed.
pub fn flask() -> Option<PathBuf> {
    let python = fs::canonicalize("/usr/bin/python3").ok()?;
    let are_there = Command::new("dpkg-query").arg("--status").args(FLASK).output().ok()?;
    are_there.status.success().then_some(())?;
    Some(once("flask", |root| {
        furnish(root);
        add_program(root, &python, "python3");
        FLASK.iter().for_each(|package| add_package(root, package));
        write(root, "app.py", APPLICATION);
    }))
}

/// The tar of this name: made the first time, then kept for as long as the program it is made of stays the same.
fn once(name: &str, make: impl FnOnce(&Path)) -> PathBuf {
    static MAKING: Mutex<()> = Mutex::new(());
    let _alone = MAKING.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let directory = files::root().join("images");
    files::make(&directory);
    let tar = directory.join(format!("{name}-{}.tar", std::process::id()));
    if tar.exists() {
        return tar;
    }
    forget_old(&directory);
    let root = directory.join(format!("{name}-{}", std::process::id()));
    files::make(&root);
    make(&root);
    let mut command = Command::new("tar");
    command
        .args(["--numeric-owner", "--owner=0", "--group=0", "-C"])
        .arg(&root)
        .arg("-cf")
        .arg(&tar)
        .arg(".");
    Ran::command(&mut command, &[], Duration::from_secs(60)).ok();
    let _ = fs::remove_dir_all(&root);
    tar
}

/// Removes the tars that this program made, and those of programs that have ended.
pub fn forget_images() {
    let directory = files::root().join("images");
    let own = format!("-{}.tar", std::process::id());
    for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().ends_with(&own) {
            let _ = fs::remove_file(entry.path());
        }
    }
    forget_old(&directory);
    // These go only when they are empty.
    let _ = fs::remove_dir(&directory).and_then(|()| fs::remove_dir(files::root()));
}

/// Removes the tars of programs that have ended.
fn forget_old(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name
            .trim_end_matches(".tar")
            .rsplit('-')
            .next()
            .map(str::to_owned)
            .unwrap_or_default();
        if !Path::new("/proc").join(&pid).exists() {
            let _ = fs::remove_file(entry.path()).or_else(|_| fs::remove_dir_all(entry.path()));
        }
    }
}

fn furnish(root: &Path) {
    for directory in [
        "bin", "dev", "etc", "proc", "root", "run", "sys", "tmp", "usr/bin", "usr/sbin", "var/log", "var/tmp",
        "home/ada",
    ] {
        files::make(root.join(directory));
    }
    write(
        root,
        "etc/passwd",
        "root:x:0:0:root:/root:/bin/sh\nada:x:1000:1000:Ada:/home/ada:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n",
    );
    write(
        root,
        "etc/group",
        "root:x:0:\nada:x:1000:\nengineers:x:2000:ada\nnogroup:x:65534:\n",
    );
    let busybox = files::program("busybox").unwrap_or_else(|| panic!("busybox is not installed (cargo xtask setup)"));
    copy(&busybox, &root.join("bin/busybox"));
    let names = Ran::command(Command::new(&busybox).arg("--list"), &[], Duration::from_secs(10)).ok();
    for name in names.lines().filter(|name| *name != "busybox") {
        symlink("busybox", root.join("bin").join(name)).unwrap_or_else(|error| panic!("name busybox {name}: {error}"));
    }
}

fn installed(name: &str) -> PathBuf {
    files::program(name).unwrap_or_else(|| panic!("{name} is not installed (cargo xtask setup)"))
}

/// Copies a program with the libraries it is linked to.
fn add_program(root: &Path, program: &Path, name: &str) {
    copy(program, &root.join("usr/sbin").join(name));
    add_libraries(root, program);
}

/// Copies the libraries that a program, or a library, is linked to.
fn add_libraries(root: &Path, program: &Path) {
    let linked = Ran::command(Command::new("ldd").arg(program), &[], Duration::from_secs(10)).ok();
    let libraries: BTreeSet<&str> = linked
        .lines()
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
        .collect();
    for library in libraries {
        let place = root.join(library.trim_start_matches('/'));
        if !place.exists() {
            files::make(place.parent().unwrap_or(root));
            copy(Path::new(library), &place);
        }
    }
}

/// Copies what programs read of an installed package, and what was compiled of it.
fn add_package(root: &Path, name: &str) {
    let listed = Ran::command(Command::new("dpkg").args(["-L", name]), &[], Duration::from_secs(10)).ok();
    for path in listed
        .lines()
        .filter(|path| path.starts_with("/usr/lib/"))
        .map(Path::new)
    {
        let place = root.join(path.strip_prefix("/").unwrap_or(path));
        if !path.is_file() || place.exists() {
            continue;
        }
        let directory = place.parent().unwrap_or(root);
        files::make(directory);
        copy(path, &place);
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.ends_with(".so") {
            add_libraries(root, path);
        }
        let Some(module) = name.strip_suffix(".py") else {
            continue;
        };
        let compiled = path.with_file_name("__pycache__");
        for entry in fs::read_dir(&compiled).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.split('.').next() == Some(module) && name.ends_with(".pyc") {
                files::make(directory.join("__pycache__"));
                copy(&entry.path(), &directory.join("__pycache__").join(name));
            }
        }
    }
}

fn configure_nginx(root: &Path) {
    for directory in ["etc/nginx", "var/log/nginx", "var/lib/nginx", "usr/share/nginx/html"] {
        files::make(root.join(directory));
    }
    write(root, "usr/share/nginx/html/index.html", "hello\n");
    write(
        root,
        "etc/nginx/nginx.conf",
        "user root; worker_processes 1; pid /run/nginx.pid; error_log /dev/stderr warn;\n\
         events { worker_connections 1024; }\n\
         http { access_log /dev/stdout; server { listen 80 backlog=4096; root /usr/share/nginx/html; } }\n",
    );
}

fn write(root: &Path, path: &str, text: &str) {
    fs::write(root.join(path), text).unwrap_or_else(|error| panic!("write {path}: {error}"));
}

fn copy(from: &Path, to: &Path) {
    fs::copy(from, to).unwrap_or_else(|error| panic!("copy {} to {}: {error}", from.display(), to.display()));
}
