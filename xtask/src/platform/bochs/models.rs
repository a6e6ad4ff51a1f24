// SPDX-License-Identifier: MIT OR Apache-2.0
//! The CPU models of Bochs 2.7 that can run a VMM, and what they offer it.
//!
//! Read from their CPUID leaves and VMX capability MSRs, as Bochs logs them at its start.

use anyhow::{Result, bail};

/// Whose virtualization a model has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Vendor {
    /// AMD's SVM.
    Amd,
    /// Intel's VT-x.
    Intel,
}

/// A CPU model.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Model {
    /// Bochs' name for it.
    pub name: &'static str,
    /// Whose virtualization it has.
    pub vendor: Vendor,
    /// What of it, in a few words.
    pub offers: &'static str,
    /// What it shows and does not do right, by Linux's names of CPU features.
    pub faulty: &'static [&'static str],
}

const fn amd(name: &'static str, offers: &'static str) -> Model {
    Model { name, vendor: Vendor::Amd, offers, faulty: &[] }
}

const fn intel(name: &'static str, offers: &'static str) -> Model {
    Model { name, vendor: Vendor::Intel, offers, faulty: &[] }
}

const fn with_faulty(faulty: &'static [&'static str], model: Model) -> Model {
    Model { faulty, ..model }
}

/// Bochs 2.7 executes POPCNT only on models with SSE4.2, also where CPUID shows it without.
const POPCNT: &[&str] = &["popcnt"];

/// XSAVEC of Bochs 2.7 puts what follows the SSE state 160 bytes lower than XRSTOR takes it from,
/// so that vector registers are lost when a program is preempted.
const XSAVEC: &[&str] = &["xsavec"];

/// The model that is used when none is named.
pub const DEFAULT: &str = "ryzen";

/// All models with hardware virtualization, oldest first for each vendor.
pub const MODELS: &[Model] = &[
    amd("turion64_tyler", "SVM without nested paging"),
    with_faulty(POPCNT, amd("phenom_8650_toliman", "SVM, NPT")),
    amd("zambezi", "SVM, NPT, NRIP save, flush by ASID, pause filter"),
    amd("trinity_apu", "SVM, NPT, NRIP save, flush by ASID, pause filter"),
    with_faulty(XSAVEC, amd("ryzen", "SVM, NPT, NRIP save, flush by ASID, pause filter")),
    intel("core2_penryn_t9600", "VT-x without EPT and without unrestricted guest"),
    intel("corei5_lynnfield_750", "VT-x, EPT, VPID, no unrestricted guest"),
    intel("corei5_arrandale_m520", "VT-x, EPT, VPID, unrestricted guest"),
    intel("corei7_sandy_bridge_2600k", "VT-x, EPT, VPID, unrestricted guest"),
    intel("corei7_ivy_bridge_3770k", "VT-x, EPT, VPID, unrestricted guest"),
    intel("corei7_haswell_4770", "VT-x, EPT with A/D bits, VPID, virtual APIC"),
    intel("broadwell_ult", "VT-x, EPT with A/D bits, VPID, virtual APIC, PML"),
    with_faulty(
        XSAVEC,
        intel("corei7_skylake_x", "VT-x, EPT with A/D bits, VPID, virtual APIC, PML"),
    ),
    with_faulty(XSAVEC, intel("corei3_cnl", "VT-x, EPT with A/D bits, VPID, virtual APIC, PML")),
    with_faulty(
        XSAVEC,
        intel("corei7_icelake_u", "VT-x, EPT with A/D bits, VPID, virtual APIC, PML"),
    ),
    with_faulty(
        XSAVEC,
        intel("tigerlake", "VT-x, EPT with A/D bits, VPID, virtual APIC, PML, TSC scaling"),
    ),
];

/// Models of Bochs 2.7 that no VMM can use.
const WITHOUT: &[&str] = &[
    "bx_generic",
    "pentium",
    "pentium_mmx",
    "amd_k6_2_chomper",
    "p2_klamath",
    "p3_katmai",
    "p4_willamette",
    "core_duo_t2400_yonah",
    "atom_n270",
    "p4_prescott_celeron_336",
    "athlon64_clawhammer",
    "athlon64_venice",
];

/// Finds a model by its name.
///
/// # Errors
/// One line that lists what there is.
pub fn find(name: &str) -> Result<&'static Model> {
    if let Some(model) = MODELS.iter().find(|model| model.name == name) {
        return Ok(model);
    }
    let known: Vec<&str> = MODELS.iter().map(|model| model.name).collect();
    let known = known.join(", ");
    if WITHOUT.contains(&name) {
        bail!("--cpu {name}: this model has no 64-bit hardware virtualization; use one of {known}");
    }
    bail!("--cpu {name}: Bochs has no such model; use one of {known}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_are_found_or_told_apart() {
        assert_eq!(find(DEFAULT).unwrap().vendor, Vendor::Amd);
        assert_eq!(find("tigerlake").unwrap().vendor, Vendor::Intel);
        let error = find("pentium").unwrap_err().to_string();
        assert!(error.contains("no 64-bit hardware virtualization") && error.contains("zambezi"));
        let error = find("abacus,x=1").unwrap_err().to_string();
        assert!(error.contains("no such model") && error.contains("tigerlake"), "{error}");
    }

    #[test]
    fn no_model_is_listed_twice() {
        let mut names: Vec<&str> = MODELS.iter().map(|model| model.name).collect();
        names.extend(WITHOUT);
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
