//! Who asks a registry, as clients say it: `X-Registry-Auth`, a document in base64.

use std::collections::BTreeMap;

use axum::http::HeaderMap;
use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use serde::Deserialize;
use sluice_image::Credentials;

use crate::error::{Answer, ApiError};

const EITHER: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_padding_mode(DecodePaddingMode::Indifferent)
    .with_decode_allow_trailing_bits(true);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, EITHER);

/// The document.
#[derive(Deserialize, Default)]
#[serde(default)]
pub(crate) struct Login {
    pub(crate) username: String,
    pub(crate) password: String,
    /// `username:password` in base64, as it stands in a client's file.
    pub(crate) auth: String,
    pub(crate) serveraddress: String,
    pub(crate) identitytoken: String,
    pub(crate) registrytoken: String,
}

impl Login {
    /// None when nothing is said.
    pub(crate) fn credentials(self) -> Option<Credentials> {
        let (mut username, mut password) = (self.username, self.password);
        if username.is_empty()
            && let Some(pair) = decode(&self.auth).and_then(|pair| String::from_utf8(pair).ok())
            && let Some((name, secret)) = pair.split_once(':')
        {
            (username, password) = (name.to_owned(), secret.trim_end_matches('\0').to_owned());
        }
        let credentials = Credentials {
            username,
            password,
            identity_token: self.identitytoken,
            registry_token: self.registrytoken,
        };
        (credentials != Credentials::default()).then_some(credentials)
    }
}

/// Of `X-Registry-Auth`. What cannot be read is nothing, as it is to Docker: the registry will say whether it minds.
pub(crate) fn of_request(headers: &HeaderMap) -> Option<Credentials> {
    let text = headers.get("x-registry-auth")?.to_str().ok()?;
    let login: Login = serde_json::from_slice(&decode(text)?).ok()?;
    login.credentials()
}

/// Of `X-Registry-Config`: those of several registries, by name.
pub(crate) fn of_build(headers: &HeaderMap) -> Answer<BTreeMap<String, Credentials>> {
    let Some(text) = headers.get("x-registry-config").and_then(|text| text.to_str().ok()) else {
        return Ok(BTreeMap::new());
    };
    let logins: BTreeMap<String, Login> = decode(text)
        .and_then(|document| serde_json::from_slice(&document).ok())
        .ok_or_else(|| ApiError::invalid("invalid X-Registry-Config: base64 of a JSON document is wanted"))?;
    let known = logins
        .into_iter()
        .filter_map(|(server, login)| Some((server, login.credentials()?)));
    Ok(known.collect())
}

/// Both alphabets, with padding or without.
fn decode(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text.trim().replace('-', "+").replace('_', "/")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, document: &str) -> HeaderMap {
        let text = STANDARD.encode(document).replace('+', "-").replace('/', "_");
        HeaderMap::from_iter([(axum::http::HeaderName::from_static(name), text.parse().unwrap())])
    }

    #[test]
    fn credentials_come_in_each_of_dockers_forms() {
        let plain = headers(
            "x-registry-auth",
            r#"{"username":"ada","password":"ü?>>ü","email":"x"}"#,
        );
        let given = of_request(&plain).unwrap();
        assert_eq!((given.username.as_str(), given.password.as_str()), ("ada", "ü?>>ü"));
        let file = headers(
            "x-registry-auth",
            &format!(r#"{{"auth":"{}"}}"#, STANDARD.encode("ada:a:b")),
        );
        assert_eq!(of_request(&file).unwrap().password, "a:b");
        let token = headers("x-registry-auth", r#"{"identitytoken":"t","serveraddress":"r"}"#);
        assert_eq!(of_request(&token).unwrap().identity_token, "t");
    }

    #[test]
    fn nothing_said_is_nobody() {
        assert!(of_request(&HeaderMap::new()).is_none());
        assert!(of_request(&headers("x-registry-auth", "{}")).is_none());
        assert!(of_request(&headers("x-registry-auth", "no json")).is_none());
    }

    #[test]
    fn a_build_brings_those_of_several_registries() {
        let several = headers(
            "x-registry-config",
            r#"{"r:5000":{"username":"ada","password":"p"},"s":{}}"#,
        );
        let known = of_build(&several).unwrap();
        assert_eq!(known.keys().collect::<Vec<_>>(), ["r:5000"]);
        assert!(of_build(&headers("x-registry-config", "[")).is_err());
    }
}
