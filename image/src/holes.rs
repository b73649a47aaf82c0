//! Writes files so that zeros take no room: 10 GB of nothing stay nothing.

use std::{fs::File, io, os::unix::fs::FileExt};

/// What is looked at for being zeros: a page, and a block of most file systems.
const HOLE: usize = 4096;
static ZEROS: [u8; HOLE] = [0; HOLE];

/// Writes `data` at `offset`, leaving out whole blocks of zeros, and tells how many bytes were written. The file's length is set by who knows it.
pub(crate) fn write(file: &File, offset: u64, data: &[u8]) -> io::Result<u64> {
    let mut written = 0;
    for (at, run) in runs(offset, data) {
        file.write_all_at(run, at)?;
        written += run.len() as u64;
    }
    Ok(written)
}

/// The parts of `data`, which begins at `offset` of its file, that are not whole blocks of zeros.
fn runs(offset: u64, data: &[u8]) -> Vec<(u64, &[u8])> {
    let mut runs = Vec::new();
    let mut start = None;
    let mut at = 0;
    while at < data.len() {
        let block = HOLE - ((offset + at as u64) % HOLE as u64) as usize;
        let end = data.len().min(at + block);
        if data[at..end] == ZEROS[..end - at] {
            if let Some(start) = start.take() {
                runs.push((offset + start as u64, &data[start..at]));
            }
        } else {
            start.get_or_insert(at);
        }
        at = end;
    }
    if let Some(start) = start {
        runs.push((offset + start as u64, &data[start..]));
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_blocks_of_zeros_are_left_out() {
        let mut data = vec![0; 4 * HOLE];
        data[HOLE] = 1;
        data[3 * HOLE + 5] = 1;
        let found: Vec<(u64, usize)> = runs(8192, &data).into_iter().map(|(at, run)| (at, run.len())).collect();
        assert_eq!(found, [(8192 + 4096, HOLE), (8192 + 3 * 4096, HOLE)]);
    }

    #[test]
    fn blocks_are_those_of_the_file_not_of_the_piece() {
        let mut data = vec![0; 2 * HOLE];
        data[10] = 1;
        let found: Vec<(u64, usize)> = runs(100, &data).into_iter().map(|(at, run)| (at, run.len())).collect();
        assert_eq!(found, [(100, HOLE - 100)]);
        assert!(runs(0, &[0; 10]).is_empty());
    }
}
