//! What has to hold is in `sluice_image::hostile`.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let memory = std::path::Path::new("/dev/shm");
    let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    let place = parent.join(format!("sluice-fuzz-{}", std::process::id()));
    sluice_image::hostile::layer(bytes, &place);
    let mut mended = bytes.to_vec();
    sluice_image::hostile::with_right_sums(&mut mended);
    if mended != bytes {
        sluice_image::hostile::layer(&mended, &place);
    }
});
