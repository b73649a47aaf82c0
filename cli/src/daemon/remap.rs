//! `--userns-remap`: whose the users of containers are on the host, by /etc/subuid and /etc/subgid.

use std::{fs, path::Path, process::Command};

use sluice_model::IdMap;

use crate::Trouble;

/// Who is meant by `default`, as in Docker.
const DEFAULT: &str = "dockremap";
/// Where ranges are looked for that nobody has, and how many ids one is made of.
const FIRST_ID: u32 = 100_000;
const COUNT: u32 = 65_536;

/// The system's lists of users, groups and what is subordinate to them.
struct Lists {
    passwd: String,
    group: String,
    subuid: String,
    subgid: String,
}

/// The ids that `given` (`default`, `USER`, `USER:GROUP`, by name or number) stands for.
pub(crate) fn ids(given: &str) -> Result<IdMap, Trouble> {
    let mut lists = Lists::read()?;
    if given == "default" && !lists.knows_default() {
        make_default(&lists)?;
        lists = Lists::read()?;
    }
    lists.ids(given)
}

impl Lists {
    fn read() -> Result<Self, Trouble> {
        let read = |path: &str| match fs::read_to_string(path) {
            Err(why) if why.kind() != std::io::ErrorKind::NotFound => {
                Err(Trouble::new(format_args!("read {path}"), why))
            }
            other => Ok(other.unwrap_or_default()),
        };
        Ok(Self {
            passwd: read("/etc/passwd")?,
            group: read("/etc/group")?,
            subuid: read("/etc/subuid")?,
            subgid: read("/etc/subgid")?,
        })
    }

    fn knows_default(&self) -> bool {
        let has = |list: &str| !ranges(list, DEFAULT, None).is_empty();
        find(&self.passwd, DEFAULT).is_some() && has(&self.subuid) && has(&self.subgid)
    }

    fn ids(&self, given: &str) -> Result<IdMap, Trouble> {
        let wrong = |why: String| Trouble(format!("invalid --userns-remap '{given}': {why}"));
        let (user, group) = match given.split_once(':') {
            _ if given == "default" => (DEFAULT, None),
            Some((user, group)) => (user, Some(group)),
            None => (given, None),
        };
        let (user, uid) = find(&self.passwd, user).ok_or_else(|| wrong(format!("there is no user {user}")))?;
        if uid == 0 {
            return Err(wrong("root cannot be remapped to itself".to_owned()));
        }
        // without a group, the one that is called as the user is
        let group = group.unwrap_or(user);
        let (group, gid) = find(&self.group, group).ok_or_else(|| wrong(format!("there is no group {group}")))?;
        let of = |list: &str, file: &str, owners: &[(&str, u32)]| {
            let mut found = owners.iter().map(|(name, id)| ranges(list, name, Some(*id)));
            match found.find(|ranges| !ranges.is_empty()) {
                None => Err(wrong(format!("no ranges are given to {user} in {file}"))),
                Some(found) => Ok(IdMap::in_a_row(found)),
            }
        };
        Ok(IdMap {
            users: of(&self.subuid, "/etc/subuid", &[(user, uid)])?,
            // Docker looks for the user here too
            groups: of(&self.subgid, "/etc/subgid", &[(user, uid), (group, gid)])?,
        })
    }
}

/// Name and id in a list such as /etc/passwd, by either.
fn find<'a>(list: &'a str, wanted: &str) -> Option<(&'a str, u32)> {
    let lines = || {
        list.lines().filter_map(|line| {
            let mut fields = line.split(':');
            Some((fields.next()?, fields.nth(1)?.parse::<u32>().ok()?))
        })
    };
    lines()
        .find(|(name, _)| *name == wanted)
        .or_else(|| lines().find(|(_, id)| Ok(*id) == wanted.parse()))
}

/// First id and count of all ranges that somebody has.
fn ranges(list: &str, name: &str, id: Option<u32>) -> Vec<(u32, u32)> {
    let lines = list.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let (owner, first, count) = (fields.next()?, fields.next()?, fields.next()?);
        let is_his = owner == name || id.is_some_and(|id| Ok(id) == owner.parse());
        let range = (first.parse().ok()?, count.parse().ok()?);
        is_his.then_some(range)
    });
    lines.filter(|(_, count)| *count > 0).collect()
}

/// The first id behind all ranges that anybody has.
fn free(list: &str) -> u32 {
    let ends = list.lines().filter_map(|line| {
        let mut fields = line.trim().split(':').skip(1);
        let (first, count): (u32, u32) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        first.checked_add(count)
    });
    ends.fold(FIRST_ID, u32::max)
}

/// Makes what Docker makes for `default`: a user of the system who does nothing, and ranges of ids of his.
fn make_default(lists: &Lists) -> Result<(), Trouble> {
    if find(&lists.passwd, DEFAULT).is_none() {
        run(Command::new("useradd").args([
            "--system",
            "--user-group",
            "--no-create-home",
            "--shell",
            "/bin/false",
            DEFAULT,
        ]))?;
    }
    for (path, list) in [("/etc/subuid", &lists.subuid), ("/etc/subgid", &lists.subgid)] {
        if ranges(list, DEFAULT, None).is_empty() {
            let first = free(list);
            let range = format!("{first}-{}", first.saturating_add(COUNT - 1));
            let option = match path.ends_with("uid") {
                true => "--add-subuids",
                false => "--add-subgids",
            };
            // the program wants the list to be there
            if !Path::new(path).exists() {
                fs::write(path, "").map_err(|why| Trouble::new(format_args!("make {path}"), why))?;
            }
            run(Command::new("usermod").args([option, &range, DEFAULT]))?;
        }
    }
    Ok(())
}

fn run(command: &mut Command) -> Result<(), Trouble> {
    let program = command.get_program().to_string_lossy().into_owned();
    let trouble = |why: String| {
        Trouble(format!(
            "cannot make the user {DEFAULT} for --userns-remap default: {program}: {why}"
        ))
    };
    let output = command.output().map_err(|why| trouble(why.to_string()))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(trouble(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lists() -> Lists {
        Lists {
            passwd: "root:x:0:0::/:/bin/sh\nada:x:1000:1000::/:/bin/sh\nbob:x:1001:1001::/:/bin/sh\n".into(),
            group: "root:x:0:\nada:x:1000:\nstaff:x:50:ada\n".into(),
            subuid: "ada:200000:10\nbob:100000:65536\n1000:500:5\n".into(),
            subgid: "ada:200000:10\nstaff:300000:7\n".into(),
        }
    }

    #[test]
    fn ranges_are_found_by_name_and_by_number() {
        let map = lists().ids("ada").unwrap();
        assert_eq!(map.root(), Some((200_000, 200_000)));
        assert_eq!(map.users.iter().map(|range| range.count).collect::<Vec<_>>(), [10, 5]);
        assert_eq!(lists().ids("1000:staff").unwrap().root(), Some((200_000, 200_000)));
        assert_eq!(lists().ids("bob:50").unwrap().root(), Some((100_000, 300_000)));
    }

    #[test]
    fn who_has_no_ids_to_give_is_refused() {
        let told = |given: &str| lists().ids(given).unwrap_err().0;
        assert!(told("eve").ends_with("there is no user eve"));
        assert!(told("ada:eve").ends_with("there is no group eve"));
        assert!(told("bob:root").ends_with("no ranges are given to bob in /etc/subgid"));
        assert!(told("root").contains("itself"));
    }

    #[test]
    fn new_ranges_lie_behind_all_others() {
        assert_eq!((free(""), free(&lists().subuid)), (100_000, 200_010));
    }
}
