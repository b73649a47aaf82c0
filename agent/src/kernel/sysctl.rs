//! Settings of single devices under /proc/sys/net. Those of the host (`all`, `default`, `ip_forward`) are not ours and cannot be named here.

use std::{fs, io};

/// Gives `/proc/sys/net/<family>/conf/<device>/<setting>` a value, unless it has it. A setting that this kernel does not have is passed over
/// (IPv6 may be off at boot).
pub fn set(family: &str, device: &str, setting: &str, value: &str) -> io::Result<()> {
    // `/` in place of `.` would be the way of sysctl(8); as a path a device's name is one component whatever it holds.
    let path = format!("/proc/sys/net/{family}/conf/{device}/{setting}");
    match fs::read_to_string(&path) {
        Ok(present) if present.trim() == value => Ok(()),
        Ok(_) => fs::write(&path, value).map_err(|error| io::Error::new(error.kind(), format!("{path}: {error}"))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(io::Error::new(error.kind(), format!("{path}: {error}"))),
    }
}

/// Gives the setting of a device that a user names, as in `net.ipv4.conf.IFNAME.log_martians`, a value. One that this kernel does not have is an error.
pub fn set_by_name(name: &str, device: &str, value: &str) -> io::Result<()> {
    let parts: Vec<&str> = name
        .split('.')
        .map(|part| if part == "IFNAME" { device } else { part })
        .collect();
    let unusable = |part: &&str| part.is_empty() || *part == ".." || part.contains(['/', '\0']);
    if parts.first() != Some(&"net") || !name.contains(".IFNAME.") || parts.iter().any(unusable) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{name} is no setting of a network device"),
        ));
    }
    fs::write(format!("/proc/sys/{}", parts.join("/")), value)
        .map_err(|error| io::Error::new(error.kind(), format!("setting {name} to {value}: {error}")))
}

/// No IPv6 on this device, so no link-local address, no router solicitations.
pub fn without_ipv6(device: &str) -> io::Result<()> {
    set("ipv6", device, "disable_ipv6", "1")
}

/// IPv6 on this device, as we say it and nobody else: no router is listened to, and its own link-local address is good at once. Before it is up.
pub fn with_ipv6(device: &str) -> io::Result<()> {
    for (setting, value) in [
        ("accept_ra", "0"),
        ("autoconf", "0"),
        ("accept_dad", "0"),
        ("accept_redirects", "0"),
        // of the MAC, which is what the datapath expects
        ("addr_gen_mode", "0"),
        ("disable_ipv6", "0"),
    ] {
        set("ipv6", device, setting, value)?;
    }
    Ok(())
}

/// The host's range of ephemeral ports, both ends included.
pub fn ephemeral_ports() -> io::Result<(u16, u16)> {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")?;
    let mut numbers = text.split_whitespace().map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(first)), Some(Ok(last))) => Ok((first, last)),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("ip_local_port_range reads {text:?}"),
        )),
    }
}
