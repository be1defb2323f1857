//! The real binary as a process of its own. It is killed when the test ends.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};

use super::environment;

/// Nothing takes this long when all is well.
const PATIENCE: Duration = Duration::from_mins(1);

/// A program with nothing of this machine's environment but where programs are; our binary is one of them.
pub fn with_programs(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env_clear().stdin(Stdio::null()).kill_on_drop(true);
    let ours = Path::new(env!("CARGO_BIN_EXE_checkback")).parent().map(Path::to_owned);
    let others = environment::variable("PATH").unwrap_or_default();
    let path = std::env::join_paths(ours.into_iter().chain(std::env::split_paths(&others)));
    command.env("PATH", path.expect("no folder of programs has a colon in its name"));
    if let Some(folder) = environment::variable("CHECKBACK_POSTGRES_BIN") {
        command.env("CHECKBACK_POSTGRES_BIN", folder);
    }
    command
}

pub fn checkback<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Command {
    let mut command = with_programs(env!("CARGO_BIN_EXE_checkback"));
    command.args(arguments);
    command
}

/// What a command said until it ended.
pub struct Said {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

pub async fn run(command: &mut Command) -> Said {
    let Output { status, stdout, stderr } = tokio::time::timeout(PATIENCE, command.output())
        .await
        .expect("the command ends in time")
        .expect("the command can be started");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    Said { code: status.code(), out: text(stdout), err: text(stderr) }
}

/// A process that goes on until it is told to stop.
pub struct Running {
    child: Child,
    lines: Lines<BufReader<ChildStderr>>,
    /// The lines of standard error so far.
    pub err: String,
}

impl Running {
    /// Starts the command and waits for a line of standard error with `sign` in it, which is returned.
    pub async fn start(command: &mut Command, sign: &str) -> (Self, String) {
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it can be started");
        let lines = BufReader::new(child.stderr.take().expect("it is piped")).lines();
        let mut running = Self { child, lines, err: String::new() };
        let line = running.says(sign).await;
        (running, line)
    }

    async fn line_with(&mut self, sign: &str) -> Option<String> {
        loop {
            let line = self.lines.next_line().await.expect("UTF-8")?;
            self.err.push_str(&line);
            self.err.push('\n');
            if line.contains(sign) {
                return Some(line);
            }
        }
    }

    /// Waits for the next line of standard error with `sign` in it.
    pub async fn says(&mut self, sign: &str) -> String {
        let found = tokio::time::timeout(PATIENCE, self.line_with(sign)).await;
        let Ok(Some(line)) = found else { panic!("no {sign:?} was said, only: {}", self.err) };
        line
    }

    pub fn process_id(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    pub fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.process_id()).ok().and_then(Pid::from_raw).expect("a process id");
        kill_process(id, signal).expect("it is our own process");
    }

    /// Waits for the end; returns the exit code and all of standard error.
    pub async fn ended(mut self, within: Duration) -> (Option<i32>, String) {
        let end = async {
            let mut rest = String::new();
            self.lines.get_mut().read_to_string(&mut rest).await.expect("UTF-8");
            self.err.push_str(&rest);
            self.child.wait().await.expect("it can be waited for").code()
        };
        let code = tokio::time::timeout(within, end).await.expect("it ends in time");
        (code, self.err)
    }

    pub async fn stop(self) -> (Option<i32>, String) {
        self.signal(Signal::TERM);
        self.ended(PATIENCE).await
    }
}

/// A running service and where it listens.
pub struct Served {
    pub process: Running,
    pub public: String,
    pub internal: String,
}

/// Starts `command`, which is `checkback serve` with any ports, and waits until it is ready.
pub async fn serve(command: &mut Command) -> Served {
    let (process, line) = Running::start(command, "\"ready\"").await;
    let line: Value = serde_json::from_str(&line).expect("a line of the log is JSON");
    let address = |name: &str| format!("http://{}", line[name].as_str().expect("an address"));
    Served { process, public: address("public"), internal: address("internal") }
}
