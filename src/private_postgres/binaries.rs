//! Finding the installed server binaries.
//!
//! The order is: the folder named by the caller, PATH, `pg_config --bindir`, then the places where the packages
//! of Debian, Fedora and Homebrew put them, newest version first. A named folder is the only one looked at.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::error::Error;

/// The oldest version the schema is written for.
pub const OLDEST_MAJOR: u32 = 14;

/// Where to look; the caller reads the environment.
#[derive(Clone, Debug, Default)]
pub struct Search {
    /// `CHECKBACK_POSTGRES_BIN`: the folder of `initdb` and `postgres`.
    pub explicit: Option<PathBuf>,
    /// `PATH`.
    pub path: Option<OsString>,
}

/// A folder of server binaries, and their version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Binaries {
    pub(super) folder: PathBuf,
    pub(super) major: u32,
    version: String,
}

impl Binaries {
    pub(super) fn program(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// `None` when the folder lacks a program or its `postgres` does not say a version.
    fn look_at(folder: &Path) -> Option<Self> {
        if !holds_programs(folder) {
            return None;
        }
        // Links in a folder of the PATH lead to the folder that holds all programs of that version.
        let resolved = fs::canonicalize(folder.join("postgres")).ok();
        let home = resolved.as_deref().and_then(Path::parent).filter(|home| holds_programs(home));
        let folder = home.unwrap_or(folder);
        let version = first_line(Command::new(folder.join("postgres")).arg("--version"))?;
        let version = version.split_whitespace().nth(2)?.to_owned();
        let major = leading_number(&version)?;
        Some(Self { folder: folder.to_owned(), major, version })
    }
}

impl Search {
    /// Binaries that fit: of version `written_by` when there is data already, else the first that is new enough.
    pub(super) fn find(&self, cluster: &Path, written_by: Option<u32>) -> Result<Binaries, Error> {
        let folders = match &self.explicit {
            Some(folder) => vec![folder.clone()],
            None => self.candidates(Path::new("/")),
        };
        let mut found: Vec<Binaries> = Vec::new();
        for folder in folders {
            let Some(binaries) = Binaries::look_at(&folder) else { continue };
            if binaries.major >= OLDEST_MAJOR && written_by.is_none_or(|major| major == binaries.major) {
                return Ok(binaries);
            }
            found.push(binaries);
        }
        let too_old = match written_by {
            Some(major) => found.iter().find(|binaries| binaries.major == major),
            None => found.first(),
        };
        Err(match (too_old, written_by, &self.explicit) {
            (Some(old), ..) => Error::TooOld { version: old.version.clone(), folder: old.folder.clone() },
            (None, Some(written_by), _) if !found.is_empty() => {
                Error::OtherVersion { folder: cluster.to_owned(), written_by, found: list(&found) }
            }
            (None, _, Some(folder)) => Error::ExplicitNotFound { folder: folder.clone() },
            (None, _, None) => Error::NotFound,
        })
    }

    /// Folders to look at, best first. `root` is `/` but in tests.
    fn candidates(&self, root: &Path) -> Vec<PathBuf> {
        // A relative entry would depend on the folder the service is started in.
        let in_path: Vec<PathBuf> = self
            .path
            .iter()
            .flat_map(|path| path.as_bytes().split(|byte| *byte == b':'))
            .map(|folder| PathBuf::from(OsStr::from_bytes(folder)))
            .filter(|folder| folder.is_absolute())
            .collect();
        let configured = in_path
            .iter()
            .map(|folder| folder.join("pg_config"))
            .find(|program| program.is_file())
            .and_then(|program| first_line(Command::new(program).arg("--bindir")))
            .map(PathBuf::from);
        let mut candidates = in_path;
        candidates.extend(configured);
        for (parent, prefix, suffix) in [
            ("usr/lib/postgresql", "", "bin"),
            ("usr", "pgsql-", "bin"),
            ("opt/homebrew/opt", "postgresql", "bin"),
            ("usr/local/opt", "postgresql", "bin"),
        ] {
            candidates.extend(versions_in(&root.join(parent), prefix).into_iter().map(|folder| folder.join(suffix)));
        }
        candidates
    }
}

/// The folders in `parent` whose name is `prefix` and a version, newest first.
fn versions_in(parent: &Path, prefix: &str) -> Vec<PathBuf> {
    let mut folders: Vec<(Option<u32>, PathBuf)> = fs::read_dir(parent)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let version = name.strip_prefix(prefix)?.trim_start_matches('@');
            // Homebrew's plain `postgresql` has no number; an unrelated folder has other letters.
            (version.is_empty() || version.starts_with(|c: char| c.is_ascii_digit()))
                .then(|| (leading_number(version), entry.path()))
        })
        .collect();
    folders.sort_unstable_by(|a, b| b.cmp(a));
    folders.into_iter().map(|(_, folder)| folder).collect()
}

fn holds_programs(folder: &Path) -> bool {
    ["initdb", "postgres"].iter().all(|name| folder.join(name).is_file())
}

fn leading_number(text: &str) -> Option<u32> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text[..digits].parse().ok()
}

fn first_line(command: &mut Command) -> Option<String> {
    let output = command.env_clear().env("LC_ALL", "C").stdin(Stdio::null()).output().ok()?;
    let line = String::from_utf8(output.stdout).ok()?.lines().next()?.trim().to_owned();
    (output.status.success() && !line.is_empty()).then_some(line)
}

fn list(found: &[Binaries]) -> String {
    let mut shown: Vec<String> = Vec::new();
    for Binaries { version, folder, .. } in found {
        let one = format!("{version} ({})", folder.display());
        if !shown.contains(&one) {
            shown.push(one);
        }
    }
    shown.join(", ")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn fake(folder: &Path, version: &str) {
        fs::create_dir_all(folder).unwrap();
        for name in ["initdb", "postgres"] {
            let file = folder.join(name);
            fs::write(&file, format!("#!/bin/sh\necho 'postgres (PostgreSQL) {version} (fake)'\n")).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        }
    }

    fn only(folder: &Path) -> Search {
        Search { explicit: Some(folder.to_owned()), path: None }
    }

    fn path_of(folders: [&Path; 2]) -> Search {
        Search { explicit: None, path: Some(folders.map(Path::as_os_str).join(OsStr::new(":"))) }
    }

    #[test]
    fn a_folder_in_the_path_that_holds_both_programs_is_taken() {
        let root = tempfile::tempdir().unwrap();
        let (half, whole) = (root.path().join("half"), root.path().join("whole"));
        fake(&half, "16.1");
        fs::remove_file(half.join("initdb")).unwrap();
        fake(&whole, "17.2");
        let search = path_of([&half, &whole]);
        let found = search.find(Path::new("data"), None).unwrap();
        assert_eq!((found.folder, found.major), (whole.canonicalize().unwrap(), 17));
    }

    #[test]
    fn links_are_followed_to_the_folder_of_all_programs() {
        let root = tempfile::tempdir().unwrap();
        let (links, home) = (root.path().join("links"), root.path().join("home"));
        fake(&home, "16.1");
        fs::create_dir(&links).unwrap();
        for name in ["initdb", "postgres"] {
            std::os::unix::fs::symlink(home.join(name), links.join(name)).unwrap();
        }
        let found = only(&links).find(Path::new("data"), None).unwrap();
        assert_eq!(found.folder, home.canonicalize().unwrap());
    }

    #[test]
    fn the_version_that_wrote_the_data_is_taken_before_a_better_place() {
        let root = tempfile::tempdir().unwrap();
        let (newer, older) = (root.path().join("newer"), root.path().join("older"));
        fake(&newer, "18beta1");
        fake(&older, "14.9");
        let search = path_of([&newer, &older]);
        assert_eq!(search.find(Path::new("data"), None).unwrap().major, 18);
        assert_eq!(search.find(Path::new("data"), Some(14)).unwrap().folder, older.canonicalize().unwrap());
    }

    #[test]
    fn data_of_a_version_that_is_not_installed_is_refused_with_a_way_to_upgrade() {
        let root = tempfile::tempdir().unwrap();
        fake(root.path(), "16.3");
        let message = only(root.path()).find(Path::new("/data/cluster"), Some(15)).unwrap_err().to_string();
        for part in ["/data/cluster", "written by Postgres 15", "16.3", "pg_upgrade", "pg_dumpall"] {
            assert!(message.contains(part), "{part} is missing in: {message}");
        }
    }

    #[test]
    fn a_version_before_14_is_refused() {
        let root = tempfile::tempdir().unwrap();
        fake(root.path(), "13.14");
        let error = only(root.path()).find(Path::new("data"), None).unwrap_err();
        assert!(matches!(&error, Error::TooOld { version, .. } if version == "13.14"), "{error}");
        assert!(error.to_string().contains("needs 14 or newer"), "{error}");
    }

    #[test]
    fn a_named_folder_without_the_programs_is_named_in_the_refusal() {
        let root = tempfile::tempdir().unwrap();
        let message = only(root.path()).find(Path::new("data"), None).unwrap_err().to_string();
        assert!(message.contains("CHECKBACK_POSTGRES_BIN"), "{message}");
        assert!(message.contains(&root.path().display().to_string()), "{message}");
    }

    #[test]
    fn pg_config_and_the_packages_folders_come_after_the_path_newest_version_first() {
        let root = tempfile::tempdir().unwrap();
        let tools = root.path().join("tools");
        fs::create_dir(&tools).unwrap();
        fs::write(tools.join("pg_config"), "#!/bin/sh\necho /from/pg_config\n").unwrap();
        fs::set_permissions(tools.join("pg_config"), fs::Permissions::from_mode(0o755)).unwrap();
        for folder in [
            "usr/lib/postgresql/9.6/bin",
            "usr/lib/postgresql/16/bin",
            "usr/pgsql-15/bin",
            "opt/homebrew/opt/postgresql@17/bin",
            "opt/homebrew/opt/postgresql-tools/bin",
            "usr/local/opt/postgresql/bin",
        ] {
            fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        let mut path = tools.clone().into_os_string();
        path.push(":relative");
        let search = Search { explicit: None, path: Some(path) };
        let expected = [
            tools,
            PathBuf::from("/from/pg_config"),
            root.path().join("usr/lib/postgresql/16/bin"),
            root.path().join("usr/lib/postgresql/9.6/bin"),
            root.path().join("usr/pgsql-15/bin"),
            root.path().join("opt/homebrew/opt/postgresql@17/bin"),
            root.path().join("usr/local/opt/postgresql/bin"),
        ];
        assert_eq!(search.candidates(root.path()), expected);
    }

    #[test]
    fn the_refusal_for_missing_binaries_names_every_way_out() {
        let message = Error::NotFound.to_string();
        for part in
            ["Debian", "Ubuntu", "Fedora", "macOS", "docker compose up", "DATABASE_URL", "CHECKBACK_POSTGRES_BIN"]
        {
            assert!(message.contains(part), "{part} is missing in: {message}");
        }
    }
}
