//! The parts of the path that the verifier proves once, by themselves, whoever calls them.
//!
//! A function that is known by its name outside of its object is *global* to the verifier: it is proven for any arguments of its types, and a call
//! of it is a single step that may have any outcome. Every other function is walked again at each call and for each state before it, which for
//! two families would be more than a kernel takes. The price: arguments are numbers, the context, or pointers that may be null as far as the
//! verifier knows, and what they point to cannot be the key of a table (below 6.2); results are numbers. So the parts hand on to each other
//! what lies in `FACTS` and on the desk (`maps`).

use aya_ebpf::bindings::__sk_buff;
use sluice_datapath_common::{DropReason, Family, Ipv4, Ipv6, crc32c::change_of_first_word};

use crate::{
    packet::{self, Facts, Frame},
    stage::{
        admit::{self, Number},
        error, flow, fragment,
        hold::{self, Sender},
        life, masquerade, open, reclaim,
    },
    verdict,
};

/// The parts of a family's path.
pub trait Outline: Family {
    /// See [`packet::read_packet`].
    fn read_packet(frame: Frame, scope: u32, facts: &mut Facts<Self>) -> u32;
    /// See [`packet::read_quoted`].
    fn read_quoted(frame: Frame, above: u32, scope: u32, facts: &mut Facts<Self>) -> u32;
    /// See [`error::follow_by_facts`].
    fn follow_error(frame: Frame, facts: &mut Facts<Self>, quoted: &mut Facts<Self>, of_host: u32) -> verdict::Number;
    /// See [`fragment::follow_by_facts`].
    fn follow_fragment(frame: Frame, ring: u32, endpoint: u32, direction: u32) -> u32;
    /// See [`flow::search_current`].
    fn search(frame: Frame) -> Number;
    /// See [`life::track_current`].
    fn track() -> u32;
    /// See [`admit::admit`].
    fn admit(frame: Frame) -> Number;
    /// See [`admit::admit_from_world`].
    fn admit_from_world(frame: Frame) -> Number;
    /// See [`admit::judge_on_desk`].
    fn judge(frame: Frame) -> Number;
    /// See [`masquerade::choose_port`].
    fn choose_port(frame: Frame) -> Number;
    /// See [`open::make_pair`].
    fn make_pair(frame: Frame) -> Number;
    /// See [`flow::copy_out`].
    fn copy_out(frame: Frame) -> u32;
    /// See [`reclaim::walk`].
    fn walk() -> u32;
}

/// What is answered for a null pointer, which nobody passes.
const NEVER: u32 = DropReason::Truncated as u32;

macro_rules! outline {
    ($family:ty { $($name:ident as $global:ident($($argument:ident: $kind:tt $of:ty),*) = $module:ident::$work:ident;)+ }) => {
        impl Outline for $family {
            $(
                #[inline(always)]
                fn $name($($argument: outline!(@reference $kind $of)),*) -> u32 {
                    // SAFETY: the pointers come from references.
                    unsafe { $global($(outline!(@pass $kind $argument)),*) }
                }
            )+
        }

        $(
            /// See [`Outline`].
            ///
            /// # Safety
            ///
            /// Pointers are null, or valid and not used by anybody else meanwhile.
            #[unsafe(no_mangle)]
            #[inline(never)]
            unsafe extern "C" fn $global($($argument: outline!(@pointer $kind $of)),*) -> u32 {
                $(outline!(@take $kind $argument);)*
                $module::$work::<$family>($($argument),*)
            }
        )+
    };
    (@reference frame $of:ty) => { Frame };
    (@reference number $of:ty) => { $of };
    (@reference unique $of:ty) => { &mut $of };
    (@pointer frame $of:ty) => { *mut __sk_buff };
    (@pointer number $of:ty) => { u32 };
    (@pointer unique $of:ty) => { *mut $of };
    (@pass frame $argument:ident) => { $argument.skb() };
    (@pass number $argument:ident) => { $argument };
    (@pass unique $argument:ident) => { &raw mut *$argument };
    (@take frame $argument:ident) => { let $argument = Frame::of_skb($argument); };
    (@take number $argument:ident) => {};
    // SAFETY: see the function's own words.
    (@take unique $argument:ident) => { let Some($argument) = (unsafe { $argument.as_mut() }) else { return NEVER }; };
}

outline!(Ipv4 {
    read_packet as read_packet4(frame: frame (), scope: number u32, facts: unique Facts<Ipv4>) = packet::read_packet;
    read_quoted as read_quoted4(frame: frame (), above: number u32, scope: number u32, facts: unique Facts<Ipv4>) = packet::read_quoted;
    follow_error as follow_error4(frame: frame (), facts: unique Facts<Ipv4>, quoted: unique Facts<Ipv4>, of_host: number u32) = error::follow_by_facts;
    follow_fragment as follow_fragment4(frame: frame (), ring: number u32, endpoint: number u32, direction: number u32) = fragment::follow_by_facts;
    search as search4(frame: frame ()) = flow::search_current;
    track as track4() = life::track_current;
    admit as admit4(frame: frame ()) = admit::admit;
    admit_from_world as admit_from_world4(frame: frame ()) = admit::admit_from_world;
    judge as judge4(frame: frame ()) = admit::judge_on_desk;
    choose_port as choose_port4(frame: frame ()) = masquerade::choose_port;
    make_pair as make_pair4(frame: frame ()) = open::make_pair;
    copy_out as copy_out4(frame: frame ()) = flow::copy_out;
    walk as walk4() = reclaim::walk;
});

outline!(Ipv6 {
    read_packet as read_packet6(frame: frame (), scope: number u32, facts: unique Facts<Ipv6>) = packet::read_packet;
    read_quoted as read_quoted6(frame: frame (), above: number u32, scope: number u32, facts: unique Facts<Ipv6>) = packet::read_quoted;
    follow_error as follow_error6(frame: frame (), facts: unique Facts<Ipv6>, quoted: unique Facts<Ipv6>, of_host: number u32) = error::follow_by_facts;
    follow_fragment as follow_fragment6(frame: frame (), ring: number u32, endpoint: number u32, direction: number u32) = fragment::follow_by_facts;
    search as search6(frame: frame ()) = flow::search_current;
    track as track6() = life::track_current;
    admit as admit6(frame: frame ()) = admit::admit;
    admit_from_world as admit_from_world6(frame: frame ()) = admit::admit_from_world;
    judge as judge6(frame: frame ()) = admit::judge_on_desk;
    choose_port as choose_port6(frame: frame ()) = masquerade::choose_port;
    make_pair as make_pair6(frame: frame ()) = open::make_pair;
    copy_out as copy_out6(frame: frame ()) = flow::copy_out;
    walk as walk6() = reclaim::walk;
});

// What knows no family.

/// See [`hold::put_by_number`].
#[inline(always)]
pub fn hold_fragment(frame: Frame, sender: Sender) -> u32 {
    put_fragment(frame.skb(), sender.ring, sender.endpoint, sender.direction)
}

/// See [`hold::release_by_number`].
#[inline(always)]
pub fn release_fragments(frame: Frame, sender: Sender) -> u32 {
    let_fragments_go(frame.skb(), sender.ring)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn put_fragment(frame: *mut __sk_buff, ring: u32, endpoint: u32, direction: u32) -> u32 {
    hold::put_by_number(Frame::of_skb(frame), ring, endpoint, direction)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn let_fragments_go(frame: *mut __sk_buff, ring: u32) -> u32 {
    hold::release_by_number(Frame::of_skb(frame), ring)
}

/// See [`change_of_first_word`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn change_of_crc(change: u32, length: u32) -> u32 {
    change_of_first_word(change, length)
}
