//! Sizes and times as people read them, in Docker's words.

use jiff::{Timestamp, tz::TimeZone};

use crate::failure::Failure;

/// `2 minutes`, `About an hour`.
pub fn duration(seconds: i64) -> String {
    let minutes = seconds / 60;
    let hours = (seconds + 1800) / 3600; // rounded, as Docker does
    match () {
        _ if seconds < 1 => "Less than a second".into(),
        _ if seconds == 1 => "1 second".into(),
        _ if seconds < 60 => format!("{seconds} seconds"),
        _ if minutes == 1 => "About a minute".into(),
        _ if minutes < 60 => format!("{minutes} minutes"),
        _ if hours == 1 => "About an hour".into(),
        _ if hours < 48 => format!("{hours} hours"),
        _ if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        _ if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        _ if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", hours / 24 / 365),
    }
}

/// `2 minutes ago`, for seconds since 1970; `N/A` for times nobody was there.
pub fn ago(seconds: i64) -> String {
    match seconds > 0 {
        true => format!("{} ago", duration(Timestamp::now().as_second() - seconds)),
        false => "N/A".into(),
    }
}

/// `2024-01-02 03:04:05 +0100 CET`, for seconds since 1970.
pub fn local(seconds: i64) -> String {
    let time = Timestamp::from_second(seconds)
        .unwrap_or(Timestamp::UNIX_EPOCH)
        .to_zoned(TimeZone::system());
    time.strftime("%Y-%m-%d %H:%M:%S %z %Z").to_string()
}

/// `142MB`: powers of a thousand, three digits.
pub fn size(bytes: u64) -> String {
    scaled(bytes as f64, 1000.0, &["B", "kB", "MB", "GB", "TB", "PB", "EB"], 3)
}

/// `142.3MB`: the same with four digits, for sums.
pub fn exact_size(bytes: u64) -> String {
    scaled(bytes as f64, 1000.0, &["B", "kB", "MB", "GB", "TB", "PB", "EB"], 4)
}

/// `15.6GiB`: powers of 1024, four digits.
pub fn binary_size(bytes: u64) -> String {
    scaled(
        bytes as f64,
        1024.0,
        &["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"],
        4,
    )
}

fn scaled(mut value: f64, base: f64, units: &[&str], digits: usize) -> String {
    let mut unit = 0;
    while value >= base && unit + 1 < units.len() {
        value /= base;
        unit += 1;
    }
    let before = if value < 1.0 { 1 } else { value.log10() as usize + 1 };
    let text = format!("{value:.*}", digits.saturating_sub(before));
    let text = if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.')
    } else {
        &text
    };
    format!("{text}{}", units[unit])
}

/// Bytes from `64m`, `1.5g`, `1024`: powers of 1024.
pub fn parse_bytes(text: &str) -> Result<i64, Failure> {
    let wrong = || Failure::Usage(format!("invalid size: '{text}'"));
    let lower = text.trim().to_ascii_lowercase();
    let end = lower
        .find(|other: char| !other.is_ascii_digit() && other != '.')
        .unwrap_or(lower.len());
    let factor = match lower[end..].trim() {
        "" | "b" => 1u64,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        "t" | "tb" | "tib" => 1 << 40,
        _ => return Err(wrong()),
    };
    let number: f64 = lower[..end].parse().map_err(|_| wrong())?;
    Ok((number * factor as f64) as i64)
}

/// A point in time as the API wants it: seconds since 1970 as they are, `10m` before now, or a date.
pub fn point(text: &str) -> Result<String, Failure> {
    let wrong = || Failure::Usage(format!("invalid value for a time: {text:?}"));
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return Ok(text.to_owned());
    }
    let time = if let Ok(time) = text.parse::<Timestamp>() {
        time
    } else if let Ok(before) = text.parse::<jiff::SignedDuration>() {
        let time = Timestamp::now().checked_sub(before).map_err(|_| wrong())?;
        // in whole seconds, as docker's CLI says it: `--until 0s` leaves out what happened in this second
        return Ok(time.as_second().to_string());
    } else {
        // without a zone it is meant here
        let here = text.parse::<jiff::civil::DateTime>().map_err(|_| wrong())?;
        here.to_zoned(TimeZone::system()).map_err(|_| wrong())?.timestamp()
    };
    Ok(format!("{}.{:09}", time.as_second(), time.subsec_nanosecond()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_in_dockers_words() {
        for (seconds, words) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (150, "2 minutes"),
            (3599, "59 minutes"),
            (3600, "About an hour"),
            (5400, "2 hours"),
            (47 * 3600, "47 hours"),
            (48 * 3600, "2 days"),
            (14 * 86400, "2 weeks"),
            (60 * 86400, "2 months"),
            (800 * 86400, "2 years"),
        ] {
            assert_eq!(duration(seconds), words, "{seconds}");
        }
    }

    #[test]
    fn sizes_have_three_digits() {
        for (bytes, words) in [
            (0, "0B"),
            (999, "999B"),
            (1000, "1kB"),
            (7_050_000, "7.05MB"),
            (142_400_000, "142MB"),
            (1_200_000_000, "1.2GB"),
        ] {
            assert_eq!(size(bytes), words);
        }
        assert_eq!(binary_size(16_777_216_000), "15.62GiB");
    }

    #[test]
    fn sizes_are_read_in_powers_of_1024() {
        assert_eq!(parse_bytes("64m").unwrap(), 64 << 20);
        assert_eq!(parse_bytes("1.5G").unwrap(), 3 << 29);
        assert_eq!(parse_bytes("100").unwrap(), 100);
        assert!(parse_bytes("much").is_err() && parse_bytes("").is_err() && parse_bytes("-1m").is_err());
    }

    #[test]
    fn points_in_time_are_numbers_durations_or_dates() {
        assert_eq!(point("1700000000.5").unwrap(), "1700000000.5");
        assert_eq!(point("2024-01-02T03:04:05.5Z").unwrap(), "1704164645.500000000");
        let before: i64 = point("1h30m").unwrap().parse().expect("whole seconds");
        assert!((Timestamp::now().as_second() - before - 5400).abs() < 5);
        assert!(point("2024-01-02T03:04:05").is_ok() && point("2024-01-02").is_ok());
        assert!(point("yesterday").is_err() && point("").is_err());
    }
}
