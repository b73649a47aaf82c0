//! The shim: one small process per container, which outlives the daemon.
//!
//! Single-threaded, one `poll` loop, no runtime. It holds the pipes or the terminal, writes the log, reaps, records the exit status before
//! it tells anybody, and answers on a socket in the container's directory. All work that takes memory is done in forks of it.

mod client;
mod execute;
mod job;
mod lines;
mod lives;
mod log;
mod requests;
mod serve;

use std::{
    borrow::Cow,
    ffi::{OsStr, OsString},
    fs, io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    os::unix::net::UnixListener,
    path::{Path, PathBuf},
};

use super::{channel, creator, reaper, stdio};
use crate::{
    RuntimeError,
    plan::file,
    syscall::{self, Cloned},
    wire::{self, Kind},
};
use job::{Job, Stage};
use log::Log;

/// What the daemon tells a new shim, as arguments in this order.
#[derive(Debug)]
pub(crate) struct Orders {
    /// The container's directory.
    pub directory: PathBuf,
    /// The cgroup (of the unified tree) that shims live in.
    pub shims: PathBuf,
    /// The container's own.
    pub cgroup: PathBuf,
    /// The file in which the kernel counts processes killed for want of memory; empty: nowhere.
    pub oom_counter: PathBuf,
    /// The log; without a path: none is kept.
    pub log: crate::Log,
    /// Letters: `i` stdin, `o` stdin once, `t` terminal.
    pub flags: String,
}

impl Orders {
    /// In the order in which [`parse`](Self::parse) takes them.
    pub fn arguments(&self) -> [Cow<'_, OsStr>; 8] {
        [
            self.directory.as_os_str().into(),
            self.shims.as_os_str().into(),
            self.cgroup.as_os_str().into(),
            self.oom_counter.as_os_str().into(),
            self.log.path.as_os_str().into(),
            OsString::from(self.log.rules()).into(),
            OsStr::new(&self.log.attrs).into(),
            OsStr::new(&self.flags).into(),
        ]
    }

    fn parse(mut arguments: impl Iterator<Item = OsString>) -> Option<Self> {
        Some(Self {
            directory: arguments.next()?.into(),
            shims: arguments.next()?.into(),
            cgroup: arguments.next()?.into(),
            oom_counter: arguments.next()?.into(),
            log: crate::Log::parse(
                arguments.next()?.into(),
                &arguments.next()?.into_string().ok()?,
                arguments.next()?.into_string().ok()?,
            )?,
            flags: arguments.next()?.into_string().ok()?,
        })
    }

    fn has(&self, flag: char) -> bool {
        self.flags.contains(flag)
    }
}

/// The whole life of the shim's process; standard output is where the daemon reads how the creation went.
pub fn main() -> i32 {
    let mut arguments = std::env::args_os();
    if arguments.next().is_some_and(|name| name == reaper::NAME) {
        return reaper::main(arguments.skip(1));
    }
    let Some(orders) = Orders::parse(arguments) else {
        eprintln!("sluice-shim is started by sluiced, for one container; it is of no use by itself");
        return 2;
    };
    match detach(&orders) {
        Ok(Cloned::Parent(_)) => 0,
        Ok(Cloned::Child) => match take_over_standard_streams() {
            Ok(report) => live(&orders, report),
            Err(_) => 1,
        },
        Err(error) => {
            // SAFETY: standard output is open: it was given to us.
            let report = unsafe { BorrowedFd::borrow_raw(1) };
            let error = RuntimeError::Failed(format!("detach the shim from the daemon: {error}"));
            answer(report, Kind::Failed, &error.encode());
            1
        }
    }
}

/// A session, a parent and a cgroup that have nothing to do with the daemon's: whatever ends the daemon leaves us alone.
fn detach(orders: &Orders) -> io::Result<Cloned> {
    // SAFETY: takes no pointers.
    syscall::result(unsafe { libc::setsid() })?;
    // What the daemon (or who started it) left open by mistake is not for us, and still less for a container.
    // SAFETY: takes no pointers; nothing above standard error is ours yet.
    syscall::result(unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) } as i32)?;
    let cgroup = syscall::open(&orders.shims, libc::O_PATH | libc::O_DIRECTORY)?;
    // SAFETY: nothing in this binary starts a thread.
    unsafe { syscall::clone3(0, libc::SIGCHLD, Some(cgroup.as_fd())) }
}

/// Moves the report line out of the way and /dev/null to 0, 1 and 2.
fn take_over_standard_streams() -> io::Result<OwnedFd> {
    // SAFETY: takes no pointers.
    let report = syscall::result(unsafe { libc::fcntl(1, libc::F_DUPFD_CLOEXEC, 3) })?;
    // SAFETY: the kernel just gave it to us.
    let report = unsafe { OwnedFd::from_raw_fd(report) };
    let null = syscall::open(Path::new("/dev/null"), libc::O_RDWR)?;
    for target in 0..3 {
        // SAFETY: takes no pointers; what was there before is closed, as meant.
        syscall::result(unsafe { libc::dup2(null.as_raw_fd(), target) })?;
    }
    Ok(report)
}

fn answer(report: BorrowedFd<'_>, kind: Kind, payload: &[u8]) {
    let mut bytes = Vec::new();
    wire::push(&mut bytes, kind, payload);
    // The daemon may be gone already; the container is there all the same.
    let _ = syscall::write(report, &bytes);
}

fn live(orders: &Orders, report: OwnedFd) -> i32 {
    match settle_in(orders, &report) {
        Ok((listener, signals, log, first)) => {
            let pid = first.pid.unwrap_or_default();
            answer(report.as_fd(), Kind::Done, &pid.to_le_bytes());
            drop(report);
            serve::run(orders, listener, signals, log, first);
            0
        }
        Err(error) => {
            answer(report.as_fd(), Kind::Failed, &error.encode());
            1
        }
    }
}

/// All that has to be there before the daemon may go on: socket, log, and the first process, waiting.
fn settle_in(orders: &Orders, report: &OwnedFd) -> Result<(UnixListener, OwnedFd, Option<Log>, Job), RuntimeError> {
    let failed = |what: &'static str| move |error: io::Error| RuntimeError::Failed(format!("{what}: {error}"));
    std::env::set_current_dir(&orders.directory).map_err(failed("enter the container's directory"))?;
    // SAFETY: the name is static and NUL-terminated.
    unsafe { libc::prctl(libc::PR_SET_NAME, c"sluice-shim".as_ptr()) };
    // Orphans of a container that shares its pid namespace with others come to us.
    // SAFETY: takes no pointers.
    syscall::result(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) })
        .map_err(failed("become a reaper"))?;
    let signals = take_signals().map_err(failed("take signals by descriptor"))?;
    let log =
        match orders.log.path.as_os_str().is_empty() {
            true => None,
            false => Some(Log::open(&orders.log).map_err(|error| {
                RuntimeError::Failed(format!("open the log {}: {error}", orders.log.path.display()))
            })?),
        };
    // A relative name: the whole path could be longer than a socket's address may be.
    let listener = UnixListener::bind(file::SOCKET).map_err(failed("listen on the shim's socket"))?;
    listener
        .set_nonblocking(true)
        .map_err(failed("listen on the shim's socket"))?;
    let first = make_first(orders, report)?;
    let pid = first.pid.unwrap_or_default();
    let own = std::process::id() as i32;
    let pids = format!(
        "{own} {} {pid} {}\n",
        start_time(own).unwrap_or(0),
        start_time(pid).unwrap_or(0)
    );
    write_whole(file::PIDS, pids.as_bytes()).map_err(failed("record the pids"))?;
    Ok((listener, signals, log, first))
}

/// Has the first process made and waits until it is ready to be let go.
fn make_first(orders: &Orders, report: &OwnedFd) -> Result<Job, RuntimeError> {
    let failed = |what: &'static str| move |error: io::Error| RuntimeError::Failed(format!("{what}: {error}"));
    let terminal = orders.has('t');
    let (ends, kept) = match terminal {
        true => (None, None),
        false => stdio::pipes(orders.has('i'))
            .map(|(ends, kept)| (Some(ends), Some(kept)))
            .map_err(failed("make pipes"))?,
    };
    let (ours, theirs) = syscall::message_pair().map_err(failed("make a socket pair"))?;
    // SAFETY: nothing in this binary starts a thread.
    let creator = match unsafe { syscall::clone3(0, libc::SIGCHLD, None) }.map_err(failed("fork a creator"))? {
        Cloned::Child => {
            // SAFETY: takes no pointers. These two must end with the shim, whatever becomes of its children.
            unsafe {
                libc::close(ours.as_raw_fd());
                libc::close(report.as_raw_fd());
            }
            let code = match creator::create(&orders.directory, ends, theirs.as_fd()) {
                Ok(()) => 0,
                Err(error) => {
                    channel::send_failure(theirs.as_fd(), &error);
                    1
                }
            };
            // SAFETY: ends the fork without running what the shim registered for its own end.
            unsafe { libc::_exit(code) }
        }
        Cloned::Parent(creator) => creator,
    };
    drop((ends, theirs));
    let mut job = Job::new(String::new(), ours, kept, orders.has('o'));
    let made = syscall::pidfd_open(creator)
        .map_err(failed("open the creator"))
        .and_then(|creator| wait_until_ready(&mut job, orders.has('i'), creator.as_fd()));
    let status = wait_for(creator);
    if let Some(pid) = job.pid.filter(|_| made.is_err() || status != 0) {
        // SAFETY: takes no pointers; it is our child and not yet reaped, so the pid is still its.
        unsafe { libc::kill(pid, libc::SIGKILL) };
        wait_for(pid);
    }
    made?;
    if status != 0 {
        return Err(RuntimeError::Failed(format!(
            "the creator of the container ended with status {status}"
        )));
    }
    Ok(job)
}

fn wait_until_ready(job: &mut Job, stdin: bool, creator: BorrowedFd<'_>) -> Result<(), RuntimeError> {
    let mut failure = None;
    while let Some(channel) = &job.channel {
        // The process waits for us then, with its end of the line: there would be no end to be heard.
        if job.pid.is_none() && !has_more_to_say(channel.as_fd(), creator) {
            failure.get_or_insert_with(|| {
                RuntimeError::Failed("the creator of the container ended before it told whom it has made".to_owned())
            });
            break;
        }
        match channel::receive(channel.as_fd()) {
            // The creator tells the pid and the process that it is ready: either may come first.
            Ok(Some(channel::Report::Pid(pid))) => {
                job.pid = Some(pid);
                if matches!(job.stage, Stage::Ready) {
                    return Ok(());
                }
            }
            Ok(Some(channel::Report::Ready(terminal))) => {
                if let Some(terminal) = terminal {
                    job.take_terminal(terminal, stdin)
                        .map_err(|error| RuntimeError::Failed(format!("take the terminal: {error}")))?;
                }
                job.stage = Stage::Ready;
                if job.pid.is_some() {
                    return Ok(());
                }
            }
            // The first word is the cause, what follows its consequence. The pid may still come.
            Ok(Some(channel::Report::Failed(error))) => {
                failure.get_or_insert(error);
                if job.pid.is_some() {
                    break;
                }
            }
            Ok(None) => break,
            Err(error) => return Err(RuntimeError::Failed(format!("listen to the creator: {error}"))),
        }
    }
    Err(failure
        .unwrap_or_else(|| RuntimeError::Failed("the container's first process ended while being made".to_owned())))
}

/// Waits until something is said; false: the creator, who has not said all, has ended, and nothing was left to be heard.
fn has_more_to_say(channel: BorrowedFd<'_>, creator: BorrowedFd<'_>) -> bool {
    loop {
        let mut polled = [channel, creator].map(|fd| libc::pollfd {
            fd: fd.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        });
        // SAFETY: two entries, as said.
        unsafe { libc::poll(polled.as_mut_ptr(), 2, -1) };
        if polled[0].revents != 0 {
            return true;
        }
        if polled[1].revents != 0 {
            // its last words may have come between the two looks
            // SAFETY: one entry, as said.
            return unsafe { libc::poll(polled.as_mut_ptr(), 1, 0) > 0 };
        }
    }
}

fn wait_for(pid: i32) -> i32 {
    let mut status = 0;
    // SAFETY: status is ours.
    unsafe { libc::waitpid(pid, &mut status, 0) };
    status
}

/// SIGCHLD by descriptor; what a terminal or a tidy-up would send us is ignored.
fn take_signals() -> io::Result<OwnedFd> {
    for signal in [libc::SIGPIPE, libc::SIGHUP, libc::SIGINT, libc::SIGTERM] {
        // SAFETY: ignoring is no code of ours.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
    // SAFETY: sigset_t is plain data; sigemptyset makes it a valid empty set.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set is ours.
    unsafe {
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, libc::SIGCHLD);
    }
    // SAFETY: the set is valid; the old one is not asked for.
    syscall::result(unsafe { libc::sigprocmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()) })?;
    // SAFETY: the set is valid.
    let signals = syscall::result(unsafe { libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) })?;
    // SAFETY: the kernel just gave it to us.
    Ok(unsafe { OwnedFd::from_raw_fd(signals) })
}

/// When a living process started, in clock ticks since boot: with it a pid means one process for ever.
pub(crate) fn start_time(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything, so count from its end.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    // One that has ended and is not yet reaped is no process any more.
    let state = fields.next().filter(|state| !matches!(*state, "Z" | "X"));
    state.and_then(|_| fields.nth(18)?.parse().ok())
}

/// Writes a file so that a reader finds all of it or nothing. It outlives us and the daemon, as the page cache does; should the machine
/// lose its power, the container is gone as well, and so is the directory, which is one of this boot only. So there is nothing to sync.
fn write_whole(name: &str, bytes: &[u8]) -> io::Result<()> {
    let unfinished = format!("{name}.new");
    let mut file = fs::File::create(&unfinished)?;
    io::Write::write_all(&mut file, bytes)?;
    fs::rename(unfinished, name)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// What becomes of a process whose maker and who itself have said this, and are gone.
    fn made(say: impl FnOnce(BorrowedFd<'_>)) -> (Result<(), RuntimeError>, Job) {
        let (ours, theirs) = syscall::message_pair().unwrap();
        say(theirs.as_fd());
        drop(theirs);
        heard(ours)
    }

    /// What is made of what was said by a maker who has ended.
    fn heard(ours: OwnedFd) -> (Result<(), RuntimeError>, Job) {
        let mut maker = Command::new("true").spawn().unwrap();
        let ended = syscall::pidfd_open(maker.id() as i32).unwrap();
        maker.wait().unwrap();
        let mut job = Job::new(String::new(), ours, None, false);
        (wait_until_ready(&mut job, false, ended.as_fd()), job)
    }

    #[test]
    fn a_maker_that_is_killed_before_it_tells_the_pid_is_not_waited_for() {
        let (ours, theirs) = syscall::message_pair().unwrap();
        channel::send_ready(theirs.as_fd(), None).unwrap();
        // the process is there, and waits with its end of the line
        let (made, job) = heard(ours);
        assert!(made.unwrap_err().to_string().contains("ended before it told"));
        assert_eq!(job.pid, None);
        drop(job);
        channel::wait_for_go(theirs.as_fd()).unwrap_err();
    }

    #[test]
    fn a_process_that_is_ready_before_its_pid_is_known_is_waited_for() {
        let (made, job) = made(|channel| {
            channel::send_ready(channel, None).unwrap();
            channel::send_pid(channel, 42).unwrap();
        });
        made.unwrap();
        assert_eq!((job.pid, job.stage), (Some(42), Stage::Ready));
    }

    #[test]
    fn a_process_whose_pid_is_known_first_is_waited_for_until_it_is_ready() {
        let (made, job) = made(|channel| {
            channel::send_pid(channel, 42).unwrap();
            channel::send_ready(channel, None).unwrap();
        });
        made.unwrap();
        assert_eq!((job.pid, job.stage), (Some(42), Stage::Ready));
    }

    #[test]
    fn half_of_what_makes_a_process_is_no_process() {
        made(|channel| channel::send_ready(channel, None).unwrap())
            .0
            .unwrap_err();
        let (made, job) = made(|channel| channel::send_pid(channel, 42).unwrap());
        made.unwrap_err();
        assert_eq!(job.pid, Some(42), "it is known whom to kill");
    }

    #[test]
    fn the_first_reason_counts_and_who_is_to_be_killed_is_still_heard_of() {
        let (made, job) = made(|channel| {
            channel::send_failure(channel, &RuntimeError::Failed("no such mount".to_owned()));
            channel::send_failure(channel, &RuntimeError::Failed("the pipe is broken".to_owned()));
            channel::send_pid(channel, 42).unwrap();
        });
        assert_eq!(made.unwrap_err(), RuntimeError::Failed("no such mount".to_owned()));
        assert_eq!(job.pid, Some(42));
    }
}
