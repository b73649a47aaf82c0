//! A transaction as etcd's: if all of this, then all of that, else say what you have.

use etcd_client::{Compare, CompareOp, GetOptions, PutOptions, Txn, TxnOp, TxnOpResponse};

use super::{Etcd, end_of, lease, revision};
use crate::{Condition, Revision, StoreError, Transaction, Write};

/// Operations of one transaction that etcd takes unless it is told otherwise (`--max-txn-ops`).
const MOST_OPERATIONS: usize = 128;

pub(super) async fn commit(etcd: &Etcd, transaction: Transaction) -> Result<Revision, StoreError> {
    let Transaction { conditions, writes } = transaction;
    if conditions.len().max(writes.len()) > MOST_OPERATIONS {
        return Err(StoreError::Failed(format!(
            "cannot commit {} conditions and {} writes at once: etcd takes {MOST_OPERATIONS} of each",
            conditions.len(),
            writes.len()
        )));
    }
    let lent = writes.iter().find_map(|write| match write {
        Write::Lend(_, _, lease) => Some(*lease),
        Write::Put(..) | Write::Delete(_) => None,
    });
    let compares: Vec<_> = conditions.iter().map(|condition| compare(etcd, condition)).collect();
    let then: Vec<_> = writes.into_iter().map(|write| operation(etcd, write)).collect();
    let otherwise: Vec<_> = conditions.iter().map(|condition| question(etcd, condition)).collect();
    let asked = Txn::new().when(compares).and_then(then).or_else(otherwise);
    let mut writer = etcd.client.kv_client();
    let answer = match (etcd.ask("commit", async { Ok(writer.txn(asked).await) }).await?, lent) {
        (Err(error), Some(lent)) if lease::is_lost(&error) => return Err(StoreError::LeaseLost(lent)),
        (answer, _) => answer.map_err(|error| etcd.failed("commit", &error))?,
    };
    if answer.succeeded() {
        return Ok(revision(
            answer.header().map_or(0, etcd_client::ResponseHeader::revision),
        ));
    }
    let found = answer.op_responses();
    let broken = conditions
        .into_iter()
        .zip(found)
        .find(|(condition, found)| !holds(condition, found));
    Err(match broken {
        Some((condition, _)) => StoreError::Conflict(condition),
        None => StoreError::Failed("etcd refused a transaction all of whose conditions hold".to_owned()),
    })
}

fn key_of(condition: &Condition) -> &str {
    match condition {
        Condition::Absent(key) | Condition::Present(key) | Condition::NoneUnder(key) => key,
        Condition::Unchanged(key, _) | Condition::Holds(key, _) => key,
    }
}

fn compare(etcd: &Etcd, condition: &Condition) -> Compare {
    let key = etcd.full(key_of(condition));
    match condition {
        Condition::Absent(_) => Compare::create_revision(key, CompareOp::Equal, 0),
        Condition::Present(_) => Compare::create_revision(key, CompareOp::Greater, 0),
        // One beyond what etcd can count to is of no commit.
        Condition::Unchanged(_, seen) => {
            Compare::mod_revision(key, CompareOp::Equal, i64::try_from(*seen).unwrap_or(i64::MAX))
        }
        Condition::Holds(_, value) => Compare::value(key, CompareOp::Equal, value.as_slice()),
        // Of all keys that there are it must be true that there is none.
        Condition::NoneUnder(_) => {
            let end = end_of(key.as_bytes());
            Compare::create_revision(key, CompareOp::Equal, 0).with_range(end)
        }
    }
}

/// Asked when a condition does not hold, to learn which: all answers are of the same moment.
fn question(etcd: &Etcd, condition: &Condition) -> TxnOp {
    let key = etcd.full(key_of(condition));
    let options = match condition {
        Condition::Holds(..) => GetOptions::new(),
        Condition::NoneUnder(_) => GetOptions::new()
            .with_range(end_of(key.as_bytes()))
            .with_limit(1)
            .with_keys_only(),
        Condition::Absent(_) | Condition::Present(_) | Condition::Unchanged(..) => GetOptions::new().with_keys_only(),
    };
    TxnOp::get(key, Some(options))
}

fn holds(condition: &Condition, found: &TxnOpResponse) -> bool {
    let TxnOpResponse::Get(found) = found else { return true };
    let found = found.kvs().first();
    let modified = found.map(|entry| revision(entry.mod_revision()));
    match condition {
        Condition::Absent(_) | Condition::NoneUnder(_) => modified.is_none(),
        Condition::Holds(_, value) => found.is_some_and(|entry| entry.value() == value),
        Condition::Present(_) => modified.is_some(),
        Condition::Unchanged(_, seen) => modified == Some(*seen),
    }
}

fn operation(etcd: &Etcd, write: Write) -> TxnOp {
    match write {
        Write::Put(key, value) => TxnOp::put(etcd.full(&key), value, None),
        Write::Lend(key, value, lease) => {
            TxnOp::put(etcd.full(&key), value, Some(PutOptions::new().with_lease(lease.0)))
        }
        Write::Delete(key) => TxnOp::delete(etcd.full(&key), None),
    }
}
