//! Stacks in slots, whose memory is given back whenever no call is on them.

use std::{
    cell::RefCell,
    future::Future,
    io,
    ops::Range,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use wasmtime::{Error, StackCreator, StackMemory};

use super::{Slab, Slot};

/// Below each stack, so that one that is too deep faults and does not run into the next.
pub(super) const GUARD_BYTES: usize = 16 << 10;

thread_local! {
    /// The stack that was made last on this thread and is not noted by its call yet.
    static MADE: RefCell<Option<Parked>> = const { RefCell::new(None) };
}

/// Makes stacks of one size.
pub(crate) struct Stacks(Arc<Slab>);

/// A store's stack, to give its memory back.
#[derive(Clone)]
pub(crate) struct Parked(Arc<Slot>);

struct Stack(Parked);

/// A call into a store. Notes the store's stack, and gives the memory of that back when the call has ended.
pub(crate) struct OnStack<'a, F> {
    call: Pin<Box<F>>,
    parked: &'a mut Option<Parked>,
}

// === impl Stacks ===

impl Stacks {
    pub(crate) fn map(stack_bytes: usize, n_slots: usize) -> io::Result<Self> {
        Slab::map(GUARD_BYTES + stack_bytes, n_slots).map(Self)
    }
}

// SAFETY: a stack is a slot of its own, zeroed, page-aligned, with a guard below it.
unsafe impl StackCreator for Stacks {
    fn new_stack(&self, size: usize, _: bool) -> Result<Box<dyn StackMemory>, Error> {
        if GUARD_BYTES + size > self.0.slot_bytes {
            return Err(wasmtime::format_err!("a stack of {size} bytes does not fit its slot of {}", self.0.slot_bytes));
        }
        let slot = self.0.take().ok_or_else(|| wasmtime::format_err!("there is no place for one more stack"))?;
        if slot.is_fresh {
            slot.guard(GUARD_BYTES).map_err(|e| wasmtime::format_err!("a stack could not be guarded: {e}"))?;
        }
        let parked = Parked(Arc::new(slot));
        MADE.set(Some(parked.clone()));
        Ok(Box::new(Stack(parked)))
    }
}

// SAFETY: the ranges are those of the slot, which is this stack's alone.
unsafe impl StackMemory for Stack {
    fn top(&self) -> *mut u8 {
        let slot = &self.0.0;
        // SAFETY: one past the end of the slot, which the mapping reaches to.
        unsafe { slot.start().add(slot.n_bytes()) }
    }

    fn range(&self) -> Range<usize> {
        let start = self.0.0.start() as usize;
        start + GUARD_BYTES..start + self.0.0.n_bytes()
    }

    fn guard_range(&self) -> Range<*mut u8> {
        let start = self.0.0.start();
        // SAFETY: the guard is the beginning of the slot.
        start..unsafe { start.add(GUARD_BYTES) }
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: wasmtime drops a stack when nothing is on it any more.
        unsafe { self.0.0.discard(self.0.0.n_bytes()) };
    }
}

// === impl OnStack ===

impl<'a, F: Future> OnStack<'a, F> {
    /// `call` must be all that runs in its store, and `parked` be kept with that store and for nothing else.
    pub(crate) fn new(call: F, parked: &'a mut Option<Parked>) -> Self {
        Self { call: Box::pin(call), parked }
    }
}

impl<F: Future> Future for OnStack<'_, F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        MADE.take();
        let polled = self.call.as_mut().poll(cx);
        if let Some(made) = MADE.take() {
            *self.parked = Some(made);
        }
        if polled.is_ready()
            && let Some(Parked(slot)) = self.parked.as_ref()
        {
            // SAFETY: the only call of the store has returned, and the next one begins at the top.
            unsafe { slot.discard(slot.n_bytes()) };
        }
        polled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STACK_BYTES: usize = 256 << 10;

    /// Whether a page can be touched, asked without touching it.
    fn can_touch(address: usize) -> bool {
        /// Fills the page tables for reading, or says that it cannot.
        const MADV_POPULATE_READ: libc::c_int = 22;
        // SAFETY: it reads nothing and changes no contents.
        unsafe { libc::madvise(address as *mut libc::c_void, 4096, MADV_POPULATE_READ) == 0 }
    }

    #[test]
    fn the_guard_stays_whatever_becomes_of_the_stack() {
        let stacks = Stacks::map(STACK_BYTES, 1).unwrap();
        for _ in 0..2 {
            let stack = stacks.new_stack(STACK_BYTES, false).unwrap();
            let made = MADE.take().unwrap();
            assert_eq!(stack.top() as usize, stack.range().end);
            for _ in 0..2 {
                assert!(can_touch(stack.range().start) && can_touch(stack.range().end - 4096));
                assert!(!can_touch(stack.guard_range().start as usize) && !can_touch(stack.range().start - 4096));
                // SAFETY: no call is on this stack.
                unsafe { made.0.discard(made.0.n_bytes()) };
            }
        }
        assert_eq!(stacks.0.free().fresh, 1);
    }

    #[tokio::test]
    async fn a_call_that_ended_leaves_no_memory_on_its_stack() {
        let stacks = Stacks::map(STACK_BYTES, 1).unwrap();
        let mut parked = None;
        let call = async {
            let stack = stacks.new_stack(STACK_BYTES, false).unwrap();
            // SAFETY: the word below the top is the stack's.
            unsafe { stack.top().sub(8).write(7) };
            stack
        };
        let stack = OnStack::new(call, &mut parked).await;
        assert!(parked.is_some());
        // SAFETY: as above.
        assert_eq!(unsafe { stack.top().sub(8).read() }, 0);
    }
}
