//! Where etcd is, and what it wants to see of us.

use std::{fs, path::PathBuf, time::Duration};

use etcd_client::{Certificate, Client, ConnectOptions, Identity, TlsOptions};

use super::Etcd;
use crate::StoreError;

/// A member that says nothing on an open connection for so long is asked whether it is there, and given up after as long again.
const SILENCE: Duration = Duration::from_secs(3);

/// How a cluster is reached.
#[derive(Clone, Debug)]
pub struct EtcdOptions {
    /// Members, as `http://10.0.0.1:2379` or `https://…`. Whichever answers is asked.
    pub members: Vec<String>,
    /// Stands before every key, so that clusters may share an etcd; may be empty.
    pub prefix: String,
    /// A name and a password, where etcd wants them.
    pub credentials: Option<Credentials>,
    /// Certificates, for members with `https`.
    pub encryption: Option<Encryption>,
    /// For how long an answer is waited for.
    pub patience: Duration,
}

/// Who we are to etcd.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// The user's name.
    pub user: String,
    /// Its password.
    pub password: String,
}

/// Files in PEM.
#[derive(Clone, Debug, Default)]
pub struct Encryption {
    /// Whose signature members must show.
    pub authority: PathBuf,
    /// Our own certificate and its key, where members want to see them.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// See [`Etcd::connect`].
pub(super) async fn connect(options: EtcdOptions) -> Result<Etcd, StoreError> {
    let members = options.members.join(", ");
    let failed = |error: etcd_client::Error| StoreError::Failed(format!("cannot reach etcd at {members}: {error}"));
    let wants_encryption = options.members.iter().any(|member| member.starts_with("https://"));
    if wants_encryption && options.encryption.is_none() {
        return Err(StoreError::Failed(format!(
            "cannot reach etcd at {members}: https wants the certificate of the authority that has signed the members'"
        )));
    }
    // A member that is cut off from its leader must not be believed to be silent because nothing happens.
    let mut wishes = ConnectOptions::new()
        .with_connect_timeout(options.patience)
        .with_keep_alive(SILENCE, SILENCE)
        .with_keep_alive_while_idle(true)
        .with_require_leader(true);
    if let Some(Credentials { user, password }) = options.credentials {
        wishes = wishes.with_user(user, password).with_auto_token_refresh(true);
    }
    if let Some(encryption) = &options.encryption {
        wishes = wishes.with_tls(certificates(encryption)?);
    }
    let connecting = Client::connect(&options.members, Some(wishes.clone()));
    let client = match tokio::time::timeout(options.patience, connecting).await {
        Ok(connected) => connected.map_err(failed)?,
        Err(_) => {
            return Err(StoreError::Failed(format!(
                "cannot reach etcd at {members}: nobody has answered for {} s",
                options.patience.as_secs()
            )));
        }
    };
    Ok(Etcd {
        client,
        prefix: options.prefix,
        patience: options.patience,
        members,
        addresses: options.members,
        wishes,
    })
}

fn certificates(encryption: &Encryption) -> Result<TlsOptions, StoreError> {
    let read = |path: &PathBuf| {
        fs::read(path).map_err(|error| StoreError::Failed(format!("cannot read {} for etcd: {error}", path.display())))
    };
    let mut options = TlsOptions::new().ca_certificate(Certificate::from_pem(read(&encryption.authority)?));
    if let Some((certificate, key)) = &encryption.identity {
        options = options.identity(Identity::from_pem(read(certificate)?, read(key)?));
    }
    Ok(options)
}
