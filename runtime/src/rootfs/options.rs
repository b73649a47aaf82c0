//! Mount options in fstab's words, as OCI specs carry them, sorted by who understands them.

use crate::syscall::{MountAttr, mount_attr};

/// The options of one mount.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// Attributes of the mount itself.
    pub attributes: MountAttr,
    /// Attributes of the mount and all on it (`rro` and its kin).
    pub recursive_attributes: MountAttr,
    /// `MS_SHARED`, `MS_SLAVE`…, and if it holds for the mounts on it as well.
    pub propagation: Option<(u64, bool)>,
    /// `bind` or `rbind`, and if recursive.
    pub bind: Option<bool>,
    /// A relative path: what lies there in the source of a bind is bound, not the source. Our own word, [`BENEATH`].
    pub beneath: Option<String>,
    /// What the file system itself understands.
    pub data: Vec<(String, Option<String>)>,
}

/// The option that binds something beneath the source, with no link leading out of it.
pub(crate) const BENEATH: &str = "x-sluice.beneath=";

impl Options {
    pub fn parse<'a>(words: impl Iterator<Item = &'a str>) -> Self {
        let mut options = Self::default();
        for word in words {
            options.take(word);
        }
        options
    }

    fn take(&mut self, word: &str) {
        match word {
            "defaults" | "" => {}
            "bind" => self.bind = Some(self.bind.unwrap_or(false)),
            "rbind" => self.bind = Some(true),
            _ => {
                if let Some(path) = word.strip_prefix(BENEATH) {
                    self.beneath = Some(path.to_owned());
                } else if let Some(propagation) = propagation(word) {
                    self.propagation = Some(propagation);
                } else if let Some((attributes, set)) = attribute(word) {
                    apply(&mut self.attributes, attributes, set);
                } else if let Some((attributes, set)) = word.strip_prefix('r').and_then(attribute) {
                    apply(&mut self.recursive_attributes, attributes, set);
                } else {
                    let (key, value) = match word.split_once('=') {
                        Some((key, value)) => (key, Some(value.to_owned())),
                        None => (word, None),
                    };
                    self.data.push((key.to_owned(), value));
                }
            }
        }
    }
}

/// The attribute a word stands for, and if the word sets or clears it.
fn attribute(word: &str) -> Option<(u64, bool)> {
    use mount_attr::{ATIME, NOATIME, NODEV, NODIRATIME, NOEXEC, NOSUID, NOSYMFOLLOW, RDONLY, STRICTATIME};
    Some(match word {
        "ro" => (RDONLY, true),
        "rw" => (RDONLY, false),
        "nosuid" => (NOSUID, true),
        "suid" => (NOSUID, false),
        "nodev" => (NODEV, true),
        "dev" => (NODEV, false),
        "noexec" => (NOEXEC, true),
        "exec" => (NOEXEC, false),
        "nodiratime" => (NODIRATIME, true),
        "diratime" => (NODIRATIME, false),
        "nosymfollow" => (NOSYMFOLLOW, true),
        "symfollow" => (NOSYMFOLLOW, false),
        "noatime" => (NOATIME, true),
        "strictatime" => (STRICTATIME, true),
        // Relative access times are the absence of another mode.
        "atime" | "relatime" | "norelatime" | "nostrictatime" => (ATIME, false),
        _ => return None,
    })
}

fn apply(attributes: &mut MountAttr, which: u64, set: bool) {
    if which & mount_attr::ATIME != 0 {
        // The kernel wants the whole access-time field cleared before a mode is set in it.
        attributes.clear |= mount_attr::ATIME;
        attributes.set &= !mount_attr::ATIME;
        if set {
            attributes.set |= which;
        }
    } else if set {
        attributes.set |= which;
        attributes.clear &= !which;
    } else {
        attributes.clear |= which;
        attributes.set &= !which;
    }
}

/// The propagation a word stands for, and if it is recursive.
pub(crate) fn propagation(word: &str) -> Option<(u64, bool)> {
    let (kind, recursive) = match word {
        "rshared" | "rslave" | "rprivate" | "runbindable" => (&word[1..], true),
        _ => (word, false),
    };
    let flag = match kind {
        "shared" => libc::MS_SHARED,
        "slave" => libc::MS_SLAVE,
        "private" => libc::MS_PRIVATE,
        "unbindable" => libc::MS_UNBINDABLE,
        _ => return None,
    };
    Some((flag, recursive))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_go_to_whom_they_concern() {
        let options = Options::parse(["rbind", "ro", "nosuid", "rprivate", "size=64k", "newinstance"].into_iter());
        assert_eq!(options.bind, Some(true));
        assert_eq!(options.attributes.set, mount_attr::RDONLY | mount_attr::NOSUID);
        assert_eq!(options.propagation, Some((libc::MS_PRIVATE, true)));
        assert_eq!(
            options.data,
            [
                ("size".to_owned(), Some("64k".to_owned())),
                ("newinstance".to_owned(), None)
            ]
        );
    }

    #[test]
    fn the_last_of_contradicting_words_wins() {
        let options = Options::parse(["ro", "rw", "strictatime", "relatime"].into_iter());
        assert_eq!(options.attributes.set, 0);
        assert_eq!(options.attributes.clear, mount_attr::RDONLY | mount_attr::ATIME);
    }

    #[test]
    fn recursive_read_only_is_not_read_only() {
        let options = Options::parse(["rbind", "rro"].into_iter());
        assert_eq!(options.attributes.set, 0);
        assert_eq!(options.recursive_attributes.set, mount_attr::RDONLY);
    }
}
