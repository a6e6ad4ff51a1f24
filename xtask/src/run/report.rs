// SPDX-License-Identifier: MIT OR Apache-2.0
//! The run report: from the co-kernel's log to a few lines.

use std::fmt::{self, Write as _};
use std::path::Path;

use anyhow::{Context, Result, bail};
use wire::{FORMAT_VERSION, REPORT_PREFIX, RunReport, VcpuReport, VmReport};

use super::interrupts;

/// The report in the co-kernel's log, if there is one.
///
/// # Errors
/// When the log cannot be read or the report is of another version.
pub fn from_log(log: &Path) -> Result<Option<RunReport>> {
    let text = match std::fs::read(log) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).context(format!("cannot read {}", log.display())),
    };
    parse(&String::from_utf8_lossy(&text)).with_context(|| format!("in {}", log.display()))
}

/// The last report in the text of a log.
///
/// # Errors
/// When it cannot be read or is of another version.
pub fn parse(log: &str) -> Result<Option<RunReport>> {
    let Some(json) = log.lines().rev().find_map(|line| line.strip_prefix(REPORT_PREFIX)) else {
        return Ok(None);
    };
    let report: RunReport =
        serde_json::from_str(json.trim()).context("the run report cannot be read")?;
    if report.version != FORMAT_VERSION {
        bail!("the run report has version {}, not {FORMAT_VERSION}", report.version);
    }
    Ok(Some(report))
}

/// The report in a few lines.
pub fn summary(report: &RunReport) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write_summary(&mut text, report);
    text
}

fn write_summary(text: &mut String, report: &RunReport) -> fmt::Result {
    let machine = &report.machine;
    writeln!(
        text,
        "machine: {}, {} CPU(s), {} MiB, {} ({})",
        machine.cpu,
        machine.cpus,
        machine.memory_bytes >> 20,
        machine.backend,
        machine.capabilities.join(" ")
    )?;
    report.vms.iter().try_for_each(|vm| write_vm(text, vm))
}

fn write_vm(text: &mut String, vm: &VmReport) -> fmt::Result {
    writeln!(
        text,
        "VM {}: {} vCPU(s), {} MiB, {} paging, ended: {}",
        vm.name,
        vm.size.vcpus,
        vm.size.memory_bytes >> 20,
        vm.size.paging.name(),
        vm.end.detail
    )?;
    for milestone in &vm.milestones {
        let seconds = std::time::Duration::from_micros(milestone.microseconds).as_secs_f64();
        writeln!(text, "  {seconds:10.6} s  {}", milestone.name)?;
    }
    if !vm.shadow.is_empty() {
        let counters = vm.shadow.iter().map(|one| format!("{} {}", one.name, one.count));
        writeln!(text, "  shadow: {}", counters.collect::<Vec<_>>().join(", "))?;
    }
    vm.vcpus.iter().try_for_each(|vcpu| write_vcpu(text, vcpu))?;
    if !vm.io_apic.is_empty() {
        let inputs = vm.io_apic.iter().map(interrupts::io_apic_input);
        writeln!(text, "  I/O APIC: {}", inputs.collect::<Vec<_>>().join(", "))?;
    }
    let memory = &vm.memory;
    writeln!(
        text,
        "  memory of the VMM: heap {} KiB, page tables {} KiB, control {} KiB",
        memory.heap_bytes >> 10,
        memory.page_table_bytes >> 10,
        memory.control_bytes >> 10
    )
}

fn write_vcpu(text: &mut String, vcpu: &VcpuReport) -> fmt::Result {
    let mut exits: Vec<_> = vcpu.exits.iter().collect();
    exits.sort_by_key(|exit| std::cmp::Reverse(exit.count));
    let exits: Vec<String> =
        exits.iter().map(|exit| format!("{} {}", exit.reason, exit.count)).collect();
    writeln!(
        text,
        "  vCPU {} on CPU {}: {} entries; exits: {}",
        vcpu.index,
        vcpu.cpu,
        vcpu.entries,
        exits.join(", ")
    )?;
    match &vcpu.local_apic {
        Some(apic) => writeln!(text, "    {}", interrupts::local_apic(apic)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::{HostMemory, Machine};

    fn report() -> RunReport {
        let memory = HostMemory { free_frames: 1, heap_bytes: 2 };
        RunReport {
            version: FORMAT_VERSION,
            machine: Machine {
                cpu: "cpu".into(),
                cpus: 1,
                memory_bytes: 1 << 30,
                tsc_hz: 1,
                backend: "svm".into(),
                capabilities: vec!["npt".into()],
                image_bytes: 0,
                boot_tsc: 0,
            },
            vms: Vec::new(),
            before: memory,
            after: memory,
        }
    }

    #[test]
    fn the_last_report_in_the_log_counts() {
        let json = serde_json::to_string(&report()).unwrap();
        let log = format!("[0.1] boot\r\n@report {{}}\n[0.2] x\n@report {json}\r\n");
        assert_eq!(parse(&log).unwrap(), Some(report()));
        assert_eq!(parse("[0.1] boot\n").unwrap(), None);
        assert!(parse("@report {\"version\":").is_err());
        let later = RunReport { version: FORMAT_VERSION + 1, ..report() };
        let other = serde_json::to_string(&later).unwrap();
        assert!(parse(&format!("@report {other}\n")).is_err());
    }

    #[test]
    fn the_summary_names_the_backend() {
        assert!(summary(&report()).contains("svm (npt)"));
    }
}
