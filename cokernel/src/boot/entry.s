# SPDX-License-Identifier: MIT OR Apache-2.0
# From the boot loader's 32-bit protected mode to 64-bit Rust in the upper half.
#
# Both loaders enter with paging off, flat segments and a physical address in EBX:
# multiboot2 (specification 2.0, section 3.3) with 0x36D76289 in EAX, PVH (Xen,
# docs/misc/pvh.pandoc) with the hvm_start_info. The code is position independent up to
# the jump to the upper half; the image may lie on any 2 MiB boundary below 4 GiB.

.section .note.Xen, "a", @note
.balign 4
    .long 4                             # name size
    .long 4                             # descriptor size
    .long 18                            # XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .long __pvh_entry_physical

.section .boot, "ax"
boot_start:
.balign 8
multiboot2_header:
    .long 0xE85250D6
    .long 0                             # i386 protected mode
    .long multiboot2_header_end - multiboot2_header
    .long -(0xE85250D6 + 0 + (multiboot2_header_end - multiboot2_header))
.balign 8                               # entry address tag
    .short 3, 0
    .long 12
    .long __multiboot2_entry_physical
.balign 8                               # module alignment tag: modules on page boundaries
    .short 6, 0
    .long 8
.balign 8                               # end tag
    .short 0, 0
    .long 8
multiboot2_header_end:

.code32
.global cokernel_pvh_entry
cokernel_pvh_entry:
    mov edi, 1                          # BootProtocol::Pvh
    jmp find_load_address

.global cokernel_multiboot2_entry
cokernel_multiboot2_entry:
    mov edi, 2                          # BootProtocol::Multiboot2
    cmp eax, 0x36D76289
    jne hang

# There is no stack yet: CALL pushes onto the first word of the loader's structure, which
# is put back afterwards.
find_load_address:
    cli
    cld
    mov esi, ebx
    mov ecx, [ebx]
    lea esp, [ebx + 4]
    call here
here:
    pop ebp
    mov [ebx], ecx
    sub ebp, offset at_here
    lea esp, [ebp + at_scratch_stack_top]

    rdtsc
    mov [ebp + at_entry_tsc], eax
    mov [ebp + at_entry_tsc + 4], edx

    mov eax, 0x80000000
    cpuid
    cmp eax, 0x80000001
    jb hang
    mov eax, 0x80000001
    cpuid
    bt edx, 29                          # long mode
    jnc hang
    bt edx, 20                          # no-execute pages
    jnc hang

# Identity and direct map of the first 4 GiB, and 1 GiB at KERNEL_BASE from the image on.
    lea eax, [ebp + at_low_pdpt + 3]
    mov [ebp + at_boot_pml4], eax
    mov [ebp + at_boot_pml4 + 256 * 8], eax
    lea eax, [ebp + at_high_pdpt + 3]
    mov [ebp + at_boot_pml4 + 511 * 8], eax
    lea eax, [ebp + at_high_pd + 3]
    mov [ebp + at_high_pdpt + 510 * 8], eax

    lea ebx, [ebp + at_low_pdpt]
    lea eax, [ebp + at_low_pds + 3]
    mov ecx, 4
low_pdpt_entry:
    mov [ebx], eax
    add eax, 4096
    add ebx, 8
    loop low_pdpt_entry

    lea ebx, [ebp + at_low_pds]
    mov eax, 0x83                       # present, writable, 2 MiB
    mov ecx, 2048
low_pd_entry:
    mov [ebx], eax
    add eax, 0x200000
    add ebx, 8
    loop low_pd_entry

    lea ebx, [ebp + at_high_pd]
    lea eax, [ebp + 0x83]
    mov ecx, 512
high_pd_entry:
    mov [ebx], eax
    add eax, 0x200000
    add ebx, 8
    loop high_pd_entry

    mov eax, 0x20                       # CR4.PAE
    mov cr4, eax
    lea eax, [ebp + at_boot_pml4]
    mov cr3, eax
    mov ecx, 0xC0000080                 # EFER: LME, NXE
    rdmsr
    or eax, 0x900
    wrmsr
    mov eax, cr0
    and eax, 0x9FFFFFFF                 # caches on
    or eax, 0x80010001                  # PG, WP, PE
    mov cr0, eax

    lea eax, [ebp + at_boot_gdt]
    mov [ebp + at_boot_gdt_pointer + 2], eax
    lgdt [ebp + at_boot_gdt_pointer]
    push 8
    lea eax, [ebp + at_long_mode]
    push eax
    retf

hang:
    cli
    hlt
    jmp hang

.code64
long_mode:
    xor eax, eax
    mov ds, eax
    mov es, eax
    mov ss, eax
    mov fs, eax
    mov gs, eax
    mov edi, edi
    mov esi, esi
    mov edx, ebp
    mov ecx, ebp
    mov rcx, [rcx + at_entry_tsc]
    movabs rsp, offset __boot_stack_top
    xor ebp, ebp
    movabs rax, offset cokernel_boot
    call rax
    ud2

.balign 8
entry_tsc:
    .quad 0
boot_gdt:
    .quad 0
    .quad 0x00AF9B000000FFFF            # 64-bit code
boot_gdt_pointer:
    .short boot_gdt_pointer - boot_gdt - 1
    .quad 0
.balign 8
    .skip 64
scratch_stack_top:

.balign 4096
boot_pml4:  .skip 4096
low_pdpt:   .skip 4096
high_pdpt:  .skip 4096
high_pd:    .skip 4096
low_pds:    .skip 4 * 4096

# Offsets from the load address.
.set at_here, here - boot_start
.set at_scratch_stack_top, scratch_stack_top - boot_start
.set at_entry_tsc, entry_tsc - boot_start
.set at_low_pdpt, low_pdpt - boot_start
.set at_boot_pml4, boot_pml4 - boot_start
.set at_high_pdpt, high_pdpt - boot_start
.set at_high_pd, high_pd - boot_start
.set at_low_pds, low_pds - boot_start
.set at_boot_gdt, boot_gdt - boot_start
.set at_boot_gdt_pointer, boot_gdt_pointer - boot_start
.set at_long_mode, long_mode - boot_start
