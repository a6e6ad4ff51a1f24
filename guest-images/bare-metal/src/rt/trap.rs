// SPDX-License-Identifier: MIT OR Apache-2.0
//! Exceptions and interrupts: the IDT, and how a test catches what it provokes.

use core::arch::global_asm;
use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use super::cell::Fixed;
use super::segments::{KERNEL_CODE, KERNEL_DATA, TablePointer};
use super::{cpu, exit};

pub const DE: u64 = 0;
pub const DB: u64 = 1;
pub const NMI: u64 = 2;
pub const BP: u64 = 3;
pub const OF: u64 = 4;
pub const BR: u64 = 5;
pub const UD: u64 = 6;
pub const NM: u64 = 7;
pub const DF: u64 = 8;
pub const TS: u64 = 10;
pub const NP: u64 = 11;
pub const SS: u64 = 12;
pub const GP: u64 = 13;
pub const PF: u64 = 14;
pub const MF: u64 = 16;
pub const AC: u64 = 17;
pub const XM: u64 = 19;

/// Vector by which code started by `run!` reports that it came to its end. Every privilege
/// level may raise it.
pub const DONE: u64 = 0x81;

/// Whether an exception pushes an error code, outside real mode.
pub const fn has_error_code(vector: u64) -> bool {
    matches!(vector, DF | TS..=PF | AC)
}

/// Registers of the interrupted code, as the entry stubs store them.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Frame {
    pub r15: u64,
    pub r14: u64,
    pub r13: u64,
    pub r12: u64,
    pub r11: u64,
    pub r10: u64,
    pub r9: u64,
    pub r8: u64,
    pub rbp: u64,
    pub rdi: u64,
    pub rsi: u64,
    pub rdx: u64,
    pub rcx: u64,
    pub rbx: u64,
    pub rax: u64,
    pub vector: u64,
    pub error: u64,
    pub rip: u64,
    pub cs: u64,
    pub rflags: u64,
    pub rsp: u64,
    pub ss: u64,
}

/// A caught exception or interrupt.
#[derive(Clone, Copy, Debug, Default)]
pub struct Trap {
    pub frame: Frame,
    /// CR2 right after delivery.
    pub cr2: u64,
}

impl Trap {
    /// Vector and error code.
    pub fn cause(&self) -> (u64, u64) {
        (self.frame.vector, self.frame.error)
    }

    /// Whether it was reported on the instruction that `run!` was given, as faults are.
    pub fn at_instruction(&self) -> bool {
        self.frame.rip == self.frame.r11
    }

    /// Whether it was reported behind the instruction that `run!` was given, as traps are.
    pub fn behind_instruction(&self) -> bool {
        self.frame.rip == self.frame.r10
    }
}

global_asm!(
    r#"
    .text
    .balign 16
    .global trap_stubs
trap_stubs:
    .set vector, 0
    .rept 256
    .balign 16
    .if (vector == 8) || ((vector >= 10) && (vector <= 14)) || (vector == 17) || (vector == 21) || (vector == 29) || (vector == 30)
    .else
    push 0
    .endif
    .byte 0x68
    .long vector
    jmp trap_entry
    .set vector, vector + 1
    .endr

trap_entry:
    push rax
    push rbx
    push rcx
    push rdx
    push rsi
    push rdi
    push rbp
    push r8
    push r9
    push r10
    push r11
    push r12
    push r13
    push r14
    push r15
    mov rdi, rsp
    cld
    call {dispatch}
    pop r15
    pop r14
    pop r13
    pop r12
    pop r11
    pop r10
    pop r9
    pop r8
    pop rbp
    pop rdi
    pop rsi
    pop rdx
    pop rcx
    pop rbx
    pop rax
    add rsp, 16
    iretq

    # catch_call(function, data, &saved_rsp): calls function(data); a caught trap continues at
    # catch_resume with the stack as it was saved.
    .global catch_call
catch_call:
    push rbp
    push rbx
    push r12
    push r13
    push r14
    push r15
    pushfq
    mov [rdx], rsp
    mov rax, rdi
    mov rdi, rsi
    call rax
    .global catch_resume
catch_resume:
    popfq
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbx
    pop rbp
    ret
    "#,
    dispatch = sym dispatch,
);

unsafe extern "C" {
    static trap_stubs: [u8; 4096];
    fn catch_call(function: extern "C" fn(*mut u8), data: *mut u8, saved_rsp: *mut u64);
    fn catch_resume();
}

/// Gates of the IDT, two words each.
pub static IDT: Fixed<[[u64; 2]; 256]> = Fixed::new([[0; 2]; 256]);

const GATE: u64 = 0x8E00;
const GATE_FOR_ALL: u64 = 0xEE00;

/// Builds a gate to the stub of a vector. `kind` is bits 8 to 15 of the attribute word with the
/// stack number in bits 0 to 2.
pub fn gate(vector: usize, kind: u64) -> [u64; 2] {
    let offset = (&raw const trap_stubs) as u64 + vector as u64 * 16;
    [
        offset & 0xFFFF | u64::from(KERNEL_CODE) << 16 | kind << 32 | (offset >> 16 & 0xFFFF) << 48,
        offset >> 32,
    ]
}

/// Puts back the usual gate of a vector.
pub fn reset_gate(vector: u64) {
    let kind = match vector {
        DF => GATE | 1,
        NMI => GATE | 2,
        18 => GATE | 3,
        BP | OF | DONE => GATE_FOR_ALL,
        _ => GATE,
    };
    set_gate(vector, gate(vector as usize & 0xFF, kind));
}

/// Changes a gate.
pub fn set_gate(vector: u64, gate: [u64; 2]) {
    // SAFETY: within the table; the boot CPU alone changes it.
    unsafe { (*IDT.get())[vector as usize & 0xFF] = gate };
}

/// Fills in the IDT and loads it; for the boot CPU.
pub fn load_idt() {
    for vector in 0..256 {
        reset_gate(vector);
    }
    reload_idt();
}

/// Loads the IDT.
pub fn reload_idt() {
    let pointer = TablePointer { limit: 0xFFF, base: IDT.address() };
    // SAFETY: the table is static and complete.
    unsafe { core::arch::asm!("lidt [{}]", in(reg) &raw const pointer, options(nostack)) };
}

/// Takes part in an interrupt: gets the registers, which it may change.
pub type Handler = fn(&mut Frame);

static HANDLERS: [AtomicPtr<()>; 256] = [const { AtomicPtr::new(core::ptr::null_mut()) }; 256];
static SAVED_RSP: AtomicU64 = AtomicU64::new(0);
static CAUGHT: Fixed<Option<Trap>> = Fixed::new(None);

/// Gives a vector to a handler, or takes it away.
pub fn handle(vector: u64, handler: Option<Handler>) {
    let pointer = handler.map_or(core::ptr::null_mut(), |function| function as *mut ());
    if let Some(slot) = HANDLERS.get(vector as usize) {
        slot.store(pointer, Ordering::SeqCst);
    }
}

extern "C" fn dispatch(frame: &mut Frame) {
    let handler = HANDLERS
        .get(frame.vector as usize)
        .map_or(core::ptr::null_mut(), |slot| slot.load(Ordering::SeqCst));
    if !handler.is_null() {
        // SAFETY: only `handle` stores there, and only pointers made from a `Handler`.
        let handler = unsafe { core::mem::transmute::<*mut (), Handler>(handler) };
        handler(frame);
        return;
    }
    let saved_rsp = SAVED_RSP.swap(0, Ordering::SeqCst);
    if saved_rsp == 0 {
        println!("not ok unexpected trap: {frame:x?} cr2 {:x}", cpu::read_cr2());
        exit::exit(exit::UNEXPECTED);
    }
    // SAFETY: `catch` is waiting for it on this CPU, and reads it after the return.
    unsafe { *CAUGHT.get() = Some(Trap { frame: *frame, cr2: cpu::read_cr2() }) };
    frame.rip = catch_resume as *const () as u64;
    frame.cs = u64::from(KERNEL_CODE);
    frame.ss = u64::from(KERNEL_DATA);
    frame.rsp = saved_rsp;
    frame.rflags = 2;
}

/// Runs the code and gives the exception or unhandled interrupt that ended it early, if any.
///
/// The code is left as by a long jump: it must own nothing that wants dropping. Boot CPU only.
pub fn catch<F: FnMut()>(mut code: F) -> Option<Trap> {
    extern "C" fn call<F: FnMut()>(data: *mut u8) {
        // SAFETY: `data` is the closure that `catch` passed along.
        let code = unsafe { &mut *data.cast::<F>() };
        code();
    }
    let before = SAVED_RSP.load(Ordering::SeqCst);
    // SAFETY: the closure outlives the call. When a trap ends it, `catch_resume` continues with
    // the stack and registers that `catch_call` saved.
    unsafe {
        *CAUGHT.get() = None;
        catch_call(call::<F>, (&raw mut code).cast(), SAVED_RSP.as_ptr());
        SAVED_RSP.store(before, Ordering::SeqCst);
        (*CAUGHT.get()).take()
    }
}

/// Reads an MSR; `None` when it raises #GP.
pub fn try_rdmsr(index: u32) -> Option<u64> {
    let mut value = 0;
    let trap = catch(|| value = cpu::rdmsr(index));
    trap.is_none().then_some(value)
}

/// Writes an MSR; false when it raises #GP.
///
/// # Safety
/// As for [`cpu::wrmsr`].
pub unsafe fn try_wrmsr(index: u32, value: u64) -> bool {
    // SAFETY: the caller's promise.
    catch(|| unsafe { cpu::wrmsr(index, value) }).is_none()
}

/// Where `run!` executes its instruction.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Place {
    pub cs: u16,
    pub ss: u16,
    /// RFLAGS to start with.
    pub flags: u64,
}

impl Place {
    pub const KERNEL: Self = Self { cs: KERNEL_CODE, ss: KERNEL_DATA, flags: 2 };
    pub const USER: Self =
        Self { cs: super::segments::USER_CODE, ss: super::segments::USER_DATA, flags: 2 };
    /// Privilege level 0 in compatibility mode; the instructions are to be in `.code32`.
    pub const KERNEL32: Self =
        Self { cs: super::segments::KERNEL_CODE32, ss: KERNEL_DATA, flags: 2 };
    /// Privilege level 3 in compatibility mode; the instructions are to be in `.code32`.
    pub const USER32: Self =
        Self { cs: super::segments::USER_CODE32, ss: super::segments::USER_DATA, flags: 2 };

    pub const fn with_flags(self, flags: u64) -> Self {
        Self { flags: self.flags | flags, ..self }
    }
}

/// Executes instructions at a [`Place`] until they trap, and gives the [`Trap`], whose vector is
/// [`DONE`] when they did not trap.
///
/// R11 holds the address of the first instruction and R10 the one behind the last; R8, R9 and
/// R12 are taken too. All registers at the end are in the trap's frame.
macro_rules! run {
    ($place:expr, [$($instruction:expr),+ $(,)?] $(, $($operand:tt)*)?) => {{
        let place: $crate::rt::trap::Place = $place;
        $crate::rt::trap::catch(|| {
            // SAFETY: whatever these instructions do ends in a trap, and `catch` then restores
            // the registers and the stack. They write only where their test says.
            unsafe {
                ::core::arch::asm!(
                    "lea r11, [rip + 771f]",
                    "lea r10, [rip + 772f]",
                    "mov r8, rsp",
                    "movzx r12d, word ptr [r9 + 2]",
                    "push r12",
                    "push r8",
                    "push qword ptr [r9 + 8]",
                    "movzx r12d, word ptr [r9]",
                    "push r12",
                    "push r11",
                    "iretq",
                    "771:",
                    $($instruction,)+
                    "772:",
                    "int 0x81",
                    ".code64",
                    inout("r9") &raw const place => _,
                    out("r8") _, out("r10") _, out("r11") _, out("r12") _,
                    $($($operand)*)?
                );
            }
        })
        .unwrap_or_default()
    }};
}
