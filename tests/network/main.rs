//! The network as people meet it: pages, pings and transfers between a LAN, a host and its containers.

mod lab_itself;
