//! One program from its order to its end.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::setsid;
use serde_json::{Value, json};

use super::running::{Running, has_ended};

const INPUT_BYTES_MAX: usize = 64 << 20;
const READ_BYTES: usize = 64 << 10;
/// What a program has left in its outputs is there at its end; later words are of those that it has left behind.
const TAIL: Duration = Duration::from_secs(1);

pub struct Program {
    pub id: u64,
    path: String,
    args: Vec<String>,
    /// The starter's own when there is none.
    env: Option<Vec<(String, String)>>,
    kind: Kind,
}

enum Kind {
    /// Ends before the daemon does.
    Bounded { cwd: Option<String>, output_max: usize, input: Vec<u8> },
    /// Outlives it.
    Lasting { log: String },
}

impl Program {
    /// Reads the input, too, that the order says follows it. `None` when it is no such order.
    pub fn read(order: &Value, orders: &mut impl Read) -> io::Result<Option<Self>> {
        let Some(mut program) = Self::from(order) else { return Ok(None) };
        if let Kind::Bounded { input, .. } = &mut program.kind {
            orders.read_exact(input)?;
        }
        Ok(Some(program))
    }

    fn from(order: &Value) -> Option<Self> {
        let size = |name: &str| order.get(name)?.as_u64().and_then(|size| usize::try_from(size).ok());
        let env = match order.get("env") {
            None => None,
            Some(pairs) => Some(pairs.as_array()?.iter().map(pair).collect::<Option<_>>()?),
        };
        let kind = match order.get("log") {
            Some(log) => Kind::Lasting { log: text(log)? },
            None => Kind::Bounded {
                cwd: order.get("cwd").and_then(text),
                output_max: size("outputMax")?,
                input: vec![0; size("input").filter(|size| *size <= INPUT_BYTES_MAX)?],
            },
        };
        Some(Self {
            id: order.get("id")?.as_u64()?,
            path: text(order.get("program")?)?,
            args: order.get("args")?.as_array()?.iter().map(text).collect::<Option<_>>()?,
            env,
            kind,
        })
    }

    /// To its end, of which it returns the report; `say` gets what is to be told before.
    pub fn run(&self, running: &Running, say: impl Fn(&Report)) -> Report {
        let ended = match &self.kind {
            Kind::Bounded { cwd, output_max, input } => {
                self.run_bounded(running, cwd.as_deref(), *output_max, input)
            }
            Kind::Lasting { log } => self.launch(running, Path::new(log), say),
        };
        match ended {
            Ok((status, outputs)) => Report::ended(self.id, status, outputs),
            Err(error) => Report::not_started(self.id, &error),
        }
    }

    fn run_bounded(
        &self,
        running: &Running,
        cwd: Option<&str>,
        output_max: usize,
        input: &[u8],
    ) -> io::Result<(ExitStatus, Outputs)> {
        let mut command = self.command();
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        if let Some(cwd) = cwd {
            command.current_dir(cwd);
        }
        let Some(mut child) = running.start(self.id, &mut command)? else {
            return Ok((ExitStatus::from_raw(libc::SIGKILL), Outputs::default()));
        };
        let outputs = exchange(&mut child, input, output_max, || running.kill(self.id));
        Ok((running.reap(self.id, &mut child)?, outputs))
    }

    fn launch(
        &self,
        running: &Running,
        log: &Path,
        say: impl Fn(&Report),
    ) -> io::Result<(ExitStatus, Outputs)> {
        let log = File::options().append(true).custom_flags(libc::O_NOFOLLOW).open(log)?;
        let mut command = self.command();
        command.current_dir("/").stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        // SAFETY: setsid(2) may be called between fork and exec.
        unsafe { command.pre_exec(|| Ok(setsid().map(drop)?)) };
        let Some(mut child) = running.start(self.id, &mut command)? else {
            return Ok((ExitStatus::from_raw(libc::SIGKILL), Outputs::default()));
        };
        // Keeps the log open otherwise.
        drop(command);
        running.forget(self.id);
        say(&Report::started(self.id, child.id()));
        Ok((running.reap(self.id, &mut child)?, Outputs::default()))
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        command.args(&self.args);
        if let Some(env) = &self.env {
            command.env_clear().envs(env.iter().map(|(key, value)| (key, value)));
        }
        command
    }
}

/// Until both outputs are closed, or the program has ended and somebody else keeps them open: a daemon that it has
/// started, say. A program that does not read its input is no error.
fn exchange(child: &mut Child, mut rest: &[u8], output_max: usize, overflow: impl Fn()) -> Outputs {
    let mut input = child.stdin.take().and_then(|pipe| unblocked(pipe.into()));
    let mut stdout = child.stdout.take().map(|pipe| File::from(OwnedFd::from(pipe)));
    let mut stderr = child.stderr.take().map(|pipe| File::from(OwnedFd::from(pipe)));
    let mut outputs = Outputs::default();
    let mut ended: Option<Instant> = None;
    while stdout.is_some() || stderr.is_some() {
        if rest.is_empty() {
            input = None;
        }
        let left = TAIL.saturating_sub(ended.map_or(Duration::ZERO, |at| at.elapsed()));
        let [can_write, out_ready, err_ready] = ready(
            [
                (input.as_ref(), PollFlags::POLLOUT),
                (stdout.as_ref(), PollFlags::POLLIN),
                (stderr.as_ref(), PollFlags::POLLIN),
            ],
            left,
        );
        if left.is_zero() && (outputs.overflown || !(out_ready || err_ready)) {
            break;
        }
        if can_write {
            write_some(&mut input, &mut rest);
        }
        let before = outputs.overflown;
        if out_ready {
            outputs.overflown |= !read_some(&mut stdout, &mut outputs.stdout, output_max);
        }
        if err_ready {
            outputs.overflown |= !read_some(&mut stderr, &mut outputs.stderr, output_max);
        }
        if outputs.overflown && !before {
            overflow();
        }
        if ended.is_none() && has_ended(child) {
            ended = Some(Instant::now());
        }
    }
    outputs
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(ToOwned::to_owned)
}

fn pair(value: &Value) -> Option<(String, String)> {
    match value.as_array()?.as_slice() {
        [key, value] => Some((text(key)?, text(value)?)),
        _ => None,
    }
}

fn unblocked(pipe: OwnedFd) -> Option<File> {
    fcntl(&pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).ok()?;
    Some(File::from(pipe))
}

/// Which of these can go on before the time is over: all that are there, when the kernel does not say.
fn ready(files: [(Option<&File>, PollFlags); 3], wait: Duration) -> [bool; 3] {
    let wait = PollTimeout::try_from(wait).unwrap_or(PollTimeout::ZERO);
    let mut asked: Vec<PollFd> =
        files.iter().filter_map(|(file, flags)| file.map(|file| PollFd::new(file.as_fd(), *flags))).collect();
    let all = poll(&mut asked, wait).is_err();
    let mut answers = asked.iter().map(|one| all || one.any().unwrap_or(true));
    files.map(|(file, _)| file.is_some() && answers.next().unwrap_or(false))
}

fn write_some(pipe: &mut Option<File>, rest: &mut &[u8]) {
    let Some(file) = pipe else { return };
    match file.write(rest) {
        Ok(count) => *rest = rest.get(count..).unwrap_or_default(),
        Err(error) if is_later(&error) => {}
        Err(_) => *pipe = None,
    }
}

/// False when there was more than may be kept.
fn read_some(pipe: &mut Option<File>, into: &mut Vec<u8>, max: usize) -> bool {
    let Some(file) = pipe else { return true };
    let mut buffer = [0; READ_BYTES];
    match file.read(&mut buffer) {
        Ok(count) if count > 0 => {
            let fits = into.len() + count <= max;
            if fits {
                into.extend_from_slice(buffer.get(..count).unwrap_or_default());
            }
            return fits;
        }
        Err(error) if is_later(&error) => {}
        _ => *pipe = None,
    }
    true
}

fn is_later(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock)
}

#[derive(Default)]
pub struct Outputs {
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    overflown: bool,
}

pub struct Report {
    pub line: Value,
    pub outputs: Outputs,
}

impl Report {
    fn ended(id: u64, status: ExitStatus, outputs: Outputs) -> Self {
        let line = json!({
            "id": id,
            "code": status.code(),
            "signal": status.signal(),
            "stdout": outputs.stdout.len(),
            "stderr": outputs.stderr.len(),
            "overflown": outputs.overflown,
        });
        Self { line, outputs }
    }

    /// Of a process that nobody has reaped yet.
    fn started(id: u64, pid: u32) -> Self {
        let line = json!({ "id": id, "pid": pid, "startTicks": start_ticks(pid) });
        Self { line, outputs: Outputs::default() }
    }

    pub fn not_started(id: u64, error: &io::Error) -> Self {
        let line = json!({ "id": id, "errno": errno_of(error) });
        Self { line, outputs: Outputs::default() }
    }

    /// `Some`: another process has it.
    pub fn lock(outcome: Result<Option<i32>, &io::Error>) -> Self {
        let line = match outcome {
            Ok(None) => json!({ "lock": "taken" }),
            Ok(Some(pid)) => json!({ "lock": "held", "pid": pid }),
            Err(error) => json!({ "lock": "failed", "errno": errno_of(error) }),
        };
        Self { line, outputs: Outputs::default() }
    }
}

fn errno_of(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(libc::EIO)
}

/// The 22nd field of proc(5)'s `stat`; the second is in brackets and may hold anything.
fn start_ticks(pid: u32) -> String {
    let stat = fs::read(format!("/proc/{pid}/stat")).unwrap_or_default();
    let stat = String::from_utf8_lossy(&stat);
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    fields.split_ascii_whitespace().nth(19).unwrap_or("0").to_owned()
}
