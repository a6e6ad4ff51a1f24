// SPDX-License-Identifier: MIT OR Apache-2.0
//! Fetching and decoding the instruction at CS:RIP.

use iced_x86::{Decoder, DecoderError, DecoderOptions};

use super::bus::GuestBus;
use super::context::Context;
use super::cpu::{CodeSize, EmulatorCpu};
use super::outcome::{InstructionBytes, MAX_INSTRUCTION_LENGTH, Step, Stop};
use crate::address::{GuestVirtAddr, PAGE_SIZE};
use crate::paging::walk::AccessKind;
use crate::state::Exception;

impl<C: EmulatorCpu, B: GuestBus> Context<'_, C, B> {
    /// Decodes `bytes` if they hold the whole instruction, else fetches it. The next page is
    /// touched only if the instruction reaches it.
    pub fn fetch_and_decode(&mut self, bytes: Option<&[u8]>) -> Step<()> {
        if let Some(bytes) = bytes {
            self.take_bytes(bytes);
            if !bytes.is_empty() && self.decode()? {
                return Ok(());
            }
        }
        self.bytes.length = 0;
        self.fetch_page()?;
        if self.decode()? {
            return Ok(());
        }
        self.fetch_page()?;
        if self.decode()? { Ok(()) } else { Err(Exception::GENERAL_PROTECTION.into()) }
    }

    fn take_bytes(&mut self, bytes: &[u8]) {
        let length = bytes.len().min(MAX_INSTRUCTION_LENGTH);
        if let (Some(to), Some(from)) = (self.bytes.bytes.get_mut(..length), bytes.get(..length)) {
            to.copy_from_slice(from);
        }
        self.bytes.length = length as u8;
    }

    /// Appends bytes from the next page to those fetched, up to the longest instruction and
    /// the segment limit. Without a byte to add, the instruction exceeds one of the two.
    pub fn fetch_page(&mut self) -> Step<()> {
        let have = u64::from(self.bytes.length);
        let offset = self.mode.advance(self.cpu.rip(), have);
        let room = MAX_INSTRUCTION_LENGTH as u64 - have;
        let (linear, within) = if self.mode.is_64_bit() {
            (offset, room)
        } else {
            let left = (u64::from(self.cs.limit) + 1).saturating_sub(offset);
            (self.cs.base.wrapping_add(offset) & 0xFFFF_FFFF, left)
        };
        let in_page = PAGE_SIZE - linear % PAGE_SIZE;
        let count = room.min(within).min(in_page);
        if count == 0 || (self.mode.is_64_bit() && !GuestVirtAddr::new(linear).is_canonical()) {
            return Err(Exception::GENERAL_PROTECTION.into());
        }
        let address = self.translate(linear, AccessKind::Fetch)?;
        let end = (have + count) as usize;
        if let Some(buffer) = self.bytes.bytes.get_mut(have as usize..end) {
            self.bus
                .fetch(address, buffer)
                .map_err(|_| Stop::Bus { address, access: AccessKind::Fetch })?;
        }
        self.bytes.length = end as u8;
        Ok(())
    }

    /// Decodes the bytes fetched; false if they are only the beginning of an instruction.
    fn decode(&mut self) -> Step<bool> {
        let bitness = match self.mode.code {
            CodeSize::Bits16 => 16,
            CodeSize::Bits32 => 32,
            CodeSize::Bits64 => 64,
        };
        let bytes = self.bytes;
        // Guests see an AMD CPU: LOCK before a move to or from CR0 makes it CR8.
        let options = DecoderOptions::AMD;
        let decoder = Decoder::try_with_ip(bitness, bytes.as_slice(), self.cpu.rip(), options);
        let Ok(mut decoder) = decoder else { return Err(Stop::Unsupported) };
        decoder.decode_out(&mut self.instruction);
        match decoder.last_error() {
            DecoderError::None => Ok(true),
            DecoderError::NoMoreBytes => Ok(false),
            // So the decoder reports an instruction that does not end within 15 bytes.
            _ if decoder.position() == MAX_INSTRUCTION_LENGTH => {
                Err(Exception::GENERAL_PROTECTION.into())
            }
            _ => Err(Exception::INVALID_OPCODE.into()),
        }
    }
}

/// Length of the instruction at the start of `bytes` if it is one of the short ones that
/// usually exit, in 64-bit code also without a look at the mode: CPUID, HLT, RDMSR, WRMSR, RDTSC, INVD, WBINVD, CLTS, port I/O, moves to and
/// from control and debug registers, and the register forms of 0F 01 (VMMCALL, XSETBV, …).
#[inline]
pub fn length_of_common(bytes: &[u8]) -> Option<usize> {
    match *bytes {
        [0x0F, 0x06 | 0x08 | 0x09 | 0x30..=0x33 | 0xA2, ..] => Some(2),
        [0x0F, 0x20..=0x23, _, ..] | [0x0F, 0x01, 0xC0..=0xFF, ..] => Some(3),
        [0xEC..=0xEF | 0xF4, ..] => Some(1),
        [0xE4..=0xE7, _, ..] => Some(2),
        _ => None,
    }
}

impl<C: EmulatorCpu, B: GuestBus> Context<'_, C, B> {
    /// Length of the instruction at CS:RIP in bytes.
    pub fn instruction_length(&mut self, bytes: Option<&[u8]>) -> Step<usize> {
        if let Some(length) = bytes.and_then(length_of_common) {
            return Ok(length);
        }
        if bytes.is_none() {
            self.fetch_page()?;
            let fetched: InstructionBytes = self.bytes;
            if let Some(length) = length_of_common(fetched.as_slice()) {
                return Ok(length);
            }
            return self
                .fetch_and_decode(Some(fetched.as_slice()))
                .map(|()| self.instruction.len());
        }
        self.fetch_and_decode(bytes)?;
        Ok(self.instruction.len())
    }
}
