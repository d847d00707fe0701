-- SPDX-License-Identifier: Apache-2.0
-- Look at owner's records. KEYS: them. Returns of each token, node, epoch, and microseconds since it was seen;
-- nothing for one that is not there.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local answer = {}
for i, key in ipairs(KEYS) do
  local found = redis.call('HMGET', key, 'token', 'node', 'epoch', 'seen')
  answer[i] = {}
  if found[3] then
    answer[i] = { found[1] or '', found[2], found[3], string.format('%.0f', now - tonumber(found[4])) }
  end
end
return answer
