// SPDX-License-Identifier: MIT OR Apache-2.0
//! Floating-point and vector state of a vCPU.
//!
//! The host is built without floating point, so the guest's state stays in the registers for
//! as long as its vCPU keeps the CPU, and is switched only when the vCPU comes or goes.

use core::arch::{asm, x86_64::__cpuid_count};

use host_iface::{Host, HostError, PAGE_SIZE, PageRequest};

use crate::{memory::OwnedPages, state::cr4};

/// Size of the FXSAVE image (AMD APM vol. 2, 11.4.4).
const FXSAVE_BYTES: u64 = 512;

/// XCR0 with x87 state alone: its value after reset.
pub const XCR0_RESET: u64 = 1;

/// Initial x87 control word and MXCSR (AMD APM vol. 2, 14.1.3).
const FCW_RESET: u16 = 0x0040;
const MXCSR_RESET: u32 = 0x1F80;

/// What the calling CPU can save.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FpuSupport {
    /// FXSAVE only.
    Fxsave,
    /// XSAVE.
    Xsave {
        /// Components that XCR0 can enable.
        components: u64,
        /// Size of an area that holds all of them, in bytes.
        bytes: u32,
    },
}

impl FpuSupport {
    /// Asks the calling CPU.
    pub fn probe() -> Self {
        const XSAVE: u32 = 1 << 26;
        if __cpuid_count(1, 0).ecx & XSAVE == 0 {
            return Self::Fxsave;
        }
        let leaf = __cpuid_count(0xD, 0);
        let components = u64::from(leaf.edx) << 32 | u64::from(leaf.eax);
        Self::Xsave { components, bytes: leaf.ecx }
    }

    /// The bits of CR4 that make all state accessible.
    pub const fn required_cr4(self) -> u64 {
        match self {
            Self::Fxsave => cr4::OSFXSR | cr4::OSXMMEXCPT,
            Self::Xsave { .. } => cr4::OSFXSR | cr4::OSXMMEXCPT | cr4::OSXSAVE,
        }
    }

    fn area_bytes(self) -> u64 {
        match self {
            Self::Fxsave => FXSAVE_BYTES,
            Self::Xsave { bytes, .. } => u64::from(bytes).max(FXSAVE_BYTES + 64),
        }
    }
}

/// The state of one vCPU: in its area, or in the registers of the CPU it is loaded on.
pub struct FpuState {
    support: FpuSupport,
    area: OwnedPages,
    xcr0: u64,
    host_xcr0: u64,
    loaded: bool,
}

impl FpuState {
    /// State as after reset.
    ///
    /// # Errors
    /// What the host answers when memory runs out.
    pub fn new(host: &'static dyn Host, support: FpuSupport) -> Result<Self, HostError> {
        let pages = support.area_bytes().div_ceil(PAGE_SIZE);
        let area = OwnedPages::allocate(host, PageRequest::contiguous(pages))?;
        let mut state =
            Self { support, area, xcr0: XCR0_RESET, host_xcr0: XCR0_RESET, loaded: false };
        state.write_reset_image();
        Ok(state)
    }

    /// Size of the area in bytes.
    pub fn bytes(&self) -> usize {
        self.area.bytes()
    }

    /// XCR0 as the guest set it.
    pub fn xcr0(&self) -> u64 {
        match self.support {
            // The register and not what was noted: QEMU 7.2 executes XSETBV in the guest
            // although the control block intercepts it.
            FpuSupport::Xsave { .. } if self.loaded => read_xcr0(),
            _ => self.xcr0,
        }
    }

    /// Sets XCR0, which was checked against what the CPU supports; at once if loaded.
    pub fn set_xcr0(&mut self, value: u64) {
        self.xcr0 = value;
        if self.loaded {
            self.write_xcr0(value);
        }
    }

    /// Brings the state into the registers of the calling CPU, whose CR4 has OSFXSR and, if
    /// there is XSAVE, OSXSAVE set, and whose CR0 has TS and EM clear.
    pub fn load(&mut self) {
        if let FpuSupport::Xsave { components, .. } = self.support {
            self.host_xcr0 = read_xcr0();
            self.write_xcr0(components);
        }
        self.restore();
        self.write_xcr0(self.xcr0);
        self.loaded = true;
    }

    /// Takes the state off the calling CPU and leaves reset state in its place.
    pub fn put(&mut self) {
        self.xcr0 = self.xcr0();
        if let FpuSupport::Xsave { components, .. } = self.support {
            // All components, whatever the guest enabled last: a disabled one keeps its data.
            self.write_xcr0(components);
        }
        self.save();
        let kept = self.header_and_legacy();
        self.write_reset_image();
        self.restore();
        self.set_header_and_legacy(&kept);
        self.write_xcr0(self.host_xcr0);
        self.loaded = false;
    }

    fn write_reset_image(&mut self) {
        let mut image = [0; LEGACY_AND_HEADER];
        image[..2].copy_from_slice(&FCW_RESET.to_le_bytes());
        image[24..28].copy_from_slice(&MXCSR_RESET.to_le_bytes());
        // XSTATE_BV stays zero: XRSTOR puts every component into its initial configuration.
        // Its FCW is then 0x037F, as after FNINIT; FXRSTOR takes the image's.
        self.set_header_and_legacy(&image);
    }

    fn header_and_legacy(&self) -> [u8; LEGACY_AND_HEADER] {
        // SAFETY: the area is at least this large, ours, and not being saved to right now.
        unsafe { self.area.as_ptr().cast().read() }
    }

    fn set_header_and_legacy(&mut self, image: &[u8; LEGACY_AND_HEADER]) {
        // SAFETY: as for reading.
        unsafe { self.area.as_ptr().cast().write(*image) }
    }

    fn write_xcr0(&self, value: u64) {
        if matches!(self.support, FpuSupport::Xsave { .. }) {
            let (low, high) = split(value);
            // SAFETY: XSAVE is enabled on this CPU, and the value has only components that
            // it supports: all of them, the host's own, or a value checked for the guest.
            unsafe { asm!("xsetbv", in("ecx") 0, in("eax") low, in("edx") high) }
        }
    }

    fn save(&mut self) {
        let area = self.area.as_ptr().as_ptr();
        // SAFETY: the area is large enough for all components, 64-byte aligned, and ours.
        unsafe {
            match self.support {
                FpuSupport::Fxsave => asm!("fxsave64 [{}]", in(reg) area),
                FpuSupport::Xsave { components, .. } => {
                    let (low, high) = split(components);
                    asm!("xsave64 [{}]", in(reg) area, in("eax") low, in("edx") high);
                }
            }
        }
    }

    fn restore(&mut self) {
        let area = self.area.as_ptr().as_ptr();
        // Some CPUs load the x87 error pointers only if an error is pending, and would keep
        // those of the last owner (AMD APM vol. 5, FXRSTOR).
        // SAFETY: the state is overwritten next.
        unsafe { asm!("fninit", options(nomem, nostack)) }
        // SAFETY: the area holds an image that this CPU saved, or the reset image.
        unsafe {
            match self.support {
                FpuSupport::Fxsave => asm!("fxrstor64 [{}]", in(reg) area),
                FpuSupport::Xsave { components, .. } => {
                    let (low, high) = split(components);
                    asm!("xrstor64 [{}]", in(reg) area, in("eax") low, in("edx") high);
                }
            }
        }
    }
}

/// FXSAVE image and XSAVE header.
const LEGACY_AND_HEADER: usize = 512 + 64;

fn read_xcr0() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: called with XSAVE enabled only; XGETBV reads a register.
    unsafe { asm!("xgetbv", in("ecx") 0, out("eax") low, out("edx") high, options(nomem)) }
    u64::from(high) << 32 | u64::from(low)
}

const fn split(value: u64) -> (u32, u32) {
    (value as u32, (value >> 32) as u32)
}
