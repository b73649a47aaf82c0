//! How etcd's members are, each asked by itself.

use std::time::Duration;

use etcd_client::{Client, ConnectOptions, GetOptions};

use super::{Etcd, end_of, revision};
use crate::{Revision, StoreError};

/// For how long a member is waited for: who looks does not want to wait.
const PATIENCE: Duration = Duration::from_secs(1);

/// What a member says of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MemberHealth {
    /// Where it is.
    pub address: String,
    /// What it says, or why it says nothing.
    pub state: Result<MemberState, String>,
}

/// What a member that answers says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MemberState {
    /// Its version.
    pub version: String,
    /// Does it lead the others?
    pub leads: bool,
    /// Does it know who leads? Without a leader nothing is written.
    pub has_leader: bool,
    /// The size of its data, bytes.
    pub bytes: u64,
    /// What it complains of.
    pub alarms: Vec<String>,
}

impl Etcd {
    /// Where the members are, as they were named.
    pub fn members(&self) -> &[String] {
        &self.addresses
    }

    /// How the members are.
    pub async fn health(&self) -> Vec<MemberHealth> {
        let mut members = Vec::new();
        for address in &self.addresses {
            let state = match tokio::time::timeout(PATIENCE, ask(address, self.wishes.clone())).await {
                Ok(state) => state.map_err(|error| error.to_string()),
                Err(_) => Err(format!("no answer for {} s", PATIENCE.as_secs())),
            };
            members.push(MemberHealth {
                address: address.clone(),
                state,
            });
        }
        members
    }

    /// The present revision, and how many keys with a prefix (a hundred at most) were written after another revision.
    ///
    /// # Errors
    /// Etcd does not answer.
    pub async fn since(&self, prefix: &str, after: Revision) -> Result<(Revision, usize), StoreError> {
        let key = self.full(prefix);
        let after = i64::try_from(after).unwrap_or(i64::MAX);
        let options = GetOptions::new()
            .with_range(end_of(key.as_bytes()))
            .with_min_mod_revision(after.saturating_add(1))
            .with_limit(100)
            .with_keys_only();
        let mut reader = self.reader();
        let answer = self
            .ask(&format!("list {prefix}"), reader.get(key, Some(options)))
            .await?;
        let present = answer.header().map_or(0, |header| revision(header.revision()));
        Ok((present, answer.kvs().len()))
    }
}

async fn ask(address: &str, wishes: ConnectOptions) -> Result<MemberState, etcd_client::Error> {
    let mut client = Client::connect([address], Some(wishes)).await?;
    let status = client.status().await?;
    let id = status.header().map_or(0, etcd_client::ResponseHeader::member_id);
    Ok(MemberState {
        version: status.version().to_owned(),
        leads: id != 0 && status.leader() == id,
        has_leader: status.leader() != 0,
        bytes: u64::try_from(status.db_size()).unwrap_or_default(),
        alarms: status.errors().to_vec(),
    })
}
