//! Leases as etcd's. Nothing of them is remembered here: who has one renews it, and takes another when it is lost.

use std::time::Duration;

use super::Etcd;
use crate::{Lease, StoreError};

pub(super) async fn grant(etcd: &Etcd, life: Duration) -> Result<Lease, StoreError> {
    let seconds = i64::try_from(life.as_secs()).unwrap_or(i64::MAX).max(1);
    let mut granter = etcd.client.lease_client();
    let answer = etcd.ask("take a lease", granter.grant(seconds, None)).await?;
    Ok(Lease(answer.id()))
}

pub(super) async fn renew(etcd: &Etcd, lease: Lease) -> Result<(), StoreError> {
    let mut keeper = etcd.client.lease_client();
    // Its first answer is that to the renewal; the stream is given up then.
    let asked = async { Ok(keeper.keep_alive(lease.0).await.map(drop)) };
    match etcd.ask("renew the lease", asked).await? {
        Err(error) if is_lost(&error) => Err(StoreError::LeaseLost(lease)),
        answer => answer.map_err(|error| etcd.failed("renew the lease", &error)),
    }
}

pub(super) async fn revoke(etcd: &Etcd, lease: Lease) -> Result<(), StoreError> {
    let mut revoker = etcd.client.lease_client();
    let asked = async { Ok(revoker.revoke(lease.0).await.map(drop)) };
    match etcd.ask("end the lease", asked).await? {
        Err(error) if is_lost(&error) => Ok(()),
        answer => answer.map_err(|error| etcd.failed("end the lease", &error)),
    }
}

/// Etcd's answer to whoever speaks of a lease that has ended (`ErrLeaseNotFound`), and its client's to whoever renews one.
pub(super) fn is_lost(error: &etcd_client::Error) -> bool {
    error.to_string().contains("lease not found")
}
