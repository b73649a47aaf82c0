//! Events.

use bytes::Bytes;
use serde_json::{Map, Value, json};
use sluice_engine::Event;

/// An event as a line.
pub(crate) fn line(event: &Event) -> Bytes {
    let mut line = document(event).to_string();
    line.push('\n');
    line.into()
}

fn document(event: &Event) -> Value {
    let attributes: Map<String, Value> = event
        .attributes
        .iter()
        .map(|(key, value)| (key.clone(), json!(value)))
        .collect();
    let mut document = json!({
        "Type": event.kind,
        "Action": event.action,
        "Actor": { "ID": event.id, "Attributes": attributes },
        "scope": "local",
        "time": event.at.as_second(),
        "timeNano": i64::try_from(event.at.as_nanosecond()).unwrap_or(i64::MAX),
    });
    // The older form of the same, which clients up to 1.51 may read.
    if matches!(event.kind, "container" | "image") {
        document["status"] = json!(event.action);
        document["id"] = json!(event.id);
        if let Some(image) = attributes.get("image") {
            document["from"] = image.clone();
        }
    }
    document
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_has_its_old_and_its_new_form() {
        let event = Event {
            kind: "container",
            action: "die".to_owned(),
            id: "abc".to_owned(),
            attributes: vec![
                ("image".to_owned(), "nginx".to_owned()),
                ("exitCode".to_owned(), "3".to_owned()),
            ],
            at: jiff::Timestamp::new(1_700_000_000, 5).unwrap(),
        };
        assert_eq!(
            document(&event),
            json!({
                "Type": "container", "Action": "die", "scope": "local", "status": "die", "id": "abc", "from": "nginx",
                "Actor": {"ID": "abc", "Attributes": {"image": "nginx", "exitCode": "3"}},
                "time": 1_700_000_000, "timeNano": 1_700_000_000_000_000_005i64
            })
        );
        let read: bollard_stubs::models::EventMessage = serde_json::from_slice(&line(&event)).unwrap();
        assert_eq!(read.action.as_deref(), Some("die"));
    }
}
