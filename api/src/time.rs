//! Times as Docker writes and reads them.

use jiff::{SignedDuration, Timestamp};

/// What Go writes for no time at all.
pub(crate) const NEVER: &str = "0001-01-01T00:00:00Z";

/// RFC 3339 with nanoseconds.
pub(crate) fn text(time: Timestamp) -> String {
    time.to_string()
}

/// As above; none is [`NEVER`].
pub(crate) fn text_or_never(time: Option<Timestamp>) -> String {
    time.map_or_else(|| NEVER.to_owned(), text)
}

/// Seconds since 1970, with or without a fraction, or RFC 3339. Zero is none: clients send it for "no limit".
pub(crate) fn parse(text: &str) -> Result<Option<Timestamp>, String> {
    let wanted = || "seconds since 1970 or a time as in RFC 3339 are wanted".to_owned();
    if text.contains('T') {
        return text.parse().map(Some).map_err(|_| wanted());
    }
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = seconds.parse().map_err(|_| wanted())?;
    if fraction.len() > 9 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wanted());
    }
    let nanoseconds: i32 = format!("{fraction:0<9}").parse().map_err(|_| wanted())?;
    if (seconds, nanoseconds) == (0, 0) {
        return Ok(None);
    }
    Timestamp::new(seconds, nanoseconds).map(Some).map_err(|_| wanted())
}

/// How long ago, in the words `docker ps` uses: `3 seconds`, `About a minute`, `2 weeks`.
pub(crate) fn in_words(duration: SignedDuration) -> String {
    let seconds = duration.as_secs().max(0);
    let minutes = seconds / 60;
    let hours = (seconds + 1800) / 3600;
    match (seconds, minutes, hours) {
        (0, ..) => "Less than a second".to_owned(),
        (1, ..) => "1 second".to_owned(),
        (2..=59, ..) => format!("{seconds} seconds"),
        (_, 1, _) => "About a minute".to_owned(),
        (_, 2..=59, _) => format!("{minutes} minutes"),
        (.., 1) => "About an hour".to_owned(),
        (.., ..48) => format!("{hours} hours"),
        (.., ..336) => format!("{} days", hours / 24),
        (.., ..1440) => format!("{} weeks", hours / 24 / 7),
        (.., ..17520) => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", hours / 24 / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_told_in_dockers_words() {
        let told = [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (119, "About a minute"),
            (120, "2 minutes"),
            (3599, "59 minutes"),
            (3600, "About an hour"),
            (2 * 3600, "2 hours"),
            (47 * 3600, "47 hours"),
            (48 * 3600, "2 days"),
            (13 * 86400, "13 days"),
            (14 * 86400, "2 weeks"),
            (60 * 86400, "2 months"),
            (730 * 86400, "2 years"),
        ];
        for (seconds, words) in told {
            assert_eq!(in_words(SignedDuration::from_secs(seconds)), words, "{seconds}");
        }
    }

    #[test]
    fn times_are_read_with_and_without_fraction() {
        assert_eq!(parse("0"), Ok(None));
        assert_eq!(parse("0.000000000"), Ok(None));
        assert_eq!(parse("12.5"), Ok(Some(Timestamp::new(12, 500_000_000).unwrap())));
        assert_eq!(
            parse("1700000000"),
            Ok(Some(Timestamp::from_second(1_700_000_000).unwrap()))
        );
        assert_eq!(
            parse("2023-11-14T22:13:20Z"),
            Ok(Some(Timestamp::from_second(1_700_000_000).unwrap()))
        );
        assert!(parse("yesterday").is_err() && parse("1.x").is_err());
    }
}
