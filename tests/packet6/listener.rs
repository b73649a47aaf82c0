//! What really comes in by a device, as the tests of IPv4 see it.

use crate::frame::Frame;
use crate::{translate, wiretap};

/// Hears the IPv6 frames that come in by a device of the scene.
pub struct Listener(wiretap::Listener);

impl Listener {
    pub fn on(device: &str) -> Self {
        Self(wiretap::Listener::of(device, libc::ETH_P_IPV6 as u16))
    }

    pub fn frames(&self, count: usize) -> Vec<Frame> {
        // The kernel of the namespace speaks for itself now and then, by a link-local address.
        let is_of_the_scene = |frame: &Frame| frame.0.get(22..24) != Some(&[0xfe, 0x80]);
        let frames = self.0.frames_of(count, is_of_the_scene).into_iter();
        frames.map(|frame| Frame(translate::to_four(&frame.0, &[]))).collect()
    }
}
