//! A server that outlived its service.
//!
//! When the service is killed, its server stays. Whoever takes the lock of the data folder next stops it here and
//! starts anew. Only a Postgres that works in that very folder is signalled: an id in `postmaster.pid` may belong
//! to another process by now, or not be written yet, so processes are recognised by where they work.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use super::error::Error;

const POLL: Duration = Duration::from_millis(5);
/// A fast shutdown writes everything that is in memory.
const FAST_LIMIT: Duration = Duration::from_secs(30);
const IMMEDIATE_LIMIT: Duration = Duration::from_secs(10);

/// A process of a server, and its parent.
#[derive(Clone, Copy, Debug)]
struct Process {
    id: i32,
    parent: i32,
}

/// Stops the server that is left on `cluster`, if there is one, and waits until it and its workers are gone.
pub(super) fn stop(cluster: &Path) -> Result<(), Error> {
    for (signal, limit) in [(Signal::INT, FAST_LIMIT), (Signal::QUIT, IMMEDIATE_LIMIT)] {
        let left = serving(cluster);
        // The workers follow the server. Those whose server was killed end by themselves; a signal hurries them.
        for process in left.iter().filter(|process| !left.iter().any(|other| other.id == process.parent)) {
            tracing::info!(
                process.id = process.id,
                "an earlier run left its private Postgres behind as process {}: stopping it",
                process.id
            );
            if let Some(pid) = Pid::from_raw(process.id) {
                // It may have ended meanwhile, which the wait finds out.
                let _ = kill_process(pid, signal);
            }
        }
        let deadline = Instant::now() + limit;
        loop {
            if serving(cluster).is_empty() {
                return forget(cluster);
            }
            if Instant::now() >= deadline {
                break;
            }
            thread::sleep(POLL);
        }
    }
    match serving(cluster).first() {
        Some(process) => Err(Error::OrphanStays { process_id: process.id.unsigned_abs(), cluster: cluster.to_owned() }),
        None => forget(cluster),
    }
}

/// Removes a `postmaster.pid` whose process is not a server of this folder but lives. Postgres would take it for
/// one and refuse to start, for example in a container, where the same few ids come up after every restart.
fn forget(cluster: &Path) -> Result<(), Error> {
    let file = cluster.join("postmaster.pid");
    let id = fs::read_to_string(&file).ok().and_then(|text| text.lines().next()?.trim().parse().ok());
    match id.and_then(Pid::from_raw) {
        Some(pid) if test_kill_process(pid).is_ok() => fs::remove_file(&file).map_err(Error::io("remove", &file)),
        _ => Ok(()),
    }
}

/// The living processes of a server on `cluster`. A zombie is none, for it works nowhere.
fn serving(cluster: &Path) -> Vec<Process> {
    if !Path::new("/proc/self/cwd").exists() {
        return serving_by_ps(cluster);
    }
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter_map(|entry| {
            let id = entry.file_name().to_str()?.parse().ok()?;
            // A server works in its data folder.
            if fs::read_link(entry.path().join("cwd")).ok()? != cluster {
                return None;
            }
            // "id (name) state parent …"
            let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
            let (name, rest) = (stat.split_once('(')?.1).rsplit_once(')')?;
            let parent = rest.split_whitespace().nth(1)?.parse().ok()?;
            name.starts_with("postgres").then_some(Process { id, parent })
        })
        .collect()
}

/// For systems without `/proc`: a server of ours is started with the folder among its arguments.
fn serving_by_ps(cluster: &Path) -> Vec<Process> {
    let Ok(output) = Command::new("ps").args(["-A", "-ww", "-o", "pid=,ppid=,command="]).output() else {
        return Vec::new();
    };
    let ours = format!("postgres -D {} ", cluster.display());
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter(|line| line.contains(&ours))
        .filter_map(|line| {
            let mut fields = line.split_whitespace();
            Some(Process { id: fields.next()?.parse().ok()?, parent: fields.next()?.parse().ok()? })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_id_that_now_belongs_to_another_process_is_cleared_and_that_process_lives() {
        let cluster = tempfile::tempdir().unwrap();
        let mut bystander = Command::new("sleep").arg("60").current_dir(cluster.path()).spawn().unwrap();
        let file = cluster.path().join("postmaster.pid");
        fs::write(&file, format!("{}\n{}\n", bystander.id(), cluster.path().display())).unwrap();
        stop(&cluster.path().canonicalize().unwrap()).unwrap();
        assert!(!file.exists());
        assert!(bystander.try_wait().unwrap().is_none(), "the process was ended");
        bystander.kill().unwrap();
        bystander.wait().unwrap();
    }
}
