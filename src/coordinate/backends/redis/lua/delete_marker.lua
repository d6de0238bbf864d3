-- Forget one marker record.
--
-- KEYS: 1 markers
-- ARGV: 1 field, 2 channel of the scope
-- Returns: 1 forgotten, 0 there was none

if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then
  return 0
end
redis.call('PUBLISH', ARGV[2], 'reset')
return redis.call('HDEL', KEYS[1], ARGV[1])
