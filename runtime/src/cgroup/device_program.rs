//! Device rules in the unified tree: there is no controller for them, a BPF program decides.

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    path::Path,
};

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};

use crate::{RuntimeError, syscall};

const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_ATTACH: libc::c_int = 8;
const PROGRAM_TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_TYPE_CGROUP_DEVICE: u32 = 6;
/// Programs above and below ours have their say as well.
const ALLOW_MULTI: u32 = 2;

/// What is asked for, as the kernel encodes it in the context's first word, above the type.
const MKNOD: u32 = 1;
const READ: u32 = 2;
const WRITE: u32 = 4;
const ALL: u32 = MKNOD | READ | WRITE;
/// The type, in its lower half.
const BLOCK: u32 = 1;
const CHARACTER: u32 = 2;

// Registers: the answer, the context (later scratch), and what is asked.
const ANSWER: u8 = 0;
const CONTEXT: u8 = 1;
const TYPE: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

/// `struct bpf_insn`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

fn instruction(code: u8, destination: u8, source: u8, offset: i16, immediate: u32) -> Instruction {
    Instruction {
        code,
        registers: destination | source << 4,
        offset,
        immediate: immediate as i32,
    }
}

fn load_word(destination: u8, offset: i16) -> Instruction {
    instruction(0x61, destination, CONTEXT, offset, 0)
}
fn copy(destination: u8, source: u8) -> Instruction {
    instruction(0xbc, destination, source, 0, 0)
}
fn set(destination: u8, value: u32) -> Instruction {
    instruction(0xb4, destination, 0, 0, value)
}
fn and(destination: u8, mask: u32) -> Instruction {
    instruction(0x54, destination, 0, 0, mask)
}
fn shift_right(destination: u8, bits: u32) -> Instruction {
    instruction(0x74, destination, 0, 0, bits)
}
fn jump_if_equal(register: u8, value: u32) -> Instruction {
    instruction(0x15, register, 0, 0, value)
}
fn jump_if_different(register: u8, value: u32) -> Instruction {
    instruction(0x55, register, 0, 0, value)
}
fn exit() -> Instruction {
    instruction(0x95, 0, 0, 0, 0)
}

/// The rules as a program. The last rule that fits decides, so it is asked first; what fits none is refused.
fn assemble(rules: &[LinuxDeviceCgroup]) -> Vec<Instruction> {
    let mut program = vec![
        load_word(TYPE, 0),
        copy(ACCESS, TYPE),
        and(TYPE, 0xffff),
        shift_right(ACCESS, 16),
        load_word(MAJOR, 4),
        load_word(MINOR, 8),
    ];
    for rule in rules.iter().rev() {
        let mut block = Vec::new();
        match rule.typ().unwrap_or(LinuxDeviceType::A) {
            LinuxDeviceType::A | LinuxDeviceType::P => {}
            LinuxDeviceType::B => block.push(jump_if_different(TYPE, BLOCK)),
            LinuxDeviceType::C | LinuxDeviceType::U => block.push(jump_if_different(TYPE, CHARACTER)),
        }
        let access = rule
            .access()
            .as_deref()
            .unwrap_or("rwm")
            .chars()
            .fold(0, |access, letter| {
                access
                    | match letter {
                        'r' => READ,
                        'w' => WRITE,
                        'm' => MKNOD,
                        _ => 0,
                    }
            });
        if rule.allow() && access != ALL {
            // All that is asked must be allowed.
            block.extend([
                copy(CONTEXT, ACCESS),
                and(CONTEXT, ALL & !access),
                jump_if_different(CONTEXT, 0),
            ]);
        } else if !rule.allow() {
            // One denied thing is enough.
            block.extend([copy(CONTEXT, ACCESS), and(CONTEXT, access), jump_if_equal(CONTEXT, 0)]);
        }
        for (register, number) in [(MAJOR, rule.major()), (MINOR, rule.minor())] {
            if let Some(number) = number.filter(|number| *number >= 0) {
                block.push(jump_if_different(register, number as u32));
            }
        }
        block.extend([set(ANSWER, u32::from(rule.allow())), exit()]);
        let length = block.len();
        for (at, instruction) in block.iter_mut().enumerate() {
            if matches!(instruction.code, 0x15 | 0x55) {
                // To the next rule.
                instruction.offset = (length - at - 1) as i16;
            }
        }
        let is_last_word = !block.iter().any(|instruction| matches!(instruction.code, 0x15 | 0x55));
        program.extend(block);
        // The kernel takes no program with steps that nothing leads to.
        if is_last_word {
            return program;
        }
    }
    program.extend([set(ANSWER, 0), exit()]);
    program
}

#[repr(C)]
#[derive(Default)]
struct LoadAttributes {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buffer: u64,
    kernel_version: u32,
    flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct AttachAttributes {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
}

/// Has the rules decide for a cgroup, as long as it exists.
pub(super) fn attach(cgroup: &Path, rules: &[LinuxDeviceCgroup]) -> Result<(), RuntimeError> {
    let attached = || -> io::Result<()> {
        let program = load(&assemble(rules))?;
        let target = syscall::open(cgroup, libc::O_RDONLY | libc::O_DIRECTORY)?;
        let attributes = AttachAttributes {
            target: target.as_raw_fd() as u32,
            program: program.as_raw_fd() as u32,
            kind: ATTACH_TYPE_CGROUP_DEVICE,
            flags: ALLOW_MULTI,
        };
        // SAFETY: the attributes have the size given; the kernel takes what is beyond them as zero.
        let result = unsafe {
            libc::syscall(
                libc::SYS_bpf,
                BPF_PROG_ATTACH,
                &attributes,
                size_of::<AttachAttributes>(),
            )
        };
        syscall::result(result as i32).map(drop)
    };
    attached().map_err(|error| {
        RuntimeError::Failed(format!(
            "attach the device rules to the cgroup {}: {error}",
            cgroup.display()
        ))
    })
}

fn load(program: &[Instruction]) -> io::Result<OwnedFd> {
    let attributes = LoadAttributes {
        program_type: PROGRAM_TYPE_CGROUP_DEVICE,
        instruction_count: program.len() as u32,
        instructions: program.as_ptr() as u64,
        license: c"MIT".as_ptr() as u64,
        ..LoadAttributes::default()
    };
    // SAFETY: the attributes have the size given; the instructions and the licence they point to outlive the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, &attributes, size_of::<LoadAttributes>()) };
    let program = syscall::result(result as i32)?;
    // SAFETY: the kernel just gave it to us.
    Ok(unsafe { OwnedFd::from_raw_fd(program) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::default_device_rules;

    /// What the program answers, by running it on a machine of a few lines.
    fn asked(program: &[Instruction], kind: u32, access: u32, major: u32, minor: u32) -> bool {
        let context = [access << 16 | kind, major, minor];
        let mut registers = [0u32; 16];
        let mut at = 0;
        loop {
            let Instruction {
                code,
                registers: pair,
                offset,
                immediate,
            } = program[at];
            let (to, from) = ((pair & 15) as usize, (pair >> 4) as usize);
            let value = immediate as u32;
            at += 1;
            match code {
                0x61 => registers[to] = context[offset as usize / 4],
                0xbc => registers[to] = registers[from],
                0xb4 => registers[to] = value,
                0x54 => registers[to] &= value,
                0x74 => registers[to] >>= value,
                0x15 if registers[to] == value => at += offset as usize,
                0x55 if registers[to] != value => at += offset as usize,
                0x15 | 0x55 => {}
                0x95 => return registers[0] == 1,
                other => panic!("code {other:#x}"),
            }
        }
    }

    #[test]
    fn the_default_rules_open_null_and_make_nodes_and_nothing_else() {
        let program = assemble(&default_device_rules());
        assert!(asked(&program, CHARACTER, READ | WRITE, 1, 3), "/dev/null");
        assert!(asked(&program, CHARACTER, READ | WRITE, 136, 7), "a terminal");
        assert!(asked(&program, BLOCK, MKNOD, 8, 0), "making a node");
        assert!(!asked(&program, BLOCK, READ, 8, 0), "a disk");
        assert!(!asked(&program, CHARACTER, READ, 1, 1), "/dev/mem");
        assert!(!asked(&program, BLOCK, MKNOD | READ, 8, 0), "more than is allowed");
    }

    #[test]
    fn a_later_rule_overrides_an_earlier_one() {
        let mut rules = default_device_rules();
        let mut deny = LinuxDeviceCgroup::default();
        deny.set_typ(Some(LinuxDeviceType::C))
            .set_major(Some(1))
            .set_minor(Some(3))
            .set_access(Some("w".to_owned()));
        rules.push(deny);
        let program = assemble(&rules);
        assert!(asked(&program, CHARACTER, READ, 1, 3));
        assert!(!asked(&program, CHARACTER, READ | WRITE, 1, 3));
    }
}
