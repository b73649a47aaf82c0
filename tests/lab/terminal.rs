//! A person at a terminal: a program that has one, what it shows, and what is typed.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use nix::libc;
use nix::pty::{Winsize, openpty};

use crate::{eventually, patience};

/// A program at a terminal. It is killed when this goes.
pub struct Terminal {
    program: Child,
    person: File,
    shown: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    /// Starts the program at a terminal of so many rows and columns.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn start(command: &mut Command, rows: u16, columns: u16) -> Self {
        let ends = openpty(Some(&size(rows, columns)), None).unwrap_or_else(|error| panic!("open a terminal: {error}"));
        let end = || {
            ends.slave
                .try_clone()
                .unwrap_or_else(|error| panic!("a terminal's end: {error}"))
        };
        let own = || {
            // SAFETY: takes no pointers; the child becomes the leader of a session, and its standard input the terminal of that.
            if unsafe { libc::setsid() } < 0 || unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) } < 0 {
                return Err(std::io::Error::last_os_error());
            }
            Ok(())
        };
        // SAFETY: between fork and exec only setsid(2) and ioctl(2) are called.
        unsafe { command.pre_exec(own) };
        let program = command
            .env("TERM", "xterm")
            .stdin(end())
            .stdout(end())
            .stderr(end())
            .spawn();
        let program = program.unwrap_or_else(|error| panic!("start {command:?}: {error}"));
        drop(ends.slave);
        let person = File::from(ends.master);
        let shown = Arc::new(Mutex::new(Vec::new()));
        let mut screen = person
            .try_clone()
            .unwrap_or_else(|error| panic!("watch a terminal: {error}"));
        let seen = shown.clone();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = screen.read(&mut buffer) {
                seen.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .extend_from_slice(&buffer[..count]);
            }
        });
        Self { program, person, shown }
    }

    /// Types.
    ///
    /// # Panics
    /// If nobody is there to read.
    pub fn types(&mut self, keys: &str) {
        self.person
            .write_all(keys.as_bytes())
            .unwrap_or_else(|error| panic!("type {keys:?}: {error}"));
    }

    /// All that was shown.
    pub fn screen(&self) -> String {
        String::from_utf8_lossy(&self.shown.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }

    /// Waits until this is shown.
    ///
    /// # Panics
    /// If it is not.
    #[track_caller]
    pub fn shows(&self, text: &str) {
        let end = std::time::Instant::now() + patience(20);
        while !self.screen().contains(text) {
            assert!(
                std::time::Instant::now() < end,
                "{text:?} is not shown, but {:?}",
                self.screen()
            );
            thread::sleep(std::time::Duration::from_millis(20));
        }
    }

    /// Gives the terminal another size.
    pub fn resize(&self, rows: u16, columns: u16) {
        let size = size(rows, columns);
        // SAFETY: the pointer is to a size that lives through the call.
        unsafe { libc::ioctl(self.person.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
    }

    /// Waits for the program's end; its exit code.
    ///
    /// # Panics
    /// If it does not end.
    #[track_caller]
    pub fn end(&mut self) -> Option<i32> {
        let mut code = None;
        eventually("the program at the terminal ends", 20, || {
            let ended = self.program.try_wait().ok().flatten();
            code = ended.and_then(|status| status.code());
            ended.is_some()
        });
        code
    }

    /// Its process number.
    pub fn pid(&self) -> u32 {
        self.program.id()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.program.kill();
        let _ = self.program.wait();
    }
}

fn size(rows: u16, columns: u16) -> Winsize {
    Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}
