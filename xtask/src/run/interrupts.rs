// SPDX-License-Identifier: MIT OR Apache-2.0
//! Lines of the summary about interrupt controllers.

use wire::{IoApicInput, LocalApicReport};

/// A local APIC in one line.
pub fn local_apic(apic: &LocalApicReport) -> String {
    let LocalApicReport { id, mode, software_enabled, tpr, ppr, requested, in_service, unmasked } =
        apic;
    let off = if *software_enabled { "" } else { " (off by software)" };
    let mut text = format!("local APIC {id}: {mode}{off}, TPR {tpr:#04x}, PPR {ppr:#04x}");
    text.push_str(&format!(
        ", requested: {}, in service: {}",
        vectors(requested),
        vectors(in_service)
    ));
    for entry in unmasked {
        text.push_str(&format!(", {} {:#x}", entry.name, entry.value));
    }
    text
}

fn vectors(vectors: &[u8]) -> String {
    match vectors {
        [] => "none".to_owned(),
        _ => vectors.iter().map(|v| format!("{v:#04x}")).collect::<Vec<_>>().join(" "),
    }
}

/// An input of the I/O APIC in a few words.
pub fn io_apic_input(one: &IoApicInput) -> String {
    let IoApicInput {
        input,
        vector,
        delivery,
        destination,
        logical,
        level,
        masked,
        remote_irr,
        asserted,
    } = one;
    let trigger = if *level { "level" } else { "edge" };
    let kind = if *logical { "logical" } else { "CPU" };
    let mut text = format!("{input} {trigger} {delivery} {vector:#04x} to {kind} {destination}");
    for (holds, word) in [(masked, "masked"), (remote_irr, "remote IRR"), (asserted, "asserted")] {
        if *holds {
            text.push_str(&format!(" ({word})"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::LocalVector;

    #[test]
    fn a_local_apic_is_a_line() {
        let apic = LocalApicReport {
            id: 1,
            mode: "x2apic".into(),
            software_enabled: true,
            tpr: 0,
            ppr: 0x40,
            requested: vec![],
            in_service: vec![0x41, 0xEC],
            unmasked: vec![LocalVector { name: "timer".into(), value: 0x400EC }],
        };
        assert_eq!(
            local_apic(&apic),
            "local APIC 1: x2apic, TPR 0x00, PPR 0x40, requested: none, in service: 0x41 0xec, \
             timer 0x400ec"
        );
        let off = LocalApicReport { software_enabled: false, ..apic };
        assert!(local_apic(&off).contains("x2apic (off by software),"));
    }

    #[test]
    fn an_input_says_what_is_special() {
        let input = IoApicInput {
            input: 4,
            vector: 0x21,
            delivery: "fixed".into(),
            destination: 2,
            logical: false,
            level: true,
            masked: false,
            remote_irr: true,
            asserted: true,
        };
        let text = io_apic_input(&input);
        assert_eq!(text, "4 level fixed 0x21 to CPU 2 (remote IRR) (asserted)");
    }
}
