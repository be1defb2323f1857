//! The user whom the server runs as, and whether that user can reach a folder.
//!
//! Postgres refuses root. Called as root, the server runs as the owner of its data, or for new data as
//! `postgres`, else `nobody`. Called by anybody else, it runs as the caller.
//!
//! Supplementary groups: `CommandExt::uid` clears them when root switches the user (it calls `setgroups` with
//! an empty list), so nothing more is needed to drop root's groups.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, lchown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::binaries::Binaries;
use super::error::Error;

/// Who runs the server's programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Account {
    uid: u32,
    gid: u32,
    name: String,
    /// False: the caller runs them under its own name.
    switch: bool,
    path: Option<OsString>,
}

impl Account {
    /// Picks the user for the data in `cluster`, which need not exist yet. `path` is the PATH handed to the server.
    pub(super) fn choose(cluster: &Path, path: Option<OsString>) -> Result<Self, Error> {
        let (process, group) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let owner = fs::symlink_metadata(cluster).ok().map(|metadata| (metadata.uid(), metadata.gid()));
        let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
        if process != 0 {
            return match owner {
                Some((owner, _)) if owner != process => {
                    Err(Error::NotOwner { folder: cluster.to_owned(), owner, process })
                }
                _ => Ok(Self { uid: process, gid: group, name: name_of(&users, process), switch: false, path }),
            };
        }
        let (uid, gid) = match owner {
            Some((uid, gid)) if uid != 0 => (uid, gid),
            _ => ids_of(&users, "postgres").or_else(|| ids_of(&users, "nobody")).ok_or(Error::NoUser)?,
        };
        Ok(Self { uid, gid, name: name_of(&users, uid), switch: true, path })
    }

    /// A program of the server: nothing of our environment, which may hold secrets, reaches it, and Ctrl-C in a
    /// terminal does not, so that it lives until the service has finished its work.
    pub(super) fn command(&self, program: &Path, folder: &Path) -> Command {
        let mut command = Command::new(program);
        command.env_clear().env("LC_ALL", "C").current_dir(folder).stdin(Stdio::null()).process_group(0);
        if let Some(path) = &self.path {
            command.env("PATH", path);
        }
        if self.switch {
            command.uid(self.uid).gid(self.gid);
        }
        command
    }

    /// Hands `path`, not what is in it, to this user.
    pub(super) fn own(&self, path: &Path) -> Result<(), Error> {
        if self.switch {
            lchown(path, Some(self.uid), Some(self.gid)).map_err(Error::io("change the owner of", path))?;
        }
        Ok(())
    }

    /// Hands `folder` and everything in it to this user, where it is not theirs yet.
    pub(super) fn own_all(&self, folder: &Path) -> Result<(), Error> {
        let metadata = fs::symlink_metadata(folder).map_err(Error::io("look at", folder))?;
        if !self.switch || metadata.uid() == self.uid {
            return Ok(());
        }
        if metadata.is_dir() {
            for entry in fs::read_dir(folder).map_err(Error::io("list", folder))? {
                self.own_all(&entry.map_err(Error::io("list", folder))?.path())?;
            }
        }
        // Last, so that work broken off half-way is taken up again.
        self.own(folder)
    }

    /// Runs a harmless program as this user in `folder`. Asking the system itself honours whatever rules it has;
    /// the mode bits only serve to name the folder that is in the way.
    pub(super) fn check_reach(&self, folder: &Path, binaries: &Binaries) -> Result<(), Error> {
        let program = binaries.program("postgres");
        let tried =
            self.command(&program, folder).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        match tried {
            Ok(_) => Ok(()),
            Err(refused) if refused.kind() == io::ErrorKind::PermissionDenied => Err(self
                .unreachable(folder, "or give another folder in database.data_dir")
                .or_else(|| self.unreachable(&program, "or name other binaries in CHECKBACK_POSTGRES_BIN"))
                .unwrap_or_else(|| Error::CannotSwitchUser { user: self.shown(), source: refused })),
            Err(other) => Err(Error::Io { doing: "run", path: program, source: other }),
        }
    }

    /// The first folder above `target`, or `target` itself, that this user may not enter.
    pub(super) fn unreachable(&self, target: &Path, remedy: &'static str) -> Option<Error> {
        let mut above: Vec<&Path> = target.ancestors().filter(|folder| !folder.as_os_str().is_empty()).collect();
        above.reverse();
        let folder: PathBuf = above
            .into_iter()
            .find(|folder| {
                fs::metadata(folder)
                    .is_ok_and(|found| found.is_dir() && !self.may_enter(found.mode(), found.uid(), found.gid()))
            })?
            .to_owned();
        Some(Error::Unreachable { folder, target: target.to_owned(), user: self.shown(), remedy })
    }

    fn may_enter(&self, mode: u32, owner: u32, group: u32) -> bool {
        let bit = if owner == self.uid {
            0o100
        } else if group == self.gid {
            0o010
        } else {
            0o001
        };
        mode & bit != 0
    }

    fn shown(&self) -> String {
        format!("user {}", self.name)
    }
}

fn fields(users: &str) -> impl Iterator<Item = (&str, u32, u32)> {
    users.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let uid = number(fields.nth(1)?)?;
        Some((name, uid, number(fields.next()?)?))
    })
}

/// macOS writes the ids of `nobody` as -2.
fn number(text: &str) -> Option<u32> {
    text.parse().ok().or_else(|| text.parse::<i32>().ok().map(i32::cast_unsigned))
}

fn ids_of(users: &str, name: &str) -> Option<(u32, u32)> {
    fields(users).find(|user| user.0 == name && user.1 != 0).map(|user| (user.1, user.2))
}

fn name_of(users: &str, uid: u32) -> String {
    fields(users).find(|user| user.1 == uid).map_or_else(|| format!("id {uid}"), |user| user.0.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const USERS: &str = "root:x:0:0:root:/root:/bin/sh\n# broken\npostgres:x:101:104:,,,:/var/lib:/bin/bash\nnobody:*:-2:-2::/:/bin/false\n";

    #[test]
    fn users_are_read_from_the_password_file() {
        assert_eq!(ids_of(USERS, "postgres"), Some((101, 104)));
        assert_eq!(ids_of(USERS, "nobody"), Some((u32::MAX - 1, u32::MAX - 1)));
        assert_eq!(ids_of(USERS, "somebody"), None);
        assert_eq!(name_of(USERS, 101), "postgres");
        assert_eq!(name_of(USERS, 4711), "id 4711");
    }

    #[test]
    fn root_is_never_picked_whatever_it_is_called() {
        assert_eq!(ids_of("postgres:x:0:0::/:/bin/sh\n", "postgres"), None);
    }

    #[test]
    fn a_folder_is_entered_by_the_bits_of_the_class_that_applies() {
        let account = Account { uid: 101, gid: 104, name: "postgres".to_owned(), switch: true, path: None };
        assert!(account.may_enter(0o711, 0, 0));
        assert!(!account.may_enter(0o700, 0, 0));
        assert!(account.may_enter(0o710, 0, 104));
        assert!(!account.may_enter(0o701, 0, 104));
        assert!(account.may_enter(0o700, 101, 0));
        assert!(!account.may_enter(0o077, 101, 104));
    }
}
