//! One daemon per instance.

use std::os::{
    linux::net::SocketAddrExt,
    unix::net::{SocketAddr, UnixDatagram},
};

use crate::Trouble;

/// Held while the daemon lives; the kernel gives it back however the daemon ends.
pub(crate) struct Held {
    _name: UnixDatagram,
}

/// Takes the instance. Its name is an abstract socket's, which is unique in a network namespace, as the instance's devices are.
pub(crate) fn take(instance: &str) -> Result<Held, Trouble> {
    let bound = SocketAddr::from_abstract_name(format!("sluice/instance/{instance}"))
        .and_then(|name| UnixDatagram::bind_addr(&name));
    match bound {
        Ok(name) => Ok(Held { _name: name }),
        Err(why) if why.kind() == std::io::ErrorKind::AddrInUse => Err(Trouble(format!(
            "a daemon of instance '{instance}' is running in this network namespace already: end it, or name another --instance"
        ))),
        Err(why) => Err(Trouble::new(format_args!("take the instance '{instance}'"), why)),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn an_instance_is_taken_once_and_given_back() {
        let name = format!("test-{}", std::process::id());
        let held = super::take(&name).unwrap();
        assert!(super::take(&name).err().unwrap().to_string().contains("is running"));
        drop(held);
        assert!(super::take(&name).is_ok());
    }
}
