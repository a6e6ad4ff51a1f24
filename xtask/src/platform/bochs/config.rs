// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bochs' configuration file.

/// What of the configuration changes from run to run. Paths are those of the new process.
pub struct Config<'a> {
    /// CPU model.
    pub cpu: &'a str,
    /// Number of CPUs.
    pub cpus: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// CD-ROM image that is booted.
    pub iso: &'a str,
    /// Terminal that is the first serial port.
    pub console: &'a str,
    /// File for the second serial port.
    pub log: &'a str,
    /// File for Bochs' own messages.
    pub messages: &'a str,
    /// Go on after panics of CPUs, which tell their registers then; see [`super::panics`].
    pub goes_on: bool,
}

/// Firmware of the Debian package `bochsbios`.
pub const BIOS: &str = "/usr/share/bochs/BIOS-bochs-latest";
/// Firmware of the Debian package `vgabios`.
pub const VGA_BIOS: &str = "/usr/share/vgabios/vgabios.bin";

/// Instructions for one second of the machine's time.
///
/// Near to what Bochs really does on a current CPU, so that time in the machine and outside pass
/// alike and a guest's timer ticks leave it time to work. Waiting costs nothing: an idle machine
/// skips to its next event. The time-stamp counter counts them, too.
pub const INSTRUCTIONS_PER_SECOND: u32 = 50_000_000;

/// The text of the file.
///
/// - `reset_on_triple_fault=0`: a triple fault of the co-kernel ends the machine.
/// - `ignore_bad_msrs=1`: Bochs lacks MSRs that the real CPUs have, `VM_CR` for one, which every
///   CPU with SVM has (APM volume 2, 15.30.1).
/// - `port_e9_hack`: tells the co-kernel that this is an emulator; it writes nothing there.
/// - `error: action=ignore`: Bochs counts many VM exits as errors, and writing a line for each
///   takes most of the time.
pub fn text(config: &Config<'_>) -> String {
    let Config { cpu, cpus, memory_mib, iso, console, log, messages, goes_on } = config;
    let report = |index| format!(", cpu{index}=report");
    let reported: String = (0..*cpus).filter(|_| *goes_on).map(report).collect();
    format!(
        "display_library: term\n\
         romimage: file={BIOS}\n\
         vgaromimage: file={VGA_BIOS}\n\
         memory: guest={memory_mib}, host={memory_mib}\n\
         cpu: model={cpu}, count={cpus}, ips={INSTRUCTIONS_PER_SECOND}, \
         reset_on_triple_fault=0, ignore_bad_msrs=1\n\
         clock: sync=none, time0=utc\n\
         ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14\n\
         ata0-master: type=cdrom, path=\"{iso}\", status=inserted\n\
         boot: cdrom\n\
         floppy_bootsig_check: disabled=1\n\
         port_e9_hack: enabled=1\n\
         com1: enabled=1, mode=term, dev=\"{console}\"\n\
         com2: enabled=1, mode=file, dev=\"{log}\"\n\
         log: \"{messages}\"\n\
         logprefix: %t%e%d\n\
         panic: action=fatal{reported}\n\
         error: action=ignore\n\
         info: action=ignore{reported}\n\
         debug: action=ignore\n"
    )
}

/// What Bochs' debugger, which is always there in Debian's build, is told to do: it is asked at the
/// start and at each panic after which Bochs goes on.
pub fn debugger_commands() -> String {
    const PANICS: usize = 100_000;
    "c\n".repeat(PANICS) + "q\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_is_in_its_line() {
        let text = text(&Config {
            cpu: "ryzen",
            cpus: 2,
            memory_mib: 256,
            iso: "/a b/i.iso",
            console: "/dev/pts/7",
            log: "/l",
            messages: "/m",
            goes_on: true,
        });
        for line in [
            "memory: guest=256, host=256",
            "ata0-master: type=cdrom, path=\"/a b/i.iso\", status=inserted",
            "com1: enabled=1, mode=term, dev=\"/dev/pts/7\"",
            "com2: enabled=1, mode=file, dev=\"/l\"",
            "log: \"/m\"",
            "panic: action=fatal, cpu0=report, cpu1=report",
            "info: action=ignore, cpu0=report, cpu1=report",
        ] {
            assert!(text.lines().any(|one| one == line), "{line} is missing in:\n{text}");
        }
        assert!(text.contains("cpu: model=ryzen, count=2, ips="));
    }
}
