//! The end of a container: nothing of it is left.

use std::{
    fs, io,
    path::PathBuf,
    time::{Duration, Instant},
};

use tracing::debug_span;

use crate::{
    Runtime, RuntimeError,
    cgroup::Cgroups,
    connection::{self, Connection},
    off_the_loop, signal, syscall,
    wire::Kind,
};

/// How long a killed process may take to be gone.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

impl Runtime {
    /// Kills what is left, removes cgroups (children first), the shim and its directory. Fine when already gone.
    pub async fn delete(&self, id: &str) -> Result<(), RuntimeError> {
        let directory = self.path_of(id)?;
        let mut is_stuck = false;
        if let Some(connection) = Connection::open(&directory).await? {
            // Its answer is the end of the connection.
            let answer = connection.ask(Kind::Shutdown, &[]).await;
            is_stuck = matches!(answer, Err(RuntimeError::Unanswered(_)));
        }
        let cgroups = self.cgroups(id);
        let parents = self.parents.clone();
        off_the_loop(move || {
            sweep(directory, &cgroups, is_stuck)?;
            parents.sweep();
            Ok(())
        })
        .await
    }
}

fn sweep(directory: PathBuf, cgroups: &Cgroups, is_stuck: bool) -> Result<(), RuntimeError> {
    cgroups.kill();
    let step = debug_span!("shim").entered();
    let (shim, _) = connection::live_pids(&directory);
    if let Some(shim) = shim {
        end(shim, if is_stuck { Duration::ZERO } else { PATIENCE });
    }
    drop(step);
    debug_span!("cgroups").in_scope(|| cgroups.remove())?;
    let since = Instant::now();
    loop {
        match fs::remove_dir_all(&directory) {
            // A shim that its maker did not live to hear of may write there once more, before it finds that it is nobody's.
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty && since.elapsed() < PATIENCE => {}
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(RuntimeError::Failed(format!("remove {}: {error}", directory.display())));
            }
            _ => return Ok(()),
        }
    }
}

/// Waits for the shim to end; one that does not is killed.
pub(crate) fn end(shim: i32, patience: Duration) {
    let Ok(process) = syscall::pidfd_open(shim) else { return };
    if !has_ended(&process, patience) {
        signal::kill(&process);
        has_ended(&process, PATIENCE);
    }
}

fn has_ended(process: &impl std::os::fd::AsRawFd, patience: Duration) -> bool {
    let since = Instant::now();
    let mut polled = libc::pollfd {
        fd: process.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    loop {
        let left = patience.saturating_sub(since.elapsed()).as_millis() as libc::c_int;
        // SAFETY: one entry, as said.
        match unsafe { libc::poll(&mut polled, 1, left) } {
            0 => return false,
            ready if ready > 0 => return true,
            _ if left == 0 => return false,
            _ => {}
        }
    }
}
