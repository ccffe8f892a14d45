//! Decides which tier should serve a request: here by its length, by code, and by how long the answer may be.

wit_bindgen::generate!({ path: "wit", generate_all });

use exports::llambo::policy::classifying::{Features, Guest, Request};

struct Policy;

export!(Policy);

impl Guest for Policy {
    /// 0 for what is simple, 2 for what is demanding.
    fn classify(request: Request, features: Features) -> u8 {
        if request.max_tokens.is_some_and(|tokens| tokens <= 16) {
            return 0;
        }
        match features.words {
            _ if features.code_lines > 0 => 2,
            0..100 => 0,
            100..500 => 1,
            _ => 2,
        }
    }
}
