//! What a stack has done and refused: one plain number for each, and what it holds now.

/// Defines the counters once: as fields, and as names for whoever exports them.
macro_rules! counters {
    ($(#[doc = $doc:literal] $name:ident,)*) => {
        /// Totals since the stack was opened.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
        pub struct Counters {
            $(#[doc = $doc] pub $name: u64,)*
        }

        impl Counters {
            /// Name, meaning and value of each, in a fixed order.
            pub fn entries(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
                [$((stringify!($name), $doc.trim_ascii_start(), self.$name),)*].into_iter()
            }
        }
    };
}

counters! {
    /// Ethernet frames received.
    rx_frames,
    /// Ethernet frames sent.
    tx_frames,
    /// Stream bytes given to the shard.
    rx_bytes,
    /// Stream bytes accepted from the shard.
    tx_bytes,
    /// Connections accepted.
    accepts,
    /// Connections not accepted: nobody answers for their address, or another neighbour does.
    accepts_unproved,
    /// Connects begun.
    connects,
    /// Connects that failed.
    connect_errors,
    /// Connections the peer reset.
    resets_received,
    /// RSTs without the number of a connection's next byte, not heeded: forged, or about an older segment of ours.
    resets_inexact,
    /// Connections given up because the peer fell silent.
    timeouts,
    /// `tx` took fewer bytes than it was given.
    tx_cut,
    /// Received bytes waited because the shard held all buffers.
    rx_no_buffer,
    /// A frame could not be sent: the port had no buffer.
    tx_no_buffer,
    /// A frame could not be sent: the port's queue was full and stayed full.
    tx_full,
    /// Frames shorter than their headers say.
    bad_truncated,
    /// Frames longer than the MTU allows.
    bad_oversize,
    /// Frames with a VLAN tag.
    bad_vlan,
    /// Frames of a protocol other than IP and ARP.
    bad_ethertype,
    /// Frames for another ethernet or IP address.
    not_for_us,
    /// IP headers with a wrong version or length.
    bad_ip_header,
    /// IPv4 header checksums.
    bad_ip_checksum,
    /// IPv4 options and IPv6 extension headers.
    bad_ip_options,
    /// IP fragments.
    bad_fragment,
    /// Senders that cannot be: groups, broadcasts, ourselves.
    bad_source,
    /// IP packets that are neither TCP nor ICMP.
    bad_protocol,
    /// TCP headers with a wrong length, flags that exclude each other or port 0.
    bad_tcp_header,
    /// TCP options that do not parse.
    bad_tcp_options,
    /// TCP checksums.
    bad_tcp_checksum,
    /// TCP segments beyond the window of a connection that has just begun.
    bad_tcp_window,
    /// TCP segments with bytes beyond the end of their stream.
    bad_tcp_after_fin,
    /// SYNs for connections that are there already.
    bad_tcp_syn,
    /// TCP segments whose acknowledgement is older than all that may be under way.
    bad_tcp_ack,
    /// Peers asked by an acknowledgement whether they have sent what may be forged.
    challenges,
    /// ICMP messages that do not parse, or with a wrong checksum.
    bad_icmp,
    /// ARP packets and neighbour discovery that do not parse or do not come from a neighbour.
    bad_neighbour,
    /// SYNs to ports where nobody listens.
    syns_refused,
    /// SYNs dropped because the backlog was full.
    syns_dropped,
    /// SYNs dropped because their source had its share of the backlog.
    syns_dropped_source,
    /// SYNs refused because there were as many connections as may be.
    syns_over_conns_max,
    /// SYNs from senders to whom no route leads.
    syns_unroutable,
    /// Half-open connections that gave way to newer ones.
    half_open_evicted,
    /// Half-open connections whose handshake never ended.
    half_open_expired,
    /// RSTs sent for segments of unknown flows.
    rsts_sent,
    /// RSTs not sent because there were too many.
    rsts_suppressed,
    /// Echo requests answered.
    echoes,
    /// Echo requests not answered because there were too many.
    echoes_suppressed,
    /// ICMP errors that ended a connect.
    icmp_unreachable,
    /// "Packet too big", which is not acted upon.
    icmp_too_big,
    /// Other ICMP messages, and errors about nothing of ours.
    icmp_ignored,
    /// ARP requests and neighbour solicitations sent.
    neighbours_asked,
    /// Neighbours that did not answer.
    neighbours_failed,
    /// ARP requests and neighbour solicitations answered.
    neighbour_answers,
    /// Neighbours not learnt because the table was full.
    neighbours_refused,
    /// Frames kept for other shards.
    shared,
    /// Frames that other shards would have had, but for their number.
    shared_dropped,
    /// Closed flows forgotten before their time because there were too many.
    time_wait_evicted,
    /// TCP segments sent again, in whole or in part.
    retransmits,
    /// Times the link went down.
    link_downs,
}

/// Totals, and what the stack holds now.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Snapshot {
    /// Totals.
    pub counters: Counters,
    /// Connections, half-open and lingering ones included.
    pub conns_open: u64,
    /// Those that wait for the handshake's last segment.
    pub half_open: u64,
    /// Closed flows remembered.
    pub time_wait: u64,
    /// Neighbours known or asked for.
    pub neighbours: u64,
    /// Sockets made, in use or spare.
    pub sockets: u64,
    /// Of these, in use.
    pub sockets_in_use: u64,
    /// Bytes of rings of sockets in use.
    pub ring_bytes: u64,
    /// Bytes of rings of spare sockets.
    pub ring_bytes_spare: u64,
    /// Bytes that a connection takes besides its rings.
    pub conn_bytes: u64,
    /// Buffers with received bytes in the shard's hands.
    pub rx_buffers_out: u64,
    /// Buffers made so far.
    pub rx_buffers_made: u64,
    /// 1 if the link is up.
    pub link_up: u64,
}

impl Snapshot {
    /// Bytes of memory per connection, rings included, as it is now.
    pub fn bytes_per_conn(&self) -> u64 {
        self.conn_bytes + self.ring_bytes / self.sockets_in_use.max(1)
    }
}
