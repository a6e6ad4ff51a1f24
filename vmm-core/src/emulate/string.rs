// SPDX-License-Identifier: MIT OR Apache-2.0
//! String instructions with and without repetition: MOVS, STOS, LODS, SCAS, CMPS, INS, OUTS.

use iced_x86::OpKind;

use super::Flow;
use super::bus::GuestBus;
use super::context::Context;
use super::cpu::EmulatorCpu;
use super::flags::sub;
use super::memory::Span;
use super::outcome::{Step, Stop};
use super::port::check_permission;
use super::register::{GprPart, segment_from_decoder};
use crate::access::AccessWidth;
use crate::address::{GuestPhysAddr, PAGE_SIZE};
use crate::paging::walk::AccessKind;
use crate::state::rflags::{DF, TF, ZF};
use crate::state::{Gpr, SegmentRegister};

/// String instructions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum StringOperation {
    Move,
    Store,
    Load,
    Scan,
    Compare,
    Input,
    Output,
}

/// Bytes after which a repeated instruction returns, so that interrupts can be taken.
const MAX_BYTES: u64 = PAGE_SIZE;

/// Elements after which INS and OUTS do so: each is an access to a device, and may take as long as
/// a log takes to write a line to a serial port.
const MAX_PORT_ACCESSES: u64 = 64;

/// One of the two pointers of a string instruction.
struct Stream {
    pointer: GprPart,
    segment: SegmentRegister,
    access: AccessKind,
    /// The page translated last: linear and guest-physical base.
    page: Option<(u64, GuestPhysAddr)>,
}

impl Stream {
    fn new(register: Gpr, segment: SegmentRegister, size: AccessWidth, access: AccessKind) -> Self {
        Self { pointer: GprPart::new(register, size), segment, access, page: None }
    }
}

/// A string instruction under way.
struct StringRun {
    operation: StringOperation,
    size: AccessWidth,
    source: Stream,
    destination: Stream,
}

/// How an iteration ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Iteration {
    Continue,
    /// REPE or REPNE met its condition.
    ConditionMet,
}

impl<C: EmulatorCpu, B: GuestBus> Context<'_, C, B> {
    /// Runs a string instruction of elements of `size`.
    pub fn string(&mut self, operation: StringOperation, size: AccessWidth) -> Step<Flow> {
        let mut run = self.prepare_string(operation, size)?;
        if matches!(operation, StringOperation::Input | StringOperation::Output) {
            check_permission(self, self.string_port(), size)?;
        }
        if !self.instruction.has_rep_prefix() && !self.instruction.has_repne_prefix() {
            self.iterate(&mut run)?;
            return Ok(Flow::Next);
        }
        self.repeat(&mut run)
    }

    /// Iterates until the count is used up, the condition is met, or the bound is reached.
    fn repeat(&mut self, run: &mut StringRun) -> Step<Flow> {
        let counter = GprPart::new(Gpr::Rcx, run.destination.pointer.size);
        let mut budget = match run.operation {
            StringOperation::Input | StringOperation::Output => {
                MAX_PORT_ACCESSES * run.size.length()
            }
            _ => MAX_BYTES,
        };
        let mut left = self.register(counter);
        while left != 0 {
            if budget < run.size.length() {
                return Ok(Flow::Again { iterated: true });
            }
            let iteration = match self.iterate(run) {
                Err(Stop::Contended) => return Ok(Flow::Again { iterated: false }),
                other => other?,
            };
            left -= 1;
            budget -= run.size.length();
            self.set_register(counter, left);
            if iteration == Iteration::ConditionMet {
                break;
            }
            if self.flag(TF) && left != 0 {
                return Ok(Flow::Again { iterated: true });
            }
        }
        Ok(Flow::Next)
    }

    fn prepare_string(&self, operation: StringOperation, size: AccessWidth) -> Step<StringRun> {
        use StringOperation::{Input, Move, Store};
        let address_size = self.string_address_size()?;
        let segment = segment_from_decoder(self.instruction.memory_segment());
        let written = matches!(operation, Move | Store | Input);
        let access = if written { AccessKind::Write } else { AccessKind::Read };
        let source_segment = segment.unwrap_or(SegmentRegister::Ds);
        Ok(StringRun {
            operation,
            size,
            source: Stream::new(Gpr::Rsi, source_segment, address_size, AccessKind::Read),
            destination: Stream::new(Gpr::Rdi, SegmentRegister::Es, address_size, access),
        })
    }

    fn string_address_size(&self) -> Step<AccessWidth> {
        for kind in self.instruction.op_kinds() {
            return Ok(match kind {
                OpKind::MemorySegSI | OpKind::MemoryESDI => AccessWidth::Word,
                OpKind::MemorySegESI | OpKind::MemoryESEDI => AccessWidth::Dword,
                OpKind::MemorySegRSI | OpKind::MemoryESRDI => AccessWidth::Qword,
                _ => continue,
            });
        }
        Err(Stop::Unsupported)
    }

    fn string_port(&self) -> u16 {
        self.register(GprPart::new(Gpr::Rdx, AccessWidth::Word)) as u16
    }

    /// One element. All that can fault comes before the first effect.
    fn iterate(&mut self, run: &mut StringRun) -> Step<Iteration> {
        let size = run.size;
        let accumulator = GprPart::new(Gpr::Rax, size);
        let mut iteration = Iteration::Continue;
        match run.operation {
            StringOperation::Move => {
                let source = self.element(&mut run.source, size)?;
                let destination = self.element(&mut run.destination, size)?;
                let value = self.read_span(&source)?;
                self.write_span(&destination, value)?;
            }
            StringOperation::Store => {
                let destination = self.element(&mut run.destination, size)?;
                self.write_span(&destination, self.register(accumulator))?;
            }
            StringOperation::Load => {
                let source = self.element(&mut run.source, size)?;
                let value = self.read_span(&source)?;
                self.set_register(accumulator, value);
            }
            StringOperation::Scan => {
                let destination = self.element(&mut run.destination, size)?;
                let value = self.read_span(&destination)?;
                iteration = self.compare_elements(self.register(accumulator), value, size);
            }
            StringOperation::Compare => {
                let source = self.element(&mut run.source, size)?;
                let destination = self.element(&mut run.destination, size)?;
                let (a, b) = (self.read_span(&source)?, self.read_span(&destination)?);
                iteration = self.compare_elements(a, b, size);
            }
            StringOperation::Input => {
                let destination = self.element(&mut run.destination, size)?;
                let value = self.bus.port_in(self.string_port(), size);
                self.write_span(&destination, u64::from(value))?;
            }
            StringOperation::Output => {
                let source = self.element(&mut run.source, size)?;
                let value = self.read_span(&source)?;
                self.bus.port_out(self.string_port(), size, value as u32);
            }
        }
        self.advance_string(run);
        Ok(iteration)
    }

    /// Sets the flags; REPE goes on while elements are equal, REPNE while they differ.
    fn compare_elements(&mut self, a: u64, b: u64, size: AccessWidth) -> Iteration {
        self.apply(sub(a, b, false, size).1);
        if self.flag(ZF) == self.instruction.has_repne_prefix() {
            Iteration::ConditionMet
        } else {
            Iteration::Continue
        }
    }

    /// Moves the pointers the instruction uses by an element.
    fn advance_string(&mut self, run: &StringRun) {
        use StringOperation::{Compare, Input, Load, Move, Output, Scan, Store};
        let bytes = run.size.length();
        let step = if self.flag(DF) { bytes.wrapping_neg() } else { bytes };
        if matches!(run.operation, Move | Load | Compare | Output) {
            self.move_pointer(run.source.pointer, step);
        }
        if matches!(run.operation, Move | Store | Scan | Compare | Input) {
            self.move_pointer(run.destination.pointer, step);
        }
    }

    fn move_pointer(&mut self, pointer: GprPart, step: u64) {
        let value = self.register(pointer).wrapping_add(step);
        self.set_register(pointer, value);
    }

    /// The next element of `stream`; its page is walked only once.
    fn element(&mut self, stream: &mut Stream, size: AccessWidth) -> Step<Span> {
        let offset = self.register(stream.pointer);
        let bytes = size.length();
        let linear = self.linear(stream.segment, offset, bytes, stream.access)?;
        let in_page = linear % PAGE_SIZE;
        let (base, fits) = (linear - in_page, in_page + bytes <= PAGE_SIZE);
        if let (Some((page, address)), true) = (stream.page, fits)
            && page == base
        {
            self.check_alignment(linear, bytes)?;
            return Ok(Span::single(GuestPhysAddr::new(address.as_u64() + in_page), bytes));
        }
        let span = self.span(stream.segment, offset, bytes, stream.access)?;
        stream.page = fits.then(|| (base, span.first_page()));
        Ok(span)
    }
}
