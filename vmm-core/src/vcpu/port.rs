// SPDX-License-Identifier: MIT OR Apache-2.0
//! Port I/O.

use super::Vcpu;
use crate::{
    AccessWidth, PortIo,
    backend::VcpuBackend,
    bus::Answer,
    emulate::Outcome,
    state::{Exception, Gpr},
    statistics::Unclaimed,
};

impl<V: VcpuBackend> Vcpu<V> {
    /// An access that is no string instruction's; without going on behind it.
    #[inline]
    pub(super) fn port_io(&mut self, io: PortIo) {
        let rax = self.hardware.gpr(Gpr::Rax);
        if io.is_input {
            let (value, answer) = self.core.ports.read(io.port, io.width);
            self.count_port(answer, Unclaimed::PortRead);
            // A 32-bit result clears the upper half; narrower ones leave the rest alone.
            let kept = match io.width {
                AccessWidth::Dword | AccessWidth::Qword => 0,
                narrow => rax & !narrow.all_ones(),
            };
            self.hardware.set_gpr(Gpr::Rax, kept | u64::from(value));
        } else {
            let answer = self.core.ports.write(io.port, io.width, rax as u32);
            self.count_port(answer, Unclaimed::PortWrite);
        }
    }

    /// INS and OUTS are emulated. What cannot be is another instruction, which another CPU of the
    /// guest has put in their place: the CPU executes it itself.
    pub(super) fn string_io(&mut self) -> Result<(), Exception> {
        match self.try_to_emulate() {
            Outcome::Unsupported(_) | Outcome::BusError { .. } => Ok(()),
            outcome => self.conclude(outcome),
        }
    }

    #[inline]
    fn count_port(&mut self, answer: Answer, kind: Unclaimed) {
        if answer == Answer::Nobody {
            self.statistics.count_unclaimed(kind);
        }
    }
}
