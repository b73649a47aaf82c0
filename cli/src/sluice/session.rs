//! A session with a process in a container: its streams are ours, our signals are its.

use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncWriteExt, ReadHalf, WriteHalf, copy, split, stdin},
    signal::unix::{SignalKind, signal},
    task::JoinHandle,
};

use crate::{
    daemon::Daemon,
    failure::Failure,
    output::Output,
    query::{query, segment},
    terminal::{self, Raw},
};

/// Signals that go on to the container's first process.
const FORWARDED: [(libc::c_int, &str); 7] = [
    (libc::SIGHUP, "HUP"),
    (libc::SIGINT, "INT"),
    (libc::SIGQUIT, "QUIT"),
    (libc::SIGTERM, "TERM"),
    (libc::SIGUSR1, "USR1"),
    (libc::SIGUSR2, "USR2"),
    (libc::SIGALRM, "ALRM"),
];

/// A connection that carries the streams.
pub struct Session {
    from: ReadHalf<TokioIo<Upgraded>>,
    output: Output,
    _tasks: Tasks,
    _raw: Option<Raw>,
}

/// Ended with the session.
struct Tasks(Vec<JoinHandle<()>>);

impl Drop for Tasks {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}

impl Session {
    /// Begins to forward our input, when `interactive`. With a terminal, ours becomes raw and its size the one of `resize` (a path of the API).
    pub fn begin(connection: TokioIo<Upgraded>, daemon: &Daemon, tty: bool, interactive: bool, resize: &str) -> Self {
        let (from, to) = split(connection);
        let raw = if tty && interactive { Raw::enter() } else { None };
        // also without input: dropping the writing half would not end it, but nobody may write either
        let mut tasks = vec![tokio::spawn(forward_input(to, interactive))];
        if tty {
            tasks.push(tokio::spawn(follow_size(daemon.clone(), resize.to_owned())));
        }
        Self {
            from,
            output: Output::new(tty),
            _tasks: Tasks(tasks),
            _raw: raw,
        }
    }

    /// Passes the output on until the process ends.
    pub async fn finish(mut self) -> Result<(), Failure> {
        self.output.copy(&mut self.from).await
    }
}

/// At the end of our input the container sees the end of its own; its output goes on.
async fn forward_input(mut to: WriteHalf<TokioIo<Upgraded>>, interactive: bool) {
    if interactive {
        let _ = copy(&mut stdin(), &mut to).await;
        let _ = to.shutdown().await;
    } else {
        std::future::pending::<()>().await;
    }
}

async fn follow_size(daemon: Daemon, resize: String) {
    let Ok(mut changes) = signal(SignalKind::window_change()) else {
        return;
    };
    loop {
        if let Some((rows, columns)) = terminal::size() {
            let size = query(&[("h", &rows.to_string()), ("w", &columns.to_string())]);
            // before the start there is nothing to resize
            for _ in 0..10 {
                if daemon.post(&format!("{resize}{size}")).await.is_ok() {
                    break;
                }
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        }
        if changes.recv().await.is_none() {
            return;
        }
    }
}

/// Forwards signals to the container until dropped.
pub struct Signals {
    _tasks: Tasks,
}

impl Signals {
    /// Begins now.
    pub fn forward(daemon: &Daemon, container: &str) -> Self {
        let tasks = FORWARDED.iter().filter_map(|(number, name)| {
            let mut signals = signal(SignalKind::from_raw(*number)).ok()?;
            let (daemon, path) = (
                daemon.clone(),
                format!("/containers/{}/kill?signal={name}", segment(container)),
            );
            Some(tokio::spawn(async move {
                while signals.recv().await.is_some() {
                    let _ = daemon.post(&path).await; // gone already, which is what was wanted
                }
            }))
        });
        Self {
            _tasks: Tasks(tasks.collect()),
        }
    }
}
