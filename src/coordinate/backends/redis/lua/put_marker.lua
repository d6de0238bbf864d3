-- Store a marker record under the claimed token, unless the step is done already.
--
-- KEYS: 1 claim, 2 markers
-- ARGV: 1 token, 2 field, 3 record (JSON), 4 a stored value that may be replaced although it says done, or '',
--       5 channel of the scope, 6 what is published there
-- Returns: {'stored'}, {'stale', registered token} or {'done', the stored value}
-- Errors: CORRUPT the registered claim has no usable token

local claimed = claimed_token(KEYS[1])
if not claimed then
  return redis.error_reply(CORRUPT)
end
if claimed ~= ARGV[1] then
  return {'stale', claimed}
end
local stored = redis.call('HGET', KEYS[2], ARGV[2])
if stored and stored ~= ARGV[3] and stored ~= ARGV[4] then
  local readable, record = pcall(cjson.decode, stored)
  if readable and type(record) == 'table' and record.state == 'done' then
    return {'done', stored}
  end
end
redis.call('PUBLISH', ARGV[5], ARGV[6])
redis.call('HSET', KEYS[2], ARGV[2], ARGV[3])
return {'stored'}
