/* What bindgen reads: DPDK's headers, the constants it cannot evaluate by itself, and the few places where the
 * headers offer a macro, a thread-local variable or a struct whose fields have changed places between releases. */
#define _GNU_SOURCE
#include <stddef.h>
#include <stdio.h>

#include <rte_compressdev.h>
#include <rte_crypto.h>
#include <rte_cryptodev.h>
#include <rte_dev.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_flow.h>
#include <rte_lcore.h>
#include <rte_log.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>

/* A macro's value under the name K_<macro>. */
#define K(name) static const uint64_t K_##name = name

K(RTE_ETH_RX_OFFLOAD_IPV4_CKSUM);
K(RTE_ETH_RX_OFFLOAD_UDP_CKSUM);
K(RTE_ETH_RX_OFFLOAD_TCP_CKSUM);
K(RTE_ETH_RX_OFFLOAD_RSS_HASH);
K(RTE_ETH_TX_OFFLOAD_IPV4_CKSUM);
K(RTE_ETH_TX_OFFLOAD_UDP_CKSUM);
K(RTE_ETH_TX_OFFLOAD_TCP_CKSUM);
K(RTE_ETH_TX_OFFLOAD_TCP_TSO);
K(RTE_ETH_TX_OFFLOAD_MULTI_SEGS);
K(RTE_ETH_TX_OFFLOAD_MBUF_FAST_FREE);
K(RTE_ETH_RSS_NONFRAG_IPV4_TCP);
K(RTE_ETH_RSS_NONFRAG_IPV4_UDP);
K(RTE_ETH_RSS_NONFRAG_IPV6_TCP);
K(RTE_ETH_RSS_NONFRAG_IPV6_UDP);
K(RTE_ETH_RETA_GROUP_SIZE);
K(RTE_MBUF_F_RX_IP_CKSUM_MASK);
K(RTE_MBUF_F_RX_IP_CKSUM_BAD);
K(RTE_MBUF_F_RX_IP_CKSUM_GOOD);
K(RTE_MBUF_F_RX_L4_CKSUM_MASK);
K(RTE_MBUF_F_RX_L4_CKSUM_BAD);
K(RTE_MBUF_F_RX_L4_CKSUM_GOOD);
K(RTE_MBUF_F_RX_L4_CKSUM_NONE);
K(RTE_MBUF_F_TX_IPV4);
K(RTE_MBUF_F_TX_IPV6);
K(RTE_MBUF_F_TX_IP_CKSUM);
K(RTE_MBUF_F_TX_TCP_CKSUM);
K(RTE_MBUF_F_TX_UDP_CKSUM);
K(RTE_MBUF_F_TX_TCP_SEG);
K(RTE_PKTMBUF_HEADROOM);
K(RTE_MEMPOOL_CACHE_MAX_SIZE);

/* Where the fields of a mbuf are: their order within unions differs between releases, their names do not. */
static const size_t K_MBUF_BUF_ADDR = offsetof(struct rte_mbuf, buf_addr);
static const size_t K_MBUF_DATA_OFF = offsetof(struct rte_mbuf, data_off);
static const size_t K_MBUF_NB_SEGS = offsetof(struct rte_mbuf, nb_segs);
static const size_t K_MBUF_OL_FLAGS = offsetof(struct rte_mbuf, ol_flags);
static const size_t K_MBUF_PKT_LEN = offsetof(struct rte_mbuf, pkt_len);
static const size_t K_MBUF_DATA_LEN = offsetof(struct rte_mbuf, data_len);
static const size_t K_MBUF_BUF_LEN = offsetof(struct rte_mbuf, buf_len);
static const size_t K_MBUF_TX_OFFLOAD = offsetof(struct rte_mbuf, tx_offload);

static inline int towpath_errno(void) { return rte_errno; }

static inline unsigned int towpath_lcore_id(void) { return rte_lcore_id(); }

static inline unsigned int towpath_pool_size(const struct rte_mempool *pool) { return pool->size; }

/* TCP segmentation and checksums: lengths of the headers in a mbuf's one word. */
static inline uint64_t towpath_tx_offload(uint64_t l2, uint64_t l3, uint64_t l4, uint64_t tso) {
	return rte_mbuf_tx_offload(l2, l3, l4, tso, 0, 0, 0);
}

/* The link's state and speed in Mbit/s without waiting; the struct's layout differs between releases. */
static inline int towpath_link(uint16_t port, int *up, uint32_t *mbps) {
	struct rte_eth_link link = {0};
	int result = rte_eth_link_get_nowait(port, &link);
	*up = link.link_status == RTE_ETH_LINK_UP;
	*mbps = link.link_speed;
	return result;
}
