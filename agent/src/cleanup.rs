//! Takes everything of an instance out of the kernel, when no agent runs. What cannot be removed is told at the end and does not keep the rest.

use std::{fs, io, path::Path};

use crate::{
    AgentError, Config,
    kernel::{mounts, netlink::Netlink},
    link::{listing, sandbox, seal, veth},
    names::Names,
    program::attach::remove_filters,
};

/// Removes links and pins, devices, clsact filters, sandboxes, and the bpffs mount if it was ours.
pub fn cleanup(config: &Config) -> Result<(), AgentError> {
    let names = Names::new(&config.instance, &config.bpffs)?;
    let mut troubles = Vec::new();
    let mut note = |what: String, outcome: io::Result<()>| match outcome {
        Err(error) if error.kind() != io::ErrorKind::NotFound => troubles.push(format!("{what}: {error}")),
        _ => {}
    };
    note("removing devices".to_owned(), remove_devices(&names));
    for (path, _) in sandbox::list(&config.netns_dir).unwrap_or_default() {
        note(
            format!("removing the sandbox {}", path.display()),
            sandbox::remove(&path),
        );
    }
    note(
        format!("removing {}", config.netns_dir.display()),
        remove_if_empty(&config.netns_dir),
    );
    // A link without its pin is gone, and so are the programs and tables that only it held.
    if mounts::is_bpffs(&config.bpffs) {
        note(
            format!("removing {}", names.directory.display()),
            fs::remove_dir_all(&names.directory),
        );
        note(
            "removing the last instance's directory".to_owned(),
            remove_if_empty(&config.bpffs.join("sluice")),
        );
        note(
            format!("unmounting {}", config.bpffs.display()),
            mounts::remove_bpffs(&config.bpffs),
        );
    }
    if troubles.is_empty() {
        Ok(())
    } else {
        Err(AgentError::Failed(troubles.join("; ")))
    }
}

fn remove_devices(names: &Names) -> io::Result<()> {
    let mut netlink = Netlink::open()?;
    seal::remove(&mut netlink, names)?;
    let devices = listing::devices(&mut netlink)?;
    let (ours, others): (Vec<_>, Vec<_>) = devices
        .into_iter()
        .partition(|device| names.is_ours(&device.alias) || names.is_parent(&device.alias));
    // The two ends of the leg go with each other, so one of them is gone when its turn comes.
    veth::remove_all(
        &mut netlink,
        &ours.iter().map(|device| device.ifindex).collect::<Vec<_>>(),
    )?;
    for device in others {
        remove_filters(names, device.ifindex)?;
    }
    Ok(())
}

fn remove_if_empty(directory: &Path) -> io::Result<()> {
    match fs::remove_dir(directory) {
        Err(error) if error.raw_os_error() == Some(libc::ENOTEMPTY) => Ok(()),
        outcome => outcome,
    }
}
