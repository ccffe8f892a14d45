use std::{
    fs,
    path::{Component, Path, PathBuf},
};

/// The memory of a machine, and what of it this process may take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Of the machine; 0 where it cannot be found out.
    pub total_bytes: u64,
    /// What can be taken before something has to give way: of the machine, or below `limit_bytes` where that is less.
    pub available_bytes: u64,
    /// What the control group of this process may have in all, if it has a limit, as in containers.
    pub limit_bytes: Option<u64>,
}

/// One control group's account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Account {
    limit: u64,
    /// What it could still take, counting file pages that would give way.
    left: u64,
}

/// Where a version of control groups keeps its numbers.
struct Layout {
    /// Of the mount, below the root.
    mount: &'static str,
    limit: &'static str,
    used: &'static str,
    /// In `memory.stat`.
    reclaimable: &'static str,
}

const V2: Layout = Layout { mount: "sys/fs/cgroup", limit: "memory.max", used: "memory.current", reclaimable: "inactive_file" };
const V1: Layout = Layout {
    mount: "sys/fs/cgroup/memory",
    limit: "memory.limit_in_bytes",
    used: "memory.usage_in_bytes",
    reclaimable: "total_inactive_file",
};

// === impl Memory ===

impl Memory {
    pub(crate) fn of(root: &Path) -> Self {
        let meminfo = fs::read_to_string(root.join("proc/meminfo")).unwrap_or_default();
        let groups = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
        let total_bytes = field(&meminfo, "MemTotal").unwrap_or(0);
        let free = field(&meminfo, "MemAvailable").or_else(|| field(&meminfo, "MemFree")).unwrap_or(0);
        let mut memory = Self { total_bytes, available_bytes: free, limit_bytes: None };
        for account in accounts(root, &groups) {
            // version 1 says "no limit" by a number that no machine has
            if total_bytes == 0 || account.limit < total_bytes {
                memory.limit_bytes = Some(memory.limit_bytes.map_or(account.limit, |limit| limit.min(account.limit)));
                memory.available_bytes = memory.available_bytes.min(account.left);
            }
        }
        memory
    }

    /// The most that this process could ever have: the machine's, or its control group's limit.
    pub fn most_bytes(&self) -> u64 {
        self.limit_bytes.unwrap_or(self.total_bytes)
    }
}

/// `MemTotal:  16384 kB` as bytes.
fn field(meminfo: &str, name: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// Limits hold for a group and all below it: those of this process' group and of each above.
fn accounts(root: &Path, groups: &str) -> Vec<Account> {
    let mut found = Vec::new();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let layout = match controllers {
            "" => &V2,
            names if names.split(',').any(|name| name == "memory") => &V1,
            _ => continue,
        };
        let mount = root.join(layout.mount);
        // in a container the path may be one of the machine around it: then only the mount itself is there
        let mut group = below(path);
        loop {
            found.extend(layout.account(&mount.join(&group)));
            if !group.pop() {
                break;
            }
        }
    }
    found
}

/// The path without what would lead out of the mount.
fn below(path: &str) -> PathBuf {
    Path::new(path).components().filter(|part| matches!(part, Component::Normal(_))).collect()
}

// === impl Layout ===

impl Layout {
    /// `None` without a limit.
    fn account(&self, group: &Path) -> Option<Account> {
        let number = |name: &str| fs::read_to_string(group.join(name)).ok()?.trim().parse::<u64>().ok();
        let limit = number(self.limit)?;
        let stat = fs::read_to_string(group.join("memory.stat")).unwrap_or_default();
        let reclaimable =
            stat.lines().find_map(|line| line.strip_prefix(self.reclaimable)?.trim().parse::<u64>().ok()).unwrap_or(0);
        let used = number(self.used).unwrap_or(0).saturating_sub(reclaimable);
        Some(Account { limit, left: limit.saturating_sub(used) })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tempfile::TempDir;

    use super::*;

    const MEMINFO: &str = "MemTotal:       16777216 kB\nMemFree:         1048576 kB\nMemAvailable:    8388608 kB\n";
    const GIB: u64 = 1 << 30;

    /// A root folder with these files.
    fn machine(files: &[(&str, &str)]) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        folder
    }

    #[test]
    fn without_limits_memory_is_the_machines() {
        let machine =
            machine(&[("proc/meminfo", MEMINFO), ("proc/self/cgroup", "0::/a\n"), ("sys/fs/cgroup/a/memory.max", "max\n")]);
        let memory = Memory::of(machine.path());
        assert_eq!(memory, Memory { total_bytes: 16 * GIB, available_bytes: 8 * GIB, limit_bytes: None });
        assert_eq!(memory.most_bytes(), 16 * GIB);
    }

    #[test]
    fn the_narrowest_group_above_counts() {
        let machine = machine(&[
            ("proc/meminfo", MEMINFO),
            ("proc/self/cgroup", "0::/kube/pod/app\n"),
            ("sys/fs/cgroup/kube/memory.max", "4294967296\n"),
            ("sys/fs/cgroup/kube/memory.current", "1073741824\n"),
            ("sys/fs/cgroup/kube/pod/memory.max", "2147483648\n"),
            ("sys/fs/cgroup/kube/pod/memory.current", "1073741824\n"),
            ("sys/fs/cgroup/kube/pod/memory.stat", "anon 5\ninactive_file 536870912\n"),
            ("sys/fs/cgroup/kube/pod/app/memory.max", "max\n"),
        ]);
        let memory = Memory::of(machine.path());
        // of 2 GiB one is used, and half of that would give way
        assert_eq!((memory.limit_bytes, memory.available_bytes), (Some(2 * GIB), 3 * GIB / 2));
    }

    #[test]
    fn a_container_sees_only_its_mount() {
        let files = [
            ("proc/meminfo", MEMINFO),
            ("proc/self/cgroup", "12:cpu,cpuacct:/docker/1\n4:memory:/docker/1\n1:name=systemd:/docker/1\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "1073741824"),
            ("sys/fs/cgroup/memory/memory.usage_in_bytes", "2147483648"),
        ];
        let memory = Memory::of(machine(&files).path());
        assert_eq!((memory.limit_bytes, memory.available_bytes), (Some(GIB), 0));
    }

    #[test]
    fn no_limit_of_version_1_is_a_number_too() {
        let files = [
            ("proc/meminfo", MEMINFO),
            ("proc/self/cgroup", "4:memory:/\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712"),
        ];
        assert_eq!(Memory::of(machine(&files).path()).limit_bytes, None);
    }

    #[test]
    fn a_path_does_not_lead_out_of_the_mount() {
        let files = [("proc/meminfo", MEMINFO), ("proc/self/cgroup", "0::/../../../x\n"), ("x/memory.max", "5")];
        assert_eq!(Memory::of(machine(&files).path()).limit_bytes, None);
    }

    proptest! {
        #[test]
        fn what_is_available_is_never_more_than_there_can_be(
            total in 0u64..1 << 34, available in 0u64..1 << 34, limit in 0u64..1 << 44, used in 0u64..1 << 44, garbage in "\\PC{0,20}",
        ) {
            let available = available.min(total);
            let meminfo = format!("{garbage}\nMemTotal: {total} kB\nMemAvailable: {available} kB\n");
            let (limit, used) = (limit.to_string(), used.to_string());
            let files = [
                ("proc/meminfo", meminfo.as_str()), ("proc/self/cgroup", "0::/a\n"),
                ("sys/fs/cgroup/a/memory.max", &limit), ("sys/fs/cgroup/a/memory.current", &used),
            ];
            let memory = Memory::of(machine(&files).path());
            prop_assert!(memory.available_bytes <= memory.most_bytes(), "{:?}", memory);
        }
    }
}
