//! How the frames of drops begin is shown to those who ask for it.

use sluice_datapath_common::event::{FRAME_BYTES, LISTEN_DROPS, LISTEN_FRAMES};
use sluice_datapath_common::programs::FROM_CONTAINER;

use crate::frame::Packet;
use crate::scene::{self, GATEWAY_MAC, LONE, WEB};

#[test]
fn who_wants_to_see_frames_is_shown_how_they_begin() {
    let mut scene = scene::set();
    scene.listen(LISTEN_DROPS | LISTEN_FRAMES);
    // One that ends before what is shown does, and one that goes on.
    for length in [60, 400] {
        let mut frame = Packet::udp((WEB.address, 4000), (LONE.address, 53))
            .macs(WEB.mac, GATEWAY_MAC)
            .build();
        frame.0.resize(length, 0x5a);
        scene.run(FROM_CONTAINER, WEB.ifindex, &frame);
        let told = scene.told_with_frames();
        assert_eq!(told.len(), 1);
        let shown = length.min(FRAME_BYTES);
        assert_eq!(
            (told[0].0.length as usize, &told[0].1[..shown]),
            (length, &frame.0[..shown])
        );
    }
}
