//! Networks that stand on a device of the host: the drivers `macvlan` and `ipvlan`.

use std::{collections::BTreeMap, str::FromStr};

use sluice_agent::{DeviceKind, HostDevice};
use sluice_model::{
    Network,
    network::{Driver, Hold, IpvlanFlag, IpvlanMode, MacvlanMode, MadeParent, Parent, UnknownMode},
};

use crate::{Engine, EngineError};

/// The option that names the device.
const PARENT: &str = "parent";

/// What the user's options say.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Wish {
    hold: Hold,
    /// None: a device that leads nowhere is made.
    parent: Option<String>,
}

impl Engine {
    /// Finds or plans the device that the network stands on.
    pub(crate) async fn take_parent(&self, network: &mut Network) -> Result<(), EngineError> {
        let wish = read(network.driver, &network.options)?;
        let driver = driver_name(network.driver);
        if !self.agent.can_make(DeviceKind::Child(wish.hold)).await? {
            return Err(EngineError::not_offered(format!(
                "this kernel has no {driver} devices (CONFIG_{}): a network of this driver cannot be made",
                driver.to_uppercase()
            )));
        }
        let devices = self.agent.host_devices().await?;
        let (device, made_of) = match wish.parent {
            // as in Docker: nothing leads out of a network that stands on nothing
            None => {
                network.internal = true;
                (format!("dm-{}", network.id.short()), Some(MadeParent::Dummy))
            }
            Some(name) => {
                let made_of = found_or_made(&name, &devices)?;
                (name, made_of)
            }
        };
        let needs = match &made_of {
            Some(MadeParent::Vlan { .. }) => Some((DeviceKind::Vlan, "VLANs (CONFIG_VLAN_8021Q)")),
            Some(MadeParent::Dummy) => Some((DeviceKind::Dummy, "dummy devices (CONFIG_DUMMY)")),
            None => None,
        };
        if let Some((kind, what)) = needs
            && !self.agent.can_make(kind).await?
        {
            return Err(EngineError::not_offered(format!(
                "this kernel has no {what}: the parent {device} cannot be made; make it, or name another"
            )));
        }
        self.check_company(&device, wish.hold)?;
        // a device that was made for another network stays as long as one of them wants it
        let made_of = made_of.or_else(|| self.made_by_another(&device));
        network.parent = Some(Parent {
            device,
            made_of,
            hold: wish.hold,
        });
        Ok(())
    }

    /// The name that the device of a network's gateway is to have must be free.
    pub(crate) async fn check_device_name(&self, network: &Network) -> Result<(), EngineError> {
        let Some(name) = &network.gateway_device else {
            return Ok(());
        };
        let mut others = self.networks.all().into_iter();
        if let Some(other) = others.find(|other| other.gateway_device.as_ref() == Some(name)) {
            return Err(EngineError::forbidden(format!(
                "network {} is already using bridge name {name}",
                other.name
            )));
        }
        if self
            .agent
            .host_devices()
            .await?
            .iter()
            .any(|device| device.name == *name)
        {
            return Err(EngineError::forbidden(format!(
                "the host has a device called {name} already: a network cannot have one of that name \
                 (the default network can be put on a bridge that is there with the daemon's option --bridge)"
            )));
        }
        Ok(())
    }

    /// A device passed through has one user; ipvlan devices of one parent have one mode, and no macvlan ones beside them.
    fn check_company(&self, device: &str, hold: Hold) -> Result<(), EngineError> {
        let passthru = |hold: Hold| hold == Hold::Macvlan(MacvlanMode::Passthru);
        for other in self.networks.all() {
            let Some(theirs) = other.parent.as_ref().filter(|parent| parent.device == device) else {
                continue;
            };
            let clash = passthru(hold)
                || passthru(theirs.hold)
                || matches!((hold, theirs.hold), (Hold::Ipvlan(..), own) if own != hold)
                || matches!((hold, theirs.hold), (Hold::Macvlan(_), Hold::Ipvlan(..)));
            if clash {
                return Err(EngineError::forbidden(format!(
                    "network {} is already using parent interface {device}",
                    other.name
                )));
            }
        }
        Ok(())
    }

    fn made_by_another(&self, device: &str) -> Option<MadeParent> {
        let others = self.networks.all().into_iter().filter_map(|other| other.parent);
        others
            .filter(|parent| parent.device == device)
            .find_map(|parent| parent.made_of)
    }
}

/// Reads the options of a driver.
fn read(driver: Driver, options: &BTreeMap<String, String>) -> Result<Wish, EngineError> {
    let parent = options.get(PARENT).filter(|name| !name.is_empty()).cloned();
    let hold = match driver {
        Driver::Macvlan => Hold::Macvlan(mode::<MacvlanMode>("macvlan", options, "macvlan_mode")?),
        Driver::Ipvlan => Hold::Ipvlan(
            mode::<IpvlanMode>("ipvlan", options, "ipvlan_mode")?,
            mode::<IpvlanFlag>("ipvlan", options, "ipvlan_flag")?,
        ),
        other => {
            return Err(EngineError::failed(format!(
                "networks of the driver {} have no parent",
                driver_name(other)
            )));
        }
    };
    if let Some(name) = &parent
        && (name.len() > 15 || name.contains(['/', ' ', '\0']))
    {
        return Err(EngineError::invalid(format!(
            "invalid option {PARENT}={name}: the name of a device is wanted"
        )));
    }
    if hold == Hold::Macvlan(MacvlanMode::Passthru) && parent.is_none() {
        return Err(EngineError::invalid(
            "macvlan mode passthru needs a parent: -o parent=DEVICE",
        ));
    }
    Ok(Wish { hold, parent })
}

fn mode<M: FromStr<Err = UnknownMode> + Default>(
    driver: &str,
    options: &BTreeMap<String, String>,
    option: &str,
) -> Result<M, EngineError> {
    match options.get(option).filter(|text| !text.is_empty()) {
        None => Ok(M::default()),
        Some(text) => text.parse().map_err(|UnknownMode(text, known)| {
            EngineError::invalid(format!(
                "requested {driver} mode '{text}' is not valid ({option}): one of {known} is wanted"
            ))
        }),
    }
}

/// The device as it is; else a VLAN that its name asks for, as `eth0.50`.
fn found_or_made(name: &str, devices: &[HostDevice]) -> Result<Option<MadeParent>, EngineError> {
    let find = |name: &str| devices.iter().find(|device| device.name == name);
    if let Some(device) = find(name) {
        return match device.is_loopback {
            true => Err(EngineError::invalid(
                "loopback interface is not a valid parent link for this driver",
            )),
            false => Ok(None),
        };
    }
    let vlan = name.rsplit_once('.').and_then(|(of, tag)| {
        let tag: u16 = tag.parse().ok()?;
        find(of).map(|device| (device.name.clone(), tag))
    });
    match vlan {
        Some((of, tag @ 1..=4094)) => Ok(Some(MadeParent::Vlan { of, tag })),
        Some((_, tag)) => Err(EngineError::invalid(format!(
            "vlan id must be between 1-4094, received: {tag}"
        ))),
        None => Err(EngineError::not_found(format!(
            "the requested parent interface {name} was not found on the host"
        ))),
    }
}

fn driver_name(driver: Driver) -> &'static str {
    super::defaults::driver_name(driver)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;

    fn options(options: &[(&str, &str)]) -> BTreeMap<String, String> {
        options
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    fn device(name: &str) -> HostDevice {
        HostDevice {
            name: name.into(),
            addresses: vec![],
            is_loopback: name == "lo",
            is_bridge: false,
        }
    }

    #[test]
    fn a_mode_is_one_that_the_driver_has() {
        let hold = |driver, given: &[(&str, &str)]| read(driver, &options(given)).map(|wish| wish.hold);
        assert_eq!(
            hold(Driver::Macvlan, &[("parent", "eth0")]).unwrap(),
            Hold::Macvlan(MacvlanMode::Bridge)
        );
        assert_eq!(
            hold(Driver::Ipvlan, &[("ipvlan_mode", "l3"), ("ipvlan_flag", "vepa")]).unwrap(),
            Hold::Ipvlan(IpvlanMode::L3, IpvlanFlag::Vepa)
        );
        let refused = hold(Driver::Macvlan, &[("macvlan_mode", "loud")]).unwrap_err();
        assert!(
            refused.kind == Kind::Invalid && refused.message.contains("bridge private vepa passthru"),
            "{refused}"
        );
        assert!(hold(Driver::Macvlan, &[("macvlan_mode", "passthru")]).is_err());
    }

    #[test]
    fn a_parent_is_there_or_a_vlan_of_one_that_is() {
        let devices = [device("lo"), device("eth0"), device("eth0.7")];
        let parent = |name: &str| found_or_made(name, &devices);
        assert_eq!(parent("eth0").unwrap(), None);
        assert_eq!(parent("eth0.7").unwrap(), None, "it is there, and not ours");
        assert_eq!(
            parent("eth0.50").unwrap(),
            Some(MadeParent::Vlan {
                of: "eth0".into(),
                tag: 50
            })
        );
        for wrong in ["lo", "eth1", "eth1.50", "eth0.4095", "eth0.x"] {
            assert!(parent(wrong).is_err(), "{wrong}");
        }
    }
}
