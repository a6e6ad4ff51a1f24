// SPDX-License-Identifier: MIT OR Apache-2.0
//! The loop of two vCPUs with exits that only a hostile guest, or a confused CPU, would have.
//!
//! The guest is random numbers: each entry ends with an exit of any kind, in any state of the
//! registers and of memory, and maybe during the delivery of an event; meanwhile interrupts, NMIs,
//! INIT, start-ups and time come from elsewhere. Both vCPUs take turns on one thread, so that
//! equal numbers give equal lives. [`model`] says what must hold at each entry; at the end all
//! that the host gave has to be back, and its other memory as it was.
//!
//! In a *calm* life the guest leaves its local APICs alone but for the ends of interrupts. Then
//! each interrupt that was sent must have come at the end, and none more often than it was sent.

mod exits;
mod model;
mod state;

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use host_iface::{Host, PageRequest, PageRun};
use host_mock::MockHost;

use self::{
    exits::Rule,
    model::{Account, Last, NMI},
};
use crate::{
    ApicBus, ApicMessage, DeliveryMode, Destination, EndReason, Event, Exit,
    ExternalInterruptSource, Timer, TimerClient, Vector, VmInstant,
    apic::ApicMode,
    backend::VcpuBackend,
    emulate::tests::random::Random,
    memory::MIN_MEMORY,
    mock_backend::{MockBackend, MockVcpu, Registers},
    paging::shadow::ShadowConfig,
    state::{Gpr, cr0, rflags},
    vcpu::{Vcpu, activity::Activity},
    vm::{PagingChoice, Vm, VmBuilder, VmConfig, VmCore},
};

/// Entries of one life, at most.
const MOST_ENTRIES: u64 = 48;
/// Turns of the loop for each of them, and for the waits.
const TURNS: u64 = 4;
/// Entries until a calm guest has taken all that was sent.
const DRAIN: u64 = 200;
/// Instructions that a vCPU may interpret in one turn.
const BATCH: u64 = 1024;
/// Bytes that may be allocated from an exit to the next entry, freed again or not. The VMM takes
/// none, but what plays host and hardware keeps a list or two. With shadow paging it asks for
/// pages of tables, which come from the same heap here, and for what is kept beside them.
const MOST_ALLOCATED: u64 = 512;
const MOST_ALLOCATED_FOR_TABLES: u64 = 256 << 10;

/// Vectors that the test sends; below are those of the 8259A pair.
const FIRST_VECTOR: u64 = 0x30;
/// The vector of the 8259A pair.
const EXTERNAL: Vector = Vector(0x21);
const X2APIC_EOI: u64 = 0x80B;

thread_local! {
    static HOST: &'static MockHost = MockHost::leak(2);
}

/// How a VM is made, and what its CPU is like.
struct Plan {
    vcpus: u32,
    shadow: bool,
    calm: bool,
    delivers_interrupts: bool,
    has_own_timer: bool,
    interprets_real_mode: bool,
}

impl Plan {
    fn choose(random: &mut Random) -> Self {
        let calm = random.chance(2);
        Self {
            calm,
            vcpus: 1 + random.below(2) as u32,
            shadow: !calm && random.chance(4),
            delivers_interrupts: !calm && random.chance(4),
            has_own_timer: random.chance(4),
            interprets_real_mode: !calm && random.chance(8),
        }
    }
}

/// The 8259A pair, and a timer that makes it ask for an interrupt.
#[derive(Default)]
struct Controller {
    requests: Mutex<u32>,
    risen: AtomicBool,
}

impl Controller {
    fn ask(&self) {
        let mut requests = lock(&self.requests);
        *requests += 1;
        if *requests == 1 {
            self.risen.store(true, Ordering::SeqCst);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ExternalInterruptSource for Controller {
    fn pending(&self) -> bool {
        *lock(&self.requests) > 0
    }
    fn take_rise(&self) -> bool {
        self.risen.swap(false, Ordering::SeqCst)
    }
    fn acknowledge(&self) -> Option<Vector> {
        let mut requests = lock(&self.requests);
        *requests = requests.checked_sub(1)?;
        Some(EXTERNAL)
    }
}

/// What the guest and the world around it do.
struct World {
    random: Random,
    plan: Plan,
    host: &'static MockHost,
    core: Arc<VmCore>,
    controller: Arc<Controller>,
    entries: u64,
    draining: bool,
    watched: Vec<Watched>,
    /// What the VM has to end with.
    end: Option<EndReason>,
    allocated: fn() -> u64,
    /// Bytes allocated when the guest last exited.
    at_exit: Option<u64>,
}

/// What is known of a vCPU.
#[derive(Default)]
struct Watched {
    last: Option<Last>,
    account: Account,
    /// The instruction at RIP is where it can be executed.
    sound: bool,
    /// INITs so far.
    resets: u32,
    /// The last exit at which it was to take what had been sent ended an interrupt.
    ends_interrupt: bool,
}

/// A VM and its world.
struct Life {
    vm: Vm<MockVcpu>,
    world: Arc<Mutex<World>>,
    _alarm: Arc<Alarm>,
}

/// Lives a life that `bytes` describe. `allocated` tells how many bytes the thread has allocated so
/// far.
///
/// # Panics
/// If anything does not hold.
pub fn check(bytes: &[u8], allocated: fn() -> u64) {
    let host = HOST.with(|host| *host);
    host.disarm(0..=0);
    let before = host.holdings();
    let around = [Neighbour::new(host), Neighbour::new(host)];
    let mut life = Life::new(host, Random::of(bytes), allocated);
    let between = Neighbour::new(host);
    life.live();
    drop(life);
    around.into_iter().chain([between]).for_each(|neighbour| neighbour.check(host));
    host.take_kicks();
    assert_eq!(host.holdings(), before, "not all is back");
}

/// Memory of the host that is nobody's business.
struct Neighbour(PageRun);

impl Neighbour {
    const PAGES: u64 = 2;
    const PATTERN: u8 = 0xA5;

    fn new(host: &'static MockHost) -> Self {
        let run = host.allocate_pages(PageRequest::contiguous(Self::PAGES)).expect("memory");
        let mut neighbour = Self(run);
        neighbour.bytes(host).fill(Self::PATTERN);
        neighbour
    }

    fn bytes(&mut self, host: &'static MockHost) -> &mut [u8] {
        let start = host.phys_to_virt(self.0.start).as_ptr();
        // SAFETY: the run is this many bytes long, and was given to this value alone.
        unsafe { core::slice::from_raw_parts_mut(start, self.0.bytes() as usize) }
    }

    fn check(mut self, host: &'static MockHost) {
        assert!(self.bytes(host).iter().all(|byte| *byte == Self::PATTERN), "memory of others");
        host.release_pages(self.0);
    }
}

impl Life {
    fn new(host: &'static MockHost, mut random: Random, allocated: fn() -> u64) -> Self {
        let plan = Plan::choose(&mut random);
        let controller = Arc::<Controller>::default();
        let config = VmConfig { memory_bytes: MIN_MEMORY, vcpus: plan.vcpus };
        let mut builder = VmBuilder::new(host, config).expect("a small VM");
        builder.external_interrupts(controller.clone());
        if plan.shadow {
            builder.set_paging(PagingChoice::Shadow, ShadowConfig::default());
        }
        let timer = builder.timer().expect("the first timer");
        let alarm = Arc::new(Alarm { timer, period: 1 << random.below(20) });
        alarm.timer.connect(alarm.clone());
        alarm.timer_expired(builder.clock().now());
        let vm = builder.build(&MockBackend { host }).expect("a small VM");
        state::fill(&mut random, vm.memory());
        let watched = (0..plan.vcpus).map(|_| Watched::default()).collect();
        let core = vm.core().clone();
        let world = World {
            entries: 1 + random.below(MOST_ENTRIES),
            random,
            plan,
            host,
            core,
            controller,
            draining: false,
            watched,
            end: None,
            allocated,
            at_exit: None,
        };
        let mut life = Self { vm, world: Arc::new(Mutex::new(world)), _alarm: alarm };
        life.prepare();
        life
    }

    fn prepare(&mut self) {
        for vcpu in self.vm.vcpus() {
            let mut world = lock(&self.world);
            vcpu.apply_firmware_defaults();
            if world.plan.calm || world.random.chance(2) {
                enable_x2apic(vcpu);
            }
            if vcpu.index != 0 && (world.plan.calm || world.random.chance(2)) {
                world.core.apic_bus.inbox(1).expect("the second").post_startup(Vector(1));
                assert!(vcpu.apic.take_startup().is_some());
                vcpu.activity = Activity::Running;
            }
            let hardware = &mut vcpu.hardware;
            hardware.delivers_interrupts = world.plan.delivers_interrupts;
            hardware.registers.msrs.reserve(16);
            hardware.registers.apic_registers.reserve(256);
            hardware.registers.delivered.reserve(16);
            hardware.has_own_timer = world.plan.has_own_timer;
            if world.plan.interprets_real_mode {
                hardware.cannot_enter = |registers| registers.control.cr0 & cr0::PE == 0;
            }
            let index = vcpu.index as usize;
            world.set_state(index, &mut hardware.registers);
            // A start-up sets another.
            world.watched[index].sound &= vcpu.activity == Activity::Running;
            let shared = self.world.clone();
            hardware.guest =
                Box::new(move |registers, event| lock(&shared).guest(index, registers, event));
        }
    }

    fn live(&mut self) {
        for vcpu in self.vm.vcpus() {
            assert!(vcpu.arrive());
        }
        let most = lock(&self.world).entries * TURNS + 64;
        for _ in 0..most {
            if lock(&self.world).entries == 0 || !self.turn() {
                break;
            }
        }
        self.drain();
        self.end();
    }

    /// One vCPU goes through its loop; false when the VM has ended.
    fn turn(&mut self) -> bool {
        let vcpus = self.vm.vcpus();
        let vcpu = {
            let mut world = lock(&self.world);
            let index = world.random.below(vcpus.len() as u64) as usize;
            world.something_happens();
            let vcpu = &mut vcpus[index];
            if !vcpu.hardware.can_enter() {
                // What is interpreted is not seen from here.
                (world.watched[index].last, world.watched[index].sound) = (None, false);
            }
            vcpu
        };
        let before = vcpu.statistics.interpreted;
        let goes_on = vcpu.turn();
        assert!(vcpu.statistics.interpreted - before <= BATCH);
        goes_on
    }

    /// Lets a calm guest take what was sent.
    fn drain(&mut self) {
        let core = self.vm.core().clone();
        if !lock(&self.world).plan.calm || core.control.ended().is_some() {
            return;
        }
        lock(&self.world).draining = true;
        for _ in 0..DRAIN {
            self.vm.vcpus().iter_mut().for_each(|vcpu| _ = vcpu.turn());
        }
        if core.control.ended().is_some() {
            // Two faults and a third.
            return;
        }
        for (index, watched) in lock(&self.world).watched.iter().enumerate() {
            assert_eq!(watched.account.missing(), [], "interrupts of vCPU {index} that were lost");
        }
    }

    /// Another CPU stops the VM, if it has not ended by itself.
    fn end(&mut self) {
        let core = self.vm.core().clone();
        core.control.end(EndReason::Stopped("by another CPU"));
        for vcpu in self.vm.vcpus() {
            assert!(!vcpu.turn(), "a vCPU goes on behind the end");
            vcpu.depart();
            assert!(!vcpu.hardware.loaded);
        }
        let reason = core.control.ended().expect("an end");
        let line = reason.to_string();
        assert!(!line.is_empty() && !line.contains('\n') && line.len() < 300, "{line}");
        if let Some(expected) = &lock(&self.world).end {
            assert_eq!(reason, expected);
        }
        // The guests hold their world, and that the VM.
        self.vm.vcpus().iter_mut().for_each(|vcpu| {
            vcpu.hardware.guest = crate::mock_backend::script([]);
        });
    }
}

/// A timer of the VM, which is due again and again.
struct Alarm {
    timer: Timer,
    period: u64,
}

impl TimerClient for Alarm {
    fn timer_expired(&self, now: VmInstant) {
        self.timer.arm(now.after(self.period));
    }
}

/// Switches the local APIC on, in x2APIC mode.
fn enable_x2apic(vcpu: &mut Vcpu<MockVcpu>) {
    const IA32_APIC_BASE: u64 = 0x1B;
    let bootstrap = u64::from(vcpu.index == 0) << 8;
    let registers = &mut vcpu.hardware.registers;
    registers.set_gpr(Gpr::Rcx, IA32_APIC_BASE);
    registers.set_gpr(Gpr::Rax, 0xFEE0_0C00 | bootstrap);
    registers.set_gpr(Gpr::Rdx, 0);
    registers.next_rip = Some(state::CODE);
    vcpu.handle(Exit::WriteMsr).expect("x2APIC mode");
    assert_eq!(vcpu.apic.mode(), ApicMode::X2Apic);
}

impl World {
    fn set_state(&mut self, index: usize, registers: &mut Registers) {
        self.watched[index].sound = state::choose(&mut self.random, registers, &self.core.memory);
    }

    /// Something comes from outside.
    fn something_happens(&mut self) {
        let vcpu = self.random.below(u64::from(self.plan.vcpus)) as u32;
        match self.random.below(if self.plan.calm { 8 } else { 12 }) {
            0 => {
                let vector = FIRST_VECTOR + self.random.below(0x100 - FIRST_VECTOR);
                self.send(vcpu, DeliveryMode::Fixed, vector as u8);
            }
            1 => self.send(vcpu, DeliveryMode::Nmi, NMI),
            2 => self.host.advance(self.random.below(1 << 16)),
            3 => {
                self.controller.ask();
                self.watched[0].account.send(EXTERNAL.0);
                self.ring(0);
            }
            4 => self.ring(vcpu),
            8 => self.send(vcpu, DeliveryMode::Init, 0),
            9 => self.send(vcpu, DeliveryMode::StartUp, (state::CODE >> 12) as u8),
            10 => self.host.advance(1 << self.random.below(40)),
            _ => {}
        }
    }

    fn ring(&self, vcpu: u32) {
        self.core.links[vcpu as usize].attention().store(true, Ordering::SeqCst);
    }

    fn send(&mut self, vcpu: u32, delivery: DeliveryMode, vector: u8) {
        let message = ApicMessage {
            destination: Destination::Physical(vcpu),
            delivery,
            vector: Vector(vector),
            level_triggered: delivery == DeliveryMode::Fixed && self.random.chance(4),
        };
        let arrives = self.core.apic_bus.deliver(message);
        if arrives && matches!(delivery, DeliveryMode::Fixed | DeliveryMode::Nmi) {
            self.watched[vcpu as usize].account.send(vector);
        }
    }

    /// The guest from an entry to the exit.
    fn guest(&mut self, index: usize, registers: &mut Registers, event: Option<Event>) -> Exit {
        self.check_allocations();
        assert_eq!(self.core.control.ended(), None, "entered behind the end");
        registers.delivered.clear();
        self.check_entry(index, registers, event);
        let exit = if self.draining || self.entries == 0 {
            drain(registers, &mut self.watched[index].ends_interrupt)
        } else {
            self.entries -= 1;
            self.act(index, registers, event)
        };
        self.host.take_kicks();
        self.at_exit = Some((self.allocated)());
        exit
    }

    fn check_allocations(&mut self) {
        let Some(before) = self.at_exit.take() else { return };
        let bytes = (self.allocated)() - before;
        let most = if self.plan.shadow { MOST_ALLOCATED_FOR_TABLES } else { MOST_ALLOCATED };
        assert!(bytes <= most, "{bytes} bytes were allocated for one exit");
    }

    fn check_entry(&mut self, index: usize, registers: &Registers, event: Option<Event>) {
        let watched = &mut self.watched[index];
        let last = watched.last.take();
        // After INIT nothing is as it was.
        watched.sound &= watched.resets == registers.resets;
        watched.resets = registers.resets;
        if let Some(last) = &last {
            last.check(registers, event);
        }
        if let Some(Event::Interrupt(_)) = event
            && !last.as_ref().is_some_and(Last::was_cut_short)
        {
            assert!(registers.rflags & rflags::IF != 0, "an interrupt that is not allowed");
            assert!(!registers.in_shadow, "an interrupt in a shadow");
        }
        if self.plan.calm && !last.is_some_and(|last| last.was_cut_short()) {
            match event {
                Some(Event::Interrupt(vector)) => watched.account.get(vector.0),
                Some(Event::Nmi) => watched.account.get(NMI),
                _ => {}
            }
        }
    }

    /// The guest does anything.
    fn act(&mut self, index: usize, registers: &mut Registers, event: Option<Event>) -> Exit {
        let memory = &self.core.memory;
        let random = &mut self.random;
        if random.chance(3) {
            let sound = state::choose(random, registers, memory);
            self.watched[index].sound = sound;
        } else if self.plan.calm {
            registers.set_interrupts_enabled(random.chance(2));
            registers.nmi_blocked &= random.chance(2);
        }
        let exit = match self.plan.calm {
            true => exits::calm(random, registers),
            false => exits::any(random, registers),
        };
        let length = self.put_code(index, registers, &exit);
        self.cut_short(registers, event, &exit);
        if self.plan.delivers_interrupts && self.random.chance(2) {
            registers.interrupts.in_service.insert(Vector(self.random.bits() as u8));
            registers.interrupts.requested = Default::default();
        }
        if self.random.chance(2) {
            self.something_happens();
        }
        self.watched[index].last = Some(Last::new(exit, registers, length));
        self.note_end(index as u32, registers, &exit);
        exit
    }

    /// Puts an instruction where the guest is, and has the hardware tell of it, or not.
    fn put_code(&mut self, index: usize, registers: &mut Registers, exit: &Exit) -> Option<u64> {
        let (random, memory) = (&mut self.random, &self.core.memory);
        (registers.next_rip, registers.instruction_bytes) = (None, None);
        let rule = Rule::of(exit);
        if self.watched[index].sound {
            registers.rip = state::code_address(registers);
        }
        if rule == Rule::Emulates {
            let code = exits::place_any(random, memory);
            if random.chance(4) {
                let bytes = 1 + random.below(15) as usize;
                registers.instruction_bytes = Some(code[..bytes].to_vec());
            }
        }
        let length = match self.watched[index].sound && rule == Rule::Skips {
            true => exits::place(random, memory, exit),
            false => None,
        };
        if length.is_none() && rule == Rule::Skips || random.chance(2) {
            let length = length.unwrap_or_else(|| 1 + random.below(15));
            registers.next_rip = Some(registers.rip.wrapping_add(length));
        }
        if rule != Rule::Stays {
            // Others may change the mode, and an emulated one is any instruction.
            let brief = matches!(exit, Exit::Cpuid | Exit::Hypercall | Exit::PortIo(_));
            self.watched[index].sound &= rule == Rule::Skips && brief;
        }
        length
    }

    /// Maybe the exit cuts short the delivery of an event: that of the entry, or one that the
    /// guest has met itself.
    fn cut_short(&mut self, registers: &mut Registers, event: Option<Event>, exit: &Exit) {
        registers.interrupted = match event {
            Some(event) if *exit == Exit::NotEntered || self.random.chance(3) => Some(event),
            _ if self.random.chance(8) && !self.plan.calm => Some(exits::event(&mut self.random)),
            _ => None,
        };
    }

    fn note_end(&mut self, vcpu: u32, registers: &Registers, exit: &Exit) {
        let rip = registers.rip;
        self.end = match *exit {
            _ if self.end.is_some() => self.end.take(),
            Exit::MachineCheck => Some(EndReason::MachineCheck { vcpu }),
            Exit::Shutdown => Some(EndReason::TripleFault { vcpu, rip }),
            Exit::EntryFailure(why) => Some(EndReason::EntryFailure { vcpu, why: why.into() }),
            Exit::Unknown(code) => Some(EndReason::UnknownExit { vcpu, code }),
            Exit::NestedMisconfiguration(address) => {
                Some(EndReason::NestedMisconfiguration { vcpu, address })
            }
            _ => None,
        };
    }
}

/// A guest that takes every interrupt and ends it. Every other exit is none that leads straight
/// back.
fn drain(registers: &mut Registers, ends_interrupt: &mut bool) -> Exit {
    (registers.in_shadow, registers.nmi_blocked) = (false, false);
    registers.rflags = rflags::FIXED | rflags::IF;
    registers.set_gpr(Gpr::Rcx, X2APIC_EOI);
    registers.set_gpr(Gpr::Rax, 0);
    registers.set_gpr(Gpr::Rdx, 0);
    (registers.next_rip, registers.interrupted) = (Some(registers.rip), None);
    *ends_interrupt = !*ends_interrupt;
    if *ends_interrupt { Exit::WriteMsr } else { Exit::HostInterrupt }
}
