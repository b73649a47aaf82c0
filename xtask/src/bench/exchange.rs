//! Many flows at once: datagrams between two containers, each answered once. Run inside an engine's host, by `scale`.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::time::Duration;

use clap::Args;
use nix::sched::{CloneFlags, setns};

use crate::step::{Doing, Failure, Outcome};

/// The first port of either side.
const FIRST_PORT: u16 = 10_000;
/// How many ports the answering side has.
const ANSWERING: u16 = 500;
/// Datagrams on their way at a time: no socket's buffer overflows.
const AT_ONCE: usize = 100;

/// Exchange datagrams between the networks of two processes.
#[derive(Args)]
pub struct Exchange {
    /// How many flows, one port pair each.
    #[arg(long)]
    flows: u32,
    /// A process in the network that asks.
    #[arg(long)]
    from: u32,
    /// A process in the network that answers.
    #[arg(long)]
    to: u32,
    /// The address of the one that answers.
    #[arg(long)]
    address: Ipv4Addr,
}

/// The ports of the answering side, as they are exposed.
pub fn answering_ports() -> String {
    format!("{FIRST_PORT}-{}/udp", FIRST_PORT + ANSWERING - 1)
}

impl Exchange {
    /// Makes the flows; fails when not every datagram was answered.
    pub fn run(&self) -> Outcome {
        let asking_ports = u16::try_from(self.flows.div_ceil(u32::from(ANSWERING)))
            .map_err(|_| Failure::new("more flows than there are pairs of ports"))?;
        let answering = sockets(self.to, ANSWERING)?;
        let asking = sockets(self.from, asking_ports)?;
        let mut answered: u32 = 0;
        for client in &asking {
            for servers in answering.chunks(AT_ONCE) {
                for server in servers {
                    let port = server
                        .local_addr()
                        .doing(|| String::from("ask a socket its port"))?
                        .port();
                    client
                        .send_to(b"?", SocketAddrV4::new(self.address, port))
                        .doing(|| String::from("send a datagram"))?;
                }
                for server in servers {
                    let mut question = [0];
                    let (_, asker) = server.recv_from(&mut question).doing(|| lost(answered))?;
                    server
                        .send_to(b"!", asker)
                        .doing(|| String::from("answer a datagram"))?;
                }
                for _ in servers {
                    let mut answer = [0];
                    client.recv_from(&mut answer).doing(|| lost(answered))?;
                    answered += 1;
                }
            }
        }
        Ok(())
    }
}

/// The first datagram that does not arrive ends it all.
fn lost(answered: u32) -> String {
    format!("a datagram did not arrive, after {answered} that were answered")
}

/// Sockets at consecutive ports in the network of a process. A socket stays in the network it was made in.
fn sockets(process: u32, count: u16) -> Outcome<Vec<UdpSocket>> {
    let path = format!("/proc/{process}/ns/net");
    let network = File::open(&path).doing(|| format!("open {path}"))?;
    setns(network, CloneFlags::CLONE_NEWNET).doing(|| format!("enter {path}"))?;
    (0..count)
        .map(|number| {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, FIRST_PORT + number))?;
            socket.set_read_timeout(Some(Duration::from_secs(1)))?;
            Ok(socket)
        })
        .collect::<std::io::Result<_>>()
        .doing(|| format!("open {count} sockets in {path}"))
}
