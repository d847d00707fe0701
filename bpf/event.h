/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Drop events for people, through a ring buffer. Of event_sample drops one is reported, on average,
 * and no more than event_rate a second and CPU; what the rate holds back and what finds the ring
 * full is counted.
 */
#ifndef VALKYRIE_EVENT_H
#define VALKYRIE_EVENT_H

#define SECOND_NS 1000000000ULL

/* How many go by until the next of a sample of one in `n`: 0 to 2n - 2 are alike likely. A fixed
 * number would see some of those who send in turn always, and others never. */
static __always_inline u64 sample_gap(u32 n) {
  return n > 1 ? bpf_get_prandom_u32() % (2 * (u64)n - 1) : 0;
}

static __always_inline int may_report(struct table_stats *t, const struct ruleset *r, u64 now_ns) {
  if (!r->event_sample)
    return 0;
  if (t->drops_left && t->drops_left < 2 * (u64)r->event_sample) {
    t->drops_left--;
    return 0;
  }
  t->drops_left = sample_gap(r->event_sample);
  if (now_ns - t->event_window >= SECOND_NS) {
    t->event_window = now_ns;
    t->event_count = 0;
  }
  if (t->event_count >= r->event_rate) {
    t->events_limited++;
    return 0;
  }
  t->event_count++;
  return 1;
}

static __always_inline void put_address(u64 to[2], const struct address *a) {
  to[0] = bpf_htonll(a->high);
  to[1] = bpf_htonll(a->low);
}

static __always_inline void report(const struct packet *p, const struct ruleset *r, u8 reason,
                                   u16 slot, u8 shadow) {
  struct table_stats *t = table_of(p);
  if (!t || p->explain || !may_report(t, r, p->now_ns))
    return;
  struct event *e = events.ringbuf_reserve(sizeof(struct event));
  if (!e) {
    t->events_lost++;
    return;
  }
  __builtin_memset(e, 0, sizeof(*e));
  e->time = p->now_ns;
  put_address(e->src, &p->src);
  put_address(e->dst, &p->dst);
  e->ifindex = p->ifindex;
  e->sport = port_of(p->sport);
  e->dport = port_of(p->dport);
  e->length = p->length;
  e->slot = slot;
  e->protocol = p->protocol;
  e->reason = reason;
  e->shadow = shadow;
  events.ringbuf_submit(e, 0);
  t->events_sent++;
}

#endif
