/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Arithmetic in forms that keep the verifier's work small. It follows both sides
 * of every branch and remembers what each path knows of a value, so that seven
 * comparisons are 128 paths; here comparisons are arithmetic, and values that
 * differ from path to path are made unknown, upon which the paths join.
 */
#ifndef VALKYRIE_VERIFIER_H
#define VALKYRIE_VERIFIER_H

/* `x`, of which the verifier forgets what it knew. `unknown` is any value it cannot know. */
static __always_inline u64 forget(u64 x, u64 unknown) {
  asm volatile("%0 ^= %1" : "+r"(x) : "r"(unknown));
  asm volatile("%0 ^= %1" : "+r"(x) : "r"(unknown));
  return x;
}

/* `x`, which the compiler knows nothing of: the bound that follows is not dropped as needless.
 * Of an OR or XOR of two unknown values the verifier knows nothing before Linux 6.10, however
 * small both are.
 */
static __always_inline u64 opaque(u64 x) {
  asm volatile("" : "+r"(x));
  return x;
}

/* 1 if a < b, else 0: the borrow of a - b (Warren, Hacker's Delight, 2-13). */
static __always_inline u64 less(u64 a, u64 b) {
  return ((~a & b) | ((~a | b) & (a - b))) >> 63;
}

/* 1 if x is 0, else 0; in a form that the compiler does not turn into a branch. */
static __always_inline u64 is_zero(u64 x) {
  asm volatile("" : "+r"(x));
  return (~x & (x - 1)) >> 63;
}

/* Whether `p` lies beyond the packet's `end`. Of the end the compiler knows nothing here: in a loop
 * LLVM 19 would compare with a sum of it, and the verifier allows no arithmetic on it.
 */
static __always_inline int beyond(const void *p, const void *end) {
  asm volatile("" : "+r"(end));
  return p > end;
}

/* `p`, which the compiler keeps as it is: of the same address, computed a second time from its
 * parts, as LLVM 18 does, the verifier does not know that it was compared with the packet's end.
 */
static __always_inline void *settled(void *p) {
  asm volatile("" : "+r"(p));
  return p;
}

/* The end of a step: what it found lies in memory, and of memory the verifier remembers nothing. */
static __always_inline void end_step(void) {
  asm volatile("" ::: "memory");
}

#endif
