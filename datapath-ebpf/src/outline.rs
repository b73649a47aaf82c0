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
        admit, bridge, error, flow, fragment,
        hold::{self, Sender},
        life, many, masquerade, open, overlay, reclaim, refuse, resolver, weigh,
    },
    verdict::{self, event},
};

/// What is answered for a null pointer, which nobody passes.
const NEVER: u32 = DropReason::Truncated as u32;

/// The parts of a family's path: their names, those of the global functions of IPv4 and of IPv6, what they take, and who does the work.
macro_rules! outline {
    ($($name:ident as $global4:ident, $global6:ident($($argument:ident: $kind:ident),*) = $module:ident::$work:ident;)+) => {
        /// The parts of a family's path.
        pub trait Outline: Family {
            $(
                #[doc = concat!("See [`", stringify!($module), "::", stringify!($work), "`].")]
                fn $name($($argument: outline!(@reference $kind Self)),*) -> u32;
            )+
        }

        outline!(@family Ipv4 { $($name as $global4($($argument: $kind),*) = $module::$work;)+ });
        outline!(@family Ipv6 { $($name as $global6($($argument: $kind),*) = $module::$work;)+ });
    };
    (@family $family:ident { $($name:ident as $global:ident($($argument:ident: $kind:ident),*) = $module:ident::$work:ident;)+ }) => {
        impl Outline for $family {
            $(
                #[inline(always)]
                fn $name($($argument: outline!(@reference $kind $family)),*) -> u32 {
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
            unsafe extern "C" fn $global($($argument: outline!(@pointer $kind $family)),*) -> u32 {
                $(outline!(@take $kind $argument);)*
                $module::$work::<$family>($($argument),*)
            }
        )+
    };
    (@reference frame $family:ident) => { Frame };
    (@reference number $family:ident) => { u32 };
    (@reference facts $family:ident) => { &mut Facts<$family> };
    (@pointer frame $family:ident) => { *mut __sk_buff };
    (@pointer number $family:ident) => { u32 };
    (@pointer facts $family:ident) => { *mut Facts<$family> };
    (@pass frame $argument:ident) => { $argument.skb() };
    (@pass number $argument:ident) => { $argument };
    (@pass facts $argument:ident) => { &raw mut *$argument };
    (@take frame $argument:ident) => { let $argument = Frame::of_skb($argument); };
    (@take number $argument:ident) => {};
    // SAFETY: see the function's own words.
    (@take facts $argument:ident) => { let Some($argument) = (unsafe { $argument.as_mut() }) else { return NEVER }; };
}

outline! {
    read_packet as read_packet4, read_packet6(frame: frame, scope: number, facts: facts) = packet::read_packet;
    read_quoted as read_quoted4, read_quoted6(frame: frame, above: number, scope: number, facts: facts) = packet::read_quoted;
    follow_error as follow_error4, follow_error6(frame: frame, facts: facts, quoted: facts, of_host: number) = error::follow_by_facts;
    follow_fragment as follow_fragment4, follow_fragment6(frame: frame, ring: number, endpoint: number, direction: number) = fragment::follow_by_facts;
    search as search4, search6(frame: frame) = flow::search_current;
    track as track4, track6() = life::track_current;
    admit as admit4, admit6(frame: frame) = admit::admit;
    answers_host as answers_host4, answers_host6(frame: frame) = bridge::answers_host;
    ask_resolver as ask_resolver4, ask_resolver6(frame: frame, network: number, endpoint: number) = resolver::ask_by_facts;
    admit_from_world as admit_from_world4, admit_from_world6(frame: frame) = admit::admit_from_world;
    judge as judge4, judge6(frame: frame) = admit::judge_on_desk;
    weigh as weigh4, weigh6(frame: frame) = weigh::weigh;
    weigh_end as weigh_end4, weigh_end6(endpoint: number, direction: number, length: number) = weigh::weigh_end;
    hear as hear4, hear6() = weigh::hear;
    refuse as refuse4, refuse6(frame: frame, direction: number) = refuse::refuse;
    choose_port as choose_port4, choose_port6(frame: frame) = masquerade::choose_port;
    make_pair as make_pair4, make_pair6(frame: frame) = open::make_pair;
    copy_out as copy_out4, copy_out6(frame: frame) = flow::copy_out;
    walk as walk4, walk6() = reclaim::walk;
    tell_opened as tell_opened4, tell_opened6() = event::of_opened;
    tell_closed as tell_closed4, tell_closed6() = event::of_closed;
    judge_overlay as judge_overlay4, judge_overlay6() = overlay::judge;
    judge_direct as judge_direct4, judge_direct6() = overlay::judge_direct;
    open_overlay as open_overlay4, open_overlay6(frame: frame) = overlay::open;
    fit_overlay as fit_overlay4, fit_overlay6(frame: frame, scope: number) = overlay::fit;
}

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

/// See [`verdict::end_by_number`].
#[inline(always)]
pub fn end_packet(frame: Frame, direction: u32, reason: u32) -> u32 {
    end_of_packet(frame.skb(), direction, reason)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn end_of_packet(frame: *mut __sk_buff, direction: u32, reason: u32) -> u32 {
    verdict::end_by_number(Frame::of_skb(frame), direction, reason)
}

/// See [`many::tell_all`].
#[inline(always)]
pub fn tell_members(frame: Frame, network: u32) -> u32 {
    tell_each_member(frame.skb(), network)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tell_each_member(frame: *mut __sk_buff, network: u32) -> u32 {
    many::tell_all(Frame::of_skb(frame), network)
}

/// See [`overlay::find_scope`].
#[inline(always)]
pub fn find_scope(frame: Frame) -> u32 {
    find_overlay_scope(frame.skb())
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn find_overlay_scope(frame: *mut __sk_buff) -> u32 {
    overlay::find_scope(Frame::of_skb(frame))
}

/// See [`overlay::wrap`].
#[inline(always)]
pub fn wrap(frame: Frame, scope: u32) -> u32 {
    wrap_frame(frame.skb(), scope)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn wrap_frame(frame: *mut __sk_buff, scope: u32) -> u32 {
    overlay::wrap(Frame::of_skb(frame), scope)
}

/// See [`change_of_first_word`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn change_of_crc(change: u32, length: u32) -> u32 {
    change_of_first_word(change, length)
}
