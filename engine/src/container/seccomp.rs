//! `--security-opt seccomp=FILE`: a profile in Docker's format, made into one in the OCI's.
//!
//! Docker's format says more than the OCI's: rules that hold only for who has a capability, on an architecture, from a kernel on; and
//! architectures that bring others along.

use std::collections::HashSet;

use oci_spec::runtime::{
    Arch, Capability, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompFilterFlag, LinuxSyscall,
};
use serde::Deserialize;

use crate::EngineError;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Profile {
    default_action: LinuxSeccompAction,
    default_errno_ret: Option<u32>,
    #[serde(default)]
    architectures: Vec<Arch>,
    #[serde(default)]
    arch_map: Vec<Architecture>,
    #[serde(default)]
    flags: Vec<LinuxSeccompFilterFlag>,
    listener_path: Option<String>,
    #[serde(default)]
    syscalls: Vec<Rule>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Architecture {
    architecture: Arch,
    #[serde(default)]
    sub_architectures: Option<Vec<Arch>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    /// The older way: one name.
    name: Option<String>,
    #[serde(default)]
    names: Vec<String>,
    action: LinuxSeccompAction,
    errno_ret: Option<u32>,
    #[serde(default)]
    args: Option<Vec<LinuxSeccompArg>>,
    #[serde(default)]
    includes: Condition,
    #[serde(default)]
    excludes: Condition,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Condition {
    caps: Vec<String>,
    /// Go's names: `amd64`, `x86`…
    arches: Vec<String>,
    min_kernel: Option<String>,
}

/// What this program was built for, in the profiles' words.
#[cfg(target_arch = "x86_64")]
const HERE: (&str, Arch) = ("amd64", Arch::ScmpArchX86_64);
/// What this program was built for, in the profiles' words.
#[cfg(target_arch = "aarch64")]
const HERE: (&str, Arch) = ("arm64", Arch::ScmpArchAarch64);

/// The profile for a container with the given bounding set.
pub(crate) fn parse(text: &str, capabilities: &HashSet<Capability>) -> Result<LinuxSeccomp, EngineError> {
    let invalid = |why: String| EngineError::invalid(format!("Decoding seccomp profile failed: {why}"));
    let mut profile: Profile = serde_json::from_str(text).map_err(|why| invalid(why.to_string()))?;
    if !profile.architectures.is_empty() && !profile.arch_map.is_empty() {
        return Err(invalid(
            "both 'architectures' and 'archMap' are specified in the seccomp profile, use either".to_owned(),
        ));
    }
    if profile.listener_path.is_some() {
        return Err(invalid("a listener ('listenerPath') is not supported".to_owned()));
    }
    if let Some(entry) = profile.arch_map.iter().find(|entry| entry.architecture == HERE.1) {
        profile.architectures.push(entry.architecture);
        profile.architectures.extend(entry.sub_architectures.iter().flatten());
    }
    let kernel = kernel();
    let mut rules = Vec::new();
    for rule in &profile.syscalls {
        if rule.name.is_some() && !rule.names.is_empty() {
            return Err(invalid(
                "'name' and 'names' are specified in the seccomp profile, use either".to_owned(),
            ));
        }
        if rule.applies(capabilities, kernel).map_err(&invalid)? {
            rules.push(rule.to_oci());
        }
    }
    let mut made = LinuxSeccomp::default();
    made.set_default_action(profile.default_action)
        .set_default_errno_ret(profile.default_errno_ret)
        .set_architectures((!profile.architectures.is_empty()).then_some(profile.architectures))
        .set_flags((!profile.flags.is_empty()).then_some(profile.flags))
        .set_syscalls(Some(rules));
    Ok(made)
}

impl Rule {
    fn applies(&self, capabilities: &HashSet<Capability>, kernel: (u32, u32)) -> Result<bool, String> {
        let is_here = |arches: &[String]| arches.iter().any(|arch| arch == HERE.0);
        let has = |cap: &String| capability(cap).is_some_and(|cap| capabilities.contains(&cap));
        let includes = &self.includes;
        if !includes.arches.is_empty() && !is_here(&includes.arches) {
            return Ok(false);
        }
        if is_here(&self.excludes.arches) || self.excludes.caps.iter().any(has) {
            return Ok(false);
        }
        if !includes.caps.iter().all(has) {
            return Ok(false);
        }
        if let Some(least) = &includes.min_kernel
            && kernel < version(least)?
        {
            return Ok(false);
        }
        if let Some(least) = &self.excludes.min_kernel
            && kernel >= version(least)?
        {
            return Ok(false);
        }
        Ok(true)
    }

    fn to_oci(&self) -> LinuxSyscall {
        let mut rule = LinuxSyscall::default();
        rule.set_names(self.name.iter().chain(&self.names).cloned().collect())
            .set_action(self.action)
            .set_errno_ret(self.errno_ret)
            .set_args(self.args.clone().filter(|args| !args.is_empty()));
        rule
    }
}

fn capability(name: &str) -> Option<Capability> {
    serde_json::from_value(name.into()).ok()
}

/// `4.8`.
fn version(text: &str) -> Result<(u32, u32), String> {
    let parse = || {
        let (major, minor) = text.split_once('.')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    };
    parse().ok_or_else(|| format!("invalid kernel version: {text}"))
}

/// The first two numbers of the running kernel's release.
fn kernel() -> (u32, u32) {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release
        .split(|letter: char| !letter.is_ascii_digit())
        .filter_map(|digits| digits.parse().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str, capabilities: &[Capability]) -> Vec<String> {
        let profile = parse(text, &capabilities.iter().copied().collect()).unwrap();
        let rules = profile.syscalls().clone().unwrap();
        rules.iter().flat_map(|rule| rule.names().clone()).collect()
    }

    const PROFILE: &str = r#"{
        "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1,
        "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]},
                    {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": null}],
        "syscalls": [
            {"names": ["read", "write"], "action": "SCMP_ACT_ALLOW", "args": null, "comment": "", "includes": {}, "excludes": {}},
            {"name": "chdir", "action": "SCMP_ACT_ALLOW", "args": []},
            {"names": ["mount"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
            {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38, "excludes": {"caps": ["CAP_SYS_ADMIN"]}},
            {"names": ["ptrace"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}},
            {"names": ["future"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "99.0"}},
            {"names": ["s390"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["s390x"]}}
        ]}"#;

    #[test]
    fn conditions_choose_the_rules() {
        assert_eq!(names(PROFILE, &[]), ["read", "write", "chdir", "clone3", "ptrace"]);
        assert_eq!(
            names(PROFILE, &[Capability::SysAdmin]),
            ["read", "write", "chdir", "mount", "ptrace"]
        );
    }

    #[test]
    fn what_is_no_profile_is_refused() {
        let refused = |text: &str| parse(text, &HashSet::new()).unwrap_err().message;
        assert!(refused("not json").starts_with("Decoding seccomp profile failed: "));
        assert!(refused(r#"{"defaultAction":"SCMP_ACT_PLAY"}"#).starts_with("Decoding seccomp profile failed: "));
        let both = r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86"],
            "archMap":[{"architecture":"SCMP_ARCH_X86_64"}]}"#;
        assert!(refused(both).contains("use either"));
    }
}
