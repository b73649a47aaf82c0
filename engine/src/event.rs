//! What happens, told to those who listen.

use jiff::Timestamp;

/// Something happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// `container`, `image`, `network`, `volume` or `daemon`.
    pub kind: &'static str,
    /// `create`, `start`, `die`…
    pub action: String,
    /// The id of whom it happened to.
    pub id: String,
    /// `image`, `name`, `exitCode`, labels…
    pub attributes: Vec<(String, String)>,
    /// When.
    pub at: Timestamp,
}

/// Which events a listener wants.
#[derive(Clone, Debug, Default)]
pub struct EventFilter {
    /// Not before.
    pub since: Option<Timestamp>,
    /// Not after: the stream ends there.
    pub until: Option<Timestamp>,
    /// `type`, `event`, `container`, `image`, `label`, `network`…; each key's values are alternatives.
    pub filters: Vec<(String, Vec<String>)>,
}

impl Event {
    /// The value of an attribute.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }
}

impl EventFilter {
    /// Is this event wanted? (The times are the bus's business.)
    pub(crate) fn wants(&self, event: &Event) -> bool {
        self.filters.iter().all(|(key, values)| {
            // of labels all are wanted, as in Docker
            let of_labels = key == "label" && values.iter().all(|value| holds(event, key, value));
            values.is_empty() || of_labels || (key != "label" && values.iter().any(|value| holds(event, key, value)))
        })
    }
}

fn holds(event: &Event, key: &str, value: &str) -> bool {
    match key {
        "type" => event.kind == value,
        // `exec_create: ls` and `health_status: healthy` are also found by what stands before the colon
        "event" => event.action == value || event.action.split(':').next() == Some(value),
        "container" => event.kind == "container" && is_named(event, value),
        "network" => event.kind == "network" && is_named(event, value),
        "volume" => event.kind == "volume" && is_named(event, value),
        "daemon" => event.kind == "daemon" && is_named(event, value),
        "image" => match event.kind {
            "image" => is_image(&event.id, value) || event.attribute("name").is_some_and(|name| is_image(name, value)),
            _ => event.attribute("image").is_some_and(|image| is_image(image, value)),
        },
        "label" => match value.split_once('=') {
            Some((label, wanted)) => event.attribute(label) == Some(wanted),
            None => event.attribute(value).is_some(),
        },
        "scope" => value == "local",
        _ => false,
    }
}

/// By the beginning of its id or name, as Docker finds it.
fn is_named(event: &Event, value: &str) -> bool {
    let value = value.trim_start_matches('/');
    !value.is_empty()
        && (event.id.starts_with(value) || event.attribute("name").is_some_and(|name| name.starts_with(value)))
}

/// `nginx` finds `nginx:latest` and every other tag, as in Docker.
fn is_image(image: &str, wanted: &str) -> bool {
    image == wanted || image.strip_prefix(wanted).is_some_and(|rest| rest.starts_with(':'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> Event {
        Event {
            kind: "container",
            action: "exec_create: ls".into(),
            id: "abcdef".into(),
            attributes: vec![
                ("name".into(), "web".into()),
                ("image".into(), "nginx:latest".into()),
                ("tier".into(), "front".into()),
            ],
            at: Timestamp::UNIX_EPOCH,
        }
    }

    fn filter(filters: &[(&str, &[&str])]) -> EventFilter {
        let owned = |(key, values): &(&str, &[&str])| {
            (
                (*key).to_owned(),
                values.iter().map(|value| (*value).to_owned()).collect(),
            )
        };
        EventFilter {
            filters: filters.iter().map(owned).collect(),
            ..Default::default()
        }
    }

    #[test]
    fn values_of_a_key_are_alternatives_and_keys_must_all_hold() {
        assert!(filter(&[]).wants(&event()));
        assert!(filter(&[("type", &["image", "container"]), ("event", &["exec_create"])]).wants(&event()));
        assert!(!filter(&[("type", &["container"]), ("event", &["die"])]).wants(&event()));
    }

    #[test]
    fn containers_are_found_by_name_and_id_and_images_with_and_without_tag() {
        for wanted in ["web", "/web", "we", "abcdef", "abc"] {
            assert!(filter(&[("container", &[wanted])]).wants(&event()), "{wanted}");
        }
        assert!(!filter(&[("container", &["eb"])]).wants(&event()));
        assert!(filter(&[("image", &["nginx"])]).wants(&event()));
        assert!(!filter(&[("image", &["ngin"])]).wants(&event()));
    }

    #[test]
    fn labels_are_found_with_and_without_value() {
        assert!(filter(&[("label", &["tier"])]).wants(&event()));
        assert!(filter(&[("label", &["tier=front"])]).wants(&event()));
        assert!(!filter(&[("label", &["tier=back"])]).wants(&event()));
        assert!(!filter(&[("label", &["tier", "zone"])]).wants(&event()), "all of them");
    }
}
