/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Which bucket of a limit a packet belongs to: the fields of the limit's key,
 * masked, hashed to a fingerprint, and written out for people.
 */
#ifndef VALKYRIE_KEY_H
#define VALKYRIE_KEY_H

struct key {
  u64 fingerprint;
  struct address src; /* masked; 0 when not part of the key */
  struct address dst;
  u32 sport;
  u32 dport;
  u8 protocol;
  u8 fields;
  u16 uid;
};

static __always_inline void mask_address(struct address *to, const struct address *from,
                                         const u64 *mask4, const u64 *mask6) {
  const u64 *mask = is_ipv4(from) ? mask4 : mask6;
  to->high = from->high & mask[0];
  to->low = from->low & mask[1];
}

/* An IPv4 address is one word. The first word of a key says which addresses follow and which of
 * them are IPv4, so that no two keys read alike. */
static __always_inline void sip_address(struct sip *s, const struct address *a, int v4) {
  if (!v4)
    sip_word(s, a->high);
  sip_word(s, a->low);
}

static __always_inline void fingerprint(struct key *k, const struct packet *p,
                                        const u64 secret[2]) {
  u64 src4 = is_ipv4(&p->src), dst4 = is_ipv4(&p->dst);
  u64 head = k->uid | (u64)k->fields << 16 | (u64)k->protocol << 24 | (u64)k->sport << 32 |
             (u64)k->dport << 48;
  if (k->fields & KEY_SRC)
    head |= src4 << 21;
  if (k->fields & KEY_DST)
    head |= dst4 << 22;
  struct sip s;
  sip_start(&s, secret);
  sip_word(&s, head);
  if (k->fields & KEY_SRC)
    sip_address(&s, &k->src, src4);
  if (k->fields & KEY_DST)
    sip_address(&s, &k->dst, dst4);
  k->fingerprint = sip_end(&s) ?: 1;
}

static __always_inline void key_of(struct key *k, struct limit *l, const struct packet *p,
                                   const u64 secret[2]) {
  k->uid = l->uid & UID_MASK;
  k->fields = l->key_fields;
  k->src.high = k->src.low = k->dst.high = k->dst.low = 0;
  if (k->fields & KEY_SRC)
    mask_address(&k->src, &p->src, l->mask4, l->mask6);
  if (k->fields & KEY_DST)
    mask_address(&k->dst, &p->dst, l->mask4 + 2, l->mask6 + 2);
  k->sport = k->fields & KEY_SPORT ? port_of(p->sport) : 0;
  k->dport = k->fields & KEY_DPORT ? port_of(p->dport) : 0;
  k->protocol = k->fields & KEY_PROTOCOL ? p->protocol : 0;
  if (!k->fields && l->fingerprint) {
    k->fingerprint = l->fingerprint;
  } else {
    fingerprint(k, p, secret);
    if (!k->fields)
      l->fingerprint = k->fingerprint;
  }
  end_step();
}

/* Bans are kept by source: /32, or /64. */
static __always_inline void ban_key_of(struct key *k, const struct packet *p, const u64 secret[2]) {
  k->uid = UID_BAN;
  k->fields = KEY_SRC;
  k->src.high = p->src.high;
  k->src.low = is_ipv4(&p->src) ? p->src.low : 0;
  k->dst.high = k->dst.low = 0;
  k->sport = k->dport = 0;
  k->protocol = 0;
  fingerprint(k, p, secret);
}

static __always_inline void put64(u8 *to, u64 value) {
  __be64 network = bpf_htonll(value);
  __builtin_memcpy(to, &network, sizeof(network));
}

/* Is this end IPv4, or no part of the key? */
static __always_inline int ipv4_or_absent(const struct key *k, u8 field, const struct address *a) {
  return !(k->fields & field) || is_ipv4(a);
}

static __always_inline void write_pair(struct bucket_key *to, const struct key *k) {
  if (ipv4_or_absent(k, KEY_SRC, &k->src) && ipv4_or_absent(k, KEY_DST, &k->dst)) {
    put64(to->addr, k->src.low << 32 | (u32)k->dst.low);
    put64(to->addr + 8, (u64)k->sport << 48 | (u64)k->protocol << 40);
    return;
  }
  to->uid |= UID_IPV6_PAIR;
  put64(to->addr, k->src.high);
  u64 more = k->src.low | k->dst.low | k->sport | k->protocol;
  put64(to->addr + 8, more ? k->fingerprint : k->dst.high);
}

/* The form that struct bucket_key states. */
static __always_inline void write_key(struct bucket_key *to, const struct key *k) {
  to->uid = k->uid;
  to->dport = k->dport;
  if ((k->fields & KEY_SRC && k->fields & KEY_DST) || k->fields & KEY_SPORT) {
    write_pair(to, k);
    return;
  }
  const struct address *a = k->fields & KEY_DST ? &k->dst : &k->src;
  put64(to->addr, a->high);
  put64(to->addr + 8, a->low);
}

#endif
