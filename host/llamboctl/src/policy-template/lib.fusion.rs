//! Decides what several answers to one request become: here the first that its model ended by itself, or else the longest.

wit_bindgen::generate!({ path: "wit", generate_all });

use exports::llambo::policy::fusing::{Answer, Fused, Guest, Request};

struct Policy;

export!(Policy);

impl Guest for Policy {
    /// Called as each answer comes in. None waits for the others; with nothing outstanding it is an error.
    fn fuse(_request: Request, answers: Vec<Answer>, outstanding: u32) -> Option<Fused> {
        let complete = answers.iter().position(|answer| answer.complete);
        let longest = || (0..answers.len()).max_by_key(|place| answers[*place].text.len());
        let place = complete.or_else(|| if outstanding == 0 { longest() } else { None })?;
        // or `Fused::Text`, for a text that is made from them
        Some(Fused::Pick(place as u32))
    }
}
