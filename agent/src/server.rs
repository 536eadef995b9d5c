//! The gRPC service: one RPC a file. Each checks its request, calls a room and shapes the answer.

mod hello;

use std::sync::Arc;

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use tonic::{Request, Response, Status};

use crate::sys::Sys;

pub mod api {
    #![allow(clippy::all, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    tonic::include_proto!("herkos.agent.v1");
}

use api::agent_server::{Agent, AgentServer};

const MESSAGE_BYTES_MAX: usize = 4 << 20;
const STREAMS_MAX: u32 = 1024;
const HEADER_BYTES_MAX: u32 = 16 * 1024;
/// Of one stream's answers, buffered in the HTTP/2 layer.
const SEND_BYTES_MAX: usize = 128 * 1024;
const WINDOW_BYTES: u32 = 256 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;

/// What the RPCs share. Lives as long as the VM; connections come and go.
#[derive(Clone)]
pub struct Service {
    pub sys: Arc<dyn Sys>,
    pub boot_milliseconds: u64,
}

impl Service {
    /// Serves one connection until it ends.
    pub async fn serve(
        &self,
        connection: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + 'static,
    ) {
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
        // However a connection ends, the next one is waited for.
        let _ = serving.await;
    }
}

#[tonic::async_trait]
impl Agent for Service {
    async fn hello(
        &self,
        request: Request<api::HelloRequest>,
    ) -> Result<Response<api::HelloResponse>, Status> {
        Ok(Response::new(hello::hello(self, request.into_inner())?))
    }

    async fn setup_pod(
        &self,
        _request: Request<api::SetupPodRequest>,
    ) -> Result<Response<api::SetupPodResponse>, Status> {
        Err(Status::unimplemented("not yet"))
    }

    async fn create_container(
        &self,
        _request: Request<api::CreateContainerRequest>,
    ) -> Result<Response<api::CreateContainerResponse>, Status> {
        Err(Status::unimplemented("not yet"))
    }

    async fn start_container(
        &self,
        _request: Request<api::StartContainerRequest>,
    ) -> Result<Response<api::StartContainerResponse>, Status> {
        Err(Status::unimplemented("not yet"))
    }

    async fn signal_container(
        &self,
        _request: Request<api::SignalContainerRequest>,
    ) -> Result<Response<api::SignalContainerResponse>, Status> {
        Err(Status::unimplemented("not yet"))
    }

    async fn remove_container(
        &self,
        _request: Request<api::RemoveContainerRequest>,
    ) -> Result<Response<api::RemoveContainerResponse>, Status> {
        Err(Status::unimplemented("not yet"))
    }

    async fn list_containers(
        &self,
        _request: Request<api::ListContainersRequest>,
    ) -> Result<Response<api::ListContainersResponse>, Status> {
        Err(Status::unimplemented("not yet"))
    }

    async fn shutdown(
        &self,
        _request: Request<api::ShutdownRequest>,
    ) -> Result<Response<api::ShutdownResponse>, Status> {
        Err(Status::unimplemented("not yet"))
    }

    type WatchExitsStream = tokio_stream::Empty<Result<api::ContainerExit, Status>>;

    async fn watch_exits(
        &self,
        _request: Request<api::WatchExitsRequest>,
    ) -> Result<Response<Self::WatchExitsStream>, Status> {
        Err(Status::unimplemented("not yet"))
    }

    type ReadOutputStream = tokio_stream::Empty<Result<api::OutputChunk, Status>>;

    async fn read_output(
        &self,
        _request: Request<tonic::Streaming<api::ReadOutputRequest>>,
    ) -> Result<Response<Self::ReadOutputStream>, Status> {
        Err(Status::unimplemented("not yet"))
    }

    type ExecStream = tokio_stream::Empty<Result<api::ExecResponse, Status>>;

    async fn exec(
        &self,
        _request: Request<tonic::Streaming<api::ExecRequest>>,
    ) -> Result<Response<Self::ExecStream>, Status> {
        Err(Status::unimplemented("not yet"))
    }
}

#[cfg(test)]
impl Service {
    pub fn for_test(sys: Arc<dyn Sys>) -> Self {
        Service { sys, boot_milliseconds: 1 }
    }
}
