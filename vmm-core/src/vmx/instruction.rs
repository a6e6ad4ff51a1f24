// SPDX-License-Identifier: MIT OR Apache-2.0
//! The VMX instructions (Intel SDM vol. 3, chapter 30).
//!
//! Each reports only whether it succeeded: what it refused is told by the VM-instruction
//! error field, where there is a current VMCS.

pub use hardware::{invept, invvpid, vmclear, vmptrld, vmread, vmwrite, vmxoff, vmxon};

/// Operand of INVEPT and INVVPID.
#[repr(C, align(16))]
pub struct InvalidationDescriptor(pub [u64; 2]);

/// Kinds of INVEPT and INVVPID that the library uses; both number them alike.
pub mod invalidation {
    /// One EPT pointer or VPID.
    pub const SINGLE_CONTEXT: u64 = 1;
    /// All of them.
    pub const ALL_CONTEXTS: u64 = 2;
}

#[cfg(not(test))]
mod hardware {
    use core::arch::asm;

    use super::InvalidationDescriptor;

    macro_rules! with_memory_operand {
        ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {$(
            $(#[$doc])*
            pub unsafe fn $name(region: u64) -> bool {
                let failed: u8;
                // SAFETY: the caller's promises; the operand is a local variable.
                unsafe {
                    asm!($text, "setna {failed}", region = in(reg) &raw const region,
                        failed = out(reg_byte) failed, options(nostack));
                }
                failed == 0
            }
        )*};
    }

    with_memory_operand! {
        /// Enters VMX operation.
        ///
        /// # Safety
        /// CR0, CR4 and IA32_FEATURE_CONTROL allow it, and `region` is the physical address of
        /// a VMXON region that this CPU alone uses until VMXOFF.
        vmxon = "vmxon [{region}]";
        /// Takes a VMCS off this CPU, its content complete in memory.
        ///
        /// # Safety
        /// The CPU is in VMX operation; `region` is the physical address of a VMCS that is
        /// current on no other CPU.
        vmclear = "vmclear [{region}]";
        /// Makes a VMCS current on this CPU.
        ///
        /// # Safety
        /// As for [`vmclear`], and the VMCS stays allocated until it is cleared.
        vmptrld = "vmptrld [{region}]";
    }

    /// Leaves VMX operation.
    ///
    /// # Safety
    /// The CPU is in VMX operation, and every VMCS was cleared.
    pub unsafe fn vmxoff() {
        // SAFETY: the caller's promise.
        unsafe { asm!("vmxoff", options(nostack)) }
    }

    /// Reads a field of the current VMCS; `None` if there is no such field.
    ///
    /// # Safety
    /// The CPU is in VMX operation with a current VMCS.
    #[inline]
    pub unsafe fn vmread(encoding: u32) -> Option<u64> {
        let (value, failed): (u64, u8);
        // SAFETY: the caller's promise; the destination is a register.
        unsafe {
            asm!("vmread {value}, {field}", "setna {failed}", field = in(reg) u64::from(encoding),
                value = out(reg) value, failed = out(reg_byte) failed, options(nostack));
        }
        (failed == 0).then_some(value)
    }

    /// Writes a field of the current VMCS; false if there is no such field.
    ///
    /// # Safety
    /// The CPU is in VMX operation with a current VMCS, and entering the guest with the value
    /// harms nobody but the guest.
    #[inline]
    pub unsafe fn vmwrite(encoding: u32, value: u64) -> bool {
        let failed: u8;
        // SAFETY: the caller's promise.
        unsafe {
            asm!("vmwrite {field}, {value}", "setna {failed}", field = in(reg) u64::from(encoding),
                value = in(reg) value, failed = out(reg_byte) failed, options(nostack));
        }
        failed == 0
    }

    /// Drops translations derived from nested page tables.
    ///
    /// # Safety
    /// The CPU is in VMX operation and has this kind of INVEPT.
    pub unsafe fn invept(kind: u64, descriptor: &InvalidationDescriptor) {
        // SAFETY: the caller's promise; dropping translations changes no memory.
        unsafe { asm!("invept {}, [{}]", in(reg) kind, in(reg) descriptor, options(nostack)) }
    }

    /// Drops translations tagged by a VPID.
    ///
    /// # Safety
    /// The CPU is in VMX operation and has this kind of INVVPID.
    pub unsafe fn invvpid(kind: u64, descriptor: &InvalidationDescriptor) {
        // SAFETY: the caller's promise; dropping translations changes no memory.
        unsafe { asm!("invvpid {}, [{}]", in(reg) kind, in(reg) descriptor, options(nostack)) }
    }
}

/// A VMCS in ordinary memory, one for each thread, so that the logic runs without VT-x.
#[cfg(test)]
mod hardware {
    use std::{cell::RefCell, collections::HashMap};

    use super::InvalidationDescriptor;

    thread_local! {
        static FIELDS: RefCell<HashMap<u32, u64>> = RefCell::default();
    }

    pub unsafe fn vmxon(_: u64) -> bool {
        true
    }

    pub unsafe fn vmxoff() {}

    pub unsafe fn vmclear(_: u64) -> bool {
        true
    }

    pub unsafe fn vmptrld(_: u64) -> bool {
        true
    }

    pub unsafe fn vmread(encoding: u32) -> Option<u64> {
        FIELDS.with_borrow(|fields| Some(fields.get(&encoding).copied().unwrap_or(0)))
    }

    pub unsafe fn vmwrite(encoding: u32, value: u64) -> bool {
        FIELDS.with_borrow_mut(|fields| fields.insert(encoding, value));
        true
    }

    pub unsafe fn invept(_: u64, _: &InvalidationDescriptor) {}

    pub unsafe fn invvpid(_: u64, _: &InvalidationDescriptor) {}
}
