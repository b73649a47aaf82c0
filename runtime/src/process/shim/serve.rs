//! The shim's loop: who may speak, who is heard, who is told.

use std::{
    fs,
    os::fd::{AsFd, AsRawFd, OwnedFd, RawFd},
    os::unix::net::UnixListener,
    time::Duration,
};

use super::{
    Orders,
    client::Client,
    forget_pages,
    job::{Job, MOST_STDIN, Stage},
    log::Log,
    write_whole,
};
use crate::{
    RuntimeError,
    plan::file,
    process::{channel, exec, stdio, tty},
    syscall::{self, Cloned},
    wire::{self, Kind},
};

/// How long the outputs of an ended process may stay open, held by others it left behind.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long nothing must happen before the shim makes itself small, in milliseconds.
const IDLE: libc::c_int = 200;
/// How many ended exec'd processes are remembered for those who ask late.
const REMEMBERED: usize = 256;

struct Shim<'a> {
    orders: &'a Orders,
    listener: UnixListener,
    signals: OwnedFd,
    log: Option<Log>,
    /// The first one is the container's first process.
    jobs: Vec<Job>,
    clients: Vec<Client>,
    /// Children that ended before their pid was told, with their status.
    unclaimed: Vec<(i32, i32)>,
    /// Exec'd processes that have ended, with their encoded exit.
    remembered: Vec<(String, [u8; 17])>,
    shutting_down: bool,
}

/// What a polled descriptor is.
#[derive(Clone, Copy)]
enum Source {
    Listener,
    Signals,
    Channel(usize),
    Output(usize, usize),
    Stdin(usize),
    Client(usize),
}

/// Serves until the container has ended and everybody knows.
pub(super) fn run(orders: &Orders, listener: UnixListener, signals: OwnedFd, log: Option<Log>, first: Job) {
    let mut shim = Shim {
        orders,
        listener,
        signals,
        log,
        jobs: vec![first],
        clients: Vec::new(),
        unclaimed: Vec::new(),
        remembered: Vec::new(),
        shutting_down: false,
    };
    let mut polled = Vec::new();
    let mut sources = Vec::new();
    while !shim.is_over() {
        shim.gather(&mut polled, &mut sources);
        let timeout = match shim.timeout() {
            -1 => IDLE,
            timeout => timeout,
        };
        // SAFETY: pointer and length belong together.
        let mut ready = unsafe { libc::poll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, timeout) };
        if ready == 0 && timeout == IDLE {
            forget_pages();
            // At once: all that runs in between would be read back.
            // SAFETY: as above.
            ready = unsafe { libc::poll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, -1) };
        }
        if ready > 0 {
            // Channels before signals: a pid told comes before that pid's end. Clients last: what they ask is then up to date.
            for (entry, source) in polled.iter().zip(&sources) {
                if entry.revents != 0 {
                    shim.handle(*source, entry.revents);
                }
            }
        }
        shim.settle();
    }
}

impl Shim<'_> {
    fn gather(&self, polled: &mut Vec<libc::pollfd>, sources: &mut Vec<Source>) {
        polled.clear();
        sources.clear();
        let mut add = |fd: RawFd, events: libc::c_short, source| {
            polled.push(libc::pollfd { fd, events, revents: 0 });
            sources.push(source);
        };
        for (at, job) in self.jobs.iter().enumerate() {
            if let Some(channel) = &job.channel {
                add(channel.as_raw_fd(), libc::POLLIN, Source::Channel(at));
            }
        }
        add(self.signals.as_raw_fd(), libc::POLLIN, Source::Signals);
        for (at, job) in self.jobs.iter().enumerate() {
            if job.may_be_heard() && self.everybody_has_the_piece(job) {
                for (index, output) in job.outputs.iter().enumerate() {
                    if let Some(output) = output {
                        add(output.as_raw_fd(), libc::POLLIN, Source::Output(at, index));
                    }
                }
            }
            // Also when nothing waits to be written: the end of its reader is told this way.
            if let Some(stdin) = job.stdin.as_ref().filter(|_| !job.stdin_waiting.is_empty()) {
                add(stdin.as_raw_fd(), libc::POLLOUT, Source::Stdin(at));
            }
        }
        for (at, client) in self.clients.iter().enumerate() {
            if client.gone {
                continue;
            }
            let mut events = 0;
            if client.may_speak() && !self.has_to_wait(client) {
                events |= libc::POLLIN;
            }
            if client.has_answers_waiting() || self.lacks_of_piece(client) {
                events |= libc::POLLOUT;
            }
            add(client.socket.as_raw_fd(), events, Source::Client(at));
        }
        add(self.listener.as_raw_fd(), libc::POLLIN, Source::Listener);
    }

    fn job_of(&self, exec_id: &str) -> Option<&Job> {
        self.jobs.iter().find(|job| job.exec_id == exec_id)
    }

    fn lacks_of_piece(&self, client: &Client) -> bool {
        let attached = client.attached.as_deref().and_then(|exec_id| self.job_of(exec_id));
        !client.gone && attached.is_some_and(|job| client.has_of_piece < job.piece.len())
    }

    /// One slow client slows the process: nothing is read before all have what was read last.
    fn everybody_has_the_piece(&self, job: &Job) -> bool {
        !self.clients.iter().any(|client| {
            client.attached.as_deref() == Some(job.exec_id.as_str())
                && !client.gone
                && (client.has_of_piece < job.piece.len() || client.has_answers_waiting())
        })
    }

    /// Is its process so far behind with its stdin that this client must not be heard for now?
    fn has_to_wait(&self, client: &Client) -> bool {
        let attached = client.attached.as_deref().and_then(|exec_id| self.job_of(exec_id));
        attached.is_some_and(|job| job.stdin_waiting.len() >= MOST_STDIN)
    }

    /// Milliseconds until patience with an ended process's outputs is over; -1: nothing to wait for.
    fn timeout(&self) -> libc::c_int {
        self.jobs
            .iter()
            .filter(|job| !job.told || (!job.outputs_ended() && self.everybody_has_the_piece(job)))
            .filter_map(|job| job.exited)
            .map(|exited| PATIENCE.saturating_sub(exited.elapsed()).as_millis() as libc::c_int + 1)
            .min()
            .unwrap_or(-1)
    }

    fn handle(&mut self, source: Source, events: libc::c_short) {
        match source {
            Source::Listener => self.accept(),
            Source::Signals => self.reap(),
            Source::Channel(at) => self.hear_process(at),
            Source::Output(at, index) => {
                // Another output of the process may have been read in this round.
                if self.everybody_has_the_piece(&self.jobs[at]) {
                    self.jobs[at].read_output(index, self.log.as_mut().filter(|_| at == 0));
                    self.pass_on(at);
                }
            }
            Source::Stdin(at) => self.jobs[at].write_stdin(),
            Source::Client(at) => {
                if events & libc::POLLOUT != 0 {
                    self.send_to(at);
                }
                if events & (libc::POLLHUP | libc::POLLERR) != 0 {
                    // It hears no more, but what it said before it left still counts. A socket's buffer bounds it.
                    while self.clients[at].listen() {}
                    self.clients[at].gone = true;
                } else if events & libc::POLLIN != 0 {
                    self.clients[at].listen();
                }
            }
        }
    }

    fn accept(&mut self) {
        while let Ok((socket, _)) = self.listener.accept() {
            if socket.set_nonblocking(true).is_ok() {
                self.clients.push(Client::new(socket.into()));
            }
        }
    }

    /// Gives everybody attached to the process its piece.
    fn pass_on(&mut self, at: usize) {
        let job = &self.jobs[at];
        for client in &mut self.clients {
            if client.attached.as_deref() == Some(job.exec_id.as_str()) {
                client.has_of_piece = 0;
                client.send_piece(&job.piece);
            }
        }
    }

    fn send_to(&mut self, at: usize) {
        let client = &mut self.clients[at];
        client.flush();
        let job = client
            .attached
            .as_deref()
            .and_then(|exec_id| self.jobs.iter().find(|job| job.exec_id == exec_id));
        if let Some(job) = job {
            client.send_piece(&job.piece);
        }
    }

    fn reap(&mut self) {
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
    fn hear_process(&mut self, at: usize) {
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

    /// What follows from this round: frames to deal with, ends to tell.
    fn settle(&mut self) {
        for at in 0..self.clients.len() {
            while self.deal_with_frame(at) {}
        }
        for at in 0..self.jobs.len() {
            self.tell_end(at);
        }
        let mut at = 1;
        while at < self.jobs.len() {
            let job = &self.jobs[at];
            let never_was = job.channel.is_none() && job.pid.is_none();
            let is_over = job.exit.is_some() && job.told && job.outputs_ended() && job.channel.is_none();
            if never_was || (is_over && self.everybody_has_the_piece(job)) {
                self.jobs.remove(at);
            } else {
                at += 1;
            }
        }
        if self.jobs.iter().all(|job| job.pid.is_some()) {
            self.unclaimed.clear();
        }
        self.clients
            .retain(|client| !client.gone || wire_complete(&client.inbox));
    }

    fn tell_end(&mut self, at: usize) {
        let out_of_patience = self.jobs[at].exited.is_some_and(|exited| exited.elapsed() >= PATIENCE);
        if out_of_patience && self.everybody_has_the_piece(&self.jobs[at]) {
            for index in 0..2 {
                if self.jobs[at].outputs[index]
                    .as_ref()
                    .is_some_and(|output| !is_readable(output))
                {
                    self.jobs[at].close_output(index, self.log.as_mut().filter(|_| at == 0));
                }
            }
        }
        let job = &mut self.jobs[at];
        let ended = job.outputs_ended();
        if let Some(exit) = &job.exit
            && (ended || out_of_patience)
        {
            job.told = true;
            let encoded = wire::encode_exit(exit);
            for client in &mut self.clients {
                if client.waits_for.as_deref() == Some(job.exec_id.as_str()) {
                    client.waits_for = None;
                    client.answer(Kind::Ended, &encoded);
                }
            }
        }
        let is_running = job.stage == Stage::Running || job.exit.is_some();
        if !ended || !is_running {
            return;
        }
        for client in &mut self.clients {
            let is_attached = client.attached.as_deref() == Some(job.exec_id.as_str());
            if is_attached && !client.told_end && client.has_of_piece >= job.piece.len() {
                client.told_end = true;
                client.answer(Kind::OutputEnd, &[]);
            }
        }
    }

    fn is_over(&self) -> bool {
        let idle = |client: &Client| !client.has_answers_waiting() && !self.lacks_of_piece(client);
        let Some(first) = self.jobs.first() else { return true };
        let ended = first.exit.is_some() && (self.shutting_down || (first.told && first.outputs_ended()));
        ended && (self.shutting_down || (self.jobs.len() == 1 && self.clients.iter().all(idle)))
    }

    /// Deals with the client's first frame. False: there is none, or it has to wait.
    fn deal_with_frame(&mut self, at: usize) -> bool {
        let client = &mut self.clients[at];
        let Some((kind, length)) = wire::peek(&client.inbox) else {
            return false;
        };
        if length > wire::LONGEST {
            client.gone = true;
            client.inbox.clear();
            return false;
        }
        if client.inbox.len() < wire::HEADER + length {
            return false;
        }
        let kind = Kind::from_byte(kind);
        if kind == Some(Kind::Stdin) {
            let exec_id = client.attached.clone();
            let job = self.jobs.iter_mut().find(|job| Some(&job.exec_id) == exec_id.as_ref());
            if let Some(job) = job {
                if job.stdin_waiting.len() >= MOST_STDIN {
                    return false;
                }
                job.feed(&client.inbox[wire::HEADER..wire::HEADER + length]);
            }
            client.inbox.drain(..wire::HEADER + length);
            return true;
        }
        let payload = client.inbox[wire::HEADER..wire::HEADER + length].to_vec();
        client.inbox.drain(..wire::HEADER + length);
        client.inbox.shrink_to(16 << 10);
        match kind {
            Some(Kind::Start) => self.start(at),
            Some(Kind::State) => {
                let first = &self.jobs[0];
                let is_started = matches!(first.stage, Stage::Going | Stage::Running);
                let mut state = vec![u8::from(is_started)];
                state.extend_from_slice(&first.pid.filter(|_| first.exit.is_none()).unwrap_or(0).to_le_bytes());
                self.clients[at].answer(Kind::StateIs, &state);
            }
            Some(Kind::Wait) => self.wait(at, String::from_utf8_lossy(&payload).into_owned()),
            Some(Kind::Signal) => self.signal(at, &payload),
            Some(Kind::Resize) => self.resize(at, &payload),
            Some(Kind::Attach) => {
                let first = &self.jobs[0];
                let client = &mut self.clients[at];
                client.attached = Some(String::new());
                client.has_of_piece = first.piece.len();
                let has_stdin = u8::from(first.stdin.is_some());
                client.answer(Kind::Done, &[0, 0, 0, 0, has_stdin]);
            }
            Some(Kind::Exec) => {
                if let Err(error) = self.exec(at, &payload) {
                    self.clients[at].refuse(&error);
                }
            }
            Some(Kind::StdinEnd) => {
                let exec_id = self.clients[at].attached.clone();
                if let Some(job) = self.jobs.iter_mut().find(|job| Some(&job.exec_id) == exec_id.as_ref()) {
                    job.end_stdin();
                }
            }
            Some(Kind::Shutdown) => {
                self.shutting_down = true;
                let _ = fs::write(self.orders.cgroup.join("cgroup.kill"), "1");
                self.kill_first(libc::SIGKILL);
            }
            // Answers are ours to give; a kind of a later version gets none.
            _ => self.clients[at].gone = true,
        }
        true
    }

    fn start(&mut self, at: usize) {
        let first = &mut self.jobs[0];
        let client = &mut self.clients[at];
        let sent = match (&first.channel, first.stage) {
            (Some(line), Stage::Ready) => channel::send_go(line.as_fd()).is_ok(),
            _ => false,
        };
        if sent {
            first.stage = Stage::Going;
            client.awaits_start = Some(String::new());
        } else {
            client.refuse(&RuntimeError::Failed(
                "the container has been started before".to_owned(),
            ));
        }
    }

    fn wait(&mut self, at: usize, exec_id: String) {
        let encoded = self
            .remembered
            .iter()
            .find(|(known, _)| *known == exec_id)
            .map(|(_, encoded)| *encoded);
        let client = &mut self.clients[at];
        match self.jobs.iter().find(|job| job.exec_id == exec_id) {
            Some(job) if job.told => {
                let encoded = job.exit.as_ref().map(wire::encode_exit).unwrap_or_default();
                client.answer(Kind::Ended, &encoded);
            }
            // Told once its output is written, by `tell_end`.
            Some(_) => client.waits_for = Some(exec_id),
            None => match encoded {
                Some(encoded) => client.answer(Kind::Ended, &encoded),
                None => client.refuse(&RuntimeError::Failed(format!("no process {exec_id} was executed here"))),
            },
        }
    }

    fn kill_first(&self, signal: i32) -> bool {
        self.kill("", signal)
    }

    fn kill(&self, exec_id: &str, signal: i32) -> bool {
        let job = self.job_of(exec_id).filter(|job| job.exit.is_none());
        match job.and_then(|job| job.pid) {
            // SAFETY: takes no pointers; it is our child and not yet reaped, so the pid is still its.
            Some(pid) => unsafe { libc::kill(pid, signal) == 0 },
            None => false,
        }
    }

    fn signal(&mut self, at: usize, payload: &[u8]) {
        let (signal, exec_id) = payload
            .split_first_chunk()
            .map_or((0, &[][..]), |(bytes, exec_id)| (i32::from_le_bytes(*bytes), exec_id));
        let sent = self.kill(&String::from_utf8_lossy(exec_id), signal);
        let client = &mut self.clients[at];
        if sent {
            client.answer(Kind::Done, &[]);
        } else {
            client.refuse(&RuntimeError::Failed(format!(
                "signal {signal} could not be sent: the process has ended"
            )));
        }
    }

    fn resize(&mut self, at: usize, payload: &[u8]) {
        let resized = match payload {
            [r0, r1, c0, c1, exec_id @ ..] => {
                let exec_id = String::from_utf8_lossy(exec_id);
                let (rows, columns) = (u16::from_le_bytes([*r0, *r1]), u16::from_le_bytes([*c0, *c1]));
                let terminal = self.job_of(&exec_id).and_then(|job| job.terminal.as_ref());
                terminal.is_some_and(|terminal| tty::resize(terminal.as_fd(), rows, columns).is_ok())
            }
            _ => false,
        };
        let client = &mut self.clients[at];
        if resized {
            client.answer(Kind::Done, &[]);
        } else {
            client.refuse(&RuntimeError::Failed(
                "the process has no terminal to resize".to_owned(),
            ));
        }
    }

    fn exec(&mut self, at: usize, payload: &[u8]) -> Result<(), RuntimeError> {
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
        match unsafe { syscall::clone3(0, libc::SIGCHLD, None) }.map_err(failed("fork a creator"))? {
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
            Cloned::Parent(_) => {}
        }
        let client = &mut self.clients[at];
        client.attached = Some(exec_id.clone());
        client.has_of_piece = 0;
        client.told_end = false;
        client.awaits_start = Some(exec_id.clone());
        self.jobs.push(Job::new(exec_id, ours, kept, stdin));
        Ok(())
    }
}

fn is_readable(output: &OwnedFd) -> bool {
    let mut polled = libc::pollfd {
        fd: output.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: one entry, as said.
    unsafe { libc::poll(&mut polled, 1, 0) > 0 && polled.revents & libc::POLLIN != 0 }
}

/// Is there a whole frame?
fn wire_complete(bytes: &[u8]) -> bool {
    wire::peek(bytes).is_some_and(|(_, length)| length <= wire::LONGEST && bytes.len() >= wire::HEADER + length)
}
