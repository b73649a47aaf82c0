//! Paths and queries of requests.

use std::fmt::Write;

/// `name=value` pairs behind a `?`; nothing for no pairs.
pub fn query(pairs: &[(&str, &str)]) -> String {
    let mut text = String::new();
    for (name, value) in pairs {
        text.push(if text.is_empty() { '?' } else { '&' });
        text.push_str(name);
        text.push('=');
        text.push_str(&encode(value, b""));
    }
    text
}

/// A name as a part of a path. Slashes stay: names of images have them, and Docker sends them so.
pub fn segment(name: &str) -> String {
    encode(name, b"/:@")
}

/// Filters (`name=value`, several times) as the API wants them.
pub fn filters(given: &[String]) -> Result<Option<String>, crate::failure::Failure> {
    let mut filters = std::collections::BTreeMap::<&str, Vec<&str>>::new();
    for filter in given {
        let (name, value) = filter.split_once('=').ok_or_else(|| {
            crate::failure::Failure::Usage(format!(
                "invalid filter '{filter}': bad format of filter (expected name=value)"
            ))
        })?;
        filters.entry(name.trim()).or_default().push(value.trim());
    }
    Ok((!filters.is_empty()).then(|| serde_json::json!(filters).to_string()))
}

/// The same as a query of their own; nothing for none.
pub fn filtered(given: &[String]) -> Result<String, crate::failure::Failure> {
    let filters = filters(given)?;
    Ok(filters.map_or_else(String::new, |filters| query(&[("filters", &filters)])))
}

fn encode(text: &str, kept: &[u8]) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || kept.contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}"); // writing to a String does not fail
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_means_something_in_a_query_is_encoded() {
        assert_eq!(query(&[]), "");
        assert_eq!(query(&[("a", "1"), ("b", "x y&z=ä")]), "?a=1&b=x%20y%26z%3D%C3%A4");
        assert_eq!(segment("me/app:1@sha256:0?#"), "me/app:1@sha256:0%3F%23");
    }

    #[test]
    fn filters_of_one_name_gather() {
        let given = ["label=a=b".to_owned(), "label=c".into(), "name=x".into()];
        assert_eq!(
            filters(&given).unwrap().unwrap(),
            r#"{"label":["a=b","c"],"name":["x"]}"#
        );
        assert_eq!(filters(&[]).unwrap(), None);
        assert_eq!(filtered(&[]).unwrap(), "");
        assert_eq!(
            filtered(&["a=b".into()]).unwrap(),
            "?filters=%7B%22a%22%3A%5B%22b%22%5D%7D"
        );
        assert!(filters(&["alone".into()]).is_err());
    }
}
