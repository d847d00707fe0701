-- SPDX-License-Identifier: Apache-2.0
-- Raise buckets to levels from now on; never lower one. KEYS: owner's records, then buckets. ARGV: token,
-- number of records, and of each bucket `<dH`: us and units of its level. What a key held that is no bucket
-- is replaced.
local owners = tonumber(ARGV[2])
local refused = refusal(owners, ARGV[1])
if refused then
  return refused
end
local at = 1
for i = owners + 1, #KEYS do
  local us, units
  us, units, at = struct.unpack('<dH', ARGV[3], at)
  local there_us, there_units = level_of(KEYS[i])
  if not there_us or us > there_us or (us == there_us and units > there_units) then
    put(KEYS[i], us, units)
  end
end
return 1
