//! One output stream of a container, from an offset.

use std::sync::Arc;

use tonic::{Status, Streaming};

use super::Sender;
use super::api::read_output_request::Request as Message;
use super::api::{OpenOutput, OutputChunk, OutputStream, ReadOutputRequest};
use crate::container::check_id;
use crate::fault::{Fault, Outcome};
use crate::guest::Guest;
use crate::output::{Chunk, Reader};

pub async fn read_output(
    guest: Arc<Guest>,
    mut requests: Streaming<ReadOutputRequest>,
    answers: Sender<OutputChunk>,
) {
    let outcome = tokio::select! {
        outcome = relay(&guest, &mut requests, &answers) => outcome,
        () = answers.closed() => return,
    };
    if let Err(status) = outcome {
        let _ = answers.send(Err(status)).await;
    }
}

async fn relay(
    guest: &Guest,
    requests: &mut Streaming<ReadOutputRequest>,
    answers: &Sender<OutputChunk>,
) -> Result<(), Status> {
    let first = requests.message().await?.and_then(|request| request.request);
    let Some(Message::Open(open)) = first else {
        return Err(Fault::invalid("the first message has to open a stream").into());
    };
    let mut reader = open_reader(guest, &open)?;
    let mut finished = guest.finished.subscribe();
    let mut listening = true;
    loop {
        tokio::select! {
            request = requests.message(), if listening => match request? {
                None => listening = false,
                Some(request) => acknowledge(&reader, request)?,
            },
            // Taken only when there is a place to put it, so that acknowledgements are always heard.
            sent = forward(&mut reader, answers) => if !sent? { return Ok(()) },
            _ = finished.wait_for(|finished| *finished) => {
                return Err(Status::unavailable("the guest is being powered off"));
            }
        }
    }
}

/// False after the last chunk.
async fn forward(reader: &mut Reader, answers: &Sender<OutputChunk>) -> Outcome<bool> {
    let Ok(place) = answers.reserve().await else { return Ok(false) };
    let Some(chunk) = reader.next().await else { return Ok(false) };
    let Chunk { offset, data, end } = chunk?;
    place.send(Ok(OutputChunk { offset, data, end }));
    Ok(!end)
}

fn open_reader(guest: &Guest, open: &OpenOutput) -> Outcome<Reader> {
    check_id(&open.container_id)?;
    let container = guest.containers.get(&open.container_id)?;
    let output = match open.stream() {
        OutputStream::Stdout => &container.stdout,
        OutputStream::Stderr => &container.stderr,
        OutputStream::Unspecified => return Err(Fault::invalid("no stream is named")),
    };
    output.open(open.from_offset)
}

fn acknowledge(reader: &Reader, request: ReadOutputRequest) -> Outcome<()> {
    match request.request {
        Some(Message::AcknowledgedOffset(offset)) => reader.acknowledge(offset),
        _ => Err(Fault::invalid("only the first message opens a stream")),
    }
}
