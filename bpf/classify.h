/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Which limits match a packet. Each dimension that some limit constrains maps
 * the packet to a class, a class to a bitmap of the limits it satisfies, and the
 * bitmaps are ANDed: the cost grows with the dimensions in use, not with limits.
 */
#ifndef VALKYRIE_CLASSIFY_H
#define VALKYRIE_CLASSIFY_H

static __always_inline const struct bitmap *class_at(u32 class, u32 generation) {
  u32 index = generation * MAX_CLASSES + (class & (MAX_CLASSES - 1));
  return classes.lookup(&index);
}

static __always_inline void keep_class(struct bitmap *match, u32 class, u32 generation) {
  const struct bitmap *b = class_at(class, generation);
  if (!b)
    return;
  match->word[0] &= b->word[0];
  match->word[1] &= b->word[1];
  match->word[2] &= b->word[2];
  match->word[3] &= b->word[3];
}

static __always_inline void keep_field(struct bitmap *match, u32 field, u32 generation) {
  u32 index = generation * FIELD_BLOCKS + field / FIELD_BLOCK;
  struct field_block *b = fields.lookup(&index);
  if (b)
    keep_class(match, b->class_of[field % FIELD_BLOCK], generation);
}

/* What either class keeps. */
static __always_inline void keep_either(struct bitmap *match, u32 class, u32 other,
                                        u32 generation) {
  const struct bitmap *b = class_at(class, generation), *o = class_at(other, generation);
  if (!b || !o)
    return;
  match->word[0] &= b->word[0] | o->word[0];
  match->word[1] &= b->word[1] | o->word[1];
  match->word[2] &= b->word[2] | o->word[2];
  match->word[3] &= b->word[3] | o->word[3];
}

/* IPv4 inside of IPv6 is kept by prefixes of either. */
static __always_inline void keep_address(struct bitmap *match, const struct address *a,
                                         u8 embedding, const u16 embedded_class[EMBEDDINGS],
                                         u32 root4, u32 root6, u32 generation) {
  u32 class = tree_find(is_ipv4(a) ? root4 : root6, a, generation);
  if (embedding == EMBEDDING_NONE)
    keep_class(match, class, generation);
  else
    keep_either(match, class, embedded_class[embedding == EMBEDDING_SIX_TO_FOUR], generation);
}

static __always_inline u32 nic_slot(u32 ifindex) {
  u32 *slot = nics.lookup(&ifindex);
  return slot ? *slot & (MAX_NICS - 1) : 0;
}

#define BIT(dimension) (1u << (dimension))
#define USES(r, dimension) ((r)->dimensions & BIT(dimension))

/* What few rulesets constrain is asked for all at once. */
#define SELDOM                                                                                     \
  (BIT(DIM_SPORT) | BIT(DIM_TCP_FLAGS) | BIT(DIM_ICMP) | BIT(DIM_FRAGMENT) | BIT(DIM_DSCP) |       \
   BIT(DIM_VERSION) | BIT(DIM_VLAN) | BIT(DIM_INTERFACE) | BIT(DIM_LENGTH))

static __always_inline void keep_seldom(struct bitmap *m, const struct packet *p,
                                        const struct ruleset *r) {
  if (USES(r, DIM_SPORT))
    keep_field(m, FIELD_SPORT + p->sport, p->generation);
  if (USES(r, DIM_TCP_FLAGS))
    keep_field(m, FIELD_TCP_FLAGS + p->tcp_flags, p->generation);
  if (USES(r, DIM_ICMP))
    keep_field(m, FIELD_ICMP + p->icmp, p->generation);
  if (USES(r, DIM_FRAGMENT))
    keep_field(m, FIELD_FRAGMENT + p->fragment, p->generation);
  if (USES(r, DIM_DSCP))
    keep_field(m, FIELD_DSCP + p->dscp, p->generation);
  if (USES(r, DIM_VERSION))
    keep_field(m, FIELD_VERSION + p->version, p->generation);
  if (USES(r, DIM_VLAN))
    keep_field(m, FIELD_VLAN + p->vlan, p->generation);
  if (USES(r, DIM_INTERFACE))
    keep_field(m, FIELD_INTERFACE + nic_slot(p->ifindex), p->generation);
  if (USES(r, DIM_LENGTH))
    keep_field(m, FIELD_LENGTH + (p->length < 65536 ? p->length : 65535), p->generation);
}

static __always_inline void keep_often(struct bitmap *m, const struct packet *p,
                                       const struct ruleset *r) {
  if (USES(r, DIM_PROTOCOL))
    keep_field(m, FIELD_PROTOCOL + p->protocol, p->generation);
  if (USES(r, DIM_DPORT))
    keep_field(m, FIELD_DPORT + p->dport, p->generation);
  if (USES(r, DIM_SRC))
    keep_address(m, &p->src, p->src_embedded, r->src_embedded_class, r->src4_root, r->src6_root,
                 p->generation);
  if (USES(r, DIM_DST))
    keep_address(m, &p->dst, p->dst_embedded, r->dst_embedded_class, r->dst4_root, r->dst6_root,
                 p->generation);
}

static __always_inline u64 first_bits(u32 n) {
  return n >= 64 ? ~0ULL : (1ULL << n) - 1;
}

/* All limits of the ruleset. */
static __always_inline void match_all(struct bitmap *m, u32 n) {
  m->word[0] = first_bits(n);
  m->word[1] = m->word[2] = m->word[3] = 0;
  if (n <= 64)
    return;
  m->word[1] = first_bits(n - 64);
  m->word[2] = n > 128 ? first_bits(n - 128) : 0;
  m->word[3] = n > 192 ? first_bits(n - 192) : 0;
}

static __always_inline void classify(struct bitmap *match, const struct packet *p,
                                     const struct ruleset *r) {
  struct bitmap m;
  match_all(&m, r->limits);
  if (r->dimensions) {
    keep_often(&m, p, r);
    if (r->dimensions & SELDOM)
      keep_seldom(&m, p, r);
  }
  *match = m;
}

#endif
