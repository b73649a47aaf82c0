//! Contexts of builds that are elsewhere: a repository of git, an archive or a Dockerfile in the web.
//!
//! * [`git`]: the program that fetches repositories.

mod git;

use std::{
    fs::{self, File},
    io::Read,
    os::fd::AsFd,
    path::Path,
};

use crate::{Images, dockerfile, error::ImageError, files};

/// What an address of a context means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// A repository.
    Git(Repository),
    /// `http` or `https`.
    Web(String),
}

/// A state of a repository of git, or a directory of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Repository {
    pub url: String,
    /// A branch, a tag or a commit; none: what the repository shows first.
    pub reference: Option<String>,
    /// Below its root.
    pub directory: Option<String>,
}

impl Images {
    /// Fetches the context of a build into the new directory `into`, as long as nobody has gone. True when it was only a Dockerfile, which is there by
    /// its usual name.
    pub fn fetch_context(&self, address: &str, into: &Path, is_gone: &dyn Fn() -> bool) -> Result<bool, ImageError> {
        match Place::parse(address)? {
            Place::Git(repository) => git::fetch(&repository, into, is_gone).map(|()| false),
            Place::Web(url) => self.fetch_from_web(&url, into, is_gone),
        }
    }

    fn fetch_from_web(&self, url: &str, into: &Path, is_gone: &dyn Fn() -> bool) -> Result<bool, ImageError> {
        let fetched = into.with_extension("fetched");
        self.download(url, &fetched, is_gone)?;
        fs::create_dir(into).map_err(|why| ImageError::failed("cannot make", into, why))?;
        let open = |path: &Path| File::open(path).map_err(|why| ImageError::failed("cannot open", path, why));
        let (beside, root) = (open(fetched.parent().unwrap_or(into))?, open(into)?);
        let name = fetched.file_name().unwrap_or_default();
        let mut file = open(&fetched)?;
        let is_archive = files::is_archive(beside.as_fd(), name.as_encoded_bytes())?;
        if is_archive {
            files::lay_down(root.as_fd(), b"", &mut file, files::Laying::default())?;
        } else {
            let mut text = String::new();
            let read = file.take(dockerfile::LONGEST + 1).read_to_string(&mut text);
            if read.is_err() || text.contains('\0') || text.len() as u64 > dockerfile::LONGEST {
                return Err(ImageError::Invalid(format!(
                    "cannot build of {url}: what is there is neither an archive nor a Dockerfile"
                )));
            }
            let path = into.join("Dockerfile");
            fs::write(&path, text).map_err(|why| ImageError::failed("cannot write", &path, why))?;
        }
        fs::remove_file(&fetched).map_err(|why| ImageError::failed("cannot remove", &fetched, why))?;
        Ok(!is_archive)
    }
}

impl Place {
    /// Docker's rules: `git://…`, `git@…`, `ssh://…`, `github.com/…` and what ends with `.git` are repositories; behind `#` stand a reference and a directory.
    pub fn parse(address: &str) -> Result<Self, ImageError> {
        let (url, fragment) = address.split_once('#').unwrap_or((address, ""));
        let is_web = url.starts_with("http://") || url.starts_with("https://");
        let is_git = ["git://", "git@", "ssh://"].iter().any(|start| url.starts_with(start));
        let is_short = url.starts_with("github.com/");
        if is_web && !url.ends_with(".git") {
            return Ok(Self::Web(address.to_owned()));
        }
        if !(is_web || is_git || is_short) {
            return Err(ImageError::Invalid(format!(
                "cannot build of {address}: http, https, or a repository of git (git://, ssh://, git@host:path, or a URL that ends with .git) is wanted"
            )));
        }
        let (reference, directory) = fragment.split_once(':').unwrap_or((fragment, ""));
        if reference.starts_with('-') || url.contains(char::is_whitespace) || url.contains(char::is_control) {
            return Err(ImageError::Invalid(format!("invalid refspec: {address}")));
        }
        let given = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        Ok(Self::Git(Repository {
            url: match is_short {
                true => format!("https://{url}"),
                false => url.to_owned(),
            },
            reference: given(reference),
            directory: given(directory),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_mean_what_they_mean_to_docker() {
        let git = |url: &str, reference: Option<&str>, directory: Option<&str>| {
            Place::Git(Repository {
                url: url.into(),
                reference: reference.map(str::to_owned),
                directory: directory.map(str::to_owned),
            })
        };
        for (address, place) in [
            ("http://a/b.tar.gz", Place::Web("http://a/b.tar.gz".into())),
            ("https://a/Dockerfile#x", Place::Web("https://a/Dockerfile#x".into())),
            ("https://a/b.git", git("https://a/b.git", None, None)),
            (
                "https://a/b.git#v1:sub/dir",
                git("https://a/b.git", Some("v1"), Some("sub/dir")),
            ),
            ("git://a/b#:sub", git("git://a/b", None, Some("sub"))),
            ("git@a:b/c.git#main", git("git@a:b/c.git", Some("main"), None)),
            ("github.com/a/b", git("https://github.com/a/b", None, None)),
        ] {
            assert_eq!(Place::parse(address).unwrap(), place, "{address}");
        }
        for wrong in [
            "",
            "a/b",
            "file:///etc",
            "ext::sh -c x",
            "git://a/b#--upload-pack=x",
            "git://a b",
        ] {
            assert!(Place::parse(wrong).is_err(), "{wrong}");
        }
    }
}
