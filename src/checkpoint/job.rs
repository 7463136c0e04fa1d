//! `job.json`: whose checkpoint a replica is, and what people call it.
//!
//! It deliberately decides nothing: which replicas vote, the log's START says. The file is plain JSON, for people to
//! read; nobody edits it, and every byte of it is accounted for.

use serde::{Deserialize, Serialize};

use super::id::{Incarnation, JobId};
use crate::error::{Error, ErrorKind, Result};

/// No file of ours is longer; a longer one is not read.
pub const MAX_JOB_FILE: usize = 4_096;

/// A job's name is shown, and may stand in file names of tools.
const LONGEST_NAME: usize = 200;

const FORMAT: u32 = 1;

/// What `job.json` says.
///
/// ```
/// use tidemill::checkpoint::id::{Incarnation, JobId};
/// use tidemill::checkpoint::job::JobFile;
/// let (job, incarnation) = (JobId::from_random([1; 16]), Incarnation::from_random([2; 16]));
/// let file = JobFile { job, name: "alarms".to_owned(), replica: 2, incarnation, replicas: 3, quorum: 2 };
/// let bytes = file.to_bytes()?;
/// assert!(bytes.starts_with(b"{\n  \"format\": 1,\n  \"job\": \"01010101-0101-4101-8101-010101010101\""));
/// assert_eq!(JobFile::read(&bytes)?, file);
/// # Ok::<(), tidemill::error::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobFile {
    /// The job.
    pub job: JobId,
    /// What people call it.
    pub name: String,
    /// What people call it: a number from 1, which it keeps when others are removed, so that it may be more than N.
    pub replica: u32,
    /// What is on this replica since it was last made a voter.
    pub incarnation: Incarnation,
    /// N when it was taken in; START rules.
    pub replicas: u32,
    /// W then: how many must have an entry before it counts.
    pub quorum: u32,
}

/// The fields in the order in which they are written.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Written {
    format: u32,
    job: String,
    name: String,
    replica: u32,
    incarnation: String,
    replicas: u32,
    quorum: u32,
    checksum: String,
}

/// What stays in every later format.
#[derive(Deserialize)]
struct AnyFormat {
    format: u32,
}

impl JobFile {
    /// The file's bytes: the same for the same content, always.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        self.check()?;
        let mut bytes = serde_json::to_vec_pretty(&self.written()).map_err(|error| {
            Error::internal(format!("job.json cannot be written: {error}")).caused_by(error)
        })?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// What `bytes` say, where they are exactly what [`to_bytes`](Self::to_bytes) gives.
    pub fn read(bytes: &[u8]) -> Result<Self> {
        if bytes.len() > MAX_JOB_FILE {
            return Err(damaged(&format!("it has {} bytes where {MAX_JOB_FILE} are the most", bytes.len())));
        }
        let unreadable = |error: serde_json::Error| damaged(&error.to_string());
        let AnyFormat { format } = serde_json::from_slice(bytes).map_err(unreadable)?;
        if format != FORMAT {
            return Err(later(format));
        }
        let file = Self::of(serde_json::from_slice(bytes).map_err(unreadable)?)?;
        // Also a changed space is a changed byte; the checksum tells of those in names and numbers.
        if file.to_bytes()? == bytes {
            Ok(file)
        } else {
            Err(damaged("its checksum or its form does not match"))
        }
    }

    fn of(written: Written) -> Result<Self> {
        let file = Self {
            job: written.job.parse()?,
            name: written.name,
            replica: written.replica,
            incarnation: written.incarnation.parse()?,
            replicas: written.replicas,
            quorum: written.quorum,
        };
        file.check().map(|()| file)
    }

    fn written(&self) -> Written {
        Written {
            format: FORMAT,
            job: self.job.to_string(),
            name: self.name.clone(),
            replica: self.replica,
            incarnation: self.incarnation.to_string(),
            replicas: self.replicas,
            quorum: self.quorum,
            checksum: self.checksum(),
        }
    }

    fn checksum(&self) -> String {
        let Self { job, name, replica, incarnation, replicas, quorum } = self;
        let content = format!("{FORMAT}\n{job}\n{replica}\n{incarnation}\n{replicas}\n{quorum}\n{name}");
        blake3::hash(content.as_bytes()).to_hex().chars().take(32).collect()
    }

    fn check(&self) -> Result<()> {
        let Self { name, replica, replicas, quorum, .. } = self;
        if name.is_empty() || name.len() > LONGEST_NAME || name.chars().any(char::is_control) {
            return Err(damaged(&format!(
                "a job's name has 1 to {LONGEST_NAME} bytes without control characters, found {name:?}"
            )));
        }
        if *replica == 0 {
            return Err(damaged("it is replica 0, and they are numbered from 1"));
        }
        if quorum > replicas || u64::from(*quorum) * 2 <= u64::from(*replicas) {
            return Err(damaged(&format!("a write quorum of {quorum} of {replicas} is no majority")));
        }
        Ok(())
    }
}

fn damaged(what: &str) -> Error {
    Error::new(ErrorKind::Checkpoint, format!("job.json is damaged or not ours: {what}"))
        .help("it is not to be edited: bring back the file as it was")
}

fn later(format: u32) -> Error {
    let message = format!("job.json is of format {format}, and this version reads formats up to {FORMAT}");
    Error::new(ErrorKind::Checkpoint, message).help("upgrade tidemill")
}
