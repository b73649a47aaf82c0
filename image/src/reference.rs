//! Names of images: Docker's grammar, its normalisation (`nginx` is `docker.io/library/nginx:latest`) and its words when a name is wrong.

use std::fmt;

use crate::{digest::Digest, error::ImageError};

/// Docker's limit on domain and path together, characters.
const LONGEST_NAME: usize = 255;
const DEFAULT_DOMAIN: &str = "docker.io";

/// A repository with a tag.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Reference {
    /// Normalised, with its domain: `docker.io/library/nginx`.
    pub repository: String,
    pub tag: String,
}

impl Reference {
    /// As Docker shows it: without the domain and `library/` it adds itself.
    pub fn familiar(&self) -> String {
        format!("{}:{}", familiar_repository(&self.repository), self.tag)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}", self.repository, self.tag)
    }
}

/// What somebody may mean by a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Named {
    /// `sha256:<hex>` or 64 digits.
    Id(Digest),
    /// `name[:tag]`; the tag is `latest` when none is given. Could still be the beginning of an id.
    Tagged(Reference),
    /// `name[:tag]@sha256:<hex>`; the tag does not count.
    Digested(String, Digest),
}

/// A name to look up.
pub(crate) fn parse(text: &str) -> Result<Named, ImageError> {
    if let Ok(id) = Digest::parse(text) {
        return Ok(Named::Id(id));
    }
    if is_hex_digest(text) {
        return Digest::parse(&format!("sha256:{text}")).map(Named::Id);
    }
    let (name, digest) = match text.split_once('@') {
        None => (text, None),
        Some((name, digest)) => (name, Some(Digest::parse(digest).map_err(|_| malformed())?)),
    };
    let reference = parse_named(name)?;
    Ok(match digest {
        None => Named::Tagged(reference),
        Some(digest) => Named::Digested(reference.repository, digest),
    })
}

/// A name to give: `repository[:tag]`, no digest.
pub(crate) fn parse_tag(text: &str) -> Result<Reference, ImageError> {
    if text.contains('@') {
        return Err(ImageError::Invalid(
            "refusing to create a tag with a digest reference".into(),
        ));
    }
    parse_named(text)
}

fn parse_named(text: &str) -> Result<Reference, ImageError> {
    if is_hex_digest(text) {
        return Err(ImageError::Invalid(format!(
            "invalid repository name ({text}), cannot specify 64-byte hexadecimal strings"
        )));
    }
    let (domain, rest) = split_domain(text);
    // a colon after the last slash begins the tag
    let (path, tag) = match rest.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
        _ => (rest.as_str(), None),
    };
    if path.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err(ImageError::Invalid(
            "invalid reference format: repository name must be lowercase".into(),
        ));
    }
    if !is_domain(&domain) || !path.split('/').all(is_component) || !tag.is_none_or(is_tag) {
        return Err(malformed());
    }
    let repository = format!("{domain}/{path}");
    if repository.len() > LONGEST_NAME {
        return Err(ImageError::Invalid(format!(
            "invalid reference format: repository name must not be more than {LONGEST_NAME} characters"
        )));
    }
    Ok(Reference {
        repository,
        tag: tag.unwrap_or("latest").to_owned(),
    })
}

/// As Docker shows a repository.
pub(crate) fn familiar_repository(repository: &str) -> &str {
    let Some(path) = repository.strip_prefix("docker.io/") else {
        return repository;
    };
    match path.strip_prefix("library/") {
        // `docker.io/library/a/b` is not what `a/b` means
        Some(official) if !official.contains('/') => official,
        _ => match path.split_once('/') {
            // `docker.io/quay.io/a` is not what `quay.io/a` means
            Some((first, _)) if first.contains('.') || first == "localhost" => repository,
            _ => path,
        },
    }
}

fn malformed() -> ImageError {
    ImageError::Invalid("invalid reference format".into())
}

/// The first part is a domain when it looks like one: a dot, a port, `localhost`, or upper case (no repository has that).
fn split_domain(text: &str) -> (String, String) {
    let (domain, rest) = match text.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':'])
                || first == "localhost"
                || first.bytes().any(|byte| byte.is_ascii_uppercase()) =>
        {
            (first, rest)
        }
        _ => (DEFAULT_DOMAIN, text),
    };
    match domain {
        DEFAULT_DOMAIN | "index.docker.io" if !rest.contains('/') => (DEFAULT_DOMAIN.into(), format!("library/{rest}")),
        "index.docker.io" => (DEFAULT_DOMAIN.into(), rest.into()),
        _ => (domain.into(), rest.into()),
    }
}

fn is_hex_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Labels of letters, digits and inner dashes, joined by dots, maybe a port; or an IPv6 address in brackets.
fn is_domain(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (text, None),
    };
    let is_label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => !address.is_empty() && address.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b':'),
        None => host.split('.').all(is_label),
    };
    host && port.is_none_or(|port| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Runs of lower-case letters and digits, joined by one of `.`, `_`, `__` or any number of dashes.
fn is_component(text: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else {
        return false;
    };
    letter(*first)
        && letter(*last)
        && bytes.split(|byte| letter(*byte)).all(|separator| {
            matches!(separator, b"" | b"." | b"_" | b"__") || separator.iter().all(|byte| *byte == b'-')
        })
}

/// A word character, then up to 127 of word characters, dots and dashes.
fn is_tag(text: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    text.len() <= 128
        && text.bytes().next().is_some_and(word)
        && text.bytes().all(|byte| word(byte) || byte == b'.' || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn familiar(text: &str) -> String {
        parse_tag(text).unwrap().familiar()
    }

    #[test]
    fn a_short_name_means_the_official_library() {
        assert_eq!(
            parse_tag("nginx").unwrap().to_string(),
            "docker.io/library/nginx:latest"
        );
        assert_eq!(parse_tag("me/app:1.0").unwrap().to_string(), "docker.io/me/app:1.0");
        assert_eq!(parse_tag("localhost/app").unwrap().to_string(), "localhost/app:latest");
        assert_eq!(
            parse_tag("r.example:5000/a/b:t").unwrap().to_string(),
            "r.example:5000/a/b:t"
        );
        assert_eq!(
            parse_tag("[::1]:5000/app").unwrap().to_string(),
            "[::1]:5000/app:latest"
        );
    }

    #[test]
    fn the_familiar_form_leaves_out_what_docker_adds() {
        for same in [
            "nginx",
            "nginx:latest",
            "library/nginx",
            "docker.io/nginx",
            "index.docker.io/library/nginx",
        ] {
            assert_eq!(familiar(same), "nginx:latest", "{same}");
        }
        assert_eq!(familiar("docker.io/me/app:2"), "me/app:2");
        assert_eq!(familiar("docker.io/library/a/b"), "library/a/b:latest");
        assert_eq!(familiar("quay.io/me/app"), "quay.io/me/app:latest");
    }

    #[test]
    fn a_path_that_looks_like_a_domain_keeps_the_domain_before_it() {
        for text in ["docker.io/quay.io/a:latest", "docker.io/localhost/a:1"] {
            let Ok(Named::Tagged(name)) = parse(text) else {
                panic!("{text}")
            };
            assert_eq!(name.familiar(), text);
        }
    }

    #[test]
    fn upper_case_is_refused_in_dockers_words() {
        for wrong in ["Nginx", "me/App:1", "docker.io/Me/app"] {
            let error = parse_tag(wrong).unwrap_err().to_string();
            assert_eq!(
                error, "invalid reference format: repository name must be lowercase",
                "{wrong}"
            );
        }
        assert!(parse_tag("EXAMPLE/app").is_ok(), "an upper-case first part is a domain");
    }

    #[test]
    fn what_is_not_a_name_is_refused_in_dockers_words() {
        let long_tag = format!("app:{}", "t".repeat(129));
        for wrong in [
            "",
            ":",
            "a:",
            ":tag",
            "/a",
            "a/",
            "a//b",
            "-a",
            "a-",
            "a..b",
            "a___b",
            "a b",
            "a:b c",
            "a:-x",
            "ä",
            "a@b",
            "a@sha256:00",
            "http://x/y",
            "x.y:port/a",
            "../a",
            "a/../b",
            "a\0",
            &long_tag,
        ] {
            let error = parse(wrong).unwrap_err().to_string();
            assert_eq!(error, "invalid reference format", "{wrong:?}");
        }
    }

    #[test]
    fn separators_are_the_ones_of_the_grammar() {
        for right in ["a.b", "a_b", "a__b", "a-b", "a---b", "a/b.c_d--e"] {
            assert!(parse_tag(right).is_ok(), "{right}");
        }
    }

    #[test]
    fn a_name_has_at_most_255_characters() {
        let error = parse_tag(&"a".repeat(256)).unwrap_err().to_string();
        assert_eq!(
            error,
            "invalid reference format: repository name must not be more than 255 characters"
        );
    }

    #[test]
    fn a_digest_or_64_digits_are_an_id() {
        let hex = "0123456789abcdef".repeat(4);
        assert!(matches!(parse(&hex).unwrap(), Named::Id(id) if id.hex() == hex));
        assert!(matches!(parse(&format!("sha256:{hex}")).unwrap(), Named::Id(_)));
        let Named::Digested(repository, _) = parse(&format!("nginx:1@sha256:{hex}")).unwrap() else {
            panic!()
        };
        assert_eq!(repository, "docker.io/library/nginx");
        assert!(
            parse_tag(&hex)
                .unwrap_err()
                .to_string()
                .contains("cannot specify 64-byte hexadecimal strings")
        );
        assert!(parse_tag(&format!("nginx@sha256:{hex}")).is_err());
    }
}
