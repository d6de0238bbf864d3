-- Read the claim and all records of a scope at one instant.
--
-- KEYS: 1 claim, 2 markers
-- ARGV: none
-- Returns: {token or nil, claim (JSON) or nil, whether there is a claim, {field, record, field, record, ...}}

local claim = redis.call('HMGET', KEYS[1], 'token', 'record')
return {claim[1], claim[2], redis.call('EXISTS', KEYS[1]), redis.call('HGETALL', KEYS[2])}
