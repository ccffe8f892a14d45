//! For fuzzing alone: what reads bytes from elsewhere.

use llambo_inference::Sampling;

use crate::{ephemeral, hibernate::Kept, nn};

/// Reads options as components and as commands give them.
pub fn options(json: &[u8]) {
    let _ = nn::Options::parse(json);
    let mut options = ephemeral::Options::default();
    if options.add(json).is_ok() {
        let _ = options.over(&Sampling::default());
    }
}

/// Reads the inside of a file of a hibernated isolate. What was read is written as it was.
pub fn hibernation_file(body: &[u8]) {
    if let Ok(kept) = Kept::parse(body) {
        assert_eq!(Kept::decode(&kept.encode()).as_ref(), Ok(&kept));
    }
}
