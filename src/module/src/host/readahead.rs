//! Reads memory ahead of an iteration over a memtx tree, so that a scan does not wait for one tuple after the other.
//!
//! Tuples lie in memory in the order of their insertion, so a walk in the order of the keys misses the caches at each
//! of them, and the host touches each in turn. A leaf of the tree lists some thirty tuples: asking for the tuples of the
//! next leaf while those of this one are copied makes most of these misses overlap.
//!
//! The host offers no function for that, so this room reads its structures where this build has them. `enable` first
//! compares what it reads with what the host's own iteration answers, by reads that can not fault; where the two
//! differ, scans go on without looking ahead. Nothing but prefetches comes of what is read.

use super::peek::{Memory, Trusted, Untrusted};
use super::space::{IteratorKind, Space};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Places in the host's structures, in bytes.
mod place {
    /// In an iterator: the function that goes to the next tuple, the index, the leaf and the position in it, and
    /// something that is not 0 while the iterator reads an older version of the tree.
    pub const NEXT: usize = 0x00;
    pub const INDEX: usize = 0x20;
    pub const LEAF: usize = 0x28;
    pub const POSITION: usize = 0x2c;
    pub const VIEW: usize = 0x48;
    /// In an index: the table of blocks, three levels deep, and how the number of a block leads through it.
    pub const ROOT: usize = 0x68;
    pub const BLOCK_BYTES: usize = 0x88;
    pub const SHIFT_1: usize = 0x98;
    pub const SHIFT_2: usize = 0x9c;
    pub const MASK_1: usize = 0xa0;
    pub const MASK_2: usize = 0xa4;
    /// In a leaf: its kind, how many tuples it has, the number of the leaf behind it, and pairs of a tuple and a hint.
    pub const KIND: usize = 0x00;
    pub const LEN: usize = 0x02;
    pub const BEHIND: usize = 0x04;
    pub const TUPLES: usize = 0x10;
    pub const TUPLE_STEP: usize = 0x10;
}

const KIND_LEAF: u16 = 4;
/// No leaf has more: a block has 512 bytes.
const LEN_MAX: u16 = 31;
const NO_BLOCK: u32 = u32::MAX;
/// A space that every instance has, with more keys than fit one leaf.
const SPACE_OF_INDEXES: Space = Space(288);
const CACHE_LINE: usize = 64;

/// The host's function that goes to the next tuple of a tree; 0 until `enable` has found it.
static TREE_NEXT: AtomicUsize = AtomicUsize::new(0);

/// Where an iterator stands.
struct Standing {
    index: usize,
    leaf: u32,
    position: u16,
}

impl Standing {
    /// None when the iterator is at the end, or reads an older version of its tree.
    ///
    /// # Safety
    /// As `Memory::read`, for an iterator.
    #[inline]
    unsafe fn of<M: Memory>(memory: &M, iterator: usize) -> Option<Standing> {
        // SAFETY: by the caller's promise.
        unsafe {
            let view: usize = memory.read(iterator + place::VIEW)?;
            let standing = Standing {
                index: memory.read(iterator + place::INDEX)?,
                leaf: memory.read(iterator + place::LEAF)?,
                position: memory.read(iterator + place::POSITION)?,
            };
            (view == 0 && standing.leaf != NO_BLOCK).then_some(standing)
        }
    }
}

/// The address of a block of an index's tree.
///
/// # Safety
/// As `Memory::read`, for a memtx tree and a block of it.
#[inline]
unsafe fn block<M: Memory>(memory: &M, index: usize, number: u32) -> Option<usize> {
    // SAFETY: by the caller's promise.
    unsafe {
        let root: usize = memory.read(index + place::ROOT)?;
        let field = |at: usize| memory.read::<u32>(index + at);
        let first = number.checked_shr(field(place::SHIFT_1)?)? as usize;
        let second = (number & field(place::MASK_1)?).checked_shr(field(place::SHIFT_2)?)? as usize;
        let third = (number & field(place::MASK_2)?) as usize * field(place::BLOCK_BYTES)? as usize;
        let middle: usize = memory.read(root.checked_add(first * 8)?)?;
        let extent: usize = memory.read(middle.checked_add(second * 8)?)?;
        extent.checked_add(third)
    }
}

/// A leaf: how many tuples it has, and which leaf is behind it.
///
/// # Safety
/// As `Memory::read`, for a block.
#[inline]
unsafe fn leaf<M: Memory>(memory: &M, address: usize) -> Option<(u16, u32)> {
    // SAFETY: by the caller's promise.
    unsafe {
        let kind: u16 = memory.read(address + place::KIND)?;
        let len: u16 = memory.read(address + place::LEN)?;
        (kind == KIND_LEAF && len <= LEN_MAX).then_some((len, memory.read(address + place::BEHIND)?))
    }
}

/// Finds out whether this build of the host has its trees where this room expects them. Needs `box.cfg`. Answers
/// whether scans look ahead from now on.
pub fn enable() -> bool {
    let found = if cfg!(target_arch = "x86_64") { verify() } else { None };
    TREE_NEXT.store(found.unwrap_or(0), Ordering::Relaxed);
    found.is_some()
}

/// Walks a space by the host's functions and by reading the tree, and answers the function that goes to the next tuple
/// when both walks see the same.
fn verify() -> Option<usize> {
    let mut walk = SPACE_OF_INDEXES.iterate(0, IteratorKind::Ge, &[0x90]).ok()?;
    let mut function = None;
    let mut last: Option<(u32, u32)> = None;
    let mut crossings = 0;
    while let Some(tuple) = walk.next_tuple().ok()? {
        let iterator = walk.address();
        // SAFETY: these reads can not fault, and nothing is done with what they answer but to compare it.
        unsafe {
            let next: usize = Untrusted.read(iterator + place::NEXT)?;
            let standing = Standing::of(&Untrusted, iterator)?;
            let address = block(&Untrusted, standing.index, standing.leaf)?;
            let (len, behind) = leaf(&Untrusted, address)?;
            let at = address + place::TUPLES + usize::from(standing.position) * place::TUPLE_STEP;
            let is_same = Untrusted.read::<usize>(at)? == tuple.as_ptr() as usize;
            if standing.position >= len || !is_same || *function.get_or_insert(next) != next {
                return None;
            }
            if let Some((number, expected)) = last
                && number != standing.leaf
            {
                if expected != standing.leaf {
                    return None;
                }
                crossings += 1;
            }
            last = Some((standing.leaf, behind));
        }
    }
    function.filter(|_| crossings > 0)
}

/// How many tuples ahead of the iteration memory is asked for: about as many misses as a core keeps under way.
const DISTANCE: u16 = 16;

/// Asks for the memory of the tuple that the iteration reaches `DISTANCE` tuples from now.
///
/// # Safety
/// `iterator` is one of the host's that answered a tuple just now, and the fiber has not yielded since.
#[inline]
pub unsafe fn look_ahead(iterator: usize) {
    let tree_next = TREE_NEXT.load(Ordering::Relaxed);
    // SAFETY: every iterator of the host begins with this function, and only one of a memtx tree has this one; its index
    // and tree are alive because it answered a tuple; `enable` has compared the places.
    unsafe {
        if tree_next != 0 && Trusted.read(iterator + place::NEXT) == Some(tree_next) {
            look_ahead_in_tree(iterator);
        }
    }
}

/// # Safety
/// As `look_ahead`, for an iterator of a memtx tree.
unsafe fn look_ahead_in_tree(iterator: usize) -> Option<()> {
    // SAFETY: by the caller's promise; the blocks are those that the tree lists now.
    unsafe {
        let standing = Standing::of(&Trusted, iterator)?;
        let here = block(&Trusted, standing.index, standing.leaf)?;
        let (len, behind) = leaf(&Trusted, here)?;
        let ahead = standing.position.checked_add(DISTANCE)?;
        if ahead < len {
            return prefetch_tuple(here, ahead);
        }
        if behind == NO_BLOCK {
            return None;
        }
        let next = block(&Trusted, standing.index, behind)?;
        let (next_len, after) = leaf(&Trusted, next)?;
        if ahead == len && after != NO_BLOCK {
            prefetch(block(&Trusted, standing.index, after)?, LEAF_BYTES);
        }
        let ahead = ahead - len;
        if ahead < next_len { prefetch_tuple(next, ahead) } else { None }
    }
}

const LEAF_BYTES: usize = place::TUPLES + LEN_MAX as usize * place::TUPLE_STEP;
/// The header of a tuple and its first fields.
const TUPLE_BYTES: usize = 2 * CACHE_LINE;

/// # Safety
/// The address is that of a leaf with a tuple at `position`.
#[inline]
unsafe fn prefetch_tuple(leaf: usize, position: u16) -> Option<()> {
    let at = leaf + place::TUPLES + usize::from(position) * place::TUPLE_STEP;
    // SAFETY: by the caller's promise.
    prefetch(unsafe { Trusted.read(at)? }, TUPLE_BYTES);
    Some(())
}

/// A hint to the processor, harmless for any address.
#[inline]
fn prefetch(address: usize, bytes: usize) {
    #[cfg(target_arch = "x86_64")]
    for line in (0..bytes).step_by(CACHE_LINE) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch does not fault.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.wrapping_add(line) as *const i8) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (address, bytes);
}
