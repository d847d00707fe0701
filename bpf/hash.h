/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * SipHash-1-3 of 64-bit words under a random secret, so that nobody outside can
 * aim at a bucket set (Aumasson and Bernstein, "SipHash: a fast short-input PRF";
 * the 1-3 rounds are those of hash tables).
 */
#ifndef VALKYRIE_HASH_H
#define VALKYRIE_HASH_H

struct sip {
  u64 v0, v1, v2, v3;
};

static __always_inline u64 rotate(u64 x, int bits) {
  return x << bits | x >> (64 - bits);
}

static __always_inline void sip_round(struct sip *s) {
  s->v0 += s->v1;
  s->v2 += s->v3;
  s->v1 = rotate(s->v1, 13) ^ s->v0;
  s->v3 = rotate(s->v3, 16) ^ s->v2;
  s->v0 = rotate(s->v0, 32);
  s->v2 += s->v1;
  s->v0 += s->v3;
  s->v1 = rotate(s->v1, 17) ^ s->v2;
  s->v3 = rotate(s->v3, 21) ^ s->v0;
  s->v2 = rotate(s->v2, 32);
}

static __always_inline void sip_start(struct sip *s, const u64 secret[2]) {
  s->v0 = secret[0] ^ 0x736f6d6570736575ULL;
  s->v1 = secret[1] ^ 0x646f72616e646f6dULL;
  s->v2 = secret[0] ^ 0x6c7967656e657261ULL;
  s->v3 = secret[1] ^ 0x7465646279746573ULL;
}

static __always_inline void sip_word(struct sip *s, u64 word) {
  s->v3 ^= word;
  sip_round(s);
  s->v0 ^= word;
}

/* Without the block that tells the message's length: the first word of a key does. */
static __always_inline u64 sip_end(struct sip *s) {
  s->v2 ^= 0xff;
  sip_round(s);
  sip_round(s);
  sip_round(s);
  return s->v0 ^ s->v1 ^ s->v2 ^ s->v3;
}

#endif
