-- SPDX-License-Identifier: Apache-2.0
-- Put before the scripts that only the owner may run. An owner's record is a hash: `token`, `node`, `epoch`,
-- `seen` (us by this server's clock) and `doc:<name>` (the digest of a document that was written). One that
-- was released has no token. Scripts answer 1, or what `refusal` says.

-- Nothing if the first `count` keys are records of this token, else why not.
local function refusal(count, token)
  for i = 1, count do
    local found = redis.call('HMGET', KEYS[i], 'token', 'epoch', 'node')
    if not found[2] then
      return { 'gone', KEYS[i] }
    end
    if found[1] ~= token then
      return { found[1] and 'other' or 'released', found[3], found[2] }
    end
  end
end
