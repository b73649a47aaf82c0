//! The words of the domain and the rules between them, with no I/O.
#![forbid(unsafe_code)]

pub mod container;
pub mod endpoint;
pub mod health;
pub mod host;
pub mod id;
pub mod mac;
pub mod network;
pub mod owners;
pub mod port;
pub mod volume;

pub use container::{Container, ContainerConfig, HostConfig};
pub use endpoint::{Endpoint, EndpointLink, ResolverWish, Sandbox};
pub use host::{Host, RemoteEndpoint};
pub use id::Id;
pub use mac::MacAddress;
pub use network::Network;
pub use owners::{IdMap, IdRange};
pub use port::{PortBinding, PortSpec, Protocol, PublishedPort};
pub use volume::Volume;
