//! What people want to know of a model before they load it.

use std::{fs::File, io::BufReader, path::Path};

use crate::{Builtin, CatalogError, GgufHeader};

/// A model's header in a few numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outline {
    /// `general.architecture`.
    pub architecture: String,
    /// `general.name`, if it says one.
    pub title: Option<String>,
    /// Layers.
    pub n_layers: u64,
    /// Dimensions of an embedding.
    pub n_embd: u64,
    /// Tokens of context it was trained for.
    pub n_context: u32,
    /// Weights.
    pub n_params: u64,
    /// How most of them are written, such as `Q4_K_M`.
    pub quantization: String,
    /// Tokens in the vocabulary.
    pub n_vocab: u64,
    /// Whether it says how a conversation is put into words.
    pub has_chat_template: bool,
    /// Bytes of the weights.
    pub weight_bytes: u64,
    /// Bytes of keys and values of one token, as `F16`.
    pub kv_bytes_per_token: u64,
    /// Bytes of the file.
    pub size_bytes: u64,
}

// === impl Outline ===

impl Outline {
    /// Reads the header of a file. Its weights are not read, and it is as quick as the header is short.
    ///
    /// # Errors
    /// The file cannot be read, or is not a whole GGUF file.
    pub fn read(path: &Path) -> Result<Self, CatalogError> {
        let read = |source| CatalogError::Read { path: path.into(), source };
        let file = File::open(path).map_err(read)?;
        let about = file.metadata().map_err(read)?;
        let broken = |problem| CatalogError::Broken { path: path.into(), problem };
        if !about.is_file() {
            return Err(broken("it is not a regular file".into()));
        }
        let header = GgufHeader::read(&mut BufReader::with_capacity(1 << 16, &file), about.len()).map_err(broken)?;
        Ok(Self::of(&header, about.len()))
    }

    /// Of a model inside the program.
    ///
    /// # Errors
    /// Never, as long as the built-in models are whole.
    pub fn of_builtin(builtin: Builtin) -> Result<Self, CatalogError> {
        let bytes = builtin.bytes();
        let header = GgufHeader::read(&mut &*bytes, bytes.len() as u64);
        let header = header.map_err(|problem| CatalogError::Broken { path: builtin.name().into(), problem })?;
        Ok(Self::of(&header, bytes.len() as u64))
    }

    fn of(header: &GgufHeader, size_bytes: u64) -> Self {
        Self {
            architecture: header.architecture().unwrap_or_default().into(),
            title: header.text("general.name").map(str::to_owned),
            n_layers: header.model_number("block_count").unwrap_or(0),
            n_embd: header.model_number("embedding_length").unwrap_or(0),
            n_context: header.context_length(),
            n_params: header.n_params(),
            quantization: header.quantization().into(),
            n_vocab: header.text_list("tokenizer.ggml.tokens").map_or(0, |tokens| tokens.len() as u64),
            has_chat_template: header.text("tokenizer.chat_template").is_some_and(|text| !text.is_empty()),
            weight_bytes: header.tensor_bytes(),
            kv_bytes_per_token: header.kv_bytes_per_token(),
            size_bytes,
        }
    }
}

/// `MemAvailable` of Linux, in bytes; `None` elsewhere.
pub fn available_bytes() -> Option<u64> {
    let meminfo = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn built_in_models_say_what_they_are() {
        let demo = Outline::of_builtin(Builtin::Demo).unwrap();
        assert_eq!((demo.quantization.as_str(), demo.has_chat_template), ("Q8_0", true));
        assert!(demo.n_layers > 0 && demo.n_vocab > 0 && demo.weight_bytes < demo.size_bytes);
        assert_eq!(Outline::of_builtin(Builtin::DemoSmall).unwrap().quantization, "F16");
    }

    #[test]
    fn a_folder_and_a_text_are_no_models() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Outline::read(folder.path()).is_err());
        std::fs::write(folder.path().join("x.gguf"), "<html>").unwrap();
        assert!(Outline::read(&folder.path().join("x.gguf")).unwrap_err().to_string().contains("GGUF"));
    }
}
