// SPDX-License-Identifier: MIT OR Apache-2.0
//! Instructions that exist outside 64-bit mode only, compared with the processor in
//! compatibility mode, where the emulator's side is protected mode without paging.

use std::arch::{global_asm, naked_asm};
use std::sync::Mutex;

use super::STATUS;
use crate::emulate::tests::machine::{TestBus, TestCpu};
use crate::emulate::tests::random::Random;
use crate::emulate::{EmulatorCpu, Outcome, emulate};
use crate::state::Gpr;
use crate::state::rflags::{AF, CF, FIXED, IF, OF, PF, SF, ZF};

/// Where the arena is, below 4 GiB: a page for the way in and out, one of code, two of data.
const ARENA: u64 = 0x1A00_0000;
const CODE: u64 = ARENA + 0x1000;
const DATA: u64 = ARENA + 0x2000;
const PAGES: u64 = 4;
const CASES: usize = 200;

/// The registers that are exchanged: eight, then the flags.
const BLOCK: u64 = ARENA + 0x800;

/// Held while the arena is in use.
static ARENA_LOCK: Mutex<()> = Mutex::new(());

// The way in loads the registers from the block and jumps to the code, which is followed by a
// jump to the way out. Linux has a flat 32-bit code segment at 0x23 and a 64-bit one at 0x33.
global_asm!(
    r#"
    .pushsection .rodata.compatibility, "a", @progbits
    .code32
    .global compatibility_in
compatibility_in:
    mov esp, 0x1A000820
    popfd
    mov eax, [0x1A000800]
    mov ecx, [0x1A000804]
    mov edx, [0x1A000808]
    mov ebx, [0x1A00080C]
    mov esp, [0x1A000810]
    mov ebp, [0x1A000814]
    mov esi, [0x1A000818]
    mov edi, [0x1A00081C]
    .byte 0x68                      # PUSH imm32 and RET would write below the stack
    .long 0
    .global compatibility_out
compatibility_out:
    mov [0x1A000800], eax
    mov [0x1A000804], ecx
    mov [0x1A000808], edx
    mov [0x1A00080C], ebx
    mov [0x1A000810], esp
    mov [0x1A000814], ebp
    mov [0x1A000818], esi
    mov [0x1A00081C], edi
    mov esp, 0x1A000C00
    pushfd
    pop dword ptr [0x1A000820]
    .byte 0xEA
    .long 0x1A000400
    .word 0x33
    .global compatibility_end
compatibility_end:
    .code64
    .popsection
    "#
);

unsafe extern "C" {
    static compatibility_in: u8;
    static compatibility_out: u8;
    static compatibility_end: u8;
}

/// Goes to the way in, and comes back from the way out through [`leave`].
///
/// # Safety
/// The arena is in place and ARENA_LOCK is held.
#[unsafe(naked)]
unsafe extern "C" fn enter() {
    naked_asm!(
        "push rbx",
        "push rbp",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "mov [rip + {stack}], rsp",
        // Linux has null selectors there, through which compatibility mode reaches nothing.
        "mov eax, 0x2B",
        "mov ds, eax",
        "mov es, eax",
        "push 0x23",
        "mov eax, {start}",
        "push rax",
        "retfq",
        stack = sym STACK,
        start = const ARENA,
    )
}

/// # Safety
/// Jumped to by the way out only.
#[unsafe(naked)]
unsafe extern "C" fn leave() {
    naked_asm!(
        "cld",
        "mov rsp, [rip + {stack}]",
        "xor eax, eax",
        "mov ds, eax",
        "mov es, eax",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbp",
        "pop rbx",
        "ret",
        stack = sym STACK,
    )
}

/// RSP of the caller of [`enter`], while ARENA_LOCK is held.
static mut STACK: u64 = 0;

/// Registers of 32-bit code in encoding order, and EFLAGS.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
struct Registers {
    gprs: [u32; 8],
    flags: u32,
}

/// Executable memory at [`ARENA`].
struct Arena;

impl Arena {
    fn map() -> Self {
        let protection = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
        let (address, length) = (ARENA as *mut libc::c_void, (PAGES * 4096) as usize);
        // SAFETY: a new mapping that replaces none.
        let arena = unsafe { libc::mmap(address, length, protection, flags, -1, 0) };
        assert_eq!(arena, address, "mmap of executable memory below 4 GiB");
        let (way_in, way_out, end) = (
            &raw const compatibility_in,
            &raw const compatibility_out,
            &raw const compatibility_end,
        );
        // The last bytes of the way in stand for the jump to the code.
        let jump = way_out as u64 - way_in as u64 - 5;
        // SAFETY: both ends lie in the code above.
        let code = unsafe { std::slice::from_raw_parts(way_in, end as usize - way_in as usize) };
        let arena = Self;
        arena.store(ARENA, code);
        arena.store(ARENA + jump, &jump_between(ARENA + jump, CODE));
        // In 64-bit code again: movabs rax, leave; jmp rax.
        arena.store(ARENA + 0x400, &[0x48, 0xB8]);
        arena.store(ARENA + 0x402, &(leave as *const () as u64).to_le_bytes());
        arena.store(ARENA + 0x40A, &[0xFF, 0xE0]);
        arena
    }

    fn store(&self, address: u64, bytes: &[u8]) {
        assert!(address >= ARENA && address + bytes.len() as u64 <= ARENA + PAGES * 4096);
        // SAFETY: the bytes lie in the mapping.
        unsafe { std::ptr::copy(bytes.as_ptr(), address as *mut u8, bytes.len()) };
    }

    fn page(&self, address: u64) -> [u8; 4096] {
        assert!((ARENA..ARENA + PAGES * 4096).contains(&address));
        // SAFETY: the page lies in the mapping.
        unsafe { std::ptr::read(address as *const [u8; 4096]) }
    }

    /// Runs the instruction of `length` bytes at [`CODE`].
    fn run(&self, registers: &Registers, length: usize) -> Registers {
        let way_out =
            ARENA + (&raw const compatibility_out as u64 - &raw const compatibility_in as u64);
        let end = CODE + length as u64;
        self.store(end, &jump_between(end, way_out));
        let block = BLOCK as *mut Registers;
        // SAFETY: the block lies in the mapping, and only one test maps it. The code is one
        // instruction that goes on behind itself and whose operands lie in the arena.
        unsafe {
            block.write_volatile(*registers);
            enter();
            block.read_volatile()
        }
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `map`, which nothing refers to any more.
        unsafe { libc::munmap(ARENA as *mut libc::c_void, (PAGES * 4096) as usize) };
    }
}

/// jmp rel32.
fn jump_between(from: u64, to: u64) -> [u8; 5] {
    let mut code = [0xE9, 0, 0, 0, 0];
    code[1..].copy_from_slice(&(to.wrapping_sub(from + 5) as u32).to_le_bytes());
    code
}

/// An instruction and the flags that it leaves undefined.
struct Form {
    code: Vec<u8>,
    undefined: u64,
}

fn forms() -> Vec<Form> {
    let mut forms = Vec::new();
    let mut add = |code: &[u8], undefined| forms.push(Form { code: code.to_vec(), undefined });
    // AAA, AAS, DAA, DAS, SALC.
    for (opcode, undefined) in
        [(0x37, OF | SF | ZF | PF), (0x3F, OF | SF | ZF | PF), (0x27, OF), (0x2F, OF), (0xD6, 0)]
    {
        add(&[opcode], undefined);
    }
    // AAM and AAD, with several bases.
    for base in [1, 7, 10, 16, 255] {
        add(&[0xD4, base], OF | AF | CF);
        add(&[0xD5, base], OF | AF | CF);
    }
    // PUSHA, POPA, INC and DEC of registers in one byte, CWDE and CDQ, with both sizes.
    for prefix in [&[][..], &[0x66]] {
        for opcode in [0x60, 0x61, 0x98, 0x99].into_iter().chain(0x40..0x50) {
            add(&[prefix, &[opcode]].concat(), 0);
        }
        // BOUND eax, [ebx]; PUSH and POP of registers and immediates; LEAVE; ENTER.
        add(&[prefix, &[0x62, 0x03]].concat(), 0);
        for opcode in 0x50..0x60 {
            add(&[prefix, &[opcode]].concat(), 0);
        }
        add(&[prefix, &[0x6A, 0x85]].concat(), 0);
        add(&[prefix, &[0x9C]].concat(), 0);
        add(&[prefix, &[0xC9]].concat(), 0);
        for level in 0..4 {
            add(&[prefix, &[0xC8, 0x14, 0x00, level]].concat(), 0);
        }
        // LEA with 16-bit addressing: [bx + si], [bp + di + disp8], [bx + disp16].
        for operand in [&[0x00][..], &[0x43, 0x90], &[0x87, 0x34, 0x12]] {
            add(&[prefix, &[0x67, 0x8D], operand].concat(), 0);
        }
    }
    add(&[0x68, 0x78, 0x56, 0x34, 0x92], 0);
    add(&[0x66, 0x68, 0x34, 0x92], 0);
    // ARPL of registers and of memory.
    for operand in [0xC8, 0xD1, 0x0B] {
        add(&[0x63, operand], 0);
    }
    // INTO without overflow is tried with every other; XLAT, also with BX.
    add(&[0xCE], 0);
    add(&[0xD7], 0);
    forms
}

fn registers(random: &mut Random) -> Registers {
    let mut gprs = [0; 8];
    gprs.fill_with(|| random.operand() as u32);
    gprs[Gpr::Rbx as usize] = DATA as u32 + 0x400 + random.below(64) as u32;
    gprs[Gpr::Rsp as usize] = DATA as u32 + 0x1000 + random.below(16) as u32;
    gprs[Gpr::Rbp as usize] = DATA as u32 + 0x1100 + random.below(16) as u32;
    let flags = random.bits() & STATUS | FIXED | IF;
    Registers { gprs, flags: flags as u32 }
}

#[test]
fn compatibility_mode_agrees() {
    let _lock = ARENA_LOCK.lock().unwrap();
    let arena = Arena::map();
    let mut bus = TestBus::new(&[CODE, DATA, DATA + 0x1000]);
    let mut random = Random::new(0x3232);
    let mut compared = 0;
    for Form { code, undefined } in forms() {
        for _ in 0..CASES {
            for offset in (0x400..0x480).chain(0xFC0..0x1200).step_by(8) {
                let value = random.operand();
                arena.store(DATA + offset, &value.to_le_bytes());
                bus.store(DATA + offset, 8, value);
            }
            arena.store(CODE, &code);
            bus.store_bytes(CODE, &code);
            let start = registers(&mut random);
            let mut cpu = TestCpu::protected();
            cpu.cpl = 3;
            cpu.rip = CODE;
            cpu.rflags = start.flags.into();
            cpu.gprs[..8].copy_from_slice(&start.gprs.map(u64::from));
            let outcome = emulate(&mut cpu, &mut bus, None);
            // #BR of BOUND, and the way of INTO that the test's process would not survive.
            if outcome != (Outcome::Done { debug_trap: false }) {
                assert!([0x62, 0xCE].iter().any(|opcode| code.contains(opcode)), "{code:02x?}");
                continue;
            }
            let described = format!("{code:02x?} from {start:x?}");
            assert_eq!(cpu.rip(), CODE + code.len() as u64, "{described}");
            let end = arena.run(&start, code.len());
            let ours: Vec<u32> = cpu.gprs[..8].iter().map(|value| *value as u32).collect();
            assert_eq!(ours, end.gprs, "registers after {described}");
            let flags = STATUS & !undefined;
            assert_eq!(cpu.rflags & flags, u64::from(end.flags) & flags, "flags after {described}");
            for page in [DATA, DATA + 0x1000] {
                assert!(bus.page(page) == arena.page(page), "memory after {described}");
            }
            compared += 1;
        }
    }
    assert!(compared > forms().len() * CASES / 2);
}
