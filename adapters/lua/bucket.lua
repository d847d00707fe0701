-- SPDX-License-Identifier: Apache-2.0
-- Put before the scripts that touch buckets. A bucket's value is its TAT by this server's clock,
-- `<us>:<units>`: whole microseconds since the epoch and what is left, in units of 1/64 ns (0 to 63999).
-- Numbers here are doubles: exact below 2^53 = 9.007e15. The clock is at 1.8e15 us, tau below 2^62 units
-- = 7.2e13 us, and a value of 2^53 us or more is none of ours, so no sum that counts comes near.
-- A clock that steps forward fills buckets early; one that steps back keeps them short for as much longer.
local UNITS_A_US = 64000
local MAX_US = 9007199254740992
local MARGIN_MS = 1000 -- a key outlives its bucket, so that no rounding of expiry gives tokens early

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]

-- A bucket's level as microseconds and units: 0, 0 when it is full or not there, nil when the key holds
-- something else.
local function level_of(key)
  local value = redis.pcall('GET', key)
  if not value then
    return 0, 0
  end
  if type(value) == 'table' then
    if string.find(value.err, 'WRONGTYPE', 1, true) then
      return nil
    end
    error(value)
  end
  local us, units = string.match(value, '^(%d+):(%d+)$')
  if not us or #us > 16 or #units > 5 then
    return nil
  end
  us, units = tonumber(us), tonumber(units)
  if us >= MAX_US or units >= UNITS_A_US then
    return nil
  end
  if us < now then
    return 0, 0
  end
  return us - now, units
end

-- Write a level. The key goes when the bucket is full: none is immortal.
local function put(key, us, units)
  local ms = math.ceil((us + 1) / 1000) + MARGIN_MS
  redis.call('SET', key, string.format('%.0f:%d', now + us, units), 'PX', string.format('%.0f', ms))
end
