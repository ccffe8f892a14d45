//! How a download goes on from what is there: pure decisions over what a server says.
//!
//! ```text
//!            nothing there, or nothing to know it again by
//!   request ───────────────────────────────────────────────► whole ──200──► Begin
//!      │ bytes there, with a validator or a known content
//!      └──► Range (+ If-Range) ──206, the same file──► Append
//!                               ──200───────────────► Begin     (it changed, or the server knows no ranges)
//!                               ──206, another one──► Anew      (forget what is there, ask for the whole)
//!                               ──416, all is there─► Complete
//! ```

/// What is there of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) n_bytes: u64,
    /// What the server called this content: a strong `ETag`, or else `Last-Modified`.
    pub(crate) validator: Option<String>,
    /// Its size, as far as somebody said it.
    pub(crate) total: Option<u64>,
    /// Whether its content is known by a digest: what is there needs no validator to be gone on from.
    pub(crate) is_known: bool,
}

/// The headers that ask for the rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ask {
    /// The first byte wanted; 0 asks for the whole.
    pub(crate) from: u64,
    pub(crate) if_range: Option<String>,
}

/// What a server answered, as far as it matters here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) content_length: Option<u64>,
    pub(crate) content_range: Option<ContentRange>,
    pub(crate) validator: Option<String>,
}

/// `Content-Range`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ContentRange {
    /// The first byte; `None` where nothing is sent (`bytes */N`).
    pub(crate) first: Option<u64>,
    pub(crate) total: Option<u64>,
}

/// What to do with a reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Its body continues what is there.
    Append { total: Option<u64> },
    /// Its body is the whole file: what is there is forgotten.
    Begin { total: Option<u64> },
    /// All of it is there.
    Complete,
    /// What is there is of another file, or was asked for in vain: forget it and ask again.
    Anew,
    /// It is neither.
    Senseless,
}

// === impl Part ===

impl Part {
    pub(crate) fn ask(&self) -> Ask {
        match &self.validator {
            _ if self.n_bytes == 0 => Ask { from: 0, if_range: None },
            None if !self.is_known => Ask { from: 0, if_range: None },
            validator => Ask { from: self.n_bytes, if_range: validator.clone().filter(|_| !self.is_known) },
        }
    }

    /// Whether nothing is missing, so that nobody needs to be asked.
    pub(crate) fn is_complete(&self) -> bool {
        self.is_known && self.total == Some(self.n_bytes) && self.n_bytes > 0
    }

    pub(crate) fn judge(&self, ask: &Ask, reply: &Reply) -> Step {
        let range = reply.content_range;
        match reply.status {
            200 => Step::Begin { total: reply.content_length },
            206 if ask.from > 0 => {
                let first = range.and_then(|range| range.first);
                let total = range.and_then(|range| range.total);
                let other = |a: Option<u64>, b: Option<u64>| a.zip(b).is_some_and(|(a, b)| a != b);
                // a server that knows no `If-Range` sends the rest of another file
                let changed = !self.is_known
                    && self.validator.as_ref().zip(reply.validator.as_ref()).is_none_or(|(before, now)| before != now);
                if first != Some(ask.from) || other(total, self.total) || changed {
                    return Step::Anew;
                }
                let left = reply.content_length.map(|length| ask.from.saturating_add(length));
                Step::Append { total: total.or(self.total).or(left) }
            }
            416 if ask.from > 0 => {
                let total = range.and_then(|range| range.total).or(self.total);
                let is_all = total == Some(ask.from) && (self.is_known || self.total == total);
                if is_all { Step::Complete } else { Step::Anew }
            }
            _ => Step::Senseless,
        }
    }
}

// === impl ContentRange ===

impl ContentRange {
    /// `bytes 5-9/10`, `bytes 5-9/*` or `bytes */10`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (range, total) = text.trim().strip_prefix("bytes")?.trim_start().split_once('/')?;
        let total = if total == "*" { None } else { Some(total.trim().parse().ok()?) };
        let first = if range == "*" { None } else { Some(range.split_once('-')?.0.trim().parse().ok()?) };
        Some(Self { first, total })
    }
}

/// What a content can be known again by. A weak `ETag` says that two are alike, not that they are the same bytes.
pub(crate) fn validator(etag: Option<&str>, last_modified: Option<&str>) -> Option<String> {
    let strong = etag.filter(|etag| !etag.starts_with("W/") && !etag.is_empty());
    strong.or(last_modified).map(str::to_owned)
}

#[cfg(test)]
mod tests;
