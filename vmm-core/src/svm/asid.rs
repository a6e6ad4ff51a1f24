// SPDX-License-Identifier: MIT OR Apache-2.0
//! Address space identifiers of one CPU.
//!
//! Each CPU hands out its own identifiers in order. When they run out it flushes its whole
//! TLB and begins a new generation, in which every vCPU needs a new identifier
//! (AMD APM vol. 2, 15.16).

/// An identifier, valid in one generation of one CPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Asid {
    /// The number the hardware sees; zero, the host's, until one was assigned.
    pub number: u32,
    generation: u64,
}

/// The identifiers of one CPU.
#[derive(Debug)]
pub struct AsidPool {
    count: u32,
    next: u32,
    generation: u64,
}

/// What [`AsidPool::ensure`] found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AsidUse {
    /// The identifier is still good.
    Current,
    /// A new one was assigned, which the TLB knows nothing of.
    Fresh(Asid),
    /// A new one was assigned, and the whole TLB has to be flushed at entry.
    FreshAfterFlush(Asid),
}

impl AsidPool {
    /// A pool of `count` identifiers, including the host's; at least two. The first
    /// assignment flushes, as earlier users of the CPU are unknown.
    pub const fn new(count: u32) -> Self {
        Self { count, next: count, generation: 0 }
    }

    /// Gives up all that is assigned: the next assignment flushes.
    pub fn forget(&mut self) {
        self.next = self.count;
        self.generation += 1;
    }

    /// Makes sure that `asid` is valid here.
    pub fn ensure(&mut self, asid: Asid) -> AsidUse {
        if asid.generation == self.generation && asid.number != 0 {
            return AsidUse::Current;
        }
        self.assign()
    }

    /// Assigns a new identifier, which drops whatever was cached under the old one.
    pub fn assign(&mut self) -> AsidUse {
        let flush = self.next >= self.count;
        if flush {
            self.next = 1;
            self.generation += 1;
        }
        let asid = Asid { number: self.next, generation: self.generation };
        self.next += 1;
        if flush { AsidUse::FreshAfterFlush(asid) } else { AsidUse::Fresh(asid) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_unique_between_flushes() {
        let mut pool = AsidPool::new(4);
        let AsidUse::FreshAfterFlush(first) = pool.ensure(Asid::default()) else {
            panic!("the first assignment flushes")
        };
        assert_eq!(pool.ensure(first), AsidUse::Current);
        let AsidUse::Fresh(second) = pool.assign() else { panic!("fresh") };
        let AsidUse::Fresh(third) = pool.assign() else { panic!("fresh") };
        assert_eq!([first.number, second.number, third.number], [1, 2, 3]);
        let AsidUse::FreshAfterFlush(fourth) = pool.assign() else { panic!("flush") };
        assert_eq!(fourth.number, 1);
        assert_ne!(pool.ensure(second), AsidUse::Current, "old generation");
    }

    #[test]
    fn nothing_is_kept_after_a_doubtful_flush() {
        let mut pool = AsidPool::new(4);
        let AsidUse::FreshAfterFlush(first) = pool.assign() else { panic!("flush") };
        pool.forget();
        assert!(matches!(pool.ensure(first), AsidUse::FreshAfterFlush(_)));
    }

    #[test]
    fn the_host_identifier_is_never_handed_out() {
        let mut pool = AsidPool::new(2);
        for _ in 0..5 {
            let AsidUse::FreshAfterFlush(asid) = pool.assign() else { panic!("flush") };
            assert_eq!(asid.number, 1);
        }
    }
}
