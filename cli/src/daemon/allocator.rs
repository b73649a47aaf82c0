//! glibc's allocator, told to be small.

/// Each thread would get an arena of its own, and memory freed by one thread is no use to another: with few and short requests one shared arena
/// costs nothing and saves megabytes.
#[cfg(target_env = "gnu")]
pub(crate) fn keep_small() {
    // SAFETY: mallopt takes two numbers and touches only the allocator's own settings; it is called before other threads exist.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 256 << 10);
        libc::mallopt(libc::M_MMAP_THRESHOLD, 256 << 10);
    }
}

/// Gives free pages back to the kernel. By itself the allocator gives back only those at the end of its memory, and one small thing that lives on there
/// keeps all before it.
#[cfg(target_env = "gnu")]
pub(crate) fn give_back() {
    // SAFETY: takes a number; the allocator takes its own lock.
    unsafe { libc::malloc_trim(0) };
}

/// Other C libraries have no arenas.
#[cfg(not(target_env = "gnu"))]
pub(crate) fn keep_small() {}

/// Nor anything to say about free pages.
#[cfg(not(target_env = "gnu"))]
pub(crate) fn give_back() {}
