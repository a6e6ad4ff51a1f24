// SPDX-License-Identifier: MIT OR Apache-2.0
//! The bus between the local APICs of one VM.

use alloc::{boxed::Box, sync::Arc, vec::Vec};
use core::sync::atomic::{AtomicUsize, Ordering};

use super::{ApicInbox, inbox::Identity};
use crate::{ApicBus, ApicMessage, DeliveryMode, Destination, Doorbell};

/// Vectors below this one are reserved for exceptions and refused in interrupt messages.
pub(super) const FIRST_LEGAL_VECTOR: u8 = 16;

/// One local APIC as the bus sees it.
pub struct BusMember {
    /// Where its messages go.
    pub inbox: Arc<ApicInbox>,
    /// How its vCPU learns of them.
    pub doorbell: Doorbell,
}

/// Delivers interrupt messages to the local APICs of one VM (AMD APM vol. 2, 16.6; Intel SDM
/// vol. 3, 11.6.2). Delivery takes no lock and allocates nothing.
pub struct LocalApicBus {
    members: Box<[BusMember]>,
    /// Where the next lowest-priority arbitration starts, so that equals take turns.
    turn: AtomicUsize,
}

impl LocalApicBus {
    /// A bus with these local APICs, in the order of the vCPUs.
    pub fn new(members: Vec<BusMember>) -> Arc<Self> {
        Arc::new(Self { members: members.into_boxed_slice(), turn: AtomicUsize::new(0) })
    }

    /// The inbox of vCPU number `index`.
    pub fn inbox(&self, index: usize) -> Option<&Arc<ApicInbox>> {
        self.members.get(index).map(|m| &m.inbox)
    }

    /// Delivers to all that are addressed but `sender`; true if anybody accepted.
    pub fn deliver_except(&self, message: ApicMessage, sender: Option<&ApicInbox>) -> bool {
        let is_sender = |m: &BusMember| sender.is_some_and(|s| core::ptr::eq(s, &*m.inbox));
        if message.delivery == DeliveryMode::LowestPriority {
            return self.deliver_to_lowest(message, is_sender);
        }
        if let Destination::Physical(id) = message.destination {
            // IDs are usually indexes, and are always unique.
            let guess = self.members.get(id as usize).filter(|m| m.inbox.identity().id() == id);
            let found = guess.or_else(|| self.members.iter().find(|m| is_addressed(m, message)));
            return found.filter(|m| !is_sender(m)).is_some_and(|m| offer(m, message));
        }
        let mut accepted = false;
        for member in &self.members {
            if is_addressed(member, message) && !is_sender(member) {
                accepted |= offer(member, message);
            }
        }
        accepted
    }

    fn deliver_to_lowest(
        &self,
        message: ApicMessage,
        is_sender: impl Fn(&BusMember) -> bool,
    ) -> bool {
        let start = self.turn.load(Ordering::Relaxed) % self.members.len().max(1);
        let (before, after) = self.members.split_at(start);
        let mut best: Option<(u8, usize)> = None;
        for (distance, member) in after.iter().chain(before).enumerate() {
            if !is_addressed(member, message)
                || is_sender(member)
                || !accepts(member.inbox.identity(), message)
            {
                continue;
            }
            let class = member.inbox.priority_class();
            if best.is_none_or(|(lowest, _)| class < lowest) {
                best = Some((class, distance));
            }
        }
        let Some((_, distance)) = best else { return false };
        let chosen = (start + distance) % self.members.len();
        self.turn.store(chosen + 1, Ordering::Relaxed);
        self.members.get(chosen).is_some_and(|m| offer(m, message))
    }
}

impl ApicBus for LocalApicBus {
    fn deliver(&self, message: ApicMessage) -> bool {
        self.deliver_except(message, None)
    }
}

fn is_addressed(member: &BusMember, message: ApicMessage) -> bool {
    let identity = member.inbox.identity();
    match message.destination {
        Destination::All => true,
        Destination::Physical(id) => identity.id() == id,
        Destination::Logical(mask) => matches_logically(identity, mask),
    }
}

/// Logical destinations: x2APIC cluster (Intel SDM vol. 3, 11.12.10), xAPIC flat and cluster
/// model (11.6.2.2).
fn matches_logically(identity: Identity, mask: u32) -> bool {
    if identity.x2apic() {
        let own = x2apic_logical_id(identity.id());
        return own >> 16 == mask >> 16 && own & mask & 0xFFFF != 0;
    }
    let Ok(mask) = u8::try_from(mask) else { return false };
    if identity.flat() {
        return identity.logical() & mask != 0;
    }
    let same_cluster = mask >> 4 == 0xF || mask >> 4 == identity.logical() >> 4;
    same_cluster && identity.logical() & mask & 0xF != 0
}

/// The logical ID that x2APIC mode derives from the APIC ID.
pub(super) const fn x2apic_logical_id(id: u32) -> u32 {
    (id >> 4) << 16 | 1 << (id & 0xF)
}

/// A local APIC that software disabled still hears INIT, NMI and start-up (Intel SDM vol. 3,
/// 11.4.7.2); one that is switched off in IA32_APIC_BASE hears nothing.
fn accepts(identity: Identity, message: ApicMessage) -> bool {
    if !identity.present() {
        return false;
    }
    match message.delivery {
        DeliveryMode::Fixed | DeliveryMode::LowestPriority => {
            identity.software_enabled() && message.vector.0 >= FIRST_LEGAL_VECTOR
        }
        DeliveryMode::Nmi | DeliveryMode::Init | DeliveryMode::StartUp | DeliveryMode::ExtInt => {
            true
        }
        DeliveryMode::Smi => false,
    }
}

fn offer(member: &BusMember, message: ApicMessage) -> bool {
    let inbox = &member.inbox;
    if !accepts(inbox.identity(), message) {
        return false;
    }
    match message.delivery {
        DeliveryMode::Fixed | DeliveryMode::LowestPriority => {
            inbox.post(message.vector, message.level_triggered);
        }
        DeliveryMode::Nmi => inbox.post_nmi(),
        DeliveryMode::Init => inbox.post_init(),
        DeliveryMode::StartUp => inbox.post_startup(message.vector),
        DeliveryMode::ExtInt => inbox.post_external(),
        DeliveryMode::Smi => return false,
    }
    member.doorbell.ring();
    true
}
