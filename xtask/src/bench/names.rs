//! Questions for names, at a rate that is kept whatever comes back: `cargo xtask bench --only dns`. What is measured is how many are answered, and how soon.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;

use super::engine::{Engine, Kind};
use super::interrupt;
use super::sample::median;
use super::table::Table;
use crate::step::{self, Doing, Failure, Outcome, say};

/// Questions per second.
const RATES: [u32; 4] = [1_000, 5_000, 20_000, 24_000];
/// What is to be reached: at this rate 99 of 100 are answered within so many microseconds, and all are answered.
const WANTED: (u32, f64) = (20_000, 2_000.0);
const NETWORK: &str = "named";
const ASKER: &str = "asker";
const ASKED: &str = "asked";

/// Ask for a name at a steady rate, and say how it went. Run in a container's network.
#[derive(Args)]
pub struct Ask {
    #[arg(long, default_value = "127.0.0.11:53")]
    server: SocketAddr,
    #[arg(long)]
    name: String,
    /// Questions per second.
    #[arg(long)]
    rate: u32,
    #[arg(long, default_value_t = 2)]
    seconds: u32,
}

/// What came of it.
#[derive(Clone, Copy, Default)]
struct Answers {
    /// Share of the questions that were answered.
    share: f64,
    /// Microseconds.
    middle: f64,
    /// Microseconds within which 99 of 100 were answered.
    late: f64,
}

impl Ask {
    /// Prints the share that was answered, the median and the 99th percentile.
    pub fn run(&self) -> Outcome {
        let socket = UdpSocket::bind("0.0.0.0:0").doing(|| String::from("open a socket"))?;
        socket
            .connect(self.server)
            .doing(|| format!("connect to {}", self.server))?;
        socket
            .set_read_timeout(Some(Duration::from_millis(100)))
            .doing(|| String::from("set a timeout"))?;
        // By id, when it was asked: ns since the beginning. An answer is long there when its id is used again.
        let asked: Vec<AtomicU64> = (0..=u16::MAX).map(|_| AtomicU64::new(0)).collect();
        let (begun, ended) = (Instant::now(), AtomicBool::new(false));
        let mut late = thread::scope(|scope| {
            let heard = scope.spawn(|| hear(&socket, &asked, begun, &ended));
            self.ask(&socket, &asked, begun);
            thread::sleep(Duration::from_millis(500));
            ended.store(true, Ordering::Relaxed);
            heard.join().unwrap_or_default()
        });
        late.sort_unstable();
        let at = |share: f64| late.get((late.len() as f64 * share) as usize).copied().unwrap_or(0) as f64 / 1e3;
        let total = f64::from(self.rate * self.seconds);
        println!("{} {} {}", late.len() as f64 / total, at(0.5), at(0.99));
        Ok(())
    }

    /// Every millisecond as many as are due.
    fn ask(&self, socket: &UdpSocket, asked: &[AtomicU64], begun: Instant) {
        let total = self.rate * self.seconds;
        let mut sent = 0;
        while sent < total {
            let due = (begun.elapsed().as_secs_f64() * f64::from(self.rate)) as u32;
            while sent < due.min(total) {
                let id = sent as u16;
                asked[usize::from(id)].store(begun.elapsed().as_nanos() as u64, Ordering::Relaxed);
                let _ = socket.send(&question(id, &self.name));
                sent += 1;
            }
            thread::sleep(Duration::from_micros(200));
        }
    }
}

/// How long each answer took, ns.
fn hear(socket: &UdpSocket, asked: &[AtomicU64], begun: Instant, ended: &AtomicBool) -> Vec<u64> {
    let (mut late, mut buffer) = (Vec::new(), [0; 512]);
    while !ended.load(Ordering::Relaxed) {
        match socket.recv(&mut buffer) {
            // an answer with one record
            Ok(length) if length > 12 && buffer[7] == 1 => {
                let id = u16::from_be_bytes([buffer[0], buffer[1]]);
                let since = asked[usize::from(id)].swap(0, Ordering::Relaxed);
                if since != 0 {
                    late.push(begun.elapsed().as_nanos() as u64 - since);
                }
            }
            Err(error) if !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
            _ => {}
        }
    }
    late
}

/// RFC 1035: one question for an address.
fn question(id: u16, name: &str) -> Vec<u8> {
    let mut bytes = id.to_be_bytes().to_vec();
    bytes.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        bytes.push(label.len() as u8);
        bytes.extend(label.as_bytes());
    }
    bytes.extend([0, 0, 1, 0, 1]);
    bytes
}

/// Each engine has its turn at each rate, in each round.
pub fn measure(engines: &[Engine], rounds: u32, seconds: u32) -> Outcome<Table> {
    let engines: Vec<&Engine> = engines.iter().filter(|engine| engine.kind != Kind::Bare).collect();
    for engine in &engines {
        step::output(&mut engine.docker(&["network", "create", NETWORK]))?;
        for name in [ASKED, ASKER] {
            engine.run(name, &["--network", NETWORK], &["sleep", "1000000"])?;
        }
    }
    let mut found = vec![vec![Vec::new(); RATES.len()]; engines.len()];
    for round in 0..rounds {
        say(format_args!("names, round {} of {rounds}", round + 1));
        for (number, rate) in RATES.into_iter().enumerate() {
            for turn in 0..engines.len() {
                interrupt::check()?;
                let which = (turn + round as usize) % engines.len();
                found[which][number].push(ask(engines[which], rate, seconds)?);
            }
        }
    }
    let columns = ["questions/s", "engine", "answered", "median", "99 of 100 within"];
    let mut table = Table::new("Names of containers", columns.map(str::to_owned));
    for (number, rate) in RATES.into_iter().enumerate() {
        for (engine, found) in engines.iter().zip(&found) {
            let of = |part: fn(&Answers) -> f64| median(found[number].iter().map(part).collect()).unwrap_or(f64::NAN);
            let (share, middle, late) = (of(|one| one.share), of(|one| one.middle), of(|one| one.late));
            let verdict = match rate == WANTED.0 && engine.kind == Kind::Sluice {
                true if share >= 0.999 && late < WANTED.1 => " (is to be below 2 ms: yes)",
                true => " (is to be below 2 ms, all answered: no)",
                false => "",
            };
            table.row([
                rate.to_string(),
                engine.kind.to_string(),
                format!("{:.1} %", share * 100.0),
                format!("{middle:.0} µs"),
                format!("{late:.0} µs{verdict}"),
            ]);
        }
    }
    Ok(table)
}

fn ask(engine: &Engine, rate: u32, seconds: u32) -> Outcome<Answers> {
    let own = std::env::current_exe().doing(|| String::from("find this program"))?;
    let mut command = engine.in_network(ASKER)?;
    command
        .arg(own)
        .args(["ask", "--name", ASKED, "--rate", &rate.to_string()]);
    command.args(["--seconds", &seconds.to_string()]);
    let said = step::output(&mut command)?;
    let mut words = said.split_whitespace().map(str::parse);
    match (words.next(), words.next(), words.next()) {
        (Some(Ok(share)), Some(Ok(middle)), Some(Ok(late))) => Ok(Answers { share, middle, late }),
        _ => Err(Failure::new(format!("the asker said {said:?}"))),
    }
}
