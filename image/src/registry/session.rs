//! One registry, one repository of it, one pair of credentials: requests with the token they need.

use std::{
    fmt,
    io::Read,
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize;
use ureq::{
    AsSendBody, Body, SendBody,
    http::{HeaderMap, Method, Request, Response, StatusCode},
};

use crate::{
    error::ImageError,
    registry::{
        challenge::Challenge,
        options::{Endpoint, RegistryOptions},
        trouble::{self, Refusal},
    },
};

/// The longest answer of a token server, bytes.
const LONGEST_TOKEN: u64 = 1 << 20;
/// Tokens of whose life nothing is said live as long, by the specification.
const TOKEN_LIVES: u64 = 60;
/// So long before its end a token is not used any more.
const MARGIN: Duration = Duration::from_secs(5);
/// Further attempts at a small request whose connection broke.
const AGAIN: u32 = 2;
/// Who we are to token servers.
const CLIENT: &str = "sluice";

/// Who asks.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    /// The user.
    pub username: String,
    /// The user's password.
    pub password: String,
    /// Instead of a password: what a token server gave at `login`.
    pub identity_token: String,
    /// Instead of everything: what goes into each request as it is.
    pub registry_token: String,
}

/// Secrets stay out of logs.
impl fmt::Debug for Credentials {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Credentials of {:?}", self.username)
    }
}

/// A conversation about one repository.
#[derive(Debug)]
pub(crate) struct Session {
    pub endpoint: Endpoint,
    /// Without the domain.
    pub repository: String,
    credentials: Option<Credentials>,
    challenge: Challenge,
    /// What tokens are asked for.
    scopes: Mutex<Vec<String>>,
    token: Mutex<Option<Token>>,
}

#[derive(Clone, Debug)]
struct Token {
    text: String,
    until: Instant,
}

#[derive(Deserialize)]
struct Issued {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
    expires_in: Option<u64>,
    #[serde(default)]
    refresh_token: String,
}

impl RegistryOptions {
    /// The first way to the registry that answers; `actions` are `pull` or `pull,push`.
    pub(crate) fn sessions<'a>(
        &'a self,
        domain: &str,
        repository: &'a str,
        actions: &'a str,
        credentials: Option<&'a Credentials>,
    ) -> Result<impl Iterator<Item = Result<Session, ImageError>> + 'a, ImageError> {
        let endpoints = self.endpoints(domain, actions.contains("push"))?;
        Ok(endpoints.into_iter().map(move |endpoint| {
            // a mirror is not the registry the password was made for
            let credentials = credentials.filter(|_| !endpoint.is_mirror).cloned();
            let scope = format!("repository:{repository}:{actions}");
            Session::open(endpoint, repository, vec![scope], credentials)
        }))
    }

    /// As above, only one.
    pub(crate) fn session(
        &self,
        domain: &str,
        repository: &str,
        actions: &str,
        credentials: Option<&Credentials>,
    ) -> Result<Session, ImageError> {
        first(self.sessions(domain, repository, actions, credentials)?)
    }

    /// Asks whether the registry takes the credentials; some give a token to keep instead of the password.
    pub fn login(&self, domain: &str, credentials: &Credentials) -> Result<Option<String>, ImageError> {
        let endpoints = self.endpoints(domain, true)?.into_iter();
        let opened = endpoints.map(|endpoint| Session::open(endpoint, "", Vec::new(), Some(credentials.clone())));
        let session = first(opened)?;
        let identity = match &session.challenge {
            Challenge::Bearer { .. } => {
                let issued = session.ask_for_token(true)?;
                Some(issued.refresh_token).filter(|token| !token.is_empty())
            }
            _ => None,
        };
        let url = format!("{}/v2/", session.endpoint.base);
        let response = session.get(&url, &[])?;
        match response.status() {
            StatusCode::OK => Ok(identity),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(ImageError::Unauthorized(format!(
                "login attempt to {url} failed with status: {}",
                said(response.status())
            ))),
            _ => Err(Refusal::read(response).plain(&format!("login attempt to {url} failed"))),
        }
    }
}

/// The first that can be had, or why the last one could not.
fn first(sessions: impl Iterator<Item = Result<Session, ImageError>>) -> Result<Session, ImageError> {
    let mut last = ImageError::Failed("there is no way to the registry".into());
    for session in sessions {
        match session {
            Err(why @ ImageError::Unreachable(_)) => last = why,
            other => return other,
        }
    }
    Err(last)
}

impl Session {
    /// Knocks.
    fn open(
        endpoint: Endpoint,
        repository: &str,
        scopes: Vec<String>,
        credentials: Option<Credentials>,
    ) -> Result<Self, ImageError> {
        let mut session = Self {
            endpoint,
            repository: repository.to_owned(),
            credentials,
            challenge: Challenge::None,
            scopes: Mutex::new(scopes),
            token: Mutex::new(None),
        };
        let url = format!("{}/v2/", session.endpoint.base);
        let response = session.once(&Method::GET, &url, &[], (), None)?;
        session.challenge = match response.status() {
            StatusCode::OK => Challenge::None,
            StatusCode::UNAUTHORIZED => {
                let asked = response.headers().get_all("www-authenticate").into_iter();
                let challenges: Vec<Challenge> = asked
                    .filter_map(|value| value.to_str().ok())
                    .map(Challenge::parse)
                    .collect();
                let bearer = challenges
                    .iter()
                    .find(|challenge| matches!(challenge, Challenge::Bearer { .. }));
                let best = bearer.or(challenges.iter().find(|challenge| **challenge != Challenge::None));
                best.cloned().ok_or_else(|| {
                    ImageError::Failed(format!(
                        "Get {url:?}: the registry asks for a way of login that is not known here"
                    ))
                })?
            }
            _ => {
                let refusal = Refusal::read(response);
                return Err(ImageError::Unreachable(format!("Get {url:?}: {}", refusal.message)));
            }
        };
        Ok(session)
    }

    /// `<base>/v2/<repository>/<rest>`.
    pub fn url(&self, rest: &str) -> String {
        format!("{}/v2/{}/{rest}", self.endpoint.base, self.repository)
    }

    pub fn get(&self, url: &str, headers: &[(&str, &str)]) -> Result<Response<Body>, ImageError> {
        self.again(|| self.request(&Method::GET, url, headers, &mut || Outgoing::None))
    }

    pub fn head(&self, url: &str, headers: &[(&str, &str)]) -> Result<Response<Body>, ImageError> {
        self.again(|| self.request(&Method::HEAD, url, headers, &mut || Outgoing::None))
    }

    pub fn post(&self, url: &str) -> Result<Response<Body>, ImageError> {
        self.again(|| self.request(&Method::POST, url, &[], &mut || Outgoing::Bytes(b"")))
    }

    pub fn put(&self, url: &str, headers: &[(&str, &str)], bytes: &[u8]) -> Result<Response<Body>, ImageError> {
        self.again(|| self.request(&Method::PUT, url, headers, &mut || Outgoing::Bytes(bytes)))
    }

    pub fn delete(&self, url: &str) -> Result<Response<Body>, ImageError> {
        self.request(&Method::DELETE, url, &[], &mut || Outgoing::None)
    }

    /// Sends a stream of unknown length. It cannot be sent again, so the token is looked after first.
    pub fn patch(
        &self,
        url: &str,
        headers: &[(&str, &str)],
        body: &mut dyn Read,
    ) -> Result<Response<Body>, ImageError> {
        let authorization = self.authorization(url)?;
        self.once(
            &Method::PATCH,
            url,
            headers,
            SendBody::from_reader(body),
            authorization.as_deref(),
        )
    }

    /// Tokens shall allow reading this repository, too: a layer is to be taken over from there.
    pub fn also_reads(&self, repository: &str) {
        let scope = format!("repository:{repository}:pull");
        let mut scopes = self.scopes.lock().unwrap_or_else(PoisonError::into_inner);
        if !scopes.contains(&scope) {
            scopes.push(scope);
            self.forget_token();
        }
    }

    /// The absolute form of what `Location` says.
    pub fn location(&self, headers: &HeaderMap) -> Option<String> {
        let location = headers.get("location")?.to_str().ok()?;
        Some(match location.starts_with('/') {
            true => format!("{}{location}", origin(&self.endpoint.base)),
            false => location.to_owned(),
        })
    }

    /// A request; with a new token when the old one is not taken any more.
    fn request<'b>(
        &self,
        method: &Method,
        url: &str,
        headers: &[(&str, &str)],
        body: &mut dyn FnMut() -> Outgoing<'b>,
    ) -> Result<Response<Body>, ImageError> {
        let mut send = |authorization: Option<&str>| match body() {
            Outgoing::None => self.once(method, url, headers, (), authorization),
            Outgoing::Bytes(bytes) => self.once(method, url, headers, bytes, authorization),
        };
        let authorization = self.authorization(url)?;
        let response = send(authorization.as_deref())?;
        let can_renew = matches!(self.challenge, Challenge::Bearer { .. }) && authorization.is_some();
        if response.status() == StatusCode::UNAUTHORIZED && can_renew {
            self.forget_token();
            return send(self.authorization(url)?.as_deref());
        }
        Ok(response)
    }

    fn again(&self, attempt: impl Fn() -> Result<Response<Body>, ImageError>) -> Result<Response<Body>, ImageError> {
        for round in 1..=AGAIN {
            match attempt() {
                Err(ImageError::Unreachable(why)) => {
                    tracing::debug!(why, round, "a request to a registry failed and is made again");
                    thread::sleep(Duration::from_millis(300) * round);
                }
                other => return other,
            }
        }
        attempt()
    }

    fn once(
        &self,
        method: &Method,
        url: &str,
        headers: &[(&str, &str)],
        body: impl AsSendBody,
        authorization: Option<&str>,
    ) -> Result<Response<Body>, ImageError> {
        let mut request = Request::builder().method(method.clone()).uri(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(authorization) = authorization {
            request = request.header("authorization", authorization);
        }
        let request = request
            .body(body)
            .map_err(|why| ImageError::Failed(format!("{method} {url:?} is no request that can be made: {why}")))?;
        let answer = self.endpoint.agent.run(request);
        answer.map_err(|why| trouble::unreachable(method.as_str(), url, &why))
    }

    /// What goes into a request to `url`: nothing when that is not the registry.
    fn authorization(&self, url: &str) -> Result<Option<String>, ImageError> {
        if origin(url) != origin(&self.endpoint.base) {
            return Ok(None);
        }
        let given = self.credentials.as_ref();
        if let Some(token) = given
            .map(|given| &given.registry_token)
            .filter(|token| !token.is_empty())
        {
            return Ok(Some(format!("Bearer {token}")));
        }
        match &self.challenge {
            Challenge::None => Ok(None),
            Challenge::Basic => match given.filter(|given| !given.username.is_empty()) {
                Some(given) => Ok(Some(basic(given))),
                None => Err(ImageError::Unauthorized(format!(
                    "{:?}: no basic auth credentials",
                    format!("{}/v2/", self.endpoint.base)
                ))),
            },
            Challenge::Bearer { .. } => {
                let mut kept = self.token.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(token) = kept.as_ref().filter(|token| Instant::now() + MARGIN < token.until) {
                    return Ok(Some(format!("Bearer {}", token.text)));
                }
                let issued = self.ask_for_token(false)?;
                let text = match issued.token.is_empty() {
                    true => issued.access_token,
                    false => issued.token,
                };
                let lives = issued.expires_in.unwrap_or(TOKEN_LIVES).clamp(TOKEN_LIVES, 86_400);
                let authorization = format!("Bearer {text}");
                *kept = Some(Token {
                    text,
                    until: Instant::now() + Duration::from_secs(lives),
                });
                Ok(Some(authorization))
            }
        }
    }

    fn forget_token(&self) {
        *self.token.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn ask_for_token(&self, to_keep: bool) -> Result<Issued, ImageError> {
        let Challenge::Bearer { realm, service } = &self.challenge else {
            return Err(ImageError::Failed("the registry does not give tokens".into()));
        };
        let scopes = self.scopes.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let given = self.credentials.as_ref();
        let identity = given
            .map(|given| given.identity_token.as_str())
            .filter(|token| !token.is_empty());
        let mut fields = vec![("service", service.as_str())];
        let joined = scopes.join(" ");
        let response = match identity {
            Some(token) => {
                fields.extend([
                    ("client_id", CLIENT),
                    ("grant_type", "refresh_token"),
                    ("refresh_token", token),
                ]);
                if !joined.is_empty() {
                    fields.push(("scope", &joined));
                }
                let form = encoded(&fields);
                let headers = [("content-type", "application/x-www-form-urlencoded")];
                self.once(&Method::POST, realm, &headers, form.as_bytes(), None)?
            }
            None => {
                fields.extend(scopes.iter().map(|scope| ("scope", scope.as_str())));
                let user = given.filter(|given| !given.username.is_empty());
                if let Some(user) = user {
                    fields.push(("account", &user.username));
                }
                if to_keep {
                    fields.extend([("client_id", CLIENT), ("offline_token", "true")]);
                }
                let separator = if realm.contains('?') { '&' } else { '?' };
                let url = format!("{realm}{separator}{}", encoded(&fields));
                self.once(&Method::GET, &url, &[], (), user.map(basic).as_deref())?
            }
        };
        if response.status() != StatusCode::OK {
            let refusal = Refusal::read(response);
            return Err(match refusal.status {
                // the sentence people know from Docker, whatever the token server's own is
                401 => ImageError::Unauthorized(format!("Get {realm:?}: unauthorized: incorrect username or password")),
                _ => refusal.plain(&format!("cannot get a token from {realm}")),
            });
        }
        let mut text = Vec::new();
        let read = response
            .into_body()
            .into_reader()
            .take(LONGEST_TOKEN)
            .read_to_end(&mut text);
        read.map_err(|why| ImageError::Unreachable(format!("cannot read the token of {realm}: {why}")))?;
        let issued: Issued = serde_json::from_slice(&text)
            .map_err(|why| ImageError::Failed(format!("{realm} gave no token that can be read: {why}")))?;
        match issued.token.is_empty() && issued.access_token.is_empty() {
            true => Err(ImageError::Failed(format!(
                "authorization server {realm} did not include a token in the response"
            ))),
            false => Ok(issued),
        }
    }
}

/// The body of a small request.
enum Outgoing<'a> {
    None,
    Bytes(&'a [u8]),
}

fn basic(given: &Credentials) -> String {
    format!(
        "Basic {}",
        STANDARD.encode(format!("{}:{}", given.username, given.password))
    )
}

/// `https://host:port` of a URL.
fn origin(url: &str) -> &str {
    let start = url.find("://").map_or(0, |at| at + 3);
    let end = url[start..].find(['/', '?', '#']).map_or(url.len(), |at| start + at);
    &url[..end]
}

/// `404 Not Found`.
pub(crate) fn said(status: StatusCode) -> String {
    format!("{} {}", status.as_u16(), status.canonical_reason().unwrap_or_default())
}

/// Fields of a query or form.
fn encoded(fields: &[(&str, &str)]) -> String {
    let fields = fields.iter().map(|(name, value)| format!("{name}={}", escape(value)));
    fields.collect::<Vec<_>>().join("&")
}

/// What is not plainly harmless in a URL, in hexadecimal.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => escaped.push(char::from(byte)),
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_origin_of_a_url_is_where_secrets_may_go() {
        assert_eq!(origin("https://r.example:5000/v2/a?b=c"), "https://r.example:5000");
        assert_eq!(origin("https://r.example?x=/y"), "https://r.example");
        assert_ne!(origin("http://r.example/v2/"), origin("https://r.example/v2/"));
        assert_ne!(origin("https://r.example.evil/"), origin("https://r.example/"));
    }

    #[test]
    fn fields_are_escaped() {
        assert_eq!(
            encoded(&[("scope", "repository:a/b:pull,push"), ("x", "ä &")]),
            "scope=repository%3Aa%2Fb%3Apull%2Cpush&x=%C3%A4%20%26"
        );
    }

    #[test]
    fn secrets_are_not_shown() {
        let given = Credentials {
            username: "ada".into(),
            password: "lovelace".into(),
            ..Credentials::default()
        };
        assert!(!format!("{given:?}").contains("lovelace"));
    }
}
