//! The sockets that clients come in by.

use std::{
    fs, io,
    os::unix::{
        fs::{PermissionsExt, chown},
        net::UnixStream,
    },
    path::{Path, PathBuf},
};

use nix::{sys::stat, unistd::Group};
use sluice_api::Socket;
use tokio::net::{TcpListener, UnixListener};

use crate::{Trouble, value::Host};

/// Members of this group may use the API, and so are as good as root.
const GROUP: &str = "docker";
/// Read and write, for owner and group.
const MODE: u32 = 0o660;

/// Open sockets; files of theirs go with them.
#[derive(Default)]
pub(crate) struct Sockets {
    files: Vec<PathBuf>,
}

impl Sockets {
    /// Opens one.
    pub(crate) async fn open(&mut self, host: &Host) -> Result<Socket, Trouble> {
        match host {
            Host::Unix(path) => {
                let listener =
                    listen(path).map_err(|why| Trouble::new(format_args!("listen at {}", path.display()), why))?;
                self.files.push(path.clone());
                Ok(Socket::Unix(listener))
            }
            Host::Tcp(address) => {
                let listener = TcpListener::bind(address).await;
                listener
                    .map(Socket::Tcp)
                    .map_err(|why| Trouble::new(format_args!("listen at tcp://{address}"), why))
            }
        }
    }
}

impl Drop for Sockets {
    fn drop(&mut self) {
        for file in &self.files {
            let _ = fs::remove_file(file);
        }
    }
}

fn listen(path: &Path) -> io::Result<UnixListener> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    remove_dead(path)?;
    // Nobody gets in between the making of the file and the setting of its mode.
    let before = stat::umask(stat::Mode::from_bits_truncate(0o177));
    let listener = UnixListener::bind(path);
    stat::umask(before);
    let listener = listener?;
    if let Ok(Some(group)) = Group::from_name(GROUP) {
        chown(path, None, Some(group.gid.as_raw()))?;
    }
    fs::set_permissions(path, fs::Permissions::from_mode(MODE))?;
    Ok(listener)
}

/// A socket that nobody listens at was left behind by a daemon that was killed.
fn remove_dead(path: &Path) -> io::Result<()> {
    match UnixStream::connect(path) {
        Ok(_) => Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            "another program listens there",
        )),
        Err(why) if why.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(why) => Err(why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_dead_socket_is_taken_over_and_a_live_one_is_not() {
        let directory = std::env::temp_dir().join(format!("sluiced-socket-{}", std::process::id()));
        let path = directory.join("x.sock");
        let live = listen(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, MODE);
        assert_eq!(listen(&path).unwrap_err().to_string(), "another program listens there");
        drop(live);
        assert!(listen(&path).is_ok());
        fs::remove_dir_all(directory).unwrap();
    }
}
