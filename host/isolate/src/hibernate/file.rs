//! What lies on disk: a line that says what it is, a header in JSON, the memory's blocks that are not zero, keys and values, and a SHA-256 of all that.
//! Pure: bytes in, or what is wrong with them out.

use llambo_inference::{KeptState, ModelName, TokenId};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{
    Origin,
    image::{BLOCK_BYTES, BLOCKS_PER_PAGE, Image, MAX_PAGES, Named, Run},
};

const MAGIC: &[u8] = b"llambo isolate 1\n";
const DIGEST_BYTES: usize = 32;

/// A hibernated isolate.
#[derive(Debug, PartialEq)]
pub(crate) struct Kept {
    pub(crate) origin: Origin,
    /// `None` of one that had no state: a command, or one whose guest had ended.
    pub(crate) image: Option<Image>,
}

#[derive(Serialize, Deserialize)]
struct Header {
    origin: Origin,
    image: Option<ImageHeader>,
}

#[derive(Serialize, Deserialize)]
struct ImageHeader {
    memory_pages: u32,
    /// First block and number of blocks.
    runs: Vec<(u32, u32)>,
    globals: Vec<u64>,
    branches: Vec<BranchHeader>,
}

#[derive(Serialize, Deserialize)]
struct BranchHeader {
    name: String,
    model: Option<String>,
    sha256: String,
    tokens: Vec<TokenId>,
    kept: Option<KeptHeader>,
}

#[derive(Serialize, Deserialize)]
struct KeptHeader {
    kind: String,
    tokens: Vec<TokenId>,
    n_bytes: u64,
}

impl Kept {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let header = Header { origin: self.origin.clone(), image: self.image.as_ref().map(ImageHeader::of) };
        let header = serde_json::to_vec(&header).expect("a header is plain data");
        let parts = self.image.iter().flat_map(|image| {
            let kept = image.branches.iter().filter_map(|branch| branch.kept.as_ref());
            image.runs.iter().map(|run| run.bytes.as_slice()).chain(kept.map(|kept| kept.bytes.as_slice()))
        });
        let mut out = Vec::with_capacity(header.len() + (1 << 16));
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&(header.len() as u64).to_le_bytes());
        out.extend_from_slice(&header);
        parts.for_each(|part| out.extend_from_slice(part));
        let digest = Sha256::digest(&out);
        out.extend_from_slice(&digest);
        out
    }

    /// What is not whole, or is not consistent, is refused before any of it is used.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, String> {
        let rest = bytes.strip_prefix(MAGIC).ok_or("it does not begin as one")?;
        let at_end = bytes.len().checked_sub(DIGEST_BYTES).filter(|at| *at >= MAGIC.len()).ok_or("it ends early")?;
        let (body, digest) = bytes.split_at(at_end);
        if Sha256::digest(body)[..] != *digest {
            return Err("its SHA-256 is wrong: it is cut or damaged".into());
        }
        Self::parse(&rest[..rest.len() - DIGEST_BYTES])
    }

    /// What is between the first line and the digest.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, String> {
        let mut rest = body;
        let mut take = |n: u64, what: &str| {
            let n = usize::try_from(n)
                .ok()
                .filter(|n| *n <= rest.len())
                .ok_or_else(|| format!("it ends before the end of {what}"))?;
            let (taken, left) = rest.split_at(n);
            rest = left;
            Ok::<_, String>(taken)
        };
        let n = take(8, "the header's length")?;
        let n = u64::from_le_bytes(n.try_into().map_err(|_| "its header has no length")?);
        let header: Header =
            serde_json::from_slice(take(n, "its header")?).map_err(|e| format!("its header makes no sense: {e}"))?;
        let image = match header.image {
            None => None,
            Some(image) => {
                image.check()?;
                let ImageHeader { memory_pages, runs, globals, branches } = image;
                let run = |(at, n): (u32, u32)| {
                    let bytes = take(u64::from(n) * BLOCK_BYTES as u64, "its memory")?.to_vec();
                    Ok::<_, String>(Run { at, bytes })
                };
                let runs = runs.into_iter().map(run).collect::<Result<_, _>>()?;
                let branch = |branch: BranchHeader| {
                    let BranchHeader { name, model, sha256, tokens, kept } = branch;
                    let kept = kept.map(|KeptHeader { kind, tokens, n_bytes }| {
                        let bytes = take(n_bytes, "its keys and values")?.to_vec();
                        Ok::<_, String>(KeptState { kind, tokens, bytes })
                    });
                    let model = model.map(ModelName::from);
                    Ok::<_, String>(Named { name, model, sha256, tokens, kept: kept.transpose()? })
                };
                let branches = branches.into_iter().map(branch).collect::<Result<_, _>>()?;
                Some(Image { memory_pages, runs, globals, branches })
            }
        };
        if rest.is_empty() { Ok(Self { origin: header.origin, image }) } else { Err("there is more in it than it says".into()) }
    }
}

impl ImageHeader {
    fn of(image: &Image) -> Self {
        let blocks = |run: &Run| (run.at, u32::try_from(run.bytes.len() / BLOCK_BYTES).unwrap_or(u32::MAX));
        let branch = |branch: &Named| BranchHeader {
            name: branch.name.clone(),
            model: branch.model.as_ref().map(ToString::to_string),
            sha256: branch.sha256.clone(),
            tokens: branch.tokens.clone(),
            kept: branch.kept.as_ref().map(|kept| KeptHeader {
                kind: kept.kind.clone(),
                tokens: kept.tokens.clone(),
                n_bytes: kept.bytes.len() as u64,
            }),
        };
        Self {
            memory_pages: image.memory_pages,
            runs: image.runs.iter().map(blocks).collect(),
            globals: image.globals.clone(),
            branches: image.branches.iter().map(branch).collect(),
        }
    }

    /// Whether runs come one behind the other within the memory.
    fn check(&self) -> Result<(), String> {
        if self.memory_pages > MAX_PAGES {
            return Err(format!("its memory has {} pages, more than a memory can have", self.memory_pages));
        }
        let (mut free_from, end) = (0, u64::from(self.memory_pages) * u64::from(BLOCKS_PER_PAGE));
        for &(at, n) in &self.runs {
            let run_end = u64::from(at) + u64::from(n);
            if u64::from(at) < free_from || n == 0 || run_end > end {
                return Err(format!("it has {n} blocks of memory at {at}, where they cannot be"));
            }
            free_from = run_end;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn kept() -> Kept {
        let origin = Origin { node_type: "t".into(), node: "t-1".into(), tenant: "default".into(), module: "ab".into() };
        let run = |at, n: usize| Run { at, bytes: (0..=255).cycle().take(n * BLOCK_BYTES).collect() };
        let branch =
            |name: &str, kept| Named { name: name.into(), model: None, sha256: "cd".into(), tokens: vec![1, 2, 3], kept };
        let state = KeptState { kind: "k".into(), tokens: vec![1, 2], bytes: vec![7; 100] };
        let image = Image {
            memory_pages: 2,
            runs: vec![run(1, 2), run(7, 1)],
            globals: vec![0, u64::MAX],
            branches: vec![branch("a", Some(state)), branch("b", None)],
        };
        Kept { origin, image: Some(image) }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let whole = kept();
        assert_eq!(Kept::decode(&whole.encode()), Ok(whole));
        let bare = Kept { image: None, ..kept() };
        assert_eq!(Kept::decode(&bare.encode()), Ok(bare));
    }

    #[test]
    fn runs_that_overlap_or_lie_outside_are_refused() {
        for runs in [vec![(1, 2), (2, 1)], vec![(31, 2)], vec![(0, 0)], vec![(u32::MAX, u32::MAX)], vec![(5, 1), (1, 1)]] {
            let header = ImageHeader { memory_pages: 2, runs: runs.clone(), globals: Vec::new(), branches: Vec::new() };
            assert!(header.check().is_err(), "{runs:?}");
        }
        let large = ImageHeader { memory_pages: 65_537, runs: Vec::new(), globals: Vec::new(), branches: Vec::new() };
        assert!(large.check().is_err());
    }

    proptest! {
        #[test]
        fn any_change_is_noticed(at in any::<prop::sample::Index>(), to in any::<u8>(), cut in any::<bool>()) {
            let bytes = kept().encode();
            let at = at.index(bytes.len());
            let mut changed = bytes.clone();
            if cut {
                changed.truncate(at);
            } else {
                changed[at] = to;
            }
            prop_assert!(changed == bytes || Kept::decode(&changed).is_err());
        }

        #[test]
        fn a_body_of_anything_is_read_or_refused(body in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Kept::parse(&body);
            let mut framed = (body.len() as u64).to_le_bytes().to_vec();
            framed.extend(&body);
            prop_assert!(Kept::parse(&framed).is_err());
        }
    }
}
