//! Makes and removes the namespaces of sandboxes.

use std::path::PathBuf;

use super::{Hands, parallel::in_parallel};
use crate::{AgentError, Tried, actual::Actual, link::sandbox, plan::Troubles};

/// Removes namespaces with all that is in them.
pub fn remove_sandboxes(paths: &[PathBuf], actual: &mut Actual) -> Result<(), AgentError> {
    let outcomes = in_parallel(paths, |path| {
        sandbox::remove(path).tried(|| format!("removing the sandbox {}", path.display()))
    });
    for (path, outcome) in paths.iter().zip(outcomes) {
        outcome?;
        actual.sandboxes.remove(path);
        actual.cookies.remove(path);
    }
    Ok(())
}

/// Makes namespaces; those that cannot be made are told of.
pub fn make_sandboxes(
    hands: &Hands<'_>,
    sandboxes: &[(String, PathBuf)],
    actual: &mut Actual,
    troubles: &mut Troubles,
) {
    if sandboxes.is_empty() {
        return;
    }
    let _alone = hands.promises.alone();
    let offers = hands.offers;
    let outcomes = in_parallel(sandboxes, |(_, path)| sandbox::make(path, offers));
    for ((id, path), outcome) in sandboxes.iter().zip(outcomes) {
        actual.sandboxes.insert(path.clone(), outcome.is_ok());
        match outcome {
            Ok(cookie) => drop(actual.cookies.insert(path.clone(), cookie)),
            Err(error) => {
                let trouble = format!("making the sandbox {}: {error}", path.display());
                troubles.insert(id.clone(), trouble);
            }
        }
    }
}
