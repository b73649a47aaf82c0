//! Sockets that are served.

use axum::Router;
use tokio::net::{TcpListener, UnixListener};

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
    match socket {
        Socket::Unix(listener) => axum::serve(listener, router).await,
        Socket::Tcp(listener) => axum::serve(listener, router).await,
    }
}
