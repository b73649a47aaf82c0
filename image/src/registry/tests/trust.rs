//! Who may, through whom, and what is said to those who may not.

use std::{collections::BTreeMap, sync::Mutex};

use serde_json::json;

use super::{
    Ear,
    fake::{Answer, Fake},
    here, images, layer, pull_from,
    stored::Stored,
};
use crate::{Credentials, ImageError, Pull, RegistryOptions, testing::Scratch};

#[test]
fn tokens_are_had_where_the_registry_says_and_renewed_when_they_end() {
    let mut stored = Stored::default();
    stored.image("1", &[layer("a", 10)], here());
    let given = Mutex::new(0);
    let used = Mutex::new(BTreeMap::<String, u32>::new());
    let fake = Fake::serve(move |asked| {
        let address = asked.headers["host"].clone();
        if asked.path.starts_with("/token?") {
            if asked
                .headers
                .get("authorization")
                .is_none_or(|basic| basic != "Basic YWRhOnNlY3JldA==")
            {
                return Answer::of(401, "{}");
            }
            assert!(asked.path.contains("scope=repository%3Ateam%2Fapp%3Apull") && asked.path.contains("account=ada"));
            let mut given = given.lock().unwrap();
            *given += 1;
            return Answer::of(200, json!({"token": format!("t{given}")}).to_string());
        }
        let token = asked.headers.get("authorization").cloned().unwrap_or_default();
        let mut used = used.lock().unwrap();
        let uses = used.entry(token.clone()).or_default();
        *uses += 1;
        // each is good for one request
        match token.starts_with("Bearer t") && *uses == 1 {
            true => stored.answer(asked),
            false => Answer::of(401, "{}").header(
                "www-authenticate",
                &format!("Bearer realm=\"http://{address}/token\",service=\"here\""),
            ),
        }
    });
    let scratch = Scratch::new("tokens");
    let (images, name) = (images(scratch.path()), fake.name("team/app:1"));
    let ada = |password: &str| Credentials {
        username: "ada".into(),
        password: password.into(),
        ..Credentials::default()
    };
    let pull = |credentials: Option<&Credentials>| {
        let pull = Pull {
            reference: &name,
            all_tags: false,
            platform: None,
            credentials,
        };
        images.pull(pull, &Ear::default()).map(drop)
    };
    pull(Some(&ada("secret"))).unwrap();
    assert!(fake.count("/token?") >= 3, "a token that was refused is renewed");
    for wrong in [None, Some(&ada("guess"))] {
        let error = pull(wrong).unwrap_err();
        assert!(
            matches!(&error, ImageError::Unauthorized(why) if why.contains("unauthorized")),
            "{error}"
        );
    }
}

#[test]
fn a_mirror_is_asked_first_and_need_not_have_everything() {
    let mut stored = Stored::default();
    stored.image("1", &[layer("a", 10)], here());
    let fake = Fake::serve(move |asked| stored.answer(asked));
    let scratch = Scratch::new("mirror");
    let options = RegistryOptions {
        mirrors: vec![format!("http://{}", fake.address)],
        ..RegistryOptions::default()
    };
    let images = images(scratch.path()).with_registries(options);
    let image = pull_from(&images, "app:1", &Ear::default()).unwrap();
    assert_eq!(image.tags, ["app:1"]);
    assert_eq!(fake.count("/v2/library/app/manifests/1"), 1);
}

#[test]
fn refusals_are_told_in_dockers_words() {
    let answers = [
        (
            404,
            r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#,
            "manifest for {}/a:1 not found: manifest unknown",
        ),
        (
            404,
            r#"{"errors":[{"code":"NAME_UNKNOWN","message":"unknown"}]}"#,
            "repository {}/a not found: name unknown: unknown",
        ),
        (
            403,
            r#"{"errors":[{"code":"DENIED","message":"no"}]}"#,
            "pull access denied for {}/a, repository does not exist or may require 'docker login': denied: no",
        ),
        (
            503,
            "",
            "received unexpected status code 503 Service Unavailable from the registry",
        ),
        (200, "{", "cannot be read"),
        (200, r#"{"schemaVersion":1}"#, "schema version 1"),
    ];
    for (status, body, said) in answers {
        let fake = Fake::serve(move |asked| match asked.path == "/v2/" {
            true => Answer::of(200, "{}"),
            false => Answer::of(status, body),
        });
        let scratch = Scratch::new("refusals");
        let error = pull_from(&images(scratch.path()), &fake.name("a:1"), &Ear::default())
            .unwrap_err()
            .to_string();
        let said = said.replace("{}", &fake.address.to_string());
        assert!(error.contains(&said), "{error} does not say {said}");
    }
    let scratch = Scratch::new("nobody");
    let error = pull_from(&images(scratch.path()), "127.0.0.1:1/a:1", &Ear::default()).unwrap_err();
    assert!(
        matches!(&error, ImageError::Unreachable(why) if why.contains("connection refused")),
        "{error}"
    );
}

#[test]
fn a_token_to_keep_is_given_at_login_and_taken_instead_of_a_password() {
    let mut stored = Stored::default();
    stored.image("1", &[layer("a", 10)], here());
    let fake = Fake::serve(move |asked| {
        let (address, body) = (
            asked.headers["host"].clone(),
            String::from_utf8_lossy(&asked.body).into_owned(),
        );
        if asked.path.starts_with("/token") {
            let basic = asked.headers.get("authorization");
            let is_ada = basic.is_some_and(|basic| basic == "Basic YWRhOnNlY3JldA==");
            let to_keep = asked.path.contains("offline_token=true").then_some("kept");
            let is_kept = asked.method == "POST"
                && body.contains("grant_type=refresh_token")
                && body.contains("refresh_token=kept")
                && body.contains("service=here");
            return match (is_ada, is_kept) {
                (true, _) => Answer::of(
                    200,
                    json!({"token": "short", "refresh_token": to_keep.unwrap_or_default()}).to_string(),
                ),
                (_, true) => {
                    assert!(body.contains("scope=repository%3Aapp%3Apull"), "{body}");
                    Answer::of(200, json!({"access_token": "short"}).to_string())
                }
                _ => Answer::of(401, "{}"),
            };
        }
        match asked
            .headers
            .get("authorization")
            .is_some_and(|token| token == "Bearer short")
        {
            true => stored.answer(asked),
            false => Answer::of(401, "{}").header(
                "www-authenticate",
                &format!("Bearer realm=\"http://{address}/token\",service=\"here\""),
            ),
        }
    });
    let scratch = Scratch::new("identity");
    let images = images(scratch.path());
    let ada = Credentials {
        username: "ada".into(),
        password: "secret".into(),
        ..Credentials::default()
    };
    let server = fake.address.to_string();
    assert_eq!(images.login(&server, &ada).unwrap().as_deref(), Some("kept"));
    let name = fake.name("app:1");
    let pull = |token: &str| {
        let kept = Credentials {
            identity_token: token.into(),
            ..Credentials::default()
        };
        let pull = Pull {
            reference: &name,
            all_tags: false,
            platform: None,
            credentials: Some(&kept),
        };
        images.pull(pull, &Ear::default()).map(drop)
    };
    pull("kept").unwrap();
    assert!(matches!(pull("revoked"), Err(ImageError::Unauthorized(_))));
}
