//! The header of a GGUF file (versions 2 and 3, little-endian), read with limits: a hostile file can neither make us
//! allocate more than it is long nor reach llama.cpp with tensors that lie outside of it.
//!
//! Source of the layout: ggml's `docs/gguf.md`.

mod names;

use std::{collections::BTreeMap, io::Read};

use self::names::{file_type, type_name};

/// Metadata entries and tensors: far more than any model has, few enough to read at once.
const MAX_COUNT: u64 = 1 << 20;
/// Bytes of one string; chat templates are the longest in practice (tens of KiB).
const MAX_STRING: u64 = 1 << 24;
/// Elements of one array; the largest vocabularies have a few hundred thousand.
const MAX_ARRAY: u64 = 1 << 26;

/// One metadata value. Arrays of numbers are skipped: only their length is kept.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "the variants are the types of the format")]
pub enum Metadata {
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Bool(bool),
    Text(String),
    TextList(Vec<String>),
    NumberList(u64),
}

/// What a GGUF file says of itself before its weights.
#[derive(Clone, Debug, PartialEq)]
pub struct GgufHeader {
    metadata: BTreeMap<String, Metadata>,
    n_tensors: u64,
    n_params: u64,
    tensor_bytes: u64,
    /// Elements by the type they are written in.
    elements: BTreeMap<u32, u64>,
}

struct Source<'a, R> {
    reader: &'a mut R,
    position: u64,
    len: u64,
}

impl GgufHeader {
    /// Reads a header from the beginning of a file of `len` bytes.
    ///
    /// # Errors
    /// A sentence about what is wrong and where.
    pub fn read(reader: &mut impl Read, len: u64) -> Result<Self, String> {
        let mut source = Source { reader, position: 0, len };
        let magic = source.bytes::<4>("the magic")?;
        if &magic != b"GGUF" {
            return Err(format!("it begins with {magic:02x?} instead of `GGUF`"));
        }
        let version = source.u32("the version")?;
        if !(2..=3).contains(&version) {
            return Err(format!("its version is {version}; 2 and 3 can be read"));
        }
        let n_tensors = source.count("the number of tensors")?;
        let n_entries = source.count("the number of metadata entries")?;
        let mut metadata = BTreeMap::new();
        for i in 0..n_entries {
            let key = source.string(&format!("the key of metadata entry {i}"))?;
            let kind = source.u32(&key)?;
            let value = source.value(kind, &key)?;
            if metadata.insert(key.clone(), value).is_some() {
                return Err(format!("metadata key `{key}` stands there twice"));
            }
        }
        let alignment = match metadata.get("general.alignment") {
            None => 32,
            Some(Metadata::Unsigned(a)) if a.is_power_of_two() && *a <= 1 << 20 => *a,
            Some(other) => return Err(format!("`general.alignment` is {other:?} instead of a power of two")),
        };
        let mut header = Self { metadata, n_tensors, n_params: 0, tensor_bytes: 0, elements: BTreeMap::new() };
        header.read_tensors(&mut source, alignment)?;
        header.check_model()?;
        Ok(header)
    }

    fn read_tensors<R: Read>(&mut self, source: &mut Source<'_, R>, alignment: u64) -> Result<(), String> {
        let mut ends = Vec::new();
        for i in 0..self.n_tensors {
            let name = source.string(&format!("the name of tensor {i}"))?;
            let n_dims = source.u32(&name)?;
            if !(1..=4).contains(&n_dims) {
                return Err(format!("tensor `{name}` has {n_dims} dimensions; 1 to 4 are possible"));
            }
            let mut elements = 1u64;
            let mut row = 1u64;
            for d in 0..n_dims {
                let n = source.u64(&name)?;
                if d == 0 {
                    row = n;
                }
                elements = elements
                    .checked_mul(n)
                    .filter(|&e| e > 0 && e < 1 << 50)
                    .ok_or_else(|| format!("tensor `{name}` has an impossible shape"))?;
            }
            let kind = source.u32(&name)?;
            let offset = source.u64(&name)?;
            let (block, bytes) = block_of(kind).ok_or_else(|| format!("tensor `{name}` is of the unknown type {kind}"))?;
            if !row.is_multiple_of(block) {
                return Err(format!("tensor `{name}` has rows of {row} elements, which blocks of {block} do not fill"));
            }
            if offset % alignment != 0 {
                return Err(format!("tensor `{name}` begins at {offset}, which is no multiple of {alignment}"));
            }
            let size = elements / block * bytes;
            self.n_params += elements;
            *self.elements.entry(kind).or_default() += elements;
            self.tensor_bytes += size;
            ends.push((offset.checked_add(size).ok_or_else(|| format!("tensor `{name}` lies outside the file"))?, name));
        }
        let start = source.position.next_multiple_of(alignment);
        match ends.into_iter().max() {
            Some((end, name)) if start.saturating_add(end) > source.len => Err(format!(
                "it has {} bytes, but tensor `{name}` ends at byte {}; it was cut short, fetch it again",
                source.len,
                start.saturating_add(end)
            )),
            _ => Ok(()),
        }
    }

    /// What every language model must say; llama.cpp asserts some of it.
    fn check_model(&self) -> Result<(), String> {
        let architecture = self.architecture().ok_or("it names no `general.architecture`: it is no model")?;
        if self.n_tensors == 0 {
            return Err("it holds no tensors".into());
        }
        for key in ["context_length", "embedding_length", "block_count"] {
            match self.number(&format!("{architecture}.{key}")) {
                Some(n) if n > 0 && n < 1 << 31 => {}
                Some(n) => return Err(format!("`{architecture}.{key}` is {n}")),
                None => return Err(format!("`{architecture}.{key}` is missing")),
            }
        }
        match self.text_list("tokenizer.ggml.tokens") {
            None => Err("it has no vocabulary (`tokenizer.ggml.tokens`)".into()),
            Some([]) => Err("its vocabulary is empty".into()),
            Some(_) => Ok(()),
        }
    }

    /// `general.architecture`, for example `llama`.
    pub fn architecture(&self) -> Option<&str> {
        match self.metadata.get("general.architecture") {
            Some(Metadata::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// A whole number under its full key, such as `general.alignment`.
    pub fn number(&self, key: &str) -> Option<u64> {
        match self.metadata.get(key)? {
            Metadata::Unsigned(n) => Some(*n),
            Metadata::Signed(n) => u64::try_from(*n).ok(),
            _ => None,
        }
    }

    /// A number of this architecture, such as `context_length`.
    pub fn model_number(&self, key: &str) -> Option<u64> {
        self.number(&format!("{}.{key}", self.architecture()?))
    }

    /// A number with a fraction under its full key.
    pub fn float(&self, key: &str) -> Option<f64> {
        match self.metadata.get(key)? {
            Metadata::Float(x) => Some(*x),
            _ => None,
        }
    }

    /// A text under its full key.
    pub fn text(&self, key: &str) -> Option<&str> {
        match self.metadata.get(key)? {
            Metadata::Text(text) => Some(text),
            _ => None,
        }
    }

    /// A list of texts under its full key.
    pub fn text_list(&self, key: &str) -> Option<&[String]> {
        match self.metadata.get(key)? {
            Metadata::TextList(list) => Some(list),
            _ => None,
        }
    }

    /// Tokens of context it was trained for.
    pub fn context_length(&self) -> u32 {
        self.model_number("context_length").and_then(|n| u32::try_from(n).ok()).unwrap_or(u32::MAX)
    }

    /// Weights it has.
    pub fn n_params(&self) -> u64 {
        self.n_params
    }

    /// How the weights are written: what the file says of itself (`general.file_type`), or else the type of most of them.
    pub fn quantization(&self) -> &'static str {
        let said = self.number("general.file_type").and_then(file_type);
        said.unwrap_or_else(|| {
            let most = self.elements.iter().max_by_key(|(_, n)| **n);
            most.and_then(|(kind, _)| type_name(*kind)).unwrap_or("mixed")
        })
    }

    /// Bytes of all tensors.
    pub fn tensor_bytes(&self) -> u64 {
        self.tensor_bytes
    }

    /// Bytes of `F16` keys and values that one token of context takes.
    pub fn kv_bytes_per_token(&self) -> u64 {
        let heads = self.model_number("attention.head_count").unwrap_or(1).max(1);
        let kv_heads = self.model_number("attention.head_count_kv").unwrap_or(heads);
        let width = self.model_number("embedding_length").unwrap_or(0);
        let per_head = |key| self.model_number(key).unwrap_or(width / heads);
        let layers = self.model_number("block_count").unwrap_or(0);
        layers * kv_heads * (per_head("attention.key_length") + per_head("attention.value_length")) * 2
    }
}

/// Elements and bytes of one block of a ggml type (`ggml/src/ggml-common.h`).
fn block_of(kind: u32) -> Option<(u64, u64)> {
    Some(match kind {
        0 | 26 => (1, 4),
        1 | 25 | 30 => (1, 2),
        24 => (1, 1),
        27 | 28 => (1, 8),
        2 | 20 => (32, 18),
        3 => (32, 20),
        6 => (32, 22),
        7 => (32, 24),
        8 => (32, 34),
        9 => (32, 36),
        10 => (256, 84),
        11 | 21 => (256, 110),
        12 => (256, 144),
        13 => (256, 176),
        14 => (256, 210),
        15 => (256, 292),
        16 | 35 => (256, 66),
        17 => (256, 74),
        18 => (256, 98),
        19 => (256, 50),
        22 => (256, 82),
        23 => (256, 136),
        29 => (256, 56),
        34 => (256, 54),
        39 => (32, 17),
        _ => return None,
    })
}

// === impl Source ===

impl<R: Read> Source<'_, R> {
    fn bytes<const N: usize>(&mut self, what: &str) -> Result<[u8; N], String> {
        let mut out = [0; N];
        self.fill(&mut out, what)?;
        Ok(out)
    }

    fn fill(&mut self, out: &mut [u8], what: &str) -> Result<(), String> {
        self.reader.read_exact(out).map_err(|e| match e.kind() {
            std::io::ErrorKind::UnexpectedEof => format!("it ends after {} bytes, inside {what}", self.len),
            _ => format!("reading {what} failed: {e}"),
        })?;
        self.position += out.len() as u64;
        Ok(())
    }

    fn u32(&mut self, what: &str) -> Result<u32, String> {
        Ok(u32::from_le_bytes(self.bytes(what)?))
    }

    fn u64(&mut self, what: &str) -> Result<u64, String> {
        Ok(u64::from_le_bytes(self.bytes(what)?))
    }

    fn count(&mut self, what: &str) -> Result<u64, String> {
        match self.u64(what)? {
            n if n <= MAX_COUNT => Ok(n),
            n => Err(format!("{what} is {n}; more than {MAX_COUNT} is taken for damage")),
        }
    }

    fn string(&mut self, what: &str) -> Result<String, String> {
        let n = self.u64(what)?;
        if n > MAX_STRING || n > self.len.saturating_sub(self.position) {
            return Err(format!("{what} claims to be {n} bytes long at byte {}", self.position));
        }
        let mut bytes = vec![0; usize::try_from(n).map_err(|e| e.to_string())?];
        self.fill(&mut bytes, what)?;
        // vocabularies hold raw bytes now and then; what is not text only matters to llama.cpp, which reads it itself
        Ok(String::from_utf8(bytes).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned()))
    }

    fn value(&mut self, kind: u32, key: &str) -> Result<Metadata, String> {
        Ok(match kind {
            0 => Metadata::Unsigned(u64::from(self.bytes::<1>(key)?[0])),
            1 => Metadata::Signed(i64::from(i8::from_le_bytes(self.bytes(key)?))),
            2 => Metadata::Unsigned(u64::from(u16::from_le_bytes(self.bytes(key)?))),
            3 => Metadata::Signed(i64::from(i16::from_le_bytes(self.bytes(key)?))),
            4 => Metadata::Unsigned(u64::from(self.u32(key)?)),
            5 => Metadata::Signed(i64::from(i32::from_le_bytes(self.bytes(key)?))),
            6 => Metadata::Float(f64::from(f32::from_le_bytes(self.bytes(key)?))),
            7 => Metadata::Bool(self.bytes::<1>(key)?[0] != 0),
            8 => Metadata::Text(self.string(key)?),
            9 => self.array(key)?,
            10 => Metadata::Unsigned(self.u64(key)?),
            11 => Metadata::Signed(i64::from_le_bytes(self.bytes(key)?)),
            12 => Metadata::Float(f64::from_le_bytes(self.bytes(key)?)),
            other => return Err(format!("metadata `{key}` is of the unknown type {other}")),
        })
    }

    fn array(&mut self, key: &str) -> Result<Metadata, String> {
        let kind = self.u32(key)?;
        let n = self.u64(key)?;
        let size = match kind {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            // of texts at least: the length of each
            8 | 10..=12 => 8,
            other => return Err(format!("metadata `{key}` is a list of the unknown type {other}")),
        };
        if n > MAX_ARRAY || n * size > self.len.saturating_sub(self.position) {
            return Err(format!("metadata `{key}` claims {n} elements at byte {}", self.position));
        }
        if kind == 8 {
            return (0..n).map(|_| self.string(key)).collect::<Result<_, _>>().map(Metadata::TextList);
        }
        let mut left = n * size;
        let mut buffer = [0; 4096];
        while left > 0 {
            let step = usize::try_from(left.min(4096)).map_err(|e| e.to_string())?;
            self.fill(&mut buffer[..step], key)?;
            left -= step as u64;
        }
        Ok(Metadata::NumberList(n))
    }
}

#[cfg(test)]
mod tests;
