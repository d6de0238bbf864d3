-- End whatever lease there is and raise the token, so that the holder's next renewal is refused; wake one waiter.
--
-- KEYS: 1 lease, 2 token counter, 3 queue, 4 waiters
-- ARGV: 1 name
-- Returns: the raised token

-- A damaged lease has no token to read, and breaking it is how an operator gets rid of it.
local held = redis.pcall('HMGET', KEYS[1], 'token', 'ttl')
local raised = next_token(KEYS[2], tonumber(held[1]) or 0, microseconds())
if redis.call('EXISTS', KEYS[1]) == 1 then
  wake(KEYS[3], KEYS[4], ARGV[1])
  redis.call('DEL', KEYS[1])
end
redis.call('HSET', KEYS[2], 'broken', raised)
keep_token(KEYS[2], raised, tonumber(held[2]) or 0)
return raised
