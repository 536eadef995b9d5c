//! Runs programs for the daemon, whose own fork(2) would copy the page tables of all its memory each time.
//! Orders come on standard input, reports go to standard output: a line of JSON each, and behind it as many bytes as
//! it says. A program has a process group of its own, which ends when the daemon says so, or is gone; or it has a log
//! and outlives the daemon, in a session of its own.
//!
//! - `{"id":1,"program":"/x","args":["a"],"env":[["K","V"]],"cwd":"/","outputMax":1024,"input":5}` and the input;
//!   without `env` the starter's own, without `cwd` its own
//! - `{"id":1,"program":"/x","args":["a"],"env":[["K","V"]],"log":"/l"}`, answered at once with
//!   `{"id":1,"pid":2,"startTicks":"3"}`
//! - `{"kill":1}`
//! - `{"id":1,"code":0,"stdout":2,"stderr":0,"overflown":false}` and both outputs; `signal` in place of `code` when one
//!   ended it, `errno` in place of all when it could not be started
//!
//! With `--lock` it holds a lock for as long as it lives. What it says of that has no id: `{"lock":"taken"}`, or
//! `{"lock":"held","pid":4}`, which process has it, and the former when that has gone; or `{"lock":"failed","errno":5}`.
//! It serves all the same: what follows from it is the daemon's matter.

mod lock;
mod program;
mod running;

use std::io::{self, BufRead, Read, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::alarm;
use serde_json::Value;

use crate::rights::close_inherited;
use crate::trouble::{Outcome, Told, Trouble};
use lock::Lock;
use program::{Program, Report};
use running::Running;

/// An order without its input: arguments and environment.
const LINE_BYTES_MAX: u64 = 4 << 20;
/// Ending takes milliseconds, unless something hangs.
const END_SECONDS_MAX: u32 = 5;

/// Serves until its input ends, which is the end of the daemon; then it ends what runs, and lets go of the lock.
pub fn serve(lock: Option<PathBuf>) -> Outcome<()> {
    close_inherited()?;
    thread::Builder::new().spawn(end_after_daemon).told(|| "start a thread".into())?;
    if let Some(lock) = lock {
        let hold = move || hold(&lock).unwrap_or_else(|error| report(&Report::lock(Err(&error))));
        thread::Builder::new().spawn(hold).told(|| "start a thread".into())?;
    }
    let running = Arc::new(Running::default());
    let served = serve_orders(&mut io::stdin().lock(), &running);
    running.end();
    served
}

/// Ours as long as this process lives, as soon as nobody else has it.
fn hold(path: &Path) -> io::Result<()> {
    let lock = Lock::open(path)?;
    if let Some(pid) = lock.try_take()? {
        report(&Report::lock(Ok(Some(pid))));
        lock.take()?;
    }
    std::mem::forget(lock);
    report(&Report::lock(Ok(None)));
    Ok(())
}

/// Whoever reads the orders may hang in one, and not see the end of them: SIGALRM ends this process then.
fn end_after_daemon() {
    let input = io::stdin();
    // No event is asked for: a hang-up is told always.
    let mut closed = [PollFd::new(input.as_fd(), PollFlags::empty())];
    while poll(&mut closed, PollTimeout::NONE).is_err() {}
    alarm::set(END_SECONDS_MAX);
}

fn serve_orders(orders: &mut impl BufRead, running: &Arc<Running>) -> Outcome<()> {
    while let Some(order) = Order::read(orders)? {
        match order {
            Order::Kill(id) => running.kill(id),
            Order::Run(program) => {
                running.expect(program.id);
                let (id, own) = (program.id, Arc::clone(running));
                let started = thread::Builder::new().spawn(move || report(&program.run(&own, report)));
                if let Err(error) = started {
                    running.forget(id);
                    report(&Report::not_started(id, &error));
                }
            }
        }
    }
    Ok(())
}

enum Order {
    Run(Program),
    Kill(u64),
}

impl Order {
    /// `None` at the end of the orders.
    fn read(orders: &mut impl BufRead) -> Outcome<Option<Self>> {
        let mut line = Vec::new();
        let told = || "read an order".to_owned();
        orders.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line).told(told)?;
        if line.is_empty() {
            return Ok(None);
        }
        let order: Value = serde_json::from_slice(&line).told(told)?;
        if let Some(id) = order.get("kill").and_then(Value::as_u64) {
            return Ok(Some(Self::Kill(id)));
        }
        match Program::read(&order, orders).told(told)? {
            Some(program) => Ok(Some(Self::Run(program))),
            None => Err(Trouble::new("an order is neither a program nor its end")),
        }
    }
}

/// A daemon that is gone reads no reports.
fn report(report: &Report) {
    let mut out = io::stdout().lock();
    let line = format!("{}\n", report.line);
    let _ = [line.as_bytes(), &report.outputs.stdout, &report.outputs.stderr]
        .iter()
        .try_for_each(|part| out.write_all(part))
        .and_then(|()| out.flush());
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn run(order: Value, input: &[u8]) -> Report {
        let mut bytes = format!("{order}\n").into_bytes();
        bytes.extend_from_slice(input);
        let Ok(Some(Order::Run(program))) = Order::read(&mut bytes.as_slice()) else { panic!() };
        let running = Running::default();
        running.expect(program.id);
        let report = program.run(&running, |_| panic!());
        assert!(running.is_idle());
        report
    }

    fn shell(script: &str, input: &[u8]) -> Report {
        let order = json!({ "id": 7, "program": "sh", "args": ["-c", script], "outputMax": 1 << 20, "input": input.len() });
        run(order, input)
    }

    #[test]
    fn brings_input_and_outputs_of_any_size() {
        let input = vec![b'x'; 300_000];
        let report = shell("cat; echo two >&2; exit 3", &input);
        assert_eq!(report.outputs.stdout, input);
        assert_eq!(report.outputs.stderr, b"two\n");
        assert_eq!(
            report.line,
            json!({ "id": 7, "code": 3, "signal": null, "stdout": 300_000, "stderr": 4, "overflown": false })
        );
    }

    #[test]
    fn says_what_ended_it_and_what_kept_it_from_starting() {
        assert_eq!(shell("kill -9 $$", b"").line.get("signal"), Some(&json!(9)));
        assert_eq!(shell("exec >&- 2>&-; exit 4", b"unread").line.get("code"), Some(&json!(4)));
        let order = json!({ "id": 1, "program": "/no/such", "args": [], "outputMax": 1, "input": 0 });
        assert_eq!(run(order, b"").line, json!({ "id": 1, "errno": libc::ENOENT }));
    }

    #[test]
    fn ends_what_prints_too_much_with_its_children() {
        let report = shell("sleep 1000 & yes", b"");
        assert_eq!(report.line.get("overflown"), Some(&json!(true)));
        assert_eq!(report.line.get("signal"), Some(&json!(9)));
    }

    #[test]
    fn waits_for_a_program_and_not_for_what_it_leaves_behind() {
        for script in ["setsid sleep 30 & echo $!; exit 4", "setsid yes >&2 & echo $!; exit 4"] {
            let report = shell(script, b"");
            assert_eq!(report.line.get("code"), Some(&json!(4)));
            let left: i32 = String::from_utf8(report.outputs.stdout).unwrap().trim().parse().unwrap();
            let still_there =
                nix::sys::signal::kill(nix::unistd::Pid::from_raw(left), nix::sys::signal::SIGKILL);
            assert!(still_there.is_ok() || script.contains("yes"), "{script}");
        }
    }

    #[test]
    fn gives_the_environment_and_directory_that_were_asked_for() {
        let order = json!({
            "id": 1, "program": "/bin/sh", "args": ["-c", "echo $A $HOME; pwd"], "env": [["A", "b c"]], "cwd": "/proc",
            "outputMax": 100, "input": 0,
        });
        assert_eq!(run(order, b"").outputs.stdout, b"b c\n/proc\n");
    }

    #[test]
    fn launches_what_nobody_here_ends() {
        let log = std::env::temp_dir().join(format!("herkos-starter-{}", std::process::id()));
        std::fs::write(&log, "before\n").unwrap();
        let script = "echo out; echo err >&2; ps -o sid= -p $$; pwd; exit 5";
        let order = json!({ "id": 1, "program": "sh", "args": ["-c", script], "env": [["PATH", "/usr/bin:/bin"]], "log": log });
        let Ok(Some(program)) = Program::read(&order, &mut io::empty()) else { panic!() };
        let running = Running::default();
        running.expect(1);
        let said = std::cell::RefCell::new(Vec::new());
        let report = program.run(&running, |report| {
            assert!(running.is_idle());
            said.borrow_mut().push(report.line.clone());
        });
        assert_eq!(report.line.get("code"), Some(&json!(5)));
        let pid = said.borrow()[0].get("pid").and_then(Value::as_u64).unwrap();
        assert!(
            said.borrow()[0].get("startTicks").and_then(Value::as_str).unwrap().parse::<u64>().unwrap() > 0
        );
        let words: Vec<String> =
            std::fs::read_to_string(&log).unwrap().split_whitespace().map(ToOwned::to_owned).collect();
        std::fs::remove_file(&log).unwrap();
        assert_eq!(words, ["before", "out", "err", &pid.to_string(), "/"]);
        running.expect(1);
        assert_eq!(program.run(&running, |_| panic!()).line, json!({ "id": 1, "errno": libc::ENOENT }));
    }

    #[test]
    fn refuses_what_is_no_order() {
        for line in ["{}", "x", r#"{"id":1}"#, r#"{"id":1,"program":"a","args":[1],"outputMax":1,"input":0}"#]
        {
            assert!(Order::read(&mut format!("{line}\n").as_bytes()).is_err(), "{line}");
        }
        let cut = r#"{"id":1,"program":"a","args":[],"outputMax":1,"input":9}"#;
        assert!(Order::read(&mut format!("{cut}\nshort").as_bytes()).is_err());
        let huge = r#"{"id":1,"program":"a","args":[],"outputMax":1,"input":99999999999}"#;
        assert!(Order::read(&mut format!("{huge}\n").as_bytes()).is_err());
        assert!(matches!(Order::read(&mut "".as_bytes()), Ok(None)));
    }
}
