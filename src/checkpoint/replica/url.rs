//! From what a user writes to a replica.
//!
//! It deliberately knows directories only, so far; a scheme that it does not know is an error and never a directory of
//! that name.

use std::path::Path;
use std::sync::Arc;

use super::{LocalReplica, Replica};
use crate::error::{Error, Result};

/// The replica that `text` names: a directory's path, or its `file://` URL.
///
/// ```
/// use tidemill::checkpoint::replica::open_url;
/// # let directory = std::env::temp_dir().join(format!("tidemill-url-{}", std::process::id()));
/// let replica = open_url(&directory.to_string_lossy())?;
/// assert_eq!(open_url(replica.url())?.url(), replica.url());
/// # std::fs::remove_dir_all(&directory).unwrap();
/// assert!(open_url("s3://bucket/app").is_err_and(|error| error.is_config()));
/// # Ok::<(), tidemill::error::Error>(())
/// ```
pub fn open_url(text: &str) -> Result<Arc<dyn Replica>> {
    let directory = directory(text)?;
    Ok(Arc::new(LocalReplica::open(directory)?))
}

fn directory(text: &str) -> Result<&Path> {
    let Some((scheme, rest)) = text.split_once("://") else {
        return if text.is_empty() { Err(refused(text, "found an empty text")) } else { Ok(Path::new(text)) };
    };
    if scheme != "file" {
        return Err(refused(text, &format!("replicas at {scheme}:// are not part of this version")));
    }
    if !rest.starts_with('/') {
        return Err(refused(
            text,
            "a file:// URL has three slashes before its path, and names no other machine",
        ));
    }
    if rest.contains('%') {
        return Err(refused(text, "a file:// URL is taken as it is written, without % for other characters"));
    }
    Ok(Path::new(rest))
}

fn refused(text: &str, why: &str) -> Error {
    Error::config(format!("checkpoint={text:?} names no replica: {why}"))
        .help("name a directory, such as \"./checkpoint\" or \"/disk1/app\"")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::directory;

    #[test]
    fn directories_are_named_by_path_or_url() {
        for (text, path) in
            [("./dir", "./dir"), ("/disk 1/50%", "/disk 1/50%"), ("file:///disk1/app", "/disk1/app")]
        {
            assert_eq!(directory(text).ok(), Some(Path::new(path)));
        }
    }

    #[test]
    fn what_is_no_directory_is_refused_with_the_reason() {
        for (text, reason) in [
            ("", "an empty text"),
            ("s3://bucket/app", "s3://"),
            ("file://host/app", "three slashes"),
            ("file:///my%20disk", "as it is written"),
        ] {
            let error = directory(text).unwrap_err();
            assert!(error.is_config() && error.to_string().contains(reason), "{text:?}: {error}");
        }
    }
}
