//! One more process in a container, with its streams.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use tokio::sync::watch;
use tonic::{Status, Streaming};

use super::Sender;
use super::api::exec_request::Request as Message;
use super::api::exec_response::Response as Answer;
use super::api::{ExecRequest, ExecResponse};
use crate::container::check_id;
use crate::container::exec::{self, Exec};
use crate::container::io::{Sink, resize};
use crate::fault::Fault;
use crate::guest::Guest;

pub async fn exec(guest: Arc<Guest>, requests: Streaming<ExecRequest>, answers: Sender<ExecResponse>) {
    if let Err(status) = run(&guest, requests, &answers).await {
        let _ = answers.send(Err(status)).await;
    }
}

fn answer(answer: Answer) -> Result<ExecResponse, Status> {
    Ok(ExecResponse { response: Some(answer) })
}

async fn run(
    guest: &Arc<Guest>,
    mut requests: Streaming<ExecRequest>,
    answers: &Sender<ExecResponse>,
) -> Result<(), Status> {
    let first = requests.message().await?.and_then(|request| request.request);
    let Some(Message::Open(open)) = first else {
        return Err(Fault::invalid("the first message has to open a process").into());
    };
    check_id(&open.container_id)?;
    let mut exec = exec::start(guest, &open.container_id, &open.oci_process, open.stdin).await?;
    let (stdin, terminal) = (exec.stdin.take(), exec.terminal.take());
    let outcome = tokio::select! {
        code = relay(&mut exec, answers) => Ok(code),
        broken = obey(requests, stdin, terminal) => Err(broken),
        () = answers.closed() => Err(Status::cancelled("the caller has gone")),
    };
    match outcome {
        Ok(code) => {
            exec::tidy(guest, &open.container_id).await;
            let _ = answers.send(answer(Answer::ExitCode(code))).await;
            Ok(())
        }
        Err(status) => {
            exec.kill(guest).await;
            Err(status)
        }
    }
}

/// Sends the output; the exit code when the process has ended and its output is complete.
async fn relay(exec: &mut Exec, answers: &Sender<ExecResponse>) -> u32 {
    let exited = watch::Sender::new(false);
    let Exec { child, stdout, stderr, .. } = exec;
    let ending = async {
        let ended = (&mut child.ended).await;
        exited.send_replace(true);
        ended.map_or(128 + libc::SIGKILL.unsigned_abs(), crate::sys::Ended::code)
    };
    let out = exec::copy(stdout, answers, |data| answer(Answer::Stdout(data)), exited.subscribe());
    let err = async {
        if let Some(stderr) = stderr {
            exec::copy(stderr, answers, |data| answer(Answer::Stderr(data)), exited.subscribe()).await;
        }
    };
    tokio::join!(ending, out, err).0
}

/// Does what the caller sends. Returns, with the reason, only when the call is broken off or a message breaks
/// the rules; a caller who just has no more to send goes on to be answered.
async fn obey(
    mut requests: Streaming<ExecRequest>,
    mut stdin: Option<Sink>,
    terminal: Option<OwnedFd>,
) -> Status {
    loop {
        let request = match requests.message().await {
            Ok(Some(request)) => request.request,
            Ok(None) => break,
            Err(status) => return status,
        };
        match request {
            Some(Message::Stdin(data)) => {
                // The process may have closed its input: the rest is of no use to it.
                if let Some(sink) = &stdin
                    && sink.write_all(&data).await.is_err()
                {
                    stdin = None;
                }
            }
            Some(Message::CloseStdin(true)) => stdin = None,
            Some(Message::CloseStdin(false)) => {}
            Some(Message::Resize(size)) => {
                // A size that does not fit is the caller's loss alone.
                let _ = terminal.as_ref().map(|terminal| resize(terminal, size.columns, size.rows));
            }
            Some(Message::Open(_)) | None => {
                return Fault::invalid("a message that is no input, no size and no end of input").into();
            }
        }
    }
    drop(stdin);
    std::future::pending().await
}
