// SPDX-License-Identifier: MIT OR Apache-2.0
//! Why VMLAUNCH or VMRESUME failed before the guest's state was looked at (Intel SDM vol. 3,
//! 30.4).

/// What a VM-instruction error number means.
pub const fn instruction_error(number: u64) -> &'static str {
    match number {
        1 => "VMCALL in VMX root operation",
        2 => "VMCLEAR with an invalid address",
        3 => "VMCLEAR with the VMXON pointer",
        4 => "VMLAUNCH with a VMCS that was launched already",
        5 => "VMRESUME with a VMCS that was not launched",
        6 => "VMRESUME after VMXOFF",
        7 => "invalid control fields",
        8 => "invalid host-state fields",
        9 => "VMPTRLD with an invalid address",
        10 => "VMPTRLD with the VMXON pointer",
        11 => "VMPTRLD with a wrong VMCS revision",
        12 => "VMREAD or VMWRITE of a field that does not exist",
        13 => "VMWRITE to a read-only field",
        15 => "VMXON in VMX root operation",
        16 => "an invalid executive-VMCS pointer",
        17 => "an executive VMCS that was not launched",
        18 => "an executive-VMCS pointer that is not the VMXON pointer",
        19 => "VMCALL with a VMCS that is not clear",
        20 => "VMCALL with invalid exit controls",
        22 => "VMCALL with a wrong MSEG revision",
        23 => "VMXOFF under dual-monitor treatment of SMM",
        24 => "VMCALL with invalid SMM-monitor features",
        25 => "invalid execution controls in the executive VMCS",
        26 => "events blocked by MOV SS",
        28 => "an invalid operand to INVEPT or INVVPID",
        _ => "a VM-instruction error that the manual does not list",
    }
}

/// What the qualification of an entry failure due to invalid guest state adds (Intel SDM vol.
/// 3, 26.8); `None` if it points to no particular check.
pub const fn guest_state_qualification(qualification: u64) -> Option<&'static str> {
    match qualification {
        2 => Some("loading of the page-directory-pointer entries (SDM vol. 3, 26.3.1.6)"),
        3 => Some("an NMI to inject while events are blocked by STI (SDM vol. 3, 26.3.1.5)"),
        4 => Some("the VMCS link pointer (SDM vol. 3, 26.3.1.5)"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_meanings() {
        assert_eq!(instruction_error(7), "invalid control fields");
        assert!(instruction_error(99).contains("does not list"));
        assert!(guest_state_qualification(4).is_some_and(|text| text.contains("link")));
        assert_eq!(guest_state_qualification(0), None);
    }
}
