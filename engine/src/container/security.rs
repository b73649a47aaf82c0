//! `--security-opt`: what of it is acted on.

use crate::EngineError;

/// What `--security-opt` asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Options {
    /// No system call filter.
    pub seccomp_unconfined: bool,
    /// No way to more rights by execve.
    pub no_new_privileges: bool,
    /// `systempaths=unconfined`: nothing of /proc and /sys is masked or read-only.
    pub unmasked: bool,
}

impl Options {
    /// Reads the list. Labels of AppArmor and SELinux are accepted as long as they ask for nothing.
    pub fn parse(list: &[String]) -> Result<Self, EngineError> {
        let mut options = Self::default();
        for option in list {
            let invalid = || EngineError::invalid(format!("invalid --security-opt 1: \"{option}\""));
            if option == "no-new-privileges" {
                options.no_new_privileges = true;
                continue;
            }
            // Docker takes both; the colon is the older way
            let (name, value) = option.split_once(['=', ':']).ok_or_else(invalid)?;
            match (name, value) {
                ("no-new-privileges", value) => options.no_new_privileges = value.parse().map_err(|_| invalid())?,
                ("seccomp", "unconfined") => options.seccomp_unconfined = true,
                ("seccomp", "builtin" | "") => options.seccomp_unconfined = false,
                ("seccomp", _) => {
                    return Err(EngineError::not_offered(
                        "a seccomp profile of one's own is not offered by this version",
                    ));
                }
                ("systempaths", "unconfined") => options.unmasked = true,
                ("apparmor", "unconfined" | "docker-default") | ("label", "disable") => {}
                ("apparmor" | "label", _) => {
                    return Err(EngineError::not_offered(format!(
                        "{name} labels are not offered by this version"
                    )));
                }
                _ => return Err(invalid()),
            }
        }
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(options: &[&str]) -> Result<Options, EngineError> {
        Options::parse(&options.iter().map(|option| (*option).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn both_ways_of_writing_are_understood() {
        assert!(parse(&["seccomp=unconfined"]).unwrap().seccomp_unconfined);
        assert!(parse(&["seccomp:unconfined"]).unwrap().seccomp_unconfined);
        for option in ["no-new-privileges", "no-new-privileges=true", "no-new-privileges:true"] {
            assert!(parse(&[option]).unwrap().no_new_privileges, "{option}");
        }
        assert!(!parse(&["no-new-privileges=false"]).unwrap().no_new_privileges);
    }

    #[test]
    fn what_is_unknown_is_refused_rather_than_ignored() {
        assert_eq!(
            parse(&["colour=red"]).unwrap_err().message,
            "invalid --security-opt 1: \"colour=red\""
        );
        assert!(parse(&["seccomp={}"]).is_err());
        assert!(parse(&["apparmor=mine"]).is_err());
    }
}
