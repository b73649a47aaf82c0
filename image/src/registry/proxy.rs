//! Whether a host is reached through a proxy, as the environment says and Go's library reads it: `HTTPS_PROXY` for addresses with TLS, `HTTP_PROXY`
//! for those without, `ALL_PROXY` for either; never for this machine, nor for what `NO_PROXY` names.

use std::net::IpAddr;

use crate::error::ImageError;

/// What the environment says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Proxies {
    https: Option<String>,
    http: Option<String>,
    /// Names, addresses, subnets.
    not_for: Vec<String>,
}

impl Proxies {
    /// Of the daemon's environment.
    pub fn of_environment() -> Self {
        Self::of(|name| std::env::var(name).ok())
    }

    fn of(variable: impl Fn(&str) -> Option<String>) -> Self {
        let either = |name: &str| {
            let found = variable(name).or_else(|| variable(&name.to_lowercase()));
            found.filter(|value| !value.is_empty())
        };
        let not_for = either("NO_PROXY").unwrap_or_default();
        Self {
            https: either("HTTPS_PROXY").or_else(|| either("ALL_PROXY")),
            http: either("HTTP_PROXY").or_else(|| either("ALL_PROXY")),
            not_for: not_for
                .split(',')
                .map(|entry| entry.trim().to_ascii_lowercase())
                .filter(|entry| !entry.is_empty())
                .collect(),
        }
    }

    /// The proxy for what begins with `base` (`https://host[:port]`).
    pub fn for_base(&self, base: &str) -> Result<Option<ureq::Proxy>, ImageError> {
        let Some(url) = self.url_for(base) else { return Ok(None) };
        let url = match url.contains("://") {
            true => url.to_owned(),
            false => format!("http://{url}"),
        };
        let proxy = ureq::Proxy::new(&url);
        proxy
            .map(Some)
            .map_err(|why| ImageError::Failed(format!("the proxy of the environment cannot be used: {why}")))
    }

    fn url_for(&self, base: &str) -> Option<&str> {
        let (scheme, rest) = base.split_once("://")?;
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let authority = authority.to_ascii_lowercase();
        let host = super::options::host_of(&authority);
        let address: Option<IpAddr> = host.parse().ok();
        let is_here = host == "localhost" || address.is_some_and(|address| address.is_loopback());
        if is_here || self.not_for.iter().any(|entry| names(entry, &authority, host, address)) {
            return None;
        }
        match scheme {
            "https" => self.https.as_deref(),
            _ => self.http.as_deref(),
        }
    }
}

/// Does an entry of `NO_PROXY` name the host? A domain names those below it, too.
fn names(entry: &str, authority: &str, host: &str, address: Option<IpAddr>) -> bool {
    if entry == "*" || entry == authority || entry == host {
        return true;
    }
    if let Some(address) = address {
        let subnet: Option<ipnet::IpNet> = entry.parse().ok();
        return subnet.is_some_and(|subnet| subnet.contains(&address)) || entry.parse() == Ok(address);
    }
    let below = entry.trim_start_matches('*').trim_start_matches('.');
    let is_below = host.strip_suffix(below).is_some_and(|front| front.ends_with('.'));
    !below.is_empty() && is_below
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(variables: &[(&str, &str)]) -> Proxies {
        Proxies::of(|name| {
            let found = variables.iter().find(|(own, _)| *own == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn each_scheme_has_its_proxy_and_small_letters_do() {
        let found = proxies(&[("HTTPS_PROXY", "http://a:1"), ("http_proxy", "b:2")]);
        assert_eq!(found.url_for("https://r.example/v2/"), Some("http://a:1"));
        assert_eq!(found.url_for("http://r.example:5000"), Some("b:2"));
        assert!(found.for_base("http://r.example:5000").unwrap().is_some());
        assert_eq!(
            proxies(&[("ALL_PROXY", "c:3")]).url_for("https://r.example"),
            Some("c:3")
        );
        assert_eq!(proxies(&[("HTTP_PROXY", "b:2")]).url_for("https://r.example"), None);
        assert_eq!(proxies(&[("HTTPS_PROXY", "")]).url_for("https://r.example"), None);
    }

    #[test]
    fn this_machine_and_what_is_named_is_reached_without() {
        let found = proxies(&[
            ("ALL_PROXY", "p:1"),
            ("NO_PROXY", "near.lan, .far.lan,10.0.0.0/8,r.lan:5000,*.star.lan"),
        ]);
        for direct in [
            "http://localhost:5000",
            "http://127.0.0.1:5000",
            "http://[::1]:5000",
            "https://near.lan",
            "https://below.near.lan:5000",
            "https://x.far.lan",
            "https://x.star.lan",
            "http://10.9.8.7:5000",
            "https://R.lan:5000/v2/",
        ] {
            assert_eq!(found.url_for(direct), None, "{direct}");
        }
        for proxied in [
            "https://notnear.lan",
            "https://far.lan.example",
            "http://11.0.0.1",
            "https://r.lan:5001",
        ] {
            assert!(found.url_for(proxied).is_some(), "{proxied}");
        }
        assert_eq!(
            proxies(&[("ALL_PROXY", "p:1"), ("NO_PROXY", "*")]).url_for("https://a"),
            None
        );
    }
}
