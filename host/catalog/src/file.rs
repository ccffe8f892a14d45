use std::{
    fs::File,
    io::{BufReader, Read},
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use crate::{CatalogError, GgufHeader};

/// A model file whose header was read and found whole.
#[derive(Clone, Debug)]
pub struct ModelFile {
    path: PathBuf,
    size_bytes: u64,
    digest: String,
    header: GgufHeader,
}

impl ModelFile {
    /// Reads the header of the file at `path`, checks it and computes the digest of the whole: as long as reading it takes.
    ///
    /// # Errors
    /// The file cannot be read, or is not a whole GGUF file.
    pub fn open(path: &Path) -> Result<Self, CatalogError> {
        let read = |source| CatalogError::Read { path: path.into(), source };
        let file = File::open(path).map_err(read)?;
        let about = file.metadata().map_err(read)?;
        if !about.is_file() {
            return Err(CatalogError::Broken { path: path.into(), problem: "it is not a regular file".into() });
        }
        let header = GgufHeader::read(&mut BufReader::with_capacity(1 << 16, &file), about.len())
            .map_err(|problem| CatalogError::Broken { path: path.into(), problem })?;
        let digest = digest_of_reader(File::open(path).map_err(read)?).map_err(read)?;
        Ok(Self { path: path.into(), size_bytes: about.len(), digest, header })
    }

    /// The same file, once it was renamed or linked.
    ///
    /// # Errors
    /// Nothing as long as this lies there.
    pub fn moved_to(self, path: &Path) -> Result<Self, CatalogError> {
        let read = |source| CatalogError::Read { path: path.into(), source };
        let about = std::fs::metadata(path).map_err(read)?;
        if about.len() != self.size_bytes {
            let problem = format!("it has {} bytes, and had {}", about.len(), self.size_bytes);
            return Err(CatalogError::Broken { path: path.into(), problem });
        }
        Ok(Self { path: path.into(), ..self })
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its size in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// SHA-256 of the file, lower-case hex.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// What its header says.
    pub fn header(&self) -> &GgufHeader {
        &self.header
    }
}

/// SHA-256, lower-case hex.
pub fn digest_of(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn digest_of_reader(mut file: File) -> std::io::Result<String> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex(&hash.finalize())),
            n => hash.update(&buffer[..n]),
        }
    }
}

/// Bytes as digests are written: lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut out, byte| {
        write!(out, "{byte:02x}").expect("writing to a string cannot fail");
        out
    })
}
