//! What people write where a model comes from: a file, an address, or a repository of the Hugging Face hub.

use std::{fmt, path::PathBuf};

use crate::{Builtin, CatalogError};

const HUB: &str = "hf:";

/// Where a model comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Inside the program.
    Builtin(Builtin),
    /// A file of this machine.
    File(PathBuf),
    /// An address over HTTP.
    Url(String),
    /// A file of a repository of the hub.
    Hub(HubFile),
}

/// A file of a repository: `hf:OWNER/REPO[@REVISION][:FILE or QUANTIZATION]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubFile {
    /// `OWNER/REPO`.
    pub repository: String,
    /// A branch, a tag or a commit; `main` unless told otherwise.
    pub revision: String,
    /// Which of its files; `None`: the one that suits most people.
    pub wanted: Option<String>,
}

/// Which file of several is meant, when no file was named: what most people are well served with comes first.
const USUAL: [&str; 4] = ["Q4_K_M", "Q5_K_M", "Q8_0", "Q4_0"];

// === impl Source ===

impl Source {
    /// Reads what a person wrote.
    ///
    /// # Errors
    /// It begins like one of the forms and is none.
    pub fn parse(text: &str) -> Result<Self, CatalogError> {
        if let Some(builtin) = Builtin::parse(text)? {
            return Ok(Self::Builtin(builtin));
        }
        if let Some(rest) = text.strip_prefix(HUB) {
            return HubFile::parse(rest).map(Self::Hub).map_err(|problem| CatalogError::BadSource { text: text.into(), problem });
        }
        if text.starts_with("http://") || text.starts_with("https://") {
            return Ok(Self::Url(text.into()));
        }
        if text.is_empty() || text.contains("://") {
            let problem = "it is neither a file, nor http:// or https://, nor hf:OWNER/REPO".into();
            return Err(CatalogError::BadSource { text: text.into(), problem });
        }
        Ok(Self::File(text.into()))
    }

    /// A name that a model from there may have in the catalog.
    pub fn usual_name(&self) -> String {
        let last = |path: &str| {
            let path = path.split(['?', '#']).next().unwrap_or(path);
            path.trim_end_matches('/').rsplit('/').next().unwrap_or(path).to_owned()
        };
        let stem = match self {
            Self::Builtin(builtin) => builtin.name().replace(':', "-"),
            Self::File(path) => path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned()),
            Self::Url(url) => last(url),
            Self::Hub(hub) => match hub.wanted.as_deref() {
                Some(file) if is_model_file(file) => last(file),
                Some(quantization) => format!("{}-{quantization}", last(&hub.repository).trim_end_matches("-GGUF")),
                None => last(&hub.repository).trim_end_matches("-GGUF").to_owned(),
            },
        };
        let stem = if is_model_file(&stem) { &stem[..stem.len() - 5] } else { &stem };
        let fit = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c.to_ascii_lowercase() } else { '-' };
        let name: String = stem.chars().map(fit).take(MAX_NAME).collect();
        let name = name.trim_start_matches(['.', '_', '-']).to_owned();
        if name.is_empty() { "model".into() } else { name }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Builtin(builtin) => f.write_str(builtin.name()),
            Self::File(path) => path.display().fmt(f),
            Self::Url(url) => f.write_str(&without_secrets(url)),
            Self::Hub(hub) => hub.fmt(f),
        }
    }
}

// === impl HubFile ===

impl HubFile {
    fn parse(text: &str) -> Result<Self, String> {
        let (place, wanted) = match text.split_once(':') {
            Some((place, wanted)) => (place, Some(wanted)),
            None => (text, None),
        };
        let (repository, revision) = place.split_once('@').unwrap_or((place, "main"));
        let is_word = |word: &str| {
            !word.is_empty()
                && word.len() <= 96
                && !word.starts_with('.')
                && !word.contains("--")
                && word.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
        };
        let words: Vec<&str> = repository.split('/').collect();
        if !matches!(words.as_slice(), [owner, name] if is_word(owner) && is_word(name)) {
            return Err(format!("`{repository}` is no OWNER/REPO; write hf:OWNER/REPO[@REVISION][:FILE or QUANTIZATION]"));
        }
        if !is_path(revision) {
            return Err(format!("`{revision}` is no revision: name a branch, a tag or a commit"));
        }
        if let Some(wanted) = wanted.filter(|wanted| !is_path(wanted)) {
            return Err(format!("`{wanted}` is neither a file of a repository nor a quantization such as Q4_K_M"));
        }
        Ok(Self { repository: repository.into(), revision: revision.into(), wanted: wanted.map(str::to_owned) })
    }

    /// The file that is meant among those of the repository.
    ///
    /// # Errors
    /// A sentence: there is none, or several could be meant.
    pub fn choose<'f>(&self, files: &[&'f str]) -> Result<&'f str, String> {
        let repository = &self.repository;
        let models: Vec<&'f str> = files.iter().copied().filter(|file| is_model_file(file) && is_path(file)).collect();
        let named = |found: &[&str]| {
            let more = if found.len() > 12 { ", ..." } else { "" };
            format!("{}{more}", found.iter().take(12).map(|file| format!("`{file}`")).collect::<Vec<_>>().join(", "))
        };
        if models.is_empty() {
            return Err(format!("`{repository}` holds no .gguf file; look for a repository that has GGUF in its name"));
        }
        if let Some(wanted) = &self.wanted
            && let Some(file) = files.iter().copied().find(|file| file == wanted)
        {
            return whole(file);
        }
        let of = |quantization: &str| {
            let wanted = quantization.to_ascii_lowercase();
            let matches = |file: &&&str| words(file).any(|word| word == wanted) && !is_companion(file);
            models.iter().filter(matches).copied().collect::<Vec<_>>()
        };
        let found = match &self.wanted {
            Some(wanted) => of(wanted),
            None => match models.iter().filter(|file| !is_companion(file)).copied().collect::<Vec<_>>() {
                one if one.len() == 1 => one,
                _ => USUAL.iter().map(|usual| of(usual)).find(|found| !found.is_empty()).unwrap_or_default(),
            },
        };
        match found.as_slice() {
            &[one] => whole(one),
            [] => {
                let wanted = self.wanted.as_deref().map_or_else(String::new, |wanted| format!(" like `{wanted}`"));
                Err(format!("`{repository}` has no single file{wanted}; name one of {}", named(&models)))
            }
            several if several.iter().all(|file| part_of(file).is_some()) => whole(several[0]),
            several => Err(format!("several files of `{repository}` fit; name one of {}", named(several))),
        }
    }
}

impl fmt::Display for HubFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{HUB}{}", self.repository)?;
        if self.revision != "main" {
            write!(f, "@{}", self.revision)?;
        }
        self.wanted.as_ref().map_or(Ok(()), |wanted| write!(f, ":{wanted}"))
    }
}

/// An address without what opens doors: a user with a password, or a signed query.
pub fn without_secrets(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let rest = rest.split(['?', '#']).next().unwrap_or(rest);
    let (host, path) = rest.split_once('/').map_or((rest, None), |(host, path)| (host, Some(path)));
    let host = host.rsplit('@').next().unwrap_or(host);
    path.map_or_else(|| format!("{scheme}://{host}"), |path| format!("{scheme}://{host}/{path}"))
}

/// Characters of a name in the catalog.
pub(crate) const MAX_NAME: usize = 64;

/// Whether something may be a model's name in the catalog.
pub fn is_model_name(text: &str) -> bool {
    text.len() <= MAX_NAME
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
}

fn is_model_file(name: &str) -> bool {
    name.len() > 5 && name.is_char_boundary(name.len() - 5) && name[name.len() - 5..].eq_ignore_ascii_case(".gguf")
}

/// Projectors and importance matrices lie beside models, and are none.
fn is_companion(file: &str) -> bool {
    let name = file.to_ascii_lowercase();
    name.contains("mmproj") || name.contains("imatrix")
}

/// A path that stays where it begins.
fn is_path(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 255
        && text.split('/').all(|part| !part.is_empty() && part != "." && part != "..")
        && !text.contains(|c: char| c.is_control() || "\\:*?\"<>|#%".contains(c))
}

/// The words of a file's name, such as `q4_k_m`.
fn words(file: &str) -> impl Iterator<Item = String> {
    file.to_ascii_lowercase().split(['-', '.', '/']).map(str::to_owned).collect::<Vec<_>>().into_iter()
}

/// Of how many files a file is a part.
fn part_of(file: &str) -> Option<u32> {
    let stem = &file[..file.len() - 5];
    let (rest, n) = stem.rsplit_once("-of-")?;
    let (_, i) = rest.rsplit_once('-')?;
    i.parse::<u32>().ok()?;
    n.parse().ok().filter(|n| *n > 1)
}

fn whole(file: &str) -> Result<&str, String> {
    match part_of(file) {
        None => Ok(file),
        Some(n) => {
            Err(format!("`{file}` is one of {n} parts, and only whole files can be loaded; choose a smaller quantization"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hub(text: &str) -> HubFile {
        match Source::parse(text) {
            Ok(Source::Hub(hub)) => hub,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn each_form_is_read_and_written_alike() {
        for text in ["hf:a/b", "hf:a/b@v1.0:x/y.gguf", "hf:a/b:Q8_0", "builtin:demo", "https://h/x.gguf", "m/x.gguf"] {
            assert_eq!(Source::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(hub("hf:a/b@refs/pr/1").revision, "refs/pr/1");
    }

    #[test]
    fn what_leads_out_of_its_folder_is_refused() {
        for text in [
            "hf:a", "hf:../b", "hf:a/b/c", "hf:a/b@../x", "hf:a/b:../../etc/passwd", "hf:a/b:/etc/passwd", "hf:a/b@", "hf:a/b:",
            "hf:a--b/c", "ftp://h/x", "",
        ] {
            assert!(Source::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_file_is_chosen_as_people_mean_it() {
        let files =
            ["README.md", "m-Q4_K_M.gguf", "m-Q8_0.gguf", "m-IQ4_K_M.gguf", "mmproj-Q8_0.gguf", "m-BF16-00001-of-00002.gguf"];
        assert_eq!(hub("hf:a/b").choose(&files), Ok("m-Q4_K_M.gguf"));
        assert_eq!(hub("hf:a/b:q8_0").choose(&files), Ok("m-Q8_0.gguf"));
        assert_eq!(hub("hf:a/b:m-Q8_0.gguf").choose(&files), Ok("m-Q8_0.gguf"));
        assert!(hub("hf:a/b:BF16").choose(&files).unwrap_err().contains("2 parts"));
        assert!(hub("hf:a/b:Q2_K").choose(&files).unwrap_err().contains("`m-Q8_0.gguf`"));
        assert!(hub("hf:a/b").choose(&["x.bin"]).unwrap_err().contains("no .gguf"));
        assert_eq!(hub("hf:a/b").choose(&["only.gguf", "x"]), Ok("only.gguf"));
    }

    #[test]
    fn names_follow_from_where_a_model_is_from() {
        let name = |text: &str| Source::parse(text).unwrap().usual_name();
        assert_eq!(name("hf:Qwen/Qwen3-0.6B-GGUF:Q8_0"), "qwen3-0.6b-q8_0");
        assert_eq!(name("hf:a/B-GGUF"), "b");
        assert_eq!(name("https://u:p@h/x/My%20Model.gguf?sig=1"), "my-20model");
        assert_eq!(name("/m/_x.gguf"), "x");
        assert!(["hf:a/b", "/", "https://h"].iter().all(|text| is_model_name(&name(text))));
    }

    #[test]
    fn secrets_in_an_address_are_not_shown() {
        assert_eq!(without_secrets("https://u:p@h/x.gguf?token=1"), "https://h/x.gguf");
        assert_eq!(without_secrets("https://h"), "https://h");
    }
}
