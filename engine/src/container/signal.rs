//! Signals by name and number.

use crate::EngineError;

/// Linux's signals by name, without SIG.
const NAMES: [(&str, i32); 34] = [
    ("ABRT", libc::SIGABRT),
    ("ALRM", libc::SIGALRM),
    ("BUS", libc::SIGBUS),
    ("CHLD", libc::SIGCHLD),
    ("CLD", libc::SIGCHLD),
    ("CONT", libc::SIGCONT),
    ("FPE", libc::SIGFPE),
    ("HUP", libc::SIGHUP),
    ("ILL", libc::SIGILL),
    ("INT", libc::SIGINT),
    ("IO", libc::SIGIO),
    ("IOT", libc::SIGABRT),
    ("KILL", libc::SIGKILL),
    ("PIPE", libc::SIGPIPE),
    ("POLL", libc::SIGIO),
    ("PROF", libc::SIGPROF),
    ("PWR", libc::SIGPWR),
    ("QUIT", libc::SIGQUIT),
    ("SEGV", libc::SIGSEGV),
    ("STKFLT", libc::SIGSTKFLT),
    ("STOP", libc::SIGSTOP),
    ("SYS", libc::SIGSYS),
    ("TERM", libc::SIGTERM),
    ("TRAP", libc::SIGTRAP),
    ("TSTP", libc::SIGTSTP),
    ("TTIN", libc::SIGTTIN),
    ("TTOU", libc::SIGTTOU),
    ("URG", libc::SIGURG),
    ("USR1", libc::SIGUSR1),
    ("USR2", libc::SIGUSR2),
    ("VTALRM", libc::SIGVTALRM),
    ("WINCH", libc::SIGWINCH),
    ("XCPU", libc::SIGXCPU),
    ("XFSZ", libc::SIGXFSZ),
];

/// The number of `KILL`, `SIGTERM`, `RTMIN+3` or `9`.
pub(crate) fn parse(text: &str) -> Result<i32, EngineError> {
    let invalid = || EngineError::invalid(format!("invalid signal: {text}"));
    if let Ok(number) = text.parse::<i32>() {
        return if (1..=64).contains(&number) {
            Ok(number)
        } else {
            Err(invalid())
        };
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some((_, number)) = NAMES.iter().find(|(known, _)| *known == name) {
        return Ok(*number);
    }
    // glibc keeps two of the kernel's real-time signals for itself; these are the ones programs see
    let (first, last) = (34, 64);
    let offset = |text: &str| {
        if text.is_empty() {
            Some(0)
        } else {
            text.get(1..)?.parse::<i32>().ok()
        }
    };
    let number = if let Some(rest) = name.strip_prefix("RTMIN") {
        (rest.is_empty() || rest.starts_with('+'))
            .then(|| offset(rest))
            .flatten()
            .map(|offset| first + offset)
    } else if let Some(rest) = name.strip_prefix("RTMAX") {
        (rest.is_empty() || rest.starts_with('-'))
            .then(|| offset(rest))
            .flatten()
            .map(|offset| last - offset)
    } else {
        None
    };
    number
        .filter(|number| (first..=last).contains(number))
        .ok_or_else(invalid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_known_by_name_with_and_without_sig_and_by_number() {
        for (text, number) in [
            ("KILL", 9),
            ("SIGKILL", 9),
            ("sigterm", 15),
            ("9", 9),
            ("HUP", 1),
            ("WINCH", 28),
            ("RTMIN", 34),
            ("SIGRTMIN+3", 37),
            ("RTMAX-1", 63),
            ("64", 64),
        ] {
            assert_eq!(parse(text).unwrap(), number, "{text}");
        }
    }

    #[test]
    fn what_is_no_signal_is_refused() {
        for text in [
            "",
            "0",
            "65",
            "-9",
            "FOO",
            "SIG",
            "RTMIN-1",
            "RTMIN+99",
            "RTMAX+1",
            "99999999999",
        ] {
            assert_eq!(parse(text).unwrap_err().message, format!("invalid signal: {text}"));
        }
    }
}
