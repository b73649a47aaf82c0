//! A container's directory: its bundle, log, `/etc` files and writable layer.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
};

use sluice_image::{Images, Writes};
use sluice_model::{
    Container, Endpoint, Id, Network,
    container::{Mount, MountKind, NetworkMode},
};

use crate::{
    Config, EngineError,
    container::{owners, sharing, spec},
    error,
    network::{hosts, links::Linked, place::Place, resolv},
};

/// Where images that are mounted in a container have their writable layers, in its directory.
const IMAGES: &str = "images";

/// What goes at its end, and does not outlive the host either, need not reach the disk.
pub(crate) fn writes(container: &Container) -> Writes {
    match container.host_config.auto_remove {
        true => Writes::Passing,
        false => Writes::Lasting,
    }
}

/// Makes the directory of a file.
pub(crate) fn make_parent(file: &Path) -> Result<(), EngineError> {
    let directory = file.parent().unwrap_or(file);
    std::fs::create_dir_all(directory).map_err(|why| error::io("make", directory, &why))
}

/// Writes `hostname`, `hosts` and `resolv.conf`, which are mounted over the image's.
pub(crate) fn write_etc(config: &Config, container: &Container, place: &Place) -> Result<(), EngineError> {
    let directory = config.container(&container.id);
    // who shares another's network reads the other's
    if place.shared.is_some() {
        return Ok(());
    }
    let endpoints: Vec<&Endpoint> = place.endpoints.iter().map(|(endpoint, _)| endpoint).collect();
    let networks: Vec<&Network> = place.endpoints.iter().map(|(_, network)| network).collect();
    let resolv = resolv_text(config, container, &endpoints, &networks);
    for (file, text) in [
        ("hostname", format!("{}\n", spec::host_name(container))),
        ("resolv.conf", resolv),
    ] {
        let path = directory.join(file);
        std::fs::write(&path, text).map_err(|why| error::io("write", &path, &why))?;
        owners::give(container.id_map.as_ref(), &path)?;
    }
    let endpoints: Vec<Endpoint> = place.endpoints.iter().map(|(endpoint, _)| endpoint.clone()).collect();
    let leads = endpoints.iter().find_map(|endpoint| endpoint.gateways.first().copied());
    let first = || Some(place.endpoints.first()?.1.subnets.first()?.gateway);
    write_hosts(config, container, &endpoints, leads.or_else(first), &place.linked)
}

/// The text of `resolv.conf` for a container with these endpoints in these networks.
fn resolv_text(config: &Config, container: &Container, endpoints: &[&Endpoint], networks: &[&Network]) -> String {
    let wish = resolv::Wish::of(config, container);
    let in_host = container.host_config.network_mode == NetworkMode::Host;
    // in the host's network its loopback is the container's too
    if in_host && wish == resolv::Wish::default() {
        return std::fs::read_to_string(resolv::HOST).unwrap_or_default();
    }
    let places = endpoints.iter().zip(networks);
    let named: Vec<_> = places.filter(|(_, network)| network.has_names()).collect();
    // on a device of the host it is asked at loopback, whatever the network has
    let by_ipv4 = |(endpoint, network): &(&&Endpoint, &&Network)| {
        network.is_beside() || endpoint.addresses.iter().any(|address| address.addr().is_ipv4())
    };
    let host = || std::fs::read_to_string(resolv::HOST).unwrap_or_default();
    if named.is_empty() {
        resolv::text(&resolv::of_host(), &wish)
    } else if named.iter().any(by_ipv4) {
        resolv::named_text(&host(), &wish, resolv::RESOLVER.into())
    } else {
        resolv::named_text(&host(), &wish, resolv::RESOLVER6.into())
    }
}

/// Writes `resolv.conf` anew when a running container came to its first network with names, or left the last one. The file stays the same one.
pub(crate) fn rewrite_resolv(
    config: &Config,
    container: &Container,
    endpoints: &[Endpoint],
    networks: &[Network],
) -> Result<(), EngineError> {
    let path = config.container(&container.id).join("resolv.conf");
    let present = std::fs::read_to_string(&path).unwrap_or_default();
    let text = resolv_text(
        config,
        container,
        &endpoints.iter().collect::<Vec<_>>(),
        &networks.iter().collect::<Vec<_>>(),
    );
    if resolv::names_resolver(&present) == resolv::names_resolver(&text) {
        return Ok(());
    }
    std::fs::write(&path, text).map_err(|why| error::io("write", &path, &why))
}

/// Writes `hosts`. The file stays the same one: a running container has it mounted.
pub(crate) fn write_hosts(
    config: &Config,
    container: &Container,
    endpoints: &[Endpoint],
    gateway: Option<IpAddr>,
    linked: &[Linked],
) -> Result<(), EngineError> {
    let host = &container.host_config;
    let linked: Vec<hosts::Line> = linked.iter().flat_map(Linked::lines).collect();
    let own: Vec<IpAddr> = endpoints
        .iter()
        .flat_map(|endpoint| endpoint.addresses.iter().map(ipnet::IpNet::addr))
        .collect();
    let hosts_of_host = match host.network_mode {
        NetworkMode::Host => std::fs::read_to_string("/etc/hosts").ok(),
        _ => None,
    };
    let text = hosts::text(
        hosts_of_host.as_deref(),
        &host.extra_hosts,
        gateway,
        &linked,
        &own,
        &spec::host_name(container),
        container.config.domainname.as_deref(),
    );
    let path = config.container(&container.id).join("hosts");
    std::fs::write(&path, text).map_err(|why| error::io("write", &path, &why))?;
    owners::give(container.id_map.as_ref(), &path)
}

/// Rewrites the lines about a container that another is linked to. As above the file stays the same one.
pub(crate) fn follow_link(config: &Config, id: &Id, linked: &Linked) -> Result<(), EngineError> {
    let path = config.container(id).join("hosts");
    let text = std::fs::read_to_string(&path).map_err(|why| error::io("read", &path, &why))?;
    let after = hosts::follow(&text, &linked.lines());
    if after == text {
        return Ok(());
    }
    std::fs::write(&path, after).map_err(|why| error::io("write", &path, &why))
}

/// Sources of binds that do not exist are made, as directories, as Docker does for `-v`.
pub(crate) fn make_bind_sources(container: &Container) -> Result<(), EngineError> {
    for bind in container.mounts.iter().filter(|mount| mount.make_source) {
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

/// Where an image that is mounted in the container has its writable layer, in the container's directory.
pub(crate) fn of_image(directory: &Path, mount: &Mount) -> PathBuf {
    directory.join(IMAGES).join(mount.layer.to_string())
}

/// The images that are mounted in a container, and where each has its writable layer.
pub(crate) fn images_of<'a>(container: &'a Container, directory: &Path) -> impl Iterator<Item = (&'a str, PathBuf)> {
    let images = container.mounts.iter().filter(|mount| mount.kind == MountKind::Image);
    images.map(move |mount| (mount.image_id.as_str(), of_image(directory, mount)))
}

/// All writable layers of a container: its own, and those of images that are mounted in it.
fn layers(directory: &Path) -> Vec<PathBuf> {
    let further = std::fs::read_dir(directory.join(IMAGES))
        .into_iter()
        .flatten()
        .flatten();
    std::iter::once(directory.to_owned())
        .chain(further.map(|entry| entry.path()))
        .collect()
}

/// Unmounts the root and the images that are mounted in it. Fine when nothing is mounted.
pub(crate) fn unmount(images: &Images, directory: &Path) -> Result<(), EngineError> {
    sluice_runtime::unmount_shared_memory(&sharing::place_of_memory(directory))?;
    for layer in layers(directory) {
        images.unmount(&layer)?;
    }
    Ok(())
}

/// Lets go of what others wait for: the layers below the writable one. What remains are files in a directory that no record names any more; they may be
/// removed at leisure, by the next daemon if need be.
pub(crate) fn abandon(images: &Images, directory: &Path) -> Result<(), EngineError> {
    unmount(images, directory)?;
    for layer in layers(directory) {
        images.forget(&layer)?;
    }
    Ok(())
}

/// Removes the directory and all in it, the writable layer too. Fine when there is none.
pub(crate) fn remove(images: &Images, directory: &Path) -> Result<(), EngineError> {
    sluice_runtime::unmount_shared_memory(&sharing::place_of_memory(directory))?;
    for layer in layers(directory) {
        images.discard(&layer)?;
    }
    // a container can make trees that the standard library's way of removing does not survive
    Ok(sluice_image::remove_tree(directory)?)
}
