-- Store a marker record under the claimed token, unless the step is done already, or the record is late: progress of an
-- attempt whose end, or whose successor, is stored. Late is what `MarkerRecord.late_for` says, and changes nothing.
--
-- KEYS: 1 claim, 2 markers
-- ARGV: 1 token, 2 field, 3 record (JSON), 4 a stored value that may be replaced although it says done, or '',
--       5 channel of the scope, 6 what is published there
-- Returns: {'stored'} also if it was late, {'stale', registered token} or {'done', the stored value}
-- Errors: CORRUPT the registered claim has no usable token

local claimed = claimed_token(KEYS[1])
if not claimed then
  return redis.error_reply(CORRUPT)
end
if claimed ~= ARGV[1] then
  return {'stale', claimed}
end

local function late(record, past)
  local same = record.token == past.token and record.fingerprint == past.fingerprint
  if record.state ~= 'in progress' or not same or record.started > past.started then
    return false
  end
  local ended = past.state ~= 'in progress' and past.finished > 0
  return record.attempts < past.attempts or (record.attempts == past.attempts and ended)
end

local stored = redis.call('HGET', KEYS[2], ARGV[2])
if stored and stored ~= ARGV[3] and stored ~= ARGV[4] then
  local readable, past = pcall(cjson.decode, stored)
  if readable and type(past) == 'table' then
    if past.state == 'done' then
      return {'done', stored}
    end
    -- A damaged record has not all that is compared, and makes nothing late.
    local comparable, is_late = pcall(late, cjson.decode(ARGV[3]), past)
    if comparable and is_late then
      return {'stored'}
    end
  end
end
redis.call('PUBLISH', ARGV[5], ARGV[6])
redis.call('HSET', KEYS[2], ARGV[2], ARGV[3])
return {'stored'}
