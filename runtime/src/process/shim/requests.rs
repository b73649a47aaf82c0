//! What clients ask of the shim, and what they are told at once.

use std::{fs, os::fd::AsFd};

use super::{
    job::{MOST_STDIN, Stage},
    serve::Shim,
};
use crate::{
    RuntimeError,
    process::{channel, tty},
    wire::{self, Kind},
};

impl Shim<'_> {
    /// Deals with the client's first frame. False: there is none, or it has to wait.
    pub fn deal_with_frame(&mut self, at: usize) -> bool {
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
}
