//! Births and deaths: what processes in the making report, and what is known of those that have ended.

use std::{fs, os::fd::AsFd};

use super::{
    job::Stage,
    serve::{Shim, is_readable},
    write_whole,
};
use crate::{
    RuntimeError,
    plan::file,
    process::channel,
    syscall,
    wire::{self, Kind},
};

/// How many ended exec'd processes are remembered for those who ask late.
const REMEMBERED: usize = 256;

impl Shim<'_> {
    /// Takes the ends of all children that have ended.
    pub fn reap(&mut self) {
        // One signal may stand for many, so its count says nothing: empty the descriptor and look for ended children.
        let mut information = [0u8; size_of::<libc::signalfd_siginfo>()];
        while syscall::read(self.signals.as_fd(), &mut information).is_ok() {}
        loop {
            let mut status = 0;
            // SAFETY: status is ours.
            let pid = unsafe { libc::waitpid(-1, &mut status, libc::WNOHANG) };
            if pid <= 0 {
                return;
            }
            if let Some(at) = self.jobs.iter().position(|job| job.maker == Some(pid)) {
                self.maker_ended(at);
                continue;
            }
            match self
                .jobs
                .iter()
                .position(|job| job.pid == Some(pid) && job.exit.is_none())
            {
                Some(at) => self.ended(at, status),
                None if self.jobs.iter().any(|job| job.pid.is_none()) => self.unclaimed.push((pid, status)),
                // A creator, or an orphan.
                None => {}
            }
        }
    }

    /// Who made a process has ended, and should have told its pid. If he was killed before, the process waits in vain, with its end of the line.
    fn maker_ended(&mut self, at: usize) {
        self.jobs[at].maker = None;
        while self.jobs[at].pid.is_none() && self.jobs[at].channel.as_ref().is_some_and(is_readable) {
            self.hear_process(at);
        }
        if self.jobs[at].pid.is_none() && self.jobs[at].channel.is_some() {
            let error =
                RuntimeError::Failed("the maker of the process ended before it told whom it has made".to_owned());
            self.start_failed(at, &error);
        }
    }

    fn ended(&mut self, at: usize, status: i32) {
        let oom_killed = self.oom_kills() > 0;
        let job = &mut self.jobs[at];
        job.ended(status, oom_killed);
        let Some(exit) = &job.exit else { return };
        let encoded = wire::encode_exit(exit);
        if at == 0 {
            // On disk first: whoever is told may ask for it after we are gone.
            let _ = write_whole(file::EXIT, &encoded);
            // With a pid namespace of its own the kernel has killed the rest already.
            let _ = fs::write(self.orders.cgroup.join("cgroup.kill"), "1");
        } else {
            if self.remembered.len() == REMEMBERED {
                self.remembered.remove(0);
            }
            self.remembered.push((job.exec_id.clone(), encoded));
        }
    }

    /// Processes of the container that the kernel killed for want of memory.
    fn oom_kills(&self) -> u64 {
        let text = fs::read_to_string(&self.orders.oom_counter).unwrap_or_default();
        let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        count.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
    }

    /// A process in the making has something to say.
    pub fn hear_process(&mut self, at: usize) {
        let job = &mut self.jobs[at];
        let Some(line) = &job.channel else { return };
        match channel::receive(line.as_fd()) {
            Ok(Some(channel::Report::Pid(pid))) => {
                job.pid = Some(pid);
                if let Some(known) = self.unclaimed.iter().position(|(unclaimed, _)| *unclaimed == pid) {
                    let (_, status) = self.unclaimed.swap_remove(known);
                    self.ended(at, status);
                }
                self.go_on(at);
            }
            Ok(Some(channel::Report::Ready(terminal))) => {
                job.stage = Stage::Ready;
                if let Some(terminal) = terminal {
                    // stdin_once stands for "stdin wanted" here: with a terminal nothing else asks for it.
                    let wanted = job.stdin_once;
                    if job.take_terminal(terminal, wanted).is_err() {
                        job.channel = None;
                    }
                }
                self.go_on(at);
            }
            Ok(Some(channel::Report::Failed(error))) => self.start_failed(at, &error),
            // Closed by the execve: the program runs.
            Ok(None) => {
                job.channel = None;
                if job.stage == Stage::Going {
                    job.stage = Stage::Running;
                    self.started(at);
                } else {
                    let error = RuntimeError::Failed("the process ended while being made".to_owned());
                    self.start_failed(at, &error);
                }
            }
            Err(_) => job.channel = None,
        }
    }

    /// An exec'd process goes as soon as it is ready and known; the first one when it is told to.
    fn go_on(&mut self, at: usize) {
        let job = &mut self.jobs[at];
        if at == 0 || job.stage != Stage::Ready || job.pid.is_none() {
            return;
        }
        if let Some(line) = &job.channel
            && channel::send_go(line.as_fd()).is_ok()
        {
            job.stage = Stage::Going;
        }
    }

    fn started(&mut self, at: usize) {
        let job = &self.jobs[at];
        let mut payload = job.pid.unwrap_or_default().to_le_bytes().to_vec();
        payload.push(u8::from(job.stdin.is_some()));
        for client in &mut self.clients {
            if client.awaits_start.as_deref() == Some(job.exec_id.as_str()) {
                client.awaits_start = None;
                client.answer(Kind::Done, &payload);
            }
        }
    }

    fn start_failed(&mut self, at: usize, error: &RuntimeError) {
        let job = &mut self.jobs[at];
        // Its end will be reaped; who asked for it gets the reason.
        job.channel = None;
        if at != 0 {
            job.outputs = [None, None];
        }
        for client in &mut self.clients {
            if client.awaits_start.as_deref() == Some(job.exec_id.as_str()) {
                client.awaits_start = None;
                client.attached = client.attached.take().filter(|_| at == 0);
                client.refuse(error);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        os::fd::OwnedFd,
        os::unix::net::{UnixListener, UnixStream},
        path::PathBuf,
        sync::atomic::{AtomicU32, Ordering},
    };

    use super::{
        super::{Orders, job::Job},
        *,
    };

    static NEXT: AtomicU32 = AtomicU32::new(0);

    /// A shim with a further process in the making, and that process's end of the line.
    fn with_one_in_the_making(test: impl FnOnce(Shim<'_>, OwnedFd)) {
        let orders = Orders {
            directory: PathBuf::new(),
            shims: PathBuf::new(),
            cgroup: PathBuf::new(),
            oom_counter: PathBuf::new(),
            log: crate::Log::default(),
            flags: String::new(),
        };
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let socket = std::env::temp_dir().join(format!("sluice-lives-{}-{number}", std::process::id()));
        let listener = UnixListener::bind(&socket).unwrap();
        fs::remove_file(socket).unwrap();
        let (signals, _) = UnixStream::pair().unwrap();
        let (line, _) = syscall::message_pair().unwrap();
        let mut first = Job::new(String::new(), line, None, false);
        (first.pid, first.stage) = (Some(1), Stage::Running);
        let mut shim = Shim::new(&orders, listener, signals.into(), None, first);
        let (ours, theirs) = syscall::message_pair().unwrap();
        shim.jobs.push(Job::new("e".to_owned(), ours, None, false));
        test(shim, theirs);
    }

    #[test]
    fn an_execd_process_goes_when_it_is_ready_and_known_whichever_comes_first() {
        type Say = fn(&OwnedFd);
        let ready: Say = |line| channel::send_ready(line.as_fd(), None).unwrap();
        let pid: Say = |line| channel::send_pid(line.as_fd(), 42).unwrap();
        for order in [[ready, pid], [pid, ready]] {
            with_one_in_the_making(|mut shim, line| {
                order[0](&line);
                shim.hear_process(1);
                assert_ne!(shim.jobs[1].stage, Stage::Going);
                order[1](&line);
                shim.hear_process(1);
                assert_eq!(shim.jobs[1].stage, Stage::Going);
                channel::wait_for_go(line.as_fd()).unwrap();
            });
        }
    }

    #[test]
    fn an_execd_process_whose_maker_is_killed_before_it_tells_the_pid_is_let_go() {
        with_one_in_the_making(|mut shim, line| {
            channel::send_ready(line.as_fd(), None).unwrap();
            shim.jobs[1].maker = Some(42);
            shim.maker_ended(1);
            assert!(shim.jobs[1].channel.is_none() && shim.jobs[1].pid.is_none());
            channel::wait_for_go(line.as_fd()).unwrap_err();
        });
        with_one_in_the_making(|mut shim, line| {
            channel::send_ready(line.as_fd(), None).unwrap();
            channel::send_pid(line.as_fd(), 43).unwrap();
            shim.maker_ended(1);
            assert_eq!(shim.jobs[1].stage, Stage::Going, "it has told all that there was");
        });
    }

    #[test]
    fn an_end_that_is_seen_before_the_pid_is_told_is_not_lost() {
        with_one_in_the_making(|mut shim, line| {
            shim.unclaimed.push((42, 3 << 8));
            channel::send_pid(line.as_fd(), 42).unwrap();
            shim.hear_process(1);
            assert_eq!(shim.jobs[1].exit.as_ref().map(|exit| exit.code), Some(3));
            assert_eq!(shim.remembered.len(), 1);
        });
    }
}
