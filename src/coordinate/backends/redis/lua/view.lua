-- Read the claim and all records of a scope at one instant.
--
-- KEYS: 1 claim, 2 markers
-- ARGV: 1 the incarnation that the server was known by, or '' if that was asked just now
-- Returns: {token or nil, claim (JSON) or nil, whether there is a claim, {field, record, field, record, ...}},
--          or {} if the server is another one than it was
-- Errors: READONLY this server is not a primary: what it says may be old

if ARGV[1] ~= '' then
  local incarnation = identity()
  if not incarnation then
    return redis.error_reply(REPLICA)
  elseif incarnation ~= ARGV[1] then
    return {}
  end
end

local claim = redis.call('HMGET', KEYS[1], 'token', 'record')
return {claim[1], claim[2], redis.call('EXISTS', KEYS[1]), redis.call('HGETALL', KEYS[2])}
