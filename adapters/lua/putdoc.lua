-- SPDX-License-Identifier: Apache-2.0
-- Write a piece of a document; the last one puts it in the place of the old. Any piece may be sent again.
-- KEYS: owner's record, the document, what is written of its successor. ARGV: token, name, digest of the
-- whole, offset, bytes of the whole, the piece, milliseconds that unfinished work is kept.
-- Returns {1, the bytes that are there}.
local refused = refusal(1, ARGV[1])
if refused then
  return refused
end
local record, document, part = unpack(KEYS)
local field, digest, offset, whole, piece = 'doc:' .. ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6]
if redis.call('HGET', record, field) == digest and redis.call('STRLEN', document) == whole then
  return { 1, whole }
end
local there = redis.call('STRLEN', part)
if there == offset then
  redis.call('APPEND', part, piece)
  redis.call('PEXPIRE', part, ARGV[7])
  there = there + #piece
end
if there == whole then
  redis.call('RENAME', part, document)
  redis.call('PERSIST', document)
  redis.call('HSET', record, field, digest)
end
return { 1, there }
