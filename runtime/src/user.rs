//! Users by name, as the files of a root file system have them.

use std::{
    io::{self, Read},
    path::Path,
};

use crate::RuntimeError;

/// Longest passwd or group file that is read, in bytes: an image could hold one without end.
const LONGEST_FILE: u64 = 16 << 20;
/// What a number in place of a name may be.
const HIGHEST_ID: i64 = i32::MAX as i64;

/// Who a process will be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Groups that list the user as a member; none when a group was asked for.
    pub additional_gids: Vec<u32>,
    /// Home directory; `/` when none is known.
    pub home: String,
}

/// Finds what Docker would make of `user` (`name`, `name:group`, `uid`, `uid:gid`, or nothing for root) in a root file system.
///
/// Files are resolved within `rootfs`, whatever links are in it. A number need not be in them, a name must.
pub fn resolve_user(rootfs: &Path, user: &str) -> Result<User, RuntimeError> {
    let passwd = read_in(rootfs, "etc/passwd")?;
    let group = read_in(rootfs, "etc/group")?;
    resolve(&passwd, &group, user)
}

/// Finds what Docker would make of groups (names or numbers) in a root file system. A number need not be in its files, a name must.
pub fn resolve_groups(rootfs: &Path, groups: &[String]) -> Result<Vec<u32>, RuntimeError> {
    if groups.is_empty() {
        return Ok(Vec::new());
    }
    let text = read_in(rootfs, "etc/group")?;
    groups.iter().map(|asked| group(&text, asked)).collect()
}

/// The number of a group. A name that looks like a number is a name first.
fn group(text: &str, asked: &str) -> Result<u32, RuntimeError> {
    let asked_number = number(asked)?;
    let found = group_lines(text)
        .find(|(name, _, _)| *name == asked)
        .or_else(|| group_lines(text).find(|(_, gid, _)| Some(*gid) == asked_number));
    found.map(|(_, gid, _)| gid).or(asked_number).ok_or_else(|| {
        RuntimeError::NoSuchUser(format!(
            "unable to find group {asked}: no matching entries in group file"
        ))
    })
}

/// The text of a file below the root; empty when there is none.
fn read_in(rootfs: &Path, name: &str) -> Result<String, RuntimeError> {
    let failed = |error: String| RuntimeError::Failed(format!("read {name} in {}: {error}", rootfs.display()));
    let root = pathrs::Root::open(rootfs).map_err(|error| failed(error.to_string()))?;
    let is_missing = |error: &pathrs::error::Error| {
        matches!(
            error.kind(),
            pathrs::error::ErrorKind::OsError(Some(libc::ENOENT | libc::ENOTDIR))
        )
    };
    // Looked at before it is opened for reading: opening a fifo would wait for a writer.
    let handle = match root.resolve(name) {
        Err(error) if is_missing(&error) => return Ok(String::new()),
        other => other.map_err(|error| failed(error.to_string()))?,
    };
    let status = crate::syscall::fstat(std::os::fd::AsFd::as_fd(&handle)).map_err(|error| failed(error.to_string()))?;
    if status.st_mode & libc::S_IFMT != libc::S_IFREG {
        return Err(failed("it is not a file".to_owned()));
    }
    let file = handle
        .reopen(pathrs::flags::OpenFlags::O_RDONLY | pathrs::flags::OpenFlags::O_CLOEXEC)
        .map_err(|error| failed(error.to_string()))?;
    let mut bytes = Vec::new();
    file.take(LONGEST_FILE)
        .read_to_end(&mut bytes)
        .map_err(|error: io::Error| failed(error.to_string()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

struct PasswdLine<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

fn passwd_lines(text: &str) -> impl Iterator<Item = PasswdLine<'_>> {
    text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        Some(PasswdLine {
            name,
            uid,
            gid,
            home: fields.nth(1).unwrap_or_default(),
        })
    })
}

/// Name, id and members of each group.
fn group_lines(text: &str) -> impl Iterator<Item = (&str, u32, &str)> {
    text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let gid = fields.nth(1)?.parse().ok()?;
        Some((name, gid, fields.next().unwrap_or_default()))
    })
}

fn number(text: &str) -> Result<Option<u32>, RuntimeError> {
    let Ok(number) = text.parse::<i64>() else {
        return Ok(None);
    };
    if !(0..=HIGHEST_ID).contains(&number) {
        return Err(RuntimeError::NoSuchUser(
            "uids and gids must be in range 0-2147483647".to_owned(),
        ));
    }
    Ok(u32::try_from(number).ok())
}

fn resolve(passwd: &str, group: &str, asked: &str) -> Result<User, RuntimeError> {
    let (user, asked_group) = asked.split_once(':').unwrap_or((asked, ""));
    let user_number = if user.is_empty() { Some(0) } else { number(user)? };
    // A name that looks like a number is a name first.
    let line = passwd_lines(passwd)
        .find(|line| line.name == user)
        .or_else(|| passwd_lines(passwd).find(|line| Some(line.uid) == user_number));
    let (name, uid, gid, home) = match (line, user_number) {
        (Some(line), _) => (line.name, line.uid, line.gid, line.home),
        (None, Some(uid)) => ("", uid, 0, ""),
        (None, None) => {
            return Err(RuntimeError::NoSuchUser(format!(
                "unable to find user {user}: no matching entries in passwd file"
            )));
        }
    };
    let home = if home.is_empty() { "/" } else { home }.to_owned();
    if asked_group.is_empty() {
        let is_member = |members: &str| !name.is_empty() && members.split(',').any(|member| member == name);
        let groups = group_lines(group).filter(|(_, _, members)| is_member(members));
        return Ok(User {
            uid,
            gid,
            additional_gids: groups.map(|(_, gid, _)| gid).collect(),
            home,
        });
    }
    let gid = self::group(group, asked_group)?;
    Ok(User {
        uid,
        gid,
        additional_gids: Vec::new(),
        home,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\nweb:x:33:33:www:/var/www:/bin/false\n1234:x:9:8::/nine:\nbroken\n";
    const GROUP: &str = "root:x:0:\nweb:x:33:\naudio:x:29:web,root\nvideo:x:44:root\n";

    fn found(asked: &str) -> (u32, u32, Vec<u32>, String) {
        let User {
            uid,
            gid,
            additional_gids,
            home,
        } = resolve(PASSWD, GROUP, asked).unwrap();
        (uid, gid, additional_gids, home)
    }

    #[test]
    fn names_and_numbers_are_understood_as_docker_does() {
        assert_eq!(found(""), (0, 0, vec![29, 44], "/root".to_owned()));
        assert_eq!(found("web"), (33, 33, vec![29], "/var/www".to_owned()));
        assert_eq!(found("33"), (33, 33, vec![29], "/var/www".to_owned()));
        assert_eq!(found("web:audio"), (33, 29, vec![], "/var/www".to_owned()));
        assert_eq!(found("7:7"), (7, 7, vec![], "/".to_owned()));
        assert_eq!(found("7"), (7, 0, vec![], "/".to_owned()));
        assert_eq!(found("1234"), (9, 8, vec![], "/nine".to_owned()));
    }

    #[test]
    fn who_is_not_there_is_told_in_dockers_words() {
        let told = |asked: &str| resolve(PASSWD, GROUP, asked).unwrap_err().to_string();
        assert_eq!(
            told("nobody"),
            "unable to find user nobody: no matching entries in passwd file"
        );
        assert_eq!(
            told("web:nogroup"),
            "unable to find group nogroup: no matching entries in group file"
        );
        assert_eq!(told("-1"), "uids and gids must be in range 0-2147483647");
    }
}
