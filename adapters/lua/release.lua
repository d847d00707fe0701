-- SPDX-License-Identifier: Apache-2.0
-- Stop being the owner; the epoch stays, so that the next is higher. KEYS: owner's records. ARGV[1]: token.
for _, key in ipairs(KEYS) do
  if redis.call('HGET', key, 'token') == ARGV[1] then
    redis.call('HDEL', key, 'token')
  end
end
return 1
