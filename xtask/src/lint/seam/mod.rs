// SPDX-License-Identifier: MIT OR Apache-2.0
//! The seam between what knows a CPU vendor's control block and all the rest: neither side
//! reaches across it.

mod inside;
mod layout;
mod outside;
mod source;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::files;
use layout::Layout;
use source::Source;

/// A vendor's part of the library.
struct Vendor {
    /// Folder, from the root of the repository.
    folder: &'static str,
    /// Name of the module.
    module: &'static str,
    /// Files in it that say what the control block looks like; their modules are private.
    layouts: &'static [&'static str],
}

const VENDORS: [Vendor; 2] = [
    Vendor { folder: "vmm-core/src/svm/", module: "svm", layouts: &["vmcb"] },
    Vendor { folder: "vmm-core/src/vmx/", module: "vmx", layouts: &["field", "vmcs"] },
];

impl Vendor {
    fn layout_files(&self) -> impl Iterator<Item = String> {
        self.layouts.iter().map(|name| format!("{}{name}.rs", self.folder))
    }
}

/// Names what reaches across.
///
/// # Errors
/// When a source file cannot be read or understood.
pub fn check(root: &Path) -> Result<Vec<String>> {
    let names = files::tracked(root)?.into_iter().filter(|name| name.ends_with(".rs"));
    let read = |name: String| {
        let text =
            fs::read_to_string(root.join(&name)).with_context(|| format!("cannot read {name}"))?;
        Source::parse(&name, &text)
    };
    let sources: Vec<Source> = names.map(read).collect::<Result<_>>()?;
    Ok(breaches(&sources))
}

fn breaches(sources: &[Source]) -> Vec<String> {
    let mut breaches = Vec::new();
    let mut layout = Layout::default();
    for vendor in &VENDORS {
        for name in vendor.layout_files() {
            match sources.iter().find(|source| source.name == name) {
                Some(source) => layout.add(source),
                None => breaches.push(format!("{name}: not there; 'xtask lint' looks for it")),
            }
        }
    }
    let test_modules: Vec<String> = sources.iter().flat_map(Source::test_modules).collect();
    for source in sources {
        match VENDORS.iter().find(|vendor| source.name.starts_with(vendor.folder)) {
            Some(vendor) => {
                if !source.is_in(&test_modules) {
                    inside::check(source, vendor, &mut breaches);
                }
                layout::check_privacy(source, vendor, &mut breaches);
            }
            None => outside::check(source, &layout, &mut breaches),
        }
    }
    breaches
}

#[cfg(test)]
mod tests {
    use super::*;

    const VMCB: &str = "
        pub struct Vmcb { pub control: ControlArea, pub save: SaveArea }
        pub struct ControlArea { pub nested_cr3: u64, pub tsc_offset: u64 }
        pub struct SaveArea { pub rip: u64 }";
    const FIELD: &str = "fields! { Kept { EptPointer = x, Cr0Mask = y, TscOffset = z, } }
        pub enum Class { Kept }";

    /// Breaches in a repository of one more file.
    fn with(name: &str, text: &str) -> Vec<String> {
        with_files(&[(name, text)])
    }

    /// Breaches in a repository of these files beside the layouts.
    fn with_files(files: &[(&str, &str)]) -> Vec<String> {
        let layouts = [
            ("vmm-core/src/svm/vmcb.rs", VMCB),
            ("vmm-core/src/vmx/field.rs", FIELD),
            ("vmm-core/src/vmx/vmcs.rs", "pub struct Vmcs;"),
        ];
        let sources: Vec<Source> = layouts
            .iter()
            .chain(files)
            .map(|(name, text)| Source::parse(name, text).unwrap())
            .collect();
        breaches(&sources)
    }

    #[test]
    fn a_vendor_uses_the_machine_and_the_neutral_exit() {
        let text = "use core::mem; use crate::{Exit, backend::VcpuBackend, state::{Gpr, cr0}};
            use super::vmcb::Vmcb;
            fn f() -> bool { crate::msr::validate_pat(0).is_ok() }
            #[cfg(test)] mod tests { use crate::emulate; use host_mock::MockHost; }";
        assert_eq!(with("vmm-core/src/svm/vcpu.rs", text), [""; 0]);
    }

    #[test]
    fn a_vendor_knows_no_device_policy_or_emulation() {
        for text in [
            "use crate::emulate;",
            "use crate::bus::PortBus;",
            "use crate::{Exit, apic::LocalApic};",
            "use crate::{hooks as h};",
            "use crate::*;",
            "use crate::cpuid::CpuidTable;",
            "use crate::cpuid;",
            "use super::super::msr::VcpuMsrs;",
            "fn f() { crate::msr::rules(); }",
            "fn f() { assert!(crate::emulate::g(1)); }",
            "fn f(x: Option<crate::vm::VmCore>) {}",
            "use vmm_devices::Uart;",
            "use crate::svm::Svm;",
        ] {
            let found = with("vmm-core/src/vmx/vcpu.rs", text);
            assert_eq!(found.len(), 1, "{text}: {found:?}");
            assert!(found[0].starts_with("vmm-core/src/vmx/vcpu.rs:1: "), "{found:?}");
        }
    }

    #[test]
    fn a_vendors_file_for_tests_uses_what_tests_need() {
        let fixture = "use host_mock::MockHost; use crate::emulate;";
        let test_files = [
            ("vmm-core/src/svm/fixture.rs", fixture),
            ("vmm-core/src/svm/cpu/tests/mod.rs", "mod deep;"),
            ("vmm-core/src/svm/cpu/tests/deep.rs", fixture),
        ];
        let declare = |cfg: &str| {
            let module = format!("{cfg} mod fixture;");
            let below = format!("{cfg} mod tests;");
            let declarations = [
                ("vmm-core/src/svm/mod.rs", module.as_str()),
                ("vmm-core/src/svm/cpu.rs", below.as_str()),
            ];
            with_files(&[declarations.as_slice(), &test_files].concat())
        };
        assert_eq!(declare("#[cfg(test)]"), [""; 0]);
        assert_eq!(declare("").len(), 4);
        let other = ("vmm-core/src/svm/fixtures.rs", fixture);
        let declaration = ("vmm-core/src/svm/mod.rs", "#[cfg(test)] mod fixture;");
        assert_eq!(with_files(&[declaration, other]).len(), 2);
    }

    #[test]
    fn nothing_else_names_a_field_of_a_control_block() {
        for text in [
            "fn f(v: &Vmcb) {}",
            "use crate::svm::vmcb;",
            "use crate::{svm::{self, vmcb::tlb_control}};",
            "fn f() { read(Field::EptPointer); }",
            "fn f() { matches!(field, Cr0Mask); }",
            "fn f() { read(Field::TscOffset); }",
            "fn f() { assert!(is(Field::TscOffset)); }",
            "fn f() { block.nested_cr3 = 1; }",
            "use x86::vmx::vmcs::guest;",
            "use x86::{msr, bits64::vmx};",
            "fn f() { x86::bits64::vmx::vmread(0); }",
        ] {
            let found = with("vmm-core/src/vcpu/mod.rs", text);
            assert_eq!(found.len(), 1, "{text}: {found:?}");
        }
    }

    #[test]
    fn the_words_of_the_architecture_are_everybodys() {
        let text =
            "// Vmcb\nfn f(s: State) { s.rip + s.tsc_offset; Effect::TscOffset; \"nested_cr3\"; }
            use crate::{svm::Svm, vmx::Vmx};";
        assert_eq!(with("cokernel-glue/src/main.rs", text), [""; 0]);
    }

    #[test]
    fn layouts_are_private() {
        for text in ["pub mod vmcb;", "pub(crate) mod vmcb;", "pub use vmcb::Vmcb;"] {
            assert_eq!(with("vmm-core/src/svm/mod.rs", text).len(), 1, "{text}");
        }
        assert_eq!(with("vmm-core/src/svm/mod.rs", "mod vmcb; pub use cpu::Svm;"), [""; 0]);
    }
}
