/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Values: what `set` keeps. Every operation holds the lock of its key's place, so
 * that each is whole and a sum is never lost. Who holds a lock is a program that
 * cannot be stopped half way, unlike a process.
 */
#ifndef VALKYRIE_VALUE_H
#define VALKYRIE_VALUE_H

#define VALUE_TRIES 256

static __always_inline int expired(const struct value *v, u64 now) {
  return v->expires && v->expires <= now;
}

/* Words of the data that follow the request, of which the packet may hold fewer. Of an opaque count
 * the verifier sees the bound; the compiler's own, from `length` down to 0, it follows since
 * Linux 6.8.
 */
static __always_inline void read_data(struct value *v, const u64 *from, const void *end,
                                      u32 length) {
#pragma clang loop unroll(disable)
  for (u64 i = 0; opaque(i) < VALUE_BYTES / 8; i++) {
    if (i * 8 >= length || beyond(from + i + 1, end))
      break;
    v->data[i] = from[i];
  }
}

static __always_inline void write_data(const struct value *v, u64 *to, const void *end,
                                       u32 length) {
#pragma clang loop unroll(disable)
  for (u64 i = 0; opaque(i) < VALUE_BYTES / 8; i++) {
    if (i * 8 >= length || beyond(to + i + 1, end))
      break;
    to[i] = v->data[i];
  }
}

static __always_inline void fill_value(struct value *v, const struct value_call *c, u64 now,
                                       const void *end) {
  v->expires = c->lasts ? now + c->lasts : 0;
  v->integer = c->integer;
  v->kind = c->kind;
  v->length = c->length;
  if (c->kind == VALUE_IS_BYTES)
    read_data(v, (const u64 *)(c + 1), end, c->length);
}

static __always_inline u32 put_value(struct value *v, struct value *fresh,
                                     const struct value_key *key, const struct value_call *c,
                                     u64 now, const void *end) {
  if (v) {
    fill_value(v, c, now, end);
    return VALUE_DONE;
  }
  fill_value(fresh, c, now, end);
  return values.update((struct value_key *)key, fresh) ? VALUE_FULL : VALUE_DONE;
}

static __always_inline u32 add_value(struct value *v, struct value_call *c) {
  s64 sum = (s64)((u64)v->integer + (u64)c->integer);
  if (v->kind != VALUE_IS_INTEGER || ((v->integer ^ sum) & (c->integer ^ sum)) < 0)
    return VALUE_NO_INTEGER;
  v->integer = c->integer = sum;
  return VALUE_DONE;
}

static __always_inline u32 get_value(const struct value *v, struct value_call *c, u64 now,
                                     const void *end) {
  c->lasts = v->expires ? v->expires - now : 0;
  c->integer = v->integer;
  c->kind = v->kind;
  c->length = v->length;
  if (v->kind == VALUE_IS_BYTES)
    write_data(v, (u64 *)(c + 1), end, v->length);
  return VALUE_DONE;
}

static __always_inline u32 drop_value(const struct value_key *key, u32 told) {
  values.delete((struct value_key *)key);
  return told;
}

/* Under the key's lock. */
static __always_inline u32 do_value(struct value_call *c, struct value *fresh,
                                    const struct value_key *key, u64 now, const void *end) {
  struct value *v = values.lookup((struct value_key *)key);
  int live = v && !expired(v, now);
  switch (c->op) {
  case VALUE_SET:
    return put_value(v, fresh, key, c, now, end);
  case VALUE_ADD:
    return live ? add_value(v, c) : put_value(v, fresh, key, c, now, end);
  case VALUE_GET:
    return live ? get_value(v, c, now, end) : VALUE_ABSENT;
  case VALUE_DELETE:
    return v ? drop_value(key, live ? VALUE_DONE : VALUE_ABSENT) : VALUE_ABSENT;
  case VALUE_SWEEP:
    return v && !live ? drop_value(key, VALUE_DONE) : VALUE_ABSENT;
  }
  return VALUE_WRONG;
}

static __always_inline int lock_value(u64 *lock) {
#pragma clang loop unroll(disable)
  for (int i = 0; i < VALUE_TRIES; i++)
    if (__sync_val_compare_and_swap(lock, 0, 1) == 0)
      return 1;
  return 0;
}

static __always_inline u32 ask_value(struct value_call *c, struct value *fresh, u64 now,
                                     const void *end) {
  struct value_key key = {{c->key[0], c->key[1], c->key[2], c->key[3]}};
  u32 place = key.word[0] & (VALUE_LOCKS - 1), moved = VALUE_LOCKS;
  u64 *lock = value_locks.lookup(&place);
  u64 *gone = value_locks.lookup(&moved);
  if (!lock || !gone || *(volatile u64 *)gone)
    return VALUE_RETIRED;
  if (c->length > VALUE_BYTES)
    return VALUE_WRONG;
  if (!lock_value(lock))
    return VALUE_CONTENDED;
  u32 told = do_value(c, fresh, &key, now, end);
  __sync_lock_test_and_set(lock, 0);
  return told;
}

#endif
