//! A session with a process in a container: its streams are ours, our signals are its.

use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf, copy, split, stdin},
    signal::unix::{SignalKind, signal},
    task::JoinHandle,
};

use crate::{
    daemon::Daemon,
    failure::Failure,
    keys::Keys,
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
    to: WriteHalf<TokioIo<Upgraded>>,
    interactive: bool,
    /// With a terminal: what it is left with.
    keys: Option<Keys>,
    output: Output,
    _tasks: Tasks,
    _raw: Option<Raw>,
}

/// How a session ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ended {
    /// The process has said all.
    Whole,
    /// The person has left by the keys; the process goes on.
    Left,
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
        let mut tasks = Vec::new();
        if tty {
            tasks.push(tokio::spawn(follow_size(daemon.clone(), resize.to_owned())));
        }
        Self {
            from,
            to,
            interactive,
            keys: if tty { Keys::parse(None).ok() } else { None },
            output: Output::new(tty),
            _tasks: Tasks(tasks),
            _raw: raw,
        }
    }

    /// A terminal is left with these keys.
    pub fn with_keys(mut self, keys: Keys) -> Self {
        self.keys = self.keys.map(|_| keys);
        self
    }

    /// Passes input and output on until the process ends, or the person leaves.
    pub async fn finish(mut self) -> Result<Ended, Failure> {
        let input = async {
            if self.interactive && forward_input(&mut self.to, self.keys.take()).await {
                return;
            }
            std::future::pending().await
        };
        tokio::select! {
            heard = self.output.copy(&mut self.from) => heard.map(|()| Ended::Whole),
            () = input => Ok(Ended::Left),
        }
    }
}

/// At the end of our input the container sees the end of its own; its output goes on. True: the keys were typed.
async fn forward_input(to: &mut WriteHalf<TokioIo<Upgraded>>, keys: Option<Keys>) -> bool {
    let Some(mut keys) = keys else {
        let _ = copy(&mut stdin(), to).await;
        let _ = to.shutdown().await;
        return false;
    };
    let (mut typed, mut input) = (vec![0; 4096], Vec::new());
    while let Ok(count @ 1..) = stdin().read(&mut typed).await {
        input.clear();
        if keys.take(&typed[..count], &mut input) {
            return true;
        }
        if to.write_all(&input).await.is_err() || to.flush().await.is_err() {
            break;
        }
    }
    false
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
