//! Connects clients to a container's streams, also before there is a process: `docker run` attaches, then starts.

use std::sync::PoisonError;

use sluice_model::container::Phase;
use sluice_runtime::{Attachment, Stream};
use tokio::{
    io::{AsyncWriteExt, DuplexStream},
    sync::mpsc,
};

use crate::{Engine, EngineError, container::held::Held};

/// Bytes of stdin that wait for a process that does not read.
const STDIN_BUFFER: usize = 64 * 1024;
/// Chunks of output that wait for a client that does not read.
const OUTPUT_BUFFER: usize = 16;

/// A client that attached before there was a process: the far ends of what it was given.
pub(crate) struct EarlyClient {
    stdin: Option<DuplexStream>,
    output: mpsc::Sender<(Stream, Vec<u8>)>,
}

impl Engine {
    /// Connects to its streams. Works on a created container (docker run attaches before it starts).
    pub async fn attach_container(&self, name: &str) -> Result<Attachment, EngineError> {
        let held = self.containers.find(name)?;
        // a start that is on its way must not finish between our look and our entry among the early clients
        let _story = held.story.lock().await;
        let container = held.record();
        match container.state.phase {
            Phase::Running => {
                self.tell(&held, "attach", &[]);
                Ok(self.runtime.attach(held.id.as_str()).await?)
            }
            Phase::Paused => Err(EngineError::conflict(format!(
                "container {} is paused, unpause the container before attach",
                held.id
            ))),
            Phase::Restarting => Err(is_restarting(&held)),
            Phase::Created | Phase::Exited => {
                self.tell(&held, "attach", &[]);
                let (attachment, early) = prepare(container.config.open_stdin);
                held.early.lock().unwrap_or_else(PoisonError::into_inner).push(early);
                Ok(attachment)
            }
            Phase::Removing | Phase::Dead => Err(EngineError::conflict(format!(
                "container {} is marked for removal",
                held.id
            ))),
        }
    }

    /// Sets the terminal's size.
    pub async fn resize_container(&self, name: &str, rows: u16, columns: u16) -> Result<(), EngineError> {
        let held = self.containers.find(name)?;
        if !held.look(|container| container.state.is_alive()) {
            return Err(EngineError::conflict(format!("Container {} is not running", held.id)));
        }
        self.runtime.resize(held.id.as_str(), None, rows, columns).await?;
        let size = [("height", rows.to_string()), ("width", columns.to_string())];
        self.tell(&held, "resize", &size);
        Ok(())
    }

    /// A client has left by its detach keys.
    pub fn client_detached(&self, name: &str) {
        if let Ok(held) = self.containers.find(name) {
            self.tell(&held, "detach", &[]);
        }
    }

    /// Joins those who attached early to the process, which waits to be started.
    pub(crate) async fn join_early_clients(&self, held: &Held) {
        let early = std::mem::take(&mut *held.early.lock().unwrap_or_else(PoisonError::into_inner));
        for client in early {
            match self.runtime.attach(held.id.as_str()).await {
                Ok(attachment) => join(client, attachment),
                Err(error) => tracing::warn!("a client of container {} can't be attached: {error}", held.id),
            }
        }
    }
}

/// Docker's words for what has no process now but will have one soon.
pub(crate) fn is_restarting(held: &Held) -> EngineError {
    EngineError::conflict(format!(
        "Container {} is restarting, wait until the container is running",
        held.id
    ))
}

fn prepare(stdin: bool) -> (Attachment, EarlyClient) {
    let (output, from_process) = mpsc::channel(OUTPUT_BUFFER);
    let (near, far) = if stdin {
        let (near, far) = tokio::io::duplex(STDIN_BUFFER);
        (Some(Box::new(near) as Box<_>), Some(far))
    } else {
        (None, None)
    };
    (
        Attachment {
            stdin: near,
            output: from_process,
        },
        EarlyClient { stdin: far, output },
    )
}

/// Passes bytes on in both directions until either side ends.
fn join(client: EarlyClient, attachment: Attachment) {
    if let (Some(mut from), Some(mut to)) = (client.stdin, attachment.stdin) {
        tokio::spawn(async move {
            // who ended first does not matter: the end of input is passed on, a process that reads no more is no error
            let _ = tokio::io::copy(&mut from, &mut to).await;
            let _ = to.shutdown().await;
        });
    }
    let mut output = attachment.output;
    tokio::spawn(async move {
        while let Some(chunk) = output.recv().await {
            if client.output.send(chunk).await.is_err() {
                return;
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn an_early_client_is_joined_to_the_process_that_comes_later() {
        let (mut client, early) = prepare(true);
        let (to_process, mut stdin) = tokio::io::duplex(64);
        let (says, output) = mpsc::channel(1);
        client.stdin.as_mut().unwrap().write_all(b"typed early").await.unwrap();
        join(
            early,
            Attachment {
                stdin: Some(Box::new(to_process)),
                output,
            },
        );
        client.stdin.take().unwrap().shutdown().await.unwrap();
        let mut read = String::new();
        stdin.read_to_string(&mut read).await.unwrap();
        assert_eq!(read, "typed early", "and then the end of input");
        says.send((Stream::Stdout, b"hello".to_vec())).await.unwrap();
        assert_eq!(client.output.recv().await.unwrap().1, b"hello");
        drop(says);
        assert!(client.output.recv().await.is_none());
    }

    #[tokio::test]
    async fn an_early_client_of_a_start_that_failed_sees_the_end() {
        let (mut client, early) = prepare(false);
        drop(early);
        assert!(client.stdin.is_none() && client.output.recv().await.is_none());
    }
}
