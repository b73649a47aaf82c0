//! The query of a request, read as Docker reads it.

use std::str::FromStr;

use axum::{extract::FromRequestParts, http::request::Parts};
use jiff::Timestamp;

use crate::{error::ApiError, filter::Filters, time};

/// Names and values in the order given; a name may come more than once.
#[derive(Clone, Debug, Default)]
pub(crate) struct Query(Vec<(String, String)>);

// === impl Query ===

impl Query {
    /// The first value of a name; empty is none.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.values(name).next().filter(|value| !value.is_empty())
    }

    /// All values of a name.
    pub(crate) fn values<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter(move |(given, _)| given == name)
            .map(|(_, value)| value.as_str())
    }

    /// Is it said, and not said to be false?
    pub(crate) fn flag(&self, name: &str) -> bool {
        self.text(name)
            .is_some_and(|value| !matches!(value.to_ascii_lowercase().as_str(), "0" | "no" | "false" | "none"))
    }

    /// As above; when nothing is said, `default`.
    pub(crate) fn flag_or(&self, name: &str, default: bool) -> bool {
        self.text(name).map_or(default, |_| self.flag(name))
    }

    /// A whole number.
    pub(crate) fn number<T: FromStr>(&self, name: &str) -> Result<Option<T>, ApiError> {
        let Some(text) = self.text(name) else { return Ok(None) };
        text.trim()
            .parse()
            .map(Some)
            .map_err(|_| ApiError::invalid(format!("invalid value {text:?} for {name}: a whole number is wanted")))
    }

    /// Seconds since 1970 with a fraction, or RFC 3339; 0 is none.
    pub(crate) fn time(&self, name: &str) -> Result<Option<Timestamp>, ApiError> {
        let Some(text) = self.text(name) else { return Ok(None) };
        time::parse(text).map_err(|error| ApiError::invalid(format!("invalid value {text:?} for {name}: {error}")))
    }

    /// `filters={"label":["a=b"]}`.
    pub(crate) fn filters(&self) -> Result<Filters, ApiError> {
        self.text("filters")
            .map_or_else(|| Ok(Filters::default()), Filters::parse)
    }
}

impl<S: Sync> FromRequestParts<S> for Query {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let query = axum::extract::Query::<Vec<(String, String)>>::try_from_uri(&parts.uri);
        query
            .map(|query| Self(query.0))
            .map_err(|error| ApiError::invalid(format!("invalid query: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn query(text: &str) -> Query {
        let request = axum::http::Request::builder()
            .uri(format!("/x?{text}"))
            .body(())
            .unwrap();
        Query::from_request_parts(&mut request.into_parts().0, &())
            .await
            .unwrap()
    }

    #[tokio::test]
    async fn flags_are_read_as_docker_reads_them() {
        let query = query("a=1&b=true&c=0&d=False&e=&f=no&g=none&h=yes").await;
        let set: Vec<_> = ["a", "b", "c", "d", "e", "f", "g", "h", "i"]
            .into_iter()
            .filter(|name| query.flag(name))
            .collect();
        assert_eq!(set, ["a", "b", "h"]);
    }

    #[tokio::test]
    async fn a_name_may_come_more_than_once() {
        let query = query("changes=CMD%20a&changes=ENV+b%3Dc").await;
        assert_eq!(query.values("changes").collect::<Vec<_>>(), ["CMD a", "ENV b=c"]);
    }

    #[tokio::test]
    async fn a_number_that_is_none_is_refused_by_name() {
        let error = query("t=soon").await.number::<i64>("t").unwrap_err();
        assert_eq!(error.message, "invalid value \"soon\" for t: a whole number is wanted");
    }
}
