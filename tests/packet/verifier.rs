//! What the programs cost before they run: the verifier's work, the stack, the size.

use crate::scene;

#[test]
fn every_program_is_taken_by_the_verifier_with_room_to_spare() {
    /// The kernel gives up at a million.
    const BUDGET: u32 = 200_000;
    let scene = scene::set();
    for (name, program) in scene.programs() {
        let info = program.info().unwrap();
        let verified = info.verified_instruction_count().unwrap_or(0);
        println!(
            "{name}: {verified} instructions verified, {} bytes of machine code",
            info.size_jitted()
        );
        assert!(verified < BUDGET, "{name}: {verified} instructions");
    }
}
