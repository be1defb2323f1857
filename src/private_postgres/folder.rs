//! The data folder: who works on it, and what lies where.
//!
//! `checkback.lock` is held by the one service that works on the folder and says its process id;
//! `cluster/` is what initdb makes; `postgres.log` is the server's log. Only `cluster/` belongs to the server's
//! user, so that root never opens a file which that user could have replaced.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use super::account::Account;
use super::error::Error;

/// At this size the log is put aside when the server starts; one old log is kept.
const LOG_LIMIT: u64 = 8 * 1024 * 1024;
const LOG_LINES_SHOWN: usize = 20;
/// No error message reads more of the log than this.
const LOG_BYTES_READ: u64 = 64 * 1024;

/// The longest path of a socket's folder; the whole address may have about 100 bytes.
const LONGEST_SOCKET_FOLDER: usize = 80;
const SOCKET_FILES: [&str; 2] = [".s.PGSQL.5432", ".s.PGSQL.5432.lock"];

/// A data folder that this process, and no other, works on. Dropping it lets the next one in.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    lock: File,
    /// Where the last holder of the lock had its socket, when it could not remove it.
    pub(super) stale_socket: Option<PathBuf>,
}

impl Folder {
    /// Makes the folder if need be and takes its lock.
    pub(super) fn open(data_dir: &Path) -> Result<Self, Error> {
        let path = std::path::absolute(data_dir).map_err(Error::io("find", data_dir))?;
        create(&path)?;
        // The server is recognised by the folder it works in, which the system reports without symbolic links.
        let path = path.canonicalize().map_err(Error::io("find", &path))?;
        let file = path.join("checkback.lock");
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&file)
            .map_err(Error::io("open", &file))?;
        let taken = lock.try_lock();
        let mut said = String::new();
        lock.read_to_string(&mut said).map_err(Error::io("read", &file))?;
        let mut lines = said.lines();
        let process_id = lines.next().and_then(|line| line.parse().ok());
        match taken {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Error::InUse { data_dir: path, process_id }),
            Err(TryLockError::Error(source)) => return Err(Error::Io { doing: "lock", path: file, source }),
        }
        let stale_socket = lines.next().map(PathBuf::from);
        let folder = Self { path, lock, stale_socket };
        folder.note(folder.stale_socket.as_deref())?;
        Ok(folder)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn cluster(&self) -> PathBuf {
        self.path.join("cluster")
    }

    /// Where initdb works until it is done: a cluster is whole or not there.
    pub(super) fn unfinished_cluster(&self) -> PathBuf {
        // Named after the process: an initdb that outlived a killed service works in another folder.
        self.path.join(format!("unfinished-{}", std::process::id()))
    }

    /// Removes what a broken-off initdb left.
    pub(super) fn remove_unfinished(&self) {
        for entry in fs::read_dir(&self.path).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with("unfinished-") {
                // What cannot be removed now, because an initdb is still at it, is removed by the next start.
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }

    /// Writes down who holds the folder and where its socket is.
    pub(super) fn note(&self, socket: Option<&Path>) -> Result<(), Error> {
        let text = match socket {
            Some(socket) => format!("{}\n{}\n", std::process::id(), socket.display()),
            None => format!("{}\n", std::process::id()),
        };
        let mut file = &self.lock;
        file.set_len(0)
            .and_then(|()| file.seek(SeekFrom::Start(0)))
            .and_then(|_| file.write_all(text.as_bytes()))
            .map_err(Error::io("write", self.path.join("checkback.lock")))
    }

    pub(super) fn log(&self) -> PathBuf {
        self.path.join("postgres.log")
    }

    /// Opens the log to append to it, and says where this start begins.
    pub(super) fn open_log(&self) -> Result<(File, u64), Error> {
        let path = self.log();
        if fs::metadata(&path).is_ok_and(|found| found.len() > LOG_LIMIT) {
            fs::rename(&path, self.path.join("postgres.log.1")).map_err(Error::io("put aside", &path))?;
        }
        let file =
            OpenOptions::new().append(true).create(true).mode(0o600).open(&path).map_err(Error::io("open", &path))?;
        let start = file.metadata().map_err(Error::io("look at", &path))?.len();
        Ok((file, start))
    }

    /// The last lines of the log since `start`.
    pub(super) fn log_tail(&self, start: u64) -> String {
        let read = || -> io::Result<String> {
            let mut file = File::open(self.log())?;
            let end = file.metadata()?.len();
            file.seek(SeekFrom::Start(start.max(end.saturating_sub(LOG_BYTES_READ))))?;
            let mut bytes = Vec::new();
            file.take(LOG_BYTES_READ).read_to_end(&mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        match read() {
            Ok(text) if text.trim().is_empty() => "(nothing)".to_owned(),
            Ok(text) => last_lines(&text),
            Err(error) => format!("(the log cannot be read: {error})"),
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Closing would do, were it not for a child between fork and exec that holds a copy of the descriptor.
        let _ = self.lock.unlock();
    }
}

pub(super) fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.trim_end().lines().collect();
    lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n")
}

fn create(path: &Path) -> Result<(), Error> {
    if path.is_dir() {
        return Ok(());
    }
    if let Err(source) = fs::create_dir_all(path) {
        if source.kind() == io::ErrorKind::PermissionDenied {
            let ourselves = Account::choose(path, None)?;
            let remedy = "or give another folder in database.data_dir";
            if let Some(error) = ourselves.unreachable(path, remedy) {
                return Err(error);
            }
        }
        return Err(Error::Io { doing: "create the folder", path: path.to_owned(), source });
    }
    // Root's folder must let the server's user pass to the cluster in it; nobody else may list it.
    let mode = if rustix::process::geteuid().is_root() { 0o711 } else { 0o700 };
    fs::set_permissions(path, Permissions::from_mode(mode)).map_err(Error::io("set the mode of", path))
}

/// A fresh folder for the socket that only the server's user (and root) can enter: being able to enter it is
/// what lets a client in.
pub(super) fn create_socket_folder(account: &Account, data_dir: &Path) -> Result<PathBuf, Error> {
    let parents = [Path::new("/tmp"), Path::new("/var/tmp"), data_dir];
    for parent in parents {
        for number in 0..1000 {
            let path = parent.join(format!("checkback-{}-{number}", std::process::id()));
            if path.as_os_str().len() > LONGEST_SOCKET_FOLDER {
                break;
            }
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => {
                    account.own(&path)?;
                    return Ok(path);
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(_) => break,
            }
        }
    }
    let tried = parents.map(|parent| parent.display().to_string()).join(", ");
    Err(Error::NoSocketFolder { tried })
}

/// Removes the folder of a socket at which nobody listens, and nothing else that may be in it.
pub(super) fn remove_socket_folder(path: &Path) {
    // Our server is gone by now, so whoever answers is another's, who came by the same name.
    if UnixStream::connect(path.join(SOCKET_FILES[0])).is_ok() {
        return;
    }
    for file in SOCKET_FILES {
        let _ = fs::remove_file(path.join(file));
    }
    let _ = fs::remove_dir(path);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_lines_of_this_start_are_shown() {
        let root = tempfile::tempdir().unwrap();
        let folder = Folder::open(root.path()).unwrap();
        fs::write(folder.log(), "an earlier start\n").unwrap();
        let (mut log, start) = folder.open_log().unwrap();
        assert_eq!(folder.log_tail(start), "(nothing)");
        for number in 1..=30 {
            writeln!(log, "line {number}").unwrap();
        }
        let tail = folder.log_tail(start);
        assert_eq!(tail.lines().next(), Some("line 11"));
        assert_eq!(tail.lines().last(), Some("line 30"));
    }

    #[test]
    fn a_large_log_is_put_aside() {
        let root = tempfile::tempdir().unwrap();
        let folder = Folder::open(root.path()).unwrap();
        File::create(folder.log()).unwrap().set_len(LOG_LIMIT + 1).unwrap();
        let (_, start) = folder.open_log().unwrap();
        assert_eq!(start, 0);
        assert_eq!(fs::metadata(root.path().join("postgres.log.1")).unwrap().len(), LOG_LIMIT + 1);
    }

    #[test]
    fn a_socket_is_removed_only_when_nobody_listens() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("checkback-1-0");
        fs::create_dir(&folder).unwrap();
        let listener = std::os::unix::net::UnixListener::bind(folder.join(SOCKET_FILES[0])).unwrap();
        remove_socket_folder(&folder);
        assert!(folder.join(SOCKET_FILES[0]).exists());
        drop(listener);
        remove_socket_folder(&folder);
        assert!(!folder.exists());
    }

    #[test]
    fn the_lock_says_who_holds_the_folder_and_is_free_again_after_it() {
        let root = tempfile::tempdir().unwrap();
        let held = Folder::open(root.path()).unwrap();
        let error = Folder::open(root.path()).unwrap_err();
        assert!(matches!(error, Error::InUse { process_id: Some(id), .. } if id == std::process::id()), "{error}");
        held.note(Some(Path::new("/tmp/checkback-1-0"))).unwrap();
        drop(held);
        let next = Folder::open(root.path()).unwrap();
        assert_eq!(next.stale_socket.as_deref(), Some(Path::new("/tmp/checkback-1-0")));
    }
}
