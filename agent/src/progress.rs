//! How far the loop has come, for those who wait for it.

use tokio::sync::watch;

use sluice_store::Revision;

use crate::{AgentError, plan::Troubles};

/// A place on the way.
#[derive(Clone, Default, Debug)]
pub struct Progress {
    /// Everything up to this revision of the store has been carried out, or is among the troubles.
    pub revision: Revision,
    /// What could not be made, by the id of what it was for.
    pub troubles: Troubles,
    /// Endpoints with a device on this host.
    pub endpoints: u64,
    /// What keeps the whole loop from going on; it begins again by itself.
    pub stuck: Option<String>,
}

/// Waits until the loop has come to `revision`; an error when one of `subjects` could not be made, or the loop has ended.
pub async fn settled(
    progress: &mut watch::Receiver<Progress>,
    revision: Revision,
    subjects: &[&str],
) -> Result<(), AgentError> {
    let reached = progress
        .wait_for(|progress| progress.revision >= revision)
        .await
        .map_err(|_| AgentError::Stopped)?;
    match subjects.iter().find_map(|subject| reached.troubles.get(*subject)) {
        Some(trouble) => Err(AgentError::Failed(trouble.clone())),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn who_waits_wakes_at_its_revision_and_hears_of_its_own_troubles_only() {
        let (sender, receiver) = watch::channel(Progress {
            revision: 4,
            ..Progress::default()
        });
        assert!(settled(&mut receiver.clone(), 4, &["a"]).await.is_ok());
        let mut waiting = receiver.clone();
        let waiter = tokio::spawn(async move { settled(&mut waiting, 6, &["a", "b"]).await });
        tokio::task::yield_now().await;
        let troubles = Troubles::from([("b".to_owned(), "no room".to_owned())]);
        sender.send_replace(Progress {
            revision: 6,
            troubles,
            ..Progress::default()
        });
        assert_eq!(waiter.await.unwrap().unwrap_err().to_string(), "no room");
        assert!(settled(&mut receiver.clone(), 5, &["a"]).await.is_ok());
        drop(sender);
        assert!(matches!(
            settled(&mut receiver.clone(), 7, &[]).await,
            Err(AgentError::Stopped)
        ));
    }
}
