//! What has to hold is in `sluice_image::hostile`.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let place = std::env::temp_dir().join(format!("sluice-fuzz-{}", std::process::id()));
    sluice_image::hostile::layer(bytes, &place);
});
