// SPDX-License-Identifier: MIT OR Apache-2.0
//! Runs an instruction on the processor of the test host.

use std::arch::naked_asm;
use std::cell::UnsafeCell;
use std::ptr;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Pages of the arena: one of code, then data.
pub const ARENA_PAGES: u64 = 4;

#[cfg(test)]
/// Bytes that a place where a branch may go on needs.
pub const PAD: u64 = 32;

/// General-purpose registers in encoding order, and RFLAGS.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Registers {
    pub gprs: [u64; 16],
    pub flags: u64,
}

/// What the trampoline works on; it refers to the fields by their offsets.
#[repr(C)]
struct Exchange {
    registers: Registers,
    /// Offset 136: RSP of the caller.
    stack: u64,
    /// Offset 144: the code to run.
    code: u64,
}

struct Shared(UnsafeCell<Exchange>);

// SAFETY: only used while LOCK is held.
unsafe impl Sync for Shared {}

static EXCHANGE: Shared = Shared(UnsafeCell::new(Exchange {
    registers: Registers { gprs: [0; 16], flags: 0 },
    stack: 0,
    code: 0,
}));
static LOCK: Mutex<()> = Mutex::new(());

/// Loads the registers in EXCHANGE and jumps to the code there.
///
/// # Safety
/// The code must end in a jump to [`leave`] and do no harm before; LOCK is held.
#[unsafe(naked)]
unsafe extern "C" fn enter() {
    naked_asm!(
        "push rbx",
        "push rbp",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "mov [rip + {x} + 136], rsp",
        "push qword ptr [rip + {x} + 128]",
        "popfq",
        "mov rax, [rip + {x} + 0]",
        "mov rcx, [rip + {x} + 8]",
        "mov rdx, [rip + {x} + 16]",
        "mov rbx, [rip + {x} + 24]",
        "mov rsp, [rip + {x} + 32]",
        "mov rbp, [rip + {x} + 40]",
        "mov rsi, [rip + {x} + 48]",
        "mov rdi, [rip + {x} + 56]",
        "mov r8, [rip + {x} + 64]",
        "mov r9, [rip + {x} + 72]",
        "mov r10, [rip + {x} + 80]",
        "mov r11, [rip + {x} + 88]",
        "mov r12, [rip + {x} + 96]",
        "mov r13, [rip + {x} + 104]",
        "mov r14, [rip + {x} + 112]",
        "mov r15, [rip + {x} + 120]",
        "jmp qword ptr [rip + {x} + 144]",
        x = sym EXCHANGE,
    )
}

/// Stores the registers and returns to the caller of [`enter`].
///
/// # Safety
/// Only to be jumped to by the code that [`enter`] started.
#[unsafe(naked)]
unsafe extern "C" fn leave() {
    naked_asm!(
        "mov [rip + {x} + 0], rax",
        "mov [rip + {x} + 8], rcx",
        "mov [rip + {x} + 16], rdx",
        "mov [rip + {x} + 24], rbx",
        "mov [rip + {x} + 32], rsp",
        "mov [rip + {x} + 40], rbp",
        "mov [rip + {x} + 48], rsi",
        "mov [rip + {x} + 56], rdi",
        "mov [rip + {x} + 64], r8",
        "mov [rip + {x} + 72], r9",
        "mov [rip + {x} + 80], r10",
        "mov [rip + {x} + 88], r11",
        "mov [rip + {x} + 96], r12",
        "mov [rip + {x} + 104], r13",
        "mov [rip + {x} + 112], r14",
        "mov [rip + {x} + 120], r15",
        "mov rsp, [rip + {x} + 136]",
        "pushfq",
        "pop qword ptr [rip + {x} + 128]",
        "cld",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbp",
        "pop rbx",
        "ret",
        x = sym EXCHANGE,
    )
}

/// Memory for code and data, and the right to run in it.
pub struct Processor {
    arena: *mut u8,
    _lock: MutexGuard<'static, ()>,
}

impl Processor {
    pub fn new() -> Self {
        let lock = LOCK.lock().unwrap_or_else(PoisonError::into_inner);
        let length = (ARENA_PAGES * 4096) as usize;
        let protection = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new anonymous mapping at an address of the kernel's choice.
        let arena = unsafe { libc::mmap(ptr::null_mut(), length, protection, flags, -1, 0) };
        assert_ne!(arena, libc::MAP_FAILED, "mmap of executable memory");
        Self { arena: arena.cast(), _lock: lock }
    }

    /// Address of the arena; code runs at its start.
    pub fn arena(&self) -> u64 {
        self.arena as u64
    }

    fn offset(&self, address: u64, length: usize) -> usize {
        let offset = (address - self.arena()) as usize;
        assert!(offset + length <= (ARENA_PAGES * 4096) as usize, "outside the arena");
        offset
    }

    /// Writes to the arena.
    pub fn store(&self, address: u64, bytes: &[u8]) {
        let offset = self.offset(address, bytes.len());
        // SAFETY: `offset` checked that the bytes lie in the mapping.
        unsafe { ptr::copy(bytes.as_ptr(), self.arena.add(offset), bytes.len()) };
    }

    /// Copy of page number `page`.
    pub fn page(&self, page: u64) -> [u8; 4096] {
        let offset = self.offset(self.arena() + page * 4096, 4096);
        // SAFETY: `offset` checked that the page lies in the mapping.
        unsafe { ptr::read(self.arena.add(offset).cast()) }
    }

    /// Runs the instruction of `length` bytes at the start of the arena.
    pub fn run(&self, registers: &Registers, length: usize) -> Registers {
        self.put_exit(self.arena() + length as u64);
        self.execute(registers)
    }

    #[cfg(test)]
    /// Runs the instruction at the start of the arena, which goes on at one of `ends`, each
    /// [`PAD`] bytes long; returns which one.
    pub fn run_branch(&self, registers: &Registers, ends: &[u64]) -> (Registers, usize) {
        let note = self.arena() + 0xFF8;
        for (index, end) in (0..).zip(ends) {
            // mov byte [rip + note], index.
            self.store(*end, &[0xC6, 0x05]);
            self.store(*end + 2, &(note.wrapping_sub(*end + 7) as u32).to_le_bytes());
            self.store(*end + 6, &[index]);
            self.put_exit(*end + 7);
        }
        let after = self.execute(registers);
        (after, usize::from(self.page(0)[0xFF8]))
    }

    /// jmp [rip + 0], followed by the address.
    fn put_exit(&self, at: u64) {
        self.store(at, &[0xFF, 0x25, 0, 0, 0, 0]);
        self.store(at + 6, &(leave as *const () as u64).to_le_bytes());
    }

    fn execute(&self, registers: &Registers) -> Registers {
        let exchange = EXCHANGE.0.get();
        // SAFETY: LOCK is held by `self`, so nobody else uses EXCHANGE. The code is one
        // instruction whose operands lie in the arena, and where it goes on is a jump to `leave`.
        unsafe {
            (*exchange).registers = *registers;
            (*exchange).code = self.arena();
            enter();
            (*exchange).registers
        }
    }
}

impl Drop for Processor {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `new`, which nothing refers to any more.
        unsafe { libc::munmap(self.arena.cast(), (ARENA_PAGES * 4096) as usize) };
    }
}
