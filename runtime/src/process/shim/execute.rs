//! A further process in the container, at a client's wish.

use std::os::fd::{AsFd, AsRawFd};

use super::{
    job::{Job, Stage},
    serve::Shim,
};
use crate::{
    RuntimeError,
    process::{channel, exec, stdio},
    syscall::{self, Cloned},
};

impl Shim<'_> {
    /// Has the process made. The client hears of it, and from it, when its own program runs.
    pub fn exec(&mut self, at: usize, payload: &[u8]) -> Result<(), RuntimeError> {
        let failed = |what: &'static str| move |error: std::io::Error| RuntimeError::Failed(format!("{what}: {error}"));
        let malformed = || RuntimeError::Failed("the request to execute a process is malformed".to_owned());
        let (flags, id_length, rest) = match payload {
            [flags, id_length, rest @ ..] => (*flags, usize::from(*id_length), rest),
            _ => return Err(malformed()),
        };
        let (exec_id, process) = rest.split_at_checked(id_length).ok_or_else(malformed)?;
        let exec_id = String::from_utf8_lossy(exec_id).into_owned();
        if exec_id.is_empty() || self.job_of(&exec_id).is_some() {
            return Err(RuntimeError::Failed(format!("a process {exec_id} is running already")));
        }
        let (stdin, terminal) = (flags & 1 != 0, flags & 2 != 0);
        let first = match self.jobs.first() {
            Some(Job {
                pid: Some(pid),
                exit: None,
                stage: Stage::Running,
                ..
            }) => syscall::pidfd_open(*pid).map_err(failed("open the container's first process"))?,
            _ => return Err(RuntimeError::Failed("the container is not running".to_owned())),
        };
        let (ends, kept) = match terminal {
            true => (None, None),
            false => stdio::pipes(stdin)
                .map(|(ends, kept)| (Some(ends), Some(kept)))
                .map_err(failed("make pipes"))?,
        };
        let (ours, theirs) = syscall::message_pair().map_err(failed("make a socket pair"))?;
        // SAFETY: nothing in this binary starts a thread.
        let maker = match unsafe { syscall::clone3(0, libc::SIGCHLD, None) }.map_err(failed("fork a creator"))? {
            Cloned::Child => {
                // SAFETY: takes no pointers; the line must end with the shim.
                unsafe { libc::close(ours.as_raw_fd()) };
                let code = match exec::create(&self.orders.directory, process, first.as_fd(), ends, theirs.as_fd()) {
                    Ok(()) => 0,
                    Err(error) => {
                        channel::send_failure(theirs.as_fd(), &error);
                        1
                    }
                };
                // SAFETY: ends the fork without running what the shim registered for its own end.
                unsafe { libc::_exit(code) }
            }
            Cloned::Parent(maker) => maker,
        };
        let client = &mut self.clients[at];
        client.attached = Some(exec_id.clone());
        client.has_of_piece = 0;
        client.told_end = false;
        client.awaits_start = Some(exec_id.clone());
        let mut job = Job::new(exec_id, ours, kept, stdin);
        job.maker = Some(maker);
        self.jobs.push(job);
        Ok(())
    }
}
