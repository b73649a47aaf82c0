//! Limits of this process.

/// Enough for thousands of containers; containers inherit it, as they do from other engines.
const OPEN_FILES: libc::rlim_t = 1 << 20;

/// Each container costs some descriptors, and the usual 1,024 would end at a few hundred.
pub(crate) fn raise_open_files() {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the pointer is to a live rlimit, which the kernel fills in.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } != 0 {
        return;
    }
    limit.rlim_cur = limit.rlim_cur.max(limit.rlim_max.min(OPEN_FILES));
    // SAFETY: the pointer is to a live rlimit, which the kernel only reads. A refusal leaves the limit as it was.
    unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) };
}
