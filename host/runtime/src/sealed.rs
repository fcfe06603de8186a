//! Compiled code that may be kept on disk: only what this router sealed itself is ever run.
//!
//! Compiled code is machine code, and the engine believes it. So a file of it carries a keyed hash over the plugin's
//! digest, the engine and the code; without the key nobody makes one that opens.

use std::hash::Hasher;

use serde::{Deserialize, Serialize};
use wasmtime::Engine;

use crate::load::Facts;
use crate::plugin::Digest;
use crate::runtime::Runtime;

/// What [`compile`](crate::compile) makes begins with this.
const MAGIC: &[u8; 8] = b"QPCODE1\n";

/// What the keyed hash begins with, so that the same key seals nothing else.
const CONTEXT: &[u8] = b"quipu: compiled plugin, format 1";

const TAG_BYTES: usize = 32;

/// Compiled code that was sealed by this router, for this engine. Only [`Sealed::open`] makes one.
pub struct Sealed {
    digest: Digest,
    facts: Facts,
    /// Tag, head and code.
    bytes: Vec<u8>,
    /// Where the code begins.
    code_at: usize,
}

/// Why a file of compiled code is not used. In each case the plugin can be compiled again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// Altered, cut off, of another plugin, or made by another router.
    #[error("compiled code that this router did not seal for this plugin")]
    NotOurs,
    /// Made by another version of the router, for other settings or for another processor.
    #[error("compiled code of another engine")]
    OtherEngine,
    /// Sealed, but none: a bug of the router's own.
    #[error("sealed, but not compiled code")]
    Malformed,
}

/// What compiled code depends on: the engine's version, its settings, the processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EngineHash([u8; 32]);

impl EngineHash {
    pub(crate) fn of(engine: &Engine) -> Self {
        let mut hasher = Blake(blake3::Hasher::new());
        std::hash::Hash::hash(&engine.precompile_compatibility_hash(), &mut hasher);
        Self(*hasher.0.finalize().as_bytes())
    }
}

/// What is hashed with it is the same in every process.
struct Blake(blake3::Hasher);

impl Hasher for Blake {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        let mut first = [0; 8];
        first.copy_from_slice(&self.0.finalize().as_bytes()[..8]);
        u64::from_le_bytes(first)
    }
}

/// Puts together what [`compile`](crate::compile) answers with.
pub(crate) fn pack(engine: EngineHash, facts: &Facts, code: &[u8]) -> Vec<u8> {
    let head = serde_json::to_vec(&Head { engine: engine.0, facts: facts.clone() }).unwrap_or_default();
    let length = u32::try_from(head.len()).unwrap_or_default(); // 256 short names
    [MAGIC.as_slice(), &length.to_le_bytes(), &head, code].concat()
}

#[derive(Serialize, Deserialize)]
struct Head {
    engine: [u8; 32],
    facts: Facts,
}

impl Sealed {
    /// Seals what [`compile`](crate::compile) made of the file with this digest: the bytes to keep. The key is this
    /// router's secret.
    pub fn seal(key: &[u8; 32], digest: &Digest, code: &[u8]) -> Vec<u8> {
        [tag(key, digest, code).as_bytes(), code].concat()
    }

    /// Opens what was sealed with this key for the file with this digest.
    ///
    /// # Errors
    ///
    /// [`SealError`]; nothing of the bytes has been looked at then, but for their hash.
    pub fn open(key: &[u8; 32], digest: &Digest, bytes: Vec<u8>, runtime: &Runtime) -> Result<Self, SealError> {
        let (found, code) = bytes.split_at_checked(TAG_BYTES).ok_or(SealError::NotOurs)?;
        // Compares in constant time.
        if tag(key, digest, code) != *<&[u8; TAG_BYTES]>::try_from(found).map_err(|_| SealError::NotOurs)? {
            return Err(SealError::NotOurs);
        }
        let (head, length) = unpack(code).ok_or(SealError::Malformed)?;
        if EngineHash(head.engine) != EngineHash::of(runtime.engine()) {
            return Err(SealError::OtherEngine);
        }
        Ok(Self { digest: *digest, facts: head.facts, code_at: TAG_BYTES + length, bytes })
    }

    /// Of the plugin file that it was compiled from.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// What [`Sealed::seal`] made, to keep it.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn facts(&self) -> &Facts {
        &self.facts
    }

    /// What the engine wrote.
    pub(crate) fn code(&self) -> &[u8] {
        &self.bytes[self.code_at..]
    }
}

impl std::fmt::Debug for Sealed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sealed").field("digest", &self.digest).field("bytes", &self.bytes.len()).finish_non_exhaustive()
    }
}

fn tag(key: &[u8; 32], digest: &Digest, code: &[u8]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new_keyed(key);
    hasher.update(CONTEXT).update(digest.as_bytes()).update(code);
    hasher.finalize()
}

/// The head, and the length of all that is before the code.
fn unpack(code: &[u8]) -> Option<(Head, usize)> {
    let rest = code.strip_prefix(MAGIC)?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let length = u32::from_le_bytes(*length) as usize;
    let head = serde_json::from_slice(rest.get(..length)?).ok()?;
    Some((head, MAGIC.len() + 4 + length))
}
