//! The programs by name, as the object file, bpffs pins and `bpftool` know them (the kernel shows 15 characters).

/// tcx/clsact ingress of the host's end of every veth.
pub const FROM_CONTAINER: &str = "from_container";
/// tcx/clsact ingress of the datapath's end of the host's leg.
pub const FROM_HOST: &str = "from_host";
/// tcx/clsact ingress of every NIC.
pub const FROM_NIC: &str = "from_nic";
/// tcx/clsact egress of every NIC.
pub const TO_NIC: &str = "to_nic";
/// tcx/clsact ingress of the datapath's end of the resolver's leg.
pub const FROM_RESOLVER: &str = "from_resolver";
/// tcx/clsact ingress of the VXLAN device: what the programs on the NICs left to the kernel to decapsulate.
pub const FROM_OVERLAY: &str = "from_overlay";
/// `cgroup/connect4`.
pub const CONNECT4: &str = "connect4";
/// `cgroup/sendmsg4`.
pub const SENDMSG4: &str = "sendmsg4";
/// `cgroup/recvmsg4`.
pub const RECVMSG4: &str = "recvmsg4";
/// `cgroup/getpeername4`.
pub const GETPEERNAME4: &str = "getpeername4";
/// `cgroup/bind4`.
pub const BIND4: &str = "bind4";
/// `cgroup/connect6`.
pub const CONNECT6: &str = "connect6";
/// `cgroup/sendmsg6`.
pub const SENDMSG6: &str = "sendmsg6";
/// `cgroup/recvmsg6`.
pub const RECVMSG6: &str = "recvmsg6";
/// `cgroup/getpeername6`.
pub const GETPEERNAME6: &str = "getpeername6";
/// `cgroup/bind6`.
pub const BIND6: &str = "bind6";

/// The classifiers.
pub const CLASSIFIERS: [&str; 6] = [FROM_CONTAINER, FROM_HOST, FROM_NIC, TO_NIC, FROM_RESOLVER, FROM_OVERLAY];
/// The cgroup socket hooks.
pub const SOCKET_HOOKS: [&str; 10] = [
    CONNECT4,
    SENDMSG4,
    RECVMSG4,
    GETPEERNAME4,
    BIND4,
    CONNECT6,
    SENDMSG6,
    RECVMSG6,
    GETPEERNAME6,
    BIND6,
];
