//! What builds leave in the store: images of steps that nothing stands on, and the knowledge what a step made.

use sluice_image::{Image, Removed};

use crate::{Engine, EngineError};

impl Engine {
    /// Removes what builds left and nothing stands on; with `all`, the next build also makes every step again. Tells the ids of the images, and bytes.
    pub async fn prune_builds(
        &self,
        all: bool,
        wanted: impl Fn(&Image) -> bool + Send + 'static,
    ) -> Result<(Vec<String>, u64), EngineError> {
        self.carry_out(move |engine| async move {
            let users = engine.users_of_images();
            let (removed, freed) = engine
                .of_images(move |images| {
                    let before = images.usage().0;
                    let removed = images.prune_steps(all, &users, wanted)?;
                    Ok((removed, before.saturating_sub(images.usage().0)))
                })
                .await?;
            // a chain id is a layer's: only images are told
            let is_image = |removed: Removed| match removed {
                Removed::Deleted(id) => Some(id),
                Removed::Untagged(_) => None,
            };
            let gone: Vec<String> = removed.into_iter().filter_map(is_image).collect();
            for id in &gone {
                engine.tell_image("delete", id, None);
            }
            engine.events.tell(
                "builder",
                "prune",
                "",
                vec![("reclaimed".to_owned(), freed.to_string())],
            );
            Ok((gone, freed))
        })
        .await
    }
}
