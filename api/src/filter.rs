//! Filters: `{"label":["a=b"],"status":["running"]}`, or in the older form `{"label":{"a=b":true}}`.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::error::ApiError;

/// Keys, each with values that are alternatives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Filters(BTreeMap<String, Vec<String>>);

#[derive(Deserialize)]
#[serde(untagged)]
enum Values {
    List(Vec<String>),
    Map(BTreeMap<String, bool>),
}

// === impl Filters ===

impl Filters {
    /// From the JSON of the query.
    pub(crate) fn parse(text: &str) -> Result<Self, ApiError> {
        let read: BTreeMap<String, Values> =
            serde_json::from_str(text).map_err(|_| ApiError::invalid(format!("invalid filter: {text}")))?;
        let values = |values| match values {
            Values::List(list) => list,
            Values::Map(map) => map
                .into_iter()
                .filter_map(|(value, wanted)| wanted.then_some(value))
                .collect(),
        };
        Ok(Self(
            read.into_iter().map(|(key, given)| (key, values(given))).collect(),
        ))
    }

    /// As the engine takes them.
    pub(crate) fn into_pairs(self) -> Vec<(String, Vec<String>)> {
        self.0.into_iter().collect()
    }

    /// Refuses keys that mean nothing here.
    pub(crate) fn only(&self, known: &[&str]) -> Result<(), ApiError> {
        match self.0.keys().find(|key| !known.contains(&key.as_str())) {
            Some(unknown) => Err(ApiError::invalid(format!("invalid filter '{unknown}'"))),
            None => Ok(()),
        }
    }

    /// Is nothing asked of this key, or does one of its values agree?
    pub(crate) fn any(&self, key: &str, agrees: impl Fn(&str) -> bool) -> bool {
        self.0
            .get(key)
            .is_none_or(|values| values.is_empty() || values.iter().any(|value| agrees(value)))
    }

    /// Do all values of this key agree?
    pub(crate) fn all(&self, key: &str, agrees: impl Fn(&str) -> bool) -> bool {
        self.0
            .get(key)
            .is_none_or(|values| values.iter().all(|value| agrees(value)))
    }

    /// The values of a key.
    pub(crate) fn values(&self, key: &str) -> Vec<String> {
        self.0.get(key).cloned().unwrap_or_default()
    }

    /// The first value of a key.
    pub(crate) fn one(&self, key: &str) -> Option<&str> {
        self.0.get(key).and_then(|values| values.first()).map(String::as_str)
    }

    /// The one value of a key that says yes or no.
    pub(crate) fn flag(&self, key: &str) -> Result<Option<bool>, ApiError> {
        match self.0.get(key).map(Vec::as_slice) {
            None | Some([]) => Ok(None),
            Some([value]) if matches!(value.as_str(), "1" | "true" | "True" | "t") => Ok(Some(true)),
            Some([value]) if matches!(value.as_str(), "0" | "false" | "False" | "f") => Ok(Some(false)),
            Some(values) => Err(ApiError::invalid(format!(
                "invalid filter '{key}={}'",
                values.join(",")
            ))),
        }
    }
}

/// Does a label filter (`name` or `name=value`) agree with these labels?
pub(crate) fn label_agrees(wanted: &str, labels: &BTreeMap<String, String>) -> bool {
    match wanted.split_once('=') {
        Some((name, value)) => labels.get(name).is_some_and(|given| given == value),
        None => labels.contains_key(wanted),
    }
}

/// Does a shell pattern (`*`, `?`, not across slashes) agree with a text?
pub(crate) fn pattern_agrees(pattern: &str, text: &str) -> bool {
    fn agrees(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern.split_first(), text.split_first()) {
            (None, None) => true,
            (Some((b'*', rest)), _) if agrees(rest, text) => true,
            (Some((b'*', _)), Some((c, text))) if *c != b'/' => agrees(pattern, text),
            (Some((b'?', pattern)), Some((c, text))) if *c != b'/' => agrees(pattern, text),
            (Some((p, pattern)), Some((c, text))) if p == c && *p != b'*' => agrees(pattern, text),
            _ => false,
        }
    }
    // Stars after one another mean the same as one, and each further one would multiply the work.
    let mut simple = String::new();
    for c in pattern.chars() {
        if !(c == '*' && simple.ends_with('*')) {
            simple.push(c);
        }
    }
    simple.matches('*').count() <= 8 && agrees(simple.as_bytes(), text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read() {
        let new = Filters::parse(r#"{"label":["a=b","c"],"status":["running"]}"#).unwrap();
        let old = Filters::parse(r#"{"label":{"a=b":true,"c":true,"d":false},"status":{"running":true}}"#).unwrap();
        assert_eq!(new, old);
    }

    #[test]
    fn what_is_no_filter_is_refused() {
        assert_eq!(Filters::parse("[1]").unwrap_err().message, "invalid filter: [1]");
        let filters = Filters::parse(r#"{"colour":["red"]}"#).unwrap();
        assert_eq!(filters.only(&["label"]).unwrap_err().message, "invalid filter 'colour'");
    }

    #[test]
    fn patterns_do_not_cross_slashes() {
        for (pattern, text, agrees) in [
            ("nginx", "nginx", true),
            ("ng*", "nginx", true),
            ("*:latest", "nginx:latest", true),
            ("*", "a/b", false),
            ("*/*", "a/b", true),
            ("ngin?", "nginx", true),
            ("ngin?", "ngin", false),
            ("**x", "nginx", true),
        ] {
            assert_eq!(pattern_agrees(pattern, text), agrees, "{pattern} {text}");
        }
    }
}
