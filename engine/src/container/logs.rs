//! Reads a container's log (Docker's json-file format), and follows it.

use std::{io::SeekFrom, path::Path, time::Duration};

use bytes::Bytes;
use jiff::Timestamp;
use serde::Deserialize;
use sluice_runtime::Stream;
use tokio::{
    fs::File,
    io::{AsyncReadExt, AsyncSeekExt},
    sync::{mpsc, watch},
};

use crate::{
    Engine, EngineError,
    container::{directory, held::Life},
    error,
};

/// Lines of a log or of a stream, as they come.
pub type Output = mpsc::Receiver<Result<(Stream, Bytes), EngineError>>;

/// What `logs` shows.
#[derive(Clone, Debug, Default)]
pub struct LogOptions {
    /// Go on with what comes.
    pub follow: bool,
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
    /// Not before.
    pub since: Option<Timestamp>,
    /// Not after.
    pub until: Option<Timestamp>,
    /// A time before each line.
    pub timestamps: bool,
    /// Only so many lines from the end.
    pub tail: Option<usize>,
}

/// How often a followed log is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// How much is read at a time, bytes.
const CHUNK: usize = 64 * 1024;

impl Engine {
    /// Its log.
    pub async fn logs(&self, name: &str, options: LogOptions) -> Result<Output, EngineError> {
        let held = self.containers.find(name)?;
        if !options.stdout && !options.stderr {
            return Err(EngineError::invalid(
                "Bad parameters: you must choose at least one stream",
            ));
        }
        let container = held.record();
        if container.host_config.log_driver == "none" {
            return Err(EngineError::not_offered(
                "configured logging driver does not support reading",
            ));
        }
        let path = directory::log(&self.config.container(&held.id), &container);
        let (sender, receiver) = mpsc::channel(64);
        let life = held.life();
        self.in_background(async move {
            if let Err(error) = read(&path, &options, life, &sender).await {
                let _ = sender.send(Err(error)).await;
            }
        });
        Ok(receiver)
    }
}

type To = mpsc::Sender<Result<(Stream, Bytes), EngineError>>;

/// Why the reading goes no further.
enum Done {
    /// Nobody listens, or the time asked for is past.
    Enough,
}

async fn read(path: &Path, options: &LogOptions, life: watch::Receiver<Life>, to: &To) -> Result<(), EngineError> {
    // a container that was never started has no log yet
    let Some(mut file) = open(path, options, &life, to).await? else {
        return Ok(());
    };
    let trouble = |why: &std::io::Error| error::io("read", path, why);
    if let Some(lines) = options.tail {
        let start = start_of_tail(&mut file, lines).await.map_err(|why| trouble(&why))?;
        file.seek(SeekFrom::Start(start)).await.map_err(|why| trouble(&why))?;
    }
    let mut rest = Vec::new();
    let mut chunk = vec![0; CHUNK];
    loop {
        // asked before the file is: what was written before the end is still read after it
        let running = life.borrow().running;
        let read = file.read(&mut chunk).await.map_err(|why| trouble(&why))?;
        if read > 0 {
            rest.extend_from_slice(&chunk[..read]);
            if let Some(Done::Enough) = pass_on(&mut rest, options, to).await {
                return Ok(());
            }
            continue;
        }
        let past = options.until.is_some_and(|until| Timestamp::now() > until);
        if !options.follow || !running || past || to.is_closed() {
            return Ok(());
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// The log; waits for it when it is to be followed and the container is about to start.
async fn open(
    path: &Path,
    options: &LogOptions,
    life: &watch::Receiver<Life>,
    to: &To,
) -> Result<Option<File>, EngineError> {
    loop {
        match File::open(path).await {
            Ok(file) => return Ok(Some(file)),
            Err(why) if why.kind() == std::io::ErrorKind::NotFound => {}
            Err(why) => return Err(error::io("open", path, &why)),
        }
        if !options.follow || !life.borrow().running || to.is_closed() {
            return Ok(None);
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Passes the whole lines at the front on; a line that is still being written stays.
async fn pass_on(rest: &mut Vec<u8>, options: &LogOptions, to: &To) -> Option<Done> {
    let mut taken = 0;
    while let Some(length) = rest[taken..].iter().position(|byte| *byte == b'\n') {
        let line = &rest[taken..taken + length];
        taken += length + 1;
        match show(line, options) {
            Shown::Line(stream, bytes) => {
                if to.send(Ok((stream, bytes))).await.is_err() {
                    return Some(Done::Enough);
                }
            }
            Shown::No => {}
            Shown::TooLate => return Some(Done::Enough),
        }
    }
    rest.drain(..taken);
    None
}

#[derive(Deserialize)]
struct Line<'a> {
    log: std::borrow::Cow<'a, str>,
    #[serde(default)]
    stream: std::borrow::Cow<'a, str>,
    time: std::borrow::Cow<'a, str>,
}

#[derive(PartialEq, Eq, Debug)]
enum Shown {
    Line(Stream, Bytes),
    No,
    TooLate,
}

/// What is shown of a line. One that can't be read (a crash of the host may leave such) is passed over.
fn show(line: &[u8], options: &LogOptions) -> Shown {
    let Ok(line) = serde_json::from_slice::<Line<'_>>(line) else {
        return Shown::No;
    };
    let stream = if line.stream == "stderr" {
        Stream::Stderr
    } else {
        Stream::Stdout
    };
    let time = line.time.parse::<Timestamp>().ok();
    if let Some(time) = time {
        if options.since.is_some_and(|since| time < since) {
            return Shown::No;
        }
        if options.until.is_some_and(|until| time > until) {
            return Shown::TooLate;
        }
    }
    if !(match stream {
        Stream::Stdout => options.stdout,
        Stream::Stderr => options.stderr,
    }) {
        return Shown::No;
    }
    let text = match (options.timestamps, time) {
        (true, Some(time)) => format!("{time:.9} {}", line.log),
        _ => line.log.into_owned(),
    };
    Shown::Line(stream, Bytes::from(text))
}

/// Where the last `lines` lines begin.
async fn start_of_tail(file: &mut File, lines: usize) -> std::io::Result<u64> {
    let end = file.seek(SeekFrom::End(0)).await?;
    if lines == 0 {
        return Ok(end);
    }
    let mut chunk = vec![0; CHUNK];
    let (mut position, mut found) = (end, 0);
    while position > 0 {
        let length = usize::try_from(position).unwrap_or(CHUNK).min(CHUNK);
        position -= length as u64;
        file.seek(SeekFrom::Start(position)).await?;
        file.read_exact(&mut chunk[..length]).await?;
        for at in (0..length).rev() {
            let place = position + at as u64;
            // the newline at the very end closes the last line, it does not begin another
            if chunk[at] == b'\n' && place + 1 < end {
                found += 1;
                if found == lines {
                    return Ok(place + 1);
                }
            }
        }
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    struct Log {
        path: std::path::PathBuf,
    }

    impl Log {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("sluice-engine-log-{}-{name}", std::process::id()));
            std::fs::write(&path, "").unwrap();
            Self { path }
        }

        fn write(&self, text: &str) {
            std::fs::OpenOptions::new()
                .append(true)
                .open(&self.path)
                .unwrap()
                .write_all(text.as_bytes())
                .unwrap();
        }

        fn line(&self, text: &str, stream: &str, second: u32) {
            self.write(&format!(
                "{{\"log\":\"{text}\\n\",\"stream\":\"{stream}\",\"time\":\"2026-01-01T00:00:{second:02}.5Z\"}}\n"
            ));
        }
    }

    impl Drop for Log {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.path);
        }
    }

    fn both() -> LogOptions {
        LogOptions {
            stdout: true,
            stderr: true,
            ..Default::default()
        }
    }

    async fn all(log: &Log, options: LogOptions) -> Vec<String> {
        let (sender, mut receiver) = mpsc::channel(1024);
        let life = watch::channel(Life::default()).1;
        read(&log.path, &options, life, &sender).await.unwrap();
        drop(sender);
        let mut lines = Vec::new();
        while let Some(line) = receiver.recv().await {
            lines.push(String::from_utf8(line.unwrap().1.to_vec()).unwrap());
        }
        lines
    }

    fn at(second: u32) -> Option<Timestamp> {
        Some(format!("2026-01-01T00:00:{second:02}Z").parse().unwrap())
    }

    #[tokio::test]
    async fn lines_are_chosen_by_stream_time_and_place() {
        let log = Log::new("chosen");
        for second in 1..=9 {
            log.line(
                &second.to_string(),
                if second % 2 == 0 { "stderr" } else { "stdout" },
                second,
            );
        }
        assert_eq!(all(&log, both()).await.len(), 9);
        assert_eq!(
            all(
                &log,
                LogOptions {
                    stderr: false,
                    ..both()
                }
            )
            .await
            .concat(),
            "1\n3\n5\n7\n9\n"
        );
        assert_eq!(
            all(
                &log,
                LogOptions {
                    tail: Some(2),
                    ..both()
                }
            )
            .await
            .concat(),
            "8\n9\n"
        );
        assert_eq!(
            all(
                &log,
                LogOptions {
                    tail: Some(0),
                    ..both()
                }
            )
            .await
            .len(),
            0
        );
        assert_eq!(
            all(
                &log,
                LogOptions {
                    tail: Some(99),
                    ..both()
                }
            )
            .await
            .len(),
            9
        );
        let span = LogOptions {
            since: at(3),
            until: at(6),
            ..both()
        };
        assert_eq!(all(&log, span).await.concat(), "3\n4\n5\n");
    }

    #[tokio::test]
    async fn times_are_shown_with_nine_digits() {
        let log = Log::new("times");
        log.line("x", "stdout", 1);
        let lines = all(
            &log,
            LogOptions {
                timestamps: true,
                ..both()
            },
        )
        .await;
        assert_eq!(lines, ["2026-01-01T00:00:01.500000000Z x\n"]);
    }

    #[tokio::test]
    async fn an_unfinished_or_damaged_line_is_passed_over() {
        let log = Log::new("damaged");
        log.line("1", "stdout", 1);
        log.write("\0\0\0garbage\n");
        log.line("2", "stdout", 2);
        log.write("{\"log\":\"unfin");
        assert_eq!(all(&log, both()).await.concat(), "1\n2\n");
    }

    #[tokio::test]
    async fn a_long_log_is_tailed_across_chunks() {
        let log = Log::new("long");
        let wide = "w".repeat(1000);
        let text: String = (0..300)
            .map(|n| format!("{{\"log\":\"{n} {wide}\\n\",\"stream\":\"stdout\",\"time\":\"2026-01-01T00:00:00Z\"}}\n"))
            .collect();
        log.write(&text);
        let lines = all(
            &log,
            LogOptions {
                tail: Some(200),
                ..both()
            },
        )
        .await;
        assert_eq!(lines.len(), 200);
        assert!(lines[0].starts_with("100 "));
    }

    #[tokio::test]
    async fn following_shows_what_comes_and_ends_with_the_container() {
        let log = Log::new("follow");
        log.line("1", "stdout", 1);
        let (changes, life) = watch::channel(Life {
            running: true,
            ..Default::default()
        });
        let (sender, mut receiver) = mpsc::channel(16);
        let path = log.path.clone();
        let options = LogOptions { follow: true, ..both() };
        let reader = tokio::spawn(async move { read(&path, &options, life, &sender).await });
        assert_eq!(&receiver.recv().await.unwrap().unwrap().1[..], b"1\n");
        log.write("{\"log\":\"2\\n\",\"stream\":\"std");
        tokio::time::sleep(2 * LOOK).await;
        log.write("out\",\"time\":\"2026-01-01T00:00:02Z\"}\n");
        assert_eq!(&receiver.recv().await.unwrap().unwrap().1[..], b"2\n");
        log.line("3", "stdout", 3);
        changes.send_modify(|life| life.running = false);
        assert_eq!(&receiver.recv().await.unwrap().unwrap().1[..], b"3\n");
        assert!(receiver.recv().await.is_none());
        reader.await.unwrap().unwrap();
    }
}
