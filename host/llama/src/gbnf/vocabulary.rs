//! The texts of a model's tokens in their order, so that what many begin with is looked at once.

pub(crate) struct Vocabulary {
    bytes: Vec<u8>,
    words: Vec<Word>,
    /// Tokens that end a text.
    ends: Vec<u32>,
    /// Tokens that stand for no text.
    empty: Vec<u32>,
}

struct Word {
    token: u32,
    start: u32,
    n_bytes: u32,
    /// Bytes that it has in common with the one before it.
    n_common: u32,
}

// === impl Vocabulary ===

impl Vocabulary {
    /// Of the text of each token, counted from 0, or `None` where it ends a text.
    pub(crate) fn new<'a>(tokens: impl IntoIterator<Item = Option<&'a [u8]>>) -> Self {
        let mut vocabulary = Self { bytes: Vec::new(), words: Vec::new(), ends: Vec::new(), empty: Vec::new() };
        let mut texts: Vec<(&[u8], u32)> = Vec::new();
        for (text, token) in tokens.into_iter().zip(0..) {
            match text {
                None => vocabulary.ends.push(token),
                Some([]) => vocabulary.empty.push(token),
                Some(text) => texts.push((text, token)),
            }
        }
        texts.sort_unstable();
        let mut before: &[u8] = &[];
        for (text, token) in texts {
            let n_common = before.iter().zip(text).take_while(|(a, b)| a == b).count();
            let narrow = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
            let (start, n_bytes) = (narrow(vocabulary.bytes.len()), narrow(text.len()));
            vocabulary.words.push(Word { token, start, n_bytes, n_common: narrow(n_common) });
            vocabulary.bytes.extend(text);
            before = text;
        }
        vocabulary
    }

    /// Calls `refuse` with every token that cannot follow a place. `step` goes on from a place by one byte, where it can.
    pub(super) fn refused<P: Copy, E>(
        &self,
        place: P,
        can_end: bool,
        mut step: impl FnMut(P, u8) -> Result<Option<P>, E>,
        mut refuse: impl FnMut(u32),
    ) -> Result<(), E> {
        let ends = self.ends.iter().filter(|_| !can_end);
        self.empty.iter().chain(ends).for_each(|token| refuse(*token));
        // where each byte of the word at hand leads, as far as it leads anywhere
        let mut places = vec![place];
        let mut is_over = false;
        for word in &self.words {
            let n_common = word.n_common as usize;
            if !(is_over && n_common >= places.len()) {
                places.truncate(n_common + 1);
                is_over = false;
                let text = &self.bytes[word.start as usize..][..word.n_bytes as usize];
                for &byte in &text[places.len() - 1..] {
                    let Some(next) = step(places[places.len() - 1], byte)? else {
                        is_over = true;
                        break;
                    };
                    places.push(next);
                }
            }
            if is_over {
                refuse(word.token);
            }
        }
        Ok(())
    }
}
