//! What registries say when they refuse, in Docker's words.

use std::io::Read;

use serde::Deserialize;
use ureq::{Body, http::Response};

use crate::error::ImageError;

/// The longest refusal that is read, bytes.
const LONGEST: u64 = 64 << 10;

/// A registry's refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub status: u16,
    /// `MANIFEST_UNKNOWN`; empty when it did not say.
    pub code: String,
    /// What it says, with the code before it as Docker shows it.
    pub message: String,
}

#[derive(Deserialize)]
struct Refused {
    #[serde(default)]
    errors: Vec<Written>,
    /// Of token servers.
    #[serde(default)]
    details: Option<String>,
}

#[derive(Deserialize)]
struct Written {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

impl Refusal {
    /// Reads an answer that is none of the hoped for.
    pub fn read(response: Response<Body>) -> Self {
        let status = response.status().as_u16();
        let mut text = Vec::new();
        // what cannot be read does not add to what the status says
        let _ = response.into_body().into_reader().take(LONGEST).read_to_end(&mut text);
        Self::of(status, &text)
    }

    fn of(status: u16, text: &[u8]) -> Self {
        let written: Option<Refused> = serde_json::from_slice(text).ok();
        let (mut code, mut sentences) = (String::new(), Vec::new());
        if let Some(written) = written {
            for Written { code: found, message } in written.errors {
                let words = found.to_lowercase().replace('_', " ");
                sentences.push(match (words.is_empty(), message.is_empty()) {
                    (true, _) => clean(&message),
                    (false, true) => clean(&words),
                    (false, false) => clean(&format!("{words}: {message}")),
                });
                if code.is_empty() {
                    code = found;
                }
            }
            sentences.extend(written.details.map(|details| clean(&details)));
        }
        if sentences.is_empty() {
            let known = ureq::http::StatusCode::from_u16(status)
                .ok()
                .and_then(|code| code.canonical_reason());
            sentences.push(match status {
                401 => "unauthorized: authentication required".into(),
                403 => "denied: requested access to the resource is denied".into(),
                429 => "toomanyrequests: the registry asks to come back later".into(),
                _ => format!("unexpected status code {status} {}", known.unwrap_or_default())
                    .trim_end()
                    .into(),
            });
        }
        if code.is_empty() {
            code = match status {
                401 => "UNAUTHORIZED",
                403 => "DENIED",
                429 => "TOOMANYREQUESTS",
                _ => "",
            }
            .into();
        }
        Self {
            status,
            code,
            message: sentences.join(", "),
        }
    }

    /// As an error of a pull or push of `name` (familiar, with its tag where that matters).
    pub fn of_image(self, repository: &str, name: &str) -> ImageError {
        let Self { status, code, message } = self;
        match code.as_str() {
            "DENIED" => ImageError::Missing(format!(
                "pull access denied for {repository}, repository does not exist or may require 'docker login': {message}"
            )),
            "MANIFEST_UNKNOWN" => ImageError::Missing(format!("manifest for {name} not found: {message}")),
            "NAME_UNKNOWN" => ImageError::Missing(format!("repository {repository} not found: {message}")),
            "UNAUTHORIZED" => ImageError::Unauthorized(message),
            _ if status == 404 => ImageError::Missing(format!("manifest for {name} not found: {message}")),
            _ if status >= 500 => ImageError::Unreachable(format!("received {message} from the registry")),
            _ => ImageError::Failed(message),
        }
    }

    /// As an error of something else.
    pub fn plain(self, doing: &str) -> ImageError {
        let sentence = format!("{doing}: {}", self.message);
        match self.code.as_str() {
            "UNAUTHORIZED" => ImageError::Unauthorized(self.message),
            "DENIED" => ImageError::Failed(self.message),
            _ if self.status >= 500 || self.status == 429 => ImageError::Unreachable(sentence),
            _ => ImageError::Failed(sentence),
        }
    }
}

/// A stranger's sentence without what a terminal would obey.
fn clean(text: &str) -> String {
    let shown = text
        .chars()
        .map(|letter| if letter.is_control() { ' ' } else { letter });
    shown.take(1000).collect()
}

/// The network's trouble on the way to `url`.
pub(crate) fn unreachable(method: &str, url: &str, why: &ureq::Error) -> ImageError {
    let method = match method {
        "GET" => "Get",
        "HEAD" => "Head",
        "POST" => "Post",
        "PUT" => "Put",
        "PATCH" => "Patch",
        other => other,
    };
    let why = match why {
        ureq::Error::HostNotFound => "dial tcp: lookup failed: no such host".to_owned(),
        ureq::Error::Timeout(what) => format!("net/http: request canceled ({what} took too long)"),
        ureq::Error::RequireHttpsOnly(_) => "the registry leads to an address without TLS".to_owned(),
        other => described(&other.to_string()),
    };
    ImageError::Unreachable(format!("{method} {url:?}: {why}"))
}

/// TLS libraries have words of their own for what everybody meets.
fn described(why: &str) -> String {
    if why.contains("InvalidContentType") {
        return "http: server gave HTTP response to HTTPS client (a registry without TLS has to be named with --insecure-registry)".into();
    }
    if why.contains("UnknownIssuer") {
        return "tls: failed to verify certificate: x509: certificate signed by unknown authority (put its authority into certs.d/<host:port>/ca.crt)".into();
    }
    if why.contains("CaUsedAsEndEntity") {
        return "tls: failed to verify certificate: x509: the registry shows the certificate of an authority instead of one that an authority has signed \
                for it (put that very certificate into certs.d/<host:port>/ca.crt, or make one that it has signed, with basicConstraints=CA:FALSE)"
            .into();
    }
    if why.contains("NotValidForName") {
        return format!("tls: failed to verify certificate: x509: it is not valid for this name ({why})");
    }
    if why.contains("Connection refused") {
        return "dial tcp: connect: connection refused".into();
    }
    why.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_told_as_docker_tells_it() {
        let text = br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":{"Tag":"x"}}]}"#;
        let refusal = Refusal::of(404, text);
        assert_eq!(refusal.message, "manifest unknown: manifest unknown");
        assert_eq!(
            refusal.of_image("r/a", "r/a:x").to_string(),
            "manifest for r/a:x not found: manifest unknown: manifest unknown"
        );
        let denied = Refusal::of(
            403,
            br#"{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}"#,
        );
        assert_eq!(
            denied.of_image("a", "a:1").to_string(),
            "pull access denied for a, repository does not exist or may require 'docker login': \
             denied: requested access to the resource is denied"
        );
    }

    #[test]
    fn a_refusal_without_words_has_those_of_its_status() {
        for text in [&b""[..], b"<html>", b"{}", b"[]", b"{\"errors\":[]}"] {
            assert_eq!(Refusal::of(502, text).message, "unexpected status code 502 Bad Gateway");
        }
        assert_eq!(Refusal::of(401, b"").code, "UNAUTHORIZED");
        assert_eq!(Refusal::of(599, b"").message, "unexpected status code 599");
    }

    #[test]
    fn a_refusal_does_not_command_a_terminal() {
        let refusal = Refusal::of(400, b"{\"errors\":[{\"code\":\"\",\"message\":\"a\\u001b[2Jb\"}]}");
        assert_eq!(refusal.message, "a [2Jb");
    }
}
