//! Who may use a container's published ports: its label says so, else the daemon's default.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;

use crate::EngineError;

/// The label.
pub(crate) const PUBLISH_FROM: &str = "sluice.publish-from";

/// The prefixes, addresses alone among them, of a list with commas. `all` is everybody: none.
pub(crate) fn parse(text: &str) -> Result<Vec<IpNet>, EngineError> {
    let parts: Vec<&str> = text.split(',').map(str::trim).filter(|part| !part.is_empty()).collect();
    if parts == ["all"] {
        return Ok(Vec::new());
    }
    let mut sources = Vec::new();
    for part in &parts {
        let net = part
            .parse::<IpNet>()
            .or_else(|_| part.parse::<IpAddr>().map(IpNet::from));
        let net = net.map_err(|_| {
            EngineError::invalid(format!(
                "invalid {PUBLISH_FROM} {text:?}: {part:?} is neither an address nor a prefix (192.0.2.0/24)"
            ))
        })?;
        if !sources.contains(&net.trunc()) {
            sources.push(net.trunc());
        }
    }
    if sources.is_empty() {
        return Err(EngineError::invalid(format!(
            "invalid {PUBLISH_FROM} {text:?}: prefixes separated by commas are wanted, or \"all\""
        )));
    }
    Ok(sources)
}

/// Those of a container with these labels. None: everybody.
pub(crate) fn of(labels: &BTreeMap<String, String>, usual: &[IpNet]) -> Result<Vec<IpNet>, EngineError> {
    match labels.get(PUBLISH_FROM) {
        Some(text) => parse(text),
        None => Ok(usual.to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_label_goes_before_the_daemons_default_and_all_opens_again() {
        let usual = ["10.0.0.0/8".parse().unwrap()];
        let of = |label: Option<&str>| {
            let labels = label
                .map(|text| (PUBLISH_FROM.to_owned(), text.to_owned()))
                .into_iter()
                .collect();
            of(&labels, &usual).map(|nets| nets.iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        assert_eq!(of(None).unwrap(), ["10.0.0.0/8"]);
        assert_eq!(
            of(Some("192.0.2.77/24, 2001:db8::/32,198.51.100.1")).unwrap(),
            ["192.0.2.0/24", "2001:db8::/32", "198.51.100.1/32"]
        );
        assert!(of(Some("all")).unwrap().is_empty());
        for wrong in ["", " ", ",", "lan", "10.0.0.0/33", "all,10.0.0.0/8"] {
            assert!(of(Some(wrong)).is_err(), "{wrong:?}");
        }
    }
}
