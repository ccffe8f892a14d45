//! The twelve functions, as a core module imports them. Every pointer is looked at before it is followed.

use wasmtime::{Caller, Extern, Linker, Memory};

use super::{Errno, Holder, Refused, context::Calls};

/// The name that guests import from.
pub(crate) const MODULE: &str = "wasi_ephemeral_nn";

/// The encodings that `load` and its kin may name: any, and GGML.
const ENCODINGS: [u32; 2] = [5, 6];
/// A tensor in the guest's memory: dimensions, their number, the type, data, its length. Dimensions and type say nothing here.
const TENSOR_BYTES: u32 = 20;
/// A name or a configuration at most.
const NAME_BYTES: u32 = 256 << 10;

/// The guest's memory with the handles behind it.
struct Guest<'a, T: 'static> {
    caller: Caller<'a, T>,
    memory: Memory,
}

/// Adds all functions. Each call is charged by the store's hook.
pub(crate) fn add_to_linker<T: Holder + Send + 'static>(linker: &mut Linker<T>) -> wasmtime::Result<()> {
    linker.func_wrap(MODULE, "load", |caller: Caller<'_, T>, _: u32, _: u32, encoding: u32, _: u32, _: u32| {
        let unsupported = if ENCODINGS.contains(&encoding) { Errno::UnsupportedOperation } else { Errno::InvalidEncoding };
        Guest::new(caller).map(|_| unsupported as u32)
    })?;
    linker.func_wrap(MODULE, "load_by_name", |caller: Caller<'_, T>, name: u32, len: u32, graph: u32| {
        errno(Guest::new(caller)?.load((name, len), (0, 0), graph))
    })?;
    linker.func_wrap(
        MODULE,
        "load_by_name_with_config",
        |caller: Caller<'_, T>, name: u32, len: u32, config: u32, config_len: u32, graph: u32| {
            errno(Guest::new(caller)?.load((name, len), (config, config_len), graph))
        },
    )?;
    linker.func_wrap(MODULE, "unload", |caller: Caller<'_, T>, graph: u32| errno(Guest::new(caller)?.calls().unload(graph)))?;
    linker.func_wrap(MODULE, "init_execution_context", |caller: Caller<'_, T>, graph: u32, out: u32| {
        let mut guest = Guest::new(caller)?;
        errno(guest.writable(out, 4).and_then(|()| guest.calls().open(graph)).and_then(|opened| guest.write_word(out, opened)))
    })?;
    linker.func_wrap(MODULE, "finalize_execution_context", |caller: Caller<'_, T>, context: u32| {
        errno(Guest::new(caller)?.calls().close(context))
    })?;
    linker.func_wrap(MODULE, "set_input", |caller: Caller<'_, T>, context: u32, index: u32, tensor: u32| {
        let mut guest = Guest::new(caller)?;
        errno(guest.tensor(tensor).and_then(|data| guest.calls().set_input(context, index, data)))
    })?;
    linker.func_wrap_async(MODULE, "compute", |caller: Caller<'_, T>, (context,): (u32,)| {
        Box::new(async move { errno(Guest::new(caller)?.calls().compute(context).await) })
    })?;
    linker.func_wrap_async(MODULE, "compute_single", |caller: Caller<'_, T>, (context,): (u32,)| {
        Box::new(async move { errno(Guest::new(caller)?.calls().compute_single(context).await) })
    })?;
    linker.func_wrap(MODULE, "fini_single", |caller: Caller<'_, T>, context: u32| {
        errno(Guest::new(caller)?.calls().fini_single(context))
    })?;
    for (name, is_single) in [("get_output", false), ("get_output_single", true)] {
        linker.func_wrap_async(
            MODULE,
            name,
            move |caller: Caller<'_, T>, (context, index, buffer, room, written): (u32, u32, u32, u32, u32)| {
                Box::new(async move {
                    let mut guest = Guest::new(caller)?;
                    errno(guest.output(context, index, is_single, (buffer, room), written).await)
                })
            },
        )?;
    }
    Ok(())
}

fn errno(done: Result<(), Refused>) -> wasmtime::Result<u32> {
    match done {
        Ok(()) => Ok(0),
        Err(Refused::Told(errno)) => Ok(errno as u32),
        Err(Refused::Trap(trap)) => Err(trap),
    }
}

// === impl Guest ===

impl<'a, T: Holder> Guest<'a, T> {
    fn new(mut caller: Caller<'a, T>) -> wasmtime::Result<Self> {
        match caller.get_export("memory") {
            Some(Extern::Memory(memory)) => Ok(Self { caller, memory }),
            _ => Err(wasmtime::format_err!("the module exports no memory with the name `memory`")),
        }
    }

    fn calls(&mut self) -> Calls<'_> {
        let (guest, handles) = self.caller.data_mut().parts();
        Calls { guest, handles }
    }

    /// The guest's own bytes.
    fn bytes(&self, at: u32, len: u32) -> Result<&[u8], Refused> {
        let (at, len) = (at as usize, len as usize);
        let end = at.checked_add(len).ok_or(Refused::Told(Errno::InvalidArgument))?;
        self.memory.data(&self.caller).get(at..end).ok_or(Refused::Told(Errno::InvalidArgument))
    }

    fn writable(&self, at: u32, len: u32) -> Result<(), Refused> {
        self.bytes(at, len).map(|_| ())
    }

    fn write(&mut self, at: u32, bytes: &[u8]) -> Result<(), Refused> {
        self.memory.write(&mut self.caller, at as usize, bytes).map_err(|_| Refused::Told(Errno::InvalidArgument))
    }

    fn write_word(&mut self, at: u32, word: u32) -> Result<(), Refused> {
        self.write(at, &word.to_le_bytes())
    }

    fn load(&mut self, name: (u32, u32), config: (u32, u32), graph: u32) -> Result<(), Refused> {
        self.writable(graph, 4)?;
        if name.1 > NAME_BYTES || config.1 > NAME_BYTES {
            return Err(Refused::Told(Errno::InvalidArgument));
        }
        let invalid = |_| Refused::Told(Errno::InvalidArgument);
        let text = std::str::from_utf8(self.bytes(name.0, name.1)?).map_err(invalid)?.to_owned();
        let options = self.bytes(config.0, config.1)?.to_vec();
        let handle = self.calls().load(&text, &options)?;
        self.write_word(graph, handle)
    }

    /// A tensor's data, charged to the guest before it is copied.
    fn tensor(&mut self, at: u32) -> Result<Vec<u8>, Refused> {
        let tensor = self.bytes(at, TENSOR_BYTES)?;
        let word = |n: usize| u32::from_le_bytes([tensor[n], tensor[n + 1], tensor[n + 2], tensor[n + 3]]);
        let (data, len) = (word(12), word(16));
        self.writable(data, len)?;
        let budget = &mut self.caller.data_mut().parts().0.budget;
        budget.hold(len as usize)?;
        budget.release(len as usize);
        Ok(self.bytes(data, len)?.to_vec())
    }

    /// Writes as much as there is room for, and how much there is.
    async fn output(
        &mut self,
        context: u32,
        index: u32,
        is_single: bool,
        (buffer, room): (u32, u32),
        written: u32,
    ) -> Result<(), Refused> {
        self.writable(written, 4)?;
        self.writable(buffer, room)?;
        let data = self.calls().output(context, index, is_single).await?;
        let n = data.len().min(room as usize);
        self.write(buffer, &data[..n])?;
        self.write_word(written, u32::try_from(data.len()).unwrap_or(u32::MAX))
    }
}
