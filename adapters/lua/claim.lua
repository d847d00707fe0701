-- SPDX-License-Identifier: Apache-2.0
-- Make a node the owner. KEYS: owner's records. ARGV: token, node, 1 to take it from an owner that is alive,
-- microseconds after which an owner counts as gone, epoch. An epoch belongs to whoever wrote it first: of
-- two that claim at once, one is refused. Clocks that stepped back make an owner look alive for longer.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local token, node, takeover, patience, epoch = unpack(ARGV)
for _, key in ipairs(KEYS) do
  local found = redis.call('HMGET', key, 'token', 'epoch', 'node', 'seen')
  if found[2] and found[1] ~= token then
    local alive = found[1] and now - tonumber(found[4]) < tonumber(patience)
    if (alive and takeover ~= '1') or tonumber(found[2]) >= tonumber(epoch) then
      return { 'other', found[3], found[2] }
    end
  end
end
for _, key in ipairs(KEYS) do
  redis.call('HSET', key, 'token', token, 'node', node, 'epoch', epoch, 'seen', string.format('%.0f', now))
end
return 1
