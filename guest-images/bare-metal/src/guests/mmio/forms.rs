// SPDX-License-Identifier: MIT OR Apache-2.0
//! Instruction forms with one memory operand: widths, registers, immediates, locks, addressing.

use super::oracle::{ALL, BIT, INTO, LOGIC, Layout, OUT_OF, WITHIN};
use crate::rt::cpu;
use crate::rt::report::Report;
use crate::rt::trap::Place;

const FS_BASE: u32 = 0xC000_0100;
const GS_BASE: u32 = 0xC000_0101;

pub fn run(report: &mut Report) {
    for (name, layout) in [("device:", WITHIN), ("into device:", INTO), ("out of device:", OUT_OF)]
    {
        moves(report, name, layout);
        arithmetic(report, name, layout);
        logic(report, name, layout);
    }
    stack(report);
    bits(report);
    bit_strings(report);
    locked(report);
    addressing(report);
    privilege(report);
}

fn moves(report: &mut Report, name: &str, layout: Layout) {
    each!(
        report,
        name,
        layout,
        ALL,
        Place::KERNEL,
        [
            "mov al, byte ptr [rdi]",
            "mov byte ptr [rdi], al",
            "mov cl, byte ptr [rdi]",
            "mov byte ptr [rdi], cl",
            "mov dh, byte ptr [rdi]",
            "mov byte ptr [rdi], dh",
            "mov byte ptr [rdi], 0x5A",
            "xchg byte ptr [rdi], dl",
            "mov ax, word ptr [rdi]",
            "mov word ptr [rdi], ax",
            "mov dx, word ptr [rdi]",
            "mov word ptr [rdi], dx",
            "mov word ptr [rdi], 0x5AA5",
            "xchg word ptr [rdi], dx",
            "mov eax, dword ptr [rdi]",
            "mov dword ptr [rdi], eax",
            "mov edx, dword ptr [rdi]",
            "mov dword ptr [rdi], edx",
            "mov dword ptr [rdi], 0x7AA5C33C",
            "xchg dword ptr [rdi], edx",
            "mov rax, qword ptr [rdi]",
            "mov qword ptr [rdi], rax",
            "mov rdx, qword ptr [rdi]",
            "mov qword ptr [rdi], rdx",
            "mov qword ptr [rdi], -0x12345678",
            "xchg qword ptr [rdi], rdx",
            "mov ah, byte ptr [rdi]",
            "mov byte ptr [rdi], ch",
            "xchg byte ptr [rdi], dh",
            "movzx eax, byte ptr [rdi]",
            "movzx ax, byte ptr [rdi]",
            "movzx rax, byte ptr [rdi]",
            "movzx eax, word ptr [rdi]",
            "movzx rax, word ptr [rdi]",
            "movsx eax, byte ptr [rdi]",
            "movsx ax, byte ptr [rdi]",
            "movsx rax, byte ptr [rdi]",
            "movsx eax, word ptr [rdi]",
            "movsx rax, word ptr [rdi]",
            "movsxd rax, dword ptr [rdi]",
        ]
    );
}

fn arithmetic(report: &mut Report, name: &str, layout: Layout) {
    each!(
        report,
        name,
        layout,
        ALL,
        Place::KERNEL,
        [
            "add byte ptr [rdi], dl",
            "add al, byte ptr [rdi]",
            "add byte ptr [rdi], 0x5A",
            "add word ptr [rdi], dx",
            "add ax, word ptr [rdi]",
            "add word ptr [rdi], 0x5AA5",
            "add word ptr [rdi], -7",
            "add dword ptr [rdi], edx",
            "add eax, dword ptr [rdi]",
            "add dword ptr [rdi], 0x7AA5C33C",
            "add dword ptr [rdi], -7",
            "add qword ptr [rdi], rdx",
            "add rax, qword ptr [rdi]",
            "add qword ptr [rdi], -0x12345678",
            "add qword ptr [rdi], -7",
            "add ch, byte ptr [rdi]",
            "adc byte ptr [rdi], dl",
            "adc al, byte ptr [rdi]",
            "adc byte ptr [rdi], 0x5A",
            "adc word ptr [rdi], dx",
            "adc ax, word ptr [rdi]",
            "adc word ptr [rdi], 0x5AA5",
            "adc word ptr [rdi], -7",
            "adc dword ptr [rdi], edx",
            "adc eax, dword ptr [rdi]",
            "adc dword ptr [rdi], 0x7AA5C33C",
            "adc dword ptr [rdi], -7",
            "adc qword ptr [rdi], rdx",
            "adc rax, qword ptr [rdi]",
            "adc qword ptr [rdi], -0x12345678",
            "adc qword ptr [rdi], -7",
            "adc ch, byte ptr [rdi]",
            "sub byte ptr [rdi], dl",
            "sub al, byte ptr [rdi]",
            "sub byte ptr [rdi], 0x5A",
            "sub word ptr [rdi], dx",
            "sub ax, word ptr [rdi]",
            "sub word ptr [rdi], 0x5AA5",
            "sub word ptr [rdi], -7",
            "sub dword ptr [rdi], edx",
            "sub eax, dword ptr [rdi]",
            "sub dword ptr [rdi], 0x7AA5C33C",
            "sub dword ptr [rdi], -7",
            "sub qword ptr [rdi], rdx",
            "sub rax, qword ptr [rdi]",
            "sub qword ptr [rdi], -0x12345678",
            "sub qword ptr [rdi], -7",
            "sub ch, byte ptr [rdi]",
            "sbb byte ptr [rdi], dl",
            "sbb al, byte ptr [rdi]",
            "sbb byte ptr [rdi], 0x5A",
            "sbb word ptr [rdi], dx",
            "sbb ax, word ptr [rdi]",
            "sbb word ptr [rdi], 0x5AA5",
            "sbb word ptr [rdi], -7",
            "sbb dword ptr [rdi], edx",
            "sbb eax, dword ptr [rdi]",
            "sbb dword ptr [rdi], 0x7AA5C33C",
            "sbb dword ptr [rdi], -7",
            "sbb qword ptr [rdi], rdx",
            "sbb rax, qword ptr [rdi]",
            "sbb qword ptr [rdi], -0x12345678",
            "sbb qword ptr [rdi], -7",
            "sbb ch, byte ptr [rdi]",
            "cmp byte ptr [rdi], dl",
            "cmp al, byte ptr [rdi]",
            "cmp byte ptr [rdi], 0x5A",
            "cmp word ptr [rdi], dx",
            "cmp ax, word ptr [rdi]",
            "cmp word ptr [rdi], 0x5AA5",
            "cmp word ptr [rdi], -7",
            "cmp dword ptr [rdi], edx",
            "cmp eax, dword ptr [rdi]",
            "cmp dword ptr [rdi], 0x7AA5C33C",
            "cmp dword ptr [rdi], -7",
            "cmp qword ptr [rdi], rdx",
            "cmp rax, qword ptr [rdi]",
            "cmp qword ptr [rdi], -0x12345678",
            "cmp qword ptr [rdi], -7",
            "cmp ch, byte ptr [rdi]",
            "inc byte ptr [rdi]",
            "dec byte ptr [rdi]",
            "neg byte ptr [rdi]",
            "not byte ptr [rdi]",
            "xadd byte ptr [rdi], dl",
            "cmpxchg byte ptr [rdi], dl",
            "inc word ptr [rdi]",
            "dec word ptr [rdi]",
            "neg word ptr [rdi]",
            "not word ptr [rdi]",
            "xadd word ptr [rdi], dx",
            "cmpxchg word ptr [rdi], dx",
            "inc dword ptr [rdi]",
            "dec dword ptr [rdi]",
            "neg dword ptr [rdi]",
            "not dword ptr [rdi]",
            "xadd dword ptr [rdi], edx",
            "cmpxchg dword ptr [rdi], edx",
            "inc qword ptr [rdi]",
            "dec qword ptr [rdi]",
            "neg qword ptr [rdi]",
            "not qword ptr [rdi]",
            "xadd qword ptr [rdi], rdx",
            "cmpxchg qword ptr [rdi], rdx",
        ]
    );
}

fn logic(report: &mut Report, name: &str, layout: Layout) {
    each!(
        report,
        name,
        layout,
        LOGIC,
        Place::KERNEL,
        [
            "and byte ptr [rdi], dl",
            "and al, byte ptr [rdi]",
            "and byte ptr [rdi], 0x5A",
            "and word ptr [rdi], dx",
            "and ax, word ptr [rdi]",
            "and word ptr [rdi], 0x5AA5",
            "and word ptr [rdi], -7",
            "and dword ptr [rdi], edx",
            "and eax, dword ptr [rdi]",
            "and dword ptr [rdi], 0x7AA5C33C",
            "and dword ptr [rdi], -7",
            "and qword ptr [rdi], rdx",
            "and rax, qword ptr [rdi]",
            "and qword ptr [rdi], -0x12345678",
            "and qword ptr [rdi], -7",
            "and ch, byte ptr [rdi]",
            "or byte ptr [rdi], dl",
            "or al, byte ptr [rdi]",
            "or byte ptr [rdi], 0x5A",
            "or word ptr [rdi], dx",
            "or ax, word ptr [rdi]",
            "or word ptr [rdi], 0x5AA5",
            "or word ptr [rdi], -7",
            "or dword ptr [rdi], edx",
            "or eax, dword ptr [rdi]",
            "or dword ptr [rdi], 0x7AA5C33C",
            "or dword ptr [rdi], -7",
            "or qword ptr [rdi], rdx",
            "or rax, qword ptr [rdi]",
            "or qword ptr [rdi], -0x12345678",
            "or qword ptr [rdi], -7",
            "or ch, byte ptr [rdi]",
            "xor byte ptr [rdi], dl",
            "xor al, byte ptr [rdi]",
            "xor byte ptr [rdi], 0x5A",
            "xor word ptr [rdi], dx",
            "xor ax, word ptr [rdi]",
            "xor word ptr [rdi], 0x5AA5",
            "xor word ptr [rdi], -7",
            "xor dword ptr [rdi], edx",
            "xor eax, dword ptr [rdi]",
            "xor dword ptr [rdi], 0x7AA5C33C",
            "xor dword ptr [rdi], -7",
            "xor qword ptr [rdi], rdx",
            "xor rax, qword ptr [rdi]",
            "xor qword ptr [rdi], -0x12345678",
            "xor qword ptr [rdi], -7",
            "xor ch, byte ptr [rdi]",
            "test byte ptr [rdi], dl",
            "test byte ptr [rdi], 0x5A",
            "test word ptr [rdi], dx",
            "test word ptr [rdi], 0x5AA5",
            "test dword ptr [rdi], edx",
            "test dword ptr [rdi], 0x7AA5C33C",
            "test qword ptr [rdi], rdx",
            "test qword ptr [rdi], -0x12345678",
        ]
    );
}

/// The stack is memory, the operand is not.
fn stack(report: &mut Report) {
    each!(
        report,
        "device:",
        WITHIN,
        ALL,
        Place::KERNEL,
        [
            "push qword ptr [rdi]; pop rax",
            "push word ptr [rdi]; pop ax",
            "push rdx; pop qword ptr [rdi]",
            "push dx; pop word ptr [rdi]",
        ]
    );
}

fn bits(report: &mut Report) {
    each!(
        report,
        "device:",
        WITHIN,
        BIT,
        Place::KERNEL,
        [
            "bt word ptr [rdi], 13",
            "bt dword ptr [rdi], 13",
            "bt qword ptr [rdi], 13",
            "bts word ptr [rdi], 13",
            "bts dword ptr [rdi], 13",
            "bts qword ptr [rdi], 13",
            "btr word ptr [rdi], 13",
            "btr dword ptr [rdi], 13",
            "btr qword ptr [rdi], 13",
            "btc word ptr [rdi], 13",
            "btc dword ptr [rdi], 13",
            "btc qword ptr [rdi], 13",
        ]
    );
}

/// A bit number in a register reaches beyond the operand; it stays within the device here.
fn bit_strings(report: &mut Report) {
    each!(
        report,
        "device:",
        WITHIN,
        BIT,
        Place::KERNEL,
        [
            "mov ecx, 77; bt dword ptr [rdi], ecx",
            "mov ecx, 77; bts dword ptr [rdi], ecx",
            "mov rcx, -3; btr qword ptr [rdi], rcx",
            "mov cx, -20; btc word ptr [rdi], cx",
        ]
    );
}

fn locked(report: &mut Report) {
    each!(
        report,
        "device:",
        WITHIN,
        ALL,
        Place::KERNEL,
        [
            "lock add byte ptr [rdi], dl",
            "lock add dword ptr [rdi], edx",
            "lock add qword ptr [rdi], rdx",
            "lock adc byte ptr [rdi], dl",
            "lock adc dword ptr [rdi], edx",
            "lock adc qword ptr [rdi], rdx",
            "lock sub byte ptr [rdi], dl",
            "lock sub dword ptr [rdi], edx",
            "lock sub qword ptr [rdi], rdx",
            "lock sbb byte ptr [rdi], dl",
            "lock sbb dword ptr [rdi], edx",
            "lock sbb qword ptr [rdi], rdx",
            "lock inc byte ptr [rdi]",
            "lock inc dword ptr [rdi]",
            "lock inc qword ptr [rdi]",
            "lock dec byte ptr [rdi]",
            "lock dec dword ptr [rdi]",
            "lock dec qword ptr [rdi]",
            "lock neg byte ptr [rdi]",
            "lock neg dword ptr [rdi]",
            "lock neg qword ptr [rdi]",
            "lock not byte ptr [rdi]",
            "lock not dword ptr [rdi]",
            "lock not qword ptr [rdi]",
            "lock xadd byte ptr [rdi], dl",
            "lock xadd dword ptr [rdi], edx",
            "lock xadd qword ptr [rdi], rdx",
            "lock cmpxchg byte ptr [rdi], dl",
            "lock cmpxchg dword ptr [rdi], edx",
            "lock cmpxchg qword ptr [rdi], rdx",
        ]
    );
    each!(
        report,
        "device:",
        WITHIN,
        LOGIC,
        Place::KERNEL,
        [
            "lock and byte ptr [rdi], dl",
            "lock and dword ptr [rdi], edx",
            "lock and qword ptr [rdi], rdx",
            "lock or byte ptr [rdi], dl",
            "lock or dword ptr [rdi], edx",
            "lock or qword ptr [rdi], rdx",
            "lock xor byte ptr [rdi], dl",
            "lock xor dword ptr [rdi], edx",
            "lock xor qword ptr [rdi], rdx",
        ]
    );
    each!(
        report,
        "device:",
        WITHIN,
        BIT,
        Place::KERNEL,
        [
            "lock bts dword ptr [rdi], 5",
            "lock btr dword ptr [rdi], 5",
            "lock btc dword ptr [rdi], 5",
        ]
    );
}

fn addressing(report: &mut Report) {
    // SAFETY: this program does not use FS and GS.
    unsafe {
        cpu::wrmsr(FS_BASE, WITHIN.at - 0x20);
        cpu::wrmsr(GS_BASE, WITHIN.at + 0x20);
    }
    each!(
        report,
        "address:",
        WITHIN,
        ALL,
        Place::KERNEL,
        [
            "mov eax, fs:[0x20]",
            "mov fs:[0x20], rax",
            "add edx, gs:[-0x20]",
            "mov ecx, 3; mov eax, [rdi + rcx * 4 - 12]",
            "mov ecx, 1; mov [rdi + rcx * 8 - 8], dl",
            "mov rcx, -2; movzx eax, word ptr [rdi + rcx * 2 + 4]",
            "mov eax, [rip + near_device]",
            "mov [rip + near_device], rdx",
            "mov dword ptr [rip + near_device], 0x12345678",
            "cmp byte ptr [rip + near_device], 0x12",
            "mov eax, dword ptr [0x40100100]",
            "movabs al, byte ptr [0x40100100]",
            "movabs eax, dword ptr [0x40100100]",
            "movabs qword ptr [0x40100100], rax",
            "bts rdi, 40; mov eax, [edi]; btr rdi, 40",
            "mov r14, rdi; bts rdi, 40; add [edi], dx; mov rdi, r14",
            "mov r14, rdi; mov r15, [r14]; mov rax, r15",
            "mov r14, rdi; mov r15, rdx; xchg r15b, [r14]; mov rax, r15",
            "mov r14, rdi; mov sil, [r14]",
            "mov r14, rdi; mov r15, rdx; and [r14], r15d",
            "rex64 mov eax, [rdi]",
            "xchg rsp, rdi; mov eax, [rsp]; xchg rsp, rdi",
        ]
    );
}

fn privilege(report: &mut Report) {
    each!(
        report,
        "user:",
        WITHIN,
        ALL,
        Place::USER,
        [
            "mov eax, [rdi]",
            "mov [rdi], rdx",
            "xchg [rdi], edx",
            "add byte ptr [rdi], dl",
            "movsx eax, word ptr [rdi]",
        ]
    );
}
