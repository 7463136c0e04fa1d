//! The secret that objects are sealed with where others can write the replicas.
//!
//! It deliberately encrypts nothing: it tells bytes that a holder of the key wrote from all others. It is never shown.

use std::fmt;

use crate::error::{Error, Result};

/// Shorter texts can be guessed from an object and its hash.
const SHORTEST: usize = 16;

/// A checkpoint's key, derived from the user's text.
///
/// ```
/// use tidemill::checkpoint::secret::CheckpointKey;
/// let key = CheckpointKey::new("a text of the user's that is long")?;
/// assert_eq!(format!("{key:?}"), "CheckpointKey(***)");
/// assert!(CheckpointKey::new("short").is_err_and(|error| error.is_config()));
/// # Ok::<(), tidemill::error::Error>(())
/// ```
#[derive(Clone)]
pub struct CheckpointKey {
    key: [u8; blake3::KEY_LEN],
    id: u64,
}

impl CheckpointKey {
    /// The key that `text` stands for.
    pub fn new(text: &str) -> Result<Self> {
        if text.len() < SHORTEST {
            let found = text.len();
            return Err(Error::config(format!(
                "checkpoint_key must be at least {SHORTEST} bytes long, found {found}"
            ))
            .help("take a random text, such as that of `openssl rand -base64 32`"));
        }
        let key = blake3::derive_key("tidemill 2025 checkpoint: key of objects", text.as_bytes());
        let name = blake3::derive_key("tidemill 2025 checkpoint: name of a key", text.as_bytes());
        let id = name.first_chunk().map_or(1, |name| u64::from_le_bytes(*name));
        Ok(Self { key, id: id.max(1) }) // 0 says that there is no key
    }

    /// What objects name the key by, so that a wrong key is told from a damaged object; never 0.
    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// What hashes with the key.
    pub(super) fn hasher(&self) -> blake3::Hasher {
        blake3::Hasher::new_keyed(&self.key)
    }
}

impl fmt::Debug for CheckpointKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CheckpointKey(***)")
    }
}
