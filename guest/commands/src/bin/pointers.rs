//! Calls every function of `wasi_ephemeral_nn` with handles and pointers that are not its own, and lives on.
#![allow(unsafe_code, reason = "this is what it is for; the sandbox is what is tested")]

#[link(wasm_import_module = "wasi_ephemeral_nn")]
unsafe extern "C" {
    fn load(builders: u32, n: u32, encoding: u32, target: u32, graph: u32) -> u32;
    fn load_by_name(name: u32, len: u32, graph: u32) -> u32;
    fn load_by_name_with_config(name: u32, len: u32, config: u32, config_len: u32, graph: u32) -> u32;
    fn init_execution_context(graph: u32, context: u32) -> u32;
    fn set_input(context: u32, index: u32, tensor: u32) -> u32;
    fn compute(context: u32) -> u32;
    fn compute_single(context: u32) -> u32;
    fn fini_single(context: u32) -> u32;
    fn get_output(context: u32, index: u32, buffer: u32, room: u32, written: u32) -> u32;
    fn get_output_single(context: u32, index: u32, buffer: u32, room: u32, written: u32) -> u32;
    fn unload(graph: u32) -> u32;
    fn finalize_execution_context(context: u32) -> u32;
}

/// Nothing a guest may follow, in every way to be wrong.
const WRONG: [u32; 6] = [u32::MAX, u32::MAX - 3, 1 << 31, 1 << 30, (1 << 27) - 1, 1 << 27];

fn main() {
    let mut handle = 0u32;
    let name = b"default";
    // SAFETY: the host looks at every pointer, which is what this program shows.
    unsafe {
        let at = |place: *mut u32| place as u32;
        let (name, len) = (name.as_ptr() as u32, 7);
        assert_eq!(load_by_name(name, len, at(&raw mut handle)), 0, "the right way");
        let graph = handle;
        assert_eq!(init_execution_context(graph, at(&raw mut handle)), 0);
        let context = handle;
        let mut refused = 0;
        for wrong in WRONG {
            for other in WRONG {
                refused += u32::from(load_by_name(wrong, other, at(&raw mut handle)) != 0);
                refused += u32::from(load_by_name(name, len, wrong) != 0);
                refused += u32::from(load_by_name_with_config(name, len, wrong, other, at(&raw mut handle)) != 0);
                refused += u32::from(load(wrong, other, 6, 3, wrong) != 0);
                refused += u32::from(init_execution_context(wrong, other) != 0);
                refused += u32::from(init_execution_context(graph, wrong) != 0);
                refused += u32::from(set_input(context, 0, wrong) != 0);
                let tensor = [0u32, 0, 3, wrong, other];
                refused += u32::from(set_input(context, 0, tensor.as_ptr() as u32) != 0);
                refused += u32::from(set_input(wrong, other, tensor.as_ptr() as u32) != 0);
                refused += u32::from(get_output(context, 0, wrong, other, at(&raw mut handle)) != 0);
                refused += u32::from(get_output(context, 1, at(&raw mut handle), 4, wrong) != 0);
                refused += u32::from(get_output_single(wrong, other, wrong, other, wrong) != 0);
            }
            refused += u32::from(compute(wrong) != 0);
            refused += u32::from(compute_single(wrong) != 0);
            refused += u32::from(fini_single(wrong) != 0);
            refused += u32::from(unload(wrong) != 0);
            refused += u32::from(finalize_execution_context(wrong) != 0);
        }
        let n = WRONG.len() as u32;
        println!("{refused} of {} refused", n * n * 12 + n * 5);
    }
}
