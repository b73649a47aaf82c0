//! Pages of programs and libraries: who is at rest needs few of them.

use std::fs;

/// Unmaps the pages of programs and libraries of this process. Those that are needed again come back when they are touched.
pub fn forget_pages() {
    let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let pristine: Vec<_> = maps.lines().filter_map(pristine).collect();
    drop(maps);
    for (from, length) in pristine {
        // SAFETY: a private mapping of a file that nobody has written to: what is dropped is read from the file again, by whichever thread needs it.
        unsafe { libc::madvise(from as *mut libc::c_void, length, libc::MADV_DONTNEED) };
    }
}

/// Start and length of a mapping that is never written to, not even by the dynamic linker: code, and the read-only data that a file begins with.
fn pristine(line: &str) -> Option<(usize, usize)> {
    let mut fields = line.split_ascii_whitespace();
    let (range, rights, offset) = (fields.next()?, fields.next()?, fields.next()?);
    let is_of_a_file = fields.nth(1).is_some_and(|inode| inode != "0");
    let is_pristine = rights == "r-xp" || (rights == "r--p" && offset.bytes().all(|digit| digit == b'0'));
    let (from, to) = range.split_once('-').filter(|_| is_of_a_file && is_pristine)?;
    let address = |text| usize::from_str_radix(text, 16).ok();
    let (from, to) = (address(from)?, address(to)?);
    Some((from, to.checked_sub(from)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_nobody_writes_is_dropped() {
        let file = "08:01 123  /usr/sbin/sluiced";
        for (rights, offset, is_dropped) in [
            ("r--p", "00000000", true),
            ("r-xp", "00780000", true),
            ("rw-p", "01f22000", false),
            // what the dynamic linker wrote and then made read-only
            ("r--p", "01f22000", false),
            ("r--s", "00000000", false),
        ] {
            let line = format!("55d0c0000000-55d0c0003000 {rights} {offset} {file}");
            let expected = is_dropped.then_some((0x55d0_c000_0000, 0x3000));
            assert_eq!(pristine(&line), expected, "{line}");
        }
        assert_eq!(pristine("7ffc1000-7ffc3000 r-xp 00000000 00:00 0  [vdso]"), None);
    }

    #[test]
    fn a_program_goes_on_after_it() {
        let words: Vec<String> = std::thread::scope(|scope| {
            let busy = scope.spawn(|| (0..20_000).map(|number| number.to_string()).collect());
            forget_pages();
            busy.join().unwrap()
        });
        assert_eq!(words.last().map(String::as_str), Some("19999"));
    }
}
