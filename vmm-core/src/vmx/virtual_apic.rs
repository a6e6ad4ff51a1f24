// SPDX-License-Identifier: MIT OR Apache-2.0
//! The virtual-APIC page: what the CPU sees of a guest's local APIC (Intel SDM vol. 3, 29.1).

use core::{
    ptr::NonNull,
    sync::atomic::{AtomicU32, Ordering},
};

use host_iface::{Host, HostError, HostPhysAddr, PAGE_SIZE, PageRequest};

use crate::{
    apic::{InterruptState, VectorSet},
    memory::OwnedPages,
};

const TASK_PRIORITY: u16 = 0x80;
const IN_SERVICE: u16 = 0x100;
const LEVEL_TRIGGERED: u16 = 0x180;
const REQUESTED: u16 = 0x200;

/// A set of vectors fills so many registers.
const SET_REGISTERS: usize = 8;

/// A register and the unused bytes behind it.
#[repr(C, align(16))]
struct Register {
    value: AtomicU32,
}

const REGISTERS: usize = PAGE_SIZE as usize / size_of::<Register>();

/// A virtual-APIC page.
pub struct VirtualApic {
    page: OwnedPages,
    registers: NonNull<Register>,
    /// The sets in the page.
    held: InterruptState,
}

// SAFETY: the pointer leads into `page`, which may be sent; all that it leads to is atomic.
unsafe impl Send for VirtualApic {}

impl VirtualApic {
    /// A page of zeroes.
    ///
    /// # Errors
    /// What the host answers when memory runs out.
    pub fn new(host: &'static dyn Host) -> Result<Self, HostError> {
        let page = OwnedPages::zeroed(host, PageRequest::contiguous(1))?;
        let registers = page.as_ptr().cast();
        Ok(Self { page, registers, held: InterruptState::default() })
    }

    /// Physical address.
    pub fn address(&self) -> HostPhysAddr {
        self.page.address()
    }

    /// Size in bytes.
    pub fn bytes(&self) -> usize {
        self.page.bytes()
    }

    /// The register at `offset`, of which the four lowest bits do not matter.
    #[inline]
    pub fn register(&self, offset: u16) -> u32 {
        self.slot(number(offset)).load(Ordering::Relaxed)
    }

    /// Sets the register at `offset`.
    #[inline]
    pub fn set_register(&mut self, offset: u16, value: u32) {
        self.slot(number(offset)).store(value, Ordering::Relaxed);
    }

    /// Task priority.
    #[inline]
    pub fn task_priority(&self) -> u8 {
        self.register(TASK_PRIORITY) as u8
    }

    /// Sets the task priority.
    #[inline]
    pub fn set_task_priority(&mut self, priority: u8) {
        self.set_register(TASK_PRIORITY, priority.into());
    }

    /// Reads, after an exit, what the guest and the CPU have made of the interrupts.
    pub fn take_interrupts(&mut self) -> InterruptState {
        self.held.requested = self.set_at(REQUESTED);
        self.held.in_service = self.set_at(IN_SERVICE);
        self.held
    }

    /// The interrupts as they were last taken or set.
    pub fn interrupts(&self) -> &InterruptState {
        &self.held
    }

    /// Sets the interrupts; false if they are the same as before.
    pub fn set_interrupts(&mut self, state: &InterruptState) -> bool {
        if *state == self.held {
            return false;
        }
        let InterruptState { requested, in_service, level_triggered } = *state;
        for (offset, old, new) in [
            (REQUESTED, self.held.requested, requested),
            (IN_SERVICE, self.held.in_service, in_service),
            (LEVEL_TRIGGERED, self.held.level_triggered, level_triggered),
        ] {
            if old != new {
                for index in 0..SET_REGISTERS {
                    let slot = self.slot(number(offset) + index);
                    slot.store(new.register(index), Ordering::Relaxed);
                }
            }
        }
        self.held = *state;
        true
    }

    #[inline]
    fn set_at(&self, offset: u16) -> VectorSet {
        let first = number(offset);
        VectorSet::from_registers(core::array::from_fn(|index| {
            self.slot(first + index).load(Ordering::Relaxed)
        }))
    }

    #[inline]
    fn slot(&self, number: usize) -> &AtomicU32 {
        // SAFETY: inside the page, which is ours and lives as long as the reference; it is
        // accessed as aligned atomics alone, also by the CPU, which does so only while the
        // guest runs.
        unsafe { &self.registers.add(number % REGISTERS).as_ref().value }
    }
}

/// The number of the register at `offset`.
const fn number(offset: u16) -> usize {
    offset as usize / size_of::<Register>()
}

/// The guest interrupt status for these interrupts: the highest that is requested, and the
/// highest in service (Intel SDM vol. 3, 24.4.2). The CPU keeps it so.
pub fn interrupt_status(state: &InterruptState) -> u64 {
    let highest = |set: VectorSet| set.highest().map_or(0, |vector| u64::from(vector.0));
    highest(state.requested) | highest(state.in_service) << 8
}

#[cfg(test)]
mod tests {
    use host_mock::MockHost;

    use super::*;
    use crate::Vector;

    #[test]
    fn lies_in_memory_as_the_manual_says() {
        let mut apic = VirtualApic::new(MockHost::leak(1)).unwrap();
        let mut state = InterruptState::default();
        state.requested.insert(Vector(0x31));
        state.requested.insert(Vector(0xFE));
        state.in_service.insert(Vector(0x41));
        state.level_triggered.insert(Vector(0x20));
        apic.set_interrupts(&state);
        apic.set_task_priority(0x25);
        assert_eq!(apic.register(0x210), 1 << 17);
        assert_eq!(apic.register(0x270), 1 << 30);
        assert_eq!(apic.register(0x120), 1 << 1);
        assert_eq!(apic.register(0x190), 1);
        assert_eq!((apic.register(0x80), apic.task_priority()), (0x25, 0x25));
        assert_eq!(interrupt_status(&state), 0x41FE);
        assert_eq!(interrupt_status(&InterruptState::default()), 0);
    }

    #[test]
    fn gives_back_what_the_cpu_made_of_it() {
        let mut apic = VirtualApic::new(MockHost::leak(1)).unwrap();
        let mut state = InterruptState::default();
        state.requested.insert(Vector(0x31));
        apic.set_interrupts(&state);
        // Delivered, and another one sent to itself.
        apic.set_register(0x210, 1 << 18);
        apic.set_register(0x110, 1 << 17);
        let after = apic.take_interrupts();
        assert_eq!(after.requested.highest(), Some(Vector(0x32)));
        assert_eq!(after.in_service.highest(), Some(Vector(0x31)));
        apic.set_interrupts(&InterruptState::default());
        assert_eq!((apic.register(0x210), apic.register(0x110)), (0, 0));
    }
}
