//! How much memory this process may use: the least that its control groups and the machine grant.
//!
//! It deliberately looks at limits only, never at what is free at the moment: a stream runs for months, and what
//! others use now says nothing about later.

use std::fs;
use std::path::{Path, PathBuf};

/// Assumed where the system does not say how much memory it has.
const FALLBACK: u64 = 4 << 30;

/// The memory that this process may use, in bytes: the least limit of its control group and of those around it, or
/// the machine's memory where that is less.
pub fn usable_memory() -> u64 {
    usable_below(Path::new("/"))
}

/// The same for the system whose files lie below `root`.
fn usable_below(root: &Path) -> u64 {
    let read = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_default();
    let (groups, mounts) = (read("proc/self/cgroup"), read("proc/self/mountinfo"));
    let hierarchies = mounts.lines().filter_map(Hierarchy::parse);
    let limits = hierarchies.filter_map(|hierarchy| hierarchy.limit(root, &groups));
    limits.chain(machine_memory(&read("proc/meminfo"))).min().unwrap_or(FALLBACK)
}

fn machine_memory(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1_024)
}

/// The two kinds of control groups; a system may have both, of which one limits memory.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

impl Version {
    /// The file that holds the limit: a number of bytes, or the word `max`.
    fn file(self) -> &'static str {
        match self {
            Self::One => "memory.limit_in_bytes",
            Self::Two => "memory.max",
        }
    }

    /// The group that a line of `/proc/self/cgroup`, `number:controllers:group`, puts the process in.
    fn group(self, line: &str) -> Option<&str> {
        let (controllers, group) = line.split_once(':')?.1.split_once(':')?;
        let is_meant = match self {
            Self::One => controllers.split(',').any(|name| name == "memory"),
            Self::Two => controllers.is_empty(),
        };
        is_meant.then_some(group)
    }
}

/// A mounted tree of control groups. In a container it may show a part of the tree only.
struct Hierarchy<'a> {
    version: Version,
    /// The group that the mount point shows.
    top: &'a str,
    mounted_at: &'a str,
}

impl<'a> Hierarchy<'a> {
    /// That of a line of `/proc/self/mountinfo`, where it is one that may limit memory:
    /// `id parent device top mounted_at options … - type source options`.
    fn parse(line: &'a str) -> Option<Self> {
        let (place, kind) = line.split_once(" - ")?;
        let mut kind = kind.split(' ');
        let version = match (kind.next()?, kind.nth(1)?) {
            ("cgroup2", _) => Version::Two,
            ("cgroup", options) if options.split(',').any(|name| name == "memory") => Version::One,
            _ => return None,
        };
        let mut place = place.split(' ').skip(3);
        Some(Self { version, top: place.next()?, mounted_at: place.next()? })
    }

    /// The least limit from the process's own group up to the top; a group without a limit has none to say.
    fn limit(&self, root: &Path, groups: &str) -> Option<u64> {
        let group = groups.lines().find_map(|line| self.version.group(line))?;
        let top = root.join(self.mounted_at.trim_start_matches('/'));
        let limit = |group: &Path| {
            fs::read_to_string(top.join(group).join(self.version.file())).ok()?.trim().parse().ok()
        };
        self.below_top(group).ancestors().filter_map(limit).min()
    }

    /// Where `group` lies below the mount point. A group outside of what is mounted cannot be read: the top, which
    /// is then the container's own, stands for it.
    fn below_top(&self, group: &str) -> PathBuf {
        let below = Path::new(group).strip_prefix(self.top).unwrap_or(Path::new(""));
        if below.components().any(|part| part.as_os_str() == "..") { PathBuf::new() } else { below.into() }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    const MACHINE: &str = "MemTotal:       16777216 kB\nMemFree:         1 kB\n";
    const V2: &str = "31 23 0:28 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";
    const V1: &str = "\
        34 31 0:31 / /sys/fs/cgroup/cpu rw shared:3 - cgroup cgroup rw,cpu\n\
        35 31 0:32 / /sys/fs/cgroup/memory rw shared:4 - cgroup cgroup rw,memory\n\
        41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
    const GIB: u64 = 1 << 30;

    /// A system of `files` below a folder of its own, which goes when it is dropped.
    struct System(PathBuf);

    impl System {
        fn new(files: &[(&str, &str)]) -> Self {
            static NUMBER: AtomicU32 = AtomicU32::new(0); // names of folders, one a test
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let root = std::env::temp_dir().join(format!("tidemill-memory-{}-{number}", std::process::id()));
            for (path, text) in files {
                let path = root.join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            Self(root)
        }
    }

    impl Drop for System {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    fn usable(files: &[(&str, &str)]) -> u64 {
        usable_below(&System::new(files).0)
    }

    #[test]
    fn the_limit_is_that_of_the_processs_own_group_and_not_of_the_root() {
        let files = [
            ("proc/meminfo", MACHINE),
            ("proc/self/mountinfo", V2),
            ("proc/self/cgroup", "0::/user.slice/job.scope\n"),
            ("sys/fs/cgroup/user.slice/job.scope/memory.max", "1073741824\n"),
        ];
        assert_eq!(usable(&files), GIB);
    }

    #[test]
    fn a_group_around_it_may_grant_less() {
        let files = [
            ("proc/meminfo", MACHINE),
            ("proc/self/mountinfo", V2),
            ("proc/self/cgroup", "0::/pod/container\n"),
            ("sys/fs/cgroup/pod/memory.max", "2147483648\n"),
            ("sys/fs/cgroup/pod/container/memory.max", "max\n"),
            ("sys/fs/cgroup/other/memory.max", "1\n"),
        ];
        assert_eq!(usable(&files), 2 * GIB);
    }

    #[test]
    fn groups_of_the_first_version_count_by_the_controller_of_memory() {
        let files = [
            ("proc/meminfo", MACHINE),
            ("proc/self/mountinfo", V1),
            ("proc/self/cgroup", "5:cpu:/quick\n4:cpuset,memory:/job/part\n0::/unified\n"),
            ("sys/fs/cgroup/memory/job/part/memory.limit_in_bytes", "9223372036854771712\n"),
            ("sys/fs/cgroup/memory/job/memory.limit_in_bytes", "3221225472\n"),
        ];
        assert_eq!(usable(&files), 3 * GIB);
    }

    #[test]
    fn a_container_that_sees_a_part_of_the_tree_reads_its_own_part() {
        let mounts = "35 31 0:32 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n";
        let files = [
            ("proc/meminfo", MACHINE),
            ("proc/self/mountinfo", mounts),
            ("proc/self/cgroup", "4:memory:/docker/abc\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "1073741824\n"),
        ];
        assert_eq!(usable(&files), GIB);
    }

    #[test]
    fn a_group_outside_of_what_is_mounted_is_stood_for_by_the_top() {
        for group in ["/../../elsewhere", "/elsewhere"] {
            let mounts = format!("31 23 0:28 {} /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n", &group[..3]);
            let groups = format!("0::{group}\n");
            let files = [
                ("proc/meminfo", MACHINE),
                ("proc/self/mountinfo", &mounts),
                ("proc/self/cgroup", &groups),
                ("sys/fs/cgroup/memory.max", "1073741824\n"),
                ("sys/elsewhere/memory.max", "1\n"),
            ];
            assert_eq!(usable(&files), GIB, "{group}");
        }
    }

    #[test]
    fn without_a_limit_it_is_the_machines_memory() {
        let unlimited =
            [("proc/meminfo", MACHINE), ("proc/self/mountinfo", V2), ("proc/self/cgroup", "0::/\n")];
        assert_eq!(usable(&unlimited), 16 * GIB);
        let larger = [&unlimited[..], &[("sys/fs/cgroup/memory.max", "99999999999999\n")]].concat();
        assert_eq!(usable(&larger), 16 * GIB);
        assert_eq!(usable(&[("proc/nothing", "")]), FALLBACK);
    }
}
