//! The system's package manager: what our needs are called there, and how to install them from a program.

use std::env;
use std::process::Command;

use crate::step;

/// Something the build needs from the system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Package {
    Compiler,
    Make,
    Cmake,
    Libclang,
    Python,
    Node,
    Browser,
}

/// A package manager we know how to ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    Apt,
    Dnf,
    Pacman,
    Zypper,
    Brew,
}

impl Source {
    /// The package manager of this machine, if it is one we know.
    pub(crate) fn detect() -> Option<Self> {
        [Self::Apt, Self::Dnf, Self::Pacman, Self::Zypper, Self::Brew].into_iter().find(|source| is_on_path(source.program()))
    }

    fn program(self) -> &'static str {
        match self {
            Self::Apt => "apt-get",
            Self::Dnf => "dnf",
            Self::Pacman => "pacman",
            Self::Zypper => "zypper",
            Self::Brew => "brew",
        }
    }

    fn names(self, package: Package) -> &'static [&'static str] {
        match (self, package) {
            (Self::Apt, Package::Compiler) => &["g++"],
            (Self::Apt, Package::Libclang) => &["libclang-dev"],
            (Self::Dnf | Self::Zypper, Package::Compiler) => &["gcc", "gcc-c++"],
            (Self::Pacman | Self::Brew, Package::Compiler) => &["gcc"],
            (Self::Dnf | Self::Zypper, Package::Libclang) => &["clang-devel"],
            (Self::Pacman, Package::Libclang) => &["clang"],
            (Self::Brew, Package::Libclang) => &["llvm"],
            (Self::Apt, Package::Python) => &["python3-venv"],
            (Self::Dnf | Self::Zypper, Package::Python) => &["python3"],
            (Self::Pacman | Self::Brew, Package::Python) => &["python"],
            (Self::Brew, Package::Node) => &["node"],
            (_, Package::Node) => &["nodejs", "npm"],
            // Ubuntu's package of that name is a snap, which containers cannot run; the tests then say what they left out
            (_, Package::Browser) => &["chromium"],
            (_, Package::Make) => &["make"],
            (_, Package::Cmake) => &["cmake"],
        }
    }

    fn flags(self) -> &'static [&'static str] {
        match self {
            Self::Apt => &["install", "-y", "--no-install-recommends"],
            Self::Dnf => &["install", "-y"],
            Self::Pacman => &["-S", "--needed", "--noconfirm"],
            Self::Zypper => &["--non-interactive", "install"],
            Self::Brew => &["install"],
        }
    }

    /// The words of the command that installs `packages`, without `sudo`.
    pub(crate) fn install(self, packages: &[Package]) -> Vec<&'static str> {
        let names = packages.iter().flat_map(|package| self.names(*package));
        std::iter::once(&self.program()).chain(self.flags()).chain(names).copied().collect()
    }

    /// The words of the command that fetches the list of packages, where installing does not do that itself.
    pub(crate) fn refresh(self) -> Option<Vec<&'static str>> {
        (self == Self::Apt).then(|| vec![self.program(), "update"])
    }

    /// Whether its command must be run by root.
    pub(crate) fn needs_root(self) -> bool {
        self != Self::Brew
    }
}

/// How a command gets root's rights here without asking a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rights {
    AlreadyEnough,
    Sudo,
    None,
}

impl Rights {
    pub(crate) fn detect(source: Source) -> Self {
        if !source.needs_root() || step::output(Command::new("id").arg("-u")).as_deref() == Some("0") {
            Self::AlreadyEnough
        } else if step::output(Command::new("sudo").args(["-n", "true"])).is_some() {
            Self::Sudo
        } else {
            Self::None
        }
    }

    /// The command of `words` with these rights. It never asks anything.
    pub(crate) fn command(self, words: &[&str]) -> Command {
        let mut command = match self {
            // sudo does not keep the environment
            Self::Sudo => {
                let mut command = Command::new("sudo");
                command.args(["-n", "env", "DEBIAN_FRONTEND=noninteractive"]);
                command
            }
            Self::AlreadyEnough | Self::None => {
                let mut command = Command::new("env");
                command.arg("DEBIAN_FRONTEND=noninteractive");
                command
            }
        };
        command.args(words);
        command
    }
}

/// Whether `program` can be run by its name, or is a path to a file.
pub(crate) fn is_on_path(program: &str) -> bool {
    if program.contains('/') {
        return std::path::Path::new(program).is_file();
    }
    env::var_os("PATH").is_some_and(|path| env::split_paths(&path).any(|folder| folder.join(program).is_file()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_manager_is_asked_in_its_own_words() {
        let packages = [Package::Compiler, Package::Cmake, Package::Libclang];
        assert_eq!(Source::Apt.install(&packages).join(" "), "apt-get install -y --no-install-recommends g++ cmake libclang-dev");
        assert_eq!(Source::Dnf.install(&packages).join(" "), "dnf install -y gcc gcc-c++ cmake clang-devel");
        assert_eq!(Source::Pacman.install(&packages).join(" "), "pacman -S --needed --noconfirm gcc cmake clang");
        assert_eq!(Source::Brew.install(&packages).join(" "), "brew install gcc cmake llvm");
        let clients = Source::Apt.install(&[Package::Python, Package::Node]).join(" ");
        assert_eq!(clients, "apt-get install -y --no-install-recommends python3-venv nodejs npm");
    }

    #[test]
    fn sudo_is_told_not_to_ask_and_to_keep_apt_from_asking() {
        let command = Rights::Sudo.command(&["apt-get", "update"]);
        assert_eq!(step::line(&command), "sudo -n env DEBIAN_FRONTEND=noninteractive apt-get update");
    }
}
