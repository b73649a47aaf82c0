//! Asks others what is none of our names: the servers in turn, each question by itself, so that a slow server keeps nobody else waiting.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use hickory_proto::op::ResponseCode;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    time::{sleep, timeout_at},
};

use super::answer::{Question, Road};
use crate::reconcile::lock;

/// A server that has not answered for so long is not waited for alone any more: the next one is asked too, and the first answer is taken.
const PATIENCE: Duration = Duration::from_millis(1000);
/// After so long nobody will answer; the C library asks again after five seconds.
const LIMIT: Duration = Duration::from_millis(4500);
/// For so long a server that left a question unanswered stands behind the others.
const REMEMBERED: Duration = Duration::from_secs(10);
/// The largest datagram that is taken for an answer.
const LARGEST: usize = 4096;
/// Questions of one sandbox, and of all, that others are being asked at a time.
const OF_ONE: usize = 128;
const OF_ALL: usize = 1024;

/// What is known of servers, and how much they are being asked.
#[derive(Default, Debug)]
pub struct Forwarder {
    /// When a server last left a question unanswered.
    silent: Mutex<HashMap<SocketAddr, Instant>>,
    /// Questions that are being asked, by sandbox.
    asked: Mutex<HashMap<String, usize>>,
}

/// A question's place among those that are being asked.
#[derive(Debug)]
pub struct Permit {
    forwarder: Arc<Forwarder>,
    sandbox: String,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut asked = lock(&self.forwarder.asked);
        if let Some(count) = asked.get_mut(&self.sandbox) {
            *count -= 1;
            if *count == 0 {
                asked.remove(&self.sandbox);
            }
        }
    }
}

impl Forwarder {
    /// A place for one more question of a sandbox; none: it, or all of them together, are asking as much as they may.
    pub fn admit(self: &Arc<Self>, sandbox: &str) -> Option<Permit> {
        let mut asked = lock(&self.asked);
        let of_all: usize = asked.values().sum();
        let of_this = asked.get(sandbox).copied().unwrap_or(0);
        // the last places are for those who ask little
        if of_this >= OF_ONE || of_all >= OF_ALL || (of_all >= OF_ALL / 2 && of_this >= OF_ONE / 8) {
            return None;
        }
        asked.insert(sandbox.to_owned(), of_this + 1);
        Some(Permit {
            forwarder: self.clone(),
            sandbox: sandbox.to_owned(),
        })
    }

    /// Asks the servers what `bytes` ask, by the road on which the question came. None: nobody has answered.
    pub async fn ask(&self, question: &Question, bytes: &[u8], servers: &[SocketAddr], road: Road) -> Option<Vec<u8>> {
        let mut waiting = self.order(servers).into_iter();
        let limit = tokio::time::Instant::now() + LIMIT;
        let mut running = FuturesUnordered::new();
        let mut last_resort = None;
        loop {
            match waiting.next() {
                Some(server) => running.push(ask_one(question, bytes, server, road, limit)),
                None if running.is_empty() => break,
                None => {}
            }
            let patience = match waiting.len() {
                0 => LIMIT,
                _ => PATIENCE,
            };
            tokio::select! {
                outcome = running.next() => match outcome {
                    Some((server, Ok((code, answer)))) => {
                        lock(&self.silent).remove(&server);
                        // it knows no better, another may
                        if matches!(code, ResponseCode::ServFail | ResponseCode::Refused | ResponseCode::NotImp) {
                            last_resort.get_or_insert(answer);
                            continue;
                        }
                        return Some(answer);
                    }
                    Some((server, Err(_))) => drop(lock(&self.silent).insert(server, Instant::now())),
                    None => break,
                },
                () = sleep(patience) => {}
            }
        }
        last_resort
    }

    /// Those who answer before those who lately did not; else as they stand.
    fn order(&self, servers: &[SocketAddr]) -> Vec<SocketAddr> {
        let mut silent = lock(&self.silent);
        silent.retain(|_, since| since.elapsed() < REMEMBERED);
        let (late, prompt): (Vec<_>, Vec<_>) = servers.iter().copied().partition(|server| silent.contains_key(server));
        prompt.into_iter().chain(late).collect()
    }
}

type Outcome = io::Result<(ResponseCode, Vec<u8>)>;

async fn ask_one(
    question: &Question,
    bytes: &[u8],
    server: SocketAddr,
    road: Road,
    limit: tokio::time::Instant,
) -> (SocketAddr, Outcome) {
    // our own id and, for datagrams, a port of our own: an answer is hard to guess
    let id: u16 = rand::random();
    let mut asked = bytes.to_vec();
    asked[..2].copy_from_slice(&id.to_be_bytes());
    let exchange = async {
        match road {
            Road::Datagram => by_datagram(question, &asked, id, server).await,
            Road::Stream => by_stream(question, &asked, id, server).await,
        }
    };
    let outcome = match timeout_at(limit, exchange).await {
        Ok(outcome) => outcome,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    };
    let outcome = outcome.map(|(code, mut answer)| {
        answer[..2].copy_from_slice(&question.id.to_be_bytes());
        (code, answer)
    });
    (server, outcome)
}

async fn by_datagram(question: &Question, bytes: &[u8], id: u16, server: SocketAddr) -> Outcome {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(bytes).await?;
    loop {
        // the room is taken only when there is something to put there
        socket.readable().await?;
        let mut answer = Vec::with_capacity(LARGEST);
        match socket.try_recv_buf(&mut answer) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        }
        // what is no answer to this question is somebody's guess
        if let Some(code) = question.is_answered_by(&answer, id) {
            answer.shrink_to_fit();
            return Ok((code, answer));
        }
    }
}

async fn by_stream(question: &Question, bytes: &[u8], id: u16, server: SocketAddr) -> Outcome {
    let mut stream = TcpStream::connect(server).await?;
    write_message(&mut stream, bytes).await?;
    let answer = read_message(&mut stream).await?;
    match question.is_answered_by(&answer, id) {
        Some(code) => Ok((code, answer)),
        None => Err(io::Error::new(io::ErrorKind::InvalidData, "it answers something else")),
    }
}

/// Writes a message to a stream, after its length (RFC 1035, 4.2.2).
pub async fn write_message(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
    let length = u16::try_from(bytes.len()).map_err(|_| io::ErrorKind::InvalidData)?;
    let mut framed = Vec::with_capacity(bytes.len() + 2);
    framed.extend(length.to_be_bytes());
    framed.extend(bytes);
    stream.write_all(&framed).await
}

/// Reads one.
pub async fn read_message(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let length = stream.read_u16().await?;
    let mut bytes = vec![0; usize::from(length)];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}
