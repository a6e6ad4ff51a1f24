// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every call of the host made to fail, one after the other, and what each came to.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use host_iface::{CpuId, Host, WallClockTime};
use host_mock::{FaultPattern, FaultPlan, HostCall, Injected, MockHost, Rest};
use vmm_core::{
    AccessWidth, EndReason, Exit, GuestPhysAddr, PortIo, VmControl,
    backend::Backend,
    mock_backend::MockBackend,
    state::Gpr,
    vm::{Vm, VmBuilder, VmConfig},
};

use crate::{
    guest,
    life::{self, CPUS, Kind, Machine, Outcome, Stillborn},
    table::Finding,
};

/// The CPU of the neighbour.
const NEIGHBOURS_CPU: u32 = 3;
/// What its memory holds.
const PATTERN: u64 = 0x5A5A_1234_5678_A5A5;

/// A host with a VM on it that is to notice nothing.
pub struct Ground {
    host: &'static MockHost,
    neighbour: Neighbour,
}

struct Neighbour {
    vm: Vm<vmm_core::mock_backend::MockVcpu>,
    control: VmControl,
    turns: Arc<AtomicU64>,
}

impl Ground {
    pub fn new() -> Self {
        let host = MockHost::leak(NEIGHBOURS_CPU + 1);
        host.sleep_when_idle();
        host.set_wall_clock(WallClockTime { unix_seconds: 1_700_000_000, nanoseconds: 0 });
        Self { host, neighbour: Neighbour::start(host) }
    }

    /// Lives a life under `pattern`. All that the host gave has to be back, and the neighbour to
    /// have gone on.
    pub fn live(&self, kind: Kind, pattern: FaultPattern) -> (Outcome, Vec<Injected>) {
        let host = self.host;
        let (held, turns) = (host.holdings(), self.neighbour.turns());
        let what = format!("{kind:?}, {pattern:?}");
        host.set_faults(Some(FaultPlan { cpus: CPUS, pattern }));
        let outcome = life::live(host, kind);
        let injected = host.set_faults(None);
        if injected.iter().any(|one| one.call == HostCall::CancelTimer) {
            // It comes once more, and nobody minds.
            host.disarm(CPUS);
        }
        assert_eq!(host.holdings(), held, "left behind by {what}: {outcome:?}");
        assert_eq!(host.panics(), 0, "a vCPU panicked: {what}");
        self.neighbour.goes_on_from(turns);
        (outcome, injected)
    }

    /// Fails the first call of its kind, then the second, and so on, until a whole life makes no
    /// more; likewise all from there on. Each is followed by a life without a fault.
    pub fn sweep(&self, kind: Kind, call: HostCall, findings: &mut Vec<Finding>) {
        for number in 1.. {
            let (outcome, injected) = self.live(kind, FaultPattern::Nth(call, number));
            let Some(one) = injected.first() else {
                check_whole(kind, &outcome);
                break;
            };
            findings.push(Finding::new(kind, one, &outcome, false));
            check(kind, call, &outcome);
            let (retry, _) = self.live(kind, FaultPattern::None);
            check_whole(kind, &retry);
            let (outcome, _) = self.live(kind, FaultPattern::From(call, number));
            findings.push(Finding::new(kind, one, &outcome, true));
            check(kind, call, &outcome);
        }
    }

    /// The calls that a whole life does not make.
    pub fn calls_missing_in(&self, kind: Kind) -> Vec<HostCall> {
        let pattern = FaultPattern::None;
        self.host.set_faults(Some(FaultPlan { cpus: CPUS, pattern }));
        check_whole(kind, &life::live(self.host, kind));
        HostCall::ALL.into_iter().filter(|&call| self.host.calls(call) == 0).collect()
    }

    /// Ends the neighbour, which has kept what is its own.
    pub fn leave(self) {
        let Self { host, neighbour } = self;
        neighbour.stop(host);
        assert_eq!(host.holdings(), host_mock::Holdings::default());
    }
}

/// A life without a fault runs to its end.
fn check_whole(kind: Kind, outcome: &Outcome) {
    let whole = match outcome {
        Outcome::Ended(EndReason::ExitPort(0), output) => output == guest::OUTPUT,
        Outcome::Built => kind.machine != Machine::Mock,
        _ => false,
    };
    assert!(whole, "{kind:?} without a fault: {outcome:?}");
}

/// What a fault may come to: a typed error whose text names what was to be had, or a life to its
/// end, or one that waits and can be stopped.
fn check(kind: Kind, call: HostCall, outcome: &Outcome) {
    match outcome {
        Outcome::Stillborn(why) => {
            assert_eq!(call, HostCall::AllocatePages, "{why:?}");
            let text = text(why);
            assert!(text.contains("the host has no"), "{kind:?}: {text}");
        }
        Outcome::Ended(EndReason::Stopped(why), _) => {
            assert_eq!((call, *why), (HostCall::RunOn, "a CPU of the host was not free"));
        }
        Outcome::Stopped => {
            assert!(matches!(call, HostCall::Kick | HostCall::ArmTimer), "{kind:?}: {call:?}");
        }
        Outcome::Ended(EndReason::ExitPort(0), output) => {
            assert!(call == HostCall::Console || output == guest::OUTPUT, "{kind:?}: {output:?}");
        }
        Outcome::Built => {}
        Outcome::Ended(..) => panic!("{kind:?}, {call:?}: {outcome:?}"),
    }
}

/// The message for people.
pub fn text(why: &Stillborn) -> String {
    match why {
        Stillborn::Probe(error) => error.to_string(),
        Stillborn::Build(error) => error.to_string(),
        Stillborn::Platform(error) => error.to_string(),
        Stillborn::Boot(error) => error.to_string(),
    }
}

impl Neighbour {
    fn start(host: &'static MockHost) -> Self {
        let backend = Arc::new(MockBackend { host });
        let config = VmConfig { memory_bytes: 2 << 20, vcpus: 1 };
        let builder = VmBuilder::new(host, config).expect("the host has memory");
        let mut vm = builder.build(&*backend).expect("the host has memory");
        for address in Self::places() {
            vm.memory().write_u64(address, PATTERN).expect("it is memory");
        }
        let turns = Arc::new(AtomicU64::new(0));
        let mut vcpu = vm.take_vcpus().remove(0);
        let count = turns.clone();
        vcpu.hardware().guest = Box::new(move |registers, _| {
            count.fetch_add(1, Ordering::SeqCst);
            thread::sleep(Duration::from_micros(200));
            registers.next_rip = Some(registers.rip);
            registers.set_gpr(Gpr::Rax, 0);
            let (port, width) = (0x80, AccessWidth::Byte);
            Exit::PortIo(PortIo { port, width, is_input: true, is_string: false })
        });
        let task = Box::new(move || {
            backend.enter_cpu().expect("the mock's CPUs can run guests");
            vcpu.run();
            backend.leave_cpu();
        });
        host.run_on(CpuId(NEIGHBOURS_CPU), task).expect("the CPU is free");
        let control = vm.control().clone();
        Self { vm, control, turns }
    }

    /// One word in each page.
    fn places() -> impl Iterator<Item = GuestPhysAddr> {
        (0x10_0000..0x20_0000).step_by(0x1000).map(GuestPhysAddr::new)
    }

    fn turns(&self) -> u64 {
        self.turns.load(Ordering::SeqCst)
    }

    /// Waits until it has got further than `turns`.
    fn goes_on_from(&self, turns: u64) {
        let begin = Instant::now();
        while self.turns() == turns {
            assert!(begin.elapsed().as_secs() < 20, "the neighbour stands still");
            assert_eq!(self.control.ended(), None, "the neighbour has ended");
            thread::yield_now();
        }
    }

    fn stop(self, host: &MockHost) {
        assert_eq!(self.control.ended(), None, "the neighbour has ended");
        for address in Self::places() {
            let found = self.vm.memory().read_u64(address).expect("it is memory");
            assert_eq!(found, PATTERN, "the neighbour's memory was changed at {address}");
        }
        self.control.end(EndReason::Stopped("the end of the test"));
        let rest = host.rest(NEIGHBOURS_CPU..=NEIGHBOURS_CPU, Duration::from_secs(20));
        assert_eq!(rest, Rest::Ended, "the neighbour cannot be stopped");
    }
}
