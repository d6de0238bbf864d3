-- Register a leader's token for a scope, if it is greater than the registered one, or that one again.
--
-- KEYS: 1 claim
-- ARGV: 1 token, 2 nonce, 3 claim (JSON), 4 channel of the scope
-- Returns: nil accepted; else the registered token
-- Errors: CORRUPT the registered claim has no usable token

local function greater(a, b)
  return #a > #b or (#a == #b and a > b)
end

local present = claimed_token(KEYS[1])
if not present then
  return redis.error_reply(CORRUPT)
end
local repeated = ARGV[1] == present and redis.call('HGET', KEYS[1], 'nonce') == ARGV[2]
if redis.call('EXISTS', KEYS[1]) == 1 and not repeated and not greater(ARGV[1], present) then
  return present
end
redis.call('PUBLISH', ARGV[4], 'claim')
redis.call('HSET', KEYS[1], 'token', ARGV[1], 'nonce', ARGV[2], 'record', ARGV[3])
return false
