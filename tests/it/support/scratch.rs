//! A folder of this test process, gone when the process is, together with the servers that run in it.
//!
//! A static is not dropped at the end, and a killed process runs nothing; so a small watcher, a process of its own,
//! waits until the system closes its input, which happens however this process ends.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

/// Stops every server whose data folder is `<scratch>/<any>/data`, then removes what there is.
const WATCH: &str = r#"
trap '' HUP INT TERM
read -r _
for pid_file in "$1"/*/data/cluster/postmaster.pid; do
    [ -f "$pid_file" ] || continue
    pid=$(sed -n 1p "$pid_file")
    socket=$(sed -n 5p "$pid_file")
    kill -QUIT "$pid"
    tries=0
    while [ -f "$pid_file" ] && kill -0 "$pid" && [ $tries -lt 100 ]; do
        sleep 0.05
        tries=$((tries + 1))
    done
    case $socket in */checkback-*) rm -rf "$socket" ;; esac
done
# An initdb that was cut off from its test may still be writing.
tries=0
until rm -rf "$1" || [ $tries -ge 100 ]; do
    sleep 0.05
    tries=$((tries + 1))
done
"#;

/// The folder. When the tests run as root, the server's user can reach it.
pub fn folder() -> &'static Path {
    static SCRATCH: OnceLock<(PathBuf, Child)> = OnceLock::new();
    let (folder, _watcher) = SCRATCH.get_or_init(|| {
        let folder = tempfile::Builder::new()
            .prefix("checkback-test-")
            .permissions(PermissionsExt::from_mode(0o755))
            .tempdir()
            .expect("a folder can be made in the system's temporary folder")
            .keep();
        let watcher = Command::new("sh")
            .args(["-c", WATCH, "sh"])
            .arg(&folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Ctrl-C in a terminal ends the tests, not the one who tidies up after them.
            .process_group(0)
            .spawn()
            .expect("sh can be started");
        (folder, watcher)
    });
    folder
}
