//! Cables that lose packets: what is lost is sent again, and nothing else happens.

use lab::Loss;

use super::places::{FAMILIES, Places};
use super::rig::Rig;
use super::transfer::transfer;

/// Pitfall B34.
#[test]
fn streams_arrive_intact_by_a_cable_that_loses_packets_both_ways() {
    let mut rig = Rig::make(true);
    let inward = rig.host.inside(|| Loss::of(30, "nic0"));
    let outward = rig.lan.inside(|| Loss::of(30, "eth0"));
    for Places { web, host, lan, .. } in FAMILIES {
        let (caller, _) = transfer(&rig.lan, (host, 8080).into(), &rig.web, (web, 80).into());
        assert_eq!(caller.ip(), lan, "by the published port");
        let (caller, _) = transfer(&rig.web, (lan, 9000).into(), &rig.lan, (lan, 9000).into());
        assert_eq!(caller.ip(), host, "masqueraded");
    }
    for (loss, way) in [(inward, "inward"), (outward, "outward")] {
        assert!(loss.lost() >= 5, "only {} packets were lost {way}", loss.lost());
    }
    rig.assert_clean();
}
