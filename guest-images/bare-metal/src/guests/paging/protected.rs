// SPDX-License-Identifier: MIT OR Apache-2.0
//! Accesses in protected mode, with 32-bit and PAE paging: many in one visit, because going
//! there and back takes long.

use core::arch::global_asm;

use vmm_core::state::{ControlRegisters, cr0, cr4, efer};

use super::access::Step;
use super::compare::Snapshots;
use super::{Mode, tables};
use crate::guests::modes::switch::{self, Context};
use crate::rt::cell::Fixed;
use crate::rt::cpu;
use crate::rt::segments::{self, KERNEL_DATA, TASK32};
use crate::rt::trap::{DONE, GP, PF, UD};

const EFER: u32 = 0xC000_0080;
const TASK_SIZE: usize = 104;

static GATES: Fixed<[u64; 256]> = Fixed::new([0; 256]);
/// The 32-bit task state: ESP0 and SS0 at offsets 4 and 8.
static TASK_STATE: Fixed<[u8; TASK_SIZE]> = Fixed::new([0; TASK_SIZE]);
static RING0_STACK: Fixed<[u8; 4096]> = Fixed::new([0; 4096]);

/// What the code below works on.
#[repr(C)]
struct Visit {
    cr3: u32,
    step: u32,
    end: u32,
    watched: u32,
    count: u32,
    found: u32,
    stack: u32,
}

unsafe extern "C" {
    static mut paging_visit: Visit;
    fn paging_protected();
    fn paging_trap_ud();
    fn paging_trap_gp();
    fn paging_trap_pf();
    fn paging_trap_done();
}

global_asm!(
    r#"
    .text
    .code32
    .global paging_protected
paging_protected:
    pushad
    mov [paging_visit + 24], esp
1:  mov ebp, [paging_visit + 4]
    cmp ebp, [paging_visit + 8]
    jae 5f
    mov dword ptr [ebp + 28], 0x100 # to tell a fault at the load of CR3
    mov eax, [paging_visit]
    mov cr3, eax
    mov dword ptr [ebp + 28], 0
    mov edi, [ebp]
    invlpg [edi]
    mov eax, {user_data}
    mov ds, eax
    mov es, eax
    mov eax, [ebp + 16]
    test byte ptr [ebp + 24], 3
    jz 2f
    push {user_data}
    push 0
2:  push [ebp + 20]
    push [ebp + 24]
    push [ebp + 8]
    iretd

    .macro paging_trap name, vector, code
    .global paging_trap_\name
paging_trap_\name:
    .ifb \code
    push 0
    .endif
    push \vector
    jmp 3f
    .endm
    paging_trap ud, 6
    paging_trap gp, 13, with
    paging_trap pf, 14, with
    paging_trap done, 0x81

    # On the stack: vector, error code, EIP.
3:  mov ebp, [paging_visit + 4]
    mov [ebp + 36], eax
    pop eax
    or [ebp + 28], eax
    pop eax
    mov [ebp + 32], eax
    pop eax
    mov [ebp + 48], eax
    mov eax, cr2
    mov [ebp + 40], eax
    mov esp, [paging_visit + 24]
    add dword ptr [paging_visit + 4], {step_size}
    mov esi, [paging_visit + 12]
    mov ecx, [paging_visit + 16]
    mov edi, [paging_visit + 20]
4:  mov eax, [esi]
    mov eax, [eax]
    mov [edi], eax
    add esi, 4
    add edi, 4
    dec ecx
    jnz 4b
    add dword ptr [paging_visit + 20], {snapshot_size}
    jmp 1b
5:  popad
    ret
    .code64

    .section .bss.paging, "aw", @nobits
    .balign 8
    .global paging_visit
paging_visit:
    .skip 28
    .text
    "#,
    user_data = const segments::USER_DATA,
    step_size = const size_of::<Step>(),
    snapshot_size = const tables::MAX_WATCHED * 4,
);

/// Fills in the gates and the task state.
pub fn prepare() {
    let gates = GATES.get().cast::<u64>();
    let task = TASK_STATE.get().cast::<u8>();
    // SAFETY: this module's own tables, which nothing uses yet.
    unsafe {
        for vector in 0..32 {
            gates
                .add(vector)
                .write(switch::gate32(switch::mode_fault32 as *const () as usize, 0x8E));
        }
        let handlers = [
            (UD, paging_trap_ud as *const () as usize, 0x8E),
            (GP, paging_trap_gp as *const () as usize, 0x8E),
            (PF, paging_trap_pf as *const () as usize, 0x8E),
            (DONE, paging_trap_done as *const () as usize, 0xEE),
        ];
        for (vector, handler, kind) in handlers {
            gates.add(vector as usize).write(switch::gate32(handler, kind));
        }
        switch::set_idt(GATES.address());
        task.add(4).cast::<u32>().write_unaligned(RING0_STACK.address() as u32 + 4096);
        task.add(8).cast::<u32>().write_unaligned(KERNEL_DATA.into());
        task.add(102).cast::<u16>().write_unaligned(TASK_SIZE as u16);
    }
}

/// Makes the accesses with these control registers.
pub fn run(control: &ControlRegisters, steps: &mut [Step], snapshots: &mut Snapshots) {
    let bounds = steps.as_mut_ptr_range();
    let visit = Visit {
        cr3: control.cr3 as u32,
        step: bounds.start as u32,
        end: bounds.end as u32,
        watched: snapshots.watched.as_ptr() as u32,
        count: snapshots.count as u32,
        found: snapshots.found.as_mut_ptr() as u32,
        stack: 0,
    };
    let context = Context {
        entry: paging_protected as *const () as u32,
        cr0: control.cr0 as u32,
        cr3: tables::plain() as u32,
        cr4: control.cr4 as u32,
        task: TASK32.into(),
    };
    let before = cpu::rdmsr(EFER);
    let task = segments::task32_descriptor(TASK_STATE.address() as u32, TASK_SIZE as u32 - 1);
    segments::set_descriptor(TASK32, task);
    // SAFETY: both top tables map this program where it is, without bit 63 in any entry, and long
    // mode's task state is loaded again behind it. Steps and snapshots are this program's data and
    // are not touched meanwhile but by the code above.
    let ended = unsafe {
        paging_visit = visit;
        cpu::wrmsr(EFER, before & !efer::NXE | control.efer & efer::NXE);
        let ended = switch::mode_call(&raw const context);
        cpu::wrmsr(EFER, before);
        ended
    };
    segments::load(0);
    if ended != 1 {
        println!("not ok protected mode ended early, with {control:x?}");
    }
}

/// Whether the CPU loads the top entries of PAE paging with CR3, and so refuses bad ones then.
pub fn keeps_pointers() -> bool {
    const BAD: u64 = 1 << 62 | 1;
    tables::clear(Mode::Pae);
    tables::set(Mode::Pae, 0, 3, BAD);
    let control = ControlRegisters {
        cr0: cr0::PE | cr0::ET | cr0::NE | cr0::PG,
        cr3: tables::address(0),
        cr4: cr4::PAE,
        ..ControlRegisters::default()
    };
    let mut snapshots = Snapshots::new(Mode::Pae);
    // An access to this program's memory, through good entries.
    let mut steps = [Step {
        address: tables::DATA,
        instruction: super::access::user_page(),
        flags: 2,
        code: segments::USER_CODE32.into(),
        ..Step::default()
    }];
    run(&control, &mut steps, &mut snapshots);
    steps.iter().any(|step| step.vector == super::access::LOAD_FAULT)
}
