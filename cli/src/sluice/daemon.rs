//! The way to the daemon: HTTP on its socket, one connection for each request.

use std::path::PathBuf;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode,
    body::Incoming,
    client::conn::http1,
    header::{CONNECTION, CONTENT_TYPE, HOST, UPGRADE},
    upgrade::Upgraded,
};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde_json::Value;
use tokio::net::{TcpStream, UnixStream};

use crate::failure::Failure;

/// Where the daemon listens when nobody says otherwise.
const DEFAULT: &str = "unix:///run/sluice/sluice.sock";
/// The version of the Docker Engine API this client speaks.
const VERSION: &str = "1.50";

/// A request's body.
pub type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// Where the daemon is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A socket file.
    Unix(PathBuf),
    /// Host and port.
    Tcp(String),
}

/// The daemon, as its clients see it.
#[derive(Clone, Debug)]
pub struct Daemon {
    address: Address,
    version: String,
}

impl Address {
    /// The one said on the command line, else by `SLUICE_HOST`, else by `DOCKER_HOST`.
    pub fn choose(said: Option<&str>) -> Result<Self, Failure> {
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let text = said
            .map(str::to_owned)
            .or_else(|| variable("SLUICE_HOST"))
            .or_else(|| variable("DOCKER_HOST"));
        Self::parse(text.as_deref().unwrap_or(DEFAULT))
    }

    /// `unix://PATH` or `tcp://HOST:PORT`.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        let unsupported = || {
            Failure::Usage(format!(
                "unable to parse docker host `{text}`: use unix://PATH or tcp://HOST:PORT"
            ))
        };
        match text.split_once("://").ok_or_else(unsupported)? {
            ("unix", path) if path.starts_with('/') => Ok(Self::Unix(path.into())),
            ("tcp" | "http", host) if host.contains(':') => Ok(Self::Tcp(host.trim_end_matches('/').to_owned())),
            _ => Err(unsupported()),
        }
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unix(path) => write!(out, "unix://{}", path.display()),
            Self::Tcp(host) => write!(out, "tcp://{host}"),
        }
    }
}

impl Daemon {
    /// Nothing is connected yet.
    pub fn at(address: Address) -> Self {
        let asked = std::env::var("DOCKER_API_VERSION")
            .ok()
            .filter(|version| !version.is_empty());
        Self {
            address,
            version: asked.unwrap_or_else(|| VERSION.into()),
        }
    }

    /// Where it is.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// The version of the API that is spoken.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// A document.
    pub async fn get(&self, path: &str) -> Result<Value, Failure> {
        json(&self.get_bytes(path).await?)
    }

    /// A document as it came.
    pub async fn get_bytes(&self, path: &str) -> Result<Bytes, Failure> {
        whole(self.request(Method::GET, path, None, empty()).await?).await
    }

    /// An answer that goes on for as long as it likes.
    pub async fn stream(&self, path: &str) -> Result<Response<Incoming>, Failure> {
        self.request(Method::GET, path, None, empty()).await
    }

    /// An order without a document; what comes back.
    pub async fn post(&self, path: &str) -> Result<Value, Failure> {
        json(&whole(self.request(Method::POST, path, None, empty()).await?).await?)
    }

    /// An order with a document; what comes back.
    pub async fn post_json(&self, path: &str, body: &impl Serialize) -> Result<Value, Failure> {
        let response = self
            .request(Method::POST, path, Some("application/json"), document(body)?)
            .await?;
        json(&whole(response).await?)
    }

    /// An order whose answer begins at once and ends later.
    pub async fn post_stream(&self, path: &str, kind: &str, body: Body) -> Result<Response<Incoming>, Failure> {
        self.request(Method::POST, path, Some(kind), body).await
    }

    /// As above, with further headers.
    pub async fn post_with(
        &self,
        path: &str,
        headers: &[(&str, String)],
        body: Body,
    ) -> Result<Response<Incoming>, Failure> {
        let mut request = self.builder(Method::POST, path);
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let response = self.exchange(request.body(body)).await?;
        match response.status().is_success() {
            true => Ok(response),
            false => Err(refusal(response).await),
        }
    }

    /// Brings something whose length nobody knows yet.
    pub async fn put_stream(&self, path: &str, kind: &str, body: Body) -> Result<Response<Incoming>, Failure> {
        self.request(Method::PUT, path, Some(kind), body).await
    }

    /// What the headers of an answer say.
    pub async fn head(&self, path: &str) -> Result<HeaderMap, Failure> {
        Ok(self.request(Method::HEAD, path, None, empty()).await?.headers().clone())
    }

    /// Takes something away; what comes back.
    pub async fn delete(&self, path: &str) -> Result<Value, Failure> {
        json(&whole(self.request(Method::DELETE, path, None, empty()).await?).await?)
    }

    /// Turns the connection of an order into a stream both ways.
    pub async fn hijack(&self, path: &str, body: &impl Serialize) -> Result<TokioIo<Upgraded>, Failure> {
        let request = self
            .builder(Method::POST, path)
            .header(CONTENT_TYPE, "application/json")
            .header(CONNECTION, "Upgrade")
            .header(UPGRADE, "tcp")
            .body(document(body)?);
        let response = self.exchange(request).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(refusal(response).await);
        }
        hyper::upgrade::on(response).await.map(TokioIo::new).map_err(broken)
    }

    async fn request(
        &self,
        method: Method,
        path: &str,
        kind: Option<&str>,
        body: Body,
    ) -> Result<Response<Incoming>, Failure> {
        let mut request = self.builder(method, path);
        if let Some(kind) = kind {
            request = request.header(CONTENT_TYPE, kind);
        }
        let response = self.exchange(request.body(body)).await?;
        // 304 is Docker's "already so", and fine
        match response.status().is_success() || response.status() == StatusCode::NOT_MODIFIED {
            true => Ok(response),
            false => Err(refusal(response).await),
        }
    }

    fn builder(&self, method: Method, path: &str) -> hyper::http::request::Builder {
        // our own questions are outside of Docker's versions
        let uri = match path.starts_with("/sluice/") || path == "/_ping" {
            true => path.to_owned(),
            false => format!("/v{}{path}", self.version),
        };
        Request::builder().method(method).uri(uri).header(HOST, "docker")
    }

    async fn exchange(
        &self,
        request: Result<Request<Body>, hyper::http::Error>,
    ) -> Result<Response<Incoming>, Failure> {
        let request = request.map_err(|why| Failure::Usage(why.to_string()))?;
        let unreachable = |why: std::io::Error| Failure::Unreachable {
            address: self.address.to_string(),
            why: why.to_string(),
        };
        match &self.address {
            Address::Unix(path) => talk(UnixStream::connect(path).await.map_err(unreachable)?, request).await,
            Address::Tcp(host) => talk(TcpStream::connect(host).await.map_err(unreachable)?, request).await,
        }
    }
}

async fn talk<S>(socket: S, request: Request<Body>) -> Result<Response<Incoming>, Failure>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(socket)).await.map_err(broken)?;
    tokio::spawn(connection.with_upgrades());
    sender.send_request(request).await.map_err(broken)
}

/// No body.
pub fn empty() -> Body {
    Full::default().map_err(|never| match never {}).boxed_unsync()
}

fn document(body: &impl Serialize) -> Result<Body, Failure> {
    let bytes = serde_json::to_vec(body).map_err(|why| Failure::Usage(why.to_string()))?;
    Ok(Full::from(bytes).map_err(|never| match never {}).boxed_unsync())
}

async fn whole(response: Response<Incoming>) -> Result<Bytes, Failure> {
    Ok(response.into_body().collect().await.map_err(broken)?.to_bytes())
}

/// A document; nothing is `null`.
pub fn json(bytes: &[u8]) -> Result<Value, Failure> {
    match bytes.is_empty() {
        true => Ok(Value::Null),
        false => serde_json::from_slice(bytes).map_err(|why| Failure::Broken(format!("not JSON: {why}"))),
    }
}

async fn refusal(response: Response<Incoming>) -> Failure {
    let status = response.status();
    let bytes = match whole(response).await {
        Ok(bytes) => bytes,
        Err(failure) => return failure,
    };
    let told = json(&bytes)
        .ok()
        .and_then(|body| Some(body.get("message")?.as_str()?.to_owned()));
    let text = || String::from_utf8_lossy(&bytes).trim().to_owned();
    let message = told.unwrap_or_else(text);
    let message = if message.is_empty() {
        status.to_string()
    } else {
        message
    };
    Failure::Refused {
        status: status.as_u16(),
        message,
    }
}

/// The connection did not hold.
pub fn broken(why: hyper::Error) -> Failure {
    Failure::Broken(why.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_socket_or_host_and_port() {
        assert_eq!(
            Address::parse(DEFAULT).unwrap(),
            Address::Unix("/run/sluice/sluice.sock".into())
        );
        assert_eq!(
            Address::parse("tcp://127.0.0.1:2375").unwrap(),
            Address::Tcp("127.0.0.1:2375".into())
        );
        for wrong in ["", "/run/x.sock", "unix://relative", "ssh://host", "tcp://host"] {
            assert!(Address::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[tokio::test]
    async fn nobody_there_is_said_with_the_address() {
        let daemon = Daemon::at(Address::Unix("/nonexistent/sluice.sock".into()));
        let failure = daemon.get("/version").await.unwrap_err();
        assert!(
            failure
                .to_string()
                .starts_with("Cannot connect to the Sluice daemon at unix:///nonexistent")
        );
    }
}
