// SPDX-License-Identifier: MIT OR Apache-2.0
//! A CPU and a bus for tests.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;

use super::race::Race;
use crate::access::AccessWidth;
use crate::address::GuestPhysAddr;
use crate::emulate::{EmulatorCpu, Exchange, GuestBus};
use crate::paging::walk::{BusError, PagingFeatures, PhysicalMemory};
use crate::state::{
    ControlRegisters, DescriptorTable, Gpr, InterruptShadow, Segment, SegmentAttributes,
    SegmentRegister, cr0, cr4, efer, rflags,
};

/// Registers in plain fields.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TestCpu {
    pub gprs: [u64; 16],
    pub rip: u64,
    pub rflags: u64,
    pub segments: [Segment; 8],
    pub control: ControlRegisters,
    pub cpl: u8,
    pub gdtr: DescriptorTable,
    pub idtr: DescriptorTable,
    /// DR0 to DR7.
    pub debug: [u64; 8],
    pub time: u64,
    /// If there is RDTSCP.
    pub time_auxiliary: Option<u32>,
    pub shadow: Option<InterruptShadow>,
    pub nmi_blocked: bool,
    /// Kept by the CPU in PAE paging, if at all.
    pub page_directory_pointers: Option<[u64; 4]>,
}

/// A flat segment with these attributes.
pub fn flat(attributes: SegmentAttributes) -> Segment {
    Segment { selector: 8, limit: u32::MAX, base: 0, attributes }
}

/// Attributes of a data segment that is writable and 32-bit.
pub fn data() -> SegmentAttributes {
    SegmentAttributes::new()
        .with_kind(3)
        .with_code_or_data(true)
        .with_present(true)
        .with_default_big(true)
        .with_granularity(true)
}

/// Attributes of a readable 32-bit code segment.
pub fn code() -> SegmentAttributes {
    data().with_kind(11)
}

impl TestCpu {
    fn with(segments: [Segment; 8], control: ControlRegisters) -> Self {
        let table = DescriptorTable { base: 0, limit: 0xFFFF };
        Self {
            gprs: [0; 16],
            rip: 0,
            rflags: rflags::FIXED,
            segments,
            control,
            cpl: 0,
            gdtr: table,
            idtr: table,
            debug: [0; 8],
            time: 0x1122_3344_5566,
            time_auxiliary: None,
            shadow: None,
            nmi_blocked: false,
            page_directory_pointers: None,
        }
    }

    /// 64-bit mode at CPL 0 with page tables at `root`.
    pub fn long(root: u64) -> Self {
        let mut segments = [flat(data()); 8];
        segments[SegmentRegister::Cs as usize] =
            flat(code().with_long(true).with_default_big(false));
        let control = ControlRegisters {
            cr0: cr0::PE | cr0::PG | cr0::WP,
            cr3: root,
            cr4: cr4::PAE,
            efer: efer::LME | efer::LMA | efer::NXE,
            ..ControlRegisters::default()
        };
        Self::with(segments, control)
    }

    /// 32-bit protected mode at CPL 0 with flat segments and without paging.
    pub fn protected() -> Self {
        let mut segments = [flat(data()); 8];
        segments[SegmentRegister::Cs as usize] = flat(code());
        Self::with(segments, ControlRegisters { cr0: cr0::PE, ..ControlRegisters::default() })
    }

    /// Real mode with all segments at 0.
    pub fn real() -> Self {
        let attributes = data().with_default_big(false).with_granularity(false);
        let segment = Segment { limit: 0xFFFF, selector: 0, base: 0, attributes };
        Self::with([segment; 8], ControlRegisters::default())
    }

    pub fn segment_mut(&mut self, register: SegmentRegister) -> &mut Segment {
        &mut self.segments[register as usize]
    }
}

impl EmulatorCpu for TestCpu {
    fn gpr(&self, register: Gpr) -> u64 {
        self.gprs[register as usize]
    }
    fn set_gpr(&mut self, register: Gpr, value: u64) {
        self.gprs[register as usize] = value;
    }
    fn rip(&self) -> u64 {
        self.rip
    }
    fn set_rip(&mut self, value: u64) {
        self.rip = value;
    }
    fn rflags(&self) -> u64 {
        self.rflags
    }
    fn set_rflags(&mut self, value: u64) {
        self.rflags = value;
    }
    fn segment(&self, register: SegmentRegister) -> Segment {
        self.segments[register as usize]
    }
    fn set_segment(&mut self, register: SegmentRegister, value: Segment) {
        self.segments[register as usize] = value;
        if register == SegmentRegister::Ss {
            self.cpl = value.attributes.dpl();
        }
    }
    fn descriptor_tables(&self) -> (DescriptorTable, DescriptorTable) {
        (self.gdtr, self.idtr)
    }
    fn set_descriptor_tables(&mut self, gdtr: DescriptorTable, idtr: DescriptorTable) {
        (self.gdtr, self.idtr) = (gdtr, idtr);
    }
    fn debug_register(&self, number: u8) -> u64 {
        self.debug[usize::from(number)]
    }
    fn set_debug_register(&mut self, number: u8, value: u64) {
        self.debug[usize::from(number)] = value;
    }
    fn time_stamp(&self) -> u64 {
        self.time
    }
    fn time_stamp_auxiliary(&self) -> Option<u32> {
        self.time_auxiliary
    }
    fn set_interrupt_shadow(&mut self, shadow: Option<InterruptShadow>) {
        self.shadow = shadow;
    }
    fn end_nmi_blocking(&mut self) {
        self.nmi_blocked = false;
    }
    fn set_task_switched(&mut self) {
        self.control.cr0 |= cr0::TS;
    }
    fn load_page_tables(&mut self, cr3: u64, page_directory_pointers: Option<[u64; 4]>) {
        self.control.cr3 = cr3;
        self.page_directory_pointers = page_directory_pointers.or(self.page_directory_pointers);
    }
    fn control(&self) -> ControlRegisters {
        self.control
    }
    fn cpl(&self) -> u8 {
        self.cpl
    }
    fn paging_features(&self) -> PagingFeatures {
        PagingFeatures {
            physical_address_bits: 48,
            gigabyte_pages: true,
            table_global_reserved: true,
        }
    }
    fn page_directory_pointers(&self) -> Option<[u64; 4]> {
        self.page_directory_pointers
    }
}

/// An access to the device or a port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    Read(u64, AccessWidth),
    Write(u64, AccessWidth, u64),
    In(u16, AccessWidth),
    Out(u16, AccessWidth, u32),
    /// A compare-and-exchange that took place.
    Exchange(u64, AccessWidth),
}

/// Where the device answers; its reads return the low bits of [`DEVICE_VALUE`].
pub const DEVICE: u64 = 0xFEC0_0000;
pub const DEVICE_VALUE: u64 = 0x8899_AABB_CCDD_EEFF;
/// Accesses here are refused.
pub const REFUSED: u64 = 0xFED0_0000;

type Page = Box<[u8; 4096]>;

/// RAM in pages that exist once they are added, a device, and ports.
pub struct TestBus {
    ram: RefCell<HashMap<u64, Page>>,
    /// Accesses to memory, devices and ports so far.
    pub accesses: Cell<u64>,
    pub log: Vec<Event>,
    pub port_value: u32,
    /// This many compare-and-exchanges fail with another CPU's write of this value first.
    pub interference: Option<(u32, u64)>,
    /// The other CPU's value goes up each time.
    pub counting: bool,
    /// Reads that another CPU's writes follow; none at first.
    pub race: RefCell<Race>,
    tables: u64,
}

/// Where [`TestBus::map`] puts page tables; the root is the first.
pub const ROOT: u64 = 0x10_0000;

impl TestBus {
    /// RAM pages at the given addresses, and a page-table root at [`ROOT`].
    pub fn new(pages: &[u64]) -> Self {
        let bus = Self {
            ram: RefCell::default(),
            accesses: Cell::new(0),
            log: Vec::new(),
            port_value: 0x1234_5678,
            interference: None,
            counting: false,
            race: RefCell::default(),
            tables: ROOT,
        };
        pages.iter().chain([&ROOT]).for_each(|page| bus.add(*page));
        bus
    }

    pub fn add(&self, address: u64) {
        self.ram.borrow_mut().insert(address >> 12, Box::new([0; 4096]));
    }

    /// Maps a page in the 4-level tables at [`ROOT`]; `flags` are those of the last entry.
    pub fn map(&mut self, linear: u64, physical: u64, flags: u64) {
        let mut table = ROOT;
        for level in (2..=4).rev() {
            let entry = table + ((linear >> (3 + 9 * level)) & 0x1FF) * 8;
            if self.load(entry, 8) == 0 {
                self.tables += 0x1000;
                self.add(self.tables);
                self.store(entry, 8, self.tables | 7);
            }
            table = self.load(entry, 8) & !0xFFF;
        }
        self.store(table + ((linear >> 12) & 0x1FF) * 8, 8, physical | flags);
    }

    pub fn load(&self, address: u64, bytes: u64) -> u64 {
        (0..bytes).fold(0, |value, i| {
            let at = address + i;
            let byte = self.ram.borrow()[&(at >> 12)][(at & 0xFFF) as usize];
            value | u64::from(byte) << (8 * i)
        })
    }

    pub fn store(&self, address: u64, bytes: u64, value: u64) {
        self.store_bytes(address, &value.to_le_bytes()[..bytes as usize]);
    }

    pub fn store_bytes(&self, address: u64, bytes: &[u8]) {
        let mut ram = self.ram.borrow_mut();
        let (mut at, mut rest) = (address, bytes);
        while !rest.is_empty() {
            let page = ram.get_mut(&(at >> 12)).expect("RAM was added there");
            let place = &mut page[(at & 0xFFF) as usize..];
            let (piece, behind) = rest.split_at(rest.len().min(place.len()));
            place[..piece.len()].copy_from_slice(piece);
            (at, rest) = (at.wrapping_add(piece.len() as u64), behind);
        }
    }

    /// Copy of a whole page.
    pub fn page(&self, address: u64) -> [u8; 4096] {
        *self.ram.borrow()[&(address >> 12)]
    }

    fn count(&self) {
        self.accesses.set(self.accesses.get() + 1);
    }

    fn is_ram(&self, address: GuestPhysAddr) -> bool {
        self.ram.borrow().contains_key(&(address.as_u64() >> 12))
    }

    fn is_refused(&self, address: GuestPhysAddr) -> bool {
        address.align_down(4096).as_u64() == REFUSED
    }

    fn checked(&self, address: GuestPhysAddr, bytes: u64) -> Result<u64, BusError> {
        assert!(bytes <= address.left_in_page(), "access crosses a page");
        self.count();
        if self.is_ram(address) { Ok(address.as_u64()) } else { Err(BusError) }
    }

    /// Lets another CPU write where was read.
    fn let_race(&self, address: u64, bytes: u64) {
        for at in self.race.borrow_mut().read(address, bytes) {
            self.store(at, 1, !self.load(at, 1) & 0xFF);
        }
    }

    /// Reads memory, once.
    fn read_memory(&self, address: GuestPhysAddr, bytes: u64) -> Result<u64, BusError> {
        let at = self.checked(address, bytes)?;
        let value = self.load(at, bytes);
        self.let_race(at, bytes);
        Ok(value)
    }

    /// Replaces what is in memory, if it is what was expected.
    fn exchange(
        &self,
        address: GuestPhysAddr,
        bytes: u64,
        expected: u64,
        new: u64,
    ) -> Result<bool, BusError> {
        let at = self.checked(address, bytes)?;
        let same = self.load(at, bytes) == expected;
        if same {
            self.store(at, bytes, new);
        }
        Ok(same)
    }
}

impl PhysicalMemory for TestBus {
    fn read_u32(&self, address: GuestPhysAddr) -> Result<u32, BusError> {
        Ok(self.read_memory(address, 4)? as u32)
    }
    fn read_u64(&self, address: GuestPhysAddr) -> Result<u64, BusError> {
        self.read_memory(address, 8)
    }
    fn compare_exchange_u32(
        &self,
        address: GuestPhysAddr,
        expected: u32,
        new: u32,
    ) -> Result<bool, BusError> {
        self.exchange(address, 4, expected.into(), new.into())
    }
    fn compare_exchange_u64(
        &self,
        address: GuestPhysAddr,
        expected: u64,
        new: u64,
    ) -> Result<bool, BusError> {
        self.exchange(address, 8, expected, new)
    }
}

impl GuestBus for TestBus {
    fn fetch(&mut self, address: GuestPhysAddr, buffer: &mut [u8]) -> Result<(), BusError> {
        let at = self.checked(address, buffer.len() as u64)?;
        let page = self.page(at);
        buffer.copy_from_slice(&page[(at & 0xFFF) as usize..][..buffer.len()]);
        self.let_race(at, buffer.len() as u64);
        Ok(())
    }

    fn read(&mut self, address: GuestPhysAddr, size: AccessWidth) -> Result<u64, BusError> {
        if self.is_refused(address) {
            return Err(BusError);
        }
        match self.read_memory(address, size.length()) {
            Ok(value) => Ok(value),
            Err(BusError) => {
                self.log.push(Event::Read(address.as_u64(), size));
                Ok(DEVICE_VALUE & size.mask())
            }
        }
    }

    fn write(
        &mut self,
        address: GuestPhysAddr,
        size: AccessWidth,
        value: u64,
    ) -> Result<(), BusError> {
        assert_eq!(value & !size.mask(), 0, "value wider than the access");
        if self.is_refused(address) {
            return Err(BusError);
        }
        match self.checked(address, size.length()) {
            Ok(at) => self.store(at, size.length(), value),
            Err(BusError) => self.log.push(Event::Write(address.as_u64(), size, value)),
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
        let Ok(at) = self.checked(address, size.length()) else {
            return Ok(Exchange::NotAtomic);
        };
        if let Some((times, value)) = &mut self.interference
            && *times > 0
        {
            *times -= 1;
            *value += u64::from(self.counting);
            let value = *value;
            self.store(at, size.length(), value);
        }
        if self.load(at, size.length()) != expected {
            return Ok(Exchange::Different);
        }
        self.store(at, size.length(), new);
        self.log.push(Event::Exchange(at, size));
        Ok(Exchange::Done)
    }

    fn compare_exchange_u128(
        &mut self,
        address: GuestPhysAddr,
        expected: u128,
        new: u128,
    ) -> Result<Exchange, BusError> {
        let Ok(at) = self.checked(address, 16) else {
            return Ok(Exchange::NotAtomic);
        };
        let now = u128::from(self.load(at + 8, 8)) << 64 | u128::from(self.load(at, 8));
        if now != expected {
            return Ok(Exchange::Different);
        }
        self.store_bytes(at, &new.to_le_bytes());
        Ok(Exchange::Done)
    }

    fn port_in(&mut self, port: u16, size: AccessWidth) -> u32 {
        self.count();
        self.log.push(Event::In(port, size));
        self.port_value & size.mask() as u32
    }

    fn port_out(&mut self, port: u16, size: AccessWidth, value: u32) {
        self.count();
        self.log.push(Event::Out(port, size, value));
    }
}

/// A page of code at 0x1000 and one of data at 0x2000, identity-mapped, with code set up.
pub struct Machine {
    pub cpu: TestCpu,
    pub bus: TestBus,
}

/// Where a [`Machine`] runs.
pub const CODE: u64 = 0x1000;
/// Data of a [`Machine`], two pages.
pub const DATA: u64 = 0x2000;

impl Machine {
    fn with(cpu: TestCpu, code: &[u8]) -> Self {
        let mut bus = TestBus::new(&[0, CODE, DATA, DATA + 0x1000]);
        for page in [CODE, DATA, DATA + 0x1000, DEVICE, REFUSED] {
            bus.map(page, page, 7);
        }
        bus.store_bytes(CODE, code);
        let mut machine = Self { cpu, bus };
        machine.cpu.rip = CODE;
        machine
    }

    pub fn long(code: &[u8]) -> Self {
        Self::with(TestCpu::long(ROOT), code)
    }

    pub fn protected(code: &[u8]) -> Self {
        Self::with(TestCpu::protected(), code)
    }

    pub fn real(code: &[u8]) -> Self {
        Self::with(TestCpu::real(), code)
    }

    pub fn set(mut self, register: Gpr, value: u64) -> Self {
        self.cpu.set_gpr(register, value);
        self
    }

    pub fn get(&self, register: Gpr) -> u64 {
        self.cpu.gpr(register)
    }

    pub fn run(&mut self) -> crate::emulate::Outcome {
        crate::emulate::emulate(&mut self.cpu, &mut self.bus, None)
    }
}
