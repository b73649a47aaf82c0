//! The usual beginning of a test.

use crate::{Daemon, Docker, Lab};

/// Starts the daemon on the lab's host with these flags and gives it the image `busybox`.
///
/// # Panics
/// If it does not answer.
#[track_caller]
pub fn start(lab: &Lab, flags: &str) -> Daemon {
    let daemon = Daemon::start(&lab.host, flags);
    daemon.docker().import(&crate::busybox(), "busybox", &["CMD [\"sh\"]"]);
    daemon
}

impl Docker {
    /// Imports the image `web` too: nginx, from Debian, at port 80.
    ///
    /// # Panics
    /// If that fails.
    #[track_caller]
    pub fn import_web(&self) {
        let changes = [
            "CMD [\"nginx\", \"-g\", \"daemon off;\"]",
            "EXPOSE 80",
            "STOPSIGNAL SIGQUIT",
        ];
        self.import(&crate::web(), "web", &changes);
    }

    /// The process of a container.
    ///
    /// # Panics
    /// If it does not run.
    #[track_caller]
    pub fn pid(&self, name: &str) -> u32 {
        self.inspect(name, "{{.State.Pid}}")
            .parse()
            .ok()
            .filter(|pid| *pid != 0)
            .unwrap_or_else(|| panic!("{name} does not run"))
    }
}
