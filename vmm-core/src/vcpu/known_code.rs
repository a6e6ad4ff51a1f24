// SPDX-License-Identifier: MIT OR Apache-2.0
//! Instructions that are known since they exited before.
//!
//! The same few instructions exit again and again. What was once found out about one is kept,
//! together with the quadwords of guest memory by which it was found out: the page-table entries on
//! the way to the instruction, and its bytes. While all of those hold what they did, another walk
//! and another look would come to the same, so that nothing has to be told when the guest changes
//! its tables or its code.

use alloc::sync::Arc;

use crate::{
    address::{GuestPhysAddr, GuestVirtAddr, PAGE_SIZE},
    emulate::{self, SimpleMove},
    memory::Witness,
    paging::walk::probe,
    vm::VmCore,
};

const WORD: u64 = 8;

/// Words that hold the longest instruction, wherever it begins in the first.
const CODE_WORDS: usize = 3;

/// Entries on the way through tables of four levels.
const LEVELS: usize = 4;

/// Binary logarithm of the number of pairs of slots. An instruction is in the pair that its address
/// leads to.
const PAIRS_LOG2: u32 = 4;

/// What is known of an instruction.
#[derive(Clone, Copy)]
pub(super) struct Instruction {
    /// Its bytes.
    pub length: u8,
    /// What it does, if that is a move which can be of use with a device.
    pub simple_move: Option<SimpleMove>,
}

impl Instruction {
    /// The instruction that 64-bit `code` begins with, if it is one of those that usually exit.
    pub fn of(code: &[u8]) -> Option<Self> {
        if let Some(length) = emulate::length_of_common(code) {
            return Some(Self { length: length as u8, simple_move: None });
        }
        let simple_move = SimpleMove::decode(code)?;
        Some(Self { length: simple_move.length(), simple_move: Some(simple_move) })
    }
}

/// Where 64-bit code is, on tables of four levels.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct CodePlace {
    pub cr3: u64,
    pub rip: u64,
}

impl CodePlace {
    /// Multiplicative hashing, by 2^64 divided by the golden ratio.
    #[inline(always)]
    const fn pair(self) -> usize {
        (self.rip.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> (u64::BITS - PAIRS_LOG2)) as usize
    }
}

/// Words that tell of an instruction: each but the longest on the longest way has that many or
/// less.
const WITNESSES: usize = LEVELS + CODE_WORDS - 1;

#[derive(Clone, Copy)]
struct Slot {
    place: CodePlace,
    witnesses: [Witness; WITNESSES],
    instruction: Instruction,
}

impl Slot {
    const EMPTY: Self = Self {
        place: CodePlace { cr3: 0, rip: 0 },
        witnesses: [Witness::LIAR; WITNESSES],
        instruction: Instruction { length: 0, simple_move: None },
    };
}

/// The instructions that a vCPU has exited for of late.
pub(super) struct KnownCode {
    /// Keeps the memory that is looked at.
    core: Arc<VmCore>,
    pairs: [[Slot; 2]; 1 << PAIRS_LOG2],
}

impl KnownCode {
    pub fn new(core: Arc<VmCore>) -> Self {
        Self { core, pairs: [[Slot::EMPTY; 2]; 1 << PAIRS_LOG2] }
    }

    /// The instruction at `place`, if it is known. The CPU has just fetched it, so what it checks
    /// on the way is not checked again.
    #[inline(always)]
    pub fn get(&self, place: CodePlace) -> Option<&Instruction> {
        let [first, second] = &self.pairs[place.pair()];
        let slot = if first.place == place { first } else { second };
        // SAFETY: the memory is that of `core`, which never changes its regions.
        let holds = |witness: &Witness| unsafe { witness.holds() };
        (slot.place == place && slot.witnesses.iter().all(holds)).then_some(&slot.instruction)
    }

    /// Looks at the instruction at `place`, which the CPU has just fetched, and keeps what is found
    /// for [`get`](Self::get) if it can be kept. `None` if it is of no use here, or the page tables
    /// have changed since the fetch.
    #[cold]
    pub fn learn(&mut self, place: CodePlace) -> Option<Instruction> {
        let mut way = Way { core: &self.core, read: [Witness::LIAR; WAY], count: 0 };
        let at = probe(place.cr3, GuestVirtAddr::new(place.rip), |entry| way.quadword(entry))?;
        let levels = way.count;
        let code = way.code(at)?;
        let instruction = Instruction::of(code.as_slice())?;
        let words = (code.from + usize::from(instruction.length)).div_ceil(WORD as usize);
        if let Some(read) = way.read.get(..levels + words)
            && read.len() <= WITNESSES
        {
            let mut witnesses = [read[0]; WITNESSES];
            witnesses[..read.len()].copy_from_slice(read);
            let [first, second] = &mut self.pairs[place.pair()];
            if first.place != place {
                *second = *first;
            }
            *first = Slot { place, witnesses, instruction };
        }
        Some(instruction)
    }
}

/// Words that a look at an instruction may read.
const WAY: usize = LEVELS + CODE_WORDS;

/// What is read of guest memory in a look at an instruction.
struct Way<'a> {
    core: &'a VmCore,
    read: [Witness; WAY],
    count: usize,
}

/// Bytes of the words that an instruction may lie in.
struct Code {
    bytes: [u8; CODE_WORDS * WORD as usize],
    from: usize,
    to: usize,
}

impl Code {
    fn as_slice(&self) -> &[u8] {
        self.bytes.get(self.from..self.to).unwrap_or_default()
    }
}

impl Way<'_> {
    /// Reads the words from the one that `at` is in on, at most up to the end of the page.
    fn code(&mut self, at: GuestPhysAddr) -> Option<Code> {
        let word = at.align_down(WORD);
        let left = (PAGE_SIZE - word.offset_in(PAGE_SIZE)) / WORD;
        let mut code = Code { bytes: Default::default(), from: at.offset_in(WORD) as usize, to: 0 };
        let (words, _) = code.bytes.as_chunks_mut::<{ WORD as usize }>();
        for (number, bytes) in (0..left).zip(words) {
            *bytes = self.quadword(word.checked_add(number * WORD)?)?.to_le_bytes();
            code.to += WORD as usize;
        }
        Some(code)
    }

    /// Reads eight bytes at an aligned address; `None` where there is no memory.
    fn quadword(&mut self, address: GuestPhysAddr) -> Option<u64> {
        let witness = Witness::of(&self.core.memory, address)?;
        *self.read.get_mut(self.count)? = witness;
        self.count += 1;
        Some(witness.value())
    }
}
