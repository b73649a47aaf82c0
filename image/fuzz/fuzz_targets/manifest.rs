//! What has to hold is in `sluice_image::hostile`.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| sluice_image::hostile::manifest(bytes));
