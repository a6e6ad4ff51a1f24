// SPDX-License-Identifier: MIT OR Apache-2.0
//! The Linux guest's `/init`: says when it was reached, then becomes `/etc/rc`.
//!
//! A static Linux program without a C library: the target `x86_64-unknown-none` makes an ELF
//! file that Linux runs as it is, so the guest image needs no second tool chain. The time stamp
//! is read by the first instruction of the first user process, before a shell has started; it is
//! printed as the marker line `@alcazar NONCE init TSC`. The line `@alcazar NONCE clock NS` follows,
//! with the kernel's own clock.
#![no_std]
#![no_main]

use core::arch::{asm, global_asm};
use core::panic::PanicInfo;

/// The script that does the rest.
const SCRIPT: &[u8] = b"/etc/rc\0";
/// Holds the nonce, if xtask put one there; without it nothing is printed.
const NONCE: &[u8] = b"/alcazar/nonce\0";
/// Length of the nonce in hexadecimal digits.
const NONCE_LENGTH: usize = 32;

// Linux system call numbers for x86-64 (arch/x86/entry/syscalls/syscall_64.tbl).
const SYS_READ: usize = 0;
const SYS_WRITE: usize = 1;
const SYS_OPEN: usize = 2;
const SYS_EXECVE: usize = 59;
const SYS_EXIT: usize = 60;
const SYS_CLOCK_GETTIME: usize = 228;

/// The clock that begins with the kernel (include/uapi/linux/time.h).
const CLOCK_MONOTONIC: usize = 1;

// The kernel enters with the argument count at RSP and RSP aligned to 16 bytes (System V ABI,
// AMD64 supplement, section 3.4.1).
global_asm!(
    ".global _start",
    "_start:",
    "rdtsc",
    "shl rdx, 32",
    "or rax, rdx",
    "mov rdi, rax",
    "mov rsi, rsp",
    "xor ebp, ebp",
    "call {main}",
    "ud2",
    main = sym main,
);

/// Makes a Linux system call with up to three arguments.
///
/// # Safety
/// The arguments must be what the call demands; pointers must be valid for its accesses.
unsafe fn syscall(number: usize, arguments: [usize; 3]) -> isize {
    let result: isize;
    // SAFETY: the kernel preserves all registers but RAX, RCX and R11; what the call does with
    // the arguments is the caller's promise.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number => result,
            in("rdi") arguments[0],
            in("rsi") arguments[1],
            in("rdx") arguments[2],
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result
}

fn write_console(bytes: &[u8]) {
    // SAFETY: the pointer and length are those of a live slice.
    unsafe { syscall(SYS_WRITE, [1, bytes.as_ptr() as usize, bytes.len()]) };
}

/// Reads the nonce of this run.
fn nonce() -> Option<[u8; NONCE_LENGTH]> {
    let mut text = [0; NONCE_LENGTH];
    // SAFETY: the path is terminated by a NUL; 0 is O_RDONLY.
    let file = usize::try_from(unsafe { syscall(SYS_OPEN, [NONCE.as_ptr() as usize, 0, 0]) });
    // SAFETY: the kernel writes at most `text.len()` bytes to `text`.
    let length = unsafe { syscall(SYS_READ, [file.ok()?, text.as_mut_ptr() as usize, text.len()]) };
    (usize::try_from(length) == Ok(NONCE_LENGTH)).then_some(text)
}

/// Nanoseconds of the kernel's clock.
fn clock() -> u64 {
    let mut time = [0_u64; 2];
    let to = time.as_mut_ptr() as usize;
    // SAFETY: the kernel writes a `timespec`, two numbers of 64 bits, to `time`.
    unsafe { syscall(SYS_CLOCK_GETTIME, [CLOCK_MONOTONIC, to, 0]) };
    let [seconds, nanoseconds] = time;
    seconds.wrapping_mul(1_000_000_000).wrapping_add(nanoseconds)
}

/// Text that is put together.
struct Text {
    bytes: [u8; 256],
    length: usize,
}

impl Text {
    fn add(&mut self, bytes: &[u8]) {
        for (to, from) in self.bytes.iter_mut().skip(self.length).zip(bytes) {
            *to = *from;
            self.length += 1;
        }
    }

    fn add_number(&mut self, number: u64) {
        let mut digits = [b'0'; 20];
        let mut rest = number;
        let mut used = 0;
        for digit in digits.iter_mut().rev() {
            *digit = b'0' + u8::try_from(rest % 10).unwrap_or(0);
            rest /= 10;
            used += 1;
            if rest == 0 {
                break;
            }
        }
        self.add(digits.get(digits.len() - used..).unwrap_or(&[]));
    }
}

/// Prints the marker lines.
fn print_stamp(tsc: u64) {
    let clock = clock();
    let Some(nonce) = nonce() else { return };
    // One write, so that no kernel message comes between.
    let mut text = Text { bytes: [0; 256], length: 0 };
    for (word, number) in [(b" init ".as_slice(), tsc), (b" clock ", clock)] {
        text.add(b"@alcazar ");
        text.add(&nonce);
        text.add(word);
        text.add_number(number);
        text.add(b"\n");
    }
    write_console(text.bytes.get(..text.length).unwrap_or(&[]));
}

/// Becomes the script, with the arguments and environment `/init` was started with.
///
/// `stack` is the initial stack: argument count, arguments, null, environment, null.
extern "sysv64" fn main(tsc: u64, stack: *const usize) -> ! {
    print_stamp(tsc);
    // SAFETY: the kernel put the count there, and `count` argument pointers and a null after it.
    let environment = unsafe { stack.add(*stack + 2) };
    // SAFETY: `stack + 1` and `environment` are null-terminated vectors of C strings.
    unsafe {
        let arguments = stack.add(1);
        syscall(SYS_EXECVE, [SCRIPT.as_ptr() as usize, arguments as usize, environment as usize]);
    }
    write_console(b"init: cannot run /etc/rc\n");
    exit()
}

fn exit() -> ! {
    loop {
        // SAFETY: exit takes an integer.
        unsafe { syscall(SYS_EXIT, [1, 0, 0]) };
    }
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    exit()
}
