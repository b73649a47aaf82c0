//! A daemon in a lab, with the images that tests run.

use lab::{Daemon, Docker, Lab};

/// Starts the daemon on the lab's host with these flags and gives it the image `busybox`.
#[track_caller]
pub fn start<'a>(lab: &'a Lab, flags: &str) -> Daemon<'a> {
    let daemon = Daemon::start(&lab.host, flags);
    daemon.docker().import(&lab::busybox(), "busybox", &["CMD [\"sh\"]"]);
    daemon
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
