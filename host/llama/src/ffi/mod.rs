//! The only place that calls llama.cpp: every `unsafe` of this crate.
//!
//! Thin and safe: each call checks what ggml would abort the process over (token ids, positions, batch sizes, sequence
//! ids). A [`Model`] is immutable and may be read from any thread; a [`Context`] is made and used on one thread only and
//! cannot leave it.
#![expect(unsafe_code, reason = "the boundary to llama.cpp")]

mod batch;
mod context;
mod device;
mod model;

use std::{
    cell::RefCell,
    ffi::{CStr, c_char, c_void},
    ptr,
    sync::{Once, OnceLock},
};

use llama_cpp_sys_2 as sys;

pub use self::device::{Device, devices, modules_folder};
pub(crate) use self::{
    batch::Batch,
    context::{Context, ContextParams},
    model::Model,
};

/// A token id of a model's vocabulary.
pub(crate) type Token = i32;

thread_local! {
    /// Errors that llama.cpp logged on this thread: the only place where it tells why loading failed.
    static ERRORS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// The module that was loaded for this processor, which ggml tells nowhere but in its log.
static VARIANT: OnceLock<String> = OnceLock::new();

unsafe extern "C" fn on_log(level: sys::ggml_log_level, text: *const c_char, _: *mut c_void) {
    // SAFETY: llama.cpp passes a NUL-terminated string that lives for this call.
    let line = unsafe { CStr::from_ptr(text) }.to_string_lossy();
    let line = line.trim();
    match level {
        sys::GGML_LOG_LEVEL_ERROR => {
            ERRORS.with_borrow_mut(|errors| errors.push(line.to_owned()));
            tracing::warn!(target: "llama.cpp", line, "llama.cpp reports an error");
        }
        sys::GGML_LOG_LEVEL_WARN => tracing::debug!(target: "llama.cpp", line, "warning"),
        _ => {
            if let Some((_, path)) = line.split_once("loaded CPU backend from ") {
                let _ = VARIANT.set(path.to_owned());
            }
            tracing::trace!(target: "llama.cpp", line, "log");
        }
    }
}

/// Forgets what was logged on this thread, ahead of a call that tells its failure there.
fn forget_errors() {
    ERRORS.with_borrow_mut(Vec::clear);
}

/// What was logged since, in order.
fn take_errors() -> String {
    ERRORS.with_borrow_mut(std::mem::take).join("; ")
}

fn initialize() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: called before any other call; the callback lives as long as the program.
        unsafe { sys::llama_log_set(Some(on_log), ptr::null_mut()) }
        device::load_modules();
        // with nothing loaded llama.cpp would look for modules itself, also in the folder where the program was started
        if device::has_any() {
            // SAFETY: called once.
            unsafe { sys::llama_backend_init() }
        }
    });
}

/// llama.cpp's account of the CPU features and backends it was built with and found.
pub fn system_info() -> String {
    initialize();
    // SAFETY: returns a pointer to a static, NUL-terminated string.
    unsafe { CStr::from_ptr(sys::llama_print_system_info()) }.to_string_lossy().into_owned()
}

/// Which of llama.cpp's variants for processors is in use: `zen4`, for example, `compiled in`, or `none` when no module runs here.
pub fn cpu_variant() -> String {
    initialize();
    let Some(path) = VARIANT.get() else {
        return if modules_folder().is_some() { "none".into() } else { "compiled in".into() };
    };
    let name = std::path::Path::new(path).file_stem().unwrap_or_default().to_string_lossy();
    name.trim_start_matches("lib").trim_start_matches("ggml-cpu").trim_start_matches('-').to_owned()
}

/// What tells builds of llama.cpp apart whose copies of a sequence may not suit each other.
pub(crate) fn build() -> &'static str {
    concat!("llama-cpp-sys-2 0.1.161, llambo ", env!("CARGO_PKG_VERSION"))
}

/// Sequences that llama.cpp was compiled to hold in one context.
pub fn max_sequences() -> u32 {
    // SAFETY: returns a constant.
    u32::try_from(unsafe { sys::llama_max_parallel_sequences() }).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    #[test]
    fn copies_on_disk_name_the_llama_cpp_that_is_built() {
        let pinned = include_str!("../../../../Cargo.toml").lines().find(|line| line.starts_with("llama-cpp-sys-2 = "));
        let version = pinned.and_then(|line| line.split("\"=").nth(1)?.split('"').next()).expect("pinned exactly");
        assert!(super::build().contains(&format!("llama-cpp-sys-2 {version},")), "{version} is built");
    }
}
