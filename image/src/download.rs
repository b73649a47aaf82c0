//! Files from the web, for `ADD`.

use std::{fs::File, io, path::Path};

use crate::{Images, error::ImageError, registry::trouble::unreachable};

impl Images {
    /// Fetches a URL into a new file.
    pub fn download(&self, url: &str, into: &Path) -> Result<(), ImageError> {
        let agent = self.registries.downloads()?;
        let answer = agent.get(url).call().map_err(|why| unreachable("GET", url, &why))?;
        if !answer.status().is_success() {
            let status = crate::registry::session::said(answer.status());
            return Err(ImageError::Failed(format!("failed to GET {url} with status {status}")));
        }
        let mut body = answer.into_body().into_with_config().limit(self.limits.stream).reader();
        let mut file = File::create_new(into).map_err(|why| ImageError::failed("cannot make", into, why))?;
        let copied = io::copy(&mut body, &mut file);
        copied
            .map(drop)
            .map_err(|why| ImageError::Unreachable(format!("cannot fetch {url}: {why}")))
    }
}
