//! The engine with all its rooms, real: store, images, runtime with its shim, agent with its programs; in namespaces of its own.
//!
//! Each test starts itself again in new network and mount namespaces, as they must be those of the whole process. All of it needs root, the eBPF
//! object and the shim, and is passed over without root.

#[cfg(test)]
mod failure;
#[cfg(test)]
mod house;
#[cfg(test)]
mod life;
#[cfg(test)]
mod network;
#[cfg(test)]
mod restart;
