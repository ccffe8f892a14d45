//! Linear memories in slots.

use std::{io, sync::Arc};

use wasmtime::{LinearMemory, MemoryCreator, MemoryType};

use super::{Slab, Slot};

/// Makes memories for engines that check every bound in code.
pub(crate) struct Memories(Arc<Slab>);

struct Memory {
    slot: Slot,
    size: usize,
}

impl Memories {
    pub(crate) fn map(slot_bytes: usize, n_slots: usize) -> io::Result<Self> {
        Slab::map(slot_bytes, n_slots).map(Self)
    }
}

// SAFETY: a memory is a slot of its own, zeroed, readable and writable to its capacity, which does not move. Memories that rely on pages behind
// them that fault are refused.
unsafe impl MemoryCreator for Memories {
    fn new_memory(
        &self,
        _: MemoryType,
        minimum: usize,
        _: Option<usize>,
        reserved: Option<usize>,
        guard: usize,
    ) -> Result<Box<dyn LinearMemory>, String> {
        if reserved.is_some_and(|n| n > 0) || guard > 0 {
            return Err("memories side by side need code that checks every bound".into());
        }
        if minimum > self.0.slot_bytes {
            return Err(format!("the guest begins with {minimum} bytes of memory, and its limit is {}", self.0.slot_bytes));
        }
        let slot = self.0.take().ok_or("there is no place for one more memory")?;
        Ok(Box::new(Memory { slot, size: minimum }))
    }
}

// SAFETY: the slot is this memory's alone until it is dropped, and lies where it lies.
unsafe impl LinearMemory for Memory {
    fn byte_size(&self) -> usize {
        self.size
    }

    fn byte_capacity(&self) -> usize {
        self.slot.n_bytes()
    }

    fn grow_to(&mut self, size: usize) -> wasmtime::Result<()> {
        if size > self.slot.n_bytes() {
            return Err(wasmtime::format_err!("a memory of {size} bytes does not fit its slot of {}", self.slot.n_bytes()));
        }
        self.size = size;
        Ok(())
    }

    fn as_ptr(&self) -> *mut u8 {
        self.slot.start()
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: with the memory goes its instance, and with that everyone who knew the address. A memory never shrinks.
        unsafe { self.slot.discard(self.size) };
    }
}
