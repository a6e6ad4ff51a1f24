// SPDX-License-Identifier: MIT OR Apache-2.0
//! Registers of Intel's CPUs (Intel SDM vol. 4, tables 2-2 and 2-20).

use serde::{Deserialize, Serialize};

use super::{GeneralProtection, index};

/// IA32_MISC_ENABLE: fast strings; neither branch trace store nor event-based sampling.
const MISC_ENABLE_RESET: u64 = 1 << 0 | 1 << 11 | 1 << 12;
/// Bits that operating systems set or clear: fast strings, the limit of CPUID leaves, xTPR
/// message disable, and execute-disable in its negative form. None has an effect here, and the
/// last two stay as they are.
const MISC_ENABLE_WRITABLE: u64 = 1 << 0 | 1 << 22;
const MISC_ENABLE_IGNORED: u64 = 1 << 11 | 1 << 12 | 1 << 16 | 1 << 23 | 1 << 34;

/// Microcode revision of an Ice Lake server, in the high half of IA32_BIOS_SIGN_ID.
const MICROCODE_REVISION: u64 = 0x0D00_03B9 << 32;

/// IA32_FEATURE_CONTROL: locked, with VMX disabled.
const FEATURE_CONTROL_LOCKED: u64 = 1;

/// The registers of an Intel vCPU that hold something.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct IntelMsrs {
    misc_enable: u64,
}

impl Default for IntelMsrs {
    fn default() -> Self {
        Self { misc_enable: MISC_ENABLE_RESET }
    }
}

impl IntelMsrs {
    pub(super) fn read(&self, msr: u32) -> Option<u64> {
        match msr {
            index::PATCH_LEVEL => Some(MICROCODE_REVISION),
            index::MISC_ENABLE => Some(self.misc_enable),
            index::FEATURE_CONTROL => Some(FEATURE_CONTROL_LOCKED),
            // Neither CPUID faulting nor a ratio of frequencies is offered, and there is no
            // platform identification beyond that.
            index::PLATFORM_INFO | index::MISC_FEATURES_ENABLES | index::PLATFORM_ID => Some(0),
            _ => None,
        }
    }

    pub(super) fn write(&mut self, msr: u32, value: u64) -> Option<Result<(), GeneralProtection>> {
        let legal = match msr {
            // Software clears the revision before CPUID loads it anew.
            index::PATCH_LEVEL => true,
            index::MISC_ENABLE => {
                let legal = value & !(MISC_ENABLE_WRITABLE | MISC_ENABLE_IGNORED) == 0;
                if legal {
                    let kept = self.misc_enable & !MISC_ENABLE_WRITABLE;
                    self.misc_enable = kept | value & MISC_ENABLE_WRITABLE;
                }
                legal
            }
            index::MISC_FEATURES_ENABLES => value == 0,
            index::FEATURE_CONTROL | index::PLATFORM_INFO | index::PLATFORM_ID => false,
            _ => return None,
        };
        Some(if legal { Ok(()) } else { Err(GeneralProtection) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_what_can_be_written_and_nothing_else() {
        let mut msrs = IntelMsrs::default();
        assert_eq!(msrs.write(index::MISC_ENABLE, 1 << 22), Some(Ok(())));
        assert_eq!(msrs.read(index::MISC_ENABLE), Some(1 << 22 | 1 << 11 | 1 << 12));
        assert_eq!(msrs.write(index::MISC_ENABLE, 1 << 63), Some(Err(GeneralProtection)));
        assert_eq!(msrs.write(index::FEATURE_CONTROL, 5), Some(Err(GeneralProtection)));
        assert_eq!(msrs.read(index::FEATURE_CONTROL), Some(1));
        assert_eq!(msrs.write(index::PATCH_LEVEL, 0), Some(Ok(())));
        assert!(msrs.read(index::PATCH_LEVEL).is_some_and(|value| value >> 32 != 0));
        assert_eq!(msrs.read(index::HWCR), None);
    }
}
