//! Which capabilities a container gets: Docker's fourteen, more or fewer by the user's word.

use std::collections::BTreeSet;

use oci_spec::runtime::Capability;

use crate::EngineError;

/// What Docker gives every container.
const DEFAULT: [&str; 14] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// All of Linux's, in the order of their numbers.
const ALL: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// The container's capabilities, by name without CAP_, sorted. `ALL` may stand in both lists; what is dropped by name wins over what is added by
/// `ALL`, what is added by name wins over `ALL` dropped.
pub(crate) fn resolve(add: &[String], drop: &[String], privileged: bool) -> Result<Vec<&'static str>, EngineError> {
    let add = known(add, "CapAdd")?;
    let drop = known(drop, "CapDrop")?;
    if privileged {
        return Ok(ALL.to_vec());
    }
    let all = |list: &[&str]| list.contains(&"ALL");
    let mut set: BTreeSet<&'static str> = if all(&drop) {
        BTreeSet::new()
    } else if all(&add) {
        ALL.into()
    } else {
        DEFAULT.into()
    };
    for name in drop.iter().filter(|name| **name != "ALL") {
        set.remove(name);
    }
    set.extend(add.iter().filter(|name| **name != "ALL"));
    if all(&add) && all(&drop) {
        set.extend(ALL);
    }
    Ok(set.into_iter().collect())
}

/// The same in the words of the OCI's crate. A capability that this crate does not know yet can't be given.
pub(crate) fn to_oci(names: &[&str]) -> Vec<Capability> {
    names
        .iter()
        .filter_map(|name| serde_json::from_value(format!("CAP_{name}").into()).ok())
        .collect()
}

fn known(names: &[String], what: &str) -> Result<Vec<&'static str>, EngineError> {
    let find = |given: &String| {
        let upper = given.to_ascii_uppercase();
        let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
        if name == "ALL" {
            return Ok("ALL");
        }
        ALL.into_iter()
            .find(|known| *known == name)
            .ok_or_else(|| EngineError::invalid(format!("invalid {what}: unknown capability: \"CAP_{name}\"")))
    };
    names.iter().map(find).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn without_a_word_it_is_dockers_fourteen() {
        assert_eq!(resolve(&[], &[], false).unwrap(), DEFAULT);
    }

    #[test]
    fn single_ones_are_added_and_dropped_with_and_without_cap() {
        let set = resolve(&words(&["net_admin"]), &words(&["CAP_NET_RAW"]), false).unwrap();
        assert!(set.contains(&"NET_ADMIN") && !set.contains(&"NET_RAW") && set.len() == 14);
    }

    #[test]
    fn all_can_be_added_and_dropped() {
        assert_eq!(resolve(&words(&["ALL"]), &[], false).unwrap().len(), 41);
        assert_eq!(
            resolve(&words(&["ALL"]), &words(&["SYS_ADMIN"]), false).unwrap().len(),
            40
        );
        assert_eq!(resolve(&words(&["CHOWN"]), &words(&["all"]), false).unwrap(), ["CHOWN"]);
        assert_eq!(resolve(&[], &[], true).unwrap().len(), 41);
    }

    #[test]
    fn an_unknown_one_is_refused_in_dockers_words() {
        let error = resolve(&words(&["FLY"]), &[], false).unwrap_err();
        assert_eq!(error.message, "invalid CapAdd: unknown capability: \"CAP_FLY\"");
    }

    #[test]
    fn the_oci_crate_knows_them_all() {
        assert_eq!(to_oci(&ALL).len(), ALL.len());
    }
}
