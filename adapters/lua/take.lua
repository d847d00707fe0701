-- SPDX-License-Identifier: Apache-2.0
-- Take tokens of many buckets, each decided for itself, in order; a key may come more than once.
-- KEYS: buckets. ARGV[1]: of each `<ddHH`: us of the cost, us of tau, units of the cost, units of tau; cost 0
-- looks only. Returns `<d` with this server's clock, then of each `<BdH`: 1 taken, 0 refused, 2 no bucket of
-- ours; us and units of the level after it.
local answer = { struct.pack('<d', now) }
local at = 1
for i, key in ipairs(KEYS) do
  local cost_us, tau_us, cost_units, tau_units
  cost_us, tau_us, cost_units, tau_units, at = struct.unpack('<ddHH', ARGV[1], at)
  local us, units = level_of(key)
  local verdict = 2
  if us then
    local after_us, after_units = us + cost_us, units + cost_units
    if after_units >= UNITS_A_US then
      after_us, after_units = after_us + 1, after_units - UNITS_A_US
    end
    verdict = 0
    if after_us < tau_us or (after_us == tau_us and after_units <= tau_units) then
      verdict = 1
      if cost_us > 0 or cost_units > 0 then
        put(key, after_us, after_units)
      end
      us, units = after_us, after_units
    end
  end
  answer[i + 1] = struct.pack('<BdH', verdict, us or 0, units or 0)
end
return table.concat(answer)
