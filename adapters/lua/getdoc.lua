-- SPDX-License-Identifier: Apache-2.0
-- Read a piece of a document. KEYS: owner's record, the document. ARGV: name, first and last byte.
-- Returns nothing when there is none, else digest, bytes of the whole, and the piece.
if redis.call('EXISTS', KEYS[2]) == 0 then
  return false
end
local digest = redis.call('HGET', KEYS[1], 'doc:' .. ARGV[1]) or ''
return { digest, redis.call('STRLEN', KEYS[2]), redis.call('GETRANGE', KEYS[2], ARGV[2], ARGV[3]) }
