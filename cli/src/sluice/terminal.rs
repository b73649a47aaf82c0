//! Our own terminal: raw while a container uses it, and put right again whatever happens.

use std::io::{IsTerminal, stdin, stdout};

use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};

use crate::failure::Failure;

/// Raw until dropped.
pub struct Raw {
    before: Termios,
}

impl Raw {
    /// `None` when standard input is not a terminal.
    pub fn enter() -> Option<Self> {
        if !stdin().is_terminal() {
            return None;
        }
        let before = tcgetattr(stdin()).ok()?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(stdin(), SetArg::TCSANOW, &raw).ok()?;
        Some(Self { before })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = tcsetattr(stdin(), SetArg::TCSANOW, &self.before);
    }
}

/// Docker's refusal: a terminal is wanted, and input that should go to it is something else.
pub fn check(tty: bool, interactive: bool) -> Result<(), Failure> {
    match tty && interactive && !stdin().is_terminal() {
        true => Err(Failure::Usage("the input device is not a TTY".into())),
        false => Ok(()),
    }
}

/// Rows and columns, when we have a terminal.
pub fn size() -> Option<(u16, u16)> {
    let mut size = libc::winsize {
        ws_row: 0,
        ws_col: 0,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: the request writes one `winsize` to the address given, which outlives the call.
    let result = unsafe { libc::ioctl(libc::STDOUT_FILENO, libc::TIOCGWINSZ, &raw mut size) };
    (result == 0 && stdout().is_terminal() && size.ws_row > 0).then_some((size.ws_row, size.ws_col))
}
