//! The image that every engine runs: the measuring tools of this machine with the libraries they need, so that all places measure with the same
//! programs.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::repository;
use crate::step::{self, Doing, Failure, Outcome};

/// The name it gets in each engine.
pub const NAME: &str = "bench";

/// The programs in it, busybox aside.
const PROGRAMS: &[&str] = &["iperf3", "sockperf", "wrk", "nginx"];

/// What busybox stands in for.
const APPLETS: &[&str] = &["sh", "sleep", "true", "taskset", "cat", "yes", "head"];

/// Serves everything that is measured, all on the CPU it is told. Also run outside containers, from the directory the image is made of.
const SERVE: &str = r#"#!/bin/sh
taskset -c $1 iperf3 --server >/dev/null 2>&1 &
taskset -c $1 sockperf server --tcp -i 0.0.0.0 -p 11111 >/dev/null 2>&1 &
exec taskset -c $1 nginx -c "${0%/*}/nginx.conf"
"#;

const NGINX: &str = "daemon off;
user root;
worker_processes 1;
pid /run/nginx.pid;
error_log stderr error;
events { worker_connections 4096; }
http {
  access_log off;
  keepalive_timeout 0;
  client_body_temp_path /run/nginx-body;
  proxy_temp_path /run/nginx-proxy;
  fastcgi_temp_path /run/nginx-fastcgi;
  uwsgi_temp_path /run/nginx-uwsgi;
  scgi_temp_path /run/nginx-scgi;
  server { listen 8080 backlog=1024; location / { return 200 'hello\\n'; } }
}
";

/// Its files, and the archive of them.
pub struct Image {
    root: PathBuf,
    archive: PathBuf,
}

impl Image {
    /// Gathers the files below `directory`.
    pub fn make(directory: &Path) -> Outcome<Self> {
        let image = Self {
            root: directory.join("image"),
            archive: directory.join("image.tar"),
        };
        for name in [
            "bin",
            "etc",
            "dev",
            "proc",
            "sys",
            "run",
            "tmp",
            "var/log/nginx",
            "var/lib/nginx",
        ] {
            let path = image.root.join(name);
            fs::create_dir_all(&path).doing(|| format!("make {}", path.display()))?;
        }
        image.program("busybox", Path::new("/bin/busybox"))?;
        for applet in APPLETS {
            let link = image.root.join("bin").join(applet);
            symlink("busybox", &link).doing(|| format!("link {}", link.display()))?;
        }
        for name in PROGRAMS {
            image.program(name, &Path::new("/usr/bin").join(name))?;
        }
        image.write("serve", SERVE, 0o755)?;
        image.write("nginx.conf", NGINX, 0o644)?;
        image.write("etc/passwd", "root:x:0:0:root:/:/bin/sh\n", 0o644)?;
        image.write("etc/group", "root:x:0:\n", 0o644)?;
        step::output(
            Command::new("tar")
                .args(["--owner=0", "--group=0", "--numeric-owner", "-C"])
                .arg(&image.root)
                .arg("-cf")
                .arg(&image.archive)
                .arg("."),
        )?;
        Ok(image)
    }

    /// The archive, for `docker import`.
    pub fn archive(&self) -> &Path {
        &self.archive
    }

    /// Its files.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The server's script, for places without containers.
    pub fn serve(&self) -> PathBuf {
        self.root.join("serve")
    }

    /// Copies a program of the machine to `place` in the image, and its libraries to where they are.
    fn program(&self, name: &str, place: &Path) -> Outcome {
        let program = repository::program(name).ok_or_else(|| Failure::new(format!("{name} is missing")))?;
        self.copy(&program, place)?;
        // A program without libraries makes ldd fail.
        let libraries = step::output(Command::new("ldd").arg(&program)).unwrap_or_default();
        for library in libraries
            .split_whitespace()
            .filter(|word| word.starts_with('/'))
            .map(Path::new)
        {
            self.copy(library, library)?;
        }
        Ok(())
    }

    fn copy(&self, from: &Path, to: &Path) -> Outcome {
        let to = self.inside(to);
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent).doing(|| format!("make {}", parent.display()))?;
        }
        fs::copy(from, &to)
            .map(drop)
            .doing(|| format!("copy {} to {}", from.display(), to.display()))
    }

    fn write(&self, name: &str, text: &str, mode: u32) -> Outcome {
        let path = self.root.join(name);
        fs::write(&path, text)
            .and_then(|()| fs::set_permissions(&path, Permissions::from_mode(mode)))
            .doing(|| format!("write {}", path.display()))
    }

    fn inside(&self, path: &Path) -> PathBuf {
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }
}
