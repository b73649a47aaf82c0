//! What the programs cost before they run: the verifier's work and the stack. `docs/verifier.md` keeps the figures, a pair of columns per kernel.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;

use sluice_datapath_common::programs;

use crate::scene;

/// A quarter of what the verifier does before it gives up (a million).
const INSTRUCTIONS: u32 = 250_000;
/// What it grants a program and all that it calls, counted as the oldest kernel does: 6.18, which rounds less, would still take what 6.1 refuses.
const STACK: u32 = 512;
/// A figure on the page may be so many percent beside what is measured: compilers differ a little.
const TOLERANCE: u32 = 25;

/// Instructions verified, and bytes of stack.
type Cost = (u32, u32);
/// By kernel (6.1), by program.
type Costs = BTreeMap<Release, BTreeMap<String, Cost>>;
type Release = (u32, u32);

/// Pitfall B53.
#[test]
fn every_program_is_taken_by_the_verifier_with_room_to_spare() {
    let scene = scene::set();
    let mut costs = BTreeMap::new();
    for (name, program) in scene.programs() {
        let info = program.info().unwrap();
        let verified = info.verified_instruction_count().unwrap_or(0);
        let stack = stack(&translated(&info.fd().unwrap()));
        println!("{name}: {verified} instructions verified, {stack} bytes of stack");
        assert!(verified < INSTRUCTIONS, "{name}: {verified} instructions");
        assert!(stack <= STACK, "{name}: {stack} bytes of stack");
        costs.insert(name.to_owned(), (verified, stack));
    }
    compare_with_page(costs);
}

/// The page is right about this kernel, if it speaks of it. `UPDATE_DOCS` makes it speak; where files cannot be written, its text is printed.
fn compare_with_page(costs: BTreeMap<String, Cost>) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/verifier.md");
    let mut all = read_page(&fs::read_to_string(&path).unwrap_or_default());
    let kernel = release();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        all.insert(kernel, costs);
        let page = write_page(&all);
        if fs::write(&path, &page).is_err() {
            println!("{page}");
        }
        return;
    }
    let Some(recorded) = all.get(&kernel) else { return };
    for (name, cost) in &costs {
        let is_near = recorded.get(name).is_some_and(|recorded| {
            let near = |a: u32, b: u32| a.abs_diff(b) * 100 <= TOLERANCE * a.max(b);
            near(recorded.0, cost.0) && near(recorded.1, cost.1)
        });
        assert!(
            is_near,
            "docs/verifier.md says {:?} of {name} under {}.{}, and it is {cost:?}; UPDATE_DOCS=1 writes it anew",
            recorded.get(name),
            kernel.0,
            kernel.1
        );
    }
}

fn write_page(all: &Costs) -> String {
    let mut page = String::from(
        "# What the verifier makes of the programs\n\nBefore the kernel runs a program it walks every path through it, and gives up after a million instructions; a program and \
         all that it calls may use 512 bytes of stack. How many instructions it walks differs from kernel to kernel. The stack is counted \
         as the oldest kernel does, each function rounded up to 32 bytes. A test fails when a program needs more than a quarter of the instructions, \
         or more stack than there is, and when a figure here is far from what is measured.\n\nOf the stack no quarter could do: 128 bytes \
         hold two keys of IPv6 and nothing else, and a call rounds every function up. The deepest path of `from_container` uses all of it on every \
         kernel. So the rule for the stack is that everything fits where it is counted most strictly; what does not, lies in tables of each \
         CPU's own (what is read of a packet, and the plan and keys of a conversation), and what is large is proven by itself as a \
         function that begins with what is left. A program that needs a byte more is refused by every kernel, by this test first.\n\nThis page is written by \
         that test (`UPDATE_DOCS=1 cargo test -p sluice-tests --features root --test packet verifier`), for the kernel it runs under; the figures of other kernels stay.\n\n",
    );
    let kernels: Vec<_> = all.keys().collect();
    page += "| program |";
    kernels
        .iter()
        .for_each(|(major, minor)| page += &format!(" instructions, {major}.{minor} | stack, {major}.{minor} |"));
    page += "\n|---|";
    kernels.iter().for_each(|_| page += "---:|---:|");
    page += "\n";
    for name in programs::CLASSIFIERS.iter().chain(programs::SOCKET_HOOKS.iter()) {
        page += &format!("| `{name}` |");
        for kernel in &kernels {
            match all[*kernel].get(*name) {
                Some((instructions, stack)) => page += &format!(" {instructions} | {stack} |"),
                None => page += " | |",
            }
        }
        page += "\n";
    }
    page
}

fn read_page(page: &str) -> Costs {
    let mut all = Costs::new();
    let rows = page.lines().filter_map(|line| line.strip_prefix('|'));
    let mut rows = rows.map(|row| row.trim_end_matches('|').split('|').map(str::trim).collect::<Vec<_>>());
    let head = rows.next().unwrap_or_default();
    let kernels: Vec<Release> = head
        .iter()
        .filter_map(|title| numbers(title.strip_prefix("instructions, ")?))
        .collect();
    for row in rows.filter(|row| row[0].starts_with('`')) {
        for (kernel, cost) in kernels.iter().zip(row[1..].chunks(2)) {
            if let [Ok(instructions), Ok(stack)] = [cost[0].parse(), cost[1].parse()] {
                let name = row[0].trim_matches('`').to_owned();
                all.entry(*kernel).or_default().insert(name, (instructions, stack));
            }
        }
    }
    all
}

fn release() -> Release {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    numbers(&release).expect("a release like 6.1.0-56-amd64")
}

fn numbers(release: &str) -> Option<Release> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// `struct bpf_insn`
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

/// What the kernel has made of the program's instructions.
fn translated(program: &impl AsFd) -> Vec<Instruction> {
    /// The beginning of `struct bpf_prog_info`; the kernel fills what it is given room for.
    #[repr(C)]
    #[derive(Default)]
    struct Info {
        kind: u32,
        id: u32,
        tag: [u8; 8],
        jited_length: u32,
        translated_length: u32,
        jited: u64,
        translated: u64,
    }
    #[repr(C)]
    struct Question {
        program: u32,
        length: u32,
        info: u64,
    }
    /// `BPF_OBJ_GET_INFO_BY_FD`
    const GET_INFO: i32 = 15;
    let ask = |info: &mut Info| {
        let mut question = Question {
            program: program.as_fd().as_raw_fd() as u32,
            length: size_of::<Info>() as u32,
            info: (&raw mut *info) as u64,
        };
        // SAFETY: the question is a prefix of `union bpf_attr`; it points to an `Info` of the length that is said, which points to as much room as it says.
        let answer = unsafe { libc::syscall(libc::SYS_bpf, GET_INFO, &raw mut question, size_of::<Question>()) };
        assert_eq!(answer, 0, "{}", std::io::Error::last_os_error());
    };
    let mut info = Info::default();
    ask(&mut info);
    let mut instructions = vec![Instruction::default(); info.translated_length as usize / size_of::<Instruction>()];
    info = Info {
        translated_length: info.translated_length,
        translated: instructions.as_mut_ptr() as u64,
        ..Info::default()
    };
    ask(&mut info);
    instructions
}

/// Bytes of stack that the program's first function and all that it calls need together, each rounded up as the verifier does (6.1: to 32).
fn stack(program: &[Instruction]) -> u32 {
    let mut starts: Vec<usize> = (0..program.len())
        .filter_map(|at| called(program, at))
        .chain([0])
        .collect();
    starts.sort_unstable();
    starts.dedup();
    depth(program, &starts, 0)
}

fn depth(program: &[Instruction], starts: &[usize], start: usize) -> u32 {
    let end = starts
        .iter()
        .copied()
        .find(|other| *other > start)
        .unwrap_or(program.len());
    let below = (start..end)
        .filter_map(|at| called(program, at))
        .map(|callee| depth(program, starts, callee))
        .max()
        .unwrap_or(0);
    frame(&program[start..end]).next_multiple_of(32).max(32) + below
}

/// Where the function starts that the instruction calls, or whose address it takes (for `bpf_loop`).
fn called(program: &[Instruction], at: usize) -> Option<usize> {
    /// `BPF_JMP | BPF_CALL`, and `BPF_LD | BPF_IMM | BPF_DW`, the address of something.
    const CALL: u8 = 0x85;
    const ADDRESS: u8 = 0x18;
    let instruction = program[at];
    // The source register says whose: 1, `BPF_PSEUDO_CALL`; 4, `BPF_PSEUDO_FUNC`.
    let distance = match (instruction.code, instruction.registers >> 4) {
        (CALL, 1) => i64::from(instruction.offset),
        (ADDRESS, 4) => i64::from(instruction.immediate),
        _ => return None,
    };
    usize::try_from(at as i64 + 1 + distance).ok()
}

/// The lowest byte below the frame pointer (r10) that a function speaks of.
fn frame(function: &[Instruction]) -> u32 {
    const FRAME_POINTER: u8 = 10;
    let lowest = function.iter().enumerate().map(|(at, instruction)| {
        let (class, source, destination) = (
            instruction.code & 7,
            instruction.registers >> 4,
            instruction.registers & 15,
        );
        match class {
            // A load from there; a store to there.
            1 if source == FRAME_POINTER => i32::from(instruction.offset),
            2 | 3 if destination == FRAME_POINTER => i32::from(instruction.offset),
            // Its address: `r1 = r10`, then `r1 += -64`.
            7 if instruction.code == 0xbf && source == FRAME_POINTER => match function.get(at + 1) {
                Some(next) if next.code == 0x07 && next.registers & 15 == destination => next.immediate,
                _ => 0,
            },
            _ => 0,
        }
    });
    lowest.min().unwrap_or(0).unsigned_abs()
}
