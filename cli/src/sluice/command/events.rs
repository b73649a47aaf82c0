//! `sluice events`

use clap::Args;
use http_body_util::BodyExt;
use jiff::{Timestamp, tz::TimeZone};
use serde_json::Value;

use crate::{
    daemon::{self, Daemon},
    failure::Failure,
    measure,
    output::print,
    query::{filters, query},
    template::{Missing, Template},
};

/// `sluice events`
#[derive(Args)]
pub struct Events {
    /// Only those that match, as name=value
    #[arg(short, long, value_name = "FILTER")]
    filter: Vec<String>,
    /// `json` or a Go template
    #[arg(long)]
    format: Option<String>,
    /// From then on: a date or a duration before now
    #[arg(long)]
    since: Option<String>,
    /// Until then
    #[arg(long)]
    until: Option<String>,
}

impl Events {
    pub async fn answer(&self, daemon: &Daemon) -> Result<(), Failure> {
        let template = match self.format.as_deref() {
            None => None,
            Some("json") => Some(Template::parse("{{json .}}")?),
            Some(text) => Some(Template::parse(text)?),
        };
        let filters = filters(&self.filter)?;
        let since = self.since.as_deref().map(measure::point).transpose()?;
        let until = self.until.as_deref().map(measure::point).transpose()?;
        let pairs = [
            ("since", since.as_deref()),
            ("until", until.as_deref()),
            ("filters", filters.as_deref()),
        ];
        let pairs: Vec<_> = pairs
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?)))
            .collect();
        let response = daemon.stream(&format!("/events{}", query(&pairs))).await?;
        let (mut body, mut pending) = (response.into_body(), Vec::new());
        while let Some(frame) = body.frame().await {
            if let Ok(data) = frame.map_err(daemon::broken)?.into_data() {
                pending.extend_from_slice(&data);
            }
            while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = pending.drain(..=end).collect();
                let event = daemon::json(line.trim_ascii())?;
                match &template {
                    _ if event.is_null() => {}
                    None => print(&line_of(&event))?,
                    Some(template) => print(&(template.fill(&event, Missing::NoValue)? + "\n"))?,
                }
            }
        }
        Ok(())
    }
}

/// `TIME container start ID (image=nginx, name=web)`
fn line_of(event: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let time = match (event["timeNano"].as_i64(), event["time"].as_i64()) {
        (Some(nanoseconds), _) if nanoseconds != 0 => Timestamp::from_nanosecond(nanoseconds.into()),
        (_, seconds) => Timestamp::from_second(seconds.unwrap_or_default()),
    };
    let time = time.unwrap_or(Timestamp::UNIX_EPOCH).to_zoned(TimeZone::system());
    let (kind, action, id) = (
        text(&event["Type"]),
        text(&event["Action"]),
        text(&event["Actor"]["ID"]),
    );
    let attributes = event["Actor"]["Attributes"].as_object().into_iter().flatten();
    let mut attributes: Vec<String> = attributes
        .map(|(name, value)| format!("{name}={}", text(value)))
        .collect();
    attributes.sort();
    let attributes = if attributes.is_empty() {
        String::new()
    } else {
        format!(" ({})", attributes.join(", "))
    };
    let time = match time.offset().is_zero() {
        true => time.strftime("%Y-%m-%dT%H:%M:%S.%9fZ"),
        false => time.strftime("%Y-%m-%dT%H:%M:%S.%9f%:z"),
    };
    format!("{time} {kind} {action} {id}{attributes}\n")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_event_is_a_line_as_docker_writes_it() {
        let event = json!({"Type": "container", "Action": "start", "timeNano": 1_700_000_000_123_456_789i64,
            "Actor": {"ID": "abc", "Attributes": {"name": "web", "image": "nginx"}}});
        let line = line_of(&event);
        let (time, rest) = line.split_once(' ').unwrap();
        assert_eq!(rest, "container start abc (image=nginx, name=web)\n");
        let zone = time.split_once(".123456789").map(|(_, zone)| zone);
        assert!(zone.is_some_and(|zone| zone == "Z" || zone.len() == 6), "{time}");
    }
}
