// SPDX-License-Identifier: MIT OR Apache-2.0
//! The page by which hardware finds accesses to the local APIC's registers in xAPIC mode.

use host_iface::{Host, HostError, PageRequest};

use super::core::SecondLevel;
use crate::{
    apic::DEFAULT_APIC_BASE,
    backend::ApicWindow,
    memory::OwnedPages,
    paging::{NestedEntries, NestedTables},
};

/// A page, and nested tables that map it beside the memory of a VM. A vCPU whose local APIC is
/// not in xAPIC mode does without, so that it finds nothing there.
pub struct ApicWindowTables<F> {
    page: OwnedPages,
    tables: NestedTables<F>,
}

impl<F: NestedEntries> ApicWindowTables<F> {
    /// The window of all vCPUs of a VM whose memory `memory` maps; none if it has memory there.
    ///
    /// # Errors
    /// What the host lacks.
    pub fn new(
        host: &'static dyn Host,
        memory: &NestedTables<F>,
    ) -> Result<Option<Self>, HostError> {
        let page = OwnedPages::zeroed(host, PageRequest::contiguous(1))?;
        let tables = memory.with_page(DEFAULT_APIC_BASE, page.address())?;
        Ok(tables.map(|tables| Self { page, tables }))
    }

    /// What a vCPU is told of it.
    pub fn window(&self) -> ApicWindow {
        ApicWindow { nested_root: self.tables.root(), page: self.page.address() }
    }
}

impl<F: NestedEntries + Send + Sync> SecondLevel for ApicWindowTables<F> {
    fn bytes(&self) -> u64 {
        self.page.bytes() as u64 + self.tables.bytes()
    }
}
