//! Reads a container's log, all the files of it, and follows it.

mod files;
mod line;

use std::{path::Path, sync::Arc};

use bytes::Bytes;
use jiff::Timestamp;
use sluice_runtime::Stream;
use tokio::{
    io::AsyncReadExt,
    sync::{mpsc, watch},
};

use crate::{
    Engine, EngineError,
    blocking::blocking,
    container::{held::Life, log},
    error,
    notice::{Notice, Notices},
};
use files::{Next, Part};
use line::{Shown, show};

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
    /// The attributes of the log before each line.
    pub details: bool,
    /// Only so many lines from the end.
    pub tail: Option<usize>,
}

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
        let path = log::path(&self.config.container(&held.id), &container)
            .ok_or_else(|| EngineError::not_offered("configured logging driver does not support reading"))?;
        let (sender, receiver) = mpsc::channel(64);
        let (life, notices) = (held.life(), self.notices.clone());
        self.in_background(async move {
            if let Err(error) = read(&path, &options, life, &notices, &sender).await {
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

async fn read(
    path: &Path,
    options: &LogOptions,
    mut life: watch::Receiver<Life>,
    notices: &Arc<Notices>,
    to: &To,
) -> Result<(), EngineError> {
    // who follows hears of changes from before the first look
    let mut notice = match path.parent().filter(|_| options.follow) {
        Some(directory) => match notices.of(directory) {
            Ok(notice) => Some(notice),
            // it was never started
            Err(why) if why.kind() == std::io::ErrorKind::NotFound => None,
            Err(why) => return Err(error::io("watch", directory, &why)),
        },
        None => None,
    };
    let mut parts = open(path, options).await?.into_iter();
    let mut rest = Vec::new();
    let mut current = parts.next();
    loop {
        if let Some(notice) = &mut notice {
            notice.mark();
        }
        // asked before the file is: what was written before the end is still read after it
        let running = life.borrow_and_update().running;
        if let Some(part) = current.take() {
            let (part, done) = read_to_end(part, &mut rest, options, path, to).await?;
            if let Some(Done::Enough) = done {
                return Ok(());
            }
            current = Some(part);
            if let Some(older) = parts.next() {
                rest.clear();
                current = Some(older);
                continue;
            }
        }
        if !options.follow || to.is_closed() {
            return Ok(());
        }
        if let Some(next) = next(path, current.as_ref()).await? {
            // what was written between our last read and the rotation
            if let Some(part) = current.take()
                && let (_, Some(Done::Enough)) = read_to_end(part, &mut rest, options, path, to).await?
            {
                return Ok(());
            }
            // a line is never cut by a rotation: what is left of one is damaged
            rest.clear();
            current = Some(next);
            continue;
        }
        if !running || !wait(options, &mut life, notice.as_mut(), to).await {
            return Ok(());
        }
    }
}

/// The parts to be read, each at its beginning or where the tail begins.
async fn open(path: &Path, options: &LogOptions) -> Result<Vec<Part>, EngineError> {
    let (path, tail) = (path.to_owned(), options.tail);
    blocking(move || {
        let failed = |why: std::io::Error| error::io("read", &path, &why);
        let mut parts = files::open_all(&path).map_err(failed)?;
        if let Some(mut lines) = tail {
            for part in parts.iter_mut().rev() {
                lines -= part.seek_tail(lines).map_err(failed)?;
            }
        }
        Ok(parts)
    })
    .await
}

async fn next(path: &Path, part: Option<&Part>) -> Result<Option<Part>, EngineError> {
    let failed = |why: std::io::Error| error::io("read", path, &why);
    // a look at a small directory; only packed files, which are rare here, take longer
    let next = match part {
        Some(part) => match files::after(path, part).map_err(failed)? {
            Next::Nothing => None,
            Next::Part(part) => Some(part),
        },
        None => files::open_all(path).map_err(failed)?.into_iter().next(),
    };
    Ok(next)
}

/// Waits until there may be more; false: there will be no more.
async fn wait(options: &LogOptions, life: &mut watch::Receiver<Life>, notice: Option<&mut Notice>, to: &To) -> bool {
    let changed = async {
        match notice {
            Some(notice) => notice.changed().await,
            None => std::future::pending().await,
        }
    };
    let past = async {
        match options.until {
            Some(until) => {
                let left = until.duration_since(Timestamp::now());
                tokio::time::sleep(left.try_into().unwrap_or_default()).await;
            }
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = changed => true,
        changed = life.changed() => changed.is_ok(),
        () = past => false,
        () = to.closed() => false,
    }
}

/// Reads what there is of a part now.
async fn read_to_end(
    part: Part,
    rest: &mut Vec<u8>,
    options: &LogOptions,
    path: &Path,
    to: &To,
) -> Result<(Part, Option<Done>), EngineError> {
    let Part { file, .. } = &part;
    let file = file.try_clone().map_err(|why| error::io("read", path, &why))?;
    let mut file = tokio::fs::File::from_std(file);
    let mut chunk = vec![0; CHUNK];
    loop {
        let read = file
            .read(&mut chunk)
            .await
            .map_err(|why| error::io("read", path, &why))?;
        if read == 0 {
            return Ok((part, None));
        }
        rest.extend_from_slice(&chunk[..read]);
        if let Some(done) = pass_on(rest, options, to).await {
            return Ok((part, Some(done)));
        }
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

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    struct Log {
        path: std::path::PathBuf,
    }

    impl Log {
        fn new(name: &str) -> Self {
            let directory = std::env::temp_dir().join(format!("sluice-engine-log-{}-{name}", std::process::id()));
            std::fs::create_dir_all(&directory).unwrap();
            let path = directory.join("log");
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

        /// What the shim does: `.1` becomes `.2`, the log `.1`, and a new one is begun.
        fn rotate(&self) {
            let numbered = |number: u32, more: &str| self.path.with_extension(format!("{number}{more}"));
            for number in (1..60).rev() {
                for more in ["", ".gz"] {
                    let _ = std::fs::rename(numbered(number, more), numbered(number + 1, more));
                }
            }
            std::fs::rename(&self.path, numbered(1, "")).unwrap();
            std::fs::write(&self.path, "").unwrap();
        }

        /// Packs a rotated file as the shim does, its inode in the header.
        fn pack(&self, number: u32) {
            use std::os::unix::fs::MetadataExt;
            let plain = self.path.with_extension(number.to_string());
            let inode = plain.metadata().unwrap().ino();
            let packed = std::fs::File::create(plain.with_extension(format!("{number}.gz"))).unwrap();
            let header = flate2::GzBuilder::new().extra(inode.to_le_bytes());
            let mut writer = header.write(packed, flate2::Compression::fast());
            writer.write_all(&std::fs::read(&plain).unwrap()).unwrap();
            writer.finish().unwrap();
            std::fs::remove_file(plain).unwrap();
        }

        fn line(&self, text: &str, stream: &str, second: u32) {
            self.write(&format!(
                "{{\"log\":\"{text}\\n\",\"stream\":\"{stream}\",\"time\":\"2026-01-01T00:00:{second:02}.5Z\"}}\n"
            ));
        }
    }

    impl Drop for Log {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(self.path.parent().unwrap());
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
        read(&log.path, &options, life, &Arc::default(), &sender).await.unwrap();
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
        let reader = tokio::spawn(async move { read(&path, &options, life, &Arc::default(), &sender).await });
        assert_eq!(&receiver.recv().await.unwrap().unwrap().1[..], b"1\n");
        log.write("{\"log\":\"2\\n\",\"stream\":\"std");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        log.write("out\",\"time\":\"2026-01-01T00:00:02Z\"}\n");
        assert_eq!(&receiver.recv().await.unwrap().unwrap().1[..], b"2\n");
        log.line("3", "stdout", 3);
        changes.send_modify(|life| life.running = false);
        assert_eq!(&receiver.recv().await.unwrap().unwrap().1[..], b"3\n");
        assert!(receiver.recv().await.is_none());
        reader.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn rotated_files_are_read_as_one_log_packed_or_not() {
        let log = Log::new("rotated");
        for second in 1..=9 {
            log.line(&second.to_string(), "stdout", second);
            if second % 2 == 0 {
                log.rotate();
            }
        }
        log.pack(3);
        log.pack(4);
        assert_eq!(all(&log, both()).await.concat(), "1\n2\n3\n4\n5\n6\n7\n8\n9\n");
        for (tail, text) in [(0, ""), (1, "9\n"), (4, "6\n7\n8\n9\n"), (6, "4\n5\n6\n7\n8\n9\n")] {
            let options = LogOptions {
                tail: Some(tail),
                ..both()
            };
            assert_eq!(all(&log, options).await.concat(), text, "the last {tail}");
        }
    }

    #[tokio::test]
    async fn a_follower_misses_nothing_and_sees_nothing_twice_however_often_the_log_is_rotated() {
        let log = Log::new("chase");
        let (changes, life) = watch::channel(Life {
            running: true,
            ..Default::default()
        });
        let (sender, mut receiver) = mpsc::channel(1);
        let path = log.path.clone();
        let options = LogOptions { follow: true, ..both() };
        let reader = tokio::spawn(async move { read(&path, &options, life, &Arc::default(), &sender).await });
        let mut seen = Vec::new();
        for round in 0..40 {
            for line in 0..5 {
                log.line(&(round * 5 + line).to_string(), "stdout", 1);
            }
            // it lags behind by up to a file, which may be packed meanwhile
            let lag = if round % 3 == 0 { 5 } else { 0 };
            while seen.len() < (round as usize + 1) * 5 - lag {
                seen.push(receiver.recv().await.unwrap().unwrap().1);
            }
            log.rotate();
            if round % 4 == 1 {
                log.pack(1);
            }
        }
        changes.send_modify(|life| life.running = false);
        while let Some(line) = receiver.recv().await {
            seen.push(line.unwrap().1);
        }
        reader.await.unwrap().unwrap();
        let expected: Vec<Bytes> = (0..200).map(|line| Bytes::from(format!("{line}\n"))).collect();
        assert_eq!(seen, expected);
    }
}
