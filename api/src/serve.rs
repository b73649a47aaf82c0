//! Sockets that are served, and the clients at their other ends.

use std::{
    io::ErrorKind,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
};

use axum::{
    Router,
    extract::{
        Request,
        connect_info::{ConnectInfo, Connected},
    },
    serve::IncomingStream,
};
use tokio::{
    io::Interest,
    net::{TcpListener, UnixListener, UnixStream},
};

/// Where clients come in.
#[derive(Debug)]
pub enum Socket {
    /// A path of this host.
    Unix(UnixListener),
    /// An address.
    Tcp(TcpListener),
}

/// Answers on a socket until the task that does so is dropped. Each connection is a task of its own.
pub async fn serve(socket: Socket, router: Router) -> std::io::Result<()> {
    let service = router.into_make_service_with_connect_info::<Peer>();
    match socket {
        Socket::Unix(listener) => axum::serve(listener, service).await,
        Socket::Tcp(listener) => axum::serve(listener, service).await,
    }
}

/// The other end of a connection.
#[derive(Clone, Debug)]
pub(crate) struct Peer(Option<Arc<OwnedFd>>);

// === impl Peer ===

impl Peer {
    /// Who sent a request.
    pub(crate) fn of(request: &Request) -> Self {
        request
            .extensions()
            .get::<ConnectInfo<Self>>()
            .map_or(Self(None), |peer| peer.0.clone())
    }

    fn holding(connection: &UnixStream) -> Self {
        Self(connection.as_fd().try_clone_to_owned().ok().map(Arc::new))
    }

    /// Returns when the client has closed its end whole, not only its half; never when that cannot be known (TCP tells only on the next write).
    /// A client that listens to a silent process is missed by no read and no write.
    pub(crate) async fn hung_up(self) {
        let Some(watched) = self.watched() else {
            return std::future::pending().await;
        };
        loop {
            match watched.ready(Interest::WRITABLE).await {
                Ok(ready) if ready.is_write_closed() => return,
                // Being writable is no news: it is put aside until something changes, and the end is a change.
                Ok(_) => drop(watched.try_io(Interest::WRITABLE, || Err::<(), _>(ErrorKind::WouldBlock.into()))),
                Err(_) => return,
            }
        }
    }

    /// Returns when the client has taken all that was written to it, at once when that cannot be known.
    pub(crate) async fn has_read_all(&self) {
        let Some(watched) = self.watched() else { return };
        while sluice_runtime::unread(&watched).is_some_and(|bytes| bytes > 0) {
            match watched.ready(Interest::WRITABLE).await {
                Ok(ready) if ready.is_write_closed() => return,
                // As above. The kernel tells of each buffer that was taken.
                Ok(_) => drop(watched.try_io(Interest::WRITABLE, || Err::<(), _>(ErrorKind::WouldBlock.into()))),
                Err(_) => return,
            }
        }
    }

    fn watched(&self) -> Option<UnixStream> {
        let connection = std::os::unix::net::UnixStream::from(self.0.as_ref()?.try_clone().ok()?);
        UnixStream::from_std(connection).ok()
    }
}

impl Connected<IncomingStream<'_, UnixListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        Self::holding(stream.io())
    }
}

impl Connected<IncomingStream<'_, TcpListener>> for Peer {
    fn connect_info(_: IncomingStream<'_, TcpListener>) -> Self {
        Self(None)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        time::timeout,
    };

    use super::*;

    #[tokio::test]
    async fn a_half_close_is_no_hanging_up_and_a_close_is() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let hung_up = tokio::spawn(Peer::holding(&ours).hung_up());
        theirs.shutdown().await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(!hung_up.is_finished());
        drop(theirs);
        timeout(Duration::from_secs(5), hung_up).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn what_was_written_is_waited_for_until_it_is_read() {
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        let peer = Peer::holding(&ours);
        timeout(Duration::from_secs(5), peer.has_read_all()).await.unwrap();
        ours.write_all(b"head").await.unwrap();
        let read = tokio::spawn(async move { peer.has_read_all().await });
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(!read.is_finished());
        theirs.read_exact(&mut [0; 4]).await.unwrap();
        timeout(Duration::from_secs(5), read).await.unwrap().unwrap();
    }
}
