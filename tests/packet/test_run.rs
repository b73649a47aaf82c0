//! A packet given to a program (`BPF_PROG_TEST_RUN`), on request with its bytes summed up before, as good NICs do it (CHECKSUM_COMPLETE). The kernel
//! sums them up again afterwards: who changes bytes and does not tell the sum is found out.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// What the NIC knows of a frame's checksums.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sum {
    /// Nothing (CHECKSUM_NONE).
    Unknown,
    /// The sum of all behind the Ethernet header (CHECKSUM_COMPLETE), where the kernel can be asked for that; else nothing. Not for frames that the
    /// program makes longer or shorter: the kernel forgets the sum then, and its test does not know that.
    Complete,
}

/// What comes of it.
pub struct Ran {
    /// What the program returned.
    pub code: i32,
    /// Bytes of the frame afterwards.
    pub length: usize,
}

/// The kernel's `union bpf_attr` for `BPF_PROG_TEST_RUN`.
#[repr(C)]
#[derive(Default)]
struct Attributes {
    program: u32,
    code: u32,
    size_in: u32,
    size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    context_size_in: u32,
    context_size_out: u32,
    context_in: u64,
    context_out: u64,
    flags: u32,
    cpu: u32,
    batch: u32,
    padding: u32,
}

/// Runs the program once. `out` has room for what it makes of the frame.
///
/// # Errors
/// The kernel's number; `EBADMSG`: the sum is not that of the bytes any more.
pub fn once(program: BorrowedFd<'_>, frame: &[u8], context: &[u8], out: &mut [u8], sum: Sum) -> Result<Ran, i32> {
    /// `BPF_F_TEST_SKB_CHECKSUM_COMPLETE`, since Linux 6.11.
    const SUMMED: u32 = 1 << 2;
    static IS_KNOWN: AtomicBool = AtomicBool::new(true);
    let flags = match sum {
        Sum::Complete if IS_KNOWN.load(Ordering::Relaxed) => SUMMED,
        _ => 0,
    };
    match run(program, frame, context, out, flags) {
        Err(libc::EINVAL) if flags != 0 => {
            let unsummed = run(program, frame, context, out, 0)?;
            // It was the flag that was refused, not the frame.
            IS_KNOWN.store(false, Ordering::Relaxed);
            Ok(unsummed)
        }
        ran => ran,
    }
}

fn run(program: BorrowedFd<'_>, frame: &[u8], context: &[u8], out: &mut [u8], flags: u32) -> Result<Ran, i32> {
    const BPF_PROG_TEST_RUN: i32 = 10;
    let mut attributes = Attributes {
        program: program.as_raw_fd() as u32,
        size_in: frame.len() as u32,
        size_out: out.len() as u32,
        data_in: frame.as_ptr() as u64,
        data_out: out.as_mut_ptr() as u64,
        repeat: 1,
        context_size_in: context.len() as u32,
        context_in: context.as_ptr() as u64,
        flags,
        ..Default::default()
    };
    // SAFETY: the program is open, and every pointer has the length that is said beside it.
    let done = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_PROG_TEST_RUN,
            &raw mut attributes,
            size_of::<Attributes>(),
        )
    };
    match done {
        0 => Ok(Ran {
            code: attributes.code as i32,
            length: attributes.size_out as usize,
        }),
        _ => Err(std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)),
    }
}
