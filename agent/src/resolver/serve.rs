//! Hears questions and says answers: datagrams many at a time in one place, streams each by themselves.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    os::fd::AsRawFd,
    sync::{
        Arc, Mutex, RwLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::Interest,
    net::{TcpListener, TcpStream, UdpSocket},
    time::{sleep, timeout},
};

use super::{
    answer::{Decision, Question, Road, decide},
    directory::Directory,
    forward::{Forwarder, Permit, read_message, write_message},
    servers::{HostServers, PORT},
};
use crate::{
    kernel::datagrams::{self, Ends, Room},
    reconcile::lock,
};

/// A stream on which nothing is asked for so long is closed.
const IDLE: Duration = Duration::from_secs(10);
/// Streams of one address, and of all, at a time.
const STREAMS_OF_ONE: usize = 16;
const STREAMS_OF_ALL: usize = 512;
/// After so many batches others have their turn.
const BATCHES: usize = 4;

/// What every answer needs.
#[derive(Debug)]
pub struct Desk {
    /// Who is called what.
    pub directory: RwLock<Directory>,
    forwarder: Arc<Forwarder>,
    host: Mutex<HostServers>,
    /// Grows with each answer.
    turn: AtomicUsize,
    /// Streams by the address they come from.
    streams: Mutex<HashMap<IpAddr, usize>>,
}

/// What becomes of a question.
enum Fate {
    Said(Vec<u8>),
    Asked(Box<Errand>),
    Ignored,
}

/// A question that others are asked.
struct Errand {
    question: Question,
    bytes: Vec<u8>,
    servers: Vec<SocketAddr>,
    road: Road,
    _permit: Permit,
}

impl Desk {
    /// Answers about these names; the rest is asked of those whom the host asks.
    pub fn new(directory: Directory, host: HostServers) -> Self {
        Self {
            directory: RwLock::new(directory),
            forwarder: Arc::default(),
            host: Mutex::new(host),
            turn: AtomicUsize::new(0),
            streams: Mutex::default(),
        }
    }

    fn fate(&self, from: IpAddr, bytes: &[u8], road: Road) -> Fate {
        let directory = self.directory.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        let asker = directory.asker(from);
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let question = match decide(asker, bytes, road, turn) {
            Decision::Say(answer) => return Fate::Said(answer),
            Decision::Ignore => return Fate::Ignored,
            Decision::Ask(question) => question,
        };
        let permit = asker
            .filter(|asker| asker.may_ask_outside())
            .and_then(|asker| Some((asker, self.forwarder.admit(asker.sandbox)?)));
        let Some((asker, permit)) = permit else {
            return question.failure().map_or(Fate::Ignored, Fate::Said);
        };
        let wished = asker.wish().servers;
        let servers = match wished.is_empty() {
            true => lock(&self.host).current().to_vec(),
            false => wished.into_iter().map(|server| SocketAddr::new(server, PORT)).collect(),
        };
        Fate::Asked(Box::new(Errand {
            question,
            bytes: bytes.to_vec(),
            servers,
            road,
            _permit: permit,
        }))
    }

    async fn run(&self, errand: Errand) -> Option<Vec<u8>> {
        let answer = self
            .forwarder
            .ask(&errand.question, &errand.bytes, &errand.servers, errand.road)
            .await;
        answer.or_else(|| errand.question.failure())
    }

    fn admit_stream(self: &Arc<Self>, from: IpAddr) -> Option<Stream> {
        let mut streams = lock(&self.streams);
        let of_all: usize = streams.values().sum();
        let of_one = streams.entry(from).or_default();
        if *of_one >= STREAMS_OF_ONE || of_all >= STREAMS_OF_ALL {
            return None;
        }
        *of_one += 1;
        Some(Stream {
            desk: self.clone(),
            from,
        })
    }
}

/// Answers datagrams for ever.
pub async fn datagrams(desk: Arc<Desk>, socket: UdpSocket) {
    let socket = Arc::new(socket);
    let mut room = Room::new();
    loop {
        for _ in 0..BATCHES {
            match batch(&desk, &socket, &mut room).await {
                Ok(()) => {}
                Err(error) => {
                    tracing::warn!(%error, "cannot hear questions for names");
                    sleep(Duration::from_secs(1)).await;
                }
            }
        }
        tokio::task::yield_now().await;
    }
}

async fn batch(desk: &Arc<Desk>, socket: &Arc<UdpSocket>, room: &mut Room) -> io::Result<()> {
    socket.readable().await?;
    let heard = socket.try_io(Interest::READABLE, || {
        let fd = socket.as_raw_fd();
        room.receive(fd, |ends, bytes| {
            match desk.fate(ends.from.ip(), bytes, Road::Datagram) {
                Fate::Said(answer) => say(socket, ends, &answer),
                Fate::Asked(errand) => {
                    let (desk, socket) = (desk.clone(), socket.clone());
                    tokio::spawn(async move {
                        if let Some(answer) = desk.run(*errand).await {
                            say(&socket, ends, &answer);
                        }
                    });
                }
                Fate::Ignored => {}
            }
        })
    });
    match heard {
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
        _ => Ok(()),
    }
}

/// An answer that cannot be sent is lost as any datagram may be.
fn say(socket: &UdpSocket, ends: Ends, answer: &[u8]) {
    if let Err(error) = datagrams::answer(socket.as_raw_fd(), ends, answer) {
        tracing::debug!(%error, to = %ends.from, "cannot answer");
    }
}

/// Answers streams for ever.
pub async fn streams(desk: Arc<Desk>, listener: TcpListener) {
    loop {
        match listener.accept().await {
            // one too many is closed
            Ok((stream, from)) => {
                if let Some(admitted) = desk.admit_stream(from.ip()) {
                    tokio::spawn(admitted.answer(stream));
                }
            }
            Err(error) => {
                tracing::warn!(%error, "cannot take connections with questions for names");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// A stream among those that are answered.
struct Stream {
    desk: Arc<Desk>,
    from: IpAddr,
}

impl Stream {
    /// One question after the other.
    async fn answer(self, mut stream: TcpStream) {
        while let Ok(Ok(bytes)) = timeout(IDLE, read_message(&mut stream)).await {
            let answer = match self.desk.fate(self.from, &bytes, Road::Stream) {
                Fate::Said(answer) => Some(answer),
                Fate::Asked(errand) => self.desk.run(*errand).await,
                Fate::Ignored => None,
            };
            let Some(answer) = answer else { return };
            match timeout(IDLE, write_message(&mut stream, &answer)).await {
                Ok(Ok(())) => {}
                _ => return,
            }
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let mut streams = lock(&self.desk.streams);
        if let Some(count) = streams.get_mut(&self.from) {
            *count -= 1;
            if *count == 0 {
                streams.remove(&self.from);
            }
        }
    }
}
