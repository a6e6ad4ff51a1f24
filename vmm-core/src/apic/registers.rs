// SPDX-License-Identifier: MIT OR Apache-2.0
//! The registers that xAPIC and x2APIC mode share, numbered by their MMIO offset / 16 (Intel
//! SDM vol. 3, table 11-6).

use super::{
    LocalApic,
    bus::x2apic_logical_id,
    local::{SVR_ENABLED, SVR_SUPPRESS_EOI},
    lvt::{LvtEntry, MAX_ENTRY},
    timer::TimerMode,
};

pub(super) const ID: u32 = 0x02;
pub(super) const VERSION: u32 = 0x03;
pub(super) const TPR: u32 = 0x08;
pub(super) const APR: u32 = 0x09;
pub(super) const PPR: u32 = 0x0A;
pub(super) const EOI: u32 = 0x0B;
pub(super) const RRD: u32 = 0x0C;
pub(super) const LDR: u32 = 0x0D;
pub(super) const DFR: u32 = 0x0E;
pub(super) const SVR: u32 = 0x0F;
pub(super) const ISR: u32 = 0x10;
pub(super) const ISR_LAST: u32 = 0x17;
pub(super) const TMR: u32 = 0x18;
pub(super) const TMR_LAST: u32 = 0x1F;
pub(super) const IRR: u32 = 0x20;
pub(super) const IRR_LAST: u32 = 0x27;
pub(super) const ESR: u32 = 0x28;
pub(super) const ICR_LOW: u32 = 0x30;
pub(super) const ICR_HIGH: u32 = 0x31;
pub(super) const LVT_TIMER: u32 = 0x32;
pub(super) const LVT_ERROR: u32 = 0x37;
pub(super) const INITIAL_COUNT: u32 = 0x38;
pub(super) const CURRENT_COUNT: u32 = 0x39;
pub(super) const DIVIDE: u32 = 0x3E;
pub(super) const SELF_IPI: u32 = 0x3F;

/// Version of an integrated local APIC (Intel SDM vol. 3, 11.4.8).
const VERSION_NUMBER: u32 = 0x14;
const VERSION_DIRECTED_EOI: u32 = 1 << 24;

impl LocalApic {
    /// True if a write to the register at `offset` in the page (the MSR's number less that of the
    /// first, times 16) changes for the owner nothing but the interrupts that wait and are in
    /// service, the task priority and [the deadline](Self::next_deadline).
    #[inline]
    pub const fn is_confined(offset: u64) -> bool {
        const LAST: u64 = (SELF_IPI as u64) << 4;
        offset <= LAST
            && matches!(
                (offset >> 4) as u32,
                TPR | EOI
                    | ESR
                    | ICR_LOW
                    | ICR_HIGH
                    | LVT_TIMER
                    | INITIAL_COUNT
                    | DIVIDE
                    | SELF_IPI
            )
    }

    /// The value of register `index`; `None` if there is none.
    pub(super) fn read_register(&mut self, index: u32, x2apic: bool) -> Option<u32> {
        let value = match index {
            ID if x2apic => self.config.id,
            ID => self.config.id << 24,
            VERSION => self.version(),
            TPR => u32::from(self.tpr),
            APR => u32::from(self.apr()),
            PPR => u32::from(self.ppr()),
            EOI | RRD => 0,
            LDR if x2apic => x2apic_logical_id(self.config.id),
            LDR => u32::from(self.logical_id) << 24,
            DFR => {
                if self.flat {
                    u32::MAX
                } else {
                    0x0FFF_FFFF
                }
            }
            SVR => self.svr,
            ISR..=ISR_LAST => self.isr.register((index - ISR) as usize),
            TMR..=TMR_LAST => {
                self.collect();
                self.tmr.register((index - TMR) as usize)
            }
            IRR..=IRR_LAST => {
                self.collect();
                self.irr.register((index - IRR) as usize)
            }
            ESR => self.errors,
            ICR_LOW => self.icr as u32,
            ICR_HIGH => (self.icr >> 32) as u32,
            LVT_TIMER..=LVT_ERROR => self.lvt.get(LvtEntry::from_register(index)?),
            INITIAL_COUNT => self.timer.initial(),
            CURRENT_COUNT => self.current_count(),
            DIVIDE => self.timer.divide(),
            _ => return None,
        };
        Some(value)
    }

    /// Writes register `index`; false if there is none that can be written. The command
    /// register and the self-IPI are the callers' business.
    pub(super) fn write_register(&mut self, index: u32, value: u32) -> bool {
        match index {
            TPR => self.set_tpr(value as u8),
            EOI => self.end_of_interrupt(),
            LDR => {
                self.logical_id = (value >> 24) as u8;
                self.publish();
            }
            DFR => {
                self.flat = value >> 28 == 0xF;
                self.publish();
            }
            SVR => self.write_svr(value),
            ESR => self.errors = core::mem::take(&mut self.new_errors),
            LVT_TIMER => self.write_lvt_timer(value),
            INITIAL_COUNT => {
                let now = self.config.host.tsc();
                self.timer.set_initial(value, now, self.timer_mode());
            }
            DIVIDE => {
                let now = self.config.host.tsc();
                self.expire(now);
                self.timer.set_divide(value, now, self.timer_mode());
            }
            _ => {
                let Some(entry) = LvtEntry::from_register(index) else { return false };
                self.lvt.set(entry, value, self.software_enabled());
            }
        }
        true
    }

    /// IA32_TSC_DEADLINE; zero unless the timer is in that mode and armed.
    pub(super) fn read_tsc_deadline(&mut self) -> u64 {
        if self.timer_mode() != TimerMode::TscDeadline {
            return 0;
        }
        self.expire(self.config.host.tsc());
        self.timer.guest_deadline()
    }

    #[inline]
    pub(super) fn write_tsc_deadline(&mut self, deadline: u64) {
        let mode = self.timer_mode();
        if mode == TimerMode::TscDeadline {
            let now = self.config.host.tsc();
            self.timer.set_guest_deadline(deadline, now, mode);
        }
    }

    #[inline]
    pub(super) fn timer_mode(&self) -> TimerMode {
        TimerMode::of(self.lvt.get(LvtEntry::Timer))
    }

    #[inline]
    pub(super) fn software_enabled(&self) -> bool {
        self.svr & SVR_ENABLED != 0
    }

    /// The bits of SVR that software can set.
    pub(super) fn svr_defined(&self) -> u32 {
        let suppress = if self.config.directed_eoi { SVR_SUPPRESS_EOI } else { 0 };
        0xFF | SVR_ENABLED | suppress
    }

    fn version(&self) -> u32 {
        let directed = if self.config.directed_eoi { VERSION_DIRECTED_EOI } else { 0 };
        VERSION_NUMBER | MAX_ENTRY << 16 | directed
    }

    /// Arbitration priority register (Intel SDM vol. 3, 11.6.2.4).
    fn apr(&mut self) -> u8 {
        self.collect();
        let requested = self.irr.highest().map_or(0, |v| v.0 >> 4);
        let in_service = self.isr.highest().map_or(0, |v| v.0 >> 4);
        let task = self.tpr >> 4;
        if task >= requested && task > in_service {
            self.tpr
        } else {
            task.max(requested).max(in_service) << 4
        }
    }

    fn current_count(&mut self) -> u32 {
        let now = self.config.host.tsc();
        self.expire(now);
        self.timer.current(now, self.timer_mode())
    }

    fn write_svr(&mut self, value: u32) {
        self.svr = value & self.svr_defined();
        if !self.software_enabled() {
            self.expire(self.config.host.tsc());
            self.lvt.mask_all();
        }
        self.publish();
    }

    /// Changes the timer's entry. What expired under the old entry is settled first, so that
    /// a moment that passed while the timer was masked is lost, as it is in hardware.
    fn write_lvt_timer(&mut self, value: u32) {
        self.expire(self.config.host.tsc());
        let from = self.timer_mode();
        self.lvt.set(LvtEntry::Timer, value, self.software_enabled());
        self.timer.change_mode(from, self.timer_mode());
    }
}
