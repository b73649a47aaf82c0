//! `WWW-Authenticate`: how a registry wants to know who asks.

/// What a registry asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// Nothing.
    None,
    /// Name and password with each request.
    Basic,
    /// A token, to be had at `realm` for `service`.
    Bearer { realm: String, service: String },
}

impl Challenge {
    /// Reads a header; a scheme we do not know is no challenge we can answer.
    pub fn parse(header: &str) -> Self {
        let (scheme, parameters) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
        match scheme.to_ascii_lowercase().as_str() {
            "basic" => Self::Basic,
            "bearer" => match parameter(parameters, "realm") {
                Some(realm) => Self::Bearer {
                    realm,
                    service: parameter(parameters, "service").unwrap_or_default(),
                },
                None => Self::None,
            },
            _ => Self::None,
        }
    }
}

/// The value of `name="value"` among parameters with commas between; a quoted value may hold commas and escaped quotes.
fn parameter(parameters: &str, name: &str) -> Option<String> {
    let mut rest = parameters;
    loop {
        rest = rest.trim_start_matches([' ', ',', '\t']);
        let (key, after) = rest.split_once('=')?;
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => unquote(quoted)?,
            None => {
                let end = after.find(',').unwrap_or(after.len());
                (after[..end].trim().to_owned(), &after[end..])
            }
        };
        if key.trim().eq_ignore_ascii_case(name) {
            return Some(value);
        }
        rest = after;
    }
}

/// The text up to the closing quote, and what is behind it.
fn unquote(quoted: &str) -> Option<(String, &str)> {
    let (mut value, mut escaped) = (String::new(), false);
    for (position, letter) in quoted.char_indices() {
        match letter {
            _ if escaped => {
                value.push(letter);
                escaped = false;
            }
            '\\' => escaped = true,
            '"' => return Some((value, &quoted[position + 1..])),
            _ => value.push(letter),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bearer_challenge_names_where_tokens_are_had() {
        let text = r#"Bearer realm="https://auth.example/token",service="r.example",scope="repository:a/b:pull,push""#;
        let expected = Challenge::Bearer {
            realm: "https://auth.example/token".into(),
            service: "r.example".into(),
        };
        assert_eq!(Challenge::parse(text), expected);
        assert_eq!(
            Challenge::parse(r#"bearer  scope="a,b", service=r.example , realm="https://auth.example/token""#),
            expected
        );
    }

    #[test]
    fn others_are_basic_or_none() {
        assert_eq!(
            Challenge::parse(r#"Basic realm="a \"quoted\" realm""#),
            Challenge::Basic
        );
        for other in [
            "",
            "Negotiate",
            "Bearer",
            r#"Bearer service="x""#,
            r#"Bearer realm="open"#,
            "Digest realm=x",
        ] {
            assert_eq!(Challenge::parse(other), Challenge::None, "{other}");
        }
    }
}
