//! Registries that a test plays itself: what they say, what they ask for, and how they fail.

pub(crate) mod fake;
mod pull;
mod push;
pub(crate) mod stored;
mod trust;

use std::{path::Path, sync::Mutex};

use crate::{ImageError, Images, Listener, News, Pull, testing::Tar};
use stored::noise;

/// Keeps what it hears.
#[derive(Debug, Default)]
pub(crate) struct Ear(pub(crate) Mutex<Vec<News>>);

impl Listener for Ear {
    fn hear(&self, news: News) {
        self.0.lock().unwrap().push(news);
    }

    fn is_gone(&self) -> bool {
        false
    }
}

impl Ear {
    pub(crate) fn heard(&self, what: &str) -> bool {
        let news = self.0.lock().unwrap();
        news.iter()
            .any(|news| matches!(news, News::Status { text, .. } if text.contains(what)))
    }
}

pub(crate) fn layer(name: &str, bytes: usize) -> Vec<u8> {
    Tar::default().file(name, noise(bytes)).end()
}

pub(crate) fn here() -> &'static str {
    crate::manifest::architecture()
}

pub(crate) fn images(path: &Path) -> Images {
    Images::open(path).unwrap()
}

pub(crate) fn pull_from(images: &Images, name: &str, ear: &Ear) -> Result<crate::Image, ImageError> {
    let pulled = images.pull(
        Pull {
            reference: name,
            all_tags: false,
            platform: None,
            credentials: None,
        },
        ear,
    );
    pulled.map(|mut images| images.remove(0))
}
