//! What the client and the server program share.

pub mod messages;
pub mod seen;

pub mod testing {
    //! The generated client and server.
    #![allow(clippy::all)]
    include!(concat!(env!("OUT_DIR"), "/grpc.testing.TestService.rs"));
    include!(concat!(env!("OUT_DIR"), "/grpc.testing.UnimplementedService.rs"));
}

/// The value of `--name VALUE` or `--name=VALUE`.
pub fn argument(name: &str) -> Option<String> {
    let words: Vec<String> = std::env::args().collect();
    let flag = format!("--{name}");
    words.iter().enumerate().find_map(|(at, word)| match word.strip_prefix(&flag)? {
        "" => words.get(at + 1).cloned(),
        rest => rest.strip_prefix('=').map(str::to_owned),
    })
}
