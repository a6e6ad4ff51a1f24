// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a device is to the VMM.
//!
//! Devices run on the vCPUs' threads, several at once, and therefore take `&self` and hold a
//! lock of their own. A device never calls back into the bus that called it.

use crate::{AccessWidth, Vector, VmInstant};

/// A device that answers in I/O port space.
pub trait PortDevice: Send + Sync {
    /// Name for messages and for the report.
    fn name(&self) -> &str;

    /// The widest access the device takes whole; the bus splits wider ones into bytes. It is
    /// asked once, when the device gets its ports.
    fn widest(&self) -> AccessWidth {
        AccessWidth::Byte
    }

    /// Reads `width` at `offset` from the start of the claimed range. `None` means that
    /// nothing answers there: the guest reads all ones.
    fn read_port(&self, offset: u16, width: AccessWidth) -> Option<u32>;

    /// Writes the low `width` of `value`. False means that nothing answers there; the write
    /// is dropped and counted.
    fn write_port(&self, offset: u16, width: AccessWidth, value: u32) -> bool;
}

/// A device that answers at guest-physical addresses.
pub trait MmioDevice: Send + Sync {
    /// Name for messages and for the report.
    fn name(&self) -> &str;

    /// Reads `width` at `offset` from the start of the claimed range; the access does not
    /// cross its end. `None` means that nothing answers there: the guest reads all ones.
    fn read_mmio(&self, offset: u64, width: AccessWidth) -> Option<u64>;

    /// Writes the low `width` of `value`. False means that nothing answers there; the write
    /// is dropped and counted.
    fn write_mmio(&self, offset: u64, width: AccessWidth, value: u64) -> bool;
}

/// A device that armed a [`Timer`](crate::Timer).
pub trait TimerClient: Send + Sync {
    /// The armed moment has come; `now` is not before it. The timer is disarmed by then and
    /// may be armed again.
    fn timer_expired(&self, now: VmInstant);
}

/// A device with a peer in the host: the console, for example.
pub trait HostEventClient: Send + Sync {
    /// Called on the first vCPU's thread after its [`Doorbell`](crate::Doorbell) was rung or
    /// the host interrupted it, so that the device can look for what has arrived. Cheap when
    /// nothing has. An interrupt that comes while the VMM works is no event: a host that has
    /// news rings.
    fn host_event(&self);
}

/// A controller with interrupt inputs.
pub trait InterruptInputs: Send + Sync {
    /// Sets the electrical state of `input`; unknown inputs are ignored.
    fn set_input(&self, input: u32, asserted: bool);
}

/// A controller that hands out vectors by interrupt acknowledge cycles: the 8259A pair.
pub trait ExternalInterruptSource: Send + Sync {
    /// True while the INTR output is asserted.
    fn pending(&self) -> bool;

    /// True if INTR became asserted since the last call. It rings then, but not when INTR is
    /// deasserted, so that looks at the level do not show every edge.
    fn take_rise(&self) -> bool;

    /// Performs the acknowledge cycle. `None` if nothing is pending at all; a controller that
    /// has lost its request answers with its spurious vector.
    fn acknowledge(&self) -> Option<Vector>;
}

/// A controller that hears of the end of level-triggered interrupts: the I/O APIC.
pub trait EoiObserver: Send + Sync {
    /// A local APIC broadcasts the end of level-triggered interrupt `vector`.
    fn end_of_interrupt(&self, vector: Vector);
}
