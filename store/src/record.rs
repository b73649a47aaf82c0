//! Records: versioned JSON.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::StoreError;

/// The version this program writes.
const VERSION: u32 = 1;

#[derive(Serialize)]
struct Written<'a, T> {
    version: u32,
    #[serde(flatten)]
    record: &'a T,
}

#[derive(Deserialize)]
struct Read {
    version: u32,
}

/// A record as bytes.
pub fn encode<T: Serialize>(record: &T) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(&Written {
        version: VERSION,
        record,
    })
    .map_err(|error| StoreError::Failed(format!("cannot write a record: {error}")))
}

/// Bytes as a record. What cannot be read is reported, never guessed.
pub fn decode<T: DeserializeOwned>(key: &str, bytes: &[u8]) -> Result<T, StoreError> {
    let unreadable =
        |error: serde_json::Error| StoreError::Failed(format!("the record at {key} cannot be read: {error}"));
    let Read { version } = serde_json::from_slice(bytes).map_err(unreadable)?;
    if version != VERSION {
        return Err(StoreError::Failed(format!(
            "the record at {key} has version {version}, this program reads {VERSION}"
        )));
    }
    serde_json::from_slice(bytes).map_err(unreadable)
}
