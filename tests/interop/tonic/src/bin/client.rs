//! The interop cases with a tonic client. Prints PASS, FAIL or SKIP with the case's name on each line.

use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::codec::CompressionEncoding::Gzip;
use tonic::metadata::{AsciiMetadataKey, MetadataMap, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use towpath_interop_tonic::messages::*;
use towpath_interop_tonic::{argument, testing};

type Client = testing::test_service_client::TestServiceClient<Channel>;
type Outcome = Result<(), Failure>;

const REQUEST_SIZES: [usize; 4] = [27182, 8, 1828, 45904];
const RESPONSE_SIZES: [usize; 4] = [31415, 9, 2653, 58979];
const INITIAL: &str = "x-grpc-test-echo-initial";
const TRAILING: &str = "x-grpc-test-echo-trailing-bin";
/// google.rpc.Status{code: 9, message: "with details", details: [Any{type_url: "a/b", value: ff 00}]}
const DETAILS: &[u8] = b"\x08\x09\x12\x0cwith details\x1a\x09\x0a\x03a/b\x12\x02\xff\x00";

enum Failure {
    Skip(&'static str),
    Wrong(String),
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self::Wrong(format!("{status:?}"))
    }
}

impl From<tonic::transport::Error> for Failure {
    fn from(error: tonic::transport::Error) -> Self {
        Self::Wrong(format!("{error:?}"))
    }
}

fn same<T: PartialEq + std::fmt::Debug>(met: T, wanted: T, what: &str) -> Outcome {
    if met == wanted { Ok(()) } else { Err(Failure::Wrong(format!("{what}: {met:?}, expected {wanted:?}"))) }
}

fn fails<T>(result: Result<T, Status>, code: Code) -> Result<Status, Failure> {
    match result {
        Ok(_) => Err(Failure::Wrong(format!("succeeded, expected {code:?}"))),
        Err(status) => same(status.code(), code, &format!("status {status}")).map(|()| status),
    }
}

fn payload_size(payload: Option<Payload>) -> usize {
    payload.map_or(0, |payload| payload.body.len())
}

/// A request with a deadline.
fn limited<T>(message: T, limit: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(limit);
    request
}

fn soon<T>(message: T) -> Request<T> {
    limited(message, Duration::from_secs(20))
}

fn tagged<T>(message: T, name: &'static str, value: &str) -> Request<T> {
    let mut request = soon(message);
    request.metadata_mut().insert(AsciiMetadataKey::from_static(name), value.parse().unwrap());
    request
}

fn output(size: usize, request: usize, interval_us: i32) -> OutputRequest {
    let parameters = Parameters { size: size as i32, interval_us, compressed: None };
    OutputRequest { response_parameters: vec![parameters], payload: zeros(request), response_status: None }
}

fn simple(request: usize, response: usize) -> SimpleRequest {
    SimpleRequest { response_size: response as i32, payload: zeros(request), ..Default::default() }
}

/// A fixed pattern instead of random bytes: every value occurs.
fn pattern(size: usize) -> Vec<u8> {
    (0..size).map(|at| (at * 7 + at / 251) as u8).collect()
}

async fn sizes(mut stream: tonic::Streaming<OutputResponse>) -> Result<(Vec<usize>, MetadataMap), Status> {
    let mut out = Vec::new();
    while let Some(response) = stream.next().await {
        out.push(payload_size(response?.payload));
    }
    let trailers = stream.trailers().await?.unwrap_or_default();
    Ok((out, trailers))
}

struct Cases {
    address: String,
    client: Client,
}

impl Cases {
    fn endpoint(address: &str) -> Result<Endpoint, tonic::transport::Error> {
        Ok(Endpoint::from_shared(format!("http://{address}"))?.http2_max_header_list_size(1 << 20))
    }

    fn client(channel: Channel) -> Client {
        Client::new(channel).max_decoding_message_size(8 << 20).accept_compressed(Gzip)
    }

    fn connect(address: String) -> Result<Self, tonic::transport::Error> {
        let client = Self::client(Self::endpoint(&address)?.connect_lazy());
        Ok(Self { address, client })
    }

    async fn run(&self, name: &str) -> Outcome {
        match name {
            "empty_unary" => self.empty_unary().await,
            "cacheable_unary" => Err(Failure::Skip("tonic has no GET requests")),
            "large_unary" => self.unary(&self.client, 271828, 314159).await,
            "client_compressed_unary" => self.client_compressed_unary().await,
            "server_compressed_unary" => self.server_compressed_unary().await,
            "client_streaming" => self.client_streaming().await,
            "client_compressed_streaming" => Err(Failure::Skip("tonic compresses a whole call, not single messages")),
            "server_streaming" => self.server_streaming(&RESPONSE_SIZES, None).await,
            "server_compressed_streaming" => self.server_streaming(&[31415, 92653], Some(&[true, false])).await,
            "ping_pong" => self.ping_pong().await,
            "empty_stream" => self.duplex(tokio_stream::empty(), &[]).await,
            "custom_metadata" => self.echo("test_initial_metadata_value", &[0xab; 3]).await,
            "status_code_and_message" => self.status_of("test status message").await,
            "special_status_message" => {
                self.status_of("\t\ntest with whitespace\r\nand Unicode BMP \u{263a} and non-BMP \u{1f608}\t\n").await
            }
            "unimplemented_method" => {
                fails(self.client.clone().unimplemented_call(soon(Empty {})).await, Code::Unimplemented).map(drop)
            }
            "unimplemented_service" => {
                let channel = Self::endpoint(&self.address)?.connect_lazy();
                let mut other = testing::unimplemented_service_client::UnimplementedServiceClient::new(channel);
                fails(other.unimplemented_call(soon(Empty {})).await, Code::Unimplemented).map(drop)
            }
            "cancel_after_begin" => Err(Failure::Skip("a dropped tonic call has no status")),
            "cancel_after_first_response" | "cancel_seen" => self.cancel_seen().await,
            "timeout_on_sleeping_server" => self.timeout_on_sleeping_server().await,
            "rpc_soak" => self.rpc_soak().await,
            "channel_soak" => self.channel_soak().await,
            "big_metadata" => self.echo(&"m".repeat(20_000), &pattern(22_500)).await,
            "binary_metadata" => self.binary_metadata().await,
            "concurrent_300" => self.concurrent_300().await,
            "deadline_seen" => self.deadline_seen().await,
            "status_details" => self.status_details().await,
            "mebibyte_both_ways" => self.mebibyte_both_ways().await,
            "stream_of_1000" => {
                let requests = tokio_stream::iter((0..1000).map(|_| output(100, 100, 0)));
                self.duplex(requests, &[100; 1000]).await
            }
            _ => Err(Failure::Wrong("no such case".into())),
        }
    }

    async fn empty_unary(&self) -> Outcome {
        self.client.clone().empty_call(soon(Empty {})).await?;
        Ok(())
    }

    async fn unary(&self, client: &Client, request: usize, response: usize) -> Outcome {
        let answer = client.clone().unary_call(soon(simple(request, response))).await?;
        same(payload_size(answer.into_inner().payload), response, "size")
    }

    async fn client_compressed_unary(&self) -> Outcome {
        let mut request = simple(271828, 314159);
        request.expect_compressed = Some(BoolValue { value: true });
        fails(self.client.clone().unary_call(soon(request.clone())).await, Code::InvalidArgument)?;
        let mut compressing = self.client.clone().send_compressed(Gzip);
        let answer = compressing.unary_call(soon(request.clone())).await?;
        same(payload_size(answer.into_inner().payload), 314159, "size")?;
        request.expect_compressed = Some(BoolValue { value: false });
        let answer = self.client.clone().unary_call(soon(request)).await?;
        same(payload_size(answer.into_inner().payload), 314159, "size")
    }

    async fn server_compressed_unary(&self) -> Outcome {
        for value in [true, false] {
            let mut request = simple(271828, 314159);
            request.response_compressed = Some(BoolValue { value });
            let answer = self.client.clone().unary_call(soon(request)).await?;
            same(payload_size(answer.into_inner().payload), 314159, "size")?;
        }
        Ok(())
    }

    async fn client_streaming(&self) -> Outcome {
        let requests =
            REQUEST_SIZES.map(|size| InputRequest { payload: zeros(size), expect_compressed: None });
        let answer = self.client.clone().streaming_input_call(soon(tokio_stream::iter(requests))).await?;
        same(answer.into_inner().aggregated_payload_size, 74922, "sum")
    }

    async fn server_streaming(&self, wanted: &[usize], compressed: Option<&[bool]>) -> Outcome {
        let parameters = wanted.iter().enumerate().map(|(at, size)| Parameters {
            size: *size as i32,
            interval_us: 0,
            compressed: compressed.map(|flags| BoolValue { value: flags[at] }),
        });
        let request = OutputRequest { response_parameters: parameters.collect(), ..Default::default() };
        let answer = self.client.clone().streaming_output_call(soon(request)).await?;
        same(sizes(answer.into_inner()).await?.0, wanted.to_vec(), "sizes")
    }

    async fn duplex(
        &self,
        requests: impl Stream<Item = OutputRequest> + Send + 'static,
        wanted: &[usize],
    ) -> Outcome {
        let answer = self.client.clone().full_duplex_call(soon(requests)).await?;
        same(sizes(answer.into_inner()).await?.0, wanted.to_vec(), "sizes")
    }

    async fn ping_pong(&self) -> Outcome {
        let (to, from) = mpsc::channel(1);
        let mut client = self.client.clone();
        let opening = client.full_duplex_call(soon(ReceiverStream::new(from)));
        // Some servers send headers only with the first response: do not wait for them first.
        let (answer, _) = tokio::join!(opening, to.send(output(RESPONSE_SIZES[0], REQUEST_SIZES[0], 0)));
        let mut stream = answer?.into_inner();
        for at in 0..4 {
            if at > 0 {
                let _ = to.send(output(RESPONSE_SIZES[at], REQUEST_SIZES[at], 0)).await;
            }
            let response = stream.message().await?;
            same(response.map(|response| payload_size(response.payload)), Some(RESPONSE_SIZES[at]), "size")?;
        }
        drop(to);
        same(stream.message().await?, None, "further responses")
    }

    async fn echo(&self, initial: &str, trailing: &[u8]) -> Outcome {
        let add = |metadata: &mut MetadataMap| {
            metadata.insert(INITIAL, initial.parse().unwrap());
            metadata.insert_bin(TRAILING, MetadataValue::from_bytes(trailing));
        };
        let check = |headers: &MetadataMap, trailers: &MetadataMap| {
            let met = headers.get(INITIAL).map(|value| value.to_str().unwrap_or("").to_owned());
            same(met, Some(initial.to_owned()), "initial metadata")?;
            let met = trailers.get_bin(TRAILING).map(|value| value.to_bytes().unwrap_or_default().to_vec());
            same(met, Some(trailing.to_vec()), "trailing metadata")
        };
        let mut request = soon(simple(271828, 314159));
        add(request.metadata_mut());
        let answer = self.client.clone().unary_call(request).await?;
        check(answer.metadata(), answer.metadata())?;

        let mut request = soon(tokio_stream::iter([output(314159, 271828, 0)]));
        add(request.metadata_mut());
        let answer = self.client.clone().full_duplex_call(request).await?;
        let headers = answer.metadata().clone();
        let (met, trailers) = sizes(answer.into_inner()).await?;
        same(met, vec![314159], "sizes")?;
        check(&headers, &trailers)
    }

    async fn binary_metadata(&self) -> Outcome {
        for value in [&[][..], &[0], &(0..=255).collect::<Vec<u8>>(), b"a,b, c", &pattern(1001)] {
            self.echo("x", value).await?;
        }
        Ok(())
    }

    async fn status_of(&self, message: &str) -> Outcome {
        let wanted = EchoStatus { code: 2, message: message.to_owned() };
        let request = SimpleRequest { response_status: Some(wanted.clone()), ..Default::default() };
        let status = fails(self.client.clone().unary_call(soon(request)).await, Code::Unknown)?;
        same(status.message(), message, "message")?;
        let request = OutputRequest { response_status: Some(wanted), ..Default::default() };
        let ended = match self.client.clone().full_duplex_call(soon(tokio_stream::iter([request]))).await {
            Ok(answer) => sizes(answer.into_inner()).await.map(drop),
            Err(status) => Err(status),
        };
        same(fails(ended, Code::Unknown)?.message(), message, "message")
    }

    async fn cancel_seen(&self) -> Outcome {
        let id = format!("tonic-{:?}-{}", Instant::now(), std::process::id()).replace(' ', "");
        let mut request = output(31415, 27182, 0);
        request.response_parameters.push(Parameters { size: 1, interval_us: 1_000_000, compressed: None });
        // The request side has ended: hyper would keep the stream open for a sender that still waits.
        let call = tagged(tokio_stream::iter([request]), "x-test-id", &id);
        let mut stream = self.client.clone().full_duplex_call(call).await?.into_inner();
        let first = stream.message().await?;
        same(first.map(|response| payload_size(response.payload)), Some(31415), "size")?;
        drop(stream);
        for _ in 0..100 {
            let ask = tagged(Empty {}, "x-test-was-cancelled", &id);
            let answer = self.client.clone().empty_call(ask).await?;
            if answer.metadata().get("x-test-cancelled").is_some_and(|value| value == "yes") {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Err(Failure::Wrong("the server never saw the cancel".into()))
    }

    async fn timeout_on_sleeping_server(&self) -> Outcome {
        let requests = tokio_stream::iter([output(1, 27182, 1_000_000)]);
        let request = limited(requests, Duration::from_millis(1));
        let ended = match self.client.clone().full_duplex_call(request).await {
            Ok(answer) => sizes(answer.into_inner()).await.map(drop),
            Err(status) => Err(status),
        };
        // tonic's own timer reports CANCELLED, what comes over the wire DEADLINE_EXCEEDED.
        match ended {
            Err(status) if matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled) => Ok(()),
            other => Err(Failure::Wrong(format!("{other:?}"))),
        }
    }

    async fn rpc_soak(&self) -> Outcome {
        for _ in 0..10 {
            self.unary(&self.client, 271828, 314159).await?;
        }
        Ok(())
    }

    async fn channel_soak(&self) -> Outcome {
        for _ in 0..10 {
            let one = Self::client(Self::endpoint(&self.address)?.connect().await?);
            self.unary(&one, 271828, 314159).await?;
        }
        Ok(())
    }

    async fn concurrent_300(&self) -> Outcome {
        let mut calls = Vec::new();
        for _ in 0..300 {
            let mut client = self.client.clone();
            calls.push(tokio::spawn(async move {
                let answer = client.streaming_output_call(soon(output(10, 10, 300_000))).await?;
                sizes(answer.into_inner()).await
            }));
        }
        for call in calls {
            let ended = call.await.map_err(|error| Failure::Wrong(error.to_string()))?;
            same(ended?.0, vec![10], "sizes")?;
        }
        Ok(())
    }

    async fn deadline_seen(&self) -> Outcome {
        let mut request = limited(Empty {}, Duration::from_secs(5));
        request.metadata_mut().insert("x-test-report", MetadataValue::from_static("1"));
        let answer = self.client.clone().empty_call(request).await?;
        let left = answer.metadata().get("x-test-remaining-ms").and_then(|value| value.to_str().ok());
        match left.and_then(|left| left.parse::<i64>().ok()) {
            Some(2001..=5100) => {}
            _ => return Err(Failure::Wrong(format!("the server saw {left:?} of 5000 ms"))),
        }
        let mut request = Request::new(Empty {});
        request.metadata_mut().insert("x-test-report", MetadataValue::from_static("1"));
        let answer = self.client.clone().empty_call(request).await?;
        let left = answer.metadata().get("x-test-remaining-ms").and_then(|value| value.to_str().ok());
        same(left, Some("none"), "deadline seen")
    }

    async fn status_details(&self) -> Outcome {
        let mut request = soon(Empty {});
        request.metadata_mut().insert_bin("x-test-details-bin", MetadataValue::from_bytes(DETAILS));
        let status = fails(self.client.clone().empty_call(request).await, Code::FailedPrecondition)?;
        same(status.message(), "with details", "message")?;
        same(status.details(), DETAILS, "details")
    }

    async fn mebibyte_both_ways(&self) -> Outcome {
        self.unary(&self.client, 1 << 20, 1 << 20).await?;
        let requests = tokio_stream::iter((0..4).map(|_| output(1 << 20, 1 << 20, 0)));
        self.duplex(requests, &[1 << 20; 4]).await
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = argument("address").ok_or("--address HOST:PORT")?;
    let cases = Cases::connect(address)?;
    for name in argument("cases").unwrap_or_default().split(',') {
        let start = Instant::now();
        let ended = tokio::time::timeout(Duration::from_secs(40), cases.run(name)).await;
        match ended {
            Ok(Ok(())) => println!("PASS {name} {}", start.elapsed().as_millis()),
            Ok(Err(Failure::Skip(reason))) => println!("SKIP {name} {reason}"),
            Ok(Err(Failure::Wrong(text))) => {
                let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
                println!("FAIL {name} {}", text.chars().take(500).collect::<String>());
            }
            Err(_) => println!("FAIL {name} no end within 40 s"),
        }
    }
    Ok(())
}
