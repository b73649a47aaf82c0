//! What happens to a packet.
//!
//! This file is the table of contents: each program in a line. A program (`program/`) tells its packets' path from top to bottom; a
//! stage (`stage/`) is one question on it. `packet` does all the reading, `rewrite` all the writing, `verdict` lets a packet go or counts its
//! death. Everything is written once over the address family; `family` ties a family to its tables and headers.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod family;
mod key;
mod maps;
mod outline;
mod packet;
mod program;
mod rewrite;
mod stage;
mod verdict;

use aya_ebpf::{
    macros::{cgroup_sock_addr, classifier},
    programs::{SockAddrContext, TcContext},
};
use sluice_datapath_common::drop::Direction;

use crate::packet::Frame;

// Inline: a frame more on the stack is one too many.

/// tcx ingress of the host's end of every veth: what an endpoint says.
#[classifier]
#[inline(always)]
fn from_container(ctx: TcContext) -> i32 {
    let frame = Frame::of(&ctx);
    verdict::act(frame, Direction::FromContainer, program::from_container::path(frame))
}

/// tcx ingress of the datapath's end of the host's leg: what the host's stack says to endpoints.
#[classifier]
#[inline(always)]
fn from_host(ctx: TcContext) -> i32 {
    let frame = Frame::of(&ctx);
    verdict::act(frame, Direction::FromHost, program::from_host::path(frame))
}

/// tcx ingress of every NIC: what the world says.
#[classifier]
#[inline(always)]
fn from_nic(ctx: TcContext) -> i32 {
    let frame = Frame::of(&ctx);
    verdict::act(frame, Direction::FromNic, program::from_nic::path(frame))
}

/// tcx egress of every NIC: no container's address leaves by it.
#[classifier]
#[inline(always)]
fn to_nic(ctx: TcContext) -> i32 {
    let frame = Frame::of(&ctx);
    verdict::act(frame, Direction::ToNic, program::to_nic::path(frame))
}

/// tcx ingress of the datapath's end of the resolver's leg: what endpoints are answered.
#[classifier]
fn from_resolver(ctx: TcContext) -> i32 {
    let frame = Frame::of(&ctx);
    verdict::act(frame, Direction::FromResolver, program::from_resolver::path(frame))
}

/// tcx ingress of the VXLAN device: what another host says, decapsulated by the kernel.
#[classifier]
#[inline(always)]
fn from_overlay(ctx: TcContext) -> i32 {
    let frame = Frame::of(&ctx);
    verdict::act(frame, Direction::FromOverlay, program::from_overlay::path(frame))
}

/// A host process connects to a published port.
#[cgroup_sock_addr(connect4)]
fn connect4(ctx: SockAddrContext) -> i32 {
    program::socket::connect(ctx.sock_addr)
}

/// A host process sends a datagram to a published port.
#[cgroup_sock_addr(sendmsg4)]
fn sendmsg4(ctx: SockAddrContext) -> i32 {
    program::socket::connect(ctx.sock_addr)
}

/// A host process receives an answer of an endpoint, and sees whom it had asked.
#[cgroup_sock_addr(recvmsg4)]
fn recvmsg4(ctx: SockAddrContext) -> i32 {
    program::socket::show_peer(ctx.sock_addr)
}

/// A host process asks who its peer is.
#[cgroup_sock_addr(getpeername4)]
fn getpeername4(ctx: SockAddrContext) -> i32 {
    program::socket::show_peer(ctx.sock_addr)
}

/// A host process binds a port.
#[cgroup_sock_addr(bind4)]
fn bind4(ctx: SockAddrContext) -> i32 {
    program::socket::bind(ctx.sock_addr)
}

/// As [`connect4`], for sockets of AF_INET6.
#[cgroup_sock_addr(connect6)]
fn connect6(ctx: SockAddrContext) -> i32 {
    program::socket6::connect(ctx.sock_addr)
}

/// As [`sendmsg4`], for sockets of AF_INET6.
#[cgroup_sock_addr(sendmsg6)]
fn sendmsg6(ctx: SockAddrContext) -> i32 {
    program::socket6::send(ctx.sock_addr)
}

/// As [`recvmsg4`], for sockets of AF_INET6.
#[cgroup_sock_addr(recvmsg6)]
fn recvmsg6(ctx: SockAddrContext) -> i32 {
    program::socket6::show_peer(ctx.sock_addr)
}

/// As [`getpeername4`], for sockets of AF_INET6.
#[cgroup_sock_addr(getpeername6)]
fn getpeername6(ctx: SockAddrContext) -> i32 {
    program::socket6::show_peer(ctx.sock_addr)
}

/// As [`bind4`], for sockets of AF_INET6.
#[cgroup_sock_addr(bind6)]
fn bind6(ctx: SockAddrContext) -> i32 {
    program::socket6::bind(ctx.sock_addr)
}

/// Some helpers are for programs under the GPL only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// Never reached: a path to it would not pass the verifier.
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}
