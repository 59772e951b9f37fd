//! The interop test service in tonic, with the extra features of PROTOCOL.md.

use std::pin::Pin;
use std::time::Duration;

use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_stream::{Stream, StreamExt};
use tonic::codec::CompressionEncoding::Gzip;
use tonic::{Code, Request, Response, Status, Streaming};
use towpath_interop_tonic::messages::*;
use towpath_interop_tonic::seen::{Flags, SeenLayer, cancelled};
use towpath_interop_tonic::{argument, testing::test_service_server as generated};

struct TestService;

type Outputs = Pin<Box<dyn Stream<Item = Result<OutputResponse, Status>> + Send>>;

/// The status that metadata or message asks for.
fn asked<T>(request: &Request<T>, wanted: Option<&EchoStatus>) -> Result<(), Status> {
    if let Some(details) = request.metadata().get_bin("x-test-details-bin") {
        let bytes = details.to_bytes().map_err(|_| Status::internal("not base64"))?;
        return Err(Status::with_details(Code::FailedPrecondition, "with details", bytes));
    }
    wanted.map_or(Ok(()), echoed)
}

fn echoed(status: &EchoStatus) -> Result<(), Status> {
    if status.code == 0 { Ok(()) } else { Err(Status::new(Code::from_i32(status.code), &status.message)) }
}

fn compressed(flags: &Flags, message: usize) -> bool {
    flags.0.lock().unwrap().get(message).copied().unwrap_or(false)
}

fn plain<T>(message: T) -> Response<T> {
    let mut response = Response::new(message);
    response.disable_compression();
    response
}

/// Notes a cancelled call when it is dropped before its end.
struct Guard(Option<String>);

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(id) = self.0.take() {
            cancelled().lock().unwrap().insert(id);
        }
    }
}

async fn send(
    request: &OutputRequest,
    to: &tokio::sync::mpsc::Sender<Result<OutputResponse, Status>>,
) -> Result<(), Status> {
    for parameters in &request.response_parameters {
        let pause = Duration::from_micros(parameters.interval_us.max(0) as u64);
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = to.closed() => return Err(Status::cancelled("the caller is gone")),
        }
        let payload = zeros(parameters.size.max(0) as usize);
        if to.send(Ok(OutputResponse { payload })).await.is_err() {
            return Err(Status::cancelled("the caller is gone"));
        }
    }
    Ok(())
}

#[tonic::async_trait]
impl generated::TestService for TestService {
    type StreamingOutputCallStream = Outputs;
    type FullDuplexCallStream = Outputs;

    async fn empty_call(&self, request: Request<Empty>) -> Result<Response<Empty>, Status> {
        asked(&request, None)?;
        Ok(plain(Empty {}))
    }

    async fn unary_call(&self, request: Request<SimpleRequest>) -> Result<Response<SimpleResponse>, Status> {
        asked(&request, request.get_ref().response_status.as_ref())?;
        let flags = request.extensions().get::<Flags>().cloned().unwrap_or_default();
        let request = request.into_inner();
        if set(&request.expect_compressed) && !compressed(&flags, 0) {
            return Err(Status::invalid_argument("the message is not compressed"));
        }
        let response = SimpleResponse { payload: zeros(request.response_size.max(0) as usize) };
        Ok(if set(&request.response_compressed) { Response::new(response) } else { plain(response) })
    }

    async fn streaming_output_call(&self, request: Request<OutputRequest>) -> Result<Response<Outputs>, Status> {
        asked(&request, request.get_ref().response_status.as_ref())?;
        let request = request.into_inner();
        let any = request.response_parameters.iter().any(|parameters| set(&parameters.compressed));
        let (to, from) = tokio::sync::mpsc::channel(4);
        tokio::spawn(async move { send(&request, &to).await });
        let outputs: Outputs = Box::pin(ReceiverStream::new(from));
        Ok(if any { Response::new(outputs) } else { plain(outputs) })
    }

    async fn streaming_input_call(
        &self,
        request: Request<Streaming<InputRequest>>,
    ) -> Result<Response<InputResponse>, Status> {
        asked(&request, None)?;
        let flags = request.extensions().get::<Flags>().cloned().unwrap_or_default();
        let mut requests = request.into_inner();
        let (mut total, mut count) = (0, 0);
        while let Some(message) = requests.next().await {
            let message = message?;
            if set(&message.expect_compressed) && !compressed(&flags, count) {
                return Err(Status::invalid_argument("the message is not compressed"));
            }
            count += 1;
            total += message.payload.map_or(0, |payload| payload.body.len());
        }
        Ok(plain(InputResponse { aggregated_payload_size: total as i32 }))
    }

    async fn full_duplex_call(
        &self,
        request: Request<Streaming<OutputRequest>>,
    ) -> Result<Response<Outputs>, Status> {
        asked(&request, None)?;
        let id = request.metadata().get("x-test-id").and_then(|id| id.to_str().ok()).map(str::to_owned);
        let mut requests = request.into_inner();
        let (to, from) = tokio::sync::mpsc::channel(4);
        tokio::spawn(async move {
            let mut guard = Guard(id);
            while let Some(message) = requests.next().await {
                let Ok(message) = message else { return };
                if let Some(Err(status)) = message.response_status.as_ref().map(echoed) {
                    guard.0 = None;
                    let _ = to.send(Err(status)).await;
                    return;
                }
                if send(&message, &to).await.is_err() {
                    return;
                }
            }
            guard.0 = None;
        });
        Ok(plain(Box::pin(ReceiverStream::new(from))))
    }

    async fn unimplemented_call(&self, _: Request<Empty>) -> Result<Response<Empty>, Status> {
        Err(Status::unimplemented("as the name says"))
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let port = argument("port").unwrap_or_else(|| "0".into());
    let streams: Option<u32> = argument("max_streams").map(|count| count.parse()).transpose()?;
    let host = std::env::var("TOWPATH_TEST_HOST").unwrap_or_else(|_| "127.0.0.1".into());
    let listener = tokio::net::TcpListener::bind(format!("{host}:{port}")).await?;
    println!("listening {}", listener.local_addr()?.port());
    let service = generated::TestServiceServer::new(TestService)
        .accept_compressed(Gzip)
        .send_compressed(Gzip)
        .max_decoding_message_size(8 << 20);
    tonic::transport::Server::builder()
        .max_concurrent_streams(streams.filter(|count| *count > 0))
        .http2_max_header_list_size(1 << 20)
        .layer(SeenLayer)
        .add_service(service)
        .serve_with_incoming(TcpListenerStream::new(listener))
        .await?;
    Ok(())
}
