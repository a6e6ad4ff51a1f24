// SPDX-License-Identifier: MIT OR Apache-2.0
//! The same boot under Linux KVM: the kernel, initial RAM disk and command line of the bare
//! machine. There, the guest resets itself in the end, as it has nothing to switch off with.

use anyhow::{Context, Result};

use super::{Boot, BootOptions, Prepared};
use crate::bench::peer::{self, Setting};
use crate::bench::place::Job;
use crate::console::filter::{Filter, Marker, Piece};
use crate::paths::Paths;
use crate::platform;
use crate::progress::Progress;

/// Boots it, with nested paging or without.
///
/// # Errors
/// When the guest does not boot or does not say what is needed.
pub fn boot(paths: &Paths, options: &BootOptions, nested: bool) -> Result<Boot> {
    let prepared = Prepared::new(paths, options, "reboot -f", &["--bare"])?;
    let platform::Boot::Kernel { kernel, initrd, command_line } = &prepared.plan.machine.boot
    else {
        anyhow::bail!("the guest is no kernel");
    };
    let job = Job {
        guest: kernel,
        words: command_line,
        memory_mib: options.mem,
        cpus: 1,
        deterministic: true,
    };
    let _progress = Progress::start("booting under KVM");
    let setting = Setting { nested, initrd: initrd.as_deref(), ..Setting::default() };
    let outcome = peer::run(paths, job, setting, &prepared.folder)?;
    let nonce = prepared.plan.nonce.as_deref();
    figures(&outcome.console, nonce).context("the guest under KVM")
}

fn figures(console: &str, nonce: Option<&str>) -> Result<Boot> {
    let pieces = Filter::new(nonce).push(console.as_bytes());
    let marked = |wanted: fn(Marker) -> Option<u64>| {
        pieces.iter().find_map(|piece| match piece {
            Piece::Marker(marker) => wanted(*marker),
            Piece::Text(_) => None,
        })
    };
    let init = marked(|marker| if let Marker::Init(tsc) = marker { Some(tsc) } else { None });
    let clock = marked(|marker| if let Marker::Clock(ns) = marker { Some(ns) } else { None });
    let timing = peer::timing(console)?;
    let init = init.context("it did not say when it was up")?;
    Ok(Boot {
        ticks: init.checked_sub(timing.guest_tsc).context("/init came before the start")?,
        clock: clock.context("it did not say its clock")?,
        creation: Some(timing.created),
        ..Boot::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counter_is_taken_from_where_the_vcpu_starts() {
        let console = "@alcazar 0f init 1500\r\n@alcazar 0f clock 1200\r\nbye\r\n\
                       timing created=77 guest_tsc=100\r\n";
        let boot = figures(console, Some("0f")).unwrap();
        assert_eq!((boot.ticks, boot.clock, boot.creation), (1400, 1200, Some(77)));
        assert!(figures(console, Some("1f")).is_err());
        assert!(figures("@alcazar 0f init 1500\n@alcazar 0f clock 1\n", Some("0f")).is_err());
    }
}
