//! What Docker's JSON looks like: a file per resource, the same names as in [`crate::routes`].
//!
//! What comes in is read into small structs that take what clients really send; what goes out is written as the document it is. The tests hold
//! the documents against the models of bollard-stubs, an independent reading of Docker's specification.

pub(crate) mod cluster;
pub(crate) mod container;
pub(crate) mod events;
pub(crate) mod exec;
pub(crate) mod image;
pub(crate) mod network;
pub(crate) mod policy;
pub(crate) mod progress;
pub(crate) mod system;
pub(crate) mod volume;

use serde_json::Value;

/// None as null when the list is empty: Go's nil, which clients compare with.
pub(crate) fn null_if_empty<T: Into<Value> + Clone>(items: &[T]) -> Value {
    if items.is_empty() {
        Value::Null
    } else {
        Value::Array(items.iter().cloned().map(Into::into).collect())
    }
}
