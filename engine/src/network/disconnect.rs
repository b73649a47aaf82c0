//! Takes a container's place in the network away again.

use sluice_model::{Endpoint, Id};
use sluice_store::{Write, key};

use crate::Engine;

/// The writes that end a container's sandbox and endpoints. Fine when there are none.
pub(crate) fn writes(container: &Id, endpoints: &[Endpoint]) -> Vec<Write> {
    let mut writes = vec![Write::Delete(key::sandbox(container))];
    for endpoint in endpoints {
        writes.push(Write::Delete(key::endpoint(&endpoint.id)));
        for address in &endpoint.addresses {
            writes.push(Write::Delete(key::address(&endpoint.network, address.addr())));
        }
    }
    writes
}

impl Engine {
    /// Gives back, in memory, what the endpoints had; to be called when their end is committed.
    pub(crate) fn release(&self, endpoints: &[Endpoint]) {
        let mut places = self.networks.places();
        for endpoint in endpoints {
            places.release(endpoint);
        }
    }

    /// Tells that a container came to or left its networks.
    pub(crate) fn tell_networks(&self, action: &str, container: &Id, endpoints: &[Endpoint]) {
        for endpoint in endpoints {
            let view = self.networks.view(endpoint);
            let attributes = vec![
                ("container".to_owned(), container.to_string()),
                ("name".to_owned(), view.network_name),
                ("type".to_owned(), "bridge".to_owned()),
            ];
            self.events
                .tell("network", action, endpoint.network.as_str(), attributes);
        }
    }
}
