//! Real disks: full, read-only, removed, replaced. Each is an error that says which, where, and what to do.
//!
//! File systems of the test's own need root on Linux; elsewhere those tests say that they did not run.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::thread;

use bytes::Bytes;
use tidemill::checkpoint::container::DriverId;
use tidemill::checkpoint::probe::probe;
use tidemill::checkpoint::replica::contract::wait;
use tidemill::checkpoint::replica::{Key, LocalReplica, Put, Replica, ReplicaError, ReplicaErrorKind};

use super::replicas::{Folder, slot};

/// A file system in memory, mounted on a directory of the test's own.
struct Mounted<'a>(&'a Folder);

impl<'a> Mounted<'a> {
    /// None where this process may not mount; then the test has said so.
    fn on(folder: &'a Folder, options: &str) -> Option<Self> {
        match mount(folder.path(), &["-t", "tmpfs", "-o", options, "tmpfs"]) {
            Ok(()) => Some(Self(folder)),
            Err(reason) => skip(&reason),
        }
    }

    fn again(&self, options: &str) {
        mount(self.0.path(), &["-o", &format!("remount,{options}")]).unwrap();
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}

fn mount(on: &Path, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new("mount").args(arguments).arg(on).output().map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stderr).trim().replace('\n', " ");
    if output.status.success() { Ok(()) } else { Err(text) }
}

/// On the process's own stderr, in one piece, as all tests that do not run say so.
fn skip<T>(reason: &str) -> Option<T> {
    let test = thread::current().name().unwrap_or("a test").to_owned();
    let _ = std::io::stderr().write_all(format!("SKIPPED {test}: cannot mount: {reason}\n").as_bytes());
    None
}

fn put(replica: &LocalReplica, index: u64, length: usize) -> Result<Put, ReplicaError> {
    wait(replica.put_new(&slot(index), Bytes::from(vec![index.to_le_bytes()[0]; length])))
}

fn is_named(error: &ReplicaError, kind: ReplicaErrorKind, folder: &Folder, help: &str) {
    let text = error.to_string();
    let place = folder.path().display().to_string();
    assert!(error.kind() == kind && text.contains(&place) && text.contains(help), "{kind:?}: {error:?}");
}

#[test]
fn a_full_disk_is_told_and_the_same_put_succeeds_once_there_is_room() {
    let folder = Folder::new("full");
    let Some(_mounted) = Mounted::on(&folder, "size=1m") else { return };
    let replica = LocalReplica::open(folder.path()).unwrap();
    put(&replica, 0, 300_000).unwrap();
    put(&replica, 1, 300_000).unwrap();
    let error = put(&replica, 2, 600_000).unwrap_err();
    is_named(&error, ReplicaErrorKind::Full, &folder, "make room");
    assert!(error.is_undone() && error.is_retriable());
    assert_eq!(wait(replica.get(&slot(2))).unwrap(), None);
    assert_eq!(wait(replica.get(&slot(1))).unwrap().unwrap().len(), 300_000, "what is there can be read");
    let overwrite = wait(replica.overwrite(&slot(1), Bytes::from(vec![9; 600_000]))).unwrap_err();
    assert_eq!(overwrite.kind(), ReplicaErrorKind::Full);
    assert_eq!(
        wait(replica.get(&slot(1))).unwrap().unwrap()[..],
        vec![1; 300_000],
        "the old bytes are whole"
    );
    wait(replica.delete(&slot(0))).unwrap();
    assert_eq!(put(&replica, 2, 600_000).unwrap(), Put::Created);
}

#[test]
fn a_disk_without_room_for_a_name_is_full_too() {
    let folder = Folder::new("inodes");
    let Some(_mounted) = Mounted::on(&folder, "size=1m,nr_inodes=8") else { return };
    let replica = LocalReplica::open(folder.path()).unwrap();
    let error = (0..10).find_map(|index| put(&replica, index, 1).err()).expect("eight files are all");
    is_named(&error, ReplicaErrorKind::Full, &folder, "make room");
    assert!(error.is_undone());
}

#[test]
fn a_disk_that_became_read_only_is_told_and_can_be_read() {
    let folder = Folder::new("read-only");
    let Some(mounted) = Mounted::on(&folder, "size=1m") else { return };
    let replica = LocalReplica::open(folder.path()).unwrap();
    put(&replica, 0, 10).unwrap();
    mounted.again("ro");
    is_named(&put(&replica, 1, 10).unwrap_err(), ReplicaErrorKind::ReadOnly, &folder, "mount it for writing");
    assert_eq!(wait(replica.delete(&slot(0))).unwrap_err().kind(), ReplicaErrorKind::ReadOnly);
    let again = LocalReplica::open(folder.path()).unwrap();
    assert_eq!(wait(again.get(&slot(0))).unwrap().unwrap().len(), 10);
    assert_eq!(wait(again.list(&Key::root())).unwrap(), [(slot(0), 10)]);
    let refused = wait(probe(&again, DriverId(1))).unwrap_err();
    assert!(refused.is_retriable() && refused.to_string().contains("mount it for writing"), "{refused}");
    mounted.again("rw");
    assert_eq!(put(&replica, 1, 10).unwrap(), Put::Created);
}

#[test]
fn a_directory_without_the_right_to_write_is_told() {
    let folder = Folder::new("denied");
    let replica = LocalReplica::open(folder.path()).unwrap();
    let denied = fs::Permissions::from_mode(0o555);
    fs::set_permissions(folder.path(), denied).unwrap();
    let error = put(&replica, 0, 10).err();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    match error {
        Some(error) => is_named(&error, ReplicaErrorKind::Denied, &folder, "right to write"),
        // To root nothing is denied.
        None => assert_eq!(wait(replica.get(&slot(0))).unwrap().unwrap().len(), 10),
    }
}

#[test]
fn a_removed_directory_is_not_made_again() {
    let folder = Folder::new("removed");
    let replica = LocalReplica::open(folder.path()).unwrap();
    put(&replica, 0, 10).unwrap();
    fs::remove_dir_all(folder.path()).unwrap();
    for error in [
        put(&replica, 1, 10).unwrap_err(),
        wait(replica.get(&slot(0))).unwrap_err(),
        wait(replica.list(&Key::root())).unwrap_err(),
        wait(replica.delete(&slot(0))).unwrap_err(),
        wait(replica.overwrite(&slot(0), Bytes::new())).unwrap_err(),
    ] {
        is_named(&error, ReplicaErrorKind::Unavailable, &folder, "removed or replaced");
    }
    assert!(!folder.path().exists());
}

#[test]
fn a_removed_log_is_unknown_and_not_empty() {
    let folder = Folder::new("log-removed");
    let replica = LocalReplica::open(folder.path()).unwrap();
    put(&replica, 0, 10).unwrap();
    fs::remove_dir_all(folder.path().join(slot(0).parent().unwrap().as_str())).unwrap();
    for error in [
        put(&replica, 1, 10).unwrap_err(),
        wait(replica.get(&slot(0))).unwrap_err(),
        wait(replica.list(&slot(0).parent().unwrap())).unwrap_err(),
    ] {
        is_named(&error, ReplicaErrorKind::Unavailable, &folder, "removed or replaced");
    }
}

#[test]
fn a_mount_point_without_its_disk_is_not_taken_for_the_replica() {
    let folder = Folder::new("unmounted");
    let Some(mounted) = Mounted::on(&folder, "size=1m") else { return };
    let replica = LocalReplica::open(folder.path()).unwrap();
    put(&replica, 0, 10).unwrap();
    drop(mounted);
    is_named(&put(&replica, 1, 10).unwrap_err(), ReplicaErrorKind::Unavailable, &folder, "still mounted?");
    assert!(wait(replica.get(&slot(0))).is_err(), "an object on a disk that is away is not absent");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "nothing was written beside the disk");
}

#[test]
fn a_file_where_the_directory_should_be_is_refused() {
    let folder = Folder::new("file");
    let file = folder.path().join("app");
    fs::write(&file, "").unwrap();
    let error = LocalReplica::open(&file).unwrap_err();
    is_named(&error, ReplicaErrorKind::Other, &folder, "a directory of its own");
    assert!(!error.is_retriable());
}
