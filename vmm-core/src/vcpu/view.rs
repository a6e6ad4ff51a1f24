// SPDX-License-Identifier: MIT OR Apache-2.0
//! A vCPU and its surroundings as the emulator sees them.

use host_iface::Host;

use crate::{
    AccessWidth, GuestPhysAddr,
    apic::LocalApic,
    backend::VcpuBackend,
    bus::Answer,
    emulate::{EmulatorCpu, Exchange, GuestBus},
    memory::LiveMemory,
    paging::walk::{BusError, PagingFeatures, PhysicalMemory},
    state::{
        ControlRegisters, DescriptorTable, Gpr, InterruptShadow, Segment, SegmentRegister, cr0,
    },
    statistics::{Unclaimed, VcpuStatistics},
    vm::VmCore,
};

/// Registers.
pub(super) struct CpuView<'a, V> {
    pub host: &'static dyn Host,
    pub hardware: &'a mut V,
    pub paging: PagingFeatures,
    /// The guest may execute RDTSCP.
    pub has_tsc_aux: bool,
}

impl<V: VcpuBackend> EmulatorCpu for CpuView<'_, V> {
    fn gpr(&self, register: Gpr) -> u64 {
        self.hardware.gpr(register)
    }

    fn set_gpr(&mut self, register: Gpr, value: u64) {
        self.hardware.set_gpr(register, value);
    }

    fn rip(&self) -> u64 {
        self.hardware.rip()
    }

    fn set_rip(&mut self, value: u64) {
        self.hardware.set_rip(value);
    }

    fn rflags(&self) -> u64 {
        self.hardware.rflags()
    }

    fn set_rflags(&mut self, value: u64) {
        self.hardware.set_rflags(value);
    }

    fn segment(&self, register: SegmentRegister) -> Segment {
        self.hardware.segment(register)
    }

    fn set_segment(&mut self, register: SegmentRegister, value: Segment) {
        self.hardware.set_segment(register, value);
    }

    fn descriptor_tables(&self) -> (DescriptorTable, DescriptorTable) {
        self.hardware.descriptor_tables()
    }

    fn set_descriptor_tables(&mut self, gdtr: DescriptorTable, idtr: DescriptorTable) {
        self.hardware.set_descriptor_tables(gdtr, idtr);
    }

    fn debug_register(&self, number: u8) -> u64 {
        match number {
            6 => self.hardware.debug_status_control().0,
            7 => self.hardware.debug_status_control().1,
            number => self.hardware.breakpoint_address(number),
        }
    }

    fn set_debug_register(&mut self, number: u8, value: u64) {
        let (dr6, dr7) = self.hardware.debug_status_control();
        match number {
            6 => self.hardware.set_debug_status_control(value, dr7),
            7 => self.hardware.set_debug_status_control(dr6, value),
            number => self.hardware.set_breakpoint_address(number, value),
        }
    }

    fn time_stamp(&self) -> u64 {
        self.host.tsc().0.wrapping_add(self.hardware.tsc_offset())
    }

    fn time_stamp_auxiliary(&self) -> Option<u32> {
        self.has_tsc_aux.then(|| self.hardware.tsc_aux())
    }

    fn set_interrupt_shadow(&mut self, shadow: Option<InterruptShadow>) {
        match shadow {
            Some(shadow) => self.hardware.begin_interrupt_shadow(shadow),
            None => self.hardware.clear_interrupt_shadow(),
        }
    }

    fn end_nmi_blocking(&mut self) {
        self.hardware.set_nmi_blocking(false);
    }

    fn set_task_switched(&mut self) {
        let old = self.hardware.control_registers();
        self.hardware.set_control_registers(ControlRegisters { cr0: old.cr0 | cr0::TS, ..old });
    }

    fn load_page_tables(&mut self, cr3: u64, page_directory_pointers: Option<[u64; 4]>) {
        if let Some(entries) = page_directory_pointers {
            self.hardware.set_page_directory_pointers(entries);
        }
        let old = self.hardware.control_registers();
        self.hardware.set_control_registers(ControlRegisters { cr3, ..old });
    }

    fn control(&self) -> ControlRegisters {
        self.hardware.control_registers()
    }

    fn cpl(&self) -> u8 {
        self.hardware.cpl()
    }

    fn paging_features(&self) -> PagingFeatures {
        self.paging
    }

    fn page_directory_pointers(&self) -> Option<[u64; 4]> {
        self.hardware.page_directory_pointers()
    }
}

/// Memory, devices and ports. Where nobody answers, reads give all ones and writes are
/// dropped, and both are counted.
pub(super) struct BusView<'a> {
    pub core: &'a VmCore,
    pub vcpu: u32,
    pub apic: &'a mut LocalApic,
    pub statistics: &'a mut VcpuStatistics,
}

impl BusView<'_> {
    /// The offset into the local APIC's page, if `address` lies there.
    fn apic_offset(&self, address: GuestPhysAddr) -> Option<u64> {
        let page = self.apic.mmio_window()?;
        (address.align_down(crate::PAGE_SIZE) == page).then(|| address.offset_in(crate::PAGE_SIZE))
    }

    fn count(&mut self, answer: Answer, kind: Unclaimed) {
        if answer == Answer::Nobody {
            self.statistics.count_unclaimed(kind);
        }
    }

    fn memory(&self) -> LiveMemory<'_> {
        self.core.live_memory(self.vcpu)
    }

    fn read_device(&mut self, address: GuestPhysAddr, width: AccessWidth) -> u64 {
        if let Some(offset) = self.apic_offset(address) {
            return self.apic.read_mmio(offset, width);
        }
        let (value, answer) = self.core.mmio.read(address, width);
        self.count(answer, Unclaimed::MemoryRead);
        value
    }

    fn write_device(&mut self, address: GuestPhysAddr, width: AccessWidth, value: u64) {
        if let Some(offset) = self.apic_offset(address) {
            self.apic.write_mmio(offset, width, value);
            return;
        }
        let answer = self.core.mmio.write(address, width, value);
        self.count(answer, Unclaimed::MemoryWrite);
    }
}

impl PhysicalMemory for BusView<'_> {
    fn read_u32(&self, address: GuestPhysAddr) -> Result<u32, BusError> {
        PhysicalMemory::read_u32(&self.core.memory, address)
    }

    fn read_u64(&self, address: GuestPhysAddr) -> Result<u64, BusError> {
        PhysicalMemory::read_u64(&self.core.memory, address)
    }

    fn compare_exchange_u32(
        &self,
        address: GuestPhysAddr,
        expected: u32,
        new: u32,
    ) -> Result<bool, BusError> {
        PhysicalMemory::compare_exchange_u32(&self.core.memory, address, expected, new)
    }

    fn compare_exchange_u64(
        &self,
        address: GuestPhysAddr,
        expected: u64,
        new: u64,
    ) -> Result<bool, BusError> {
        PhysicalMemory::compare_exchange_u64(&self.core.memory, address, expected, new)
    }
}

impl GuestBus for BusView<'_> {
    fn fetch(&mut self, address: GuestPhysAddr, buffer: &mut [u8]) -> Result<(), BusError> {
        // Code is fetched from memory only; anything else floats.
        if self.core.memory.read(address, buffer).is_err() {
            buffer.fill(0xFF);
        }
        Ok(())
    }

    fn read(&mut self, address: GuestPhysAddr, size: AccessWidth) -> Result<u64, BusError> {
        let memory = &self.core.memory;
        let value = match size {
            AccessWidth::Byte => memory.read_u8(address).map(u64::from),
            AccessWidth::Word => memory.read_u16(address).map(u64::from),
            AccessWidth::Dword => memory.read_u32(address).map(u64::from),
            AccessWidth::Qword => memory.read_u64(address),
        };
        Ok(value.unwrap_or_else(|_| self.read_device(address, size)))
    }

    fn write(
        &mut self,
        address: GuestPhysAddr,
        size: AccessWidth,
        value: u64,
    ) -> Result<(), BusError> {
        if self.memory().write(address, size, value).is_err() {
            self.write_device(address, size, value);
        }
        Ok(())
    }

    fn compare_exchange(
        &mut self,
        address: GuestPhysAddr,
        size: AccessWidth,
        expected: u64,
        new: u64,
    ) -> Result<Exchange, BusError> {
        Ok(match self.memory().compare_exchange(address, size, expected, new) {
            Ok(true) => Exchange::Done,
            Ok(false) => Exchange::Different,
            Err(_) => Exchange::NotAtomic,
        })
    }

    fn compare_exchange_u128(
        &mut self,
        address: GuestPhysAddr,
        _: u128,
        _: u128,
    ) -> Result<Exchange, BusError> {
        // What a device answers cannot be atomic. In memory it would have to be, which the CPU
        // alone can do; with shadow paging it gets the chance.
        match self.core.memory.contains(address) {
            true => Err(BusError),
            false => Ok(Exchange::NotAtomic),
        }
    }

    fn port_in(&mut self, port: u16, size: AccessWidth) -> u32 {
        let (value, answer) = self.core.ports.read(port, size);
        self.count(answer, Unclaimed::PortRead);
        value
    }

    fn port_out(&mut self, port: u16, size: AccessWidth, value: u32) {
        let answer = self.core.ports.write(port, size, value);
        self.count(answer, Unclaimed::PortWrite);
    }
}
