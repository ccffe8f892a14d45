use std::{
    env, fs,
    io::Write,
    path::{Path, PathBuf},
    process,
};

use crate::{CatalogError, ModelFile, file::digest_of};

/// A model inside the program, so that the main job needs no download. See `builtin/MODEL_CARD.md` for what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Builtin {
    /// 5.9 M parameters, `Q8_0`.
    Demo,
    /// 1.3 M parameters, `F16`.
    DemoSmall,
}

/// Every built-in model.
pub const BUILTINS: [Builtin; 2] = [Builtin::Demo, Builtin::DemoSmall];

/// What names of built-in models begin with.
const PREFIX: &str = "builtin:";

impl Builtin {
    /// The name it is asked by.
    pub fn name(self) -> &'static str {
        match self {
            Self::Demo => "builtin:demo",
            Self::DemoSmall => "builtin:demo-small",
        }
    }

    /// The built-in of that name; `None` when `name` does not speak of a built-in at all.
    ///
    /// # Errors
    /// A `builtin:` name that there is not.
    pub fn parse(name: &str) -> Result<Option<Self>, CatalogError> {
        match BUILTINS.into_iter().find(|b| b.name() == name) {
            None if name.starts_with(PREFIX) => Err(CatalogError::UnknownBuiltin { name: name.into() }),
            found => Ok(found),
        }
    }

    /// The GGUF file itself.
    pub fn bytes(self) -> &'static [u8] {
        match self {
            Self::Demo => include_bytes!("../builtin/demo.gguf"),
            Self::DemoSmall => include_bytes!("../builtin/demo-small.gguf"),
        }
    }

    /// Writes it to the user's cache folder, unless it lies there already, whole: llama.cpp maps models from files.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn unpack(self) -> Result<ModelFile, CatalogError> {
        self.unpack_into(&cache_folder())
    }

    fn unpack_into(self, folder: &Path) -> Result<ModelFile, CatalogError> {
        let bytes = self.bytes();
        let digest = digest_of(bytes);
        let path = folder.join(format!("{}.gguf", &digest[..16]));
        let fail = |source| CatalogError::Unpack { path: path.clone(), source };
        if !fs::read(&path).is_ok_and(|found| found == bytes) {
            fs::create_dir_all(folder).map_err(fail)?;
            // a name of its own, then renamed: hosts that start together never see half a file
            let part = folder.join(format!("{}.{}.part", &digest[..16], process::id()));
            let written = fs::File::create(&part).and_then(|mut f| f.write_all(bytes).and_then(|()| f.sync_all()));
            written.and_then(|()| fs::rename(&part, &path)).map_err(fail)?;
        }
        ModelFile::open(&path)
    }
}

fn cache_folder() -> PathBuf {
    let base = env::var_os("XDG_CACHE_HOME").filter(|v| !v.is_empty()).map(PathBuf::from);
    let home = || env::var_os("HOME").filter(|v| !v.is_empty()).map(|home| PathBuf::from(home).join(".cache"));
    base.or_else(home).unwrap_or_else(env::temp_dir).join("llambo").join("models")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_to_their_models_and_typos_are_named() {
        assert_eq!(Builtin::parse("builtin:demo").unwrap(), Some(Builtin::Demo));
        assert_eq!(Builtin::parse("models/some.gguf").unwrap(), None);
        assert!(Builtin::parse("builtin:dmeo").unwrap_err().to_string().contains("builtin:demo-small"));
    }

    #[test]
    fn a_damaged_copy_is_written_again() {
        let folder = tempfile::tempdir().unwrap();
        let file = Builtin::DemoSmall.unpack_into(folder.path()).unwrap();
        fs::write(file.path(), b"GGUF damaged").unwrap();
        let again = Builtin::DemoSmall.unpack_into(folder.path()).unwrap();
        assert_eq!(fs::read(again.path()).unwrap(), Builtin::DemoSmall.bytes());
        assert_eq!(again.digest(), file.digest());
    }

    #[test]
    fn the_digest_of_each_is_the_one_its_training_wrote_down() {
        let figures = include_str!("../builtin/figures.json");
        let folder = tempfile::tempdir().unwrap();
        for builtin in BUILTINS {
            let unpacked = builtin.unpack_into(folder.path()).unwrap();
            let opened = ModelFile::open(unpacked.path()).unwrap();
            assert!(figures.contains(&format!("\"sha256\": \"{}\"", opened.digest())), "{}", builtin.name());
            assert_eq!(opened.digest(), unpacked.digest());
        }
    }

    #[test]
    fn both_share_one_tokenizer_and_fit_in_ten_megabytes() {
        let folder = tempfile::tempdir().unwrap();
        let vocabularies = BUILTINS.map(|b| {
            let file = b.unpack_into(folder.path()).unwrap();
            file.header().text_list("tokenizer.ggml.tokens").unwrap().to_vec()
        });
        assert_eq!(vocabularies[0], vocabularies[1]);
        assert!(BUILTINS.iter().map(|b| b.bytes().len()).sum::<usize>() <= 10_000_000);
    }
}
