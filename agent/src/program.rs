//! The programs: taken from the embedded object, brought into the kernel, attached.

pub mod attach;
pub mod load;
pub mod object;
