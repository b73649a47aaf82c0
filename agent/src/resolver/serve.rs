//! Hears questions and says answers: datagrams many at a time in one place, streams each by themselves.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    io,
    net::{IpAddr, SocketAddr},
    os::fd::AsRawFd,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{
    io::Interest,
    net::{TcpListener, TcpStream, UdpSocket},
    time::{sleep, timeout},
};

use super::{
    answer::{Decision, Question, Road, decide},
    directory::Directory,
    door::Wanted,
    forward::{Forwarder, Permit, read_message, write_message},
    servers::{HostServers, PORT},
};
use crate::{
    kernel::datagrams::{self, Ends, Room},
    measure::Measures,
    reconcile::lock,
};

/// A stream on which nothing is asked for so long is closed.
const IDLE: Duration = Duration::from_secs(10);
/// Streams of one address, and of all, at a time.
const STREAMS_OF_ONE: usize = 16;
const STREAMS_OF_ALL: usize = 512;
/// So many batches are taken from the socket at a time, and so many questions answered before it is looked again.
const BATCHES: usize = 64;
const ANSWERS: usize = 128;
/// So many questions of one address wait at a time: no fewer than the datapath lets through at once.
const WAITING_OF_ONE: usize = 2 * super::QUESTIONS_PER_TICK as usize;

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
    measures: Arc<Measures>,
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
    pub fn new(directory: Directory, host: HostServers, measures: Arc<Measures>) -> Self {
        Self {
            directory: RwLock::new(directory),
            forwarder: Arc::default(),
            host: Mutex::new(host),
            turn: AtomicUsize::new(0),
            streams: Mutex::default(),
            measures,
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

    async fn run(&self, errand: Errand, came: Instant) -> Option<Vec<u8>> {
        let answer = self
            .forwarder
            .ask(&errand.question, &errand.bytes, &errand.servers, errand.road)
            .await;
        self.measures.forwarded(came.elapsed());
        answer.or_else(|| errand.question.failure())
    }

    /// Changes who is called what.
    pub fn change(&self, change: impl FnOnce(&mut Directory)) {
        change(&mut self.directory.write().unwrap_or_else(PoisonError::into_inner));
    }

    /// The sandboxes that are to have doors of their own.
    pub fn doors(&self) -> BTreeMap<String, Wanted> {
        let directory = self.directory.read().unwrap_or_else(PoisonError::into_inner);
        directory.doors()
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

/// Answers datagrams for ever. What has come is taken from the socket before any of it is answered, and who asks much waits for those who ask little.
/// `asker`: as whom all of them ask; none: who asks is known by the address it asks from.
pub async fn datagrams(desk: Arc<Desk>, socket: UdpSocket, asker: Option<IpAddr>) {
    let socket = Arc::new(socket);
    let (mut room, mut waiting) = (Room::new(), Waiting::default());
    loop {
        if let Err(error) = take(&socket, &mut room, &mut waiting).await {
            tracing::warn!(%error, "cannot hear questions for names");
            sleep(Duration::from_secs(1)).await;
        }
        for _ in 0..ANSWERS {
            match waiting.next() {
                Some(question) => answer(&desk, &socket, asker, &question),
                None => break,
            }
        }
        tokio::task::yield_now().await;
    }
}

/// Takes what waits at the socket; waits for it only when there is nothing else to do.
async fn take(socket: &UdpSocket, room: &mut Room, waiting: &mut Waiting) -> io::Result<()> {
    if waiting.is_empty() {
        socket.readable().await?;
    }
    for _ in 0..BATCHES {
        let fd = socket.as_raw_fd();
        let taken = socket.try_io(Interest::READABLE, || {
            room.receive(fd, |ends, bytes| waiting.put(ends, bytes))
        });
        match taken {
            Ok(count) if count == datagrams::BATCH => {}
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
            _ => break,
        }
    }
    Ok(())
}

fn answer(desk: &Arc<Desk>, socket: &Arc<UdpSocket>, asker: Option<IpAddr>, question: &Datagram) {
    let (ends, came) = (question.ends, question.came);
    match desk.fate(asker.unwrap_or(ends.from.ip()), &question.bytes, Road::Datagram) {
        Fate::Said(answer) => {
            say(socket, ends, &answer);
            desk.measures.told(came.elapsed());
        }
        Fate::Asked(errand) => {
            let (desk, socket) = (desk.clone(), socket.clone());
            tokio::spawn(async move {
                if let Some(answer) = desk.run(*errand, came).await {
                    say(&socket, ends, &answer);
                }
            });
        }
        Fate::Ignored => {}
    }
}

/// A question that came as a datagram.
struct Datagram {
    ends: Ends,
    bytes: Vec<u8>,
    came: Instant,
}

/// Questions that have come and are not answered yet, by who asks. One of each is taken in turn.
#[derive(Default)]
struct Waiting {
    turns: VecDeque<IpAddr>,
    questions: HashMap<IpAddr, VecDeque<Datagram>>,
}

impl Waiting {
    fn is_empty(&self) -> bool {
        self.turns.is_empty()
    }

    /// Who has too many waiting loses the new one.
    fn put(&mut self, ends: Ends, bytes: &[u8]) {
        let asker = ends.from.ip();
        let questions = self.questions.entry(asker).or_default();
        if questions.is_empty() {
            self.turns.push_back(asker);
        }
        if questions.len() < WAITING_OF_ONE {
            questions.push_back(Datagram {
                ends,
                bytes: bytes.to_vec(),
                came: Instant::now(),
            });
        }
    }

    fn next(&mut self) -> Option<Datagram> {
        let asker = self.turns.pop_front()?;
        let questions = self.questions.get_mut(&asker)?;
        let question = questions.pop_front();
        if questions.is_empty() {
            self.questions.remove(&asker);
        } else {
            self.turns.push_back(asker);
        }
        question
    }
}

/// An answer that cannot be sent is lost as any datagram may be.
fn say(socket: &UdpSocket, ends: Ends, answer: &[u8]) {
    if let Err(error) = datagrams::answer(socket.as_raw_fd(), ends, answer) {
        tracing::debug!(%error, to = %ends.from, "cannot answer");
    }
}

/// Answers streams for ever; `asker` as with datagrams.
pub async fn streams(desk: Arc<Desk>, listener: TcpListener, asker: Option<IpAddr>) {
    loop {
        match listener.accept().await {
            // one too many is closed
            Ok((stream, from)) => {
                if let Some(admitted) = desk.admit_stream(asker.unwrap_or(from.ip())) {
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
            let came = Instant::now();
            let answer = match self.desk.fate(self.from, &bytes, Road::Stream) {
                Fate::Said(answer) => {
                    self.desk.measures.told(came.elapsed());
                    Some(answer)
                }
                Fate::Asked(errand) => self.desk.run(*errand, came).await,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_much_waits_for_who_asks_little() {
        let ends = |last: u8| Ends {
            from: SocketAddr::new(IpAddr::from([172, 17, 0, last]), 4000),
            to: IpAddr::from([172, 17, 0, 1]),
        };
        let mut waiting = Waiting::default();
        for number in 0..WAITING_OF_ONE + 100 {
            waiting.put(ends(2), &number.to_be_bytes());
        }
        waiting.put(ends(3), b"one");
        waiting.put(ends(4), b"one");
        let first: Vec<_> = (0..4)
            .filter_map(|_| waiting.next())
            .map(|question| question.ends)
            .collect();
        assert_eq!(first, [ends(2), ends(3), ends(4), ends(2)]);
        let mut left = 0;
        while let Some(question) = waiting.next() {
            left += 1;
            assert_ne!(question.bytes, b"one");
        }
        assert_eq!(left, WAITING_OF_ONE - 2);
        assert!(waiting.is_empty() && waiting.questions.is_empty());
    }
}
