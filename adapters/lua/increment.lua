-- SPDX-License-Identifier: Apache-2.0
-- Add to an integer. KEYS[1]: its key. ARGV: the amount, and the milliseconds that the value lives if this
-- call makes it. Returns the sum as text: a number of Lua's would lose what is above 2^53.
if redis.call('EXISTS', KEYS[1]) == 0 then
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
  return ARGV[1]
end
redis.call('INCRBY', KEYS[1], ARGV[1])
return redis.call('GET', KEYS[1])
