//! Lays a layer of a tar, or the layers of an archive of images, down in a new store, and tells how many microseconds that took:
//! `lay layer|images TAR DIRECTORY`. For `cargo xtask bench layers`.

use std::{error::Error, fs::File, path::Path, time::Instant};

use sluice_image::Images;

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [what, tar, directory] = words.as_slice() else {
        return Err("lay layer|images TAR DIRECTORY".into());
    };
    let images = Images::open(Path::new(directory))?;
    let mut tar = File::open(tar)?;
    let begun = Instant::now();
    match what.as_str() {
        "images" => _ = images.load(&mut tar)?,
        _ => _ = images.import(&mut tar, None, &[], "")?,
    }
    println!("{}", begun.elapsed().as_micros());
    Ok(())
}
