-- SPDX-License-Identifier: Apache-2.0
-- The owner says that it is alive. KEYS: owner's records. ARGV[1]: token.
local refused = refusal(#KEYS, ARGV[1])
if refused then
  return refused
end
local time = redis.call('TIME')
for _, key in ipairs(KEYS) do
  redis.call('HSET', key, 'seen', string.format('%.0f', time[1] * 1000000 + time[2]))
end
return 1
