//! What is measured on a path: the command of the client, and what it says.

use std::fmt;

use serde_json::Value;

use crate::step::{Failure, Outcome};

/// A quantity.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Figure {
    /// One TCP stream.
    Stream,
    /// A message and its answer, one at a time over one TCP connection.
    RoundTrip,
    /// New TCP connections, each with a request and an answer.
    Connections,
    /// UDP datagrams of 64 bytes that arrive.
    Datagrams,
}

/// The CPU of the client.
pub const CLIENT_CPU: &str = "0";

/// The CPU of the server: the second where there is one.
pub fn server_cpu() -> &'static str {
    match cpus() {
        0 | 1 => "0",
        _ => "1",
    }
}

/// How many CPUs this machine has.
pub fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

impl Figure {
    /// All, in the order of the tables.
    pub const ALL: [Self; 4] = [Self::Stream, Self::RoundTrip, Self::Connections, Self::Datagrams];

    /// As on the command line and in JSON.
    pub fn key(self) -> &'static str {
        match self {
            Self::Stream => "stream",
            Self::RoundTrip => "rtt",
            Self::Connections => "conn",
            Self::Datagrams => "udp",
        }
    }

    /// What a value is counted in.
    pub fn unit(self) -> &'static str {
        match self {
            Self::Stream => "Gbit/s",
            Self::RoundTrip => "µs",
            Self::Connections => "1/s",
            Self::Datagrams => "1000/s",
        }
    }

    /// Is a smaller value the better one?
    pub fn less_is_better(self) -> bool {
        self == Self::RoundTrip
    }

    /// The better of two values.
    pub fn better(self, a: f64, b: f64) -> f64 {
        if self.less_is_better() { a.min(b) } else { a.max(b) }
    }

    /// A value in as many digits as it deserves.
    pub fn shown(self, value: f64) -> String {
        match self {
            Self::Stream => format!("{value:.1}"),
            Self::RoundTrip => format!("{value:.2}"),
            Self::Connections | Self::Datagrams => format!("{value:.0}"),
        }
    }

    /// The client's command against the server at `address`, for so many seconds.
    pub fn command(self, address: &str, seconds: u32) -> Vec<String> {
        let (cpu, command) = match self {
            Self::Stream => (CLIENT_CPU, format!("iperf3 --client {address} --time {seconds} --json")),
            // Both ends on one CPU: what remains is the cost of the path. On two, the wake-up of an idle CPU is most of the figure.
            Self::RoundTrip => (
                server_cpu(),
                format!("sockperf ping-pong --tcp -i {address} -p 11111 -t {seconds}"),
            ),
            Self::Connections => (
                CLIENT_CPU,
                format!("wrk --threads 1 --connections 16 --duration {seconds}s http://{address}:8080/"),
            ),
            Self::Datagrams => (
                CLIENT_CPU,
                format!("iperf3 --client {address} --time {seconds} --udp --bitrate 0 --length 64 --json"),
            ),
        };
        ["taskset", "-c", cpu]
            .into_iter()
            .chain(command.split(' '))
            .map(str::to_owned)
            .collect()
    }

    /// Finds the value in what the client said.
    pub fn read(self, said: &str) -> Outcome<f64> {
        let value = match self {
            Self::Stream => iperf3(said, "/end/sum_received/bits_per_second").map(|bits| bits / 1e9),
            Self::RoundTrip => after(said, "Latency is"),
            Self::Connections => connections(said),
            Self::Datagrams => datagrams(said),
        };
        value
            .filter(|value| *value > 0.0)
            .ok_or_else(|| Failure::new(format!("no {} in what the client said: {}", self.unit(), end_of(said))))
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Stream => "TCP stream",
            Self::RoundTrip => "half a round trip",
            Self::Connections => "new connections",
            Self::Datagrams => "UDP, 64 bytes",
        })
    }
}

fn iperf3(said: &str, field: &str) -> Option<f64> {
    serde_json::from_str::<Value>(said).ok()?.pointer(field)?.as_f64()
}

/// Thousands of datagrams per second that the server counted.
fn datagrams(said: &str) -> Option<f64> {
    let field = |name: &str| iperf3(said, &format!("/end/sum/{name}"));
    Some((field("packets")? - field("lost_packets")?) / field("seconds")? / 1000.0)
}

/// Connections per second; none when more than one in a hundred failed.
fn connections(said: &str) -> Option<f64> {
    let failed: f64 = ["connect", "read", "write", "timeout"]
        .iter()
        .filter_map(|kind| after(said.split_once("Socket errors:")?.1, kind))
        .sum();
    let done = after(said.lines().find(|line| line.contains(" requests in "))?, "")?;
    (failed * 100.0 <= done).then(|| after(said, "Requests/sec:"))?
}

/// The number that follows this text.
fn after(said: &str, text: &str) -> Option<f64> {
    let rest = said.split_once(text)?.1.trim_start();
    let end = rest
        .find(|letter: char| !letter.is_ascii_digit() && letter != '.')
        .unwrap_or(rest.len());
    rest[..end].parse().ok()
}

fn end_of(said: &str) -> &str {
    let said = said.trim();
    let start = said.char_indices().rev().nth(300).map_or(0, |(at, _)| at);
    &said[start..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_wrk_says_is_read() {
        let said = "Running 1s test @ http://198.18.0.2:8080/\n  1 threads and 16 connections\n  Thread Stats   Avg      Stdev     Max   +/- Stdev\n    \
                    Latency     1.01ms  100.00us   1.24ms   70.00%\n    Req/Sec    12.01k     1.00k   13.00k    70.00%\n  12010 requests in 1.00s, \
                    1.76MB read\nRequests/sec:  12003.25\nTransfer/sec:      1.76MB\n";
        assert_eq!(Figure::Connections.read(said).unwrap(), 12003.25);
    }

    #[test]
    fn connections_that_failed_spoil_the_figure() {
        let said = "    Latency     1.01ms\n    Req/Sec    12.01k\n  12010 requests in 1.00s, 1.76MB read\n  Socket errors: connect 0, read 900, \
                    write 0, timeout 20\nRequests/sec:  12003.25\n";
        assert!(Figure::Connections.read(said).is_err());
    }

    #[test]
    fn what_sockperf_says_is_read() {
        let said = "sockperf: [Total Run] RunTime=1.000 sec\nsockperf: ====> avg-latency=5.790 (std-dev=1.2)\nsockperf: Summary: Latency is 5.790 \
                    usec\n";
        assert_eq!(Figure::RoundTrip.read(said).unwrap(), 5.79);
    }

    #[test]
    fn what_iperf3_says_is_read() {
        let stream = r#"{"end":{"sum_received":{"bits_per_second":24100000000.5}}}"#;
        assert!((Figure::Stream.read(stream).unwrap() - 24.1).abs() < 1e-6);
        let udp = r#"{"end":{"sum":{"packets":300000,"lost_packets":100000,"seconds":2.0}}}"#;
        assert_eq!(Figure::Datagrams.read(udp).unwrap(), 100.0);
        assert!(Figure::Stream.read(r#"{"error":"the server is busy"}"#).is_err());
    }
}
