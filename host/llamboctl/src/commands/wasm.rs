//! WebAssembly files on their way to a host.

use std::{fs, path::Path};

use crate::exit::Failure;

/// What a host takes at most.
const MAX_BYTES: u64 = 256 * 1024 * 1024;

/// Reads a module, after a look at its size and its first bytes.
pub(super) fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    let name = file.display();
    let cannot_read = |e| Failure::bad_input(format!("cannot read {name}: {e}"));
    let size = fs::metadata(file).map_err(cannot_read)?.len();
    if size > MAX_BYTES {
        let (size, max) = (size.div_ceil(1024 * 1024), MAX_BYTES >> 20);
        return Err(Failure::bad_input(format!(
            "{name} has {size} MiB, and a host takes {max} MiB; strip it of its debug information"
        )));
    }
    let wasm = fs::read(file).map_err(cannot_read)?;
    if !wasm.starts_with(b"\0asm") {
        return Err(Failure::bad_input(format!("{name} is not WebAssembly; give a file that ends in .wasm")));
    }
    Ok(wasm)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_module_or_too_large_is_not_sent() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("p.wasm");
        fs::write(&path, b"\0asm\x0d\0\x01\0").unwrap();
        assert_eq!(read(&path).unwrap().len(), 8);
        fs::write(&path, b"(module)").unwrap();
        assert!(format!("{:?}", read(&path).unwrap_err()).contains("is not WebAssembly"));
        // sparse: it takes no room
        fs::File::create(&path).unwrap().set_len(MAX_BYTES + 1).unwrap();
        assert!(format!("{:?}", read(&path).unwrap_err()).contains("has 257 MiB, and a host takes 256 MiB"));
    }
}
