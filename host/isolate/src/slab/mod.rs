//! One mapping for all memories of a pool and one for all stacks, divided into slots.
//!
//! A process may have about 65,000 mappings, and an isolate whose memory and stack are mapped by themselves takes four of them. Slots of one
//! mapping take none: what limits the number of isolates then is memory. Nothing protects a slot from its neighbour but the bounds that
//! compiled code checks, so whoever gives memories to an engine has to make it check them all (`pool`); stacks, where no code checks,
//! have guard pages (Linux 6.13 or newer), which are marks in the page tables and no mappings of their own.
#![expect(unsafe_code, reason = "addresses are handed to wasmtime here, and nowhere else")]

mod memory;
mod stack;

use std::{
    io,
    ptr::NonNull,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

pub(crate) use self::{
    memory::Memories,
    stack::{OnStack, Parked, Stacks},
};

/// Addresses that come and go with memory as they are touched, in slots of one size.
struct Slab {
    start: NonNull<u8>,
    slot_bytes: usize,
    n_slots: usize,
    free: Mutex<Free>,
}

struct Free {
    /// Slots that were used and are empty again, the last one first.
    returned: Vec<usize>,
    /// The first that was never used.
    fresh: usize,
}

/// One slot, as long as this lives. Its pages read as zeros until they are written.
struct Slot {
    slab: Arc<Slab>,
    index: usize,
    is_fresh: bool,
}

// SAFETY: the addresses belong to nobody else, and every access to what is behind them goes through the one owner of a slot.
unsafe impl Send for Slab {}
// SAFETY: as above; the list of free slots is behind a lock.
unsafe impl Sync for Slab {}

/// Whether this system has what stacks in one mapping need.
pub(crate) fn is_supported() -> bool {
    Slab::map(stack::GUARD_BYTES * 2, 1).is_ok_and(|slab| slab.take().is_some_and(|slot| slot.guard(stack::GUARD_BYTES).is_ok()))
}

// === impl Slab ===

impl Slab {
    fn map(slot_bytes: usize, n_slots: usize) -> io::Result<Arc<Self>> {
        let n_bytes = slot_bytes.checked_mul(n_slots).filter(|n| *n > 0).ok_or(io::ErrorKind::InvalidInput)?;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new mapping at an address of the system's choice touches nothing that is there.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), n_bytes, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        let slab = Self { start, slot_bytes, n_slots, free: Mutex::new(Free { returned: Vec::new(), fresh: 0 }) };
        // a page of 2 MiB for a guest that touches 64 KiB would be most of what an isolate takes
        // SAFETY: the range is the mapping that was just made.
        let told = unsafe { libc::madvise(start.as_ptr().cast(), n_bytes, libc::MADV_NOHUGEPAGE) };
        // a kernel without huge pages does not know the advice, and does not need it
        let _ = told;
        Ok(Arc::new(slab))
    }

    fn free(&self) -> MutexGuard<'_, Free> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A slot of zeros; `None` when all are taken.
    fn take(self: &Arc<Self>) -> Option<Slot> {
        let mut free = self.free();
        if let Some(index) = free.returned.pop() {
            return Some(Slot { slab: Arc::clone(self), index, is_fresh: false });
        }
        if free.fresh == self.n_slots {
            return None;
        }
        free.fresh += 1;
        Some(Slot { slab: Arc::clone(self), index: free.fresh - 1, is_fresh: true })
    }
}

impl Drop for Slab {
    fn drop(&mut self) {
        // SAFETY: every slot holds the slab, so none is left, and the range is the mapping that `map` made.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.slot_bytes * self.n_slots) };
    }
}

// === impl Slot ===

impl Slot {
    fn start(&self) -> *mut u8 {
        // SAFETY: the index is below the number of slots, so the address is within the mapping.
        unsafe { self.slab.start.as_ptr().add(self.index * self.slab.slot_bytes) }
    }

    fn n_bytes(&self) -> usize {
        self.slab.slot_bytes
    }

    /// Gives the memory of the first `n_bytes` back: they read as zeros from then on. Guard pages stay.
    ///
    /// # Safety
    /// Nobody may hold on to what is there.
    unsafe fn discard(&self, n_bytes: usize) {
        if n_bytes == 0 {
            return;
        }
        // SAFETY: the range lies within the slot, and the caller vouches for what is in it.
        let done = unsafe { libc::madvise(self.start().cast(), n_bytes.min(self.n_bytes()), libc::MADV_DONTNEED) };
        // it cannot fail for a private mapping that is there; if it did, one guest could read what another left
        assert_eq!(done, 0, "memory of a guest could not be given back: {}", io::Error::last_os_error());
    }

    /// Makes the first `n_bytes` fault when they are touched.
    fn guard(&self, n_bytes: usize) -> io::Result<()> {
        /// Of Linux 6.13: not in every version of the headers yet.
        const MADV_GUARD_INSTALL: libc::c_int = 102;
        // SAFETY: the range lies within the slot, which its owner has not handed out yet.
        match unsafe { libc::madvise(self.start().cast(), n_bytes, MADV_GUARD_INSTALL) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.slab.free().returned.push(self.index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: usize = 4096;

    #[test]
    fn a_slot_is_zero_however_often_it_was_used() {
        let slab = Slab::map(2 * PAGE, 3).unwrap();
        for _ in 0..4 {
            let slot = slab.take().unwrap();
            // SAFETY: the slot is this test's alone, and as long as what is written.
            unsafe {
                assert_eq!(*slot.start().add(PAGE), 0);
                slot.start().write_bytes(7, 2 * PAGE);
                slot.discard(2 * PAGE);
            }
        }
        assert_eq!(slab.free().fresh, 1, "the same slot again and again");
    }

    #[test]
    fn slots_run_out_and_come_back() {
        let slab = Slab::map(PAGE, 2).unwrap();
        let (a, b) = (slab.take().unwrap(), slab.take().unwrap());
        assert_eq!(b.start() as usize - a.start() as usize, PAGE);
        assert!(slab.take().is_none());
        drop(a);
        assert!(slab.take().is_some_and(|slot| !slot.is_fresh));
        assert!(Slab::map(usize::MAX, 2).is_err() && Slab::map(PAGE, 0).is_err());
    }
}
