/* What bindgen reads: DPDK's headers, the constants it cannot evaluate by itself, and the few places where the
 * headers offer a macro, a thread-local variable or a struct whose fields have changed places between releases. */
#define _GNU_SOURCE
#include <stddef.h>
#include <stdio.h>
#include <string.h>

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
K(RTE_ETH_DEV_INTR_LSC);
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
K(RTE_COMP_FF_SHAREABLE_PRIV_XFORM);
K(RTE_COMP_FF_HUFFMAN_FIXED);
K(RTE_COMP_FF_HUFFMAN_DYNAMIC);

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

/* Segments: mbufs that accelerators are given. Those of `towpath_pointer_pool` own no bytes and are pointed at a
 * job's: external buffers in DPDK's words. No hardware can be given one, for what they point at is not mapped for
 * it: their IO address is a bad one, so that a device that would use it faults. */
static inline void towpath_owns_nothing(void *addr, void *opaque) {
	(void)addr;
	(void)opaque;
}

static inline struct rte_mempool *towpath_pointer_pool(const char *name, unsigned int count) {
	return rte_pktmbuf_pool_create(name, count, 0, sizeof(struct rte_mbuf_ext_shared_info), 0, SOCKET_ID_ANY);
}

/* Makes a fresh mbuf of `towpath_pointer_pool` one that can be pointed, and that its pool takes back. */
static inline void towpath_pointer_init(struct rte_mbuf *mbuf) {
	struct rte_mbuf_ext_shared_info *shared = (struct rte_mbuf_ext_shared_info *)rte_mbuf_to_priv(mbuf);
	shared->free_cb = towpath_owns_nothing;
	shared->fcb_opaque = NULL;
	rte_mbuf_ext_refcnt_set(shared, 1);
	rte_pktmbuf_attach_extbuf(mbuf, mbuf, RTE_BAD_IOVA, 0, shared);
}

/* Chains `count` (at least 1) idle segments over `len` bytes: each holds `most`, but the first, which holds what is
 * left over. compress_isal (22.11 to 26.11 at least) ends a stream too early if the last is shorter than the one
 * before. `at`: the bytes they are pointed at; NULL: they have their own. */
static inline void towpath_chain(struct rte_mbuf *const *segments, uint16_t count, uint8_t *at, uint32_t len,
				 uint16_t most) {
	struct rte_mbuf *head = segments[0];
	for (uint16_t i = 0; i < count; i++) {
		struct rte_mbuf *segment = segments[i];
		uint16_t part = (uint16_t)(i == 0 ? len - (uint32_t)(count - 1) * most : most);
		if (at != NULL) {
			segment->buf_addr = at;
			segment->buf_len = part;
			segment->data_off = 0;
			at += part;
		}
		segment->data_len = part;
		/* An idle segment has no next one; with only one that stays so. */
		if (i + 1 < count)
			segment->next = segments[i + 1];
	}
	head->pkt_len = len;
	head->nb_segs = count;
}

/* Takes a chain apart: its first segment is idle again, the rest is what it gives. */
static inline struct rte_mbuf *towpath_unchain(struct rte_mbuf *segment) {
	if (segment->nb_segs == 1 && segment->next == NULL)
		return NULL;
	struct rte_mbuf *next = segment->next;
	segment->next = NULL;
	segment->nb_segs = 1;
	return next;
}

static inline void towpath_copy_in(struct rte_mbuf *segment, const uint8_t *from) {
	for (; segment != NULL; from += segment->data_len, segment = segment->next)
		memcpy(rte_pktmbuf_mtod(segment, void *), from, segment->data_len);
}

static inline void towpath_copy_out(const struct rte_mbuf *segment, uint8_t *to, uint32_t len) {
	for (; segment != NULL && len > 0; segment = segment->next) {
		uint32_t part = len < segment->data_len ? len : segment->data_len;
		memcpy(to, rte_pktmbuf_mtod(segment, const void *), part);
		to += part;
		len -= part;
	}
}

/* An operation that came back: which one, and what became of it. */
struct towpath_done {
	uint32_t slot;
	uint32_t consumed;
	uint32_t produced;
	uint8_t status;
};
#define TOWPATH_BURST 32

/* compressdev: one stateless operation. Its slot's number follows the struct. */
static const size_t K_COMP_OP_PRIVATE = sizeof(uint32_t);

static inline void towpath_comp_init(struct rte_comp_op *op, uint32_t slot) {
	op->op_type = RTE_COMP_OP_STATELESS;
	op->flush_flag = RTE_COMP_FLUSH_FINAL;
	memcpy(op + 1, &slot, sizeof slot);
}

static inline void towpath_comp_fill(struct rte_comp_op *op, void *xform, struct rte_mbuf *src, struct rte_mbuf *dst) {
	op->private_xform = xform;
	op->m_src = src;
	op->m_dst = dst;
	op->src.offset = 0;
	op->src.length = src->pkt_len;
	op->dst.offset = 0;
	op->input_chksum = 0;
	op->consumed = 0;
	op->produced = 0;
	op->status = RTE_COMP_OP_STATUS_NOT_PROCESSED;
}

static inline int towpath_comp_is_untouched(const struct rte_comp_op *op) {
	return op->status == RTE_COMP_OP_STATUS_NOT_PROCESSED;
}

static inline uint16_t towpath_comp_dequeue(uint8_t device, uint16_t queue, struct towpath_done *done) {
	struct rte_comp_op *ops[TOWPATH_BURST];
	uint16_t count = rte_compressdev_dequeue_burst(device, queue, ops, TOWPATH_BURST);
	for (uint16_t i = 0; i < count; i++) {
		memcpy(&done[i].slot, ops[i] + 1, sizeof done[i].slot);
		done[i].consumed = ops[i]->consumed;
		done[i].produced = ops[i]->produced;
		done[i].status = ops[i]->status;
	}
	return count;
}

/* cryptodev: one AEAD operation. Nonce, associated data, tag and our own word follow the structs: they have to stay
 * where they are until the operation is done. */
#define TOWPATH_AAD_MAX 96
#define TOWPATH_IV_LEN 12
#define TOWPATH_TAG_LEN 16
struct towpath_aead_private {
	uint8_t iv[TOWPATH_IV_LEN];
	uint32_t slot;
	uint8_t tag[TOWPATH_TAG_LEN];
	uint8_t aad[TOWPATH_AAD_MAX];
};
#define TOWPATH_AEAD_AT (sizeof(struct rte_crypto_op) + sizeof(struct rte_crypto_sym_op))
static const size_t K_AEAD_PRIVATE = sizeof(struct towpath_aead_private);
#define K_OP_SYM(field) (offsetof(struct rte_crypto_op, sym) + offsetof(struct rte_crypto_sym_op, field))
static const size_t K_OP_STATUS = offsetof(struct rte_crypto_op, status);
static const size_t K_OP_SRC = K_OP_SYM(m_src);
static const size_t K_OP_DST = K_OP_SYM(m_dst);
static const size_t K_OP_SESSION = K_OP_SYM(session);
static const size_t K_OP_AEAD_LEN = K_OP_SYM(aead.data.length);
static const uint8_t K_NOT_PROCESSED = RTE_CRYPTO_OP_STATUS_NOT_PROCESSED;
static const size_t K_AEAD_AAD_MAX = TOWPATH_AAD_MAX;
static const size_t K_AEAD_IV_LEN = TOWPATH_IV_LEN;
static const size_t K_AEAD_TAG_LEN = TOWPATH_TAG_LEN;
K(RTE_CRYPTODEV_FF_HW_ACCELERATED);
K(RTE_CRYPTODEV_FF_SYM_CPU_CRYPTO);
K(RTE_CRYPTODEV_FF_IN_PLACE_SGL);
K(RTE_CRYPTODEV_FF_OOP_SGL_IN_SGL_OUT);
K(RTE_CRYPTODEV_FF_OOP_LB_IN_LB_OUT);
K(RTE_COMPDEV_FF_HW_ACCELERATED);
K(RTE_COMP_FF_OOP_SGL_IN_SGL_OUT);
K(RTE_COMP_FF_OOP_SGL_IN_LB_OUT);
K(RTE_COMP_FF_OOP_LB_IN_SGL_OUT);

static inline void *towpath_aead_session(uint8_t device, int seal, const uint8_t *key, uint16_t key_len,
					 uint16_t aad_len, struct rte_mempool *pool) {
	struct rte_crypto_sym_xform xform = {0};
	xform.type = RTE_CRYPTO_SYM_XFORM_AEAD;
	xform.aead.op = seal ? RTE_CRYPTO_AEAD_OP_ENCRYPT : RTE_CRYPTO_AEAD_OP_DECRYPT;
	xform.aead.algo = RTE_CRYPTO_AEAD_AES_GCM;
	xform.aead.key.data = key;
	xform.aead.key.length = key_len;
	xform.aead.iv.offset = TOWPATH_AEAD_AT + offsetof(struct towpath_aead_private, iv);
	xform.aead.iv.length = TOWPATH_IV_LEN;
	xform.aead.digest_length = TOWPATH_TAG_LEN;
	xform.aead.aad_length = aad_len;
	return rte_cryptodev_sym_session_create(device, &xform, pool);
}

/* What of an operation is the same for every job; gives its own words. */
static inline struct towpath_aead_private *towpath_aead_init(struct rte_crypto_op *op, uint32_t slot) {
	struct towpath_aead_private *own =
		rte_crypto_op_ctod_offset(op, struct towpath_aead_private *, TOWPATH_AEAD_AT);
	own->slot = slot;
	op->sess_type = RTE_CRYPTO_OP_WITH_SESSION;
	op->sym->aead.data.offset = 0;
	op->sym->aead.digest.data = own->tag;
	op->sym->aead.digest.phys_addr = rte_crypto_op_ctophys_offset(
		op, TOWPATH_AEAD_AT + offsetof(struct towpath_aead_private, tag));
	op->sym->aead.aad.data = own->aad;
	op->sym->aead.aad.phys_addr = rte_crypto_op_ctophys_offset(
		op, TOWPATH_AEAD_AT + offsetof(struct towpath_aead_private, aad));
	return own;
}

/* Jobs for a driver that works on the calling core: each one's text, which the result replaces, its tag and what else is
 * read. Few enough to stay in the first cache beside their texts. */
#define TOWPATH_DESK 16
struct towpath_aead_desk {
	struct rte_crypto_vec text[TOWPATH_DESK];
	struct rte_crypto_sgl list[TOWPATH_DESK];
	struct rte_crypto_va_iova_ptr iv[TOWPATH_DESK];
	struct rte_crypto_va_iova_ptr tag[TOWPATH_DESK];
	struct rte_crypto_va_iova_ptr aad[TOWPATH_DESK];
	int32_t status[TOWPATH_DESK];
};
static const size_t K_DESK = TOWPATH_DESK;

/* Does the first `count` jobs, and says of each how it went: 0, or an errno. */
static inline void towpath_aead_now(uint8_t device, void *session, struct towpath_aead_desk *desk, uint16_t count) {
	union rte_crypto_sym_ofs whole = {0};
	struct rte_crypto_sym_vec jobs = {
		.num = count, .src_sgl = desk->list, .iv = desk->iv, .digest = desk->tag, .aad = desk->aad,
		.status = desk->status};
	for (uint16_t i = 0; i < count; i++) {
		desk->list[i].vec = &desk->text[i];
		desk->list[i].num = 1;
		/* A driver that gives up half-way leaves the rest as it is. */
		desk->status[i] = ENOTSUP;
	}
	rte_cryptodev_sym_cpu_crypto_process(device, session, whole, &jobs);
}

static inline int towpath_aead_is_untouched(const struct rte_crypto_op *op) {
	return op->status == RTE_CRYPTO_OP_STATUS_NOT_PROCESSED;
}

static inline uint16_t towpath_aead_dequeue(uint8_t device, uint16_t queue, struct towpath_done *done) {
	struct rte_crypto_op *ops[TOWPATH_BURST];
	uint16_t count = rte_cryptodev_dequeue_burst(device, queue, ops, TOWPATH_BURST);
	for (uint16_t i = 0; i < count; i++) {
		done[i].slot =
			rte_crypto_op_ctod_offset(ops[i], struct towpath_aead_private *, TOWPATH_AEAD_AT)->slot;
		done[i].status = ops[i]->status;
	}
	return count;
}

/* A flow rule: packets to an address, a protocol (0: any) and a port (0: any) go to a queue, or (below 0) nowhere. */
struct towpath_flow {
	uint8_t to[16];
	uint8_t ipv6;
	uint8_t protocol;
	uint16_t to_port;
	int32_t queue;
};

static inline struct rte_flow *towpath_flow_create(uint16_t port, const struct towpath_flow *rule,
						   struct rte_flow_error *error) {
	struct rte_flow_attr attr = {.ingress = 1};
	struct rte_flow_item_ipv4 ip4 = {0}, ip4_mask = {0};
	struct rte_flow_item_ipv6 ip6 = {0}, ip6_mask = {0};
	/* TCP and UDP have their ports at one place. */
	struct rte_flow_item_tcp l4 = {0}, l4_mask = {0};
	struct rte_flow_action_queue queue = {.index = (uint16_t)rule->queue};
	struct rte_flow_item items[4] = {{.type = RTE_FLOW_ITEM_TYPE_ETH}};
	struct rte_flow_action actions[2] = {{.type = RTE_FLOW_ACTION_TYPE_DROP}};
	if (rule->ipv6) {
		memcpy(&ip6.hdr.dst_addr, rule->to, 16);
		memset(&ip6_mask.hdr.dst_addr, 0xff, 16);
		ip6.hdr.proto = rule->protocol;
		ip6_mask.hdr.proto = rule->protocol ? 0xff : 0;
		items[1] = (struct rte_flow_item){.type = RTE_FLOW_ITEM_TYPE_IPV6, .spec = &ip6, .mask = &ip6_mask};
	} else {
		memcpy(&ip4.hdr.dst_addr, rule->to, 4);
		memset(&ip4_mask.hdr.dst_addr, 0xff, 4);
		ip4.hdr.next_proto_id = rule->protocol;
		ip4_mask.hdr.next_proto_id = rule->protocol ? 0xff : 0;
		items[1] = (struct rte_flow_item){.type = RTE_FLOW_ITEM_TYPE_IPV4, .spec = &ip4, .mask = &ip4_mask};
	}
	items[2].type = RTE_FLOW_ITEM_TYPE_END;
	if (rule->protocol && rule->to_port) {
		l4.hdr.dst_port = rte_cpu_to_be_16(rule->to_port);
		l4_mask.hdr.dst_port = 0xffff;
		items[2].type = rule->protocol == 6 ? RTE_FLOW_ITEM_TYPE_TCP : RTE_FLOW_ITEM_TYPE_UDP;
		items[2].spec = &l4;
		items[2].mask = &l4_mask;
		items[3].type = RTE_FLOW_ITEM_TYPE_END;
	}
	if (rule->queue >= 0) {
		actions[0].type = RTE_FLOW_ACTION_TYPE_QUEUE;
		actions[0].conf = &queue;
	}
	actions[1].type = RTE_FLOW_ACTION_TYPE_END;
	return rte_flow_create(port, &attr, items, actions, error);
}
