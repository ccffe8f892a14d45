//! What was told of an answer, so that another node's account of it is told from there on. Pure.

/// How far an answer was told.
#[derive(Clone, Debug, Default)]
pub(crate) struct Told {
    so_far: Extent,
    /// Where a second node is with telling the same again.
    again: Option<Extent>,
}

/// A text, in short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Extent {
    n_bytes: usize,
    n_tokens: u32,
    /// FNV-1a of the text, which does not depend on where pieces end.
    digest: u64,
}

/// What was told once does not come again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Differs;

// === impl Extent ===

impl Default for Extent {
    fn default() -> Self {
        Self { n_bytes: 0, n_tokens: 0, digest: 0xcbf2_9ce4_8422_2325 }
    }
}

impl Extent {
    fn add(&mut self, text: &str, n_tokens: u32) {
        self.n_bytes += text.len();
        self.n_tokens = self.n_tokens.saturating_add(n_tokens);
        for byte in text.bytes() {
            self.digest = (self.digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn is_text_of(&self, other: &Self) -> bool {
        (self.n_bytes, self.digest) == (other.n_bytes, other.digest)
    }
}

// === impl Told ===

impl Told {
    /// Tokens told.
    pub(crate) fn n_tokens(&self) -> u32 {
        self.so_far.n_tokens
    }

    /// Another node begins the answer anew.
    pub(crate) fn begin_again(&mut self) {
        self.again = Some(Extent::default());
    }

    /// A piece comes: what of it is to be told, and of how many tokens; `None`: it was told before.
    pub(crate) fn piece(&mut self, mut text: String, n_tokens: u32) -> Result<Option<(String, u32)>, Differs> {
        let Some(again) = &mut self.again else {
            self.so_far.add(&text, n_tokens);
            return Ok(Some((text, n_tokens)));
        };
        let left = self.so_far.n_bytes - again.n_bytes;
        if text.len() < left {
            again.add(&text, n_tokens);
            return Ok(None);
        }
        if !text.is_char_boundary(left) {
            return Err(Differs);
        }
        let rest = text.split_off(left);
        again.add(&text, n_tokens);
        if !again.is_text_of(&self.so_far) {
            return Err(Differs);
        }
        // tokens whose text was told before have been counted
        let n_tokens = again.n_tokens.saturating_sub(self.so_far.n_tokens);
        if rest.is_empty() {
            // there may be more that shows nothing; it counts with what comes next
            if left > 0 {
                return Ok(None);
            }
            return Ok(Some((rest, 0)));
        }
        self.again = None;
        self.so_far.add(&rest, n_tokens);
        Ok(Some((rest, n_tokens)))
    }

    /// The answer is at its end.
    pub(crate) fn end(&self) -> Result<(), Differs> {
        self.again.as_ref().is_none_or(|again| again.is_text_of(&self.so_far)).then_some(()).ok_or(Differs)
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    /// `text` in pieces of so many characters, over and over.
    fn pieces(text: &str, sizes: &[usize]) -> Vec<String> {
        let (mut rest, mut pieces) = (text.chars().peekable(), Vec::new());
        for size in sizes.iter().cycle() {
            if rest.peek().is_none() {
                break;
            }
            pieces.push(rest.by_ref().take(*size).collect());
        }
        pieces
    }

    proptest! {
        #[test]
        fn an_answer_that_breaks_off_anywhere_and_is_begun_again_is_told_once(
            text in "[abé🦀 ]{1,60}",
            runs in vec((vec(1usize..6, 1..5), 0usize..30), 0..4),
            last in vec(1usize..6, 1..5),
        ) {
            let (mut told, mut heard, mut n_tokens) = (Told::default(), String::new(), 0);
            let mut run = |told: &mut Told, sizes: &[usize], n_pieces: usize| {
                for piece in pieces(&text, sizes).into_iter().take(n_pieces) {
                    let n = u32::try_from(piece.chars().count()).unwrap();
                    if let Some((new, n_new)) = told.piece(piece, n).unwrap() {
                        heard.push_str(&new);
                        n_tokens += n_new;
                    }
                }
            };
            for (sizes, n_pieces) in &runs {
                run(&mut told, sizes, *n_pieces);
                told.begin_again();
            }
            run(&mut told, &last, usize::MAX);
            prop_assert_eq!(told.end(), Ok(()));
            prop_assert_eq!(&heard, &text);
            prop_assert_eq!(n_tokens as usize, text.chars().count());
            prop_assert_eq!(told.n_tokens(), n_tokens);
        }

        #[test]
        fn another_text_is_never_told_as_the_rest(text in "[ab]{2,20}", at in 0usize..20, sizes in vec(1usize..4, 1..4)) {
            let mut told = Told::default();
            told.piece(text.clone(), 1).unwrap();
            told.begin_again();
            let at = at % text.len();
            let mut other = text.clone().into_bytes();
            other[at] = if other[at] == b'a' { b'b' } else { b'a' };
            let all: Result<Vec<_>, _> =
                pieces(&String::from_utf8(other).unwrap(), &sizes).into_iter().map(|piece| told.piece(piece, 1)).collect();
            prop_assert!(all.is_err() || told.end().is_err());
        }
    }

    #[test]
    fn an_answer_that_is_shorter_the_second_time_differs() {
        let mut told = Told::default();
        told.piece("one two".into(), 2).unwrap();
        told.begin_again();
        assert_eq!(told.piece("one".into(), 1), Ok(None));
        assert_eq!(told.end(), Err(Differs));
    }

    #[test]
    fn a_piece_that_ends_within_a_character_of_what_was_told_differs() {
        let mut told = Told::default();
        told.piece("a".into(), 1).unwrap();
        told.begin_again();
        assert_eq!(told.piece("é".into(), 1), Err(Differs));
    }
}
