//! The shim's loop: who may speak, who is heard, who is told.

use std::{
    os::fd::{AsRawFd, OwnedFd, RawFd},
    os::unix::net::UnixListener,
    time::Duration,
};

use super::{
    Orders,
    client::Client,
    job::{Job, MOST_STDIN, Stage},
    log::Log,
};
use crate::{
    pages::forget_pages,
    wire::{self, Kind},
};

/// How long the outputs of an ended process may stay open, held by others it left behind.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long nothing must happen before the shim makes itself small, in milliseconds.
const IDLE: libc::c_int = 200;

pub(super) struct Shim<'a> {
    pub orders: &'a Orders,
    listener: UnixListener,
    pub signals: OwnedFd,
    log: Option<Log>,
    /// The first one is the container's first process.
    pub jobs: Vec<Job>,
    pub clients: Vec<Client>,
    /// Children that ended before their pid was told, with their status.
    pub unclaimed: Vec<(i32, i32)>,
    /// Exec'd processes that have ended, with their encoded exit.
    pub remembered: Vec<(String, [u8; 17])>,
    pub shutting_down: bool,
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
    Log,
}

/// Serves until the container has ended and everybody knows.
pub(super) fn run(orders: &Orders, listener: UnixListener, signals: OwnedFd, log: Option<Log>, first: Job) {
    let mut shim = Shim::new(orders, listener, signals, log, first);
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
            shim.shrink();
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

impl<'a> Shim<'a> {
    pub fn new(orders: &'a Orders, listener: UnixListener, signals: OwnedFd, log: Option<Log>, first: Job) -> Self {
        Self {
            orders,
            listener,
            signals,
            log,
            jobs: vec![first],
            clients: Vec::new(),
            unclaimed: Vec::new(),
            remembered: Vec::new(),
            shutting_down: false,
        }
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
        if let Some(behind) = self.log.as_ref().and_then(Log::is_behind) {
            add(behind.as_raw_fd(), libc::POLLOUT, Source::Log);
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

    /// Gives back memory that was needed while much was said and heard.
    fn shrink(&mut self) {
        for at in 0..self.jobs.len() {
            let heard = self.everybody_has_the_piece(&self.jobs[at]);
            self.jobs[at].shrink(heard);
        }
        for client in &mut self.clients {
            client.shrink();
        }
        if let Some(log) = &mut self.log {
            log.shrink();
        }
        give_back();
    }

    pub fn job_of(&self, exec_id: &str) -> Option<&Job> {
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

    /// Those who hear the first process and take nothing of it, and how much longer they may: it is not to be kept from saying what is to be logged.
    fn stuck(&self) -> impl Iterator<Item = (usize, Duration)> {
        let is_logged = self.log.is_some();
        self.clients.iter().enumerate().filter_map(move |(at, client)| {
            let hears = is_logged && !client.gone && client.attached.as_deref() == Some("");
            Some((at, client.patience().filter(|_| hears)?))
        })
    }

    /// Milliseconds until patience is over, with an ended process's outputs or with a client; -1: nothing to wait for.
    fn timeout(&self) -> libc::c_int {
        let clients = self.stuck().map(|(_, left)| left);
        self.jobs
            .iter()
            .filter(|job| !job.told || (!job.outputs_ended() && self.everybody_has_the_piece(job)))
            .filter_map(|job| job.exited)
            .map(|exited| PATIENCE.saturating_sub(exited.elapsed()))
            .chain(clients)
            .map(|left| left.as_millis() as libc::c_int + 1)
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
            Source::Log => {
                if let Some(log) = &mut self.log {
                    log.flush();
                }
            }
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

    /// What follows from this round: frames to deal with, ends to tell.
    fn settle(&mut self) {
        for at in 0..self.clients.len() {
            while self.deal_with_frame(at) {}
        }
        let hopeless: Vec<usize> = self
            .stuck()
            .filter(|(_, left)| left.is_zero())
            .map(|(at, _)| at)
            .collect();
        for at in hopeless {
            self.clients[at].gone = true;
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
        if at == 0
            && ended
            && let Some(log) = self.log.take()
        {
            log.end();
        }
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
}

/// Has the allocator give the kernel what nobody holds.
#[cfg(target_env = "gnu")]
fn give_back() {
    // SAFETY: takes no pointers; only unused memory is given up.
    unsafe { libc::malloc_trim(0) };
}

/// Other C libraries keep little.
#[cfg(not(target_env = "gnu"))]
fn give_back() {}

pub(super) fn is_readable(output: &OwnedFd) -> bool {
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
