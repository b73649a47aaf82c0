//! Files from the web: for `ADD`, for contexts of builds, for `import`.

use std::{
    fs::File,
    io::{Read, Write},
    path::Path,
};

use crate::{Images, error::ImageError, registry::trouble::unreachable};

/// Bytes read at a time.
const PIECE: usize = 64 * 1024;

impl Images {
    /// Fetches a URL (`http`, `https`) into a new file, as long as nobody has gone.
    pub fn download(&self, url: &str, into: &Path, is_gone: &dyn Fn() -> bool) -> Result<(), ImageError> {
        let agent = self.registries.downloads(url)?;
        let answer = agent.get(url).call().map_err(|why| unreachable("GET", url, &why))?;
        if !answer.status().is_success() {
            let status = crate::registry::session::said(answer.status());
            return Err(ImageError::Failed(format!("failed to GET {url} with status {status}")));
        }
        // `ADD` keeps the time the server tells
        let modified = answer
            .headers()
            .get("last-modified")
            .and_then(|date| date.to_str().ok());
        let modified = modified.and_then(|date| jiff::fmt::rfc2822::parse(date).ok());
        let mut body = answer.into_body().into_with_config().limit(self.limits.stream).reader();
        let mut file = File::create_new(into).map_err(|why| ImageError::failed("cannot make", into, why))?;
        let mut piece = vec![0; PIECE];
        loop {
            let count = body.read(&mut piece);
            let count = count.map_err(|why| ImageError::Unreachable(format!("cannot fetch {url}: {why}")))?;
            if count == 0 {
                if let Some(modified) = modified {
                    let _ = file.set_modified(modified.timestamp().into()); // a time no file can have is left out
                }
                return Ok(());
            }
            if is_gone() {
                return Err(ImageError::Failed("context canceled".into()));
            }
            file.write_all(&piece[..count])
                .map_err(|why| ImageError::failed("cannot write", into, why))?;
        }
    }
}
