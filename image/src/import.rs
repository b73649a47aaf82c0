//! An image of one layer from a tar of a root file system, as `docker import` makes it.

use std::{fs::File, io::Read};

use serde::Serialize;

use crate::{
    Image, Images, NewImage, changes,
    configuration::{Configuration, RunConfig},
    error::ImageError,
    reference,
};

/// The configuration of an imported image.
#[derive(Serialize)]
struct Imported<'a> {
    architecture: &'a str,
    comment: &'a str,
    config: RunConfig,
    created: &'a str,
    history: [History<'a>; 1],
    os: &'a str,
    rootfs: RootFs<'a>,
}

#[derive(Serialize)]
struct History<'a> {
    created: &'a str,
    comment: &'a str,
}

#[derive(Serialize)]
struct RootFs<'a> {
    r#type: &'a str,
    diff_ids: [&'a str; 1],
}

impl Images {
    /// Makes an image of one layer from a tar in the web.
    pub fn import_from_web(
        &self,
        url: &str,
        reference: Option<&str>,
        changes: &[String],
        message: &str,
    ) -> Result<Image, ImageError> {
        if !(url.starts_with("http://") || url.starts_with("https://")) {
            return Err(ImageError::Invalid(format!(
                "cannot import {url}: http or https is wanted, or - for a tar that is sent along"
            )));
        }
        let staging = self.stage()?;
        let path = staging.directory().join("fetched");
        self.download(url, &path, &|| false)?;
        let mut tar = File::open(&path).map_err(|why| ImageError::failed("cannot open", &path, why))?;
        self.import(&mut tar, reference, changes, message)
    }

    /// Makes an image of one layer from a tar stream (plain or compressed), as `docker import` does.
    /// `changes` are Dockerfile instructions (CMD, ENTRYPOINT, ENV, EXPOSE, WORKDIR, USER, LABEL, VOLUME, STOPSIGNAL, HEALTHCHECK, ONBUILD).
    pub fn import(
        &self,
        tar: &mut dyn Read,
        reference: Option<&str>,
        changes: &[String],
        message: &str,
    ) -> Result<Image, ImageError> {
        // everything that can be wrong with the request, before the archive is read
        let names = match reference.filter(|reference| !reference.is_empty()) {
            Some(reference) => vec![reference::parse_tag(reference)?],
            None => Vec::new(),
        };
        let config = changes::apply(RunConfig::default(), changes)?;
        let comment = if message.is_empty() { "Imported from -" } else { message };

        let mut staging = self.stage()?;
        let diff_id = staging.unpack(tar, None, self.limits)?;
        let created = jiff::Timestamp::now().to_string();
        let image = Imported {
            architecture: crate::manifest::architecture(),
            comment,
            config,
            created: &created,
            history: [History {
                created: &created,
                comment,
            }],
            os: "linux",
            rootfs: RootFs {
                r#type: "layers",
                diff_ids: [diff_id.as_str()],
            },
        };
        let bytes = serde_json::to_vec(&image);
        let bytes = bytes.map_err(|why| ImageError::Failed(format!("cannot write image configuration: {why}")))?;
        let configuration = Configuration::parse(&bytes)?;
        let id = crate::Digest::of(&bytes);
        self.publish(
            &[staging],
            &[NewImage {
                bytes,
                configuration,
                names,
            }],
        )?;
        self.find(id.as_str())
    }
}
