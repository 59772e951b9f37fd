//! Every bound of a shard, in one place. `node.toml`'s `[limits]` sets values; [`Limits::CEILING`] bounds
//! them. Reaching one is a counted, named outcome.

/// Nanoseconds in a millisecond.
pub(crate) const MS: u64 = 1_000_000;
/// Nanoseconds in a second.
pub(crate) const SECOND: u64 = 1_000 * MS;

/// Bounds of one shard. Times in nanoseconds, sizes in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Connections, downstream and upstream together.
    pub connections_max: u32,
    /// Connections of one caller.
    pub caller_connections_max: u32,
    /// Calls in flight.
    pub calls_max: u32,
    /// Calls in flight of one caller.
    pub caller_calls_max: u32,
    /// SETTINGS_MAX_CONCURRENT_STREAMS towards callers.
    pub streams_max: u32,
    /// Calls that wait for an upstream stream, per destination and caller.
    pub queue_max: u32,
    /// Connections to one endpoint.
    pub endpoint_connections_max: u32,
    /// Callers told apart; more share one entry.
    pub callers_max: u32,
    /// A header list, RFC 9113 section 10.5.1.
    pub header_bytes_max: u32,
    /// A message that the chain must see whole.
    pub message_bytes_max: u32,
    /// Request bytes kept for a retry.
    pub retry_bytes_max: u32,
    /// Stream windows granted and bytes held, all calls together.
    pub pool_bytes: u64,
    /// Of these, one caller's.
    pub caller_pool_bytes: u64,
    /// The stream window at a stream's start.
    pub stream_window_bytes: u32,
    /// The same when the pool runs low.
    pub small_window_bytes: u32,
    /// Bytes that wait in a connection for its socket.
    pub tx_bytes_max: u32,
    /// Methods with their own metrics; more are counted as `other`.
    pub methods_max: u32,
    /// A connection attempt.
    pub connect_timeout_ns: u64,
    /// First and longest pause between attempts.
    pub backoff_min_ns: u64,
    /// See `backoff_min_ns`.
    pub backoff_max_ns: u64,
    /// How long a call without a deadline waits for an endpoint that connects.
    pub queue_wait_ns: u64,
    /// A stream on which nothing moves.
    pub stream_idle_ns: u64,
    /// A connection without streams.
    pub conn_idle_ns: u64,
    /// A connection that has not sent its preface.
    pub preface_timeout_ns: u64,
    /// Between keepalive pings on a connection with streams on which nothing arrives.
    pub keepalive_ns: u64,
    /// How long its answer may take.
    pub keepalive_timeout_ns: u64,
    /// How long a drain lets calls finish.
    pub drain_ns: u64,
    /// Upstream resets a caller may cause in a second before it gets connections of its own.
    pub caller_resets_per_second: u32,
}

impl Limits {
    /// Defaults of CONVENTIONS.md.
    pub const DEFAULT: Self = Self {
        connections_max: 65_536,
        caller_connections_max: 32_768,
        calls_max: 65_536,
        caller_calls_max: 32_768,
        streams_max: 1024,
        queue_max: 1024,
        endpoint_connections_max: 8,
        callers_max: 1024,
        header_bytes_max: 128 << 10,
        message_bytes_max: 4 << 20,
        retry_bytes_max: 64 << 10,
        pool_bytes: 1 << 30,
        caller_pool_bytes: 512 << 20,
        stream_window_bytes: 64 << 10,
        small_window_bytes: 4 << 10,
        tx_bytes_max: 256 << 10,
        methods_max: 512,
        connect_timeout_ns: 2 * SECOND,
        backoff_min_ns: 100 * MS,
        backoff_max_ns: 30 * SECOND,
        queue_wait_ns: SECOND,
        stream_idle_ns: 300 * SECOND,
        conn_idle_ns: 3600 * SECOND,
        preface_timeout_ns: 10 * SECOND,
        keepalive_ns: 10 * SECOND,
        keepalive_timeout_ns: 20 * SECOND,
        drain_ns: 120 * SECOND,
        caller_resets_per_second: 200,
    };

    /// The largest values that may be set.
    pub const CEILING: Self = Self {
        connections_max: 1 << 20,
        caller_connections_max: 1 << 20,
        calls_max: 1 << 20,
        caller_calls_max: 1 << 20,
        streams_max: 65_536,
        queue_max: 1 << 20,
        endpoint_connections_max: 1024,
        callers_max: 65_536,
        header_bytes_max: 1 << 20,
        message_bytes_max: 256 << 20,
        retry_bytes_max: 1 << 20,
        pool_bytes: 64 << 30,
        caller_pool_bytes: 64 << 30,
        stream_window_bytes: 16 << 20,
        small_window_bytes: 1 << 20,
        tx_bytes_max: 16 << 20,
        methods_max: 65_536,
        connect_timeout_ns: 600 * SECOND,
        backoff_min_ns: 600 * SECOND,
        backoff_max_ns: 3600 * SECOND,
        queue_wait_ns: 600 * SECOND,
        stream_idle_ns: 86_400 * SECOND,
        conn_idle_ns: 7 * 86_400 * SECOND,
        preface_timeout_ns: 600 * SECOND,
        keepalive_ns: 86_400 * SECOND,
        keepalive_timeout_ns: 86_400 * SECOND,
        drain_ns: 86_400 * SECOND,
        caller_resets_per_second: 1 << 20,
    };
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}
