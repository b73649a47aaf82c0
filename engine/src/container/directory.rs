//! A container's directory: its bundle, log, `/etc` files and writable layer.

use std::path::{Path, PathBuf};

use sluice_image::Images;
use sluice_model::{Container, container::NetworkMode};

use crate::{
    Config, EngineError,
    container::spec,
    error,
    network::{connect::Place, hosts, resolv},
};

/// The log of a container, in its directory.
pub(crate) fn log(directory: &Path, container: &Container) -> PathBuf {
    directory.join(format!("{}-json.log", container.id))
}

/// Writes `hostname`, `hosts` and `resolv.conf`, which are mounted over the image's.
pub(crate) fn write_etc(config: &Config, container: &Container, place: &Place) -> Result<(), EngineError> {
    let directory = config.container(&container.id);
    let name = spec::host_name(container);
    let domain = container.config.domainname.as_deref();
    let host = &container.host_config;
    let in_host = host.network_mode == NetworkMode::Host;

    let own: Vec<_> = place
        .endpoint
        .iter()
        .flat_map(|(endpoint, _)| endpoint.addresses.iter().map(ipnet::IpNet::addr))
        .collect();
    let gateway = place
        .endpoint
        .as_ref()
        .and_then(|(_, network)| network.subnets.first())
        .map(|subnet| subnet.gateway);
    let hosts_of_host = if in_host {
        std::fs::read_to_string("/etc/hosts").ok()
    } else {
        None
    };
    let hosts = hosts::text(
        hosts_of_host.as_deref(),
        &host.extra_hosts,
        gateway,
        &own,
        &name,
        domain,
    );

    let own_wish = resolv::Wish {
        servers: host.dns.clone(),
        search: host.dns_search.clone(),
        options: host.dns_options.clone(),
    };
    let of_daemon = resolv::Wish {
        servers: config.dns.clone(),
        search: config.dns_search.clone(),
        options: config.dns_options.clone(),
    };
    let wish = own_wish.or(of_daemon);
    // in the host's network its loopback is the container's too
    let resolv = if in_host && wish == resolv::Wish::default() {
        std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default()
    } else {
        resolv::text(&resolv::of_host(), &wish)
    };

    for (file, text) in [
        ("hostname", format!("{name}\n")),
        ("hosts", hosts),
        ("resolv.conf", resolv),
    ] {
        let path = directory.join(file);
        std::fs::write(&path, text).map_err(|why| error::io("write", &path, &why))?;
    }
    Ok(())
}

/// Sources of binds that do not exist are made, as directories, as Docker does for `-v`.
pub(crate) fn make_bind_sources(container: &Container) -> Result<(), EngineError> {
    for bind in &container.host_config.binds {
        let source = Path::new(&bind.source);
        if std::fs::symlink_metadata(source).is_err() {
            std::fs::create_dir_all(source).map_err(|why| {
                EngineError::failed(format!(
                    "error while creating mount source path '{}': {why}",
                    bind.source
                ))
            })?;
        }
    }
    Ok(())
}

/// Removes the directory and all in it, the writable layer too. Fine when there is none.
pub(crate) fn remove(images: &Images, directory: &Path) -> Result<(), EngineError> {
    images.discard(directory)?;
    // a container can make trees that the standard library's way of removing does not survive
    Ok(sluice_image::remove_tree(directory)?)
}
