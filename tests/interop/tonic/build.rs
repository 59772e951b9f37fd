//! Generates the service's client and server from this description, so that no protoc is needed.

use tonic_build::manual::{Builder, Method, Service};

fn method(name: &str, route: &str, input: &str, output: &str, streams: (bool, bool)) -> Method {
    let mut method = Method::builder()
        .name(name)
        .route_name(route)
        .input_type(format!("crate::messages::{input}"))
        .output_type(format!("crate::messages::{output}"))
        .codec_path("tonic_prost::ProstCodec");
    if streams.0 {
        method = method.client_streaming();
    }
    if streams.1 {
        method = method.server_streaming();
    }
    method.build()
}

fn main() {
    let unary = (false, false);
    let test = Service::builder()
        .name("TestService")
        .package("grpc.testing")
        .method(method("empty_call", "EmptyCall", "Empty", "Empty", unary))
        .method(method("unary_call", "UnaryCall", "SimpleRequest", "SimpleResponse", unary))
        .method(method("streaming_output_call", "StreamingOutputCall", "OutputRequest", "OutputResponse", (false, true)))
        .method(method("streaming_input_call", "StreamingInputCall", "InputRequest", "InputResponse", (true, false)))
        .method(method("full_duplex_call", "FullDuplexCall", "OutputRequest", "OutputResponse", (true, true)))
        .method(method("unimplemented_call", "UnimplementedCall", "Empty", "Empty", unary))
        .build();
    let unimplemented = Service::builder()
        .name("UnimplementedService")
        .package("grpc.testing")
        .method(method("unimplemented_call", "UnimplementedCall", "Empty", "Empty", unary))
        .build();
    Builder::new().compile(&[test, unimplemented]);
}
