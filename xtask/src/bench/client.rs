//! As much of HTTP as it takes to ask an engine for something and to time the answer: what is measured is the engine, not a client.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use crate::step::{Doing, Failure, Outcome};

/// A version that all engines speak.
const VERSION: &str = "/v1.41";

/// A request whose answer has begun.
pub struct Answer {
    reader: BufReader<UnixStream>,
    asked: String,
    status: u16,
}

/// Sends a request on a connection of its own and reads the head of the answer.
pub fn ask(socket: &Path, method: &str, path: &str, body: &str) -> Outcome<Answer> {
    let asked = format!("{method} {path}");
    let mut stream = UnixStream::connect(socket).doing(|| format!("connect to {}", socket.display()))?;
    let request = format!(
        "{method} {VERSION}{path} HTTP/1.1\r\nHost: engine\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).doing(|| asked.clone())?;
    let mut reader = BufReader::new(stream);
    let mut status = 0;
    loop {
        let mut line = String::new();
        let length = reader.read_line(&mut line).doing(|| asked.clone())?;
        if status == 0 {
            status = line.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
        }
        if length == 0 || line == "\r\n" {
            return Ok(Answer { reader, asked, status });
        }
    }
}

impl Answer {
    /// The rest, as it came; an error when the engine refused.
    pub fn text(mut self) -> Outcome<String> {
        let mut text = String::new();
        self.reader.read_to_string(&mut text).doing(|| self.asked.clone())?;
        match self.status {
            200..300 => Ok(text),
            status => Err(Failure::new(format!("{}: {status}: {}", self.asked, text.trim()))),
        }
    }
}

/// The value of the first `"Id"`.
pub fn id_in(text: &str) -> Outcome<String> {
    let id = text
        .split_once("\"Id\":\"")
        .and_then(|(_, rest)| rest.split('"').next());
    id.map(str::to_owned)
        .ok_or_else(|| Failure::new(format!("no id in the answer {text}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_found_in_a_chunked_answer() {
        assert_eq!(
            id_in("58\r\n{\"Id\":\"abc\",\"Warnings\":[]}\r\n0\r\n\r\n").unwrap(),
            "abc"
        );
        assert!(id_in("{}").is_err());
    }
}
