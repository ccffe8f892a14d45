//! The folder in which clients of the Hugging Face hub keep files, laid out as its own client does: what others fetched is found
//! here, and what is fetched here is found by them.
//!
//! `models--OWNER--REPO/blobs/ETAG` is the content, `refs/REVISION` holds a commit, `snapshots/COMMIT/FILE` is a link to a blob.
//! Source: "Understand caching" of the documentation of `huggingface_hub`.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::source::HubFile;

/// A value of the environment; empty ones are none.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The environment of this process.
pub fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The hub, as the environment describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hub {
    /// Where files are kept.
    pub cache: PathBuf,
    /// Where it is asked: `HF_ENDPOINT`, else <https://huggingface.co>.
    pub endpoint: String,
    /// What is shown to it.
    pub token: Option<String>,
    /// `HF_HUB_OFFLINE`: only what is there already.
    pub is_offline: bool,
}

/// A file that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cached {
    /// The link in its snapshot.
    pub path: PathBuf,
    /// Within the repository.
    pub file: String,
    /// The commit it is of.
    pub commit: String,
}

impl Hub {
    /// As the hub's own client chooses. `None`: there is no home to keep files in.
    pub fn of(environment: Environment<'_>) -> Option<Self> {
        let path = |name: &str| environment(name).map(|text| expanded(&text, environment));
        let home = || {
            let cache = path("XDG_CACHE_HOME").or_else(|| Some(path("HOME")?.join(".cache")));
            path("HF_HOME").or_else(|| Some(cache?.join("huggingface")))
        };
        let cache = path("HF_HUB_CACHE").or_else(|| path("HUGGINGFACE_HUB_CACHE")).or_else(|| Some(home()?.join("hub")))?;
        let token_file = path("HF_TOKEN_PATH").or_else(|| Some(home()?.join("token")));
        let written = || fs::read_to_string(token_file?).ok();
        let is_on = |text: String| ["1", "true", "yes", "on"].contains(&text.to_ascii_lowercase().as_str());
        Some(Self {
            cache,
            endpoint: environment("HF_ENDPOINT")
                .map_or_else(|| "https://huggingface.co".into(), |text| text.trim_end_matches('/').to_owned()),
            token: environment("HF_TOKEN")
                .or_else(|| environment("HUGGING_FACE_HUB_TOKEN"))
                .or_else(written)
                .map(|token| token.trim().to_owned())
                .filter(|token| !token.is_empty()),
            is_offline: environment("HF_HUB_OFFLINE").or_else(|| environment("TRANSFORMERS_OFFLINE")).is_some_and(is_on),
        })
    }

    fn folder(&self, repository: &str) -> PathBuf {
        self.cache.join(folder_name(repository))
    }

    /// Where the content with that etag lies.
    pub fn blob(&self, repository: &str, etag: &str) -> PathBuf {
        self.folder(repository).join("blobs").join(etag)
    }

    /// What whoever fetches that content locks, as the hub's own client does.
    pub fn lock(&self, repository: &str, etag: &str) -> PathBuf {
        self.cache.join(".locks").join(folder_name(repository)).join(format!("{etag}.lock"))
    }

    /// Where a file of a commit is found.
    pub fn snapshot(&self, repository: &str, commit: &str, file: &str) -> PathBuf {
        self.folder(repository).join("snapshots").join(commit).join(file)
    }

    /// The file that is meant, as far as the cache has it. Asks nobody.
    pub fn find(&self, wanted: &HubFile) -> Option<Cached> {
        let folder = self.folder(&wanted.repository);
        let commit = match fs::read_to_string(folder.join("refs").join(&wanted.revision)) {
            Ok(commit) => commit.trim().to_owned(),
            Err(_) => wanted.revision.clone(),
        };
        let snapshot = folder.join("snapshots").join(&commit);
        let mut files = Vec::new();
        list(&snapshot, "", &mut files);
        let names: Vec<&str> = files.iter().map(String::as_str).collect();
        let file = wanted.choose(&names).ok()?.to_owned();
        let path = snapshot.join(&file);
        path.is_file().then_some(Cached { path, file, commit })
    }

    /// Makes content that is there findable as a file of a commit, and the commit as that of a revision.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn link(&self, wanted: &HubFile, commit: &str, file: &str, etag: &str) -> io::Result<PathBuf> {
        let pointer = self.snapshot(&wanted.repository, commit, file);
        let parent = pointer.parent().unwrap_or(&pointer);
        fs::create_dir_all(parent)?;
        let up = "../".repeat(2 + file.matches('/').count());
        let target = PathBuf::from(format!("{up}blobs/{etag}"));
        if fs::read_link(&pointer).ok().as_deref() != Some(target.as_path()) {
            let beside = parent.join(format!(".{etag}.{}.link", std::process::id()));
            let _ = fs::remove_file(&beside);
            std::os::unix::fs::symlink(&target, &beside)?;
            fs::rename(&beside, &pointer)?;
        }
        if wanted.revision != commit {
            let reference = self.folder(&wanted.repository).join("refs").join(&wanted.revision);
            fs::create_dir_all(reference.parent().unwrap_or(&reference))?;
            if fs::read_to_string(&reference).ok().as_deref() != Some(commit) {
                let beside = reference.with_extension(format!("{}.part", std::process::id()));
                fs::write(&beside, commit)?;
                fs::rename(&beside, &reference)?;
            }
        }
        Ok(pointer)
    }
}

fn folder_name(repository: &str) -> String {
    format!("models--{}", repository.replace('/', "--"))
}

/// `~` as the hub's own client expands it.
fn expanded(text: &str, environment: Environment<'_>) -> PathBuf {
    match (text.strip_prefix("~/"), environment("HOME")) {
        (Some(rest), Some(home)) => Path::new(&home).join(rest),
        _ => text.into(),
    }
}

/// Files below `folder`, as a repository names them.
fn list(folder: &Path, prefix: &str, files: &mut Vec<String>) {
    let mut entries: Vec<_> = fs::read_dir(folder).into_iter().flatten().flatten().collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let Ok(name) = entry.file_name().into_string() else { continue };
        match entry.file_type() {
            // a repository's folders are few levels deep; a link is never a folder
            Ok(kind) if kind.is_dir() && prefix.matches('/').count() < 8 => {
                list(&entry.path(), &format!("{prefix}{name}/"), files);
            }
            Ok(_) => files.push(format!("{prefix}{name}")),
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Source;

    fn hub_of(pairs: &[(&str, &str)]) -> Hub {
        let find = |name: &str| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        Hub::of(&find).unwrap()
    }

    #[test]
    fn folders_are_chosen_as_the_hubs_own_client_does() {
        assert_eq!(hub_of(&[("HOME", "/h")]).cache, Path::new("/h/.cache/huggingface/hub"));
        assert_eq!(hub_of(&[("HOME", "/h"), ("XDG_CACHE_HOME", "/x")]).cache, Path::new("/x/huggingface/hub"));
        assert_eq!(hub_of(&[("HOME", "/h"), ("HF_HOME", "~/y")]).cache, Path::new("/h/y/hub"));
        assert_eq!(hub_of(&[("HF_HOME", "/y"), ("HF_HUB_CACHE", "/z")]).cache, Path::new("/z"));
        assert!(Hub::of(&|_| None).is_none());
    }

    #[test]
    fn a_token_comes_from_the_environment_or_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().to_str().unwrap();
        assert_eq!(hub_of(&[("HF_HOME", home)]).token, None);
        fs::write(folder.path().join("token"), "hf_file\n").unwrap();
        assert_eq!(hub_of(&[("HF_HOME", home)]).token.as_deref(), Some("hf_file"));
        assert_eq!(hub_of(&[("HF_HOME", home), ("HF_TOKEN", "hf_env")]).token.as_deref(), Some("hf_env"));
    }

    #[test]
    fn what_is_linked_is_found_by_revision_by_commit_and_in_folders() {
        let folder = tempfile::tempdir().unwrap();
        let hub = hub_of(&[("HF_HUB_CACHE", folder.path().to_str().unwrap())]);
        let Ok(Source::Hub(wanted)) = Source::parse("hf:o/r:Q8_0") else { panic!() };
        assert_eq!(hub.find(&wanted), None);
        let blob = hub.blob("o/r", "e7a6");
        fs::create_dir_all(blob.parent().unwrap()).unwrap();
        fs::write(&blob, "weights").unwrap();
        for file in ["m-Q8_0.gguf", "deep/er/m-Q4_0.gguf"] {
            let link = hub.link(&wanted, "c0ffee", file, "e7a6").unwrap();
            assert_eq!(fs::read_to_string(link).unwrap(), "weights", "{file}");
        }
        assert_eq!(hub.find(&wanted).unwrap().commit, "c0ffee");
        let Ok(Source::Hub(by_commit)) = Source::parse("hf:o/r@c0ffee:Q4_0") else { panic!() };
        assert_eq!(hub.find(&by_commit).unwrap().file, "deep/er/m-Q4_0.gguf");
        // a link whose content is gone is not there
        fs::remove_file(blob).unwrap();
        assert_eq!(hub.find(&wanted), None);
    }
}
