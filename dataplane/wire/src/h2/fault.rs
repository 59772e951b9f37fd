//! Everything a peer can do wrong, each with a stable name for its counter and the code it is answered with.
//!
//! Invariant: a name, once released, keeps its meaning; dashboards and alerts are built on it.

use super::Reason;

macro_rules! faults {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal => $reason:ident,)+) => {
        /// What exactly the peer did wrong: one counter each, by [`Fault::name`].
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[repr(u8)]
        pub enum Fault {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl Fault {
            /// Every fault, in counter order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// A metric label, snake case.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// The error code the peer is told.
            pub const fn reason(self) -> Reason {
                match self { $(Self::$variant => Reason::$reason,)+ }
            }
        }
    };
}

impl Fault {
    /// Its place in [`Fault::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }
}

faults! {
    /// The client preface is not one (TLS and HTTP/1 have their own).
    Preface = "preface" => PROTOCOL_ERROR,
    /// The client began a TLS handshake on a cleartext listener.
    ClientSpeaksTls = "client_speaks_tls" => PROTOCOL_ERROR,
    /// The client sent an HTTP/1 request.
    ClientSpeaksHttp1 = "client_speaks_http1" => HTTP_1_1_REQUIRED,
    /// The server answered with a TLS record.
    ServerSpeaksTls = "server_speaks_tls" => PROTOCOL_ERROR,
    /// The server answered with an HTTP/1 status line.
    ServerSpeaksHttp1 = "server_speaks_http1" => PROTOCOL_ERROR,
    /// The first frame is not SETTINGS (section 3.4).
    FirstFrame = "first_frame_not_settings" => PROTOCOL_ERROR,
    /// No preface in time.
    PrefaceTimeout = "preface_timeout" => SETTINGS_TIMEOUT,
    /// Our SETTINGS were not acknowledged in time (section 6.5.3).
    SettingsTimeout = "settings_timeout" => SETTINGS_TIMEOUT,

    /// A frame longer than the SETTINGS_MAX_FRAME_SIZE we announced (section 4.2).
    FrameTooLarge = "frame_too_large" => FRAME_SIZE_ERROR,
    /// A frame whose length does not fit its type (section 4.2).
    FrameLength = "frame_length" => FRAME_SIZE_ERROR,
    /// Padding longer than the frame (section 6.1).
    PaddingTooLong = "padding_too_long" => PROTOCOL_ERROR,
    /// A stream's frame on stream 0.
    StreamZero = "stream_zero" => PROTOCOL_ERROR,
    /// A connection's frame on a stream.
    StreamNotZero = "stream_not_zero" => PROTOCOL_ERROR,
    /// Another frame between HEADERS and its CONTINUATION (section 6.10).
    ContinuationExpected = "continuation_expected" => PROTOCOL_ERROR,
    /// CONTINUATION without a header block to continue.
    ContinuationUnexpected = "continuation_unexpected" => PROTOCOL_ERROR,
    /// HEADERS on a stream whose id is not the sender's to use, or below an earlier one (section 5.1.1).
    StreamId = "stream_id" => PROTOCOL_ERROR,
    /// A frame on a stream nobody opened (section 5.1, idle).
    StreamIdle = "stream_idle" => PROTOCOL_ERROR,
    /// A frame on a stream the peer had ended (section 5.1, half-closed and closed).
    StreamClosed = "stream_closed" => STREAM_CLOSED,
    /// PUSH_PROMISE: we forbid it as client, and servers never receive one (section 8.4).
    PushPromise = "push_promise" => PROTOCOL_ERROR,
    /// A setting with a value it cannot have (section 6.5.2).
    SettingValue = "setting_value" => PROTOCOL_ERROR,
    /// SETTINGS_INITIAL_WINDOW_SIZE above 2^31-1.
    SettingWindow = "setting_window" => FLOW_CONTROL_ERROR,
    /// An acknowledgement of SETTINGS we did not send.
    SettingsAckUnexpected = "settings_ack_unexpected" => PROTOCOL_ERROR,
    /// WINDOW_UPDATE by 0 (section 6.9).
    WindowUpdateZero = "window_update_zero" => PROTOCOL_ERROR,
    /// A window raised above 2^31-1 (section 6.9.1).
    WindowOverflow = "window_overflow" => FLOW_CONTROL_ERROR,
    /// More DATA than our window allows (section 6.9.1).
    WindowExceeded = "window_exceeded" => FLOW_CONTROL_ERROR,
    /// A stream that depends on itself (RFC 7540 section 5.3.1).
    PriorityOnItself = "priority_on_itself" => PROTOCOL_ERROR,

    /// A header block cut short.
    HpackTruncated = "hpack_truncated" => COMPRESSION_ERROR,
    /// A header block with an index beyond both tables.
    HpackIndex = "hpack_index" => COMPRESSION_ERROR,
    /// A header block with an integer that does not fit.
    HpackInteger = "hpack_integer" => COMPRESSION_ERROR,
    /// A header block with a wrong Huffman string.
    HpackHuffman = "hpack_huffman" => COMPRESSION_ERROR,
    /// A header block with a table size update it may not have.
    HpackTableSize = "hpack_table_size" => COMPRESSION_ERROR,
    /// A header list above the SETTINGS_MAX_HEADER_LIST_SIZE we announced.
    HeaderListTooLarge = "header_list_too_large" => ENHANCE_YOUR_CALM,
    /// A header block so large that we will not even decode it.
    HeaderBlockTooLarge = "header_block_too_large" => ENHANCE_YOUR_CALM,

    /// A field name that is empty or has a character names may not have (section 8.2.1).
    FieldName = "field_name" => PROTOCOL_ERROR,
    /// A field value with NUL, CR, LF or space at an end (section 8.2.1).
    FieldValue = "field_value" => PROTOCOL_ERROR,
    /// `connection`, `transfer-encoding` and their like (section 8.2.2).
    FieldConnectionSpecific = "field_connection_specific" => PROTOCOL_ERROR,
    /// `te` other than `trailers` (section 8.2.2).
    FieldTe = "field_te" => PROTOCOL_ERROR,
    /// A pseudo-header field that does not exist, or not in this direction (section 8.3).
    PseudoUnknown = "pseudo_unknown" => PROTOCOL_ERROR,
    /// A pseudo-header field given twice.
    PseudoDuplicate = "pseudo_duplicate" => PROTOCOL_ERROR,
    /// A pseudo-header field that must be there and is not.
    PseudoMissing = "pseudo_missing" => PROTOCOL_ERROR,
    /// A pseudo-header field after a regular one.
    PseudoOrder = "pseudo_order" => PROTOCOL_ERROR,
    /// A pseudo-header field in trailers (section 8.1).
    PseudoInTrailers = "pseudo_in_trailers" => PROTOCOL_ERROR,
    /// A pseudo-header field with a value it cannot have, such as an empty `:path`.
    PseudoValue = "pseudo_value" => PROTOCOL_ERROR,
    /// `host` names another authority than `:authority` (section 8.3.1).
    HostMismatch = "host_mismatch" => PROTOCOL_ERROR,
    /// `content-length` that is no number, or two that differ.
    ContentLengthInvalid = "content_length_invalid" => PROTOCOL_ERROR,
    /// A body of another length than `content-length` says (section 8.1.1).
    ContentLengthMismatch = "content_length_mismatch" => PROTOCOL_ERROR,
    /// A second header block that does not end the stream (section 8.1).
    TrailersWithoutEnd = "trailers_without_end" => PROTOCOL_ERROR,
    /// An interim response that ends the stream (section 8.1).
    InformationalWithEnd = "informational_with_end" => PROTOCOL_ERROR,
    /// DATA before the response's headers (section 8.1).
    DataBeforeHeaders = "data_before_headers" => PROTOCOL_ERROR,
    /// CONNECT: there is no tunnel to open here (section 8.5).
    Connect = "connect" => CONNECT_ERROR,
    /// More streams than the SETTINGS_MAX_CONCURRENT_STREAMS we announced (section 5.1.2).
    StreamsExceeded = "streams_exceeded" => REFUSED_STREAM,

    /// Too many frames queued that the peer does not read.
    FloodOutbound = "flood_outbound" => ENHANCE_YOUR_CALM,
    /// Too many answers to control frames queued that the peer does not read.
    FloodControl = "flood_control" => ENHANCE_YOUR_CALM,
    /// PING at a pace nobody needs (CVE-2019-9512).
    FloodPing = "flood_ping" => ENHANCE_YOUR_CALM,
    /// SETTINGS at a pace nobody needs (CVE-2019-9515).
    FloodSettings = "flood_settings" => ENHANCE_YOUR_CALM,
    /// More PRIORITY than streams explain.
    FloodPriority = "flood_priority" => ENHANCE_YOUR_CALM,
    /// More WINDOW_UPDATE than DATA explains.
    FloodWindowUpdate = "flood_window_update" => ENHANCE_YOUR_CALM,
    /// Frames with nothing in them, one after another (CVE-2019-9518).
    FloodEmpty = "flood_empty" => ENHANCE_YOUR_CALM,
    /// Too many CONTINUATION frames in one header block (CVE-2024-27316).
    FloodContinuation = "flood_continuation" => ENHANCE_YOUR_CALM,
    /// Streams opened and reset at once (CVE-2023-44487).
    FloodRapidReset = "flood_rapid_reset" => ENHANCE_YOUR_CALM,
    /// Streams broken on purpose so that we reset them (CVE-2025-8671).
    FloodMadeReset = "flood_made_reset" => ENHANCE_YOUR_CALM,
    /// Frames on streams that are over.
    FloodClosed = "flood_closed" => ENHANCE_YOUR_CALM,
    /// Frames of unknown types.
    FloodUnknown = "flood_unknown" => ENHANCE_YOUR_CALM,
    /// Interim responses without a final one.
    FloodInformational = "flood_informational" => ENHANCE_YOUR_CALM,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_snake_case_and_differ() {
        for (i, fault) in Fault::ALL.iter().enumerate() {
            assert_eq!(fault.index(), i);
            assert!(fault.name().bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'));
            assert!(Fault::ALL.iter().filter(|f| f.name() == fault.name()).count() == 1, "{}", fault.name());
        }
    }
}
