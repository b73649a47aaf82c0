//! Bodies of requests.

use axum::{
    body::Body,
    extract::{FromRequest, Request},
    http::header::CONTENT_TYPE,
};
use bytes::Bytes;
use futures_util::StreamExt;
use serde::de::{DeserializeOwned, IgnoredAny};
use tokio::sync::mpsc;

use crate::error::ApiError;

/// The largest JSON that is read, bytes.
const MOST_JSON: usize = 4 << 20;
/// Chunks of an upload that may wait for the engine.
const WAITING_CHUNKS: usize = 8;

/// A JSON body. Unknown members are ignored; a null is as good as nothing, as it is to Docker.
pub(crate) struct Json<T>(pub(crate) T);

// === impl Json ===

impl<T: DeserializeOwned, S: Sync> FromRequest<S> for Json<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let declared = request
            .headers()
            .get(CONTENT_TYPE)
            .map(|value| value.to_str().unwrap_or_default().to_owned());
        let bytes = axum::body::to_bytes(request.into_body(), MOST_JSON)
            .await
            .map_err(|error| ApiError::invalid(format!("cannot read the request's body: {error}")))?;
        read(declared.as_deref(), &bytes).map(Self)
    }
}

/// The JSON of a request's body as a value. An empty body is refused; [`read_or_default`] does not.
pub(crate) fn read<T: DeserializeOwned>(declared: Option<&str>, bytes: &[u8]) -> Result<T, ApiError> {
    if bytes.is_empty() {
        return Err(ApiError::invalid("invalid JSON: got EOF while reading request body"));
    }
    // A web page can make a browser send any text to a port of this machine, but not with this type: so it is asked for.
    let media_type = declared.unwrap_or_default();
    if media_type.split(';').next().map(str::trim) != Some("application/json") {
        return Err(ApiError::invalid(format!(
            "unsupported Content-Type header ({media_type}): must be 'application/json'"
        )));
    }
    let wrong = |error: serde_json::Error| ApiError::invalid(format!("invalid JSON: {error}"));
    serde_json::from_slice::<IgnoredAny>(bytes).map_err(wrong)?;
    serde_json::from_slice(&without_nulls(bytes)).map_err(wrong)
}

/// Reads the body of a request that goes on to be hijacked; an empty one is a value's default.
pub(crate) async fn read_or_default<T: DeserializeOwned + Default>(request: &mut Request) -> Result<T, ApiError> {
    let declared = request
        .headers()
        .get(CONTENT_TYPE)
        .map(|value| value.to_str().unwrap_or_default().to_owned());
    let body = std::mem::replace(request.body_mut(), Body::empty());
    let bytes = axum::body::to_bytes(body, MOST_JSON)
        .await
        .map_err(|error| ApiError::invalid(format!("cannot read the request's body: {error}")))?;
    if bytes.is_empty() {
        Ok(T::default())
    } else {
        read(declared.as_deref(), &bytes)
    }
}

/// Takes away members that are null, everywhere in a JSON that has been found well-formed.
///
/// A tree of values, changed and read once more, does the same: for ten thousand published ports that took longer than to publish them.
fn without_nulls(json: &[u8]) -> Vec<u8> {
    let mut kept = Vec::with_capacity(json.len());
    // where in `kept` the last string begins, and the last mark outside of strings
    let (mut string, mut mark) = (0, b' ');
    // the first member of an object went: the comma behind it goes too
    let mut skip_comma = false;
    let mut rest = json;
    while let [byte, after @ ..] = rest {
        let mut length = 1;
        match byte {
            b'"' => {
                string = kept.len();
                length = string_length(rest);
            }
            b'n' if mark == b':' => {
                kept.truncate(string);
                match kept.last() {
                    Some(b',') => drop(kept.pop()),
                    _ => skip_comma = true,
                }
                mark = b' ';
                rest = after.get(b"ull".len()..).unwrap_or_default();
                continue;
            }
            b' ' | b'\t' | b'\n' | b'\r' => {
                rest = after;
                continue;
            }
            b',' if std::mem::take(&mut skip_comma) => {
                rest = after;
                continue;
            }
            b'}' => {
                skip_comma = false;
                mark = *byte;
            }
            b'{' | b'[' | b']' | b':' | b',' => mark = *byte,
            _ => {}
        }
        let (taken, left) = rest.split_at(length.min(rest.len()));
        kept.extend_from_slice(taken);
        rest = left;
    }
    kept
}

/// The bytes of the string that `json` begins with, quotes and all.
fn string_length(json: &[u8]) -> usize {
    let mut at = 1;
    loop {
        match json.get(at) {
            Some(b'\\') => at += 2,
            Some(b'"') | None => return at + 1,
            Some(_) => at += 1,
        }
    }
}

/// Hands an upload on, chunk by chunk, no faster than it is taken. A client that goes away in the middle is an error there, never an end.
pub(crate) fn upload(body: Body) -> mpsc::Receiver<std::io::Result<Bytes>> {
    let (chunks, receiver) = mpsc::channel(WAITING_CHUNKS);
    tokio::spawn(async move {
        let mut body = body.into_data_stream();
        while let Some(chunk) = body.next().await {
            let failed = chunk.is_err();
            let chunk = chunk.map_err(|error| std::io::Error::other(format!("the upload broke off: {error}")));
            if chunks.send(chunk).await.is_err() || failed {
                return;
            }
        }
    });
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize, Debug, PartialEq, Default)]
    #[serde(default)]
    struct Wish {
        name: String,
        words: Vec<String>,
    }

    fn wish(text: &str) -> Result<Wish, String> {
        read(Some("application/json; charset=utf-8"), text.as_bytes()).map_err(|error| error.message)
    }

    #[test]
    fn nulls_and_unknown_members_are_as_good_as_nothing() {
        assert_eq!(
            wish(r#"{"name":null,"words":null,"colour":{"x":null}}"#),
            Ok(Wish::default())
        );
    }

    #[test]
    fn only_members_are_taken_away_when_they_are_null() {
        let same = [
            r#""null""#,
            "null",
            "[null,1,null]",
            r#"{"a":[null],"b":"x\\\":null,"}"#,
            r#"{"null":1}"#,
            "{}",
            "-1.5e3",
        ];
        let less = [
            (r#"{"a":null}"#, "{}"),
            (r#"{"a":null,"b":1}"#, r#"{"b":1}"#),
            (r#"{"b":1, "a" : null }"#, r#"{"b":1}"#),
            (r#"{"b":1,"a":null,"c":null,"d":2}"#, r#"{"b":1,"d":2}"#),
            (r#"{"a":null,"b":null,"c":2}"#, r#"{"c":2}"#),
            (
                r#"[{"a":null},{"b":{"a":null},"c":[{"x":null,"y":[]}]},3]"#,
                r#"[{},{"b":{},"c":[{"y":[]}]},3]"#,
            ),
            (
                r#"{"o":{"a":null},"p":null,"q":{"r":null,"s":"null"}}"#,
                r#"{"o":{},"q":{"s":"null"}}"#,
            ),
        ];
        for (given, wanted) in same.iter().map(|same| (*same, *same)).chain(less) {
            let found = String::from_utf8(without_nulls(given.as_bytes())).unwrap();
            assert_eq!(found, wanted, "of {given}");
        }
    }

    #[test]
    fn malformed_json_is_refused_in_a_sentence() {
        assert!(wish("{").unwrap_err().starts_with("invalid JSON: "));
        assert!(wish(r#"{"name":3}"#).unwrap_err().starts_with("invalid JSON: "));
        assert!(wish("{} {}").unwrap_err().starts_with("invalid JSON: "));
        assert_eq!(
            wish("").unwrap_err(),
            "invalid JSON: got EOF while reading request body"
        );
    }

    #[test]
    fn what_a_browser_could_be_made_to_send_is_refused() {
        let error = read::<Wish>(Some("text/plain"), b"{}").unwrap_err().message;
        assert_eq!(
            error,
            "unsupported Content-Type header (text/plain): must be 'application/json'"
        );
    }
}
