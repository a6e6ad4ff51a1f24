// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a CPU's SVM offers.

use alloc::{string::String, vec::Vec};

use bitflags::bitflags;

use crate::backend::Unsupported;

bitflags! {
    /// Feature bits of CPUID Fn8000_000A EDX (AMD APM vol. 3, E.4.9) that the library uses.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct SvmFeatures: u32 {
        /// Nested paging.
        const NP = 1 << 0;
        /// The next instruction's address is saved at exits.
        const NRIPS = 1 << 3;
        /// TLB flush of one ASID.
        const FLUSH_BY_ASID = 1 << 6;
        /// Instruction bytes and operand details at exits.
        const DECODE_ASSISTS = 1 << 7;
        /// PAUSE intercept filter.
        const PAUSE_FILTER = 1 << 10;
        /// Threshold of the PAUSE filter, in cycles.
        const PAUSE_FILTER_THRESHOLD = 1 << 12;
    }
}

/// What one CPU offers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Capabilities {
    /// Optional features.
    pub features: SvmFeatures,
    /// Number of address space identifiers, including the host's own, zero.
    pub asids: u32,
    /// 1 GiB pages.
    pub huge_pages: bool,
    /// Width of physical addresses.
    pub address_bits: u8,
    /// RDTSCP, and with it the TSC_AUX MSR.
    pub tsc_aux: bool,
    /// The CPU forgets an interrupt shadow at VMRUN, although the control block holds it: the
    /// emulator TCG of QEMU does (seen with 7.2).
    pub loses_interrupt_shadow: bool,
    /// The first CPU may lose what VMRUN, #VMEXIT, STGI and CLGI change while other CPUs load
    /// x87 state. TCG of QEMU (seen with 7.2, in `cpu_clear_ignne`) then changes the first CPU's
    /// flags, nested paging and GIF among them, from the other CPU's thread without a lock. A
    /// lost end of nested paging has the host run as the guest: its state is in the control
    /// block at the next exit, and the guest's is gone.
    pub spoils_first_cpu: bool,
    /// #VMEXIT leaves paging off if the guest has EFER.LME without CR0.PG and CR4.PAE: TCG of QEMU
    /// (seen with 7.2, in `cpu_x86_update_cr0`) loads the host's CR0 before its CR4 and its EFER,
    /// and refuses to enter long mode. The host then runs on physical addresses.
    pub loses_paging: bool,
    /// MOV of a value with a reserved bit to CR3 in long mode ends the guest's run as a refused entry
    /// does, where #GP is due: TCG of QEMU does so (seen with 7.2, in `helper_write_crN`).
    pub exits_by_refused_cr3: bool,
}

/// Leaves of CPUID that matter here, so that the logic runs without the CPU.
#[derive(Clone, Copy, Debug, Default)]
pub struct CpuidLeaves {
    /// Highest extended leaf.
    pub max_extended: u32,
    /// ECX of Fn8000_0001.
    pub extended_ecx: u32,
    /// EDX of Fn8000_0001.
    pub extended_edx: u32,
    /// EAX of Fn8000_0008.
    pub sizes_eax: u32,
    /// EBX of Fn8000_000A.
    pub svm_ebx: u32,
    /// EDX of Fn8000_000A.
    pub svm_edx: u32,
    /// Signature of a hypervisor or emulator, if it says that it is one.
    pub hypervisor: [u8; 12],
}

const SVM_LEAF: u32 = 0x8000_000A;
const SVM: u32 = 1 << 2;
const PAGE_1GB: u32 = 1 << 26;
const RDTSCP: u32 = 1 << 27;
/// CPUID leaf 1 ECX: reserved for hypervisors.
const HYPERVISOR: u32 = 1 << 31;

impl CpuidLeaves {
    /// Those of QEMU's TCG, for tests.
    #[cfg(any(test, feature = "mock-backend"))]
    pub(super) const QEMU: Self = Self {
        max_extended: 0x8000_000A,
        extended_ecx: SVM,
        extended_edx: PAGE_1GB,
        sizes_eax: 0x3028,
        svm_ebx: 16,
        svm_edx: 1,
        hypervisor: *b"TCGTCGTCGTCG",
    };

    /// Reads the leaves of the calling CPU.
    pub fn read() -> Self {
        let leaf = |leaf| core::arch::x86_64::__cpuid(leaf);
        let max_extended = leaf(0x8000_0000).eax;
        let mut leaves = Self { max_extended, ..Self::default() };
        if max_extended >= 0x8000_0001 {
            let extended = leaf(0x8000_0001);
            leaves.extended_ecx = extended.ecx;
            leaves.extended_edx = extended.edx;
        }
        if max_extended >= SVM_LEAF {
            leaves.sizes_eax = leaf(0x8000_0008).eax;
            let svm = leaf(SVM_LEAF);
            leaves.svm_ebx = svm.ebx;
            leaves.svm_edx = svm.edx;
        }
        if leaf(1).ecx & HYPERVISOR != 0 {
            let signature = leaf(0x4000_0000);
            let registers = [signature.ebx, signature.ecx, signature.edx];
            for (bytes, register) in leaves.hypervisor.chunks_exact_mut(4).zip(registers) {
                bytes.copy_from_slice(&register.to_le_bytes());
            }
        }
        leaves
    }
}

impl Capabilities {
    /// Interprets CPUID.
    ///
    /// # Errors
    /// [`Unsupported::NoExtension`] without SVM, or which part is missing.
    pub fn from_cpuid(leaves: &CpuidLeaves) -> Result<Self, Unsupported> {
        if leaves.max_extended < SVM_LEAF || leaves.extended_ecx & SVM == 0 {
            return Err(Unsupported::NoExtension);
        }
        if leaves.svm_ebx < 2 {
            return Err(Unsupported::MissingFeature("address space identifiers"));
        }
        let tcg = leaves.hypervisor == *b"TCGTCGTCGTCG";
        Ok(Self {
            features: SvmFeatures::from_bits_truncate(leaves.svm_edx),
            asids: leaves.svm_ebx,
            huge_pages: leaves.extended_edx & PAGE_1GB != 0,
            address_bits: leaves.sizes_eax as u8,
            tsc_aux: leaves.extended_edx & RDTSCP != 0,
            loses_interrupt_shadow: tcg,
            spoils_first_cpu: tcg,
            loses_paging: tcg,
            exits_by_refused_cr3: tcg,
        })
    }

    /// Whether guests can run on one of the host's `cpus` CPUs, which is the machine's first or
    /// is not.
    ///
    /// # Errors
    /// [`Unsupported::Defective`] for a CPU that other CPUs spoil.
    pub fn check_cpu(&self, cpus: u32, is_first: bool) -> Result<(), Unsupported> {
        if self.spoils_first_cpu && is_first && cpus > 1 {
            return Err(Unsupported::Defective(
                "QEMU's TCG can lose the virtualization state of its first CPU while another \
                 CPU loads floating-point state; give the machine one CPU more (-smp), and run \
                 guests on all but the first",
            ));
        }
        Ok(())
    }

    /// What QEMU's TCG offers, for tests.
    #[cfg(any(test, feature = "mock-backend"))]
    pub fn sample() -> Self {
        Self::from_cpuid(&CpuidLeaves::QEMU).expect("a VMM can use the CPU")
    }

    /// True if the CPU has all of `features`.
    #[inline]
    pub fn has(&self, features: SvmFeatures) -> bool {
        self.features.contains(features)
    }

    /// Names for reports.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> =
            self.features.iter_names().map(|(name, _)| name.to_ascii_lowercase()).collect();
        if self.huge_pages {
            names.push("page1gb".into());
        }
        names.push(alloc::format!("asids={}", self.asids));
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QEMU: CpuidLeaves = CpuidLeaves::QEMU;

    #[test]
    fn finds_what_is_there() {
        let found = Capabilities::from_cpuid(&QEMU).unwrap();
        assert!(found.has(SvmFeatures::NP) && !found.has(SvmFeatures::NRIPS));
        assert_eq!(found.names(), ["np", "page1gb", "asids=16"]);
        assert_eq!(found.address_bits, 40);
        assert!(found.loses_interrupt_shadow && found.spoils_first_cpu && found.loses_paging);
        assert!(found.exits_by_refused_cr3);
        let ryzen = CpuidLeaves { svm_edx: 0x44F, hypervisor: [0; 12], ..QEMU };
        let found = Capabilities::from_cpuid(&ryzen).unwrap();
        assert!(found.has(SvmFeatures::NRIPS | SvmFeatures::FLUSH_BY_ASID));
        assert!(!found.has(SvmFeatures::DECODE_ASSISTS));
        assert!(!found.loses_interrupt_shadow && !found.loses_paging);
        assert!(!found.exits_by_refused_cr3);
    }

    #[test]
    fn the_first_cpu_of_tcg_runs_guests_only_if_it_is_alone() {
        let tcg = Capabilities::from_cpuid(&QEMU).unwrap();
        assert!(matches!(tcg.check_cpu(2, true), Err(Unsupported::Defective(_))));
        assert_eq!(tcg.check_cpu(2, false), Ok(()));
        assert_eq!(tcg.check_cpu(1, true), Ok(()));
        let real = CpuidLeaves { hypervisor: [0; 12], ..QEMU };
        assert_eq!(Capabilities::from_cpuid(&real).unwrap().check_cpu(2, true), Ok(()));
    }

    #[test]
    fn refuses_a_cpu_without_it() {
        let intel = CpuidLeaves { extended_ecx: 0, ..QEMU };
        assert_eq!(Capabilities::from_cpuid(&intel), Err(Unsupported::NoExtension));
        let old = CpuidLeaves { max_extended: 0x8000_0004, ..QEMU };
        assert_eq!(Capabilities::from_cpuid(&old), Err(Unsupported::NoExtension));
        let no_asids = CpuidLeaves { svm_ebx: 1, ..QEMU };
        assert!(matches!(Capabilities::from_cpuid(&no_asids), Err(Unsupported::MissingFeature(_))));
    }
}
