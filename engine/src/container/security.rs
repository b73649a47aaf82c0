//! `--security-opt`: what of it is acted on.

use std::collections::HashSet;

use oci_spec::runtime::{Capability, LinuxSeccomp};

use crate::{EngineError, container::seccomp};

/// Which system call filter.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) enum Seccomp {
    /// The default one.
    #[default]
    Default,
    /// None.
    Unconfined,
    /// The user's own: Docker's JSON.
    Profile(String),
}

/// What `--security-opt` asks for.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Options {
    /// The system call filter.
    pub seccomp: Seccomp,
    /// No way to more rights by execve.
    pub no_new_privileges: bool,
    /// `systempaths=unconfined`: nothing of /proc and /sys is masked or read-only.
    pub unmasked: bool,
    /// The AppArmor profile, which is loaded; none: unconfined.
    pub apparmor: Option<String>,
}

impl Options {
    /// Reads the list. What this host can't do is refused.
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
                ("seccomp", "unconfined") => options.seccomp = Seccomp::Unconfined,
                ("seccomp", "builtin" | "") => options.seccomp = Seccomp::Default,
                ("seccomp", profile) => {
                    // now, so that a mistake is told when the container is made
                    seccomp::parse(profile, &HashSet::new())?;
                    options.seccomp = Seccomp::Profile(profile.to_owned());
                }
                ("systempaths", "unconfined") => options.unmasked = true,
                ("apparmor", "unconfined" | "") => options.apparmor = None,
                ("apparmor", profile) => {
                    sluice_runtime::check_apparmor(profile)?;
                    options.apparmor = Some(profile.to_owned());
                }
                ("label", "disable") => {}
                ("label", _) => {
                    return Err(EngineError::not_offered(
                        "SELinux labels are not offered by this version",
                    ));
                }
                _ => return Err(invalid()),
            }
        }
        Ok(options)
    }

    /// The filter for a container with these capabilities, `default` unless the user says otherwise.
    pub fn filter(
        &self,
        capabilities: &HashSet<Capability>,
        privileged: bool,
    ) -> Result<Option<LinuxSeccomp>, EngineError> {
        match &self.seccomp {
            Seccomp::Profile(profile) => seccomp::parse(profile, capabilities).map(Some),
            Seccomp::Default if !privileged => Ok(Some(sluice_runtime::spec::default_seccomp_for(capabilities))),
            Seccomp::Default | Seccomp::Unconfined => Ok(None),
        }
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
        for option in ["seccomp=unconfined", "seccomp:unconfined"] {
            assert_eq!(parse(&[option]).unwrap().seccomp, Seccomp::Unconfined);
        }
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
        assert!(parse(&["apparmor=no-such-profile"]).is_err());
        assert!(parse(&["label=type:x"]).is_err());
    }

    #[test]
    fn a_privileged_container_has_a_filter_only_if_one_is_asked_for() {
        let none = HashSet::new();
        let asked = r#"seccomp={"defaultAction":"SCMP_ACT_ALLOW"}"#;
        assert!(parse(&[]).unwrap().filter(&none, true).unwrap().is_none());
        assert!(parse(&[]).unwrap().filter(&none, false).unwrap().is_some());
        assert!(parse(&[asked]).unwrap().filter(&none, true).unwrap().is_some());
        assert!(
            parse(&["seccomp=unconfined"])
                .unwrap()
                .filter(&none, false)
                .unwrap()
                .is_none()
        );
    }
}
