//! What happens to the host's network, and what there is to be looked at for it.

use futures_util::StreamExt;
use rtnetlink::{MulticastGroup, packet_core::NetlinkPayload, packet_route::RouteNetlinkMessage};
use tokio::task::JoinHandle;

use super::Scope;
use crate::{AgentError, Tried, link::listing, names::Names};

/// What happens to devices, addresses and routes of the namespace.
pub struct Events {
    messages: futures_util::stream::BoxStream<'static, RouteNetlinkMessage>,
    connection: JoinHandle<()>,
}

impl Events {
    /// Listens from now on.
    pub fn open() -> Result<Self, AgentError> {
        let groups = [
            MulticastGroup::Link,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv4Route,
            MulticastGroup::Ipv6Ifaddr,
            MulticastGroup::Ipv6Route,
        ];
        let (connection, _, messages) = rtnetlink::new_multicast_connection(&groups)
            .tried(|| "listening to changes of the host's network".to_owned())?;
        let messages = messages.filter_map(async |(message, _)| match message.payload {
            NetlinkPayload::InnerMessage(message) => Some(message),
            _ => None,
        });
        Ok(Self {
            messages: messages.boxed(),
            connection: tokio::spawn(connection),
        })
    }

    /// What the next message asks to look at; none: nothing more will come.
    pub async fn next(&mut self, names: &Names, leg: u32) -> Option<Scope> {
        Some(concern(self.messages.next().await?, names, leg))
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// Our own devices come and go by our own hand: only of others' there is something to learn.
fn concern(message: RouteNetlinkMessage, names: &Names, leg: u32) -> Scope {
    use rtnetlink::packet_route::route::{RouteAttribute, RouteType};
    match message {
        RouteNetlinkMessage::NewLink(message) | RouteNetlinkMessage::DelLink(message) => {
            let device = listing::device(message);
            let ours = names.is_ours(&device.alias) || names.is_our_name(&device.name);
            Scope {
                devices: !ours,
                routes: !ours,
                tables: false,
            }
        }
        RouteNetlinkMessage::NewAddress(message) | RouteNetlinkMessage::DelAddress(message) => Scope {
            devices: message.header.index != leg,
            ..Scope::default()
        },
        RouteNetlinkMessage::NewRoute(message) | RouteNetlinkMessage::DelRoute(message) => {
            let by_our_leg = message
                .attributes
                .iter()
                .any(|attribute| matches!(attribute, RouteAttribute::Oif(oif) if *oif == leg));
            let routes = !by_our_leg && message.header.kind == RouteType::Unicast;
            Scope {
                routes,
                // the way out, whose MTU networks follow
                devices: routes && message.header.destination_prefix_length == 0,
                tables: false,
            }
        }
        _ => Scope::default(),
    }
}
