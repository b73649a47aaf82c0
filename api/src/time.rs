//! Times as Docker writes and reads them.

use jiff::{SignedDuration, Timestamp};

/// What Go writes for no time at all.
pub(crate) const NEVER: &str = "0001-01-01T00:00:00Z";

/// RFC 3339 with nanoseconds.
pub(crate) fn text(time: Timestamp) -> String {
    time.to_string()
}

/// RFC 3339 with whole seconds.
pub(crate) fn text_of_second(time: Timestamp) -> String {
    Timestamp::from_second(time.as_second()).map_or_else(|_| NEVER.to_owned(), text)
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

/// The moment that `until` of a prune means: so long ago (`10m`, `1h30m`), or a time as [`parse`] reads it.
pub(crate) fn moment(text: &str) -> Result<Option<Timestamp>, String> {
    match duration(text) {
        Some(duration) => Timestamp::now()
            .checked_sub(duration)
            .map(Some)
            .map_err(|error| error.to_string()),
        None => parse(text),
    }
}

/// A duration as Go writes it: numbers with units, the largest first.
fn duration(text: &str) -> Option<SignedDuration> {
    let mut seconds = 0.0;
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(|c: char| c.is_ascii_alphabetic())?;
        let (number, after) = rest.split_at(end);
        let unit_ends = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_ends);
        let number: f64 = number.parse().ok().filter(|number: &f64| *number >= 0.0)?;
        seconds += number
            * match unit {
                "h" => 3600.0,
                "m" => 60.0,
                "s" => 1.0,
                "ms" => 1e-3,
                _ => return None,
            };
        rest = after;
    }
    (!text.is_empty()).then(|| SignedDuration::try_from_secs_f64(seconds).ok())?
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
    fn a_moment_is_so_long_ago_or_a_time() {
        let ago = |text: &str| Timestamp::now().as_second() - moment(text).unwrap().unwrap().as_second();
        assert!((3600..3610).contains(&ago("1h")) && (5400..5410).contains(&ago("1h30m")));
        assert_eq!(moment("1700000000").unwrap().unwrap().as_second(), 1_700_000_000);
        assert_eq!(
            moment("2023-11-14T22:13:20Z").unwrap().unwrap().as_second(),
            1_700_000_000
        );
        for text in ["soon", "1x", "h", "-1h"] {
            assert!(moment(text).is_err(), "{text}");
        }
    }

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
