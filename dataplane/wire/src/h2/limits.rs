//! Every number that bounds what a peer can make a connection do. On by default, each with its fault.
//!
//! The kinds: a *ceiling* is on what is held at once; a *bucket* begins full and empties by one for each
//! frame, refilled by time and by what honest peers do anyway (calls that complete, DATA that flows).

/// Ceiling on frames in `tx()` that the peer has not taken (Envoy's `max_outbound_frames`).
pub const OUTBOUND_FRAMES_MAX: u32 = 10_000;

/// Ceiling on bytes in `tx()` beyond `tx_bytes_max`, which bounds DATA already: header blocks, mostly.
pub const OUTBOUND_BYTES_MAX: usize = 16 << 20;

/// Ceiling on answers to control frames (acks, RST_STREAM) in `tx()` that the peer has not taken (Envoy's
/// `max_outbound_control_frames`).
pub const CONTROL_FRAMES_MAX: u32 = 1000;

/// Frames in a row with an empty payload and without END_STREAM (Envoy's
/// `max_consecutive_inbound_frames_with_empty_payload`).
pub const EMPTY_RUN_MAX: u8 = 1;

/// PRIORITY frames per stream opened, and as many besides (Envoy's `max_inbound_priority_frames_per_stream`).
pub const PRIORITY_PER_STREAM: u32 = 100;

/// WINDOW_UPDATE frames per DATA frame sent (Envoy's `max_inbound_window_update_frames_per_data_frame_sent`).
pub const WINDOW_UPDATES_PER_DATA: u32 = 10;

/// And one more for so many bytes in it: a peer may take large frames and read them in small pieces.
pub const WINDOW_UPDATE_PER_BYTES: u32 = 1024;

/// WINDOW_UPDATE frames per stream opened: one for it and one for the connection.
pub const WINDOW_UPDATES_PER_STREAM: u32 = 2;

/// WINDOW_UPDATE frames besides, and the most that are saved up.
pub const WINDOW_UPDATES_MAX: u32 = 10_000;

/// Bucket of cheap frames (PING, SETTINGS, unknown types, frames on streams that are over): the most at once.
pub const CHEAP_FRAMES_MAX: u32 = 1000;

/// Cheap frames refilled each second. Each DATA or HEADERS frame, either way, refills one more: gRPC's
/// bandwidth probe is a PING per round trip while data flows.
pub const CHEAP_FRAMES_PER_SECOND: u32 = 1000;

/// Bucket of streams the peer resets young, or makes us reset: the most at once. Each stream that ends as it
/// should refills one.
pub const RESETS_MAX: u32 = 2000;

/// Resets refilled each second.
pub const RESETS_PER_SECOND: u32 = 100;

/// A stream reset by the peer after this long is a deadline or a change of mind, and costs nothing: the
/// attack is to reset at once, so that the stream limit never holds. Nanoseconds.
pub const RESET_YOUNG_NS: u64 = 1_000_000;

/// CONTINUATION frames in one header block, besides what the largest block needs in full frames.
pub const CONTINUATIONS_MAX: u32 = 16;

/// Interim responses (1xx) on one stream.
pub const INFORMATIONAL_MAX: u8 = 32;

/// How long the peer may take to acknowledge our SETTINGS, nanoseconds.
pub const SETTINGS_TIMEOUT_NS: u64 = 10_000_000_000;

/// Streams a server is believed to allow until its SETTINGS arrive. RFC 9113 section 5.1.2 has no limit then
/// and section 6.5.2 recommends none below 100: with 100 a call need not wait a round trip for SETTINGS, and
/// few servers refuse the first burst.
pub const STREAMS_ASSUMED: u32 = 100;

/// Streams that ended, remembered so that a late frame on them is judged exactly.
pub const CLOSED_REMEMBERED: usize = 64;

/// Ceiling on a stream's receive window, extensions included, so that no sum reaches 2^31.
pub const WINDOW_BYTES_MAX: u32 = 1 << 30;

/// A header list above this is given back when the input is used up; smaller ones are kept for the next.
pub const LIST_KEPT_BYTES: usize = 16 * 1024;

/// Buffers above this are given back when they fall empty; smaller ones are kept for the next frame.
pub const BUFFER_KEPT_BYTES: usize = 4096;
