-- SPDX-License-Identifier: Apache-2.0
-- Read buckets. KEYS: them. Returns this server's clock in microseconds and the values.
local time = redis.call('TIME')
return { string.format('%.0f', time[1] * 1000000 + time[2]), redis.call('MGET', unpack(KEYS)) }
