//! Whose a token is. The host knows tokens by their SHA-256 only.
//!
//! A token is long and random (`llamboctl token new` makes 32 random bytes), so nobody finds it from its hash by trying, and a slow hash as
//! for passwords would only make requests slow. Looking a hash up tells by its time at most what its first eight bytes are, which nobody
//! can choose; the rest is compared in constant time.

use std::{
    collections::HashMap,
    fmt, fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::TenantAccess;

/// The most a file with tokens may have, in bytes: some 50,000 tokens.
const MAX_FILE_BYTES: u64 = 4 << 20;

/// SHA-256 of a token.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TokenHash([u8; 32]);

/// Why a file with tokens cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokensError {
    /// It cannot be read.
    #[error("tokens-file `{}` cannot be read: {source}; check the path and who may read it", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A line is no hash.
    #[error("tokens-file `{}`, line {line}: this is not `sha256:` and 64 hexadecimal digits; make a token with `llamboctl token new`", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
    },
    /// Two tenants have one token.
    #[error("tenants `{one}` and `{other}` have the same token; remove one of them")]
    Shared {
        /// Who had it first.
        one: String,
        /// Who has it too.
        other: String,
    },
}

/// Every token that is valid now, by the first bytes of its hash.
pub(super) struct Book {
    entries: HashMap<[u8; 8], Vec<(TokenHash, usize)>>,
    /// What each tenant's file had when it was last good.
    files: Vec<Vec<TokenHash>>,
}

// === impl TokenHash ===

impl TokenHash {
    /// The hash of a token.
    pub fn of(token: &[u8]) -> Self {
        Self(Sha256::digest(token).into())
    }

    /// Reads `sha256:` and 64 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        let hex = text.strip_prefix("sha256:").filter(|hex| hex.len() == 64)?;
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let mut hash = [0; 32];
        for (byte, pair) in hash.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Some(Self(hash))
    }

    fn begin(&self) -> [u8; 8] {
        let mut begin = [0; 8];
        begin.copy_from_slice(&self.0[..8]);
        begin
    }
}

impl From<[u8; 32]> for TokenHash {
    fn from(hash: [u8; 32]) -> Self {
        Self(hash)
    }
}

impl fmt::Debug for TokenHash {
    /// Only its beginning: enough to tell which one it is.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{:02x}{:02x}{:02x}{:02x}..", self.0[0], self.0[1], self.0[2], self.0[3])
    }
}

/// Reads a file with a hash a line; empty lines, and what stands behind `#`, are left out. Blocks.
///
/// # Errors
/// [`TokensError::Read`], also for a file of more than 4 MiB; [`TokensError::Line`].
pub fn read_tokens(path: &Path) -> Result<Vec<TokenHash>, TokensError> {
    let unread = |source| TokensError::Read { path: path.to_owned(), source };
    // looked at before it is opened: a pipe would wait for whoever writes into it
    let about = fs::metadata(path).map_err(unread)?;
    if !about.is_file() {
        return Err(unread(io::Error::other("it is no file")));
    }
    let mut text = String::new();
    let file = fs::File::open(path).map_err(unread)?;
    let size = file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text).map_err(unread)?;
    if size as u64 > MAX_FILE_BYTES {
        return Err(unread(io::Error::other(format!("it has more than {MAX_FILE_BYTES} bytes"))));
    }
    let hashes = text.lines().enumerate().filter_map(|(i, line)| {
        let hash = line.split('#').next().unwrap_or_default().trim();
        let wrong = || TokensError::Line { path: path.to_owned(), line: i + 1 };
        (!hash.is_empty()).then(|| TokenHash::parse(hash).ok_or_else(wrong))
    });
    hashes.collect()
}

fn from_file(tenant: &TenantAccess) -> Result<Vec<TokenHash>, TokensError> {
    tenant.tokens_file.as_deref().map_or(Ok(Vec::new()), read_tokens)
}

// === impl Book ===

impl Book {
    /// Reads all files.
    ///
    /// # Errors
    /// The first that is wrong, and a token that two tenants have.
    pub(super) fn read(tenants: &[TenantAccess]) -> Result<Self, TokensError> {
        let files: Result<Vec<_>, _> = tenants.iter().map(from_file).collect();
        let (book, shared) = Self::of(tenants, files?);
        shared.map_or(Ok(book), Err)
    }

    /// Reads all files again. Of a tenant whose file is wrong nothing changes, and a token that two tenants have is nobody's: each mistake is that tenant's
    /// own, and never keeps another's token alive. Answers what is wrong, too.
    pub(super) fn read_again(&self, tenants: &[TenantAccess]) -> (Self, Vec<TokensError>) {
        let mut wrong = Vec::new();
        let files = tenants.iter().zip(&self.files).map(|(tenant, before)| {
            from_file(tenant).unwrap_or_else(|error| {
                wrong.push(error);
                before.clone()
            })
        });
        let files = files.collect();
        let (book, shared) = Self::of(tenants, files);
        wrong.extend(shared);
        (book, wrong)
    }

    /// With the first token that is in it twice, which is nobody's.
    fn of(tenants: &[TenantAccess], files: Vec<Vec<TokenHash>>) -> (Self, Option<TokensError>) {
        let mut book = Self { entries: HashMap::new(), files: Vec::new() };
        let (mut shared, mut nobodys) = (None, Vec::new());
        for (n, (tenant, file)) in tenants.iter().zip(&files).enumerate() {
            for hash in tenant.tokens.iter().chain(file) {
                match book.find(hash) {
                    Some(other) if other != n => {
                        let name = |n: usize| tenants[n].name.to_string();
                        shared.get_or_insert_with(|| TokensError::Shared { one: name(other), other: name(n) });
                        nobodys.push(*hash);
                    }
                    Some(_) => {}
                    None => book.entries.entry(hash.begin()).or_default().push((*hash, n)),
                }
            }
        }
        for hash in nobodys {
            book.entries.entry(hash.begin()).and_modify(|alike| alike.retain(|(known, _)| *known != hash));
        }
        book.files = files;
        (book, shared)
    }

    pub(super) fn len(&self) -> usize {
        self.entries.values().map(Vec::len).sum()
    }

    /// The tenant whose token it is, by its place among the tenants.
    pub(super) fn owner(&self, token: &[u8]) -> Option<usize> {
        self.find(&TokenHash::of(token))
    }

    fn find(&self, hash: &TokenHash) -> Option<usize> {
        let alike = self.entries.get(&hash.begin())?;
        alike.iter().find(|(known, _)| bool::from(known.0.ct_eq(&hash.0))).map(|(_, tenant)| *tenant)
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use super::*;

    fn text(token: &str) -> String {
        TokenHash::of(token.as_bytes()).0.iter().fold("sha256:".to_owned(), |mut text, byte| {
            write!(text, "{byte:02x}").unwrap();
            text
        })
    }

    #[test]
    fn a_hash_is_read_as_it_is_written() {
        let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(text(""), empty);
        assert_eq!(TokenHash::parse(empty), Some(TokenHash::of(b"")));
        assert_eq!(TokenHash::parse(&empty.to_uppercase().replace("SHA", "sha")), Some(TokenHash::of(b"")));
        for bad in ["", "sha256:", &empty[..70], &empty[7..], "llambo_x", &empty.replace('e', "g"), &format!("{empty}0")] {
            assert_eq!(TokenHash::parse(bad), None, "{bad}");
        }
        assert_eq!(format!("{:?}", TokenHash::of(b"")), "sha256:e3b0c442..");
    }

    #[test]
    fn a_file_says_which_line_is_wrong_and_never_what_it_says() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens");
        fs::write(&path, format!("# ours\n{}\n\n{} # laptop\n", text("a"), text("b"))).unwrap();
        assert_eq!(read_tokens(&path).unwrap(), [TokenHash::of(b"a"), TokenHash::of(b"b")]);
        fs::write(&path, format!("{}\nllambo_secret\n", text("a"))).unwrap();
        let error = read_tokens(&path).unwrap_err().to_string();
        assert!(error.contains("line 2") && !error.contains("secret"), "{error}");
        fs::remove_file(&path).unwrap();
        assert!(matches!(read_tokens(&path), Err(TokensError::Read { .. })));
        fs::File::create(&path).unwrap().set_len(MAX_FILE_BYTES + 1).unwrap();
        assert!(matches!(read_tokens(&path), Err(TokensError::Read { .. })));
    }
}
