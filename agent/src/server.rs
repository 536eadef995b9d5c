//! The gRPC service: one RPC a file. Each checks its request, calls a room and shapes the answer.

mod adjust_clock;
mod create_container;
mod exec;
mod hello;
mod list_containers;
mod memory_info;
mod online_cpus;
mod read_output;
mod rehearse;
mod setup_pod;
mod shutdown;
mod signal_container;
mod update_container;
mod watch_exits;

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tonic::{Request, Response, Status, Streaming};

use crate::container::{check_id, remove, start};
use crate::guest::Guest;

#[allow(clippy::all, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
pub mod api {
    tonic::include_proto!("herkos.agent.v1");
}

use api::agent_server::{Agent, AgentServer};

const MESSAGE_BYTES_MAX: usize = 4 << 20;
/// Two outputs of every container, every exec, and calls beside them.
const STREAMS_MAX: u32 = 1024;
const HEADER_BYTES_MAX: u32 = 16 * 1024;
/// Of one stream's answers, buffered in the HTTP/2 layer.
const SEND_BYTES_MAX: usize = 128 * 1024;
const WINDOW_BYTES: u32 = 256 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
/// Answers of one stream that wait for the HTTP/2 layer.
const QUEUE_LENGTH_MAX: usize = 2;
/// Before the power goes off, for the last answer.
const FAREWELL: Duration = Duration::from_secs(1);

#[derive(Clone)]
pub struct Service {
    pub guest: Arc<Guest>,
}

impl Service {
    /// Serves one connection until it ends, or until the VM may be powered off.
    pub async fn serve(&self, connection: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) {
        let server = AgentServer::new(self.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        let serving = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .max_concurrent_streams(STREAMS_MAX)
            .max_header_list_size(HEADER_BYTES_MAX)
            .max_send_buf_size(SEND_BYTES_MAX)
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .serve_connection(TokioIo::new(connection), TowerToHyperService::new(server));
        let mut serving = pin!(serving);
        let mut finished = self.guest.finished.subscribe();
        // However a connection ends, the next one is waited for.
        let farewell = tokio::select! {
            _ = &mut serving => false,
            _ = finished.wait_for(|finished| *finished) => true,
        };
        if farewell {
            serving.as_mut().graceful_shutdown();
            let _ = tokio::time::timeout(FAREWELL, serving).await;
        }
    }
}

/// Messages of a streaming answer; ends when its sender is dropped.
pub struct Answers<T>(mpsc::Receiver<Result<T, Status>>);

impl<T> tokio_stream::Stream for Answers<T> {
    type Item = Result<T, Status>;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        self.0.poll_recv(cx)
    }
}

type Sender<T> = mpsc::Sender<Result<T, Status>>;

fn answers<T>() -> (Sender<T>, Response<Answers<T>>) {
    let (sender, receiver) = mpsc::channel(QUEUE_LENGTH_MAX);
    (sender, Response::new(Answers(receiver)))
}

#[tonic::async_trait]
impl Agent for Service {
    async fn hello(
        &self,
        request: Request<api::HelloRequest>,
    ) -> Result<Response<api::HelloResponse>, Status> {
        Ok(Response::new(hello::hello(&self.guest, &request.into_inner())?))
    }

    async fn setup_pod(
        &self,
        request: Request<api::SetupPodRequest>,
    ) -> Result<Response<api::SetupPodResponse>, Status> {
        setup_pod::setup_pod(&self.guest, request.into_inner()).await?;
        Ok(Response::new(api::SetupPodResponse {}))
    }

    async fn adjust_clock(
        &self,
        request: Request<api::AdjustClockRequest>,
    ) -> Result<Response<api::AdjustClockResponse>, Status> {
        Ok(Response::new(adjust_clock::adjust_clock(self.guest.sys.as_ref(), request.into_inner())?))
    }

    async fn create_container(
        &self,
        request: Request<api::CreateContainerRequest>,
    ) -> Result<Response<api::CreateContainerResponse>, Status> {
        create_container::create_container(&self.guest, request.into_inner()).await?;
        Ok(Response::new(api::CreateContainerResponse {}))
    }

    async fn start_container(
        &self,
        request: Request<api::StartContainerRequest>,
    ) -> Result<Response<api::StartContainerResponse>, Status> {
        let id = request.into_inner().container_id;
        check_id(&id)?;
        start::start(&self.guest, &id).await?;
        Ok(Response::new(api::StartContainerResponse {}))
    }

    async fn signal_container(
        &self,
        request: Request<api::SignalContainerRequest>,
    ) -> Result<Response<api::SignalContainerResponse>, Status> {
        signal_container::signal_container(&self.guest, request.into_inner()).await?;
        Ok(Response::new(api::SignalContainerResponse {}))
    }

    async fn remove_container(
        &self,
        request: Request<api::RemoveContainerRequest>,
    ) -> Result<Response<api::RemoveContainerResponse>, Status> {
        let id = request.into_inner().container_id;
        check_id(&id)?;
        remove::remove(&self.guest, &id).await?;
        Ok(Response::new(api::RemoveContainerResponse {}))
    }

    async fn list_containers(
        &self,
        _request: Request<api::ListContainersRequest>,
    ) -> Result<Response<api::ListContainersResponse>, Status> {
        Ok(Response::new(list_containers::list_containers(&self.guest)))
    }

    type WatchExitsStream = Answers<api::ContainerExit>;

    async fn watch_exits(
        &self,
        _request: Request<api::WatchExitsRequest>,
    ) -> Result<Response<Self::WatchExitsStream>, Status> {
        let (sender, response) = answers();
        tokio::spawn(watch_exits::watch_exits(self.guest.clone(), sender));
        Ok(response)
    }

    type ReadOutputStream = Answers<api::OutputChunk>;

    async fn read_output(
        &self,
        request: Request<Streaming<api::ReadOutputRequest>>,
    ) -> Result<Response<Self::ReadOutputStream>, Status> {
        let (sender, response) = answers();
        tokio::spawn(read_output::read_output(self.guest.clone(), request.into_inner(), sender));
        Ok(response)
    }

    type ExecStream = Answers<api::ExecResponse>;

    async fn exec(
        &self,
        request: Request<Streaming<api::ExecRequest>>,
    ) -> Result<Response<Self::ExecStream>, Status> {
        let (sender, response) = answers();
        tokio::spawn(exec::exec(self.guest.clone(), request.into_inner(), sender));
        Ok(response)
    }

    async fn rehearse(
        &self,
        request: Request<api::RehearseRequest>,
    ) -> Result<Response<api::RehearseResponse>, Status> {
        rehearse::rehearse(&self.guest, &request.into_inner()).await?;
        Ok(Response::new(api::RehearseResponse {}))
    }

    async fn update_container(
        &self,
        request: Request<api::UpdateContainerRequest>,
    ) -> Result<Response<api::UpdateContainerResponse>, Status> {
        update_container::update_container(&self.guest, request.into_inner()).await?;
        Ok(Response::new(api::UpdateContainerResponse {}))
    }

    async fn online_cpus(
        &self,
        request: Request<api::OnlineCpusRequest>,
    ) -> Result<Response<api::OnlineCpusResponse>, Status> {
        Ok(Response::new(online_cpus::online_cpus(&self.guest, request.get_ref()).await?))
    }

    async fn memory_info(
        &self,
        _request: Request<api::MemoryInfoRequest>,
    ) -> Result<Response<api::MemoryInfoResponse>, Status> {
        Ok(Response::new(memory_info::memory_info(self.guest.sys.as_ref())?))
    }

    async fn shutdown(
        &self,
        _request: Request<api::ShutdownRequest>,
    ) -> Result<Response<api::ShutdownResponse>, Status> {
        shutdown::shutdown(&self.guest).await?;
        Ok(Response::new(api::ShutdownResponse {}))
    }
}
