//! A daemon in a lab, with the images that tests run.

use lab::{Daemon, Docker, Lab};

/// A lab whose host runs the daemon.
pub struct Started<'a> {
    pub daemon: Daemon<'a>,
    pub docker: Docker<'a>,
}

/// Starts the daemon with these flags and gives it the image `busybox`.
#[track_caller]
pub fn start<'a>(lab: &'a Lab, flags: &str) -> Started<'a> {
    let daemon = Daemon::start(&lab.host, flags);
    let docker = daemon.docker();
    docker.import(&lab::busybox(), "busybox", &["CMD [\"sh\"]"]);
    Started { daemon, docker }
}

/// Gives the daemon the image `web` too: nginx, from Debian.
#[track_caller]
pub fn import_web(docker: &Docker) {
    docker.import(
        &lab::web(),
        "web",
        &[
            "CMD [\"nginx\", \"-g\", \"daemon off;\"]",
            "EXPOSE 80",
            "STOPSIGNAL SIGQUIT",
        ],
    );
}
