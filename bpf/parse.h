/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Parsing: one cursor over the frame. Each step checks what it reads against
 * the end of the frame and against the length that the IP header declares, and
 * returns PARSED, or the reason why the packet needs no further look.
 */
#ifndef VALKYRIE_PARSE_H
#define VALKYRIE_PARSE_H

#define PARSED REASONS

#define ETHERTYPE_IPV4 0x0800
#define ETHERTYPE_ARP 0x0806
#define ETHERTYPE_IPV6 0x86dd
#define MAX_DATAGRAM 65535

#define PROTO_HOPOPTS 0
#define PROTO_ICMP 1
#define PROTO_TCP 6
#define PROTO_UDP 17
#define PROTO_ROUTING 43
#define PROTO_FRAGMENT 44
#define PROTO_GRE 47
#define PROTO_AH 51
#define PROTO_ICMPV6 58
#define PROTO_DSTOPTS 60
#define PROTO_SCTP 132
#define PROTO_MOBILITY 135
#define PROTO_HIP 139
#define PROTO_SHIM6 140

struct cursor {
  void *at;
  void *end; /* of the frame */
  u32 rest;  /* bytes that the IP header still declares */
};

struct vlan_tag {
  __be16 tci;
  __be16 type;
};

/* Its first four bytes begin every extension header. */
struct extension {
  u8 next;
  u8 length;
  __be16 offset; /* fragment header: offset, reserved, more */
  __be32 id;
};

static __always_inline int present(const struct cursor *c, u32 bytes) {
  return c->at + bytes <= c->end;
}

static __always_inline int is_vlan(u16 type) {
  return type == 0x8100 || type == 0x88a8 || type == 0x9100;
}

static __always_inline int parse_ethernet(struct cursor *c, struct packet *p, u16 *type) {
  if (!present(c, sizeof(struct ethhdr)))
    return REASON_BAD_ETHERNET;
  *type = bpf_ntohs(((struct ethhdr *)c->at)->h_proto);
  c->at += sizeof(struct ethhdr);
#pragma unroll
  for (int i = 0; i < 2; i++) {
    if (!is_vlan(*type))
      return PARSED;
    if (!present(c, sizeof(struct vlan_tag)))
      return REASON_BAD_VLAN;
    struct vlan_tag *tag = c->at;
    /* Id 0 tells a priority alone: the frame is of the next tag's VLAN, or of none. */
    if (!(p->vlan & 0xfff))
      p->vlan = bpf_ntohs(tag->tci) & 0xfff;
    *type = bpf_ntohs(tag->type);
    c->at += sizeof(*tag);
  }
  return is_vlan(*type) ? REASON_BAD_VLAN : PARSED;
}

static __always_inline int parse_ipv4(struct cursor *c, struct packet *p) {
  if (!present(c, sizeof(struct iphdr)))
    return REASON_BAD_IPV4;
  struct iphdr *ip = c->at;
  u32 header = ip->ihl * 4;
  u32 length = bpf_ntohs(ip->tot_len);
  if (ip->version != 4 || header < sizeof(*ip) || length < header)
    return REASON_BAD_IPV4;
  if (c->at + header > c->end || length > (u32)(c->end - c->at))
    return REASON_BAD_IPV4;
  p->length = length;
  p->protocol = ip->protocol;
  p->dscp = ip->tos >> 2;
  p->src.low = V4_MAPPED << 32 | bpf_ntohl(ip->saddr);
  p->dst.low = V4_MAPPED << 32 | bpf_ntohl(ip->daddr);
  p->addressed = 1;
  u32 fragment = bpf_ntohs(ip->frag_off);
  u32 offset = (fragment & 0x1fff) * 8;
  p->fragment = offset ? FRAGMENT_LATER : fragment & 0x2000 ? FRAGMENT_FIRST : FRAGMENT_NONE;
  if (offset + length > MAX_DATAGRAM)
    return REASON_BAD_FRAGMENT;
  c->rest = length - header;
  c->at += header;
  return PARSED;
}

/* The IPv4 address inside a v4-mapped or 6to4 one takes its place. */
static __always_inline enum embedding unembed(struct address *a) {
  if (a->high >> 48 == SIX_TO_FOUR) {
    a->low = V4_MAPPED << 32 | (u32)(a->high >> 16);
    a->high = 0;
    return EMBEDDING_SIX_TO_FOUR;
  }
  return is_ipv4(a) ? EMBEDDING_MAPPED : EMBEDDING_NONE;
}

static __always_inline void read_address(struct address *a, const struct in6_addr *from) {
  a->high = (u64)bpf_ntohl(from->in6_u.u6_addr32[0]) << 32 | bpf_ntohl(from->in6_u.u6_addr32[1]);
  a->low = (u64)bpf_ntohl(from->in6_u.u6_addr32[2]) << 32 | bpf_ntohl(from->in6_u.u6_addr32[3]);
}

static __always_inline int is_extension(u32 next) {
  return next == PROTO_HOPOPTS || next == PROTO_ROUTING || next == PROTO_FRAGMENT ||
         next == PROTO_AH || next == PROTO_DSTOPTS || next == PROTO_MOBILITY || next == PROTO_HIP ||
         next == PROTO_SHIM6;
}

static __always_inline int parse_fragment(struct cursor *c, struct packet *p, u32 *fragments) {
  if ((*fragments)++)
    return REASON_BAD_EXTENSION;
  u32 field = bpf_ntohs(((struct extension *)c->at)->offset);
  u32 offset = field & 0xfff8;
  p->fragment = offset ? FRAGMENT_LATER : field & 1 ? FRAGMENT_FIRST : FRAGMENT_NONE;
  return offset + c->rest - 8 > MAX_DATAGRAM ? REASON_BAD_FRAGMENT : PARSED;
}

static __always_inline int parse_extensions(struct cursor *c, struct packet *p, u32 *seen) {
  u32 fragments = 0;
#pragma clang loop unroll(disable)
  for (u32 i = 0; i <= MAX_EXTENSIONS; i++) {
    /* Told to be likely, the end lies behind the loop: else LLVM 14 lets the loop's last
     * instruction fall through to its first, and kernels before 6.7 allow only jumps to go back. */
    if (__builtin_expect(!is_extension(p->protocol) || p->fragment == FRAGMENT_LATER, 1)) {
      *seen = i;
      return PARSED;
    }
    if (i == MAX_EXTENSIONS || c->rest < sizeof(struct extension) ||
        !present(c, sizeof(struct extension)))
      return REASON_BAD_EXTENSION;
    struct extension *e = c->at;
    u64 bytes = p->protocol == PROTO_AH ? (e->length + 2) * 4 : (e->length + 1) * 8;
    if (p->protocol == PROTO_FRAGMENT) {
      int bad = parse_fragment(c, p, &fragments);
      if (bad != PARSED)
        return bad;
      bytes = sizeof(*e);
    }
    bytes = forget(bytes, p->now) & 0xfff;
    if (bytes > c->rest || c->at + bytes > c->end)
      return REASON_BAD_EXTENSION;
    p->protocol = e->next;
    p->fragment = forget(p->fragment, p->now);
    fragments = forget(fragments, p->now);
    c->rest = forget(c->rest - bytes, p->now);
    c->at += bytes;
  }
  return REASON_BAD_EXTENSION;
}

static __always_inline int parse_ipv6(struct cursor *c, struct packet *p, u32 *extensions) {
  if (!present(c, sizeof(struct ipv6hdr)))
    return REASON_BAD_IPV6;
  struct ipv6hdr *ip = c->at;
  u32 payload = bpf_ntohs(ip->payload_len);
  if (ip->version != 6 || sizeof(*ip) + payload > (u32)(c->end - c->at))
    return REASON_BAD_IPV6;
  if (ip->nexthdr == PROTO_HOPOPTS && payload == 0)
    return REASON_BAD_IPV6;
  p->version = 1;
  p->length = sizeof(*ip) + payload;
  p->protocol = ip->nexthdr;
  p->dscp = (ip->priority << 2 | ip->flow_lbl[0] >> 6) & 63;
  read_address(&p->src, &ip->saddr);
  read_address(&p->dst, &ip->daddr);
  p->src_embedded = unembed(&p->src);
  p->dst_embedded = unembed(&p->dst);
  p->addressed = 1;
  c->rest = payload;
  c->at += sizeof(*ip);
  return parse_extensions(c, p, extensions);
}

static __always_inline int parse_tcp(struct cursor *c, struct packet *p) {
  struct tcphdr *tcp = c->at;
  if (tcp->doff < 5)
    return REASON_BAD_TCP;
  if (tcp->doff * 4 > c->rest)
    return p->fragment == FRAGMENT_FIRST ? REASON_BAD_FRAGMENT : REASON_BAD_TCP;
  p->sport = bpf_ntohs(tcp->source);
  p->dport = bpf_ntohs(tcp->dest);
  p->tcp_flags = ((u8 *)tcp)[13];
  return PARSED;
}

static __always_inline int parse_udp(struct cursor *c, struct packet *p) {
  struct udphdr *udp = c->at;
  u32 length = bpf_ntohs(udp->len);
  if (length < sizeof(*udp) || (p->fragment == FRAGMENT_NONE && length > c->rest))
    return REASON_BAD_UDP;
  p->sport = bpf_ntohs(udp->source);
  p->dport = bpf_ntohs(udp->dest);
  return PARSED;
}

static __always_inline int parse_icmp(struct cursor *c, struct packet *p) {
  u8 type = *(u8 *)c->at;
  p->icmp = p->protocol == PROTO_ICMP ? type : 256 + type;
  return PARSED;
}

static __always_inline int parse_sctp(struct cursor *c, struct packet *p) {
  __be16 *port = c->at;
  p->sport = bpf_ntohs(port[0]);
  p->dport = bpf_ntohs(port[1]);
  return PARSED;
}

/* Layer 4 of a packet or of a first fragment: `least` bytes, then the header's own check. */
#define LAYER4(least, bad, next)                                                                   \
  (c->rest < (least) || !present(c, least)                                                         \
       ? (p->fragment == FRAGMENT_FIRST ? REASON_BAD_FRAGMENT : (bad))                             \
       : (next))

static __always_inline int parse_layer4(struct cursor *c, struct packet *p) {
  if (p->fragment == FRAGMENT_LATER) {
    p->sport = p->dport = LATER_FRAGMENT;
    return PARSED;
  }
  switch (p->protocol) {
  case PROTO_TCP:
    return LAYER4(sizeof(struct tcphdr), REASON_BAD_TCP, parse_tcp(c, p));
  case PROTO_UDP:
    return LAYER4(sizeof(struct udphdr), REASON_BAD_UDP, parse_udp(c, p));
  case PROTO_ICMP:
  case PROTO_ICMPV6:
    return LAYER4(4, REASON_BAD_ICMP, parse_icmp(c, p));
  case PROTO_SCTP:
    return LAYER4(12, REASON_BAD_SCTP, parse_sctp(c, p));
  case PROTO_GRE:
    return LAYER4(4, REASON_BAD_GRE, PARSED);
  default:
    return PARSED;
  }
}

static __always_inline int is_dhcp(const struct packet *p, u32 client, u32 server) {
  return (p->sport == client && p->dport == server) || (p->sport == server && p->dport == client) ||
         (p->sport == server && p->dport == server);
}

/* Neighbour discovery and DHCP: without them a host loses its network. */
static __always_inline u32 is_control(struct ipv6hdr *header, const struct cursor *l4,
                                      const struct packet *p, u32 extensions) {
  if (p->fragment != FRAGMENT_NONE)
    return 0;
  if (p->protocol == PROTO_UDP)
    return p->version ? is_dhcp(p, 546, 547) : is_dhcp(p, 68, 67);
  if (!p->version || extensions || p->icmp < 256 + 133 || p->icmp > 256 + 137)
    return 0;
  u8 *icmp = l4->at;
  return (void *)(header + 1) <= l4->end && present(l4, 2) && header->hop_limit == 255 &&
         icmp[1] == 0;
}

static __always_inline int parse(struct cursor *c, struct packet *p) {
  u16 type;
  u32 extensions = 0;
  int bad = parse_ethernet(c, p, &type);
  if (bad != PARSED)
    return bad;
  void *ip = c->at;
  if (type == ETHERTYPE_IPV4)
    bad = parse_ipv4(c, p);
  else if (type == ETHERTYPE_IPV6)
    bad = parse_ipv6(c, p, &extensions);
  else
    return type == ETHERTYPE_ARP ? REASON_CONTROL : REASON_NOT_IP;
  if (bad == PARSED)
    bad = parse_layer4(c, p);
  if (bad == PARSED)
    p->control = is_control(ip, c, p, extensions);
  return bad;
}

#endif
