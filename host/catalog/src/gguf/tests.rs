use super::*;

fn string(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

/// A well-formed file with one 4x2 F32 tensor.
fn sample() -> Vec<u8> {
    let mut out = b"GGUF".to_vec();
    out.extend(3u32.to_le_bytes());
    out.extend(1u64.to_le_bytes());
    out.extend(5u64.to_le_bytes());
    string(&mut out, "general.architecture");
    out.extend(8u32.to_le_bytes());
    string(&mut out, "llama");
    for (key, value) in [("llama.context_length", 128u32), ("llama.embedding_length", 4), ("llama.block_count", 1)] {
        string(&mut out, key);
        out.extend(4u32.to_le_bytes());
        out.extend(value.to_le_bytes());
    }
    string(&mut out, "tokenizer.ggml.tokens");
    out.extend(9u32.to_le_bytes());
    out.extend(8u32.to_le_bytes());
    out.extend(2u64.to_le_bytes());
    string(&mut out, "a");
    string(&mut out, "b");
    string(&mut out, "token_embd.weight");
    out.extend(2u32.to_le_bytes());
    out.extend(4u64.to_le_bytes());
    out.extend(2u64.to_le_bytes());
    out.extend(0u32.to_le_bytes());
    out.extend(0u64.to_le_bytes());
    out.resize(out.len().next_multiple_of(32) + 32, 0);
    out
}

fn read(bytes: &[u8]) -> Result<GgufHeader, String> {
    GgufHeader::read(&mut &bytes[..], bytes.len() as u64)
}

#[test]
fn a_whole_file_is_read() {
    let header = read(&sample()).unwrap();
    assert_eq!(header.architecture(), Some("llama"));
    assert_eq!(header.context_length(), 128);
    assert_eq!(header.n_params(), 8);
    assert_eq!(header.tensor_bytes(), 32);
    assert_eq!(header.text_list("tokenizer.ggml.tokens").unwrap(), ["a", "b"]);
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let whole = sample();
    for n in 0..whole.len() {
        assert!(read(&whole[..n]).is_err(), "cut after {n} of {} bytes", whole.len());
    }
}

#[test]
fn no_single_changed_byte_panics_or_allocates_beyond_the_file() {
    let whole = sample();
    for i in 0..whole.len() {
        for value in [0, 0x7f, 0xff] {
            let mut bytes = whole.clone();
            bytes[i] = value;
            let _ = read(&bytes);
        }
    }
}

#[test]
fn what_is_wrong_is_said() {
    assert!(read(b"PK\x03\x04 not a model").unwrap_err().contains("instead of `GGUF`"));
    let mut old = sample();
    old[4] = 1;
    assert!(read(&old).unwrap_err().contains("version is 1"));
    let cut = &sample()[..sample().len() - 1];
    assert!(read(cut).unwrap_err().contains("fetch it again"));
}
