//! Processors and graphics cards that compute, and the modules that drive them.
//!
//! Built plainly, llama.cpp's code for one kind of processor is part of the program. Built with `modules`, it is loaded when the first model
//! is: of the processor's variants in the folder the best that this machine can run, and every driver for graphics cards that
//! loads here.

use std::{
    ffi::{CStr, CString, c_char},
    path::PathBuf,
    ptr::{self, NonNull},
};

use llama_cpp_sys_2 as sys;

use super::{initialize, take_errors};
use crate::error::LlamaError;

/// Names the folder of modules, in place of `../lib/llambo` beside the program.
const FOLDER_VARIABLE: &str = "LLAMBO_MODULES";

/// Something that computes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// What `models[].devices` calls it, for example `CUDA0`.
    pub name: String,
    /// What its maker calls it.
    pub description: String,
    /// Whether layers can be put onto it.
    pub is_gpu: bool,
    /// Bytes of its memory that are free; 0 where it does not say.
    pub free_bytes: u64,
    /// Bytes of its memory.
    pub total_bytes: u64,
}

/// All devices, the processor among them.
pub fn devices() -> Vec<Device> {
    initialize();
    all().map(describe).collect()
}

/// Where modules are looked for; `None` when llama.cpp is part of the program.
pub fn modules_folder() -> Option<PathBuf> {
    if !cfg!(feature = "modules") {
        return None;
    }
    let named = std::env::var_os(FOLDER_VARIABLE).map(PathBuf::from);
    let beside = || Some(std::env::current_exe().ok()?.parent()?.parent()?.join("lib/llambo"));
    named.or_else(beside)
}

/// Loads what the folder has. Called once.
pub(super) fn load_modules() {
    let Some(folder) = modules_folder() else { return };
    let Ok(path) = CString::new(folder.as_os_str().as_encoded_bytes()) else { return };
    // SAFETY: the path lives for the call. A folder that is not there is an empty one.
    unsafe { sys::ggml_backend_load_all_from_path(path.as_ptr()) }
}

/// Whether there is a backend at all.
pub(super) fn has_any() -> bool {
    // SAFETY: counts what is registered.
    unsafe { sys::ggml_backend_reg_count() > 0 }
}

/// The devices of these names, as llama.cpp takes them: with a null behind the last.
pub(super) fn named(names: &[String]) -> Result<Vec<sys::ggml_backend_dev_t>, LlamaError> {
    let mut found = Vec::with_capacity(names.len() + 1);
    for name in names {
        let device = all().find(|device| describe(*device).name == *name);
        found.push(device.ok_or_else(|| {
            let there = devices().into_iter().filter(|d| d.is_gpu).map(|d| d.name).collect();
            LlamaError::NoDevice { name: name.clone(), there }
        })?);
    }
    found.push(ptr::null_mut());
    Ok(found)
}

/// A function of the processor's module, by the name that ggml publishes it under.
pub(super) fn cpu_function(name: &CStr) -> Option<NonNull<std::ffi::c_void>> {
    // SAFETY: the name is NUL-terminated; what is not there is null, in both calls.
    unsafe {
        let backend = sys::ggml_backend_reg_by_name(c"CPU".as_ptr());
        if backend.is_null() {
            return None;
        }
        NonNull::new(sys::ggml_backend_reg_get_proc_address(backend, name.as_ptr()))
    }
}

fn all() -> impl Iterator<Item = sys::ggml_backend_dev_t> {
    // SAFETY: places below the count have a device, which lives as long as the program.
    (0..unsafe { sys::ggml_backend_dev_count() }).map(|i| unsafe { sys::ggml_backend_dev_get(i) })
}

fn describe(device: sys::ggml_backend_dev_t) -> Device {
    let text = |raw: *const c_char| {
        // SAFETY: a device's texts are NUL-terminated, and live as long as it.
        unsafe { CStr::from_ptr(raw) }.to_string_lossy().into_owned()
    };
    let (mut free_bytes, mut total_bytes) = (0, 0);
    // SAFETY: the device is one of ggml's own; both numbers live for the call.
    let (name, description, kind) = unsafe {
        sys::ggml_backend_dev_memory(device, &raw mut free_bytes, &raw mut total_bytes);
        (sys::ggml_backend_dev_name(device), sys::ggml_backend_dev_description(device), sys::ggml_backend_dev_type(device))
    };
    Device {
        name: text(name),
        description: text(description),
        is_gpu: matches!(kind, sys::GGML_BACKEND_DEVICE_TYPE_GPU | sys::GGML_BACKEND_DEVICE_TYPE_IGPU),
        free_bytes: free_bytes as u64,
        total_bytes: total_bytes as u64,
    }
}

/// That there is something to compute with.
pub(super) fn check_processor() -> Result<(), LlamaError> {
    if cpu_function(c"ggml_threadpool_new").is_some() {
        return Ok(());
    }
    Err(LlamaError::NoModules { folder: modules_folder().unwrap_or_default(), variable: FOLDER_VARIABLE, problem: take_errors() })
}
