//! What our devices and pins are called, and how our own are known from those of others.

use std::path::{Path, PathBuf};

use sluice_model::{Id, MacAddress};

use crate::AgentError;

/// The version of the contract in `datapath-common`: the layout of every map. A daemon of another version leaves these pins alone until its own
/// programs are in place.
const SCHEMA: u32 = 1;
/// What a device's name can have, IFNAMSIZ without the closing zero.
const LONGEST_DEVICE: usize = 15;

/// Fingerprints of what a veth was made from.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct MadeOf {
    /// What cannot be changed without making it anew; 0 while it is being made.
    pub device: u64,
    /// The ways out that it gives its sandbox, which can.
    pub ways: u64,
}

/// The names of one instance.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Names {
    /// The instance.
    pub instance: String,
    /// The host's end of its leg.
    pub host_leg: String,
    /// The datapath's end of it.
    pub datapath_leg: String,
    /// The datapath's end of the resolver's leg.
    pub resolver_leg: String,
    /// The VXLAN device.
    pub overlay: String,
    /// The device behind which what goes between hosts is encrypted.
    pub seal: String,
    /// `<bpffs>/sluice/<instance>`.
    pub directory: PathBuf,
}

impl Names {
    /// The names of an instance; it may have letters, digits, `-` and `_` (bpffs refuses dots).
    pub fn new(instance: &str, bpffs: &Path) -> Result<Self, AgentError> {
        let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if instance.is_empty() || instance.len() > 64 || !instance.chars().all(fits) {
            return Err(AgentError::Failed(format!(
                "the instance's name {instance:?} is not usable: 1 to 64 letters, digits, '-' and '_' are wanted"
            )));
        }
        let host_leg = host_leg(instance);
        Ok(Self {
            instance: instance.to_owned(),
            datapath_leg: format!("{host_leg}-dp"),
            resolver_leg: format!("{host_leg}-ns"),
            overlay: format!("{host_leg}-vx"),
            seal: format!("{host_leg}-wg"),
            host_leg,
            directory: bpffs.join("sluice").join(instance),
        })
    }

    /// Where maps are pinned.
    pub fn maps(&self) -> PathBuf {
        self.directory.join(format!("maps-v{SCHEMA}"))
    }

    /// Where links are pinned.
    pub fn links(&self) -> PathBuf {
        self.directory.join("links")
    }

    /// Where programs made of an object and a configuration with this fingerprint are pinned.
    pub fn programs(&self, fingerprint: u64) -> PathBuf {
        self.directory.join(format!("programs-{fingerprint:016x}"))
    }

    /// The alias of an endpoint's veth. It says whose the device is and what it was made from.
    pub fn alias(&self, endpoint: &Id, made_of: MadeOf) -> String {
        let MadeOf { device, ways } = made_of;
        format!("sluice/{}/{endpoint}/{device:016x}/{ways:016x}", self.instance)
    }

    /// The endpoint (as 64 digits) of an alias of this instance, and what its device was made from.
    pub fn read_alias<'a>(&self, alias: &'a str) -> Option<(&'a str, MadeOf)> {
        let rest = alias
            .strip_prefix("sluice/")?
            .strip_prefix(self.instance.as_str())?
            .strip_prefix('/')?;
        let mut parts = rest.split('/');
        let endpoint = parts.next()?;
        let mut number = || u64::from_str_radix(parts.next()?, 16).ok();
        let (device, ways) = (number()?, number()?);
        Some((endpoint, MadeOf { device, ways }))
    }

    /// The alias of both ends of the host's leg.
    pub fn leg_alias(&self) -> String {
        format!("sluice/{}/host", self.instance)
    }

    /// The alias of the device that bears a network's gateway addresses by a name of its own.
    pub fn gateway_alias(&self, network: &Id) -> String {
        format!("{}{network}", self.gateway_aliases())
    }

    fn gateway_aliases(&self) -> String {
        format!("sluice/{}/gateway/", self.instance)
    }

    /// Is it the alias of such a device?
    pub fn is_gateway(&self, alias: &str) -> bool {
        alias.starts_with(&self.gateway_aliases())
    }

    /// The alias of a device that was made to be the parent of networks' endpoints. Others may use it too: it counts as one of the host's.
    pub fn parent_alias(&self, device: &str) -> String {
        format!("{}{device}", self.parent_aliases())
    }

    fn parent_aliases(&self) -> String {
        format!("sluice/{}/parent/", self.instance)
    }

    /// Is it the alias of such a device?
    pub fn is_parent(&self, alias: &str) -> bool {
        alias.starts_with(&self.parent_aliases())
    }

    /// The alias of the resolver's leg.
    pub fn resolver_alias(&self) -> String {
        format!("sluice/{}/resolver", self.instance)
    }

    /// The alias of the VXLAN device that hears at this UDP port.
    pub fn overlay_alias(&self, port: u16) -> String {
        format!("{}{port}", self.overlay_aliases())
    }

    fn overlay_aliases(&self) -> String {
        format!("sluice/{}/overlay/", self.instance)
    }

    /// Is it the alias of such a device?
    pub fn is_overlay(&self, alias: &str) -> bool {
        alias.starts_with(&self.overlay_aliases())
    }

    /// The alias of the device that encrypts.
    pub fn seal_alias(&self) -> String {
        format!("sluice/{}/seal", self.instance)
    }

    /// Does a device with this alias belong to this instance?
    pub fn is_ours(&self, alias: &str) -> bool {
        alias == self.leg_alias()
            || alias == self.resolver_alias()
            || alias == self.seal_alias()
            || self.is_overlay(alias)
            || self.read_alias(alias).is_some()
            || self.is_gateway(alias)
    }

    /// Does a device with this alias lead to the networks of another instance?
    pub fn leads_to_another(&self, alias: &str) -> bool {
        let mut parts = alias.split('/');
        parts.next() == Some("sluice")
            && parts.next().is_some_and(|instance| instance != self.instance)
            && matches!(parts.next(), Some("host" | "gateway"))
    }

    /// May a device with this name be ours? Events about a device that is being made come before its alias.
    pub fn is_our_name(&self, name: &str) -> bool {
        [
            &self.host_leg,
            &self.datapath_leg,
            &self.resolver_leg,
            &self.overlay,
            &self.seal,
        ]
        .iter()
        .any(|ours| *ours == name)
            || is_host_end(name)
    }

    /// The MAC of the host's leg and of the host's end of every veth: one for all, so that a frame that goes from one to another keeps it.
    pub fn gateway_mac(&self) -> MacAddress {
        gateway_mac(&self.instance)
    }

    /// What tells the clsact filters of this instance from those of others on the same device: a priority between 0x6000 and 0x7fff.
    pub fn filter_priority(&self) -> u16 {
        0x6000 | (Fingerprint::of(self.instance.as_bytes()) & 0x1fff) as u16
    }
}

/// The MAC that an instance's gateways have: locally administered, `02:53:4c` and three bytes of the name's fingerprint.
pub fn gateway_mac(instance: &str) -> MacAddress {
    let [.., a, b, c] = Fingerprint::of(instance.as_bytes()).to_be_bytes();
    MacAddress([0x02, 0x53, 0x4c, a, b, c])
}

/// The host's end of an endpoint's veth.
pub fn host_end(endpoint: &Id) -> String {
    format!("slc{}", &endpoint.as_str()[..8])
}

fn is_host_end(name: &str) -> bool {
    name.strip_prefix("slc")
        .is_some_and(|digits| digits.len() == 8 && digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
}

fn host_leg(instance: &str) -> String {
    const ROOM: usize = LONGEST_DEVICE - "sl-".len() - "-dp".len();
    match instance {
        "default" => "sluice0".to_owned(),
        short if short.len() <= ROOM => format!("sl-{short}"),
        long => format!(
            "sl-{}{:06x}",
            &long[..ROOM - 6],
            Fingerprint::of(long.as_bytes()) & 0xff_ffff
        ),
    }
}

/// FNV-1a, 64 bit. It stands in aliases and pin names that outlive the program, so it must not change with the compiler as std's hashers may.
#[derive(Clone, Copy)]
pub struct Fingerprint(u64);

/// One that was taken before.
impl From<u64> for Fingerprint {
    fn from(value: u64) -> Self {
        Self(value)
    }
}

impl Fingerprint {
    /// Of nothing yet.
    pub const EMPTY: Self = Self(0xcbf2_9ce4_8422_2325);

    /// Of these bytes.
    pub fn of(bytes: &[u8]) -> u64 {
        let mut fingerprint = Self::EMPTY;
        fingerprint.add(bytes);
        fingerprint.0
    }

    /// Takes more bytes in.
    pub fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    /// Takes a part in, told apart from the next.
    pub fn add_part(&mut self, part: impl std::fmt::Display) {
        self.add(part.to_string().as_bytes());
        self.add(&[0]);
    }

    /// The number.
    pub fn value(self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(instance: &str) -> Names {
        Names::new(instance, Path::new("/sys/fs/bpf")).unwrap()
    }

    #[test]
    fn the_default_instance_has_the_names_of_the_documents() {
        let names = names("default");
        assert_eq!(
            (names.host_leg.as_str(), names.datapath_leg.as_str()),
            ("sluice0", "sluice0-dp")
        );
        assert_eq!(names.maps(), Path::new("/sys/fs/bpf/sluice/default/maps-v1"));
    }

    #[test]
    fn device_names_fit_however_long_the_instance_is_and_differ() {
        let mut seen = std::collections::HashSet::new();
        for instance in ["a", "uice0", "ninechars", "ten-charac", "ten-charad", &"x".repeat(64)] {
            let names = names(instance);
            assert!(names.datapath_leg.len() <= LONGEST_DEVICE, "{}", names.datapath_leg);
            assert!(seen.insert(names.host_leg.clone()), "{} is given twice", names.host_leg);
        }
    }

    #[test]
    fn an_instance_whose_name_bpffs_refuses_is_refused() {
        for instance in ["", "a.b", "../x", "a/b", &"x".repeat(65)] {
            assert!(Names::new(instance, Path::new("/sys/fs/bpf")).is_err(), "{instance:?}");
        }
    }

    #[test]
    fn an_alias_tells_the_endpoint_and_is_that_of_one_instance() {
        let (ours, others) = (names("default"), names("other"));
        let endpoint = Id::from_bytes([7; 32]);
        let made_of = MadeOf { device: 42, ways: 7 };
        let alias = ours.alias(&endpoint, made_of);
        assert_eq!(ours.read_alias(&alias), Some((endpoint.as_str(), made_of)));
        assert_eq!(others.read_alias(&alias), None);
        assert!(ours.is_ours(&ours.leg_alias()) && !ours.is_ours(&others.leg_alias()) && !ours.is_ours("eth0"));
    }

    #[test]
    fn a_gateway_mac_is_unicast_and_locally_administered() {
        let MacAddress([first, ..]) = gateway_mac("default");
        assert_eq!(first & 0b11, 0b10);
        assert_ne!(gateway_mac("default"), gateway_mac("other"));
    }
}
