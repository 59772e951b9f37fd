//! Plain counters of a shard: one line each, with the help text users read in `/metrics`.

macro_rules! counters {
    ($($name:ident: $help:literal,)*) => {
        /// Every counter; a place where one moves is a place where something happened once.
        #[derive(Clone, Debug, Default)]
        pub(crate) struct Counters {
            $(#[doc = $help] pub(crate) $name: u64,)*
        }

        impl Counters {
            /// Name, help and value of each.
            pub(crate) fn list(&self) -> alloc::vec::Vec<(&'static str, &'static str, u64)> {
                alloc::vec![$((stringify!($name), $help, self.$name),)*]
            }
        }
    };
}

counters! {
    turns: "Turns of the shard's loop.",
    rx_events: "Events received from the transport.",
    rx_bytes: "Bytes received, both sides.",
    tx_bytes: "Bytes handed to the transport, both sides.",
    connections_accepted: "Connections accepted.",
    connections_refused_limit: "Connections refused because of connections_max or caller_connections_max.",
    connections_refused_memory: "Connections refused because the byte pool is nearly used up.",
    connections_idle_closed: "Connections closed after conn_idle without a stream.",
    connections_preface_timeout: "Connections closed because no preface came in time.",
    connections_keepalive_timeout: "Connections closed because a keepalive ping was not answered.",
    upstream_connects: "Connections begun to endpoints.",
    upstream_connects_fair: "Connections begun for a caller beyond endpoint_connections_max because others held the streams.",
    upstream_connect_failures: "Connections to endpoints that failed.",
    upstream_connections_lost: "Established connections to endpoints that ended with calls on them.",
    upstream_goaways: "GOAWAY frames from endpoints.",
    callers_made_private: "Times a caller over its reset budget got connections of its own.",
    calls_started: "Calls that arrived.",
    calls_ended: "Calls that ended, whatever the outcome.",
    calls_cancelled: "Calls their caller cancelled or left.",
    calls_retried_transparently: "Attempts repeated because the endpoint had not processed them.",
    calls_unsent: "Calls that were opened and reset in one burst and never left.",
    calls_no_service: "Calls whose authority names no service.",
    calls_no_rule: "Calls that no rule covers.",
    calls_no_endpoint: "Calls that found no healthy endpoint.",
    calls_connect_failed: "Calls that ended because no connection came to be in time.",
    calls_reset_by_endpoint: "Calls whose stream the endpoint reset.",
    calls_connection_lost: "Calls whose connection to the endpoint ended.",
    calls_deadline_exceeded: "Calls that passed their deadline.",
    calls_stream_idle: "Calls ended after stream_idle without a byte.",
    calls_queue_full: "Calls refused because queue_max calls of their caller waited already.",
    calls_limit: "Calls refused because of calls_max or caller_calls_max.",
    calls_pool_exhausted: "Calls refused because the byte pool or the caller's share of it is used up.",
    calls_upstream_malformed: "Calls ended because the endpoint's answer broke HTTP/2 or gRPC.",
    calls_upstream_http: "gRPC calls answered in plain HTTP.",
    calls_bad_timeout: "Calls whose grpc-timeout could not be read.",
    calls_rejected_by_element: "Calls that an element rejected.",
    calls_message_malformed: "Calls with a message that is none of its method's type.",
    calls_message_flag: "Calls with a message whose compressed-flag is neither 0 nor 1.",
    calls_message_cut: "Calls whose stream ended inside a message.",
    calls_message_corrupt: "Calls with a compressed message that is damaged or cut short.",
    calls_message_inflates: "Calls with a compressed message that unpacks to more than message_bytes_max.",
    calls_message_not_one: "Unary calls with no message, or more than one.",
    calls_message_too_large: "Calls with a message above message_bytes_max.",
    calls_message_encoding: "Calls with a message encoding that is not known.",
    calls_outlived: "Calls ended because sixteen reloads came while they ran.",
    calls_drained: "Calls ended because the drain's time was up.",
    state_conflicts: "Handlers whose writes of node state met other shards' eight times and were dropped.",
    map_writes_refused: "Writes to a map that was full and refuses further keys.",
    map_keys_shared: "Uses of the one entry that a full map shares among further keys.",
    calls_method_unknown: "Calls of methods that no proto knows, in chains that read messages.",
    lists_cut: "Calls refused: a list of a message had more items than the chain reads.",
    metric_sets_overflowed: "Counts under label sets beyond the thousand that a metric tells apart.",
    texts_cut: "Calls refused: their texts were longer than a chain holds.",
    metadata_refused: "Metadata an element wrote that may not travel.",
    calls_seal_unknown_key: "Calls with a message sealed with a key that is not here.",
    calls_seal_forged: "Calls with a sealed message that does not open.",
    calls_seal_replayed: "Sealed calls that had been opened here before.",
    calls_seal_expired: "Sealed calls older than what the replay window remembers.",
    calls_seal_malformed: "Calls with a message that is no envelope where sealed ones are expected.",
    calls_seal_cut: "Calls whose sealed messages ended without the last.",
    calls_unsealed: "Calls that were not sealed where they must be.",
    calls_seal_not_grpc: "Calls that are not gRPC in chains that seal messages.",
    calls_seal_lost: "Calls with a message that a device lost while it sealed or opened it.",
    messages_sealed: "Messages sealed.",
    messages_opened: "Sealed messages opened.",
    messages_compressed: "Messages compressed.",
    messages_decompressed: "Messages decompressed.",
    compression_in_bytes: "Bytes before compression of messages that were compressed.",
    compression_out_bytes: "Bytes after it.",
    windows_made_small: "Connections told of a smaller stream window because the pool ran low.",
    windows_grown: "Times a busy stream's window was doubled.",
    relay_connections: "Connections relayed as bytes.",
    relay_bytes: "Bytes relayed, both directions.",
}
