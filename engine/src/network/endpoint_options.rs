//! Options of a container's place in one network, by the names that Docker's users know.

use std::collections::BTreeMap;

use sluice_model::container::NetworkWish;

use crate::EngineError;

/// Settings of the place's device.
const SYSCTLS: &str = "com.docker.network.endpoint.sysctls";

/// What stands for the device's name.
const DEVICE: &str = "IFNAME";

/// The settings that the user wants of the device: `net.ipv4.conf.IFNAME.log_martians=1,…`, as names and values.
pub(crate) fn sysctls(wish: &NetworkWish) -> Result<BTreeMap<String, String>, EngineError> {
    let Some(text) = wish.driver_options.get(SYSCTLS).filter(|text| !text.is_empty()) else {
        return Ok(BTreeMap::new());
    };
    text.split(',').map(|setting| read(setting.trim())).collect()
}

fn read(setting: &str) -> Result<(String, String), EngineError> {
    let refused = |why: &str| EngineError::invalid(format!("invalid option {SYSCTLS}: {setting:?}: {why}"));
    let (name, value) = setting
        .split_once('=')
        .ok_or_else(|| refused("a name, = and a value are wanted"))?;
    // some versions of the CLI send the words of an option in small letters
    let name: Vec<&str> = name
        .split('.')
        .map(|part| {
            if part.eq_ignore_ascii_case(DEVICE) {
                DEVICE
            } else {
                part
            }
        })
        .collect();
    let name = name.join(".");
    let parts: Vec<&str> = name.split('.').collect();
    let of_a_device = matches!(
        parts.as_slice(),
        ["net", "ipv4" | "ipv6" | "mpls", "conf" | "neigh", DEVICE, rest @ ..] if !rest.is_empty()
    );
    let plain = |part: &&str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if !of_a_device || !parts.iter().all(plain) {
        return Err(refused(
            "a setting of a network device is wanted, with IFNAME in place of its name, as net.ipv4.conf.IFNAME.log_martians",
        ));
    }
    if value.is_empty() || !value.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(refused("a value is wanted"));
    }
    Ok((name, value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(text: &str) -> Result<BTreeMap<String, String>, EngineError> {
        sysctls(&NetworkWish {
            driver_options: BTreeMap::from([(SYSCTLS.to_owned(), text.to_owned())]),
            ..NetworkWish::default()
        })
    }

    #[test]
    fn settings_of_the_device_are_read_and_no_others() {
        let read = with("net.ipv4.conf.IFNAME.log_martians=1,net.ipv6.conf.IFNAME.accept_ra=0").unwrap();
        assert_eq!(read["net.ipv4.conf.IFNAME.log_martians"], "1");
        assert_eq!(read.len(), 2);
        assert!(
            with("net.ipv4.conf.ifname.log_martians=1")
                .unwrap()
                .contains_key("net.ipv4.conf.IFNAME.log_martians")
        );
        for wrong in [
            "net.ipv4.conf.eth0.log_martians=1",
            "net.ipv4.conf.all.forwarding=1",
            "net.ipv4.ip_forward=1",
            "kernel.IFNAME=1",
            "net.ipv4.conf.IFNAME/../all.forwarding=1",
            "net.ipv4.conf.IFNAME.log_martians",
            "net.ipv4.conf.IFNAME.log_martians=",
            "net.ipv4.conf.IFNAME=1",
        ] {
            assert!(with(wrong).is_err(), "{wrong}");
        }
        assert!(sysctls(&NetworkWish::default()).unwrap().is_empty());
    }
}
