//! Which registry is reached how, as the operator says: mirrors, certificates, and who may go without TLS.

use std::{
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use ureq::{
    Agent,
    config::{Config, RedirectAuthHeaders},
    tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem},
    unversioned::{
        resolver::DefaultResolver,
        transport::{ConnectProxyConnector, Connector, TcpConnector},
    },
};

use crate::{
    error::ImageError,
    registry::{proxy::Proxies, tls::Tls},
};

/// How long a registry may say nothing before the connection is given up, each time.
const SILENCE: Duration = Duration::from_secs(60);
/// How long it may take to be connected with.
const CONNECTING: Duration = Duration::from_secs(20);
/// Where systems keep the certificates they trust.
const BUNDLES: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
/// What `docker.io` in a name means.
const HUB: &str = "registry-1.docker.io";

/// Which registries are reached how.
#[derive(Clone, Debug)]
pub struct RegistryOptions {
    /// `host`, `host:port` or a subnet: their certificates are not looked at, and without TLS they are reached in the clear. Addresses of this
    /// machine always are among them.
    pub insecure: Vec<String>,
    /// `https://host[:port][/path]`: asked before Docker's own registry, for images of it.
    pub mirrors: Vec<String>,
    /// Directories with a directory for each `host[:port]`: `*.crt` are trusted beside the system's (also when
    /// one is the registry's own), `*.cert` with `*.key` tell the registry who we are.
    pub certificates: Vec<PathBuf>,
    /// Layers of one pull that come at a time.
    pub downloads: usize,
    /// Layers of one push that go at a time.
    pub uploads: usize,
}

impl Default for RegistryOptions {
    fn default() -> Self {
        Self {
            insecure: Vec::new(),
            mirrors: Vec::new(),
            certificates: vec!["/etc/docker/certs.d".into(), "/etc/sluice/certs.d".into()],
            downloads: 3,
            uploads: 5,
        }
    }
}

/// One way to a registry.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    /// `https://host:port`, without a slash at its end.
    pub base: String,
    pub is_mirror: bool,
    pub agent: Agent,
}

impl RegistryOptions {
    /// Are mirrors and insecure registries named as they can be used?
    pub fn check(&self) -> Result<(), String> {
        for mirror in &self.mirrors {
            let rest = mirror.strip_prefix("https://").or(mirror.strip_prefix("http://"));
            let host = rest.map(|rest| rest.split('/').next().unwrap_or_default());
            if host.is_none_or(str::is_empty) || mirror.contains(['?', '#', '@']) {
                return Err(format!(
                    "invalid mirror {mirror:?}: https://host[:port] is wanted, without a user, query or fragment"
                ));
            }
        }
        for name in &self.insecure {
            if name.contains("://") {
                return Err(format!(
                    "insecure registry {name} should not contain '://': host, host:port or a subnet is wanted"
                ));
            }
        }
        Ok(())
    }

    /// The ways to the registry of `domain`, in the order they are tried.
    pub(crate) fn endpoints(&self, domain: &str, pushing: bool) -> Result<Vec<Endpoint>, ImageError> {
        let mut endpoints = Vec::new();
        if domain == "docker.io" {
            if !pushing {
                for mirror in &self.mirrors {
                    let base = mirror.trim_end_matches('/').to_owned();
                    let host = base.rsplit("://").next().unwrap_or_default();
                    let host = host.split('/').next().unwrap_or_default().to_owned();
                    let is_insecure = base.starts_with("http://") || self.is_insecure(&host);
                    endpoints.push(self.endpoint(base, &host, is_insecure, true)?);
                }
            }
            endpoints.push(self.endpoint(format!("https://{HUB}"), HUB, false, false)?);
        } else {
            let is_insecure = self.is_insecure(domain);
            endpoints.push(self.endpoint(format!("https://{domain}"), domain, is_insecure, false)?);
            if is_insecure {
                endpoints.push(self.endpoint(format!("http://{domain}"), domain, true, false)?);
            }
        }
        Ok(endpoints)
    }

    fn endpoint(&self, base: String, host: &str, is_insecure: bool, is_mirror: bool) -> Result<Endpoint, ImageError> {
        let trust = self.trust(host)?;
        let config = Config::builder()
            .http_status_as_error(false)
            .https_only(!is_insecure)
            .redirect_auth_headers(RedirectAuthHeaders::SameHost)
            .user_agent(concat!("sluice/", env!("CARGO_PKG_VERSION")))
            // what comes is measured and hashed as it is
            .accept_encoding("identity")
            .timeout_connect(Some(CONNECTING))
            .timeout_per_read(Some(SILENCE))
            .timeout_per_write(Some(SILENCE))
            .proxy(Proxies::of_environment().for_base(&base)?)
            .tls_config(trust.plain(is_insecure))
            .build();
        let agent = match is_insecure || trust.own.is_empty() {
            true => Agent::new_with_config(config),
            false => {
                let tls = Tls::new(provider(), &trust.system, &trust.own, trust.client.as_ref());
                let tls = tls
                    .map_err(|why| ImageError::Failed(format!("cannot use the certificates kept for {host}: {why}")))?;
                let connector = ().chain(ConnectProxyConnector::default()).chain(TcpConnector::default());
                Agent::with_parts(config, connector.chain(tls), DefaultResolver::default())
            }
        };
        Ok(Endpoint { base, is_mirror, agent })
    }

    /// A way to a place of the web.
    pub(crate) fn downloads(&self, url: &str) -> Result<Agent, ImageError> {
        let config = Config::builder()
            .http_status_as_error(false)
            .user_agent(concat!("sluice/", env!("CARGO_PKG_VERSION")))
            .accept_encoding("identity")
            .timeout_connect(Some(CONNECTING))
            .timeout_per_read(Some(SILENCE))
            .proxy(Proxies::of_environment().for_base(url)?)
            .tls_config(Trust::default().with_system().plain(false))
            .build();
        Ok(Agent::new_with_config(config))
    }

    /// An address of this machine, or one the operator named.
    pub(crate) fn is_insecure(&self, domain: &str) -> bool {
        let host = host_of(domain);
        let address: Option<IpAddr> = host.parse().ok();
        host == "localhost"
            || address.is_some_and(|address| address.is_loopback())
            || self.insecure.iter().any(|named| {
                let subnet: Option<ipnet::IpNet> = named.parse().ok();
                named == domain
                    || named == host
                    || subnet.is_some_and(|subnet| address.is_some_and(|address| subnet.contains(&address)))
            })
    }

    /// Whom a registry may show itself as, and who we are to it.
    fn trust(&self, host: &str) -> Result<Trust, ImageError> {
        let mut trust = Trust::default().with_system();
        for directory in &self.certificates {
            let directory = directory.join(host);
            trust.own.extend(certificates_in(&directory)?);
            trust.client = identity_in(&directory)?.or(trust.client);
        }
        Ok(trust)
    }
}

/// Certificates.
#[derive(Default)]
struct Trust {
    /// Authorities of this system.
    system: Vec<Certificate<'static>>,
    /// Those kept for one registry: authorities, or its own.
    own: Vec<Certificate<'static>>,
    client: Option<ClientCert>,
}

impl Trust {
    fn with_system(self) -> Self {
        Self {
            system: system_roots(),
            ..self
        }
    }

    /// For the usual rules alone.
    fn plain(&self, is_insecure: bool) -> TlsConfig {
        TlsConfig::builder()
            .root_certs(RootCerts::new_with_certs(&self.system))
            .client_cert(self.client.clone())
            .disable_verification(is_insecure)
            .unversioned_rustls_crypto_provider(provider())
            .build()
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// The host without its port, and without the brackets of an IPv6 address.
pub(crate) fn host_of(domain: &str) -> &str {
    if let Some(rest) = domain.strip_prefix('[') {
        return rest.split(']').next().unwrap_or_default();
    }
    domain.split(':').next().unwrap_or_default()
}

/// What this system trusts; nothing where it keeps no such list.
fn system_roots() -> Vec<Certificate<'static>> {
    let named = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    let bundle = named.into_iter().chain(BUNDLES.iter().map(PathBuf::from));
    let bytes = bundle
        .into_iter()
        .find_map(|path| fs::read(path).ok())
        .unwrap_or_default();
    certificates_of(&bytes)
}

fn certificates_of(pem: &[u8]) -> Vec<Certificate<'static>> {
    let items = parse_pem(pem).filter_map(|item| match item {
        Ok(PemItem::Certificate(certificate)) => Some(certificate),
        _ => None,
    });
    items.collect()
}

/// Every `*.crt` of a directory.
fn certificates_in(directory: &Path) -> Result<Vec<Certificate<'static>>, ImageError> {
    let mut certificates = Vec::new();
    for path in files_in(directory, "crt") {
        let found = certificates_of(&read(&path)?);
        if found.is_empty() {
            return Err(ImageError::failed(
                "cannot use",
                &path,
                "it holds no certificate in PEM",
            ));
        }
        certificates.extend(found);
    }
    Ok(certificates)
}

/// The first `*.cert` of a directory, which has its `*.key` beside it.
fn identity_in(directory: &Path) -> Result<Option<ClientCert>, ImageError> {
    let Some(path) = files_in(directory, "cert").into_iter().next() else {
        return Ok(None);
    };
    let chain = certificates_of(&read(&path)?);
    if chain.is_empty() {
        return Err(ImageError::failed(
            "cannot use",
            &path,
            "it holds no certificate in PEM",
        ));
    }
    let beside = path.with_extension("key");
    let key =
        PrivateKey::from_pem(&read(&beside)?).map_err(|why| ImageError::failed("cannot use the key", &beside, why))?;
    Ok(Some(ClientCert::new_with_certs(&chain, key)))
}

fn files_in(directory: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .collect();
    paths.sort();
    paths
}

fn read(path: &Path) -> Result<Vec<u8>, ImageError> {
    fs::read(path).map_err(|why| ImageError::failed("cannot read", path, why))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bases(options: &RegistryOptions, domain: &str, pushing: bool) -> Vec<String> {
        let endpoints = options.endpoints(domain, pushing).unwrap();
        endpoints.into_iter().map(|endpoint| endpoint.base).collect()
    }

    #[test]
    fn only_named_registries_and_this_machine_are_spoken_to_in_the_clear() {
        let options = RegistryOptions {
            insecure: vec!["r.lan:5000".into(), "all.lan".into(), "10.9.0.0/16".into()],
            ..RegistryOptions::default()
        };
        for open in [
            "localhost",
            "localhost:5000",
            "127.0.0.1:5000",
            "[::1]:5000",
            "r.lan:5000",
            "all.lan:1",
            "10.9.8.7:5000",
        ] {
            assert!(options.is_insecure(open), "{open}");
        }
        for closed in ["r.lan", "r.lan:5001", "10.8.0.1:5000", "docker.io", "localhost.example"] {
            assert!(!options.is_insecure(closed), "{closed}");
        }
        assert_eq!(
            bases(&options, "r.lan:5000", false),
            ["https://r.lan:5000", "http://r.lan:5000"]
        );
        assert_eq!(bases(&options, "quay.io", false), ["https://quay.io"]);
    }

    #[test]
    fn a_mirror_is_asked_first_for_dockers_own_images_and_never_pushed_to() {
        let options = RegistryOptions {
            mirrors: vec!["http://mirror.lan:5000/".into()],
            ..RegistryOptions::default()
        };
        options.check().unwrap();
        assert_eq!(
            bases(&options, "docker.io", false),
            ["http://mirror.lan:5000", "https://registry-1.docker.io"]
        );
        assert_eq!(bases(&options, "docker.io", true), ["https://registry-1.docker.io"]);
        assert_eq!(bases(&options, "quay.io", false), ["https://quay.io"]);
    }

    #[test]
    fn what_cannot_be_used_is_refused_by_name() {
        let mirror = |mirror: &str| RegistryOptions {
            mirrors: vec![mirror.into()],
            ..RegistryOptions::default()
        };
        for wrong in ["mirror.lan", "https://", "ftp://a", "https://user@host"] {
            assert!(mirror(wrong).check().unwrap_err().contains(wrong), "{wrong}");
        }
        let insecure = RegistryOptions {
            insecure: vec!["http://r.lan".into()],
            ..RegistryOptions::default()
        };
        assert!(insecure.check().unwrap_err().contains("'://'"));
    }
}
