-- SPDX-License-Identifier: Apache-2.0
-- Forget buckets. KEYS: owner's records, then buckets. ARGV: token, number of records.
local owners = tonumber(ARGV[2])
local refused = refusal(owners, ARGV[1])
if refused then
  return refused
end
if #KEYS > owners then
  redis.call('UNLINK', unpack(KEYS, owners + 1))
end
return 1
