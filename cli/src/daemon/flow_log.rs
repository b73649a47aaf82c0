//! The flow log: drops and conversations, a line of JSON each as `sluice monitor --flows --json` shows them, in a file that is turned over when it is full.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use sluice_agent::{
    Filter, Wishes,
    view::{Happening, Lost, Seen},
};
use sluice_engine::Engine;
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::{Trouble, options::Options};

/// What was written stands in the file after so long.
const FLUSH: Duration = Duration::from_secs(1);
/// After trouble it is tried again.
const RETRY: Duration = Duration::from_secs(5);
/// Bytes of a file, when nobody says: megabytes.
const SIZE: u64 = 100;
/// And how many files.
const FILES: u32 = 5;

/// What is kept, and where.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct FlowLog {
    /// The file; older ones are beside it, `.1` the youngest.
    file: PathBuf,
    filter: Filter,
    /// Bytes.
    max_size: u64,
    /// With the older ones.
    max_files: u32,
}

impl FlowLog {
    /// As the options have it; none: nothing is kept.
    pub(crate) fn of(options: &Options) -> Result<Option<Self>, Trouble> {
        let said = [
            ("--flow-log-filter", !options.flow_log_filter.is_empty()),
            ("--flow-log-max-size", options.flow_log_max_size.is_some()),
            ("--flow-log-max-files", options.flow_log_max_files.is_some()),
        ];
        let Some(file) = options.flow_log.clone() else {
            return match said.iter().find(|(_, is_said)| *is_said) {
                Some((name, _)) => Err(Trouble(format!("{name} has no effect without --flow-log"))),
                None => Ok(None),
            };
        };
        let mut filter = Filter::default();
        for wish in &options.flow_log_filter {
            let (name, value) = wish
                .split_once('=')
                .ok_or_else(|| Trouble(format!("invalid --flow-log-filter {wish:?}: NAME=VALUE is wanted")))?;
            filter
                .add(name, value)
                .map_err(|why| Trouble(format!("invalid --flow-log-filter {wish:?}: {why}")))?;
        }
        let (size, files) = (
            options.flow_log_max_size.unwrap_or(SIZE),
            options.flow_log_max_files.unwrap_or(FILES),
        );
        if size == 0 || files == 0 {
            return Err(Trouble(
                "--flow-log-max-size and --flow-log-max-files are at least 1".to_owned(),
            ));
        }
        Ok(Some(Self {
            file,
            filter,
            max_size: size << 20,
            max_files: files,
        }))
    }
}

/// Writes until the daemon ends.
pub(crate) async fn keep(log: FlowLog, engine: Arc<Engine>) -> Result<(), Trouble> {
    // Trouble at the start is told whoever starts the daemon.
    let mut writer =
        Writer::open(&log).map_err(|why| Trouble::new(format_args!("write {}", log.file.display()), why))?;
    tokio::spawn(async move {
        loop {
            let wishes = Wishes {
                flows: true,
                frames: false,
            };
            match engine.agent().monitor(log.filter.clone(), wishes).await {
                Ok(mut monitor) => {
                    let mut flush = interval(FLUSH);
                    flush.set_missed_tick_behavior(MissedTickBehavior::Delay);
                    loop {
                        tokio::select! {
                            seen = monitor.next() => match seen {
                                Some(seen) => writer.write(&seen),
                                None => break,
                            },
                            _ = flush.tick() => writer.flush(),
                        }
                    }
                }
                Err(error) => tracing::warn!(%error, "cannot follow conversations for the flow log"),
            }
            writer.flush();
            sleep(RETRY).await;
        }
    });
    Ok(())
}

/// The file being written.
struct Writer {
    log: FlowLog,
    file: Option<BufWriter<File>>,
    size: u64,
    /// Lines that could not be written.
    missed: u64,
}

impl Writer {
    fn open(log: &FlowLog) -> io::Result<Self> {
        let (file, size) = open(&log.file)?;
        Ok(Self {
            log: log.clone(),
            file: Some(BufWriter::new(file)),
            size,
            missed: 0,
        })
    }

    /// What cannot be written is counted, and told as soon as something can.
    fn write(&mut self, seen: &Seen) {
        if let Err(error) = self.try_to_write(seen) {
            if self.missed == 0 {
                tracing::warn!(%error, file = %self.log.file.display(), "cannot write the flow log; what is missed is counted");
            }
            self.missed += 1;
            self.file = None;
        }
    }

    fn try_to_write(&mut self, seen: &Seen) -> io::Result<()> {
        if self.size >= self.log.max_size {
            self.turn_over()?;
        }
        if self.file.is_none() {
            let (file, size) = open(&self.log.file)?;
            (self.file, self.size) = (Some(BufWriter::new(file)), size);
        }
        if self.missed > 0 {
            let lost = Seen {
                lost: Some(Lost {
                    missed: self.missed,
                    ..Lost::default()
                }),
                ..Seen::of(seen.time, Happening::Lost)
            };
            self.put(&lost)?;
            self.missed = 0;
        }
        self.put(seen)
    }

    fn put(&mut self, seen: &Seen) -> io::Result<()> {
        let mut line = serde_json::to_vec(seen)?;
        line.push(b'\n');
        let file = self.file.as_mut().ok_or_else(|| io::Error::other("it is not open"))?;
        file.write_all(&line)?;
        self.size += line.len() as u64;
        Ok(())
    }

    /// The file becomes `.1`, that `.2`, and so on; the oldest goes.
    fn turn_over(&mut self) -> io::Result<()> {
        if let Some(mut file) = self.file.take() {
            file.flush()?;
        }
        let path = |number: u32| match number {
            0 => self.log.file.clone(),
            number => {
                let mut name = self.log.file.clone().into_os_string();
                name.push(format!(".{number}"));
                PathBuf::from(name)
            }
        };
        for number in (0..self.log.max_files.saturating_sub(1)).rev() {
            match fs::rename(path(number), path(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        // With one file alone there is no older one.
        if self.log.max_files == 1 {
            fs::remove_file(path(0))?;
        }
        Ok(())
    }

    fn flush(&mut self) {
        let flushed = self.file.as_mut().map_or(Ok(()), BufWriter::flush);
        if let Err(error) = flushed {
            tracing::warn!(%error, file = %self.log.file.display(), "cannot write the flow log");
            self.file = None;
        }
    }
}

/// Who speaks to whom is for root alone.
fn open(path: &Path) -> io::Result<(File, u64)> {
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
    let size = file.metadata()?.len();
    Ok((file, size))
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    fn options(text: &str) -> Options {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn what_is_kept_is_said_by_options() {
        assert_eq!(FlowLog::of(&options("")).unwrap(), None);
        let log = FlowLog::of(&options(
            "flow-log = '/x'\nflow-log-filter = ['container=web', 'event=drop']",
        ));
        let log = log.unwrap().unwrap();
        assert_eq!((log.max_size, log.max_files), (100 << 20, 5));
        assert_eq!(log.filter.containers, ["web"]);
        for (text, why) in [
            ("flow-log-max-files = 3", "has no effect"),
            ("flow-log = '/x'\nflow-log-filter = ['web']", "NAME=VALUE"),
            (
                "flow-log = '/x'\nflow-log-filter = ['event=died']",
                "drop, open or close",
            ),
            ("flow-log = '/x'\nflow-log-max-size = 0", "at least 1"),
        ] {
            let trouble = FlowLog::of(&options(text)).unwrap_err().to_string();
            assert!(trouble.contains(why), "{trouble}");
        }
    }

    #[test]
    fn a_full_file_is_turned_over_and_the_oldest_goes() {
        let directory = std::env::temp_dir().join(format!("sluiced-flow-log-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let file = directory.join("flows.json");
        let log = FlowLog {
            file: file.clone(),
            filter: Filter::default(),
            max_size: 90,
            max_files: 3,
        };
        let mut writer = Writer::open(&log).unwrap();
        let seen = |second| Seen::of(Timestamp::new(second, 0).unwrap(), Happening::Open);
        // Two lines fill a file.
        for second in 0..7 {
            writer.write(&seen(second));
        }
        writer.flush();
        let read = |name: &str| {
            let text = fs::read_to_string(directory.join(name)).unwrap_or_default();
            let lines = text.lines().map(|line| serde_json::from_str::<Seen>(line).unwrap());
            lines.map(|seen| seen.time.as_second()).collect::<Vec<_>>()
        };
        let kept = [
            read("flows.json"),
            read("flows.json.1"),
            read("flows.json.2"),
            read("flows.json.3"),
        ];
        fs::remove_dir_all(&directory).unwrap();
        assert_eq!(
            kept.concat().len(),
            kept[0].len() + kept[1].len() + kept[2].len(),
            "three files"
        );
        let mut order: Vec<i64> = kept.iter().rev().flatten().copied().collect();
        assert_eq!(order.pop(), Some(6));
        assert!(order.is_sorted() && order.len() >= 3 && !order.contains(&0), "{kept:?}");
    }

    #[test]
    fn lines_that_could_not_be_written_are_told_when_others_can() {
        let directory = std::env::temp_dir().join(format!("sluiced-flow-log-lost-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let log = FlowLog {
            file: directory.join("flows.json"),
            filter: Filter::default(),
            max_size: 1 << 20,
            max_files: 2,
        };
        let mut writer = Writer::open(&log).unwrap();
        let seen = Seen::of(Timestamp::UNIX_EPOCH, Happening::Open);
        fs::remove_dir_all(&directory).unwrap();
        writer.file = None;
        writer.write(&seen);
        writer.write(&seen);
        fs::create_dir_all(&directory).unwrap();
        writer.write(&seen);
        writer.flush();
        let text = fs::read_to_string(directory.join("flows.json")).unwrap();
        fs::remove_dir_all(&directory).unwrap();
        let lines: Vec<Seen> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0].lost.as_ref().map(|lost| lost.missed), Some(2));
    }
}
